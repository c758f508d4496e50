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

import gzip
import io
import os
import tempfile
import types
from unittest import mock

import ddt
import fixtures

from cinder import exception
from cinder.image import image_utils
from cinder.lustre import downloads
import cinder.privsep
from cinder.tests.unit import fake_constants
from cinder.tests.unit.lustre import fakes
from cinder.tests.unit import test

CONTENT = b'content' * 10000


class ImageService:

    temp_images = None

    def __init__(self, content, **meta):
        self._content = content
        self._meta = dict({'id': fake_constants.IMAGE_ID,
                           'disk_format': 'raw', 'container_format': 'bare'},
                          **meta)

    def show(self, context, image_id):
        return dict(self._meta, size=len(self._content))

    def download(self, context, image_id, data):
        data.write(self._content)


@ddt.ddt
class DownloadTestCase(test.TestCase):

    def setUp(self):
        fakes.skip_without('qemu-img')
        super().setUp()
        # Cinder looks at image files by privsep: here, without a daemon.
        cinder.privsep.sys_admin_pctxt.set_client_mode(False)
        self.addCleanup(cinder.privsep.sys_admin_pctxt.set_client_mode, True)
        self.directory = self.useFixture(fixtures.TempDir()).path
        self.temp = self.useFixture(fixtures.TempDir()).path
        self.override_config('image_conversion_dir', self.directory)
        self.context = types.SimpleNamespace(user_id=None)

    def tearDown(self):
        self.assertEqual([], os.listdir(self.directory))
        super().tearDown()

    def image(self, content, size=1, **meta):
        return downloads.image(self.context, ImageService(content, **meta),
                               fake_constants.IMAGE_ID, size)

    def made(self, *args):
        """Return the content of a file that qemu-img makes."""
        path = os.path.join(self.temp, 'image')
        fakes.qemu_img(*args[:-1], path, args[-1])
        with open(path, 'rb') as f:
            return f.read()

    def assert_refused(self, reason, *args, **kwargs):
        def download():
            with self.image(*args, **kwargs):
                self.fail('it was accepted')

        error = self.assertRaises(exception.ImageUnacceptable, download)
        self.assertIn(reason, str(error))

    @ddt.data('raw', 'ami', 'ari', 'aki')
    def test_raw(self, disk_format):
        with self.image(CONTENT, disk_format=disk_format) as image:
            self.assertEqual('raw', image.format)
            self.assertEqual(len(CONTENT), image.virtual_size)
            with open(image.path, 'rb') as f:
                self.assertEqual(CONTENT, f.read())

    @ddt.data('qcow2', 'vmdk', 'vdi', 'vhdx')
    def test_formats(self, disk_format):
        content = self.made('create', '-q', '-f', disk_format, '64M')
        with self.image(content, disk_format=disk_format) as image:
            self.assertEqual(disk_format, image.format)
            self.assertEqual(64 * fakes.MIB, image.virtual_size)

    def test_larger_than_the_volume(self):
        content = self.made('create', '-q', '-f', 'qcow2', '3G')
        self.assert_refused('3GB', content, 2, disk_format='qcow2')

    def test_backing_file(self):
        content = self.made('create', '-q', '-f', 'qcow2', '-u', '-b',
                            '/etc/passwd', '-F', 'raw', '1M')
        self.assert_refused('needs other files', content,
                            disk_format='qcow2')

    def test_data_file(self):
        content = self.made('create', '-q', '-f', 'qcow2', '-o',
                            'data_file=%s/data' % self.temp, '1M')
        self.assert_refused('needs other files', content,
                            disk_format='qcow2')

    @ddt.data(('qcow2', 'raw'), ('vdi', 'qcow2'), ('qcow2', 'vmdk'))
    @ddt.unpack
    def test_another_format_than_it_says(self, qemu_format, disk_format):
        content = self.made('create', '-q', '-f', qemu_format, '1M')
        self.assert_refused('', content, disk_format=disk_format)

    def test_raw_that_calls_itself_qcow2(self):
        self.assert_refused('', CONTENT, disk_format='qcow2')

    def test_damaged(self):
        """A claim to 4 EiB, which qemu-img does not believe."""
        content = bytearray(self.made('create', '-q', '-f', 'qcow2', '1M'))
        content[24:32] = (1 << 62).to_bytes(8, 'big')
        self.assert_refused('it is damaged', bytes(content),
                            disk_format='qcow2')

    def test_compressed(self):
        self.override_config('allow_compression_on_image_upload', True)
        with self.image(gzip.compress(CONTENT),
                        container_format='compressed') as image:
            with open(image.path, 'rb') as f:
                self.assertEqual(CONTENT, f.read())

    def test_compressed_is_off(self):
        self.assert_refused('allow_compression_on_image_upload is off',
                            gzip.compress(CONTENT),
                            container_format='compressed')

    def test_compressed_otherwise(self):
        self.override_config('allow_compression_on_image_upload', True)
        self.assert_refused('not gzip', CONTENT,
                            container_format='compressed')

    def test_compressed_and_damaged(self):
        self.override_config('allow_compression_on_image_upload', True)
        self.assert_refused('it is damaged', gzip.compress(CONTENT)[:-100],
                            container_format='compressed')

    def test_compressed_bomb(self):
        """What it would unpack to stays within the volume's size."""
        self.override_config('allow_compression_on_image_upload', True)
        packed = io.BytesIO()
        with gzip.GzipFile(fileobj=packed, mode='w', compresslevel=1) as f:
            for _piece in range(64):
                f.write(bytes(fakes.MIB))
        with mock.patch.object(downloads, '_METADATA', 32 * fakes.MIB), \
                mock.patch.object(downloads.units, 'Gi', fakes.MIB):
            self.assert_refused('larger than the volume', packed.getvalue(),
                                1, container_format='compressed')
        self.assertEqual([], os.listdir(self.directory))

    def test_fetched_before(self):
        # The volume manager has, to look at it.
        service = ImageService(CONTENT)
        service.download = None
        with tempfile.NamedTemporaryFile(dir=self.temp) as fetched:
            fetched.write(CONTENT)
            fetched.flush()
            service.temp_images = image_utils.TemporaryImages(service)
            service.temp_images.temporary_images[None] = {
                fake_constants.IMAGE_ID: fetched.name}
            with downloads.image(self.context, service,
                                 fake_constants.IMAGE_ID, 1) as image:
                self.assertEqual(fetched.name, image.path)
            self.assertTrue(os.path.exists(fetched.name))

    def test_download_fails(self):
        service = ImageService(CONTENT)

        def download(context, image_id, data):
            data.write(b'some')
            raise exception.ImageDownloadFailed(
                image_href=image_id, reason='gone')

        service.download = download
        self.assertRaises(
            exception.ImageDownloadFailed, downloads.image(
                self.context, service, fake_constants.IMAGE_ID,
                1).__enter__)
