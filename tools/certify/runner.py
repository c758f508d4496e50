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

"""Run a suite, and keep what its tests report as a subunit stream."""

import os
import pathlib
import re
import signal
import subprocess
import threading

import subunit
import testtools

from tools.certify import suites
from tools.demo import procs

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
# Seconds that a test, and a suite, may take.
TEST_LIMIT = 1200
SUITE_LIMIT = 4 * 3600
# All tests of a class in the same worker: setting a class up makes users and
# projects.
BY_CLASS = r'([^\.]*\.)*'


class Tee:
    """What a process writes, kept in a file as it is read."""

    def __init__(self, pipe, path):
        self._pipe = pipe
        self._file = open(path, 'wb')

    def read(self, size=-1):
        data = self._pipe.read(size)
        self._file.write(data)
        return data

    def fileno(self):
        return self._pipe.fileno()

    def close(self):
        self._file.close()


class Runner:
    """Runs suites against a stack, or without one."""

    def __init__(self, layout, stack, concurrency):
        self.layout = layout
        self.stack = stack
        self.concurrency = concurrency

    def names(self, suite, tests):
        """The names of the tests of a suite.

        :param tests: a regular expression, for those that are wanted
        """
        procs.run('mkdir', self._repository(suite), **self._who(suite))
        self._command(suite, 'init')
        output = self._command(suite, 'list', self._wanted(suite, tests))
        return sorted(line.partition('[')[0] for line in output.splitlines()
                      if '.' in line)

    def run(self, suite, tests, left_out, path, on_test):
        """Run a suite to its end.

        :param left_out: names of tests that shall not run
        :param path: of the stream
        :param on_test: called with each test as testtools describes it
        :returns: the exit code
        """
        who = self._who(suite)
        return self._watch(
            self._stestr(suite, 'run', '--subunit', '--concurrency',
                         self.concurrency, *self._unwanted(left_out),
                         self._wanted(suite, tests)),
            path, on_test, cwd=who['cwd'], **procs.as_user(who['user']))

    def _command(self, suite, *arguments):
        return procs.run(*self._stestr(suite, *arguments), env=self._env(),
                         limit=300, **self._who(suite))

    @staticmethod
    def _wanted(suite, tests):
        return '^' + suite.tests + ('.*(%s)' % tests if tests else '')

    @staticmethod
    def _unwanted(names):
        # Tempest adds tags in brackets to the names.
        return ['--exclude-regex', r'^(%s)(\[|$)' % '|'.join(
            map(re.escape, names))] if names else []

    def _who(self, suite):
        """As which user a suite runs, and in which directory."""
        if suite is suites.COMPLIANCE:
            # It looks for drivers below the current directory, which only
            # root may be able to read.
            return {'user': None, 'cwd': REPOSITORY}
        return {'user': self.stack.user, 'cwd': self.layout.tempest}

    def _repository(self, suite):
        return self.layout.tempest / suite.name

    def _stestr(self, suite, *arguments):
        if suite is suites.COMPLIANCE:
            venv, where = self.layout.venv, 'cinder/tests/compliance'
        else:
            venv = self.layout.tempest_venv
            where = 'tempest/test_discover'
        site, = venv.glob('lib/python3*/site-packages')
        return [venv / 'bin/python', '-B', '-W', 'ignore', '-m', 'stestr',
                '--test-path', site / where, '--top-dir', site,
                '--repo-url', self._repository(suite),
                '--group_regex', BY_CLASS, *arguments]

    def _env(self):
        return procs.marked_environment(
            self.layout.home, HOME=str(self.layout.tempest),
            TEMPEST_CONFIG=self.layout.tempest_conf.name,
            TEMPEST_CONFIG_DIR=str(self.layout.tempest_conf.parent),
            OS_TEST_TIMEOUT=str(TEST_LIMIT),
            OS_STDOUT_CAPTURE='1', OS_STDERR_CAPTURE='1')

    def _watch(self, argv, path, on_test, **more):
        with open(path.with_suffix('.log'), 'w') as log:
            child = subprocess.Popen(
                [str(word) for word in argv], stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=log, bufsize=0,
                env=self._env(), start_new_session=True, **more)
        timer = threading.Timer(SUITE_LIMIT, kill, [child])
        timer.start()
        tee = Tee(child.stdout, path)
        try:
            read_stream(tee, on_test)
            return child.wait()
        finally:
            timer.cancel()
            kill(child)
            child.wait()
            tee.close()


def kill(child):
    """End a process that may run, with all that it has started."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)


def read_stream(source, on_test):
    """Call on_test with each test of a subunit stream that has ended."""
    def ended(test):
        # stestr lists the tests first. Anything else in the stream goes by
        # the other name.
        if test['status'] != 'exists' and test['id'] != 'stdout':
            on_test(test)

    result = testtools.StreamToDict(ended)
    result.startTestRun()
    subunit.ByteStreamToStreamResult(source, non_subunit_name='stdout').run(
        result)
    result.stopTestRun()
