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

import os
import unittest
from unittest import mock

import ddt

from nova import exception
from nova.tests.unit.virt.libvirt.volume import test_mount
from nova.tests.unit.virt.libvirt.volume import test_volume
from nova import utils
from nova.virt.libvirt.volume import lustre
from nova.virt.libvirt.volume import mount

SHARE = '192.0.2.1@tcp:192.0.2.2@tcp:/scratch/cinder'
MOUNT_POINT = os.path.join('/mnt', utils.get_hash_str(SHARE))


@ddt.ddt
class LibvirtLustreVolumeDriverTestCase(test_volume.LibvirtVolumeBaseTestCase):

    def setUp(self):
        super().setUp()
        self.useFixture(test_mount.MountFixture(self))
        mount.get_manager()._reset_state()
        mount.get_manager().host_up(self.fake_host)
        self.flags(lustre_mount_point_base='/mnt', group='libvirt')
        self.driver = lustre.LibvirtLustreVolumeDriver(self.fake_host)

    def connection(self, name='volume-1', **data):
        return {'driver_volume_type': 'lustre', 'serial': 'volume-id',
                'data': {'export': SHARE, 'name': name, 'format': 'raw',
                         'options': 'flock,user_xattr', **data}}

    def disk(self, connection, **more):
        return self.driver.get_config(dict(connection, **more),
                                      self.disk_info).format_dom()

    def test_one_mount_for_all_volumes_of_a_share(self):
        connections = [self.connection(name) for name in ('a', 'b')]
        instances = [mock.Mock(uuid=name) for name in ('one', 'other')]
        for instance in instances:
            for connection in connections:
                self.driver.connect_volume(connection, instance)
        self.mock_mount.assert_called_once_with(
            'lustre', SHARE, MOUNT_POINT, ['-o', 'flock,user_xattr'])

        for instance in instances:
            for connection in connections:
                self.mock_umount.assert_not_called()
                self.driver.disconnect_volume(connection, instance)
        self.mock_umount.assert_called_once_with(MOUNT_POINT)

    def test_unmounted_after_a_snapshot(self):
        """Of which Nova learns while the volume is attached."""
        instance = mock.Mock(uuid='one')
        self.driver.connect_volume(self.connection('volume-1'), instance)
        self.driver.disconnect_volume(
            self.connection('volume-1.snapshot', format='qcow2'), instance)
        self.mock_umount.assert_called_once_with(MOUNT_POINT)

    @ddt.data((None, None, 'flock'),
              (None, '', 'flock'),
              (None, 'flock,ro', 'flock,ro'),
              ('flock,noatime', 'flock,ro', 'flock,noatime'))
    @ddt.unpack
    def test_mount_options(self, configured, from_cinder, expected):
        self.flags(lustre_mount_options=configured, group='libvirt')
        self.driver.connect_volume(self.connection(options=from_cinder),
                                   mock.Mock())
        self.assertEqual(['-o', expected], self.mock_mount.call_args.args[3])

    @ddt.data('noflock', 'ro,localflock')
    def test_mount_options_without_locks_are_refused(self, options):
        self.assertRaises(
            exception.InvalidVolume, self.driver.connect_volume,
            self.connection(options=options), mock.Mock())
        self.flags(lustre_mount_options=options, group='libvirt')
        self.assertRaises(exception.InvalidVolume, self.driver.connect_volume,
                          self.connection(), mock.Mock())
        self.mock_mount.assert_not_called()

    @ddt.data('raw', 'qcow2')
    def test_disk(self, image_format):
        connection = self.connection(format=image_format)
        self.driver.connect_volume(connection, mock.Mock())
        disk = self.disk(connection)
        self._assertFileTypeEquals(disk, MOUNT_POINT + '/volume-1')
        driver = disk.find('./driver')
        self.assertEqual({'name': 'qemu', 'type': image_format,
                          'cache': 'none', 'io': 'native'},
                         dict(driver.attrib))
        self.assertEqual('volume-id', disk.find('./serial').text)
        self.assertIsNone(disk.find('./shareable'))

    @unittest.skipUnless(
        'use_default_aio_mode_for_volumes' in lustre.CONF.libvirt,
        'An option since Nova 33')
    def test_disk_with_default_aio_mode(self):
        self.flags(use_default_aio_mode_for_volumes=True, group='libvirt')
        self.assertIsNone(self.disk(self.connection()).find('./driver')
                          .get('io'))

    def test_disk_with_discard(self):
        disk = self.disk(self.connection(discard=True))
        self.assertEqual('unmap', disk.find('./driver').get('discard'))

    def test_disk_of_several_servers(self):
        disk = self.disk(self.connection(), multiattach=True)
        self.assertIsNotNone(disk.find('./shareable'))

    @ddt.data(None, 'vmdk')
    def test_format_is_not_guessed(self, image_format):
        connection = self.connection(format=image_format)
        self.assertRaises(exception.InvalidVolume, self.driver.connect_volume,
                          connection, mock.Mock())
        self.mock_mount.assert_not_called()
        self.assertRaises(exception.InvalidVolume, self.disk, connection)
        del connection['data']['format']
        self.assertRaises(exception.InvalidVolume, self.disk, connection)

    def test_raw_is_extended(self):
        self.assertEqual(2 << 30, self.driver.extend_volume(
            self.connection(), mock.Mock(), 2 << 30))

    def test_qcow2_is_not(self):
        self.assertRaises(
            NotImplementedError, self.driver.extend_volume,
            self.connection(format='qcow2'), mock.Mock(), 2 << 30)
