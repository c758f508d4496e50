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


"""Two cinder-volume services in one cluster, and all that they need.

The processes are real, those of the demo but for the locks: those are in
Redis. Each cinder-volume has a host name, mount points and lock files of its
own, as on a host of its own; what they share is what two hosts share.
"""

import contextlib
import os
import pathlib
import pwd
import secrets
import shutil
import signal
import sys
import tempfile
import time

import fixtures
import requests

from tools.demo import config
from tools.demo import procs
from tools.demo import share
from tools.demo import stack

# What has to be installed.
COMMANDS = ('mariadbd', 'rabbitmqctl', 'redis-server')

HOSTS = ('one', 'two')
NAME = 'active'

# Seconds that a lock outlives its owner. Short, so that tests don't wait long
# for those of a service that was killed.
LOCK_TIMEOUT = 6
# Seconds without a report after which a service is taken for dead.
DOWN_TIME = 8


class _Layout(config.Layout):
    """The demo's, with the environment that the tests run in."""

    def __init__(self, home):
        super().__init__(home)
        self.venv = pathlib.Path(sys.prefix)


class _Share(share.Shares):
    """One share, as the demo's configuration wants it."""

    backup_options = ()

    def __init__(self, name, types):
        self.volumes = [name]
        self.backup = name
        self.volume_options = ['lustre_file_system_types = %s' %
                               ','.join(types)]


