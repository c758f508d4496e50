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

"""Bytes of one image file, read and written by a child of its own.

These functions run in a child of :mod:`os_brick.remotefs.lustre_guard` that
one caller keeps. They import the standard library only.

The file is locked against QEMU as QEMU locks it against itself (file-posix.c):
who has a permission has a read lock on byte 100 and on, who does not share it
with others on byte 200 and on. These locks end with the child, so a late write
of one that waits for a dead server meets nobody else's.
"""

import errno
import fcntl
import os
import struct

# struct flock of fcntl(2): type, whence, start, length, process id.
_FLOCK = struct.Struct('@hhqqi4x')
_PERMISSIONS, _NOT_SHARED = 100, 200
_ALL = 200
# The number of BLK_PERM_WRITE.
_WRITE = 1

# What is zeros in a row takes no space, in bytes.
_BLOCK = 64 << 10

_fd = None


def open_to_read(path):
    """Open a file, unless somebody may write to it.

    :returns: its size in bytes
    :raises BlockingIOError: somebody may
    """
    _open(path, os.O_RDONLY)
    _lock(path, fcntl.F_RDLCK, _NOT_SHARED + _WRITE, 1)
    answer = fcntl.fcntl(_fd, fcntl.F_OFD_GETLK, _FLOCK.pack(
        fcntl.F_WRLCK, os.SEEK_SET, _PERMISSIONS + _WRITE, 1, 0))
    if _FLOCK.unpack(answer)[0] != fcntl.F_UNLCK:
        raise _in_use(path)
    return os.fstat(_fd).st_size


def open_to_write(path):
    """Open a file that nobody else has open, and empty it.

    :raises BlockingIOError: somebody has
    """
    _open(path, os.O_RDWR)
    _lock(path, fcntl.F_WRLCK, _PERMISSIONS, _ALL)
    empty()


def _open(path, flags):
    global _fd
    _fd = os.open(path, flags | os.O_NOFOLLOW)


def _lock(path, kind, start, length):
    try:
        fcntl.fcntl(_fd, fcntl.F_OFD_SETLK, _FLOCK.pack(
            kind, os.SEEK_SET, start, length, 0))
    except BlockingIOError:
        raise _in_use(path) from None


def _in_use(path):
    return BlockingIOError(errno.EAGAIN, 'Another process has it open', path)


def read(offset, length):
    """Read a part of the file but for its holes.

    :returns: a list of (offset, bytes)
    """
    pieces, end = [], offset + length
    while offset < end:
        start = _seek(offset, os.SEEK_DATA, end)
        if start >= end:
            break
        stop = min(_seek(start, os.SEEK_HOLE, end), end)
        pieces.append((start, os.pread(_fd, stop - start, start)))
        offset = stop
    return pieces


def _seek(offset, what, end):
    try:
        return os.lseek(_fd, offset, what)
    except OSError as exc:
        if exc.errno == errno.ENXIO:
            return end
        # Not every Lustre server knows holes: all counts as data.
        if exc.errno in (errno.EINVAL, errno.EOPNOTSUPP):
            return offset if what == os.SEEK_DATA else end
        raise


def write(offset, data):
    """Write, leaving holes for zeros where nothing has been written."""
    size, view = os.fstat(_fd).st_size, memoryview(data)
    zeros = bytes(_BLOCK)
    for start in range(0, len(view), _BLOCK):
        block = view[start:start + _BLOCK]
        if offset + start < size or block != zeros[:len(block)]:
            _write_all(block, offset + start)


def _write_all(view, offset):
    done = 0
    while done < len(view):
        done += os.pwrite(_fd, view[done:], offset + done)


def sync():
    """Wait until what was written is on the servers' disks."""
    os.fsync(_fd)


def empty():
    """Remove all that the file has."""
    os.ftruncate(_fd, 0)


def finish(length):
    """Give the file its length in bytes, and make it durable."""
    os.ftruncate(_fd, length)
    sync()
