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

"""Migrations between back ends: two of ours, and Cinder's NFS driver.

Each has a manager of its own. The NFS share is a directory that is mounted
where the driver would mount it.
"""

import hashlib
import os
import subprocess
import unittest

import ddt
import fixtures
from oslo_concurrency import processutils

from cinder import objects
from cinder.tests.functional.lustre import base
from cinder.tests.functional.lustre import managed
from cinder.tests.unit.lustre import releases
from cinder.tests.unit import utils as tests_utils
from cinder.volume import configuration
from cinder.volume import driver
from cinder.volume.drivers import nfs
from cinder.volume.drivers import remotefs
from cinder.volume import manager

GIB, MIB = base.GIB, base.MIB
NFS_SHARE = '127.0.0.1:/volumes'

RAW = {'lustre__format': 'raw', 'provisioning__type': 'thin'}
THICK = {'lustre__format': 'raw', 'provisioning__type': 'thick'}
QCOW2 = {'lustre__format': 'qcow2', 'provisioning__type': 'thin'}


class Services:
    """Asks the manager of a volume's host for what is asked by messages."""

    def __init__(self, managers):
        self._managers = managers

    def __call__(self):
        return self

    def __getattr__(self, name):
        def request(context, *args, **kwargs):
            host = next((arg.host for arg in (*args, *kwargs.values())
                         if isinstance(arg, objects.Volume)), None)
            if name == 'update_migrated_volume':
                host = args[1].host
            return getattr(self._service(host or str(args[0])), name)(
                context, *args, **kwargs)
        return request

    def _service(self, host):
        return managed.Requests(next(
            m for m in self._managers if m.host in host))


class BetweenBackendsTestCase(managed.ManagerTestCase):

    def setUp(self):
        super().setUp()
        self.override_config('migration_create_volume_timeout_secs', 60)
        self.other = self._manager('test@other', self.new_driver())
        self.nfs = self._manager('test@nfs', self._nfs_driver())
        managed.mock.patch('cinder.volume.rpcapi.VolumeAPI', Services(
            [self.manager, self.other, self.nfs])).start()
        self.places = {
            'lustre': self.host(0),
            'other': self.host(1).replace('@lustre', '@other'),
            'nfs': 'test@nfs#nfs'}

    def _manager(self, host, its_driver):
        made = manager.VolumeManager(host=host)
        made.driver = its_driver
        made.stats = {'pools': {}, 'allocated_capacity_gb': 0}
        its_driver.set_initialized()
        its_driver.db = made.db
        tests_utils.create_service(self.context, {
            'host': host, 'binary': 'cinder-volume',
            'topic': 'cinder-volume'})
        return made

    def _nfs_driver(self):
        # All that the driver asks is whether there is one.
        os.symlink('/bin/true', os.path.join(self.temp, 'mount.nfs'))
        self.useFixture(fixtures.EnvironmentVariable(
            'PATH', '%s:%s' % (self.temp, os.environ['PATH'])))
        mounts = os.path.join(self.temp, 'nfs')
        self.nfs_directory = os.path.join(
            mounts, hashlib.md5(NFS_SHARE.encode()).hexdigest())
        os.makedirs(self.nfs_directory)
        base.run('mount', '--bind', self.nfs_directory, self.nfs_directory)
        self.addCleanup(subprocess.run, ['umount', '-l', self.nfs_directory])
        shares = os.path.join(self.temp, 'shares')
        with open(shares, 'w') as f:
            f.write(NFS_SHARE + '\n')
        conf = configuration.Configuration(nfs.nfs_opts, config_group='nfs')
        conf.append_config_values(remotefs.nas_opts + driver.volume_opts)
        for name, value in {
                'nfs_shares_config': shares, 'nfs_mount_point_base': mounts,
                'nas_secure_file_operations': 'true',
                'nas_secure_file_permissions': 'true',
                'max_over_subscription_ratio': '20.0'}.items():
            base.CONF.set_override(name, value, group='nfs')
            self.addCleanup(base.CONF.clear_override, name, group='nfs')
        nfs_driver = nfs.NfsDriver(configuration=conf)
        nfs_driver.do_setup(self.context)
        nfs_driver.check_for_setup_error()
        nfs_driver.init_capabilities()
        return nfs_driver

    def service(self, volume):
        return next(m for m in (self.manager, self.other, self.nfs)
                    if volume.host.startswith(m.host + '#'))

    def migrate(self, volume, place, **kwargs):
        """Let the volume's manager copy it to another back end."""
        volume.previous_status, volume.status = volume.status, 'maintenance'
        volume.save()
        self.service(volume).migrate_volume(
            self.context, volume, {'host': self.places[place]}, True, **kwargs)
        volume = self.loaded(volume)
        self.assertEqual(('available', 'success', self.places[place]),
                         (volume.status, volume.migration_status,
                          volume.host))
        return volume

    def fill(self, volume):
        self.write(volume, 1, 5 * MIB + 4096, 3 * MIB)
        self.write(volume, 2, GIB - 512, 512)

    def on_nfs(self, volume):
        """Return the path of a volume's file."""
        return os.path.join(self.nfs_directory, volume.name)

    def make_nfs(self, qcow2=False, **fields_):
        """Make a volume there as cinder-volume does."""
        base.CONF.set_override('nfs_qcow2_volumes', qcow2, group='nfs')
        volume = self.volume_record(**fields_)
        volume.host = self.places['nfs']
        volume.save()
        volume.update(self.nfs.driver.create_volume(volume))
        volume.status = 'available'
        volume.save()
        return self.loaded(volume)

    def assert_made_by_type(self, volume, specs):
        with self.attached(volume) as connection:
            self.assertEqual(specs['lustre__format'], connection['format'])
        found = os.stat(self.path(volume))
        if specs['lustre__format'] == 'raw':
            self.assertEqual(volume.size * GIB, found.st_size)
        if specs['provisioning__type'] == 'thick':
            self.assertGreaterEqual(found.st_blocks * 512, volume.size * GIB)
        else:
            self.assertLess(found.st_blocks * 512, 64 * MIB)