class Cluster(fixtures.Fixture):
    """All services of one Cinder, with two cinder-volume.

    :param share_name: where the volumes are
    :param types: types of file systems that count as a share
    :ivar kills: how many processes were killed
    """

    def __init__(self, share_name, types):
        super().__init__()
        self._share = _Share(share_name, types)
        self.kills = 0

    def _setUp(self):
        home = tempfile.mkdtemp(prefix='lustre-cluster-', dir='/var/tmp')
        os.chmod(home, 0o755)
        self.layout = _Layout(home)
        self.addCleanup(self._take_down, home)
        self._stack = stack.Stack(self.layout, self._share)
        self._prepare()
        self._stack.start_servers({'cinder-manage': ['db', 'sync']})
        self._start_redis()
        self._start('cinder-scheduler', 'scheduler')
        for host in HOSTS:
            self.start(host)
        self._start('cinder-api', 'api')
        self._stack.wait('api', lambda: stack.answers(
            self._stack.cinder_url), 120)
        self.api = Api(self._stack.cinder_url, lambda: self.log('api'))
        for host in HOSTS:
            self.wait_up(host)

    def _prepare(self):
        root, rabbitmq, mysql = (pwd.getpwnam(name) for name in (
            'root', 'rabbitmq', 'mysql'))
        self._stack.user = root
        self._stack.ports = config.Ports()
        self.layout.make(root, rabbitmq, mysql)
        config.write_cinder(self.layout, self._stack.ports, self._share,
                            secrets.token_hex(16), root, rabbitmq, mysql)
        for name in ('api', 'scheduler', *HOSTS):
            config.write(self._config(name), self._own_config(name))

    def _config(self, name):
        return self.layout.etc / 'cinder' / (name + '.conf')

    def _own_config(self, name):
        """What differs from the demo's cinder.conf, and between hosts."""
        own = self.layout.state / name
        for directory in ('mnt', 'state', 'locks', 'conversion'):
            (own / directory).mkdir(parents=True)
        return '\n'.join([
            '[DEFAULT]',
            'host = %s' % name,
            'cluster = %s' % NAME,
            'state_path = %s' % (own / 'state'),
            'image_conversion_dir = %s' % (own / 'conversion'),
            'osapi_volume_listen = 127.0.0.1',
            'osapi_volume_listen_port = %d' % self._stack.ports.cinder,
            'osapi_volume_workers = 1',
            'report_interval = 2',
            # The scheduler counts what it has asked for, refused or not, as
            # taken until the next of these.
            'backend_stats_polling_interval = 3',
            'service_down_time = %d' % DOWN_TIME,
            'debug = true',
            # An answer that a killed service owes is not waited for.
            'rpc_response_timeout = 15',
            '[%s]' % config.BACKEND,
            'lustre_mount_point_base = %s' % (own / 'mnt'),
            '[coordination]',
            # Its locks end by themselves: what stands that stands etcd's.
            'backend_url = redis://127.0.0.1:%d?lock_timeout=%d&'
            'membership_timeout=%d' % (self._stack.ports.redis, LOCK_TIMEOUT,
                                       LOCK_TIMEOUT),
            '[oslo_concurrency]',
            'lock_path = %s' % (own / 'locks'),
            ''])

    def _start_redis(self):
        """A Redis that remembers nothing when it ends."""
        self._stack.spawn('redis', [
            'redis-server', '--bind', '127.0.0.1', '--port',
            self._stack.ports.redis, '--save', '', '--appendonly', 'no',
            # A title takes the place of the environment, by which the process
            # is found when all is taken down.
            '--set-proc-title', 'no'],
            self._stack.user, self._stack.environment())
        self._stack.wait('redis', lambda: stack.connects(
            self._stack.ports.redis), 30)

    def _start(self, program, name):
        self._stack.spawn(name, [
            self.layout.venv / 'bin' / program, '--config-file',
            self.layout.cinder_conf, '--config-file', self._config(name)],
            self._stack.user, self._stack.environment())

    def _take_down(self, home):
        procs.end(procs.leftovers(home), grace=0)
        share.unmount_below(self.layout.state)
        keep = os.environ.get('CINDER_LUSTRE_LOGS')
        if keep:
            shutil.copytree(self.layout.log, os.path.join(
                keep, os.path.basename(home)))
        procs.run('rm', '-rf', '--one-file-system', home)

    # The two services

    def start(self, host):
        """Start a host's cinder-volume."""
        self._start('cinder-volume', host)

    def kill(self, host):
        """End a host's cinder-volume, at once and for good."""
        child = self._stack.children[host]
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        self.kills += 1

    def kill_worker(self, host):
        """Kill the process that does the work; its parent starts another."""
        for pid in self.workers(host):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.kills += 1

    def workers(self, host):
        """The processes of a host's cinder-volume that do its work."""
        parent = self._stack.children[host].pid
        children = pathlib.Path('/proc/%d/task/%d/children' % (
            parent, parent)).read_text()
        # Of its session: not what a worker itself has started.
        return [int(pid) for pid in children.split()
                if os.getsid(int(pid)) == parent]

    def catch(self, subcommand):
        """Wait until a qemu-img runs, and stop it.

        :returns: the host whose service has started it
        """
        until = time.monotonic() + 60
        while time.monotonic() < until:
            for pid in self._pids():
                if self._argv(pid)[:2] == ['qemu-img', subcommand]:
                    os.kill(pid, signal.SIGSTOP)
                    return self._host_of(pid)
            time.sleep(0.002)
        raise AssertionError('no qemu-img %s in 60 s' % subcommand)

    def _pids(self):
        """All processes that our services have started."""
        found = [pid for host in HOSTS if self._is_running(host)
                 for pid in self.workers(host)]
        for pid in found:
            with contextlib.suppress(FileNotFoundError):
                for thread in pathlib.Path('/proc/%d/task' % pid).iterdir():
                    with contextlib.suppress(FileNotFoundError):
                        found += map(int, (thread / 'children').read_text()
                                     .split())
        return found

    def _is_running(self, host):
        return self._stack.children[host].poll() is None

    def _host_of(self, pid):
        while pid > 1:
            for host in HOSTS:
                if self._is_running(host) and pid in self.workers(host):
                    return host
            status = pathlib.Path('/proc/%d/stat' % pid).read_text()
            pid = int(status.rpartition(')')[2].split()[1])
        raise AssertionError('not of one of our services')

    @staticmethod
    def _argv(pid):
        with contextlib.suppress(OSError):
            return pathlib.Path('/proc/%d/cmdline' % pid).read_text().split(
                '\0')
        return []

    def stop(self, host, seconds):
        """Let a host's cinder-volume stand still."""
        pids = [self._stack.children[host].pid, *self.workers(host)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    @property
    def redis_port(self):
        return self._stack.ports.redis

    def restart_redis(self):
        """End Redis and start it again: all locks are lost."""
        child = self._stack.children['redis']
        child.kill()
        child.wait()
        self._start_redis()

    def wait_up(self, host):
        self._wait_state(host, 'up')

    def wait_down(self, host):
        self._wait_state(host, 'down')

    def _wait_state(self, host, state):
        until = time.monotonic() + 120
        while self.state(host) != state:
            if time.monotonic() > until:
                raise AssertionError('%s is not %s after 120 s:\n%s' % (
                    host, state, self.log(host)[-4000:]))
            time.sleep(0.2)

    def state(self, host):
        try:
            services = self.api.get('os-services?binary=cinder-volume')
        except requests.HTTPError:
            # It asks the scheduler too, which may not be ready yet.
            return 'unknown'
        return next((service['state'] for service in services['services']
                     if service['host'] == '%s@%s' % (host, config.BACKEND)),
                    'unknown')

    def log(self, name):
        return self._stack.log_of(name).read_text(errors='replace')

    def last_errors(self):
        """The last of what the services have said of what went wrong."""
        return '\n'.join(
            '%s: %s' % (name, line) for name in ('scheduler', *HOSTS)
            for line in [line for line in self.log(name).splitlines()
                         if ' ERROR ' in line or ' WARNING ' in line][-20:])


class Refused(Exception):
    """The API has refused a request: a status or a quota forbids it."""


class Api:
    """Requests to Cinder's API, each in one word.

    :param log: called for the API's log, which says what went wrong in it
    """

    def __init__(self, url, log):
        self._log = log
        self._url = '%sv3/%s/' % (url, config.PROJECT)
        self._headers = {
            'X-Auth-Token': '%s:%s' % (config.USER, config.PROJECT),
            'OpenStack-API-Version': 'volume 3.66'}

    def request(self, method, path, body=None):
        """Make a request.

        :raises Refused: it is one that can't be met now (400, 404, 409, 413)
        :raises HTTPError: the API has failed; its log is shown
        """
        answer = requests.request(method, self._url + path, json=body,
                                  headers=self._headers, timeout=120)
        if answer.status_code in (400, 404, 409, 413):
            raise Refused('%d %s' % (answer.status_code, answer.text))
        if not answer.ok:
            raise requests.HTTPError('%s %s: %d %s\n%s' % (
                method, path, answer.status_code, answer.text,
                self._log()[-4000:]), response=answer)
        return answer.json() if answer.content else None

    def get(self, path):
        return self.request('GET', path)

    def post(self, path, **body):
        return self.request('POST', path, body)

    def action(self, what, **arguments):
        return self.post(what + '/action', **arguments)

    def delete(self, path):
        return self.request('DELETE', path)
