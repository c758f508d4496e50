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

"""Calls on Lustre shares that always come back.

A process that waits for a dead OST or MDT sits in the kernel where SIGKILL
does not reach it. A bound on such a wait can therefore only mean to give up on
the process and go on without it. So every call on a share runs in a child
(:mod:`os_brick.remotefs.lustre_child`):

1. a child is taken from those that are idle, or started;
2. it makes the call and answers, and is idle again;
3. if it has not answered in time it is killed and left behind, with what it
   has started: each ends when the system call it waits in returns,
   and does nothing after that. The caller gets :class:`ShareHung`;
4. as long as a child that was left behind on a share, or its command, has not
   ended, calls on that share are refused at once. That keeps the number of
   such processes small, and it keeps a late system call of theirs from meeting
   new work.

Nothing needs to be reset when a share comes back: the children end, and the
next call is made.

That a share is refused is known to one service only. What it works on must be
kept from others too, and from its own successor: so a child can hold a lock on
the share, and one that was left behind still does (:meth:`Guard.session`,
:func:`os_brick.remotefs.lustre_child.lock`).
"""

import collections
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time

from oslo_log import log as logging

from os_brick import exception
from os_brick.i18n import _
from os_brick.remotefs import lustre_child

LOG = logging.getLogger(__name__)

# How long a process that has been killed may take to end, and how often to
# look, in seconds.
_DEATH = 1
_PAUSE = 0.005


class ShareUnavailable(exception.BrickException):
    """A share can't be used now: not mounted, not Lustre, or not answering."""

    message = _("Lustre share %(share)s is not available: %(reason)s")


class ShareHung(ShareUnavailable):
    """A call on a share has not come back in time."""

    message = _("Lustre share %(share)s does not answer: %(reason)s")


class _Child:
    """One process that makes calls, one at a time."""

    def __init__(self):
        self._channel, far_end = socket.socketpair()
        # The commands that it runs inherit this one: what has the far end
        # open has not ended yet.
        self._lifeline, far_lifeline = socket.socketpair()
        self._lifeline.setblocking(False)
        with far_end, far_lifeline:
            ends = [far_end.fileno(), far_lifeline.fileno()]
            # A session of its own: signals to the service's group don't
            # reach it, and one signal to its group reaches all it started.
            self._process = subprocess.Popen(
                [sys.executable, '-IS', lustre_child.__file__,
                 *map(str, ends)],
                pass_fds=ends, stdin=subprocess.DEVNULL,
                start_new_session=True)

    def call(self, function, args, timeout):
        """Make a call.

        :raises TimeoutError: no answer in ``timeout`` seconds
        :raises EOFError, OSError: the child has died
        """
        self._channel.settimeout(timeout)
        lustre_child.send(self._channel, (
            sys.modules[function.__module__].__file__, function.__name__,
            args))
        return lustre_child.receive(self._channel)

    def kill(self):
        self._channel.close()
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def is_running(self):
        return self._process.poll() is None

    def has_ended(self):
        """Tell whether it has ended, and the command that it was running.

        SIGKILL may have ended the child alone.
        """
        if self.is_running():
            return False
        try:
            return not self._lifeline.recv(1)
        except BlockingIOError:
            return False


class _Session:
    """Calls that are all made in one child.

    :ivar over: an earlier call has not come back, and the child was left
        behind with all it holds
    """

    def __init__(self, guard, child):
        self._guard = guard
        self._child = child
        self.over = False

    def call(self, share, function, *args, timeout):
        """As :meth:`Guard.call`."""
        self._guard.refuse_if_hung(share)
        if self.over:
            raise ShareUnavailable(share=share, reason=_(
                'the process that worked on it has been given up'))
        try:
            succeeded, result = self._child.call(function, args, timeout)
        except BaseException as exc:
            self.give_up(share)
            if isinstance(exc, TimeoutError):
                raise ShareHung(share=share, reason=_(
                    '%(call)s has not returned within %(timeout)s s') % {
                        'call': function.__name__, 'timeout': timeout})
            if isinstance(exc, (EOFError, OSError)):
                raise ShareUnavailable(share=share, reason=_(
                    'the process that called %s on it died') %
                    function.__name__)
            raise
        if not succeeded:
            raise result
        return result

    def give_up(self, share):
        """Leave the child behind: it has what it holds until it ends."""
        if not self.over:
            self.over = True
            self._guard.leave_behind(share, self._child)


