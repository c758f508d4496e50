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

"""Backups of what is in use, of snapshots, and of encrypted volumes."""

import contextlib
import os
import struct
from unittest import mock
import uuid

import ddt

from cinder import exception
from cinder import objects
from cinder.tests.functional.lustre import base
from cinder.tests.functional.lustre import copying
from cinder.tests.functional.lustre import guest
from cinder.tests.unit import utils as tests_utils
from os_brick.initiator.connectors import lustre as lustre_connector

GIB, MIB = base.GIB, base.MIB


class Nova:
    """Does to a volume in use what Nova does, while its guest waits.

    :param test: the test, with the volume's files
    :param volume: the volume
    """

    def __init__(self, test, volume):
        self._test = test
        self._volume = volume
        self.qemu = None
        self.asked = []

    @contextlib.contextmanager
    def running(self, name):
        """Let a guest have an image open."""
        self._open(name)
        try:
            yield self
        finally:
            self._close()

    def _open(self, name):
        self._name = name
        self.qemu = guest.Qemu(
            'qcow2' if '.' in name or self._is_qcow2() else 'raw',
            self._path(name))

    def _is_qcow2(self):
        return self._test.driver._recorded_format(self._volume) == 'qcow2'

    def _path(self, name):
        return os.path.join(self._test.directory(self._volume), name)

    def create_volume_snapshot(self, context, volume_id, info):
        self.asked.append('create')
        self._switch(info['new_file'])
        self._done(info['snapshot_id'])

    def delete_volume_snapshot(self, context, snapshot_id, info):
        self.asked.append('delete')
        self._test.assertIsNone(info['merge_target_file'])
        self._test.assertIsNone(info['file_to_merge'])
        self._close()
        self._flatten(self._path(self._name), self._path('flat'))
        self._open(self._name)
        self._done(snapshot_id)

    @staticmethod
    def _flatten(path, flat):
        base.run('qemu-img', 'convert', '-f', 'qcow2', '-O', 'qcow2', path,
                 flat)
        os.replace(flat, path)

    def _close(self):
        self.qemu.quit()

    def _switch(self, name):
        self._close()
        self._open(name)

    @staticmethod
    def _done(snapshot_id):
        snapshot = objects.Snapshot.get_by_id(
            base.context.get_admin_context(), snapshot_id)
        snapshot.progress = '90%'
        snapshot.save()


class CopiesTestCase(copying.BackupTestCase):

    def attach(self, volume):
        """Note in the database that a server uses a volume."""
        tests_utils.attach_volume(self.context, volume.id, str(uuid.uuid4()),
                                  'host', '/dev/vdb')
        volume.refresh()
        self.assertEqual('in-use', volume.status)

    @contextlib.contextmanager
    def in_use(self, volume):
        with self.attached(volume) as connection:
            name = connection['name']
        self.attach(volume)
        nova = self.driver._nova = Nova(self, volume)
        with nova.running(name):
            yield nova

    def restored(self, backup, size=1, **fields_):
        """Restore to a new volume."""
        fields_.setdefault('specs', {'lustre__format': 'qcow2'})
        volume = self.create(size, status='available', **fields_)
        self.restore(backup, volume, True)
        volume.refresh()
        return volume

    def assert_nothing_left(self, volume, *suffixes):
        """All that is on the share are these files of a volume."""
        self.assertEqual(sorted(volume.name + s for s in suffixes),
                         self.listing())
        self.assertEqual([], self.servers())

    def snapshots(self, volume):
        return list(objects.SnapshotList.get_all_for_volume(self.context,
                                                            volume.id))


