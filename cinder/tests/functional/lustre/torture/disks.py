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

"""What virtual disks should hold: the model beside the real ones."""

import dataclasses
import os

BLOCK = 4096

_ZEROS = bytes(BLOCK)


@dataclasses.dataclass
class Disk:
    """The bytes of a disk.

    :ivar size: bytes
    :ivar blocks: {number: content} of all blocks that are not zeros
    """

    size: int
    blocks: dict = dataclasses.field(default_factory=dict)

    @classmethod
    def in_extents(cls, size, extents):
        """Read a disk from files.

        :param extents: where it has data: (path, offset in the file, offset
            on the disk, length), all multiples of blocks
        """
        disk = cls(size)
        for path, offset, start, length in extents:
            with open(path, 'rb') as file:
                for position in _data_blocks(file.fileno(), offset, length):
                    disk._put((start + position - offset) // BLOCK,
                              os.pread(file.fileno(), BLOCK, position))
        return disk

    def copy(self, size=None):
        """Return another disk, as large or larger, with the same content."""
        return Disk(size or self.size, dict(self.blocks))

    def write(self, offset, content):
        """Write bytes to an offset."""
        assert offset + len(content) <= self.size
        done = 0
        while done < len(content):
            number, start = divmod(offset + done, BLOCK)
            piece = content[done:done + BLOCK - start]
            old = self.blocks.get(number, _ZEROS)
            self._put(number, old[:start] + piece + old[start + len(piece):])
            done += len(piece)

    def difference(self, found):
        """Say where another disk is different; '' if it is the same."""
        if found == self:
            return ''
        if found.size != self.size:
            return '%d bytes instead of %d' % (found.size, self.size)
        numbers = sorted(
            number for number in {*self.blocks, *found.blocks}
            if self.blocks.get(number) != found.blocks.get(number))
        first = numbers[0]
        return '%d blocks differ, from %#x: %s instead of %s' % (
            len(numbers), first * BLOCK, _summary(found.blocks.get(first)),
            _summary(self.blocks.get(first)))

    def _put(self, number, content):
        if content == _ZEROS:
            self.blocks.pop(number, None)
        else:
            self.blocks[number] = content


def _data_blocks(fd, offset, length):
    """Name the offsets of all blocks of an extent that are not in holes."""
    end = offset + length
    while offset < end:
        try:
            offset = max(offset, os.lseek(fd, offset, os.SEEK_DATA))
        except OSError:
            return
        offset -= offset % BLOCK
        hole = os.lseek(fd, offset, os.SEEK_HOLE)
        yield from range(offset, min(hole, end), BLOCK)
        offset = hole


def _summary(content):
    if content is None:
        return 'zeros'
    return '%s...' % sorted(set(content))[:4]
