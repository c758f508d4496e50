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

from unittest import mock

import ddt

from os_brick import encryptors
from os_brick.encryptors import cryptsetup
from os_brick.encryptors import luks
from os_brick.encryptors import lustre as lustre_encryptor
from os_brick import exception
from os_brick.remotefs import lustre_container
from os_brick.tests import base
from os_brick.tests.remotefs import lustre_fixtures

KEY_ID = '5ec2e7'


@ddt.ddt
class LustreEncryptorTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.useFixture(lustre_fixtures.Registered())
        self.keymgr = mock.Mock()
        self.keymgr.get.return_value.get_encoded.return_value = b'\x0a\xff'
        self.disk = mock.Mock(spec=lustre_container.EncryptedDisk)

    def encryptor(self, provider, volume_type, path):
        return encryptors.get_volume_encryptor(
            'sudo', {'driver_volume_type': volume_type,
                     'data': {'device_path': path, 'volume_id': 'id'}},
            self.keymgr, execute=mock.Mock(), control_location='front-end',
            provider=provider, encryption_key_id=KEY_ID)

    @ddt.data('luks', 'luks2', 'nova.volume.encryptors.luks.LuksEncryptor')
    def test_of_our_volumes(self, provider):
        encryptor = self.encryptor(provider, 'lustre', self.disk)
        self.assertIs(lustre_encryptor.LustreEncryptor, type(encryptor))
        encryptor.attach_volume('context', provider=provider, cipher='x')
        self.keymgr.get.assert_called_once_with('context', KEY_ID)
        self.disk.unlock.assert_called_once_with('0aff')
        encryptor.detach_volume(provider=provider)
        self.disk.lock.assert_called_once_with()

    @ddt.data(('luks', luks.LuksEncryptor), ('luks2', luks.Luks2Encryptor),
              ('plain', cryptsetup.CryptsetupEncryptor))
    @ddt.unpack
    def test_of_other_volumes(self, provider, expected):
        encryptor = self.encryptor(provider, 'iscsi', '/dev/disk/by-id/x')
        self.assertIs(expected, type(encryptor))
        self.assertEqual('/dev/disk/by-id/x', encryptor.symlink_path)
        self.assertEqual(KEY_ID, encryptor.encryption_key_id)

    def test_of_a_volume_that_was_given_as_a_path(self):
        self.assertRaises(exception.VolumeEncryptionNotSupported,
                          self.encryptor, 'luks', 'lustre', '/mnt/volume')

    def test_extend(self):
        encryptor = self.encryptor('luks', 'lustre', self.disk)
        self.assertRaises(NotImplementedError, encryptor.extend_volume,
                          'context')
