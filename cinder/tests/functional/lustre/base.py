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

"""The driver on real files, mounts, qemu-img and an SQLite database.

Shares come from the sandbox, or are new directories of $LUSTRE_SHARE. Each
test has its own, and the file systems are kept for the whole process.
"""

import atexit
import contextlib
import hashlib
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import unittest
from unittest import mock
import uuid
import warnings

from castellan import key_manager
from oslo_config import cfg

from cinder import context
from cinder import objects
import cinder.privsep
from cinder.tests.functional.lustre import keys
from cinder.tests.functional.lustre import stand_ins
from cinder.tests.unit.lustre import records
from cinder.tests.unit import test
from cinder.tests.unit import utils as tests_utils
from cinder.volume import configuration
from cinder.volume.drivers import lustre
from cinder.volume import volume_types
from cinder.volume import volume_utils
from os_brick.initiator.connectors import lustre as lustre_connector
from os_brick.remotefs import lustre as lustre_brick

CONF = cfg.CONF

GIB = 1 << 30
MIB = 1 << 20

# The tests run from the root of the tree, wherever they are installed.
SANDBOX = os.path.join(os.getcwd(), 'sandbox', 'lustre-sandbox')

BLOCK = 64 << 10

FILE_SYSTEM_TYPES = ['lustre', 'xfs', 'ext4', 'fuse', 'fuse.lustre']


def run(*command, **kwargs):
    """Run a command, and show what it said if it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, **kwargs)
    if done.returncode:
        raise AssertionError('%s: exit %s\n%s%s' % (
            ' '.join(command), done.returncode, done.stdout, done.stderr))
    return done.stdout


def backing_chain(path):
    """Return what qemu-img knows of an image and of those below it."""
    return json.loads(run('qemu-img', 'info', '-U', '--backing-chain',
                          '--output', 'json', '-f', 'qcow2', path))


def digest(path):
    """Hash a sparse file: all of its blocks that are not zeros."""
    found = hashlib.blake2b()
    zeros = bytes(BLOCK)
    with open(path, 'rb') as f:
        for offset in data_blocks(f):
            block = os.pread(f.fileno(), BLOCK, offset)
            if block != zeros:
                found.update(b'%d:' % offset + block)
    return found.hexdigest()


def data_blocks(f):
    end = os.fstat(f.fileno()).st_size
    offset = 0
    while offset < end:
        try:
            offset = os.lseek(f.fileno(), offset, os.SEEK_DATA)
        except OSError:
            return
        offset -= offset % BLOCK
        yield offset
        offset += BLOCK


class FileSystems:
    """Two file systems and a mount of their roots, for one process."""

    _instance = None

    @classmethod
    def get(cls):
        if cls._instance is None:
            cls._instance = cls()
            atexit.register(cls._instance.remove)
        return cls._instance

    def __init__(self):
        # Not below the temporary directory of the test that happens to be
        # the first.
        self._directory = tempfile.mkdtemp(prefix='lustre-functional-',
                                           dir='/var/tmp')
        self.sandboxed = not os.environ.get('LUSTRE_SHARE')
        self._names = []
        if self.sandboxed:
            self._environment = dict(
                os.environ,
                LUSTRE_SANDBOX_STATE=os.path.join(self._directory, 'state'))
            os.environ.update(self._environment)
            self.sandbox('install')
            unique = uuid.uuid4().hex[:6]
            self._names = ['f%sa' % unique, 'f%sb' % unique]
            for name in self._names:
                self.sandbox('create', name, '--osts', '4',
                             '--ost-size', '4G',
                             '--pool', 'flash=0-1', '--pool', 'cap=2-3',
                             '--pool', 'empty=')
            roots = ['10.0.2.15@tcp:/' + name for name in self._names]
        else:
            share = os.environ['LUSTRE_SHARE'].rstrip('/')
            roots = [share, share]
        self.roots = [(root, self._mount(root)) for root in roots]

    def sandbox(self, *arguments):
        return run(SANDBOX, *arguments, env=self._environment)

    def fault(self, share_name, *fault):
        """Switch a fault of a share's file system on, or clear all."""
        self.sandbox('fault', share_name.rpartition(':/')[2].split('/')[0],
                     *fault)

    def heal(self, share_name):
        """Clear all faults of a share's file system."""
        self.fault(share_name, 'clear')
        # Some faults unmount the file system everywhere.
        for root, path in self.roots:
            if not os.path.ismount(path):
                run('mount', '-t', 'lustre', '-o', 'flock', root, path)

    def _mount(self, root):
        path = tempfile.mkdtemp(dir=self._directory)
        run('mount', '-t', 'lustre', '-o', 'flock', root, path)
        return path

    def remove(self):
        for _root, path in self.roots:
            subprocess.run(['umount', '-l', path])
        for name in self._names:
            self.sandbox('destroy', name)
        shutil.rmtree(self._directory, ignore_errors=True)


