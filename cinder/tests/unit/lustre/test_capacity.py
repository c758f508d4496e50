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

import os
import re
import threading
import time
from unittest import mock

import ddt
import fixtures
import hypothesis
from hypothesis import strategies
from oslo_utils import units
from oslotest import base

from cinder.lustre import capacity
from cinder.lustre import layout
from cinder.tests.unit.lustre import fakes
from cinder.volume import volume_utils
from os_brick.remotefs import lustre as lustre_brick

# The same examples each time, however long they take.
_SETTINGS = hypothesis.settings(deadline=None, derandomize=True)

_DIRECTORIES = strategies.lists(
    strategies.text(strategies.characters(
        exclude_categories=['Cs'], exclude_characters='/'), min_size=1),
    max_size=4).map('/'.join)


def _share(directory='', mgs='mgs@tcp', fsname='lustre'):
    return lustre_brick.Share(mgs, fsname, directory)


@ddt.ddt
class PoolNameTestCase(base.BaseTestCase):

    @ddt.data(('', 'lustre'),
              ('cinder', 'lustre/cinder'),
              ('cinder/a-b_c.d', 'lustre/cinder/a-b_c.d'),
              ('two words', 'lustre/two%20words'),
              ('a@b#c%d', 'lustre/a%40b%23c%25d'),
              ('\u00e4', 'lustre/%C3%A4'))
    @ddt.unpack
    def test_name(self, directory, name):
        self.assertEqual(name, capacity.pool_name(_share(directory)))

    def test_long_names(self):
        names = {capacity.pool_name(_share('x' * 200 + end))
                 for end in ('', 'a', 'b')}
        self.assertEqual(3, len(names))
        for name in names:
            self.assertEqual(100, len(name))
            self.assertTrue(name.startswith('lustre/xxxxxx'))

    @_SETTINGS
    @hypothesis.given(_DIRECTORIES)
    def test_fits_into_a_host(self, directory):
        name = capacity.pool_name(_share(directory))
        self.assertLessEqual(len(name), 100)
        self.assertIsNotNone(re.fullmatch(r'[A-Za-z0-9._/%~-]+', name))
        host = volume_utils.append_host('h' * 100 + '@' + 'b' * 50, name)
        self.assertLessEqual(len(host), 255)
        self.assertEqual(name, volume_utils.extract_host(host, 'pool'))

    @_SETTINGS
    @hypothesis.given(_DIRECTORIES)
    def test_stays_when_the_mgs_list_changes(self, directory):
        self.assertEqual(
            capacity.pool_name(_share(directory)),
            capacity.pool_name(_share(directory, '10.0.0.1,10.0.0.2@o2ib')))

    @_SETTINGS
    @hypothesis.given(_DIRECTORIES, _DIRECTORIES)
    def test_one_for_each_directory(self, one, other):
        shares = {_share(one).path: _share(one),
                  _share(other).path: _share(other)}
        self.assertEqual(len(shares), len({
            capacity.pool_name(share) for share in shares.values()}))

    @_SETTINGS
    @hypothesis.given(_DIRECTORIES)
    def test_no_escaped_name_is_another_directory_s(self, directory):
        name = capacity.pool_name(_share(directory))
        other = _share(name.partition('/')[2])
        self.assertEqual(other.path == _share(directory).path,
                         capacity.pool_name(other) == name)


