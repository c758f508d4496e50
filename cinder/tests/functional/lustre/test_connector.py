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

import os
from unittest import mock

import ddt

from cinder.tests.functional.lustre import base
from cinder.tests.functional.lustre import copying
from cinder.volume import rpcapi as volume_rpcapi
from cinder.volume import volume_utils
from os_brick.initiator.connectors import lustre as lustre_connector
from os_brick.remotefs import lustre_disk

GIB, MIB = base.GIB, base.MIB
CHUNK = copying.CHUNK


@ddt.ddt
class CopyTest(copying.ConnectorTestCase):

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


class EncryptionTest(copying.ConnectorTestCase):

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

    def test_a_chain_that_has_no_key_is_refused(self):
        source, target = self.make_encrypted(), self.make('qcow2')
        with self.connected(source) as src, self.connected(target) as dest:
            error = self.assertRaises(lustre_disk.DiskLocked,
                                      volume_utils.copy_volume, src, dest,
                                      1024, '1M')
        self.assertIn(source.name, str(error))
        self.assertIn('encrypted', str(error))


@ddt.ddt
class BackupTest(copying.BackupTestCase):

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

    @ddt.data('raw', 'qcow2', 'chain')
    def test_restore_over_a_larger_volume(self, kind):
        """Nothing of what it held stays, whatever its image is."""
        source = self.make('qcow2')
        self.fill(source)
        backup = self.back_up(source)
        target = self.make(kind)
        self.extend(target, 3)
        self.write(target, 5, GIB - 4096, 3 * MIB)
        self.write(target, 6, 3 * GIB - MIB)
        self.restore(backup, target, False)
        expected = self.create(3, status='available')
        self.fill(expected)
        self.assertEqual(self.content(expected), self.content(target))
        self.check(target)

    def test_a_service_without_the_connector(self):
        volume = self.make('qcow2')
        before = self.content(volume)
        with mock.patch.object(lustre_connector.LustreConnector,
                               'get_connector_properties', return_value={}):
            backup = self.begin(volume)
            self.backups.create_backup(self.context, backup)
        backup.refresh()
        self.assertEqual('error', backup.status)
        self.assertIn('needs the Lustre connector', backup.fail_reason)
        volume.refresh()
        self.assertEqual(before, self.content(volume))
