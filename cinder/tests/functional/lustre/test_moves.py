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

"""Volumes that get another type or OST pool where they are."""

import os
import subprocess
import sys
from unittest import mock
import uuid

import ddt

from cinder.lustre import files
from cinder import objects
from cinder.objects import fields
from cinder.tests.functional.lustre import base
from cinder.tests.functional.lustre import managed
from cinder.tests.functional.lustre import stand_ins
from cinder.tests.functional.lustre import test_layouts
from cinder.tests.unit import utils as tests_utils
from cinder.volume import qos_specs

RAW = {'lustre__format': 'raw', 'provisioning__type': 'thin'}
QCOW2 = {'lustre__format': 'qcow2', 'provisioning__type': 'thin'}
WIDE = {'lustre__stripe_count': '3', 'lustre__stripe_size': '1M'}

CONF = """
[DEFAULT]
enabled_backends = lustre
state_path = %(temp)s
host = test
[database]
connection = sqlite:///%(temp)s/database
[coordination]
backend_url = file://%(temp)s
[oslo_concurrency]
lock_path = %(lock_path)s
[lustre]
volume_driver = cinder.volume.drivers.lustre.LustreDriver
lustre_mount_point_base = %(mounts)s
lustre_file_system_types = %(types)s
%(shares)s
"""


class MovesTestCase(managed.ManagerTestCase, test_layouts.LayoutTestCase):

    def setUp(self):
        super().setUp()
        self.use(self.driver)

    def use(self, driver):
        """Let the manager have a driver."""
        self.driver = self.manager.driver = driver
        driver.host = 'test@lustre'
        driver.set_initialized()

    def retype(self, volume, policy='never', host=None, **specs):
        """Let the manager change a volume's type."""
        before = volume.status
        volume.previous_status, volume.status = before, 'retyping'
        volume.save()
        self.manager.retype(self.context, volume, self.volume_type(**specs).id,
                            {'host': host or volume.host}, policy)
        return self.loaded(volume)

    def filled(self, **specs):
        """Make a volume with two snapshots, and data in each of its images."""
        volume = self.create(specs=specs)
        self.write(volume, 1)
        for pattern in 2, 3:
            self.snapshot(volume)
            self.write(volume, pattern, pattern * base.MIB)
        return volume, self.content(volume)

    def inodes(self):
        """Return the inodes of the images of the first share."""
        root, path = self.file_systems.roots[0]
        directory = path + self.shares[0][len(root):]
        return {name: os.stat(os.path.join(directory, name)).st_ino
                for name in self.layouts()}

    def attach(self, volume):
        tests_utils.attach_volume(self.context, volume.id, str(uuid.uuid4()),
                                  'host', '/dev/vda')
        return self.loaded(volume)


