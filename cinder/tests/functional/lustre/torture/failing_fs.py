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

"""A file system that fails when it is told to.

A FUSE file system that passes every call on to a directory, counts those that
change something, and lets chosen ones fail: all points where an operation can
meet a full, broken or read-only share can be found one by one. It is laid over
a mounted share, under the share's name, and knows nothing of what it is for.

The far end runs as a process of its own, for a process that serves a file
system must never call it. The two share a page: what is to fail, and how much
was counted.

The protocol is that of linux/fuse.h, version 7.31, as far as it is needed for
files in one directory.
"""

import contextlib
import ctypes
import errno
import itertools
import mmap
import os
import stat
import struct
import subprocess
import sys

_IN_HEADER = struct.Struct('=IIQQIIII')      # length, opcode, unique, node...
_OUT_HEADER = struct.Struct('=IiQ')          # length, error, unique
_INIT_OUT = struct.Struct('=IIIIHHIIHHII24x')
_ATTR = struct.Struct('=QQQQQQIIIIIIIIII')
_SETATTR_IN = struct.Struct('=IIQQQQQQIIIIIIII')
_STATFS_OUT = struct.Struct('=QQQQQIIII24x')
_DIRENT = struct.Struct('=QQII')
_NO_TIMEOUTS = struct.pack('=QI4x', 0, 0)

_ROOT = 1
_MAX_WRITE = 1 << 20
_BIG_WRITES, _MAX_PAGES = 1 << 5, 1 << 22
_FOPEN_DIRECT_IO = 1
_SETATTR_MODE, _SETATTR_UID, _SETATTR_GID, _SETATTR_SIZE = 1, 2, 4, 8
_GETATTR_FH, _SETATTR_FH = 1, 1 << 6

_OPCODES = {
    1: 'lookup', 3: 'getattr', 4: 'setattr', 10: 'unlink', 12: 'rename',
    14: 'open', 15: 'read', 16: 'write', 17: 'statfs', 18: 'release',
    20: 'fsync', 25: 'flush', 26: 'init', 27: 'opendir', 28: 'readdir',
    29: 'releasedir', 30: 'fsyncdir', 35: 'create', 43: 'fallocate',
    45: 'rename2', 46: 'lseek'}
_WITHOUT_ANSWER = (2, 36, 42)     # FORGET, INTERRUPT, BATCH_FORGET

# What needs space, and what a read-only file system refuses.
_ALLOCATING = ('write', 'create', 'fallocate', 'fsync')
_CHANGING = ('setattr', 'unlink', 'rename', 'rename2', 'write', 'fsync',
             'fsyncdir', 'create', 'fallocate')
_FAILING = {errno.ENOSPC: _ALLOCATING, errno.EDQUOT: _ALLOCATING,
            errno.EIO: _CHANGING,
            errno.EROFS: tuple(name for name in _CHANGING
                               if not name.startswith('fsync'))}

# first call to fail (from 1; 0: none), last one, error, calls counted,
# calls that failed
_CONTROL = struct.Struct('=QQQQQ')


