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

"""The grammar of layouts, what is chosen, and what lfs says.

What lfs says is taken from transcripts of a real one.
"""

import os
import types

import ddt
import fixtures
import hypothesis
from hypothesis import strategies
from oslo_utils import units
from oslotest import base

from cinder import exception
from cinder.lustre import layout
from os_brick.remotefs import lustre as lustre_brick
from os_brick.remotefs import lustre_child

KIB, MIB, GIB, TIB = units.Ki, units.Mi, units.Gi, units.Ti

PLAIN = """\
/mnt/lustre/t/pflash
lmm_stripe_count:  2
lmm_stripe_size:   4194304
lmm_pattern:       raid0
lmm_layout_gen:    0
lmm_stripe_offset: 0
lmm_pool:          flash
\tobdidx\t\t objid\t\t objid\t\t group
\t     0\t             3\t          0x3\t   0x240000400
\t     1\t             4\t          0x4\t   0x300000400

"""

COMPOSITE = """\
/mnt/lustre/t/dom
  lcm_layout_gen:    2
  lcm_mirror_count:  1
  lcm_entry_count:   3
    lcme_id:             1
    lcme_mirror_id:      0
    lcme_flags:          init
    lcme_extent.e_start: 0
    lcme_extent.e_end:   1048576
      lmm_stripe_count:  0
      lmm_stripe_size:   1048576
      lmm_pattern:       mdt
      lmm_layout_gen:    0
      lmm_mdt_index:     0

    lcme_id:             2
    lcme_mirror_id:      0
    lcme_flags:          init
    lcme_extent.e_start: 1048576
    lcme_extent.e_end:   67108864
      lmm_stripe_count:  1
      lmm_stripe_size:   4194304
      lmm_pattern:       raid0
      lmm_layout_gen:    0
      lmm_stripe_offset: 2
      lmm_objects:
      -   0: { l_ost_idx:   2, l_fid: [0x280000400:0x18:0x0] }

    lcme_id:             3
    lcme_mirror_id:      0
    lcme_flags:          0
    lcme_extent.e_start: 67108864
    lcme_extent.e_end:   EOF
      lmm_stripe_count:  -1
      lmm_stripe_size:   4194304
      lmm_pattern:       raid0
      lmm_layout_gen:    0
      lmm_stripe_offset: -1
      lmm_pool:          flash

"""

POOL = """\
Pool: lustre.flash
lustre-OST0000_UUID
lustre-OST000a_UUID
"""

POOLS = """\
Pools from lustre:
lustre.cap
lustre.empty
lustre.flash
"""

# With OST 1 down.
DF = """\
UUID                   1K-blocks        Used   Available Use%  Mounted on
lustre-MDT0000_UUID      1738616        3156     1563372   1%  /mnt/l[MDT:0]
lustre-OST0000_UUID      5765420      277896     5156568   6%  /mnt/l[OST:0]
lustre-OST0001_UUID : Transport endpoint is not connected
lustre-OST0002_UUID      5765420      250856     5183608   5%  /mnt/l[OST:2]
lustre-OST0003_UUID      5765420      279760     5154704   6%  /mnt/l[OST:3]

filesystem_summary:     17296260      808512    15494880   5%  /mnt/l

"""


def parsed(text):
    return layout.Layout.parse(text)