@ddt.ddt
class RetypeTest(MovesTestCase):

    @ddt.data(RAW, QCOW2)
    def test_another_layout(self, specs):
        volume, content = self.filled(**specs)
        inodes = self.inodes()
        for wanted, text in ((WIDE, test_layouts.WIDE),
                             ({'lustre__layout': test_layouts.PROGRESSIVE},
                              test_layouts.PROGRESSIVE),
                             ({'lustre__pool': 'cap'}, '-c 1 -S 4M -p cap')):
            volume = self.retype(volume, **{**specs, **wanted})
            self.assertEqual('available', volume.status)
            self.assertEqual(set(wanted), {
                key.replace(':', '__') for key in
                volume.volume_type.extra_specs} - set(specs))
            self.assert_layout(text, 3)
            self.assertEqual(inodes, self.inodes())
            self.assertEqual(content, self.content(volume))

    def test_new_files_have_the_new_layout(self):
        volume = self.retype(self.create(specs=RAW), **RAW, **WIDE)
        self.snapshot(volume)
        self.assert_layout(test_layouts.WIDE, 2)

    def test_thin_to_thick_and_back(self):
        volume = self.create(specs=RAW)
        self.write(volume, 1, 5 * base.MIB)
        self.write(volume, 0, 7 * base.MIB)
        content = self.content(volume)
        thick = dict(RAW, provisioning__type='thick')

        def taken():
            return os.stat(self.path(volume)).st_blocks * 512
        volume = self.retype(volume, **thick)
        self.assertGreaterEqual(taken(), base.GIB)
        self.assertEqual(content, self.content(volume))
        volume = self.retype(volume, **{**thick, **WIDE})
        self.assertGreaterEqual(taken(), base.GIB)
        volume = self.retype(volume, **RAW)
        self.assertLessEqual(taken(), 2 * base.MIB)
        self.assertEqual(content, self.content(volume))
        self.assertEqual([volume.name], self.listing())

    def test_thick_that_does_not_fit(self):
        volume = self.create(40, specs=RAW)
        self.assertIn('not allowed', str(self.failure_of(
            lambda: self.retype(volume, **dict(
                RAW, provisioning__type='thick')))))
        self.assertEqual('available', self.loaded(volume).status)
        self.assertEqual(0, os.stat(self.path(volume)).st_blocks)

    def test_pool_that_is_missing(self):
        volume = self.create(specs={**RAW, **WIDE})
        self.write(volume, 1)
        self.failure_of(lambda: self.retype(volume, lustre__pool='nopool'))
        volume = self.loaded(volume)
        self.assertEqual('available', volume.status)
        self.assert_layout(test_layouts.WIDE, 1)
        self.assert_reads(volume, 1)

    @ddt.data('layout', 'same')
    def test_attached(self, what):
        """It gets another type if its files stay as they are."""
        volume = self.create(specs=RAW)
        volume.status = 'in-use'
        volume.attach_status = fields.VolumeAttachStatus.ATTACHED
        volume.save()
        volume = self.attach(volume)
        before = self.layouts()
        if what == 'same':
            volume = self.retype(volume, **RAW, other='x')
            self.assertEqual('in-use', volume.status)
            self.assertIn('other', volume.volume_type.extra_specs)
        else:
            self.assertIn('not allowed', str(self.failure_of(
                lambda: self.retype(volume, **RAW, **WIDE))))
        self.assertEqual(before, self.layouts())

    def test_another_format_is_left_to_cinder(self):
        volume = self.create(specs=RAW)
        self.assertIn('not allowed', str(self.failure_of(
            lambda: self.retype(volume, **QCOW2))))
        with self.attached(volume) as connection:
            self.assertEqual('raw', connection['format'])

    def test_repeated_after_an_interruption(self):
        """Half of the images have been moved."""
        volume, content = self.filled(**QCOW2)
        base.run('lfs', 'migrate', '-c', '3', '-S', '1M', self.path(volume))
        volume = self.retype(volume, **QCOW2, **WIDE)
        self.assert_layout(test_layouts.WIDE, 3)
        self.assertEqual(content, self.content(volume))


