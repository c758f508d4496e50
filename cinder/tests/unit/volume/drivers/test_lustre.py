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

"""The volume driver's decisions, on files of a temporary directory.

Only Lustre's part of the kernel (see fakes.py), Nova and the image service are
stood in for: database, image files and qemu-img are real. A GiB has but 4 MiB
here, so that thick volumes cost nothing.
"""

import errno
import hashlib
import itertools
import os
import shutil
import subprocess
import types
from unittest import mock
import uuid
import warnings

import ddt
import fixtures
from oslo_config import cfg
from oslo_utils import units

from cinder import context
from cinder import coordination
from cinder.db import api as db
from cinder import exception
from cinder.lustre import files
from cinder.lustre import images
from cinder.lustre import online
from cinder.lustre import opts
from cinder.lustre import places
from cinder import objects
from cinder.objects import fields
import cinder.privsep
from cinder.scheduler import host_manager
from cinder.tests.unit import fake_constants
from cinder.tests.unit.lustre import fakes
from cinder.tests.unit.lustre import records
from cinder.tests.unit.lustre import releases
from cinder.tests.unit import test
from cinder.tests.unit import utils as tests_utils
from cinder.volume import configuration
from cinder.volume.drivers import lustre
from cinder.volume.drivers import remotefs
from cinder.volume import manager
from cinder.volume import volume_types
from os_brick.initiator import connector as brick_connector
from os_brick.initiator.connectors import lustre as lustre_connector
from os_brick.remotefs import lustre as lustre_brick
from os_brick.remotefs import lustre_child
from os_brick.remotefs import remotefs as remotefs_brick

CONF = cfg.CONF

SHARE = '10.0.2.15@tcp:/lustre/cinder'
OTHER_SHARE = '10.0.2.15@tcp,10.0.2.15@o2ib:10.0.2.16@tcp:/scratch'
POOL, OTHER_POOL = 'lustre/cinder', 'scratch'

GIB = 4 * fakes.MIB

KINDS = (('thin', 'qcow2'), ('thin', 'raw'), ('thick', 'raw'),
         ('thick', 'qcow2'))

# What a guest writes, so that not a byte is lost unnoticed.
PATTERN = hashlib.shake_128(b'guest').digest(100 * fakes.KIB)


class FakeNova:
    """Does to images what Nova lets libvirt do, with qemu-img instead.

    And tells Cinder that it has come to the end, in the snapshot's progress.
    """

    def __init__(self, directory, base_format):
        self._directory = directory
        self._base_format = base_format
        self.asked = []
        self.status = None
        # Whether it only says so.
        self.says_only = False

    def create_volume_snapshot(self, ctxt, volume_id, create_info):
        self.asked.append(create_info)
        self.active = create_info['new_file']
        with open(self._path(self.active), 'rb') as f:
            assert f.read(4) == b'QFI\xfb'
        self._done(ctxt, create_info['snapshot_id'])

    def delete_volume_snapshot(self, ctxt, snapshot_id, delete_info):
        self.asked.append(delete_info)
        if self.says_only:
            return self._done(ctxt, snapshot_id)
        target, merged = (delete_info['merge_target_file'],
                          delete_info['file_to_merge'])
        if target is None:
            # blockRebase: pull what is above the file into the active one.
            self._rebase(self.active, merged)
        else:
            # blockCommit
            fakes.qemu_img('commit', '-q', '-f', 'qcow2', '-d',
                           self._path(merged))
            for name in os.listdir(self._directory):
                if self._backing(name) == merged:
                    self._rebase(name, target, '-u')
        self._done(ctxt, snapshot_id)

    def _backing(self, name):
        with open(self._path(name), 'rb') as f:
            if f.read(4) != b'QFI\xfb':
                return None
        return files._qcow2_header(self._path(name))[1]

    def _rebase(self, name, backing, *args):
        backing_format = 'qcow2' if '.' in (backing or '') else (
            self._base_format)
        fakes.qemu_img(
            'rebase', '-q', '-f', 'qcow2', *args, '-b', backing or '',
            *(('-F', backing_format) if backing else ()), self._path(name))

    def _done(self, ctxt, snapshot_id):
        values = {'progress': '90%'}
        if self.status:
            values['status'] = self.status
        db.snapshot_update(ctxt, snapshot_id, values)

    def _path(self, name):
        return os.path.join(self._directory, name)


class FakeImageService:
    """Keeps one image in memory."""

    # Where image_utils.TemporaryImages keeps its own.
    temp_images = None

    def __init__(self, content=b'', disk_format='raw'):
        self.content = content
        self._disk_format = disk_format

    def show(self, ctxt, image_id):
        return {'id': image_id, 'disk_format': self._disk_format,
                'container_format': 'bare', 'size': len(self.content)}

    def download(self, ctxt, image_id, data):
        data.write(self.content)

    def update(self, ctxt, image_id, meta, data, **kwargs):
        self.content = data.read()


