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

"""System calls on the files of a share.

These functions run in the children of :mod:`os_brick.remotefs.lustre_guard`,
or in the privileged daemon's: never call them on a share directly. They import
the standard library only, take and return plain values, and raise OSError and
ValueError.

A file is replaced, never rewritten: it is made under another name in the same
directory (:func:`create`), filled, and then put in place by :func:`publish`,
which makes it durable first. A crash leaves the old file or the new one.
"""

import contextlib
import ctypes
import errno
import fcntl
import functools
import json
import mmap
import os
import re
import stat
import struct
import sys

_QCOW2_MAGIC = b'QFI\xfb'
# docs/interop/qcow2.txt of QEMU: bit 0 dirty, 1 corrupt, 2 external data
# file, 3 compression type, 4 extended L2 entries.
_EXTERNAL_DATA = 1 << 2
_KNOWN_INCOMPATIBLE = 1 << 0 | 1 << 3 | 1 << 4
_BACKING_FORMAT_EXTENSION = 0xE2792ACA
_LONGEST_BACKING_NAME = 1023
_SHORTEST_HEADER = 72
# The header, its extensions and that name are all in the first cluster.
_LARGEST_CLUSTER = 2 << 20

_ZEROS = 1 << 20

# Of fallocate(2), from linux/falloc.h.
_KEEP_SIZE = 1 << 0
_PUNCH_HOLE = 1 << 1

_UUID = '[0-9a-fA-F-]{36}'


def _named(function):
    """Let errors of calls on an open file name the file, too."""
    @functools.wraps(function)
    def call(path, *args):
        try:
            return function(path, *args)
        except OSError as exc:
            if exc.filename is None:
                exc.filename = path
            raise
    return call


def create(path, mode):
    """Create an empty file; one that an earlier attempt left is replaced."""
    remove_if_there(path)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))


def remove_if_there(path):
    """Remove a file that may be there, for another one to take its place."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def set_mode(path, mode):
    """Set the mode of a file that a command has made."""
    os.chmod(path, mode)


def publish(new, path):
    """Give a finished file its name, durably."""
    sync(new)
    os.replace(new, path)
    _sync_directory(path)


@_named
def replace(path, new, content, mode):
    """Put a file with this content (bytes) in place of another."""
    create(new, mode)
    with open(new, 'wb') as f:
        f.write(content)
    publish(new, path)


def read(path):
    """Return a file's content (bytes), or None where there is no file."""
    try:
        with open(path, 'rb') as f:
            return f.read()
    except FileNotFoundError:
        return None


def remove(paths):
    """Remove files that may be gone already, durably."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    if paths:
        _sync_directory(paths[0])


def is_unused(path):
    """Tell whether no guest has a new overlay, or has written to it."""
    try:
        with open(path, 'rb') as f:
            if _is_open_in_qemu(f.fileno()):
                return False
            # Without data the first of its tables names no other.
            f.seek(36)
            length, offset = struct.unpack('>IQ', f.read(12))
            f.seek(offset)
            return not any(f.read(length * 8))
    except FileNotFoundError:
        return True
    except PermissionError:
        # libvirt has given it to the user whom QEMU runs as.
        return False


@_named
def sync(path):
    """Wait until a file's content is on the servers' disks."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync_directory(path):
    sync(os.path.dirname(path))


def size(path):
    """Return the size of a file in bytes."""
    return os.stat(path).st_size


def space(path):
    """Return the size of a file, and the space it takes, in bytes.

    What has not reached the servers is not counted yet.
    """
    status = os.stat(path)
    return status.st_size, status.st_blocks * 512


def not_writable(paths):
    """Name the files that this process may not read and write."""
    return [path for path in paths
            if os.path.lexists(path) and not os.access(path,
                                                       os.R_OK | os.W_OK)]


def take_over(path, uid, gid):
    """Give a file to the service, which made it.

    libvirt gives an image to the user that runs QEMU, and gives it to root
    when QEMU is done with it unless it could note down whose it was.
    """
    os.chown(path, uid, gid, follow_symlinks=False)


# Raw images

@_named
def grow(path, size):
    """Give a file this size in bytes unless it is as large already.

    :func:`publish` or :func:`sync` makes that durable.
    """
    with open(path, 'r+b') as f:
        if os.fstat(f.fileno()).st_size < size:
            f.truncate(size)


@_named
def allocate(path):
    """Allocate all space of a file and keep what is in it.

    :func:`publish` or :func:`sync` makes that durable.

    :returns: True, or False where zeros had to be written because the file
        system can't allocate otherwise (Lustre on ZFS: EOPNOTSUPP)
    """
    fd = os.open(path, os.O_RDWR)
    try:
        end = os.fstat(fd).st_size
        try:
            _fallocate(fd, 0, 0, end)
            return True
        except OSError as exc:
            if exc.errno != errno.EOPNOTSUPP:
                raise
        os.fsync(fd)
        _fill_holes(fd, path, end)
        return False
    finally:
        os.close(fd)


