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

"""What the header of a qcow2 file says, as bytes that are not trusted.

The layout is in docs/interop/qcow2.txt of QEMU. This looks at what was read
already; files are opened elsewhere.
"""

import dataclasses
import struct

from os_brick.i18n import _

# As many bytes as are looked at.
LENGTH = 104

_MAGIC = b'QFI\xfb'
_SHORTEST = 72
# Bit 0 dirty, 1 corrupt, 2 external data file, 3 compression type, 4 extended
# L2 entries.
_KNOWN_FEATURES = 1 << 0 | 1 << 3 | 1 << 4
_LUKS = 2


@dataclasses.dataclass(frozen=True)
class Header:
    """The header of an image.

    :ivar version: of the format, 2 or 3
    :ivar has_backing: whether there is a backing file
    :ivar virtual_size: bytes that a guest sees
    :ivar encryption: 0 for none, 1 for AES, 2 for LUKS
    :ivar snapshots: how many are within the image
    :ivar features: those that a reader has to know (bits)
    """

    version: int
    has_backing: bool
    virtual_size: int
    encryption: int
    snapshots: int
    features: int

    @classmethod
    def parse(cls, start):
        """Take the first bytes of a file apart.

        :raises ValueError: it is no qcow2 image
        """
        if len(start) < _SHORTEST:
            raise ValueError(_("it ends within its header"))
        start = bytes(start[:LENGTH]).ljust(LENGTH, b'\0')
        magic, version, backing = struct.unpack_from('>4sIQ', start)
        if magic != _MAGIC or version not in (2, 3):
            raise ValueError(_("it is no qcow2 image"))
        size, encryption = struct.unpack_from('>QI', start, 24)
        snapshots, = struct.unpack_from('>I', start, 60)
        features, = struct.unpack_from('>Q', start, 72)
        return cls(version, bool(backing), size, encryption, snapshots,
                   features if version == 3 else 0)

    def check_container(self, size):
        """Make sure that this is an encrypted image, and needs no other file.

        :param size: bytes that its disk must have
        :raises ValueError: it is not
        """
        wrong = next((reason for is_so, reason in (
            (self.version != 3, _("its version is not 3")),
            (self.has_backing, _("it has a backing file")),
            (self.features & ~_KNOWN_FEATURES, _(
                "it has its data in another file, is marked as corrupt, or "
                "has unknown features")),
            (self.encryption != _LUKS, _("it is not encrypted with LUKS")),
            (self.snapshots, _("it has internal snapshots")),
            (self.virtual_size != size, _(
                "its disk has %(found)s bytes, and the volume %(size)s") % {
                    'found': self.virtual_size, 'size': size}),
        ) if is_so), None)
        if wrong:
            raise ValueError(wrong)

    def check_plain(self):
        """Make sure that an image has nothing that volumes can't have.

        :raises ValueError: it has
        """
        if self.encryption:
            raise ValueError(_("it is encrypted"))
        if self.snapshots:
            raise ValueError(_("it has internal snapshots"))
