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

"""cinder-volume's manager for back ends that volumes are migrated from.

The service that a volume leaves copies it. With another driver than ours,
os-brick doesn't know volumes on Lustre there. This makes the connector known,
and changes nothing else::

    [DEFAULT]
    volume_manager = cinder.lustre.volume_manager.VolumeManager
"""

from cinder.privsep import lustre as privileged
from cinder.volume import manager
from os_brick.initiator.connectors import lustre as lustre_connector

lustre_connector.register(privileged)


class VolumeManager(manager.VolumeManager):
    """Cinder's own, in a process that has the Lustre connector."""
