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

What an operation costs does not depend on how many volumes there are: it makes
the same calls, which is counted and not timed, since time depends on what else
the host does.

CINDER_LUSTRE_ROUNDS says how many rounds of 64 lives of a volume there are.
Each takes 5 to 20 seconds; 200 are a long run, which needs OS_TEST_TIMEOUT=0.
What is measured is a detail of the test's result, and printed if there are
more rounds than usual.
"""

import concurrent.futures
import glob
import os
import re
import resource
import subprocess
import sys
import threading
import time
import uuid

import fixtures
from testtools import content

from cinder import coordination
from cinder.tests.functional.lustre import base
from cinder.tests.functional.lustre import stand_ins
from os_brick.remotefs import lustre as lustre_brick
from os_brick.remotefs import lustre_child
from os_brick.remotefs import lustre_guard

MANY = 10000
AT_ONCE = 64
FEW_ROUNDS = 1
ROUNDS = int(os.environ.get('CINDER_LUSTRE_ROUNDS', FEW_ROUNDS))

# System calls whose number tells how much is looked at on a share. Others
# depend on when a thread wakes up.
COUNTED = '%file,getdents64,fsync,fdatasync,ftruncate,fallocate'
# That many more or fewer mean nothing.
ODD_CALLS = 3


class _Lock:
    """A distributed lock, and for how long it was held."""

    def __init__(self, lock, locks):
        self._lock = lock
        self._locks = locks
        self.name = lock.name

    def acquire(self, blocking):
        started = time.monotonic()
        acquired = self._lock.acquire(blocking)
        self._since = time.monotonic()
        self._locks.waits.append(self._since - started)
        self._locks.held.add(self.name)
        return acquired

    def release(self):
        self._locks.times.append((threading.get_ident(), self._since,
                                  time.monotonic()))
        self._locks.held.discard(self.name)
        return self._lock.release()


class Locks(fixtures.Fixture):
    """Watches all distributed locks.

    :ivar held: the names of those that are held now
    :ivar times: of each that was held: thread, beginning and end
    :ivar waits: how many seconds each was waited for
    """

    def _setUp(self):
        self.held, self.times, self.waits = set(), [], []
        get_lock = coordination.Coordinator.get_lock
        self.useFixture(fixtures.MockPatchObject(
            coordination.Coordinator, 'get_lock',
            lambda coordinator, name: _Lock(get_lock(coordinator, name),
                                            self)))


class ManyTestCase(base.LustreTestCase):

    def fill(self, count):
        root, path = self.file_systems.roots[0]
        directory = path + self.shares[0][len(root):]
        for _volume in range(count):
            with open('%s/volume-%s' % (directory, uuid.uuid4()), 'w'):
                pass


class CostTest(ManyTestCase):
    """An operation costs the same beside ten volumes and ten thousand."""

    def setUp(self):
        super().setUp()
        # The lock file is made, and as many children as are needed started.
        self.operate()

    def operate(self):
        volume = self.create()
        self.extend(volume, 2)
        snapshot = self.snapshot(volume)
        copy = self.from_snapshot(snapshot, 3)
        self.delete_snapshot(snapshot)
        with self.attached(volume):
            pass
        self.delete(copy)
        self.delete(volume)
        self.driver.get_volume_stats(refresh=True)

    def guarded_calls(self):
        """Name the calls on the share that operations and a report make."""
        made = []
        call = lustre_guard._Session.call

        def record(session, share, function, *args, **kwargs):
            made.append(function.__name__)
            return call(session, share, function, *args, **kwargs)

        with fixtures.MockPatchObject(lustre_guard._Session, 'call', record):
            self.operate()
        # A report looks at all shares at once.
        return sorted(made)

    def system_calls(self):
        """Count the system calls of the guard's children and commands."""
        children = [str(child._process.pid)
                    for child in self.driver._client._guard._idle]
        table = os.path.join(self.temp, 'calls')
        with subprocess.Popen(
                ['strace', '-f', '-c', '-e', 'trace=' + COUNTED, '-o', table,
                 '-p', ','.join(children)],
                stderr=subprocess.PIPE, text=True) as strace:
            for _child in children:
                self.assertIn('attached', strace.stderr.readline())
            self.operate()
            strace.terminate()
        with open(table) as f:
            return {line.split()[-1]: int(line.split()[3])
                    for line in f if re.match(r' *[0-9]', line)}

    def test_guarded_calls(self):
        self.fill(10)
        few = self.guarded_calls()
        self.fill(MANY)
        self.assertEqual(few, self.guarded_calls())
        self.assertGreater(len(few), 20)

    def test_system_calls(self):
        self.fill(10)
        few = self.system_calls()
        self.fill(MANY)
        many = self.system_calls()
        self.assertLess(100, few['total'])
        self.assertEqual(few.keys(), many.keys())
        for call, times in few.items():
            # QEMU's threads open a file of their own now and then.
            self.assertAlmostEqual(times, many[call], delta=ODD_CALLS,
                                   msg=call)


