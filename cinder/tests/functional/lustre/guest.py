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

"""A guest in a process of its own: QEMU has an image open and writes to it.

Started as ``guest.py <format> <image> <log>``. Each block is written with a
byte of its own and read back; one that is has a line in the log, of place and
byte. The places spread over the disk as large as it is then. It ends when
there is a file named as the log with ``.stop``, and fails if QEMU does.
"""

import os
import subprocess
import sys

BLOCK = 1 << 20


class Qemu:
    """A QEMU that has an image open all the time."""

    _PROMPT = b'qemu-io> '

    def __init__(self, image_format, path):
        self._process = subprocess.Popen(
            ['qemu-io', '-t', 'none', '-f', image_format, path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT)
        self._answer()

    def do(self, command, place, byte):
        """Write or read a block; it must have this byte all over."""
        answer = self.ask('%s -P %d %d %d' % (command, byte, place, BLOCK))
        if not answer.startswith(('wrote %d/%d' % (BLOCK, BLOCK),
                                  'read %d/%d' % (BLOCK, BLOCK))):
            sys.exit('%s at %d: %s' % (command, place, answer))

    def ask(self, command):
        self._process.stdin.write(command.encode() + b'\n')
        self._process.stdin.flush()
        return self._answer()

    def _answer(self):
        """Read up to the prompt: QEMU takes one command at a time."""
        answer = b''
        while not answer.endswith(self._PROMPT):
            more = os.read(self._process.stdout.fileno(), 1 << 12)
            if not more:
                sys.exit('QEMU has ended: %s' % answer)
            answer += more
        return answer.removesuffix(self._PROMPT).decode()

    def quit(self):
        self._process.communicate(b'quit\n')


def main(image_format, path, log):
    qemu = Qemu(image_format, path)
    size, number = os.stat(path).st_size, 0
    with open(log, 'w') as written:
        while not os.path.exists(log + '.stop'):
            larger = os.stat(path).st_size
            if larger != size:
                # What block_resize does, by which Nova tells QEMU.
                size = larger
                qemu.ask('truncate %d' % size)
            number += 1
            # A prime, so that neighbours are written at different times.
            place, byte = number * 7919 * BLOCK % size, number % 255 + 1
            qemu.do('write', place, byte)
            qemu.do('read', place, byte)
            written.write('%d %d\n' % (place, byte))
            written.flush()
    qemu.quit()


if __name__ == '__main__':
    main(*sys.argv[1:])
