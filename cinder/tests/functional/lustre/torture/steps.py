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

"""Runs work step by step; a step is a system call that changes a file.

The work runs in a process of its own, and with all that it starts in a PID
namespace of its own. A seccomp filter makes each system call that could change
a file wait until :func:`supervise` has looked at it (seccomp_unotify(2)): in
the service's process, in the children of its guard, and in each thread of
qemu-img. So no call is missed, and a process that is killed while its call
waits has not made it.

The kernel ends a PID namespace as a whole when its first process is killed,
like a host that goes down. When :func:`supervise` returns, none of its
processes is left.
"""

import ctypes
import dataclasses
import errno
import fcntl
import os
import signal
import socket
import struct
import sys
import traceback

_libc = ctypes.CDLL(None, use_errno=True)
_libseccomp = ctypes.CDLL('libseccomp.so.2')
_libseccomp.seccomp_init.restype = ctypes.c_void_p
_libseccomp.seccomp_rule_add_array.argtypes = [
    ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint,
    ctypes.c_void_p]
_libseccomp.seccomp_load.argtypes = [ctypes.c_void_p]
_libseccomp.seccomp_notify_fd.argtypes = [ctypes.c_void_p]
_libseccomp.seccomp_syscall_resolve_num_arch.restype = ctypes.c_char_p

# Of <seccomp.h>.
_ALLOW = 0x7fff0000       # SCMP_ACT_ALLOW
_NOTIFY = 0x7fc00000      # SCMP_ACT_NOTIFY
_NO_SUCH_CALL = 0x00050000 | errno.ENOSYS     # SCMP_ACT_ERRNO

# Of <linux/sched.h> and <linux/seccomp.h>.
_CLONE_NEWPID = 0x20000000
_RECEIVE = 0xC0502100     # SECCOMP_IOCTL_NOTIF_RECV
_SEND = 0xC0182101        # SECCOMP_IOCTL_NOTIF_SEND
_POLLIN = 1               # of <poll.h>
_CONTINUE = 1             # SECCOMP_USER_NOTIF_FLAG_CONTINUE
# struct seccomp_notif: id, pid, flags, nr, arch, instruction, 6 arguments
_NOTIFICATION = struct.Struct('=QIIiIQ6Q')
_RESPONSE = struct.Struct('=QqiI')

# An exit code, as the shell has it.
_KILLED = 128 + signal.SIGKILL

_AT_FDCWD = -100
_LONGEST_PATH = 4096


@dataclasses.dataclass(frozen=True)
class Step:
    """A system call that is about to be made.

    :ivar command: the command that makes it, with its subcommand, as in
        ``qemu-img create``; '' if the service or a child of its guard does
    :ivar call: the call's name, without the suffixes of its variants
    :ivar paths: the files it changes
    """

    command: str
    call: str
    paths: tuple

    @property
    def is_sync(self):
        """It changes nothing that another process could see."""
        return self.call in ('fsync', 'fdatasync')


class _Call:
    """A waiting system call: its arguments, and the files they name."""

    def __init__(self, process, args):
        self.process = process
        self.args = args

    def fd(self, n):
        fd = ctypes.c_int32(self.args[n] & 0xffffffff).value
        name = 'cwd' if fd == _AT_FDCWD else 'fd/%d' % fd
        try:
            path = os.readlink('/proc/%d/%s' % (self.process, name))
        except FileNotFoundError:
            return ''
        return path.removesuffix(' (deleted)')

    def path(self, n):
        return os.path.join(
            os.readlink('/proc/%d/cwd' % self.process), self._string(n))

    def at(self, n):
        return os.path.join(self.fd(n), self._string(n + 1))

    def _string(self, n):
        # Not beyond the page, which may be the last one that is mapped.
        address, found = self.args[n], b''
        memory = os.open('/proc/%d/mem' % self.process, os.O_RDONLY)
        try:
            while b'\0' not in found and len(found) < _LONGEST_PATH:
                found += os.pread(memory, 4096 - (address + len(found)) % 4096,
                                  address + len(found))
        finally:
            os.close(memory)
        return os.fsdecode(found.partition(b'\0')[0])

    @staticmethod
    def opened(path, flags):
        """What an open would make or truncate."""
        exists = os.path.lexists(path)
        if exists and flags & os.O_TRUNC or not exists and flags & os.O_CREAT:
            return path
        return ''

    @staticmethod
    def existing(path):
        return path if os.path.lexists(path) else ''


