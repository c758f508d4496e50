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

"""What is on a disk: how to write it, and a checksum of it.

The checksum is over the 64 KiB blocks that are not all zeros, with their
places. It is the same for a disk and for the same disk made longer, so the
size is always looked at beside it; and what it should be is reckoned from
what was written, never read back from what is under test.
"""

import hashlib
import os
import random

BLOCK = 64 * 1024
GIB = 1024 ** 3
ZEROS = bytes(BLOCK)


class Content:
    """What a disk should hold: the blocks that are not all zeros."""

    def __init__(self, blocks=None):
        self.blocks = dict(blocks or {})

    def copy(self):
        return Content(self.blocks)

    def put(self, offset, data):
        """Note data as written; whole blocks only."""
        assert offset % BLOCK == 0 and len(data) % BLOCK == 0
        for start in range(0, len(data), BLOCK):
            self.blocks[(offset + start) // BLOCK] = data[start:start + BLOCK]

    def checksum(self):
        return _checksum((number, data)
                         for number, data in sorted(self.blocks.items())
                         if data != ZEROS)

    def write_file(self, path, size):
        """Write it all to a sparse raw file."""
        with open(path, 'wb') as target:
            for number, data in self.blocks.items():
                target.seek(number * BLOCK)
                target.write(data)
            target.truncate(size)


def noise(seed, blocks):
    """Reproducible bytes that no compression makes smaller."""
    return random.Random(seed).randbytes(blocks * BLOCK)


def file_checksum(path):
    """The checksum of a raw disk in a file; holes cost nothing."""
    with open(path, 'rb') as source:
        return _checksum(_blocks(source))


def _blocks(source):
    """The blocks of a file that are not all zeros, and their numbers."""
    end = os.fstat(source.fileno()).st_size
    position = 0
    while position < end:
        try:
            position = os.lseek(source.fileno(), position, os.SEEK_DATA)
        except OSError:
            # ENXIO: a hole up to the end.
            return
        position -= position % BLOCK
        data = os.pread(source.fileno(), BLOCK, position)
        if data != ZEROS[:len(data)]:
            yield position // BLOCK, data.ljust(BLOCK, b'\0')
        position += BLOCK


def _checksum(blocks):
    total = hashlib.sha256()
    for number, data in blocks:
        total.update(b'%d:' % number)
        total.update(data)
    return total.hexdigest()
