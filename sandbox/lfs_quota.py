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

"""lfs project, quota and setquota: what is of which project, and how much.

A project is noted beside a file, as its layout is. A file that was made
without lfs is of its directory's project if that is inherited (P). Limits of
projects are kept with the file system's state, and keep nobody from writing.
Only root may set a project or a limit.
"""

import errno
import json
import os
import re

from sandbox import layouts
from sandbox import lfs_common
from sandbox import state

PROJECT = 'user.lustre-sandbox.project'

# Options of lfs setquota, in the order of the columns of lfs quota.
_LIMITS = ('-b', '-B', '-i', '-I')
_UNITS = {'': 1, 'K': 1, 'M': 1 << 10, 'G': 1 << 20, 'T': 1 << 30}

_TABLE = ('     Filesystem  kbytes  bquota  blimit  bgrace   files  iquota  '
          'ilimit  igrace ')


def project(arguments):
    switches, words = lfs_common.options(arguments, 'p:srdC')
    for path in words:
        if '-p' in switches:
            _set(path, int(switches['-p']), '-s' in switches,
                 '-r' in switches)
        elif os.path.isdir(path) and '-d' not in switches:
            for name in sorted(os.listdir(path)):
                _print(os.path.join(path, name))
        else:
            _print(path)


def _set(path, number, inherited, recursive):
    lfs_common.share_of(os.path.realpath(path), 'project')
    if os.geteuid():
        raise lfs_common.Failed("lfs: failed to set xattr for '%s': Operation "
                                "not permitted" % path, errno.EPERM)
    found = [path]
    if recursive:
        found += [os.path.join(directory, name)
                  for directory, names, files in os.walk(path)
                  for name in names + files]
    for each in found:
        flag = inherited and os.path.isdir(each)
        os.setxattr(each, PROJECT, json.dumps(
            [os.stat(each).st_ino, number, flag]).encode())


def _print(path):
    top = lfs_common.share_of(os.path.realpath(path), 'project').target
    number, inherited = of_file(os.path.realpath(path), top)
    flag = 'P' if inherited and os.path.isdir(path) else '-'
    print(' %4d %s %s' % (number, flag, path))


def of_file(path, top):
    """The project of a file, and whether it is inherited from there."""
    own = layouts.note(path, PROJECT)
    if own:
        return own
    while path not in (top, '/'):
        path = os.path.dirname(path)
        above = layouts.note(path, PROJECT)
        if above:
            return above if above[1] else (0, False)
    return 0, False


def quota(arguments):
    switches, words = lfs_common.options(arguments, 'p:q')
    number = _project('quota', switches)
    share = lfs_common.shares(words, 'quota')[0]
    kilobytes, files = _used(share.target, number)
    limits = state.limits(share.fs).get(str(number), [0, 0, 0, 0])
    if '-q' not in switches:
        print('Disk quotas for prj <unknown> (pid %d):' % number)
        print(_TABLE)
    print('    %s %s %7d %7d %7s %s %7d %7d %7s ' % (
        words[0], _starred(kilobytes, limits[:2]), *limits[:2], '-',
        _starred(files, limits[2:]), *limits[2:], '-'))


def setquota(arguments):
    switches, words = lfs_common.options(arguments, 'p:b:B:i:I:', 'delete')
    number = str(_project('setquota', switches))
    share = lfs_common.shares(words, 'setquota')[0]
    if os.geteuid():
        raise lfs_common.Failed(
            'lfs setquota: quotactl failed: Operation not permitted\n'
            'setquota failed: Operation not permitted', errno.EPERM)
    with state.locked(share.fs.directory):
        limits = state.limits(share.fs)
        new = [_limit(switches.get(option), old) for option, old in zip(
            _LIMITS, limits.pop(number, [0, 0, 0, 0]))]
        if any(new) and '--delete' not in switches:
            limits[number] = new
        state.save_limits(share.fs, limits)


def _limit(text, old):
    """A limit that was given, in KiB or files, or else the old one."""
    if text is None:
        return old
    match = re.fullmatch('([0-9]+)([KMGT]?)', text.upper())
    if not match:
        raise lfs_common.Failed("lfs setquota: invalid limit '%s'" % text,
                                lfs_common.CMD_HELP)
    return int(match[1]) * _UNITS[match[2]]


def _starred(used, limits):
    beyond = any(limit and used > limit for limit in limits)
    return '%7d%s' % (used, '*' if beyond else '')


def _project(command, switches):
    if '-p' not in switches:
        raise lfs_common.Failed('lfs %s: not imitated by the sandbox'
                                % command, errno.EOPNOTSUPP)
    if not switches['-p'].isdecimal():
        raise lfs_common.Failed("lfs %s: invalid id '%s'"
                                % (command, switches['-p']),
                                lfs_common.CMD_HELP)
    return int(switches['-p'])


def _used(top, number):
    """What a project has of a mount: KiB and files."""
    statuses = [
        os.lstat(os.path.join(directory, name))
        for directory, names, found in os.walk(top) for name in names + found
        if of_file(os.path.join(directory, name), top)[0] == number]
    return sum(status.st_blocks for status in statuses) // 2, len(statuses)
