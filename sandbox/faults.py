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

"""The fault switches.

A fault that lasts is recorded before it is made, and struck off the record
after it has been healed, so that whatever a killed run left can be healed.
"""

import contextlib
import dataclasses
import errno
import fcntl
import glob
import os

from sandbox import hang
from sandbox import loops
from sandbox import mounts
from sandbox import osts
from sandbox import state
from sandbox import stuck

# What happens to the mounts and the files.
LASTING = ('hang', 'mgs-down', 'missing', 'full')
OF_AN_OST = ('ost-full', 'ost-inactive', 'ost-down')
ALL = LASTING + tuple(name + '=N' for name in OF_AN_OST) + (
    'stuck=CALL', 'unmount', 'clear')

# Mounting waits under these, as for an MGS or an MDT that does not answer.
UNREACHABLE = ('hang', 'mgs-down')

_FIFREEZE, _FITHAW = 0xc0045877, 0xc0045878
_BALLAST = '.lustre-sandbox-ballast'


def switch(fs, fault):
    """Switch one fault on, or do what its name says."""
    if fault == 'unmount':
        mounts.unmount_all(mounts.of(fs.name))
    elif fault == 'clear':
        clear(fs)
    else:
        _check(fs, fault)
        if fault not in fs.faults:
            _switch_on(fs, fault)


def _check(fs, fault):
    name, separator, index = fault.partition('=')
    if name == 'stuck':
        return _check_call(index)
    if name not in (OF_AN_OST if separator else LASTING):
        raise state.SandboxError('unknown fault %r: one of %s' % (
            fault, ' '.join(ALL)))
    if separator and not (index.isdecimal() and int(index) < fs.osts):
        raise state.SandboxError('%s has OSTs 0 to %d' % (
            fs.name, fs.osts - 1))
    if 'full' in fault and 'hang' in fs.faults:
        raise state.SandboxError('%s hangs and can take no ballast: '
                                 'clear that first' % fs.name)


def _check_call(call):
    if call not in stuck.CALLS:
        raise state.SandboxError('stuck=%s: one of %s' % (
            call, ' '.join(stuck.CALLS)))


def _switch_on(fs, fault):
    fs.faults.append(fault)
    state.save(fs)
    if fault == 'hang':
        # The freeze is for those who have files open already.
        hang.start(fs)
        _freeze(fs, _FIFREEZE)
    elif fault.startswith('stuck=') and fault != 'stuck=mount':
        stuck.start(fs)
    elif fault == 'missing':
        mounts.unmount_all(mounts.of(fs.name))
    elif fault == 'full' or fault.startswith('ost-full'):
        _inside(fs, lambda root: _fill(fs, root, fault))


def clear(fs):
    """Heal everything. Shares that were unmounted stay so."""
    _let_go(fs)
    hang.stop(fs)
    if 'hang' in fs.faults:
        _freeze(fs, _FITHAW)
    if any('full' in fault for fault in fs.faults):
        _inside(fs, _empty)
    fs.faults = []
    state.save(fs)


def _let_go(fs):
    """Let stuck calls go on before their file system is taken off."""
    held = [fault for fault in fs.faults if fault.startswith('stuck=')]
    if held:
        fs.faults = [fault for fault in fs.faults if fault not in held]
        state.save(fs)


def _inside(fs, work):
    mounts.privately(loops.device(fs), fs.fstype, work)


def _freeze(fs, request):
    def work(root):
        directory = os.open(root, os.O_RDONLY)
        try:
            # Frozen already, or not frozen: someone was killed before.
            with contextlib.suppress(OSError):
                fcntl.ioctl(directory, request, 0)
        finally:
            os.close(directory)
    _inside(fs, work)


def _fill(fs, root, fault):
    """Put ballast on one OST, or on the whole file system."""
    path = os.path.join(root, '%s-%s' % (_BALLAST, fault))
    ballast = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if fault == 'full':
            _fill_to_the_brim(ballast)
        else:
            _fill_ost(fs, root, fault, ballast)
    finally:
        os.close(ballast)


def _fill_ost(fs, root, fault, ballast):
    before = dataclasses.replace(
        fs, faults=[word for word in fs.faults if word != fault])
    index = int(fault.partition('=')[2])
    room = osts.of_mount(before, root)[1][index].available
    if room:
        os.posix_fallocate(ballast, 0, room << 10)


def _fill_to_the_brim(ballast):
    size, piece = 0, 1 << 40
    while piece >= 4096:
        try:
            os.posix_fallocate(ballast, size, piece)
            size += piece
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EFBIG):
                raise
            piece //= 2


def _empty(root):
    for ballast in glob.glob(os.path.join(root, _BALLAST + '*')):
        # One that was killed while it filled may have it open still.
        os.truncate(ballast, 0)
        os.unlink(ballast)
