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

"""A compute host: libvirt and nova-compute, with mounts of their own.

Several run on one machine. Each has a mount namespace, in which libvirt's and
Nova's directories are the host's own, and what one of them mounts the others
don't see; a UTS namespace with its host's name, without which libvirt would
take a migration for one to the same host; and a PID namespace, which ends with
all that libvirt has started.
"""

import pathlib
import pwd
import uuid

from tools.demo import config
from tools.demo import procs

# libvirt's own, where each host has another directory.
LIBVIRT = {'/run/libvirt': 'run', '/var/lib/libvirt': 'lib',
           '/var/cache/libvirt': 'cache', '/var/log/libvirt': 'log',
           '/etc/libvirt': 'etc'}

# Processes whose parent has ended become the last command's children, and are
# gone at once. In a container nobody else may reap them, and libvirt waits.
ENTER = '''
set -e
hostname {name}
for pair in {pairs}; do
    mount --bind "${{pair%%:*}}" "${{pair#*:}}"
done
exec python3 -c "
import signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    signal.pause()
"
'''

# Debian's package of libvirt as a system service makes it. QEMU runs as this
# user, who comes to own the images that it opens.
HYPERVISOR_USER = 'libvirt-qemu'


def make_hypervisor_user():
    """Make the user that QEMU runs as, if there is none.

    libvirt does not start without one of this name, and a group.
    """
    try:
        pwd.getpwnam(HYPERVISOR_USER)
    except KeyError:
        procs.run('useradd', '--system', '--user-group', '--home-dir',
                  '/var/lib/libvirt', '--no-create-home', '--shell',
                  '/usr/sbin/nologin', HYPERVISOR_USER)


class ComputeHost:
    """One of the stack's compute hosts.

    :param number: from 1; it listens on 127.0.0.NUMBER
    """

    def __init__(self, stack, name, number):
        self.stack = stack
        self.name = name
        self.number = number
        self.directory = stack.layout.compute(name)
        self.libvirt = self.directory / 'libvirt'

    def start(self):
        self._make_directories()
        self._start_namespaces()
        self._spawn('libvirtd', [
            '/usr/sbin/libvirtd', '--listen', '--pid-file',
            '/run/libvirt/libvirtd.pid'])
        self.stack.wait(self._service('libvirtd'), self._libvirt_answers, 60)
        self.start_nova_compute()

    def start_nova_compute(self):
        self._spawn('nova', [
            self.stack.layout.venv / 'bin/nova-compute', '--config-file',
            self.stack.layout.compute_conf(self.name)])

    def run(self, *command, limit=60):
        """Run a command among what the host has mounted."""
        return procs.run(*self._enter(), *command, limit=limit)

    def virsh(self, *arguments):
        return self.run('virsh', '-q', '-c', 'qemu:///system', *arguments)

    def mounts(self):
        """The shares that are mounted there, one for each mount."""
        lines = self.run('cat', '/proc/mounts').splitlines()
        return [line.split()[0] for line in lines
                if ' %s/mnt/' % self.stack.layout.compute_state in line]

    def _service(self, what):
        return '%s-%s' % (self.name, what)

    def _make_directories(self):
        for name in LIBVIRT.values():
            (self.libvirt / name).mkdir(parents=True, exist_ok=True)
        for name in ('instances', 'locks', 'mnt'):
            (self.directory / name).mkdir(exist_ok=True)
        # Where the demo's key manager looks for them.
        (self.directory / 'keys').symlink_to(self.stack.layout.keys)
        config.write(self.libvirt / 'etc' / 'libvirtd.conf', '\n'.join([
            'listen_tls = 0', 'listen_tcp = 1',
            'listen_addr = "127.0.0.%d"' % self.number,
            'tcp_port = "%d"' % self.stack.ports.libvirt,
            'auth_tcp = "none"', 'auth_unix_ro = "none"',
            'auth_unix_rw = "none"',
            # The machine has one, but these are hosts of their own.
            'host_uuid = "%s"' % uuid.uuid4(), '']))
        config.write(self.libvirt / 'etc' / 'qemu.conf', '\n'.join([
            'security_driver = "none"',
            'cgroup_controllers = []', 'namespaces = []',
            # virtlogd would keep the consoles' logs from growing.
            'stdio_handler = "file"',
            # Hosts that share a machine share its ports.
            'migration_port_min = %d' % (49152 + 100 * self.number),
            'migration_port_max = %d' % (49251 + 100 * self.number), '']))

    def _start_namespaces(self):
        own = {path: self.libvirt / name for path, name in LIBVIRT.items()}
        own[self.stack.layout.compute_state] = self.directory
        pairs = ' '.join('%s:%s' % (source, path)
                         for path, source in own.items())
        for path in own:
            procs.run('mkdir', '-p', path)
        self.stack.spawn(self._service('host'), [
            'unshare', '--mount', '--uts', '--pid', '--fork', '--kill-child',
            '--mount-proc', '--propagation', 'private',
            'sh', '-c', ENTER.format(name=self.name, pairs=pairs)], None,
            self.stack.environment())
        self.stack.wait(self._service('host'), self._entered, 10)

    def _entered(self):
        try:
            name = pathlib.Path('/proc/%s/comm' % self._first()).read_text()
        except OSError:
            return False
        return name == 'python3\n'

    def _first(self):
        """The first process of the namespaces, by its ID outside."""
        pid = self.stack.children[self._service('host')].pid
        return pathlib.Path('/proc/%d/task/%d/children' % (
            pid, pid)).read_text().strip()

    def _enter(self):
        return ('nsenter', '--mount', '--uts', '--pid', '--target',
                self._first())

    def _spawn(self, what, command):
        self.stack.spawn(self._service(what), [*self._enter(), *command],
                         None, self.stack.environment())

    def _libvirt_answers(self):
        try:
            self.virsh('version')
        except procs.CommandFailed:
            return False
        return True