class LustreTestCase(records.RecordsMixin, test.TestCase):
    """Tests of the driver with two shares."""

    MOCK_TOOZ = False

    def setUp(self):
        if os.geteuid():
            raise unittest.SkipTest('mounting needs root')
        super().setUp()
        # Cinder's own, at each load of a volume.
        warnings.filterwarnings('ignore', message='Passing item_cls')
        # eventlet's, at each fork: more than the test runner takes in.
        warnings.filterwarnings('ignore', message='Using fork')
        # What is reported must not be waited for: no time is mocked away.
        mock.patch.stopall()
        self.file_systems = FileSystems.get()
        self.temp = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.temp, True)
        self.override_config('image_conversion_dir', self.temp)
        # As root there is no need for a daemon.
        cinder.privsep.sys_admin_pctxt.set_client_mode(False)
        self.addCleanup(cinder.privsep.sys_admin_pctxt.set_client_mode, True)
        self.context = context.get_admin_context()
        self.context.user_id, self.context.project_id = 'user', 'project'
        self.mount_base = os.path.join(self.temp, 'mnt')
        self.shares = [self._new_share(*root)
                       for root in self.file_systems.roots]
        self.driver = self.new_driver()

    def _new_share(self, root, path):
        """Make a directory of a file system into a share."""
        name = 'test-' + uuid.uuid4().hex
        directory = os.path.join(path, name)
        os.mkdir(directory)
        self.addCleanup(shutil.rmtree, directory, True)
        return '%s/%s' % (root, name)

    def new_driver(self, driver_class=lustre.LustreDriver, **options):
        """Set a driver up, as cinder-volume does."""
        conf = configuration.Configuration(lustre.lustre_opts,
                                           config_group='lustre')
        # The driver registers its base classes' options.
        driver = driver_class(configuration=conf, db=mock.Mock(),
                              host='test@lustre')
        for name, value in dict({
                'lustre_shares': self.shares,
                'lustre_mount_point_base': self.mount_base,
                'lustre_file_system_types': FILE_SYSTEM_TYPES,
                # For QEMU to make an encrypted image beside other tests.
                'lustre_operation_timeout': 60,
                'lustre_mount_timeout': 10}, **options).items():
            CONF.set_override(name, value, group='lustre')
        self.addCleanup(self._unmount)
        driver.do_setup(self.context)
        self.addCleanup(driver._client.close)
        driver.check_for_setup_error()
        driver.init_capabilities()
        return driver

    def _unmount(self):
        for name in (os.listdir(self.mount_base)
                     if os.path.isdir(self.mount_base) else ()):
            subprocess.run(['umount', '-l', os.path.join(self.mount_base,
                                                         name)],
                           stderr=subprocess.DEVNULL)

    # Volumes, in the database and by the driver

    def volume_type(self, **specs):
        """Make a volume type; the keys' double underscores are colons."""
        return volume_types.create(
            self.context, 'type-' + uuid.uuid4().hex,
            {key.replace('__', ':'): value for key, value in specs.items()})

    def volume_record(self, size=1, share=0, status='creating', **fields_):
        specs = fields_.pop('specs', {})
        if 'volume_type_id' not in fields_:
            fields_['volume_type_id'] = self.volume_type(**specs).id
        return tests_utils.create_volume(
            self.context, size=size, status=status, host=self.host(share),
            **fields_)

    def host(self, share):
        """What the scheduler notes when it has chosen a share."""
        pools = [pool['pool_name'] for pool in
                 self.driver.get_volume_stats()['pools']]
        return 'test@lustre#' + pools[share]

    def create(self, size=1, **fields_):
        """Create a volume of so many GiB."""
        volume = self.volume_record(size, **fields_)
        return self._created(volume, self.driver.create_volume(volume))

    def clone(self, source, size=None, **fields_):
        volume = self.volume_record(size or source.size, **fields_)
        return self._created(volume, self.driver.create_cloned_volume(
            volume, source))

    def from_snapshot(self, snapshot, size=None, **fields_):
        volume = self.volume_record(size or snapshot.volume_size, **fields_)
        return self._created(volume, self.driver.create_volume_from_snapshot(
            volume, snapshot))

    def delete_snapshot(self, snapshot):
        self.driver.delete_snapshot(snapshot)
        snapshot.destroy()

    def extend(self, volume, size):
        self.driver.extend_volume(volume, size)
        volume.size = size
        volume.save()

    def delete(self, volume):
        self.driver.delete_volume(volume)
        volume.destroy()

    @staticmethod
    def of_tenant(volume):
        """Load a volume as Cinder does for a request of its owner."""
        return objects.Volume.get_by_id(context.RequestContext(
            volume.user_id, volume.project_id, is_admin=False), volume.id)

    # What a guest sees

    @contextlib.contextmanager
    def attached(self, volume):
        """Attach a volume as Nova does, and give its connection.

        An encrypted one takes our driver for Nova.
        """
        connector = {lustre_connector.MARK: bool(volume.encryption_key_id)}
        before, volume.status = volume.status, 'reserved'
        try:
            connection = self.driver.initialize_connection(
                volume, connector)['data']
            connection['path'] = os.path.join(self.directory(volume),
                                              connection['name'])
            connection['key'] = self.passphrase(volume)
            yield connection
            self.driver.terminate_connection(volume, connector)
        finally:
            volume.status = before

    def write(self, volume, pattern, offset=0, length=MIB):
        """Write a byte many times into a volume, as a guest."""
        with self.attached(volume) as connection:
            self.qemu_io(connection, 'write -P %d %d %d' % (pattern, offset,
                                                            length))

    @classmethod
    def qemu_io(cls, connection, *commands):
        arguments = [a for command in commands for a in ('-c', command)]
        with cls.opened(connection) as options:
            return run('qemu-io', *arguments, *options)

    @staticmethod
    @contextlib.contextmanager
    def opened(connection):
        """Give the options that open an image, as a hypervisor has them."""
        if not connection.get('key'):
            yield '-f', connection['format'], connection['path']
            return
        with tempfile.NamedTemporaryFile() as secret:
            secret.write(connection['key'])
            secret.flush()
            node = {'encrypt.key-secret': 'sec'}
            for _image in range(1, len(backing_chain(connection['path']))):
                node = {'encrypt.key-secret': 'sec', 'backing': node}
            yield ('--object', 'secret,id=sec,file=' + secret.name,
                   'json:' + json.dumps(
                       {'driver': 'qcow2', 'file': {
                           'driver': 'file',
                           'filename': connection['path']}, **node}))

    def content(self, volume):
        """Return size and checksum of all that a guest sees."""
        with self.attached(volume) as connection:
            return self.image_content(connection['path'],
                                      connection['format'],
                                      connection['key'])

    def image_content(self, path, image_format, key=None):
        flat = os.path.join(self.temp, 'content-' + uuid.uuid4().hex)
        with self.opened({'path': path, 'format': image_format,
                          'key': key}) as options:
            run('qemu-img', 'convert', *options, '-O', 'raw', flat)
        try:
            return os.stat(flat).st_size, digest(flat)
        finally:
            os.unlink(flat)

    def snapshot_content(self, snapshot, **fields_):
        """Return size and checksum of a snapshot, by a volume made of it."""
        volume = self.from_snapshot(snapshot, **fields_)
        try:
            return self.content(volume)
        finally:
            self.delete(volume)

    # Encryption

    def encrypted_type(self, **specs):
        """Make a volume type with encryption; use a key for each volume."""
        keys.use(self)
        type_id = self.volume_type(**specs).id
        tests_utils.create_encryption(
            self.context, type_id, cipher='aes-xts-plain64', key_size=256,
            provider='luks', control_location='front-end')
        return type_id

    def encrypted(self, **fields_):
        """Make the record's fields of an encrypted volume with a new key."""
        if 'volume_type_id' not in fields_:
            fields_['volume_type_id'] = self.encrypted_type(
                **fields_.pop('specs', {}))
        key_id = volume_utils.create_encryption_key(
            self.context, key_manager.API(CONF), fields_['volume_type_id'])
        return dict(fields_, encryption_key_id=key_id)

    def passphrase(self, volume):
        if not volume.encryption_key_id:
            return None
        key = key_manager.API(CONF).get(self.context,
                                        volume.encryption_key_id)
        return key.get_encoded().hex().encode()

    def as_nobody(self, work, *paths):
        """Run ``work()`` in a process of a user without any rights.

        :param paths: what is given to that user before, with the test's own
            directories
        """
        for path in sys.executable, lustre.__file__:
            if not stand_ins.readable_by_all(path):
                self.skipTest('other users may not read %s' % path)
        entry = pwd.getpwnam('nobody')
        for path in (self.temp, os.path.dirname(self.temp),
                     CONF.oslo_concurrency.lock_path, *paths):
            os.chown(path, entry.pw_uid, entry.pw_gid)
        self.driver._client.close()
        self.assertTrue(stand_ins.in_child(work, 'nobody'))

    @staticmethod
    def failure_of(function, *args):
        """Return what a call fails with, whatever that is."""
        try:
            function(*args)
        except Exception as exc:
            return exc
        raise AssertionError('%s has not failed' % function)

    # What is on the shares

    def directory(self, volume):
        return os.path.dirname(self.driver.local_path(volume))

    def path(self, volume, suffix=''):
        return self.driver.local_path(volume) + suffix

    def listing(self, share=0):
        """Name the files on a share, but for the one that is locked."""
        root, path = self.file_systems.roots[share]
        return sorted({*os.listdir(path + self.shares[share][len(root):])}
                      - {lustre_brick.LOCK_FILE})

    def check(self, volume):
        """Let qemu-img check the volume's active image."""
        with self.attached(volume) as connection:
            if connection['format'] == 'qcow2':
                run('qemu-img', 'check', '-f', 'qcow2', connection['path'])

    def assert_reads(self, volume, pattern, offset=0, length=MIB):
        with self.attached(volume) as connection:
            out = self.qemu_io(connection, 'read -P %d %d %d' % (
                pattern, offset, length))
        self.assertNotIn('Pattern verification failed', out)
