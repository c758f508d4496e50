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

"""Groups of volumes, as far as Cinder's generic groups leave it to a driver.

Snapshots of a group are consistent: the locks of all its volumes are held
while the overlays are made, and none of the volumes may be attached.
"""

from oslo_log import log as logging
from oslo_utils import excutils

from cinder import coordination
from cinder import exception
from cinder.i18n import _
from cinder.objects import fields

LOG = logging.getLogger(__name__)


def _attempt(undo, what, *args):
    """Undo something as far as that is possible.

    What is left of it goes with its deletion.
    """
    try:
        undo(what, *args)
    except Exception:
        LOG.exception('What has been done for %s could not be undone',
                      what.name)


class GroupsMixin:
    """The methods of a driver that cinder-volume calls for groups."""

    def create_group(self, context, group):
        """Nothing is made for a group."""
        return {'status': fields.GroupStatus.AVAILABLE}

    def update_group(self, context, group, add_volumes=None,
                     remove_volumes=None):
        """Nothing is kept of a group."""
        return None, None, None

    def delete_group(self, context, group, volumes):
        """Delete the volumes of a group; go on when one fails."""
        updates = [self._deleted(self.delete_volume, volume)
                   for volume in volumes]
        return {'status': group.status}, updates

    def create_group_snapshot(self, context, group_snapshot, snapshots):
        """Take a snapshot of each volume, at one point in time.

        :raises InvalidVolume: a volume is attached
        """
        volumes = [snapshot.volume for snapshot in snapshots]
        self._with_locks(volumes, self._create_snapshots, snapshots)
        available = fields.SnapshotStatus.AVAILABLE
        return ({'status': fields.GroupSnapshotStatus.AVAILABLE},
                [{'id': snapshot.id, 'status': available}
                 for snapshot in snapshots])

    def delete_group_snapshot(self, context, group_snapshot, snapshots):
        """Delete the snapshots of a group snapshot; go on when one fails."""
        updates = [self._deleted(self.delete_snapshot, snapshot)
                   for snapshot in snapshots]
        return {'status': group_snapshot.status}, updates

    def create_group_from_src(self, context, group, volumes,
                              group_snapshot=None, snapshots=None,
                              source_group=None, source_vols=None):
        """Make a group's volumes from another group, or of its snapshots."""
        if snapshots:
            parents = [snapshot.volume for snapshot in snapshots]
            make, sources = self._from_snapshot, snapshots
        else:
            make, sources, parents = self._clone, source_vols, source_vols
        self._with_locks([*volumes, *parents], self._make_all, make, volumes,
                         sources)
        return None, [{'id': volume.id,
                       'provider_location': volume.provider_location}
                      for volume in volumes]

    def _with_locks(self, volumes, work, *args):
        """Do something while nobody else changes any of the volumes."""
        names = {'%s-%s' % (self.driver_prefix, volume.id)
                 for volume in volumes}
        return coordination.synchronized(*names)(work)(*args)

    def _create_snapshots(self, snapshots):
        for snapshot in snapshots:
            if self._is_volume_attached(self._as_it_is_now(snapshot.volume)):
                raise exception.InvalidVolume(reason=_(
                    "volume %s is attached: snapshots of a group are taken "
                    "of detached volumes only, since its servers could not "
                    "be told all at once") % snapshot.volume_id)
        self._all_or_none(self._create_snapshot, self._delete_snapshot,
                          [(snapshot,) for snapshot in snapshots])

    def _make_all(self, make, volumes, sources):
        self._all_or_none(make, lambda volume, source:
                          self._images(volume).remove(),
                          list(zip(volumes, sources)))

    @staticmethod
    def _all_or_none(do, undo, arguments):
        done = []
        try:
            for each in arguments:
                done.append(each)
                do(*each)
        except Exception:
            with excutils.save_and_reraise_exception():
                for each in done:
                    _attempt(undo, *each)

    @staticmethod
    def _deleted(delete, what):
        """Delete a volume or a snapshot, and tell what has become of it."""
        try:
            delete(what)
        except Exception:
            # The others are independent of it.
            LOG.exception('%s could not be deleted', what.name)
            return {'id': what.id, 'status': 'error_deleting'}
        return {'id': what.id, 'status': 'deleted'}
