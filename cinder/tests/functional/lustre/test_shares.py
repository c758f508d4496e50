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

"""Shares that are missing, hang, are full or are not what they should be."""

import contextlib
import glob
import itertools
import os
import time
from unittest import mock

import ddt

from cinder import exception
from cinder.lustre import capacity
from cinder.tests.functional.lustre import base
from cinder.tests.functional.lustre import stand_ins
from cinder.tests.unit import utils as tests_utils
from cinder.volume.drivers import lustre
from os_brick.remotefs import lustre as lustre_brick

THICK = {'provisioning__type': 'thick'}


class SharesTestCase(base.LustreTestCase):
    """Tests with a share that fails (the first) and one that does not."""

    def new_driver(self, **options):
        return super().new_driver(**dict({
            'lustre_mount_attempts': 1, 'lustre_mount_timeout': 3,
            'lustre_operation_timeout': 2}, **options))

    def states(self):
        """Ask for a new report, and tell which pools are up."""
        pools = self.driver.get_volume_stats(refresh=True)['pools']
        return [pool['backend_state'] for pool in pools]

    def mount_point(self, share=0):
        return self.driver._get_mount_point_for_share(self.shares[share])

    @contextlib.contextmanager
    def fault(self, *faults):
        """Switch a fault of the first share on."""
        if not self.file_systems.sandboxed:
            self.skipTest('faults need the sandbox, not $LUSTRE_SHARE')
        self.addCleanup(self.file_systems.heal, self.shares[0])
        self.file_systems.fault(self.shares[0], *faults)
        yield
        self.file_systems.heal(self.shares[0])

    @contextlib.contextmanager
    def mounted(self, *arguments):
        """Mount something over the first share."""
        directory = self.mount_point()
        base.run('mount', *arguments, directory)
        try:
            yield directory
        finally:
            base.run('umount', directory)

    def requests(self, volume, snapshot):
        """What a user may ask for, as functions that must fail."""
        driver, context = self.driver, self.context
        image = os.path.join(self.temp, 'image')
        with open(image, 'wb') as file:
            file.truncate(base.MIB)
        service = stand_ins.ImageService(image, 'raw')

        def new(share=0):
            return self.volume_record(share=share)

        return {
            'create': lambda: driver.create_volume(new()),
            'clone': lambda: driver.create_cloned_volume(new(1), volume),
            'clone to it': lambda: driver.create_cloned_volume(
                new(), self.healthy),
            'from snapshot': lambda: driver.create_volume_from_snapshot(
                new(1), snapshot),
            'from image': lambda: driver.copy_image_to_volume(
                context, volume, service, 'image'),
            'to image': lambda: driver.copy_volume_to_image(
                context, volume, service, {'id': 'image',
                                           'disk_format': 'raw'}),
            'extend': lambda: driver.extend_volume(volume, 2),
            'snapshot': lambda: driver.create_snapshot(
                self.snapshot_record(volume)),
            'delete snapshot': lambda: driver.delete_snapshot(snapshot),
            'revert': lambda: driver.revert_to_snapshot(context, volume,
                                                        snapshot),
            'attach': lambda: driver.initialize_connection(volume, {}),
            'delete': lambda: driver.delete_volume(volume),
        }

    def make_volumes(self):
        self.healthy = self.create(share=1)
        volume = self.create()
        self.write(volume, 1)
        snapshot = self.snapshot(volume)
        self.write(volume, 2, base.MIB)
        return volume, snapshot

    def assert_all_fail(self, volume, snapshot, message, seconds=10):
        for name, request in self.requests(volume, snapshot).items():
            started = time.monotonic()
            error = self.failure_of(request)
            self.assertIn(message, str(error), name)
            self.assertLess(time.monotonic() - started, seconds, name)

    def assert_works(self, share):
        volume = self.create(share=share)
        self.write(volume, 6)
        self.snapshot(volume)
        self.assert_reads(volume, 6)
        self.driver.delete_volume(volume)

    def assert_intact(self, volume, snapshot):
        """Nothing of what failed has left anything or changed anything."""
        self.assert_reads(volume, 1)
        self.assert_reads(volume, 2, base.MIB)
        self.check(volume)
        self.delete_snapshot(snapshot)
        self.assert_reads(volume, 2, base.MIB)
        self.delete(volume)
        self.assertEqual([], self.listing())


