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

"""What the tests of the guard let its children do.

As anything that runs there, this imports the standard library only.
"""

import os
import signal
import subprocess


def add(a, b):
    return a + b


def pid():
    return os.getpid()


def raise_os_error(number, path):
    raise OSError(number, os.strerror(number), path)


def raise_value_error(text):
    raise ValueError(text)


def die():
    os._exit(1)


def stop():
    """Stop all threads: as near as one can come to a wait without end."""
    os.kill(os.getpid(), signal.SIGSTOP)


def open_both(first, second):
    """Create the second file when the first one can be opened."""
    open(first).close()
    open(second, 'w').close()


def note_and_run(path, *argv):
    """Write one's own id and that of a command to a file, and run it."""
    with subprocess.Popen(argv) as process:
        with open(path + '.new', 'w') as f:
            f.write('%d %d' % (os.getpid(), process.pid))
        os.rename(path + '.new', path)


def start(*argv):
    """Start a command that goes on, and return its id."""
    return subprocess.Popen(argv).pid


def create(path, mode):
    os.close(os.open(path, os.O_CREAT | os.O_EXCL, mode))
