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

"""The options of the Lustre drivers, for oslo-config-generator."""

import itertools

from cinder import objects
# Before Cinder 29 its drivers can't be imported without its objects.
objects.register_all()
from cinder.backup.drivers import lustre as backup_driver
from cinder.volume.drivers import lustre as volume_driver


def list_opts():
    """Return (group, options), as the ``oslo.config.opts`` entry point."""
    return [
        ('DEFAULT', itertools.chain(backup_driver.lustre_backup_opts)),
        ('backend_defaults', itertools.chain(volume_driver.lustre_opts)),
    ]
