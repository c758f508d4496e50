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


"""Two services work on one volume, and the distributed lock is lost.

Redis was restarted, or has taken a service that stood still for dead: both
services believe that the volume is theirs. What keeps them apart is the lock
on the share.
"""

import concurrent.futures
import os
from unittest import mock

import fixtures

from cinder import coordination
from cinder.lustre import images
from cinder.tests.functional.lustre import base
from cinder.tests.functional.lustre import stand_ins
from os_brick.remotefs import lustre as lustre_brick

# How long the other one gets to do what it must not, in seconds.
_CHANCE = 0.3


class LostLockTest(base.LustreTestCase):

    def setUp(self):
        super().setUp()
        self.useFixture(stand_ins.DatabaseFile(os.path.join(
            self.temp, 'cinder.sqlite')))
        self.other = self.new_driver()
        self.useFixture(fixtures.MockPatchObject(
            coordination.Coordinator, 'get_lock', mock.MagicMock()))
        self.pool = concurrent.futures.ThreadPoolExecutor(1)
        self.addCleanup(self.pool.shutdown)

    def interrupted(self, number, work, other_work):
        """Let the other service start before a call of ours on the share.

        :param number: of the call, from 1
        :returns: whether there were that many
        """
        started = []
        call = self.driver._client.call

        def counted(*args, **kwargs):
            counted.calls += 1
            if counted.calls == number:
                started.append(self.pool.submit(other_work))
                concurrent.futures.wait(started, _CHANCE)
            return call(*args, **kwargs)

        counted.calls = 0
        with mock.patch.object(self.driver._client, 'call', counted):
            work()
        for future in started:
            future.result()
        return bool(started)

    def make(self):
        """Make a volume with a snapshot and something newer."""
        volume = self.create()
        self.write(volume, 1)
        snapshot = self.snapshot(volume)
        self.write(volume, 2, base.MIB)
        return volume, snapshot

    def each_call(self, scenario):
        """Run a scenario for each call of ours, while there is one."""
        number = 1
        while scenario(number):
            number += 1
        self.assertGreater(number, 5)

    def test_a_snapshot_while_one_is_deleted(self):
        def scenario(number):
            volume, old = self.make()
            new, before = self.snapshot_record(volume), self.content(volume)
            reached = self.interrupted(
                number, lambda: self.driver.delete_snapshot(old),
                lambda: self.other.create_snapshot(new))
            if reached:
                self.write(volume, 3, 2 * base.MIB)
                self.assertEqual(before, self.content_of(new))
                self.assert_reads(volume, 3, 2 * base.MIB)
                self.finish(volume, new)
            return reached

        self.each_call(scenario)

    def test_a_deletion_while_a_snapshot_is_taken(self):
        def scenario(number):
            volume, old = self.make()
            new, before = self.snapshot_record(volume), self.content(volume)
            reached = self.interrupted(
                number, lambda: self.driver.create_snapshot(new),
                lambda: self.other.delete_snapshot(old))
            if reached:
                self.assertEqual(before, self.content_of(new))
                self.assertEqual(before, self.content(volume))
                self.finish(volume, new)
            return reached

        self.each_call(scenario)

    def test_a_deletion_while_a_volume_is_made_from_the_snapshot(self):
        def scenario(number):
            volume, snapshot = self.make()
            before = self.content_of(snapshot)
            copy = self.volume_record()
            try:
                reached = self.interrupted(
                    number, lambda: self._created(
                        copy, self.driver.create_volume_from_snapshot(
                            copy, snapshot)),
                    lambda: self.other.delete_snapshot(snapshot))
            except images.InvalidImage:
                # The other one came before the lock was taken.
                self.assertNotIn(copy.name, self.listing())
                return True
            if reached:
                self.assertEqual(before, self.content(copy))
                copied.append(number)
            return reached

        copied = []
        self.each_call(scenario)
        self.assertGreater(len(copied), 5)

    def content_of(self, snapshot):
        snapshot.status = 'available'
        return self.snapshot_content(snapshot, share=1)

    def finish(self, volume, snapshot):
        """The volume has all files it should, and no others."""
        self.check(volume)
        self.delete_snapshot(snapshot)
        self.delete(volume)
        self.assertEqual([], [name for name in self.listing()
                              if name.startswith(volume.name)])

    def test_a_lock_that_is_not_given_up(self):
        volume, snapshot = self.make()
        before, listing = self.content(volume), self.listing()
        driver = self.new_driver(lustre_operation_timeout=1)
        holder, share = self.other._client, self.other._place(volume).share
        with holder.locked(share, volume.name, 0o660):
            for work in (lambda: driver.delete_snapshot(snapshot),
                         lambda: driver.delete_volume(volume),
                         lambda: driver.extend_volume(volume, 2),
                         lambda: driver.initialize_connection(volume, {})):
                error = self.assertRaises(lustre_brick.Locked, work)
                self.assertIn(volume.name, str(error))
            self.assertEqual(listing, self.listing())
            # It is not the share that is stuck.
            self.delete(self.create())
        self.assertEqual(before, self.content(volume))
        driver.delete_snapshot(snapshot)
        self.assertEqual(before, self.content(volume))
