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

"""cinder-volume and cinder-backup in this process, as they really are.

The managers are Cinder's own, so that the driver's methods are called in
their order, with their records and states. Three things are replaced: a
message to a service calls its manager at once, the image service keeps its
images in files, and what the API does to records is done here.
"""

import contextlib
import os
import subprocess
import uuid

from castellan import key_manager
from oslo_config import cfg
from oslo_service import loopingcall
from oslo_utils import units

from cinder.backup.drivers import lustre as lustre_backup
from cinder.backup import manager as backup_manager
from cinder.backup import rpcapi as backup_rpcapi
from cinder.image import glance
from cinder import objects
from cinder.objects import base as objects_base
from cinder.objects import fields
from cinder.tests.unit import utils as tests_utils
from cinder.volume.flows.api import create_volume
from cinder.volume import group_types
from cinder.volume import manager as volume_manager
from cinder.volume import rpcapi as volume_rpcapi
from cinder.volume import volume_utils
from os_brick.initiator.connectors import lustre as lustre_connector
import os_brick.privileged

CONF = cfg.CONF

_HOST = 'test@lustre'
_DRIVER = 'cinder.volume.drivers.lustre.LustreDriver'
# Its module has to be loaded, for its options.
_BACKUP_DRIVER = lustre_backup.__name__ + '.LustreBackupDriver'


class _Messages:
    """Calls a manager where a message would be sent to its service."""

    def __init__(self, manager):
        self._manager = manager

    def call(self, context, method, **arguments):
        serializer = objects_base.CinderObjectSerializer()
        return getattr(self._manager, method)(context, **{
            name: serializer.deserialize_entity(
                context, serializer.serialize_entity(context, value))
            for name, value in arguments.items()})

    cast = call

    @staticmethod
    def can_send_version(version):
        return True


class ImageService:
    """Keeps images in files of a directory."""

    temp_images = None

    def __init__(self, directory):
        self._directory = directory
        self._images = {}

    def create(self, disk_format, **properties):
        """Note an image that has no data yet, and return its id."""
        image_id = str(uuid.uuid4())
        self._images[image_id] = {
            'id': image_id, 'name': image_id, 'status': 'queued',
            'disk_format': disk_format, 'container_format': 'bare',
            'size': 0, 'min_disk': 0, 'min_ram': 0, 'properties': {},
            'owner': 'project', 'visibility': 'private', **properties}
        return image_id

    def show(self, context, image_id):
        return dict(self._images[image_id])

    def path(self, image_id):
        return os.path.join(self._directory, 'image-' + image_id)

    def update(self, context, image_id, meta, data=None, **kwargs):
        with open(self.path(image_id), 'wb') as image:
            _copy_sparsely(data, image)
        self.uploaded(image_id, **meta)

    def uploaded(self, image_id, **meta):
        """Note that an image's data is there."""
        self._images[image_id].update(
            meta, status='active', size=os.path.getsize(self.path(image_id)))

    def download(self, context, image_id, data):
        with open(self.path(image_id), 'rb') as image:
            _copy_sparsely(image, data)

    def get_location(self, context, image_id):
        return None, None

    def delete(self, context, image_id):
        del self._images[image_id]
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(image_id))

    def delete_all(self):
        """Delete all images: each may take what its volume could hold."""
        for image_id in list(self._images):
            self.delete(None, image_id)


def _copy_sparsely(source, target):
    """Copy a file and leave its holes out: services may not, but are slow."""
    end = os.fstat(source.fileno()).st_size
    offset = 0
    while offset < end:
        try:
            offset = os.lseek(source.fileno(), offset, os.SEEK_DATA)
        except OSError:
            break
        hole = os.lseek(source.fileno(), offset, os.SEEK_HOLE)
        while offset < hole:
            piece = os.pread(source.fileno(), min(units.Mi, hole - offset),
                             offset)
            offset += os.pwrite(target.fileno(), piece, offset)
    target.truncate(end)


