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

"""The user, the shares and the configuration of both drivers.

Everything is below one directory, but for the user, a sudoers file, and what
the sandbox installs, or the directory of a real share; all of it is removed
at the end, and by the next run after one that was killed.
"""

import hashlib
import json
import os
import pathlib
import pwd
import re
import secrets
import shutil
import sys

from tools.demo import procs

TREE = pathlib.Path(__file__).resolve().parents[2]
SANDBOX = TREE / 'sandbox' / 'lustre-sandbox'
USER = 'cinder-bench'
# By this it is known to be ours, and may be removed.
USER_COMMENT = 'benchmark of cinder-lustre'
SUDOERS = pathlib.Path('/etc/sudoers.d/cinder-lustre-bench')
# What is made on somebody's Lustre, and removed again.
REAL_DIRECTORY = re.compile(r'cinder-lustre-bench-[0-9a-f]{8}')
NFS_SHARE = '127.0.0.1:/volumes'
NFS_BACKUP_SHARE = '127.0.0.1:/backups'

DRIVERS = ('lustre', 'nfs')
DIRECTORIES = ('lustre', 'lustre-backup', 'nfs', 'nfs-backup')


def mounts_below(path):
    """Where something is mounted below a directory, deepest first."""
    with open('/proc/self/mounts') as table:
        targets = [line.split()[1] for line in table]
    return sorted((t for t in targets if t.startswith('%s/' % path)),
                  key=len, reverse=True)


def write(path, *lines, mode=0o644):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(lines) + '\n')
    path.chmod(mode)