@ddt.ddt
class MigrationTest(BetweenBackendsTestCase):

    @ddt.data(RAW, THICK, QCOW2)
    def test_two_of_ours(self, specs):
        volume = self.create(2, status='available', specs=specs)
        self.fill(volume)
        content = self.content(volume)
        for place, service in (('other', self.other),
                               ('lustre', self.manager)):
            volume = self.migrate(volume, place)
            self.driver = service.driver
            self.assertEqual(content, self.content(volume))
            self.assert_made_by_type(volume, specs)
        self.assertEqual([volume.name], self.listing(0))
        self.assertEqual([], self.listing(1))

    @ddt.data(RAW, THICK, QCOW2)
    def test_nfs_and_back(self, specs):
        volume = self.create(2, status='available', specs=specs)
        self.fill(volume)
        content = self.content(volume)
        volume = self.migrate(volume, 'nfs')
        self.assertEqual([], self.listing(0))
        self.assertEqual(content, self.image_content(self.on_nfs(volume),
                                                     'raw'))
        volume = self.migrate(volume, 'lustre')
        self.assertEqual([], os.listdir(self.nfs_directory))
        self.assertEqual(content, self.content(volume))
        if specs != RAW:
            # Cinder writes the zeros of a raw file.
            self.assert_made_by_type(volume, specs)
        self.delete(volume)
        self.assertEqual([], self.listing(0))

    @ddt.data((RAW, QCOW2), (QCOW2, THICK), (THICK, RAW))
    @ddt.unpack
    def test_retype(self, before, after):
        volume = self.create(status='available', specs=before)
        self.fill(volume)
        content = self.content(volume)
        volume = self.migrate(volume, 'other',
                              new_type_id=self.volume_type(**after).id)
        self.driver = self.other.driver
        self.assertEqual(content, self.content(volume))
        with self.attached(volume) as connection:
            self.assertEqual(after['lustre__format'], connection['format'])

    @ddt.data(RAW, QCOW2)
    def test_qcow2_of_nfs(self, specs):
        """Its driver gives the file's bytes, and takes them."""
        volume = self.create(status='available', specs=specs)
        self.fill(volume)
        content = self.content(volume)
        base.CONF.set_override('nfs_qcow2_volumes', True, group='nfs')
        error = self.failure_of(self.migrate, volume, 'nfs')
        self.assertIn('nfs_qcow2_volumes', str(error))
        volume = self.loaded(volume)
        self.assertEqual('available', volume.status)
        self.assertEqual(content, self.content(volume))
        self.assertEqual([], os.listdir(self.nfs_directory))
        theirs = self.make_nfs(qcow2=True, specs=specs)
        error = self.failure_of(self.migrate, theirs, 'lustre')
        self.assertIn('the source of', str(error))
        self.assertEqual([theirs.name], os.listdir(self.nfs_directory))
        self.assertEqual([volume.name], self.listing(0))


