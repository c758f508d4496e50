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

"""A real cinder-volume while a share hangs."""

import concurrent.futures
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import threading
import time

import ddt
from testtools import content

from cinder.tests.functional.lustre import base
from cinder.tests.functional.lustre import test_shares
from cinder.tests.functional.lustre.torture import one_service
from os_brick.remotefs import lustre as lustre_brick

# Seconds. A heartbeat that is late by more than Cinder's service_down_time
# of 60 is what makes a service count as down.
HEARTBEAT, LATE = 1, 15
REPORT = 5
LONG = 60
# Requests on the hung share.
REQUESTS = 12
# Volumes that are made on the other share before that, and as many after.
SAMPLE = 8


class Service:
    """A cinder-volume in a process of its own, and its database."""

    def __init__(self, directory, eventlet, shares, mount_base):
        self.directory = directory
        self._log = open(os.path.join(directory, 'log'), 'w')
        self._configure(shares, mount_base)
        self._process = subprocess.Popen(
            [sys.executable, '-W', 'ignore', one_service.__file__,
             '--config-file', os.path.join(directory, 'conf')],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
            text=True, cwd=directory, env=dict(
                os.environ, OS_CINDER_DISABLE_EVENTLET_PATCHING=str(
                    not eventlet)))

    def _configure(self, shares, mount_base):
        conf = os.path.join(self.directory, 'conf')
        helper = os.path.join(os.path.dirname(sys.executable),
                              'privsep-helper')
        lines = [
            '[DEFAULT]', 'enabled_backends = lustre',
            'state_path = ' + self.directory, 'transport_url = fake://',
            'report_interval = %d' % HEARTBEAT,
            'backend_stats_polling_interval = %d' % REPORT,
            'periodic_interval = %d' % REPORT, 'periodic_fuzzy_delay = 0',
            '[database]',
            'connection = sqlite:///%s?timeout=60' % self._database,
            '[oslo_concurrency]', 'lock_path = ' + self.directory,
            '[cinder_sys_admin]',
            'helper_command = %s --config-file %s' % (helper, conf),
            '[lustre]',
            'volume_driver = cinder.volume.drivers.lustre.LustreDriver',
            'lustre_mount_point_base = ' + mount_base,
            'lustre_file_system_types = ' + ','.join(base.FILE_SYSTEM_TYPES),
            'lustre_operation_timeout = 5', 'lustre_mount_timeout = 5']
        lines += ['lustre_shares = ' + share for share in shares]
        with open(conf, 'w') as file:
            file.write('\n'.join(lines) + '\n')

    @property
    def _database(self):
        return os.path.join(self.directory, 'database')

    @property
    def pid(self):
        return self._process.pid

    def ask(self, *request):
        self._process.stdin.write(json.dumps(request) + '\n')
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            with open(self._log.name) as log:
                raise AssertionError(log.read()[-4000:])
        return json.loads(answer)

    def query(self, statement, *arguments):
        connection = sqlite3.connect('file:%s?mode=ro' % self._database,
                                     uri=True, timeout=30)
        try:
            return connection.execute(statement, arguments).fetchall()
        finally:
            connection.close()

    def heartbeats(self):
        return self.query('select report_count from services')[0][0]

    def status(self, volume):
        return self.query('select status from volumes where id = ?',
                          volume)[0][0]

    def threads(self):
        return len(os.listdir('/proc/%d/task' % self.pid))

    def end(self):
        self._process.kill()
        self._process.communicate()
        self._log.close()


class Heart(threading.Thread):
    """Watches the heartbeat."""

    def __init__(self, service):
        super().__init__(daemon=True)
        self._service = service
        self._ended = threading.Event()
        self.longest = 0

    def run(self):
        count, since = self._service.heartbeats(), time.monotonic()
        while not self._ended.wait(0.2):
            now, before = self._service.heartbeats(), count
            self.longest = max(self.longest, time.monotonic() - since)
            if now != before:
                count, since = now, time.monotonic()

    def stop(self):
        self._ended.set()
        self.join()
        return self.longest


