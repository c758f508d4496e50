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

"""The bytes between a volume and the chunks of its backup.

What a chunk is, and what is recorded of it, is the chunked backup driver's
(:mod:`cinder.backup.chunkeddriver`), which any posix driver of Cinder reads
and writes alike. Here is how bytes get there and back at less cost:

* Zeros are neither read nor hashed nor stored: a :class:`Source` finds them
  and hands out :class:`Zeros`, of which each use knows the result.
* All processors work: a chunk is hashed while it is read, compressed in
  pieces, and restored piece by piece while the next one is decompressed.

Pieces are small, so restoring takes less memory than a chunk has bytes.
"""

import bz2
from concurrent import futures
import contextlib
import errno
import functools
import hashlib
import os
import stat
import struct
import zlib

from oslo_utils import eventletutils
from oslo_utils import importutils
from oslo_utils import units

from cinder.i18n import _
from cinder.lustre import files

# Bytes that are compressed or restored by one thread at a time.
_PIECE = 4 * units.Mi

# Restored data is looked at for zeros in steps of as many bytes.
_STEP = units.Mi

# What deflate looks back at.
_WINDOW = 32 * units.Ki

# A chunk ends where zeros begin, and the other way round, if they last this
# part of the largest chunk: there are at most as many times more of them.
_CELLS = 32


# Threads

def native(function):
    """Let a function block and compute without stopping green threads."""
    if eventletutils.is_monkey_patched('thread'):
        from eventlet import tpool
        return tpool.Proxy(function)
    return function


class Threads:
    """Native threads, as many as can be busy; to be used within ``with``.

    Where eventlet has patched the threads of the pool, those are green and
    each waits for a native one.
    """

    def __enter__(self):
        self._pool = futures.ThreadPoolExecutor(1 + (os.cpu_count() or 1))
        return self

    def __exit__(self, *exc):
        self._pool.shutdown(cancel_futures=True)

    def submit(self, function, *args):
        """Begin to call a function; returns the future result."""
        return self._pool.submit(native(function), *args)

    def map(self, function, items):
        """Call a function for each item; yields the results in order."""
        for future in [self.submit(function, item) for item in items]:
            yield future.result()

    def ahead(self, iterator):
        """Yield what an iterator does; the next item is made meanwhile."""
        future = self.submit(next, iterator, None)
        while (item := future.result()) is not None:
            future = self.submit(next, iterator, None)
            yield item


# Zeros

class Zeros(bytes):
    """As many zeros, which take no memory.

    This goes where the chunked driver expects bytes. It has their length, can
    be sliced and be asked whether it is empty; only who looks into its buffer
    finds nothing there: digests and output are to be asked for here.
    """

    def __new__(cls, length):
        self = super().__new__(cls)
        self._length = length
        return self

    def __len__(self):
        return self._length

    def __eq__(self, other):
        return len(self) == len(other) and is_zeros(other)

    def __ne__(self, other):
        return not self == other

    def __getitem__(self, key):
        return Zeros(len(range(*key.indices(self._length))))

    __hash__ = None

    def md5(self):
        """Return the MD5 digest of that many zeros, in hexadecimal.

        What has been computed is kept: later it costs less than _PIECE bytes.
        """
        whole, rest = divmod(self._length, _PIECE)
        for n in range(len(_MD5_OF_ZEROS), whole + 1):
            _MD5_OF_ZEROS[n] = _fed(_MD5_OF_ZEROS[n - 1], _PIECE)
        return _fed(_MD5_OF_ZEROS[whole], rest).hexdigest()


# By the number of pieces.
_MD5_OF_ZEROS = {0: hashlib.md5(usedforsecurity=False)}


def _fed(digest, length):
    digest = digest.copy()
    digest.update(bytes(length))
    return digest


def is_zeros(data):
    return isinstance(data, Zeros) or data == bytes(len(data))


@functools.lru_cache
def _sha256_of_zeros(length):
    return hashlib.sha256(bytes(length)).hexdigest()


def sha256s(data, block):
    """Return the SHA256 digests of a chunk's blocks, in hexadecimal."""
    if isinstance(data, Zeros):
        whole, rest = divmod(len(data), block)
        return ([_sha256_of_zeros(block)] * whole +
                ([_sha256_of_zeros(rest)] if rest else []))
    zeros, view = bytes(block), memoryview(data)
    return [_sha256_of_zeros(block) if data.startswith(zeros, offset)
            else hashlib.sha256(view[offset:offset + block]).hexdigest()
            for offset in range(0, len(data), block)]


# Files

