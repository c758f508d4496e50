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

"""Volumes through their life, by what a guest reads."""

import os
import threading

import ddt

from cinder import exception
from cinder.tests.functional.lustre import base
from cinder.tests.functional.lustre import stand_ins

KINDS = (
    ('thin', 'qcow2'), ('thin', 'raw'), ('thick', 'raw'), ('thick', 'qcow2'))


def kind(provisioning, image_format):
    return {'provisioning__type': provisioning,
            'lustre__format': image_format}


@ddt.ddt
class LifeTest(base.LustreTestCase):

    @ddt.data(*KINDS)
    @ddt.unpack
    def test_create(self, provisioning, image_format):
        volume = self.create(specs=kind(provisioning, image_format))
        path = self.path(volume)
        with self.attached(volume) as connection:
            self.assertEqual(image_format, connection['format'])
        allocated = os.stat(path).st_blocks * 512
        if provisioning == 'thick':
            self.assertGreaterEqual(allocated, base.GIB)
        else:
            self.assertLess(allocated, base.MIB)
        self.assertEqual(0o660, os.stat(path).st_mode & 0o777)
        self.assertEqual(base.GIB, self.content(volume)[0])
        self.write(volume, 7, 5 * base.MIB)
        self.assert_reads(volume, 7, 5 * base.MIB)
        self.assert_reads(volume, 0, 0)
        self.delete(volume)
        self.assertEqual([], self.listing())

    @ddt.data(*KINDS)
    @ddt.unpack
    def test_snapshots(self, provisioning, image_format):
        volume = self.create(specs=kind(provisioning, image_format))
        contents, snapshots = [], []
        for pattern in (1, 2, 3):
            self.write(volume, pattern, pattern * base.MIB)
            contents.append(self.content(volume))
            snapshots.append(self.snapshot(volume))
        self.write(volume, 4, base.MIB, 3 * base.MIB)
        last = self.content(volume)
        for snapshot, content in zip(snapshots, contents):
            self.assertEqual(content, self.snapshot_content(snapshot))
        self.delete_snapshot(snapshots[1])
        self.assertEqual(last, self.content(volume))
        for n in (0, 2):
            self.assertEqual(contents[n], self.snapshot_content(snapshots[n]))
        self.delete_snapshot(snapshots[2])
        self.assertEqual(last, self.content(volume))
        self.assertEqual(contents[0], self.snapshot_content(snapshots[0]))
        self.delete_snapshot(snapshots[0])
        self.assertEqual(last, self.content(volume))
        self.check(volume)
        self.assertEqual([volume.name, volume.name + '.info'],
                         self.listing())
        with self.attached(volume) as connection:
            self.assertEqual(image_format, connection['format'])
        self.delete(volume)
        self.assertEqual([], self.listing())

    @ddt.data(*KINDS)
    @ddt.unpack
    def test_copies(self, provisioning, image_format):
        source = self.create()
        self.write(source, 9, 100 * base.MIB)
        snapshot = self.snapshot(source)
        self.write(source, 8)
        for copy, pattern in (
                (self.clone(source, 2, specs=kind(provisioning,
                                                  image_format)), 8),
                (self.from_snapshot(snapshot, 2, specs=kind(
                    provisioning, image_format), share=1), 0)):
            with self.attached(copy) as connection:
                self.assertEqual(image_format, connection['format'])
            self.assertEqual(2 * base.GIB, self.content(copy)[0])
            self.assert_reads(copy, 9, 100 * base.MIB)
            self.assert_reads(copy, pattern)
            self.assert_reads(copy, 0, base.GIB)
            if provisioning == 'thick':
                self.assertGreaterEqual(
                    os.stat(self.path(copy)).st_blocks * 512, 2 * base.GIB)
            self.check(copy)
            self.delete(copy)

    @ddt.data(*KINDS)
    @ddt.unpack
    def test_extend(self, provisioning, image_format):
        volume = self.create(specs=kind(provisioning, image_format))
        self.write(volume, 3)
        self.extend(volume, 2)
        self.assertEqual(2 * base.GIB, self.content(volume)[0])
        if provisioning == 'thick':
            self.assertGreaterEqual(
                os.stat(self.path(volume)).st_blocks * 512, 2 * base.GIB)
        snapshot = self.snapshot(volume)
        self.extend(volume, 3)
        self.write(volume, 4, 5 * base.GIB // 2)
        self.assertEqual(3 * base.GIB, self.content(volume)[0])
        self.assertEqual(2 * base.GIB, self.snapshot_content(snapshot)[0])
        before = self.content(volume)
        self.delete_snapshot(snapshot)
        self.assertEqual(before, self.content(volume))
        if provisioning == 'thick' and image_format == 'raw':
            self.assertGreaterEqual(
                os.stat(self.path(volume)).st_blocks * 512, 3 * base.GIB)

    @ddt.data(*KINDS)
    @ddt.unpack
    def test_extend_again(self, provisioning, image_format):
        """A service that was killed may have done it already."""
        volume = self.create(specs=kind(provisioning, image_format))
        self.write(volume, 3)
        self.driver.extend_volume(volume, 2)
        self.extend(volume, 2)
        self.assertEqual(2 * base.GIB, self.content(volume)[0])
        self.assert_reads(volume, 3)

    def test_revert(self):
        volume = self.create()
        self.write(volume, 1)
        older = self.snapshot(volume)
        self.write(volume, 2)
        newer, content = self.snapshot(volume), self.content(volume)
        self.write(volume, 3)
        self.assertRaises(exception.InvalidSnapshot,
                          self.driver.revert_to_snapshot, self.context,
                          volume, older)
        self.driver.revert_to_snapshot(self.context, volume, newer)
        self.assertEqual(content, self.content(volume))
        self.check(volume)

    def test_thick_volume_that_does_not_fit(self):
        volume = self.volume_record(1 << 20, specs=kind('thick', 'raw'))
        error = self.assertRaises(exception.VolumeDriverException,
                                  self.driver.create_volume, volume)
        self.assertIn('does not fit', str(error))
        self.assertEqual([], self.listing())

    def test_delete_what_a_killed_creation_left(self):
        volume = self.create()
        volume.provider_location = None
        open(self.path(volume, '.new'), 'w').close()
        self.delete(volume)
        self.assertEqual([], self.listing())


class ImageTest(base.LustreTestCase):

    # In seconds, for what takes one or two.
    _LONG = 120

    def test_transfers_in_two_threads(self):
        """None waits for ever, with green threads or native ones."""
        volumes = [self.create() for _number in range(2)]
        paths = [os.path.join(self.temp, 'image-%d' % number)
                 for number in range(2)]
        threads = [threading.Thread(target=self._transfer, args=(*each, byte),
                                    daemon=True)
                   for *each, byte in zip(volumes, paths, b'ab')]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(self._LONG)
            self.assertFalse(thread.is_alive(), 'it hangs')
        for volume, path, byte in zip(volumes, paths, b'ab'):
            self.assert_reads(volume, byte)
            self.assertEqual(self.content(volume),
                             self.image_content(path, 'qcow2'))

    def _transfer(self, volume, path, byte):
        """Fill a volume from an image, and make one of it."""
        with open(path, 'wb') as image:
            image.write(bytes([byte]) * base.MIB)
        service = stand_ins.ImageService(path, 'raw')
        self.driver.copy_image_to_volume(self.context, volume, service,
                                         'image-id')
        self.driver.copy_volume_to_image(
            self.context, volume, service,
            dict(service.show(self.context, 'image-id'),
                 disk_format='qcow2'))