@ddt.ddt
class BackupOfWhatIsInUseTest(CopiesTestCase):

    @ddt.data('raw', 'qcow2')
    def test_in_use(self, kind):
        volume = self.make(kind)
        self.fill(volume)
        content = self.content(volume)
        with self.in_use(volume) as nova:
            write = self.backups.service.backup

            def backup(driver, *args):
                # After the snapshot the guest goes on.
                nova.qemu.do('write', 0, 66)
                return write(driver, *args)

            with mock.patch.object(self.backups.service, 'backup', backup):
                made = self.back_up(volume)
            self.assertEqual(['create', 'delete'], nova.asked)
            nova.qemu.do('read', 0, 66)
        self.assertEqual('in-use', volume.status)
        self.assertEqual([], self.snapshots(volume))
        self.assertEqual((None, None), (made.temp_snapshot_id,
                                        made.temp_volume_id))
        with self.attached(volume) as connection:
            name = connection['name']
        self.assert_nothing_left(volume, '.info',
                                 name.removeprefix(volume.name))
        self.assertEqual(content, self.content(self.restored(made)))

    def test_incremental(self):
        volume = self.make('qcow2')
        self.fill(volume)
        with self.in_use(volume) as nova:
            full = self.back_up(volume)
            nova.qemu.do('write', 200 * MIB, 9)
            made = self.back_up(volume, full)
        content = self.content(volume)
        self.assertEqual(content, self.content(self.restored(made)))

    def test_a_snapshot_that_fails(self):
        """Nothing stays in a state that only a restart would end."""
        volume = self.make('raw')
        self.attach(volume)
        self.driver._nova = mock.Mock()
        self.driver._nova.create_volume_snapshot.side_effect = ValueError('x')
        backup = self.begin(volume)
        self.assertRaises(ValueError, self.backups.create_backup,
                          self.context, backup)
        backup.refresh()
        volume.refresh()
        self.assertEqual(('error', 'in-use'), (backup.status, volume.status))
        snapshot, = self.snapshots(volume)
        self.assertEqual('error', snapshot.status)
        self.assertEqual(snapshot.id, backup.temp_snapshot_id)

    def test_more_than_one_server(self):
        volume = self.make('raw')
        for _server in range(2):
            self.attach(volume)
        backup = self.begin(volume)
        self.backups.create_backup(self.context, backup)
        backup.refresh()
        self.assertEqual('error', backup.status)
        self.assertIn('attached more than once', backup.fail_reason)

    def test_killed(self):
        """What is made is noted before, and removed at the next start."""
        volume = self.make('raw')
        self.fill(volume)
        with self.in_use(volume):
            backup = self.begin(volume)
            self.driver.get_backup_device(self.context, backup)
            backup.refresh()
            snapshot, = self.snapshots(volume)
            self.assertEqual('backing-up', snapshot.status)
            self.backups._cleanup_incomplete_backup_operations(self.context)
            self.assertEqual([], self.snapshots(volume))
        backup.refresh()
        volume.refresh()
        self.assertEqual(('error', 'in-use'), (backup.status, volume.status))