class _RegularFile:
    """A file, by its descriptor: whoever opened it must not use it."""

    for_threads = True

    def __init__(self, fd):
        self._fd = fd

    def next_data(self, offset):
        """Return where the first data from an offset on is.

        Not every file system knows its holes (EINVAL, and EOPNOTSUPP if a
        Lustre server does not).
        """
        try:
            return os.lseek(self._fd, offset, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.ENXIO:
                return max(offset, self._size())
            if exc.errno in (errno.EINVAL, errno.EOPNOTSUPP):
                return offset
            raise

    def _size(self):
        return os.fstat(self._fd).st_size

    def read(self, offset, length):
        return os.pread(self._fd, length, offset)

    def write(self, offset, data):
        return os.pwrite(self._fd, data, offset)

    def clear(self, offset, length, is_clear):
        """Make a part read as zeros, without space if that can be."""
        length = min(length, self._size() - offset)
        if length > 0 and not files.punch_hole(self._fd, offset, length):
            _write_zeros(self, offset, length)

    def sync(self):
        os.fsync(self._fd)

    def fill_up(self, end, size, is_clear):
        """Give it a size, zeros from the end of what was written on.

        Whoever opened it has truncated it.
        """
        if self._size() < size:
            os.ftruncate(self._fd, size)


class _FileLike:
    """What can be sought, read and written: a device, or os-brick's."""

    # os-brick's connection takes one request after the other.
    for_threads = False

    def __init__(self, file):
        self._file = file

    def next_data(self, offset):
        return offset

    def read(self, offset, length):
        self._file.seek(offset)
        return self._file.read(length)

    def write(self, offset, data):
        self._file.seek(offset)
        # That of os-brick's RBD connector takes bytes only, and doesn't
        # return how many.
        written = self._file.write(bytes(data))
        return len(data) if written is None else written

    def clear(self, offset, length, is_clear):
        if not is_clear:
            _write_zeros(self, offset, length)

    def sync(self):
        fd = None
        self._file.flush()
        with contextlib.suppress(OSError):
            # Those of os-brick have no descriptor, and flushing is enough.
            fd = self._file.fileno()
        if fd is not None:
            os.fsync(fd)

    def fill_up(self, end, size, is_clear):
        """Give it a size; zeros from the end of what was written on.

        As if it had been truncated, where that costs little: a disk of our
        connector. With other drivers' volumes, of which Cinder's own restore
        leaves the rest as it is, it would be a write to all of them.
        """
        if hasattr(self._file, 'zero'):
            if not is_clear:
                self._file.zero(end, max(0, size - end))
            return
        found = self._file.seek(0, os.SEEK_END)
        if found is not None and found < size:
            self._file.truncate(size)


def _opened(file):
    try:
        fd = file.fileno()
    except OSError:
        return _FileLike(file)
    is_file = stat.S_ISREG(os.fstat(fd).st_mode)
    return _RegularFile(fd) if is_file else _FileLike(file)


def _read_fully(file, offset, length):
    parts = []
    while length:
        part = file.read(offset, length)
        if not part:
            break
        parts.append(part)
        offset += len(part)
        length -= len(part)
    return parts[0] if len(parts) == 1 else b''.join(parts)


def _write_fully(file, offset, data):
    view = memoryview(data)
    while view:
        written = file.write(offset, view)
        offset += written
        view = view[written:]


def _write_zeros(file, offset, length):
    for start in range(0, length, _STEP):
        _write_fully(file, offset + start, bytes(min(_STEP, length - start)))


def _cells(file, cell):
    """Yield all that is in a file, as bytes and Zeros of a cell's length."""
    offset = 0
    while True:
        hole = min(cell, file.next_data(offset) - offset)
        if hole < cell:
            data = _read_fully(file, offset, cell)
            if not data:
                return
            yield Zeros(len(data)) if is_zeros(data) else data
            offset += len(data)
        else:
            yield Zeros(hole)
            offset += hole


# From the volume

class Source:
    """A volume as the chunked driver reads it, to the end and once.

    :param volume_file: an open file, or a file-like object
    :param threads: the :class:`Threads` to use
    :param chunk: most bytes of a chunk, a multiple of ``block``
    :param block: bytes that changes are tracked for
    :ivar sha256s: the digests of what was read last
    """

    def __init__(self, volume_file, threads, chunk, block):
        self._threads = threads
        self._block = block
        self._position = 0
        cell = max(1, chunk // block // _CELLS) * block
        self._cells = threads.ahead(_cells(_opened(volume_file), cell))
        self._next = None
        self._advance()
        self.sha256s = []

    def _advance(self):
        self._next = next(self._cells, None)

    def tell(self):
        return self._position

    def read(self, size):
        """Read the next data, or the next zeros: at most so many bytes."""
        if self._next is None:
            return b''
        run = self._zeros if isinstance(self._next, Zeros) else self._data
        content = run(size)
        self._position += len(content)
        return content

    def _run(self, size):
        """Yield cells of one kind that fit."""
        kind = type(self._next)
        while type(self._next) is kind and len(self._next) <= size:
            size -= len(self._next)
            yield self._next
            self._advance()

    def _zeros(self, size):
        zeros = Zeros(sum(map(len, self._run(size))))
        self.sha256s = sha256s(zeros, self._block)
        return zeros

    def _data(self, size):
        data, digests = bytearray(), []
        for cell in self._run(size):
            digests.append(self._threads.submit(sha256s, cell, self._block))
            data += cell
        self.sha256s = [digest for future in digests
                        for digest in future.result()]
        # Can be sliced without a copy.
        return memoryview(data)


# Compression

class _Zlib:
    """One stream, as of zlib.compress, whose pieces are made at once.

    Each piece ends at a byte (RFC 1951, 3.2.4) and refers to what is before
    it, as with pigz.
    """

    @staticmethod
    def compress(data, threads):
        view = memoryview(data)
        checksum = threads.submit(zlib.adler32, view)
        # The header for 32 KiB and the default level (RFC 1950).
        output = bytearray(b'\x78\x9c')
        for piece in threads.map(functools.partial(_Zlib._deflate, view),
                                 range(0, len(view), _PIECE)):
            output += piece
        return output + struct.pack('>I', checksum.result())

    @staticmethod
    def _deflate(view, start):
        end = start + _PIECE
        before = view[max(0, start - _WINDOW):start]
        stream = zlib.compressobj(wbits=-zlib.MAX_WBITS,
                                  **({'zdict': before} if before else {}))
        return stream.compress(view[start:end]) + stream.flush(
            zlib.Z_FINISH if end >= len(view) else zlib.Z_SYNC_FLUSH)

    @staticmethod
    def decompress(file):
        stream, rest = zlib.decompressobj(), b''
        while not stream.eof:
            rest = rest or file.read(_PIECE)
            piece = stream.decompress(rest, _PIECE)
            if not (rest or piece):
                raise EOFError(_("%s is incomplete") % file.name)
            rest = stream.unconsumed_tail
            if piece:
                yield piece


class _Bz2:
    """A stream for each piece; bz2.decompress takes them one by one."""

    @staticmethod
    def compress(data, threads):
        view = memoryview(data)
        output = bytearray()
        for piece in threads.map(
                lambda start: bz2.compress(view[start:start + _PIECE]),
                range(0, len(view), _PIECE)):
            output += piece
        return output

    @staticmethod
    def decompress(file):
        with bz2.open(file) as stream:
            while piece := stream.read(_PIECE):
                yield piece


class _Zstd:
    """The library uses all processors itself, and knows no streams.

    It can't decompress more than two frames either.
    """

    @staticmethod
    def compress(data, threads):
        # It takes bytes only.
        return threads.submit(lambda: _zstd().compress(bytes(data))).result()

    @staticmethod
    def decompress(file):
        content = _zstd().decompress(file.read())
        for start in range(0, len(content), _PIECE):
            yield content[start:start + _PIECE]


def _zstd():
    # Not every service has it.
    return importutils.import_module('zstd')


class _NoCompression:

    @staticmethod
    def decompress(file):
        return _cells(_RegularFile(file.fileno()), _PIECE)


_FORMATS = {'zlib': _Zlib, 'gzip': _Zlib, 'bz2': _Bz2, 'bzip2': _Bz2,
            'zstd': _Zstd}


class Compressor:
    """What the chunked driver takes for a compression library."""

    def __init__(self, algorithm, threads):
        self._format = _FORMATS[algorithm.lower()]
        self._threads = threads

    def compress(self, data):
        return self._format.compress(data, self._threads)

    def decompress(self, stored):
        """Have a stored chunk decompressed when it is restored."""
        return StoredChunk(stored.path, self._format)


# To the volume

class StoredChunk:
    """A chunk in the repository, as the driver's reader and as its content.

    It is read when it is restored, and not as a whole.
    """

    def __init__(self, path, stored_format=_NoCompression):
        self.path = path
        self._format = stored_format

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass

    def read(self):
        return self

    def pieces(self):
        with open(self.path, 'rb') as file:
            yield from self._format.decompress(file)


class Target:
    """A volume as the chunked driver restores it.

    :param volume_file: an open file, or a file-like object
    :param threads: the :class:`Threads` to use
    :ivar is_clear: whether all of it reads as zeros, up to where it is written
    """

    def __init__(self, volume_file, threads):
        self._file = _opened(volume_file)
        self._threads = threads
        self._position = 0
        self._end = 0
        self._syncing = None
        self.is_clear = False

    def seek(self, offset):
        self._position = offset

    def write(self, stored):
        """Write what is in a stored chunk; zeros take no space."""
        for piece in self._threads.ahead(stored.pieces()):
            native(self._put)(piece)
            self._position += len(piece)
        self._end = max(self._end, self._position)

    def _put(self, piece):
        for start in range(0, len(piece), _STEP):
            part = piece[start:start + _STEP]
            offset = self._position + start
            if is_zeros(part):
                self._file.clear(offset, len(part), self.is_clear)
            else:
                _write_fully(self._file, offset, part)

    def flush(self):
        """Begin to make durable what was written."""
        self._wait()
        self._syncing = self._threads.submit(self._file.sync)
        if not self._file.for_threads:
            self._wait()

    def _wait(self):
        if self._syncing:
            self._syncing.result()

    def fileno(self):
        """Keep the chunked driver from waiting after each chunk."""
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    def finish(self, size):
        """Give a file its full size in bytes, and make all of it durable."""
        self._wait()
        native(self._file.fill_up)(self._end, size, self.is_clear)
        native(self._file.sync)()