class MissingShareTest(SharesTestCase):

    def test_missing(self):
        volume, snapshot = self.make_volumes()
        with self.fault('missing'):
            self.assertEqual(['down', 'up'], self.states())
            self.assert_all_fail(volume, snapshot, 'is not mounted')
            self.assertEqual([], os.listdir(self.mount_point()))
            self.assert_works(1)
        self.assertEqual(['up', 'up'], self.states())
        self.assert_intact(volume, snapshot)

    def test_unmounted_only(self):
        """It is mounted again with the next report."""
        volume, snapshot = self.make_volumes()
        base.run('umount', self.mount_point())
        self.assert_all_fail(volume, snapshot, 'is not mounted')
        self.assertEqual([], os.listdir(self.mount_point()))
        self.assertEqual(['up', 'up'], self.states())
        self.assert_intact(volume, snapshot)

    def test_unmounted_in_the_middle(self):
        """A file that is not found where the share was is not removed."""
        number = 0
        unmounted = True
        while unmounted:
            number += 1
            volume = self.create()
            with self.unmounted_before_call(number):
                error = self.failure_or_none(self.driver.delete_volume,
                                             volume)
            unmounted = not os.path.ismount(self.mount_point())
            self.assertEqual(unmounted, error is not None, number)
            if unmounted:
                self.assertLessEqual({*os.listdir(self.mount_point())},
                                     {lustre_brick.LOCK_FILE})
                self.assertEqual(['up', 'up'], self.states())
                self.driver.delete_volume(volume)
            self.assertEqual([], self.listing())
        self.assertGreater(number, 5)

    @contextlib.contextmanager
    def unmounted_before_call(self, number):
        """Unmount the share before a call on it, counted from 1."""
        count, call = itertools.count(1), self.driver._client.call

        def counted(*args, **kwargs):
            if next(count) == number:
                base.run('umount', '-l', self.mount_point())
            return call(*args, **kwargs)

        with mock.patch.object(self.driver._client, 'call', counted):
            yield

    @staticmethod
    def failure_or_none(function, *args):
        try:
            function(*args)
        except Exception as exc:
            return exc

    def test_detach(self):
        """A volume is not kept attached by a share that is gone."""
        volume = self.create()
        with self.fault('missing'):
            volume.status = 'detaching'
            self.driver.terminate_connection(volume, {})
            volume.status = 'restoring-backup'
            self.assertRaises(lustre_brick.ShareUnavailable,
                              self.driver.terminate_connection, volume, {})

    def test_start(self):
        volume = self.create()
        volume.status = 'in-use'
        with self.fault('missing'):
            self.driver = self.new_driver()
            self.driver.ensure_export(self.context, volume)
            self.assertEqual(['down', 'up'], self.states())
            self.assert_works(1)
        self.assertEqual(['up', 'up'], self.states())
        self.assert_works(0)

    def test_start_leaves_mounts_alone(self):
        self._unmount()
        self.states()
        before = lustre_brick.mounted_at(self.mount_point())
        with open(os.path.join(self.mount_point(), 'guest'), 'w') as image:
            self.driver = self.new_driver()
            image.write('still there')
        self.assertIsNotNone(before)
        self.assertEqual(before, lustre_brick.mounted_at(self.mount_point()))


class HungTestCase(SharesTestCase):
    """Tests with a share that does not answer."""

    def children(self):
        """Count the processes that make calls on shares."""
        return self.children_of(os.getpid())

    @staticmethod
    def children_of(service):
        found = 0
        for path in glob.glob('/proc/[0-9]*/cmdline'):
            with contextlib.suppress(OSError), open(path) as cmdline, open(
                    path.replace('cmdline', 'stat')) as stat:
                parent = int(stat.read().rpartition(')')[2].split()[1])
                if ('lustre_child' in cmdline.read() and
                        parent == service):
                    found += 1
        return found

    def wait_until_up(self):
        """The waiting calls end, and then the next one is made."""
        deadline = time.monotonic() + 10
        while self.states() != ['up', 'up']:
            self.assertLess(time.monotonic(), deadline,
                            self.driver._survey._down)
            time.sleep(0.1)


