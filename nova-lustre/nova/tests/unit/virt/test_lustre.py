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

import fixtures
from oslo_serialization import jsonutils
from oslo_utils.fixture import uuidsentinel as uuids

from nova import context as nova_context
from nova import exception
from nova import objects
from nova.objects import migrate_data
from nova import test
from nova.tests import fixtures as nova_fixtures
from nova.tests.unit import fake_block_device
from nova.virt import block_device
from nova.virt import driver as virt_driver
from nova.virt import fake
from nova.virt.libvirt import driver
from nova.virt.libvirt import guest as libvirt_guest
from nova.virt.libvirt.volume import lustre as volume_driver
from nova.virt.libvirt.volume import nfs
from nova.virt import lustre

ENCRYPTION = {'provider': 'luks', 'encryption_key_id': 'key', 'key_size': 256,
              'cipher': 'aes-xts-plain64', 'control_location': 'front-end'}

DISK = """
<disk type='file' device='disk'>
  <driver name='qemu' type='raw' cache='%s' io='native'/>
  <source file='/var/lib/nova/mnt/0f3c/volume'/>
  <target dev='vda' bus='virtio'/>
  <serial>%s</serial>
</disk>"""
EMPTY_DRIVE = """
<disk type='file' device='cdrom'>
  <target dev='sda' bus='sata'/>
  <readonly/>
</disk>"""

# libvirt's; Nova's stand-in for it has none.
UNSAFE = 512


