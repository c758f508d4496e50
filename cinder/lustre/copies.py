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

"""What Cinder's services copy: backups, and migrations to other back ends.

A service attaches what it copies, and gets the disk that a guest sees. Cinder
has no key for these copies, and a backup must not hold a tenant's data in the
clear: of an encrypted volume the copy is its *container*, the one qcow2 file
with LUKS in it, byte by byte, as Cinder's NFS driver has it too. Cinder copies
the key with the backup, and gives that copy to the volume it is restored to.

What is being read must not change. A volume in use is read from a snapshot of
its own. While a snapshot is backed up, its status keeps Cinder from deleting
it, and :func:`CopiesMixin._refuse_while_read` keeps others from being merged
into the images below it.
"""

import contextlib

from oslo_log import log as logging
from oslo_utils import excutils
from oslo_utils import units

from cinder import coordination
from cinder.db import api as db
from cinder import exception
from cinder.i18n import _
from cinder.lustre import images
from cinder.lustre import locks
from cinder import objects
from cinder.objects import fields
from cinder.volume import rpcapi
from cinder.volume import volume_types
from cinder.volume import volume_utils

LOG = logging.getLogger(__name__)

# How long to wait for a volume that is being copied before an attachment is
# refused, in seconds: less than Nova waits for the answer.
ATTACH_PATIENCE = 45

# What a volume is while Cinder copies it to, or from, another back end.
_MIGRATED = (fields.VolumeStatus.AVAILABLE, fields.VolumeStatus.MAINTENANCE,
             fields.VolumeStatus.RETYPING)

# What a container of LUKS and 64 KiB clusters may have besides the bytes of
# its disk: less than a thousandth for the tables, and the header of LUKS.
_TABLES = 1000
_HEADERS = 16 * units.Mi


