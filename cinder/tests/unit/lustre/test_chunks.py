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

"""The way between volumes and chunks, on files of a temporary directory."""

import bz2
import errno
import hashlib
import io
import os
import subprocess
import sys
from unittest import mock
import zlib

import ddt
import fixtures
from oslo_utils import units
from oslotest import base
import zstd

from cinder.lustre import chunks
from cinder.lustre import files

BLOCK = 32 * units.Ki
# A cell is a block then.
CHUNK = chunks._CELLS * BLOCK

DATA = hashlib.shake_128(b'guest').digest(3 * BLOCK)
HOLE = bytes(2 * BLOCK)

# A service that copies a volume to another, and says how often another of its
# threads could run meanwhile.
_SERVICE = """
try:
    from cinder import monkey_patch
    monkey_patch.patch()
except ImportError:
    # Before Cinder 29 each command does it.
    import eventlet
    eventlet.monkey_patch()
import sys
import threading
import time
from cinder.lustre import chunks

ended, turns = [], [0]

def count():
    while not ended:
        turns[0] += 1
        time.sleep(0.001)

other = threading.Thread(target=count)
other.start()
path, chunk, copy = sys.argv[1:]
with chunks.Threads() as threads, open(path, 'rb') as volume:
    compressor = chunks.Compressor('zlib', threads)
    source = chunks.Source(volume, threads, 1 << 30, 32768)
    with open(chunk, 'wb') as f:
        f.write(compressor.compress(source.read(1 << 30)))
    with open(copy, 'wb') as f:
        target = chunks.Target(f, threads)
        target.seek(0)
        target.write(compressor.decompress(chunks.StoredChunk(chunk)))
        target.flush()
        target.finish(0)
ended.append(True)
other.join()
print(turns[0])
"""


class NoFile(io.BytesIO):
    """What os-brick's RBD connector gives: it returns nothing."""

    def seek(self, *args):
        super().seek(*args)

    def write(self, data):
        assert type(data) is bytes
        super().write(data)


