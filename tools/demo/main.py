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

"""Run the demo: shares and services up, the steps, everything down again."""

import argparse
import contextlib
import os
import pathlib
import re
import shutil
import signal
import sys
import time

from tools.demo import config
from tools.demo import procs
from tools.demo import report
from tools.demo import share
from tools.demo import stack

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


class Stopped(Exception):
    """We were asked to end."""


class Logs:
    """What the services have written to their logs since we last looked."""

    # More than this is not read by anybody.
    LINES = 25
    # Which request and which module it was: the same on each line.
    START = re.compile(r'^(\S+ \S+) \d+ (\S+ \S+) ?(\[[^]]*\] )?')

    def __init__(self, directory):
        self.directory = directory
        self._seen = {}

    def look(self):
        for path in self.directory.glob('*.log'):
            self._seen[path] = path.stat().st_size

    def errors(self):
        """The names of logs with errors since then, and their last lines."""
        for path in sorted(self.directory.glob('*.log')):
            with open(path, errors='replace') as log:
                log.seek(self._seen.get(path, 0))
                lines = log.read().splitlines()
            lines = [self.START.sub(r'\2: ', line) for line in lines]
            # Each line once: one failure is often logged by several.
            errors = list(dict.fromkeys(
                line[:300] for line in lines
                if line.startswith('ERROR ') and not line.endswith('^^')))
            if errors:
                yield path, errors[-self.LINES:]


def parse(arguments):
    parser = argparse.ArgumentParser(prog='demo.sh')
    parser.add_argument('--keep', action='store_true')
    parser.add_argument('--stop', action='store_true')
    # Held open until we end; the lock on it is bootstrap.py's.
    parser.add_argument('--lock-fd', type=int)
    return parser.parse_args(arguments)


def main():
    layout = config.Layout(os.environ['CINDER_LUSTRE_HOME'])
    return deploy(layout, share.choose(layout), run, how_to_use)


def deploy(layout, shares, run, how_to_use):
    """Bring services up, run the steps, take all down; returns the exit code.

    :param run: called with the layout, the shares and a report; returns how
        the steps went
    :param how_to_use: called with the layout; returns what to tell of
        services that are kept
    """
    out = report.Report()
    started = time.monotonic()

    def conclude(outcomes, _why):
        if outcomes is None:
            return 1
        return summary(outcomes, time.monotonic() - started, layout.log, out)

    return serve(parse(sys.argv[1:]), layout, shares, out,
                 lambda: run(layout, shares, out), conclude, how_to_use)


def serve(arguments, layout, shares, out, run, conclude, how_to_use):
    """Do something with services that are taken down afterwards.

    :param arguments: with stop, keep and lock_fd
    :param run: called to bring services up and use them; returns anything
        but None
    :param conclude: called at the end with that, or with None and the reason
        why it did not come so far; returns the exit code
    """
    if arguments.lock_fd is not None:
        # Nothing that we start shall hold it after us.
        os.set_inheritable(arguments.lock_fd, False)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, stop)
    if arguments.stop:
        return take_down(layout, shares, arguments.lock_fd, out)
    if stack.remains(layout):
        out.say('Removing what an earlier run left.')
        if take_down(layout, shares, None, out):
            return 1
    shutil.rmtree(layout.log, ignore_errors=True)
    outcomes = why = None
    failed = False
    try:
        outcomes = run()
    except (Stopped, KeyboardInterrupt):
        why = 'stopped'
        out.say('Stopped; taking everything down.')
    except (stack.ServiceFailed, procs.CommandFailed) as exc:
        why = str(exc)
        out.say('FAILED: %s' % exc, 'bold red')
        if isinstance(exc, stack.ServiceFailed):
            show_log(layout.log / (exc.name + '.log'), out)
    finally:
        if outcomes is None or not arguments.keep:
            failed = take_down(layout, shares, arguments.lock_fd, out)
    if outcomes is not None and arguments.keep:
        out.say(how_to_use(layout))
    return conclude(outcomes, why) or failed


def stop(*_):
    raise Stopped


def run(layout, shares, out):
    """Bring everything up and run the steps; returns how they went."""
    # Not before: these need the environment, which --stop does without.
    from tools.demo import stage
    from tools.demo import steps

    out.say(shares.about)
    if os.environ.get(stack.THREADS):
        out.say("Cinder's services run with %s=%s." % (
            stack.THREADS, os.environ[stack.THREADS]))
    services = stack.Stack(layout, shares)
    with timed(out, 'Making the shares'):
        services.prepare()
        shares.create(services.user)
    with timed(out, 'Starting RabbitMQ, Glance and Cinder') as progress:
        services.start(progress)
    write_openrc(layout, services)
    with out.working('') as progress:
        demo = stage.Demo(services, shares, progress)
    return run_steps(demo, steps.STEPS, out, Logs(layout.log))