class HungShareTest(HungTestCase):

    def test_hung(self):
        volume, snapshot = self.make_volumes()
        before = self.children()
        with self.fault('hang'):
            started = time.monotonic()
            self.assertEqual(['down', 'up'], self.states())
            self.assertLess(time.monotonic() - started,
                            capacity._PATIENCE + 2)
            # The report's call is the one that hangs.
            self.assert_all_fail(volume, snapshot, 'does not answer', 1)
            self.assert_works(1)
            for _report in range(3):
                self.assertEqual(['down', 'up'], self.states())
            self.assertLessEqual(self.children(), before + 2)
        self.wait_until_up()
        self.assert_intact(volume, snapshot)

    def test_hung_between_reports(self):
        """The first request waits as long as it may, the others don't."""
        volume, snapshot = self.make_volumes()
        before = self.children()
        with self.fault('hang'):
            started = time.monotonic()
            error = self.assertRaises(
                lustre_brick.ShareUnavailable,
                self.driver.initialize_connection, volume, {})
            self.assertLess(time.monotonic() - started, 4)
            self.assertIn('has not returned within 2 s', str(error))
            self.assert_all_fail(volume, snapshot, 'does not answer', 1)
            self.assertLessEqual(self.children(), before + 2)
        self.wait_until_up()
        self.assert_intact(volume, snapshot)

    def test_detach(self):
        volume = self.create()
        with self.fault('hang'):
            volume.status = 'detaching'
            self.driver.terminate_connection(volume, {})
        self.wait_until_up()

    def test_survey_has_an_end(self):
        """A report waits less than a request may."""
        self.driver = self.new_driver(lustre_operation_timeout=60)
        with self.fault('hang'):
            started = time.monotonic()
            self.assertEqual(['down', 'up'], self.states())
            self.assertLess(time.monotonic() - started,
                            capacity._PATIENCE + 2)
        self.wait_until_up()

    def test_start_with_a_hung_share(self):
        self._unmount()
        with self.fault('hang'):
            started = time.monotonic()
            self.driver = self.new_driver()
            self.assertEqual(['down', 'up'], self.states())
            self.assertLess(time.monotonic() - started, 10)
            self.assert_works(1)
        self.wait_until_up()
        self.assert_works(0)


class WrongMountTest(SharesTestCase):

    def assert_refused(self, *mount, message):
        volume, snapshot = self.make_volumes()
        with self.mounted(*mount) as directory:
            before = os.listdir(directory)
            self.assertEqual(['down', 'up'], self.states())
            self.assert_all_fail(volume, snapshot, message)
            self.assertEqual(before, os.listdir(directory))
            self.assert_works(1)
        self.assertEqual(['up', 'up'], self.states())
        self.assert_intact(volume, snapshot)

    def test_another_type(self):
        self.assert_refused('-t', 'tmpfs', 'nobody',
                            message='has the type tmpfs, not lustre')

    def test_another_share(self):
        self.assert_refused('--bind', self.mount_point(1),
                            message='is %s' % self.shares[1])

    def test_another_directory(self):
        """A bind has the source of what it is bound from."""
        directory = os.path.join(self.temp, 'bound')
        os.mkdir(directory)
        self.assert_refused('--bind', directory,
                            message='what is mounted at')


class FullShareTest(SharesTestCase):

    def test_full(self):
        volume, snapshot = self.make_volumes()
        before = self.listing()
        with self.fault('full'):
            pool = self.driver.get_volume_stats(refresh=True)['pools'][0]
            self.assertEqual('up', pool['backend_state'])
            self.assertLess(pool['free_capacity_gb'], 0.1)
            error = self.assertRaises(
                exception.VolumeDriverException, self.driver.create_volume,
                self.volume_record(specs=THICK))
            self.assertIn('does not fit', str(error))
            self.assertEqual(before, self.listing())
            self.assert_reads(volume, 1)
            self.assert_works(1)
        self.assert_intact(volume, snapshot)

    def test_runs_full(self):
        """A copy that finds no room leaves nothing behind."""
        source = self.create(share=1)
        self.write(source, 7, 0, 200 * base.MIB)
        with self.fault('full'):
            self.failure_of(self.driver.create_cloned_volume,
                            self.volume_record(), source)
            self.assertEqual([], self.listing())
        self.assert_works(0)


