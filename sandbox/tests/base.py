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

"""What the tests share: a sandbox of their own, removed afterwards."""

import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
import time
import unittest
from unittest import mock

from sandbox import install
from sandbox import mounts
from sandbox import state

HERE = os.path.dirname(os.path.abspath(__file__))
COMMAND = os.path.join(os.path.dirname(HERE), 'lustre-sandbox')
MGS = '10.0.2.15@tcp'
# Never more than a fraction of this is waited for, unless something is wrong.
LONG = 30


# Processes that wait for a hung share can't be waited for in their turn.
LEFT_BEHIND = []


class Answer:
    """What a command said. Code None: no answer in time, left behind."""

    def __init__(self, code, output, errors):
        self.code, self.output, self.errors = code, output, errors


def run(command, seconds=LONG):
    """Run a shell command, but wait no longer than that.

    A process that waits for a hung share survives SIGKILL, so its end is
    never waited for, nor that of its output.
    """
    with tempfile.TemporaryFile('w+') as output, \
            tempfile.TemporaryFile('w+') as errors:
        process = subprocess.Popen(
            ['/bin/bash', '-c', command], stdin=subprocess.DEVNULL,
            stdout=output, stderr=errors, start_new_session=True)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            LEFT_BEHIND.append(process)
            code = None
        output.seek(0)
        errors.seek(0)
        return Answer(code, output.read(), errors.read())


@unittest.skipIf(os.geteuid(), 'the sandbox needs root')
class SandboxTestCase(unittest.TestCase):

    maxDiff = None

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # As long as we hold this nobody uninstalls what we use.
        lock = install.keep()
        was_there = install.is_installed()
        try:
            install.install()
        except state.SandboxError as error:
            lock.close()
            raise unittest.SkipTest(str(error))
        if not was_there:
            cls.addClassCleanup(cls._uninstall)
        cls.addClassCleanup(lock.close)

    @staticmethod
    def _uninstall():
        with contextlib.suppress(state.SandboxError):   # others use it
            install.uninstall()

    def setUp(self):
        super().setUp()
        self.top = tempfile.mkdtemp(prefix='lustre-sandbox-test-')
        self.addCleanup(shutil.rmtree, self.top)
        os.chmod(self.top, 0o755)
        environment = mock.patch.dict(os.environ, {
            'LUSTRE_SANDBOX_STATE': os.path.join(self.top, 'state'),
            'LUSTRE_SANDBOX_MGS_TIMEOUT': '0.5',
            'PATH': os.environ['PATH'] + ':' + os.path.dirname(COMMAND)})
        environment.start()
        self.addCleanup(environment.stop)
        self.addCleanup(run, COMMAND + ' destroy-all')

    def command(self, *words):
        """Run lustre-sandbox; it has to succeed."""
        answer = run(' '.join((COMMAND,) + words))
        self.assertEqual(0, answer.code, answer.errors)
        return answer.output

    def create(self, *options, name=None):
        """Make a file system; its name is of six letters, as 'lustre'."""
        name = name or 't' + secrets.token_hex(3)[:5]
        self.command('create', name, '--mgs', MGS, '--osts', '4',
                     '--ost-size', '100M', '--dir', 'cinder', *options)
        return name

    def mount(self, source, place=None, options='flock'):
        """Mount a share, and say where."""
        place = self.place(place)
        answer = run('mount -t lustre -o %s %s %s' % (options, source, place))
        self.assertEqual((0, ''), (answer.code, answer.errors))
        return place

    def place(self, name=None):
        name = name or secrets.token_hex(4)
        place = os.path.join(self.top, name)
        os.makedirs(place, exist_ok=True)
        return place

    def assertMounted(self, source, place, fstype='xfs'):
        mount = mounts.at(place)
        self.assertIsNotNone(mount, '%s is not mounted' % place)
        self.assertEqual((source, fstype), (mount.source, mount.fstype))

    def assertNotMounted(self, place):
        self.assertIsNone(mounts.at(place))


def eventually(question, seconds=10):
    """Whether the question is answered with yes within that time."""
    deadline = time.monotonic() + seconds
    while not question():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
