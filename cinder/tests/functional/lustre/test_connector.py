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

"""What a Cinder service copies is what a guest sees.

The copies are made by Cinder's own managers, through os-brick, with a real
qemu-nbd. Where one service would call another one, it calls it here.
"""

import contextlib
import os
import subprocess
from unittest import mock

import ddt

from cinder.backup.drivers import lustre as lustre_backup
from cinder.backup import manager as backup_manager
from cinder import objects
from cinder.objects import fields
from cinder.tests.functional.lustre import base
from cinder.tests.unit import utils as tests_utils
from cinder.volume import manager as volume_manager
from cinder.volume import rpcapi as volume_rpcapi
from cinder.volume import volume_utils
from os_brick.initiator.connectors import lustre as lustre_connector
from os_brick import privileged
from os_brick.remotefs import lustre_disk

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
                volume_driver='cinder.volume.drivers.lustre.LustreDriver')
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


@ddt.ddt
class CopyTest(ConnectorTestCase):

    @ddt.data(('raw', 'qcow2'), ('qcow2', 'chain'), ('chain', 'raw'))
    @ddt.unpack
    def test_copy(self, source, target):
        source, target = self.make(source), self.make(target)
        self.fill(source)
        with self.connected(source) as src, self.connected(target) as dest:
            volume_utils.copy_volume(src, dest, 1024, '1M', sparse=True)
        self.assertEqual(self.content(source), self.content(target))
        self.assertEqual([], self.servers())
        self.check(target)

    def test_what_is_empty_takes_no_space(self):
        source, target = self.make('qcow2'), self.make('qcow2')
        self.fill(source)
        with self.connected(source) as src, self.connected(target) as dest:
            volume_utils.copy_volume(src, dest, 1024, '1M', sparse=True)
        self.assertLess(self.allocated(target),
                        self.allocated(source) + 4 * MIB)

    def test_a_service_that_has_not_mounted_the_share(self):
        volume = self.make('qcow2')
        self.fill(volume)
        content = self.content(volume)
        properties = volume_utils.brick_get_connector_properties()
        volume.status = 'backing-up'
        connection = self.driver.initialize_connection(volume, properties)
        self._unmount()
        connector = volume_utils.brick_get_connector(
            connection['driver_volume_type'], conn=connection)
        device = connector.connect_volume(connection['data'])
        try:
            self.assertTrue(connector.check_valid_device(device['path']))
            device['path'].seek(GIB - 512)
            self.assertEqual(bytes([8]) * 512, device['path'].read())
        finally:
            connector.disconnect_volume(connection['data'], device)
        volume.status = 'available'
        self.assertEqual(content, self.content(volume))

    def test_an_image_that_qemu_has_open(self):
        volume = self.make('qcow2')
        with self.connected(volume) as disk:
            disk.write(b'x')
            error = self.failure_of(lambda: self.connected(volume).__enter__())
        self.assertIn('lock', str(error))
        with self.connected(volume):
            self.assertEqual(1, len(self.servers()))
        self.assertEqual([], self.servers())

    def test_a_share_that_is_full(self):
        volume = self.make('qcow2')
        place = os.statvfs(self.directory(volume))
        filler = os.path.join(self.directory(volume), 'filler')
        with open(filler, 'wb') as f:
            os.posix_fallocate(f.fileno(), 0, place.f_bavail
                               * place.f_frsize - 64 * MIB)
        self.addCleanup(os.unlink, filler)

        def fill():
            with self.connected(volume) as disk:
                for _part in range(32):
                    disk.write(b'x' * 8 * MIB)

        self.assertIn('No space left', str(self.failure_of(fill)))
        self.assertEqual([], self.servers())
        os.truncate(filler, 0)
        self.check(volume)