@ddt.ddt
class ChunksTestCase(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        self.temp = self.useFixture(fixtures.TempDir()).path
        self.threads = self.enterContext(chunks.Threads())

    def file(self, content=b''):
        """Make a file with a hole for each block of zeros."""
        path = os.path.join(self.temp, 'volume')
        with open(path, 'wb') as f:
            for offset in range(0, len(content), BLOCK):
                block = content[offset:offset + BLOCK]
                if any(block):
                    os.pwrite(f.fileno(), block, offset)
            f.truncate(len(content))
        return path

    def read(self, volume, chunk=CHUNK):
        source = chunks.Source(volume, self.threads, chunk, BLOCK)
        offset = 0
        while (data := source.read(chunk)) != b'':
            self.assertEqual(offset + len(data), source.tell())
            offset = source.tell()
            yield data, source.sha256s

    def assert_same(self, expected, content):
        """Say nothing of what there is a lot of."""
        self.assertEqual(*((len(b), hashlib.sha256(b).hexdigest())
                           for b in (expected, content)))

    # Zeros

    def test_zeros(self):
        zeros = chunks.Zeros(5)
        self.assertEqual(5, len(zeros))
        self.assertTrue(zeros)
        self.assertNotEqual(b'', zeros)
        self.assertEqual(bytes(5), zeros)
        self.assertNotEqual(b'\0\0\0\0x', zeros)
        self.assertEqual(2, len(zeros[1:3]))
        self.assertEqual(1, len(zeros[4:9]))
        self.assertEqual(b'', chunks.Zeros(0))

    @ddt.data(0, 1, BLOCK, chunks._PIECE, 3 * chunks._PIECE + 7,
              2 * chunks._PIECE - 1)
    def test_md5_of_zeros(self, length):
        self.assertEqual(
            hashlib.md5(bytes(length), usedforsecurity=False).hexdigest(),
            chunks.Zeros(length).md5())

    @ddt.data(DATA, DATA + b'rest', HOLE, HOLE + bytes(5), DATA + HOLE + DATA)
    def test_sha256s(self, content):
        expected = [hashlib.sha256(content[n:n + BLOCK]).hexdigest()
                    for n in range(0, len(content), BLOCK)]
        self.assertEqual(expected, chunks.sha256s(content, BLOCK))
        if not any(content):
            self.assertEqual(expected, chunks.sha256s(
                chunks.Zeros(len(content)), BLOCK))

    # Reading

    @ddt.data(b'', DATA, HOLE, HOLE + DATA, DATA + HOLE, DATA + HOLE + DATA,
              DATA[:BLOCK + 5], HOLE + bytes(5), HOLE * 40, DATA * 40)
    def test_read(self, content):
        for volume in open(self.file(content), 'rb'), io.BytesIO(content):
            with volume:
                found = list(self.read(volume))
            read = b''.join(bytes(len(data)) if chunks.is_zeros(data)
                            else bytes(data) for data, _sha256s in found)
            self.assert_same(content, read)
            self.assertLessEqual(max((len(data) for data, _sha256s in found),
                                     default=0), CHUNK)
            self.assertEqual(chunks.sha256s(content, BLOCK), [
                digest for _data, sha256s in found for digest in sha256s])

    def test_chunks_end_where_zeros_begin_and_end(self):
        content = HOLE + DATA + HOLE
        with open(self.file(content), 'rb') as volume:
            found = [data for data, _sha256s in self.read(volume)]
        self.assertEqual([len(HOLE), len(DATA), len(HOLE)],
                         [len(data) for data in found])
        self.assertEqual([True, False, True], [
            isinstance(data, chunks.Zeros) for data in found])

    def test_no_zeros_within_a_small_part(self):
        # There would be too many chunks.
        content = HOLE + DATA + HOLE
        with open(self.file(content), 'rb') as volume:
            data, _sha256s = next(self.read(volume, 16 * CHUNK))
        self.assert_same(content, bytes(data))

    def test_holes_are_not_read(self):
        content = 10 * HOLE + DATA + 10 * HOLE
        with mock.patch.object(os, 'pread', wraps=os.pread) as pread:
            with open(self.file(content), 'rb') as volume:
                list(self.read(volume))
        self.assertEqual(len(DATA), sum(
            length for _fd, length, offset in (
                call.args for call in pread.call_args_list)
            if offset < len(content)))

    @ddt.data(errno.EINVAL, errno.EOPNOTSUPP)
    def test_holes_are_not_known(self, error):
        content = DATA + HOLE + DATA
        with mock.patch.object(os, 'lseek', side_effect=OSError(error, '')):
            with open(self.file(content), 'rb') as volume:
                found = [data for data, _sha256s in self.read(volume)]
        self.assertEqual([len(DATA), len(HOLE), len(DATA)],
                         [len(data) for data in found])

    def test_can_not_be_read(self):
        with open(self.file(DATA), 'rb') as volume:
            with mock.patch.object(os, 'pread', side_effect=OSError(
                    errno.EIO, 'I/O error')):
                self.assertRaises(OSError, list, self.read(volume))

    # Compression

    # More than a piece, and less.
    @ddt.data(*((name, length) for name in ('zlib', 'bz2', 'zstd')
                for length in (1, chunks._PIECE, 2 * chunks._PIECE + 100000)))
    @ddt.unpack
    def test_compression(self, name, length):
        library = {'zlib': zlib, 'bz2': bz2, 'zstd': zstd}[name]
        text = b''.join(b'%d ' % n for n in range(length // 7 + 1))[:length]
        compressor = chunks.Compressor(name, self.threads)
        stored = bytes(compressor.compress(memoryview(bytearray(text))))
        whole = library.compress(text)
        self.assert_same(text, library.decompress(stored))
        self.assertLess(len(stored), 1.02 * len(whole) + 100)
        for content in stored, whole:
            self.assert_same(text, self.decompressed(compressor, content))

    def decompressed(self, compressor, content):
        path = os.path.join(self.temp, 'chunk')
        with open(path, 'wb') as f:
            f.write(content)
        chunk = compressor.decompress(chunks.StoredChunk(path))
        pieces = list(chunk.pieces())
        self.assertLessEqual(max(map(len, pieces)), chunks._PIECE)
        return b''.join(pieces)

    @ddt.data('zlib', 'bz2', 'zstd')
    def test_incomplete(self, name):
        compressor = chunks.Compressor(name, self.threads)
        stored = compressor.compress(DATA)
        self.assertRaises((EOFError, zstd.Error), self.decompressed,
                          compressor, stored[:-1])

    def test_zeros_take_no_memory_when_they_are_decompressed(self):
        compressor = chunks.Compressor('zlib', self.threads)
        self.assert_same(bytes(3 * chunks._PIECE), self.decompressed(
            compressor, zlib.compress(bytes(3 * chunks._PIECE))))

    # Writing

    def write(self, volume, content, offset=0, is_clear=False, size=0):
        path = os.path.join(self.temp, 'chunk')
        with open(path, 'wb') as f:
            f.write(content)
        target = chunks.Target(volume, self.threads)
        target.is_clear = is_clear
        self.assertRaises(OSError, target.fileno)
        target.seek(offset)
        target.write(chunks.StoredChunk(path))
        target.flush()
        target.finish(size)

    STEPS = b'x' * chunks._STEP + bytes(5 * chunks._STEP) + b'y' * 5

    def test_write(self):
        size = len(self.STEPS) + 1000
        with open(self.file(), 'wb') as volume:
            self.write(volume, self.STEPS, size=size)
        with open(self.file_name, 'rb') as volume:
            self.assert_same(self.STEPS + bytes(1000), volume.read())
            self.assertLess(os.fstat(volume.fileno()).st_blocks * 512,
                            2 * chunks._STEP)

    @property
    def file_name(self):
        return os.path.join(self.temp, 'volume')

    @ddt.data(True, False)
    def test_write_zeros_over_data(self, can_punch):
        old = b'old' * len(self.STEPS)
        path = self.file(old)
        if not can_punch:
            self.useFixture(fixtures.MockPatchObject(
                files, '_fallocate',
                side_effect=OSError(errno.EOPNOTSUPP, '')))
        with open(path, 'r+b') as volume:
            # As an incremental backup of a volume that was new.
            self.write(volume, self.STEPS, 1000)
        with open(path, 'rb') as volume:
            self.assert_same(
                old[:1000] + self.STEPS + old[1000 + len(self.STEPS):],
                volume.read())

    @ddt.data(io.BytesIO, NoFile)
    def test_write_to_what_is_no_file(self, kind):
        old = b'z' * (len(self.STEPS) + 1000)
        volume = kind(old)
        self.write(volume, self.STEPS, 1000)
        self.assert_same(old[:1000] + self.STEPS, volume.getvalue())
        volume = kind(old)
        self.write(volume, self.STEPS, 1000, is_clear=True)
        self.assert_same(
            old[:1000] + self.STEPS.replace(b'\0', b'z'), volume.getvalue())

    def test_can_not_be_made_durable(self):
        with open(self.file(), 'wb') as volume:
            with mock.patch.object(os, 'fsync', side_effect=OSError(
                    errno.ENOSPC, 'No space left on device')):
                self.assertRaises(OSError, self.write, volume, DATA)

    # Services

    @ddt.data('false', 'true')
    def test_service(self, without_eventlet):
        """Before Cinder 29 both are with eventlet."""
        content = DATA * 100 + bytes(5 * units.Mi) + DATA
        path = self.file(content)
        copy = os.path.join(self.temp, 'copy')
        child = subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', _SERVICE, path,
             os.path.join(self.temp, 'chunk'), copy],
            capture_output=True, text=True, timeout=300,
            env={**os.environ,
                 'OS_CINDER_DISABLE_EVENTLET_PATCHING': without_eventlet})
        self.assertEqual(0, child.returncode, child.stderr)
        with open(copy, 'rb') as volume:
            self.assert_same(content, volume.read())
        self.assertGreater(int(child.stdout), 20)
