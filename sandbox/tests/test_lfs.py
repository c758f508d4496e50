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

"""The tables of lfs df, to the last blank."""

import contextlib
import io
import types
import unittest

from sandbox import lfs
from sandbox import osts
from sandbox import state
from sandbox.tests import test_transcripts


def numbers(**given):
    return types.SimpleNamespace(**dict(
        dict(f_frsize=4096, f_blocks=5765420, f_bavail=5764028,
             f_files=1258296, f_ffree=1258012), **given))


def recorded(command):
    return {entry[0]: entry[1] for entry
            in test_transcripts.entries('lfs')}[command]


class TableTestCase(unittest.TestCase):
    """Fed with the recorder's numbers, the rows come out as recorded."""

    RECORDED = {None: ((1738616, 1760), (5765420, 1392)),
                '-i': ((1258296, 284), (393216, 303))}

    def table(self, unit, human):
        row = lfs._Row(unit, human, '/mnt/lustre')
        mdt, ost = self.RECORDED[unit]
        targets = [osts.Target('MDT', 0, 'lustre', *mdt, *mdt)]
        targets += [osts.Target('OST', index, 'lustre', *ost, *ost)
                    for index in range(4)]
        return [row.of(target) for target in targets] + [
            row.summary(targets[0], targets[1:])]

    def assertAsRecorded(self, command, unit, human=False):
        # The recorder's servers hold some space back, ours do not: so what
        # is available is left out, but not its width.
        lines = [line for line in recorded(command).splitlines()[1:] if line]
        if unit == '-i':
            self.assertEqual(lines, self.table(unit, human))
        else:
            columns = [line.split() for line in lines]
            ours = [line.split() for line in self.table(unit, human)]
            for theirs, mine in zip(columns, ours):
                self.assertEqual(theirs[:3] + theirs[4:], mine[:3] + mine[4:])
            self.assertEqual([len(line) for line in lines],
                             [len(line) for line in self.table(unit, human)])

    def test_kilobytes(self):
        self.assertAsRecorded('lfs df /mnt/lustre', None)

    def test_inodes(self):
        self.assertAsRecorded('lfs df -i /mnt/lustre', '-i')

    def test_human(self):
        self.assertAsRecorded('lfs df -h /mnt/lustre/cinder', None, True)


class OSTsTestCase(unittest.TestCase):

    def fs(self, *faults):
        return state.FileSystem('lustre', [], 'xfs', 1 << 30, 3,
                                faults=list(faults))

    def test_the_sums_are_what_statvfs_says(self):
        given = numbers(f_blocks=1000003, f_bavail=777777)
        for faults in (), ('ost-full=1',):
            found = osts.osts(self.fs(*faults), given)
            # With 600,001 blocks free the other two could not hold it.
            self.assertEqual(4 * 1000003, sum(ost.total for ost in found))
        found = osts.osts(self.fs(), given)
        self.assertEqual(4 * 777777, sum(ost.available for ost in found))

    def test_a_full_ost(self):
        given = numbers(f_blocks=900, f_bavail=500)
        found = osts.osts(self.fs('ost-full=1'), given)
        self.assertEqual([1000, 0, 1000], [ost.available for ost in found])

    def test_names(self):
        ost = osts.osts(self.fs(), numbers())[2]
        self.assertEqual('lustre-OST0002_UUID', ost.uuid)


class MisuseTestCase(unittest.TestCase):

    def run_lfs(self, *arguments):
        with contextlib.redirect_stdout(io.StringIO()), \
                contextlib.redirect_stderr(io.StringIO()):
            return lfs.main(list(arguments))

    def test_not_imitated(self):
        self.assertEqual(95, self.run_lfs('fid2path'))

    def test_unknown_option(self):
        self.assertEqual(4, self.run_lfs('df', '--nosuch'))
