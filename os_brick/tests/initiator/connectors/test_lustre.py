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
import shutil
import subprocess
import unittest
from unittest import mock

import ddt
import fixtures

from os_brick import exception
from os_brick.initiator import connector
from os_brick.initiator.connectors import lustre as lustre_connector
from os_brick.remotefs import lustre
from os_brick.remotefs import lustre_child
from os_brick.remotefs import lustre_disk
from os_brick.remotefs import lustre_guard
from os_brick.tests import base
from os_brick.tests.remotefs import lustre_fixtures

MIB = 1 << 20
NAME = '10.0.2.15@tcp:/lustre/a directory'
MAGIC = lustre.MAGIC['lustre']


class Mounter:
    """Mounts in a mount table of its own."""

    def __init__(self):
        self.table = {}
        self.mounts = []

    def mount(self, source, mount_point, options, timeout):
        self.mounts.append((source, mount_point, options, timeout))
        self.table[mount_point] = lustre.Mount(mount_point, 'lustre', source)
        return 0, ''


def _statfs(path):
    return MAGIC, 1, 1


class RegistrationTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.useFixture(lustre_fixtures.Registered())

    def test_factory(self):
        made = connector.InitiatorConnector.factory(
            'lustre', 'sudo', conn={'mount_point_base': '/mnt'},
            use_multipath=False, device_scan_attempts=3,
            expect_raw_disk=True)
        self.assertIsInstance(made, lustre_connector.LustreConnector)
        self.assertEqual('/mnt', made.get_search_path())

    def test_properties(self):
        with mock.patch.object(connector, 'unix_connector_list',
                               connector.unix_connector_list[-1:]):
            self.assertIs(True, connector.get_connector_properties(
                'sudo', '10.0.0.1', False, False)[lustre_connector.MARK])

    def test_twice_is_as_once(self):
        before = list(connector.unix_connector_list)
        lustre_connector.register(None)
        self.assertEqual(before, connector.unix_connector_list)

    def test_others_stay(self):
        for protocol in 'nfs', 'rbd':
            self.assertNotIn('lustre', connector.get_connector_mapping()[
                protocol.upper()])


