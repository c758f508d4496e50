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

"""Faults of the base class and of the NFS driver that ours must not have.

Each scenario says what ought to be. It is run twice: our driver has to meet
it, and the stock NFS driver, on the same share, has to fail in the way that
is known. When that one passes some day, Cinder has mended it. What can't be
shown on the stock driver is tested on ours alone.
"""

import contextlib
import hashlib
import os
import subprocess
import threading
import unittest
from unittest import mock
import uuid

import ddt
from oslo_concurrency import processutils
from oslo_config import cfg

from cinder.backup.drivers import lustre as lustre_backup
from cinder.backup.drivers import posix
from cinder import coordination
from cinder import exception
from cinder.objects import fields
from cinder.tests.functional.lustre import base
from cinder.tests.functional.lustre import stand_ins
from cinder.tests.unit.lustre import releases
from cinder.tests.unit import utils as tests_utils
from cinder.volume import configuration
from cinder.volume.drivers import nfs
from cinder.volume.drivers import remotefs
from os_brick.remotefs import lustre as lustre_brick

CONF = cfg.CONF

GIB, MIB = base.GIB, base.MIB

# cinder-backup's, but smaller, so that most of a volume is in chunks of zeros.
CHUNK = 64 * MIB


class Scenarios:
    """What ought to be, whatever the driver."""

    # How long it takes to see that a driver waits, in seconds.
    longest_copy = 1

    def snapshot_grows(self):
        source = self.make('raw')
        self.write(source, 5)
        volume = self.from_snapshot(self.snapshot(source), 3)
        self.assertEqual(3 * GIB, self.content(volume)[0])
        self.assert_reads(volume, 5)

    def clone_with_snapshots(self):
        source = self.make('raw')
        self.write(source, 1)
        self.snapshot(source)
        self.write(source, 2, MIB)
        source.refresh()
        self.assert_same(source, self.clone(source))

    def clone_grows(self):
        source = self.make('raw')
        self.write(source, 1)
        self.assertEqual(2 * GIB, self.content(self.clone(source, 2))[0])

    def encrypted_volume(self):
        """Is made as what it is recorded."""
        volume = self.volume_record(**self.encrypted())
        self.assert_recorded(self._created(volume, self.made(volume)))

    def made(self, volume):
        """Let the driver make an encrypted volume.

        Now and then QEMU can't measure its speed, which it wants to know for
        LUKS. Cinder's drivers fail then.
        """
        for _attempt in range(10):
            try:
                return self.driver.create_volume(volume)
            except processutils.ProcessExecutionError as exc:
                if 'accurate CPU usage' not in exc.stderr:
                    raise
        raise AssertionError('QEMU could not measure its speed')

    def header_of_a_guest(self):
        """Is only bytes to everyone else."""
        self._header_of_a_guest()

    def header_of_a_guest_with_backing_file(self):
        self._header_of_a_guest('-u', '-b', '/etc/hostname', '-F', 'raw')

    def _header_of_a_guest(self, *backing):
        header = os.path.join(self.temp, 'header')
        base.run('qemu-img', 'create', '-q', '-f', 'qcow2', *backing, header,
                 '1G')
        volume = self.make('raw')
        with self.attached(volume) as connection:
            self.qemu_io(connection, 'write -s %s 0 %d' % (
                header, os.stat(header).st_size // 512 * 512))
        content = self.content(volume)
        snapshot = self.snapshot(volume)
        self.assertEqual(content, self.content(volume))
        self.assertEqual(content, self.snapshot_content(snapshot))
        self.delete_snapshot(snapshot)
        self.assertEqual(content, self.content(volume))

    def image_to_qcow2(self):
        volume = self.make('qcow2')
        self.fill_from_image(volume)
        self.assert_recorded(volume)
        self.assertEqual(GIB, self.content(volume)[0])
        self.assert_reads(volume, 0x41)

    def delete_without_share(self):
        volume = self.make('raw')
        with self.unmounted(volume):
            self.failure_of(self.driver.delete_volume, volume)

    def write_without_share(self):
        volume = self.make('raw')
        with self.unmounted(volume) as directory:
            with contextlib.suppress(Exception):
                self.fill_from_image(volume)
            self.assertEqual([], os.listdir(directory))

    def record_without_room(self):
        """Is the old record still."""
        volume = self.make('raw')
        self.snapshot(volume)
        path = self.path(volume, '.info')
        record = self.driver._read_info_file(path)
        self.end_processes()
        with stand_ins.no_room(), contextlib.suppress(Exception):
            self.driver._write_info_file(path, {'active': volume.name})
        self.end_processes()
        self.assertEqual(record, self.driver._read_info_file(path))

    def report(self):
        """Reads no directory."""
        directory = os.path.join(self.directory(self.make('raw')), 'many')
        os.mkdir(directory)
        open(os.path.join(directory, 'file'), 'w').close()
        os.utime(directory, (0, os.stat(directory).st_mtime))
        self.driver.get_volume_stats(refresh=True)
        self.assertEqual(0, os.stat(directory).st_atime)

    def backup_with_snapshot(self):
        """Is the volume's bytes, or is refused."""
        volume = self.make('raw')
        self.write(volume, 1)
        self.snapshot(volume)
        self.write(volume, 2, MIB)
        content = self.content(volume)
        with contextlib.suppress(exception.InvalidVolume):
            with self.opened_by_cinder(volume, 'backing-up') as file:
                self.assertEqual(content, self.image_content(file.name,
                                                             'raw'))

    def kill_while_reverting(self):
        self.useFixture(stand_ins.DatabaseFile(os.path.join(
            self.temp, 'cinder.sqlite')))
        volume = self.make('raw')
        self.write(volume, 1)
        snapshot, reverted = self.snapshot(volume), self.content(volume)
        self.write(volume, 2)
        before = self.content(volume)
        number = 1
        while stand_ins.killed_before(
                number, self.steps(),
                lambda: self.driver.revert_to_snapshot(self.context, volume,
                                                       snapshot)):
            self.assertIn(self.content(volume), (before, reverted))
            number += 1
        self.assertGreater(number, 1)
        self.assertEqual(reverted, self.content(volume))

    def restore(self):
        """Gives a volume that ends in zeros its size."""
        source = self.make('raw')
        self.write(source, 3, CHUNK)
        target = self.make('raw')
        self.restore_backup(self.back_up(source), target, True)
        self.assert_same(source, target)

    def copy_from_a_locked_source(self):
        """Waits until whoever changes the source is done."""
        source = self.make('raw')
        snapshot = self.snapshot(source)
        target = self.volume_record()
        copying = threading.Thread(
            target=self.driver.create_volume_from_snapshot,
            args=(target, snapshot))
        with coordination.COORDINATOR.get_lock('%s-%s' % (
                self.driver.driver_prefix, source.id)):
            copying.start()
            copying.join(self.longest_copy)
            waited = copying.is_alive()
        copying.join()
        self.assertTrue(waited, 'it did not wait')

    def another_file_system(self):
        """Gets no volume."""
        volume = self.make('raw')
        directory = self.directory(volume)
        base.run('mount', '-t', 'tmpfs', 'nobody', directory)
        self.addCleanup(base.run, 'umount', directory)
        self.failure_of(self.make, 'raw')
        self.assertEqual([], os.listdir(directory))

    def delete_with_snapshot(self):
        """Leaves nothing."""
        volume = self.make('raw')
        self.snapshot(volume)
        self.driver.delete_volume(volume)
        self.assertEqual([], self.listing())

    # What the scenarios need

    def assert_same(self, source, copy):
        self.assert_recorded(copy)
        self.assertEqual(self.content(source), self.content(copy))

    def assert_recorded(self, volume):
        """What a volume's format is said to be is the file's."""
        with self.attached(volume) as connection:
            with open(connection['path'], 'rb') as image:
                is_qcow2 = image.read(4) == b'QFI\xfb'
            image_format = 'qcow2' if is_qcow2 else 'raw'
            self.assertEqual(image_format, connection['format'])
            self.assertEqual(image_format, volume.admin_metadata['format'])

    def fill_from_image(self, volume):
        path = os.path.join(self.temp, 'image')
        with open(path, 'wb') as image:
            image.write(b'\x41' * MIB)
        self.driver.copy_image_to_volume(
            self.context, volume, stand_ins.ImageService(path, 'raw'),
            'image-id')

    @contextlib.contextmanager
    def unmounted(self, volume):
        directory = self.directory(volume)
        base.run('umount', directory)
        yield directory

    @contextlib.contextmanager
    def opened_by_cinder(self, volume, status, mode='rb'):
        """Open a volume's file as a Cinder service does that copies it."""
        volume.refresh()
        before, volume.status = volume.status, status
        volume.save()
        connection = self.driver.initialize_connection(volume, {})['data']
        with open(os.path.join(self.directory(volume), connection['name']),
                  mode) as file:
            yield file
        self.driver.terminate_connection(volume, {})
        volume.status = before
        volume.save()

    def back_up(self, volume, parent=None):
        self.override_config('backup_file_size', CHUNK)
        self.override_config('backup_sha_block_size_bytes', MIB)
        self.override_config('backup_compression_algorithm', 'zstd')
        backup = tests_utils.create_backup(
            self.context, volume.id, parent_id=parent and parent.id,
            size=volume.size)
        backup.container = None
        with self.opened_by_cinder(volume, 'backing-up') as file:
            self.backup_driver().backup(backup, file)
        return backup

    def restore_backup(self, backup, volume, is_new):
        backup.status = fields.BackupStatus.RESTORING
        backup.save()
        with self.opened_by_cinder(volume, 'restoring-backup', 'wb') as file:
            self.backup_driver().restore(backup, volume.id, file, is_new)


# Before, the stock driver takes what an image's header says for its format,
# always.
since_28 = unittest.skipIf(releases.RELEASE < 28, 'a fault since Cinder 28')


class NfsWithRevert(remotefs.RevertToSnapshotMixin, nfs.NfsDriver):
    """The stock driver, with the base class's own way to revert."""


class StockDriverFaultTest(Scenarios, base.LustreTestCase):
    """The scenarios fail on the stock driver, in the way that is known."""

    # It doesn't wait; only the copy takes its time.
    longest_copy = 60

    def new_driver(self):
        share = self.shares[0]
        self.mount_point = os.path.join(
            self.mount_base, hashlib.md5(share.encode()).hexdigest())
        os.makedirs(self.mount_point)
        self.addCleanup(self._unmount)
        # The driver takes what is mounted there as its own, whatever it is.
        base.run('mount', '-t', 'lustre', '-o', 'flock', share,
                 self.mount_point)
        self._be_installed()
        shares = os.path.join(self.temp, 'shares')
        with open(shares, 'w') as file:
            file.write(share)
        conf = configuration.Configuration(nfs.nfs_opts, config_group='stock')
        driver = NfsWithRevert(configuration=conf)
        for name, value in {
                'nfs_shares_config': shares,
                'nfs_mount_point_base': self.mount_base,
                'nfs_mount_attempts': 1,
                'nfs_snapshot_support': True,
                'nas_secure_file_operations': 'false',
                'nas_secure_file_permissions': 'false'}.items():
            CONF.set_override(name, value, group='stock')
        driver.base = self.mount_base
        driver._remotefsclient._mount_base = self.mount_base
        driver.do_setup(self.context)
        return driver

    def _be_installed(self):
        """Let the driver find mount.nfs, which it never runs here."""
        helper = os.path.join(self.temp, 'bin', 'mount.nfs')
        os.mkdir(os.path.dirname(helper))
        with open(helper, 'w') as file:
            file.write('#!/bin/sh\n')
        os.chmod(helper, 0o755)
        patcher = mock.patch.dict(os.environ, PATH='%s:%s' % (
            os.path.dirname(helper), os.environ['PATH']))
        patcher.start()
        self.addCleanup(patcher.stop)

    def host(self, share):
        return 'test@stock'

    def make(self, image_format):
        CONF.set_override('nfs_qcow2_volumes', image_format == 'qcow2',
                          group='stock')
        return self.create()

    @contextlib.contextmanager
    def attached(self, volume):
        # This driver reads a volume's format from what it was given.
        volume.refresh()
        with super().attached(volume) as connection:
            yield connection

    def backup_driver(self):
        return posix.PosixBackupDriver(
            self.context, backup_path=os.path.join(self.temp, 'backup'))

    def steps(self):
        return [(self.driver, '_execute')]

    def end_processes(self):
        """There are none."""

    def assert_fails(self, scenario, how):
        self.assertIn(how, str(self.failure_of(scenario)))

    def test_fault_a_volume_from_snapshot(self):
        self.assert_fails(self.snapshot_grows, releases.NFS_ON_SMALLER_IMAGE or
                          '%d != %d' % (3 * GIB, GIB))

    @since_28
    def test_fault_b_clone(self):
        self.assert_fails(self.clone_with_snapshots, "'raw' != 'qcow2'")

    def test_fault_b_larger_clone(self):
        self.assert_fails(self.clone_grows, releases.NFS_ON_SMALLER_IMAGE or
                          '%d != %d' % (2 * GIB, GIB))

    def test_fault_c_encrypted_volume(self):
        self.assert_fails(self.encrypted_volume, "'qcow2' != 'raw'")

    @since_28
    def test_fault_d_header_of_a_guest(self):
        self.assert_fails(self.header_of_a_guest, '!=')

    def test_fault_d_header_of_a_guest_with_backing_file(self):
        self.assert_fails(self.header_of_a_guest_with_backing_file,
                          'invalid backing file /etc/hostname')

    def test_fault_e_image_to_qcow2(self):
        self.assert_fails(self.image_to_qcow2, "'raw' != 'qcow2'")

    def test_fault_f_delete_without_share(self):
        self.assert_fails(self.delete_without_share, 'has not failed')

    def test_fault_f_write_without_share(self):
        self.assert_fails(self.write_without_share, "[] != ['volume-")

    def test_fault_g_record_without_room(self):
        self.assert_fails(self.record_without_room,
                          'Expecting value: line 1 column 1 (char 0)')

    def test_fault_h_report(self):
        self.assert_fails(self.report, '0 != ')

    def test_fault_j_backup_with_snapshot(self):
        self.assert_fails(self.backup_with_snapshot, 'actual    = (')

    def test_fault_k_kill_while_reverting(self):
        self.assert_fails(self.kill_while_reverting, 'No such file')

    def test_fault_l_restore(self):
        self.assert_fails(self.restore, releases.NFS_ON_SMALLER_IMAGE or
                          'actual    = (%d,' % (CHUNK + MIB))

    def test_fault_n_source_is_not_locked(self):
        self.assert_fails(self.copy_from_a_locked_source, 'did not wait')

    def test_fault_o_another_file_system(self):
        self.assert_fails(self.another_file_system, 'has not failed')

    def test_fault_q_delete_with_snapshot(self):
        self.assert_fails(self.delete_with_snapshot, "[] != ['volume-")


@ddt.ddt
class BaseFaultTest(Scenarios, base.LustreTestCase):
    """Our driver meets them."""

    def make(self, image_format, provisioning='thin'):
        return self.create(specs={'provisioning__type': provisioning,
                                  'lustre__format': image_format})

    def backup_driver(self):
        directory = os.path.join(self.temp, 'backup')
        for name, value in {
                'share': self.shares[1],
                'mount_point': directory,
                'mount_timeout': 10,
                'file_system_types': base.FILE_SYSTEM_TYPES}.items():
            self.override_config('lustre_backup_' + name, value)
        driver = lustre_backup.LustreBackupDriver(self.context)
        driver.check_for_setup_error()
        self.addCleanup(subprocess.run, [
            'umount', '-l', driver.backup_path], capture_output=True)
        return driver

    def steps(self):
        return [(lustre_brick.ShareClient, 'call')]

    def end_processes(self):
        """End those that don't have the limits of this one."""
        self.driver._client.close()

    def test_fault_a_volume_from_snapshot(self):
        self.snapshot_grows()

    def test_fault_b_clone(self):
        self.clone_with_snapshots()

    def test_fault_b_larger_clone(self):
        self.clone_grows()

    def test_fault_c_encrypted_volume(self):
        self.encrypted_volume()

    def test_fault_d_header_of_a_guest(self):
        self.header_of_a_guest()

    def test_fault_d_header_of_a_guest_with_backing_file(self):
        self.header_of_a_guest_with_backing_file()

    def test_fault_e_image_to_qcow2(self):
        self.image_to_qcow2()

    def test_fault_f_delete_without_share(self):
        self.delete_without_share()

    def test_fault_f_write_without_share(self):
        self.write_without_share()

    def test_fault_g_record_without_room(self):
        self.record_without_room()

    def test_fault_h_report(self):
        self.report()

    def test_fault_i_encrypted_chain(self):
        """The newest of two snapshots goes, and nothing else with it."""
        volume = self.create(**self.encrypted())
        snapshots = []
        for pattern in 1, 2:
            self.write(volume, pattern)
            snapshots.append(self.snapshot(volume))
        self.write(volume, 3, base.MIB)
        before = self.content(volume)
        self.delete_snapshot(snapshots[1])
        self.assertEqual(before, self.content(volume))
        self.driver.revert_to_snapshot(self.context, volume, snapshots[0])
        self.assert_reads(volume, 1)
        self.assert_reads(volume, 0, base.MIB)

    def test_fault_j_backup_with_snapshot(self):
        self.backup_with_snapshot()

    @ddt.data(('qcow2', 0), ('qcow2', 1), ('raw', 1))
    @ddt.unpack
    def test_fault_j_refusal(self, image_format, snapshots):
        volume = self.make(image_format)
        for _snapshot in range(snapshots):
            self.snapshot(volume)
        volume.status = 'backing-up'
        error = self.assertRaises(
            exception.InvalidVolume, self.driver.initialize_connection,
            volume, {})
        self.assertIn(volume.id, str(error))
        self.assertIn('lustre:format=raw', str(error))

    def test_fault_k_kill_while_reverting(self):
        self.kill_while_reverting()

    def test_fault_l_restore(self):
        self.restore()

    def test_fault_l_restore_keeps_size_and_provisioning(self):
        source = self.make('raw')
        self.write(source, 3, CHUNK)
        backup = self.back_up(source)
        for size, is_new in (1, True), (2, False):
            target = self.create(size, specs={'provisioning__type': 'thick'})
            if not is_new:
                self.write(target, 9, 0, CHUNK)
            self.restore_backup(backup, target, is_new)
            self.assertEqual(size * GIB, self.content(target)[0])
            self.assert_reads(target, 3, CHUNK)
            for start, end in (0, CHUNK), (CHUNK + MIB, size * GIB):
                self.assert_reads(target, 0, start, end - start)
            self.assertGreaterEqual(
                os.stat(self.path(target)).st_blocks * 512, size * GIB)
            self.delete(target)

    def test_fault_l_restore_of_nothing_but_zeros(self):
        source, target = self.make('raw'), self.make('raw')
        self.write(target, 9, 0, GIB)
        self.restore_backup(self.back_up(source), target, True)
        self.assert_same(source, target)

    def test_fault_l_restore_of_an_incremental_backup(self):
        source, target = self.make('raw'), self.make('raw')
        self.write(source, 3, CHUNK, 2 * MIB)
        full = self.back_up(source)
        self.write(source, 0, CHUNK, MIB)
        self.write(source, 4, 2 * CHUNK)
        self.restore_backup(self.back_up(source, full), target, True)
        self.assert_same(source, target)

    def test_fault_m_two_attachments(self):
        volume = self.create()
        for _host in range(2):
            self.attachment(volume)
        snapshot = self.snapshot_record(volume)
        before = self.listing()
        self.driver._nova = stand_ins.Nova(snapshot)
        error = self.assertRaises(exception.InvalidVolume,
                                  self.driver.create_snapshot, snapshot)
        self.assertIn('attached more than once', str(error))
        self.assertEqual(before, self.listing())

    def test_fault_m_one_attachment(self):
        volume = self.create()
        attachment = self.attachment(volume)
        snapshot = self.snapshot_record(volume)
        self.driver._nova = stand_ins.Nova(snapshot)
        self.driver.create_snapshot(snapshot)
        attachment.refresh()
        with self.attached(volume) as connection:
            self.assertEqual(
                ('%s.%s' % (volume.name, snapshot.id), 'qcow2'),
                (connection['name'], connection['format']))
            self.assertEqual(
                (connection['name'], connection['format']),
                (attachment.connection_info['name'],
                 attachment.connection_info['format']))

    def attachment(self, volume):
        attachment = tests_utils.attach_volume(
            self.context, volume.id, str(uuid.uuid4()), 'host', '/dev/vdb')
        del attachment
        volume.refresh()
        return volume.volume_attachment[-1]

    def test_fault_n_source_is_locked(self):
        self.copy_from_a_locked_source()

    def test_fault_n_formats_do_not_mix(self):
        for image_format in ('qcow2', 'raw', 'qcow2'):
            volume = self.make(image_format)
            self.assert_recorded(volume)
            with self.attached(volume) as connection:
                self.assertEqual(image_format, connection['format'])

    def test_fault_o_another_file_system(self):
        self.another_file_system()

    def test_fault_p_no_command_needs_root(self):
        """A user without any right but to the share can do it all."""
        database = os.path.join(self.temp, 'cinder.sqlite')
        self.useFixture(stand_ins.DatabaseFile(database))
        volume = self.volume_record(specs={'provisioning__type': 'thick'})

        def life():
            made = self._created(volume, self.driver.create_volume(volume))
            self.write(made, 1)
            snapshot = self.snapshot(made)
            self.extend(made, 2)
            self.delete_snapshot(snapshot)
            self.assertEqual(2 * GIB, self.content(made)[0])
            self.fill_from_image(made)
            self.delete(self.clone(made))
            self.assertEqual(os.getuid(), os.stat(self.path(made)).st_uid)
            self.delete(made)

        root, path = self.file_systems.roots[0]
        self.as_nobody(life, database, path + self.shares[0][len(root):])
        self.assertEqual([], self.listing())

    def test_fault_q_delete_with_snapshot(self):
        self.delete_with_snapshot()
