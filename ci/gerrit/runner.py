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

"""One run: a command, its log, and how it ended."""

import itertools
import logging
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import time

LOG = logging.getLogger(__name__)

# By the exit status of the command; all others are errors, without a vote.
SUCCESS, FAILURE, ERROR = 'SUCCESS', 'FAILURE', 'ERROR'
_RESULTS = {0: SUCCESS, 1: FAILURE}
# How long a command that was told to end may take to clean up, in seconds.
_GRACE = 300


class Runner:
    """Runs the command for a patch set.

    :param options: the group ``ci`` of :mod:`ci.gerrit.options`
    """

    def __init__(self, options):
        self._options = options
        self._child = None
        self._stopped = False
        # Of two runs of one patch set in one second.
        self._numbers = itertools.count(1)

    def run(self, patch_set):
        """Run the command.

        :returns: its result, the directory of its log below ``log_dir``, and
            the seconds that it took
        """
        started = time.monotonic()
        place = '%d/%d/%s-%d' % (
            patch_set.change, patch_set.number,
            time.strftime('%Y%m%dT%H%M%SZ', time.gmtime()),
            next(self._numbers))
        directory = pathlib.Path(self._options.log_dir, place)
        directory.mkdir(parents=True)
        with open(directory / 'console.txt', 'wb') as log:
            result = self._run(self._command(patch_set, directory), log)
        return result, place, time.monotonic() - started

    def _command(self, patch_set, directory):
        """Return the arguments; there is no shell that would read them."""
        values = {'project': patch_set.project, 'branch': patch_set.branch,
                  'ref': patch_set.ref, 'revision': patch_set.revision,
                  'output': str(directory)}
        return [argument.format_map(values)
                for argument in shlex.split(self._options.command)]

    def _run(self, command, log):
        LOG.info('Running %s', shlex.join(command))
        log.write(('$ %s\n' % shlex.join(command)).encode())
        log.flush()
        try:
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True)
        except OSError as exc:
            log.write(('%s\n' % exc).encode())
            return ERROR
        if self._stopped:
            # It was told to end before there was a child to end.
            self._end_child()
        try:
            status = self._child.wait(self._options.time_limit)
        except subprocess.TimeoutExpired:
            self._end_child()
            log.write(b'Given up after %d s\n' % self._options.time_limit)
            return ERROR
        if self._stopped:
            return ERROR
        return _RESULTS.get(status, ERROR)

    def end(self):
        """End the command that runs, and let no other one run."""
        self._stopped = True
        self._end_child()

    def _end_child(self):
        child = self._child
        if child is None or child.poll() is not None:
            return
        os.killpg(child.pid, signal.SIGTERM)
        try:
            child.wait(_GRACE)
        except subprocess.TimeoutExpired:
            LOG.error('Process %d does not end', child.pid)
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()

    def forget(self):
        """Remove the logs of runs that began longer than keep_days ago."""
        oldest = time.time() - self._options.keep_days * 86400
        for directory in pathlib.Path(self._options.log_dir).glob('*/*/*'):
            if directory.stat().st_mtime < oldest:
                shutil.rmtree(directory, ignore_errors=True)
