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

"""Cinder's own services that copy volumes, below a test."""

import contextlib
import os
import subprocess
from unittest import mock

from cinder.backup.drivers import lustre as lustre_backup
from cinder.backup import manager as backup_manager
from cinder import exception
from cinder.objects import fields
from cinder.tests.functional.lustre import base
from cinder.tests.unit import utils as tests_utils
from cinder.volume import manager as volume_manager
from cinder.volume import volume_utils
from os_brick.initiator.connectors import lustre as lustre_connector
from os_brick import privileged

GIB, MIB = base.GIB, base.MIB

# cinder-backup's, but smaller, so that most of a volume is in chunks of zeros.
CHUNK = 64 * MIB


class VolumeService:
    """What cinder-backup calls of cinder-volume, without the messages."""

    def __init__(self, manager):
        self._manager = manager

    def initialize_connection(self, context, volume, connector):
        return self._manager.initialize_connection(context, volume, connector)

    def terminate_connection(self, context, volume, connector, force=False):
        self._manager.terminate_connection(context, volume.id, connector,
                                           force=force)

    def remove_export(self, context, volume, sync=False):
        self._manager.remove_export(context, volume.id)

    def initialize_connection_snapshot(self, context, snapshot, connector):
        return self._manager.initialize_connection_snapshot(
            context, snapshot.id, connector)

    def terminate_connection_snapshot(self, context, snapshot, connector,
                                      force=False):
        self._manager.terminate_connection_snapshot(
            context, snapshot.id, connector, force=force)

    def remove_export_snapshot(self, context, snapshot, sync=False):
        self._manager.remove_export_snapshot(context, snapshot.id)

    # Nobody waits for what these come to.

    def get_backup_device(self, context, backup, volume):
        with contextlib.suppress(exception.CinderException):
            self._manager.get_backup_device(context, backup,
                                            want_objects=True,
                                            async_call=True)

    def delete_snapshot(self, context, snapshot):
        with contextlib.suppress(exception.CinderException):
            self._manager.delete_snapshot(context, snapshot)

    def delete_volume(self, context, volume):
        with contextlib.suppress(exception.CinderException):
            self._manager.delete_volume(context, volume)

    def secure_file_operations_enabled(self, context, volume):
        return self._manager.secure_file_operations_enabled(context, volume)


class ConnectorTestCase(base.LustreTestCase):

    def setUp(self):
        super().setUp()
        privileged.default.set_client_mode(False)
        self.addCleanup(privileged.default.set_client_mode, True)
        # The mount points of each test are others.
        self.addCleanup(lustre_connector._share_client.cache_clear)
        self.manager = self._volume_manager()

    def _volume_manager(self):
        with mock.patch.object(volume_manager.VolumeManager,
                               '_set_resource_host', mock.Mock()):
            manager = volume_manager.VolumeManager(
                volume_driver='cinder.volume.drivers.lustre.LustreDriver',
                host='test@lustre')
        manager.stats = {'pools': {}, 'allocated_capacity_gb': 0}
        manager.driver = self.driver
        self.driver.set_initialized()
        self.driver.db = manager.db
        return manager

    @contextlib.contextmanager
    def connected(self, volume):
        """Attach a volume as cinder-volume does for a copy."""
        properties = volume_utils.brick_get_connector_properties()
        info = self.manager._attach_volume(self.context, volume, properties)
        try:
            yield info['device']['path']
        finally:
            self.manager._detach_volume(self.context, info, volume,
                                        properties)

    def make(self, kind):
        """Make a volume of 1 GiB: raw, qcow2 or a chain of three."""
        volume = self.create(status='available', specs={
            'lustre__format': 'qcow2' if kind == 'qcow2' else 'raw'})
        if kind == 'chain':
            for pattern in 1, 2:
                self.write(volume, pattern, pattern * 10 * MIB, 2 * MIB)
                self.snapshot(volume)
            self.write(volume, 3, 21 * MIB)
            volume.refresh()
        return volume

    def fill(self, volume):
        """Write where copies go wrong: across blocks, and at the end."""
        self.write(volume, 7, 5 * MIB + 4096, 3 * MIB)
        self.write(volume, 8, GIB - 512, 512)

    def allocated(self, volume):
        """Return the bytes that a volume of one image takes."""
        return os.stat(self.path(volume)).st_blocks * 512

    def servers(self):
        """Return the command lines of the servers of this test's images."""
        listing = subprocess.run(['pgrep', '-af', 'qemu-nbd.*' +
                                  self.mount_base], capture_output=True,
                                 text=True).stdout
        return listing.splitlines()


class BackupTestCase(ConnectorTestCase):
    """Tests of cinder-backup, with our driver unless a test sets another."""

    def setUp(self):
        super().setUp()
        driver = 'cinder.backup.drivers.lustre.LustreBackupDriver'
        for name, value in {
                'backup_driver': driver,
                'lustre_backup_share': self.shares[1],
                'lustre_backup_mount_point': os.path.join(self.temp,
                                                          'backup'),
                'lustre_backup_mount_timeout': 10,
                'lustre_backup_file_system_types': base.FILE_SYSTEM_TYPES,
                'backup_file_size': CHUNK,
                'backup_sha_block_size_bytes': MIB,
                'backup_compression_algorithm': 'zstd'}.items():
            self.override_config(name, value)
        driver = lustre_backup.LustreBackupDriver(self.context)
        driver.check_for_setup_error()
        self.addCleanup(subprocess.run, [
            'umount', '-l', driver.backup_path], capture_output=True)
        self.backups = backup_manager.BackupManager()
        self.backups.volume_rpcapi = VolumeService(self.manager)
        self.backups.is_initialized = True
        # It wants the context of a request.
        self.backups.message_api = mock.Mock()
        patch = mock.patch.object(volume_manager.backup_rpcapi, 'BackupAPI',
                                  lambda: self.backups)
        patch.start()
        self.addCleanup(patch.stop)

    def begin(self, volume, parent=None, snapshot=None):
        """Note a backup in the database, as the API does."""
        backup = tests_utils.create_backup(
            self.context, volume.id, parent_id=parent and parent.id,
            size=volume.size, status=fields.BackupStatus.CREATING,
            snapshot_id=snapshot and snapshot.id)
        backup.container = None
        backup.save()
        if snapshot:
            snapshot.status = fields.SnapshotStatus.BACKING_UP
            snapshot.save()
        else:
            volume.previous_status, volume.status = volume.status, 'backing-up'
            volume.save()
        return backup

    def back_up(self, volume, parent=None, snapshot=None):
        backup = self.begin(volume, parent, snapshot)
        try:
            self.backups.create_backup(self.context, backup)
        finally:
            for resource in filter(None, (backup, volume, snapshot)):
                resource.refresh()
        self.assertEqual(('available', None),
                         (backup.status, backup.fail_reason))
        return backup

    def restore(self, backup, volume, is_new):
        backup.status = fields.BackupStatus.RESTORING
        backup.save()
        volume.status = 'restoring-backup'
        volume.save()
        self.backups._run_restore(self.context, backup, volume, is_new)
        volume.status = 'available'
        volume.save()