@ddt.ddt
class ParseTestCase(base.BaseTestCase):

    @ddt.data(
        ('-c 4', '-c 4'),
        ('-c -1 -S 64k', '-c -1 -S 64K'),
        ('-S 1048576 -p flash', '-S 1M -p flash'),
        ('-C 8', '-C 8'),
        ('--stripe-count=4 --stripe-size 4M --pool=a-b_1',
         '-c 4 -S 4M -p a-b_1'),
        ('  -E 64M -c 1\n-E 1G -c 2 -E -1 -c -1 -S 4M  ',
         '-E 64M -c 1 -E 1G -c 2 -E -1 -c -1 -S 4M'),
        ('-E 1G -c 1 -p flash -E eof -S 4M',
         '-E 1G -c 1 -p flash -E -1 -c 1 -S 4M -p flash'),
        ('-E 1M -L mdt -E EOF -c 2', '-E 1M -L mdt -E -1 -c 2'),
        ('-E 64K -L mdt -E -1', '-E 64K -L mdt -E -1'),
        ('-E -1 -c 4', '-E -1 -c 4'),
        ('-E 1T -L raid0 -E -1 -c 2', '-E 1T -E -1 -c 2'))
    @ddt.unpack
    def test_what_it_means(self, text, options):
        self.assertEqual(options, str(parsed(text)))

    @ddt.data(
        ('', 'empty'),
        ('4', "'4' is none of the options"),
        ('-c', '-c has no value'),
        ('-c 0', 'stripe count'),
        ('-c 3000', 'stripe count'),
        ('-c -2', 'stripe count'),
        ('-c ٣', 'stripe count'),
        ('-c4', 'none of the options'),
        ('-S 100K', 'stripe size'),
        ('-S 32K', 'stripe size'),
        ('-S 4G', 'stripe size'),
        ('-S 1T', 'stripe size'),
        ('-S 0', 'stripe size'),
        ('-S -1', 'stripe size'),
        ('-p lustre.flash', 'OST pool'),
        ('-p poolnametoolongxxxxxxxxxx', 'OST pool'),
        ('-p -c', 'OST pool'),
        ('-p a/b', 'OST pool'),
        ('-c 1 -c 2', 'twice'),
        ('-c 1 -C 2', 'twice'),
        ('-E 1G -c 1', 'end at -1'),
        ('-E 1G -E 1G -E -1', 'grow'),
        ('-E 1G -E 1M -E -1', 'grow'),
        ('-E -1 -E 1G', 'grow'),
        ('-E 100K -c 1 -E -1', 'end of a component'),
        ('-E 9999999P -E -1', 'end of a component'),
        ('-c 1 -E -1', 'follow its -E'),
        ('-E 1M -L mdt', 'end at -1'),
        ('-L mdt', '-L mdt is for the first'),
        ('-E 2G -L mdt -E -1', '-L mdt is for the first'),
        ('-E 1M -c 1 -E 2M -L mdt -E -1', '-L mdt is for the first'),
        ('-E 1M -L mdt -c 1 -E -1', 'no stripes'),
        ('-E 1M -S 1M -L mdt -E -1', 'no stripes'),
        ('-E 1M -L raid5 -E -1', 'pattern'),
        ('-i 3', 'none of the options'),
        ('-o 1,2', 'none of the options'),
        ('-N2', 'none of the options'),
        ('--copy=/etc/passwd', 'none of the options'),
        ('-y /etc/passwd', 'none of the options'),
        ('-c 1; reboot', 'stripe count'),
        ('-c 1 /etc/passwd', 'none of the options'),
        ('-c $(reboot)', 'stripe count'),
        (' '.join('-E %dM' % n for n in range(1, 50)) + ' -E -1',
         'more than 32'))
    @ddt.unpack
    def test_what_is_refused(self, text, reason):
        error = self.assertRaises(layout.InvalidLayout, parsed, text)
        self.assertIn(reason, str(error))
        self.assertIn("'%s'" % text, str(error))

    # The same examples each time, however long they take.
    SETTINGS = hypothesis.settings(deadline=None, derandomize=True)

    OPTIONS = strategies.fixed_dictionaries({}, optional={
        'count': strategies.integers(1, 2000) | strategies.just(-1),
        'size': strategies.integers(1, (4 << 14) - 1).map(
            lambda n: n * 64 * KIB),
        'pool': strategies.from_regex(r'\A[a-z0-9_][a-z0-9_-]{0,14}\Z')})

    @SETTINGS
    @hypothesis.given(strategies.lists(OPTIONS, min_size=1, max_size=32),
                      strategies.sets(strategies.integers(1, 1 << 40),
                                      min_size=32, max_size=32),
                      strategies.booleans())
    def test_what_is_written_reads_the_same(self, options, ends, composite):
        """And any option that is left out is that of the one before."""
        if not composite:
            options = options[:1]
        ends = [end * 64 * KIB for end in sorted(ends)[:len(options) - 1]]
        components, before = [], {}
        for end, given in zip([*ends, -1], options):
            before = {**before, **given}
            pattern = layout.RAID0 if 'count' in before else None
            components.append(layout.Component(end, pattern=pattern,
                                               **before))
        wanted = layout.Layout(tuple(components), composite)
        text = str(wanted)
        hypothesis.assume(text)
        self.assertEqual(wanted, parsed(text))

    @SETTINGS
    @hypothesis.given(strategies.text(max_size=60) | strategies.lists(
        strategies.sampled_from(
            ['-E', '-c', '-C', '-S', '-p', '-L', '-1', '1', '1M', '64K', '4G',
             'mdt', 'raid0', 'EOF', 'flash', '--pool=x', '-', '--', '=', ';',
             '-i', "'"]), max_size=12).map(' '.join))
    def test_nothing_else_gets_through(self, text):
        """Words of options and values that are known, or an error."""
        try:
            words = parsed(text).options
        except layout.InvalidLayout:
            return
        while words:
            option, value = words.pop(0), words.pop(0)
            self.assertIn(option, ('-E', '-c', '-C', '-S', '-p', '-L'))
            self.assertRegex(value, r'\A(-1|[A-Za-z0-9_][A-Za-z0-9_-]*)\Z')


