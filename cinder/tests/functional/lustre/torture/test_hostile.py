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

"""Guests that write image headers, and images that are not what they say.

What must never happen is what happened elsewhere:

* CVE-2015-1850 and CVE-2015-1851: a guest's qcow2 header in a raw volume made
  Cinder hand out the backing file that it names, when the volume was uploaded.
* CVE-2022-47951: the same by a VMDK image that names a file as its extent.
* CVE-2024-32498: the same by a qcow2 image with an external data file.
* CVE-2024-4467: ``qemu-img info`` of a qcow2 image opened a data file that
  it named with ``json:``, whatever that was, to read and to write it.
* CVE-2026-24708: Nova let qemu-img resize a raw disk without saying that it is
  raw, and the guest's qcow2 header decided which file that changed.
* OSSN-0014: volumes on file shares could be read by every user of a host.

A file that nothing may open is named by all of them and watched by inotify.
Ordinary runs take some of the corpus, and all of it with
$CINDER_LUSTRE_EXHAUSTIVE set.
"""

import gzip
import os
import stat
import subprocess
from unittest import mock

import ddt

from cinder import exception
from cinder.tests.functional.lustre import base
from cinder.tests.functional.lustre import stand_ins
from cinder.tests.functional.lustre.torture import hostile
from cinder.tests.functional.lustre.torture import services

EXHAUSTIVE = bool(os.environ.get('CINDER_LUSTRE_EXHAUSTIVE'))

HEADERS = tuple(hostile.headers(''))

# Those that stand for all in ordinary runs.
SOME = HEADERS if EXHAUSTIVE else (
    'qcow2, backing file', 'qcow2, data file by JSON', 'qcow2, 4 EiB',
    'vmdk, extent', 'luks', 'qcow2 and gpt and iso')
INSIDE_QCOW2 = HEADERS if EXHAUSTIVE else ('qcow2, backing file',
                                           'qcow2 and gpt and iso')
COPIED = HEADERS if EXHAUSTIVE else ('qcow2, data file by JSON',)
COPIED_INSIDE = HEADERS if EXHAUSTIVE else ('qcow2, backing file',)

# What may become a volume as it is, what QEMU itself refuses, and what is
# qcow2 and also something else: only if the reference says qcow2.
ADOPTED = ('qcow2', 'gpt')
UNUSABLE = ('qcow2, 4 EiB', 'qcow2, huge first-level table')
AMBIGUOUS = ('qcow2 and gpt and iso',)


