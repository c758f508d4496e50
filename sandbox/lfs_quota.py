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

"""lfs project and lfs quota: what is of which project, and how much.

A project is noted beside a file, as its layout is. A file that was made
without lfs is of its directory's project if that is inherited (P). Limits are
not imitated. Only root may set a project.
"""

import errno
import json
import os

from sandbox import layouts
from sandbox import lfs_common

PROJECT = 'user.lustre-sandbox.project'

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
    if '-p' not in switches:
        raise lfs_common.Failed('lfs quota: not imitated by the sandbox',
                                errno.EOPNOTSUPP)
    if not switches['-p'].isdecimal():
        raise lfs_common.Failed("lfs quota: invalid id '%s'"
                                % switches['-p'], lfs_common.CMD_HELP)
    number, share = int(switches['-p']), lfs_common.shares(words, 'quota')[0]
    kilobytes, files = _used(share.target, number)
    if '-q' not in switches:
        print('Disk quotas for prj <unknown> (pid %d):' % number)
        print(_TABLE)
    print('    %s %7d %7d %7d %7s %7d %7d %7d %7s ' % (
        words[0], kilobytes, 0, 0, '-', files, 0, 0, '-'))


def _used(top, number):
    """What a project has of a mount: KiB and files."""
    statuses = [
        os.lstat(os.path.join(directory, name))
        for directory, names, found in os.walk(top) for name in names + found
        if of_file(os.path.join(directory, name), top)[0] == number]
    return sum(status.st_blocks for status in statuses) // 2, len(statuses)
