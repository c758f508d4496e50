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

"""Each fault switch, and that the sandbox heals."""

import errno
import os

from sandbox import mounts
from sandbox.tests import base

SHORT = 1      # seconds until we believe that there will be no answer


class FaultsTestCase(base.SandboxTestCase):

    def setUp(self):
        super().setUp()
        self.name = self.create()
        self.share = '%s:/%s/cinder' % (base.MGS, self.name)
        self.there = self.mount(self.share)
        self.addCleanup(self.fault, 'clear')

    def fault(self, *faults):
        return self.command('fault', self.name, *faults)

    def assertAnswers(self, command):
        self.assertEqual(0, base.run(command).code)

    def assertHangs(self, command):
        self.assertIsNone(base.run(command, SHORT).code)

    def write(self, name='file', size=4096):
        with open(os.path.join(self.there, name), 'wb') as file:
            file.write(bytes(size))

    def test_hang(self):
        self.fault('hang')
        self.assertMounted(self.share, self.there, mounts.HUNG_TYPE)
        for command in 'stat', 'stat -f', 'ls', 'lfs df', 'umount':
            with self.subTest(command):
                self.assertHangs('%s %s' % (command, self.there))
        self.assertAnswers('grep %s /proc/mounts' % self.there)

    def test_hang_on_ext4(self):
        name = self.create('--fstype', 'ext4')
        there = self.mount(base.MGS + ':/' + name)
        self.command('fault', name, 'hang')
        self.assertHangs('stat ' + there)
        self.assertAnswers('sync')
        self.command('fault', name, 'clear')
        self.assertAnswers('touch %s/file' % there)

    def test_hang_spares_the_others(self):
        other = self.mount(base.MGS + ':/' + self.create())
        self.fault('hang')
        self.assertAnswers('touch %s/file; sync' % other)

    def test_hang_covers_every_mount(self):
        places = [self.mount(self.share) for _ in range(3)]
        self.fault('hang')
        for place in places:
            self.assertHangs('stat ' + place)

    def test_hang_survives_kill(self):
        pidfile = os.path.join(self.top, 'pid')
        self.fault('hang')
        base.run('echo $$ > %s; exec stat %s' % (pidfile, self.there), SHORT)
        with open(pidfile) as file:
            process = int(file.read())
        # base.run() has killed it; the process is there nevertheless.
        self.assertTrue(alive(process))
        self.fault('clear')
        self.assertTrue(base.eventually(lambda: not alive(process)))

    def test_hang_holds_writers_that_have_files_open(self):
        self.write()
        go, done = self.place('go') + '/go', self.place('done') + '/done'
        base.run('exec 7>%s/file; (until [ -e %s ]; do sleep 0.05; done; '
                 'echo a >&7; touch %s) &' % (self.there, go, done))
        self.fault('hang')
        with open(go, 'w'):
            pass
        self.assertFalse(base.eventually(lambda: os.path.exists(done),
                                         SHORT))
        self.fault('clear')
        self.assertTrue(base.eventually(lambda: os.path.exists(done)))

    def test_hang_heals(self):
        self.write()
        self.fault('hang')
        self.fault('clear')
        self.assertMounted(self.share, self.there)
        self.assertEqual(['file'], os.listdir(self.there))
        self.write('other')

    def test_mount_waits_while_the_share_hangs(self):
        self.fault('hang')
        place = self.place()
        self.assertEqual(110, base.run('mount -t lustre %s %s' % (
            self.share, place)).code)

    def test_mgs_down(self):
        self.fault('mgs-down')
        self.write()       # those who have it mounted don't notice
        command = 'mount -t lustre %s %s' % (self.share, self.place())
        # This one goes on waiting, as the real one: its place is taken.
        self.assertIsNone(base.run(
            'LUSTRE_SANDBOX_MGS_TIMEOUT= ' + command, SHORT).code)
        command = 'mount -t lustre %s %s' % (self.share, self.place())
        self.assertEqual(110, base.run(command).code)
        self.fault('clear')
        self.assertEqual(0, base.run(command).code)

    def test_a_waiting_mount_goes_on_when_the_mgs_is_back(self):
        self.fault('mgs-down')
        place = self.place()
        answer = base.run(
            '(sleep 0.3; %s fault %s clear) & LUSTRE_SANDBOX_MGS_TIMEOUT=20 '
            'mount -t lustre %s %s' % (base.COMMAND, self.name, self.share,
                                       place))
        self.assertEqual(0, answer.code, answer.errors)
        self.assertMounted(self.share, place)

    def test_missing(self):
        self.fault('missing')
        self.assertNotMounted(self.there)
        command = 'mount -t lustre %s %s' % (self.share, self.there)
        self.assertEqual(2, base.run(command).code)
        self.fault('clear')
        self.assertEqual(0, base.run(command).code)

    def test_unmount(self):
        places = [self.there] + [self.mount(self.share) for _ in range(2)]
        with open(os.path.join(self.there, 'open'), 'w'):
            self.fault('unmount')
        for place in places:
            self.assertNotMounted(place)
        self.mount(self.share, os.path.basename(self.there))

    def test_full(self):
        self.fault('full')
        self.assertEqual([], os.listdir(self.there))
        self.assertLess(os.statvfs(self.there).f_bavail * 4096, 1 << 20)
        with self.assertRaises(OSError) as raised:
            self.write(size=4 << 20)
        self.assertEqual(errno.ENOSPC, raised.exception.errno)
        self.fault('clear')
        self.write(size=4 << 20)

    def test_ost_full(self):
        self.fault('ost-full=2')
        before = os.statvfs(self.there)
        rows = self.rows()
        self.assertEqual('0', rows['OST:2'][3])
        available = sum(int(row[3]) for where, row in rows.items()
                        if where.startswith('OST'))
        self.assertEqual(before.f_bavail * before.f_frsize, available << 10)
        self.fault('clear')
        self.assertNotEqual('0', self.rows()['OST:2'][3])

    def rows(self):
        lines = base.run('lfs df ' + self.there).output.splitlines()
        rows = [line.split() for line in lines if '[' in line]
        return {row[-1].rstrip(']').partition('[')[2]: row for row in rows}

    def test_ost_inactive(self):
        before = os.statvfs(self.there)
        self.fault('ost-inactive=1')
        self.assertEqual({'MDT:0', 'OST:0', 'OST:2', 'OST:3'},
                         set(self.rows()))
        self.assertIn('1: %s-OST0001_UUID INACTIVE' % self.name,
                      base.run('lfs osts ' + self.there).output)
        # statvfs goes on counting it.
        self.assertEqual(before.f_blocks, os.statvfs(self.there).f_blocks)

    def test_ost_down(self):
        self.fault('ost-down=1')
        self.assertHangs('lfs df ' + self.there)
        answer = base.run('lfs df -l ' + self.there)
        self.assertEqual(107, answer.code)
        self.assertIn('%s-OST0001_UUID : Transport endpoint is not connected'
                      % self.name, answer.output)
        answer = base.run('lfs check osts')
        self.assertEqual(0, answer.code)
        self.assertIn('Resource temporarily unavailable (11)', answer.errors)
        self.fault('clear')
        self.assertAnswers('lfs df ' + self.there)

    def test_unknown(self):
        for fault in 'nosuch', 'ost-full=4', 'ost-full', 'hang=1':
            answer = base.run('%s fault %s %s' % (base.COMMAND, self.name,
                                                  fault))
            self.assertEqual(1, answer.code)
            self.assertNotIn('Traceback', answer.errors)


def alive(process):
    try:
        with open('/proc/%d/stat' % process) as stat:
            return stat.read().rpartition(')')[2].split()[0] not in 'ZX'
    except FileNotFoundError:
        return False