# How to find the files that a call changes.
_CALLS = {
    'open': lambda c: [c.opened(c.path(0), c.args[1])],
    'creat': lambda c: [c.path(0)],
    'openat': lambda c: [c.opened(c.at(0), c.args[2])],
    'unlink': lambda c: [c.existing(c.path(0))],
    'unlinkat': lambda c: [c.existing(c.at(0))],
    'copy_file_range': lambda c: [c.fd(2)],
    'splice': lambda c: [c.fd(2)],
    'ioctl': lambda c: [c.fd(0)],
    **dict.fromkeys(
        ('write', 'pwrite64', 'writev', 'pwritev', 'pwritev2', 'sendfile',
         'fallocate', 'ftruncate', 'fchmod', 'fchown', 'fsetxattr', 'fsync',
         'fdatasync'), lambda c: [c.fd(0)]),
    **dict.fromkeys(
        ('truncate', 'rmdir', 'mkdir', 'mknod', 'chmod', 'chown',
         'lchown', 'setxattr', 'lsetxattr'), lambda c: [c.path(0)]),
    **dict.fromkeys(
        ('mkdirat', 'mknodat', 'fchmodat', 'fchownat'),
        lambda c: [c.at(0)]),
    **dict.fromkeys(('rename', 'link'), lambda c: [c.path(0), c.path(1)]),
    **dict.fromkeys(('renameat', 'renameat2', 'linkat'),
                    lambda c: [c.at(0), c.at(2)]),
    'symlink': lambda c: [c.path(1)],
    'symlinkat': lambda c: [c.at(1)],
}


class _Condition(ctypes.Structure):
    """struct scmp_arg_cmp: an argument, masked or not, has this value."""

    _fields_ = [('argument', ctypes.c_uint), ('operator', ctypes.c_int),
                ('a', ctypes.c_uint64), ('b', ctypes.c_uint64)]

    @classmethod
    def flag(cls, argument, flag):
        return cls(argument, 7, flag, flag)     # SCMP_CMP_MASKED_EQ

    @classmethod
    def value(cls, argument, value):
        return cls(argument, 4, value)          # SCMP_CMP_EQ


# Calls that change files with some arguments only.
_CONDITIONS = {
    'open': [_Condition.flag(1, os.O_CREAT), _Condition.flag(1, os.O_TRUNC)],
    'openat': [_Condition.flag(2, os.O_CREAT), _Condition.flag(2, os.O_TRUNC)],
    # FICLONE and FICLONERANGE
    'ioctl': [_Condition.value(1, 0x40049409),
              _Condition.value(1, 0x4020940d)],
}

# What could change files unseen; who uses them can do without.
_REFUSED = ('openat2', 'io_setup', 'io_uring_setup')

_SIMPLE_NAMES = {
    'creat': 'open', 'openat': 'open', 'pwrite64': 'write', 'writev': 'write',
    'pwritev': 'write', 'pwritev2': 'write', 'unlinkat': 'unlink',
    'mkdirat': 'mkdir', 'renameat': 'rename', 'renameat2': 'rename',
    'ftruncate': 'truncate', 'fchmod': 'chmod', 'fchmodat': 'chmod',
    'fchown': 'chown', 'lchown': 'chown', 'fchownat': 'chown'}


def supervise(work, watched, before):
    """Run ``work()`` in a process of its own, step by step.

    :param watched: a function that tells whether a path's changes are steps
    :param before: called with each :class:`Step`, which is made when it
        returns True; all processes are killed if it returns False
    :returns: whether the work came to its end, and wasn't killed
    :raises AssertionError: it failed
    """
    sys.stdout.flush()
    sys.stderr.flush()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # Not eventlet's way: the kernel's.
    for end in ours, theirs:
        os.set_blocking(end.fileno(), True)
    keeper = os.fork()
    if not keeper:
        ours.close()
        _keep(work, theirs)
    theirs.close()
    with ours:
        first, listener = _received(ours)
    try:
        ended = _watch(listener, keeper, watched, before)
    except BaseException:
        ended = False
        raise
    finally:
        if not ended:
            os.kill(first, signal.SIGKILL)
        status = os.waitid(os.P_PID, keeper, os.WEXITED).si_status
        # Not before: who waits would go on, with an error.
        os.close(listener)
    if status == _KILLED:
        return False
    if status:
        raise AssertionError('the work failed, and was not killed')
    return True


