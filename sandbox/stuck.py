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

"""Single calls that never come back.

A FUSE file system that passes everything through is laid over each mount of
the share, under the same source. While ``stuck=CALL`` is among the faults it
keeps the callers of CALL waiting, in the kernel, where SIGKILL does not reach
them; all other calls go through. When the fault is cleared the callers go on
where they were, as on Lustre when a server is back.

It needs fusepy. A mount that is stuck needs only the kernel's FUSE: there is
nothing to pass through.
"""

import contextlib
import ctypes
import os
import select
import subprocess
import time

from sandbox import hang
from sandbox import install
from sandbox import mounts
from sandbox import state

# How users call the calls, and the requests that these become.
CALLS = {
    'stat': {'getattr'},
    'statvfs': {'statfs'},
    'open': {'open', 'create'},
    'read': {'read'},
    'write': {'write'},
    'truncate': {'truncate'},
    'fsync': {'fsync', 'fsyncdir'},
    'rename': {'rename'},
    'unlink': {'unlink'},
    'mount': set(),
}
_POLL = 0.05


def is_stuck(fs, call):
    """Whether that call does not return now."""
    now = state.reload(fs)
    return now is not None and 'stuck=' + call in now.faults


# Laid over a mount

def start(fs):
    """Lay the file system over each mount that has none yet."""
    own = mounts.of(fs.name)
    covered = {mount.target for mount in own
               if mount.fstype == mounts.HUNG_TYPE}
    for mount in own:
        if mount.target not in covered:
            covered.add(mount.target)
            _start_server(fs, mount)


def _start_server(fs, mount):
    # By the system's Python: fusepy is a package of the system's.
    process = subprocess.Popen(
        [install.INTERPRETER, os.path.join(os.path.dirname(__file__),
                                           'lustre-sandbox'),
         'serve-stuck', fs.name, mount.target, mount.source],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, cwd='/',
        env=dict(os.environ,
                 LUSTRE_SANDBOX_STATE=os.path.dirname(fs.directory)),
        start_new_session=True)
    with process.stdout:
        if process.stdout.readline() != 'ready\n':
            raise state.SandboxError(
                'the file system for calls that get stuck did not start; is '
                'fusepy installed (python3-fusepy)?')


def serve(fs, target, source):
    """The server of one mount; runs until that is gone."""
    # Debian's name of it, and its own.
    try:
        import fusepy
    except ImportError:
        import fuse as fusepy
    passthrough = _passthrough(fusepy, fs, os.open(
        target, os.O_PATH | os.O_DIRECTORY))
    fusepy.FUSE(passthrough, target, foreground=True,
                fsname=source.replace('\\', r'\\').replace(',', r'\,'),
                subtype='lustre', allow_other=True, default_permissions=True,
                # What changes below must be seen, and nothing be kept here.
                direct_io=True, attr_timeout=0, entry_timeout=0,
                hard_remove=True, big_writes=True, nonempty=True)


def _passthrough(fusepy, fs, root):
    top = '/proc/self/fd/%d' % root

    def at(path):
        return top + path

    class Passthrough(fusepy.Operations):
        """Each method is a request: paths, then a descriptor of ours."""

        use_ns = True

        def __call__(self, request, *arguments):
            for call, requests in CALLS.items():
                if request in requests:
                    self._wait(call)
            return super().__call__(request, *arguments)

        @staticmethod
        def _wait(call):
            while is_stuck(fs, call):
                time.sleep(_POLL)

        def init(self, path):
            print('ready', flush=True)
            hang.release_output()

        def getattr(self, path, fh=None):
            found = os.lstat(at(path)) if fh is None else os.fstat(fh)
            return {key: getattr(found, key) for key in (
                'st_mode', 'st_ino', 'st_nlink', 'st_uid', 'st_gid',
                'st_size', 'st_blocks')} | {
                    key: getattr(found, key + '_ns')
                    for key in ('st_atime', 'st_mtime', 'st_ctime')}

        def statfs(self, path):
            found = os.statvfs(top)
            return {key: getattr(found, key) for key in (
                'f_bsize', 'f_frsize', 'f_blocks', 'f_bfree', 'f_bavail',
                'f_files', 'f_ffree', 'f_favail', 'f_namemax')}

        def open(self, path, flags):
            return os.open(at(path), flags & ~os.O_DIRECT)

        def create(self, path, mode, fi=None):
            fd = os.open(at(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
            uid, gid, _pid = fusepy.fuse_get_context()
            os.fchown(fd, uid, gid)
            os.fchmod(fd, mode & 0o7777)
            return fd

        def read(self, path, size, offset, fh):
            return os.pread(fh, size, offset)

        def write(self, path, data, offset, fh):
            return os.pwrite(fh, data, offset)

        def truncate(self, path, length, fh=None):
            os.truncate(at(path) if fh is None else fh, length)

        def fsync(self, path, datasync, fh):
            os.fsync(fh)

        def fsyncdir(self, path, datasync, fh):
            pass

        def release(self, path, fh):
            os.close(fh)

        def readdir(self, path, fh):
            return ['.', '..', *os.listdir(at(path))]

        def readlink(self, path):
            return os.readlink(at(path))

        def mkdir(self, path, mode):
            os.mkdir(at(path), mode)

        def rmdir(self, path):
            os.rmdir(at(path))

        def unlink(self, path):
            os.unlink(at(path))

        def rename(self, old, new):
            os.rename(at(old), at(new))

        def link(self, target, source):
            os.link(at(source), at(target))

        def symlink(self, target, source):
            os.symlink(source, at(target))

        def chmod(self, path, mode):
            os.chmod(at(path), mode)

        def chown(self, path, uid, gid):
            # -1, for no change, comes as an unsigned number.
            os.lchown(at(path), ctypes.c_int(uid).value,
                      ctypes.c_int(gid).value)

        def utimens(self, path, times=None):
            os.utime(at(path), ns=times, follow_symlinks=False)

    return Passthrough()


# A mount

def wait_to_mount(fs):
    """Wait in the kernel, out of the reach of SIGKILL, until it is cleared.

    What is waited for is a FUSE file system that nobody else sees, in a
    namespace of its server's own. When that ends, so does the wait.
    """
    reader, writer = os.pipe()
    server = os.fork()
    if server == 0:
        try:
            # What kills the waiting one must not reach this one.
            os.setsid()
            hang.release_output()
            _serve_private(fs, writer)
        finally:
            os._exit(0)
    os.close(writer)
    os.read(reader, 1)
    with contextlib.suppress(OSError):
        os.stat('/proc/%d/root%s' % (server, state.REGISTRY))
    os.waitpid(server, 0)


def _serve_private(fs, writer):
    connection = os.open('/dev/fuse', os.O_RDWR)
    mounts.enter_private_namespace()
    hang.lay(connection, 'private', state.REGISTRY)
    os.close(writer)
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    while is_stuck(fs, 'mount'):
        if poll.poll(_POLL * 1000):
            hang.swallow_one(connection)