class Sandbox:
    """A loop file system that mount(8) takes for Lustre."""

    about = ('one loop file system (xfs) that the sandbox mounts as Lustre, a '
             'directory for each driver')
    # What the drivers are told about it.
    fs_types = 'lustre,xfs'
    # Bytes that it may take of the disk.
    size = 12 << 30

    def __init__(self, state, record):
        self._state = state / 'sandbox'
        self._record = record
        self.root = '10.0.2.15@tcp:/bench'

    def _run(self, *arguments):
        return procs.run(SANDBOX, *arguments, env=dict(
            os.environ, LUSTRE_SANDBOX_STATE=str(self._state)))

    def make(self):
        if not os.path.exists('/sbin/mount.lustre'):
            self._record.write_text('installed')
        self._run('install')
        self._run('create', 'bench', '--osts', '2', '--ost-size',
                  str(self.size // 2))

    def remove(self):
        if self._state.exists():
            self._run('destroy-all')
        if self._record.exists():
            try:
                self._run('uninstall')
            except procs.CommandFailed:
                # Somebody else has begun to use it.
                return
            self._record.unlink()


class RealShare:
    """A new directory of a real share."""

    fs_types = 'lustre'
    size = 0

    def __init__(self, state, record, share):
        self._mount_point = state / 'whole'
        self._record = record
        self._share = share.rstrip('/')
        self._directory = 'cinder-lustre-bench-' + secrets.token_hex(4)
        self.root = '%s/%s' % (self._share, self._directory)
        self.about = 'a real Lustre, %s, a directory for each driver' % share

    def make(self):
        # What is to be removed is recorded first.
        self._record.write_text(json.dumps([self._share, self._directory]))
        self._mounted(self._share, lambda whole: os.mkdir(
            whole / self._directory))

    def remove(self):
        if not self._record.exists():
            return
        share, directory = json.loads(self._record.read_text())
        if not REAL_DIRECTORY.fullmatch(directory):
            raise procs.CommandFailed('%s names %r: not ours, not removed' % (
                self._record, directory))
        self._mounted(share, lambda whole: procs.run(
            'rm', '-rf', '--one-file-system', whole / directory, limit=600))
        self._record.unlink()

    def _mounted(self, share, function):
        self._mount_point.mkdir(parents=True, exist_ok=True)
        procs.run('mount', '-t', 'lustre', '-o', 'flock', share,
                  self._mount_point, limit=200)
        try:
            function(self._mount_point)
        finally:
            procs.run('umount', '-l', self._mount_point)


class Deployment:
    """Both drivers, each as it is deployed.

    :param home: directory that the service's user can read
    :param venv: the environment with Cinder and our drivers
    """

    def __init__(self, home, venv):
        self.home = home
        self.venv = venv
        self.state = home / 'bench'
        self.lib = self.state / 'lib'
        self.etc = self.state / 'etc'
        self.logs = home / 'bench-logs'
        # The root of the file system, for our own use.
        self.whole = self.state / 'share'
        self.data = self.state / 'data'
        self.runner = self.lib / 'runner.py'
        share = os.environ.get('LUSTRE_SHARE')
        self.share = (
            RealShare(self.state, home / 'bench-real-share', share) if share
            else Sandbox(self.state, home / 'bench-sandbox-installed'))
        self.user = None

    def config(self, driver):
        return self.etc / driver / 'cinder.conf'

    # Set up

    def make(self):
        """Set everything up but the databases."""
        self.state.mkdir(parents=True)
        self._check_disk()
        self._make_user()
        for driver in DRIVERS:
            for name in ('', 'locks', 'conversion', 'nfs', 'nfs-backup'):
                self._make_directory(self.lib / driver / name)
        shutil.rmtree(self.logs, ignore_errors=True)
        self._make_directory(self.logs)
        self._make_directory(self.state / 'tmp')
        shutil.copy(pathlib.Path(__file__).with_name('runner.py'),
                    self.runner)
        self._make_share()
        self._write_config()

    def _check_disk(self):
        free = shutil.disk_usage(self.state).free
        if free < self.share.size:
            raise procs.CommandFailed(
                '%s has %d MiB free, the file system may take %d' % (
                    self.home, free >> 20, self.share.size >> 20))

    def _make_user(self):
        try:
            self.user = pwd.getpwnam(USER)
        except KeyError:
            procs.run('useradd', '--system', '--user-group',
                      '--no-create-home', '--home-dir', self.lib,
                      '--comment', USER_COMMENT,
                      '--shell', '/usr/sbin/nologin', USER)
            self.user = pwd.getpwnam(USER)

    def _make_directory(self, path, mode=0o755):
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
        os.chown(path, self.user.pw_uid, self.user.pw_gid)

    def _make_share(self):
        self.share.make()
        self.whole.mkdir()
        procs.run('mount', '-t', 'lustre', '-o', 'flock', self.share.root,
                  self.whole, limit=200)
        for name in DIRECTORIES:
            self._make_directory(self.whole / name, 0o770)
        # The NFS drivers mount nothing where something is mounted.
        for base, share, directory in (
                ('nfs', NFS_SHARE, 'nfs'),
                ('nfs-backup', NFS_BACKUP_SHARE, 'nfs-backup')):
            digest = hashlib.md5(share.encode(), usedforsecurity=False)
            target = self.lib / 'nfs' / base / digest.hexdigest()
            self._make_directory(target)
            procs.run('mount', '--bind', self.whole / directory, target)

    # The configuration

    def _write_config(self):
        for driver, lines in (('lustre', self._lustre()),
                              ('nfs', self._nfs())):
            write(self.config(driver), *self._common(driver), *lines)
        write(self.etc / 'nfs' / 'shares', NFS_SHARE)
        filters = self.etc / 'rootwrap.d'
        filters.mkdir()
        for path in (self.venv / 'etc/cinder/rootwrap.d').iterdir():
            shutil.copy(path, filters)
        write(self.etc / 'rootwrap.conf',
              '[DEFAULT]',
              'filters_path = %s' % filters,
              'exec_dirs = /sbin,/usr/sbin,/bin,/usr/bin')
        # sudo ignores a file that is not read-only.
        write(SUDOERS,
              '# For tools/bench.sh of cinder-lustre, which removes it again.',
              'Defaults:%s secure_path = "%s/bin:/usr/sbin:/usr/bin:/sbin:'
              '/bin"' % (USER, self.venv),
              '%s ALL = (root) NOPASSWD: %s %s *, %s --config-file %s/*' % (
                  USER, self.venv / 'bin/cinder-rootwrap',
                  self.etc / 'rootwrap.conf',
                  self.venv / 'bin/privsep-helper', self.etc),
              mode=0o440)

    def _common(self, driver):
        lib = self.lib / driver
        return (
            '[DEFAULT]',
            'state_path = %s' % lib,
            'image_conversion_dir = %s' % (lib / 'conversion'),
            'rootwrap_config = %s' % (self.etc / 'rootwrap.conf'),
            'log_file = %s' % (self.logs / (driver + '.log')),
            'use_stderr = false',
            'transport_url = fake://',
            '[database]',
            'connection = sqlite:///%s' % (lib / 'cinder.sqlite'),
            '[oslo_concurrency]',
            'lock_path = %s' % (lib / 'locks'),
            '[cinder_sys_admin]',
            'helper_command = sudo %s --config-file %s' % (
                self.venv / 'bin/privsep-helper', self.config(driver)),
        )

    def _lustre(self):
        root = self.share.root
        return (
            '[DEFAULT]',
            'enabled_backends = lustre',
            'backup_driver = cinder.backup.drivers.lustre.LustreBackupDriver',
            'lustre_backup_share = %s/lustre-backup' % root,
            'lustre_backup_file_system_types = %s' % self.share.fs_types,
            '[lustre]',
            'volume_driver = cinder.volume.drivers.lustre.LustreDriver',
            'lustre_shares = %s/lustre' % root,
            'lustre_file_system_types = %s' % self.share.fs_types,
        )

    def _nfs(self):
        """A backend for each kind, as a new deployment with snapshots."""
        lib = self.lib / 'nfs'
        lines = [
            '[DEFAULT]',
            'enabled_backends = raw,qcow2,thick',
            'backup_driver = cinder.backup.drivers.nfs.NFSBackupDriver',
            'backup_share = %s' % NFS_BACKUP_SHARE,
            'backup_mount_point_base = %s' % (lib / 'nfs-backup'),
        ]
        for kind, option in (('raw', 'nfs_sparsed_volumes = true'),
                             ('qcow2', 'nfs_qcow2_volumes = true'),
                             ('thick', 'nfs_sparsed_volumes = false')):
            lines += [
                '[%s]' % kind,
                'volume_driver = cinder.volume.drivers.nfs.NfsDriver',
                'nfs_shares_config = %s' % (self.etc / 'nfs' / 'shares'),
                'nfs_mount_point_base = %s' % (lib / 'nfs'),
                'nfs_snapshot_support = true',
                # With snapshots the driver refuses anything else, and then
                # can't write the records that it makes as root otherwise.
                'nas_secure_file_operations = false',
                'nas_secure_file_permissions = false',
                option,
            ]
        return lines

    # Take down

    def remove(self):
        """Remove everything, whole or half made; returns what stayed."""
        problems = []
        self._end_processes()
        for step in (self._unmount, self.share.remove, self._remove_user,
                     self._remove_state):
            try:
                step()
            except (procs.CommandFailed, OSError) as exc:
                problems.append(str(exc))
        return problems

    def _end_processes(self):
        """End what a killed run left: all that its own user runs."""
        user = self._our_user()
        found = []
        for entry in os.listdir('/proc') if user else ():
            if entry.isdigit():
                try:
                    if os.stat('/proc/' + entry).st_uid == user.pw_uid:
                        found.append(int(entry))
                except FileNotFoundError:
                    continue
        procs.end(found)

    def _unmount(self):
        for target in mounts_below(self.state):
            procs.run('umount', '-l', target, limit=60)

    @staticmethod
    def _our_user():
        try:
            user = pwd.getpwnam(USER)
        except KeyError:
            return None
        return user if user.pw_gecos == USER_COMMENT else None

    def _remove_user(self):
        SUDOERS.unlink(missing_ok=True)
        if self._our_user():
            # The logs stay, and must not become the next user's.
            if self.logs.exists():
                procs.run('chown', '-R', 'root:root', self.logs)
            procs.run('userdel', USER)

    def _remove_state(self):
        if mounts_below(self.state):
            raise procs.CommandFailed('something is mounted below %s'
                                      % self.state)
        if self.state.exists():
            shutil.rmtree(self.state)


def check_home(home):
    """Refuse a directory that the service's user could not pass through."""
    # It is written into sudoers and into command lines.
    if not re.fullmatch(r'(/[A-Za-z0-9_.-]+)+', str(home)):
        sys.exit('CINDER_LUSTRE_HOME=%s: wanted an absolute path of letters, '
                 'digits, "_", "." and "-"' % home)
    for directory in (home, *home.parents):
        if not directory.stat().st_mode & 0o001:
            sys.exit('CINDER_LUSTRE_HOME=%s: other users cannot pass through '
                     '%s' % (home, directory))
