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

"""Single calls that get stuck."""

import glob
import os
import subprocess
import unittest

from sandbox import mounts
from sandbox import stuck
from sandbox.tests import base
from sandbox.tests import test_faults

# What makes each call, in the directory of the share.
COMMANDS = {
    'stat': 'stat file',
    'statvfs': 'stat -f .',
    'open': 'cat file',
    'read': 'cat file',
    'write': 'echo more >> file',
    'truncate': 'truncate -s 4 file',
    'fsync': 'sync file',
    'rename': 'mv -T file moved',
    'unlink': 'rm file',
}


def has_fusepy():
    return not subprocess.run(
        ['/usr/bin/python3', '-c', 'import importlib.util as u, sys; '
         'sys.exit(not (u.find_spec("fusepy") or u.find_spec("fuse")))'],
    ).returncode


class StuckTestCase(base.SandboxTestCase):

    def setUp(self):
        super().setUp()
        self.name = self.create()
        self.share = '%s:/%s/cinder' % (base.MGS, self.name)
        self.there = self.mount(self.share)
        self.addCleanup(self.fault, 'clear')
        with open(os.path.join(self.there, 'file'), 'w') as file:
            file.write('hello')

    def fault(self, *faults):
        return self.command('fault', self.name, *faults)

    def run_there(self, command, **kwargs):
        return base.run('cd %s && %s' % (self.there, command), **kwargs)


@unittest.skipUnless(has_fusepy(), 'fusepy is not installed')
class StuckCallsTest(StuckTestCase):

    def test_each_call(self):
        for call in stuck.CALLS:
            if call == 'mount':
                continue
            with self.subTest(call):
                # One for each: the call before may end only now.
                name = 'file-' + call
                self.run_there('echo hello > ' + name)
                self.fault('stuck=' + call)
                self.assertMounted(self.share, self.there, mounts.HUNG_TYPE)
                self.assertIsNone(self.run_there(
                    COMMANDS[call].replace('file', name), seconds=1).code)
                self.fault('clear')
                self.assertMounted(self.share, self.there)

    def test_other_calls_go_through(self):
        self.fault('stuck=fsync')
        answer = self.run_there('echo a > a && mv a b && stat -f . && '
                                'cat b file && rm b && ls -a')
        self.assertEqual('', answer.errors)
        self.assertTrue(answer.output.endswith('a\nhello.\n..\nfile\n'),
                        answer.output)

    def test_two_calls(self):
        self.fault('stuck=truncate')
        self.fault('stuck=fsync')
        for call in 'truncate', 'fsync':
            self.assertIsNone(self.run_there(COMMANDS[call], seconds=1).code)
        self.assertEqual('hello', self.run_there('cat file').output)

    def test_survives_kill_and_goes_on_when_cleared(self):
        self.fault('stuck=rename')
        pids = os.path.join(self.top, 'pid')
        self.run_there('echo $$ > %s; exec mv -T file moved' % pids,
                       seconds=1)
        with open(pids) as file:
            process = int(file.read())
        # base.run() has killed it.
        self.assertTrue(test_faults.alive(process))
        self.fault('clear')
        self.assertTrue(base.eventually(
            lambda: not test_faults.alive(process)))
        self.assertTrue(base.eventually(
            lambda: os.listdir(self.there) == ['moved']))

    def test_files_belong_to_who_made_them(self):
        os.chmod(self.there, 0o777)
        self.fault('stuck=fsync')
        answer = self.run_there('setpriv --reuid 65534 touch new')
        self.assertEqual('', answer.errors)
        self.assertEqual(65534, os.stat(self.there + '/new').st_uid)

    def test_nothing_is_left(self):
        self.fault('stuck=fsync')
        self.fault('clear')
        self.assertTrue(base.eventually(lambda: not self.servers()))

    def servers(self):
        found = []
        for path in glob.glob('/proc/[0-9]*/cmdline'):
            try:
                with open(path) as cmdline:
                    words = cmdline.read().split('\0')
            except OSError:
                continue
            if 'serve-stuck' in words and self.name in words:
                found.append(words)
        return found

    def test_unknown(self):
        for fault in 'stuck=nosuch', 'stuck=', 'stuck':
            answer = base.run('%s fault %s %s' % (base.COMMAND, self.name,
                                                  fault))
            self.assertEqual(1, answer.code)
            self.assertNotIn('Traceback', answer.errors)


class StuckMountTest(StuckTestCase):

    def test_mount(self):
        self.fault('stuck=mount')
        # Those who have it mounted don't notice.
        self.assertEqual('hello', self.run_there('cat file').output)
        self.assertMounted(self.share, self.there)
        place = self.place()
        pids = os.path.join(self.top, 'pid')
        answer = base.run(
            'echo $$ > %s; exec /sbin/mount.lustre %s %s' % (
                pids, self.share, place), seconds=2)
        self.assertIsNone(answer.code)
        with open(pids) as file:
            process = int(file.read())
        self.assertTrue(test_faults.alive(process))
        self.fault('clear')
        self.assertTrue(base.eventually(
            lambda: not test_faults.alive(process)))
        self.assertNotMounted(place)
        self.mount(self.share)

    def test_goes_on_when_cleared(self):
        self.fault('stuck=mount')
        place = self.place()
        answer = base.run(
            '(sleep 1; %s fault %s clear) & mount -t lustre %s %s' % (
                base.COMMAND, self.name, self.share, place))
        self.assertEqual(0, answer.code, answer.errors)
        self.assertMounted(self.share, place)