@ddt.ddt
class BackupOfSnapshotsTest(CopiesTestCase):

    def read_in_the_middle(self, backup, work, **kwargs):
        """Call ``work()`` while cinder-backup has all open."""
        write = self.backups.service.backup

        def slowly(*args):
            work()
            return write(*args)

        with mock.patch.object(self.backups.service, 'backup', slowly):
            return self.back_up(*backup, **kwargs)

    @ddt.data('raw', 'qcow2', 'chain')
    def test_snapshot(self, kind):
        volume = self.make(kind)
        self.fill(volume)
        content = self.content(volume)
        snapshot = self.snapshot(volume)
        self.write(volume, 9, 0, 10 * MIB)
        with mock.patch.object(self.driver, 'create_volume_from_snapshot',
                               side_effect=AssertionError):
            backup = self.back_up(volume, snapshot=snapshot)
        self.assertEqual(('available', 'available'),
                         (volume.status, snapshot.status))
        self.assertEqual(content, self.content(self.restored(backup)))
        self.assert_reads(volume, 9, 0, 10 * MIB)

    def test_incremental(self):
        volume = self.make('qcow2')
        self.fill(volume)
        first = self.snapshot(volume)
        self.write(volume, 0, 5 * MIB, 2 * MIB)
        self.write(volume, 3, 500 * MIB)
        content = self.content(volume)
        second = self.snapshot(volume)
        full = self.back_up(volume, snapshot=first)
        made = self.back_up(volume, full, second)
        self.assertEqual(content, self.content(self.restored(made)))

    def test_of_what_is_in_use(self):
        volume = self.make('qcow2')
        self.fill(volume)
        content = self.content(volume)
        snapshot = self.snapshot(volume)
        volume.refresh()
        with self.in_use(volume) as nova:
            backup = self.back_up(volume, snapshot=snapshot)
            self.assertEqual([], nova.asked)
        self.assertEqual(content, self.content(self.restored(backup)))

    def test_a_volume_that_was_extended_since(self):
        volume = self.make('qcow2')
        self.fill(volume)
        snapshot = self.snapshot(volume)
        self.extend(volume, 2)
        content = self.content(volume)
        backup = self.back_up(volume, snapshot=snapshot)
        self.assertEqual(content, self.content(self.restored(backup, 2)))

    def test_deletions_meanwhile(self):
        volume = self.make('qcow2')
        kept = []
        for pattern in (1, 2, 3):
            self.write(volume, pattern, pattern * MIB)
            kept.append((self.snapshot(volume), self.content(volume)))
        (old, _), (snapshot, content), (new, _) = kept
        volume.refresh()

        def delete():
            for other in old, snapshot:
                error = self.assertRaises(exception.SnapshotIsBusy,
                                          self.driver.delete_snapshot, other)
                self.assertIn(other.id, str(error))
            self.delete_snapshot(new)
            self.driver.revert_to_snapshot(self.context, volume, snapshot)

        backup = self.read_in_the_middle((volume,), delete,
                                         snapshot=snapshot)
        self.assertEqual(content, self.content(self.restored(backup)))
        self.assertEqual(content, self.content(volume))
        self.delete_snapshot(old)
        self.delete_snapshot(snapshot)
        self.assertEqual(content, self.content(volume))

    @ddt.data('raw', 'qcow2')
    def test_deletion_while_the_volume_is_read(self, kind):
        volume = self.make(kind)
        self.fill(volume)
        snapshot = self.snapshot(volume)
        content = self.content(volume)
        volume.refresh()

        def delete():
            self.assertRaises(exception.SnapshotIsBusy,
                              self.driver.delete_snapshot, snapshot)

        backup = self.read_in_the_middle((volume,), delete)
        self.assertEqual(content, self.content(self.restored(backup)))
        self.delete_snapshot(snapshot)

    def test_nothing_can_be_written(self):
        volume = self.make('qcow2')
        snapshot = self.snapshot(volume)
        info = self.driver.initialize_connection_snapshot(
            snapshot, {lustre_connector.MARK: True})
        self.assertTrue(info['data']['read_only'])
        self.assertEqual([[volume.name, 'qcow2']],
                         list(map(list, info['data']['chain'])))

    @ddt.data(('raw', False, None), ('raw', True, 'raw'),
              ('qcow2', True, None))
    @ddt.unpack
    def test_a_service_without_the_connector(self, kind, first, answer):
        volume = self.make(kind)
        self.fill(volume)
        snapshot = self.snapshot(volume)
        if not first:
            snapshot = self.snapshot(volume)
        if answer is None:
            error = self.assertRaises(
                exception.InvalidVolume,
                self.driver.initialize_connection_snapshot, snapshot, {})
            self.assertIn('needs the Lustre connector', str(error))
            return
        info = self.driver.initialize_connection_snapshot(snapshot, {})
        self.assertEqual(
            ('nfs', 'raw', volume.name),
            (info['driver_volume_type'], info['data']['format'],
             info['data']['name']))


