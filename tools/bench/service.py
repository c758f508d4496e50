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

"""A runner (runner.py) as root sees it: started, asked, ended."""

import contextlib
import json
import os
import select
import subprocess
import time

from tools.bench import processes
from tools.demo import procs

_START_LIMIT = 120
# No request takes longer, on the slowest of disks.
_REQUEST_LIMIT = 900
_SYNC_LIMIT = 300


class RunnerFailed(Exception):
    """A request failed, or the runner has ended or does not answer."""


class Sample:
    """What one call of a driver cost."""

    def __init__(self, seconds, started):
        self.seconds = seconds
        # How many processes were started; None where that is not known.
        self.processes = started


class Service:
    """One driver in a process of its own.

    :param tree: a :class:`processes.Tree`, or None
    """

    def __init__(self, name, deployment, tree, profile=False):
        self.name = name
        self._deployment = deployment
        self._tree = tree
        self._profile = profile
        self._answers = b''
        self._process = None

    def start(self):
        config = str(self._deployment.config(self.name))
        python = str(self._deployment.venv / 'bin/python')
        manage = str(self._deployment.venv / 'bin/cinder-manage')
        procs.run(python, '-W', 'ignore', manage, '--config-file', config,
                  'db', 'sync', user=self._deployment.user, limit=300,
                  env=self._environment(), cwd='/')
        with open(self._log('.stderr'), 'wb') as log:
            self._process = subprocess.Popen(
                [python, '-W', 'ignore', str(self._deployment.runner),
                 '--config-file', config],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                start_new_session=True, cwd='/', env=self._environment(),
                **procs.as_user(self._deployment.user))
        os.set_blocking(self._process.stdout.fileno(), False)
        if self._tree:
            self._tree.add(self._process.pid, self.name)
        self._receive(_START_LIMIT)

    def _environment(self):
        return {'PATH': '%s/bin:/usr/sbin:/usr/bin:/sbin:/bin'
                        % self._deployment.venv,
                'LANG': 'C.UTF-8',
                'TMPDIR': str(self._deployment.state / 'tmp')}

    def _log(self, suffix):
        return self._deployment.logs / (self.name + suffix)

    def _last_words(self):
        lines = [line for suffix in ('.log', '.stderr')
                 for line in self._log(suffix).read_text(
                     errors='replace').splitlines()[-15:]]
        return '\n'.join(lines)

    def ask(self, request, **arguments):
        """Have a driver called.

        :returns: a :class:`Sample`, and what the request returns
        :raises RunnerFailed: with the traceback
        """
        self.settle()
        answer = self._answer(arguments, request=request,
                              profile=self._profile)
        began, ended = answer['began'], answer['ended']
        return Sample((ended - began) / 1e9,
                      self._count(began, ended)), answer['value']

    def save_profiles(self):
        """Write what was profiled beside the logs."""
        self._answer({}, request='save_profiles', prefix=str(self._log('')))

    def _answer(self, arguments, **request):
        line = json.dumps(dict(arguments, **request))
        self._process.stdin.write(line.encode() + b'\n')
        self._process.stdin.flush()
        answer = self._receive(_REQUEST_LIMIT)
        if 'error' in answer:
            raise RunnerFailed('%s, %s: %s' % (self.name, request['request'],
                                               answer['error']))
        return answer

    def settle(self):
        """Leave no earlier write to be paid for by what comes."""
        procs.run('sync', '-f', self._deployment.whole, limit=_SYNC_LIMIT)

    def _count(self, began, ended):
        if not self._tree:
            return None
        try:
            return self._tree.count(self.name, began, ended)
        except processes.Unavailable:
            self._tree = None

    def _receive(self, limit):
        until = time.monotonic() + limit
        while b'\n' not in self._answers:
            left = until - time.monotonic()
            if left <= 0:
                raise RunnerFailed('%s: no answer in %d s' % (self.name,
                                                              limit))
            ready = select.select([self._process.stdout], [], [], left)[0]
            if ready:
                data = self._process.stdout.read()
                if not data:
                    raise RunnerFailed('%s has ended:\n%s' % (
                        self.name, self._last_words()))
                self._answers += data
        line, self._answers = self._answers.split(b'\n', 1)
        return json.loads(line)

    def stop(self):
        if not self._process:
            return
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
