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

"""Volumes filled from images, as the manager asks: rebuilt and cached."""

import datetime
import os
from unittest import mock

import ddt

from cinder import exception
from cinder.image import cache
from cinder import objects
from cinder.tests.functional.lustre import base
from cinder.tests.functional.lustre import managed
from cinder.tests.functional.lustre import stand_ins
from cinder.tests.unit import fake_constants
from cinder.volume import api

THIN_RAW = {'lustre__format': 'raw', 'provisioning__type': 'thin'}
THICK = {'provisioning__type': 'thick'}
QCOW2 = {'lustre__format': 'qcow2'}

WHEN = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)


class ImageTestCase(managed.ManagerTestCase):

    def setUp(self):
        super().setUp()
        patch = mock.patch('cinder.image.glance.get_remote_image_service',
                           lambda context, image_id: (self.images[image_id],
                                                      image_id))
        patch.start()
        self.addCleanup(patch.stop)
        self.images = {}

    def image(self, pattern, image_format='qcow2', when=WHEN):
        """Make an image of 8 MiB with a pattern in its second one."""
        path = os.path.join(self.temp, 'image-%d' % pattern)
        base.run('qemu-img', 'create', '-q', '-f', image_format, path, '8M')
        base.run('qemu-io', '-f', image_format,
                 '-c', 'write -P %d 1M 1M' % pattern, path)
        image_id = fake_constants.IMAGE_ID[:-1] + str(pattern)
        self.images[image_id] = stand_ins.ImageService(
            path, image_format, created_at=when, updated_at=when)
        return image_id

    def show(self, image_id):
        return self.images[image_id].show(self.context, image_id)


@ddt.ddt
class ReimageTest(ImageTestCase):

    def reimage(self, volume, image_id):
        volume.previous_status, volume.status = volume.status, 'downloading'
        volume.save()
        self.manager.reimage(self.context, volume, self.show(image_id))

    def new(self, kind):
        if kind == 'encrypted':
            return self.encrypted()
        return {'specs': {'raw': THIN_RAW, 'thick': THICK,
                          'qcow2': QCOW2}[kind]}

    @ddt.data('raw', 'thick', 'qcow2', 'encrypted')
    def test_reimage(self, kind):
        volume = self.create(**self.new(kind))
        self.write(volume, 5, 500 * base.MIB)
        with self.attached(volume) as connection:
            image_format = connection['format']
        self.reimage(volume, self.image(7))
        volume = self.loaded(volume)
        self.assertEqual('available', volume.status)
        self.assertTrue(volume.bootable)
        self.assertEqual([volume.name], self.listing())
        with self.attached(volume) as connection:
            self.assertEqual(image_format, connection['format'])
        self.assert_reimaged(volume)
        if kind == 'thick':
            self.assertGreaterEqual(
                os.stat(self.path(volume)).st_blocks * 512, base.GIB)

    @ddt.data('raw', 'encrypted')
    def test_reimage_with_snapshots(self, kind):
        fields_ = self.new(kind)
        volume = self.create(**fields_)
        self.write(volume, 5, 500 * base.MIB)
        snapshot = self.snapshot(volume)
        self.write(volume, 6, 600 * base.MIB)
        self.reimage(self.loaded(volume), self.image(7))
        volume = self.loaded(volume)
        self.assert_reimaged(volume)
        self.assert_reads(volume, 0, 600 * base.MIB)
        copy = self.from_snapshot(snapshot, **(
            self.new(kind) if kind == 'encrypted' else {}))
        self.assert_reads(copy, 5, 500 * base.MIB)
        self.assert_reads(copy, 0, base.MIB)
        self.delete_snapshot(snapshot)
        self.assert_reimaged(volume)

    def assert_reimaged(self, volume):
        self.assertEqual(base.GIB, self.content(volume)[0])
        self.assert_reads(volume, 7, base.MIB)
        self.assert_reads(volume, 0, 500 * base.MIB)

    def test_image_is_refused(self):
        volume = self.create()
        self.write(volume, 5)
        image_id = self.image(7)
        with open(os.path.join(self.temp, 'image-7'), 'r+b') as f:
            f.write(b'no qcow2')
        self.assertRaises(exception.ImageUnacceptable, self.reimage, volume,
                          image_id)
        self.assertEqual('error', self.loaded(volume).status)
        self.assert_reads(volume, 5)
        self.assertEqual([volume.name], self.listing())