class HostileTestCase(base.LustreTestCase):

    def setUp(self):
        super().setUp()
        self.bait = hostile.Bait(os.path.join(self.temp, 'bait'))
        self.addCleanup(self.bait.close)
        self.image = os.path.join(self.temp, 'image')
        self.conversions = os.path.join(self.temp, 'conversions')
        os.mkdir(self.conversions)
        self.override_config('image_conversion_dir', self.conversions)

    def assert_harmless(self):
        """Nothing was read from outside, and nothing is left."""
        self.assertFalse(self.bait.taken(), 'the bait is taken')
        self.assertEqual([], os.listdir(self.conversions))

    def head(self, path, image_format, length):
        """Read the start of what a guest sees."""
        flat = os.path.join(self.temp, 'head')
        base.run('qemu-img', 'dd', '-f', image_format, '-O', 'raw', 'bs=64k',
                 'count=%d' % -(-length // (64 << 10)), 'if=' + path,
                 'of=' + flat)
        with open(flat, 'rb') as f:
            return f.read(length)

    def write_header(self, volume, header):
        """Write the start of a disk, as a guest."""
        with open(self.image, 'wb') as f:
            f.write(header)
        with self.attached(volume) as connection:
            self.qemu_io(connection, 'write -s %s 0 %d' % (self.image,
                                                           len(header)))

    def assert_holds(self, volume, header, image_format, size=1):
        """A volume has this start and size, and the format it always had."""
        volume.refresh()
        self.assertEqual(image_format,
                         self.driver._recorded_format(volume))
        with self.attached(volume) as connection:
            name = connection['name']
            self.assertEqual(image_format if name == volume.name else 'qcow2',
                             connection['format'])
            self.assertEqual(header, self.head(
                connection['path'], connection['format'], len(header)))
        self.assertEqual(size * base.GIB, self.driver._images(
            volume).active().virtual_size)


class BaitTest(HostileTestCase):

    def test_it_is_taken_by_who_guesses(self):
        """The corpus does what it says to qemu-img that names no format."""
        headers = hostile.headers(self.bait.path)
        self.assertFalse(self.bait.taken())
        for name in ('qcow2, backing file', 'qcow2 v2, backing file',
                     'qcow2, backing file by JSON', 'qcow2, data file',
                     'vmdk, extent', 'qcow2, backing file, and iso'):
            with open(self.image, 'wb') as f:
                f.write(headers[name])
            subprocess.run(['qemu-img', 'convert', '-O', 'raw', self.image,
                            self.image + '.raw'], capture_output=True)
            self.assertTrue(self.bait.taken(), name)


@ddt.ddt
class GuestTest(HostileTestCase):

    def setUp(self):
        super().setUp()
        self.headers = hostile.headers(self.bait.path)

    @ddt.data(*((name, 'raw') for name in SOME),
              *((name, 'qcow2') for name in INSIDE_QCOW2))
    @ddt.unpack
    def test_life(self, name, image_format):
        """CVE-2015-1851, CVE-2024-32498, CVE-2024-4467, CVE-2026-24708."""
        header = self.headers[name]
        other = {'raw': 'qcow2', 'qcow2': 'raw'}[image_format]
        volume = self.create(specs={'lustre__format': image_format})
        self.write_header(volume, header)
        self.assert_holds(volume, header, image_format)

        snapshot = self.snapshot(volume)
        self.write_header(volume, header)
        self.extend(volume, 2)
        newest = self.snapshot(volume)
        for source_format in image_format, other:
            copy = self.from_snapshot(snapshot, 2, specs={
                'lustre__format': source_format})
            self.assert_holds(copy, header, source_format, 2)
            self.delete(copy)
        self.driver.revert_to_snapshot(self.context, volume, newest)
        self.delete_snapshot(newest)
        self.delete_snapshot(snapshot)
        self.assert_holds(volume, header, image_format, 2)

        copy = self.clone(volume, 3, specs={'lustre__format': other},
                          share=1)
        self.assert_holds(copy, header, other, 3)
        self.delete(copy)
        self.extend(volume, 4)
        self.assert_holds(volume, header, image_format, 4)
        self.assert_uploads(volume, header)
        self.assert_bytes_for_services(volume, image_format)
        self.assert_modes(volume)
        self.delete(volume)
        self.assertEqual([], self.listing(0) + self.listing(1))
        self.assert_harmless()

    def assert_uploads(self, volume, header):
        """CVE-2015-1851: what is uploaded is what the guest sees."""
        for disk_format in 'raw', 'qcow2':
            service = stand_ins.ImageService(self.image, disk_format)
            self.driver.copy_volume_to_image(
                self.context, volume, service, {
                    'id': 'image', 'disk_format': disk_format,
                    'container_format': 'bare'})
            self.assertEqual(header, self.head(self.image, disk_format,
                                               len(header)))

    def assert_bytes_for_services(self, volume, image_format):
        """Without our connector they get the bytes of a raw file, or none."""
        for status in 'backing-up', 'maintenance':
            volume.status = status
            if image_format == 'raw':
                data = self.driver.initialize_connection(volume, {})['data']
                self.assertEqual(('raw', volume.name),
                                 (data['format'], data['name']))
            else:
                self.assertRaises(
                    exception.InvalidVolume,
                    self.driver.initialize_connection, volume, {})
        volume.status = 'available'

    def assert_modes(self, volume):
        """OSSN-0014: nothing can be read by all."""
        for name in self.listing():
            mode = os.stat(os.path.join(self.directory(volume), name)).st_mode
            self.assertEqual(0o660, stat.S_IMODE(mode), name)

    @ddt.data(*(HEADERS if EXHAUSTIVE else ('qcow2',)))
    def test_compressed_upload(self, name):
        """CVE-2015-1851: Cinder would look what the guest has written."""
        header = self.headers[name]
        volume = self.create(specs={'lustre__format': 'raw'})
        self.write_header(volume, header)
        service = stand_ins.ImageService(self.image, 'raw')
        self.driver.copy_volume_to_image(self.context, volume, service, {
            'id': 'image', 'disk_format': 'raw',
            'container_format': 'compressed'})
        with gzip.open(self.image) as f:
            self.assertEqual(header, f.read(len(header)))
        self.delete(volume)
        self.assert_harmless()

    def test_an_overlay_that_is_not_ours(self):
        """Who can write to the share may do anything, but not lead us out."""
        volume = self.create()
        self.snapshot(volume)
        path = self.driver._images(volume).active().path
        for name in ('qcow2, backing file', 'qcow2, backing file by JSON',
                     'qcow2, data file', 'qcow2, data file by JSON',
                     'qcow2, unknown feature', 'vmdk, extent'):
            with open(path, 'wb') as f:
                f.write(self.headers[name])
            for operation in (
                    lambda: self.driver.initialize_connection(volume, {}),
                    lambda: self.driver.extend_volume(volume, 2),
                    lambda: self.driver.create_snapshot(
                        self.snapshot_record(volume)),
                    lambda: self.clone(volume)):
                error = self.assertRaises(exception.VolumeDriverException,
                                          operation)
                self.assertIn('Nothing was changed', str(error))
            self.assert_harmless()
        self.delete(volume)
        self.assertEqual([], self.listing())

    @ddt.data('false', 'true')
    def test_modes(self, secure):
        """OSSN-0014: world-readable only where an operator wants it."""
        self._unmount()
        self.driver = self.new_driver(nas_secure_file_permissions=secure)
        volume = self.create()
        self.snapshot(volume)
        self.assertEqual(3, len(self.listing()))
        for name in self.listing():
            mode = os.stat(os.path.join(self.directory(volume), name)).st_mode
            self.assertEqual(0o666 if secure == 'false' else 0o660,
                             stat.S_IMODE(mode), name)


@ddt.ddt
class CopyTest(HostileTestCase):
    """Copies that Cinder's services make, through the connector."""

    file_system_types = base.FILE_SYSTEM_TYPES

    def setUp(self):
        super().setUp()
        self.headers = hostile.headers(self.bait.path)
        self.backup_share = self._new_share(*self.file_systems.roots[1])
        self.cloud = services.Services(self)

    def new(self, image_format):
        """Make a volume by the services; of no format, an encrypted one."""
        type_id = (self.volume_type(lustre__format=image_format).id
                   if image_format else self.encrypted_type())
        volume = self.cloud.volume(self.cloud.create(1, type_id))
        self.assertEqual('available', volume.status)
        return volume

    @ddt.data(*((name, 'raw') for name in COPIED),
              *((name, 'qcow2') for name in COPIED_INSIDE))
    @ddt.unpack
    def test_backup_and_migration(self, name, image_format):
        header = self.headers[name]
        volume, restored = self.new(image_format), self.new(image_format)
        self.write_header(volume, header)
        backup = self.cloud.back_up(volume.id)
        self.cloud.restore(backup, restored.id, is_new=True)
        self.assert_holds(restored, header, image_format)
        # Over what is there, and into the other format.
        self.write_header(volume, bytes(len(header)))
        self.cloud.restore(backup, volume.id)
        self.assert_holds(volume, header, image_format)
        other = {'raw': 'qcow2', 'qcow2': 'raw'}[image_format]
        self.cloud.migrate(volume.id, 1,
                           self.volume_type(lustre__format=other).id)
        volume = self.cloud.volume(volume.id)
        self.assertEqual(self.host(1), volume.host)
        self.assert_holds(volume, header, other)
        self.cloud.delete_backup(backup)
        for one in volume, restored:
            self.cloud.delete(one.id)
        self.assertEqual([], self.listing(0) + self.listing(1))
        self.assert_harmless()

    @ddt.data(*COPIED_INSIDE)
    def test_encrypted(self, name):
        """LUKS within, and what the guest wrote is no header to anybody."""
        header = self.headers[name]
        volume = self.new(None)
        self.write_header(volume, header)
        self.assert_starts_with(volume, header)
        snapshot = self.snapshot(volume)
        self.write_header(volume, header[::-1])
        self.cloud.extend(volume.id, 2)
        copy = self.cloud.volume(self.cloud.create(
            2, volume.volume_type_id, snapshot=snapshot.id))
        self.assert_starts_with(copy, header)
        self.cloud.delete(copy.id)
        self.cloud.delete_snapshot(snapshot.id)
        volume = self.cloud.volume(volume.id)
        self.assert_starts_with(volume, header[::-1])
        # Decrypted, the header is where it is dangerous.
        self.write_header(volume, header)
        self.cloud.migrate(volume.id, 1,
                           self.volume_type(lustre__format='raw').id)
        volume = self.cloud.volume(volume.id)
        self.assertIsNone(volume.encryption_key_id)
        self.assert_holds(volume, header, 'raw', 2)
        self.cloud.delete(volume.id)
        self.assertEqual([], self.listing(0) + self.listing(1))
        self.assert_harmless()

    def assert_starts_with(self, volume, header):
        """Compare what a guest sees of an encrypted volume."""
        flat = os.path.join(self.temp, 'flat')
        with self.attached(volume) as connection:
            with self.opened(connection) as options:
                base.run('qemu-img', 'convert', *options, '-O', 'raw', flat)
        with open(flat, 'rb') as f:
            self.assertEqual(header, f.read(len(header)))
        os.unlink(flat)


@ddt.ddt
class ManageTest(HostileTestCase):
    """Files that an operator was asked to make into volumes."""

    def setUp(self):
        super().setUp()
        self.headers = hostile.headers(self.bait.path)
        self.share = self.driver._get_mount_point_for_share(self.shares[0])

    def place(self, content):
        with open(os.path.join(self.share, 'disk.img'), 'wb') as f:
            f.write(content)

    def manage(self, image_format=None):
        reference = {'source-name': 'disk.img'}
        if image_format:
            reference['format'] = image_format
        volume = self.volume_record()
        volume.size = self.driver.manage_existing_get_size(volume, reference)
        volume.save()
        return self._created(volume, self.driver.manage_existing(
            volume, reference))

    def state(self):
        path = os.path.join(self.share, 'disk.img')
        found = os.stat(path)
        with open(path, 'rb') as f:
            return (self.listing(), found.st_mode, found.st_ino,
                    found.st_mtime_ns, f.read())

    def offered(self):
        entry, = self.driver.get_manageable_volumes(
            [], None, 10, 0, ['reference'], ['asc'])
        return entry

    def assert_refused(self, image_format=None):
        """With a reason, and nothing is changed."""
        before = self.state()
        error = self.assertRaises(exception.ManageExistingInvalidReference,
                                  self.manage, image_format)
        self.assertEqual(before, self.state())
        return str(error)

    @ddt.data(*(name for name in HEADERS if name not in ADOPTED))
    def test_refused(self, name):
        """It is nothing that a volume can be, but as raw it is bytes."""
        header = self.headers[name]
        self.place(header)
        self.assert_refused()
        if name not in AMBIGUOUS:
            self.assert_refused('qcow2')
        # Lists are made of headers alone.
        self.assertEqual(name in UNUSABLE, self.offered()['safe_to_manage'])
        volume = self.manage('raw')
        self.assert_holds(volume, header, 'raw')
        self.delete(volume)
        self.assertEqual([], self.listing())
        self.assert_harmless()

    @ddt.data('gpt', 'qcow2')
    def test_adopted(self, name):
        image_format = 'qcow2' if name == 'qcow2' else 'raw'
        self.place(self.headers[name])
        self.assertTrue(self.offered()['safe_to_manage'])
        volume = self.manage()
        self.assertEqual(image_format, self.driver._recorded_format(volume))
        self.assert_reads(volume, 0, 64 << 10)
        self.delete(volume)

    @ddt.data('luks', 'aes')
    def test_encrypted(self, method):
        """Nobody has the key."""
        self.place(hostile.qcow2(encryption={'aes': 1, 'luks': 2}[method]))
        for image_format in None, 'qcow2':
            self.assertIn('encrypted', self.assert_refused(image_format))

    def test_snapshots_inside(self):
        path = os.path.join(self.share, 'disk.img')
        base.run('qemu-img', 'create', '-q', '-f', 'qcow2', path, '64M')
        base.run('qemu-img', 'snapshot', '-c', 'before', path)
        for image_format in None, 'qcow2':
            self.assertIn('internal snapshots',
                          self.assert_refused(image_format))

    @ddt.data(0, 1, 4, 20, 63, 80, 104, 512, 1 << 16)
    def test_cut_off(self, length):
        """What begins like qcow2 and ends too early."""
        self.place(hostile.qcow2()[:length])
        self.assert_refused('qcow2')
        self.offered()
        self.assert_harmless()

    @ddt.data('raw', 'qcow2')
    def test_empty(self, image_format):
        """No volume has 0 GiB."""
        self.place(b'' if image_format == 'raw' else hostile.qcow2(size=0))
        self.assertIn('empty', self.assert_refused(image_format))


@ddt.ddt
class ImageTest(HostileTestCase):
    """Images that users upload."""

    REFUSED = ('qcow2, backing file', 'qcow2 v2, backing file',
               'qcow2, backing file by JSON', 'qcow2, data file',
               'qcow2, data file by JSON', 'qcow2, 4 EiB',
               'qcow2, huge first-level table', 'qcow2, unknown feature',
               'vmdk, extent', 'qcow2, backing file, and iso')

    def volume_with(self, content, disk_format, image_format,
                    container_format='bare'):
        """Make a volume of an image; return it and what was raised."""
        with open(self.image, 'wb') as f:
            f.write(content)
        volume = self.create(specs={'lustre__format': image_format})
        self.write(volume, 7)
        service = stand_ins.ImageService(self.image, disk_format,
                                         container_format=container_format)
        try:
            self.driver.copy_image_to_volume(self.context, volume, service,
                                             'image')
        except exception.ImageUnacceptable as exc:
            return volume, exc
        return volume, None

    def assert_refused(self, *args, **kwargs):
        volume, error = self.volume_with(*args, **kwargs)
        self.assertIsNotNone(error)
        self.assert_reads(volume, 7)
        self.delete(volume)
        self.assertEqual([], self.listing())
        self.assert_harmless()

    @ddt.data(*((name, image_format) for name in REFUSED for image_format in
                (('raw', 'qcow2') if EXHAUSTIVE else ('qcow2',))))
    @ddt.unpack
    def test_refused(self, name, image_format):
        """CVE-2022-47951, CVE-2024-32498, CVE-2024-4467."""
        content = hostile.headers(self.bait.path)[name]
        self.assert_refused(content, name.split(',')[0].split()[0],
                            image_format)

    @ddt.data(*(HEADERS if EXHAUSTIVE else (
        'qcow2, backing file', 'qcow2, data file', 'vmdk, extent', 'luks',
        'gpt', 'gpt and iso')))
    def test_raw(self, name):
        """As raw it is refused, or it is what it is: some bytes."""
        content = hostile.headers(self.bait.path)[name]
        volume, error = self.volume_with(content, 'raw', 'qcow2')
        if name.startswith('qcow2'):
            self.assertIsNotNone(error)
        if error:
            self.assert_reads(volume, 7)
        else:
            self.assert_holds(volume, content, 'qcow2')
        self.delete(volume)
        self.assert_harmless()

    @ddt.data(('vdi', 'qcow2'), ('qcow2', 'vmdk'), ('vmdk', 'qcow2'),
              ('vhdx', 'raw'), ('qcow2', 'raw'), ('raw', 'qcow2'),
              ('vpc', 'qcow2'))
    @ddt.unpack
    def test_another_format_than_it_says(self, qemu_format, disk_format):
        self.assert_refused(hostile.made(qemu_format), disk_format, 'qcow2')

    def test_iso(self):
        volume, error = self.volume_with(hostile.iso(), 'iso', 'qcow2')
        self.assertIsNone(error)
        self.assert_holds(volume, hostile.iso(), 'qcow2')
        self.delete(volume)
        self.assert_harmless()

    @ddt.data('raw', 'qcow2')
    def test_bomb(self, image_format):
        """What is written is what the volume may take, and no more."""
        volume, error = self.volume_with(hostile.qcow2_bomb(), 'qcow2',
                                         image_format)
        self.assertIsNone(error)
        self.assert_reads(volume, 0x41, 0, 256 * base.MIB)
        self.assert_reads(volume, 0, 256 * base.MIB, base.MIB)
        self.delete(volume)
        self.assert_harmless()

    def test_bomb_larger_than_the_volume(self):
        self.assert_refused(hostile.qcow2_bomb(1 << 31), 'qcow2', 'raw')

    def test_packed_bomb(self):
        """Of 10 MiB that would be 3 GiB."""
        self.override_config('allow_compression_on_image_upload', True)
        self.assert_refused(hostile.gzip_bomb(3 << 30), 'raw', 'qcow2',
                            'compressed')

    def test_snapshots_inside(self):
        """They are not part of what the image shows."""
        path = os.path.join(self.temp, 'inside')
        base.run('qemu-img', 'create', '-q', '-f', 'qcow2', path, '64M')
        base.run('qemu-io', '-f', 'qcow2', '-c', 'write -P 1 0 1M', path)
        base.run('qemu-img', 'snapshot', '-c', 'before', path)
        base.run('qemu-io', '-f', 'qcow2', '-c', 'write -P 2 0 1M', path)
        with open(path, 'rb') as f:
            content = f.read()
        volume, error = self.volume_with(content, 'qcow2', 'qcow2')
        self.assertIsNone(error)
        self.assert_reads(volume, 2)
        self.assertNotIn('before', base.run(
            'qemu-img', 'info', '-f', 'qcow2', self.path(volume)))
        self.delete(volume)


class LimitsTest(HostileTestCase):

    def test_qemu_img_has_them(self):
        """In the process that runs it, not only in what is asked for."""
        limits = os.path.join(self.temp, 'limits')
        wrapper = os.path.join(self.temp, 'bin', 'qemu-img')
        os.mkdir(os.path.dirname(wrapper))
        with open(wrapper, 'w') as f:
            f.write('#!/bin/sh\ncat /proc/self/limits > %s\n'
                    'exec /usr/bin/qemu-img "$@"\n' % limits)
        os.chmod(wrapper, 0o755)
        self.driver._client.close()
        with mock.patch.dict(os.environ, PATH='%s:%s' % (
                os.path.dirname(wrapper), os.environ['PATH'])):
            volume = self.create()
            with open(limits) as f:
                found = {line[:26].strip(): line[26:].split()[:2]
                         for line in f}
            self.driver._client.close()
        self.assertEqual(['8589934592'] * 2, found['Max address space'])
        self.assertEqual(['30'] * 2, found['Max cpu time'])
        self.assertEqual(['0'] * 2, found['Max core file size'])
        self.delete(volume)
