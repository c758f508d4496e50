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

import contextlib
import functools
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest

import ddt
import fixtures

from os_brick.remotefs import lustre
from os_brick.remotefs import lustre_disk
from os_brick.remotefs import lustre_guard
from os_brick.tests import base
from os_brick.tests.remotefs import lustre_fixtures

# For what takes milliseconds, on a machine that does much else.
wait_for = lustre_fixtures.wait_for
_LONG = lustre_fixtures.LONG

MIB = 1 << 20
SIZE = 64 * MIB
PASSPHRASE = 'correct horse battery staple'
SHARE = lustre.Share.parse('10.0.2.15@tcp:/lustre')

# A process that opens a disk, told what to do in its place.
_SERVICE = """
import sys
if 'eventlet' in sys.argv[1:]:
    import eventlet
    eventlet.monkey_patch()
import os
import threading
import time
from os_brick.remotefs import lustre
from os_brick.remotefs import lustre_disk
client = lustre.ShareClient(sys.argv[1], None)
share = lustre.Share.parse('10.0.2.15@tcp:/lustre')
disk = lustre_disk.Disk(client, share, lustre_disk.Image(
    sys.argv[1], (('image', 'qcow2'),), 64 << 20))
"""


def run(*command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True)
    if done.returncode:
        raise AssertionError('%s: exit %s\n%s' % (
            ' '.join(command), done.returncode, done.stderr))


def servers(directory):
    """Return the ids of the processes that serve a directory's images."""
    found = []
    for pid in filter(str.isdigit, os.listdir('/proc')):
        with contextlib.suppress(OSError):
            with open('/proc/%s/cmdline' % pid) as f:
                command = f.read()
            if command.startswith('qemu-nbd\0') and directory in command:
                found.append(int(pid))
    return found


@functools.cache
def _encrypted_image():
    """Make an encrypted image, once: this takes seconds."""
    with tempfile.TemporaryDirectory() as directory:
        secret = os.path.join(directory, 'secret')
        with open(secret, 'w') as f:
            f.write(PASSPHRASE)
        path = os.path.join(directory, 'image')
        command = ('qemu-img', 'create', '-q', '-f', 'qcow2',
                   '--object', 'secret,id=key,file=' + secret,
                   '-o', 'encrypt.format=luks,encrypt.key-secret=key,'
                         'encrypt.iter-time=10', path, str(SIZE))
        # Now and then QEMU can't measure its speed.
        for _attempt in range(10):
            if not subprocess.run(command, capture_output=True).returncode:
                break
        else:
            run(*command)
        with open(path, 'rb') as f:
            return f.read()


class ImageTest(base.TestCase):

    def test_node_names_every_format(self):
        image = lustre_disk.Image('/mnt', (('b', 'qcow2'), ('a', 'qcow2'),
                                           ('base', 'raw')), 1)
        self.assertEqual({
            'driver': 'qcow2',
            'file': {'driver': 'file', 'filename': '/mnt/b'},
            'backing': {
                'driver': 'qcow2',
                'file': {'driver': 'file', 'filename': '/mnt/a'},
                'backing': {
                    'driver': 'raw',
                    'file': {'driver': 'file', 'filename': '/mnt/base'}}},
        }, image.node())

    def test_node_has_no_backing_file_but_those_of_the_chain(self):
        image = lustre_disk.Image('/mnt', (('a', 'qcow2'),), 1)
        self.assertIsNone(image.node()['backing'])

    def test_command_has_no_secret(self):
        image = lustre_disk.Image('/mnt', (('b', 'qcow2'), ('a', 'qcow2')), 1,
                                  encrypted=True)
        command = image.server('/socket', True)
        self.assertIn('secret,id=passphrase,file=@passphrase@', command)
        node = json.loads(command[-1].removeprefix('json:'))
        for image in node, node['backing']:
            self.assertEqual({'format': 'luks', 'key-secret': 'passphrase'},
                             image['encrypt'])

    def test_thick_images_keep_their_space(self):
        image = lustre_disk.Image('/mnt', (('a', 'qcow2'),), 1, thin=False)
        self.assertLessEqual({'--discard=ignore', '--detect-zeroes=on'},
                             set(image.server('/socket', True)))