@ddt.ddt
class ChooseTestCase(base.BaseTestCase):

    def choose(self, specs=None, defaults=None, size=GIB):
        chosen = layout.choose(specs or {}, defaults or {}, size, 'a test')
        return chosen and str(chosen)

    def test_nothing(self):
        self.assertIsNone(self.choose())
        self.assertIsNone(self.choose(size=TIB))

    def test_large(self):
        self.assertEqual('-E 1T -c 1 -E 16T -c 8 -E -1 -c 32',
                         self.choose(size=TIB + 1))
        self.assertEqual(
            '-E 1T -c 1 -p cap -E 16T -c 8 -p cap -E -1 -c 32 -p cap',
            self.choose({'pool': 'cap'}, size=20 * TIB))

    def test_no_object_gets_near_its_end(self):
        """Of 16 TiB, even where there are but two OSTs."""
        parts = parsed(layout._FOR_LARGE).components
        for part in parts[:-1]:
            self.assertLess(part.end / min(part.count, 2), 12 * TIB)

    @ddt.data(
        ({'stripe_count': 2}, {}, '-c 2'),
        ({'pool': 'flash'}, {}, '-p flash'),
        ({}, {'stripe_size': MIB}, '-S 1M'),
        ({'stripe_count': 2}, {'stripe_size': MIB}, '-c 2'),
        ({'stripe_count': 2}, {'pool': 'cap'}, '-c 2 -p cap'),
        ({'pool': 'flash'}, {'pool': 'cap', 'stripe_count': 3},
         '-c 3 -p flash'),
        ({'stripe_count': 2}, {'layout': parsed('-E 1G -c 1 -E -1 -c 4')},
         '-c 2'),
        ({'layout': parsed('-E 1G -c 1 -E -1 -c 4')}, {'stripe_count': 2},
         '-E 1G -c 1 -E -1 -c 4'),
        ({'layout': parsed('-E 1M -L mdt -E 1G -p a -E -1 -c 4'),
          'pool': 'b'}, {},
         '-E 1M -L mdt -E 1G -p a -E -1 -c 4 -p a'))
    @ddt.unpack
    def test_type_and_options(self, specs, defaults, expected):
        self.assertEqual(expected, self.choose(specs, defaults))

    def test_contradiction(self):
        self.assertRaises(layout.InvalidLayout, self.choose,
                          {'layout': parsed('-c 1'), 'stripe_count': 2})


class FoundTestCase(base.BaseTestCase):

    def test_plain(self):
        found = layout.Found.parse(PLAIN)
        self.assertEqual([0, 1], found.osts)
        self.assertEqual('-c 2 -S 4M -p flash on OST 0,1', str(found))

    def test_composite(self):
        found = layout.Found.parse(COMPOSITE)
        self.assertEqual([2], found.osts)
        self.assertEqual('to 1M: -L mdt, to 64M: -c 1 -S 4M on OST 2, '
                         'to the end: -c -1 -S 4M -p flash', str(found))