class CopiesMixin:
    """The methods of a driver for what Cinder's services copy."""

    # Backups

    def get_backup_device(self, context, backup):
        """Return what cinder-backup is to attach, and whether a snapshot.

        What is made for the backup is noted there before it is: Cinder removes
        it when the backup is done, or when cinder-backup starts again.
        """
        volume = objects.Volume.get_by_id(context, backup.volume_id)
        with _failing_with(backup, volume):
            snapshot = self._snapshot_to_read(context, backup, volume)
            if (volume.encryption_key_id
                    and not self._is_one_container(volume, snapshot)):
                return self._flat_copy(context, backup, volume,
                                       snapshot), False
            return (snapshot, True) if snapshot else (volume, False)

    def _snapshot_to_read(self, context, backup, volume):
        if backup.snapshot_id:
            return objects.Snapshot.get_by_id(context, backup.snapshot_id)
        if volume.previous_status == fields.VolumeStatus.IN_USE:
            return self._temporary_snapshot(context, backup, volume)
        return None

    def _temporary_snapshot(self, context, backup, volume):
        """Take a snapshot for one backup; its status keeps users from it."""
        snapshot = objects.Snapshot(
            context=context, volume_id=volume.id, user_id=context.user_id,
            project_id=context.project_id,
            status=fields.SnapshotStatus.CREATING, progress='0%',
            volume_size=volume.size, display_name='backup-snap-' + volume.id,
            volume_type_id=volume.volume_type_id,
            encryption_key_id=volume.encryption_key_id,
            use_quota=False, metadata={})
        snapshot.create()
        backup.temp_snapshot_id = snapshot.id
        backup.save()
        with _in_error(snapshot):
            self.create_snapshot(snapshot)
        snapshot.status = fields.SnapshotStatus.BACKING_UP
        snapshot.progress = '100%'
        snapshot.save()
        return snapshot

    @locks.volume_locked
    def _is_one_container(self, volume, snapshot):
        """Tell whether one file is all that is to be backed up."""
        volume_images = self._images(volume)
        with volume_images.locked():
            image = (volume_images.snapshot(snapshot.id) if snapshot
                     else volume_images.active())
        return (image.backing is None
                and image.virtual_size == volume.size * units.Gi)

    def _flat_copy(self, context, backup, volume, snapshot):
        """Make a volume of one container of an encrypted chain.

        The key isn't recorded with it: whoever deletes a volume by the API
        deletes its key, and this one is another volume's.
        """
        copy = self._create_temp_volume(context, volume)
        backup.temp_volume_id = copy.id
        backup.save()
        self._note(copy, encrypted='true')
        with _in_error(copy):
            copy.encryption_key_id = volume.encryption_key_id
            try:
                copy.update(
                    self.create_volume_from_snapshot(copy, snapshot)
                    if snapshot else self.create_cloned_volume(copy, volume))
            finally:
                copy.encryption_key_id = None
        copy.status = fields.VolumeStatus.BACKING_UP
        copy.save()
        return copy

    # Snapshots, as cinder-backup attaches them

    def create_export_snapshot(self, context, snapshot, connector):
        """Nothing is exported."""

    def remove_export_snapshot(self, context, snapshot):
        """Nothing is exported."""

    @coordination.synchronized('{self.driver_prefix}-{snapshot.volume.id}',
                               blocking=ATTACH_PATIENCE)
    def initialize_connection_snapshot(self, snapshot, connector, **kwargs):
        """Tell how to open the images below a snapshot's overlay, to read.

        :raises InvalidVolume: they are qcow2, and the caller hasn't our
            connector
        """
        volume_images = self._images(snapshot.volume)
        with volume_images.locked():
            chain = volume_images.snapshot(snapshot.id).downwards
        self._refuse_larger(chain[0], snapshot, snapshot.volume_size)
        return self._opened_by_cinder(
            snapshot.volume, chain, connector, read_only=True,
            container_length=_container_length(chain[0].virtual_size))

    def terminate_connection_snapshot(self, snapshot, connector, **kwargs):
        """Nothing is to be undone."""

    # What is read must not change

    def _refuse_while_read(self, volume, snapshot, volume_images):
        """Refuse to merge images while cinder-backup has them open.

        Deleting a snapshot writes to the image below its overlay, which that
        snapshot and all newer ones consist of.

        :raises SnapshotIsBusy: the manager makes it available again
        """
        if _is_read_itself(volume) or self._is_below_a_reader(
                volume, volume_images.snapshots_on(snapshot.id)):
            LOG.warning('Snapshot %s can not be deleted now: its volume, or '
                        'a newer snapshot, is being backed up', snapshot.id)
            raise exception.SnapshotIsBusy(snapshot_name=snapshot.name)

    @staticmethod
    def _is_below_a_reader(volume, snapshot_ids):
        return any(
            snapshot.id in snapshot_ids
            and snapshot.status == fields.SnapshotStatus.BACKING_UP
            for snapshot in objects.SnapshotList.get_all_for_volume(
                volume._context, volume.id))

    # Containers

    def _is_encrypted(self, volume):
        return (volume.encryption_key_id is not None
                or 'encrypted' in self._admin_metadata(volume))

    def _refuse_chain_for_container(self, volume, chain):
        """Refuse a restoration where one container can't be all there is."""
        if (len(chain) > 1 and self._is_encrypted(volume)
                and volume.status == fields.VolumeStatus.RESTORING_BACKUP):
            raise exception.InvalidVolume(reason=_(
                "encrypted volume %s has snapshots, which a backup can't be "
                "restored below: delete them first, or restore to a new "
                "volume") % volume.id)

    def _length_to_copy(self, volume, size):
        """Return the least length of a volume's container, for this copy.

        A migration copies the file as long as it is.
        """
        if volume.status in _MIGRATED or not self._is_encrypted(volume):
            return 0
        return _container_length(size)

    def before_volume_copy(self, context, src_vol, dest_vol, remote=None):
        """Refuse to copy a disk or a container to where it is the other one.

        The source is deleted after the copy.

        :raises InvalidVolume: the target would not be what the source is
        """
        as_container = src_vol.encryption_key_id and not (
            volume_types.volume_types_encryption_changed(
                context, src_vol.volume_type_id, dest_vol.volume_type_id))
        target = self._connection_of(context, dest_vol)
        is_qcow2 = target['data'].get('format') == images.QCOW2
        if as_container and not is_qcow2:
            raise exception.InvalidVolume(reason=_(
                "encrypted volume %s can be migrated only to back ends that "
                "attach it as qcow2: this one would take the file for its "
                "disk") % src_vol.id)
        if (is_qcow2 and not as_container
                and target['driver_volume_type'] == self.driver_volume_type):
            raise exception.InvalidVolume(reason=_(
                "the target of %s is a qcow2 file, to which Cinder would copy "
                "the bytes of a disk: migrate to a back end or type without "
                "nfs_qcow2_volumes") % src_vol.id)

    @staticmethod
    def _connection_of(context, volume):
        """Return how a Cinder service attaches a volume of any back end."""
        service = rpcapi.VolumeAPI()
        properties = volume_utils.brick_get_connector_properties()
        try:
            return service.initialize_connection(context, volume, properties)
        finally:
            service.terminate_connection(context, volume, properties,
                                         force=True)
            service.remove_export(context, volume)

    def _refuse_qcow2_of_others(self, volume):
        """Refuse to be filled from a qcow2 file that is copied as it is.

        So does Cinder's NFS driver give its volumes (nfs_qcow2_volumes).
        """
        source = _migrated(volume)
        if source is None or source.encryption_key_id:
            return
        with source.obj_as_admin():
            metadata = source.admin_metadata
        if metadata.get('format') == images.QCOW2 and (
                'base_format' not in metadata):
            raise exception.InvalidVolume(reason=_(
                "the source of %s is a qcow2 file, whose bytes Cinder would "
                "copy instead of its disk") % volume.id)