class ForbiddenShareTest(SharesTestCase):

    MESSAGE = "the user of cinder-volume can't write to its directory"

    def test_read_only(self):
        self._unmount()
        self.driver = self.new_driver(lustre_shares=[
            self.shares[0] + ' -o flock,ro', self.shares[1]])
        self.assertEqual(['down', 'up'], self.states())
        self.assertIn(self.MESSAGE, self.reason())
        self.assertIn('Read-only', str(self.failure_of(self.create)))
        self.assert_works(1)

    def test_another_user(self):
        def report():
            self.assertEqual(['down', 'down'], self.states())
            self.assertIn(self.MESSAGE, self.reason())

        database = os.path.join(self.temp, 'cinder.sqlite')
        self.useFixture(stand_ins.DatabaseFile(database))
        self.as_nobody(report, database)

    def reason(self):
        """Why the first pool is down, as it is logged."""
        return next(iter(self.driver._survey._down.values()))


@ddt.ddt
class ConfigurationTest(base.LustreTestCase):

    @ddt.data(
        'nonsense',
        '10.0.2.15@tcp',
        '10.0.2.15@tcp:/',
        '10.0.2.15@tcp:/morethan8letters',
        '10.0.2.15@tcp:/lu stre',
        '10.0.2.15@@tcp:/lustre',
        '10.0.2.15@tcp,:/lustre',
        ':/lustre',
        '10.0.2.15@tcp:/lustre/../etc',
        '10.0.2.15@tcp:/lustre//cinder',
        '10.0.2.15@tcp:/lustre -o',
        '10.0.2.15@tcp:/lustre flock',
        '10.0.2.15@tcp:/lustre -o noflock',
        '10.0.2.15@tcp:/lustre -o flock,localflock',
    )
    def test_bad_share(self, share):
        error = self.assertRaises(
            exception.InvalidConfigurationValue, self.new_driver,
            lustre_shares=[self.shares[0], share])
        self.assertIn(share, str(error))
        self.assertIn('lustre_shares', str(error))

    @ddt.data('noflock', 'localflock', 'ro,localflock')
    def test_bad_options(self, options):
        error = self.assertRaises(
            exception.InvalidConfigurationValue, self.new_driver,
            lustre_mount_options=options)
        self.assertIn(options, str(error))
        self.assertIn('lustre_mount_options', str(error))
        self.assertIn("QEMU's image locks", str(error))

    @ddt.data('10.0.9.9@tcp', '10.0.2.15@tcp0', '10.0.2.15@tcp:10.0.2.16@tcp')
    def test_two_pools_of_one_name(self, mgs):
        other = '%s:/%s' % (mgs, self.shares[0].partition(':/')[2])
        error = self.assertRaises(
            exception.InvalidConfigurationValue, self.new_driver,
            lustre_shares=[self.shares[0], other])
        self.assertIn(other, str(error))
        self.assertIn(self.shares[0], str(error))

    def test_no_share(self):
        error = self.assertRaises(exception.InvalidConfigurationValue,
                                  self.new_driver, lustre_shares=[])
        self.assertIn('lustre_shares', str(error))

    def shares_file(self, *lines):
        path = os.path.join(self.temp, 'shares')
        with open(path, 'w') as file:
            file.write('\n'.join(lines))
        return {'lustre_shares': [], 'lustre_shares_config': path}

    def test_file(self):
        self._unmount()
        self.driver = self.new_driver(**self.shares_file(
            '# a comment', '', '  ' + self.shares[1] + '  ',
            self.shares[0] + ' -o flock,noatime'))
        self.assertEqual(['up', 'up'], [
            pool['backend_state'] for pool in
            self.driver.get_volume_stats()['pools']])
        self.delete(self.create(share=1))
        mount_point = self.driver._get_mount_point_for_share(self.shares[0])
        self.assertIn('noatime', base.run('findmnt', '-no', 'OPTIONS',
                                          mount_point))

    def test_bad_line_in_file(self):
        error = self.assertRaises(
            exception.InvalidConfigurationValue, self.new_driver,
            **self.shares_file(self.shares[0], 'nonsense'))
        self.assertIn('lustre_shares_config', str(error))
        self.assertIn('nonsense', str(error))

    def test_no_file(self):
        error = self.assertRaises(
            exception.InvalidConfigurationValue, self.new_driver,
            lustre_shares=[], lustre_shares_config='/nowhere/shares')
        self.assertIn('/nowhere/shares', str(error))

    def test_file_and_option(self):
        options = dict(self.shares_file(self.shares[0]),
                       lustre_shares=self.shares)
        self.assertRaises(exception.InvalidConfigurationValue,
                          self.new_driver, **options)