def _received(channel):
    """Receive the first process's id and the listener, in any order."""
    first = listener = None
    while first is None or listener is None:
        data, fds, _flags, _address = socket.recv_fds(channel, 64, 1)
        if not data:
            raise AssertionError('the work did not start')
        if fds:
            listener = fds[0]
        else:
            first = int(data)
    return first, listener


def _keep(work, channel):
    """Be the parent of the first process, which sees no parent of its own."""
    code = 1
    try:
        if _libc.unshare(_CLONE_NEWPID):
            raise OSError(ctypes.get_errno(), 'unshare')
        first = os.fork()
        if first:
            channel.sendmsg([b'%d' % first])
            channel.close()
            end = os.waitid(os.P_PID, first, os.WEXITED)
            code = _KILLED if end.si_code == os.CLD_KILLED else end.si_status
        else:
            _load_filter(channel)
            work()
            code = 0
    except BaseException:
        # To the real one, not to what a test may have put in its place.
        with open(2, 'w', closefd=False) as stderr:
            traceback.print_exc(file=stderr)
    finally:
        os._exit(code)


def _load_filter(channel):
    rules = _libseccomp.seccomp_init(_ALLOW)
    for action, names in ((_NOTIFY, _CALLS), (_NO_SUCH_CALL, _REFUSED)):
        for name in names:
            for condition in _CONDITIONS.get(name, [None]):
                _add_rule(rules, action, name, condition)
    if _libseccomp.seccomp_load(rules):
        raise OSError('no seccomp filter can be loaded')
    listener = _libseccomp.seccomp_notify_fd(rules)
    # socket.send_fds() would import a module, and so wait for us.
    channel.sendmsg([b'listener'], [(
        socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack('i', listener))])
    os.close(listener)
    channel.close()


def _add_rule(rules, action, name, condition):
    call = _libseccomp.seccomp_syscall_resolve_name(name.encode())
    _libseccomp.seccomp_rule_add_array(
        rules, action, call, 1 if condition else 0,
        condition and ctypes.byref(condition))


def _watch(listener, keeper, watched, before):
    """Let calls go on until the work has ended, or ``before`` says no."""
    end = os.pidfd_open(keeper)
    try:
        while True:
            ready = _readable(listener, end)
            if listener in ready:
                if not _answered(listener, watched, before):
                    return False
            elif end in ready:
                return True
    finally:
        os.close(end)


def _readable(*fds):
    """Wait as poll(2) does, which eventlet takes away from Python."""
    entry = struct.Struct('ihh')
    polled = ctypes.create_string_buffer(b''.join(
        entry.pack(fd, _POLLIN, 0) for fd in fds))
    _libc.poll(polled, len(fds), -1)
    return [fd for fd, _wanted, found in entry.iter_unpack(
        polled.raw[:entry.size * len(fds)]) if found & _POLLIN]


def _answered(listener, watched, before):
    buffer = bytearray(_NOTIFICATION.size)
    try:
        fcntl.ioctl(listener, _RECEIVE, buffer)
        number, process, _flags, call, arch, _at, *args = \
            _NOTIFICATION.unpack(buffer)
        step = _step(process, _name(arch, call),
                     args, watched)
        if step and not before(step):
            return False
        fcntl.ioctl(listener, _SEND, bytearray(
            _RESPONSE.pack(number, 0, 0, _CONTINUE)))
    except FileNotFoundError:
        # The process has ended meanwhile.
        pass
    return True


def _name(arch, call):
    return _libseccomp.seccomp_syscall_resolve_num_arch(arch, call).decode()


def _step(process, call, args, watched):
    """Make a Step of a call, or None if it changes nothing that counts."""
    paths = tuple(filter(None, _CALLS[call](_Call(process, args))))
    if not any(watched(path) for path in paths):
        return None
    return Step(_command(process), _SIMPLE_NAMES.get(call, call), paths)


def _command(process):
    with open('/proc/%d/cmdline' % process, 'rb') as f:
        words = os.fsdecode(f.read()).split('\0')
    command = os.path.basename(words[0])
    return '' if command.startswith('python') else ' '.join(
        [command] + words[1:2])