@ddt.ddt
class LustreConnectorTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.base = self.useFixture(fixtures.TempDir()).path
        self.mounter = Mounter()
        self.useFixture(fixtures.MockPatchObject(
            lustre_connector, '_mounter', self.mounter))
        self.useFixture(fixtures.MockPatchObject(
            lustre, 'mounted_at', self.mounter.table.get))
        self.useFixture(fixtures.MockPatchObject(
            lustre_child, 'statfs', _statfs))
        call = lustre_guard.Guard.call
        self.useFixture(fixtures.MockPatchObject(
            lustre_guard.Guard, 'call',
            lambda guard, share, function, *args, **kwargs: (
                function(*args) if function is _statfs
                else call(guard, share, function, *args, **kwargs))))
        self.addCleanup(lustre_connector._share_client.cache_clear)
        self.connector = lustre_connector.LustreConnector(
            'sudo', conn={'mount_point_base': self.base})

    def properties(self, **kwargs):
        return {
            'export': NAME, 'options': 'flock,noatime', 'size': MIB,
            'chain': [['image', 'raw']], 'thin': True, 'encrypted': False,
            'client': {'attempts': 2, 'mount_timeout': 7, 'timeout': 60,
                       'fs_types': ['lustre']}, **kwargs}

    def path(self, name):
        directory = lustre.ShareClient(self.base, None).mount_point(
            lustre.Share.parse(NAME.replace(' ', '\\040')))
        os.makedirs(directory, exist_ok=True)
        return os.path.join(directory, name)

    def make(self, name, image_format='qcow2'):
        if not shutil.which('qemu-nbd'):
            raise unittest.SkipTest('qemu-utils is not installed')
        subprocess.run(['qemu-img', 'create', '-q', '-f', image_format,
                        self.path(name), str(MIB)], check=True)

    def connect(self, **kwargs):
        properties = self.properties(**kwargs)
        device = self.connector.connect_volume(properties)
        self.addCleanup(self.connector.disconnect_volume, properties, device)
        return device['path']

    def test_raw(self):
        self.make('image', 'raw')
        path = self.connect()
        self.assertEqual(self.path('image'), path)
        self.assertTrue(self.connector.check_valid_device(path))
        self.assertEqual([path], self.connector.get_volume_paths(
            self.properties()))

    def test_mounts_once(self):
        for _time in range(2):
            self.connect()
        self.assertEqual(
            [(NAME, os.path.dirname(self.path('')), 'flock,noatime', 7)],
            self.mounter.mounts)

    def test_raw_that_is_not_there(self):
        path = self.connect()
        self.assertFalse(self.connector.check_valid_device(path))

    def test_qcow2(self):
        self.make('image')
        disk = self.connect(chain=[['image', 'qcow2']])
        self.assertTrue(self.connector.check_valid_device(disk))
        disk.write(b'guest')
        disk.seek(7)
        self.assertTrue(self.connector.check_valid_device(disk))
        self.assertEqual(7, disk.tell())

    def test_chain(self):
        self.make('base', 'raw')
        with open(self.path('base'), 'r+b') as f:
            f.write(b'guest')
        self.make('image')
        disk = self.connect(chain=[['image', 'qcow2'], ['base', 'raw']])
        self.assertEqual(b'guest', disk.read(5))

    def test_disconnect(self):
        self.make('image')
        properties = self.properties(chain=[['image', 'qcow2']])
        device = self.connector.connect_volume(properties)
        self.connector.disconnect_volume(properties, device)
        self.assertTrue(device['path'].closed)
        self.assertFalse(self.connector.check_valid_device(device['path']))
        self.connector.disconnect_volume(properties, device)
        self.connector.disconnect_volume(properties, None)

    @ddt.data((False, False), (True, False), (False, True), (True, True))
    @ddt.unpack
    def test_disconnect_that_fails(self, force, ignore):
        disk = mock.Mock(spec=lustre_disk.Disk)
        disk.close.side_effect = OSError('no space')

        def disconnect():
            self.connector.disconnect_volume({}, {'path': disk}, force=force,
                                             ignore_errors=ignore)

        if force and ignore:
            disconnect()
        else:
            self.assertRaises(OSError, disconnect)

    def test_encrypted(self):
        self.make('image')
        disk = self.connect(chain=[['image', 'qcow2']], encrypted=True)
        self.assertTrue(self.connector.check_valid_device(disk))
        self.assertEqual(b'QFI\xfb', disk.read(4))

    def test_encrypted_chain(self):
        disk = self.connect(chain=[['image', 'qcow2'], ['base', 'qcow2']],
                            encrypted=True)
        # The encryptor comes after the check.
        self.assertTrue(self.connector.check_valid_device(disk))
        self.assertRaises(lustre_disk.DiskLocked, disk.read)

    @ddt.data(
        {'chain': []}, {'chain': None}, {'chain': [['image']]},
        {'chain': [['../image', 'raw']]}, {'chain': [['', 'raw']]},
        {'chain': [['/etc/passwd', 'raw']]}, {'chain': [['..', 'raw']]},
        {'chain': [['image', 'vmdk']]}, {'client': {}},
        {'encrypted': True})
    def test_malformed_properties(self, wrong):
        error = self.assertRaises(
            exception.BrickException, self.connector.connect_volume,
            self.properties(**wrong))
        self.assertIn('Malformed', str(error))
        self.assertEqual([], self.mounter.mounts)

    def test_options_that_locks_do_not_work_with(self):
        self.assertRaises(lustre.InvalidMountOptions,
                          self.connector.connect_volume,
                          self.properties(options='noflock'))

    def test_extend(self):
        self.assertRaises(NotImplementedError, self.connector.extend_volume,
                          self.properties())