class EncryptedMigrationTest(BetweenBackendsTestCase):

    def setUp(self):
        super().setUp()
        create = self.nfs.driver._create_encrypted_volume_file
        self.nfs.driver._create_encrypted_volume_file = (
            lambda *args: self.patiently(create, *args))

    @staticmethod
    def patiently(create, *args):
        """Let QEMU try again where it can't measure its speed."""
        for _attempt in range(10):
            try:
                return create(*args)
            except processutils.ProcessExecutionError as exc:
                if 'accurate CPU usage' not in exc.stderr:
                    raise
        return create(*args)

    def note_as_qcow2(self):
        """Let Cinder's NFS driver note encrypted volumes as what they are.

        It does so when it has made another one as qcow2.
        """
        volume = self.make_nfs(qcow2=True)
        self.nfs.driver.delete_volume(volume)
        volume.destroy()

    def make(self, pattern=1, length=MIB, **specs):
        volume = self.create(status='available',
                             **self.encrypted(specs=specs))
        self.write(volume, pattern, 0, length)
        return volume

    def test_two_of_ours(self):
        # The file of a thick one is larger than its disk.
        for provisioning in 'thin', 'thick':
            volume = self.make(provisioning__type=provisioning)
            content = self.content(volume)
            moved = self.migrate(volume, 'other')
            self.assertEqual([], self.listing(0))
            self.assertEqual(content, self.content(moved))
            self.assertEqual(volume.encryption_key_id,
                             moved.encryption_key_id)
            self.driver._images(moved).check()
            self.delete(moved)

    def test_nfs_and_back(self):
        self.note_as_qcow2()
        volume = self.make()
        content = self.content(volume)
        volume = self.migrate(volume, 'nfs')
        self.assertEqual(content, self.image_content(
            self.on_nfs(volume), 'qcow2', self.passphrase(volume)))
        volume = self.migrate(volume, 'lustre')
        self.assertEqual(content, self.content(volume))
        self.driver._images(volume).check()

    def test_one_of_nfs_that_is_larger_than_its_disk(self):
        """Cinder copies as many bytes as the disk has."""
        self.note_as_qcow2()
        volume = self.migrate(self.make(provisioning__type='thick'), 'nfs')
        self.assertGreater(os.path.getsize(self.on_nfs(volume)), GIB)
        error = self.failure_of(self.migrate, volume, 'lustre')
        self.assertIn('qemu-img check', str(error))
        self.assertGreater(os.path.getsize(self.on_nfs(volume)), GIB)
        self.assertEqual([], self.listing(0))

    @unittest.skipIf(releases.RELEASE < 28, 'it looks for itself')
    def test_a_back_end_that_takes_bytes_for_a_disk(self):
        """As the NFS driver does where it hasn't noted what they are."""
        volume = self.make()
        content = self.content(volume)
        error = self.failure_of(self.migrate, volume, 'nfs')
        self.assertIn('take the file for its disk', str(error))
        volume = self.loaded(volume)
        self.assertEqual(content, self.content(volume))
        self.assertEqual([], os.listdir(self.nfs_directory))
