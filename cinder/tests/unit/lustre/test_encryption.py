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

"""Tests of what qemu-img is told of a volume's key."""

import types
from unittest import mock

import ddt
from oslotest import base

from cinder import exception
from cinder.lustre import encryption


@ddt.ddt
class KeyTestCase(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        self.volume = types.SimpleNamespace(
            id='V', encryption_key_id='K', _context=mock.Mock())
        self.manager = mock.Mock()
        self.manager.get.return_value.get_encoded.return_value = b'\x0f\xff'
        self.patch('castellan.key_manager.API', lambda conf: self.manager)
        self.key = encryption.Key.of(self.volume)

    def patch(self, target, new):
        patch = mock.patch(target, new)
        patch.start()
        self.addCleanup(patch.stop)

    def test_not_encrypted(self):
        self.volume.encryption_key_id = None
        self.assertIsNone(encryption.Key.of(self.volume))

    def test_fetched_when_needed_and_once(self):
        self.assertEqual([], self.manager.mock_calls)
        for _time in range(2):
            self.assertEqual(b'0fff', self.key.passphrase)
        self.manager.get.assert_called_once_with(self.volume._context, 'K')

    def test_key_manager_fails(self):
        self.manager.get.side_effect = KeyError('no such key')
        error = self.assertRaises(exception.VolumeDriverException,
                                  lambda: self.key.passphrase)
        self.assertIn('key of volume V', str(error))
        self.assertIn('no such key', str(error))

    def test_arguments_are_without_the_passphrase(self):
        self.assertEqual(
            ('--object', 'secret,id=key-V,format=raw,file=' + self.key.file),
            self.key.as_object)
        self.assertEqual([], self.manager.mock_calls)

    def test_to_open(self):
        self.assertEqual({'encrypt': {'format': 'luks',
                                      'key-secret': 'key-V'}},
                         self.key.to_open('qcow2'))
        self.assertEqual({'key-secret': 'key-V'}, self.key.to_open('luks'))

    # The latter is how dm-crypt counts.
    @ddt.data(256, 512)
    def test_to_create(self, key_size):
        self.patch('cinder.volume.volume_utils.check_encryption_provider',
                   lambda volume, context: {'cipher': 'aes-xts-plain64',
                                            'key_size': key_size})
        options = ('key-secret=key-V', 'iter-time=10', 'cipher-alg=aes-256',
                   'cipher-mode=xts', 'ivgen-alg=plain64')
        self.assertEqual(('-o', ','.join(options)),
                         self.key.to_create('luks'))
        self.assertEqual(
            ('-o', ','.join('encrypt.' + option
                            for option in (*options, 'format=luks'))),
            self.key.to_create('qcow2'))