@ddt.ddt
class OSTPoolMigrationTest(MovesTestCase):

    def setUp(self):
        super().setUp()
        self.use(self.new_driver(lustre_ost_pools=['flash', 'cap'],
                                 lustre_operation_timeout=60))
        self.names = {
            (number // 2, pool['lustre_pool']): pool['pool_name']
            for number, pool in enumerate(
                self.driver.get_volume_stats(refresh=True)['pools'])}

    def host(self, share, pool='flash'):
        return 'test@lustre#' + self.names[share, pool]

    def migrate(self, volume, host):
        volume.previous_status, volume.status = volume.status, 'maintenance'
        volume.save()
        self.manager.migrate_volume(self.context, volume, {'host': host})
        return self.loaded(volume)

    def test_to_another_pool_and_back(self):
        volume, content = self.filled(**QCOW2)
        inodes = self.inodes()
        for pool in 'cap', 'flash':
            volume = self.migrate(volume, self.host(0, pool))
            self.assertEqual(('available', 'success'),
                             (volume.status, volume.migration_status))
            self.assertEqual(self.host(0, pool), volume.host)
            self.assert_layout('-c 1 -S 4M -p ' + pool, 3)
            self.assertEqual(inodes, self.inodes())
            self.assertEqual(content, self.content(volume))
        self.snapshot(volume)
        self.assert_layout('-c 1 -S 4M -p flash', 4)

    def test_retype_into_another_pool(self):
        volume = self.create(specs=RAW)
        self.write(volume, 1)
        volume = self.retype(volume, 'on-demand', self.host(0, 'cap'),
                             **RAW, lustre__pool='cap')
        self.assertEqual(self.host(0, 'cap'), volume.host)
        self.assert_layout('-c 1 -S 4M -p cap', 1)
        self.assert_reads(volume, 1)

    def test_another_share_is_left_to_cinder(self):
        self.override_config('migration_create_volume_timeout_secs', 60)
        volume = self.create(specs=RAW)
        self.write(volume, 1)
        volume = self.migrate(volume, self.host(1, 'cap'))
        self.assertEqual(self.shares[1], volume.provider_location)
        self.assertEqual({'-c 1 -S 4M -p cap'},
                         set(self.layouts(1).values()))
        self.assert_reads(volume, 1)

    def test_type_that_wants_the_old_pool(self):
        volume = self.create(specs={**RAW, 'lustre__pool': 'flash'})
        error = self.failure_of(self.migrate, volume, self.host(0, 'cap'))
        self.assertIn('lustre:pool=flash', str(error))
        volume = self.loaded(volume)
        self.assertEqual(self.host(0), volume.host)
        self.assert_layout('-c 1 -S 4M -p flash', 1)

    def test_off_an_ost(self):
        volume, content = self.filled(**QCOW2)
        self.file_systems.fault(self.shares[0], 'ost-full=0')
        self.addCleanup(self.file_systems.heal, self.shares[0])
        self.driver.get_volume_stats(refresh=True)
        self.assertTrue(self.driver.lay_out_anew(volume))
        for path in self.layouts():
            self.assertEqual(['1'], base.run(
                'lfs', 'getstripe', '-i', os.path.join(
                    self.directory(volume), path)).split())
        self.assertEqual(content, self.content(volume))


@ddt.ddt
class DirectoryTest(MovesTestCase):
    """Migrations between two directories of one file system."""

    def setUp(self):
        super().setUp()
        root = self.file_systems.roots[0]
        patch = mock.patch.object(self.file_systems, 'roots', [root, root])
        patch.start()
        self.addCleanup(patch.stop)
        self.shares[1] = self._new_share(*root)
        self.use(self.new_driver(lustre_operation_timeout=60))

    def migrate(self, volume, share):
        volume.previous_status, volume.status = volume.status, 'maintenance'
        volume.save()
        self.manager.migrate_volume(self.context, volume,
                                    {'host': self.host(share)})
        return self.loaded(volume)

    @ddt.data(RAW, QCOW2)
    def test_there_and_back(self, specs):
        volume, content = self.filled(**specs, **WIDE)
        names, inodes = self.listing(0), self.inodes()
        for share in 1, 0:
            volume = self.migrate(volume, share)
            self.assertEqual(('available', self.shares[share]),
                             (volume.status, volume.provider_location))
            self.assertEqual(names, self.listing(share))
            self.assertEqual([], self.listing(1 - share))
            self.assertEqual(content, self.content(volume))
        self.assertEqual(inodes, self.inodes())
        self.assert_layout(test_layouts.WIDE, 3)
        self.delete(volume)
        self.assertEqual([], self.listing(0))

    STEPS = ('link', 'save', 'remove')

    @ddt.data(*((step, then) for step in STEPS
                for then in ('repeated', 'deleted', 'used')))
    @ddt.unpack
    def test_killed(self, step, then):
        """It was killed right after a step; all can be read, none is lost."""
        volume, content = self.filled(**QCOW2)
        names = self.listing(0)
        host = self.host(1)
        self.kill_after(step, volume, host)
        volume = self.loaded(volume)
        self.assertEqual(content, self.content(volume))
        if then == 'used':
            # Names that are left over don't follow.
            self.driver.revert_to_snapshot(
                self.context, volume, volume.snapshots[-1])
            content = self.content(volume)
        if then != 'deleted':
            share = 1 if step == 'link' else 0
            volume = self.migrate(volume, share)
            self.assertEqual(([], names), (self.listing(1 - share),
                                           self.listing(share)))
            self.assertEqual(content, self.content(volume))
        self.driver.delete_volume(self.of_tenant(volume))
        self.assertEqual(([], []), (self.listing(0), self.listing(1)))

    def kill_after(self, step, volume, host):
        def then_die(function):
            def work(*args, **kwargs):
                function(*args, **kwargs)
                raise SystemExit
            return work

        call = self.driver._client.call
        linked = then_die(call)

        def call_and_die(share, function, *args, **kwargs):
            return (linked if function is files.link else call)(
                share, function, *args, **kwargs)

        with {'link': mock.patch.object(self.driver._client, 'call',
                                        call_and_die),
              'save': mock.patch.object(objects.Volume, 'save', then_die(
                  objects.Volume.save)),
              'remove': mock.patch.object(
                  self.driver, '_forget_second_names',
                  side_effect=SystemExit)}[step]:
            self.assertRaises(SystemExit, self.driver.migrate_volume,
                              self.context, volume, {'host': host})

    def test_first_names_that_can_not_be_removed(self):
        """It has been moved; the names go with its deletion."""
        volume, content = self.filled(**QCOW2)
        with mock.patch.object(self.driver, '_remove_names',
                               side_effect=OSError(5, 'x')):
            volume = self.migrate(volume, 1)
        self.assertEqual(self.shares[1], volume.provider_location)
        self.assertEqual(self.listing(0), self.listing(1))
        self.assertEqual(content, self.content(volume))
        self.delete(volume)
        self.assertEqual(([], []), (self.listing(0), self.listing(1)))

    def test_a_name_that_is_taken(self):
        """All or none; then Cinder copies."""
        self.override_config('migration_create_volume_timeout_secs', 60)
        volume = self.create(specs=RAW)
        self.write(volume, 1)
        root, path = self.file_systems.roots[0]
        other = os.path.join(path + self.shares[1][len(root):], volume.name)
        with open(other, 'w') as f:
            f.write('not ours')
        volume = self.migrate(volume, 1)
        self.assertEqual(self.shares[1], volume.provider_location)
        self.assert_reads(volume, 1)
        with open(other) as f:
            self.assertEqual('not ours', f.read())


class CommandTest(MovesTestCase):
    """cinder-lustre, as an operator runs it."""

    def setUp(self):
        super().setUp()
        self.useFixture(stand_ins.DatabaseFile(
            os.path.join(self.temp, 'database')))
        self.conf = os.path.join(self.temp, 'cinder.conf')
        with open(self.conf, 'w') as f:
            f.write(CONF % {
                'temp': self.temp, 'mounts': self.mount_base,
                'lock_path': base.CONF.oslo_concurrency.lock_path,
                'types': ','.join(base.FILE_SYSTEM_TYPES),
                'shares': '\n'.join('lustre_shares = ' + share
                                    for share in self.shares)})
        self.share = self.driver.share_names()[0]

    def command(self, *words, code=0):
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', '-m', 'cinder.lustre.manage',
             '--config-file', self.conf, *words],
            cwd='/', capture_output=True, text=True, stdin=subprocess.DEVNULL)
        self.assertEqual(code, done.returncode, done.stdout + done.stderr)
        return done.stdout + (done.stderr if code else '')

    def test_show(self):
        volume, _content = self.filled(**QCOW2, **WIDE)
        other = self.create(specs={'lustre__pool': 'flash'})
        output = self.command('show', volume.id)
        self.assertNotIn(other.id, output)
        self.assertEqual(3, output.count('-c 3 -S 1M on OST '))
        self.assertIn('%s  %s  -c 1 -S 4M -p flash on OST ' % (
            other.id, other.name), self.command('show'))

    def test_empty_an_ost(self):
        volume, content = self.filled(**QCOW2, lustre__stripe_count='4')
        attached = self.create(specs={'lustre__stripe_count': '4'})
        attached.status = 'in-use'
        attached.save()
        self.create(specs={'lustre__stripe_count': '4'}, share=1)
        output = self.command('on', self.share, '2')
        self.assertEqual({volume.id, attached.id},
                         {line.split()[0] for line in output.splitlines()})

        # An MDS that goes on making objects there: nothing is hidden.
        output = self.command('empty', self.share, '2', code=1)
        self.assertIn('max_create_count', output)

        self.file_systems.fault(self.shares[0], 'ost-inactive=2')
        self.addCleanup(self.file_systems.heal, self.shares[0])
        output = self.command('empty', self.share, '2', code=1)
        self.assertIn('%s  moved' % volume.id, output)
        self.assertIn('%s  left where it is: it is attached' % attached.id,
                      output)
        self.assertEqual(content, self.content(volume))
        attached.status = 'available'
        attached.save()
        self.assertIn('%s  moved' % attached.id,
                      self.command('empty', self.share, '2'))
        self.assertEqual('', self.command('on', self.share, '2'))

    def test_rates(self):
        qos = qos_specs.create(self.context, 'qos', {
            'consumer': 'front-end', 'total_iops_sec_per_gb': '100'})
        volume_type = self.volume_type()
        qos_specs.associate_qos_with_type(self.context, qos.id,
                                          volume_type.id)
        limited = self.create(size=2, volume_type_id=volume_type.id)
        free = self.create()
        output = self.command('rates', code=1)
        self.assertIn('Without a project (lustre_projects): ', output)
        self.assertNotIn('start', output)
        with open(self.conf, 'a') as f:
            f.write('lustre_projects = 5-4000000000\n')
        shown = self.command('show', limited.id)
        number = shown.rpartition('project ')[2].strip()
        output = self.command('rates')
        self.assertIn('lctl set_param ost.OSS.ost_io.nrs_tbf_rule="start '
                      'vol{0} projid={{{0}}} rate=200"\n'.format(number),
                      output)
        self.assertIn('# %s\n' % limited.id, output)
        self.assertNotIn(free.id, output)

    def test_a_share_that_is_not_there(self):
        output = self.command('empty', 'elsewhere', '2', code=2)
        self.assertIn("share 'elsewhere'", output)
        self.assertIn(self.share, output)
