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

"""The services: RabbitMQ, MariaDB, Glance's API and Cinder's, up and down."""

import os
import pwd
import socket
import subprocess
import time
import urllib.error
import urllib.request

from tools.demo import config
from tools.demo import procs
from tools.demo import share

SERVICE_USER = 'cinder'
RABBITMQ_SERVER = '/usr/lib/rabbitmq/bin/rabbitmq-server'
# Cinder's own: whether its services run on native threads.
THREADS = 'OS_CINDER_DISABLE_EVENTLET_PATCHING'


class ServiceFailed(Exception):
    """A service did not come up."""

    def __init__(self, name, reason):
        super().__init__('%s %s' % (name, reason))
        self.name = name


def service_user():
    """The user the services run as; made if there is none."""
    try:
        return pwd.getpwnam(SERVICE_USER)
    except KeyError:
        procs.run('useradd', '--system', '--user-group', '--home-dir',
                  '/nonexistent', '--no-create-home', '--shell',
                  '/usr/sbin/nologin', SERVICE_USER)
        return pwd.getpwnam(SERVICE_USER)


class Stack:
    """The services of one demo."""

    def __init__(self, layout, shares):
        self.layout = layout
        self.shares = shares
        self.children = {}
        self.ports = None
        self.user = None

    # Going up.

    def prepare(self):
        """Everything that is there before the first service starts."""
        self.user = service_user()
        others = pwd.getpwnam('rabbitmq'), pwd.getpwnam('mysql')
        self.layout.make(self.user, *others)
        self.write_configuration(*others)
        procs.run('visudo', '-cqf', self.layout.sudoers)

    def write_configuration(self, rabbitmq, mysql):
        self.ports = config.Ports()
        config.write_all(self.layout, self.ports, self.shares, self.user,
                         rabbitmq, mysql)

    def start(self, progress):
        """Start everything and wait until it answers."""
        progress('RabbitMQ and the databases')
        self.start_servers({'cinder-manage': ['db', 'sync'],
                            'glance-manage': ['db_sync']})
        for name in ('scheduler', 'volume', 'backup'):
            self._start_cinder(name)
        self._start_cinder_api()
        self._start_glance_api()
        progress('cinder-api')
        self.wait('cinder-api', lambda: answers(self.cinder_url), 60)
        progress('glance-api')
        self.wait('glance-api', lambda: answers(self.glance_url), 60)

    def start_servers(self, databases):
        """Start RabbitMQ and MariaDB, and make databases.

        :param databases: {the command that makes one: its arguments}
        """
        self._start_rabbitmq()
        self._start_mariadb()
        self._make_databases(databases)
        self.wait('rabbitmq', self._rabbitmq_answers, 60)

    @property
    def cinder_url(self):
        return 'http://127.0.0.1:%d/' % self.ports.cinder

    @property
    def glance_url(self):
        return 'http://127.0.0.1:%d/' % self.ports.glance

    def log_of(self, name):
        return self.layout.log / (name + '.log')

    def environment(self, **more):
        env = procs.marked_environment(self.layout.home, **more)
        env['PATH'] = '%s:%s' % (self.layout.venv / 'bin', env['PATH'])
        env['PYTHONPATH'] = str(self.layout.python)
        env.setdefault('HOME', str(self.layout.lib / 'cinder'))
        env[THREADS] = os.environ.get(THREADS, '')
        # So that what is written to a log is seen there at once.
        env['PYTHONUNBUFFERED'] = '1'
        return env

    def spawn(self, name, argv, user, env):
        """Start a process of its own session, which a signal reaches whole."""
        with open(self.log_of(name), 'a') as log:
            child = subprocess.Popen(
                [str(word) for word in argv], stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, env=env,
                cwd=self.layout.lib, start_new_session=True,
                **procs.as_user(user))
        self.children[name] = child
        config.write(self.layout.run / (name + '.pid'), '%d\n' % child.pid)

    def _start_rabbitmq(self):
        """A RabbitMQ of our own, beside one that the machine may have."""
        user = pwd.getpwnam('rabbitmq')
        lib = self.layout.lib / 'rabbitmq'
        env = self.environment(
            HOME=str(lib),
            ERL_EPMD_ADDRESS='127.0.0.1',
            ERL_EPMD_PORT=str(self.ports.epmd),
            RABBITMQ_NODENAME='cinder-lustre-demo@localhost',
            RABBITMQ_DIST_PORT=str(self.ports.erlang),
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=(
                '-kernel inet_dist_use_interface {127,0,0,1}'),
            RABBITMQ_CONF_ENV_FILE='/dev/null',
            RABBITMQ_CONFIG_FILE=str(self.layout.rabbitmq_conf),
            RABBITMQ_ADVANCED_CONFIG_FILE=str(lib / 'none.config'),
            RABBITMQ_ENABLED_PLUGINS_FILE=str(
                self.layout.rabbitmq_conf.with_name('enabled_plugins')),
            RABBITMQ_MNESIA_BASE=str(lib / 'mnesia'),
            RABBITMQ_GENERATED_CONFIG_DIR=str(lib / 'config'),
            RABBITMQ_LOG_BASE=str(self.layout.log / 'rabbitmq'),
            RABBITMQ_PID_FILE=str(lib / 'rabbitmq.pid'))
        # Erlang's port mapper would otherwise be started by the first who
        # needs it, and stay behind.
        self.spawn('epmd', ['epmd', '-address', '127.0.0.1', '-port',
                            self.ports.epmd], user, env)
        self.wait('epmd', lambda: connects(self.ports.epmd), 10)
        self.spawn('rabbitmq', [RABBITMQ_SERVER], user, env)

    def _rabbitmq_answers(self):
        """Whether it speaks AMQP yet, not only listens."""
        try:
            with socket.create_connection(
                    ('127.0.0.1', self.ports.rabbitmq), 2) as connection:
                connection.sendall(b'AMQP\x00\x00\x09\x01')
                return bool(connection.recv(1))
        except OSError:
            return False

    def _start_mariadb(self):
        """A MariaDB of our own.

        SQLite would be smaller, but turns one of two services away that
        write at the same moment ("database is locked").
        """
        user = pwd.getpwnam('mysql')
        data = self.layout.lib / 'mariadb'
        # One of its own: a server that starts removes all temporary tables
        # there, those of others as well.
        env = self.environment(HOME=str(data),
                               TMPDIR=str(self.layout.mariadb_tmp))
        procs.run('mariadb-install-db', '--no-defaults', '--skip-test-db',
                  '--datadir=%s' % data, user=user, env=env, limit=120)
        self.spawn('mariadb', [
            'mariadbd', '--no-defaults', '--datadir=%s' % data,
            '--socket=%s' % self.layout.mariadb_socket,
            '--pid-file=%s' % (data / 'mariadb.pid'), '--skip-networking',
            '--init-file=%s' % self.layout.mariadb_init,
            '--innodb-buffer-pool-size=64M',
            # Nothing here is meant to outlive a crash of the machine.
            '--innodb-flush-log-at-trx-commit=0'], user, env)
        self.wait('mariadb', self._mariadb_answers, 60)

    def _mariadb_answers(self):
        """Whether it greets those who connect."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(2)
                connection.connect(str(self.layout.mariadb_socket))
                return bool(connection.recv(1))
        except OSError:
            return False

    def _make_databases(self, databases):
        """All at once: it is their processor time that counts."""
        configs = {'cinder-manage': self.layout.cinder_conf,
                   'glance-manage': self.layout.glance_conf}
        for name, arguments in databases.items():
            self.spawn(name, [
                self.layout.venv / 'bin' / name, '--config-file',
                configs[name], *arguments], self.user, self.environment())
        for name in databases:
            try:
                code = self.children.pop(name).wait(120)
            except subprocess.TimeoutExpired:
                raise ServiceFailed(name, 'was not done after 120 s')
            if code:
                raise ServiceFailed(name, 'ended with %d' % code)

    def _start_cinder(self, name):
        self.spawn('cinder-' + name, [
            self.layout.venv / 'bin' / ('cinder-' + name), '--config-file',
            self.layout.cinder_conf], self.user, self.environment())

    def _start_cinder_api(self):
        self.spawn('cinder-api', [
            'uwsgi', '--plugin', 'python3', '--virtualenv', self.layout.venv,
            '--module', 'cinder.wsgi.api:application',
            '--pyargv', '--config-file=%s' % self.layout.cinder_conf,
            '--http-socket', '127.0.0.1:%d' % self.ports.cinder,
            '--master', '--processes', 2, '--lazy-apps', '--enable-threads',
            '--need-app', '--die-on-term', '--disable-logging',
            # keystoneauth's sessions see resets otherwise.
            '--add-header', 'Connection: close',
        ], self.user, self.environment())

    def _start_glance_api(self):
        env = self.environment(
            OS_GLANCE_CONFIG_DIR=str(self.layout.glance_conf.parent),
            # Images wait there until they are complete.
            TMPDIR=str(self.layout.tmp))
        self.spawn('glance-api', [
            self.layout.venv / 'bin/waitress-serve',
            '--listen', '127.0.0.1:%d' % self.ports.glance,
            '--max-request-body-size', 16 << 30,
            'glance.wsgi.api:application'], self.user, env)

    def wait(self, name, check, limit):
        """Poll until a service answers; it may die, or never answer."""
        until = time.monotonic() + limit
        while not check():
            child = self.children[name]
            if child.poll() is not None:
                raise ServiceFailed(name, 'ended with %d' % child.returncode)
            if time.monotonic() > until:
                raise ServiceFailed(name, 'did not answer in %d s' % limit)
            time.sleep(0.1)

    def dead(self):
        """The names of services that should be running and are not."""
        return [name for name, child in self.children.items()
                if child.poll() is not None]


# Going down. Nothing here needs to know what a run had got to.

def take_down(layout, shares):
    """Remove all that a run, this or an earlier one, may have left.

    The logs stay, until the next run. Returns what could not be removed.
    """
    problems = []
    remaining = procs.end(procs.leftovers(layout.home), grace=3)
    if remaining:
        problems.append('processes %s do not end' % remaining)
    layout.sudoers.unlink(missing_ok=True)
    if not share.unmount_below(layout.state):
        problems.append('still mounted: %s' % ' '.join(
            share.mounts_below(layout.state)))
    for what in (shares, share.RealShare(layout, '')):
        # The latter: an earlier run may have been on a real share.
        try:
            what.destroy()
        except procs.CommandFailed as exc:
            problems.append(str(exc))
    if not problems:
        remove_state(layout)
    return problems


def remains(layout):
    """What is there of a run, the logs apart."""
    try:
        return [path for path in layout.state.iterdir() if path != layout.log]
    except FileNotFoundError:
        return []


def remove_state(layout):
    """Remove everything but the logs; never cross into a file system."""
    for path in remains(layout):
        procs.run('rm', '-rf', '--one-file-system', path)


def answers(url):
    """Whether there is HTTP at this address."""
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError:
        # "300 Multiple Choices" is how both say which versions they have.
        return True
    except OSError:
        return False
    return True


def connects(port):
    try:
        socket.create_connection(('127.0.0.1', port), 1).close()
    except OSError:
        return False
    return True
