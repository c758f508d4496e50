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

import concurrent.futures
import contextlib
import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from unittest import mock

from os_brick.remotefs import lustre_child
from os_brick.remotefs import lustre_guard
from os_brick.tests import base
from os_brick.tests.remotefs import guarded_calls
from os_brick.tests.remotefs import lustre_fixtures

# For what takes milliseconds, on a machine that does much else.
wait_for = lustre_fixtures.wait_for
_LONG = lustre_fixtures.LONG

_SHARE = '10.0.2.15@tcp:/lustre'
_OTHER = '10.0.2.15@tcp:/scratch'

# The parent of children, told what to do in its place.
_SERVICE = """
import sys
if 'eventlet' in sys.argv[1:]:
    import eventlet
    eventlet.monkey_patch()
import concurrent.futures
import time
from os_brick.remotefs import lustre_guard
from os_brick.tests.remotefs import guarded_calls
guard = lustre_guard.Guard()
"""


def _state(pid):
    """Return the state of a process as ps shows it; Z when it has ended."""
    try:
        with open('/proc/%d/stat' % pid) as f:
            return f.read().rpartition(')')[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return 'Z'


class GuardTestCase(base.TestCase):

    def setUp(self):
        super().setUp()
        self.guard = lustre_guard.Guard()
        self.addCleanup(self.guard.close)
        self.temp = self.useFixture(base.fixtures.TempDir()).path

    def call(self, function, *args, share=_SHARE, timeout=_LONG):
        return self.guard.call(share, function, *args, timeout=timeout)

    def path(self, name):
        return os.path.join(self.temp, name)

    def fifo(self):
        os.mkfifo(self.path('fifo'))
        return self.path('fifo')

    # What comes back

    def test_result(self):
        self.assertEqual(5, self.call(guarded_calls.add, 2, 3))

    def test_large_result(self):
        large = b'x' * (5 << 20)
        self.assertEqual(large + large,
                         self.call(guarded_calls.add, large, large))

    def test_os_error_with_its_parts(self):
        error = self.assertRaises(
            FileNotFoundError, self.call, guarded_calls.raise_os_error,
            errno.ENOENT, '/some/file')
        self.assertEqual('/some/file', error.filename)

    def test_value_error(self):
        error = self.assertRaises(
            ValueError, self.call, guarded_calls.raise_value_error, 'why')
        self.assertEqual('why', str(error))

    def test_a_call_that_raised_leaves_a_child_that_works(self):
        before = self.call(guarded_calls.pid)
        self.assertRaises(ValueError, self.call,
                          guarded_calls.raise_value_error, '')
        self.assertEqual(before, self.call(guarded_calls.pid))

    def test_run(self):
        self.assertEqual(
            (3, 'out\n', 'err\n'),
            self.guard.run(_SHARE, 'sh', '-c', 'echo out; echo err >&2; '
                                               'exit 3', timeout=_LONG))

    def test_run_gives_no_input_and_no_translations(self):
        self.assertEqual(
            (0, 'C\n', ''),
            self.guard.run(_SHARE, 'sh', '-c', 'cat; echo $LC_ALL',
                           timeout=_LONG))

    def test_run_of_what_is_not_installed(self):
        self.assertRaises(FileNotFoundError, self.guard.run, _SHARE,
                          self.path('no-such-command'), timeout=_LONG)

    def test_statfs_agrees_with_python(self):
        magic, size, available = self.call(lustre_child.statfs, self.temp)
        space = os.statvfs(self.temp)
        self.assertNotEqual(0, magic)
        self.assertEqual(space.f_blocks * space.f_frsize, size)
        self.assertGreaterEqual(size, available)

    def test_statfs_of_what_is_not_there(self):
        self.assertRaises(FileNotFoundError, self.call, lustre_child.statfs,
                          self.path('nothing'))

    def test_modes_are_what_the_caller_says(self):
        self.addCleanup(os.umask, os.umask(0o077))
        self.call(guarded_calls.create, self.path('file'), 0o660)
        self.assertEqual(0o660, os.stat(self.path('file')).st_mode & 0o777)

    # What does not come back

    def test_a_call_has_an_end(self):
        start = time.monotonic()
        error = self.assertRaises(
            lustre_guard.ShareHung, self.call, guarded_calls.open_both,
            self.fifo(), self.path('late'), timeout=0.2)
        self.assertLess(time.monotonic() - start, _LONG / 2)
        self.assertIn(_SHARE, str(error))
        self.assertIn('open_both', str(error))

    def test_a_call_that_was_given_up_does_nothing_later(self):
        fifo = self.fifo()
        self.assertRaises(lustre_guard.ShareHung, self.call,
                          guarded_calls.open_both, fifo, self.path('late'),
                          timeout=0.2)
        wait_for(lambda: not self.guard.hung(_SHARE))
        # Nobody reads any more.
        error = self.assertRaises(OSError, os.open, fifo,
                                  os.O_WRONLY | os.O_NONBLOCK)
        self.assertEqual(errno.ENXIO, error.errno)
        self.assertFalse(os.path.exists(self.path('late')))
        self.assertEqual(2, self.call(guarded_calls.add, 1, 1))

    def test_a_command_that_was_given_up_is_ended(self):
        self.assertRaises(lustre_guard.ShareHung, self.call,
                          guarded_calls.note_and_run, self.path('pids'),
                          'sleep', '1000', timeout=2)
        with open(self.path('pids')) as f:
            pids = [int(pid) for pid in f.read().split()]
        wait_for(lambda: [_state(pid) for pid in pids] == ['Z', 'Z'])

    def _hang(self, share=_SHARE):
        """Leave a child behind that SIGKILL does not reach.

        What waits for a dead server can't be made without one. A stopped
        process comes close if the signal isn't sent.
        """
        pid = self.call(guarded_calls.pid, share=share)
        with mock.patch.object(os, 'killpg'):
            self.assertRaises(lustre_guard.ShareHung, self.call,
                              guarded_calls.stop, share=share, timeout=0.2)
        self.addCleanup(self._let_go, pid)
        wait_for(lambda: _state(pid) == 'T')
        return pid

    @staticmethod
    def _let_go(pid):
        if _state(pid) != 'Z':
            os.kill(pid, signal.SIGCONT)

    def test_a_share_that_hangs_is_refused_until_it_answers(self):
        pid = self._hang()
        self.assertEqual(1, self.guard.hung(_SHARE))
        for attempt in range(3):
            start = time.monotonic()
            error = self.assertRaises(lustre_guard.ShareHung, self.call,
                                      guarded_calls.add, 1, 1)
            self.assertLess(time.monotonic() - start, 1)
            self.assertIn('1 earlier call(s)', str(error))
        self.assertEqual(1, self.guard.hung(_SHARE))
        self._let_go(pid)
        wait_for(lambda: not self.guard.hung(_SHARE))
        self.assertEqual(2, self.call(guarded_calls.add, 1, 1))

    def test_a_command_that_survives_its_child_counts_too(self):
        """As qemu-img and mount do, waiting where SIGKILL does not reach.

        One in a session of its own is not reached either.
        """
        self.assertRaises(
            lustre_guard.ShareHung, self.guard.run, _SHARE, 'setsid', 'sh',
            '-c', 'echo $PPID $$ > %s; exec sleep 1000' % self.path('pids'),
            timeout=2)
        with open(self.path('pids')) as f:
            child, pid = [int(pid) for pid in f.read().split()]
        self.addCleanup(subprocess.run, ['kill', str(pid)],
                        stderr=subprocess.DEVNULL)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        self.assertNotEqual('Z', _state(pid))
        self.assertEqual(1, self.guard.hung(_SHARE))
        self.assertRaises(lustre_guard.ShareHung, self.call,
                          guarded_calls.add, 1, 1)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not self.guard.hung(_SHARE))
        self.assertEqual(2, self.call(guarded_calls.add, 1, 1))

    def test_other_shares_go_on(self):
        pid = self._hang()
        self.assertEqual(2, self.call(guarded_calls.add, 1, 1, share=_OTHER))
        self.assertEqual(0, self.guard.hung(_OTHER))
        self.assertNotEqual(pid, self.call(guarded_calls.pid, share=_OTHER))

    def test_a_child_that_dies(self):
        error = self.assertRaises(lustre_guard.ShareUnavailable, self.call,
                                  guarded_calls.die)
        self.assertIn('died', str(error))
        wait_for(lambda: not self.guard.hung(_SHARE))
        self.assertEqual(2, self.call(guarded_calls.add, 1, 1))

    def test_an_idle_child_that_died_is_not_used(self):
        pid = self.call(guarded_calls.pid)
        os.kill(pid, signal.SIGKILL)
        # Its state is Z as soon as the first of its threads has ended.
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        self.assertNotEqual(pid, self.call(guarded_calls.pid))

    # Locks

    def lock(self, session, offset=0, path='locks'):
        return session.call(_SHARE, lustre_child.lock, self.path(path),
                            offset, 0o660, timeout=_LONG)

    def is_free(self, offset=0):
        """Tell whether another service could have the lock."""
        other = lustre_guard.Guard()
        self.addCleanup(other.close)
        with other.session(_SHARE) as session:
            free = self.lock(session, offset)
            session.call(_SHARE, lustre_child.unlock, timeout=_LONG)
        return free

    def test_a_session_is_one_child(self):
        with self.guard.session(_SHARE) as session:
            pids = {session.call(_SHARE, guarded_calls.pid, timeout=_LONG)
                    for _call in range(3)}
            self.assertNotIn(self.call(guarded_calls.pid), pids)
        self.assertEqual(1, len(pids))

    def test_a_lock_is_held_until_it_is_given_up(self):
        with self.guard.session(_SHARE) as session:
            self.assertTrue(self.lock(session))
            self.assertFalse(self.is_free())
            self.assertTrue(self.is_free(offset=(1 << 62) - 1))
            session.call(_SHARE, lustre_child.unlock, timeout=_LONG)
            self.assertTrue(self.is_free())

    def test_a_refused_lock_leaves_nothing_open(self):
        with self.guard.session(_SHARE) as one, \
                self.guard.session(_SHARE) as other:
            self.assertTrue(self.lock(one))
            pid = other.call(_SHARE, guarded_calls.pid, timeout=_LONG)
            before = os.listdir('/proc/%d/fd' % pid)
            self.assertFalse(self.lock(other))
            self.assertEqual(before, os.listdir('/proc/%d/fd' % pid))

    def test_a_lock_that_can_t_be_had_for_another_reason(self):
        with self.guard.session(_SHARE) as session:
            self.assertRaises(FileNotFoundError, self.lock, session,
                              path='no/such/directory')

    def test_a_lock_lasts_as_long_as_the_child_that_was_left_behind(self):
        with self.guard.session(_SHARE) as session:
            self.assertTrue(self.lock(session))
            pid = self._hang_in(session)
        self.assertEqual(1, self.guard.hung(_SHARE))
        self.assertFalse(self.is_free())
        self._let_go(pid)
        wait_for(self.is_free)

    def _hang_in(self, session):
        pid = session.call(_SHARE, guarded_calls.pid, timeout=_LONG)
        with mock.patch.object(os, 'killpg'):
            self.assertRaises(lustre_guard.ShareHung, session.call, _SHARE,
                              guarded_calls.stop, timeout=0.2)
        self.addCleanup(self._let_go, pid)
        wait_for(lambda: _state(pid) == 'T')
        return pid

    def test_nothing_is_done_after_a_call_that_did_not_come_back(self):
        with self.guard.session(_SHARE) as session:
            self._hang_in(session)
            self.assertRaises(lustre_guard.ShareUnavailable, session.call,
                              _SHARE, guarded_calls.add, 1, 1, timeout=_LONG)
            self.assertTrue(session.over)

    def test_a_lock_lasts_as_long_as_the_last_command(self):
        # The service is killed, and so is its child; what the child had
        # started waits for a server.
        service = self._service("""
            from os_brick.remotefs import lustre_child
            with guard.session('share') as session:
                session.call('share', lustre_child.lock, sys.argv[1], 0, 0o660,
                             timeout=1000)
                session.call('share', lustre_child.run, 'setsid', 'sh', '-c',
                             'echo $$ >"$0.new"; mv "$0.new" "$0"; '
                             'exec sleep 1000', sys.argv[2], timeout=1000)
            """, self.path('locks'), self.path('pid'))
        wait_for(lambda: os.path.exists(self.path('pid')))
        with open(self.path('pid')) as f:
            pid = int(f.read())
        self.addCleanup(self._kill, pid)
        service.kill()
        service.wait()
        self.assertFalse(self.is_free())
        self._kill(pid)
        wait_for(self.is_free)

    @staticmethod
    def _kill(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    # Children

    def test_children_are_used_again(self):
        pids = {self.call(guarded_calls.pid, share=share)
                for share in (_SHARE, _OTHER) * 5}
        self.assertEqual(1, len(pids))

    def test_close_ends_idle_children(self):
        pid = self.call(guarded_calls.pid)
        self.guard.close()
        wait_for(lambda: _state(pid) == 'Z')

    def test_children_get_no_descriptors_of_the_service(self):
        secret = open(self.path('secret'), 'w')
        self.addCleanup(secret.close)
        pid = self.call(guarded_calls.pid)
        directory = '/proc/%d/fd' % pid
        self.assertNotIn(self.path('secret'), [
            os.readlink(os.path.join(directory, fd))
            for fd in os.listdir(directory)])

    # Residents

    def test_resident(self):
        resident = self.guard.resident(_SHARE)
        self.addCleanup(resident.end)
        pids = {resident.call(guarded_calls.pid, timeout=_LONG)
                for _call in range(3)}
        self.assertEqual(1, len(pids))
        self.assertNotIn(self.call(guarded_calls.pid), pids)
        self.assertRaises(ValueError, resident.call,
                          guarded_calls.raise_value_error, '', timeout=_LONG)
        self.assertEqual(pids, {resident.call(guarded_calls.pid,
                                              timeout=_LONG)})

    def test_a_resident_ends_with_what_it_has_started(self):
        resident = self.guard.resident(_SHARE)
        pid = resident.call(guarded_calls.pid, timeout=_LONG)
        started = resident.call(guarded_calls.start, 'sleep', '1000',
                                timeout=_LONG)
        self.assertNotEqual('Z', _state(started))
        resident.end()
        wait_for(lambda: [_state(pid), _state(started)] == ['Z', 'Z'])
        resident.end()
        self.assertRaises(lustre_guard.ShareUnavailable, resident.call,
                          guarded_calls.pid, timeout=_LONG)

    def test_a_resident_s_call_has_an_end(self):
        resident = self.guard.resident(_SHARE)
        self.assertRaises(lustre_guard.ShareHung, resident.call,
                          guarded_calls.open_both, self.fifo(),
                          self.path('late'), timeout=0.2)
        self.assertRaises(lustre_guard.ShareUnavailable, resident.call,
                          guarded_calls.pid, timeout=_LONG)
        resident.end()
        wait_for(lambda: not self.guard.hung(_SHARE))

    def test_there_is_no_resident_on_a_share_that_hangs(self):
        pid = self._hang()
        self.assertRaises(lustre_guard.ShareHung, self.guard.resident,
                          _SHARE)
        self._let_go(pid)

    # Services

    def _service(self, code, *args):
        process = subprocess.Popen(
            [sys.executable, '-W', 'ignore', '-c',
             _SERVICE + textwrap.dedent(code), *args],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def _run_service(self, code, *args):
        process = self._service(code, *args)
        out, error = process.communicate(timeout=_LONG)
        self.assertEqual(('', 0), (error, process.returncode))
        return out.split()

    def test_children_and_their_commands_end_with_the_service(self):
        service = self._service("""
            guard.call('share', guarded_calls.note_and_run, sys.argv[1],
                       'sleep', '1000', timeout=1000)
            """, self.path('pids'))
        wait_for(lambda: os.path.exists(self.path('pids')))
        with open(self.path('pids')) as f:
            pids = [int(pid) for pid in f.read().split()]
        self.assertNotIn('Z', [_state(pid) for pid in pids])
        service.kill()
        wait_for(lambda: [_state(pid) for pid in pids] == ['Z', 'Z'])

    def test_idle_children_end_with_the_service(self):
        service = self._service("""
            print(guard.call('share', guarded_calls.pid, timeout=1000),
                  flush=True)
            time.sleep(1000)
            """)
        pid = int(service.stdout.readline())
        self.assertNotEqual('Z', _state(pid))
        service.kill()
        wait_for(lambda: _state(pid) == 'Z')

    def test_children_survive_a_signal_to_the_service_s_group(self):
        # As of Ctrl-C: what was begun is the service's to end.
        pid = self.call(guarded_calls.pid)
        self.assertNotEqual(os.getpgid(0), os.getpgid(pid))

    _MANY = """
        def add(n):
            return guard.call('share %d' % (n % 3), guarded_calls.add, n, n,
                              timeout=1000)

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            print(list(pool.map(add, range(300))) ==
                  [n + n for n in range(300)])
        print(len(guard._idle) <= 4)
        """

    def test_many_threads(self):
        self.assertEqual(['True', 'True'], self._run_service(self._MANY))

    def test_many_green_threads(self):
        self.assertEqual(['True', 'True'],
                         self._run_service(self._MANY, 'eventlet'))

    _SLOW = """
        def sleep():
            guard.run('slow', 'sleep', '3', timeout=1000)
            return time.monotonic()

        def hang():
            try:
                guard.run('slower', 'sleep', '1000', timeout=1)
            except lustre_guard.ShareHung:
                return time.monotonic()

        def quick():
            guard.run('quick', 'true', timeout=1000)
            return time.monotonic()

        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            ends = [pool.submit(f) for f in (sleep, hang, quick)]
            slow, hung, quick = [end.result() for end in ends]
        print(quick < hung < slow)
        """

    def test_a_slow_share_keeps_no_thread_waiting(self):
        self.assertEqual(['True'], self._run_service(self._SLOW))

    def test_a_slow_share_keeps_no_green_thread_waiting(self):
        self.assertEqual(['True'],
                         self._run_service(self._SLOW, 'eventlet'))

    def test_threads_of_one_share_make_calls_at_once(self):
        # One waits for what the other one does.
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            fifo = self.fifo()
            reader = pool.submit(self.call, guarded_calls.open_both, fifo,
                                 self.path('done'))
            self.guard.run(_SHARE, 'sh', '-c', 'echo >"$0"', fifo,
                           timeout=_LONG)
            reader.result()
        self.assertTrue(os.path.exists(self.path('done')))
