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

import contextlib
import errno
import os
import resource
import subprocess
import sys
from unittest import mock
import uuid

import ddt
import fixtures
import hypothesis
from hypothesis import strategies
from oslotest import base

from cinder.lustre import files
from cinder.tests.unit.lustre import fakes

KIB, MIB = fakes.KIB, fakes.MIB

# The same examples each time, however long they take.
_SETTINGS = hypothesis.settings(deadline=None, derandomize=True,
                                max_examples=50)
_BYTES_SETTINGS = hypothesis.settings(_SETTINGS, max_examples=500)

# Reads a file until it is empty; it is complete and of one kind all the time.
_READ = """
import sys
print(flush=True)
content = True
while content:
    with open(sys.argv[1]) as f:
        content = f.read()
    assert content == content[:1] * 50000 or not content
"""

_NAME = 'volume-' + str(uuid.UUID(int=1))
_ONE, _TWO, _THREE = ('%s.%s' % (_NAME, uuid.UUID(int=n)) for n in (2, 3, 4))


class FilesTestCase(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        self.directory = self.useFixture(fixtures.TempDir()).path
        umask = os.umask(0)
        self.addCleanup(os.umask, umask)

    def path(self, name):
        return os.path.join(self.directory, name)

    def write(self, name, content):
        with open(self.path(name), 'wb') as f:
            f.write(content)
        return self.path(name)

    def content(self, name):
        with open(self.path(name), 'rb') as f:
            return f.read()

    def listing(self):
        return sorted(os.listdir(self.directory))

    @contextlib.contextmanager
    def recorded(self):
        """Record what is synced and renamed, in their order."""
        calls, fsync, replace = [], os.fsync, os.replace

        def note_fsync(fd):
            calls.append(('sync', os.path.basename(
                os.readlink('/proc/self/fd/%d' % fd))))
            fsync(fd)

        def note_replace(source, target):
            calls.append(('rename', os.path.basename(source),
                          os.path.basename(target)))
            replace(source, target)

        with mock.patch.object(os, 'fsync', note_fsync), \
                mock.patch.object(os, 'replace', note_replace):
            yield calls


class ReplaceTestCase(FilesTestCase):

    def test_create(self):
        files.create(self.path('a'), 0o660)
        self.assertEqual(b'', self.content('a'))
        self.assertEqual(0o660, os.stat(self.path('a')).st_mode & 0o777)

    def test_create_replaces_what_an_earlier_attempt_left(self):
        os.symlink('/nonexistent/elsewhere', self.path('a'))
        files.create(self.path('a'), 0o600)
        self.assertFalse(os.path.islink(self.path('a')))

    def test_create_does_not_truncate_what_others_have_open(self):
        self.write('a', b'old')
        with open(self.path('a'), 'rb') as old:
            files.create(self.path('a'), 0o660)
            self.assertEqual(b'old', old.read())

    def test_publish_is_durable_before_it_is_seen(self):
        self.write('a', b'old')
        self.write('a.new', b'new')
        with self.recorded() as calls:
            files.publish(self.path('a.new'), self.path('a'))
        self.assertEqual([('sync', 'a.new'), ('rename', 'a.new', 'a'),
                          ('sync', os.path.basename(self.directory))], calls)
        self.assertEqual(b'new', self.content('a'))
        self.assertEqual(['a'], self.listing())

    def test_replace(self):
        self.write('a', b'old')
        files.replace(self.path('a'), self.path('a.new'), b'new', 0o660)
        self.assertEqual(b'new', self.content('a'))
        self.assertEqual(0o660, os.stat(self.path('a')).st_mode & 0o777)
        self.assertEqual(['a'], self.listing())

    def test_replace_that_fails_leaves_the_old_one(self):
        # Of the calls that it makes, each fails once.
        calls = ('unlink', 'open', 'fsync', 'replace')
        for name in calls:
            self.write('a', b'old')
            with mock.patch.object(os, name, side_effect=OSError(
                    errno.EIO, 'error')):
                self.assertRaises(OSError, files.replace, self.path('a'),
                                  self.path('a.new'), b'new', 0o660)
            self.assertEqual(b'old', self.content('a'))
        files.replace(self.path('a'), self.path('a.new'), b'new', 0o660)
        self.assertEqual(b'new', self.content('a'))

    def test_readers_see_the_old_or_the_new_one(self):
        self.write('a', b'1' * 50000)
        with subprocess.Popen([sys.executable, '-c', _READ, self.path('a')],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              text=True) as reader:
            reader.stdout.readline()
            for n in range(100):
                files.replace(self.path('a'), self.path('a.new'),
                              b'%d' % (n % 10) * 50000, 0o660)
            self.write('a', b'')
            self.assertEqual(0, reader.wait())

    def test_read_what_is_not_there(self):
        self.assertIsNone(files.read(self.path('a')))

    def test_remove(self):
        for name in 'abc':
            self.write(name, b'')
        with self.recorded() as calls:
            files.remove([self.path('a'), self.path('none'), self.path('b')])
        self.assertEqual(['c'], self.listing())
        self.assertEqual([('sync', os.path.basename(self.directory))], calls)

    def test_remove_nothing(self):
        files.remove([])

    def test_remove_where_there_is_no_directory(self):
        self.assertRaises(OSError, files.remove,
                          [self.path('nowhere/a')])

    def test_size(self):
        self.write('a', b'123')
        self.assertEqual(3, files.size(self.path('a')))

    def test_not_writable(self):
        self.write('mine', b'')
        paths = [self.path('mine'), self.path('none')]
        self.assertEqual([], files.not_writable(paths))
        with mock.patch.object(os, 'access', return_value=False):
            self.assertEqual(paths[:1], files.not_writable(paths))

    def test_take_over_does_not_follow_links(self):
        self.write('a', b'')
        os.symlink('a', self.path('link'))
        with mock.patch.object(os, 'chown') as chown:
            files.take_over(self.path('link'), 5, 6)
        chown.assert_called_once_with(self.path('link'), 5, 6,
                                      follow_symlinks=False)


@ddt.ddt
class SpaceTestCase(FilesTestCase):

    def test_grow(self):
        self.write('a', b'data')
        files.grow(self.path('a'), MIB)
        self.assertEqual(b'data' + bytes(MIB - 4), self.content('a'))
        self.assertLess(fakes.allocated(self.path('a')), MIB)

    def test_grow_never_shrinks(self):
        self.write('a', b'data')
        files.grow(self.path('a'), 2)
        self.assertEqual(b'data', self.content('a'))

    def test_grow_what_is_not_there(self):
        self.assertRaises(FileNotFoundError, files.grow, self.path('a'), 5)
        self.assertEqual([], self.listing())

    def test_allocate(self):
        self._sparse({MIB: b'data'}, 3 * MIB)
        before = self.content('a')
        try:
            self.assertTrue(files.allocate(self.path('a')))
        except OSError as exc:
            self.skipTest('no fallocate here: %s' % exc)
        self.assertEqual(before, self.content('a'))
        self.assertGreaterEqual(fakes.allocated(self.path('a')), 3 * MIB)

    def _sparse(self, pieces, size):
        with open(self.path('a'), 'wb') as f:
            for offset, data in pieces.items():
                f.seek(offset)
                f.write(data)
            f.truncate(size)

    @staticmethod
    def _no_fallocate(number=errno.EOPNOTSUPP):
        """Lustre on ZFS."""
        return mock.patch.object(files, '_fallocate', side_effect=OSError(
            number, os.strerror(number)))

    def _allocate_by_zeros(self, pieces, size):
        self._sparse(pieces, size)
        before = self.content('a')
        with self._no_fallocate():
            self.assertFalse(files.allocate(self.path('a')))
        self.assertEqual(before, self.content('a'))
        self.assertGreaterEqual(fakes.allocated(self.path('a')), size)

    @ddt.data({}, {0: b'x'}, {3 * MIB - 1: b'x'}, {MIB: b'x' * MIB},
              {4 * KIB: b'x', 64 * KIB: b'y', 2 * MIB: b'z'})
    def test_allocate_by_zeros(self, pieces):
        self._allocate_by_zeros(pieces, 3 * MIB)

    def test_allocate_by_zeros_an_empty_file(self):
        self._allocate_by_zeros({}, 0)

    def test_allocate_by_zeros_through_the_cache(self):
        real_open = os.open

        def no_direct(path, flags, *args, **kwargs):
            if flags & os.O_DIRECT:
                raise OSError(errno.EINVAL, 'Invalid argument')
            return real_open(path, flags, *args, **kwargs)

        with mock.patch.object(os, 'open', no_direct):
            self._allocate_by_zeros({MIB: b'x'}, 3 * MIB)

    def test_allocate_by_zeros_when_less_is_written(self):
        real_pwrite = os.pwrite

        def some(fd, data, offset):
            return real_pwrite(fd, data[:8 * KIB], offset)

        with mock.patch.object(os, 'pwrite', some):
            self._allocate_by_zeros({64 * KIB: b'x'}, MIB)

    def test_allocate_by_zeros_takes_little_memory(self):
        sizes, real_pwrite = [], os.pwrite

        def pwrite(fd, data, offset):
            sizes.append(len(data))
            return real_pwrite(fd, data, offset)

        with mock.patch.object(os, 'pwrite', pwrite):
            self._allocate_by_zeros({}, 8 * MIB)
        self.assertEqual([MIB] * 8, sizes)

    def test_data_is_not_written_again(self):
        written, real_pwrite = [], os.pwrite

        def pwrite(fd, data, offset):
            written.append((offset, len(data)))
            return real_pwrite(fd, data, offset)

        with mock.patch.object(os, 'pwrite', pwrite):
            self._allocate_by_zeros({MIB: b'x' * MIB}, 3 * MIB)
        self.assertEqual([(0, MIB), (2 * MIB, MIB)], written)

    @_SETTINGS
    @hypothesis.given(
        strategies.dictionaries(
            strategies.integers(0, 3 * MIB - 1),
            strategies.binary(min_size=1, max_size=100), max_size=5),
        strategies.integers(0, 3 * MIB // 4096).map(lambda n: n * 4096))
    def test_allocate_by_zeros_keeps_the_content(self, pieces, size):
        self._allocate_by_zeros(pieces, size)

    @ddt.data(errno.ENOSPC, errno.EDQUOT, errno.EIO)
    def test_allocate_fails(self, number):
        self._sparse({}, MIB)
        with self._no_fallocate(number):
            error = self.assertRaises(OSError, files.allocate,
                                      self.path('a'))
        self.assertEqual(number, error.errno)
        self.assertEqual(bytes(MIB), self.content('a'))

    def test_no_room_for_zeros(self):
        self._sparse({}, MIB)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
        try:
            with self._no_fallocate():
                error = self.assertRaises(OSError, files.allocate,
                                          self.path('a'))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        self.assertEqual(errno.EFBIG, error.errno)

    def test_fallocate_after_a_signal(self):
        libc = mock.Mock()
        libc.fallocate.side_effect = [-1, -1, 0]
        with mock.patch('ctypes.CDLL', return_value=libc), \
                mock.patch('ctypes.get_errno', return_value=errno.EINTR):
            files._fallocate(3, 0, 0, 4096)
        self.assertEqual(3, libc.fallocate.call_count)


class LinkTestCase(FilesTestCase):

    def setUp(self):
        super().setUp()
        self.new = self.useFixture(fixtures.TempDir()).path
        for name in 'a', 'b':
            self.write(name, name.encode())

    def test_link(self):
        files.link(self.directory, self.new, ['a', 'b'])
        # As a repetition does.
        files.link(self.directory, self.new, ['a', 'b'])
        for name in 'a', 'b':
            self.assertTrue(os.path.samefile(
                self.path(name), os.path.join(self.new, name)))

    def test_one_directory_by_two_names(self):
        alias = self.directory + '-too'
        os.symlink(self.directory, alias)
        self.addCleanup(os.unlink, alias)
        self.assertRaises(FileExistsError, files.link, self.directory, alias,
                          ['a', 'b'])

    def test_all_or_none(self):
        taken = os.path.join(self.new, 'b')
        with open(taken, 'w') as f:
            f.write('another')
        self.assertRaises(FileExistsError, files.link, self.directory,
                          self.new, ['a', 'b'])
        self.assertEqual(['b'], os.listdir(self.new))
        with open(taken) as f:
            self.assertEqual('another', f.read())


class HolesTestCase(FilesTestCase):

    def test_dig_holes(self):
        """What is data stays, at whatever place."""
        content = (b'a' + bytes(3 * MIB) + b'b' * MIB + bytes(2 * MIB + 5)
                   + b'c')
        self.write('a', content)
        with open(self.path('a'), 'r+b') as f:
            f.truncate(12 * MIB)
        try:
            files.allocate(self.path('a'))
            self.assertTrue(files.dig_holes(self.path('a')))
        except OSError as exc:
            self.skipTest('no fallocate here: %s' % exc)
        self.assertEqual(content.ljust(12 * MIB, b'\0'), self.content('a'))
        self.assertLessEqual(fakes.allocated(self.path('a')), 5 * MIB)

    def test_where_there_can_be_no_holes(self):
        content = self.write('a', bytes(2 * MIB)) and self.content('a')
        with mock.patch.object(files, 'punch_hole', return_value=False):
            self.assertFalse(files.dig_holes(self.path('a')))
        self.assertEqual(content, self.content('a'))

    def test_space(self):
        self.write('a', b'a')
        with open(self.path('a'), 'r+b') as f:
            f.truncate(2 * MIB)
        self.assertEqual((2 * MIB, fakes.allocated(self.path('a'))),
                         files.space(self.path('a')))


@ddt.ddt
class ChainTestCase(FilesTestCase):

    def qcow2(self, name, *args, **kwargs):
        self.write(name, fakes.qcow2_header(*args, **kwargs))

    def chain(self, active=_NAME, base_format='qcow2'):
        return files.chain(self.directory, _NAME, active, base_format)

    def assert_refused(self, reason, *args, **kwargs):
        error = self.assertRaises(ValueError, self.chain, *args, **kwargs)
        self.assertIn(reason, str(error))

    def test_raw(self):
        self.write(_NAME, bytes(5))
        self.assertEqual([(_NAME, 'raw', 5)], self.chain(base_format='raw'))

    def test_raw_with_a_qcow2_header_by_the_guest(self):
        self.qcow2(_NAME, backing='/etc/passwd', backing_format='raw')
        size = os.stat(self.path(_NAME)).st_size
        self.assertEqual([(_NAME, 'raw', size)],
                         self.chain(base_format='raw'))

    @ddt.data(2, 3)
    def test_qcow2(self, version):
        self.qcow2(_NAME, 7 * MIB, version=version)
        self.assertEqual([(_NAME, 'qcow2', 7 * MIB)], self.chain())

    @ddt.data(2, 3)
    def test_overlays(self, version):
        self.write(_NAME, bytes(5))
        self.qcow2(_ONE, 5, _NAME, 'raw', version=version)
        self.qcow2(_TWO, 6, _ONE, 'qcow2', version=version)
        self.assertEqual([(_TWO, 'qcow2', 6), (_ONE, 'qcow2', 5),
                          (_NAME, 'raw', 5)], self.chain(_TWO, 'raw'))
        self.assertEqual([(_ONE, 'qcow2', 5), (_NAME, 'raw', 5)],
                         self.chain(_ONE, 'raw'))

    def test_an_overlay_that_has_become_the_base(self):
        # Nova has merged the volume's first image into it.
        self.qcow2(_ONE, 5)
        self.qcow2(_TWO, 5, _ONE, 'qcow2')
        self.assertEqual([_TWO, _ONE],
                         [image[0] for image in self.chain(_TWO)])

    @ddt.data((), ((0x6803F857, b'x' * 144),),
              ((1, b''), (2, b'odd'), (3, b'x' * 8)))
    def test_other_header_extensions(self, extensions):
        self.write(_NAME, b'')
        self.qcow2(_ONE, 5, _NAME, 'raw', extensions=extensions)
        self.assertEqual(2, len(self.chain(_ONE, 'raw')))

    def test_longer_header_of_a_newer_qemu(self):
        self.write(_NAME, b'')
        header = bytearray(fakes.qcow2_header(
            5, _NAME, 'raw', header_length=112, offset=112 + 32,
            extensions=[(0, b'')]))
        extra = fakes.qcow2_header(5, _NAME, 'raw')[104:]
        self.write(_ONE, bytes(header[:104]) + bytes(8) + extra[:32] +
                   _NAME.encode())
        self.assertEqual(2, len(self.chain(_ONE, 'raw')))

    @ddt.data('/etc/passwd', '../' + _NAME, './' + _NAME, _NAME + '.info',
              'volume-' + str(uuid.UUID(int=9)), _NAME + '.new', '',
              'json:{"driver":"raw","file":{"filename":"/etc/passwd"}}',
              'nbd://example.com/x', 'file:' + _NAME, _NAME + '\n',
              _NAME + '\0', _ONE + '/../' + _NAME, '\udcff',
              _NAME + '.' + 'g' * 36)
    def test_foreign_backing_file(self, backing):
        self.qcow2(_NAME, 5, backing, 'qcow2')
        self.assert_refused('is not a file of ' + _NAME)

    def test_foreign_backing_file_further_down(self):
        self.qcow2(_NAME, 5, '/etc/passwd', 'raw')
        self.qcow2(_ONE, 5, _NAME, 'qcow2')
        self.assert_refused("'/etc/passwd' is not a file of", _ONE)

    def test_foreign_active_image(self):
        self.assert_refused('is not a file of', '../' + _NAME)

    @ddt.data((1 << 2, 'data in another file'), (1 << 1, 'corrupt'),
              (1 << 5, 'unknown features (0x20)'),
              (1 << 63, 'unknown features'))
    @ddt.unpack
    def test_features_we_can_not_take(self, bits, reason):
        self.qcow2(_NAME, incompatible=bits)
        self.assert_refused(reason)

    @ddt.data(0, 1 << 0, 1 << 3, 1 << 4)
    def test_features_we_can_take(self, bits):
        self.qcow2(_NAME, incompatible=bits)
        self.assertEqual(1, len(self.chain()))

    @ddt.data({'magic': b'QFI\xfa'}, {'magic': b'\0\0\0\0'}, {'version': 1},
              {'version': 4})
    def test_no_qcow2(self, wrong):
        self.qcow2(_NAME, **wrong)
        self.assert_refused(_NAME + ' is recorded as qcow2, but is not')

    @ddt.data(b'', b'QFI\xfb', b'x')
    def test_hardly_a_file(self, content):
        self.write(_NAME, content)
        self.assert_refused('is recorded as qcow2, but is not')

    @ddt.data('raw', None, 'qcow', 'vmdk', 'QCOW2', '')
    def test_overlay_names_another_format(self, backing_format):
        self.qcow2(_NAME)
        self.qcow2(_ONE, 5, _NAME, backing_format)
        self.assert_refused('is recorded as qcow2, but the overlay above it '
                            'says %s' % backing_format, _ONE)

    @ddt.data('qcow2', None)
    def test_overlay_names_another_format_than_raw(self, backing_format):
        # Without a format QEMU would guess, by what the guest has written.
        self.write(_NAME, bytes(5))
        self.qcow2(_ONE, 5, _NAME, backing_format)
        self.assert_refused('is recorded as raw', _ONE, 'raw')

    def test_loop(self):
        self.qcow2(_ONE, 5, _TWO, 'qcow2')
        self.qcow2(_TWO, 5, _ONE, 'qcow2')
        self.assert_refused('is its own backing file', _TWO)

    def test_loop_of_one(self):
        self.qcow2(_NAME, 5, _NAME, 'qcow2')
        self.assert_refused('is its own backing file')

    @ddt.data({'length': 1024}, {'length': 0xFFFFFFFF},
              {'offset': (1 << 64) - 1}, {'offset': 1 << 63},
              {'offset': 2 << 20}, {'offset': 5000})
    def test_impossible_backing_file_name(self, wrong):
        self.qcow2(_NAME, 5, _ONE, 'qcow2', **wrong)
        self.assert_refused('impossible backing file name')

    def test_backing_file_name_of_the_greatest_length(self):
        self.qcow2(_NAME, 5, 'x' * 1023, 'qcow2')
        self.assert_refused('is not a file of')

    @ddt.data(0, 1, 0xFFFFFFFF)
    def test_impossible_header_length(self, length):
        self.write(_NAME, b'')
        self.qcow2(_ONE, 5, _NAME, 'raw', header_length=length)
        self.assertRaises(ValueError, self.chain, _ONE, 'raw')

    def test_missing(self):
        self.qcow2(_ONE, 5, _NAME, 'raw')
        error = self.assertRaises(FileNotFoundError, self.chain, _ONE, 'raw')
        self.assertEqual(self.path(_NAME), error.filename)

    @_BYTES_SETTINGS
    @hypothesis.given(
        strategies.binary(max_size=300) |
        strategies.builds(
            lambda tail, **kwargs: fakes.qcow2_header(**kwargs) + tail,
            backing=strategies.sampled_from([_NAME, _ONE, 'x' * 1000]),
            backing_format=strategies.sampled_from(['raw', 'qcow2']),
            version=strategies.integers(2, 3),
            header_length=strategies.integers(0, (1 << 32) - 1),
            offset=strategies.integers(0, (1 << 64) - 1) |
            strategies.integers(0, 2000),
            length=strategies.integers(0, (1 << 32) - 1) |
            strategies.integers(0, 2000),
            tail=strategies.binary(max_size=300)),
        strategies.integers(0, 400))
    def test_whatever_is_in_a_header(self, header, end):
        self.write(_NAME, b'')
        for content in header, header[:end]:
            self.write(_ONE, content)
            with contextlib.suppress(ValueError):
                images = self.chain(_ONE, 'raw')
                self.assertIn(len(images), (1, 2))
            files.links(self.directory, _NAME, _ONE)

    @ddt.data('compat=0.10', 'compat=1.1', 'compat=1.1,extended_l2=on',
              'compat=1.1,compression_type=zstd')
    def test_what_qemu_img_makes(self, options):
        fakes.skip_without('qemu-img')
        fakes.qemu_img('create', '-q', '-f', 'raw', self.path(_NAME), '1M')
        for image, backing, backing_format in (
                (_ONE, _NAME, 'raw'), (_TWO, _ONE, 'qcow2')):
            fakes.qemu_img('create', '-q', '-f', 'qcow2', '-o', options,
                           '-u', '-b', backing, '-F', backing_format,
                           self.path(image), '3M')
        self.assertEqual([(_TWO, 'qcow2', 3 * MIB), (_ONE, 'qcow2', 3 * MIB),
                          (_NAME, 'raw', MIB)], self.chain(_TWO, 'raw'))

    # What a removal finds

    def links(self, active):
        return files.links(self.directory, _NAME, active)

    def test_named(self):
        for name in (_TWO, _NAME, _NAME + '.info', 'x' + _NAME):
            self.write(name, b'')
        self.assertEqual([_NAME, _TWO], files.named(self.directory, _NAME))

    def test_links(self):
        self.write(_NAME, b'')
        self.qcow2(_ONE, 5, _NAME, 'raw')
        self.qcow2(_TWO, 5, _ONE, 'qcow2')
        self.assertEqual([_TWO, _ONE, _NAME], self.links(_TWO))

    def test_links_of_what_is_left(self):
        self.qcow2(_TWO, 5, _ONE, 'qcow2')
        self.assertEqual([_TWO, _ONE], self.links(_TWO))
        self.assertEqual([_THREE], self.links(_THREE))

    def test_links_to_other_files(self):
        self.qcow2(_TWO, 5, '/etc/passwd', 'raw')
        self.assertEqual([_TWO], self.links(_TWO))

    def test_links_in_a_circle(self):
        self.qcow2(_TWO, 5, _ONE, 'qcow2')
        self.qcow2(_ONE, 5, _TWO, 'qcow2')
        self.assertEqual([_TWO, _ONE], self.links(_TWO))

    def test_links_of_a_damaged_image(self):
        self.write(_TWO, b'damaged')
        self.assertEqual([_TWO], self.links(_TWO))

    def test_links_of_an_overlay_that_has_become_the_base(self):
        self.qcow2(_TWO, 5)
        self.assertEqual([_TWO], self.links(_TWO))
