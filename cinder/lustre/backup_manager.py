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

"""cinder-backup's manager for those who keep backups elsewhere.

With a backup driver of Cinder's own, nothing of ours is loaded by
cinder-backup, and os-brick doesn't know volumes on Lustre there. This makes
the connector known, and changes nothing else::

    [DEFAULT]
    backup_manager = cinder.lustre.backup_manager.BackupManager

``backup_driver`` stays what it is: Cinder notes it with each backup, and
refuses to restore a backup that was made by another one.
"""

from cinder.backup import manager
from cinder.privsep import lustre as privileged
from os_brick.initiator.connectors import lustre as lustre_connector

lustre_connector.register(privileged)


class BackupManager(manager.BackupManager):
    """Cinder's own, in a process that has the Lustre connector."""
