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

from nova import test
from nova.tests import fixtures as nova_fixtures
from nova.virt import driver as virt_driver
from nova.virt import fake
from nova.virt.libvirt.volume import lustre as volume_driver
from nova.virt.libvirt.volume import nfs
from nova.virt import lustre

ENCRYPTION = {'provider': 'luks', 'encryption_key_id': 'key', 'key_size': 256,
              'cipher': 'aes-xts-plain64', 'control_location': 'front-end'}


class LibvirtDriverTestCase(test.NoDBTestCase):

    def setUp(self):
        super().setUp()
        self.useFixture(nova_fixtures.LibvirtFixture())
        # As nova-compute does with compute_driver.
        self.driver = virt_driver.load_compute_driver(
            fake.FakeVirtAPI(), 'lustre.LibvirtDriver')

    def connection(self, driver_volume_type):
        return {'driver_volume_type': driver_volume_type,
                'serial': 'volume-id',
                'data': {'export': '192.0.2.1@tcp:/scratch/cinder',
                         'name': 'volume-1', 'format': 'qcow2',
                         'encrypted': True}}

    def test_is_loaded_by_name(self):
        self.assertIsInstance(self.driver, lustre.LibvirtDriver)

    def test_attaches_its_type_and_the_stock_ones(self):
        for protocol, expected in (
                ('lustre', volume_driver.LibvirtLustreVolumeDriver),
                ('nfs', nfs.LibvirtNFSVolumeDriver)):
            self.assertIsInstance(
                self.driver._get_volume_driver(self.connection(protocol)),
                expected)

    @mock.patch('os_brick.initiator.connector.get_connector_properties')
    def test_connector_is_marked(self, mock_properties):
        mock_properties.return_value = {'host': 'compute'}
        self.assertEqual({'host': 'compute', 'lustre_connector': True},
                         self.driver.get_volume_connector(mock.sentinel.any))

    def connect_encrypted(self, driver_volume_type):
        """Connect a volume; returns whether Nova would format its file."""
        with mock.patch('nova.virt.libvirt.volume.mount.mount'), \
                mock.patch('castellan.key_manager.API') as api, \
                mock.patch('os_brick.encryptors.luks.is_luks',
                           return_value=False), \
                mock.patch('os_brick.encryptors.luks.LuksEncryptor'
                           '._format_volume') as mock_format, \
                mock.patch.object(self.driver._host, 'find_secret',
                                  return_value=None), \
                mock.patch.object(self.driver._host,
                                  'create_secret') as mock_secret:
            api.return_value.get.return_value.get_encoded.return_value = b'k'
            self.driver._connect_volume(
                mock.sentinel.context, self.connection(driver_volume_type),
                mock.Mock(uuid='instance'), dict(ENCRYPTION))
        mock_secret.assert_called_once_with('volume', 'volume-id',
                                            password='6b')
        return mock_format.called

    def test_qcow2_of_an_encrypted_volume_is_not_overwritten(self):
        self.assertFalse(self.connect_encrypted('lustre'))

    def test_stock_driver_overwrites_it(self):
        """Why Cinder refuses such a volume to hosts without this driver."""
        self.assertTrue(self.connect_encrypted('nfs'))
