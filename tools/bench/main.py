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

"""Measure our drivers and Cinder's own for NFS, by turns, in one run."""

import argparse
import fcntl
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import time

from rich import console as rich_console

from tools.bench import deployment
from tools.bench import operations
from tools.bench import processes
from tools.bench import results
from tools.bench import service
from tools.demo import procs

# A paragraph a line of its own, wrapped as wide as the terminal is.
EXPLANATION = (
    "Seconds are those inside the driver's method, called in a process that "
    "is set up as cinder-volume and cinder-backup are, without API, RPC and "
    "scheduler: medians and quartiles. Volumes have 1 GiB and are extended "
    "to 2; copies and backups hold {data} MiB of random data. Large volumes, "
    "for backups, have 20 GiB, or 4 without compression, and a third of the "
    "data. raw and qcow2 "
    "are thin; thick is raw with all of its space, which ours allocates and "
    "the NFS driver writes zeros to.",
    "Each driver runs as the user {user}: NFS with sudo, cinder-rootwrap and "
    "the stock filters, set up as snapshots demand "
    "(nas_secure_file_operations and nas_secure_file_permissions = false); "
    "Lustre with its privileged daemon, which sudo starts. \"proc.\" is the "
    "median number of processes started meanwhile, threads not counted: by "
    "the service, by sudo and rootwrap, and by the privileged daemon; not "
    "those that were started earlier and are used again.",
    "Both use {share}. The NFS driver finds its directory mounted already: "
    "no NFS protocol is involved, and what is closed is not flushed to a "
    "server as NFS would do.",
)


def parse(arguments):
    names = sorted({name for kind in (
        operations.Life, operations.Copies, operations.Stats,
        operations.Backup) for name in kind.operations})
    parser = argparse.ArgumentParser(
        prog='tools/bench.sh', description=__doc__,
        epilog='With LUSTRE_SHARE set, directories on that share are used '
               'instead of a loop file system.')
    parser.add_argument('operations', nargs='*', metavar='OPERATION',
                        help='only these: ' + ', '.join(names))
    parser.add_argument('-n', '--repetitions', type=int, metavar='N',
                        help='how often each operation is measured (12; '
                             'copies half, backups a quarter as often)')
    parser.add_argument('--quick', action='store_true',
                        help='3 repetitions, 64 MiB of data, at most 1,000 '
                             'volumes, one compression')
    parser.add_argument('--json', type=os.path.abspath, metavar='FILE',
                        help='write every sample to a file')
    parser.add_argument('--profile', action='store_true',
                        help='profile the drivers too, which slows them '
                             'down; the profiles are kept beside the logs')
    parser.add_argument('--clean', action='store_true',
                        help='only remove what a killed run has left')
    options = parser.parse_args(arguments)
    unknown = set(options.operations) - set(names)
    if unknown:
        parser.error('no such operation: %s' % ', '.join(sorted(unknown)))
    if options.repetitions is not None and options.repetitions < 1:
        parser.error('--repetitions: 1 or more')
    options.operations = options.operations or names
    _set_amounts(options)
    return options


def _set_amounts(options):
    quick = options.quick
    options.repetitions = options.repetitions or (3 if quick else 12)
    options.mebibytes = 64 if quick else 300
    options.volumes = (10, 1000) if quick else (10, 1000, 10000)
    options.compressions = ('zstd',) if quick else ('none', 'zstd', 'zlib')


class Progress:
    """One line that moves on a terminal, a line a scenario elsewhere."""

    def __init__(self, console):
        self.console = console

    def say(self, text):
        self.console.print(text, highlight=False)

    def run(self, title, function):
        started = time.monotonic()
        with self.console.status(title):
            value = function()
        self.say('%s (%.0f s)' % (title, time.monotonic() - started))
        return value


def take_lock(home):
    lock = open(home / 'bench.lock', 'a')
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit('bench.sh: a benchmark is running in %s already' % home)
    return lock


def count_processes(progress):
    try:
        return processes.Tree()
    except processes.Unavailable as exc:
        progress.say('Processes are not counted here: %s' % exc)


def measure(deployed, options, progress):
    tree = count_processes(progress)
    found = results.Results()

    def record(driver, operation, *sample):
        if operation in options.operations:
            found.add(driver, operation, *sample)

    services = [service.Service(name, deployed, tree, options.profile)
                for name in deployment.DRIVERS]
    try:
        for one in services:
            progress.run('Starting the %s driver' % one.name, one.start)
        for scenario in operations.scenarios(deployed, options):
            progress.run(scenario.title, lambda: operations.run(
                scenario, services,
                max(options.repetitions // scenario.weight,
                    min(options.repetitions, 3)), record))
        if options.profile:
            for one in services:
                one.save_profiles()
    finally:
        for one in services:
            one.stop()
    return found


def report(found, deployed, options, progress):
    progress.console.print(found.table(), highlight=False)
    for paragraph in EXPLANATION:
        progress.say(paragraph.format(
            user=deployment.USER, share=deployed.share.about,
            data=options.mebibytes) + '\n')
    progress.say('Goals:')
    for met, goal, measured in found.goals():
        progress.console.print(
            '[bold green]met     [/]' if met else '[bold red]not met [/]',
            '%s: [bold]%s[/]' % (goal, measured), highlight=False)


def write_json(found, deployed, options):
    with open(options.json, 'w') as out:
        json.dump({
            'share': deployed.share.about,
            'data_mebibytes': options.mebibytes,
            'cpus': os.cpu_count(),
            'kernel': platform.release(),
            'qemu': subprocess.run(
                ['qemu-img', '--version'], capture_output=True,
                text=True).stdout.splitlines()[0],
            'operations': found.plain()}, out, indent=1)


def end(*_):
    # Once is enough: what follows is cleaning up.
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    sys.exit('bench.sh: stopped')


def clean(deployed, progress):
    problems = deployed.remove()
    for problem in problems:
        progress.say('[bold red]Not removed:[/] ' + problem)
    return not problems


def main():
    options = parse(sys.argv[1:])
    home = pathlib.Path(os.environ['CINDER_LUSTRE_HOME'])
    deployment.check_home(home)
    os.umask(0o022)
    lock = take_lock(home)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, end)
    progress = Progress(rich_console.Console(
        width=None if sys.stdout.isatty() else 120))
    deployed = deployment.Deployment(home, pathlib.Path(sys.prefix))
    started = time.monotonic()
    cleaned = clean(deployed, progress)
    if options.clean or not cleaned:
        return 0 if cleaned else 1
    try:
        progress.run('Making a user, a file system and configurations',
                     deployed.make)
        operations.make_data(deployed, options.mebibytes)
        found = measure(deployed, options, progress)
        report(found, deployed, options, progress)
        if options.json:
            write_json(found, deployed, options)
    except (service.RunnerFailed, procs.CommandFailed) as exc:
        progress.console.print('bench.sh: %s' % exc, markup=False,
                               highlight=False)
        return 1
    finally:
        clean(deployed, progress)
        lock.close()
    progress.say('\nAll took %d s; logs are in %s.' % (
        time.monotonic() - started, deployed.logs))
    return 0


if __name__ == '__main__':
    sys.exit(main())
