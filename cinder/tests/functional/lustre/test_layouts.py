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

"""The layout of every file that the drivers make, on real files."""

import os
import re
import subprocess
import unittest
from unittest import mock

import ddt

from cinder.backup.drivers import lustre as lustre_backup
from cinder import exception
from cinder.lustre import layout
from cinder.lustre import places
from cinder.objects import fields
from cinder.scheduler import host_manager
from cinder.tests.functional.lustre import base
from cinder.tests.functional.lustre import stand_ins
from cinder.tests.unit import fake_constants
from cinder.tests.unit import utils as tests_utils
from os_brick.remotefs import lustre_child

MIB = base.MIB

# What tests ask for: none is what a file gets by itself.
WIDE = '-c 3 -S 1M'
PROGRESSIVE = '-E 1M -c 1 -S 1M -E -1 -c 2 -S 1M'

KINDS = (('thin', 'qcow2'), ('thin', 'raw'), ('thick', 'raw'),
         ('thick', 'qcow2'))


def real_layout(path):
    """Return a file's layout as lfs tells it, in options of lfs setstripe."""
    found = layout.Found.parse(base.run('lfs', 'getstripe', path))
    parts = [part.component for part in found.parts]
    return str(layout.Layout(tuple(parts), len(parts) > 1))


class LayoutTestCase(base.LustreTestCase):

    def setUp(self):
        super().setUp()
        # Encryption takes its time on a busy machine.
        self.driver = self.new_driver(lustre_operation_timeout=60)
        if not self.file_systems.sandboxed:
            raise unittest.SkipTest(
                'it needs a share with four OSTs and the pools flash (0, 1), '
                'cap (2, 3) and empty: see 04-layouts')

    def layouts(self, share=0):
        """Return the layouts of a share's images, by their names."""
        root, path = self.file_systems.roots[share]
        directory = path + self.shares[share][len(root):]
        return {name: real_layout(os.path.join(directory, name))
                for name in self.listing(share) if not name.endswith('.info')}

    def assert_layout(self, expected, count=None):
        """Check that all images of the first share have this layout."""
        found = self.layouts()
        self.assertEqual({expected}, set(found.values()), found)
        if count is not None:
            self.assertEqual(count, len(found), found)

    def specs(self, text, **specs):
        if text.startswith('-E'):
            return {'lustre__layout': text, **specs}
        words = dict(re.findall(r'(-\w) (\S+)', text))
        names = {'-c': 'stripe_count', '-S': 'stripe_size', '-p': 'pool'}
        return {**{'lustre__' + names[option]: value
                   for option, value in words.items()}, **specs}