class CacheTest(ImageTestCase):
    """The image cache of cinder-volume, on its own tenant's behalf."""

    def setUp(self):
        super().setUp()
        self.override_config('cinder_internal_tenant_project_id', 'project')
        self.override_config('cinder_internal_tenant_user_id', 'user')
        self.downloads = []
        self.type_id = self.volume_type().id

    def cache(self, size_gb=0, count=0):
        self.manager.image_volume_cache = cache.ImageVolumeCache(
            self.manager.db, api.API(), size_gb, count)

    def new(self, image_id, size=1):
        """Let the manager make a volume from an image."""
        volume = self.volume_record(size, volume_type_id=self.type_id)
        self.manager.create_volume(
            self.context, volume, objects.RequestSpec.from_primitives({
                'volume_id': volume.id, 'volume_properties': {},
                'image_id': image_id}),
            {}, allow_reschedule=False)
        volume = self.loaded(volume)
        self.assertEqual('available', volume.status)
        return volume

    def imported(self):
        """Count the imports of images into volumes from now on."""
        return mock.patch.object(
            self.driver, 'copy_image_to_volume', autospec=True,
            side_effect=self.driver.copy_image_to_volume)

    def cached(self):
        return [objects.Volume.get_by_id(self.context, entry['volume_id'])
                for entry in self.manager.db.image_volume_cache_get_all(
                    self.context, host=self.host(0))]

    def test_off(self):
        image_id = self.image(7)
        with self.imported() as imported:
            volumes = [self.new(image_id), self.new(image_id)]
        self.assertEqual(2, imported.call_count)
        self.assertEqual(2, len(self.listing()))
        for volume in volumes:
            self.assert_reads(volume, 7, base.MIB)

    def test_on(self):
        """The second volume is a clone, and larger; the cache is its own."""
        self.cache()
        image_id = self.image(7)
        with self.imported() as imported:
            first, second = self.new(image_id, 2), self.new(image_id, 3)
        self.assertEqual(1, imported.call_count)
        cached, = self.cached()
        self.assertEqual(sorted(v.name for v in (first, second, cached)),
                         self.listing())
        for volume, size in (first, 2), (second, 3):
            self.assert_reads(volume, 7, base.MIB)
            self.assertEqual(size * base.GIB, self.content(volume)[0])
        self.write(first, 1, base.MIB)
        self.write(second, 2, base.MIB)
        self.assert_reads(cached, 7, base.MIB)
        third = self.new(image_id)
        self.assert_reads(third, 7, base.MIB)
        for volume in first, second, third:
            self.manager.delete_volume(self.context, volume)
        self.assertEqual([cached.name], self.listing())

    def test_eviction(self):
        """The oldest goes when there is room for one only."""
        self.cache(count=1)
        volumes = [self.new(self.image(pattern)) for pattern in (7, 8)]
        cached, = self.cached()
        self.assert_reads(cached, 8, base.MIB)
        self.assertEqual(sorted(v.name for v in (*volumes, cached)),
                         self.listing())
        for volume, pattern in zip(volumes, (7, 8)):
            self.assert_reads(volume, pattern, base.MIB)

    def test_image_that_was_changed(self):
        self.cache()
        self.new(self.image(7))
        old, = self.cached()
        later = WHEN + datetime.timedelta(days=1)
        volume = self.new(self.image(7, when=later))
        new, = self.cached()
        self.assertNotEqual(old.id, new.id)
        self.assert_gone(old)
        self.assertNotIn(old.name, self.listing())
        self.assert_reads(volume, 7, base.MIB)