def _container_length(size):
    """Return how many bytes a container of a disk counts as having, at least.

    An incremental backup compares as many blocks as the last one had, and a
    container grows with what is written.
    """
    return size + size // _TABLES + _HEADERS


def _migrated(volume):
    """Return the volume that a target of a migration is filled from."""
    role, _colon, source_id = (volume.migration_status or '').partition(':')
    if role != 'target':
        return None
    found = objects.VolumeList.get_all(volume._context.elevated(),
                                       filters={'id': source_id})
    return found[0] if found else None


def _is_read_itself(volume):
    """Tell whether a backup reads a volume's active image."""
    return (volume.status == fields.VolumeStatus.BACKING_UP
            and volume.previous_status != fields.VolumeStatus.IN_USE)


@contextlib.contextmanager
def _in_error(resource):
    """Show that what was being made could not be."""
    try:
        yield
    except Exception:
        with excutils.save_and_reraise_exception():
            resource.status = 'error'
            resource.save()


@contextlib.contextmanager
def _failing_with(backup, volume):
    """Let a backup fail that can't begin.

    cinder-backup waits to be called back and is not told of errors: the backup
    would stay in creation, and the volume be kept from all else, until that
    service is started again.
    """
    try:
        yield
    except Exception as exc:
        with excutils.save_and_reraise_exception():
            for snapshot_id in backup.snapshot_id, backup.temp_snapshot_id:
                if snapshot_id:
                    _make_available(volume._context, snapshot_id)
            if not backup.snapshot_id:
                db.volume_update(volume._context, volume.id, {
                    'status': volume.previous_status,
                    'previous_status': 'error_backing-up'})
            volume_utils.update_backup_error(backup, str(exc))


def _make_available(context, snapshot_id):
    """Let a snapshot be used that is no longer read."""
    objects.Snapshot.get_by_id(context, snapshot_id).conditional_update(
        {'status': fields.SnapshotStatus.AVAILABLE},
        {'status': fields.SnapshotStatus.BACKING_UP})
