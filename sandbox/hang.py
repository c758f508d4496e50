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

"""The file system that never answers.

A FUSE file system is laid over every mount of the share, under the same
source. Its server, the process started here, reads each request, so that the
caller has to wait even when it is killed, as on Lustre, and answers none but
the greeting. When the server ends, the kernel ends the waiting calls with an
error.

The protocol is that of linux/fuse.h; only the two headers and the answer to
FUSE_INIT are needed.
"""

import contextlib
import fcntl
import os
import select
import signal
import struct
import subprocess
import sys

from sandbox import mounts
from sandbox import state

_IN_HEADER = struct.Struct('=IIQQIIII')      # length, opcode, unique, ...
_OUT_HEADER = struct.Struct('=IiQ')          # length, error, unique
_INIT_OUT = struct.Struct('=IIIIHHIIHHII24x')
_FUSE_INIT = 26
_BUFFER = 1 << 17


def start(fs):
    """Lay a hanging file system over each mount of this one."""
    process = subprocess.Popen(
        [sys.executable, os.path.join(os.path.dirname(__file__),
                                      'lustre-sandbox'),
         'serve-hang', fs.name],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, cwd='/',
        env=dict(os.environ,
                 LUSTRE_SANDBOX_STATE=os.path.dirname(fs.directory)),
        start_new_session=True)
    with process.stdout:
        if process.stdout.readline() != 'ready\n':
            raise state.SandboxError('the hanging file system did not start')


def stop(fs):
    """Take them off; calls that wait end with an error."""
    mounts.unmount_all([mount for mount in mounts.of(fs.name)
                        if mount.fstype == mounts.HUNG_TYPE])
    server = _server(fs)
    if server:
        os.kill(server, signal.SIGKILL)


def _server(fs):
    """The server's process id; None when it is not running."""
    with contextlib.suppress(FileNotFoundError):
        with open(_pidfile(fs)) as pidfile:
            try:
                # The server holds the lock as long as it lives, so that a
                # process that got its number later is never killed.
                fcntl.flock(pidfile, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(pidfile.read())
    return None


def _pidfile(fs):
    return os.path.join(fs.directory, 'hang.pid')


def serve(fs):
    """The server; runs until it is killed or its mounts are gone."""
    with open(_pidfile(fs), 'a') as pidfile:
        fcntl.flock(pidfile, fcntl.LOCK_EX | fcntl.LOCK_NB)
        pidfile.truncate(0)
        pidfile.write(str(os.getpid()))
        pidfile.flush()
        connections = [_lay_over(mount) for mount in mounts.of(fs.name)]
        print('ready', flush=True)
        release_output()
        _swallow(connections)


def _lay_over(mount):
    connection = os.open('/dev/fuse', os.O_RDWR)
    lay(connection, mount.source, mount.target)
    return connection


def lay(connection, source, target):
    """Mount the hanging file system that is served through a connection."""
    mounts.mount(source, target, mounts.HUNG_TYPE,
                 mounts.MS_NOSUID | mounts.MS_NODEV,
                 'fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other'
                 % connection)


def release_output():
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def _swallow(connections):
    poll = select.poll()
    for connection in connections:
        poll.register(connection, select.POLLIN)
    while connections:
        for connection, _ in poll.poll():
            try:
                swallow_one(connection)
            except OSError:       # unmounted
                poll.unregister(connection)
                connections.remove(connection)


def swallow_one(connection):
    """Read a request; only the greeting is answered."""
    request = os.read(connection, _BUFFER)
    _, opcode, unique, *_ = _IN_HEADER.unpack_from(request)
    if opcode == _FUSE_INIT:
        os.write(connection, _greeting(request, unique))


def _greeting(request, unique):
    major, minor = struct.unpack_from('=II', request, _IN_HEADER.size)
    answer = _INIT_OUT.pack(major, min(minor, 31), 0, 0, 0, 0, 4096,
                            0, 0, 0, 0, 0)
    return _OUT_HEADER.pack(_OUT_HEADER.size + len(answer), 0,
                            unique) + answer
