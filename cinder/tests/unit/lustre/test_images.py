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
import errno
import json
import os
import resource
import shutil
from unittest import mock
import uuid

import ddt
import fixtures
from oslo_concurrency import processutils
from oslotest import base

from cinder import exception
from cinder.lustre import files
from cinder.lustre import images
from cinder.lustre import places
from cinder.tests.unit.lustre import fakes
from os_brick.remotefs import lustre as lustre_brick
from os_brick.remotefs import lustre_child
from os_brick.remotefs import lustre_guard

KIB, MIB = fakes.KIB, fakes.MIB

NAME = 'volume-' + str(uuid.UUID(int=1))
IDS = [str(uuid.UUID(int=n)) for n in (2, 3, 4)]
OVERLAYS = ['%s.%s' % (NAME, snapshot_id) for snapshot_id in IDS]

KINDS = (('thin', 'qcow2'), ('thin', 'raw'), ('thick', 'raw'),
         ('thick', 'qcow2'))


class ImagesTestCase(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        self.lustre = self.useFixture(fakes.FakeLustre())
        self.temp = self.useFixture(fixtures.TempDir()).path
        self.share = lustre_brick.Share.parse('mgs@tcp:/lustre/cinder')
        client = self.lustre.client()
        client.ensure_mounted(self.share)
        self.place = places.Place(self.share, client, self.lustre, 0o660)
        self.images = self.new_images()

    def new_images(self, base_format='raw', provisioning='thin', name=NAME):
        return images.VolumeImages(self.place, name, base_format,
                                   provisioning)

    def path(self, name):
        return os.path.join(self.place.directory, name)

    def put(self, name, content):
        with open(self.path(name), 'wb') as f:
            f.write(content)

    def get(self, name):
        with open(self.path(name), 'rb') as f:
            return f.read()

    def listing(self):
        return sorted(os.listdir(self.place.directory))

    def record(self):
        return json.loads(self.get(NAME + '.info'))

    def assert_invalid(self, reason, function, *args):
        error = self.assertRaises(images.InvalidImage, function, *args)
        self.assertIn(reason, str(error))
        self.assertIn(self.share.name, str(error))


class PlaceTestCase(ImagesTestCase):

    def assert_names(self, error, path):
        self.assertIn(self.share.name, str(error))
        self.assertIn(path, str(error))

    def test_a_call_that_fails(self):
        with mock.patch.object(os, 'fsync', side_effect=OSError(
                errno.EDQUOT, 'quota')):
            self.put(NAME, b'')
            error = self.assertRaises(OSError, self.place.call, files.sync,
                                      self.path(NAME))
        self.assertEqual(errno.EDQUOT, error.errno)
        self.assert_names(error, self.path(NAME))

    def test_the_kind_of_error_is_kept(self):
        error = self.assertRaises(FileNotFoundError, self.place.call,
                                  files.size, self.path(NAME))
        self.assert_names(error, self.path(NAME))

    def test_qemu_img_fails(self):
        error = self.assertRaises(
            processutils.ProcessExecutionError, self.place.qemu_img, 'info',
            '-f', 'raw', self.path(NAME))
        self.assert_names(error, self.path(NAME))

    def test_a_file_that_would_be_too_large(self):
        """It is told what to do about it, whoever meets the limit."""
        self.put(NAME, b'')
        error = OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        with mock.patch.object(os, 'fsync', side_effect=error):
            self.assert_advised(self.assertRaises(
                OSError, self.place.call, files.sync, self.path(NAME)))
        with mock.patch.object(lustre_child, 'run_with', mock.Mock(
                return_value=(1, '', 'qemu-img: %s' % error.strerror),
                __name__='run_with')):
            self.assert_advised(self.assertRaises(
                processutils.ProcessExecutionError, self.place.qemu_img,
                'resize', self.path(NAME), 1 << 45))
        self.lustre.grow = mock.Mock(return_value=str(error))
        self.assert_advised(self.assertRaises(
            places.GrowthFailed, self.place.privileged_grow, self.path(NAME),
            1 << 45, False))

    def assert_advised(self, error):
        self.assert_names(error, self.path(NAME))
        self.assertIn('needs more stripes', str(error))

    def test_qemu_img_has_limits(self):
        """However large the virtual size that an image claims."""
        with mock.patch.object(lustre_child, 'run_with', mock.Mock(
                return_value=(0, '', ''), __name__='run_with')) as run:
            self.place.qemu_img('info')
            self.place.qemu_img('convert', copied=80 * MIB)
        for call, seconds in zip(run.mock_calls, (30, 40)):
            limits = call.args[0]
            self.assertEqual(seconds, limits[resource.RLIMIT_CPU])
            self.assertEqual(8 << 30, limits[resource.RLIMIT_AS])
            self.assertEqual(0, limits[resource.RLIMIT_CORE])

    def test_growth_that_fails_half_way(self):
        self.lustre.grow = mock.Mock(return_value='no space')
        error = self.assertRaises(
            places.GrowthFailed, self.place.privileged_grow, self.path(NAME),
            MIB, True)
        self.assertIn('no space', str(error))
        self.assertNotIn('Nothing was changed', str(error))
        self.assert_names(error, self.path(NAME))


@ddt.ddt
class RecordTestCase(ImagesTestCase):

    def test_no_record(self):
        self.assertEqual({}, self.images.record())

    def test_write_and_read(self):
        record = {'active': OVERLAYS[0], IDS[0]: OVERLAYS[0]}
        self.images.write_record(record)
        self.assertEqual(record, self.images.record())
        self.assertEqual(record, self.record())
        self.assertEqual([NAME + '.info'], self.listing())
        self.assertEqual(
            0o660, os.stat(self.path(NAME + '.info')).st_mode & 0o777)

    def test_write_that_fails_leaves_the_old_one(self):
        old = {'active': OVERLAYS[0], IDS[0]: OVERLAYS[0]}
        self.images.write_record(old)
        with mock.patch.object(os, 'replace', side_effect=OSError(
                errno.EIO, 'error')):
            self.assertRaises(OSError, self.images.write_record,
                              {'active': NAME})
        self.assertEqual(old, self.images.record())

    def test_no_snapshots(self):
        # As RemoteFSSnapDriver leaves it behind.
        self.put(NAME + '.info', b'{}')
        self.assertEqual({}, self.images.record())

    @ddt.data(
        (b'', 'Expecting value'),
        (b'\0' * 100, 'Expecting value'),
        (b'{"active": "volume-', 'Unterminated string'),
        (b'{"active": "\xff"}', "can't decode"),
        (b'[]', 'names no active image'),
        (b'null', 'names no active image'),
        (b'"active"', 'names no active image'),
        (json.dumps({IDS[0]: OVERLAYS[0]}).encode(),
         'names no active image'),
        (json.dumps({'active': '../' + NAME}).encode(), 'names ../'),
        (json.dumps({'active': '/etc/passwd'}).encode(), '/etc/passwd'),
        (json.dumps({'active': NAME, IDS[0]: 'volume-x'}).encode(),
         'names volume-x'),
        (json.dumps({'active': None}).encode(), 'names None'),
        (json.dumps({'active': {'a': NAME}}).encode(), 'it names'))
    @ddt.unpack
    def test_damaged(self, content, reason):
        self.put(NAME, b'content')
        self.put(NAME + '.info', content)
        for operation in (self.images.record, self.images.chain,
                          self.images.claim):
            self.assert_invalid(reason, operation)
        self.assert_invalid(reason, self.images.add_overlay, IDS[0])
        self.assert_invalid(reason, self.images.drop_overlay, IDS[0])
        self.assert_invalid(reason, self.images.revert, IDS[0])
        self.assertEqual(content, self.get(NAME + '.info'))
        self.assertEqual(b'content', self.get(NAME))
        self.assertEqual([NAME, NAME + '.info'], self.listing())


@ddt.ddt
class ChainTestCase(ImagesTestCase):

    def test_format_is_not_recorded(self):
        self.put(NAME, b'content')
        for base_format in None, '', 'vmdk':
            self.assert_invalid('its format is not recorded',
                                self.new_images(base_format).chain)

    def test_image_is_missing(self):
        self.assert_invalid(NAME + ' is missing', self.images.chain)

    def test_what_files_says(self):
        self.put(NAME, fakes.qcow2_header(5, '/etc/passwd', 'raw'))
        self.assert_invalid("'/etc/passwd' is not a file of",
                            self.new_images('qcow2').active)

    def test_images_of_the_hypervisor_s_user(self):
        # Read by the privileged daemon.
        self.lustre.chain = mock.Mock(return_value=([(NAME, 'raw', 5)], None))
        self.put(NAME, b'12345')
        with mock.patch.object(files, 'chain', side_effect=PermissionError):
            self.assertEqual(
                [images.Image(self.path(NAME), 'raw', 5)],
                self.images.chain())
            self.lustre.chain.return_value = None, 'it is no image'
            self.assert_invalid('it is no image', self.images.chain)
        self.lustre.chain.assert_called_with(
            self.share.name, self.place.directory, NAME, NAME, 'raw', 60)

    def test_claim(self):
        self.put(NAME, b'')
        self.put(OVERLAYS[0], fakes.qcow2_header(0, NAME, 'raw'))
        self.images.write_record({'active': OVERLAYS[0],
                                  IDS[0]: OVERLAYS[0]})
        owners = {self.path(OVERLAYS[0]): 'libvirt-qemu'}
        self.lustre.take_over = lambda share, path, *args: owners.pop(path)
        with mock.patch.object(os, 'access', lambda path, mode:
                               path not in owners):
            # What take_over returns is why it failed.
            self.assert_invalid('libvirt-qemu', self.images.claim)
            self.images.claim()

    def test_snapshot_without_record(self):
        self.put(NAME, b'')
        self.assert_invalid('it has no snapshot ' + IDS[0],
                            self.images.snapshot, IDS[0])

    def test_snapshot_that_has_nothing_below(self):
        self.put(OVERLAYS[0], fakes.qcow2_header())
        self.images.write_record({'active': OVERLAYS[0],
                                  IDS[0]: OVERLAYS[0]})
        self.assert_invalid('it has no backing file', self.images.snapshot,
                            IDS[0])


class QemuTestCase(ImagesTestCase):
    """With real images.

    In the thirds of 3 MiB the tests write different bytes, as a guest.
    """

    SIZE = 3 * MIB

    def setUp(self):
        for command in 'qemu-img', 'qemu-io':
            fakes.skip_without(command)
        super().setUp()
        self.commands = []
        real_run = lustre_child._run

        def run(limits, fds, argv):
            self.commands.append(argv)
            return self.interfere(argv) or real_run(limits, fds, argv)

        self.useFixture(fixtures.MockPatchObject(lustre_child, '_run', run))
        self.addCleanup(self._check_commands)

    def interfere(self, argv):
        """Return an answer in place of a command."""

    def _check_commands(self):
        """Invariant 1: every command names the format of every file."""
        for argv in self.commands:
            if argv[0] == 'qemu-img':
                self.assertTrue('-f' in argv or any(
                    arg.startswith('json:{"driver": "') for arg in argv))
                self.assertEqual('-b' in argv, '-F' in argv, argv)
                self.assertEqual('convert' in argv, '-O' in argv, argv)

    @contextlib.contextmanager
    def broken_after(self, count):
        """Let the share answer so many calls, and then no more."""
        calls = iter(range(count))
        real_call = self.lustre.call

        def call(share, function, *args, timeout):
            if next(calls, None) is None:
                raise lustre_brick.ShareUnavailable(share=share,
                                                    reason='a test')
            return real_call(share, function, *args, timeout=timeout)

        with mock.patch.object(lustre_guard.Guard, 'call', mock.Mock(
                side_effect=call)):
            yield

    def write(self, pattern, third=0, volume_images=None):
        image = (volume_images or self.images).active()
        fakes.qemu_io('-f', image.format, '-c', 'write -P %d %d %d' % (
            pattern, third * MIB, MIB), image.path)

    def flat(self, image):
        """Return what a guest sees of an image and all below it."""
        path = os.path.join(self.temp, 'flat')
        fakes.qemu_img('convert', '-f', image.format, '-O', 'raw', image.path,
                       path)
        with open(path, 'rb') as f:
            return f.read()

    def assert_reads(self, *patterns, image=None, size=None):
        content = self.flat(image or self.images.active())
        self.assertEqual(size or self.SIZE, len(content))
        self.assertEqual(
            list(patterns),
            [self._pattern(content[third * MIB:(third + 1) * MIB])
             for third in range(3)])

    @staticmethod
    def _pattern(content):
        return content[0] if content == content[:1] * len(content) else None

    def make(self, provisioning='thin', image_format='raw'):
        self.images = self.new_images(image_format, provisioning)
        self.images.create(image_format, self.SIZE)

    def make_chain(self, provisioning='thin', image_format='raw', count=3):
        """Make a volume with snapshots; the last of them is empty."""
        self.make(provisioning, image_format)
        for n in range(count):
            self.write(n + 1, n)
            self.images.add_overlay(IDS[n])
        self.contents = ((1, 0, 0), (1, 2, 0), (1, 2, 3))

    def check(self):
        for image in self.images.chain():
            if image.format == 'qcow2':
                fakes.qemu_img('check', '-q', '-f', 'qcow2', image.path)


@ddt.ddt
class CreateTestCase(QemuTestCase):

    @ddt.data(*KINDS)
    @ddt.unpack
    def test_create(self, provisioning, image_format):
        self.make(provisioning, image_format)
        self.assertEqual([NAME], self.listing())
        self.assertEqual([images.Image(self.path(NAME), image_format,
                                       self.SIZE)], self.images.chain())
        self.assertEqual(0o660, os.stat(self.path(NAME)).st_mode & 0o777)
        self.assert_reads(0, 0, 0)
        if provisioning == 'thick':
            self.assertGreaterEqual(fakes.allocated(self.path(NAME)),
                                    self.SIZE)
        else:
            self.assertLess(fakes.allocated(self.path(NAME)), MIB)
        self.assertLessEqual(len(self.commands), 3)

    def test_create_thick_qcow2_where_there_is_no_fallocate(self):
        def interfere(argv):
            if 'preallocation=falloc' in argv:
                return 1, '', ('qemu-img: Could not preallocate data for the '
                               'new file: Operation not supported')

        self.interfere = interfere
        self.make('thick', 'qcow2')
        self.assertIn('preallocation=full', self.commands[1])
        self.assertGreaterEqual(fakes.allocated(self.path(NAME)), self.SIZE)

    def test_create_thick_qcow2_fails(self):
        self.interfere = lambda argv: (1, '', 'No space left on device')
        self.assertRaises(processutils.ProcessExecutionError, self.make,
                          'thick', 'qcow2')
        self.assertEqual(1, len(self.commands))
        self.assertEqual([], self.listing())

    @ddt.data(*KINDS)
    @ddt.unpack
    def test_a_create_that_fails_leaves_nothing(self, provisioning,
                                                image_format):
        with mock.patch.object(os, 'replace', side_effect=OSError(
                errno.ENOSPC, 'No space left on device')):
            self.assertRaises(OSError, self.make, provisioning, image_format)
        self.assertEqual([], self.listing())

    def test_a_create_that_fails_on_a_share_that_is_gone(self):
        with self.broken_after(1):
            self.assertRaises(lustre_brick.ShareUnavailable, self.make)
        self.assertEqual([NAME + '.new'], self.listing())
        self.make()
        self.assertEqual([NAME], self.listing())

    def test_mode(self):
        self.place.mode = 0o666
        self.make('thin', 'qcow2')
        self.assertEqual(0o666, os.stat(self.path(NAME)).st_mode & 0o777)

    @ddt.data(*KINDS)
    @ddt.unpack
    def test_copy_of_a_chain(self, provisioning, image_format):
        self.make_chain(count=2)
        self.write(9, 2)
        copy = self.new_images(image_format, provisioning,
                               'volume-' + str(uuid.UUID(int=9)))
        copy.copy(self.images.snapshot(IDS[1]), image_format, 5 * MIB)
        active = copy.active()
        self.assertEqual(image_format, active.format)
        self.assertEqual(1, len(copy.chain()))
        self.assert_reads(1, 2, 0, image=active, size=5 * MIB)
        if provisioning == 'thick':
            self.assertGreaterEqual(fakes.allocated(active.path), 5 * MIB)
        copy.copy(self.images.active(), image_format, self.SIZE)
        self.assert_reads(1, 2, 9, image=copy.active())

    @ddt.data(*KINDS)
    @ddt.unpack
    def test_import(self, provisioning, image_format):
        source = os.path.join(self.temp, 'image')
        with open(source, 'wb') as f:
            f.write(b'\1' * MIB + b'\2' * MIB)
        self.make(provisioning, image_format)
        self.write(7, 2)
        self.images.import_image(images.Image(source, 'raw', 2 * MIB),
                                 self.SIZE)
        self.assertEqual(image_format, self.images.active().format)
        self.assert_reads(1, 2, 0)
        if provisioning == 'thick':
            self.assertGreaterEqual(fakes.allocated(self.path(NAME)),
                                    self.SIZE)

    def test_import_beside_snapshots(self):
        source = os.path.join(self.temp, 'image')
        with open(source, 'wb') as f:
            f.write(bytes(MIB) + b'\2' * MIB)
        self.make_chain()
        self.write(7, 2)
        before = [self.images.snapshot(key) for key in IDS]
        self.images.import_image(images.Image(source, 'raw', 2 * MIB),
                                 self.SIZE)
        self.assert_reads(0, 2, 0)
        self.assertEqual(self.SIZE, self.images.active().virtual_size)
        self.assertEqual(before, [self.images.snapshot(key) for key in IDS])
        self.images.revert(IDS[-1])
        self.assert_reads(1, 2, 3)

    def test_forget(self):
        """What goes with its volume is not merged; what was begun goes."""
        self.make_chain()
        begun = str(uuid.uuid4())
        self.images.new_overlay(begun)
        before = [image.file for image in self.images.chain()]
        for key in (*IDS, begun):
            self.images.forget(key)
        self.assertEqual([], self.images.snapshot_ids())
        self.assertEqual(before, [image.file for image in self.images.chain()])
        self.assertEqual(sorted([*before, NAME + '.info']), self.listing())
        self.images.remove()
        self.assertEqual([], self.listing())

    def test_import_that_fails_leaves_the_old_one(self):
        self.make()
        self.write(7, 2)
        self.interfere = lambda argv: (1, '', 'Input/output error')
        self.assertRaises(processutils.ProcessExecutionError,
                          self.images.import_image,
                          images.Image('/nowhere', 'raw', MIB), self.SIZE)
        self.interfere = lambda argv: None
        self.assert_reads(0, 0, 7)
        self.assertEqual([NAME], self.listing())

    @ddt.data('raw', 'qcow2', 'vmdk')
    def test_export(self, file_format):
        self.make_chain(count=1)
        self.write(5, 2)
        path = os.path.join(self.temp, 'export')
        self.images.export(path, file_format)
        self.assert_reads(1, 0, 5, image=images.Image(path, file_format, 0))

    def test_export_of_what_a_guest_has_written(self):
        # It looks like a qcow2 image, and is a raw volume's content.
        self.make()
        header = fakes.qcow2_header(9 * MIB, '/etc/passwd', 'raw')
        with open(self.path(NAME), 'r+b') as f:
            f.write(header)
        path = os.path.join(self.temp, 'export')
        self.images.export(path, 'raw')
        with open(path, 'rb') as f:
            self.assertEqual(header + bytes(self.SIZE - len(header)),
                             f.read())

    @ddt.data(*KINDS)
    @ddt.unpack
    def test_grow(self, provisioning, image_format):
        self.make(provisioning, image_format)
        self.write(1)
        self.images.grow(5 * MIB)
        self.assert_reads(1, 0, 0, size=5 * MIB)
        if provisioning == 'thick':
            self.assertGreaterEqual(fakes.allocated(self.path(NAME)),
                                    5 * MIB)
        self.check()

    @ddt.data(*KINDS)
    @ddt.unpack
    def test_grow_with_snapshots(self, provisioning, image_format):
        self.make_chain(provisioning, image_format, count=1)
        self.images.grow(5 * MIB)
        self.assert_reads(1, 0, 0, size=5 * MIB)
        self.assert_reads(1, 0, 0, image=self.images.snapshot(IDS[0]))
        self.images.drop_overlay(IDS[0])
        self.assert_reads(1, 0, 0, size=5 * MIB)
        if (provisioning, image_format) == ('thick', 'raw'):
            self.assertGreaterEqual(fakes.allocated(self.path(NAME)),
                                    5 * MIB)

    def test_grow_never_shrinks_a_raw_image(self):
        self.make()
        self.images.grow(MIB)
        self.assertEqual(self.SIZE, self.images.active().virtual_size)

    def test_complete_a_raw_image_that_was_truncated(self):
        self.make('thick')
        self.put(NAME, b'\5' * MIB)
        self.images.complete(self.SIZE)
        self.assert_reads(5, 0, 0)
        self.assertGreaterEqual(fakes.allocated(self.path(NAME)), self.SIZE)

    def test_complete_a_raw_image_with_holes(self):
        self.make('thick')
        self.put(NAME, b'')
        os.truncate(self.path(NAME), self.SIZE)
        self.images.complete(self.SIZE)
        self.assertLess(fakes.allocated(self.path(NAME)), MIB)
        self.images.complete(self.SIZE, refill=True)
        self.assertGreaterEqual(fakes.allocated(self.path(NAME)), self.SIZE)

    def test_complete_leaves_qcow2_alone(self):
        self.make('thin', 'qcow2')
        before = self.get(NAME)
        self.images.complete(5 * MIB, refill=True)
        self.assertEqual(before, self.get(NAME))


@ddt.ddt
class SnapshotTestCase(QemuTestCase):

    @ddt.data(*KINDS)
    @ddt.unpack
    def test_snapshots(self, provisioning, image_format):
        self.make_chain(provisioning, image_format)
        self.write(9)
        self.assert_reads(9, 2, 3)
        for snapshot_id, content in zip(IDS, self.contents):
            self.assert_reads(*content,
                              image=self.images.snapshot(snapshot_id))
        self.assertEqual(
            dict(zip(IDS, OVERLAYS), active=OVERLAYS[2]), self.record())
        self.assertEqual([NAME, *OVERLAYS, NAME + '.info'], self.listing())
        for file in self.listing():
            self.assertEqual(0o660, os.stat(self.path(file)).st_mode & 0o777)

    def test_overlays_name_their_backing_file_without_a_directory(self):
        # The share may be mounted elsewhere on a compute host.
        self.make_chain(count=1)
        info = json.loads(fakes.qemu_img(
            'info', '-U', '-f', 'qcow2', '--output=json',
            self.path(OVERLAYS[0])))
        self.assertEqual((NAME, 'raw'), (info['backing-filename'],
                                         info['backing-filename-format']))

    def test_a_guest_s_qcow2_header_means_nothing(self):
        self.make()
        with open(self.path(NAME), 'r+b') as f:
            f.write(fakes.qcow2_header(9 * MIB, '/etc/passwd', 'raw'))
        before = self.flat(self.images.active())
        self.images.add_overlay(IDS[0])
        self.write(1, 2)
        self.assertEqual(before, self.flat(self.images.snapshot(IDS[0])))
        self.images.drop_overlay(IDS[0])
        self.assertEqual(before[:2 * MIB] + b'\1' * MIB,
                         self.flat(self.images.active()))

    def test_add_again(self):
        self.make_chain(count=1)
        self.write(9)
        self.images.add_overlay(IDS[0])
        self.assert_reads(9, 0, 0)

    @ddt.data(0, 1, 2)
    def test_delete_one(self, which):
        self.make_chain()
        self.write(9)
        self.images.drop_overlay(IDS[which])
        self.assert_reads(9, 2, 3)
        for n in {0, 1, 2} - {which}:
            self.assert_reads(*self.contents[n],
                              image=self.images.snapshot(IDS[n]))
        self.assertNotIn(OVERLAYS[which], self.listing())
        self.assertNotIn(IDS[which], self.record())
        self.check()

    @ddt.data((0, 1, 2), (2, 1, 0), (1, 2, 0), (1, 0, 2))
    def test_delete_all(self, order):
        self.make_chain('thick', 'raw')
        self.write(9)
        for which in order:
            self.images.drop_overlay(IDS[which])
            self.assert_reads(9, 2, 3)
        self.assertEqual([NAME, NAME + '.info'], self.listing())
        self.assertEqual({'active': NAME}, self.record())
        self.assertEqual('raw', self.images.active().format)
        self.assertGreaterEqual(fakes.allocated(self.path(NAME)), self.SIZE)

    def test_delete_what_has_no_record(self):
        self.make_chain(count=1)
        self.images.drop_overlay(IDS[1])
        self.put(OVERLAYS[1], b'made, and not recorded')
        self.images.drop_overlay(IDS[1])
        self.assertEqual([NAME, OVERLAYS[0], NAME + '.info'], self.listing())
        self.assert_reads(1, 0, 0)

    def test_what_was_merged_is_durable_before_the_overlay_goes(self):
        self.make_chain(count=1)
        calls, real_call = [], self.lustre.call

        def call(share, function, *args, timeout):
            calls.append((function.__name__,
                          args[2 if function.__name__ == 'run_with' else 0]))
            return real_call(share, function, *args, timeout=timeout)

        with mock.patch.object(lustre_guard.Guard, 'call', mock.Mock(
                side_effect=call)):
            self.images.drop_overlay(IDS[0])
        order = [calls.index(done) for done in (
            ('run_with', 'qemu-img'), ('sync', self.path(NAME)),
            ('replace', self.path(NAME + '.info')),
            ('remove', [self.path(OVERLAYS[0])]))]
        self.assertEqual(sorted(order), order)

    def test_revert(self):
        self.make_chain()
        self.write(9)
        self.images.revert(IDS[2])
        self.assert_reads(1, 2, 3)
        self.assertEqual([NAME, *OVERLAYS, NAME + '.info'], self.listing())
        for snapshot_id, content in zip(IDS, self.contents):
            self.assert_reads(*content,
                              image=self.images.snapshot(snapshot_id))

    def test_revert_to_the_size_before(self):
        self.make_chain(count=1)
        self.images.grow(5 * MIB)
        self.images.revert(IDS[0])
        self.assert_reads(1, 0, 0)

    def test_revert_to_an_older_one(self):
        self.make_chain()
        self.write(9)
        self.assertRaises(exception.InvalidSnapshot, self.images.revert,
                          IDS[1])
        self.assert_reads(9, 2, 3)

    def _test_interrupted(self, operation, *after, deleted=None):
        """Let the share go after each call; then repeat the operation.

        Until then the volume reads as before, or as after, and snapshots as
        ever, but for the one that is deleted.
        """
        self.make_chain()
        self.write(9)
        before = (9, 2, 3)
        saved = os.path.join(self.temp, 'saved')
        shutil.copytree(self.place.directory, saved)
        for count in range(1000):
            shutil.rmtree(self.place.directory)
            shutil.copytree(saved, self.place.directory)
            try:
                with self.broken_after(count):
                    operation()
                break
            except lustre_brick.ShareUnavailable:
                content = self.flat(self.images.active())
                self.assertIn(
                    tuple(content[third * MIB] for third in range(3)),
                    (before, after))
                for snapshot_id, expected in zip(IDS, self.contents):
                    if snapshot_id != deleted:
                        self.assert_reads(*expected,
                                          image=self.images.snapshot(
                                              snapshot_id))
                operation()
            self.assert_reads(*after)
        self.assertGreater(count, 2)

    @ddt.data(0, 1, 2)
    def test_an_interrupted_deletion(self, which):
        self._test_interrupted(
            lambda: self.images.drop_overlay(IDS[which]), 9, 2, 3,
            deleted=IDS[which])
        self.assertNotIn(OVERLAYS[which], self.listing())

    def test_an_interrupted_deletion_of_an_overlay_with_another_s_name(self):
        # Nova has merged the overlay of the first snapshot into that of the
        # second one, which was deleted.
        self.make_chain(count=1)
        os.rename(self.path(OVERLAYS[0]), self.path(OVERLAYS[1]))
        record = {'active': OVERLAYS[1], IDS[0]: OVERLAYS[1]}
        self.images.write_record(record)
        for count in range(1000):
            try:
                with self.broken_after(count):
                    self.images.drop_overlay(IDS[0])
                break
            except lustre_brick.ShareUnavailable:
                pass
        self.assertGreater(count, 2)
        self.assertEqual([NAME, NAME + '.info'], self.listing())
        self.assertEqual({'active': NAME}, self.images.record())

    def test_an_interrupted_snapshot(self):
        self._test_interrupted(
            lambda: self.images.add_overlay(str(uuid.UUID(int=5))), 9, 2, 3)

    def test_an_interrupted_revert(self):
        self._test_interrupted(lambda: self.images.revert(IDS[2]), 1, 2, 3)


@ddt.ddt
class RemoveTestCase(ImagesTestCase):

    def put_chain(self, *missing):
        chain = [NAME, *OVERLAYS]
        self.images.write_record(dict(zip(IDS, OVERLAYS), active=chain[-1]))
        for below, name in zip([None] + chain, chain):
            if name not in missing:
                self.put(name, fakes.qcow2_header(
                    backing=below, backing_format=below and (
                        'raw' if below == NAME else 'qcow2')))

    def test_remove(self):
        others = ['volume-' + str(uuid.UUID(int=9)), NAME + 'x',
                  'x' + NAME, NAME + '.' + str(uuid.UUID(int=9))]
        for name in others:
            self.put(name, b'')
        self.put_chain()
        self.put(NAME + '.new', b'')
        self.put(NAME + '.info.new', b'')
        self.images.remove()
        self.assertEqual(sorted(others), self.listing())

    def test_remove_what_is_not_there(self):
        self.images.remove()
        self.assertEqual([], self.listing())

    @ddt.data([NAME], [NAME, OVERLAYS[0]], OVERLAYS[:1], OVERLAYS[1:2],
              OVERLAYS[2:], [NAME] + OVERLAYS)
    def test_remove_what_is_left(self, missing):
        self.put_chain(*missing)
        self.images.remove()
        self.assertEqual([], self.listing())

    def test_remove_damaged_images(self):
        self.put_chain()
        self.put(OVERLAYS[2], b'')
        self.images.remove()
        self.assertEqual([], self.listing())

    def test_remove_an_image_that_points_elsewhere(self):
        victim = os.path.join(self.temp, 'victim')
        self.put(victim, b'')
        self.put_chain()
        self.put(OVERLAYS[0], fakes.qcow2_header(backing=victim,
                                                 backing_format='raw'))
        self.images.remove()
        self.assertTrue(os.path.exists(victim))
        self.assertEqual([], self.listing())

    @ddt.data(b'', b'{"active": "vol', b'{"active": "../victim"}', b'[1]',
              b'{"version": 2, "active": "%s"}' % NAME.encode())
    def test_remove_what_a_damaged_record_does_not_tell(self, content):
        others = ['volume-' + str(uuid.UUID(int=9)), NAME + 'x',
                  'x' + NAME, NAME + '.kept', '../victim']
        self.put_chain()
        for name in others:
            self.put(name, b'')
        self.put(NAME + '.info', content)
        removed, unlink = [], os.unlink
        with mock.patch.object(os, 'unlink', lambda path: (
                unlink(path), removed.append(os.path.basename(path)))):
            self.images.remove()
        self.assertEqual([NAME, *OVERLAYS, NAME + '.info'], removed)
        self.assertEqual(sorted(others[:-1]), self.listing())
        self.assertTrue(os.path.exists(self.path('../victim')))

    def test_the_record_goes_last(self):
        removed, unlink = [], os.unlink
        self.put_chain()
        with mock.patch.object(os, 'unlink', lambda path: (
                unlink(path), removed.append(os.path.basename(path)))):
            self.images.remove()
        self.assertEqual([NAME, *OVERLAYS, NAME + '.info'], removed)

    def test_a_removal_that_is_interrupted_is_completed(self):
        for count in range(5):
            self.put_chain()
            numbers, unlink = iter(range(count)), os.unlink

            def unlink_some(path):
                unlink(path)
                next(numbers)

            with mock.patch.object(os, 'unlink', unlink_some):
                self.assertRaises(StopIteration, self.images.remove)
            self.images.remove()
            self.assertEqual([], self.listing())
