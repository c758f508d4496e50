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

"""The backup driver on files of a temporary directory.

Only Lustre's part of the kernel is stood in for, see fakes.py. A GiB has but
1 MiB here.
"""

import errno
import hashlib
import io
import json
import os
import resource
import time
from unittest import mock

import ddt
import fixtures
from oslo_config import cfg
from oslo_utils import units
import testtools

from cinder.backup.drivers import lustre
from cinder.backup.drivers import posix
from cinder import context
from cinder import exception
from cinder.lustre import opts
from cinder import objects
from cinder.objects import fields
from cinder.tests.unit import fake_constants
from cinder.tests.unit.lustre import fakes
from cinder.tests.unit import test
from cinder.tests.unit import utils as tests_utils
from os_brick.remotefs import lustre as lustre_brick

CONF = cfg.CONF

SHARE = '10.0.2.15@tcp:/lustre/backups'
CHUNK = 64 * fakes.KIB
GIB = fakes.MIB

DATA = hashlib.shake_128(b'guest').digest(3 * CHUNK + 5000)


class NoSize(io.RawIOBase):
    """A volume that is no file, and whose end can't be asked for."""

    def __init__(self):
        self.content = bytearray(GIB)
        self._position = 0

    def seek(self, offset, whence=os.SEEK_SET):
        if whence != os.SEEK_END:
            self._position = offset + (
                self._position if whence == os.SEEK_CUR else 0)

    def tell(self):
        return self._position

    def write(self, data):
        end = self._position + len(data)
        self.content[self._position:end] = data
        self._position = end
        return len(data)