class DiskTestCase(base.TestCase):

    def setUp(self):
        super().setUp()
        if not shutil.which('qemu-nbd'):
            raise unittest.SkipTest('qemu-utils is not installed')
        self.temp = self.useFixture(fixtures.TempDir()).path
        self.client = lustre.ShareClient(self.temp, None, timeout=_LONG)
        self.addCleanup(self.client.close)

    def path(self, name):
        return os.path.join(self.temp, name)

    def make(self, name='image', size=SIZE, backing=None, options=()):
        run('qemu-img', 'create', '-q', '-f', 'qcow2',
            *(('-b', backing[0], '-F', backing[1]) if backing else ()),
            *options, self.path(name), str(size))
        return name, 'qcow2'

    def make_encrypted(self):
        with open(self.path('image'), 'wb') as f:
            f.write(_encrypted_image())

    def disk(self, *chain, size=SIZE, passphrase=None, **kwargs):
        image = lustre_disk.Image(
            self.temp, chain or (('image', 'qcow2'),), size, **kwargs)
        disk = lustre_disk.Disk(self.client, SHARE, image, passphrase)
        self.addCleanup(disk.close)
        return disk

    def allocated(self):
        return os.stat(self.path('image')).st_blocks * 512


@ddt.ddt
class DiskTest(DiskTestCase):

    # As a file

    def test_file(self):
        self.make()
        with self.disk() as disk:
            self.assertTrue(disk.readable() and disk.writable()
                            and disk.seekable())
            self.assertEqual(0, disk.tell())
            self.assertEqual(5, disk.write(b'12345'))
            self.assertEqual(5, disk.tell())
            self.assertEqual(3, disk.seek(3))
            self.assertEqual(b'45\0', disk.read(3))
            self.assertEqual(4, disk.seek(-2, os.SEEK_CUR))
            self.assertEqual(SIZE - 1, disk.seek(-1, os.SEEK_END))
            self.assertEqual(b'\0', disk.read(100))
            self.assertEqual(b'', disk.read(100))
            disk.seek(SIZE + 10)
            self.assertEqual(b'', disk.read())
            disk.seek(0)
            content = disk.read()
            self.assertIsInstance(content, bytes)
            self.assertEqual(b'12345' + bytes(SIZE - 5), content)
            disk.seek(1)
            buffer = bytearray(3)
            self.assertEqual(3, disk.readinto(buffer))
            self.assertEqual(b'234', buffer)

    def test_what_it_can_t_do(self):
        self.make()
        disk = self.disk()
        # What backup drivers take as "needs no fsync".
        self.assertRaises(io.UnsupportedOperation, disk.fileno)
        self.assertRaises(OSError, disk.seek, -1)
        self.assertRaises(OSError, disk.seek, 0, 7)
        disk.seek(SIZE)
        self.assertRaises(OSError, disk.write, b'x')
        disk.close()
        for operation in (disk.read, disk.flush, lambda: disk.write(b'x'),
                          lambda: disk.zero(0, 1)):
            self.assertRaises(ValueError, operation)

    def test_writes_of_other_types(self):
        self.make()
        disk = self.disk()
        disk.write(bytearray(b'ab'))
        disk.write(memoryview(b'cd'))
        disk.seek(0)
        self.assertEqual(b'abcd', disk.read(4))

    # Images

    def test_chain(self):
        with open(self.path('base'), 'wb') as f:
            f.truncate(SIZE)
        self.make('middle', backing=('base', 'raw'))
        self.make('image', backing=('middle', 'qcow2'))
        for number, chain in enumerate((
                (('middle', 'qcow2'), ('base', 'raw')),
                (('image', 'qcow2'), ('middle', 'qcow2'), ('base', 'raw')))):
            with self.disk(*chain) as disk:
                disk.seek(number * 2)
                disk.write(b'%d%d' % (number, number))
        with open(self.path('base'), 'r+b') as f:
            f.seek(MIB)
            f.write(b'base')
        with self.disk(*chain) as disk:
            self.assertEqual(b'0011', disk.read(4))
            disk.seek(MIB)
            self.assertEqual(b'base', disk.read(4))

    def test_a_backing_file_that_is_not_of_the_chain_is_not_opened(self):
        with open(self.path('passwd'), 'w') as f:
            f.write('root')
            f.truncate(SIZE)
        self.make(backing=('passwd', 'raw'))
        self.assertEqual(bytes(4), self.disk().read(4))

    def test_formats_are_not_probed(self):
        # A guest's qcow2 header in a raw image, below an overlay.
        self.make('base')
        with open(self.path('base'), 'rb') as f:
            header = f.read(512)
        os.truncate(self.path('base'), SIZE)
        self.make(backing=('base', 'raw'))
        self.assertEqual(header, self.disk(
            ('image', 'qcow2'), ('base', 'raw')).read(512))

    def test_zeros_take_no_space(self):
        self.make()
        with self.disk() as disk:
            disk.write(b'x' * 8 * MIB)
            disk.flush()
            full = self.allocated()
            self.assertGreater(full, 8 * MIB)
            disk.write(bytes(32 * MIB))
            disk.flush()
            self.assertLess(self.allocated() - full, MIB)
            disk.seek(0)
            disk.write(bytes(8 * MIB))
        self.assertLess(self.allocated(), full - 7 * MIB)

    def test_zero_a_large_part(self):
        # Writing as many zeros would take longer than a test may.
        size = 32 << 30
        self.make(size=size)
        with self.disk(size=size) as disk:
            disk.write(b'x' * 8 * MIB)
            disk.zero(MIB, size - MIB)
            disk.seek(0)
            self.assertEqual(b'x' * MIB + bytes(MIB), disk.read(2 * MIB))
            self.assertEqual(2 * MIB, disk.tell())
        self.assertLess(self.allocated(), 16 * MIB)

    def test_zero_what_is_below(self):
        with open(self.path('base'), 'wb') as f:
            f.write(b'x' * SIZE)
        self.make(backing=('base', 'raw'))
        with self.disk(('image', 'qcow2'), ('base', 'raw')) as disk:
            disk.zero(1, SIZE - 1)
            self.assertEqual(b'x' + bytes(SIZE - 1), disk.read())

    def test_zeros_of_a_thick_image_keep_its_space(self):
        self.make(options=('-o', 'preallocation=falloc'))
        with self.disk(thin=False) as disk:
            disk.write(b'x' * 8 * MIB)
            disk.seek(0)
            disk.write(bytes(8 * MIB))
            disk.zero(0, SIZE)
        self.assertGreaterEqual(self.allocated(), SIZE)

    @ddt.data(
        (('nothing', 'qcow2'), SIZE, 'No such file'),
        (('text', 'qcow2'), SIZE, 'not in qcow2 format'),
        (('image', 'qcow2'), SIZE + 512, 'instead of %d' % (SIZE + 512)))
    @ddt.unpack
    def test_images_that_can_t_be_used(self, image, size, reason):
        self.make()
        with open(self.path('text'), 'w') as f:
            f.write('x' * 4096)
        error = self.assertRaises(lustre_disk.DiskError, self.disk, image,
                                  size=size)
        self.assertIn(reason, str(error))
        self.assertIn(image[0], str(error))
        self.assertIn(str(SHARE), str(error))
        wait_for(lambda: not servers(self.temp))

    def test_an_image_that_is_in_use(self):
        self.make()
        disk = self.disk()
        disk.write(b'x')
        error = self.assertRaises(lustre_disk.DiskError, self.disk)
        self.assertIn('lock', str(error))
        disk.close()
        self.assertEqual(b'x', self.disk().read(1))

    def test_what_is_read_is_not_opened_for_writing(self):
        self.make()
        os.utime(self.path('image'), (1, 1))
        readers = [self.disk(), self.disk()]
        self.assertEqual([b'\0', b'\0'], [disk.read(1) for disk in readers])
        error = self.assertRaises(lustre_disk.DiskError, readers[0].write,
                                  b'x')
        self.assertIn('lock', str(error))
        self.assertRaises(lustre_disk.DiskError, readers[0].read, 1)
        for disk in readers:
            disk.close()
        self.assertEqual(1, os.stat(self.path('image')).st_mtime)

    def test_a_disk_to_read(self):
        self.make()
        disk = self.disk(read_only=True)
        self.assertFalse(disk.writable())
        self.assertRaises(io.UnsupportedOperation, disk.write, b'x')
        self.assertEqual(b'\0', disk.read(1))

    def test_without_qemu_nbd(self):
        self.useFixture(fixtures.EnvironmentVariable('PATH', self.temp))
        error = self.assertRaises(FileNotFoundError, self.disk)
        self.assertIn('qemu-nbd', str(error))

    # Encryption

    def test_encrypted(self):
        self.make_encrypted()
        with self.disk(encrypted=True, passphrase=PASSPHRASE) as disk:
            disk.write(b'in clear')
        self.assertEqual([], servers(self.temp))
        with open(self.path('image'), 'rb') as f:
            self.assertFalse(b'in clear' in f.read())
        disk = self.disk(encrypted=True, passphrase=PASSPHRASE)
        self.assertEqual(b'in clear', disk.read(8))

    @ddt.data('wrong', None)
    def test_wrong_passphrase(self, passphrase):
        self.make_encrypted()
        error = self.assertRaises(lustre_disk.DiskError, self.disk,
                                  encrypted=True, passphrase=passphrase)
        self.assertIn('Invalid password', str(error))
        self.assertEqual([], servers(self.temp))

    def test_the_passphrase_is_in_no_command_line_or_environment(self):
        self.make_encrypted()
        self.disk(encrypted=True, passphrase=PASSPHRASE)
        pid, = servers(self.temp)
        for name in 'cmdline', 'environ':
            with open('/proc/%d/%s' % (pid, name), 'rb') as f:
                self.assertNotIn(PASSPHRASE.encode(), f.read())

    # Processes

    def test_one_server_until_it_is_closed(self):
        self.make()
        disk = self.disk()
        self.assertEqual(1, len(servers(self.temp)))
        disk.close()
        self.assertEqual([], servers(self.temp))
        disk.close()

    def test_no_socket_is_left_to_connect_to(self):
        where = self.useFixture(fixtures.TempDir()).path
        self.useFixture(fixtures.MonkeyPatch('tempfile.tempdir', where))
        self.make()
        self.disk()
        self.assertEqual([], os.listdir(where))

    def test_a_server_that_dies(self):
        self.make()
        disk = self.disk()
        disk.write(b'x')
        disk.flush()
        os.kill(*servers(self.temp), signal.SIGKILL)
        for _attempt in range(2):
            self.assertRaises(lustre_disk.DiskError, disk.read, 1)
        # It was told once.
        disk.close()
        self.assertEqual(b'x', self.disk().read(1))

    def test_what_can_t_be_made_durable_is_told_at_close(self):
        self.make()
        disk = self.disk()
        disk.write(b'x')
        os.kill(*servers(self.temp), signal.SIGKILL)
        self.assertRaises(lustre_disk.DiskError, disk.close)
        self.assertTrue(disk.closed)

    def test_a_share_that_hangs(self):
        self.make()
        disk = self.disk()
        pid, = servers(self.temp)
        disk._server._channel.settimeout(0.2)
        os.kill(pid, signal.SIGSTOP)
        start = time.monotonic()
        self.assertRaises(lustre_guard.ShareHung, disk.read, 1)
        self.assertRaises(lustre_guard.ShareHung, disk.read, 1)
        disk.close()
        self.assertLess(time.monotonic() - start, _LONG / 2)
        wait_for(lambda: not servers(self.temp))

    def _service(self, code, *args):
        process = subprocess.Popen(
            [sys.executable, '-W', 'ignore', '-c',
             _SERVICE + textwrap.dedent(code), self.temp, *args],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def test_the_server_ends_with_the_service(self):
        self.make()
        service = self._service("""
            disk.write(b'x')
            print('ready', flush=True)
            time.sleep(1000)
            """)
        self.assertEqual('ready\n', service.stdout.readline())
        self.assertEqual(1, len(servers(self.temp)))
        service.kill()
        wait_for(lambda: not servers(self.temp))
        # A process that ends has no command any more, but has its files for
        # a moment longer.
        wait_for(self._opens)

    def _opens(self):
        try:
            self.disk().close()
        except lustre_disk.DiskError:
            return False
        return True

    _GREEN = """
        from eventlet import tpool
        ticks = []

        def tick():
            while True:
                ticks.append(time.monotonic())
                time.sleep(0.01)

        threading.Thread(target=tick, daemon=True).start()
        %s
        content = os.urandom(4 << 20)
        for _round in range(8):
            file.write(content)
        file.flush()
        file.seek(0)
        for _round in range(8):
            assert file.read(4 << 20) == content
        disk.close()
        print(max(b - a for a, b in zip(ticks, ticks[1:])) < %d)
        """

    @ddt.data('file = disk', 'file = tpool.Proxy(disk)')
    def test_green_threads_go_on(self, how):
        self.make()
        service = self._service(self._GREEN % (how, _LONG / 4), 'eventlet')
        out, error = service.communicate(timeout=_LONG)
        self.assertEqual(('', 'True\n'), (error, out))

    @ddt.data('file = disk', 'file = tpool.Proxy(disk)')
    def test_green_threads_go_on_while_a_share_hangs(self, how):
        self.make()
        service = self._service("""
            from eventlet import tpool
            %s
            ticks = 0

            def tick():
                global ticks
                while True:
                    time.sleep(0.01)
                    ticks += 1

            disk._server._channel.settimeout(2)
            print('ready', flush=True)
            while not os.path.exists(sys.argv[1] + '/hung'):
                time.sleep(0.01)
            threading.Thread(target=tick, daemon=True).start()
            try:
                file.read(1)
            except lustre_disk.lustre_guard.ShareHung:
                print(ticks > 10)
            """ % how, 'eventlet')
        self.assertEqual('ready\n', service.stdout.readline())
        pid, = servers(self.temp)
        os.kill(pid, signal.SIGSTOP)
        open(self.path('hung'), 'w').close()
        self.assertEqual(('True\n', ''), service.communicate(timeout=_LONG))
        wait_for(lambda: not servers(self.temp))
