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

"""What the user sees: one line a step, and a summary."""

import contextlib
import os
import sys
import threading
import time

try:
    from rich import console as rich_console
    from rich import text as rich_text
except ImportError:
    # Stopping must work without the environment.
    rich_console = None

SIGNS = {'passed': ('ok', 'green'), 'failed': ('FAILED', 'bold red'),
         'skipped': ('skipped', 'yellow'), 'left out': ('-', 'dim')}


class Report:
    """Lines with a spinner on a terminal, plain lines elsewhere."""

    # Elsewhere, how often to say that something long is still going on.
    EVERY = 20

    def __init__(self):
        terminal = rich_console is not None and sys.stdout.isatty() \
            and os.environ.get('TERM') != 'dumb'
        self.console = rich_console.Console() if terminal else None

    def say(self, line='', style=None):
        if self.console:
            self.console.print(rich_text.Text(line, style=style or ''),
                               soft_wrap=True)
        else:
            print(line, flush=True)

    @contextlib.contextmanager
    def working(self, title):
        """Show that something is going on; gives a function that says more."""
        started = time.monotonic()
        if self.console:
            with self.console.status(title) as status, \
                    self._beside(self._tick, status, title, started) as say:
                yield say
        else:
            with self._beside(self._remind, title, started) as say:
                yield say

    @contextlib.contextmanager
    def _beside(self, show, *arguments):
        """Run a method in a thread; gives a function that sets its text."""
        done = threading.Event()
        more = ['']
        thread = threading.Thread(target=show, args=(*arguments, more, done),
                                  daemon=True)
        thread.start()
        try:
            yield lambda text: more.__setitem__(0, text)
        finally:
            done.set()
            thread.join()

    def _tick(self, status, title, started, more, done):
        while not done.wait(0.5):
            status.update('%s %s[%.0f s]' % (
                title, more[0] and '(%s) ' % more[0],
                time.monotonic() - started))

    def _remind(self, title, started, more, done):
        while not done.wait(self.EVERY):
            print('         ... %s%s, %.0f s so far' % (
                title, more[0] and ' (%s)' % more[0],
                time.monotonic() - started), flush=True)

    def step(self, number, outcome, title, checked, took):
        """The line of a step that has ended."""
        word, style = SIGNS[outcome]
        if not self.console:
            print('%-7s %3d  %s: %s (%.1f s)' % (word, number, title, checked,
                                                 took), flush=True)
            return
        line = rich_text.Text()
        line.append('%-7s ' % word, style)
        line.append('%3d  ' % number)
        line.append(title, 'bold')
        line.append(': ' + checked)
        line.append(' (%.1f s)' % took, 'dim')
        self.console.print(line, soft_wrap=True)

    def done(self, title, took):
        """The line of something that is not a step and has ended."""
        self.step_less(title, '(%.1f s)' % took)

    def step_less(self, title, rest):
        if not self.console:
            print('%s %s' % (title, rest), flush=True)
            return
        line = rich_text.Text(title + ' ')
        line.append(rest, 'dim')
        self.console.print(line, soft_wrap=True)

    def details(self, text):
        """Something long that belongs to the line above, indented."""
        for line in text.rstrip().splitlines():
            self.say('             ' + line)