class SurveyTestCase(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        self.lustre = self.useFixture(fakes.FakeLustre())
        self.client = self.lustre.client()
        self.survey = capacity.Survey(self.client)
        self.shares = {capacity.pool_name(share): share
                       for share in (_share('a'), _share('b'))}
        self.logger = self.useFixture(fixtures.FakeLogger())

    def states(self):
        return [pool['backend_state']
                for pool in self.survey.take(self.shares).values()]

    def test_capacities(self):
        self.lustre.space['mgs@tcp:/lustre/a'] = (1500 * units.Mi,
                                                  1024 * units.Mi)
        pools = {
            'lustre/a': {'total_capacity_gb': 1.46, 'free_capacity_gb': 1,
                         'backend_state': 'up'},
            'lustre/b': {'total_capacity_gb': 100, 'free_capacity_gb': 60,
                         'backend_state': 'up'}}
        self.assertEqual(pools, self.survey.take(self.shares))

    def test_no_room(self):
        self.lustre.space['mgs@tcp:/lustre/a'] = (units.Gi, 0)
        self.assertEqual(0, self.survey.take(self.shares)['lustre/a'][
            'free_capacity_gb'])
        self.assertEqual(['up', 'up'], self.states())

    def test_missing_share(self):
        self.lustre.missing.add('mgs@tcp:/lustre/b')
        self.assertEqual({'total_capacity_gb': 0, 'free_capacity_gb': 0,
                          'backend_state': 'down'},
                         self.survey.take(self.shares)['lustre/b'])
        self.assertEqual(['up', 'down'], self.states())

    def test_each_change_is_logged_once(self):
        self.lustre.missing.add('mgs@tcp:/lustre/b')
        for _n in range(3):
            self.states()
        self.assertEqual(1, self.logger.output.count('lustre/b is down'))
        self.assertIn('No such file or directory', self.logger.output)
        self.lustre.missing.clear()
        for _n in range(3):
            self.states()
        self.assertEqual(1, self.logger.output.count('lustre/b is up again'))
        self.assertNotIn('lustre/a is', self.logger.output)

    def test_someone_else_s_directory(self):
        with mock.patch.object(os, 'access', return_value=False):
            self.assertEqual(['down', 'down'], self.states())
        self.assertIn("can't write", self.logger.output)

    def test_surprises(self):
        with mock.patch.object(lustre_brick.ShareClient, 'check',
                               side_effect=ZeroDivisionError):
            self.assertEqual(['down', 'down'], self.states())
        self.assertIn('ZeroDivisionError', self.logger.output)
        self.assertEqual(['up', 'up'], self.states())

    def test_a_share_that_hangs(self):
        answer, asked = threading.Event(), []
        self.addCleanup(answer.set)
        real_check = self.client.check

        def check(share):
            if share.directory == 'b' and not answer.is_set():
                asked.append(share)
                answer.wait()
            return real_check(share)

        self.useFixture(fixtures.MockPatchObject(self.client, 'check', check))
        self.useFixture(fixtures.MockPatchObject(capacity, '_PATIENCE', 0.3))
        for _n in range(3):
            start = time.monotonic()
            self.assertEqual(['up', 'down'], self.states())
            self.assertLess(time.monotonic() - start, 10)
        # Others are not left waiting beside the first one.
        self.assertEqual(1, len(asked))
        self.assertIn('no answer within', self.logger.output)
        answer.set()
        while self.survey._running['lustre/b'].is_alive():
            time.sleep(0.01)
        self.assertEqual(['up', 'up'], self.states())

    def test_shares_that_hang_are_waited_for_together(self):
        answer = threading.Event()
        self.addCleanup(answer.set)
        self.useFixture(fixtures.MockPatchObject(
            self.client, 'check', lambda share: answer.wait()))
        self.useFixture(fixtures.MockPatchObject(capacity, '_PATIENCE', 1))
        shares = {str(n): _share(str(n)) for n in range(10)}
        start = time.monotonic()
        pools = self.survey.take(shares)
        self.assertLess(time.monotonic() - start, 5)
        self.assertEqual({'down'}, {pool['backend_state']
                                    for pool in pools.values()})


class OSTPoolsTestCase(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        self.lustre = self.useFixture(fakes.FakeLustre())
        self.client = self.lustre.client()
        self.logger = self.useFixture(fixtures.FakeLogger())
        self.members = {'flash': [0, 1], 'cap': [2, 3], 'empty': []}
        gib = units.Gi
        self.osts = {0: (10 * gib, 4 * gib), 1: (10 * gib, 5 * gib),
                     2: (20 * gib, 20 * gib), 3: (20 * gib, 20 * gib)}
        self.calls = []
        self.useFixture(fixtures.MockPatchObject(layout, 'lfs', self.lfs))
        self.shares = {'lustre/a': _share('a')}

    def lfs(self, place, command, *args):
        """Answer in the words of lfs."""
        self.calls.append(command)
        if command == 'df':
            return 0, ''.join(
                'lustre-OST%04x_UUID : Transport endpoint is not connected\n'
                % index if space is None else
                'lustre-OST%04x_UUID %d %d %d 5%%  /mnt/lustre[OST:0]\n' % (
                    index, space[0] >> 10, (space[0] - space[1]) >> 10,
                    space[1] >> 10)
                for index, space in self.osts.items()), ''
        fsname, _dot, pool = args[0].partition('.')
        if not pool:
            return 0, ''.join('%s.%s\n' % (fsname, name)
                              for name in self.members), ''
        if pool not in self.members:
            return 2, 'Pool: %s\n' % args[0], 'lfs pool_list: cannot open'
        return 0, ''.join('lustre-OST%04x_UUID\n' % index
                          for index in self.members[pool]), ''

    def survey(self, *names):
        return capacity.Survey(self.client, list(names))

    @staticmethod
    def numbers(found):
        return {name: (space['total_capacity_gb'], space['free_capacity_gb'],
                       space['backend_state'], space['lustre_pool'])
                for name, space in found.items()}

    def test_named(self):
        self.assertEqual(
            {'lustre/a+flash': (20, 9, 'up', 'flash'),
             'lustre/a+cap': (40, 40, 'up', 'cap')},
            self.numbers(self.survey('flash', 'cap').take(self.shares)))

    def test_all(self):
        self.assertEqual(
            {'lustre/a+flash': (20, 9, 'up', 'flash'),
             'lustre/a+cap': (40, 40, 'up', 'cap'),
             'lustre/a+empty': (0, 0, 'down', 'empty')},
            self.numbers(self.survey('all').take(self.shares)))
        self.assertIn('OST pool empty of file system lustre does not exist, '
                      'or is empty', self.logger.output)

    def test_one_call_for_a_report(self):
        survey = self.survey('flash', 'cap')
        survey.take(self.shares)
        self.calls.clear()
        survey.take(self.shares)
        self.assertEqual(['df'], self.calls)

    def test_members_are_asked_for_again(self):
        survey = self.survey('flash')
        survey.take(self.shares)
        self.members['flash'] = [2]
        with mock.patch.object(capacity, '_MEMBERS_AGE', -1):
            found = self.numbers(survey.take(self.shares))
        self.assertEqual((20, 20, 'up', 'flash'), found['lustre/a+flash'])

    def test_osts_that_fail(self):
        survey = self.survey('flash', 'cap')
        survey.take(self.shares)
        self.osts[1] = None
        del self.osts[2]
        self.osts[3] = (20 * units.Gi, units.Mi)
        for _report in range(2):
            self.assertEqual(
                {'lustre/a+flash': (10, 4, 'up', 'flash'),
                 'lustre/a+cap': (0, 0, 'down', 'cap')},
                self.numbers(survey.take(self.shares)))
        self.assertEqual({1: 'does not answer', 2: 'is inactive',
                          3: 'is full'}, survey.useless_osts('lustre/a'))
        for words in ('lustre-OST0001 does not answer',
                      'lustre-OST0002 is inactive', 'lustre-OST0003 is full'):
            self.assertEqual(1, self.logger.output.count(words))
        self.osts[1] = (10 * units.Gi, 5 * units.Gi)
        self.assertEqual((20, 9, 'up', 'flash'), self.numbers(
            survey.take(self.shares))['lustre/a+flash'])
        self.assertIn('lustre-OST0001 can be used again', self.logger.output)

    def test_share_that_is_down(self):
        self.lustre.missing.add('mgs@tcp:/lustre/a')
        self.assertEqual(
            {'lustre/a+flash': (0, 0, 'down', 'flash')},
            self.numbers(self.survey('flash').take(self.shares)))
        self.assertEqual(
            {'lustre/a': 'down'},
            {name: space['backend_state'] for name, space
             in self.survey('all').take(self.shares).items()})

    def test_names(self):
        for pool in None, 'flash':
            name = (capacity.ost_pool_name('lustre/a', pool) if pool
                    else 'lustre/a')
            self.assertEqual(('lustre/a', pool), capacity.split_pool(name))
