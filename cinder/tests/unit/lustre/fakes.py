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

"""A Lustre client, as far as the kernel goes, and images to put on it.

The shares' mount points are plain directories. What is made up is the mount
table, mount(8), umount(8) and what statfs(2) says: nothing else needs Lustre.
Calls on a share are made here instead of in a child of the guard (which has
tests of its own), so that a test can let a system call fail. All that happens
to files happens to files, and qemu-img is the real one.
"""

import contextlib
import os
import shutil
import struct
import types
import unittest

import fixtures
from oslo_utils import units

from os_brick.remotefs import lustre as lustre_brick
from os_brick.remotefs import lustre_child
from os_brick.remotefs import lustre_guard

MAGIC = 0x0BD00BD0

KIB = 1 << 10
MIB = 1 << 20


def _run(command, *args):
    skip_without(command)
    code, output, error = lustre_child.run(command, *args)
    if code:
        raise AssertionError('%s %s: exit %s\n%s%s' % (
            command, ' '.join(args), code, output, error))
    return output


def skip_without(command):
    """Skip a test on a machine that has no qemu-utils."""
    if not shutil.which(command):
        raise unittest.SkipTest('%s (qemu-utils) is not installed' % command)


def qemu_img(*args):
    """Run qemu-img."""
    return _run('qemu-img', *args)


def qemu_io(*args):
    """Run qemu-io."""
    return _run('qemu-io', *args)


def allocated(path):
    """Return the bytes that a file takes."""
    return os.stat(path).st_blocks * 512


class FakeLustre(fixtures.Fixture):
    """Shares, mounted and not.

    :ivar table: {mount point: Mount}
    :ivar mounts: what mount was called with
    :ivar missing: names of shares that can't be mounted
    :ivar space: {share name: (size, available)}
    """

    def _setUp(self):
        self.base = self.useFixture(fixtures.TempDir()).path
        self.table = {}
        self.mounts = []
        self.missing = set()
        self.space = {}
        self.magic = MAGIC
        for owner, name, new in (
                (lustre_brick, 'mounted_at', self.table.get),
                (lustre_child, 'statfs', self.statfs),
                (lustre_guard.Guard, 'call', self.call),
                (lustre_guard.Guard, 'session', self.session)):
            self.useFixture(fixtures.MockPatchObject(owner, name, new))

    def client(self, **kwargs):
        return lustre_brick.ShareClient(self.base, self, attempts=1, **kwargs)

    # What is mounted

    def mount(self, source, mount_point, options, timeout):
        self.mounts.append((source, mount_point, options))
        if source in self.missing:
            return 2, ('mount.lustre: mount %s at %s failed: No such file or '
                       'directory' % (source, mount_point))
        self.table[mount_point] = lustre_brick.Mount(mount_point, 'lustre',
                                                     source)
        return 0, ''

    def unmount(self, mount_point, timeout):
        del self.table[mount_point]
        return 0, ''

    def take_over(self, share, path, uid, gid, timeout):
        os.chown(path, uid, gid)

    def statfs(self, path):
        size, available = self.space.get(self.table[path].source,
                                         (100 * units.Gi, 60 * units.Gi))
        return self.magic, size, available

    # The guard

    def call(self, share, function, *args, timeout):
        if function in (lustre_child.run_with, lustre_child.run_to_make):
            skip_without('qemu-img')
        umask = os.umask(0)
        try:
            return function(*args)
        finally:
            os.umask(umask)

    @contextlib.contextmanager
    def session(self, share):
        """Make calls as without one; locks between hosts are Lustre's."""
        def call(share, function, *args, timeout):
            if function in (lustre_child.lock, lustre_child.unlock):
                return True
            return lustre_guard.Guard.call(share, function, *args,
                                           timeout=timeout)

        yield types.SimpleNamespace(call=call, over=False)


def qcow2_header(size=MIB, backing=None, backing_format=None, version=3,
                 incompatible=0, magic=b'QFI\xfb', extensions=(),
                 header_length=None, offset=None, length=None):
    """Return the start of a qcow2 file, as it says and not as it ought to."""
    extensions = list(extensions)
    if backing_format is not None:
        extensions.append((0xE2792ACA, backing_format.encode()))
    extra = b''.join(
        struct.pack('>II', kind, len(data)) + data + bytes(-len(data) % 8)
        for kind, data in extensions) + bytes(8)
    start = 72 if version == 2 else 104
    name = os.fsencode(backing or '')
    if offset is None:
        offset = start + len(extra) if backing is not None else 0
    header = struct.pack(
        '>4sIQIIQIIQQIIQ', magic, version, offset,
        len(name) if length is None else length, 16, size, 0, 1, 0, 0, 0, 0,
        0)
    if version != 2:
        header += struct.pack('>QQQII', incompatible, 0, 0, 4,
                              start if header_length is None
                              else header_length)
    return header + extra + name
