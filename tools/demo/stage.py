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

"""What the steps of the demo share: volumes whose content is known."""

import os
import textwrap

from tools.demo import cloud
from tools.demo import config
from tools.demo import content
from tools.demo import host

MIB = 1024 ** 2
GIB = content.GIB
BACKEND = '%s@%s' % (config.HOST, config.BACKEND)

# name of the type: (thin or thick, the file's format)
TYPES = {'thin-raw': ('thin', 'raw'), 'thick-raw': ('thick', 'raw'),
         'thin-qcow2': ('thin', 'qcow2'), 'thick-qcow2': ('thick', 'qcow2')}
ENCRYPTED = 'encrypted'
# The format of the files of volumes without snapshots, where the type decides.
FORMATS = {ENCRYPTED: 'qcow2', **{name: disk_format for name, (
    _, disk_format) in TYPES.items()}}


class Missing(Exception):
    """What this step works on was not made, because another step failed."""


class NotHere(Exception):
    """A step that is not meant for these shares."""


class Step:
    """A step; without an essential one, none of the others makes sense."""

    def __init__(self, title, function, arguments, essential):
        self.title = title
        self.function = function
        self.arguments = arguments
        self.essential = essential

    def run(self, demo):
        return self.function(demo, *self.arguments)


def adder(steps):
    """A decorator that adds a function to this list of steps.

    With arguments for the function, that is one step of several.
    """
    def step(title, *arguments, essential=False):
        def add(function):
            steps.append(Step(title, function, arguments, essential))
            return function
        return add
    return step


def expect(wanted, found, what):
    if wanted != found:
        raise cloud.Unexpected('%s: wanted %s, found %s' % (what, wanted,
                                                            found))


class Volume:
    """A volume, and what should be on it."""

    def __init__(self, volume, disk_content, size, disk_format):
        self.api = volume
        self.content = disk_content
        self.size = size
        self.format = disk_format

    @property
    def id(self):
        return self.api.id


class Demo:
    """What the steps share."""

    def __init__(self, stack, shares, on_wait):
        self.stack = stack
        self.shares = shares
        self.api = cloud.Cloud(stack, on_wait)
        self.host = host.Host(stack.layout, stack.user)
        self.pools = []
        self._things = {}
        self._seed = 0

    # Things that one step makes and later ones use.

    def keep(self, name, thing):
        self._things[name] = thing
        return thing

    def need(self, *names):
        missing = [name for name in names if name not in self._things]
        if missing:
            raise Missing('there is no %s' % ', '.join(missing))
        found = [self._things[name] for name in names]
        return found[0] if len(found) == 1 else found

    def take(self, *names):
        """Like need(), for a step that deletes them."""
        found = self.need(*names)
        for name in names:
            del self._things[name]
        return found

    # Volumes with content.

    def create(self, name, type_name, size=1, disk_content=None, **more):
        """Make a volume, and check what it holds from its first moment."""
        made = self.api.create_volume(size, name=name, volume_type=type_name,
                                      **more)
        return self.adopt(name, made, size, disk_content or content.Content())

    def adopt(self, name, made, size, disk_content):
        """Keep a volume that is there, and check what it holds."""
        volume = self.keep(name, Volume(made, disk_content.copy(), size,
                                        FORMATS.get(made.volume_type)))
        self.verify(volume)
        return volume

    def write(self, volume, *places, blocks=16):
        """Write something new at these offsets; later than the checks of it.

        The content that is noted is never that of the volume itself.
        """
        with self.host.attached(self.api, volume) as disk:
            for offset in places:
                self._seed += 1
                data = content.noise(self._seed, blocks)
                disk.write(offset, data)
                volume.content.put(offset, data)
        self.verify(volume)

    def verify(self, volume):
        """Attach a volume, and check its content, size and format."""
        with self.host.attached(self.api, volume) as disk:
            self.verify_disk(volume, disk)

    def verify_disk(self, volume, disk):
        what = 'volume %s' % volume.api.name
        if volume.format and disk.format != volume.format:
            # With snapshots the file that is open is an overlay.
            expect('qcow2', disk.format, what + ': format')
            if not self._has_backing(disk):
                expect(volume.format, disk.format, what + ': format')
        expect(volume.size * GIB, disk.size(), what + ': size of the disk')
        expect(volume.content.checksum(), disk.checksum(),
               what + ': checksum')

    @staticmethod
    def _has_backing(disk):
        info = disk.info()
        if 'backing-filename' not in info:
            return False
        if not info.get('backing-filename-format'):
            raise cloud.Unexpected(
                '%s: the format of its backing file is not recorded, so it '
                'would be guessed' % disk.name)
        return True

    # What lies on the shares.

    def listing(self):
        """The names of all files on the shares for volumes.

        But for the one that each share keeps, whose bytes are locked.
        """
        found = []
        for export in self.exports():
            found += os.listdir(self.host.mounted(export, '-t lustre -o '
                                                          'flock'))
        return sorted(name for name in found if name != '.locks')

    def exports(self):
        return [share.split()[0] for share in self.shares.volumes]

    def files_of(self, *volumes):
        """The files on the shares that bear a volume's name."""
        return [name for name in self.listing()
                if any(volume.id in name for volume in volumes)]

    def expect_no_files_of(self, *volumes):
        expect([], self.files_of(*volumes), 'files left behind')

    def backup_files(self):
        """The paths of all files on the share for backups."""
        path = self.host.mounted(self.shares.backup, '-t lustre -o flock')
        return [os.path.join(directory, name)
                for directory, _, names in os.walk(path) for name in names]


def extra_specs(type_name):
    provisioning, disk_format = TYPES[type_name]
    return {'provisioning:type': provisioning, 'lustre:format': disk_format}


def expect_allocation(demo, disk, provisioning, size):
    """Whether the file takes its space at once, or as it is written."""
    took = disk.allocated()
    if provisioning == 'thin' and took >= size // 4:
        raise cloud.Unexpected('thin, but takes %s' % size_text(took))
    # Zeros that were written may take no space on Lustre on ZFS.
    if provisioning == 'thick' and took < size and not demo.shares.real:
        raise cloud.Unexpected('thick, but takes %s' % size_text(took))


def size_text(size):
    for unit, name in ((GIB, 'GiB'), (MIB, 'MiB'), (1024, 'KiB')):
        if size >= unit:
            return '%.3g %s' % (size / unit, name)
    return '%d bytes' % size


def shorten(text):
    return textwrap.shorten(text, 300, placeholder=' ...')