class Resident(_Session):
    """A child that one caller keeps, for what outlasts a call.

    What its calls leave running ends with :meth:`end`, or with the service.
    """

    def __init__(self, guard, share):
        super().__init__(guard, _Child())
        self._share = share

    def call(self, function, *args, timeout):
        """Call a function in this child: see :meth:`Guard.call`."""
        return super().call(self._share, function, *args, timeout=timeout)

    def end(self):
        """End the child and all that it has started.

        What can't be ended counts as a call that has not come back.
        """
        if not self.over:
            self.over = True
            self._guard.end(self._child, self._share)


class Guard:
    """Makes calls on shares, and knows which of them don't answer.

    A service needs one of these. It may be used by many threads.
    """

    def __init__(self, idle_children=4):
        self._idle_children = idle_children
        self._mutex = threading.Lock()
        self._idle = []
        self._left_behind = collections.defaultdict(list)

    def call(self, share, function, *args, timeout):
        """Call ``function(*args)`` in a child and wait for what it returns.

        :param share: name of the share that is touched
        :param function: a function at the top of a module that imports
            nothing but the standard library
        :param timeout: seconds to wait
        :raises ShareHung: if it did not return in time, or if an earlier call
            on the share is still out
        :raises Exception: whatever the function raised
        """
        with self.session(share) as session:
            return session.call(share, function, *args, timeout=timeout)

    @contextlib.contextmanager
    def session(self, share):
        """Keep one child for several calls, and for what it holds meanwhile.

        A call that doesn't come back ends the session: there is no other
        child to go on in, for only that one has the locks.

        :returns: has ``call`` and ``over``
        :raises ShareHung: if an earlier call on the share is still out
        """
        self.refuse_if_hung(share)
        child = self._take()
        session = _Session(self, child)
        try:
            yield session
        finally:
            if not session.over:
                self._give_back(child)

    def resident(self, share):
        """Return a :class:`Resident` for what touches the share.

        :raises ShareHung: an earlier call on the share is still out
        """
        self.refuse_if_hung(share)
        return Resident(self, share)

    def run(self, share, *argv, timeout):
        """Run a command that touches the share.

        :returns: exit code, standard output, standard error (str)
        :raises ShareHung: as for :meth:`call`
        """
        return self.call(share, lustre_child.run, *argv, timeout=timeout)

    def hung(self, share):
        """Tell how many calls on a share have been given up and still wait."""
        with self._mutex:
            children = self._left_behind[share]
            children[:] = [c for c in children if not c.has_ended()]
            return len(children)

    def close(self):
        """End the idle children."""
        with self._mutex:
            idle, self._idle = self._idle, []
        for child in idle:
            self._retire(child)

    def refuse_if_hung(self, share):
        """Raise ShareHung if an earlier call on a share is still out."""
        count = self.hung(share)
        if count:
            raise ShareHung(share=share, reason=_(
                '%d earlier call(s) on it have not returned yet') % count)

    def end(self, child, share):
        """End a child that is not idle, and leave it behind if need be."""
        child.kill()
        last = time.monotonic() + _DEATH
        while not child.has_ended():
            if time.monotonic() > last:
                return self.leave_behind(share, child)
            time.sleep(_PAUSE)

    def _take(self):
        with self._mutex:
            while self._idle:
                child = self._idle.pop()
                if child.is_running():
                    return child
        return _Child()

    def _give_back(self, child):
        with self._mutex:
            if len(self._idle) < self._idle_children:
                self._idle.append(child)
                return
        self._retire(child)

    @staticmethod
    def _retire(child):
        child.kill()
        child.is_running()

    def leave_behind(self, share, child):
        """Kill a child; until it has ended its share counts as hung."""
        child.kill()
        with self._mutex:
            self._left_behind[share].append(child)