@ddt.ddt
class EveryFileTest(LayoutTestCase):

    @ddt.data(*((text, *kind) for text in (WIDE, PROGRESSIVE)
                for kind in KINDS))
    @ddt.unpack
    def test_life_of_a_volume(self, text, provisioning, image_format):
        specs = self.specs(text, provisioning__type=provisioning,
                           lustre__format=image_format)
        volume = self.create(specs=specs)
        self.assert_layout(text, 1)
        self.write(volume, 1)
        first = self.snapshot(volume)
        self.write(volume, 2)
        second = self.snapshot(volume)
        self.assert_layout(text, 3)
        clone = self.clone(volume, 2, specs=specs)
        other = self.from_snapshot(first, specs=specs)
        self.assert_layout(text, 5)
        self.driver.revert_to_snapshot(self.context, volume, second)
        self.extend(clone, 3)
        self.delete_snapshot(first)
        self.assert_layout(text, 4)
        self.delete_snapshot(second)
        self.assert_layout(text, 3)
        self.assert_reads(volume, 2)
        self.assert_reads(other, 1)
        for each in volume, clone, other:
            self.delete(each)
        self.assertEqual([], self.listing())

    def test_image(self):
        volume = self.create(specs=self.specs(WIDE))
        path = os.path.join(self.temp, 'image')
        base.run('qemu-img', 'create', '-q', '-f', 'qcow2', path, '8M')
        base.run('qemu-io', '-f', 'qcow2', '-c', 'write -P 7 1M 1M', path)
        for _image in 'base', 'overlay':
            self.driver.copy_image_to_volume(
                self.context, volume, stand_ins.ImageService(path, 'qcow2'),
                fake_constants.IMAGE_ID)
            self.assert_reads(volume, 7, MIB)
            self.assert_layout(WIDE)
            self.snapshot(volume)

    def test_encrypted(self):
        volume = self.create(**self.encrypted(specs=self.specs(WIDE)))
        self.write(volume, 1)
        self.snapshot(volume)
        self.clone(volume, **self.encrypted(
            volume_type_id=volume.volume_type_id))
        self.assert_layout(WIDE, 3)

    @ddt.data('Unable to get accurate CPU usage', 'Operation not supported')
    def test_a_file_that_qemu_could_not_create(self, error):
        """It removes such a file, and another attempt is made."""
        specs = self.specs(WIDE, provisioning__type='thick',
                           lustre__format='qcow2')
        volume = self.create(specs=specs)
        call, failed = places.Place.call, []

        def fail_once(place, function, *args, **kwargs):
            if function is lustre_child.run_with and not failed:
                path = next(arg for arg in args if str(arg).endswith('.new'))
                failed.append(path)
                os.unlink(path)
                return 1, '', error
            return call(place, function, *args, **kwargs)

        with mock.patch.object(places.Place, 'call', fail_once):
            self.clone(volume, specs=specs)
        self.assertEqual(1, len(failed))
        self.assert_layout(WIDE, 2)
        for name in self.listing():
            path = os.path.join(os.path.dirname(self.path(volume)), name)
            self.assertEqual(0o660, os.stat(path).st_mode & 0o777)

    def test_restored(self):
        """cinder-backup opens the file so that it is truncated."""
        volume = self.create(specs=self.specs(
            WIDE, lustre__format='raw'))
        with open(self.path(volume), 'wb') as file:
            file.write(b'restored')
        volume.status = 'restoring-backup'
        self.driver.terminate_connection(volume, {})
        self.assertEqual(base.GIB, os.stat(self.path(volume)).st_size)
        self.assert_layout(WIDE, 1)


@ddt.ddt
class ChoiceTest(LayoutTestCase):

    def test_nothing_is_asked_for(self):
        """Then there is no call of lfs, and the directory decides."""
        directory = os.path.dirname(self.path(self.volume_record()))
        base.run('lfs', 'setstripe', '-c', '2', directory)
        with mock.patch.object(layout, 'lfs',
                               side_effect=AssertionError):
            volume = self.create()
            self.snapshot(volume)
        self.assert_layout('-c 2 -S 4M', 2)

    def test_options_and_types(self):
        self.driver = self.new_driver(lustre_stripe_count=2,
                                      lustre_pool='cap')
        self.create()
        self.create(specs={'lustre__stripe_count': '1'})
        self.create(specs={'lustre__pool': 'flash'})
        self.create(specs={'lustre__layout': PROGRESSIVE})
        self.assertEqual(
            ['-E 1M -c 1 -S 1M -p cap -E -1 -c 2 -S 1M -p cap',
             '-c 1 -S 4M -p cap', '-c 2 -S 4M -p cap', '-c 2 -S 4M -p flash'],
            sorted(self.layouts().values()))

    @ddt.data((1024, '-c 1 -S 4M', 1), (1025, None, 2),
              (20 * 1024, None, 3))
    @ddt.unpack
    def test_grows_with_the_volume(self, size, text, parts):
        """A file system of 16 GiB holds them as long as they are empty."""
        self.create(size, specs={'lustre__format': 'raw'})
        if text:
            self.assert_layout(text)
            return
        found = layout.Found.parse(base.run(
            'lfs', 'getstripe', os.path.join(
                self.file_systems.roots[0][1]
                + self.shares[0][len(self.file_systems.roots[0][0]):],
                *self.listing())))
        self.assertEqual([1, 4, 4][:parts],
                         [len(part.osts) for part in found.parts
                          if part.osts])

    @ddt.data('nopool', 'empty')
    def test_no_such_pool(self, name):
        error = self.failure_of(self.create_with_pool, name)
        self.assertIsInstance(error, layout.LayoutRefused)
        for word in ("'%s'" % name, 'volume type type-', self.shares[0]):
            self.assertIn(word, str(error))
        self.assertEqual([], self.listing())

    def create_with_pool(self, name):
        self.create(specs={'lustre__pool': name})

    @ddt.data(('stripe_size', '100K'), ('stripe_count', '3000'),
              ('pool', 'other.flash'), ('layout', '-c 1; reboot'))
    @ddt.unpack
    def test_bad_specs(self, name, value):
        volume_type = self.volume_type(**{'lustre__' + name: value})
        error = self.failure_of(
            lambda: self.create(volume_type_id=volume_type.id))
        self.assertIsInstance(error, exception.InvalidVolumeType)
        for word in ('lustre:' + name, value, volume_type.name):
            self.assertIn(word, str(error))
        self.assertEqual([], self.listing())

    def test_a_bad_type_does_not_keep_a_volume(self):
        volume = self.create(specs={'lustre__stripe_count': '2'})
        volume.volume_type.extra_specs['lustre:stripe_count'] = 'x'
        volume.volume_type.save()
        self.delete(volume)
        self.assertEqual([], self.listing())

    def test_full_pool(self):
        volume = self.volume_record(specs={'lustre__pool': 'flash'})
        self.file_systems.fault(self.shares[0], 'ost-full=0', 'ost-full=1')
        self.addCleanup(self.file_systems.heal, self.shares[0])
        error = self.failure_of(self.driver.create_volume, volume)
        self.assertIn('No space left on device', str(error))
        self.assertEqual([], self.listing())

    def test_more_stripes_than_osts(self):
        self.create(specs={'lustre__stripe_count': '9'})
        self.assert_layout('-c 4 -S 4M')


