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

"""One driver, as its service runs it, and what it is told to do.

Runs as the service's user, with a configuration file and a database of its
own. Reads a request a line from standard input, JSON, and answers each with a
line: what came of it, and when the driver was called and when it returned
(CLOCK_MONOTONIC). What Cinder does around the driver (records in the database,
access to a volume's file for the backup) is done outside of that time.

This file is copied to where that user can read it, so it stands alone.
"""

# As cinder-volume and cinder-backup start.
from cinder import monkey_patch; monkey_patch.patch()  # noqa

import cProfile  # noqa: I100
import json
import os
import pstats
import shlex
import sys
import time
import traceback
import uuid

from oslo_config import cfg
from oslo_log import log as logging
from oslo_privsep import priv_context
from oslo_utils import importutils

from cinder.common import config  # noqa: F401
from cinder import context
from cinder import coordination
from cinder import objects
from cinder.objects import fields
from cinder import rpc
from cinder import utils
from cinder.volume import configuration
from cinder.volume import volume_types
import os_brick

CONF = cfg.CONF

# What volumes are made of, as our driver's volume types say it. The NFS
# driver has a backend for each and doesn't look at the types.
KINDS = {
    'raw': {'provisioning:type': 'thin', 'lustre:format': 'raw'},
    'qcow2': {'provisioning:type': 'thin', 'lustre:format': 'qcow2'},
    'thick': {'provisioning:type': 'thick', 'lustre:format': 'raw'},
}


class Clock:
    """When the driver was called, and when it returned."""

    def __init__(self, profile=None):
        self.profile = profile
        self.began = self.ended = 0

    def __enter__(self):
        if self.profile:
            self.profile.enable()
        self.began = time.monotonic_ns()

    def __exit__(self, *exc):
        self.ended = time.monotonic_ns()
        if self.profile:
            self.profile.disable()


