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

"""Patch sets that wait for a run, and those that need no other one."""

import collections
import threading


class Waiting:
    """A queue with an end, for one that puts and one that takes.

    A newer patch set takes the place of an older one of its change. Nothing
    waits twice. A patch set that was here before comes again only if somebody
    asks for it.

    :param size: how many may wait
    :param remember: of how many patch sets to know that they were here
    """

    def __init__(self, size, remember=10000):
        self._size = size
        self._remember = remember
        self._changed = threading.Condition()
        # By change, in the order in which they came.
        self._waiting = collections.OrderedDict()
        self._seen = collections.OrderedDict()
        self._running = None
        self._closed = False

    def put(self, patch_set, again=False):
        """Let a patch set wait.

        :param again: somebody asks for it
        :returns: what has become of it, for the log
        """
        with self._changed:
            if patch_set == self._running:
                return 'is running'
            if patch_set in self._seen and not again:
                return 'was here before'
            key = patch_set.project, patch_set.change
            older = self._waiting.get(key)
            if older is None and len(self._waiting) >= self._size:
                return 'is dropped: %d are waiting' % self._size
            if older is not None and older.number >= patch_set.number:
                return 'waits already, or a newer one does'
            self._waiting[key] = patch_set
            self._note(patch_set)
            self._changed.notify()
            return 'waits' if older is None else 'waits instead of %s' % older

    def _note(self, patch_set):
        self._seen[patch_set] = True
        self._seen.move_to_end(patch_set)
        while len(self._seen) > self._remember:
            self._seen.popitem(last=False)

    def take(self):
        """Wait for a patch set, which counts as running until finished().

        :returns: it, or None when there will be no more
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return None
            self._running = self._waiting.popitem(last=False)[1]
            return self._running

    def finished(self):
        """Say that what was taken runs no more."""
        with self._changed:
            self._running = None

    def close(self):
        """Let nobody wait any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __len__(self):
        with self._changed:
            return len(self._waiting)
