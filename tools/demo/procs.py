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

"""Processes: start them, find the ones an earlier run left, end them.

Only the standard library, because bootstrap.py uses it before there is an
environment to install anything into.
"""

import contextlib
import os
import pathlib
import signal
import subprocess
import time

# Every process of the demo carries this in its environment, so that a later
# run finds them whatever the earlier one was doing when it was killed.
MARK = 'CINDER_LUSTRE_DEMO'


class CommandFailed(Exception):
    """A command ended with an error, or did not end in time."""


def run(*command, limit=60, user=None, env=None, cwd=None, text=True,
        stdin=subprocess.DEVNULL):
    """Run a command to its end and return what it wrote to stdout."""
    command = [str(word) for word in command]
    try:
        done = subprocess.run(command, stdin=stdin, capture_output=True,
                              timeout=limit, env=env, cwd=cwd, text=text,
                              **as_user(user))
    except subprocess.TimeoutExpired as exc:
        raise CommandFailed('%s: not done after %d s'
                            % (' '.join(command), limit)) from exc
    except OSError as exc:
        raise CommandFailed('%s: %s' % (command[0], exc)) from exc
    if done.returncode:
        error = done.stderr if text else done.stderr.decode(errors='replace')
        raise CommandFailed('%s: exit %d: %s' % (
            ' '.join(command), done.returncode, error.strip()[-2000:]))
    return done.stdout


def as_user(user):
    """Popen's arguments to run as this user and no other groups of root's."""
    if user is None:
        return {}
    return {'user': user.pw_uid, 'group': user.pw_gid, 'extra_groups': []}


def marked_environment(home, **more):
    """A clean environment, with the mark by which leftovers are found."""
    env = {'PATH': '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:'
                   '/sbin:/bin',
           'LANG': 'C.UTF-8', MARK: str(home),
           # Services on native threads give their processes titles, which
           # setproctitle otherwise writes over the environment in /proc.
           'SPT_NOENV': 'yes'}
    # How this machine reaches a package index, if it needs to be told.
    for name, value in os.environ.items():
        if name.lower().endswith('_proxy') or name.startswith('PIP_'):
            env[name] = value
    env.update(more)
    return env


def alive(pid):
    """Whether a process runs; one that is dead but not reaped does not."""
    try:
        stat = pathlib.Path('/proc/%d/stat' % pid).read_text()
    except OSError:
        return False
    return stat.rpartition(')')[2].split()[0] not in 'ZX'


def _argv_and_environment(pid):
    try:
        argv = pathlib.Path('/proc/%d/cmdline' % pid).read_bytes()
        environ = pathlib.Path('/proc/%d/environ' % pid).read_bytes()
    except OSError:
        # Gone meanwhile, or a kernel thread.
        return [], []
    return argv.split(b'\0'), environ.split(b'\0')


def _sees_our_files(pid):
    """Not so in a container, where the same path is another directory."""
    try:
        return os.path.samefile('/proc/%d/root' % pid, '/')
    except OSError:
        return False


def leftovers(home):
    """The ids of the processes that belong to the demo in this directory.

    sudo cleans the environment, so the privileged helper is known by its
    command line instead: nothing but the demo runs it from there.
    """
    mark = os.fsencode('%s=%s' % (MARK, home))
    helper = os.fsencode('%s/venv-demo/bin/privsep-helper' % home)
    found = []
    for entry in os.listdir('/proc'):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        argv, environ = _argv_and_environment(int(entry))
        if ((mark in environ or helper in argv)
                and _sees_our_files(int(entry))):
            found.append(int(entry))
    return found


def end(pids, grace=10):
    """End processes: ask, wait a while, then insist. Returns who stays."""
    for number, wait in ((signal.SIGTERM, grace), (signal.SIGKILL, 5)):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        until = time.monotonic() + wait
        while time.monotonic() < until:
            reap()
            pids = [pid for pid in pids if alive(pid)]
            if not pids:
                return []
            time.sleep(0.1)
    return pids


def reap():
    """Collect our own children that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