class ClusterTest(base.LustreTestCase):

    def test_provisioned_in_a_cluster(self):
        """Its services don't know of each other what they have deleted."""
        pool = self.driver.get_volume_stats()['pools'][0]['pool_name']
        for name, cluster, size in (('one', 'active@lustre', 2),
                                    ('two', 'active@lustre', 3),
                                    ('three', 'passive@lustre', 7)):
            host = name + '@lustre'
            tests_utils.create_service(self.context, {
                'host': host, 'cluster_name': cluster,
                'binary': 'cinder-volume', 'topic': 'cinder-volume'})
            tests_utils.create_volume(self.context, size=size,
                                      host='%s#%s' % (host, pool))
        self.driver.cluster_name = 'active@lustre'
        self.assertEqual([5, 0], [
            found['provisioned_capacity_gb']
            for found in self.driver.get_volume_stats(True)['pools']])


class RenamedShareTest(base.LustreTestCase):
    """The MGS moves, or is spelled another way."""

    def spelled(self, share):
        mgs, _separator, path = share.partition(':/')
        if not self.file_systems.sandboxed:
            # A real client wants to reach what it is told, so only spell it
            # differently.
            return '%s:%s:/%s' % (mgs, mgs, path)
        return '%s:10.0.2.99@tcp:/%s' % (mgs, path)

    def test_volume_is_found(self):
        volume = self.create()
        self.write(volume, 4)
        snapshot = self.snapshot(volume)
        pools = [pool['pool_name'] for pool in
                 self.driver.get_volume_stats()['pools']]
        before = self.shares
        self.shares = [self.spelled(share) for share in before]
        self.assertNotEqual(before, self.shares)
        self.driver = self.new_driver()
        self.assertEqual(
            [(pool, 'up') for pool in pools],
            [(pool['pool_name'], pool['backend_state']) for pool in
             self.driver.get_volume_stats(refresh=True)['pools']])
        with self.attached(volume) as connection:
            self.assertEqual(self.shares[0], connection['export'])
            self.assertTrue(connection['path'].startswith(
                self.driver._get_mount_point_for_share(self.shares[0])))
        self.assert_reads(volume, 4)
        self.write(volume, 5)
        self.delete_snapshot(snapshot)
        self.assert_reads(volume, 5)
        copy = self.clone(volume, share=1)
        self.assert_reads(copy, 5)
        self.shares = before
        self.driver = self.new_driver()
        self.delete(copy)
        self.delete(volume)
        self.assertEqual([], self.listing(0) + self.listing(1))

    def test_share_is_not_configured_any_more(self):
        volume = self.create()
        self.driver = self.new_driver(lustre_shares=self.shares[1:])
        for request in (
                lambda: self.driver.delete_volume(volume),
                lambda: self.driver.initialize_connection(volume, {}),
                lambda: self.driver.extend_volume(volume, 2)):
            error = self.assertRaises(exception.VolumeDriverException,
                                      request)
            self.assertIn('which is not configured', str(error))
            self.assertIn(volume.id, str(error))
        self.driver.ensure_export(self.context, volume)
        self.assertEqual([volume.name], self.listing())


class PoolNameTest(base.LustreTestCase):

    def test_survives_the_host_string(self):
        """Of 255 characters, with a meaning for some of them."""
        long = 'x' * 120
        root, path = self.file_systems.roots[0]
        base_name = self.shares[0][len(root) + 1:]
        names = [os.path.join(base_name, name) for name in (
            'a#b@c', 'with space', long + '1', long + '2', '\xfcml\xe4ut')]
        for name in names:
            os.mkdir(os.path.join(path, name))
        self.shares = ['%s/%s' % (root, name.replace(' ', '\\040'))
                       for name in names]
        self.driver = self.new_driver(
            driver_class=lustre.LustreDriver)
        pools = self.driver.get_volume_stats()['pools']
        self.assertEqual(['up'] * 5,
                         [pool['backend_state'] for pool in pools])
        self.assertEqual(5, len({pool['pool_name'] for pool in pools}))
        for share, pool in enumerate(pools):
            self.assertNotRegex(pool['pool_name'], '[@# ]')
            self.assertLess(len(pool['pool_name']), 120)
            volume = self.create(share=share)
            self.write(volume, 1)
            self.delete(volume)