class OSTPoolsTest(LayoutTestCase):

    def setUp(self):
        super().setUp()
        self.driver = self.new_driver(lustre_ost_pools=['flash', 'cap'],
                                      lustre_operation_timeout=60)
        self.addCleanup(self.file_systems.heal, self.shares[0])

    def fault(self, *faults):
        self.file_systems.fault(self.shares[0], *faults)

    def report(self, share=0):
        """Return the pools of a share, as the scheduler gets them."""
        pools = self.driver.get_volume_stats(refresh=True)['pools']
        return {pool['lustre_pool']: pool for pool in pools[2 * share:][:2]}

    def host(self, share):
        """The capability filter has found the flash pool."""
        return 'test@lustre#' + self.report(share)['flash']['pool_name']

    def test_report(self):
        report = self.report()
        self.assertEqual(['cap', 'flash'], sorted(report))
        for name, pool in report.items():
            self.assertEqual('up', pool['backend_state'])
            self.assertAlmostEqual(8, pool['total_capacity_gb'], 0)
            self.assertTrue(pool['pool_name'].endswith('+' + name))

    def test_the_pools_of_the_scheduler(self):
        """Its filters find a pool by the type, as long as that has room."""
        scheduler = host_manager.HostManager()
        specs = {'lustre_pool': 'cap', 'volume_backend_name': 'Lustre'}
        found = []
        for faults in (), ('ost-full=2', 'ost-down=3'):
            self.fault(*faults or ('clear',))
            stats = self.driver.get_volume_stats(refresh=True)
            backend = host_manager.BackendState('test@lustre', None)
            backend.update_from_volume_capability(
                dict(stats, timestamp=None), {'updated_at': None})
            found.append([pool.pool_name.rpartition('+')[2] for pool in
                          scheduler.get_filtered_backends(
                              backend.pools.values(), {
                                  'size': 1,
                                  'resource_type': {'extra_specs': specs},
                                  'volume_type': {'extra_specs': specs},
                                  'request_spec': {}},
                              ['CapacityFilter', 'CapabilitiesFilter'])])
        # There are two shares.
        self.assertEqual([['cap', 'cap'], ['cap']], found)

    def test_files_are_where_the_scheduler_wants_them(self):
        volume = self.create()
        self.write(volume, 1)
        snapshot = self.snapshot(volume)
        self.from_snapshot(snapshot)
        self.assert_layout('-c 1 -S 4M -p flash', 3)
        self.assert_reads(volume, 1)

    def test_type_and_scheduler_disagree(self):
        error = self.failure_of(lambda: self.create(
            specs={'lustre__pool': 'cap'}))
        self.assertIsInstance(error, exception.InvalidVolumeType)
        for word in 'lustre:pool=cap', 'OST pool flash', 'lustre_pool=cap':
            self.assertIn(word, str(error))
        self.assertEqual([], self.listing())
        self.create(specs={'lustre__pool': 'flash'})

    def test_an_ost_is_gone(self):
        """New files are on the other one, also where that isn't its turn."""
        self.fault('ost-down=0')
        self.assertAlmostEqual(4, self.report()['flash']
                               ['total_capacity_gb'], 0)
        for _volume in range(4):
            volume = self.create()
            self.assertEqual([1], layout.Found.parse(base.run(
                'lfs', 'getstripe', self.path(volume))).osts)

    def test_all_osts_are_gone(self):
        record = self.volume_record()
        self.fault('ost-down=0', 'ost-inactive=1')
        self.assertEqual('down', self.report()['flash']['backend_state'])
        self.assertEqual('up', self.report()['cap']['backend_state'])
        error = self.failure_of(self.driver.create_volume, record)
        self.assertIn('-OST0000, which does not answer', str(error))
        self.assertEqual([], self.listing())

    def test_adopted(self):
        """A file becomes a volume of the OST pool that it is in."""
        record = self.volume_record(0, status='managing')
        directory = os.path.dirname(self.path(record))
        reference = {'source-name': 'disk'}
        path = os.path.join(directory, 'disk')
        base.run('lfs', 'setstripe', '-p', 'cap', path)
        base.run('truncate', '-s', '1M', path)
        error = self.failure_of(self.driver.manage_existing, record,
                                reference)
        self.assertIn('lfs migrate -p flash', str(error))
        self.assertEqual(['disk'], self.listing())
        base.run('lfs', 'migrate', '-p', 'flash', path)
        self.driver.manage_existing(record, reference)
        self.assertEqual([record.name], self.listing())

    def test_volumes_of_before(self):
        """Those that have the share's pool go on."""
        others = self.new_driver(lustre_operation_timeout=60,
                                 lustre_ost_pools=[])
        now, self.driver = self.driver, others
        pools = others.get_volume_stats(refresh=True)['pools']
        volume = tests_utils.create_volume(
            self.context, size=1, status='creating',
            host='test@lustre#' + pools[0]['pool_name'],
            volume_type_id=self.volume_type().id)
        volume = self._created(volume, others.create_volume(volume))
        self.driver = now
        self.extend(volume, 2)
        snapshot = self.snapshot(volume)
        self.delete_snapshot(snapshot)
        self.delete(volume)