@contextlib.contextmanager
def timed(out, title):
    started = time.monotonic()
    with out.working(title) as progress:
        yield progress
    out.done(title, time.monotonic() - started)


def run_steps(demo, steps, out, logs):
    """Run all steps, those after a failure too."""
    outcomes = {'passed': [], 'failed': [], 'skipped': [], 'left out': []}
    hopeless = False
    for number, step in enumerate(steps, 1):
        if hopeless:
            outcomes['skipped'].append(number)
            continue
        started = time.monotonic()
        with out.working('%d of %d  %s' % (
                number, len(steps), step.title)) as progress:
            demo.api.on_wait = progress
            outcome, checked = run_step(demo, step)
        outcomes[outcome].append(number)
        out.step(number, outcome, step.title, checked,
                 time.monotonic() - started)
        if outcome == 'failed':
            show_errors(logs, out)
            hopeless = step.essential or demo.stack.dead()
        logs.look()
    return outcomes


def run_step(demo, step):
    from tools.demo import stage

    try:
        return 'passed', step.run(demo)
    except stage.NotHere as exc:
        return 'left out', str(exc)
    except stage.Missing as exc:
        return 'skipped', str(exc)
    except (Stopped, KeyboardInterrupt):
        raise
    except Exception as exc:
        # Whatever went wrong in a step is that step's failure.
        return 'failed', '%s: %s' % (type(exc).__name__, exc)


def show_errors(logs, out):
    for path, lines in logs.errors():
        out.say('             from %s:' % path)
        out.details('\n'.join(lines))


def summary(outcomes, took, logs, out):
    """The last lines; 0 if nothing failed."""
    passed, failed, skipped, left_out = (
        outcomes[word] for word in ('passed', 'failed', 'skipped',
                                    'left out'))
    out.say()
    if failed or skipped:
        out.say('Failed: step %s.%s' % (
            numbers(failed), skipped and ' Not tried for that reason: step '
            '%s.' % numbers(skipped) or ''), 'bold red')
    else:
        out.say('%d steps, all passed%s.' % (
            len(passed), left_out and '; not tried on a real Lustre: step %s'
            % numbers(left_out) or ''), 'bold green')
    out.say('It took %d s. The logs are in %s.' % (took, logs))
    out.say('%d passed, %d failed, %d skipped' % (
        len(passed), len(failed), len(skipped) + len(left_out)))
    return 1 if failed or skipped else 0


def numbers(found):
    """Numbers in order, in words: 3, 5-7."""
    ranges = []
    for number in found:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ', '.join('%d-%d' % (first, last) if last > first else str(first)
                     for first, last in ranges)


def show_log(path, out):
    with contextlib.suppress(OSError):
        lines = path.read_text(errors='replace').splitlines()[-40:]
        out.say('The end of %s:' % path)
        out.details('\n'.join(lines))


def take_down(layout, shares, lock, out):
    """Remove everything but the logs; 0 if nothing stayed.

    :param lock: the lock's file, which says that we are there, if it may stop
        saying so
    """
    # Half a removal would be worse than being late.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with timed(out, 'Taking everything down'):
        problems = stack.take_down(layout, shares)
    for problem in problems:
        out.say('FAILED: could not remove everything: %s' % problem,
                'bold red')
    if lock is not None and not problems:
        os.ftruncate(lock, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    return 1 if problems else 0


def write_openrc(layout, services):
    """What to source to use the cinder command."""
    from tools.demo import cloud

    config.write(layout.state / 'openrc', '\n'.join([
        'export PATH="%s:$PATH"' % (layout.venv / 'bin'),
        'export OS_AUTH_TYPE=noauth',
        'export OS_USER_ID=%s' % config.USER,
        'export OS_PROJECT_ID=%s' % config.PROJECT,
        'export OS_VOLUME_API_VERSION=%s' % cloud.MICROVERSION,
        'export CINDER_ENDPOINT=%sv3' % services.cinder_url,
        '']))


HOW_TO_USE = '''
It is left running. To play with it:

    . {state}/openrc
    {examples}

Configuration: {etc}; logs: {log}. To end it:

    CINDER_LUSTRE_HOME={home} {script} --stop
'''


def how_to_use(layout):
    return HOW_TO_USE.format(
        state=layout.state, etc=layout.etc, log=layout.log, home=layout.home,
        script=REPOSITORY / 'tools/demo.sh', examples='\n    '.join([
            'cinder get-pools',
            'cinder type-create thin-raw',
            'cinder type-key thin-raw set provisioning:type=thin '
            'lustre:format=raw',
            'cinder create 1 --name first --volume-type thin-raw',
            'cinder list',
            'ls -l %s/*' % layout.volume_mounts]))


if __name__ == '__main__':
    sys.exit(main())
