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

"""Talk with the guest that image.py makes, over its serial console.

The guest says ``guest: ready vda=1073741824 ...``, with the bytes of each of
its disks, when it has booted. Then it takes one command a line. It answers
each with one line, which repeats the command: ``guest: <command> = <answer>``,
or ``guest: <command> ! <reason>`` if it failed. What else is on the console
are messages of its kernel and its boot loader.

Disks are counted in slots of a MiB, and its own system is in the first
``image.SYSTEM_MIB`` of the one that it boots from. Every read and every write
goes past the guest's cache, and a write is done when the disk says that it
has flushed it.

``disks``
    The disks and their bytes, as they are now: ``vda=1073741824 vdb=...``.
``write DISK SLOT COUNT``
    Fill slots with noise. The answer is the SHA-256 of all of it.
``sum DISK SLOT COUNT``
    The SHA-256 of what is in these slots.
``keep DISK SLOT COUNT``
    Go on writing noise into these slots, one after the other and over again,
    until told to stop. If a write fails, there is a line ``guest: keep failed:
    <reason>`` at once.
``kept``
    How often that has written so far: ``writes=17``.
``stop``
    End that after the slot at hand, and compare every slot with what was
    written to it last: ``writes=17 bad=0``. Fails if a write has failed.
``poweroff``, ``reboot``
    At once. The guest does so as well when its power button is pressed, or
    when its console is gone.
"""

import os
import re
import select
import time


class GuestFailed(Exception):
    """The guest said that something failed, or nothing in time."""


class Console:
    """One end of a guest's serial console.

    :param reader: file descriptor to read from: of a pipe or a pty
    :param writer: file descriptor to write to, which may be the same
    """

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer
        # What the guest has said, and what of it was not looked at yet.
        self.transcript = ''
        self._unread = ''

    def ready(self, limit=120):
        """Wait until the guest has booted; returns its disks' bytes.

        :param limit: how long to wait, in seconds
        :raises GuestFailed: it has not, or it has ended
        """
        answer = self._wait_for(r'ready(?P<answer>.*)', limit)
        return _disks(answer)

    def disks(self):
        """The bytes of each of the guest's disks, as it sees them now."""
        return _disks(self.ask('disks'))

    def ask(self, *words, limit=120):
        """Give a command and return the answer.

        :param words: the command and its arguments
        :param limit: how long to wait for the answer, in seconds
        :raises GuestFailed: the command failed, or there was no answer
        """
        command = ' '.join(str(word) for word in words)
        os.write(self.writer, command.encode() + b'\n')
        return self._wait_for(re.escape(command)
                              + r' (?P<sign>[=!]) ?(?P<answer>.*)', limit)

    def _wait_for(self, pattern, limit):
        until = time.monotonic() + limit
        while True:
            found = re.fullmatch('.*guest: ' + pattern, self._line(until))
            if found and found.groupdict().get('sign') == '!':
                raise GuestFailed(found.group(0))
            if found:
                return found.group('answer')

    def _line(self, until):
        """The next line that the guest says."""
        while '\n' not in self._unread:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.reader], [], [], left)[0]:
                raise GuestFailed('the guest says nothing; last: %r'
                                  % self.transcript[-300:])
            try:
                text = os.read(self.reader, 4096).decode(errors='replace')
            except OSError as exc:
                # A pty that nobody has open on the other side.
                raise GuestFailed('console: %s' % exc) from exc
            if not text:
                raise GuestFailed('the guest has ended; last: %r'
                                  % self.transcript[-300:])
            self.transcript += text
            self._unread += text
        line, _, self._unread = self._unread.partition('\n')
        return line.rstrip('\r')


def _disks(text):
    return {name: int(size) for name, size in
            (word.split('=') for word in text.split())}