class EncryptionTest(ConnectorTestCase):

    def make_encrypted(self):
        """Make a chain of two that is encrypted."""
        volume = self.create(status='available', **self.encrypted())
        self.write(volume, 4, 10 * MIB)
        self.snapshot(volume)
        volume.refresh()
        return volume

    def test_retype(self):
        """As a retype of Cinder does that changes the encryption."""
        plain, encrypted = self.make('chain'), self.make_encrypted()
        back = self.make('qcow2')
        self.fill(plain)
        with mock.patch.object(volume_rpcapi.VolumeAPI, 'get_capabilities',
                               return_value={'sparse_copy_volume': True}):
            self.manager._copy_volume_data(self.context, plain, encrypted)
            self.assertEqual(self.content(plain), self.content(encrypted))
            self.manager._copy_volume_data(self.context, encrypted, back)
        self.assertEqual(self.content(plain), self.content(back))
        self.assertEqual([], self.servers())

    def test_what_has_no_key_is_refused(self):
        source, target = self.make_encrypted(), self.make('qcow2')
        with self.connected(source) as src, self.connected(target) as dest:
            error = self.assertRaises(lustre_disk.DiskLocked,
                                      volume_utils.copy_volume, src, dest,
                                      1024, '1M')
        self.assertIn(source.name, str(error))
        self.assertIn('encrypted', str(error))


@ddt.ddt
class BackupTest(ConnectorTestCase):

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
        # It wants the context of a request.
        self.backups.message_api = mock.Mock()

    def back_up(self, volume, parent=None):
        backup = tests_utils.create_backup(
            self.context, volume.id, parent_id=parent and parent.id,
            size=volume.size, status=fields.BackupStatus.CREATING)
        backup.container = None
        backup.save()
        volume.status = 'backing-up'
        volume.previous_status = 'available'
        volume.save()
        self.backups.continue_backup(
            self.context, backup,
            objects.BackupDeviceInfo(volume=volume, secure_enabled=True))
        backup.refresh()
        self.assertEqual('available', backup.status)
        volume.refresh()
        return backup

    def restore(self, backup, volume, is_new):
        backup.status = fields.BackupStatus.RESTORING
        backup.save()
        volume.status = 'restoring-backup'
        volume.save()
        self.backups._run_restore(self.context, backup, volume, is_new)
        volume.status = 'available'
        volume.save()

    @ddt.data('qcow2', 'chain')
    def test_backup_and_restore(self, kind):
        source = self.make(kind)
        self.fill(source)
        full, content = self.back_up(source), self.content(source)
        # What was data and is zeros now must not come back.
        self.write(source, 0, 5 * MIB, 2 * MIB)
        self.write(source, 9, 300 * MIB)
        incremental = self.back_up(source, full)
        later = self.content(source)
        self.assertNotEqual(content, later)

        new = self.make('qcow2')
        self.restore(full, new, True)
        self.assertEqual(content, self.content(new))
        self.assertLess(self.allocated(new), 32 * MIB)
        self.restore(incremental, source, False)
        self.assertEqual(later, self.content(source))
        raw = self.make('raw')
        self.restore(incremental, raw, True)
        self.assertEqual(later, self.content(raw))
        self.assertEqual([], self.servers())
        self.check(source)

    def test_restore_of_what_ends_in_zeros(self):
        source = self.make('qcow2')
        self.write(source, 3, CHUNK)
        backup = self.back_up(source)
        target = self.create(2, status='available',
                             specs={'lustre__format': 'qcow2'})
        self.restore(backup, target, True)
        self.assertEqual(2 * GIB, self.content(target)[0])
        self.assert_reads(target, 3, CHUNK)

    def test_a_service_without_the_connector(self):
        volume = self.make('qcow2')
        before = self.content(volume)
        with mock.patch.object(lustre_connector.LustreConnector,
                               'get_connector_properties', return_value={}):
            error = self.failure_of(self.back_up, volume)
        self.assertIn('lustre:format=raw', str(error))
        volume.refresh()
        self.assertEqual(before, self.content(volume))
