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

"""What waits, and what does not."""

import threading

from oslotest import base

from ci.gerrit import events
from ci.gerrit import waiting
from ci.tests import fake_gerrit


def patch_set(change, number=1):
    return events.PatchSet.of(fake_gerrit.change(change),
                              fake_gerrit.patch_set(change, number))


class WaitingTestCase(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        self.waiting = waiting.Waiting(3, remember=4)

    def test_in_order(self):
        for change in 1, 2, 3:
            self.assertEqual('waits', self.waiting.put(patch_set(change)))
        self.assertEqual([1, 2, 3], [self.waiting.take().change
                                     for _ in range(3)])

    def test_once(self):
        self.waiting.put(patch_set(1))
        for again in False, True:
            self.waiting.put(patch_set(1), again)
        self.assertEqual(1, len(self.waiting))
        self.waiting.take()
        # It is running now.
        for again in False, True:
            self.waiting.put(patch_set(1), again)
        self.assertEqual(0, len(self.waiting))
        self.waiting.finished()
        self.assertEqual('waits', self.waiting.put(patch_set(1), again=True))

    def test_again_if_somebody_asks(self):
        self.waiting.put(patch_set(1))
        self.waiting.put(patch_set(2))
        self.waiting.take()
        self.waiting.take()
        self.waiting.put(patch_set(1))
        self.assertEqual(0, len(self.waiting))
        self.waiting.put(patch_set(1), again=True)
        self.assertEqual(patch_set(1), self.waiting.take())

    def test_newer_one_takes_the_place(self):
        self.waiting.put(patch_set(1))
        self.waiting.put(patch_set(2))
        self.waiting.put(patch_set(1, 3))
        self.waiting.put(patch_set(1, 2))
        self.assertEqual([patch_set(1, 3), patch_set(2)],
                         [self.waiting.take(), self.waiting.take()])

    def test_full(self):
        for change in range(1, 10):
            self.waiting.put(patch_set(change))
        self.assertEqual(3, len(self.waiting))
        # There is a place for what takes another one's.
        self.waiting.put(patch_set(2, 2))
        self.assertEqual(1, self.waiting.take().change)
        # What was dropped may come back.
        self.assertEqual('waits', self.waiting.put(patch_set(9)))

    def test_memory_has_an_end(self):
        for change in range(1, 100):
            self.waiting.put(patch_set(change))
            self.waiting.take()
        self.assertEqual(4, len(self.waiting._seen))

    def test_close(self):
        taken = []
        taker = threading.Thread(
            target=lambda: taken.append(self.waiting.take()))
        taker.start()
        self.waiting.close()
        taker.join(60)
        self.assertEqual([None], taken)