class Services:
    """What a user of Cinder can ask for.

    Volumes, snapshots and backups are named by their ids: as with the API,
    what is known of them is what the database says.

    :param case: a :class:`cinder.tests.functional.lustre.base.LustreTestCase`
        with a driver that is set up
    """

    def __init__(self, case):
        self._case = case
        self.images = ImageService(case.temp)
        # As root there is no need for a daemon.
        os_brick.privileged.default.set_client_mode(False)
        case.addCleanup(os_brick.privileged.default.set_client_mode, True)
        self._set_up_volumes()
        self._set_up_backups()
        for api, manager in ((volume_rpcapi.VolumeAPI, self._volumes),
                             (backup_rpcapi.BackupAPI, self._backups)):
            case.mock_object(api, '_get_cctxt',
                             return_value=_Messages(manager))
        case.mock_object(glance, 'get_default_image_service',
                         return_value=self.images)

    @property
    def context(self):
        """A new one for each message; managers change theirs."""
        return self._case.context.elevated()

    def _set_up_volumes(self):
        self._volumes = volume_manager.VolumeManager(
            _DRIVER, service_name='lustre', host=_HOST)
        self._volumes.driver = self._case.driver
        self._case.driver.set_initialized()
        self._volumes.stats = {'allocated_capacity_gb': 0, 'pools': {}}
        objects.Service(self.context, host=_HOST,
                        binary='cinder-volume', topic='cinder-volume',
                        availability_zone='nova',
                        rpc_current_version=self._volumes.RPC_API_VERSION,
                        object_current_version=objects_base.OBJ_VERSIONS
                        .get_current()).create()

    def _set_up_backups(self):
        for name, value in {
                'backup_driver': _BACKUP_DRIVER,
                'lustre_backup_share': self._case.backup_share,
                'lustre_backup_mount_point': os.path.join(self._case.temp,
                                                          'backups'),
                'lustre_backup_mount_timeout': 10,
                'lustre_backup_file_system_types': (
                    self._case.file_system_types),
                'backup_compression_algorithm': 'zstd',
                'backup_file_size': 64 * units.Mi,
                'backup_sha_block_size_bytes': 4 * units.Mi}.items():
            self._case.override_config(name, value)
        self._backups = backup_manager.BackupManager()
        with contextlib.suppress(loopingcall.LoopingCallDone):
            self._backups._setup_backup_driver(self.context)
        self._case.addCleanup(self._unmount_backups)

    def _unmount_backups(self):
        base = os.path.join(self._case.temp, 'backups')
        for name in os.listdir(base) if os.path.isdir(base) else ():
            subprocess.run(['umount', '-l', os.path.join(base, name)],
                           capture_output=True)

    def volumes(self):
        """Return {id: volume} of all there are."""
        return {volume.id: volume
                for volume in objects.VolumeList.get_all(self.context)}

    def volume(self, volume_id):
        return objects.Volume.get_by_id(self.context, volume_id)

    def snapshot(self, snapshot_id):
        return objects.Snapshot.get_by_id(self.context, snapshot_id)

    # Volumes

    def create(self, size, volume_type, share=0, source=None, snapshot=None,
               image=None):
        """Create a volume of so many GiB, and return its id."""
        volume = self._case.volume_record(
            size, share, volume_type_id=volume_type, source_volid=source,
            snapshot_id=snapshot, encryption_key_id=self._new_key(
                volume_type, source, snapshot, image))
        self._volumes.create_volume(
            self.context, self.volume(volume.id),
            {'image_id': image, 'volume_properties': {}},
            allow_reschedule=False)
        return volume.id

    def _new_key(self, volume_type, source, snapshot, image):
        """Make the key of a volume, None if its type doesn't ask for one."""
        task = create_volume.ExtractVolumeRequestTask(self.images, [])
        return task._get_encryption_key_id(
            key_manager.API(CONF), self.context, volume_type,
            self.snapshot(snapshot) if snapshot else None,
            self.volume(source) if source else None,
            self.images.show(self.context, image) if image else None)

    def delete(self, volume_id):
        """Delete a volume, with its snapshots if it has any."""
        volume = self._in_state(self.volume(volume_id), 'deleting')
        for snapshot in objects.SnapshotList.get_all_for_volume(
                self.context, volume_id):
            self._in_state(snapshot, 'deleting')
        self._volumes.delete_volume(self.context, volume, cascade=True)

    def delete_failed(self):
        """Delete the volumes that could not be created."""
        for volume in objects.VolumeList.get_all(
                self.context, filters={'status': 'error'}):
            self.delete(volume.id)

    def extend(self, volume_id, size):
        """Give a volume so many GiB."""
        volume = self._in_state(self.volume(volume_id), 'extending')
        self._volumes.extend_volume(self.context, volume, size, [])

    def rebuild(self, volume_id, image_id):
        """Fill a volume anew from an image."""
        volume = self.volume(volume_id)
        volume.previous_status = volume.status
        self._volumes.reimage(
            self.context, self._in_state(volume, 'downloading'),
            self.images.show(self.context, image_id))

    def unmanage(self, volume_id):
        """Forget a volume, and return the name of its file."""
        volume = self._in_state(self.volume(volume_id), 'unmanaging')
        self._volumes.delete_volume(self.context, volume, unmanage_only=True)
        return volume.name

    def manage(self, volume_type, share, reference):
        """Make a file that Cinder doesn't know into a volume."""
        volume = self._case.volume_record(0, share,
                                          volume_type_id=volume_type)
        self._volumes.manage_existing(self.context, self.volume(volume.id),
                                      reference)
        return volume.id

    def upload(self, volume_id, disk_format):
        """Make an image of a volume, and return its id."""
        volume = self._in_state(self.volume(volume_id), 'uploading')
        properties = {}
        if volume.encryption_key_id:
            properties['cinder_encryption_key_id'] = (
                volume_utils.clone_encryption_key(
                    self.context, key_manager.API(CONF),
                    volume.encryption_key_id))
        image_id = self.images.create(disk_format, **properties)
        self._volumes.copy_volume_to_image(self.context, volume_id,
                                           self.images.show(self.context,
                                                            image_id))
        return image_id

    def migrate(self, volume_id, share, volume_type=None):
        """Copy a volume to a share, through Cinder, under its own id."""
        volume = self.volume(volume_id)
        volume.previous_status = volume.status
        if volume_type:
            volume.status = 'retyping'
        volume.migration_status = 'starting'
        volume.save()
        self._volumes.migrate_volume(
            self.context, volume, {'host': self._case.host(share)},
            force_host_copy=True, new_type_id=volume_type)

    @contextlib.contextmanager
    def attached(self, volume_id):
        """Attach a volume as Nova does, and give its connection.

        An encrypted one as our driver for Nova does: stock Nova can't.
        """
        volume = self._in_state(self.volume(volume_id), 'attaching')
        connector = {'host': 'compute',
                     lustre_connector.MARK: bool(volume.encryption_key_id)}
        connection = self._volumes.initialize_connection(
            self.context, volume, connector)['data']
        attachment = self._volumes.attach_volume(
            self.context, volume_id, str(uuid.uuid4()), connector['host'],
            '/dev/vdb', 'rw')
        try:
            yield connection
        finally:
            self._volumes.terminate_connection(self.context, volume_id,
                                               connector)
            self._volumes.detach_volume(self.context, volume_id,
                                        attachment.id)

    # Snapshots

    def take_snapshot(self, volume_id):
        """Take a snapshot, and return its id."""
        snapshot = self._snapshot_record(volume_id)
        self._volumes.create_snapshot(self.context,
                                      self.snapshot(snapshot.id))
        return snapshot.id

    def take_group_snapshot(self, volume_ids):
        """Take snapshots of volumes at one time, and return their ids."""
        group_type = group_types.create(
            self.context, str(uuid.uuid4()),
            {'consistent_group_snapshot_enabled': '<is> True'})
        group = tests_utils.create_group(self.context, host=_HOST,
                                         group_type_id=group_type.id)
        self._put_into(group.id, volume_ids)
        group_snapshot = tests_utils.create_group_snapshot(
            self.context, group.id, group_type.id)
        snapshots = [self._snapshot_record(
            volume_id, group_snapshot_id=group_snapshot.id)
            for volume_id in volume_ids]
        self._volumes.create_group_snapshot(self.context, group_snapshot)
        self._put_into(None, volume_ids)
        return [snapshot.id for snapshot in snapshots]

    def _put_into(self, group_id, volume_ids):
        for volume_id in volume_ids:
            volume = self.volume(volume_id)
            volume.group_id = group_id
            volume.save()

    def _snapshot_record(self, volume_id, **fields_):
        volume = self.volume(volume_id)
        return tests_utils.create_snapshot(
            self.context, volume_id, status=fields.SnapshotStatus.CREATING,
            volume_type_id=volume.volume_type_id, volume_size=volume.size,
            encryption_key_id=volume.encryption_key_id, **fields_)

    def unmanage_snapshot(self, snapshot_id):
        """Forget a snapshot."""
        snapshot = self._in_state(self.snapshot(snapshot_id), 'unmanaging')
        self._volumes.delete_snapshot(self.context, snapshot,
                                      unmanage_only=True)

    def manage_snapshot(self, volume_id, reference):
        """Make a snapshot that Cinder doesn't know one of a volume's."""
        snapshot = self._snapshot_record(volume_id)
        self._volumes.manage_existing_snapshot(
            self.context, self.snapshot(snapshot.id), reference)
        return snapshot.id

    def delete_snapshot(self, snapshot_id):
        snapshot = self._in_state(self.snapshot(snapshot_id), 'deleting')
        self._volumes.delete_snapshot(self.context, snapshot)

    def revert(self, volume_id, snapshot_id):
        self._volumes.revert_to_snapshot(
            self.context,
            self._in_state(self.volume(volume_id), 'reverting'),
            self._in_state(self.snapshot(snapshot_id), 'restoring'))

    # Backups

    def back_up(self, volume_id):
        """Back a volume up, and return the backup's id."""
        volume = self.volume(volume_id)
        backup = tests_utils.create_backup(self.context, volume_id,
                                           size=volume.size)
        backup.container = None
        backup.save()
        volume.previous_status = volume.status
        self._in_state(volume, 'backing-up')
        self._backups.create_backup(self.context, backup)
        return backup.id

    def restore(self, backup_id, volume_id, is_new=False):
        """Restore a backup to a volume.

        :param is_new: the volume was made for that, and holds nothing
        """
        backup = objects.Backup.get_by_id(self.context, backup_id)
        self._in_state(self.volume(volume_id), 'restoring-backup')
        self._backups.restore_backup(
            self.context, self._in_state(backup, 'restoring'), volume_id,
            is_new)

    def delete_backup(self, backup_id):
        backup = objects.Backup.get_by_id(self.context, backup_id)
        self._backups.delete_backup(self.context,
                                    self._in_state(backup, 'deleting'))

    @staticmethod
    def _in_state(thing, status):
        """Note what the API notes before it sends a request."""
        thing.status = status
        thing.save()
        return thing
