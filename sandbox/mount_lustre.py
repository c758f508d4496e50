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

"""mount.lustre: what mount(8) runs for ``mount -t lustre``.

Takes the same names and options as the real one and fails with the same exit
codes, which are errno values, and the same words. Where the real one waits
for an MGS that does not answer, so does this one, and gives up after as long.
"""

import errno
import getopt
import os
import pkgutil
import re
import sys
import time

from sandbox import faults
from sandbox import loops
from sandbox import mounts
from sandbox import names
from sandbox import state
from sandbox import stuck

VERSION = '2.17.57_62_gc881f8e'
PROGRAM = 'mount.lustre'
EX_FAIL = 32         # mount(8)'s code for a failed mount
# Seconds after which a real client gave up; $LUSTRE_SANDBOX_MGS_TIMEOUT
# shortens it for tests.
MGS_TIMEOUT = 163

# Options that become flags of the mount.
FLAGS = {
    'ro': mounts.MS_RDONLY, 'nosuid': mounts.MS_NOSUID,
    'nodev': mounts.MS_NODEV, 'noexec': mounts.MS_NOEXEC,
    'noatime': mounts.MS_NOATIME, 'nodiratime': mounts.MS_NODIRATIME,
    'relatime': mounts.MS_RELATIME, 'strictatime': mounts.MS_STRICTATIME,
}
# Options that a loop file system has no use for: accepted, without effect.
IGNORED = re.compile(
    r'rw|suid|dev|exec|a?sync|dirsync|atime|diratime|norelatime|'
    r'nostrictatime|remount|defaults|(no)?auto|(no)?users?|owner|group|'
    r'_netdev|loud|silent|(comment|x-[\w.-]+)(=.*)?|retry=\d+|force|'
    r'(no|local)?flock|(no)?user_xattr|(no)?acl|(no)?checksum|(no)?lruresize|'
    r'(no)?lazystatfs|(no)?verbose|(no)?user_fid2path|(no)?statfs_project|'
    r'(no)?sync_on_close|(no)?encrypt|(no)?always_ping|32bitapi|'
    r'test_dummy_encryption(=\w+)?|exclude=.+|mgsname=.+|network=.+|'
    r'skpath=.+|mgssec=.+|(fs|def|root)?context=.+')

ADVICE = {
    errno.ENOENT: 'Is the MGS specification correct?\n'
                  'Is the filesystem name correct?\n'
                  'If upgrading, is the copied client log valid? '
                  '(see upgrade docs)\n',
    errno.EINVAL: 'This may have multiple causes.\n'
                  '{question}'
                  'Are the mount options correct?\n'
                  'Check the syslog for more info.\n',
}


class Refused(Exception):
    """The words for standard error, and the exit code."""

    def __init__(self, words, code):
        super().__init__(words)
        self.words, self.code = words, code


def main(arguments=None):
    try:
        return _main(sys.argv[1:] if arguments is None else arguments)
    except Refused as refused:
        sys.stderr.write(refused.words)
        return refused.code
    except state.SandboxError as error:
        # Nothing that Lustre knows: the sandbox itself is at fault.
        sys.stderr.write('%s: sandbox: %s\n' % (PROGRAM, error))
        return EX_FAIL


def _main(arguments):
    try:
        switches, words = getopt.gnu_getopt(
            arguments, 'fhno:svV', ['fake', 'force', 'help', 'nomtab',
                                    'options=', 'verbose', 'version'])
    except getopt.GetoptError as error:
        raise Refused('%s: %s\n%s' % (PROGRAM, error, usage()), errno.EINVAL)
    given = [name for name, _ in switches]
    if '-V' in given or '--version' in given:
        print('%s %s (libmount)' % (PROGRAM, VERSION))
        return 0
    if '-h' in given or '--help' in given:
        print(usage(), end='')
        return 0
    if len(words) != 2:
        raise Refused(usage(), errno.EINVAL)
    options = ','.join(value for name, value in switches
                       if name in ('-o', '--options')).split(',')
    fake = '-f' in given or '--fake' in given
    return _mount(words[0], words[1], [word for word in options if word],
                  fake)


def usage():
    text = pkgutil.get_data('sandbox', 'usage/mount.lustre.txt')
    return '\n' + text.decode()


