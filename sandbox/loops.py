# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Image files and the loop devices over them.

Which device is over an image is never recorded but read from /sys, so that a
reboot or a killed run leaves no wrong record.
"""

import glob
import os
import subprocess

from sandbox import state

MKFS = {
    # Lustre has no reflink, so the stand-in must not have it either.
    'xfs': ['mkfs.xfs', '-q', '-f', '-m', 'reflink=0'],
    # Lustre on ldiskfs holds 5% back; here all that is free is available.
    'ext4': ['mkfs.ext4', '-q', '-F', '-m', '0'],
}
# mount(8) may run its helper with hardly any environment.
_PATH = '/usr/sbin:/usr/bin:/sbin:/bin'
# mkfs.xfs refuses anything smaller.
SMALLEST = {'xfs': 300 << 20, 'ext4': 16 << 20}


def run(*command):
    """Run a command; what it says on failure becomes the error."""
    try:
        done = subprocess.run(command, text=True, capture_output=True,
                              env=dict(os.environ, PATH=_PATH))
    except FileNotFoundError:
        raise state.SandboxError('%s is not installed' % command[0])
    if done.returncode:
        raise state.SandboxError('%s failed: %s' % (
            ' '.join(command), done.stderr.strip() or done.returncode))
    return done.stdout.strip()


def make_image(fs):
    """Make the image file, sparse, with an empty file system in it."""
    if fs.size < SMALLEST[fs.fstype]:
        raise state.SandboxError(
            '%d OSTs of %d MiB are too small for %s, which needs %d MiB' % (
                fs.osts, fs.ost_size >> 20, fs.fstype,
                SMALLEST[fs.fstype] >> 20))
    with open(fs.image, 'wb', opener=_private) as image:
        image.truncate(fs.size)
    run(*MKFS[fs.fstype], fs.image)


def _private(path, flags):
    return os.open(path, flags, 0o600)


def device(fs):
    """The loop device over the image, attached if it was not."""
    found = devices_below(fs.image)
    return found[0] if found else run('losetup', '--find', '--show', fs.image)


def devices_below(path):
    """The loop devices over a file or over any file below a directory."""
    found = []
    for backing in glob.glob('/sys/block/loop*/loop/backing_file'):
        if _is_below(_backing_file(backing), os.path.realpath(path)):
            found.append('/dev/' + backing.split('/')[3])
    return found


def _backing_file(attribute):
    try:
        with open(attribute) as backing:
            return backing.read().rstrip('\n').removesuffix(' (deleted)')
    except OSError:    # detached meanwhile
        return ''


def _is_below(path, top):
    return path == top or path.startswith(top + '/')


def detach(device):
    """Detach now, or, if someone still has a file open there, at the end."""
    run('losetup', '--detach', device)


def number(device):
    """The device's number in mountinfo's form."""
    rdev = os.stat(device).st_rdev
    return '%d:%d' % (os.major(rdev), os.minor(rdev))
