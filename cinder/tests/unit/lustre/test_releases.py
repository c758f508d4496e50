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

import os
import subprocess
import sys
import unittest

from oslotest import base

from cinder.lustre import releases

# A service that transfers two images each way, one after the other, each in a
# thread of its own, and says of each whether that ended in so many seconds.
_SERVICE = """
from cinder import monkey_patch
monkey_patch.patch()
import os
import sys
import threading
from cinder.image import image_utils
from cinder.lustre import releases

path, mend, patience = sys.argv[1:]

class ImageService:
    def download(self, context, image_id, data):
        data.write(b'content')
    def update(self, context, image_id, meta, data, **kwargs):
        assert data.read() == b'content'

def download():
    image_utils.fetch(None, ImageService(), 'id', path, None, None)

def upload():
    image_utils.upload_volume(None, ImageService(), {
        'id': 'id', 'disk_format': 'raw', 'container_format': 'bare'}, path)

if mend == 'mended':
    releases.free_image_utils_from_eventlet()
for transfer in download, download, upload, upload:
    thread = threading.Thread(target=transfer, daemon=True)
    thread.start()
    thread.join(int(patience))
    print('hangs' if thread.is_alive() else 'ended', flush=True)
os._exit(0)
"""

# For what takes milliseconds, on a machine that does much else.
_LONG = 60
# To see that something hangs.
_SHORT = 2


@unittest.skipIf(releases.RELEASE < 29, 'there is nothing but eventlet')
class ImageUtilsTestCase(base.BaseTestCase):

    def transfers(self, threads, mend, patience):
        path, = self.create_tempfiles([('image', 'content')])
        environment = dict(os.environ, OS_CINDER_DISABLE_EVENTLET_PATCHING=(
            'yes' if threads == 'native' else 'no'))
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', _SERVICE, path, mend,
             str(patience)], stdout=subprocess.PIPE, text=True, check=True,
            env=environment)
        return done.stdout.split()

    def test_fault_of_image_utils(self):
        """If this fails Cinder has mended it, and so need not we."""
        self.assertEqual(['ended', 'hangs', 'hangs', 'hangs'],
                         self.transfers('native', 'as it is', _SHORT))

    def test_native_threads(self):
        self.assertEqual(['ended'] * 4,
                         self.transfers('native', 'mended', _LONG))

    def test_green_threads(self):
        self.assertEqual(['ended'] * 4,
                         self.transfers('green', 'mended', _LONG))