class EncryptedTestCase(CopiesTestCase):

    def setUp(self):
        super().setUp()
        self.type_id = self.encrypted_type()

    def make_encrypted(self, **fields_):
        return self.create(status='available', **self.encrypted(
            volume_type_id=self.type_id, **fields_))

    def restored(self, backup, size=1, **fields_):
        return super().restored(backup, size, **self.encrypted(
            volume_type_id=self.type_id), specs={}, **fields_)

    def backed_up_twice(self):
        """Back a volume up, in full and then what has changed.

        :returns: the volume, and for each backup what it should hold
        """
        volume = self.make_encrypted()
        self.fill(volume)
        content, full = self.content(volume), self.back_up(volume)
        # The container grows, and some of it is given back.
        self.write(volume, 5, 300 * MIB, 100 * MIB)
        self.write(volume, 0, 5 * MIB, 2 * MIB)
        later, incremental = self.content(volume), self.back_up(volume, full)
        self.assertNotEqual(content, later)
        return volume, ((full, content), (incremental, later))

    def restore(self, backup, volume, is_new):
        super().restore(backup, volume, is_new)
        volume.refresh()

    def stored(self, text):
        """Tell whether a text is in what the backups consist of."""
        path = self.backups.service(self.context).backup_path
        for directory, _directories, names in os.walk(path):
            for name in names:
                with open(os.path.join(directory, name), 'rb') as f:
                    if text in f.read():
                        return True
        return False