class LibvirtDriverTestCase(test.NoDBTestCase):

    def setUp(self):
        super().setUp()
        self.useFixture(nova_fixtures.LibvirtFixture())
        self.useFixture(fixtures.MockPatchObject(
            driver.libvirt, 'VIR_MIGRATE_UNSAFE', UNSAFE, create=True))
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

    def migrate(self, *disks, driver_volume_type='lustre'):
        """Migrate a guest; returns the flags that libvirt is given.

        :param disks: XML of each, of volumes with serials
        """
        domain = mock.Mock()
        domain.XMLDesc.return_value = (
            '<domain><devices>%s</devices></domain>' % ''.join(disks))
        data = migrate_data.LibvirtLiveMigrateData(
            block_migration=False, serial_listen_addr='127.0.0.1',
            bdms=[migrate_data.LibvirtLiveMigrateBDMInfo(
                serial=serial, connection_info={
                    'driver_volume_type': driver_volume_type, 'data': {}})
                  for serial in ('volume-1', 'volume-2')])
        with mock.patch('nova.virt.libvirt.migration.get_updated_guest_xml'):
            self.driver._live_migration_operation(
                mock.sentinel.context, mock.Mock(vm_state='active'), 'dest',
                False, data, libvirt_guest.Guest(domain), [])
        domain.migrateToURI3.assert_called_once()
        return domain.migrateToURI3.call_args.kwargs['flags']

    def expect_unsafe(self, expected, *disks, **kwargs):
        """Whether libvirt is told not to look at the disks itself."""
        flags = self.migrate(*disks, **kwargs)
        self.assertEqual(self.driver._live_migration_flags,
                         flags & ~UNSAFE)
        self.assertIs(expected, bool(flags & UNSAFE))

    def test_live_migration_of_volumes_on_lustre(self):
        self.expect_unsafe(True, DISK % ('none', 'volume-1'))
        self.expect_unsafe(True, DISK % ('none', 'volume-1'),
                           DISK % ('directsync', 'volume-2'))
        self.expect_unsafe(True, DISK % ('none', 'volume-1'), EMPTY_DRIVE)

    def test_live_migration_of_what_a_host_caches(self):
        self.expect_unsafe(False, DISK % ('writeback', 'volume-1'))
        self.expect_unsafe(False, DISK % ('none', 'volume-1'),
                           DISK % ('default', 'volume-2'))

    def test_live_migration_of_other_disks(self):
        self.expect_unsafe(False, DISK % ('none', 'volume-1'),
                           DISK % ('none', 'another'))
        self.expect_unsafe(False, DISK % ('none', 'volume-1'),
                           driver_volume_type='nfs')

    def arrived(self, label='+64055:+64055', driver_volume_type='lustre',
                status=None):
        """Complete a migration; returns whose the images are made.

        :param status: of the image, as os.stat() has it
        """
        domain = mock.Mock()
        domain.XMLDesc.return_value = (
            '<domain><devices>%s</devices><seclabel type="dynamic" '
            'model="dac" relabel="yes"><label>%s</label></seclabel>'
            '</domain>' % (DISK % ('none', 'volume-1')
                           + DISK % ('none', 'another'), label))
        mapping = [{'connection_info': {
            'driver_volume_type': driver_volume_type, 'serial': 'volume-1'}}]
        with mock.patch.object(driver.LibvirtDriver,
                               'post_live_migration_at_destination'), \
                mock.patch.object(self.driver._host, 'get_guest',
                                  return_value=libvirt_guest.Guest(domain)), \
                mock.patch('nova.privsep.path.chown') as mock_chown, \
                mock.patch.object(lustre.os, 'stat', return_value=mock.Mock(
                    **status or {'st_uid': 0, 'st_gid': 0})):
            self.driver.post_live_migration_at_destination(
                mock.sentinel.context, mock.sentinel.instance,
                mock.sentinel.network_info, block_device_info={
                    'block_device_mapping': mapping})
        return [call.args for call in mock_chown.mock_calls]

    def test_images_are_given_to_qemu_where_it_arrives(self):
        self.assertEqual([('/var/lib/nova/mnt/0f3c/volume', 64055, 64055)],
                         self.arrived())

    def test_images_that_stay_whose_they_are(self):
        for status in ({'st_uid': 64055, 'st_gid': 0},
                       {'st_uid': 995, 'st_gid': 64055}):
            self.assertEqual([], self.arrived(status=status))
        self.assertEqual([], self.arrived(driver_volume_type='nfs'))
        self.assertEqual([], self.arrived(label=''))

    def test_images_that_can_not_be_given_to_qemu(self):
        with mock.patch.object(lustre, 'privileged') as mock_privileged:
            mock_privileged.chown.side_effect = PermissionError(
                1, 'Operation not permitted')
            self.arrived()
        self.assertIn('snapshot of its volume will fail',
                      self.stdlog.logger.output)

    def start(self, *mappings):
        """Start a guest; returns what its disks are made from."""
        with mock.patch.object(driver.LibvirtDriver,
                               '_hard_reboot') as mock_start:
            self.driver.power_on(
                mock.sentinel.context, mock.sentinel.instance,
                mock.sentinel.network_info,
                {'block_device_mapping': list(mappings)}, share_info=[])
        (_context, _instance, _network_info, _share_info, block_device_info,
         _accel_info), _kwargs = mock_start.call_args
        return [mapping['connection_info']
                for mapping in block_device_info['block_device_mapping']]

    def mapping(self, connection):
        """A volume of a server, as nova-compute knows it."""
        context = nova_context.get_admin_context()
        record = objects.BlockDeviceMapping(
            context, **fake_block_device.FakeDbBlockDeviceDict({
                'id': 1, 'source_type': 'volume', 'volume_id': uuids.volume,
                'destination_type': 'volume',
                'connection_info': jsonutils.dumps(connection)}))
        record.attachment_id = uuids.link
        mapping = block_device.DriverVolumeBlockDevice(record)
        mapping.save = mock.Mock()
        return mapping

    def test_start_on_the_image_that_cinder_names(self):
        overlay = self.connection('lustre')
        overlay['data']['name'] = 'volume-1.snapshot'
        with mock.patch.object(self.driver._volume_api, 'attachment_get',
                               return_value={'connection_info': overlay}):
            found, = self.start(self.mapping(self.connection('lustre')))
        self.assertEqual('volume-1.snapshot', found['data']['name'])

    def test_no_start_while_it_is_not_known_which(self):
        with mock.patch.object(self.driver._volume_api, 'attachment_get',
                               side_effect=exception.CinderConnectionFailed(
                                   reason='no answer')):
            self.assertRaises(exception.CinderConnectionFailed, self.start,
                              self.mapping(self.connection('lustre')))

    def test_start_of_what_is_not_on_lustre(self):
        with mock.patch.object(self.driver._volume_api, 'attachment_get',
                               side_effect=AssertionError):
            self.assertEqual(
                [self.connection('nfs')],
                self.start(self.mapping(self.connection('nfs'))))

    def snapshot(self, vm_state):
        """Take a snapshot.

        :returns: whether the guest got an overlay, and what Cinder was told
        """
        with mock.patch.object(driver.LibvirtDriver,
                               '_volume_snapshot_create') as mock_create, \
                mock.patch.object(self.driver._host, 'get_guest'), \
                mock.patch.object(self.driver, '_volume_api') as volumes, \
                mock.patch.object(self.driver,
                                  '_volume_refresh_connection_info'):
            volumes.get_snapshot.return_value = {'status': 'available'}
            try:
                self.driver.volume_snapshot_create(
                    mock.sentinel.context, mock.Mock(vm_state=vm_state),
                    'volume-id', {'type': 'qcow2', 'snapshot_id': 'snapshot',
                                  'new_file': 'volume-1.snapshot'})
            except exception.InstanceInvalidState:
                pass
        (_context, _snapshot, told), _kwargs = (
            volumes.update_snapshot_status.call_args)
        return mock_create.called, told

    def test_snapshot(self):
        self.assertEqual((True, 'creating'), self.snapshot('active'))

    def test_no_snapshot_in_rescue(self):
        self.assertEqual((False, 'error'), self.snapshot('rescued'))

    def detach(self, jobs, driver_volume_type='lustre'):
        """Detach a volume.

        :param jobs: what libvirt answers when it is asked for a block job
        :returns: how many seconds that waits
        """
        domain = mock.Mock()
        domain.blockJobInfo.side_effect = jobs
        with mock.patch.object(driver.LibvirtDriver,
                               'detach_volume') as mock_detach, \
                mock.patch.object(self.driver._host, 'get_guest',
                                  return_value=libvirt_guest.Guest(domain)), \
                mock.patch.object(lustre.time, 'sleep') as mock_sleep:
            self.driver.detach_volume(
                mock.sentinel.context, self.connection(driver_volume_type),
                {'uuid': 'instance'}, '/dev/vdb')
        mock_detach.assert_called_once_with(
            mock.sentinel.context, self.connection(driver_volume_type),
            {'uuid': 'instance'}, '/dev/vdb', None)
        for call in domain.blockJobInfo.mock_calls:
            self.assertEqual('vdb', call.args[0])
        return sum(call.args[0] for call in mock_sleep.mock_calls)

    def test_detach_when_snapshots_are_merged(self):
        job = {'type': 1, 'bandwidth': 0, 'cur': 1, 'end': 2}
        self.assertEqual(0, self.detach([{}]))
        self.assertEqual(2, self.detach([job, job, {}]))
        self.assertEqual(lustre.MERGE_LIMIT,
                         self.detach([job] * (lustre.MERGE_LIMIT + 1)))
        self.assertIn('still being deleted', self.stdlog.logger.output)

    def test_detach_what_is_not_there(self):
        self.assertEqual(
            0, self.detach([driver.libvirt.libvirtError('no such disk')]))

    def test_detach_what_is_not_on_lustre(self):
        self.assertEqual(0, self.detach([AssertionError], 'nfs'))

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
