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

"""One certification: its suites, their results, the verdict, the bundle."""

import os
import sys
import time

from tools.certify import bundle
from tools.certify import cloud
from tools.certify import excuses
from tools.certify import kept
from tools.certify import record
from tools.certify import results
from tools.certify import runner
from tools.certify import stack
from tools.certify import suites
from tools.certify import tempest
from tools.certify import verdict
from tools.certify import versions
from tools.demo import main as demo_main
from tools.nova_stack import main as nova_main


class Certification:
    """What main.py drives: test() while the stack is up, then conclude()."""

    # Of what is written: bundle, streams, record.
    name = 'cinder'
    stack_class = stack.Stack

    def __init__(self, arguments, layout, shares, out):
        self.arguments = arguments
        self.layout = layout
        self.stack = self.stack_class(layout, shares, arguments.nova)
        self.out = out
        # {suite: its tests}
        self.tests = {}
        self.excuses = excuses.load()
        self.kept = kept.Kept(arguments, layout, self.name)
        self.bundle = bundle.Bundle(self._directory(), layout)

    def _directory(self):
        where = self.arguments.output or self.layout.bundles
        return where / ('%s-%d%s' % (
            self.name, self.arguments.release,
            '-nova' if self.arguments.nova else ''))

    @property
    def tempest_python(self):
        return self.layout.tempest_venv / 'bin/python'

    # While the stack is up.

    def test(self):
        """Bring everything up, and run the suites; returns their tests."""
        chosen = self._choose()
        todo = [suite for suite in chosen if not self._has_passed(suite)]
        for number, suite in enumerate(chosen, 1):
            if suite not in todo:
                self._note(number, suite, 0, 'as in the last run: ')
        if todo:
            self._start()
            admin = cloud.Cloud(self.stack)
            tempest.write(self.stack, admin.prepare())
            self.bundle.add_configuration()
            runs = runner.Runner(self.layout, self.stack,
                                 self.arguments.concurrency)
            for suite in todo:
                if suite.volume_type:
                    admin.make_default(suite.volume_type)
                self._run(chosen.index(suite) + 1, len(chosen), suite, runs)
        return self.tests

    def _choose(self):
        """The suites that are wanted."""
        return suites.choose(self.arguments)

    def _split(self, suite, names):
        """The tests of a suite that count, and those that shall not run."""
        return names, excuses.left_out(names, suite.volume_type, self.excuses)

    def faults(self, tests):
        """Those that did not pass and should have."""
        return [test for test in tests
                if test.outcome != results.PASSED and not test.excuse]

    def _has_passed(self, suite):
        return self.kept.has(suite) and not self.faults(self._judged(suite))

    def _judged(self, suite):
        """The tests of a suite that has run, with their excuses."""
        tests = self.kept.tests(suite)
        excuses.apply(tests, suite.volume_type, self.excuses)
        return tests

    def _start(self):
        self.out.say(self.stack.shares.about)
        with demo_main.timed(self.out, 'Making the shares'):
            self.stack.prepare()
            self.bundle.add_configuration()
            self.stack.shares.create(self.stack.user)
        with demo_main.timed(self.out, 'Starting the services') as progress:
            self.stack.start(progress)
        self.bundle.add_configuration()
        if self.arguments.keep:
            nova_main.write_openrc(self.layout, self.stack)
        self.layout.tempest.mkdir()
        os.chown(self.layout.tempest, self.stack.user.pw_uid,
                 self.stack.user.pw_gid)

    def _run(self, number, of, suite, runs):
        started = time.monotonic()
        raw = self.layout.tempest / 'raw.subunit'
        title = '%d of %d  %s' % (number, of, suite.name)
        with self.out.working(title):
            listed = runs.names(suite, self.arguments.tests)
        names, left_out = self._split(suite, listed)
        try:
            with self.out.working(title) as progress:
                runs.run(suite, self.arguments.tests, left_out, raw,
                         Progress(len(listed) - len(left_out), progress).note)
        finally:
            # Who stops it wants to see how far it has come.
            self.kept.put(suite, names, raw, self.bundle.secrets)
            self._note(number, suite, time.monotonic() - started)
        self.kept.finish(suite)

    def _note(self, number, suite, took, how=''):
        """Judge a suite's results, and show them."""
        tests = self.tests[suite] = self._judged(suite)
        found = self.faults(tests)
        self.out.step(number, 'failed' if found else 'passed', suite.name,
                      how + '%(passed)d passed, %(failed)d failed, '
                      '%(skipped)d skipped' % results.count(tests), took)
        for test in found:
            self.out.details('%s: %s: %s' % (
                test.outcome, test.name, test.said.splitlines()[-1][:300]))

    # Afterwards.

    def conclude(self, stopped):
        """Write the bundle and, if asked for, the record; 0 if all is well.

        :param stopped: why it ended before its end, or None
        """
        arguments = self.arguments
        judged = self._judge(stopped)
        made = record.make(
            arguments.release, self.tests, judged,
            versions.collect(self.tempest_python, arguments.nova),
            versions.tree(), 'a real Lustre' if self.stack.shares.real
            else 'the sandbox')
        self.bundle.add_versions(self.tempest_python, sys.executable)
        self.bundle.add_logs()
        self.bundle.add_results(judged, made, self.tests, self.kept.directory)
        self.out.say()
        self.out.say('The bundle is %s.' % self.bundle.pack())
        if arguments.record and not arguments.tests and not stopped:
            path = record.path_of(arguments.release, self.name)
            record.write(made, path)
            self.out.say('The record is %s.' % path)
        self.out.say(judged.line, 'bold green' if judged.passed
                     else 'bold red')
        return 0 if judged.passed else 1

    def _judge(self, stopped):
        return verdict.judge(self.arguments.release, self.tests, stopped,
                             suites.is_whole(self.arguments))


class Progress:
    """Says how far a suite has got."""

    def __init__(self, of, say):
        self.of = of
        self.say = say
        self.ended = 0
        self.failed = 0

    def note(self, test):
        self.ended += 1
        self.failed += results.describe(test).outcome == results.FAILED
        self.say('%d of %d, %d failed' % (self.ended, self.of, self.failed))
