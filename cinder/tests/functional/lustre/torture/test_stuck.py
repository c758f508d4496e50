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

"""Shares on which single calls never return.

Each test keeps one kind of call from returning, as a dead server would, and
looks at what that does to requests, reports, processes and the other share.
"""

import glob
import time

import ddt
import fixtures

from cinder.lustre import places
from cinder.tests.functional.lustre import test_shares
from sandbox.tests import test_stuck

RAW = {'lustre__format': 'raw'}

# Which request meets a call first; the others of its kind pass before.
FIRST = {
    'statvfs': 'attach',
    'stat': 'attach',
    'open': 'attach',
    'read': 'attach',
    'write': 'create',
    'truncate': 'create',
    'fsync': 'create',
    'rename': 'create',
    'unlink': 'delete',
}


class StuckTestCase(test_shares.HungTestCase):

    def setUp(self):
        super().setUp()
        if not test_stuck.has_fusepy():
            self.skipTest('fusepy is not installed')

    def commands(self):
        """Count processes that are told something about the hung share."""
        found = 0
        mount_point = self.mount_point()
        for path in glob.glob('/proc/[0-9]*/cmdline'):
            try:
                with open(path) as cmdline:
                    words = cmdline.read()
            except OSError:
                continue
            if mount_point in words and 'serve-stuck' not in words:
                found += 1
        return found

    def attach(self, volume):
        """Ask for the connection, and do no more, as for Nova."""
        with self.attached(volume):
            pass

    def seconds_until_failure(self, request):
        started = time.monotonic()
        error = self.failure_of(request)
        self.assertIn('does not answer', str(error))
        return time.monotonic() - started


@ddt.ddt
class StuckCallTest(StuckTestCase):

    @ddt.data(*FIRST)
    def test_call(self, call):
        volume, snapshot = self.make_volumes()
        before = self.listing()
        doomed = self.volume_record(size=1)
        requests = {
            'attach': lambda: self.attach(volume),
            'create': lambda: self.driver.create_volume(doomed),
            'delete': lambda: self.driver.delete_volume(doomed)}
        if FIRST[call] == 'delete':
            self.driver.create_volume(doomed)
        children = self.children()
        with self.fault('stuck=' + call):
            # The operation's timeout, and what it did before it got stuck.
            self.assertLess(
                self.seconds_until_failure(requests[FIRST[call]]), 20)
            # One for the share, whatever is asked of it now.
            for _repetition in range(5):
                self.assert_all_fail(volume, snapshot, 'does not answer', 1)
            self.assertEqual(['down', 'up'], self.states())
            self.assert_works(1)
            self.assertLessEqual(self.children(), children + 1)
            self.assertLessEqual(self.commands(), 1)
        self.wait_until_up()
        self.assertEqual(0, self.commands())
        requests[FIRST[call]]()
        if FIRST[call] == 'create':
            self.driver.delete_volume(doomed)
        self.assertEqual(before, self.listing())
        self.assert_intact(volume, snapshot)

    def test_a_copy_from_a_stuck_share(self):
        """It does not take down the share that it goes to."""
        source = self.create(specs=RAW)
        self.write(source, 3)
        # Copies get time for their bytes, which is not what is tested.
        self.useFixture(fixtures.MockPatchObject(
            places, '_SLOWEST_COPY', 1 << 40))
        with self.fault('stuck=read'):
            self.seconds_until_failure(
                lambda: self.clone(source, share=1, specs=RAW))
            self.assertEqual('up', self.states()[1])
            self.assert_works(1)
            # One copy for the two shares, not one for each request.
            for _repetition in range(5):
                self.assertLess(self.seconds_until_failure(
                    lambda: self.clone(source, share=1, specs=RAW)), 1)
            self.assertEqual(1, self.commands())
        self.wait_until_up()
        # The copy that was left behind is of no share alone.
        deadline = time.monotonic() + 10
        while self.commands() and time.monotonic() < deadline:
            time.sleep(0.1)
        copy = self.clone(source, share=1, specs=RAW)
        self.assert_reads(copy, 3)


class StuckMountTest(StuckTestCase):

    def test_mount(self):
        """However often it is reported, one mount waits."""
        volume, snapshot = self.make_volumes()
        self._unmount()
        with self.fault('stuck=mount'):
            self.driver = self.new_driver()
            self.assertEqual(['down', 'up'], self.states())
            waiting = self.commands()
            self.assertLess(0, waiting)
            for _report in range(4):
                self.assertEqual(['down', 'up'], self.states())
            self.assertEqual(waiting, self.commands())
            self.assert_all_fail(volume, snapshot, 'is not mounted', 1)
            self.assert_works(1)
        self.wait_until_up()
        self.assertEqual(0, self.commands())
        self.assert_intact(volume, snapshot)