class BackupTest(LayoutTestCase):

    def setUp(self):
        super().setUp()
        types = base.FILE_SYSTEM_TYPES
        for name, value in {
                'share': self.shares[1], 'layout': '-c 2 -S 2M -p cap',
                'mount_point': os.path.join(self.temp, 'backup'),
                'mount_timeout': 60, 'file_system_types': types}.items():
            self.override_config('lustre_backup_' + name, value)
        self.backups = lustre_backup.LustreBackupDriver(self.context)
        self.backups.check_for_setup_error()
        self.addCleanup(subprocess.run,
                        ['umount', '-l', self.backups.backup_path],
                        capture_output=True)

    def back_up(self, volume):
        backup = tests_utils.create_backup(self.context, volume.id, size=1)
        backup.container = None
        with open(self.path(volume), 'rb') as file:
            self.backups.backup(backup, file)
        return backup

    def test_every_file(self):
        volume = self.create(specs={'lustre__format': 'raw'})
        self.write(volume, 7)
        backup = self.back_up(volume)
        directory = os.path.join(self.backups.backup_path, backup.container)
        names = os.listdir(directory)
        self.assertLess(2, len(names))
        for name in names:
            path = os.path.join(directory, name)
            self.assertEqual('-c 2 -S 2M -p cap', real_layout(path))
            self.assertEqual(0o660, os.stat(path).st_mode & 0o777)
        target = self.create(specs={'lustre__format': 'raw'})
        backup.status = fields.BackupStatus.RESTORING
        backup.save()
        with open(self.path(target), 'wb') as file:
            self.backups.restore(backup, target.id, file, True)
        self.assert_reads(target, 7)

    def test_no_such_pool(self):
        self.override_config('lustre_backup_layout', '-p nopool')
        self.backups = lustre_backup.LustreBackupDriver(self.context)
        error = self.failure_of(self.back_up, self.create(
            specs={'lustre__format': 'raw'}))
        for word in 'nopool', 'lustre_backup_layout', self.shares[1]:
            self.assertIn(word, str(error))
