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

"""Many volumes on one share, and many operations at once.

CINDER_LUSTRE_ROUNDS says how many rounds of 64 operations there are, for a
long run.
"""

import concurrent.futures
import os
import uuid

import fixtures

from cinder.lustre import images
from cinder.tests.functional.lustre import base
from os_brick.remotefs import lustre_guard

MANY = 10000
AT_ONCE = 64
ROUNDS = int(os.environ.get('CINDER_LUSTRE_ROUNDS', 4))


class ManyTest(base.LustreTestCase):

    def fill(self, count):
        root, path = self.file_systems.roots[0]
        directory = path + self.shares[0][len(root):]
        for _volume in range(count):
            with open('%s/volume-%s' % (directory, uuid.uuid4()), 'w'):
                pass

    def calls(self):
        """Name the calls on the share that operations and a report make."""
        made = []
        call = lustre_guard.Guard.call

        def record(guard, share, function, *args, **kwargs):
            made.append(function.__name__)
            return call(guard, share, function, *args, **kwargs)

        with fixtures.MockPatchObject(lustre_guard.Guard, 'call', record):
            volume = self.create()
            self.extend(volume, 2)
            snapshot = self.snapshot(volume)
            self.delete_snapshot(snapshot)
            self.delete(volume)
            self.driver.get_volume_stats(refresh=True)
        return sorted(made)

    def test_the_number_of_volumes_makes_no_difference(self):
        self.fill(10)
        few = self.calls()
        self.fill(MANY)
        self.assertEqual(few, self.calls())

    def test_many_operations_at_once(self):
        self.fill(MANY)
        place = self.driver._place_on(next(iter(
            self.driver._shares.values())))

        def live(_n):
            # The database of the tests is for one thread.
            volume = images.VolumeImages(place, 'volume-%s' % uuid.uuid4(),
                                         images.RAW, images.THIN)
            volume.create(images.RAW, base.GIB)
            volume.grow(2 * base.GIB)
            volume.remove()

        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(live, range(AT_ONCE)))
            before = self.used()
            for _round in range(ROUNDS):
                list(pool.map(live, range(AT_ONCE)))
            after = self.used()
        self.assertLessEqual(after[0], before[0] + 10, 'descriptors')
        self.assertLess(after[1], before[1] + 32 * base.MIB, 'bytes')
        self.assertLessEqual(len(self.driver._client._guard._idle), 4)
        self.assertEqual(MANY, len(self.listing()))

    @staticmethod
    def used():
        """Return descriptors and resident bytes of this process."""
        with open('/proc/self/statm') as statm:
            pages = int(statm.read().split()[1])
        return (len(os.listdir('/proc/self/fd')),
                pages * os.sysconf('SC_PAGESIZE'))
