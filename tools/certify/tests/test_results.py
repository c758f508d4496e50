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

"""What becomes of tests, and the verdict over them."""

import pathlib
import tempfile
import types

import testtools

from tools.certify import bundle
from tools.certify import command
from tools.certify import excuses
from tools.certify import kept
from tools.certify import record
from tools.certify import results
from tools.certify import suites
from tools.certify.tests import test_scrub
from tools.certify import verdict

SUITE = test_scrub.SUITE
Test = results.Test


def judge(*tests, stopped=None, whole=True, given=()):
    excuses.apply(tests, 'thin', given)
    return verdict.judge(29, {SUITE: tests}, stopped, whole)


class ResultsTest(testtools.TestCase):

    def read(self, names, *tests):
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory, 'stream')
            test_scrub.stream(path, *tests)
            return {test.name: test.outcome
                    for test in results.read(path, names)}

    def test_lost_tests_fail(self):
        self.assertEqual(
            {'m.C.a': 'passed', 'm.C.b': 'failed'},
            self.read(['m.C.a', 'm.C.b'], ('m.C.a', 'success', '')))

    def test_listed_test_fails(self):
        self.assertEqual({'m.C.a': 'failed'},
                         self.read(['m.C.a'], ('m.C.a', 'exists', '')))

    def test_unfinished_test_fails(self):
        self.assertEqual({'m.C.a': 'failed'},
                         self.read(['m.C.a'], ('m.C.a', None, '')))

    def test_skipped_class(self):
        self.assertEqual(
            {'m.C.a': 'skipped', 'm.C.b': 'skipped', 'm.D.a': 'passed'},
            self.read(['m.C.a', 'm.C.b', 'm.D.a'],
                      ('setUpClass (m.C)', 'skip', 'no neutron'),
                      ('m.D.a[id-1,smoke]', 'success', '')))

    def test_class_that_is_not_torn_down(self):
        self.assertEqual(
            {'m.C.a': 'passed', 'tearDownClass (m.C)': 'failed'},
            self.read(['m.C.a'], ('m.C.a', 'success', ''),
                      ('tearDownClass (m.C)', 'fail', 'left')))

    def test_module_that_does_not_load(self):
        self.assertEqual(
            {'m.C.a': 'passed', 'unittest.loader._FailedTest.x': 'failed'},
            self.read(['m.C.a'], ('m.C.a', 'success', ''),
                      ('unittest.loader._FailedTest.x', 'fail', 'import')))


class VerdictTest(testtools.TestCase):

    passed = Test('m.C.a', results.PASSED)

    def setUp(self):
        super().setUp()
        self.skipped = Test('m.C.b', results.SKIPPED, said='no neutron')
        self.failed = Test('m.C.c', results.FAILED, said='Timeout')

    def test_passed(self):
        judged = judge(self.passed)
        self.assertTrue(judged.passed)
        self.assertEqual('Cinder 29 (2026.2): PASSED: 1 passed, 0 failed, '
                         '0 skipped', judged.line)

    def test_skip_that_nobody_excused(self):
        judged = judge(self.passed, self.skipped)
        self.assertFalse(judged.passed)
        self.assertIn('1 skipped and nobody said why', judged.line)

    def test_excused(self):
        given = [excuses.Excuse(['m.C.?'], 'no neutron', 'it needs none'),
                 excuses.Excuse(['*.c'], 'Timeout', 'upstream', 'failed')]
        judged = judge(self.passed, self.skipped, self.failed, given=given)
        self.assertTrue(judged.passed)
        self.assertIn('1 passed, 1 failed, 1 skipped', judged.line)
        self.assertEqual('it needs none', self.skipped.excuse)

    def test_excuses_are_for_what_was_looked_into(self):
        for excuse in (
                excuses.Excuse(['m.C.b'], 'no swift', 'x'),
                excuses.Excuse(['m.D.b'], 'no neutron', 'x'),
                excuses.Excuse(['m.C.b'], 'no neutron', 'x', 'failed'),
                excuses.Excuse(['m.C.b'], 'no neutron', 'x',
                               types=('thick',))):
            self.assertFalse(judge(self.passed, self.skipped,
                                   given=[excuse]).passed)

    def test_left_out(self):
        given = [excuses.Excuse(['m.C.*'], 'did not run', 'no network',
                                excuses.LEFT_OUT, types=('thin',))]
        self.assertEqual(['m.C.x'], excuses.left_out(
            ['m.C.x', 'm.D.x'], 'thin', given))
        self.assertEqual([], excuses.left_out(['m.C.x'], 'thick', given))
        lost = Test('m.C.x', results.FAILED, said=results.NOT_RUN)
        judged = judge(self.passed, lost, given=given)
        self.assertTrue(judged.passed)
        self.assertIn('1 passed, 0 failed, 1 skipped', judged.line)
        self.assertEqual('no network', lost.excuse)
        # One that was run all the same, and failed, did fail.
        self.assertFalse(judge(self.passed, self.failed,
                               given=given).passed)

    def test_nothing_passed(self):
        self.assertFalse(judge().passed)

    def test_stopped(self):
        judged = judge(self.passed, stopped='no RabbitMQ')
        self.assertFalse(judged.passed)
        self.assertIn('no RabbitMQ', judged.line)

    def test_part(self):
        self.assertIn('a part', judge(self.passed, whole=False).line)

    def judge_excuses(self, *tests):
        excuses.apply(tests, 'encrypted', [
            excuses.Excuse(['m.*'], 'Timeout', 'slow', results.FAILED)])
        return verdict.judge_excuses(29, {SUITE: tests}, None)

    def test_same_failure_on_a_stock_driver(self):
        judged = self.judge_excuses(self.failed)
        self.assertTrue(judged.passed)
        self.assertEqual('Cinder 29 (2026.2), its NFS driver: SHOWN: 1 tests '
                         'fail as with ours, 0 do not', judged.line)

    def test_what_a_stock_driver_does_not_show(self):
        for tests in ([], [self.failed, self.passed],
                      [Test('m.C.d', results.FAILED, said='another')]):
            self.assertFalse(self.judge_excuses(*tests).passed)

    def test_what_to_show(self):
        given = [excuses.Excuse(['m.C.a'], '', 'slow', results.FAILED),
                 excuses.Excuse(['m.C.b'], '', 'off', results.SKIPPED),
                 excuses.Excuse(['m.C.c'], '', 'NFS', results.FAILED,
                                stock=False),
                 excuses.Excuse(['m.C.d'], '', 'thin', results.FAILED,
                                types=('thin',))]
        self.assertEqual(['m.C.a'], excuses.failing(
            ['m.C.a', 'm.C.b', 'm.C.c', 'm.C.d'], 'encrypted', given))

    def test_the_list_loads(self):
        for excuse in excuses.load():
            self.assertIsInstance(excuse.tests, list)
            self.assertIn(excuse.outcome, (results.SKIPPED, results.FAILED,
                                           excuses.LEFT_OUT))
            self.assertLessEqual(set(excuse.types), set(command.TYPES))
            self.assertGreater(len(excuse.reason), 20)
            # In the suites that certify.sh --stock runs.
            if excuse.outcome == results.FAILED and excuse.stock:
                self.assertIn('encrypted', excuse.types or command.TYPES)
                for tests in excuse.tests:
                    self.assertEqual('tempest', tests.split('.')[0])


