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

"""The DevStack plugin, in a DevStack that is stood in for (devstack.sh)."""

import configparser
import os
import pathlib
import pwd
import re
import secrets
import shutil
import subprocess

import fixtures
from oslotest import base

from sandbox import install
from sandbox import state

# stestr runs in the root of the tree.
TREE = pathlib.Path.cwd()
SAMPLE = TREE / 'etc/cinder/cinder-lustre.conf.sample'
SHARE = '10.0.0.1@tcp:/scratch/cinder'
BACKUPS = '10.0.0.1@tcp:/scratch/backups'
SERVICES = ('c-api', 'c-vol', 'c-bak', 'c-sch', 'n-cpu', 'tempest')


class PluginTestCase(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        self.here = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.plugin = TREE / 'devstack'
        for name in 'etc', 'data', 'bin', 'commands':
            (self.here / name).mkdir()
        # What is not to be run is only noted.
        self.calls = self.here / 'calls'
        self.calls.touch()
        self.command('mount.lustre')
        for name in 'cinder-volume', 'nova-compute':
            self.program(self.here / 'bin' / name, '#!%s/python\n' % self.here)
        self.program(self.here / 'python', '#!/bin/sh\necho python "$@" '
                     '>>%s\n' % self.calls)

    def program(self, path, content):
        path.write_text(content)
        path.chmod(0o755)

    def command(self, name):
        self.program(self.here / 'commands' / name,
                     '#!/bin/sh\necho %s "$@" >>%s\n' % (name, self.calls))

    def run_devstack(self, what, check=True, services=SERVICES, **local):
        """Run stack, unstack or clean, with variables of local.conf."""
        result = subprocess.run(
            ['bash', '-c', '. %s/devstack/tests/devstack.sh; %s' % (
                TREE, what)],
            text=True, cwd=self.here, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env={
                'PATH': '%s/commands:%s' % (self.here, os.environ['PATH']),
                'CALLS': str(self.calls), 'PLUGIN': str(self.plugin),
                'CONF_DIR': str(self.here / 'etc'),
                'BIN_DIR': str(self.here / 'bin'),
                'DATA_DIR': str(self.here / 'data'),
                'STACK_USER': pwd.getpwuid(os.geteuid()).pw_name,
                'ENABLED_SERVICES': ','.join(services), **local})
        if check:
            self.assertEqual(0, result.returncode, result.stdout)
        else:
            self.assertNotEqual(0, result.returncode, result.stdout)
        return result.stdout

    def config(self, name):
        parser = configparser.RawConfigParser(default_section=None)
        parser.read(self.here / 'etc' / (name + '.conf'))
        return parser


class RealShareTestCase(PluginTestCase):

    def stack(self, **local):
        self.run_devstack('stack', **{
            'LUSTRE_SHARE': SHARE, 'LUSTRE_BACKUP_SHARE': BACKUPS, **local})

    def test_cinder(self):
        self.stack()
        conf = self.config('cinder')
        self.assertEqual({
            'enabled_backends': 'lustre',
            'backup_driver':
                'cinder.backup.drivers.lustre.LustreBackupDriver',
            'lustre_backup_share': BACKUPS}, dict(conf['DEFAULT']))
        self.assertEqual({
            'volume_driver': 'cinder.volume.drivers.lustre.LustreDriver',
            'volume_backend_name': 'lustre',
            'lustre_shares': SHARE}, dict(conf['lustre']))

    def test_options_are_there(self):
        """Whatever the plugin sets, with the sandbox as well."""
        known = re.findall(r'^#(lustre_\w+) =', SAMPLE.read_text(), re.M)
        used = re.findall(r'\b(lustre_\w+) \\?\n? *"?\$?\(?lustre',
                          (self.plugin / 'plugin.sh').read_text())
        self.assertEqual({'lustre_shares', 'lustre_file_system_types',
                          'lustre_backup_share',
                          'lustre_backup_file_system_types'}, set(used))
        self.assertEqual(set(), set(used) - set(known))

    def test_drivers_are_put_where_the_services_find_them(self):
        self.stack()
        link = 'python -B %s/tools/dev-link' % TREE
        self.assertLess({link, link + ' --nova'},
                        set(self.calls.read_text().splitlines()))
        self.run_devstack('clean', LUSTRE_SHARE=SHARE)
        self.assertLess({link + ' --remove', link + ' --nova --remove'},
                        set(self.calls.read_text().splitlines()))

    def test_nova(self):
        self.stack()
        self.assertEqual('lustre.LibvirtDriver', self.config('nova').get(
            'DEFAULT', 'compute_driver'))
        self.assertEqual('True', self.config('tempest').get(
            'compute-feature-enabled', 'attach_encrypted_volume'))

    def test_nova_as_it_is(self):
        self.stack(LUSTRE_NOVA_DRIVER='no')
        self.assertEqual('libvirt.LibvirtDriver', self.config('nova').get(
            'DEFAULT', 'compute_driver'))
        self.assertEqual('False', self.config('tempest').get(
            'compute-feature-enabled', 'attach_encrypted_volume'))
        self.assertNotIn('--nova', self.calls.read_text())

    def test_compute_host(self):
        """Of several hosts, the one that has servers only."""
        self.stack(services=('n-cpu',))
        self.assertEqual('lustre.LibvirtDriver', self.config('nova').get(
            'DEFAULT', 'compute_driver'))
        self.assertNotIn('openstack', self.calls.read_text())
        self.assertFalse((self.here / 'etc/cinder.conf').exists())
        self.assertIn('set LUSTRE_SHARE', self.run_devstack(
            'stack', check=False, services=('n-cpu',)))

    def test_other_backup_driver(self):
        self.stack(LUSTRE_BACKUP='False', LUSTRE_BACKUP_SHARE='')
        default = self.config('cinder')['DEFAULT']
        self.assertEqual('swift', default['backup_driver'])
        # It needs our connector to read our volumes.
        self.assertEqual('cinder.lustre.backup_manager.BackupManager',
                         default['backup_manager'])
        self.assertNotIn('lustre_backup_share', default)

    def test_with_other_back_ends(self):
        self.stack(CINDER_ENABLED_BACKENDS='lustre:fast,lvm:lvmdriver-1')
        conf = self.config('cinder')
        self.assertEqual('fast,lvmdriver-1',
                         conf['DEFAULT']['enabled_backends'])
        self.assertEqual('fast', conf['fast']['volume_backend_name'])
        self.assertNotIn('lustre:format=qcow2 lvm', self.calls.read_text())

    def test_without_a_back_end_of_ours(self):
        self.stack(CINDER_ENABLED_BACKENDS='lvm:lvmdriver-1',
                   LUSTRE_BACKUP='False')
        self.assertNotIn('lustre', (self.here / 'etc/cinder.conf').read_text())
        self.assertEqual('', self.calls.read_text())

    def test_volume_types(self):
        self.stack()
        self.assertIn('openstack volume type set lustre --property '
                      'lustre:format=qcow2\n', self.calls.read_text())
        self.assertNotIn('lustre:format=raw', self.calls.read_text())
        features = self.config('tempest')['volume-feature-enabled']
        self.assertEqual('False', features['extend_attached_volume'])

    def test_raw(self):
        self.stack(LUSTRE_VOLUME_FORMAT='raw',
                   ENABLE_VOLUME_MULTIATTACH='True')
        for volume_type in 'lustre', 'multiattach':
            self.assertIn('openstack volume type set %s --property '
                          'lustre:format=raw\n' % volume_type,
                          self.calls.read_text())
        features = self.config('tempest')['volume-feature-enabled']
        self.assertEqual('True', features['extend_attached_volume'])

    def test_tempest(self):
        self.stack()
        volume = self.config('tempest')['volume']
        driver = (TREE / 'cinder/volume/drivers/lustre.py').read_text()
        # What the driver reports, or no volume is made with a type that asks
        # for it.
        self.assertIn("vendor_name = '%s'" % volume['vendor_name'], driver)
        self.assertIn("driver_volume_type = '%s'" % volume['storage_protocol'],
                      driver)

    def test_again(self):
        """stack.sh may run twice, and gives the same."""
        self.stack()
        first = {path.name: path.read_text()
                 for path in (self.here / 'etc').iterdir()}
        self.stack()
        self.assertEqual(first, {path.name: path.read_text() for path in
                                 (self.here / 'etc').iterdir()})

    def refused(self, **local):
        return self.run_devstack('stack', check=False, **local)

    def test_no_share_for_backups(self):
        self.assertIn('set LUSTRE_BACKUP_SHARE',
                      self.refused(LUSTRE_SHARE=SHARE))
        self.run_devstack('stack', LUSTRE_SHARE=SHARE,
                          services=('c-api', 'c-vol'))

    def test_no_share_for_volumes(self):
        self.assertIn('set LUSTRE_SHARE',
                      self.refused(LUSTRE_BACKUP_SHARE=BACKUPS))

    def test_no_client(self):
        if os.path.exists('/sbin/mount.lustre'):
            self.skipTest('there is one on this machine')
        (self.here / 'commands/mount.lustre').unlink()
        self.assertIn('install the Lustre client', self.refused(
            LUSTRE_SHARE=SHARE, LUSTRE_BACKUP_SHARE=BACKUPS))


class SandboxTestCase(PluginTestCase):
    """With the sandbox itself, which is as real as elsewhere."""

    def setUp(self):
        super().setUp()
        if os.geteuid() != 0:
            self.skipTest('the sandbox needs root')
        # As long as we hold this nobody uninstalls what we use.
        lock = install.keep()
        was_there = install.is_installed()
        try:
            install.install()
        except state.SandboxError as error:
            lock.close()
            self.skipTest(str(error))
        if not was_there:
            self.addCleanup(self._uninstall)
        self.addCleanup(lock.close)
        (self.here / 'commands/mount.lustre').unlink()
        self.local = {
            'LUSTRE_SANDBOX_FSNAME': 'ds' + secrets.token_hex(3),
            'LUSTRE_SANDBOX_OST_SIZE': '1G'}
        self.addCleanup(self._destroy)

    @staticmethod
    def _uninstall():
        try:
            install.uninstall()
        except state.SandboxError:
            # Others have begun to use it.
            pass

    def _destroy(self):
        subprocess.run([TREE / 'sandbox/lustre-sandbox', 'destroy-all'],
                       env={**os.environ, 'LUSTRE_SANDBOX_STATE': str(
                           self.here / 'data/lustre-sandbox')})

    def mount(self, share, directory):
        directory.mkdir(parents=True, exist_ok=True)
        return subprocess.run(
            ['mount', '-t', 'lustre', '-o', 'flock', share, directory],
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def test_stack_and_unstack(self):
        self.run_devstack('stack', **self.local)
        conf = self.config('cinder')
        mounted = self.here / 'data/cinder/mnt/one'
        for section, prefix, place in (
                ('lustre', 'lustre_', mounted),
                ('DEFAULT', 'lustre_backup_',
                 self.here / 'data/cinder/lustre_backup_mount')):
            options = conf[section]
            self.assertEqual('lustre,xfs',
                             options[prefix + 'file_system_types'])
            share = options[prefix + (
                'shares' if section == 'lustre' else 'share')]
            result = self.mount(share, place)
            self.assertEqual(0, result.returncode, result.stdout)
            self.assertTrue(os.path.ismount(place))
            self.assertEqual(os.geteuid(), place.stat().st_uid)
        (mounted / 'volume').touch()

        # Once more, as after a stack.sh that has failed.
        self.run_devstack('stack', **self.local)
        self.assertFalse(os.path.ismount(mounted))
        self.mount(share, mounted)
        self.assertEqual([], os.listdir(mounted))

        self.run_devstack('unstack', **self.local)
        self.assertFalse(os.path.ismount(mounted))
        self.assertIsNone(state.load(self.local['LUSTRE_SANDBOX_FSNAME']))
        # Nor does it matter that there is none any more.
        self.run_devstack('unstack', **self.local)


class StandInTestCase(PluginTestCase):
    """What stands in for DevStack does what DevStack does."""

    def iniset(self, *options):
        path = self.here / 'etc/test.conf'
        for option in options:
            self.run_devstack('iniset %s %s' % (path, ' '.join(option)))
        return self.config('test')

    def test_iniset(self):
        conf = self.iniset(
            ('one', 'a', '1'), ('two', 'a', '2'), ('one', 'b', '3'),
            ('one', 'a', '"4 = @:/&"'), ('DEFAULT', 'ab', '5'),
            ('two', 'ab', '6'))
        self.assertEqual({'a': '4 = @:/&', 'b': '3'}, dict(conf['one']))
        self.assertEqual({'a': '2', 'ab': '6'}, dict(conf['two']))
        self.assertEqual({'ab': '5'}, dict(conf['DEFAULT']))

    def test_backup_driver_that_lib_cinder_does_not_know(self):
        shutil.copytree(TREE / 'devstack', self.here / 'plugin')
        self.plugin = self.here / 'plugin'
        with open(self.plugin / 'override-defaults', 'a') as file:
            file.write('CINDER_BACKUP_DRIVER=lustre\n')
        self.assertIn('not supported', self.run_devstack('load', check=False))
