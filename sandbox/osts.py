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

"""The one loop file system, seen as one MDT and several OSTs.

What statvfs says is divided evenly, so that the sums are always what df says.
An OST that a fault has filled is full; the others share the rest. The MDT's
numbers are invented: one KiB for each inode.
"""

import dataclasses
import os


@dataclasses.dataclass(frozen=True)
class Target:
    kind: str        # 'MDT' or 'OST'
    index: int
    fsname: str
    total: int       # KiB
    used: int
    files: int
    files_used: int

    @property
    def name(self):
        return '%s-%s%04x' % (self.fsname, self.kind, self.index)

    @property
    def uuid(self):
        return self.name + '_UUID'

    @property
    def available(self):
        return self.total - self.used


def mdt(fs, numbers):
    used = numbers.f_files - numbers.f_ffree
    return Target('MDT', 0, fs.name, numbers.f_files, used,
                  numbers.f_files, used)


def osts(fs, numbers):
    """The OSTs of a file system of which statvfs gave these numbers."""
    total = numbers.f_blocks * numbers.f_frsize // 1024
    used = total - numbers.f_bavail * numbers.f_frsize // 1024
    totals = _divide(total, range(fs.osts))
    full = fs.faulty_osts('ost-full')
    rest = [index for index in totals if index not in full]
    spread = _divide(used - sum(totals[index] for index in full), rest)
    files_used = numbers.f_files - numbers.f_ffree
    return [Target('OST', index, fs.name, totals[index],
                   min(max(spread.get(index, totals[index]), 0),
                       totals[index]),
                   numbers.f_files, files_used)
            for index in totals]


def of_mount(fs, target):
    """MDT and OSTs of a mounted share; hangs as long as the share does."""
    numbers = os.statvfs(target)
    return mdt(fs, numbers), osts(fs, numbers)


def _divide(amount, parts):
    parts = list(parts)
    if not parts:
        return {}
    share, rest = divmod(amount, len(parts))
    return {part: share + (place < rest) for place, part in enumerate(parts)}