class PageTest(testtools.TestCase):

    def test_page_and_record(self):
        tests = [Test('m.C.a', results.PASSED, 1.5),
                 Test('m.C.b', results.SKIPPED, said='no <b>neutron</b>')]
        judged = judge(*tests)
        made = record.make(29, {SUITE: tests}, judged, {'cinder': '29.0.0'},
                           {'commit': None, 'directories': {},
                            'changed': ['no repository']}, 'the sandbox')
        page = bundle.page(judged, made, {SUITE: tests}, ['log/'])
        self.assertIn('no &lt;b&gt;neutron', page)
        self.assertIn('NOBODY HAS SAID', page)
        # Readable without a server, and without a network.
        for outside in ('http:', 'https:', 'src='):
            self.assertNotIn(outside, page)
        with tempfile.TemporaryDirectory() as directory:
            path = record.path_of(29, directory=pathlib.Path(directory))
            record.write(made, path)
            self.assertEqual(made, record.load(29, path.parent))
            self.assertIsNone(record.load(28, path.parent))


class CommandTest(testtools.TestCase):

    def whole(self, *arguments):
        return suites.is_whole(command.parse(arguments))

    def test_what_a_verdict_is_of(self):
        self.assertTrue(self.whole('--nova', '--release', '26'))
        for arguments in (['--types', 'thin'], ['--suites', 'api'],
                          ['--tests', 'x']):
            self.assertFalse(self.whole(*arguments))

    def test_suites(self):
        chosen = suites.choose(command.parse(
            ['--nova', '--types', 'thick', '--suites', 'plugin,compliance']))
        self.assertEqual(['compliance', 'plugin-thick',
                          'plugin-scenario-thick'],
                         [suite.name for suite in chosen])


class KeptTest(testtools.TestCase):

    def setUp(self):
        super().setUp()
        made = tempfile.TemporaryDirectory()
        self.addCleanup(made.cleanup)
        self.home = pathlib.Path(made.name)
        raw = self.home / 'raw'
        test_scrub.stream(raw, ('m.C.a', 'success', ''),
                          ('m.C.b', 'fail', 'for ' + test_scrub.SECRET))
        self.kept = self.open()
        self.kept.put(SUITE, ['m.C.a', 'm.C.b'], raw, {test_scrub.SECRET})

    def open(self, *arguments):
        return kept.Kept(
            command.parse(arguments), types.SimpleNamespace(home=self.home),
            'cinder')

    def test_results_without_secrets(self):
        self.assertEqual(['', 'for ***'], [
            test.said for test in self.open().tests(SUITE)])

    def test_resume(self):
        self.assertFalse(self.open('--resume').has(SUITE))
        self.kept.finish(SUITE)
        self.assertTrue(self.open('--resume').has(SUITE))
        self.assertTrue(self.open('--resume', '--types', 'thin').has(SUITE))
        for arguments in ([], ['--resume', '--nova'],
                          ['--resume', '--tests', 'x'],
                          ['--resume', '--release', '26']):
            self.assertFalse(self.open(*arguments).has(SUITE))

    def test_later_run_counts(self):
        self.kept.finish(SUITE)
        self.kept.put(SUITE, ['m.C.a'], self.home / 'raw', set())
        self.assertFalse(self.open('--resume').has(SUITE))
