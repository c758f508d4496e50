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

from cinder.tests.functional.lustre import base
from cinder.volume import manager


class ManagerTestCase(base.LustreTestCase):
    """Tests of requests as they come to cinder-volume."""

    def setUp(self):
        super().setUp()
        # With the driver of Cinder's own tests, which then gives way.
        self.manager = manager.VolumeManager(host='test@lustre')
        self.manager.driver = self.driver
        self.manager.stats = {'pools': {}, 'allocated_capacity_gb': 0}
        self.driver.set_initialized()