class FailingFS:
    """The near end.

    :param source: name that the mount table shows
    :param mount_point: what is mounted there is what is passed on to
    :param control: path of a file to make
    """

    def __init__(self, source, mount_point, control):
        with open(control, 'wb') as f:
            f.truncate(mmap.PAGESIZE)
        with open(control, 'r+b') as f:
            self._page = mmap.mmap(f.fileno(), mmap.PAGESIZE)
        self._mount_point = mount_point
        self._process = subprocess.Popen(
            [sys.executable, '-S', __file__, source, mount_point, control],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        with self._process.stdout as out:
            if out.readline() != b'ready\n':
                raise AssertionError('%s did not start' % __file__)

    def fail(self, error, first, last=None):
        """Let calls fail, by default one.

        :param error: number of the error
        :param first: of the calls that this error fits, from 1
        :param last: likewise
        """
        _CONTROL.pack_into(self._page, 0, first, last or first, error, 0, 0)

    def heal(self):
        """Let no more calls fail.

        :returns: how many did, and how many might have
        """
        counted, failed = _CONTROL.unpack_from(self._page)[3:]
        _CONTROL.pack_into(self._page, 0, 0, 0, 0, 0, 0)
        return failed, counted

    def close(self):
        subprocess.run(['umount', '-l', self._mount_point])
        self._process.kill()
        self._process.wait()


class _Server:
    """The far end: answers requests until the mount is gone."""

    def __init__(self, directory, page):
        self._directory = directory
        self._page = page
        self._numbers = itertools.count(_ROOT + 1)
        self._nodes = {}        # number of a node: name
        self._names = {}        # name: number of a node

    def serve(self, connection):
        while True:
            try:
                request = os.read(connection, _MAX_WRITE + (1 << 16))
            except OSError as exc:
                if exc.errno in (errno.EINTR, errno.ENOENT):
                    continue
                return
            answer = self._answer(request)
            if answer is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.write(connection, answer)

    def _answer(self, request):
        _length, opcode, unique, node, *_rest = _IN_HEADER.unpack_from(request)
        if opcode in _WITHOUT_ANSWER:
            return None
        code, body = 0, b''
        try:
            name = _OPCODES.get(opcode)
            if not name:
                raise OSError(errno.ENOSYS, '')
            self._maybe_fail(name)
            body = getattr(self, '_' + name)(
                node, memoryview(request)[_IN_HEADER.size:])
        except OSError as exc:
            code = -exc.errno
        return _OUT_HEADER.pack(_OUT_HEADER.size + len(body), code,
                                unique) + body

    def _maybe_fail(self, name):
        first, last, error, counted, failed = _CONTROL.unpack_from(self._page)
        if name not in _FAILING.get(error, ()):
            return
        counted += 1
        fails = first <= counted <= last
        _CONTROL.pack_into(self._page, 0, first, last, error, counted,
                           failed + fails)
        if fails:
            raise OSError(error, '')

    # Names

    def _path(self, node):
        if node == _ROOT:
            return self._directory
        return os.path.join(self._directory, self._nodes[node])

    def _child(self, name):
        return os.path.join(self._directory, name)

    def _number(self, name):
        if name not in self._names:
            self._names[name] = next(self._numbers)
            self._nodes[self._names[name]] = name
        return self._names[name]

    @staticmethod
    def _text(body):
        return os.fsdecode(bytes(body).split(b'\0')[0])

    # Answers

    def _init(self, node, body):
        return _INIT_OUT.pack(7, 31, 1 << 17, _BIG_WRITES | _MAX_PAGES, 0, 0,
                              _MAX_WRITE, 1, _MAX_WRITE // mmap.PAGESIZE, 0,
                              0, 0)

    def _attributes(self, found):
        def parts(nanoseconds):
            return divmod(nanoseconds, 10 ** 9)
        times = [parts(found.st_atime_ns), parts(found.st_mtime_ns),
                 parts(found.st_ctime_ns)]
        return _ATTR.pack(
            found.st_ino, found.st_size, found.st_blocks,
            *(whole for whole, _part in times),
            *(part for _whole, part in times), found.st_mode,
            found.st_nlink, found.st_uid, found.st_gid, 0, 4096, 0)

    def _entry(self, name):
        found = os.lstat(self._child(name))
        return struct.pack('=QQQQII', self._number(name), 0, 0, 0, 0, 0
                           ) + self._attributes(found)

    def _lookup(self, node, body):
        return self._entry(self._text(body))

    def _getattr(self, node, body):
        flags, _dummy, handle = struct.unpack_from('=IIQ', body)
        return _NO_TIMEOUTS + self._attributes(
            os.stat(handle if flags & _GETATTR_FH else self._path(node)))

    def _setattr(self, node, body):
        (valid, _pad, handle, size, _owner, _atime, _mtime, _ctime, _an, _mn,
         _cn, mode, _unused, uid, gid, _unused) = _SETATTR_IN.unpack_from(body)
        target = handle if valid & _SETATTR_FH else self._path(node)
        if valid & _SETATTR_MODE:
            os.chmod(target, stat.S_IMODE(mode))
        if valid & (_SETATTR_UID | _SETATTR_GID):
            os.chown(target, uid if valid & _SETATTR_UID else -1,
                     gid if valid & _SETATTR_GID else -1)
        if valid & _SETATTR_SIZE:
            os.truncate(target, size)
        return _NO_TIMEOUTS + self._attributes(os.stat(target))

    def _unlink(self, node, body):
        name = self._text(body)
        os.unlink(self._child(name))
        self._names.pop(name, None)
        return b''

    def _rename(self, node, body, skip=8):
        old, new = bytes(body[skip:]).split(b'\0')[:2]
        old, new = os.fsdecode(old), os.fsdecode(new)
        os.replace(self._child(old), self._child(new))
        number = self._names.pop(old, None)
        if number:
            self._names[new] = number
            self._nodes[number] = new
        return b''

    def _rename2(self, node, body):
        return self._rename(node, body, 16)

    def _opened(self, path, flags, mode=0):
        # The pieces that come here aren't aligned.
        flags &= ~(os.O_DIRECT | os.O_APPEND | os.O_NOFOLLOW)
        if flags & os.O_ACCMODE == os.O_WRONLY:
            flags = flags & ~os.O_ACCMODE | os.O_RDWR
        return struct.pack('=QII', os.open(path, flags, mode),
                           _FOPEN_DIRECT_IO, 0)

    def _open(self, node, body):
        flags = struct.unpack_from('=I', body)[0]
        return self._opened(self._path(node), flags & ~os.O_TRUNC)

    def _create(self, node, body):
        flags, mode = struct.unpack_from('=II', body)
        name = self._text(body[16:])
        self._names.pop(name, None)
        opened = self._opened(self._child(name), flags | os.O_CREAT, mode)
        return self._entry(name) + opened

    def _release(self, node, body):
        os.close(struct.unpack_from('=Q', body)[0])
        return b''

    def _read(self, node, body):
        handle, offset, size = struct.unpack_from('=QQI', body)
        return os.pread(handle, size, offset)

    def _write(self, node, body):
        handle, offset, size = struct.unpack_from('=QQI', body)
        written = os.pwrite(handle, body[40:40 + size], offset)
        return struct.pack('=II', written, 0)

    def _fsync(self, node, body):
        os.fsync(struct.unpack_from('=Q', body)[0])
        return b''

    def _flush(self, node, body):
        return b''

    def _fallocate(self, node, body):
        handle, offset, length, mode = struct.unpack_from('=QQQI', body)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.fallocate(handle, mode, ctypes.c_int64(offset),
                          ctypes.c_int64(length)):
            raise OSError(ctypes.get_errno(), '')
        return b''

    def _lseek(self, node, body):
        handle, offset, whence = struct.unpack_from('=QQI', body)
        return struct.pack('=Q', os.lseek(handle, offset, whence))

    def _statfs(self, node, body):
        found = os.statvfs(self._directory)
        return _STATFS_OUT.pack(
            found.f_blocks, found.f_bfree, found.f_bavail, found.f_files,
            found.f_ffree, found.f_bsize, found.f_namemax, found.f_frsize, 0)

    def _opendir(self, node, body):
        return struct.pack('=QII', 0, 0, 0)

    def _readdir(self, node, body):
        _handle, offset, size = struct.unpack_from('=QQI', body)
        answer = b''
        names = ['.', '..'] + sorted(os.listdir(self._directory))
        for number, name in list(enumerate(names, 1))[offset:]:
            name = os.fsencode(name)
            entry = _DIRENT.pack(1, number, len(name), 0) + name
            entry += bytes(-len(entry) % 8)
            if len(answer) + len(entry) > size:
                break
            answer += entry
        return answer

    def _releasedir(self, node, body):
        return b''

    def _fsyncdir(self, node, body):
        fd = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        return b''


def _mount(source, mount_point):
    connection = os.open('/dev/fuse', os.O_RDWR)
    libc = ctypes.CDLL(None, use_errno=True)
    options = b'fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other' % (
        connection)
    if libc.mount(os.fsencode(source), os.fsencode(mount_point),
                  b'fuse.lustre', ctypes.c_ulong(0), options):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return connection


def main():
    source, mount_point, control = sys.argv[1:]
    os.umask(0)
    with open(control, 'r+b') as f:
        page = mmap.mmap(f.fileno(), mmap.PAGESIZE)
    # A descriptor leads below what is mounted over it.
    below = os.open(mount_point, os.O_RDONLY | os.O_DIRECTORY)
    connection = _mount(source, mount_point)
    print('ready', flush=True)
    _Server('/proc/self/fd/%d' % below, page).serve(connection)


if __name__ == '__main__':
    main()