class AtOnceTest(ManyTestCase):
    """64 operations at once, and nothing that grows."""

    def setUp(self):
        super().setUp()
        self.useFixture(stand_ins.DatabaseFile(os.path.join(
            self.temp, 'cinder.sqlite')))
        self.type_id = self.volume_type().id
        self.host(0)
        self.locks = self.useFixture(Locks())
        self.seconds = []

    def timed(self, operation, *args):
        """Do an operation; the locks it takes are its own, and end with it."""
        started = time.monotonic()
        result = operation(*args)
        ended = time.monotonic()
        self.seconds.append(ended - started)
        for thread, since, until in list(self.locks.times[-AT_ONCE * 4:]):
            if thread == threading.get_ident() and since >= started:
                self.assertLessEqual(until, ended)
        return result

    def live(self, _n):
        volume = self.timed(lambda: self.create(
            volume_type_id=self.type_id))
        self.timed(self.extend, volume, 2)
        snapshot = self.timed(self.snapshot, volume)
        self.timed(self.delete_snapshot, snapshot)
        self.timed(self.delete, volume)

    def used(self):
        """Return what this process has: descriptors, bytes, children.

        Children that have ended don't count: Python takes notice of them
        when it starts the next one.
        """
        pages = int(_read('/proc/self/statm').split()[1])
        children = ' '.join(map(_read, glob.glob(
            '/proc/self/task/*/children'))).split()
        running = [child for child in children if ' Z ' not in _read(
            '/proc/%s/stat' % child)]
        return (len(os.listdir('/proc/self/fd')),
                pages * resource.getpagesize(), len(running))

    def assert_no_lock_is_held(self):
        self.assertEqual(set(), self.locks.held)
        path = os.path.join(self.directory_of_share(), lustre_brick.LOCK_FILE)
        self.assertTrue(lustre_child.lock(path, 0, 0o660, length=0))
        lustre_child.unlock()

    def directory_of_share(self):
        return self.driver._get_mount_point_for_share(self.shares[0])

    def test_nothing_grows(self):
        self.fill(MANY)
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(self.live, range(AT_ONCE)))
            before = self.used()
            self.seconds.clear()
            self.locks.waits.clear()
            started = time.monotonic()
            for _round in range(ROUNDS):
                list(pool.map(self.live, range(AT_ONCE)))
                self.locks.times.clear()
            elapsed = time.monotonic() - started
            after = self.used()
        self.report(before, after, elapsed)
        self.assert_no_lock_is_held()
        self.assertLessEqual(after[0], before[0] + 10, 'descriptors')
        self.assertLess(after[1], before[1] + 32 * base.MIB, 'bytes')
        self.assertLessEqual(after[2], before[2], 'children')
        # No operation is kept waiting by those on other volumes.
        self.assertLess(max(self.locks.waits), 5)
        self.assertEqual(MANY, len(self.listing()))

    def report(self, before, after, elapsed):
        seconds = sorted(self.seconds)
        text = (
            '%d operations on %d volumes in %.0f s, %d at once; each took '
            '%.2f s (median), %.2f s (longest); longest wait for a '
            'distributed lock %.3f s; descriptors %d, then %d; resident '
            'MiB %.1f, then %.1f; children %d, then %d' % (
                len(seconds), MANY, elapsed, AT_ONCE,
                seconds[len(seconds) // 2], seconds[-1],
                max(self.locks.waits), before[0], after[0],
                before[1] / base.MIB, after[1] / base.MIB, before[2],
                after[2]))
        self.addDetail('measured', content.text_content(text))
        if ROUNDS > FEW_ROUNDS:
            print(text, file=sys.__stderr__)


def _read(path):
    try:
        with open(path) as f:
            return f.read()
    except FileNotFoundError:
        # The thread or process has ended.
        return ''
