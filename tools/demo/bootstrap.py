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

"""Make the demo's Python environment and its guest, then run the demo.

Runs with the system's Python and nothing but its standard library. Nothing
is installed again unless what is asked for has changed. The stack with Nova
begins in the same way (:func:`launch`).

Only one of them, and only one of each, is up at a time: the services' user,
what sudo allows it, and the names of the sandbox's file systems are the
machine's. A lock tells whether one is at work; the file that is locked says
which one, and goes on saying so while its services are there without it,
because they were to be kept or because it was killed.
"""

import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from tools.demo import procs

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
GUEST = HERE.parent / 'guest'
LOCK = '/run/cinder-lustre-stack.lock'
# What the driver's wheel is not made of. A change there installs nothing.
NOT_IN_WHEEL = {'build', 'certification', 'ci', 'devstack', 'dist', 'doc',
                'nova-lustre', 'releasenotes', 'sandbox', 'tools'}


class Failed(Exception):
    """What is told to the user before we end."""


class Progress:
    """One line that moves on a terminal, a line now and then elsewhere."""

    EVERY = 15

    def __init__(self, title):
        self.title = title
        self.started = time.monotonic()
        self.said = self.started
        self.terminal = sys.stdout.isatty()
        print(title, end='' if self.terminal else '\n', flush=True)

    def update(self, line):
        now = time.monotonic()
        if self.terminal:
            width = max(20, shutil.get_terminal_size().columns - 12)
            text = '%s: %s' % (self.title, line.strip())
            print('\r\033[K%3d s  %s' % (now - self.started, text[:width]),
                  end='', flush=True)
        elif now - self.said >= self.EVERY:
            self.said = now
            print('  %3d s: %.100s' % (now - self.started, line.strip()),
                  flush=True)

    def done(self):
        took = time.monotonic() - self.started
        start = '\r\033[K' + self.title if self.terminal else '  done'
        print('%s (%.0f s)' % (start, took), flush=True)


def follow(child, log, progress, limit):
    """Show the last line of a command's log until it ends."""
    last = ''
    position = 0
    until = time.monotonic() + limit
    while child.poll() is None:
        time.sleep(0.2)
        log.seek(position)
        last = (log.read().strip().splitlines() or [last])[-1]
        position = log.tell()
        progress.update(last)
        if time.monotonic() > until:
            raise Failed('%s: not done after %d s' % (progress.title, limit))


def run_with_progress(title, command, home, limit):
    """Run a long command; show that it moves, and on failure what it said."""
    progress = Progress(title)
    with tempfile.TemporaryFile('w+', errors='replace') as log:
        # Its output goes to a file, not to a pipe: what is read here is only
        # for show, and must not be able to hold the command up.
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True, env=procs.marked_environment(home))
        try:
            follow(child, log, progress, limit)
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        log.seek(0)
        output = log.read().splitlines()
    if child.returncode:
        print('\n'.join(output[-30:]), file=sys.stderr)
        raise Failed('%s: exit %d' % (title, child.returncode))
    progress.done()


def check_home(home):
    """Refuse a directory that the services could not live in."""
    # It is written into sudoers and into command lines.
    if not re.fullmatch(r'(/[A-Za-z0-9_.-]+)+', str(home)):
        raise Failed('CINDER_LUSTRE_HOME=%s: wanted an absolute path of '
                     'letters, digits, "_", "." and "-"' % home)
    home.mkdir(parents=True, exist_ok=True)
    for directory in [home, *home.parents]:
        if not directory.stat().st_mode & 0o001:
            raise Failed('CINDER_LUSTRE_HOME=%s: the service user cannot pass '
                         'through %s (mode %o)' % (
                             home, directory,
                             directory.stat().st_mode & 0o7777))


