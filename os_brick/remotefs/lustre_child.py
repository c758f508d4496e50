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

"""The far end of :mod:`os_brick.remotefs.lustre_guard`.

This file runs as a script, in a process of its own, and makes the calls on
Lustre shares that the service must not make itself: a process that waits for
a dead OST or MDT can't be ended, not even by SIGKILL, and neither can a thread
of the service that waits there.

It is started by its path and in Python's isolated mode, so that it is up in
some 20 ms: it must import nothing but the standard library, and so must the
modules whose functions it is asked to run.

The protocol, over a socket pair whose far end is the service: a length of 4
bytes and a pickle of ``(path of a module, name of a function, arguments)``;
the answer is a length and a pickle of ``(True, what it returned)`` or
``(False, the exception it raised)``. One call at a time. A second socket, the
lifeline, carries nothing: it is closed when this process and each command that
it has started have ended, which tells the service so. When the service goes
away, so does this process, with the commands it has started: what they
would still do would no longer be under the service's locks.

One that waits for a dead server does not go away so soon. It can take a lock
on the share (:func:`lock`) that it has in common with the commands it runs:
that ends when the last of these processes does.
"""

import contextlib
import ctypes
import fcntl
import functools
import importlib.util
import os
import pickle
import resource
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading

_LENGTH = struct.Struct('!I')
# struct flock of fcntl(2): type, whence, start, length, process id.
_FLOCK = struct.Struct('@hhqqi4x')

# Descriptors of the files that are locked by this process.
_locked = []

# The descriptor of the lifeline, in a child.
_lifeline = ()

# The command that goes on, and the file of what it says.
_started = None
_output = None


def send(channel, message):
    """Send one pickled message."""
    body = pickle.dumps(message)
    channel.sendall(_LENGTH.pack(len(body)) + body)


def receive(channel):
    """Receive one pickled message.

    :raises EOFError: the other side has gone
    """
    (length,) = _LENGTH.unpack(_receive_exactly(channel, _LENGTH.size))
    return pickle.loads(_receive_exactly(channel, length))


def _receive_exactly(channel, count):
    parts = []
    while count:
        part = channel.recv(min(count, 1 << 20))
        if not part:
            raise EOFError('the other side has gone')
        parts.append(part)
        count -= len(part)
    return b''.join(parts)


# What any share needs; the rest comes from other modules by their path.

def run(*argv):
    """Run a command to its end.

    It holds the locks of this process too.

    :returns: exit code, standard output, standard error (str)
    """
    return run_with({}, {}, *argv)


def run_with(limits, secrets, *argv):
    """Run a command with limits, and with files that hold secrets.

    These files are in memory, and nobody else has them open.

    :param limits: {resource.RLIMIT_...: the limit}; those that this process
        has itself hold all the same
    :param secrets: what is in the files (bytes), by the names that the
        arguments call them
    :returns: as :func:`run`
    """
    with _in_memory(secrets) as fds:
        return _run(limits, fds, argv)


def run_to_make(path, limits, secrets, *argv):
    """Run a command that makes a file, in memory, and write that file.

    For a command that would make it bit by bit, each of them durable.

    :param path: the file, as the arguments name it
    :returns: as :func:`run`
    """
    with _in_memory({**secrets, path: b''}) as fds:
        done = _run(limits, fds, argv)
        if not done[0]:
            with open(fds[path], 'rb', closefd=False) as made:
                with open(path, 'wb') as file:
                    shutil.copyfileobj(made, file)
    return done


@contextlib.contextmanager
def _in_memory(contents):
    """Make files in memory; give their descriptors by their names."""
    fds = {}
    try:
        for name, content in contents.items():
            fds[name] = os.memfd_create('lustre')
            os.pwrite(fds[name], content, 0)
        yield fds
    finally:
        for fd in fds.values():
            os.close(fd)


def _run(limits, fds, argv):
    # Safe beside the other thread, which waits in poll() and holds no lock.
    # Without limits the process is started by vfork().
    limit = functools.partial(_limit, limits) if limits else None
    done = subprocess.run(capture_output=True, preexec_fn=limit,
                          **_command(fds, argv))
    return (done.returncode, done.stdout.decode(errors='replace'),
            done.stderr.decode(errors='replace'))


