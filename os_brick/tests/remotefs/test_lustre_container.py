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


import errno
import functools
import io
import os
import struct
import subprocess
from unittest import mock

import ddt
import fixtures

from os_brick.remotefs import lustre_container
from os_brick.remotefs import lustre_disk
from os_brick.remotefs import lustre_file
from os_brick.remotefs import lustre_guard
from os_brick.remotefs import lustre_qcow2
from os_brick.tests import base
from os_brick.tests.remotefs import test_lustre_disk as disks

MIB, SIZE = disks.MIB, disks.SIZE
LENGTH = SIZE + 17 * MIB


def header(**changes):
    """Return the start of a container, with changes: {offset: value}."""
    start = bytearray(disks._encrypted_image()[:4096])
    for offset, (kind, value) in changes.items():
        struct.pack_into('>' + kind, start, int(offset[1:]), value)
    return bytes(start)


# What a tenant may have put in the place of a container.
BAD = {
    'backing file': {'_8': ('Q', 4000), '_16': ('I', 11)},
    'another file': {'_72': ('Q', 1 << 2)},
    'unknown features': {'_72': ('Q', 1 << 40)},
    'version': {'_4': ('I', 2)},
    'not encrypted with LUKS': {'_32': ('I', 0)},
    'internal snapshots': {'_60': ('I', 1)},
    'disk has': {'_24': ('Q', SIZE * 2)},
    'no qcow2': {'_0': ('I', 0x4c554b53)},
}


@ddt.ddt
class HeaderTest(base.TestCase):

    def parsed(self, **changes):
        return lustre_qcow2.Header.parse(header(**changes))

    def test_container(self):
        self.parsed().check_container(SIZE)
        # Dirty, with other compression, with subclusters.
        self.parsed(_72=('Q', 1 | 8 | 16)).check_container(SIZE)

    @ddt.data(*BAD)
    def test_what_is_none(self, reason):
        error = self.assertRaises(
            ValueError,
            lambda: self.parsed(**BAD[reason]).check_container(SIZE))
        self.assertIn(reason, str(error))

    def test_what_is_too_short(self):
        self.assertRaises(ValueError, lustre_qcow2.Header.parse,
                          header()[:71])

    def test_plain(self):
        self.parsed(_32=('I', 0)).check_plain()
        for changes in {}, {'_32': ('I', 0), '_60': ('I', 1)}:
            self.assertRaises(ValueError, self.parsed(**changes).check_plain)


