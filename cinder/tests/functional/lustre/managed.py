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

"""The driver below a real VolumeManager, as cinder-volume has them."""

import contextlib
from unittest import mock

from cinder import exception
from cinder import objects
from cinder.tests.functional.lustre import base
from cinder.tests.unit import utils as tests_utils
from cinder.volume import manager
import os_brick.privileged


class Requests:
    """Asks a manager at once for what is asked for by messages.

    Each request loads its volumes anew, as one does that comes by a message.
    """

    # What the manager wants the ID of.
    _BY_ID = ('terminate_connection', 'remove_export')

    def __init__(self, asked):
        self._asked = asked

    def __call__(self):
        return self

    def __getattr__(self, name):
        def request(context, *args, **kwargs):
            return getattr(self._asked, name)(
                context, *(self._received(name, arg) for arg in args),
                **{key: self._received(name, arg)
                   for key, arg in kwargs.items()})
        return request

    def get_capabilities(self, context, _backend, discover):
        return self._asked.get_capabilities(context, discover)

    def delete_volume(self, context, volume, unmanage_only=False,
                      cascade=False):
        """What nobody waits for can't fail the one who asks."""
        with contextlib.suppress(exception.CinderException):
            self._asked.delete_volume(
                context, self._received('delete_volume', volume),
                unmanage_only, cascade)

    def _received(self, name, value):
        if not isinstance(value, objects.Volume):
            return value
        if name in self._BY_ID:
            return value.id
        return objects.Volume.get_by_id(value._context, value.id)


class ManagerTestCase(base.LustreTestCase):
    """Tests of requests as they come to cinder-volume."""

    def setUp(self):
        super().setUp()
        # With the driver of Cinder's own tests, which then gives way.
        self.manager = manager.VolumeManager(host='test@lustre')
        self.manager.driver = self.driver
        self.manager.stats = {'pools': {}, 'allocated_capacity_gb': 0}
        self.driver.set_initialized()
        tests_utils.create_service(self.context, {
            'host': 'test@lustre', 'binary': 'cinder-volume',
            'topic': 'cinder-volume'})
        os_brick.privileged.default.set_client_mode(False)
        self.addCleanup(os_brick.privileged.default.set_client_mode, True)
        for target, stand_in in (
                ('cinder.volume.rpcapi.VolumeAPI', Requests(self.manager)),
                # Root needs no helper.
                ('cinder.utils.get_root_helper', lambda: 'env')):
            patch = mock.patch(target, stand_in)
            patch.start()
            self.addCleanup(patch.stop)

    def loaded(self, volume):
        return objects.Volume.get_by_id(self.context, volume.id)

    def assert_gone(self, volume):
        self.assertRaises(exception.VolumeNotFound, self.loaded, volume)