def _command(fds, argv):
    """Return what subprocess is told of a command.

    :param fds: descriptors of files, by the names that the arguments call them
    """
    for name, fd in fds.items():
        argv = [arg.replace(name, '/proc/self/fd/%d' % fd) for arg in argv]
    return {'args': argv, 'stdin': subprocess.DEVNULL,
            'pass_fds': (*fds.values(), *_lifeline, *_locked),
            'env': {'PATH': os.environ.get('PATH', os.defpath)
                    + ':/usr/sbin:/sbin', 'LC_ALL': 'C'}}


def _limit(limits):
    for kind, limit in limits.items():
        own = resource.getrlimit(kind)[1]
        if own != resource.RLIM_INFINITY:
            limit = min(limit, own)
        resource.setrlimit(kind, (limit, limit))


def lock(path, offset, mode, length=1):
    """Lock bytes of a file, between all hosts, unless someone else has them.

    The lock is one of an open file description, as QEMU's image locks are
    (fcntl_locking(2), F_OFD_SETLK): it ends when the last process that has
    inherited the descriptor closes it or ends.

    :param mode: of the file, which is made if there is none
    :param length: in bytes; 0 for all there can be
    :returns: whether they are locked now
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT, mode)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(
            fcntl.F_WRLCK, os.SEEK_SET, offset, length, 0))
    except BlockingIOError:
        os.close(fd)
        return False
    except BaseException:
        os.close(fd)
        raise
    _locked.append(fd)
    return True


def unlock(path=None):
    """Give up all locks of this process.

    :param path: of the file that was locked
    :returns: False if that file can't be found there now: what was done
        meanwhile may have been done elsewhere
    """
    try:
        return path is None or os.path.samestat(os.stat(path),
                                                os.fstat(_locked[-1]))
    except OSError:
        return False
    finally:
        while _locked:
            os.close(_locked.pop())


def start(secrets, *argv):
    """Start a command that goes on when this returns.

    For a child that one caller keeps: it has but one such command.

    :param secrets: as for :func:`run_with`
    """
    global _started, _output
    _output = os.memfd_create('output')
    with _in_memory(secrets) as fds:
        _started = subprocess.Popen(stdout=_output, stderr=_output,
                                    **_command(fds, argv))


def check():
    """Tell what the started command has said, or None while it runs."""
    return None if _started.poll() is None else _said()


def wait():
    """Wait until the started command has ended.

    :returns: its exit code, and what it has said
    """
    return _started.wait(), _said()


def _said():
    return os.pread(_output, 4096, 0).decode(errors='replace').strip()


def read(path, length):
    """Read from the start of a file."""
    with open(path, 'rb') as f:
        return f.read(length)


def statfs(path):
    """Return the magic number, size and available space of a file system.

    Python's statvfs doesn't tell the magic number, statfs(2) does.

    :returns: f_type, total bytes, bytes available to users without privilege
    """
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = (ctypes.c_ulong * 32)()
    if libc.statfs(os.fsencode(path), buffer):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), path)
    space = os.statvfs(path)
    return (buffer[0], space.f_blocks * space.f_frsize,
            space.f_bavail * space.f_frsize)


@functools.lru_cache
def _load(path):
    if path == __file__:
        return sys.modules[__name__]
    spec = importlib.util.spec_from_file_location('guarded', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _answer(path, function, args):
    try:
        return True, getattr(_load(path), function)(*args)
    except Exception as exc:
        return False, exc


def _end_with_the_service(channel):
    poll = select.poll()
    poll.register(channel, select.POLLRDHUP)
    poll.poll()
    os.killpg(0, signal.SIGKILL)


def main():
    global _lifeline
    channel = socket.socket(fileno=int(sys.argv[1]))
    _lifeline = (int(sys.argv[2]),)
    # Under eventlet the service has made it otherwise.
    channel.setblocking(True)
    # What is created has the mode that the caller names, whatever umask the
    # service was started with.
    os.umask(0)
    threading.Thread(target=_end_with_the_service, args=(channel,),
                     daemon=True).start()
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            send(channel, _answer(*receive(channel)))


if __name__ == '__main__':
    main()