@_named
def dig_holes(path):
    """Give back the space of all that reads as zeros.

    :func:`publish` or :func:`sync` makes that durable.

    :returns: whether the file system can
    """
    fd = os.open(path, os.O_RDWR)
    try:
        end, offset = os.fstat(fd).st_size, 0
        for start, stop in [*_holes(fd, end), (end, end)]:
            # What was allocated and never written counts as a hole.
            zeros = [*_zeros(fd, offset, start), (start, stop)]
            if not all(punch_hole(fd, first, last - first)
                       for first, last in zeros if last > first):
                return False
            offset = stop
        return True
    finally:
        os.close(fd)


def _zeros(fd, start, stop):
    """Yield the pieces of a part of a file that are zeros."""
    nothing = bytes(_ZEROS)
    for offset in range(start, stop, _ZEROS):
        piece = os.pread(fd, min(_ZEROS, stop - offset), offset)
        if piece == nothing[:len(piece)]:
            yield offset, offset + len(piece)


def punch_hole(fd, offset, length):
    """Make a part of an open file read as zeros and give its space back.

    :returns: whether the file system can
    """
    try:
        _fallocate(fd, _KEEP_SIZE | _PUNCH_HOLE, offset, length)
        return True
    except OSError as exc:
        if exc.errno != errno.EOPNOTSUPP:
            raise
        return False


def _fallocate(fd, mode, offset, length):
    # os.posix_fallocate() won't do: where the file system can't, the C
    # library writes to every block instead and doesn't say so.
    libc = ctypes.CDLL(None, use_errno=True)
    while libc.fallocate(fd, mode, ctypes.c_int64(offset),
                         ctypes.c_int64(length)):
        error = ctypes.get_errno()
        if error != errno.EINTR:
            raise OSError(error, os.strerror(error))


def _fill_holes(fd, path, end):
    """Write zeros to all holes: past the cache, in pieces of 1 MiB."""
    direct = _open_direct(path)
    try:
        with mmap.mmap(-1, _ZEROS) as zeros:
            for start, stop in _holes(fd, end):
                for offset in range(start, stop, _ZEROS):
                    _write_all(direct, memoryview(zeros)[:stop - offset],
                               offset)
        os.fsync(direct)
    finally:
        os.close(direct)


def _open_direct(path):
    try:
        return os.open(path, os.O_WRONLY | os.O_DIRECT)
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise
        return os.open(path, os.O_WRONLY)


def _write_all(fd, view, offset):
    with view:
        done = 0
        while done < len(view):
            done += os.pwrite(fd, view[done:], offset + done)


def _holes(fd, end):
    offset = 0
    while offset < end:
        start = os.lseek(fd, offset, os.SEEK_HOLE)
        try:
            stop = os.lseek(fd, start, os.SEEK_DATA) if start < end else end
        except OSError as exc:
            if exc.errno != errno.ENXIO:
                raise
            stop = end
        if start < stop:
            yield start, stop
        offset = stop


# Chains of images

def chain(directory, name, active, base_format):
    """Follow a backing chain, from the active image to its base.

    The file with the volume's own name has the format that was recorded for
    it, every other file of a chain is an overlay and so qcow2. No format is
    guessed, and no file outside the volume's own is opened.

    :param name: the volume's name
    :param active: file name of the active image
    :param base_format: format of the file with the volume's own name
    :returns: a list of (file name, format, virtual size in bytes)
    :raises ValueError: an image that is not what the records say
    :raises FileNotFoundError: an image is missing
    """
    images = []
    image, known_as = active, None
    while image is not None:
        image_format = _recorded_format(image, name, base_format)
        if images and known_as != image_format:
            raise ValueError('%s is recorded as %s, but the overlay above it '
                             'says %s' % (image, image_format, known_as))
        if image in [i[0] for i in images]:
            raise ValueError('%s is its own backing file' % image)
        path = os.path.join(directory, image)
        if image_format == 'raw':
            images.append((image, 'raw', os.stat(path).st_size))
            break
        virtual_size, backing, known_as = _qcow2_header(path)
        images.append((image, 'qcow2', virtual_size))
        image = backing
    return images


def links(directory, name, active):
    """Name the files of a chain from the active one down, as far as it goes.

    A removal that was interrupted has left the upper part of the chain.
    """
    names = [active]
    while names[-1] != name:
        try:
            backing = _qcow2_header(os.path.join(directory, names[-1]))[1]
        except (FileNotFoundError, ValueError):
            break
        if backing in names or not belongs(backing or '', name):
            break
        names.append(backing)
    return names


def _recorded_format(image, name, base_format):
    if not belongs(image, name):
        raise ValueError('%r is not a file of %s' % (image, name))
    return base_format if image == name else 'qcow2'


def named(directory, name):
    """Name the files in a directory that are a volume's images by name.

    The base is the first of them. This reads the whole directory: for what
    can't be found otherwise.
    """
    return sorted(image for image in os.listdir(directory)
                  if belongs(image, name))


def belongs(image, name):
    """Tell whether a file name is one of a volume's images."""
    return re.fullmatch(re.escape(name) + r'(\.%s)?' % _UUID, image)