class Runner:
    """The requests: each public method is one."""

    def __init__(self):
        self.context = context.get_admin_context()
        self.context.user_id = self.context.project_id = uuid.uuid4().hex
        self.types = {
            kind: volume_types.create(self.context, kind + uuid.uuid4().hex,
                                      specs)['id']
            for kind, specs in KINDS.items()}
        self.drivers = {name: self._driver(name)
                        for name in CONF.enabled_backends}
        self.backup_driver = importutils.import_class(CONF.backup_driver)
        self.profiles = {}
        self.clock = Clock()

    def _driver(self, name):
        """Make a driver as the volume manager does."""
        manager = importutils.import_module('cinder.volume.manager')
        conf = configuration.Configuration(manager.volume_backend_opts,
                                           config_group=name)
        driver = importutils.import_object(
            conf.volume_driver, configuration=conf, host='bench@' + name,
            cluster_name=None, is_vol_db_empty=True, active_backend_id=None)
        driver.do_setup(self.context)
        driver.check_for_setup_error()
        driver.init_capabilities()
        driver.set_initialized()
        return driver

    def _of(self, kind):
        return self.drivers.get(kind) or next(iter(self.drivers.values()))

    def _host(self, kind):
        driver = self._of(kind)
        stats = driver.get_volume_stats(refresh=False)
        pools = stats.get('pools') or [{'pool_name': 'pool'}]
        return '%s#%s' % (driver.host, pools[0]['pool_name'])

    # Records, as the API and the manager would make them

    def _volume(self, volume_id):
        return objects.Volume.get_by_id(self.context, volume_id)

    def _snapshot(self, snapshot_id):
        return objects.Snapshot.get_by_id(self.context, snapshot_id)

    def _new_volume(self, kind, size=1):
        volume = objects.Volume(
            self.context, size=size, host=self._host(kind),
            user_id=self.context.user_id, status='creating',
            project_id=self.context.project_id, display_name=kind,
            attach_status=fields.VolumeAttachStatus.DETACHED,
            volume_type_id=self.types[kind])
        volume.create()
        return self._volume(volume.id)

    @staticmethod
    def _created(volume, update):
        volume.update(update or {})
        volume.status = 'available'
        volume.save()
        return {'volume': volume.id}

    @staticmethod
    def _kind(volume):
        return volume.display_name

    def _driver_of(self, volume):
        return self._of(self._kind(volume))

    def _set_status(self, volume, status):
        volume.status = status
        volume.save()

    # Volumes

    def create(self, kind):
        volume = self._new_volume(kind)
        with self.clock:
            update = self._of(kind).create_volume(volume)
        return self._created(volume, update)

    def delete(self, volume):
        volume = self._volume(volume)
        self._set_status(volume, 'deleting')
        with self.clock:
            self._driver_of(volume).delete_volume(volume)
        volume.destroy()

    def extend(self, volume, size):
        volume = self._volume(volume)
        with self.clock:
            self._driver_of(volume).extend_volume(volume, size)
        volume.size = size
        volume.save()

    def clone(self, volume):
        source = self._volume(volume)
        volume = self._new_volume(self._kind(source), source.size)
        with self.clock:
            update = self._driver_of(source).create_cloned_volume(volume,
                                                                  source)
        return self._created(volume, update)

    def snapshot(self, volume):
        snapshot = objects.Snapshot(
            self.context, volume_id=volume, user_id=self.context.user_id,
            project_id=self.context.project_id, metadata={},
            status=fields.SnapshotStatus.CREATING,
            volume_size=self._volume(volume).size, display_name='')
        snapshot.create()
        snapshot = self._snapshot(snapshot.id)
        driver = self._driver_of(snapshot.volume)
        with self.clock:
            driver.create_snapshot(snapshot)
        snapshot.status = fields.SnapshotStatus.AVAILABLE
        snapshot.save()
        return {'snapshot': snapshot.id}

    def delete_snapshot(self, snapshot):
        snapshot = self._snapshot(snapshot)
        driver = self._driver_of(snapshot.volume)
        snapshot.status = fields.SnapshotStatus.DELETING
        snapshot.save()
        with self.clock:
            driver.delete_snapshot(snapshot)
        snapshot.destroy()

    def from_snapshot(self, snapshot):
        snapshot = self._snapshot(snapshot)
        kind = self._kind(snapshot.volume)
        volume = self._new_volume(kind, snapshot.volume_size)
        with self.clock:
            update = self._of(kind).create_volume_from_snapshot(volume,
                                                                snapshot)
        return self._created(volume, update)

    def stats(self):
        driver = next(iter(self.drivers.values()))
        with self.clock:
            stats = driver.get_volume_stats(refresh=True)
        for pool in stats.get('pools') or []:
            if pool.get('backend_state', 'up') != 'up':
                raise RuntimeError('the pool is down: see the log')

    def where(self, volume, status='attaching'):
        """The path and the format of a volume's active image."""
        volume = self._volume(volume)
        driver = self._driver_of(volume)
        before, volume.status = volume.status, status
        data = driver.initialize_connection(volume, {})['data']
        path = os.path.join(os.path.dirname(driver.local_path(volume)),
                            data['name'])
        driver.terminate_connection(volume, {})
        volume.status = before
        return {'path': path, 'format': data['format']}

    # Backups

    def _backup_service(self):
        """Make a backup driver: cinder-backup does so for each operation."""
        return self.backup_driver(self.context)

    def _opened(self, volume, status, mode):
        """Open a volume's file as cinder-backup does."""
        path = self.where(volume.id, status)['path']
        if self._driver_of(volume).secure_file_operations_enabled():
            return open(path, mode)
        # As root, for the time that it is used.
        with utils.temporary_chown(path):
            return open(path, mode)

    def backup(self, volume, compression):
        CONF.set_override('backup_compression_algorithm', compression)
        volume = self._volume(volume)
        backup = objects.Backup(
            self.context, user_id=self.context.user_id,
            project_id=self.context.project_id, volume_id=volume.id,
            status=fields.BackupStatus.CREATING, size=volume.size,
            display_name='', service=CONF.backup_driver, host='bench')
        backup.create()
        backup = objects.Backup.get_by_id(self.context, backup.id)
        with self._opened(volume, 'backing-up', 'rb') as file:
            with self.clock:
                self._backup_service().backup(backup, utils.tpool_wrap(file))
        backup.status = fields.BackupStatus.AVAILABLE
        backup.save()
        return {'backup': backup.id}

    def restore(self, backup, volume):
        volume = self._volume(volume)
        self._set_status(volume, 'restoring-backup')
        backup = objects.Backup.get_by_id(self.context, backup)
        backup.status = fields.BackupStatus.RESTORING
        backup.save()
        with self._opened(volume, 'restoring-backup', 'wb') as file:
            with self.clock:
                self._backup_service().restore(
                    backup, volume.id, utils.tpool_wrap(file), True)
        self._driver_of(volume).terminate_connection(volume, {})
        self._set_status(volume, 'available')

    def delete_backup(self, backup):
        backup = objects.Backup.get_by_id(self.context, backup)
        with self.clock:
            self._backup_service().delete_backup(backup)
        backup.destroy()

    # Looking closer

    def handle(self, request):
        """Carry a request out; the answer is ready for JSON."""
        name = request.pop('request')
        profile = None
        if request.pop('profile', False):
            profile = self.profiles.setdefault(name, cProfile.Profile())
        self.clock = Clock(profile)
        value = getattr(self, name)(**request)
        return {'value': value, 'began': self.clock.began,
                'ended': self.clock.ended}

    def save_profiles(self, prefix):
        for name, profile in self.profiles.items():
            with open('%s-%s.profile' % (prefix, name), 'w') as out:
                stats = pstats.Stats(profile, stream=out)
                stats.sort_stats('cumulative').print_stats(80)


def start():
    objects.register_all()
    # They register options, and can't be imported before the objects.
    importutils.import_module('cinder.volume.manager')
    importutils.import_module('cinder.backup.manager')
    CONF(sys.argv[1:], project='cinder')
    logging.setup(CONF, 'cinder')
    priv_context.init(root_helper=shlex.split(utils.get_root_helper()))
    os_brick.setup(CONF)
    rpc.init(CONF)
    coordination.COORDINATOR.start()
    return Runner()


def answer(runner, line):
    try:
        return runner.handle(json.loads(line))
    except Exception:
        return {'error': traceback.format_exc()}


def main():
    # What anything else prints must not get between the answers.
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)
    os.umask(0o022)
    runner = start()
    print(json.dumps({'value': 'started', 'began': 0, 'ended': 0}),
          file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(runner, line)), file=answers, flush=True)
    coordination.COORDINATOR.stop()


if __name__ == '__main__':
    main()
