#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.

"""A cinder-volume in one process, told on standard input what to ask of it.

All of the service is real: manager, driver, heartbeat, periodic tasks, and the
messages that requests are sent by, but for their transport, which does not
leave the process. It runs with eventlet or native threads, as the service
does, by OS_CINDER_DISABLE_EVENTLET_PATCHING.

Each line of input is JSON, as is each answer: ["create", pool] and
["delete", volume id], answered with the volume's id when the request is sent;
["pools"], answered with what the driver last reported.
"""

from cinder import monkey_patch; monkey_patch.patch()  # noqa

import json  # noqa: I100
import os
import shlex
import sys
import time
import uuid

from oslo_config import cfg
from oslo_log import log as logging
from oslo_privsep import priv_context

from cinder.common import config  # noqa: F401
from cinder import context
from cinder.db import migration
from cinder import objects
from cinder.objects import fields
from cinder import rpc
from cinder import service
from cinder.tests.functional.lustre import stand_ins
from cinder.tests.unit.lustre import releases
from cinder import utils
from cinder.volume import rpcapi
from cinder.volume import volume_types
import os_brick

CONF = cfg.CONF


class Requests:
    """What can be asked for: each public method is one."""

    def __init__(self, server):
        self._server = server
        self._context = context.get_admin_context()
        self._context.user_id = self._context.project_id = uuid.uuid4().hex
        self._type = volume_types.create(self._context, 'type', {})['id']
        self._api = rpcapi.VolumeAPI()

    def create(self, pool):
        volume = objects.Volume(
            self._context, size=1, status='creating', display_name='',
            host='%s#%s' % (self._server.host, pool),
            user_id=self._context.user_id, volume_type_id=self._type,
            project_id=self._context.project_id,
            attach_status=fields.VolumeAttachStatus.DETACHED)
        volume.create()
        self._api.create_volume(
            self._context, objects.Volume.get_by_id(self._context, volume.id),
            objects.RequestSpec.from_primitives(
                {'volume_id': volume.id, 'volume_properties': {}}),
            {}, allow_reschedule=False)
        return volume.id

    def delete(self, volume_id):
        volume = objects.Volume.get_by_id(self._context, volume_id)
        volume.status = 'deleting'
        volume.save()
        self._api.delete_volume(self._context, volume)
        return volume_id

    def pools(self):
        stats = self._server.manager.driver.get_volume_stats(refresh=False)
        return {pool['pool_name']: pool['backend_state']
                for pool in (stats or {}).get('pools', ())}


def _read():
    while True:
        try:
            return os.read(0, 1 << 16)
        except BlockingIOError:
            time.sleep(0.02)


def lines():
    """Read standard input without keeping green threads waiting."""
    text = b''
    while True:
        read = _read()
        if not read:
            return
        *complete, text = (text + read).split(b'\n')
        yield from complete


def main():
    answers = os.dup(1)
    os.set_blocking(0, False)
    os.dup2(2, 1)
    objects.register_all()
    CONF(sys.argv[1:], project='cinder')
    logging.setup(CONF, 'cinder')
    priv_context.init(root_helper=shlex.split(utils.get_root_helper()))
    os_brick.setup(CONF)
    rpc.init(CONF)
    migration.db_sync()
    stand_ins.let_transactions_wait(releases.database.get_engine())
    server = service.Service.create(
        host='test@lustre', service_name='lustre', binary='cinder-volume',
        coordination=True)
    server.start()
    requests = Requests(server)
    for line in lines():
        name, *arguments = json.loads(line)
        answer = json.dumps(getattr(requests, name)(*arguments))
        os.write(answers, answer.encode() + b'\n')
    # The service's own end waits for what is going on; the test does not.
    os._exit(0)


if __name__ == '__main__':
    main()