def _mount(source, directory, options, fake):
    share = names.parse(source)
    if share:
        _check_nids(share)
    if share and 'force' not in options:
        # Before the mount point is touched: it may be that of a dead share.
        _check_not_mounted(share, os.path.abspath(directory))
    target = _resolve(directory)
    if not share:
        raise Refused(
            '%s: %s has not been formatted with mkfs.lustre or the backend '
            'filesystem type is not supported by this tool\n' % (
                PROGRAM, source), errno.ENODEV)
    if 'force' not in options:
        _check_not_mounted(share, target)
    if fake:
        return 0
    try:
        _mount_share(share, target, options)
    except OSError as error:
        raise _failed(share, target, error.errno)
    return 0


def _resolve(directory):
    try:
        return os.path.realpath(directory, strict=True)
    except OSError as error:
        raise Refused('warning: %s: cannot resolve: %s\n' % (
            directory, error.strerror), error.errno)


def _check_nids(share):
    known = _known_nids()
    for nid in share.nids:
        try:
            names.check(nid, known)
        except names.BadNID:
            raise Refused(
                "%s: Unsupported NID '%s': rc = Unknown error -22.\n"
                "%s: Can't parse NID '%s'\n%s" % (
                    PROGRAM, nid, PROGRAM, nid, usage()), errno.EINVAL)


def _check_not_mounted(share, target):
    mounted = mounts.at(target)
    if (mounted and mounted.fstype in mounts.TYPES
            and names.parse(mounted.source)):
        raise Refused('%s: according to /etc/mtab %s is already mounted on '
                      '%s\n' % (PROGRAM, share.source, target), errno.EEXIST)


def _failed(share, target, code):
    question = ("Is '%s' the correct filesystem name?\n" % share.fsname
                if share.fsname else '')
    return Refused('%s: mount %s at %s failed: %s\n%s' % (
        PROGRAM, share.source, target, os.strerror(code),
        ADVICE.get(code, '').format(question=question)), code)


def _mount_share(share, target, options):
    """What the kernel does on a real client; fails with OSError."""
    if os.geteuid():
        raise _error(errno.EPERM)
    if not os.path.isdir(target):
        raise _error(errno.ENOTDIR)
    flags = _flags(options)
    if not share.fsname or not share.nids:
        raise _error(errno.EINVAL)
    fs = _ask_mgs(share)
    with state.locked(fs.directory):
        # Someone may have been faster while we waited.
        _check_not_mounted(share, target)
        mounts.attach(loops.device(fs), fs.fstype, _shown(share), target,
                      flags)


def _shown(share):
    return names.parse(names.shown(share.source))


def _flags(options):
    flags = 0
    for option in options:
        if not (option in FLAGS or IGNORED.fullmatch(option)):
            raise _error(errno.EINVAL)
        flags |= FLAGS.get(option, 0)
    return flags


def _ask_mgs(share):
    """Find the file system; wait for an MGS that does not answer."""
    own = set().union(*map(names.spellings, share.nids))
    if not {_net(nid) for nid in own} & _configured_networks():
        raise _error(errno.EINVAL)
    deadline = time.monotonic() + float(
        os.environ.get('LUSTRE_SANDBOX_MGS_TIMEOUT') or MGS_TIMEOUT)
    while not _answers(share.fsname, own):
        if time.monotonic() > deadline:
            raise _error(errno.ETIMEDOUT)
        time.sleep(0.1)
    fs = state.load(share.fsname)
    if not fs or not own & _nids(fs) or 'missing' in fs.faults:
        raise _error(errno.ENOENT)
    if stuck.is_stuck(fs, 'mount'):
        stuck.wait_to_mount(fs)
    return fs


def _answers(fsname, nids):
    """Whether one of the NIDs is that of an MGS that is up.

    A fault makes the MGS unreachable for its own file system only: the other
    file systems on the same address must not suffer.
    """
    fs = state.load(fsname)
    if fs and nids & _nids(fs):
        return not set(fs.faults) & set(faults.UNREACHABLE)
    return bool(nids & _known_nids())


def _nids(fs):
    return set().union(*(_written(nid) for nid in fs.mgs))


def _written(nid):
    """A NID of our own, in the form names.spellings() gives."""
    return {'%s@%s' % (nid.partition('@')[0], names.network(nid))}


def _known_nids():
    return set().union(*map(_nids, state.load_everything()))


def _net(nid):
    return nid.partition('@')[2]


def _configured_networks():
    return {'tcp'} | {_net(nid) for nid in _known_nids()}


def _error(code):
    return OSError(code, os.strerror(code))


if __name__ == '__main__':
    sys.exit(main())
