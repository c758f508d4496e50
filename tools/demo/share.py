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

"""The shares: a stand-in made by the sandbox, or a real Lustre."""

import json
import os
import pathlib
import re
import secrets
import sys

from tools.demo import config
from tools.demo import procs

SANDBOX = pathlib.Path(__file__).resolve().parents[2] / 'sandbox' \
    / 'lustre-sandbox'
# An address that nothing answers on; the sandbox takes names only.
MGS = '10.0.2.15@tcp'
# What the demo makes, and therefore removes, on somebody's Lustre.
DIRECTORY = re.compile(r'cinder-lustre-demo-[0-9a-f]{8}')


class Shares:
    """Shares for volumes, and one for backups."""

    @property
    def backends(self):
        """Cinder's backends: {name: their shares for volumes}."""
        return {config.BACKEND: self.volumes}


class Sandbox(Shares):
    """Two file systems that look like Lustre to mount(8) and the drivers."""

    real = False
    about = ('Shares: the sandbox. Mounts, privileges and image files are '
             'real; what is mounted is a\n        stand-in, a loop xfs file '
             'system that mount(8) takes for Lustre. Set LUSTRE_SHARE to\n'
             '        use a real Lustre.')
    volumes = ['%s:/north/cinder' % MGS, '%s:/south/cinder -o flock' % MGS]
    backup = '%s:/north/backup' % MGS
    # What stands in for Lustre is xfs.
    volume_options = ['lustre_file_system_types = lustre,xfs']
    backup_options = ['lustre_backup_file_system_types = lustre,xfs']
    directories = {'north': ('/cinder', '/backup'), 'south': ('/cinder',)}

    def __init__(self, layout):
        self.layout = layout

    @property
    def _installed(self):
        """There while mount.lustre is on this machine because of us."""
        return self.layout.home / 'sandbox-installed'

    def _run(self, *arguments):
        env = procs.marked_environment(
            self.layout.home,
            LUSTRE_SANDBOX_STATE=str(self.layout.sandbox_state),
            # As in demo.sh.
            PYTHONDONTWRITEBYTECODE='1')
        return procs.run(SANDBOX, *arguments, env=env)

    def create(self, service):
        if not os.path.exists('/sbin/mount.lustre'):
            self._installed.touch()
        self._run('install')
        for name, directories in self.directories.items():
            # Sparse files, so that large costs no more than small.
            arguments = ['--mgs', MGS, '--osts', '2', '--ost-size', '12G',
                         '--owner', service.pw_name]
            for directory in directories:
                arguments += ['--dir', directory]
            self._run('create', name, *arguments)

    def destroy(self):
        if self.layout.sandbox_state.exists():
            self._run('destroy-all')
        if self._installed.exists():
            try:
                self._run('uninstall')
            except procs.CommandFailed:
                # Somebody else has begun to use it.
                return
            self._installed.unlink()


class RealShare(Shares):
    """Three directories of our own in a real share."""

    real = True
    volume_options = []
    backup_options = []

    def __init__(self, layout, share):
        self.layout = layout
        self.share = share.rstrip('/')
        self.directory = 'cinder-lustre-demo-' + secrets.token_hex(4)
        base = '%s/%s' % (self.share, self.directory)
        self.volumes = [base + '/a', base + '/b']
        self.backup = base + '/backup'
        self.about = ('Shares: a real Lustre, %s.\n        The demo keeps to '
                      'its own directory there, %s.' % (share,
                                                        self.directory))

    @property
    def _record(self):
        return self.layout.home / 'real-share.json'

    def create(self, service):
        """Make the directories; what is to be removed is recorded first."""
        self._record.write_text(json.dumps(
            {'share': self.share, 'directory': self.directory}))
        with_mounted(self.layout, self.share, self._make, service)

    def _make(self, mounted, service):
        for name in ('a', 'b', 'backup'):
            path = mounted / self.directory / name
            path.mkdir(parents=True)
            os.chown(path, service.pw_uid, service.pw_gid)

    def destroy(self):
        """Remove what this run, or a killed one, made in a real share."""
        try:
            record = json.loads(self._record.read_text())
        except (OSError, ValueError):
            return
        directory = record['directory']
        # It is about to be removed with everything in it.
        if not DIRECTORY.fullmatch(directory):
            raise procs.CommandFailed(
                '%s names %r: not ours, not removed' % (self._record,
                                                        directory))
        with_mounted(self.layout, record['share'], self._remove, directory)
        self._record.unlink()

    def _remove(self, mounted, directory):
        procs.run('rm', '-rf', '--one-file-system', mounted / directory,
                  limit=300)


def choose(layout, sandbox=Sandbox, real=RealShare):
    """The shares that the environment asks for."""
    share = os.environ.get('LUSTRE_SHARE')
    return real(layout, share) if share else sandbox(layout)


def with_mounted(layout, share, function, *arguments):
    """Call a function with the path where a share is mounted meanwhile."""
    path = layout.client_mounts / 'whole'
    path.mkdir(parents=True, exist_ok=True)
    mount(share, path)
    try:
        return function(path, *arguments)
    finally:
        unmount(path)


def mount(share, path, options=('-t', 'lustre', '-o', 'flock')):
    procs.run('mount', *options, share, path, limit=90)


def unmount(path):
    """Unmount, or at least take the mount out of sight."""
    try:
        procs.run('umount', path, limit=30)
    except procs.CommandFailed:
        procs.run('umount', '-l', path, limit=30)


def mounts_below(path):
    """Where something is mounted below a directory, deepest first."""
    found = []
    for line in pathlib.Path('/proc/self/mounts').read_text().splitlines():
        # Spaces and the like are written as \040; there are none below it.
        target = line.split()[1]
        if target.startswith('%s/' % path):
            found.append(target)
    return sorted(found, key=len, reverse=True)


def unmount_below(path):
    """Leave nothing mounted below a directory, whoever mounted it."""
    for target in mounts_below(path):
        try:
            unmount(target)
        except procs.CommandFailed as exc:
            print('demo.sh: %s' % exc, file=sys.stderr)
    return not mounts_below(path)