class CreateTestCase(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        directory = self.useFixture(fixtures.TempDir()).path
        self.path = os.path.join(directory, 'volume-1')
        self.log = self.useFixture(fixtures.FakeLogger())
        self.calls = []
        self.avoid = {}
        self.answers = {'setstripe': (0, '', ''),
                        'getstripe': (0, PLAIN, ''),
                        'pool_list': (0, POOL, '')}

    share = lustre_brick.Share.parse('mgs@tcp:/lustre/cinder')
    mode = 0o660
    directory = '/mnt/lustre/cinder'

    def call(self, function, *args):
        if function is not lustre_child.run:
            return function(*args)
        self.calls.append(args)
        if args[1] == 'setstripe':
            # Of some errors it leaves a file, too.
            open(self.path, 'x').close()
        return self.answers[args[1]]

    def create(self, text='-c 2 -p flash', is_first=True):
        layout.create(self, self.path, parsed(text).of('type gold'), is_first)

    def assert_refused(self, reason, *args):
        error = self.assertRaises(layout.LayoutRefused, self.create, *args)
        for words in (reason, 'type gold', 'mgs@tcp:/lustre/cinder',
                      '-p flash'):
            self.assertIn(words, str(error))
        self.assertFalse(os.path.exists(self.path))

    def test_first(self):
        open(self.path, 'x').close()
        self.create()
        self.assertEqual([
            ('lfs', 'pool_list', 'lustre.flash'),
            ('lfs', 'setstripe', '-c', '2', '-p', 'flash', self.path),
            ('lfs', 'getstripe', self.path)], self.calls)
        self.assertEqual(0o660, os.stat(self.path).st_mode & 0o777)
        self.assertIn('-c 2 -S 4M -p flash on OST 0,1', self.log.output)

    def test_others(self):
        self.create(is_first=False)
        self.assertEqual(['setstripe'], [call[1] for call in self.calls])

    def test_no_such_pool(self):
        self.answers['pool_list'] = (
            2, 'Pool: lustre.flash\n', 'lfs pool_list: cannot open /proc/...')
        self.assert_refused("no OST pool 'flash'")

    def test_empty_pool(self):
        self.answers['pool_list'] = (0, 'Pool: lustre.flash\n', '')
        self.assert_refused("or it is empty")

    def test_lfs_fails(self):
        self.answers['setstripe'] = (
            22, '', 'lfs setstripe: setstripe error for x: Invalid argument')
        self.assert_refused('Invalid argument')

    def test_exit_code_0_proves_nothing(self):
        self.answers['getstripe'] = (0, PLAIN.replace('flash', 'cap'), '')
        self.assert_refused('-p cap on OST')

    def test_fewer_stripes(self):
        self.create('-c 5 -p flash')
        self.assertIn('has 2 stripes instead of 5', self.log.output)
        self.assertIn('type gold', self.log.output)

    def test_lfs_is_missing(self):
        place = types.SimpleNamespace(share=self.share, mode=0o660, avoid={},
                                      call=self._call_without_lfs)
        error = self.assertRaises(
            exception.VolumeDriverException, layout.create, place, self.path,
            parsed('-c 2'), True)
        self.assertIn('lfs is not installed',
                      str(error))

    @staticmethod
    def _call_without_lfs(function, *args):
        if function is lustre_child.run:
            args = ('no-such-command',)
        return function(*args)

    def test_members_of_a_pool(self):
        self.assertEqual([0, 10], layout.pool_members(self, 'flash'))

    def test_pools(self):
        self.answers['pool_list'] = (0, POOLS, '')
        self.assertEqual(['cap', 'empty', 'flash'], layout.pool_names(self))
        self.answers['pool_list'] = (2, '', '')
        error = self.assertRaises(exception.VolumeDriverException,
                                  layout.pool_names, self)
        self.assertIn('lfs exits with 2', str(error))

    def test_osts(self):
        self.answers['df'] = (107, DF, '')
        there = 5765420 * KIB
        self.assertEqual({0: (there, 5156568 * KIB), 1: None,
                          2: (there, 5183608 * KIB),
                          3: (there, 5154704 * KIB)}, layout.osts(self))
        self.assertEqual([('lfs', 'df', '--lazy', '/mnt/lustre/cinder')],
                         self.calls)
        self.answers['df'] = (2, '', 'lfs df: no\n')
        error = self.assertRaises(exception.VolumeDriverException,
                                  layout.osts, self)
        self.assertIn('lfs df: no', str(error))

    def test_an_ost_to_avoid(self):
        """The file is made again until it is on none of those."""
        self.avoid = {1: 'does not answer'}
        answers = iter([PLAIN, PLAIN,
                        PLAIN.replace('\t     1\t', '\t     2\t')])
        self.useFixture(fixtures.MockPatchObject(
            layout, 'of_file',
            lambda place, path: layout.Found.parse(next(answers))))
        self.create(is_first=False)
        self.assertEqual(['setstripe'] * 3, [call[1] for call in self.calls])

    def test_no_way_round_an_ost(self):
        self.avoid = {1: 'does not answer', 3: 'is full'}
        self.assert_refused('it would be on lustre-OST0001, which does not '
                            'answer', '-c 2 -p flash', False)