@ddt.ddt
class ServiceTest(test_shares.HungTestCase):

    def serve(self, kind):
        """Start a service; return it and the names of its two pools."""
        service = Service(self.temp, kind == 'eventlet', self.shares,
                          self.mount_base)
        self.addCleanup(service.end)
        pools = [pool['pool_name'] for pool in
                 self.driver.get_volume_stats()['pools']]
        self.wait_for(lambda: service.ask('pools') == dict.fromkeys(pools,
                                                                    'up'))
        return service, *pools

    @ddt.data('eventlet', 'native threads')
    def test_hung(self, kind):
        service, hung, healthy = self.serve(kind)
        volumes = [service.ask('create', hung) for _n in range(REQUESTS)]
        self.wait_for_status(service, volumes, {'available'})
        quiet = self.durations(service, healthy, SAMPLE)
        threads = service.threads()
        heart = Heart(service)
        heart.start()
        with self.fault('hang'):
            started = time.monotonic()
            self.ask_to_delete(service, volumes)
            busy = self.durations(service, healthy, SAMPLE // 2)
            self.wait_for(lambda: service.ask('pools')[hung] == 'down')
            down = time.monotonic() - started
            self.wait_for_status(service, volumes, {'error_deleting'})
            failed = time.monotonic() - started
            processes = self.children_of(service.pid)
            self.ask_to_delete(service, volumes)
            busy += self.durations(service, healthy, SAMPLE // 2)
            self.wait_for_status(service, volumes, {'error_deleting'})
            self.assertEqual('up', service.ask('pools')[healthy])
            processes = max(processes, self.children_of(service.pid))
            grown = service.threads() - threads
        longest = heart.stop()
        self.assert_heals(service, hung, volumes)
        ratio = statistics.median(busy) / statistics.median(quiet)
        self.addDetail('measured', content.text_content(
            'longest time between heartbeats %.1f s, pool down after %.1f s, '
            'all of %d requests failed after %.1f s, %d processes, %d more '
            'threads, a life on the other share took %.2f s (median of %d), '
            'then %.2f s (median of %d), %.2f times as long' % (
                longest, down, REQUESTS, failed, processes, grown,
                statistics.median(quiet), len(quiet),
                statistics.median(busy), len(busy), ratio)))
        self.assertLess(longest, LATE)
        self.assertLessEqual(processes, REQUESTS + 5)
        self.assertLessEqual(grown, 64 + 10)
        self.assertLess(ratio, 3)

    @ddt.data('eventlet', 'native threads')
    def test_vanishes_and_returns(self, kind):
        """In the middle of what it was asked for."""
        service, lost, healthy = self.serve(kind)
        old = [service.ask('create', lost) for _n in range(REQUESTS)]
        self.wait_for_status(service, old, {'available'})
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            asked = thread.submit(self.ask_in_turns, service, lost, old)
            with self.fault('missing'):
                new = [*asked.result(), service.ask('create', lost)]
                self.assert_fails(service, lost, healthy, old, new)
        self.assert_heals(service, lost, old + new)

    @staticmethod
    def ask_in_turns(service, pool, old):
        """Ask for new volumes, and for old ones to be deleted."""
        new = []
        for volume in old:
            new.append(service.ask('create', pool))
            service.ask('delete', volume)
        return new

    def assert_fails(self, service, lost, healthy, old, new):
        """The pool of the share goes down alone, and all requests end."""
        self.durations(service, healthy, 2)
        self.wait_for(lambda: service.ask('pools')[lost] == 'down')
        self.wait_for_status(service, new, {'available', 'error'})
        self.wait_for_status(service, old, {'deleted', 'error_deleting'})
        self.assertIn('error', {service.status(volume) for volume in new})
        self.assertEqual('up', service.ask('pools')[healthy])
        # Nothing was made below the mount point but the file of locks.
        self.assertLessEqual({*os.listdir(self.mount_point())},
                             {lustre_brick.LOCK_FILE})

    def assert_heals(self, service, pool, volumes):
        """The pool comes back, and its volumes can be deleted."""
        self.wait_for(lambda: service.ask('pools')[pool] == 'up')
        left = [volume for volume in volumes
                if service.status(volume) != 'deleted']
        self.ask_to_delete(service, left)
        self.wait_for_status(service, volumes, {'deleted'})
        self.assertEqual([], self.listing())

    @staticmethod
    def ask_to_delete(service, volumes):
        for volume in volumes:
            service.ask('delete', volume)

    def durations(self, service, pool, count):
        """Create and delete volumes, and tell how long each took."""
        found = []
        for _volume in range(count):
            started = time.monotonic()
            volume = service.ask('create', pool)
            self.wait_for_status(service, [volume], {'available'})
            self.ask_to_delete(service, [volume])
            self.wait_for_status(service, [volume], {'deleted'})
            found.append(time.monotonic() - started)
        return found

    def wait_for_status(self, service, volumes, allowed):
        self.wait_for(lambda: {service.status(volume) for volume in volumes}
                      <= allowed)

    def wait_for(self, condition):
        deadline = time.monotonic() + LONG
        while not condition():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)