@ddt.ddt
class LustreBackupDriverTestCase(test.TestCase):

    def setUp(self):
        super().setUp()
        self.useFixture(fixtures.MockPatchObject(units, 'Gi', GIB))
        self.lustre = self.useFixture(fakes.FakeLustre())
        self.useFixture(fixtures.MockPatchObject(lustre, 'privileged',
                                                 self.lustre))
        for name, value in {
                'lustre_backup_share': SHARE,
                'lustre_backup_mount_point': self.lustre.base,
                'lustre_backup_mount_attempts': 1,
                'backup_file_size': CHUNK,
                'backup_sha_block_size_bytes': CHUNK // 2,
                'backup_enable_progress_timer': False}.items():
            self.override_config(name, value)
        self.context = context.RequestContext(
            fake_constants.USER_ID, fake_constants.PROJECT_ID, is_admin=True)
        self.temp = self.useFixture(fixtures.TempDir()).path

    def driver(self):
        """As cinder-backup: a new one for each operation."""
        return lustre.LustreBackupDriver(self.context)

    @property
    def directory(self):
        return self.driver().backup_path

    def assert_refused(self, reason, operation, *args):
        error = self.assertRaises(exception.BackupDriverException, operation,
                                  *args)
        self.assertIn(SHARE, str(error))
        self.assertIn(reason, str(error))

    # Options

    def test_driver_options(self):
        options = lustre.LustreBackupDriver.get_driver_options()
        names = {option.name for option in options}
        self.assertLessEqual({
            'lustre_backup_share', 'lustre_backup_mount_point',
            'lustre_backup_mount_options', 'lustre_backup_mount_attempts',
            'backup_file_size', 'backup_container'}, names)
        self.assertEqual(len(names), len(options))

    def test_options_for_the_sample(self):
        groups = dict(opts.list_opts())
        self.assertEqual(lustre.lustre_backup_opts, list(groups['DEFAULT']))

    @ddt.data((None, 'None'), ('', 'expected a share'),
              ('10.0.2.15@tcp:lustre', "there is no ':/'"),
              ('10.0.2.15@tcp:/lustre/..', "'.' or '..'"),
              (SHARE + ' -o noflock', "need 'flock'"))
    @ddt.unpack
    def test_malformed_share(self, name, reason):
        self.override_config('lustre_backup_share', name)
        error = self.assertRaises(exception.InvalidConfigurationValue,
                                  self.driver)
        self.assertIn('lustre_backup_share', str(error))
        self.assertIn(reason, str(error))

    def test_mount_options_without_locks(self):
        self.override_config('lustre_backup_mount_options', 'localflock')
        error = self.assertRaises(exception.InvalidConfigurationValue,
                                  self.driver)
        self.assertIn('lustre_backup_mount_options', str(error))
        self.assertIn('localflock', str(error))

    def test_layout_that_is_none(self):
        self.override_config('lustre_backup_layout', '-c 4 -S 100K')
        error = self.assertRaises(exception.InvalidConfigurationValue,
                                  self.driver)
        self.assertIn('lustre_backup_layout', str(error))
        self.assertIn("'100K' is no stripe size", str(error))

    # The share

    def test_backup_path(self):
        driver = self.driver()
        digest = hashlib.md5(SHARE.encode(), usedforsecurity=False)
        self.assertEqual(os.path.join(self.lustre.base, digest.hexdigest()),
                         driver.backup_path)

    def test_making_a_driver_mounts_nothing(self):
        self.driver()
        self.assertEqual([], self.lustre.mounts)

    def test_mounts_once(self):
        for _n in range(3):
            self.driver().check_for_setup_error()
        self.assertEqual([(SHARE, self.directory, 'flock')],
                         self.lustre.mounts)

    def test_mount_options(self):
        self.override_config('lustre_backup_mount_options', 'flock,noatime')
        self.driver().check_for_setup_error()
        self.override_config('lustre_backup_share', SHARE + '2 -o flock,ro')
        self.driver().check_for_setup_error()
        self.assertEqual(['flock,noatime', 'flock,ro'],
                         [mount[2] for mount in self.lustre.mounts])

    def test_what_is_known_of_the_share_outlives_a_driver(self):
        # Calls that hang, above all.
        self.assertIs(self.driver()._client, self.driver()._client)

    def test_can_not_be_mounted(self):
        self.lustre.missing.add(SHARE)
        self.assert_refused('No such file or directory',
                            self.driver().check_for_setup_error)

    def test_something_else_is_mounted(self):
        driver = self.driver()
        for fs_type, source, reason in (
                ('nfs4', SHARE, 'has the type nfs4'),
                ('lustre', '10.0.2.15@tcp:/lustre', 'is 10.0.2.15@tcp:/l')):
            self.lustre.table[driver.backup_path] = lustre_brick.Mount(
                driver.backup_path, fs_type, source)
            self.assert_refused(reason, driver.check_for_setup_error)

    def test_not_writable(self):
        with mock.patch.object(os, 'access', return_value=False):
            self.assert_refused("can't write",
                                self.driver().check_for_setup_error)

    def test_does_not_answer(self):
        with mock.patch.object(lustre_brick.ShareClient, 'check',
                               side_effect=OSError(errno.EIO, 'I/O error')):
            error = self.assertRaises(exception.BackupDriverException,
                                      self.driver().check_for_setup_error)
        self.assertIn('I/O error', str(error))

    def test_mounted_again(self):
        # After a restart of the host, say.
        backup, _content = self._backup()
        self.lustre.table.clear()
        self.driver().delete_backup(backup)
        self.assertEqual(2, len(self.lustre.mounts))

    @ddt.data('backup', 'restore', 'delete')
    def test_operations_on_a_share_that_is_missing(self, operation):
        backup, _content = self._backup()
        before = self._files()
        self.lustre.table.clear()
        self.lustre.missing.add(SHARE)
        driver = self.driver()
        volume_file = io.BytesIO()
        arguments = {'backup': (driver.backup, backup, volume_file),
                     'restore': (driver.restore, backup, backup.volume_id,
                                 volume_file, False),
                     'delete': (driver.delete_backup, backup)}[operation]
        self.assert_refused('No such file or directory', *arguments)
        self.assertEqual(before, self._files())
        self.assertEqual(b'', volume_file.getvalue())

    # Files

    def _files(self):
        return sorted(os.path.join(path, name)
                      for path, _dirs, names in os.walk(self.directory)
                      for name in names)

    @ddt.data(0o022, 0o077, 0)
    def test_modes(self, umask):
        self.addCleanup(os.umask, os.umask(umask))
        driver = self.driver()
        driver.put_container('a/b')
        with driver.get_object_writer('a/b', 'file') as f:
            f.write(b'content')
        path = os.path.join(driver.backup_path, 'a/b')
        self.assertEqual(0o770, os.stat(path).st_mode & 0o777)
        self.assertEqual(0o660, os.stat(path + '/file').st_mode & 0o777)

    def test_files_are_durable_when_they_are_closed(self):
        driver, synced, fsync = self.driver(), [], os.fsync
        driver.put_container('a')

        def note_fsync(fd):
            path = os.readlink('/proc/self/fd/%d' % fd)
            size = os.stat(path).st_size if os.path.isfile(path) else None
            synced.append((os.path.basename(path), size))
            fsync(fd)

        with mock.patch.object(os, 'fsync', note_fsync):
            with driver.get_object_writer('a', 'file') as f:
                f.write(b'content')
                self.assertEqual([], synced)
            self.assertEqual([('file', 7), ('a', None)], synced)
            f.close()
        self.assertEqual(2, len(synced))
        with driver.get_object_reader('a', 'file') as f:
            self.assertEqual(b'content', f.read())

    def test_a_file_that_can_not_be_made_durable_is_an_error(self):
        driver = self.driver()
        driver.put_container('a')
        f = driver.get_object_writer('a', 'file')
        with mock.patch.object(os, 'fsync', side_effect=OSError(
                errno.ENOSPC, 'No space left on device')):
            self.assertRaises(OSError, f.close)
        self.assertTrue(f.closed)

    def test_nothing_is_lost_when_less_is_written(self):
        # As the system call may do, on a file system that is almost full.
        class SomeFile(io.FileIO):
            def write(self, data):
                return super().write(data[:1000])

        driver = self.driver()
        driver.put_container('a')
        with mock.patch.object(io, 'FileIO', SomeFile):
            with driver.get_object_writer('a', 'file') as f:
                f.write(b'x' * 50000)
        with driver.get_object_reader('a', 'file') as f:
            self.assertEqual(b'x' * 50000, f.read())

    def test_what_does_not_fit_is_an_error(self):
        driver = self.driver()
        driver.put_container('a')
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        try:
            with testtools.ExpectedException(OSError):
                with driver.get_object_writer('a', 'file') as f:
                    f.write(b'x' * 5000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        self.assertTrue(f.closed)

    # Backups

    def _volume(self, size=1):
        volume = tests_utils.create_volume(
            self.context, size=size,
            volume_type_id=self.vt['id'])
        return objects.Volume.get_by_id(self.context, volume.id)

    def _backup(self, content=DATA + bytes(GIB - len(DATA)), parent=None,
                volume_id=None):
        volume_id = volume_id or self._volume().id
        backup = tests_utils.create_backup(
            self.context, volume_id, size=1, status='creating',
            parent_id=parent and parent.id)
        backup.container = None
        self.driver().backup(backup, io.BytesIO(content))
        backup.save()
        return objects.Backup.get_by_id(self.context, backup.id), content

    @staticmethod
    def _set_restoring(backup):
        backup.status = fields.BackupStatus.RESTORING
        backup.save()

    def _restore(self, backup, volume_is_new=True, size=1):
        self._set_restoring(backup)
        path = os.path.join(self.temp, 'volume')
        # So does cinder-backup.
        with open(path, 'wb') as f:
            self.driver().restore(backup, self._volume(size).id, f,
                                  volume_is_new)
        with open(path, 'rb') as f:
            return f.read()

    @ddt.data('zlib', 'none')
    def test_backup_and_restore(self, algorithm):
        self.override_config('backup_compression_algorithm', algorithm)
        backup, content = self._backup()
        self.assertEqual(content, self._restore(backup))
        self.assertEqual(content, self._restore(backup, False))
        for path in self._files():
            self.assertEqual(0o660, os.stat(path).st_mode & 0o777)

    @ddt.data(bytes(GIB), b'\0' * CHUNK + b'x' + bytes(GIB - CHUNK - 1),
              bytes(GIB - 1) + b'x')
    def test_zeros(self, content):
        backup, _content = self._backup(content)
        self.assertEqual(content, self._restore(backup))

    def test_restore_to_a_larger_volume(self):
        backup, content = self._backup()
        self.assertEqual(content + bytes(2 * GIB),
                         self._restore(backup, size=3))

    def test_incremental(self):
        volume_id = self._volume().id
        full, content = self._backup(volume_id=volume_id)
        # Data becomes zeros, and zeros data.
        changed = bytes(CHUNK) + content[CHUNK:-CHUNK] + b'y' * CHUNK
        incremental, _content = self._backup(changed, full, volume_id)
        self.assertEqual(changed, self._restore(incremental))
        self.assertEqual(content, self._restore(full))

    def test_restore_to_what_is_no_file(self):
        backup, content = self._backup()
        self._set_restoring(backup)
        volume_file = NoSize()
        self.driver().restore(backup, self._volume().id, volume_file, True)
        self.assertEqual(content, bytes(volume_file.content))

    def test_restore_leaves_a_longer_file_alone(self):
        # A device may be larger than was asked for.
        backup, content = self._backup()
        self._set_restoring(backup)
        volume_file = io.BytesIO(b'x' * (GIB + 5))
        self.driver().restore(backup, self._volume().id, volume_file, False)
        self.assertEqual(content + b'x' * 5, volume_file.getvalue())

    # Cinder's own posix driver

    def _posix(self):
        return posix.PosixBackupDriver(self.context,
                                       backup_path=self.directory)

    # Data, zeros long enough for a chunk of their own, and both in a block.
    MIXED = (DATA + bytes(5 * CHUNK - len(DATA)) + DATA[:CHUNK] +
             b'x' + bytes(CHUNK - 1) + bytes(2 * CHUNK) + DATA[:100])
    MIXED += bytes(GIB - len(MIXED))
    # Data becomes zeros, and zeros data.
    CHANGED = (bytes(CHUNK) + MIXED[CHUNK:6 * CHUNK] + b'y' * CHUNK +
               MIXED[7 * CHUNK:])
    AGAIN = CHANGED[:2 * CHUNK] + b'z' * 7 + CHANGED[2 * CHUNK + 7:]

    def _back_up_file(self, driver, content, volume_id, parent=None):
        path = os.path.join(self.temp, 'source')
        with open(path, 'wb') as f:
            # Holes where there are zeros.
            for offset in range(0, GIB, CHUNK // 4):
                part = content[offset:offset + CHUNK // 4]
                if any(part):
                    os.pwrite(f.fileno(), part, offset)
            f.truncate(GIB)
        backup = tests_utils.create_backup(
            self.context, volume_id, size=1, status='creating',
            parent_id=parent and parent.id)
        backup.container = None
        with open(path, 'rb') as f:
            driver.backup(backup, f)
        backup.save()
        return objects.Backup.get_by_id(self.context, backup.id)

    def _restored_file(self, driver, backup, volume_is_new, old=b''):
        self._set_restoring(backup)
        path = os.path.join(self.temp, 'volume')
        with open(path, 'wb') as f:
            f.write(old)
        with open(path, 'r+b') as f:
            driver.restore(backup, self._volume().id, f, volume_is_new)
        with open(path, 'rb') as f:
            return f.read()

    def _assert_same(self, expected, content):
        """Say nothing of what there is a lot of."""
        self.assertEqual(*((len(b), hashlib.sha256(b).hexdigest())
                           for b in (expected, content)))

    def _recorded(self, backup):
        directory = os.path.join(self.directory, backup.container)
        with open('%s/%s_metadata' % (directory,
                                      backup.service_metadata)) as f:
            metadata = json.load(f)
        with open('%s/%s_sha256file' % (directory,
                                        backup.service_metadata)) as f:
            return metadata, json.load(f)

    def _assert_recorded(self, backup, content):
        """What is recorded is what the chunked driver would record."""
        metadata, sha256file = self._recorded(backup)
        self.assertEqual(
            [hashlib.sha256(content[n:n + CHUNK // 2]).hexdigest()
             for n in range(0, GIB, CHUNK // 2)], sha256file['sha256s'])
        self.assertEqual(backup.object_count, len(metadata['objects']))
        end = 0
        for chunk in metadata['objects']:
            (name, chunk), = chunk.items()
            part = content[chunk['offset']:chunk['offset'] + chunk['length']]
            self.assertEqual(chunk['length'], len(part))
            self.assertEqual(hashlib.md5(
                part, usedforsecurity=False).hexdigest(), chunk['md5'])
            if backup.parent_id:
                self.assertGreaterEqual(chunk['offset'], end)
            else:
                self.assertEqual(end, chunk['offset'])
            end = chunk['offset'] + chunk['length']
        return metadata['objects']

    @ddt.data('none', 'zlib', 'gzip', 'bz2', 'zstd')
    def test_posix_driver_restores_ours(self, algorithm):
        self.override_config('backup_compression_algorithm', algorithm)
        volume_id = self._volume().id
        backup = self._back_up_file(self.driver(), self.MIXED, volume_id)
        self._assert_recorded(backup, self.MIXED)
        # What was there before is overwritten, zeros and all.
        for driver in self._posix(), self.driver():
            restored = self._restored_file(driver, backup, False,
                                           b'o' * GIB)
            self._assert_same(self.MIXED, restored)

    @ddt.data('none', 'zlib', 'gzip', 'bz2', 'zstd')
    def test_restores_those_of_posix_driver(self, algorithm):
        self.override_config('backup_compression_algorithm', algorithm)
        backup = self._back_up_file(self._posix(), self.MIXED,
                                    self._volume().id)
        for old in b'', b'o' * GIB:
            restored = self._restored_file(self.driver(), backup, not old,
                                           old)
            self._assert_same(self.MIXED, restored)

    @ddt.data((True, False, True), (False, True, False), (True, True, True))
    def test_chain_of_both_drivers(self, ours):
        volume_id, parent = self._volume().id, None
        chain = []
        for content, is_ours in zip((self.MIXED, self.CHANGED, self.AGAIN),
                                    ours):
            driver = self.driver() if is_ours else self._posix()
            parent = self._back_up_file(driver, content, volume_id, parent)
            self._assert_recorded(parent, content)
            chain.append((parent, content))
        for backup, content in chain:
            for old in b'', b'o' * GIB:
                restored = self._restored_file(self.driver(), backup, not old,
                                               old)
                self._assert_same(content, restored)
            self._assert_same(content, self._restored_file(
                self._posix(), backup, False, b'o' * GIB))

    def test_zeros_take_no_space(self):
        self.override_config('backup_file_size', 8 * CHUNK)
        content = DATA + bytes(GIB - len(DATA))
        backup = self._back_up_file(self.driver(), content, self._volume().id)
        sizes = {}
        for chunk in self._assert_recorded(backup, content):
            (name, chunk), = chunk.items()
            status = os.stat(os.path.join(self.directory, backup.container,
                                          name))
            sizes[chunk['offset']] = status.st_blocks * 512
        # The rest of the last block with data is all that is zeros.
        self.assertLess(sum(sizes.values()), len(DATA) + CHUNK)
        self.assertEqual(3, len(sizes))

    @ddt.data('-00001', '-00002', '_sha256file', '_metadata')
    def test_what_can_not_be_stored_is_an_error(self, which):
        store = lustre.LustreBackupDriver._store

        def fail(driver, container, name, data):
            if name.endswith(which):
                raise OSError(errno.ENOSPC, 'No space left on device')
            store(driver, container, name, data)

        with mock.patch.object(lustre.LustreBackupDriver, '_store', fail):
            self.assertRaises(OSError, self._back_up_file, self.driver(),
                              self.MIXED, self._volume().id)
        self.assertEqual([], [path for path in self._files()
                              if path.endswith('_metadata')])

    def test_cancelled(self):
        driver = lustre.LustreBackupDriver
        back_up_chunk, store = driver._backup_chunk, driver._store

        def cancel(driver, backup, *args):
            back_up_chunk(driver, backup, *args)
            backup.status = fields.BackupStatus.DELETING
            backup.save()

        def store_late(*args):
            # It has not been stored when the driver deletes the backup.
            time.sleep(0.3)
            store(*args)

        with mock.patch.multiple(driver, _backup_chunk=cancel,
                                 _store=store_late):
            self._back_up_file(self.driver(), DATA + bytes(GIB - len(DATA)),
                               self._volume().id)
        self.assertEqual([], self._files())

    def test_stored_chunk_is_incomplete(self):
        self.override_config('backup_compression_algorithm', 'zlib')
        text = b'text ' * (GIB // 5) + b'.'
        backup = self._back_up_file(self.driver(), text, self._volume().id)
        chunk = next(path for path in self._files()
                     if path.endswith('-00001'))
        os.truncate(chunk, os.path.getsize(chunk) - 1)
        self.assertRaises(EOFError, self._restored_file, self.driver(),
                          backup, True)

    def test_delete(self):
        one, content = self._backup()
        other, _content = self._backup()
        self.driver().delete_backup(other)
        self.assertEqual(content, self._restore(one))
        self.driver().delete_backup(one)
        self.assertEqual([], self._files())

    def test_is_a_posix_driver(self):
        self.assertIsInstance(self.driver(), posix.PosixBackupDriver)