@ddt.ddt
class LustreDriverTestCase(records.RecordsMixin, test.TestCase):

    def setUp(self):
        super().setUp()
        # Cinder's own, at each load of a volume.
        warnings.filterwarnings('ignore', message='Passing item_cls')
        self.useFixture(fixtures.MockPatchObject(units, 'Gi', GIB))
        self.lustre = self.useFixture(fakes.FakeLustre())
        self.useFixture(fixtures.MockPatchObject(lustre, 'privileged',
                                                 self.lustre))
        # Cinder looks at image files by privsep: here, without a daemon.
        cinder.privsep.sys_admin_pctxt.set_client_mode(False)
        self.addCleanup(cinder.privsep.sys_admin_pctxt.set_client_mode, True)
        self.temp = self.useFixture(fixtures.TempDir()).path
        self.override_config('image_conversion_dir', self.temp)
        releases.unlimit_qemu_img(self)
        self.context = context.RequestContext(
            fake_constants.USER_ID, fake_constants.PROJECT_ID, is_admin=True)
        self.driver = self.new_driver()
        self.driver.get_volume_stats()

    def new_driver(self, **options):
        conf = configuration.Configuration(lustre.lustre_opts,
                                           config_group='lustre')
        driver = lustre.LustreDriver(configuration=conf, db=db,
                                     host='host@lustre')
        for name, value in dict({
                'lustre_shares': [SHARE, OTHER_SHARE],
                'lustre_mount_point_base': self.lustre.base,
                'lustre_mount_attempts': 1}, **options).items():
            CONF.set_override(name, value, group='lustre')
            self.addCleanup(CONF.clear_override, name, group='lustre')
        driver.do_setup(self.context)
        return driver

    def pools(self, driver=None):
        stats = (driver or self.driver).get_volume_stats(refresh=True)
        return {pool['pool_name']: pool for pool in stats['pools']}

    # Volumes

    def record(self, provisioning=None, image_format=None, pool=POOL,
               status='creating', size=1, **kwargs):
        """Make a volume in the database."""
        specs = {'provisioning:type': provisioning,
                 'lustre:format': image_format}
        volume_type = volume_types.create(
            self.context, str(uuid.uuid4()),
            {key: value for key, value in specs.items() if value})
        volume = tests_utils.create_volume(
            self.context, host='host@lustre#' + pool, size=size,
            status=status, volume_type_id=volume_type.id, **kwargs)
        return objects.Volume.get_by_id(self.context, volume.id)

    def create(self, *args, **kwargs):
        """Create a volume, by the driver too."""
        volume = self.record(*args, **kwargs)
        return self._created(volume, self.driver.create_volume(volume))

    def attach(self, volume):
        """Attach a volume to a new server."""
        before = {a.id for a in volume.volume_attachment}
        tests_utils.attach_volume(self.context, volume.id,
                                  str(uuid.uuid4()), 'compute', '/dev/vda')
        volume = objects.Volume.get_by_id(self.context, volume.id)
        for attachment in volume.volume_attachment:
            if attachment.id not in before:
                attachment.connection_info = dict(
                    self.driver.initialize_connection(volume, {})['data'],
                    driver_volume_type='nfs')
                attachment.save()
        return objects.Volume.get_by_id(self.context, volume.id)

    def nova(self, volume):
        nova = self.driver._nova = FakeNova(
            self.directory(), volume.admin_metadata['base_format'])
        nova.active = self.data(volume)['name']
        return nova

    def data(self, volume):
        """Return a connection's data, as Nova gets them."""
        before, volume.status = volume.status, 'reserved'
        try:
            return self.driver.initialize_connection(volume, {})['data']
        finally:
            volume.status = before

    # Files

    def directory(self, share=SHARE):
        return self.driver._client.mount_point(
            lustre_brick.Share.parse(share))

    def path(self, volume, suffix='', share=SHARE):
        return os.path.join(self.directory(share),
                            'volume-%s%s' % (volume.name_id, suffix))

    def listing(self, share=SHARE):
        directory = self.directory(share)
        return (sorted(os.listdir(directory)) if os.path.isdir(directory)
                else [])

    def guest(self, volume):
        """Return what a guest sees."""
        data = self.data(volume)
        return self._flat(os.path.join(self.driver._place(volume).directory,
                                       data['name']), data['format'])

    def _flat(self, path, image_format):
        if image_format != 'raw':
            flat = os.path.join(self.temp, 'flat')
            fakes.qemu_img('convert', '-U', '-f', image_format, '-O', 'raw',
                           path, flat)
            path = flat
        with open(path, 'rb') as f:
            return f.read()

    def write(self, volume, content=PATTERN):
        """Write to the start of a volume, as a guest."""
        data = self.data(volume)
        path = os.path.join(self.driver._place(volume).directory,
                            data['name'])
        if data['format'] == 'raw':
            with open(path, 'r+b') as f:
                f.write(content)
            return
        source = os.path.join(self.temp, 'source')
        with open(source, 'wb') as f:
            f.write(content)
        fakes.qemu_io('-f', 'qcow2', '-c', 'write -s %s 0 %d' % (
            source, len(content)), path)

    def assert_guest(self, volume, content=PATTERN, size=1):
        self.assertEqual(content + bytes(size * GIB - len(content)),
                         self.guest(volume))

    def locks(self):
        """Name the locks that were asked for, and forget them."""
        get_lock = coordination.Coordinator.get_lock
        names = [call.args[-1] for call in get_lock.call_args_list]
        get_lock.reset_mock()
        return names

    # Options

    def test_options(self):
        names = {option.name for option in
                 lustre.LustreDriver.get_driver_options()}
        self.assertLessEqual({option.name for option in lustre.lustre_opts},
                             names)
        self.assertIn('nas_volume_prov_type', names)
        groups = dict(opts.list_opts())
        self.assertEqual(lustre.lustre_opts,
                         list(groups['backend_defaults']))

    def test_options_are_none_of_manila_s(self):
        # They may be in one process.
        for option in lustre.lustre_opts:
            self.assertNotIn(option.name, (
                'lustre_mount_point', 'lustre_fs_name',
                'lustre_share_path_prefix', 'lustre_project_id_start'))

    def assert_misconfigured(self, option, reason, **options):
        error = self.assertRaises(exception.InvalidConfigurationValue,
                                  self.new_driver, **options)
        self.assertIn(option, str(error))
        self.assertIn(reason, str(error))

    @ddt.data(
        ('10.0.2.15@tcp:lustre', "there is no ':/'"),
        ('10.0.2.15@tcp:/lustre/..', "'.' or '..'"),
        ('10.0.2.15@tcp:/lustre -o localflock', "need 'flock'"),
        ('/mnt/lustre', "there is no ':/'"),
        ('', 'expected a share'))
    @ddt.unpack
    def test_malformed_share(self, line, reason):
        self.assert_misconfigured('lustre_shares', reason,
                                  lustre_shares=[SHARE, line])
        self.assert_misconfigured('lustre_shares', line,
                                  lustre_shares=[SHARE, line])

    @ddt.data('noflock', 'localflock', 'user_xattr,noflock')
    def test_mount_options_without_locks(self, mount_options):
        self.assert_misconfigured('lustre_mount_options', mount_options,
                                  lustre_mount_options=mount_options)
        self.assert_misconfigured('lustre_mount_options', 'image locks',
                                  lustre_mount_options=mount_options)

    @ddt.data(
        ('lustre_stripe_size', '100K', 'no stripe size', {}),
        ('lustre_stripe_count', 0, 'no stripe count', {}),
        ('lustre_pool', 'fs.pool', 'no name of an OST pool', {}),
        ('lustre_layout', '-i 1', 'none of the options', {}),
        ('lustre_layout', '-c 2', 'give either',
         {'lustre_stripe_count': 2}))
    @ddt.unpack
    def test_layouts_that_are_none(self, option, value, reason, others):
        self.assert_misconfigured(option, reason, **{option: value, **others})
        self.assert_misconfigured(option, str(value),
                                  **{option: value, **others})

    @ddt.data('1000', '0-5', '9-8', '1-4294967295', 'a-b', '-5')
    def test_projects_that_are_none(self, value):
        self.assert_misconfigured('lustre_projects', value,
                                  lustre_projects=value)

    def test_no_shares(self):
        self.assert_misconfigured('lustre_shares', 'no share',
                                  lustre_shares=[])

    def test_shares_of_one_pool_name(self):
        self.assert_misconfigured(
            'lustre_shares', 'same pool name, lustre/cinder, as ' + SHARE,
            lustre_shares=[SHARE, 'elsewhere@tcp:/lustre/cinder/'])

    def _shares_file(self, text):
        path = os.path.join(self.temp, 'shares')
        with open(path, 'w') as f:
            f.write(text)
        return path

    def test_shares_config(self):
        driver = self.new_driver(lustre_shares=[], lustre_shares_config=(
            self._shares_file('# comment\n\n  \n%s\n\n%s -o flock,noatime\n'
                              'mgs@tcp:/lustre/two\\040words\n' %
                              (SHARE, OTHER_SHARE))))
        self.assertEqual([POOL, OTHER_POOL, 'lustre/two%20words'],
                         list(driver._shares))
        self.assertEqual('flock,noatime', driver._shares['scratch'].options)
        self.assertEqual('mgs@tcp:/lustre/two words',
                         driver._shares['lustre/two%20words'].name)

    def test_shares_config_with_an_error(self):
        self.assert_misconfigured(
            'lustre_shares_config', 'nonsense', lustre_shares=[],
            lustre_shares_config=self._shares_file(SHARE + '\nnonsense\n'))

    def test_shares_config_is_missing(self):
        self.assert_misconfigured(
            'lustre_shares_config', 'No such file', lustre_shares=[],
            lustre_shares_config='/nonexistent')

    def test_both_kinds_of_shares(self):
        self.assert_misconfigured(
            'lustre_shares_config', 'lustre_shares is set too',
            lustre_shares_config=self._shares_file(SHARE))

    def test_qemu_img_is_needed(self):
        with mock.patch.object(shutil, 'which', return_value=None):
            error = self.assertRaises(exception.VolumeDriverException,
                                      self.driver.check_for_setup_error)
        self.assertIn('qemu-img', str(error))
        with mock.patch.object(shutil, 'which', return_value='/qemu-img'):
            self.driver.check_for_setup_error()

    # Mounts

    def test_mount_point(self):
        stock = remotefs_brick.RemoteFsClient(
            'nfs', 'sudo', nfs_mount_point_base=self.lustre.base)
        self.assertEqual(stock.get_mount_point(SHARE), self.directory())

    def test_mount(self):
        self.assertEqual({(SHARE, self.directory(), 'flock'),
                          (OTHER_SHARE, self.directory(OTHER_SHARE),
                           'flock')}, set(self.lustre.mounts))

    def test_mount_reraises(self):
        self.lustre.table.clear()
        self.lustre.missing.add(SHARE)
        error = self.assertRaises(
            lustre_brick.ShareUnavailable, self.driver._client.ensure_mounted,
            self.driver._shares[POOL])
        self.assertIn('No such file or directory', str(error))

    def test_mount_options(self):
        self.lustre.table.clear()
        self.lustre.mounts.clear()
        self.pools(self.new_driver(
            lustre_mount_options='flock,noatime',
            lustre_shares=[SHARE + ' -o flock,ro', OTHER_SHARE]))
        self.assertEqual({(SHARE, 'flock,ro'),
                          (OTHER_SHARE, 'flock,noatime')},
                         {mount[::2] for mount in self.lustre.mounts})

    def test_start_mounts_nothing_and_unmounts_nothing(self):
        # Instances may be using them.
        table = dict(self.lustre.table)
        self.lustre.mounts.clear()
        self.new_driver()
        self.assertEqual(table, self.lustre.table)
        self.assertEqual([], self.lustre.mounts)

    def test_start_with_a_share_that_is_missing(self):
        self.lustre.table.clear()
        self.lustre.missing.update((SHARE, OTHER_SHARE))
        with mock.patch.object(shutil, 'which', return_value='/qemu-img'):
            self.new_driver().check_for_setup_error()

    def test_ensure_share_mounted(self):
        self.lustre.table.clear()
        self.lustre.mounts.clear()
        self.pools()
        self.assertEqual({SHARE, OTHER_SHARE},
                         {mount[0] for mount in self.lustre.mounts})
        self.pools()
        self.assertEqual(2, len(self.lustre.mounts))

    def test_shares_saved_when_mounted(self):
        pools = self.pools()
        self.assertEqual([POOL, OTHER_POOL], list(pools))
        for pool in pools.values():
            self.assertEqual('up', pool['backend_state'])

    def test_shares_not_saved_when_mount_failed(self):
        self.lustre.table.clear()
        self.lustre.missing.add(SHARE)
        pools = self.pools()
        self.assertEqual('down', pools[POOL]['backend_state'])
        self.assertEqual(0, pools[POOL]['free_capacity_gb'])
        self.assertEqual('up', pools[OTHER_POOL]['backend_state'])

    def test_refresh_mounts(self):
        self.lustre.table.clear()
        self.lustre.missing.add(SHARE)
        self.assertEqual('down', self.pools()[POOL]['backend_state'])
        self.lustre.missing.clear()
        self.assertEqual('up', self.pools()[POOL]['backend_state'])

    def test_refresh_mounts_with_exception(self):
        with mock.patch.object(lustre_brick.ShareClient, 'check',
                               side_effect=RuntimeError('surprise')):
            states = [pool['backend_state']
                      for pool in self.pools().values()]
        self.assertEqual(['down', 'down'], states)
        self.assertEqual('up', self.pools()[POOL]['backend_state'])

    def test_mount_and_unmount_shares(self):
        share = self.driver._shares[POOL]
        self.driver._client.unmount(share)
        self.assertNotIn(self.directory(), self.lustre.table)
        self.assertIn(self.directory(OTHER_SHARE), self.lustre.table)
        self.assertRaises(lustre_brick.ShareUnavailable,
                          self.driver._client.check, share)
        self.driver._client.ensure_mounted(share)
        self.assertIn(self.directory(), self.lustre.table)

    def test_share_that_is_not_lustre(self):
        self.lustre.magic = 0xEF53
        self.assertEqual('down', self.pools()[POOL]['backend_state'])

    def test_share_that_is_not_writable(self):
        with mock.patch.object(os, 'access', return_value=False):
            self.assertEqual('down', self.pools()[POOL]['backend_state'])

    # Capacity

    def test_available_capacity(self):
        self.lustre.space[SHARE] = (1000 * GIB + GIB // 2, 600 * GIB)
        pool = self.pools()[POOL]
        self.assertEqual(1000.5, pool['total_capacity_gb'])
        self.assertEqual(600, pool['free_capacity_gb'])
        self.assertEqual(100, self.pools()[OTHER_POOL]['total_capacity_gb'])

    def test_provisioned_capacity(self):
        """It is what there is, not what the service has counted."""
        self.record(size=5)
        self.record(size=7).destroy()
        self.record(size=9, pool=OTHER_POOL)
        pool = self.pools()[POOL]
        state = host_manager.PoolState('host@lustre', None, None, POOL)
        # As cinder-volume adds its count to each report.
        state.update_from_volume_capability(
            dict(pool, allocated_capacity_gb=77, timestamp=None))
        self.assertEqual(5, state.provisioned_capacity_gb)
        self.assertEqual(60, state.free_capacity_gb)

    @ddt.data('thin', 'thick')
    def test_stats(self, provisioning):
        driver = self.new_driver(
            nas_volume_prov_type=provisioning, reserved_percentage=7,
            max_over_subscription_ratio='3.5', volume_backend_name='mine')
        stats = driver.get_volume_stats(refresh=True)
        self.assertEqual('mine', stats['volume_backend_name'])
        self.assertEqual('OpenSFS', stats['vendor_name'])
        self.assertEqual('nfs', stats['storage_protocol'])
        self.assertEqual(lustre.LustreDriver.VERSION,
                         stats['driver_version'])
        self.assertNotIn('total_capacity_gb', stats)
        for pool in stats['pools']:
            # A volume type may ask for either.
            self.assertTrue(pool['thin_provisioning_support'])
            self.assertTrue(pool['thick_provisioning_support'])
            self.assertEqual(7, pool['reserved_percentage'])
            self.assertEqual('3.5', pool['max_over_subscription_ratio'])

    def test_stats_have_no_cost_per_volume(self):
        calls = []

        def call(share, function, *args, timeout):
            calls.append(function.__name__)
            return self.lustre.call(share, function, *args, timeout=timeout)

        self.create('thin', 'raw')
        self.create('thin', 'raw')
        with mock.patch.object(lustre_brick.lustre_guard.Guard, 'call',
                               mock.Mock(side_effect=call)):
            self.pools()
        self.assertEqual(['not_writable', 'not_writable', 'statfs', 'statfs'],
                         sorted(calls))

    def test_pool_name_in_a_host(self):
        host = 'h' * 100 + '@lustre#' + POOL
        self.assertEqual(SHARE, self.driver._share_of_host(
            objects.Volume(host=host)).name)

    # Finding a share

    def test_find_share(self):
        self.assertEqual(SHARE, self.create('thin', 'raw').provider_location)
        volume = self.create('thin', 'raw', pool=OTHER_POOL)
        self.assertEqual(OTHER_SHARE, volume.provider_location)
        self.assertEqual(1, len(self.listing()))
        self.assertEqual(1, len(self.listing(OTHER_SHARE)))

    def test_find_share_of_a_volume(self):
        volume = self.create('thin', 'raw', pool=OTHER_POOL)
        # Where it is counts, not what the scheduler has chosen.
        volume.host = 'host@lustre#' + POOL
        self.assertEqual(self.path(volume, share=OTHER_SHARE),
                         self.driver.local_path(volume))

    def test_find_share_after_the_mgs_list_has_changed(self):
        volume = self.create('thin', 'raw')
        self.write(volume)
        old = self.directory()
        new_name = '10.0.2.77@tcp,10.0.2.77@o2ib:/lustre/cinder'
        self.driver = self.new_driver(lustre_shares=[new_name])
        self.assertEqual([POOL], list(self.pools()))
        os.rmdir(self.directory(new_name))
        os.rename(old, self.directory(new_name))
        self.assertEqual(new_name, self.data(volume)['export'])
        self.assertEqual(self.path(volume, share=new_name),
                         self.driver.local_path(volume))
        self.assert_guest(volume)

    def test_find_share_that_is_not_configured(self):
        volume = self.create('thin', 'raw')
        driver = self.new_driver(lustre_shares=[OTHER_SHARE])
        for operation in (driver.local_path, driver.delete_volume,
                          driver.create_volume):
            error = self.assertRaises(exception.VolumeDriverException,
                                      operation, volume)
            self.assertIn('lustre/cinder, which is not configured',
                          str(error))
        self.assertEqual(1, len(self.listing()))

    def test_find_share_error_when_full(self):
        self.lustre.space[SHARE] = (10 * GIB, 2 * GIB - 1)
        volume = self.record('thick', 'raw', size=2)
        error = self.assertRaises(exception.VolumeDriverException,
                                  self.driver.create_volume, volume)
        self.assertIn('does not fit on ' + SHARE, str(error))
        self.assertEqual([], self.listing())
        self.create('thick', 'raw', size=1)

    def test_thin_volumes_may_be_larger_than_the_share(self):
        self.lustre.space[SHARE] = (10 * GIB, 2 * GIB - 1)
        self.create('thin', 'raw', size=50)

    # Creating

    @ddt.data(*KINDS)
    @ddt.unpack
    def test_create(self, provisioning, image_format):
        volume = self.create(provisioning, image_format)
        self.assertEqual([volume.name], self.listing())
        path = self.path(volume)
        self.assertEqual(0o660, os.stat(path).st_mode & 0o777)
        self.assertEqual(image_format, self.data(volume)['format'])
        self.assertEqual(
            {'format': image_format, 'base_format': image_format},
            objects.Volume.get_by_id(self.context, volume.id).admin_metadata)
        if provisioning == 'thick':
            self.assertGreaterEqual(fakes.allocated(path), GIB)
        else:
            self.assertLess(fakes.allocated(path), GIB // 2)
        self.assert_guest(volume, b'')

    @ddt.data(('thin', 'qcow2'), ('thick', 'raw'))
    @ddt.unpack
    def test_create_as_the_backend_says(self, provisioning, image_format):
        self.driver = self.new_driver(nas_volume_prov_type=provisioning)
        volume = self.create()
        self.assertEqual(image_format, self.data(volume)['format'])
        self.assertEqual(provisioning == 'thick',
                         fakes.allocated(self.path(volume)) >= GIB)

    @ddt.data(('thin', 'qcow2'), ('thick', 'raw'))
    @ddt.unpack
    def test_create_with_the_type_s_provisioning_alone(self, provisioning,
                                                       image_format):
        self.assertEqual(image_format,
                         self.data(self.create(provisioning))['format'])

    def test_create_thick_by_fallocate(self):
        with mock.patch.object(files, '_fill_holes') as fill_holes:
            volume = self.create('thick', 'raw')
        fill_holes.assert_not_called()
        self.assertGreaterEqual(fakes.allocated(self.path(volume)), GIB)

    def test_create_thick_by_zeros(self):
        """As the blueprint's "dd", where the servers are on ZFS."""
        with mock.patch.object(files, '_fallocate', side_effect=OSError(
                errno.EOPNOTSUPP, 'Operation not supported')):
            volume = self.create('thick', 'raw')
            self.write(volume)
            self.driver.extend_volume(volume, 2)
            volume.size = 2
        self.assertGreaterEqual(fakes.allocated(self.path(volume)), 2 * GIB)
        self.assert_guest(volume, size=2)

    def test_create_fails(self):
        with mock.patch.object(files, '_fallocate', side_effect=OSError(
                errno.ENOSPC, 'No space left on device')):
            self.assertRaises(OSError, self.create, 'thick', 'raw')
        self.assertEqual([], self.listing())

    def test_create_ensures_mounted(self):
        self.driver._client.unmount(self.driver._shares[POOL])
        volume = self.record('thin', 'raw')
        error = self.assertRaises(lustre_brick.ShareUnavailable,
                                  self.driver.create_volume, volume)
        self.assertIn('it is not mounted', str(error))
        self.assertEqual([], self.listing())

    def test_create_again(self):
        volume = self.record('thin', 'raw')
        self.driver.create_volume(volume)
        self.driver.create_volume(volume)
        self.assertEqual([volume.name], self.listing())

    def test_encrypted_raw_is_refused(self):
        volume = self.record('thin', 'raw', encryption_key_id=str(
            uuid.uuid4()))
        error = self.assertRaises(exception.InvalidVolumeType,
                                  self.driver.create_volume, volume)
        self.assertIn('lustre:format=qcow2', str(error))
        self.assertEqual([], self.listing())

    @ddt.data(('sparse', 'raw', "provisioning:type", "'sparse', not thin or"),
              ('Thick', None, "provisioning:type", "'Thick'"),
              ('thin', 'vmdk', "lustre:format", "'vmdk', not raw or qcow2"),
              (None, '<is> raw', "lustre:format", "'<is> raw'"))
    @ddt.unpack
    def test_create_with_a_bad_type(self, provisioning, image_format, spec,
                                    reason):
        volume = self.record(provisioning, image_format)
        error = self.assertRaises(exception.InvalidVolumeType,
                                  self.driver.create_volume, volume)
        self.assertIn(spec, str(error))
        self.assertIn(reason, str(error))
        self.assertIn(volume.volume_type.name, str(error))
        self.assertEqual([], self.listing())

    def test_create_without_a_type(self):
        volume = self.record()
        volume.volume_type = volume.volume_type_id = None
        self.assertEqual(('qcow2', 'thin'), self.driver._wanted(volume))

    def test_create_open_to_all(self):
        self.driver = self.new_driver(nas_secure_file_permissions='false')
        volume = self.create('thin', 'raw')
        self.assertEqual(0o666, os.stat(self.path(volume)).st_mode & 0o777)

    @ddt.data('auto', 'true', 'false')
    def test_file_operations_are_never_root_s(self, value):
        driver = self.new_driver(nas_secure_file_operations=value)
        self.assertIs(True, driver.secure_file_operations_enabled())

    def test_capabilities(self):
        driver = self.new_driver(nas_volume_prov_type='thick')
        driver.init_capabilities()
        properties = driver.capabilities['properties']
        self.assertEqual(['raw', 'qcow2'],
                         properties['lustre:format']['enum'])
        self.assertEqual('thick', properties['provisioning:type']['default'])
        self.assertEqual(['thin', 'thick'],
                         properties['provisioning:type']['enum'])

    def test_capabilities_of_layouts(self):
        driver = self.new_driver(lustre_stripe_size='4m')
        driver.init_capabilities()
        properties = driver.capabilities['properties']
        self.assertEqual(
            ('integer', -1, 2000),
            tuple(properties['lustre:stripe_count'][name]
                  for name in ('type', 'minimum', 'maximum')))
        self.assertNotIn('default', properties['lustre:stripe_count'])
        self.assertEqual('4m', properties['lustre:stripe_size']['default'])
        self.assertLessEqual({'lustre:pool', 'lustre:layout'},
                             properties.keys())

    def test_a_contradictory_type(self):
        volume = self.record()
        volume.volume_type.extra_specs = {'lustre:layout': '-c 2',
                                          'lustre:stripe_count': '4'}
        error = self.assertRaises(exception.InvalidVolumeType,
                                  self.driver.create_volume, volume)
        for word in volume.volume_type.name, 'lustre:layout', 'give either':
            self.assertIn(word, str(error))
        self.assertEqual([], self.listing())

    def test_local_path(self):
        volume = self.create('thin', 'raw')
        self.assertEqual(self.path(volume), self.driver.local_path(volume))
        self.assertTrue(os.path.exists(self.driver.local_path(volume)))

    def test_local_path_of_a_migrated_volume(self):
        volume = self.create('thin', 'raw')
        volume._name_id = fake_constants.VOLUME2_ID
        self.assertTrue(self.driver.local_path(volume).endswith(
            '/volume-' + fake_constants.VOLUME2_ID))

    # Other types and pools

    def retype(self, volume, specs, pool=POOL):
        """Ask the driver for another type; no test here has lfs."""
        new_type = volume_types.create(self.context, str(uuid.uuid4()), specs)
        return self.driver.retype(
            self.context, volume,
            objects.VolumeType.get_by_id(self.context, new_type.id), {},
            {'host': 'host@lustre#' + pool})

    @ddt.data(
        # Nothing about the files.
        ('thin', 'raw', {'lustre:format': 'raw'}),
        ('thin', 'qcow2', {'any': 'thing'}),
        ('thick', 'raw', {'provisioning:type': 'thick',
                          'multiattach': '<is> True'}))
    @ddt.unpack
    def test_retype_of_what_is_attached(self, provisioning, image_format,
                                        specs):
        volume = self.attach(self.create(provisioning, image_format))
        self.assertEqual((True, None), self.retype(volume, specs))

    @ddt.data(('thin', 'raw', 'thick'), ('thick', 'raw', 'thin'))
    @ddt.unpack
    def test_retype_to_other_provisioning(self, before, image_format, after):
        volume = self.create(before, image_format)
        content = self.guest(volume)
        self.assertEqual((True, None), self.retype(
            volume, {'provisioning:type': after}))
        self.assertEqual(content, self.guest(volume))
        taken = fakes.allocated(self.path(volume))
        self.assertEqual(after == 'thick', taken >= GIB)

    @ddt.data(
        ({'lustre:format': 'qcow2'}, POOL, 'its file is raw'),
        ({}, OTHER_POOL, 'another share'),
        ({}, POOL + '+flash', 'it is attached'),
        ({'lustre:stripe_count': '2'}, POOL, 'it is attached'),
        ({'provisioning:type': 'thick'}, POOL, 'it is attached'))
    @ddt.unpack
    def test_retype_is_left_to_cinder(self, specs, pool, reason):
        logger = self.useFixture(fixtures.FakeLogger())
        volume = self.attach(self.create('thin', 'raw'))
        self.assertEqual((False, None), self.retype(volume, specs, pool))
        self.assertIn(reason, logger.output)

    @ddt.data(({'provisioning:type': 'thick'}, 'qcow2 image'),
              ({'multiattach': '<is> True'}, 'one server'))
    @ddt.unpack
    def test_retype_of_qcow2_is_left_to_cinder(self, specs, reason):
        logger = self.useFixture(fixtures.FakeLogger())
        self.assertEqual((False, None), self.retype(
            self.create('thin', 'qcow2'), specs))
        self.assertIn(reason, logger.output)

    def test_migrate_to_another_file_system(self):
        volume = self.create('thin', 'raw')
        self.assertEqual((False, None), self.driver.migrate_volume(
            self.context, volume, {'host': 'host@lustre#' + OTHER_POOL}))
        self.assertEqual((False, None), self.driver.migrate_volume(
            self.context, volume, {'host': 'host@other#' + POOL}))

    # Deleting

    @ddt.data(*KINDS)
    @ddt.unpack
    def test_delete(self, provisioning, image_format):
        volume = self.create(provisioning, image_format)
        other = self.create('thin', 'raw')
        self.snapshot(volume)
        self.snapshot(volume)
        self.driver.delete_volume(volume)
        self.assertEqual([other.name], self.listing())

    def test_delete_on_a_share_that_is_missing(self):
        volume = self.create('thin', 'raw')
        self.driver._client.unmount(self.driver._shares[POOL])
        self.assertRaises(lustre_brick.ShareUnavailable,
                          self.driver.delete_volume, volume)
        self.assertEqual([volume.name], self.listing())

    def test_lock_file_of_a_deleted_volume(self):
        """tooz leaves it; the manager asks the driver to remove it."""
        coordinator = coordination.Coordinator(prefix='cinder-')
        coordinator._file_path = os.path.join(self.temp, 'cinder-')
        volume_id, other_id = str(uuid.uuid4()), str(uuid.uuid4())
        for name in volume_id, other_id:
            open('%slustre-%s' % (coordinator._file_path, name), 'w').close()
        with mock.patch.object(coordination, 'synchronized_remove',
                               coordinator.remove_lock):
            lustre.LustreDriver.clean_volume_file_locks(volume_id)
        self.assertEqual(['cinder-lustre-' + other_id],
                         [name for name in os.listdir(self.temp)
                          if name.startswith('cinder-lustre-')])

    def test_delete_what_was_never_made(self):
        volume = self.record('thin', 'raw')
        open(self.path(volume, '.new'), 'w').close()
        self.driver.delete_volume(volume)
        self.assertEqual([], self.listing())

    # Extending

    @ddt.data(*KINDS)
    @ddt.unpack
    def test_extend(self, provisioning, image_format):
        volume = self.create(provisioning, image_format)
        self.write(volume)
        self.driver.extend_volume(volume, 3)
        volume.size = 3
        self.assert_guest(volume, size=3)
        if provisioning == 'thick':
            self.assertGreaterEqual(fakes.allocated(self.path(volume)),
                                    3 * GIB)

    @ddt.data(*KINDS)
    @ddt.unpack
    def test_extend_with_snapshot(self, provisioning, image_format):
        volume = self.create(provisioning, image_format)
        self.write(volume)
        snapshot = self.snapshot(volume)
        self.driver.extend_volume(volume, 2)
        volume.size = 2
        volume.save()
        self.assert_guest(volume, size=2)
        self.driver.delete_snapshot(objects.Snapshot.get_by_id(
            self.context, snapshot.id))
        self.assert_guest(volume, size=2)
        self.assertEqual(image_format, self.data(volume)['format'])

    def test_extend_too_far(self):
        volume = self.create('thick', 'raw')
        self.lustre.space[SHARE] = (10 * GIB, 2 * GIB)
        error = self.assertRaises(exception.VolumeDriverException,
                                  self.driver.extend_volume, volume, 4)
        self.assertIn('does not fit', str(error))
        self.assertEqual(GIB, os.stat(self.path(volume)).st_size)
        self.driver.extend_volume(volume, 3)

    def test_extend_attached(self):
        volume = self.create('thick', 'raw')
        self.write(volume)
        volume = self.attach(volume)
        self.driver.extend_volume(volume, 2)
        volume.size = 2
        self.assert_guest(volume, size=2)
        self.assertGreaterEqual(fakes.allocated(self.path(volume)), 2 * GIB)

    @ddt.data(True, False)
    def test_extend_attached_refused(self, snapshot):
        volume = self.create('thin', 'raw' if snapshot else 'qcow2')
        if snapshot:
            self.snapshot(volume)
            volume = objects.Volume.get_by_id(self.context, volume.id)
        volume = self.attach(volume)
        error = self.assertRaises(exception.ExtendVolumeError,
                                  self.driver.extend_volume, volume, 2)
        self.assertIn('detach it first', str(error))
        self.assert_guest(volume, b'')

    # Snapshots

    @ddt.data(*KINDS)
    @ddt.unpack
    def test_create_and_delete_snapshot(self, provisioning, image_format):
        volume = self.create(provisioning, image_format)
        self.write(volume, b'before')
        snapshot = self.snapshot(volume)
        volume = objects.Volume.get_by_id(self.context, volume.id)
        self.assertEqual({'format': 'qcow2', 'base_format': image_format},
                         volume.admin_metadata)
        self.assertEqual('qcow2', self.data(volume)['format'])
        self.write(volume, b'after!')
        self.assert_guest(volume, b'after!')
        self.driver.delete_snapshot(snapshot)
        volume = objects.Volume.get_by_id(self.context, volume.id)
        self.assertEqual(image_format, volume.admin_metadata['format'])
        self.assertEqual(image_format, self.data(volume)['format'])
        self.assert_guest(volume, b'after!')
        self.assertEqual([volume.name, volume.name + '.info'],
                         self.listing())

    def test_read_info_file(self):
        """The record is what the base class takes it for."""
        volume = self.create('thin', 'raw')
        snapshot = self.snapshot(volume)
        overlay = '%s.%s' % (volume.name, snapshot.id)
        info_path = self.driver._local_path_volume_info(volume)
        record = {'active': overlay, snapshot.id: overlay}
        self.assertEqual(record, self.driver._read_info_file(info_path))
        self.assertEqual(record, remotefs.RemoteFSSnapDriver._read_info_file(
            self.driver, info_path))
        self.assertEqual(overlay,
                         self.driver.get_active_image_from_info(volume))

    def test_read_info_file_that_is_missing(self):
        volume = self.create('thin', 'raw')
        info_path = self.driver._local_path_volume_info(volume)
        self.assertEqual({}, self.driver._read_info_file(
            info_path, empty_if_missing=True))

    def test_read_info_file_that_is_damaged(self):
        volume = self.create('thin', 'raw')
        self.snapshot(volume)
        with open(self.path(volume, '.info'), 'w') as f:
            f.write('{"active": ')
        error = self.assertRaises(images.InvalidImage, self.data, volume)
        self.assertIn(volume.name + '.info', str(error))

    def test_create_snapshot_in_a_wrong_state(self):
        volume = self.create('thin', 'raw')
        volume.status = 'error'
        volume.save()
        self.assertRaises(exception.InvalidVolume, self.snapshot, volume)
        self.assertEqual([volume.name], self.listing())

    # What a request found before it had to wait for the volume's lock

    def meanwhile(self, volume, **changes):
        """Change a volume behind the back of those who have loaded it."""
        other = objects.Volume.get_by_id(self.context, volume.id)
        other.update(changes)
        other.save()

    @ddt.data('reserved', 'attaching')
    def test_snapshots_of_what_has_been_attached_meanwhile(self, status):
        volume = self.create('thin', 'raw')
        taken, snapshot = self.snapshot(volume), self.snapshot_record(volume)
        listing = self.listing()
        for snapshot, change in ((snapshot, self.driver.create_snapshot),
                                 (taken, self.driver.delete_snapshot)):
            self.meanwhile(volume, status='available')
            self.assertEqual('available', snapshot.volume.status)
            self.meanwhile(volume, status=status)
            error = self.assertRaises(exception.InvalidVolume, change,
                                      snapshot)
            self.assertIn(status, str(error))
        self.assertEqual(listing, self.listing())

    def test_attached_while_the_lock_on_the_share_is_awaited(self):
        """The service stood still, and has lost the distributed lock."""
        volume = self.create('thin', 'qcow2')
        taken, snapshot = self.snapshot(volume), self.snapshot_record(volume)
        listing = self.listing()
        locked = places.Place.locked

        def attached(place, name):
            self.meanwhile(volume, status='attaching')
            return locked(place, name)

        for change in (lambda: self.driver.create_snapshot(snapshot),
                       lambda: self.driver.delete_snapshot(taken),
                       lambda: self.driver.revert_to_snapshot(
                           self.context, volume, taken)):
            self.meanwhile(volume, status='available')
            with mock.patch.object(places.Place, 'locked', attached):
                error = self.assertRaises(exception.InvalidVolume, change)
            self.assertIn('attaching', str(error))
        self.assertEqual(listing, self.listing())

    def test_clone_of_what_has_been_attached_meanwhile(self):
        source = self.create('thin', 'raw')
        self.meanwhile(source, status='reserved')
        self.assertRaises(exception.InvalidVolume,
                          self.driver.create_cloned_volume,
                          self.record('thin', 'raw'), source)

    def test_snapshot_of_what_has_been_extended_meanwhile(self):
        volume = self.create('thin', 'raw')
        snapshot = self.snapshot_record(volume)
        self.driver.extend_volume(volume, 2)
        self.meanwhile(volume, size=2)
        error = self.assertRaises(exception.InvalidVolume,
                                  self.driver.create_snapshot, snapshot)
        self.assertIn('the 1 GiB of snapshot ' + snapshot.id, str(error))
        self.assertEqual([volume.name], self.listing())

    def test_snapshot_of_what_is_going_to_be_extended(self):
        volume = self.create('thin', 'raw')
        snapshot = self.snapshot_record(volume)
        self.meanwhile(volume, status='extending')
        self.driver.create_snapshot(snapshot)
        self.driver.extend_volume(volume, 2)
        self.driver.delete_snapshot(snapshot)
        self.assertEqual(2 * GIB, os.stat(self.path(volume)).st_size)

    def test_attach_what_has_been_extended_meanwhile(self):
        volume = self.create('thin', 'raw')
        self.driver.extend_volume(volume, 2)
        self.meanwhile(volume, size=2)
        self.assertEqual(1, volume.size)
        self.assertEqual(volume.name, self.data(volume)['name'])

    def test_create_snapshot_on_a_share_that_is_missing(self):
        volume = self.create('thin', 'raw')
        self.driver._client.unmount(self.driver._shares[POOL])
        self.assertRaises(lustre_brick.ShareUnavailable, self.snapshot,
                          volume)
        self.assertEqual([volume.name], self.listing())

    def test_snapshot_leaves_the_admin_metadata_of_others_alone(self):
        volume = self.create('thin', 'raw')
        snapshot = self.snapshot_record(volume)
        self.assertEqual('raw', snapshot.volume.admin_metadata['format'])
        # Meanwhile the volume is made read-only.
        db.volume_admin_metadata_update(self.context, volume.id,
                                        {'readonly': 'True'}, False)
        self.driver.create_snapshot(snapshot)
        snapshot.volume.save()
        self.assertEqual(
            {'format': 'qcow2', 'base_format': 'raw', 'readonly': 'True'},
            db.volume_admin_metadata_get(self.context, volume.id))

    def test_delete_snapshot_that_was_never_made(self):
        volume = self.create('thin', 'raw')
        self.driver.delete_snapshot(self.snapshot_record(volume))
        self.assertEqual([volume.name], self.listing())

    def test_revert_to_snapshot(self):
        volume = self.create('thin', 'raw')
        self.write(volume, b'before')
        snapshot = self.snapshot(volume)
        self.write(volume, b'after!')
        volume.status = 'reverting'
        self.driver.revert_to_snapshot(self.context, volume, snapshot)
        self.assert_guest(volume, b'before')

    def test_revert_while_in_use(self):
        volume = self.create('thin', 'raw')
        snapshot = self.snapshot(volume)
        self.meanwhile(volume, status='in-use')
        self.assertRaises(exception.InvalidVolume,
                          self.driver.revert_to_snapshot, self.context,
                          volume, snapshot)

    # Snapshots of attached volumes

    @ddt.data('raw', 'qcow2')
    def test_create_snapshot_online(self, image_format):
        volume = self.create('thin', image_format)
        self.write(volume)
        volume = self.attach(volume)
        nova = self.nova(volume)
        snapshot = self.snapshot(volume)
        overlay = '%s.%s' % (volume.name, snapshot.id)
        self.assertEqual([{'type': 'qcow2', 'new_file': overlay,
                           'snapshot_id': snapshot.id}], nova.asked)
        volume = objects.Volume.get_by_id(self.context, volume.id)
        attachment, = volume.volume_attachment
        self.assertEqual(
            ('nfs', SHARE, overlay, 'qcow2'),
            tuple(attachment.connection_info[key] for key in (
                'driver_volume_type', 'export', 'name', 'format')))
        self.assertEqual('qcow2', volume.admin_metadata['format'])
        self.assertEqual(overlay, self.data(volume)['name'])
        self.assert_guest(volume)

    def test_create_snapshot_online_without_connection_info(self):
        # One that Nova is about to complete.
        volume = self.create('thin', 'raw')
        tests_utils.attach_volume(self.context, volume.id,
                                  str(uuid.uuid4()), 'compute', '/dev/vda')
        volume = objects.Volume.get_by_id(self.context, volume.id)
        self.nova(volume)
        snapshot = self.snapshot(volume)
        volume = objects.Volume.get_by_id(self.context, volume.id)
        attachment, = volume.volume_attachment
        self.assertEqual({'name': '%s.%s' % (volume.name, snapshot.id),
                          'format': 'qcow2'}, attachment.connection_info)

    def test_create_snapshot_online_of_an_encrypted_volume(self):
        volume = self.attach(self.create('thin', 'raw'))
        nova = self.nova(volume)
        volume.encryption_key_id = fake_constants.ENCRYPTION_KEY_ID
        volume.save()
        error = self.assertRaises(exception.InvalidVolume, self.snapshot,
                                  volume)
        self.assertIn('encrypted and attached', str(error))
        self.assertEqual([], nova.asked)

    def test_create_snapshot_online_of_two_attachments(self):
        volume = self.attach(self.attach(self.create('thin', 'raw')))
        nova = self.nova(volume)
        error = self.assertRaises(exception.InvalidVolume, self.snapshot,
                                  volume)
        self.assertIn('more than once', str(error))
        self.assertEqual([], nova.asked)
        self.assertEqual([volume.name], self.listing())

    def test_create_snapshot_online_fails(self):
        volume = self.attach(self.create('thin', 'raw'))
        nova = self.nova(volume)
        nova.status = fields.SnapshotStatus.ERROR
        self.assertRaises(exception.RemoteFSException, self.snapshot, volume)
        self.assert_servers_have(volume, volume.name)
        self.assertEqual([volume.name, volume.name + '.info'], self.listing())

    def assert_servers_have(self, volume, name):
        """Whether they have it already, or are started later."""
        volume = objects.Volume.get_by_id(self.context, volume.id)
        self.assertEqual(name, self.data(volume)['name'])
        attachment, = volume.volume_attachment
        self.assertEqual(name, attachment.connection_info['name'])

    @ddt.data('has it open', 'has written to it', "has got it as libvirt's")
    def test_create_snapshot_online_fails_too_late(self, how):
        """The guest has the overlay already."""
        volume = self.attach(self.create('thin', 'raw'))
        nova = self.nova(volume)
        nova.status = fields.SnapshotStatus.ERROR

        def hand_over(context, volume_id, info):
            path = os.path.join(self.directory(), info['new_file'])
            if 'open' in how:
                lustre_child.lock(path, 100, 0o660)
            elif 'written' in how:
                subprocess.run(
                    ['qemu-io', '-f', 'qcow2', '-c', 'write -P 0 0 512', path],
                    check=True, stdout=subprocess.DEVNULL)
            else:
                self.useFixture(fixtures.MockPatchObject(
                    files, '_is_open_in_qemu', side_effect=PermissionError()))
            return create(context, volume_id, info)

        create, nova.create_volume_snapshot = (nova.create_volume_snapshot,
                                               hand_over)
        self.assertRaises(exception.RemoteFSException, self.snapshot, volume)
        self.assert_servers_have(volume, nova.active)
        lustre_child.unlock()
        nova.status = None
        snapshot, = objects.SnapshotList.get_all_for_volume(self.context,
                                                            volume.id)
        self._delete_online(snapshot)
        self.assert_guest(volume, b'')

    @ddt.data('before', 'after')
    def test_killed_when_nova_is_asked_for_a_snapshot(self, when):
        volume = self.create('thin', 'raw')
        self.write(volume)
        volume = self.attach(volume)
        nova = self.nova(volume)

        def ask(context, volume_id, info):
            if when == 'after':
                create(context, volume_id, info)
            raise SystemExit()

        create, nova.create_volume_snapshot = (nova.create_volume_snapshot,
                                               ask)
        self.assertRaises(SystemExit, self.snapshot, volume)
        snapshot, = objects.SnapshotList.get_all_for_volume(self.context,
                                                            volume.id)
        overlay = '%s.%s' % (volume.name, snapshot.id)
        self.assert_servers_have(volume, overlay)
        self.assert_guest(volume)
        if when == 'before':
            # It has nothing to merge.
            nova.says_only = True
            self.assertRaises(exception.RemoteFSException,
                              self._delete_online, snapshot)
            self.assert_servers_have(volume, overlay)
            # The server was started anew.
            nova.says_only, nova.active = False, overlay
        self._delete_online(snapshot)
        self.assert_guest(volume)
        self.assertEqual([overlay, volume.name + '.info'], self.listing())

    def _online_chain(self, image_format, count=3):
        volume = self.create('thin', image_format)
        self.write(volume)
        volume = self.attach(volume)
        nova = self.nova(volume)
        snapshots = [self.snapshot(volume) for _n in range(count)]
        del nova.asked[:]
        return objects.Volume.get_by_id(self.context, volume.id), snapshots

    def _delete_online(self, snapshot):
        snapshot = objects.Snapshot.get_by_id(self.context, snapshot.id)
        snapshot.status = fields.SnapshotStatus.DELETING
        snapshot.save()
        self.driver.delete_snapshot(snapshot)
        snapshot.destroy()

    @ddt.data(*itertools.product(('raw', 'qcow2'),
                                 itertools.permutations(range(3))))
    @ddt.unpack
    def test_delete_snapshots_online(self, image_format, order):
        volume, snapshots = self._online_chain(image_format)
        for n in order:
            self._delete_online(snapshots[n])
            volume = objects.Volume.get_by_id(self.context, volume.id)
            data = self.data(volume)
            self.assertEqual(self.driver._nova.active, data['name'])
            self.assertEqual(data['format'],
                             volume.admin_metadata['format'])
            self.assert_guest(volume)
        # Nova keeps the active image: it is the base from now on.
        self.assertEqual([data['name'], volume.name + '.info'],
                         self.listing())
        self.driver.delete_volume(volume)
        self.assertEqual([], self.listing())

    @ddt.data(0, 1, 2)
    def test_snapshots_that_stay_when_one_is_deleted_online(self, which):
        volume, snapshots = self._online_chain('raw')
        self._delete_online(snapshots[which])
        for n in {0, 1, 2} - {which}:
            copy = self.record('thin', 'raw')
            copy = self._created(copy, self.driver.create_volume_from_snapshot(
                copy, objects.Snapshot.get_by_id(self.context,
                                                 snapshots[n].id)))
            self.assert_guest(copy)

    def test_delete_snapshot_online_after_the_mgs_list_has_changed(self):
        volume, snapshots = self._online_chain('raw', 2)
        old, nova = self.directory(), self.driver._nova
        new_name = '10.0.2.77@tcp:/lustre/cinder'
        self.driver = self.new_driver(lustre_shares=[new_name])
        self.pools()
        os.rmdir(self.directory(new_name))
        os.rename(old, self.directory(new_name))
        nova._directory = self.directory(new_name)
        self.driver._nova = nova
        self._delete_online(snapshots[0])
        self.assertEqual(
            [volume.name, '%s.%s' % (volume.name, snapshots[1].id),
             volume.name + '.info'], self.listing(new_name))
        self.assert_guest(volume)

    def test_delete_snapshot_online_without_record(self):
        """It has never been taken; the service was killed on the way."""
        volume = self.attach(self.create('thin', 'raw'))
        nova = self.nova(volume)
        snapshot = self.snapshot_record(volume)
        self.driver._images(volume).new_overlay(snapshot.id)
        for _attempt in range(2):
            self.driver.delete_snapshot(snapshot)
            self.assertEqual([volume.name], self.listing())
        self.assertEqual([], nova.asked)

    def test_delete_snapshot_online_whose_overlay_is_another_ones(self):
        """The service was killed when all was done but the answer."""
        volume, snapshots = self._online_chain('raw', 2)
        self._delete_online(snapshots[1])
        listing = self.listing()
        self.assertIn('%s.%s' % (volume.name, snapshots[1].id), listing)
        self.driver.delete_snapshot(snapshots[1])
        self.assertEqual(listing, self.listing())
        self.assert_guest(volume)

    def test_delete_snapshot_online_fails(self):
        volume, snapshots = self._online_chain('raw', 1)
        self.driver._nova.status = fields.SnapshotStatus.ERROR
        before = self.listing()
        self.assertRaises(exception.RemoteFSException, self._delete_online,
                          snapshots[0])
        self.assertEqual(before, self.listing())
        volume = objects.Volume.get_by_id(self.context, volume.id)
        self.assertEqual('raw', volume.admin_metadata['base_format'])
        self.assert_guest(volume)

    def delete_while_detaching(self, volume, snapshot, sleep):
        """Delete a snapshot when Nova has just taken the disk from the guest.

        :param sleep: called with the volume when the driver waits
        """
        def fail(ctxt, snapshot_id, info):
            db.volume_update(ctxt, volume.id, {'status': 'detaching'})
            db.snapshot_update(ctxt, snapshot_id, {
                'status': fields.SnapshotStatus.ERROR_DELETING})

        with mock.patch.object(self.driver._nova, 'delete_volume_snapshot',
                               fail), \
                mock.patch.object(online, 'time') as mock_time:
            mock_time.sleep.side_effect = lambda seconds: sleep(
                objects.Volume.get_by_id(self.context, volume.id))
            self._delete_online(snapshot)

    @ddt.data(0, 1, 2)
    def test_delete_snapshot_online_while_detaching(self, which):
        volume, snapshots = self._online_chain('raw')
        self.delete_while_detaching(
            volume, snapshots[which],
            lambda now: now.finish_detach(now.volume_attachment[0].id))
        self.assertEqual(3, len(self.driver._images(volume).chain()))
        self.assertNotIn(snapshots[which].id,
                         self.driver._images(volume).record())
        self.assert_guest(volume)

    def test_delete_snapshot_online_while_detaching_for_long(self):
        volume, snapshots = self._online_chain('raw', 1)
        before = self.listing()
        self.assertRaises(exception.RemoteFSException,
                          self.delete_while_detaching, volume, snapshots[0],
                          lambda now: None)
        self.assertEqual(before, self.listing())

    @ddt.data(0, 1, 2)
    def test_delete_snapshot_online_that_nova_has_not_merged(self, which):
        """Its job failed, or the server has the image below open."""
        volume, snapshots = self._online_chain('raw')
        before = self.listing()
        record = self.driver._images(volume).record()
        self.driver._nova.says_only = True
        error = self.assertRaises(exception.RemoteFSException,
                                  self._delete_online, snapshots[which])
        self.assertIn('still needs it', str(error))
        self.assertEqual(before, self.listing())
        self.assertEqual(record, self.driver._images(volume).record())
        self.assert_guest(volume)
        self.driver._nova.says_only = False
        self._delete_online(snapshots[which])
        self.assert_guest(volume)

    @ddt.data(*itertools.product((1, 3), (0, 1, 2)))
    @ddt.unpack
    def test_delete_snapshot_online_again(self, count, which):
        """The service was killed when Nova had done its part."""
        if which >= count:
            return
        volume, snapshots = self._online_chain('raw', count)
        with mock.patch.object(images.VolumeImages, 'write_record',
                               side_effect=KeyboardInterrupt):
            self.assertRaises(KeyboardInterrupt, self._delete_online,
                              snapshots[which])
        self._delete_online(snapshots[which])
        self.assert_guest(volume)
        for n in set(range(count)) - {which}:
            copy = self.record('thin', 'raw')
            copy = self._created(copy, self.driver.create_volume_from_snapshot(
                copy, objects.Snapshot.get_by_id(self.context,
                                                 snapshots[n].id)))
            self.assert_guest(copy)
        self.driver.delete_volume(volume)
        self.assertEqual([], [name for name in self.listing()
                              if name.startswith(volume.name)])

    def test_import_after_the_only_snapshot_was_deleted_online(self):
        """Nova has left an overlay alone, of a volume that was made raw."""
        volume, snapshots = self._online_chain('raw', 1)
        self._delete_online(snapshots[0])
        found = self.driver._images(volume)
        found.import_image(found.active(), found.active().virtual_size)
        self.assert_guest(volume)
        self.assertEqual('qcow2', self.data(volume)['format'])

    # Copies

    @ddt.data(*KINDS)
    @ddt.unpack
    def test_create_from_snapshot(self, provisioning, image_format):
        source = self.create('thin', 'raw')
        self.write(source)
        snapshot = self.snapshot(source)
        self.write(source, b'x' * len(PATTERN))
        volume = self.record(provisioning, image_format, size=2,
                             pool=OTHER_POOL)
        volume = self._created(
            volume, self.driver.create_volume_from_snapshot(volume, snapshot))
        self.assertEqual(OTHER_SHARE, volume.provider_location)
        self.assertEqual([volume.name], self.listing(OTHER_SHARE))
        self.assertEqual(image_format, self.data(volume)['format'])
        self.assertEqual(image_format,
                         volume.admin_metadata['base_format'])
        self.assert_guest(volume, size=2)

    def test_copy_volume_from_snapshot(self):
        """Of any snapshot of a chain, and by itself."""
        source = self.create('thin', 'qcow2')
        contents = [b'one', b'two', b'six']
        snapshots = []
        for content in contents:
            self.write(source, content)
            snapshots.append(self.snapshot(source))
        self.write(source, b'nil')
        copies = []
        for snapshot in snapshots:
            volume = self.record('thin', 'qcow2')
            copies.append(self._created(
                volume, self.driver.create_volume_from_snapshot(volume,
                                                                snapshot)))
        self.driver.delete_volume(source)
        for volume, content in zip(copies, contents):
            self.assert_guest(volume, content)

    def test_create_from_snapshot_in_a_wrong_state(self):
        snapshot = self.snapshot_record(self.create('thin', 'raw'),
                                        fields.SnapshotStatus.ERROR)
        volume = self.record('thin', 'raw')
        self.assertRaises(exception.InvalidSnapshot,
                          self.driver.create_volume_from_snapshot, volume,
                          snapshot)

    @ddt.data(*KINDS)
    @ddt.unpack
    def test_create_cloned_volume(self, provisioning, image_format):
        source = self.create('thin', 'raw')
        self.snapshot(source)
        self.write(source)
        volume = self.record(provisioning, image_format, size=2)
        volume = self._created(
            volume, self.driver.create_cloned_volume(volume, source))
        self.assertEqual(image_format, self.data(volume)['format'])
        self.assert_guest(volume, size=2)

    def test_create_cloned_volume_of_an_attached_one(self):
        source = self.attach(self.create('thin', 'raw'))
        volume = self.record('thin', 'raw')
        error = self.assertRaises(exception.InvalidVolume,
                                  self.driver.create_cloned_volume, volume,
                                  source)
        self.assertIn('take a snapshot and clone that', str(error))

    def test_copies_that_are_smaller(self):
        source = self.create('thin', 'raw', size=2)
        snapshot = self.snapshot(source)
        volume = self.record('thin', 'raw', size=1)
        for operation, argument in (
                (self.driver.create_cloned_volume, source),
                (self.driver.create_volume_from_snapshot, snapshot)):
            error = self.assertRaises(exception.InvalidInput, operation,
                                      volume, argument)
            self.assertIn('smaller than its source', str(error))
        self.assertFalse(os.path.exists(self.path(volume)))

    # Images

    def _image(self, image_format):
        """Return the content of an image file with the pattern."""
        fakes.skip_without('qemu-img')
        path = os.path.join(self.temp, 'image')
        with open(path, 'wb') as f:
            f.write(PATTERN)
            f.truncate(GIB)
        if image_format != 'raw':
            fakes.qemu_img('convert', '-f', 'raw', '-O', image_format, path,
                           path + '.converted')
            path += '.converted'
        with open(path, 'rb') as f:
            return f.read()

    @ddt.data(*itertools.product(('raw', 'qcow2'), KINDS))
    @ddt.unpack
    def test_copy_image_to_volume(self, file_format, kind):
        volume = self.create(*kind, size=2)
        self.driver.copy_image_to_volume(
            self.context, volume,
            FakeImageService(self._image(file_format), file_format),
            fake_constants.IMAGE_ID)
        self.assertEqual(kind[1], self.data(volume)['format'])
        self.assert_guest(volume, size=2)
        self.assertEqual([volume.name], self.listing())
        if kind[0] == 'thick':
            self.assertGreaterEqual(fakes.allocated(self.path(volume)),
                                    2 * GIB)

    def test_copy_image_to_volume_that_is_too_small(self):
        volume = self.create('thin', 'raw')
        service = FakeImageService(self._image('raw') + b'x')
        self.assertRaises(exception.ImageUnacceptable,
                          self.driver.copy_image_to_volume, self.context,
                          volume, service, fake_constants.IMAGE_ID)
        self.assert_guest(volume, b'')

    def test_copy_image_to_volume_with_snapshots(self):
        volume = self.create('thin', 'raw')
        self.snapshot(volume)
        self.driver.copy_image_to_volume(
            self.context, volume, FakeImageService(self._image('raw')),
            fake_constants.IMAGE_ID)
        self.assert_guest(volume)
        self.assertEqual('qcow2', self.driver._images(volume).active().format)

    def _upload(self, volume, disk_format):
        service = FakeImageService()
        self.driver.copy_volume_to_image(
            self.context, volume, service,
            {'id': fake_constants.IMAGE_ID, 'disk_format': disk_format,
             'container_format': 'bare'})
        return service.content

    @ddt.data(*KINDS)
    @ddt.unpack
    def test_copy_to_raw_image(self, provisioning, image_format):
        volume = self.create(provisioning, image_format)
        self.write(volume)
        self.assertEqual(PATTERN + bytes(GIB - len(PATTERN)),
                         self._upload(volume, 'raw'))

    @ddt.data(*KINDS)
    @ddt.unpack
    def test_copy_to_qcow2_image(self, provisioning, image_format):
        volume = self.create(provisioning, image_format)
        self.write(volume)
        self.snapshot(volume)
        content = self._upload(volume, 'qcow2')
        path = os.path.join(self.temp, 'uploaded')
        with open(path, 'wb') as f:
            f.write(content)
        self.assertEqual(PATTERN + bytes(GIB - len(PATTERN)),
                         self._flat(path, 'qcow2'))
        # It needs no other file.
        self.assertIsNone(files._qcow2_header(path)[1])

    def test_copy_to_image_what_looks_like_qcow2(self):
        volume = self.create('thin', 'raw')
        header = fakes.qcow2_header(9 * GIB, '/etc/passwd', 'raw')
        self.write(volume, header)
        self.assertEqual(header + bytes(GIB - len(header)),
                         self._upload(volume, 'raw'))

    def test_copy_to_image_while_attached(self):
        volume = self.attach(self.create('thin', 'raw'))
        error = self.assertRaises(exception.InvalidVolume, self._upload,
                                  volume, 'raw')
        self.assertIn('upload', str(error))

    # Connections

    @ddt.data(*KINDS)
    @ddt.unpack
    def test_initialize_connection(self, provisioning, image_format):
        volume = self.create(provisioning, image_format)
        volume.status = 'reserved'
        self.assertEqual({
            'driver_volume_type': 'nfs',
            'data': {'export': SHARE, 'name': volume.name,
                     'format': image_format,
                     'options': '-t lustre -o flock'},
            'mount_point_base': self.lustre.base,
        }, self.driver.initialize_connection(volume, {}))

    def test_initialize_connection_with_a_share_s_own_options(self):
        volume = self.create('thin', 'raw')
        self.driver = self.new_driver(
            lustre_shares=[SHARE + ' -o flock,noatime'])
        self.assertEqual('-t lustre -o flock,noatime',
                         self.data(volume)['options'])

    def test_initialize_connection_gives_the_format_that_was_recorded(self):
        volume = self.create('thin', 'raw')
        self.write(volume, fakes.qcow2_header(9 * GIB, '/etc/passwd', 'raw'))
        self.assertEqual('raw', self.data(volume)['format'])

    def test_initialize_connection_of_a_larger_image(self):
        volume = self.create('thin', 'raw')
        os.truncate(self.path(volume), GIB + 1)
        error = self.assertRaises(exception.InvalidVolume, self.data, volume)
        self.assertIn('has %d bytes' % (GIB + 1), str(error))

    def test_initialize_connection_of_a_foreign_backing_file(self):
        volume = self.create('thin', 'qcow2')
        with open(self.path(volume), 'wb') as f:
            f.write(fakes.qcow2_header(GIB, '/etc/passwd', 'raw'))
        error = self.assertRaises(images.InvalidImage, self.data, volume)
        self.assertIn('/etc/passwd', str(error))

    @ddt.data('reserved', 'attaching', 'in-use', 'available')
    def test_initialize_connection_of_an_encrypted_volume(self, status):
        """Stock Nova would format it; see nova-lustre's test_lustre."""
        volume = self.create('thin', 'qcow2')
        volume.encryption_key_id = str(uuid.uuid4())
        volume.status = status
        error = self.assertRaises(exception.InvalidVolume,
                                  self.driver.initialize_connection, volume,
                                  {})
        self.assertIn(volume.id, str(error))
        self.assertEqual('lustre', self.driver.initialize_connection(
            volume, {lustre_connector.MARK: True})['driver_volume_type'])

    def test_multiattach_of_a_raw_volume(self):
        volume = self.create('thin', 'raw', multiattach=True)
        for _server in range(2):
            volume = self.attach(volume)
        self.assertEqual('raw', self.data(volume)['format'])

    def test_multiattach_of_a_volume_with_snapshots_is_refused(self):
        volume = self.create('thin', 'raw', multiattach=True)
        self.snapshot(volume)
        volume = self.attach(volume)
        self.assertEqual('qcow2', self.data(volume)['format'])
        error = self.assertRaises(exception.InvalidVolume, self.attach,
                                  volume)
        self.assertIn('has snapshots', str(error))

    def test_multiattach_of_qcow2_is_refused(self):
        volume = self.record('thin', 'qcow2', multiattach=True)
        error = self.assertRaises(exception.InvalidVolumeType,
                                  self.driver.create_volume, volume)
        self.assertIn('lustre:format=raw', str(error))

    def test_multiattach_is_raw_if_nothing_else_is_said(self):
        volume = self.create('thin', None, multiattach=True)
        self.assertEqual('raw', volume.admin_metadata['base_format'])

    def test_initialize_connection_on_a_share_that_is_missing(self):
        volume = self.create('thin', 'raw')
        self.driver._client.unmount(self.driver._shares[POOL])
        self.assertRaises(lustre_brick.ShareUnavailable, self.data, volume)

    @ddt.data(*KINDS)
    @ddt.unpack
    def test_initialize_connection_for_our_connector(self, provisioning,
                                                     image_format):
        volume = self.create(provisioning, image_format)
        volume.status = 'backing-up'
        client = {'attempts': 1, 'mount_timeout': 60, 'timeout': 60,
                  'fs_types': ['lustre']}
        self.assertEqual({
            'driver_volume_type': 'lustre',
            'data': {'export': SHARE, 'name': volume.name,
                     'format': image_format, 'options': 'flock',
                     'chain': [(volume.name, image_format)], 'size': GIB,
                     'thin': provisioning == 'thin', 'encrypted': False,
                     'container_length': 0,
                     'client': client},
            'mount_point_base': self.lustre.base,
        }, self.driver.initialize_connection(
            volume, {lustre_connector.MARK: True}))

    def test_initialize_connection_for_our_connector_with_a_chain(self):
        volume = self.create('thin', 'raw')
        overlays = ['%s.%s' % (volume.name, self.snapshot(volume).id)
                    for _number in range(2)]
        data = self.driver.initialize_connection(
            volume, {lustre_connector.MARK: True})['data']
        self.assertEqual([(overlays[1], 'qcow2'), (overlays[0], 'qcow2'),
                          (volume.name, 'raw')], data['chain'])

    def test_our_connector_is_registered(self):
        self.assertIn('LUSTRE', brick_connector.get_connector_mapping())

    @ddt.data('backing-up', 'restoring-backup', 'available', 'maintenance',
              'retyping', 'creating')
    def test_byte_copies(self, status):
        raw = self.create('thin', 'raw')
        raw.status = status
        self.assertEqual('raw', self.driver.initialize_connection(
            raw, {})['data']['format'])
        qcow2 = self.create('thin', 'qcow2')
        qcow2.status = status
        error = self.assertRaises(exception.InvalidVolume,
                                  self.driver.initialize_connection, qcow2,
                                  {})
        self.assertIn('lustre:format=raw', str(error))

    def test_backup_volume(self):
        """cinder-backup needs no root, and copies raw volumes alone."""
        self.assertTrue(self.driver.secure_file_operations_enabled())
        volume = self.create('thick', 'raw')
        volume.status = 'backing-up'
        data = self.driver.initialize_connection(volume, {})['data']
        self.assertEqual(volume.name, data['name'])
        self.driver.terminate_connection(volume, {})
        volume.status = 'available'
        volume.save()
        self.snapshot(volume)
        volume = objects.Volume.get_by_id(self.context, volume.id)
        volume.status = 'backing-up'
        self.assertRaises(exception.InvalidVolume,
                          self.driver.initialize_connection, volume, {})

    @ddt.data({'status': 'restoring-backup'}, {'status': 'creating'},
              {'status': 'available', 'migration_status': 'target:x'})
    def test_volume_that_was_filled(self, how):
        # What ends in zeros was cut off when it was opened.
        volume = self.create('thick', 'raw')
        with open(self.path(volume), 'wb') as f:
            f.write(PATTERN)
        volume.update(how)
        self.driver.terminate_connection(volume, {})
        self.assertEqual(GIB, os.stat(self.path(volume)).st_size)
        self.assertGreaterEqual(fakes.allocated(self.path(volume)), GIB)
        self.assert_guest(volume)

    def test_terminate_connection_on_a_share_that_is_missing(self):
        volume = self.create('thin', 'raw')
        volume.status = 'in-use'
        self.driver._client.unmount(self.driver._shares[POOL])
        self.driver.terminate_connection(volume, {})

    def test_exports_need_no_share(self):
        # A share that is down must not set volumes to error at the start.
        volume = self.create('thin', 'raw')
        self.driver._client.unmount(self.driver._shares[POOL])
        self.assertIsNone(self.driver.ensure_export(self.context, volume))
        self.assertIsNone(self.driver.create_export(self.context, volume,
                                                    {}))
        self.assertIsNone(self.driver.remove_export(self.context, volume))

    def test_validate_connector(self):
        self.driver.validate_connector({})

    def test_migrate(self):
        """The way of the volume manager, after it has copied the bytes."""
        volume = self.create('thin', 'raw')
        new = self.create('thick', 'raw', pool=OTHER_POOL)
        self.write(new)
        manager.VolumeManager.update_migrated_volume(
            types.SimpleNamespace(driver=self.driver), self.context, volume,
            new, 'available')
        old = volume.finish_volume_migration(new)
        self.assertEqual(self.path(new, share=OTHER_SHARE),
                         self.driver.local_path(volume).replace(
                             volume.name_id, new.name_id))
        self.assertEqual(OTHER_SHARE, self.data(volume)['export'])
        self.assert_guest(volume)
        self.driver.delete_volume(old)
        self.assertEqual([], self.listing())
        self.assertEqual([volume.name], self.listing(OTHER_SHARE))
        self.assert_guest(volume)

    # Locks

    def test_locks(self):
        """Each operation holds the lock of each volume it touches."""
        self.locks()
        source = self.create('thin', 'raw')
        lock = 'lustre-' + source.id
        self.assertEqual([lock], self.locks())
        snapshot = self.snapshot(source)
        self.assertEqual([lock], self.locks())
        volume = self.record('thin', 'raw')
        both = sorted([lock, 'lustre-' + volume.id])
        for operation, argument in (
                (self.driver.create_volume_from_snapshot, snapshot),
                (self.driver.create_cloned_volume, source)):
            volume.update(operation(volume, argument))
            self.assertEqual(both, self.locks())
        source.status = 'available'
        service = FakeImageService(self._image('raw'))
        for operation in (
                lambda: self.driver.extend_volume(source, 2),
                lambda: self.driver.revert_to_snapshot(
                    self.context, source, snapshot),
                lambda: self._upload(source, 'raw'),
                lambda: self.data(source),
                lambda: self.driver.delete_snapshot(snapshot),
                lambda: self.driver.copy_image_to_volume(
                    self.context, source, service, fake_constants.IMAGE_ID),
                lambda: self.driver._complete(source),
                lambda: self.driver.delete_volume(source)):
            operation()
            self.assertEqual([lock], self.locks())
