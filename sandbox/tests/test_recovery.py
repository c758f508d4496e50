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

"""What is left of killed runs is found and removed."""

import os
import shutil

from sandbox import hang
from sandbox import install
from sandbox import loops
from sandbox import mounts
from sandbox import state
from sandbox.tests import base


class RecoveryTestCase(base.SandboxTestCase):

    def setUp(self):
        super().setUp()
        self.state = os.environ['LUSTRE_SANDBOX_STATE']

    def assertNothingLeft(self):
        self.assertEqual([], os.listdir(self.state))
        self.assertEqual([], loops.devices_below(self.state))
        self.assertEqual([], [mount for mount in mounts.table()
                              if mount.target.startswith(self.top)])

    def test_destroy(self):
        name = self.create()
        self.mount(base.MGS + ':/' + name)
        self.command('destroy', name)
        self.assertNothingLeft()
        self.assertFalse(os.path.exists(os.path.join(state.REGISTRY, name)))

    def test_destroy_all_with_every_fault(self):
        for faults in ('hang',), ('full', 'missing'), ('ost-full=1', 'hang'):
            name = self.create()
            self.mount(base.MGS + ':/' + name)
            self.command('fault', name, *faults)
        self.command('destroy-all')
        self.assertNothingLeft()

    def test_destroy_all_after_the_hanging_server_was_killed(self):
        name = self.create()
        place = self.mount(base.MGS + ':/' + name)
        self.command('fault', name, 'hang')
        os.kill(hang._server(state.load(name)), 9)
        self.assertTrue(base.eventually(
            lambda: base.run('stat ' + place).code == 1))
        self.command('destroy-all')
        self.assertNothingLeft()

    def test_destroy_all_spares_the_others(self):
        name = self.create()
        place = self.mount(base.MGS + ':/' + name)
        os.environ['LUSTRE_SANDBOX_STATE'] = os.path.join(self.top, 'other')
        self.command('destroy-all')
        os.environ['LUSTRE_SANDBOX_STATE'] = self.state
        self.assertMounted(base.MGS + ':/' + name, place)

    def test_killed_creations(self):
        for delay in range(40, 260, 20):
            base.run('timeout -s KILL 0.%03d %s create k%d --osts 1 '
                     '--ost-size 300M' % (delay, base.COMMAND, delay))
        self.command('destroy-all')
        self.assertNothingLeft()
        self.assertEqual([], [name for name in os.listdir(state.REGISTRY)
                              if name.startswith('.k')])

    def test_killed_destructions(self):
        for delay in range(40, 200, 20):
            name = self.create()
            self.mount(base.MGS + ':/' + name)
            base.run('timeout -s KILL 0.%03d %s destroy %s' % (
                delay, base.COMMAND, name))
        self.command('destroy-all')
        self.assertNothingLeft()

    def test_killed_faults(self):
        name = self.create()
        place = self.mount(base.MGS + ':/' + name)
        for fault in 'hang', 'full':
            for delay in range(60, 260, 40):
                base.run('timeout -s KILL 0.%03d %s fault %s %s' % (
                    delay, base.COMMAND, name, fault))
                self.command('fault', name, 'clear')
                answer = base.run('dd if=/dev/zero of=%s/file bs=1M count=1 '
                                  'conv=fsync status=none' % place, 5)
                self.assertEqual((0, ''), (answer.code, answer.errors),
                                 '%s, %d ms' % (fault, delay))

    def test_after_a_reboot(self):
        """Loop devices and /run are gone; the image and its state are not."""
        name = self.create()
        fs = state.load(name)
        loops.detach(loops.device(fs))
        os.unlink(os.path.join(state.REGISTRY, name))
        self.mount(base.MGS + ':/' + name)

    def test_destroy_all_after_the_directory_was_removed(self):
        name = self.create()
        self.mount(base.MGS + ':/' + name)
        shutil.rmtree(self.state)
        self.command('destroy-all')
        os.mkdir(self.state)
        self.assertNothingLeft()
        self.assertNotIn(name, dict(state.registered()))

    def test_a_name_is_taken_once(self):
        name = self.create()
        answer = base.run('%s create %s' % (base.COMMAND, name))
        self.assertEqual(1, answer.code)
        self.assertIn('exists already', answer.errors)


class InstallTestCase(base.SandboxTestCase):

    def test_programs(self):
        install.install(self.top)
        self.assertTrue(install.is_installed(self.top))
        lfs = os.path.join(self.top, 'usr/bin/lfs')
        self.assertEqual(0, base.run('runuser -u nobody -- %s --version'
                                     % lfs).code)
        install.uninstall(self.top, force=True)
        self.assertFalse(os.path.exists(lfs))

    def test_repeated(self):
        """Those that run while others install must not be disturbed."""
        install.install(self.top)
        path = os.path.join(self.top, 'sbin/mount.lustre')
        before = os.stat(path)
        install.install(self.top)
        self.assertEqual(before.st_ino, os.stat(path).st_ino)

    def test_a_real_client_is_left_alone(self):
        for place in 'usr/bin/lfs', 'sbin/mount.lustre':
            path = os.path.join(self.top, 'a', place)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, 'w') as program:
                program.write('real')
            self.assertRaises(state.SandboxError, install.install,
                              os.path.join(self.top, 'a'))
            install.uninstall(os.path.join(self.top, 'a'), force=True)
            self.assertTrue(os.path.exists(path))
            os.unlink(path)

    def test_a_loaded_module_is_a_real_client(self):
        os.makedirs(os.path.join(self.top, 'sys/fs/lustre'))
        self.assertRaises(state.SandboxError, install.install, self.top)

    def test_not_removed_while_in_use(self):
        self.create()
        self.assertRaises(state.SandboxError, install.uninstall, self.top)


class RootTestCase(base.SandboxTestCase):

    def test_others_are_told(self):
        answer = base.run('cp -r %s %s/sandbox; runuser -u nobody -- '
                          '%s/sandbox/lustre-sandbox create x' % (
                              os.path.dirname(base.COMMAND), self.top,
                              self.top))
        self.assertIn('needs root', answer.errors)
