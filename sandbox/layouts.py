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

"""Layouts: which OSTs a file's bytes are on.

The loop file system has but one device, so a layout is what the sandbox says
of a file: it is kept in an extended attribute and goes where the file is
renamed to. It names the inode, so that it is lost where the real one is, in a
copy, whatever attributes that takes along. A file that was made without lfs
has none, and so the default of its directory.
"""

import dataclasses
import json
import os
import stat
import typing

FILE, DIRECTORY = 'user.lustre-sandbox.layout', 'user.lustre-sandbox.default'
NEXT = 'user.lustre-sandbox.next'

UNIT = 64 << 10
STRIPE_SIZE = 4 << 20
LARGEST_STRIPE = 4 << 30
MOST_STRIPES = 2000
LONGEST_POOL_NAME = 15
TO_THE_END = -1
RAID0, OVERSTRIPED, MDT = 'raid0', 'raid0,overstriped', 'mdt'


@dataclasses.dataclass
class Component:
    """A part of a file.

    :ivar end: its first byte beyond, or TO_THE_END
    :ivar count: of stripes; -1 for all OSTs, 0 for none (on the MDT)
    :ivar size: of a stripe, in bytes
    :ivar pool: name of an OST pool, or None
    :ivar pattern: raid0, with more stripes than OSTs or not, or mdt
    :ivar osts: the indices of its objects' OSTs, once it has objects
    """

    end: int = TO_THE_END
    count: int = 1
    size: int = STRIPE_SIZE
    pool: typing.Optional[str] = None
    pattern: str = RAID0
    osts: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Layout:
    """A layout of one part, or of several (composite)."""

    components: list
    composite: bool = False
    # Of a directory of which nothing was set.
    unset: bool = False

    def starts(self):
        return [0] + [component.end for component in self.components[:-1]]


class NoSpace(Exception):
    """All OSTs that a file could be on are full."""


def of_file(fs, path, top):
    """The layout of a file, with the objects that it has by now."""
    own = _read(path, FILE)
    status = os.stat(path)
    if own is None:
        own = default(os.path.dirname(path), top)
        own.unset = False
        allocate(fs, own, None, status.st_ino)
    for component, start in list(zip(own.components, own.starts()))[1:]:
        if start >= status.st_size:
            component.osts = []
    return own


def default(directory, top):
    """The layout of what is made in a directory of a mount."""
    while True:
        layout = _read(directory, DIRECTORY)
        if layout is not None:
            return layout
        if directory in (top, '/'):
            return Layout([Component()], unset=True)
        directory = os.path.dirname(directory)


def write(path, layout):
    status = os.stat(path)
    attribute = DIRECTORY if stat.S_ISDIR(status.st_mode) else FILE
    # Short, so that it has room in the inode and takes no block.
    record = [status.st_ino, layout.composite,
              *map(dataclasses.astuple, layout.components)]
    os.setxattr(path, attribute,
                json.dumps(record, separators=(',', ':')).encode())


def turn(directory):
    """A number for the next file of a directory: OSTs take turns."""
    number = 0
    try:
        number = int(os.getxattr(directory, NEXT))
    except OSError:
        pass
    try:
        os.setxattr(directory, NEXT, b'%d' % (number + 1))
    except OSError:
        # One may make files there, but is not its owner (sticky).
        pass
    return number


def forget(directory):
    if _read(directory, DIRECTORY) is not None:
        os.removexattr(directory, DIRECTORY)


def allocate(fs, layout, osts, seed):
    """Choose the OSTs of all objects that a file may ever have.

    :param osts: those that were asked for, the first of them at least
    :param seed: whose turn it is
    """
    for number, component in enumerate(layout.components):
        if component.pattern == MDT:
            continue
        members = _members(fs, component.pool)
        if not members:
            raise NoSpace
        if osts:
            first = members.index(osts[0]) if osts[0] in members else 0
        else:
            first = seed + number
        count = len(osts) if osts and len(osts) > 1 else component.count
        if count == -1 or (count > len(members)
                           and component.pattern == RAID0):
            count = len(members)
        component.osts = (osts if osts and len(osts) > 1 else
                          [members[(first + place) % len(members)]
                           for place in range(count)])


def _members(fs, pool):
    """The OSTs of a pool, or all: of an empty pool the objects go elsewhere.

    Those that can't take an object are left out.
    """
    everything = range(fs.osts)
    members = fs.pools.get(pool) or everything if pool else everything
    useless = fs.faulty_osts('ost-inactive') | fs.faulty_osts('ost-full')
    return [index for index in members if index not in useless]


def _read(path, attribute):
    found = note(path, attribute)
    if found is None:
        return None
    composite, *parts = found
    return Layout([Component(*part) for part in parts], composite)


def note(path, attribute):
    """What is noted beside a file, if it is about this one."""
    try:
        inode, *found = json.loads(os.getxattr(path, attribute,
                                               follow_symlinks=False))
        return found if inode == os.lstat(path).st_ino else None
    except OSError:
        # None there, or a file system between that knows no attributes.
        return None