def _qcow2_header(path):
    """Read virtual size, backing file and its format from a qcow2 header."""
    with open(path, 'rb') as f:
        header = f.read(112).ljust(112, b'\0')
        magic, version, offset, length = struct.unpack('>4sIQI', header[:20])
        if magic != _QCOW2_MAGIC or version not in (2, 3):
            raise ValueError('%s is recorded as qcow2, but is not' % path)
        virtual_size = struct.unpack('>Q', header[24:32])[0]
        header_length = _SHORTEST_HEADER
        if version == 3:
            incompatible = struct.unpack('>Q', header[72:80])[0]
            _check_features(path, incompatible)
            header_length = struct.unpack('>I', header[100:104])[0]
        if not offset:
            return virtual_size, None, None
        if (length > _LONGEST_BACKING_NAME or
                offset + length > min(_LARGEST_CLUSTER,
                                      f.seek(0, os.SEEK_END))):
            raise ValueError('%s: impossible backing file name' % path)
        f.seek(offset)
        backing = os.fsdecode(f.read(length))
        return virtual_size, backing, _backing_format(f, header_length,
                                                      offset)


def _check_features(path, incompatible):
    if incompatible & _EXTERNAL_DATA:
        raise ValueError('%s has its data in another file' % path)
    if incompatible & ~_KNOWN_INCOMPATIBLE:
        raise ValueError('%s is marked as corrupt or has unknown features '
                         '(0x%x)' % (path, incompatible))


def _backing_format(f, start, end):
    """Find the header extension that tells the backing file's format."""
    f.seek(start)
    while f.tell() + 8 <= end:
        kind, length = struct.unpack('>II', f.read(8))
        if not kind:
            break
        if kind == _BACKING_FORMAT_EXTENSION:
            return f.read(length).decode()
        f.seek(-length % 8 + length, os.SEEK_CUR)
    return None


# Files that are to become volumes

# All that a format is known by is in the first part of a file; the
# descriptor of a vmdk and the headers of a vhdx are the farthest.
_START = 2 << 20


def names(directory, most):
    """Name the files of a directory, in order, as many as asked for."""
    with os.scandir(directory) as entries:
        found = sorted(entry.name for entry in entries
                       if entry.is_file(follow_symlinks=False))
    return found[:most]


def start_of(directory, name):
    """Return the first bytes of a file that nobody else has.

    :raises ValueError: it is none, or is in use
    """
    path = os.path.join(directory, name)
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError('it is no file')
        if status.st_uid != os.geteuid():
            raise ValueError('it belongs to user %d, not to the one that runs '
                             'Cinder (%d)' % (status.st_uid, os.geteuid()))
        if status.st_nlink > 1:
            raise ValueError('it has another name too (a hard link)')
        if _is_open_in_qemu(fd):
            raise ValueError('it is open in QEMU')
        return os.pread(fd, _START, 0)
    finally:
        os.close(fd)


def _is_open_in_qemu(fd):
    """Ask for the locks by which QEMU keeps others from an image.

    A byte from 100 on is locked for each thing it does, from 200 on for each
    it does not want others to do (RAW_LOCK_PERM_BASE in its file-posix.c).
    """
    everything = struct.pack('hhqqi4x', fcntl.F_WRLCK, os.SEEK_SET, 100, 200,
                             0)
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, everything)
    return struct.unpack('hhqqi4x', answer)[0] != fcntl.F_UNLCK


def rename(path, new, mode):
    """Give a file another name and this mode, durably.

    :raises FileExistsError: there is a file of that name
    """
    if os.path.lexists(new):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)
    os.chmod(path, mode)
    os.rename(path, new)
    _sync_directory(new)


def link(directory, new_directory, file_names):
    """Give files a second name in another directory, durably; all or none.

    :raises OSError: one can't get it, for example as another file has that
        name, or as Lustre's projects differ (EXDEV)
    """
    if os.path.samefile(directory, new_directory):
        # Those who remove the first names would remove the only ones.
        raise OSError(errno.EEXIST, "It is the same directory", directory)
    made = []
    try:
        for name in file_names:
            old, new = (os.path.join(d, name)
                        for d in (directory, new_directory))
            if not (os.path.lexists(new) and os.path.samefile(old, new)):
                os.link(old, new, follow_symlinks=False)
                made.append(new)
    except OSError:
        remove(made)
        raise
    sync(new_directory)


def is_auxiliary(name):
    """Tell whether a file is part of a volume, but not its first image."""
    return re.search(r'\.(info|new|info\.new|' + _UUID + ')$', name)


def recorded_snapshots(directory, most):
    """List the snapshots in the records of a directory.

    :param most: how many records are read
    :returns: a list of (volume name, snapshot ID, overlay's file name)
    """
    records = [name for name in names(directory, sys.maxsize)
               if name.endswith('.info')]
    found = []
    for name in records[:most]:
        try:
            record = json.loads(read(os.path.join(directory, name)))
            found += [(name.removesuffix('.info'), key, file)
                      for key, file in record.items() if key != 'active']
        except (TypeError, ValueError, AttributeError):
            # Gone meanwhile, or damaged: that volume's own operations say so.
            continue
    return found