@ddt.ddt
class ContainerTest(disks.DiskTestCase):

    def setUp(self):
        super().setUp()
        self.make_encrypted()
        with open(self.path('image'), 'rb') as f:
            self.before = f.read()
        self.target = 'target'
        open(self.path(self.target), 'wb').write(b'what it was')

    def container(self, name='image', kind=lustre_container.Container,
                  size=SIZE, **kwargs):
        container = kind(self.client, disks.SHARE, lustre_disk.Image(
            self.temp, ((name, 'qcow2'),), size, True, **kwargs))
        self.addCleanup(lambda: container.closed or container.close())
        return container

    def content(self, name='target'):
        with open(self.path(name), 'rb') as f:
            return f.read()

    # Reading

    def test_as_a_file(self):
        container = self.container(container_length=LENGTH)
        self.assertTrue(container.readable() and container.writable()
                        and container.seekable())
        self.assertRaises(io.UnsupportedOperation, container.fileno)
        self.assertEqual(b'QFI\xfb', container.read(4))
        self.assertEqual(4, container.tell())
        self.assertEqual(2, container.seek(-2, os.SEEK_CUR))
        buffer = bytearray(2)
        container.readinto(buffer)
        self.assertEqual(b'I\xfb', buffer)
        self.assertEqual(LENGTH - 1, container.seek(-1, os.SEEK_END))
        self.assertEqual(b'\0', container.read(9))
        self.assertEqual(b'', container.read(9))
        self.assertRaises(OSError, container.seek, -1)
        container.seek(0)
        self.assertEqual(self.before.ljust(LENGTH, b'\0'), container.read())
        container.close()
        self.assertRaises(ValueError, container.read)
        self.assertEqual(self.before, self.content('image'))

    def test_all_of_a_full_one_is_copied_in_a_migration(self):
        with open(self.path('image'), 'r+b') as f:
            f.seek(SIZE + 3 * MIB)
            f.write(b'the end')
        container, copied = self.container(), bytearray()
        # volume_utils._transfer_data
        for _chunk in range(SIZE // (4 * MIB)):
            copied += container.read(4 * MIB)
        self.assertEqual(self.content('image'), copied)
        self.assertEqual(b'', container.read(4 * MIB))

    def test_a_chain(self):
        container = lustre_container.Container(
            self.client, disks.SHARE, lustre_disk.Image(
                self.temp, (('image', 'qcow2'), ('base', 'qcow2')), SIZE,
                True))
        for operation in container.read, lambda: container.write(header()):
            error = self.assertRaises(lustre_disk.DiskLocked, operation)
            self.assertIn('image', str(error))

    # Writing

    def write(self, container, step=MIB):
        """Write as the chunked driver does to a new volume."""
        for start in range(0, len(self.before), step):
            part = self.before[start:start + step]
            if any(part):
                container.seek(start)
                container.write(part)
        container.flush()

    @ddt.data(0, LENGTH)
    def test_written(self, length):
        with self.container('target', container_length=length) as container:
            self.write(container)
        written = self.content()
        self.assertEqual(self.before.rstrip(b'\0'), written.rstrip(b'\0'))
        if length:
            self.assertEqual(length, len(written))
        self.assertLess(os.stat(self.path('target')).st_blocks * 512, 3 * MIB)
        self.assertEqual(bytes(8), self.disk(
            ('target', 'qcow2'), encrypted=True,
            passphrase=disks.PASSPHRASE).read(8))

    def test_zeros_replace_what_was_written(self):
        with self.container('target') as container:
            self.write(container)
            container.seek(MIB)
            container.write(bytes(MIB))
        self.assertEqual(bytes(MIB), self.content()[MIB:2 * MIB])

    @ddt.data(*BAD)
    def test_what_is_none_changes_nothing(self, reason):
        container = self.container('target')
        error = self.assertRaises(lustre_container.NoContainer,
                                  container.write, header(**BAD[reason]))
        self.assertIn(reason, str(error))
        self.assertIn('target', str(error))
        container.close()
        self.assertEqual(b'what it was', self.content())

    @ddt.data(*BAD)
    def test_what_becomes_none_is_removed(self, reason):
        container = self.container('target', container_length=LENGTH)
        self.write(container)
        container.seek(0)
        container.write(header(**BAD[reason]))
        error = self.assertRaises(lustre_container.NoContainer,
                                  container.close)
        self.assertIn(reason, str(error))
        self.assertTrue(container.closed)
        self.assertEqual(b'', self.content())

    def test_without_a_start(self):
        container = self.container('target')
        container.seek(MIB)
        self.assertRaises(lustre_container.NoContainer, container.write,
                          header())
        self.assertEqual(b'what it was', self.content())

    def test_what_is_to_be_read(self):
        container = self.container(read_only=True)
        self.assertFalse(container.writable())
        self.assertRaises(io.UnsupportedOperation, container.write, header())

    # Others

    def test_what_qemu_has_open(self):
        with self.disk(encrypted=True,
                       passphrase=disks.PASSPHRASE) as disk:
            # To read, as QEMU has images below a snapshot's overlay.
            with self.container() as reader:
                self.assertEqual(b'QFI', reader.read(3))
                reader.seek(0)
                self.assertRaises(BlockingIOError, reader.write, header())
            disk.write(b'x')
            self.assertRaises(BlockingIOError, self.container().read, 3)

    def test_qemu_can_t_open_what_is_copied(self):
        writer = functools.partial(
            subprocess.run, ['qemu-io', '-c', 'write 0 512', '-f', 'raw',
                             self.path('image')], capture_output=True)
        with self.container() as container:
            container.read(1)
            self.assertIn(b'lock', writer().stderr)
        with self.container('target') as container:
            container.write(header())
            error = self.assertRaises(BlockingIOError,
                                      self.container('target').read)
            self.assertIn('target', str(error))
        self.assertEqual(b'', writer().stderr)

    def test_a_child_that_dies(self):
        container = self.container('target')
        container.write(header())
        container._resident._child.kill()
        self.assertRaises(lustre_guard.ShareUnavailable, container.write,
                          b'x')
        # It was told once.
        container.close()

    # Unlocking

    def test_unlock_and_lock(self):
        disk = self.container(kind=lustre_container.EncryptedDisk)
        self.assertEqual(b'QFI', disk.read(3))
        disk.unlock(disks.PASSPHRASE)
        self.assertEqual(0, disk.tell())
        disk.write(b'in clear')
        disk.seek(0)
        self.assertEqual(b'in clear', disk.read(8))
        disk.lock()
        self.assertTrue(disk.closed)
        self.assertRaises(ValueError, disk.read)
        self.assertFalse(b'in clear' in self.content('image'))
        disk.close()

    def test_wrong_passphrase(self):
        disk = self.container(kind=lustre_container.EncryptedDisk)
        self.assertRaises(lustre_disk.DiskError, disk.unlock, 'wrong')
        self.assertTrue(disk.closed)


class FileTest(base.TestCase):

    def test_without_holes(self):
        """As on a Lustre server that can't tell where they are."""
        path = os.path.join(self.useFixture(fixtures.TempDir()).path, 'file')
        with open(path, 'wb') as f:
            f.write(b'12345')
            f.truncate(MIB)
        self.addCleanup(setattr, lustre_file, '_fd', None)
        with open(path, 'rb') as file, mock.patch.object(
                os, 'lseek', side_effect=OSError(errno.EINVAL, 'none')):
            lustre_file._fd = file.fileno()
            self.assertEqual([(2, b'345' + bytes(7))],
                             lustre_file.read(2, 10))
