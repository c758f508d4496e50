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

"""Listen to Gerrit, run the certification, report.

One thread listens and lets patch sets wait; another runs them one by one,
because a run has the machine for itself.
"""

import argparse
import logging
import signal
import sys
import threading

from oslo_config import cfg

from ci.gerrit import events
from ci.gerrit import options
from ci.gerrit import reports
from ci.gerrit import runner
from ci.gerrit import ssh
from ci.gerrit import waiting

LOG = logging.getLogger(__name__)


class Pauses:
    """Between attempts: 1 s, 2, 4 and so on, up to the longest."""

    def __init__(self, longest, stopped):
        self._longest = longest
        self._stopped = stopped
        self.reset()

    def reset(self):
        self._next = 1

    def pause(self):
        """Wait.

        :returns: whether to go on after it
        """
        seconds, self._next = self._next, min(2 * self._next, self._longest)
        return not self._stopped.wait(min(seconds, self._longest))


class Listener:
    """Lets the patch sets wait that Gerrit tells of."""

    def __init__(self, conf, gerrit, queue, stopped):
        self._conf = conf
        self._gerrit = gerrit
        self._queue = queue
        self._stopped = stopped
        self._filter = events.Filter(conf.ci.projects, conf.ci.branches,
                                     conf.gerrit.username, conf.ci.name)
        self._pauses = Pauses(conf.gerrit.longest_pause, stopped)
        self._connected_before = False

    def listen(self):
        """Listen until it is told to stop, whatever happens to Gerrit."""
        while not self._stopped.is_set():
            try:
                for line in self._gerrit.stream():
                    if self._stopped.is_set():
                        return
                    self._take(line)
                LOG.info('The stream of events has ended')
            except (ssh.Unavailable, ssh.Refused) as exc:
                LOG.warning('%s', exc)
            except Exception:
                # Whatever it is, a CI that doesn't listen is of no use.
                LOG.exception('Something went wrong with an event')
            if not self._pauses.pause():
                return

    def _take(self, line):
        if line:
            self._offer(line, self._filter.of_event)
            return
        LOG.info('Connected to %s', self._conf.gerrit.host)
        # After the stream was opened, so that nothing is lost between.
        if self._connected_before and self._conf.ci.catch_up_hours:
            self._catch_up()
        self._connected_before = True
        self._pauses.reset()

    def _catch_up(self):
        ci = self._conf.ci
        try:
            lines = self._gerrit.open_changes(ci.projects, ci.branches,
                                              ci.catch_up_hours)
        except ssh.Refused as exc:
            LOG.error('Gerrit does not tell what was missed: %s', exc)
            return
        for line in lines:
            self._offer(line, lambda result: (
                self._filter.of_query(result), False))

    def _offer(self, line, wanted):
        try:
            patch_set, again = wanted(events.parse(line))
        except events.Malformed as exc:
            LOG.warning('Left out: %s', exc)
            return
        if patch_set:
            LOG.info('%s %s', patch_set, self._queue.put(patch_set, again))


class Worker:
    """Runs what waits, and reports."""

    def __init__(self, conf, gerrit, queue, stopped):
        self._conf = conf
        self._gerrit = gerrit
        self._queue = queue
        self._stopped = stopped
        self.runner = runner.Runner(conf.ci)

    def work(self):
        while True:
            patch_set = self._queue.take()
            if patch_set is None:
                return
            try:
                self._test(patch_set)
            except Exception:
                # The next one may fare better.
                LOG.exception('%s was not tested', patch_set)

    def _test(self, patch_set):
        self.runner.forget()
        try:
            result, place, seconds = self.runner.run(patch_set)
        finally:
            # Who asks again when the report is there is heard.
            self._queue.finished()
        if self._stopped.is_set():
            LOG.warning('%s was not finished, and is not reported', patch_set)
            return
        url = '%s/%s/' % (self._conf.ci.log_url.rstrip('/'), place)
        LOG.info('%s %s %s', patch_set, result, url)
        self._report(patch_set,
                     reports.comment(self._conf.ci, result, url, seconds),
                     reports.vote(self._conf.ci, result))

    def _report(self, patch_set, message, vote):
        longest = self._conf.gerrit.longest_pause
        pauses = Pauses(longest, self._stopped)
        # Each of them lasts as long as the longest, after the first few.
        for _attempt in range(10 + self._conf.gerrit.report_hours * 3600 //
                              longest):
            try:
                self._gerrit.review(patch_set, message, vote)
                return
            except ssh.Refused as exc:
                # It would be refused again: no right to vote, for example.
                LOG.error('The report on %s is refused: %s', patch_set, exc)
                return
            except ssh.Unavailable as exc:
                LOG.warning('The report on %s has to wait: %s', patch_set, exc)
            if not pauses.pause():
                break
        LOG.error('%s is not reported', patch_set)


class Service:
    """Listener and worker."""

    def __init__(self, conf):
        gerrit = ssh.Gerrit(conf.gerrit)
        self._stopped = threading.Event()
        self.queue = waiting.Waiting(conf.ci.waiting)
        self._listener = Listener(conf, gerrit, self.queue, self._stopped)
        self._worker = Worker(conf, gerrit, self.queue, self._stopped)

    def run(self):
        """Run until :meth:`stop` is called; ends the command that runs."""
        threads = [threading.Thread(target=work, daemon=True) for work in (
            self._listener.listen, self._worker.work)]
        for thread in threads:
            thread.start()
        self._stopped.wait()
        self.queue.close()
        self._worker.runner.end()
        # The listener may be waiting for an event, and has nothing to lose.
        threads[1].join()

    def stop(self, *_signal):
        self._stopped.set()


def listen(conf):
    """Listen until a signal comes."""
    service = Service(conf)
    for number in signal.SIGTERM, signal.SIGINT:
        signal.signal(number, service.stop)
    service.run()


def report(conf, args):
    """Report a run that something else has made, Jenkins for example."""
    patch_set = events.PatchSet.of(
        {'project': args.project, 'branch': args.branch,
         'number': args.change},
        {'number': args.number, 'ref': args.ref, 'revision': args.revision})
    ssh.Gerrit(conf.gerrit).review(
        patch_set,
        reports.comment(conf.ci, args.result, args.url, args.seconds),
        reports.vote(conf.ci, args.result))


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog='gerrit-ci', description='Listen to a Gerrit, certify the '
        'drivers with the changes it tells of, and report.')
    parser.add_argument('--config-file', required=True,
                        help='as ci/gerrit-ci.conf.sample')
    verbs = parser.add_subparsers(dest='verb', required=True)
    verbs.add_parser('listen', help='until a signal comes')
    reporter = verbs.add_parser('report', help='what became of one run')
    for name in 'project', 'branch', 'ref', 'revision', 'url':
        reporter.add_argument('--' + name, required=True)
    for name in 'change', 'number', 'seconds':
        reporter.add_argument('--' + name, required=True, type=int)
    reporter.add_argument('--result', required=True, choices=[
        runner.SUCCESS, runner.FAILURE, runner.ERROR])
    args = parser.parse_args(arguments)

    logging.basicConfig(level=logging.INFO,
                        format='%(asctime)s %(levelname)s %(message)s')
    logging.getLogger('paramiko').setLevel(logging.WARNING)
    try:
        conf = options.load(args.config_file)
        if args.verb == 'listen':
            listen(conf)
        else:
            report(conf, args)
    except (cfg.Error, events.Malformed, ssh.Refused,
            ssh.Unavailable) as exc:
        sys.exit('gerrit-ci: %s' % exc)


if __name__ == '__main__':
    main()
