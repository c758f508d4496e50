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

"""Volumes larger than 16 TiB, where the file system holds such files.

A file of one stripe ends at 16 TiB on an OST of ldiskfs; ext4 is like it.
"""

import os
import uuid

import ddt

from cinder.tests.functional.lustre import base

# GiB
SIXTEEN = 16 << 10
LARGE = 17 << 10

END = LARGE * base.GIB - base.MIB


def kind(image_format):
    return {'lustre__format': image_format, 'provisioning__type': 'thin'}


@ddt.ddt
class LargeTest(base.LustreTestCase):

    def assert_size(self, volume, size):
        """A guest can write to the volume's end, and not behind it."""
        end = size * base.GIB
        self.write(volume, 9, end - base.MIB)
        self.assert_reads(volume, 9, end - base.MIB)
        with self.attached(volume) as connection:
            out = self.qemu_io(connection, 'length')
            self.assertEqual(end, self.driver._images(
                volume).active().virtual_size)
        self.assertIn('%d TiB' % (size >> 10), out)

    @ddt.data('raw', 'qcow2')
    def test_large(self, image_format):
        volume = self.create(LARGE, specs=kind(image_format))
        self.assert_size(volume, LARGE)
        snapshot = self.snapshot(volume)
        self.write(volume, 8, END)
        self.extend(volume, LARGE + 1024)
        self.assert_size(volume, LARGE + 1024)
        old = self.from_snapshot(snapshot, specs=kind(image_format))
        self.assert_reads(old, 9, END)
        clone = self.clone(volume, specs=kind(image_format), share=1)
        self.assert_reads(clone, 8, END)
        self.assert_reads(clone, 9, END + 1024 * base.GIB)
        self.delete_snapshot(snapshot)
        self.assert_reads(volume, 8, END)
        for each in volume, old, clone:
            self.check(each)
            self.delete(each)

    @ddt.data('raw', 'qcow2')
    def test_extended_beyond(self, image_format):
        volume = self.create(SIXTEEN - 1, specs=kind(image_format))
        self.write(volume, 7)
        self.extend(volume, LARGE)
        self.assert_reads(volume, 7)
        self.assert_size(volume, LARGE)


class SmallStripesTest(base.LustreTestCase):

    def setUp(self):
        super().setUp()
        if not self.file_systems.sandboxed:
            self.skipTest('the share may have many stripes, or ZFS')
        share = self.share()
        self.shares[0] = share
        self.driver = self.new_driver()

    def share(self):
        """Make a share on which a file has 16 TiB at most."""
        name = 'g' + uuid.uuid4().hex[:6]
        self.addCleanup(self.file_systems.sandbox, 'destroy', name)
        self.file_systems.sandbox('create', name, '--fstype', 'ext4',
                                  '--ost-size', '1G')
        self.addCleanup(self._unmount)
        return '10.0.2.15@tcp:/' + name

    def assert_advised(self, function, *args, name):
        error = str(self.failure_of(function, *args))
        self.assertIn('File too large', error)
        self.assertIn('needs more stripes', error)
        self.assertIn(name, error)
        self.assertIn(self.shares[0], error)

    def files(self):
        """Name the files of the share, of which it has all."""
        place = self.driver._place_on(
            next(iter(self.driver._shares.values())))
        return set(os.listdir(place.directory)) - {
            base.lustre_brick.LOCK_FILE, 'lost+found'}

    def test_too_large(self):
        for specs in kind('raw'), {'provisioning__type': 'thin'}:
            volume = self.create(SIXTEEN - 1, specs=specs)
            self.delete(volume)
        volume = self.volume_record(LARGE, specs=kind('raw'))
        self.assert_advised(self.driver.create_volume, volume,
                            name=volume.name)
        self.assertEqual(set(), self.files())
        small = self.create(1, specs=kind('raw'))
        self.write(small, 3)
        self.assert_advised(self.driver.extend_volume, small, LARGE,
                            name=small.name)
        self.assert_reads(small, 3)
        # qemu-img meets the limit here.
        source = self.create(LARGE, specs=kind('qcow2'))
        copy = self.volume_record(LARGE, specs=kind('raw'))
        self.assert_advised(self.driver.create_cloned_volume, copy, source,
                            name=copy.name)
        self.assertEqual({small.name, source.name}, self.files())
