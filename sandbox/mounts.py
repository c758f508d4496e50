# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""The mount table, and mounting under a share's name.

mount(2) records as source the string it is given, and finds the device by
looking that string up as a path. So the device is mounted through a symbolic
link whose relative path is the share's name. A directory of the file system
is then bound; a bind keeps the source of what it is bound from.

None of this is seen by others: the link and the whole file system's mount
live in a mount namespace of this process, on a tmpfs there. The finished
mount is picked up with open_tree(2) and set down in the caller's namespace
with move_mount(2). A process killed half-way leaves nothing.
"""

import contextlib
import ctypes
import dataclasses
import os
import re
import traceback

from sandbox import state

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_DIRSYNC, MS_NOATIME, MS_NODIRATIME = 32, 128, 1024, 2048
MS_BIND, MS_REC, MS_SLAVE, MS_RELATIME = 4096, 1 << 14, 1 << 19, 1 << 21
MS_STRICTATIME = 1 << 24
MNT_DETACH = 2
_CLONE_NEWNS = 0x20000
_AT_FDCWD = -100
_OPEN_TREE, _OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 428, 1, os.O_CLOEXEC
_MOVE_MOUNT, _MOVE_MOUNT_F_EMPTY_PATH = 429, 4

HUNG_TYPE = 'fuse.lustre'
TYPES = ('xfs', 'ext4', HUNG_TYPE)

_libc = ctypes.CDLL(None, use_errno=True)


@dataclasses.dataclass(frozen=True)
class Mount:
    number: int
    device: str      # 'major:minor'
    target: str
    fstype: str
    source: str


def table():
    """The mounts of this namespace, oldest first."""
    with open('/proc/self/mountinfo', errors='surrogateescape') as info:
        return [_parse(line) for line in info]


def _parse(line):
    fields, _, rest = line.partition(' - ')
    number, _, device, _, target = fields.split()[:5]
    fstype, source = rest.split(' ')[:2]
    return Mount(int(number), device, _plain(target), fstype, _plain(source))


def _plain(text):
    return re.sub(r'\\([0-7]{3})', lambda m: chr(int(m[1], 8)), text)


def of(name):
    """The mounts of the file system of that name, as shares."""
    share = re.compile('.+:/%s(/|$)' % re.escape(name))
    return [mount for mount in table()
            if mount.fstype in TYPES and share.match(mount.source)]


def on(device_number):
    """The mounts of a device, whatever their source says."""
    return [mount for mount in table() if mount.device == device_number]


def at(path):
    """What is mounted just there, on top; None if nothing."""
    found = [mount for mount in table() if mount.target == path]
    return found[-1] if found else None


def mount(source, target, fstype, flags=0, data=None):
    _call('mount', _bytes(source), _bytes(target), _bytes(fstype),
          ctypes.c_ulong(flags), _bytes(data))


def unmount(target):
    """Take the topmost mount off, at once, whoever uses it."""
    _call('umount2', _bytes(target), MNT_DETACH)


def unmount_all(mounts):
    for mounted in reversed(mounts):
        # Gone already when it was below another one of these.
        with contextlib.suppress(OSError):
            unmount(mounted.target)


def attach(device, fstype, share, target, flags):
    """Mount the share's directory of the device on target, under its name."""
    home = os.open('/proc/self/ns/mnt', os.O_RDONLY | os.O_CLOEXEC)
    try:
        root = _mount_privately(device, fstype, share.source)
        tree = _pick(root, share.directory, flags)
        _call('setns', home, 0)
    finally:
        os.close(home)
    _syscall(_MOVE_MOUNT, tree, b'', _AT_FDCWD, _bytes(target),
             _MOVE_MOUNT_F_EMPTY_PATH)


def privately(device, fstype, work):
    """Call work(root of the file system) where nobody else sees the mount."""
    child = os.fork()
    if child == 0:
        os._exit(_report(_work_privately, device, fstype, work))
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise state.SandboxError('work inside %s failed' % device)


def _work_privately(device, fstype, work):
    work(_mount_privately(device, fstype, 'private:/private'))


def _report(function, *arguments):
    try:
        function(*arguments)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _mount_privately(device, fstype, source):
    """Leave the caller's namespace and mount the device under that name."""
    enter_private_namespace()
    os.makedirs(state.REGISTRY, mode=0o755, exist_ok=True)
    mount('lustre-sandbox', state.REGISTRY, 'tmpfs', 0, 'mode=700')
    os.chdir(state.REGISTRY)
    # A trailing slash can't be kept: the kernel would want a directory.
    link = source.rstrip('/')
    os.mkdir('root')
    os.makedirs(os.path.dirname(link), exist_ok=True)
    os.symlink(device, link)
    mount(link, 'root', fstype)
    return os.path.join(state.REGISTRY, 'root')


def enter_private_namespace():
    """Leave the caller's namespace for one of our own."""
    _call('unshare', _CLONE_NEWNS)
    # Slave: nothing we mount is seen outside, and what is unmounted outside
    # is unmounted here, so that we keep nobody's file system busy.
    mount(None, '/', None, MS_REC | MS_SLAVE)


def _pick(root, directory, flags):
    """A mount of that directory, set down nowhere yet."""
    if flags:
        # Read-only and the like for this mount alone: other mounts of the
        # same file system keep theirs.
        mount(None, root, None, MS_REMOUNT | MS_BIND | flags)
    path = os.path.realpath(os.path.join(root, directory))
    if path != root and not path.startswith(root + '/'):
        raise FileNotFoundError(2, os.strerror(2))    # a link that leads out
    if not os.path.isdir(path):
        os.stat(path)
        raise NotADirectoryError(20, os.strerror(20))
    return _syscall(_OPEN_TREE, _AT_FDCWD, _bytes(path),
                    _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC)


def _bytes(text):
    return None if text is None else os.fsencode(text)


def _syscall(number, *arguments):
    return _call('syscall', number, *arguments)


def _call(name, *arguments):
    result = getattr(_libc, name)(*arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
