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

"""What cinder-volume does to the database around the driver's methods."""

from cinder import objects
from cinder.objects import fields
from cinder.tests.unit import utils as tests_utils


class RecordsMixin:
    """For test cases with a ``context`` and a ``driver``."""

    def _created(self, volume, update):
        volume.update(update)
        volume.status = 'available'
        volume.save()
        return objects.Volume.get_by_id(self.context, volume.id)

    def snapshot_record(self, volume, status=fields.SnapshotStatus.CREATING):
        snapshot = tests_utils.create_snapshot(self.context, volume.id,
                                               status=status)
        return objects.Snapshot.get_by_id(self.context, snapshot.id)

    def snapshot(self, volume):
        """Take a snapshot."""
        snapshot = self.snapshot_record(volume)
        self.driver.create_snapshot(snapshot)
        snapshot.status = fields.SnapshotStatus.AVAILABLE
        snapshot.save()
        return objects.Snapshot.get_by_id(self.context, snapshot.id)
