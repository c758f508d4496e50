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

"""A volume is extended while a guest writes to it."""

import os
import subprocess
import sys
import time

import ddt

from cinder.objects import fields
from cinder.tests.functional.lustre import base
from cinder.tests.functional.lustre import guest

# In GiB: a first size, and what the driver makes of it.
SIZES = (1, 2, 3, 5, 8)

# Blocks that are written before each extension and after the last.
BLOCKS = 20

# In seconds, for what takes one or two.
LONG = 120


class Guest:
    """A process that writes to a volume all the time."""

    def __init__(self, connection, directory):
        self._log = os.path.join(directory, 'log')
        open(self._log, 'w').close()
        self._process = subprocess.Popen(
            [sys.executable, guest.__file__, connection['format'],
             connection['path'], self._log],
            stderr=subprocess.PIPE, text=True)

    def written(self):
        """Return what each block was written with, by its place."""
        with open(self._log) as log:
            lines = [line.split() for line in log if line.endswith('\n')]
        return [(int(place), int(byte)) for place, byte in lines]

    def goes_on(self):
        """Wait until more blocks are written."""
        count = len(self.written())
        deadline = time.monotonic() + LONG
        while len(self.written()) < count + BLOCKS:
            if self._process.poll() is not None:
                raise AssertionError(self._process.stderr.read())
            if time.monotonic() > deadline:
                raise AssertionError('the guest hangs')
            time.sleep(0.05)

    def stop(self):
        """Let it end, and return what it complained of."""
        open(self._log + '.stop', 'w').close()
        return self._process.communicate(timeout=LONG)[1]


@ddt.ddt
class ExtendAttachedTest(base.LustreTestCase):

    @ddt.data('thin', 'thick')
    def test_extend_under_load(self, provisioning):
        volume = self.create(SIZES[0], specs={
            'lustre__format': 'raw', 'provisioning__type': provisioning})
        with self.attached(volume) as connection:
            volume.status = 'in-use'
            volume.attach_status = fields.VolumeAttachStatus.ATTACHED
            volume.save()
            writer = Guest(connection, self.temp)
            self.addCleanup(writer.stop)
            for size in SIZES[1:]:
                writer.goes_on()
                self.extend(volume, size)
                self.assertEqual(size * base.GIB,
                                 os.stat(connection['path']).st_size)
            writer.goes_on()
            self.assertEqual('', writer.stop())
            written = dict(writer.written())
            self.assertLess(SIZES[-2] * base.GIB, max(written))
            out = self.qemu_io(connection, *(
                'read -P %d %d %d' % (byte, place, guest.BLOCK)
                for place, byte in written.items()))
        self.assertNotIn('Pattern verification failed', out)
        self.assertEqual(len(written), out.count('bytes at offset'))
        if provisioning == 'thick':
            self.assertGreaterEqual(
                os.stat(self.path(volume)).st_blocks * 512,
                SIZES[-1] * base.GIB)


class ExtendTest(base.LustreTestCase):

    def test_extend_for_a_tenant(self):
        """Somebody has asked for what a tenant's object does not have."""
        volume = self.create(specs={'lustre__format': 'raw'})
        self.write(volume, 1)
        theirs = self.of_tenant(volume)
        self.assertEqual({}, theirs.admin_metadata)
        self.driver.extend_volume(theirs, 2)
        volume.size = 2
        volume.save()
        self.assert_reads(volume, 1)
        self.assertEqual(2 * base.GIB, self.content(volume)[0])