def take_lock(script, base, stop):
    """Be the only stack on this machine, until main.py ends.

    :param script: the name of our script
    :param base: what CINDER_LUSTRE_HOME is
    :param stop: end the run that has the lock, if it is one of ours
    """
    lock = os.open(LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    held = not try_lock(lock)
    holder, *owner = os.pread(lock, 4096, 0).decode().split() or [None]
    if owner and owner != [script, str(base)]:
        raise Failed(
            'services of tools/%s are up. They are in each other\'s way: end '
            'them with\n    CINDER_LUSTRE_HOME=%s tools/%s --stop' % (
                owner[0], owner[1], owner[0]))
    if held:
        if not stop or not owner:
            raise Failed('it is running (process %s); wait for it, or end it '
                         'with tools/%s --stop' % (holder, script))
        wait_for_holder(lock, int(holder))
    os.ftruncate(lock, 0)
    os.pwrite(lock, ('%d %s %s\n' % (os.getpid(), script, base)).encode(), 0)
    # Kept over the exec of main.py, which has the same process id.
    os.set_inheritable(lock, True)
    return lock


def try_lock(lock):
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_for_holder(lock, holder):
    """Ask the run that has the lock to stop, and wait until it has."""
    print('Stopping what runs as process %d' % holder, flush=True)
    os.kill(holder, signal.SIGTERM)
    for _ in range(600):
        if try_lock(lock):
            return
        time.sleep(0.1)
    raise Failed('process %d did not end' % holder)


def digest(paths, root):
    """One checksum over the names and the contents of these files."""
    total = hashlib.sha256(sys.version.encode())
    for path in sorted(paths):
        total.update(str(path.relative_to(root)).encode() + b'\0')
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def make_environment(home, lists=HERE):
    """The virtual environment with Cinder, Glance and the clients.

    :param lists: directory of requirements.txt and constraints.txt
    """
    return make_venv(home / 'venv-demo', lists / 'requirements.txt',
                     lists / 'constraints.txt', home,
                     'Cinder, Glance and the clients')


def make_venv(venv, requirements, constraints, home, what):
    """A virtual environment with what a file of requirements asks for.

    :param what: what that is, for who watches
    """
    wanted = digest([requirements, constraints], REPOSITORY)
    stamp = venv / 'requirements.stamp'
    if stamp.exists() and stamp.read_text() == wanted:
        return venv
    # Half an environment is not worth mending; pip's cache makes it cheap.
    shutil.rmtree(venv, ignore_errors=True)
    run_with_progress('Making a virtual environment in %s' % venv,
                      [sys.executable, '-m', 'venv', str(venv)], home, 120)
    run_with_progress(
        'Installing ' + what,
        [venv / 'bin/pip', 'install', '--disable-pip-version-check',
         '--progress-bar', 'off', '-r', requirements, '-c', constraints],
        home, 1800)
    stamp.write_text(wanted)
    return venv


def wheel_sources(tree):
    """The files a wheel is made of."""
    found = []
    for top in tree.iterdir():
        if top.name.startswith('.') or top.name in NOT_IN_WHEEL:
            continue
        inside = [top] if top.is_file() else top.rglob('*')
        found += [path for path in inside if path.is_file()
                  and '__pycache__' not in path.parts
                  and not any(part.endswith('.egg-info')
                              for part in path.parts)]
    return found


def install_driver(home, venv, tree=REPOSITORY):
    """Install the drivers from this tree, as a wheel, if it has changed."""
    sources = wheel_sources(tree)
    wanted = digest(sources, tree)
    stamp = venv / (tree.name + '.stamp')
    if stamp.exists() and stamp.read_text() == wanted:
        return
    stamp.unlink(missing_ok=True)
    # Built from a copy: building leaves files behind in the tree, and they
    # would be root's.
    with tempfile.TemporaryDirectory(dir=home) as copy:
        for path in sources:
            target = pathlib.Path(copy, path.relative_to(tree))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
        run_with_progress(
            'Installing the Lustre drivers from %s' % tree,
            # The copy has no history for pbr to tell a version from.
            ['env', 'PBR_VERSION=0.0.1.dev0', venv / 'bin/pip', 'install',
             '--disable-pip-version-check', '--no-deps', '--no-index',
             '--no-build-isolation', '--force-reinstall', copy], home, 300)
    # What the wheel asks for must be there already: a driver that changed
    # the versions of the service it is added to would show here.
    run_with_progress('Checking the environment',
                      [venv / 'bin/pip', 'check'], home, 60)
    stamp.write_text(wanted)


def make_guest(home):
    """The disk that a guest of the demo boots from."""
    disk = home / 'guest.raw'
    wanted = digest([GUEST / 'image.py', GUEST / 'init.sh'], GUEST)
    stamp = home / 'guest.stamp'
    if disk.exists() and stamp.exists() and stamp.read_text() == wanted:
        return
    run_with_progress('Making a guest that boots, from Debian packages',
                      [sys.executable, '-B', GUEST / 'image.py', disk], home,
                      600)
    stamp.write_text(wanted)


def launch(script, module, directory, prepare):
    """Make what is missing, and go on as another module.

    :param script: the name of our script
    :param directory: to live in, below CINDER_LUSTRE_HOME
    :param prepare: called with it; returns a virtual environment
    """
    try:
        _launch(script, module, directory, prepare)
    except Failed as exc:
        sys.exit('%s: %s' % (script, exc))
    except KeyboardInterrupt:
        sys.exit('%s: stopped' % script)


def _launch(script, module, directory, prepare):
    base = pathlib.Path(os.environ.get('CINDER_LUSTRE_HOME')
                        or '/opt/cinder-lustre')
    home = base / directory
    stop = '--stop' in sys.argv[1:]
    if sys.version_info < (3, 11):
        raise Failed('needs Python 3.11 or later')
    check_home(home)
    os.chdir(home)
    # So that what a long command holds is given up when we are told to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(script + ': stopped'))
    os.umask(0o022)
    lock = take_lock(script, base, stop)
    # An installer that outlived a killed run would still be writing there.
    procs.end(procs.leftovers(home))
    # Stopping needs nothing that would have to be installed first.
    python = sys.executable if stop else str(prepare(home) / 'bin/python')
    os.environ['CINDER_LUSTRE_HOME'] = str(home)
    os.execv(python, [python, '-B', '-m', module, '--lock-fd', str(lock),
                      *sys.argv[1:]])


def prepare(home):
    """Make the environment and the guest of the demo."""
    venv = make_environment(home)
    install_driver(home, venv)
    make_guest(home)
    return venv


if __name__ == '__main__':
    launch('demo.sh', 'tools.demo.main', '', prepare)