@ddt.ddt
class EncryptedTest(EncryptedTestCase):

    def setUp(self):
        super().setUp()
        self.override_config('backup_compression_algorithm', 'none')

    def test_full_and_incremental(self):
        volume, backups = self.backed_up_twice()
        self.assertFalse(self.stored(bytes([5]) * 4096))
        self.assertTrue(self.stored(b'LUKS\xba\xbe'))
        for backup, expected in backups:
            new = self.restored(backup)
            self.assertEqual(expected, self.content(new))
            self.check(new)
            self.assertNotIn(new.encryption_key_id, (
                volume.encryption_key_id, backup.encryption_key_id))
        full, content = backups[0]
        self.restore(full, volume, False)
        self.assertEqual(content, self.content(volume))
        self.write(volume, 4)
        snapshot = self.snapshot(volume)
        self.delete_snapshot(snapshot)
        self.assert_reads(volume, 4)

    def check(self, volume):
        self.driver._images(volume).check()

    def test_thick(self):
        self.type_id = self.encrypted_type(provisioning__type='thick')
        volume = self.make_encrypted()
        self.fill(volume)
        content = self.content(volume)
        new = self.restored(self.back_up(volume))
        self.assertEqual(content, self.content(new))
        self.assertGreaterEqual(self.allocated(new), GIB)
        self.assertLess(self.allocated(new), GIB + 32 * MIB)

    def test_chain(self):
        volume = self.make_encrypted()
        self.write(volume, 1)
        snapshot = self.snapshot(volume)
        of_snapshot = self.content(volume)
        self.write(volume, 2, MIB)
        self.snapshot(volume)
        volume.refresh()
        content = self.content(volume)
        before = self.listing()
        backup = self.back_up(volume)
        self.assertEqual(before, self.listing())
        self.assertEqual([volume.id], [
            v.id for v in objects.VolumeList.get_all(self.context)])
        self.assertIsNotNone(self.passphrase(volume))
        self.assertEqual(content, self.content(self.restored(backup)))
        # The base alone, and a chain.
        newest = self.snapshots(volume)[-1]
        for one, expected in ((snapshot, of_snapshot), (newest, content)):
            backup = self.back_up(volume, snapshot=one)
            self.assertEqual(expected, self.content(self.restored(backup)))

    def test_what_is_noted_of_a_copy_is_seen_for_tenants(self):
        copy = self.create()
        self.driver._note(copy, encrypted='true')
        theirs = self.of_tenant(copy)
        # Cinder has looked, and found what tenants may see.
        self.assertEqual({}, theirs.admin_metadata)
        self.assertTrue(self.driver._is_encrypted(theirs))

    def test_in_use(self):
        volume = self.make_encrypted()
        self.attach(volume)
        before = self.listing()
        backup = self.begin(volume)
        self.backups.create_backup(self.context, backup)
        backup.refresh()
        volume.refresh()
        self.assertEqual(('error', 'in-use'), (backup.status, volume.status))
        self.assertIn('encrypted and attached', backup.fail_reason)
        self.assertEqual(before, self.listing())

    def test_a_temporary_volume_that_fails(self):
        volume = self.make_encrypted()
        given = self.snapshot(volume)
        self.snapshot(volume)
        newest = self.snapshots(volume)[-1]
        volume.refresh()
        for snapshot in None, newest:
            backup = self.begin(volume, snapshot=snapshot)
            with mock.patch.object(self.driver, '_copy',
                                   side_effect=exception.VolumeDriverException(
                                       message='no space')):
                self.backups.create_backup(self.context, backup)
            backup.refresh()
            volume.refresh()
            newest.refresh()
            self.assertEqual(
                ('error', 'Volume driver reported an error: no space',
                 'available', 'available'),
                (backup.status, backup.fail_reason, volume.status,
                 newest.status))
            copy = objects.Volume.get_by_id(self.context,
                                            backup.temp_volume_id)
            self.assertEqual(('error', None),
                             (copy.status, copy.encryption_key_id))
        self.assertEqual('available', given.status)

    def test_nobody_deletes_the_key_with_a_temporary_volume(self):
        volume = self.make_encrypted()
        self.snapshot(volume)
        volume.refresh()
        backup = self.begin(volume)
        copy, is_snapshot = self.driver.get_backup_device(self.context,
                                                          backup)
        self.assertFalse(is_snapshot)
        copy = objects.Volume.get_by_id(self.context, copy.id)
        self.assertIsNone(copy.encryption_key_id)
        self.assertEqual('backing-up', copy.status)
        self.assertEqual(copy.id, backup.temp_volume_id)
        self.backups._cleanup_incomplete_backup_operations(self.context)
        self.assertRaises(exception.VolumeNotFound, objects.Volume.get_by_id,
                          self.context, copy.id)

    def test_restore_onto_a_volume_with_snapshots(self):
        volume = self.make_encrypted()
        self.write(volume, 1)
        backup = self.back_up(volume)
        self.snapshot(volume)
        self.write(volume, 2)
        content = self.content(volume)
        volume.refresh()
        error = self.failure_of(self.restore, backup, volume, False)
        self.assertIn('has snapshots', str(error))
        volume.status = 'available'
        self.assertEqual(content, self.content(volume))

    def test_restore_of_what_is_not_encrypted(self):
        plain, volume = self.make('qcow2'), self.make_encrypted()
        self.fill(plain)
        self.write(volume, 1)
        content = self.content(volume)
        error = self.failure_of(self.restore, self.back_up(plain), volume,
                                False)
        self.assertIn("can't be its content", str(error))
        volume.status = 'available'
        self.assertEqual(content, self.content(volume))

    def test_restore_to_another_size(self):
        volume = self.make_encrypted()
        backup = self.back_up(volume)
        error = self.failure_of(self.restored, backup, 2)
        self.assertIn('its disk has 1073741824 bytes', str(error))

    def test_a_container_that_was_changed_in_the_store(self):
        """A guest never gets a host's file by a backing file."""
        volume = self.make_encrypted()
        self.write(volume, 1)
        backup = self.back_up(volume)
        path = os.path.join(
            self.backups.service(self.context).backup_path, backup.container,
            backup.service_metadata + '-00001')
        name = b'/etc/passwd'
        with open(path, 'r+b') as f:
            f.seek(8)
            f.write(struct.pack('>QI', 4096, len(name)))
            f.seek(4096)
            f.write(name)
        error = self.failure_of(self.restore, backup, volume, False)
        self.assertIn('it has a backing file', str(error))
        volume.status = 'available'
        self.assert_reads(volume, 1)

    def test_a_service_without_the_connector(self):
        volume = self.make_encrypted()
        for status in 'backing-up', 'restoring-backup':
            volume.status = status
            error = self.assertRaises(exception.InvalidVolume,
                                      self.driver.initialize_connection,
                                      volume, {})
            self.assertIn('needs the Lustre connector', str(error))
