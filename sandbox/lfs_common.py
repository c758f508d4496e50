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

"""What the commands of lfs have in common: options, shares, failures."""

import errno
import getopt
import hashlib
import os

from sandbox import mounts
from sandbox import names
from sandbox import state

CMD_HELP = 4         # lfs's exit code for a misused command


class Failed(Exception):
    """Words for standard error, and the exit code."""

    def __init__(self, words, code):
        super().__init__(words)
        self.words, self.code = words, code


class Misused(Failed):
    """An unknown option: lfs says so, then prints the command's usage."""

    def __init__(self, words):
        super().__init__(words, CMD_HELP)


class Share:
    """A mount of a file system of the sandbox."""

    def __init__(self, fs, mount):
        self.fs, self.target = fs, mount.target
        # A real client has such an identity for each mount.
        identity = '%s %d' % (fs.name, mount.number)
        digest = hashlib.sha256(identity.encode()).hexdigest()
        self.instance = 'ff11000' + digest[:9]


def options(arguments, short, *long):
    """The switches given, as a dictionary, and the other words."""
    try:
        switches, words = getopt.gnu_getopt(arguments, short, long)
    except getopt.GetoptError as error:
        if len(error.opt) > 1:
            raise Misused("lfs: unrecognized option '--%s'" % error.opt)
        raise Misused("lfs: invalid option -- '%s'" % error.opt)
    return dict(switches), words


# Finding the share

def shares(words, command):
    """The share that a path is on; all of them without a path."""
    return [share_of(words[0], command)] if words else all_shares()


def all_shares():
    found = (_share(mount) for mount in _topmost())
    return [share for share in found if share and state.is_mine(share.fs)]


def _topmost():
    """The mounts that are not covered by another one."""
    return {mount.target: mount for mount in mounts.table()}.values()


def _share(mount):
    share = names.parse(mount.source)
    if mount.fstype not in mounts.TYPES or not share:
        return None
    fs = state.load(share.fsname)
    return Share(fs, mount) if fs else None


def share_of(path, command):
    # Hangs when the share does, as the real one.
    path = os.path.realpath(path)
    above = [mount for mount in _topmost() if _is_below(path, mount.target)]
    share = _share(max(above, key=lambda mount: len(mount.target)))
    if not share:
        raise Failed(_not_lustre(path, command), errno.ENOENT)
    return share


def _is_below(path, top):
    return path == top or path.startswith(top.rstrip('/') + '/')


def _not_lustre(path, command):
    device = os.stat(path if os.path.exists(path)
                     else os.path.dirname(path)).st_dev
    return ("lfs {0}: '{1}/{2}' dev not on a mounted Lustre filesystem\n"
            "lfs {0}: '{3}' is not on a Lustre filesystem: No such device "
            "(19)".format(command, os.major(device), os.minor(device), path))
