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


"""Two services in one cluster, on the same volumes, while one is killed.

``CINDER_LUSTRE_ACTIVE_ROUNDS`` says how often each fault is made (1), and
``CINDER_LUSTRE_SEED`` which requests are sent (0).
"""

import os
import random
import shutil
import sys
import time
import unittest
import uuid

import redis
import testtools

from cinder.lustre import files
from cinder.tests.functional.lustre import base
from cinder.tests.functional.lustre.torture import cluster
from cinder.tests.functional.lustre.torture import tenants
from os_brick.remotefs import lustre as lustre_brick
from os_brick.remotefs import lustre_child

ROUNDS = int(os.environ.get('CINDER_LUSTRE_ACTIVE_ROUNDS') or 1)
SEED = os.environ.get('CINDER_LUSTRE_SEED') or '0'

TYPES = ({'lustre:format': 'raw', 'provisioning:type': 'thin'},
         {'lustre:format': 'raw', 'provisioning:type': 'thick'},
         {'lustre:format': 'qcow2', 'provisioning:type': 'thin'})

# What fills so much takes long enough to be caught in the middle.
LARGE = 300 * base.MIB


class ActiveActiveTest(testtools.TestCase):

    def setUp(self):
        if os.geteuid():
            raise unittest.SkipTest('mounting needs root')
        super().setUp()
        for command in cluster.COMMANDS:
            if not shutil.which(command):
                self.skipTest('%s is not installed (bindep test)' % command)
        root, path = base.FileSystems.get().roots[0]
        name = 'active-' + uuid.uuid4().hex
        self.directory = os.path.join(path, name)
        os.mkdir(self.directory)
        self.addCleanup(shutil.rmtree, self.directory, True)
        self.cluster = self.useFixture(cluster.Cluster(
            '%s/%s' % (root, name), base.FILE_SYSTEM_TYPES))
        self.api = self.cluster.api
        self.guest = tenants.Guest(self.api, self.directory)
        self.rng = random.Random(SEED)

    # Faults, made while tenants are at work

    def worker_killed(self):
        """The process that works is killed, and its parent starts another."""
        self.cluster.kill_worker('one')

    def killed_and_restarted(self):
        self.cluster.kill('two')
        self.cluster.start('two')

    def killed_and_replaced(self):
        """The other service takes over, and then it comes back."""
        self.cluster.kill('one')
        self.cluster.wait_down('one')
        self.take_over()
        time.sleep(5)
        self.cluster.start('one')

    def stopped(self):
        """One stands still, and its locks expire in the middle of work."""
        self.cluster.stop('two', 2 * cluster.LOCK_TIMEOUT)

    def locks_lost(self):
        """Redis forgets all locks."""
        self.cluster.restart_redis()

    FAULTS = (worker_killed, killed_and_restarted, stopped,
              killed_and_replaced, locks_lost)

    def take_over(self):
        """Have work of dead services taken up by living ones."""
        self.api.post('workers/cleanup', binary='cinder-volume')

    def test_conflicts(self):
        volumes = [tenants.Volume(self.make(specs)) for specs in TYPES]
        with tenants.Tenants(self.api, self.guest, volumes, SEED) as work:
            for _round in range(ROUNDS):
                for fault in self.FAULTS:
                    time.sleep(self.rng.uniform(3, 6))
                    fault(self)
                    for host in cluster.HOSTS:
                        self.cluster.wait_up(host)
        self.take_over()
        repaired = self.repair()
        self.report(work, repaired)
        self.assertEqual([], work.faults)
        for host in cluster.HOSTS:
            self.assertIn('acquired by', self.cluster.log(host))
        self.verify(volumes)

    def test_take_over(self):
        """What was killed in the middle of its work is another one's."""
        volume = self.make(TYPES[-1])
        self.fill(volume, 1)
        first = self.killed_within('convert', lambda: self.api.post(
            'volumes', volume={'source_volid': volume, 'size': None}))
        self.take_over()
        clone = next(path for path, _state in self.all('volumes')
                     if volume not in path)
        self.wait_for(clone, 'error')
        self.remove(clone)
        self.assert_filled(volume, 1)

        snapshot = self.api.post('snapshots', snapshot={
            'volume_id': volume})['snapshot']['id']
        self.wait_for('snapshots/' + snapshot, 'available')
        self.fill(volume, 2)
        self.cluster.start(first)
        self.cluster.wait_up(first)
        second = self.killed_within('commit', lambda: self.api.delete(
            'snapshots/' + snapshot))
        self.take_over()
        self.assert_filled(volume, 2)
        # Cinder leaves that one to the operator.
        self.reset('snapshots/' + snapshot, 'error')
        self.remove('snapshots/' + snapshot)
        self.assert_filled(volume, 2)
        self.assertEqual(['volume-' + volume], [
            name for name in self.listing() if not name.endswith('.info')])
        self.cluster.start(second)
        self.cluster.wait_up(second)
        self.assert_unlocked()

    def killed_within(self, subcommand, request):
        """Kill the service that works on a request, while it runs qemu-img.

        :returns: its host
        """
        request()
        host = self.cluster.catch(subcommand)
        self.cluster.kill(host)
        self.cluster.wait_down(host)
        return host

    def fill(self, volume_id, byte):
        attachment = self.guest.attach(volume_id)
        self.guest.fill(attachment, byte, LARGE)
        self.guest.detach(attachment)

    def assert_filled(self, volume_id, byte):
        attachment = self.guest.attach(volume_id)
        self.assertTrue(self.guest.is_filled(attachment, byte, LARGE))
        self.assertFalse(self.guest.check(attachment))
        self.guest.detach(attachment)

    def report(self, work, repaired):
        """Say what was done; standard output is the test runner's."""
        print('%d processes killed; %s; repaired: %s' % (
            self.cluster.kills, dict(sorted(work.counts.items())), repaired),
            file=sys.stderr)

    def make(self, specs):
        """Make a volume of a type of its own."""
        type_ = self.api.post('types', volume_type={
            'name': uuid.uuid4().hex, 'extra_specs': specs})['volume_type']
        volume = self.api.post('volumes', volume={
            'size': 1, 'volume_type': type_['id']})['volume']
        self.wait_for('volumes/' + volume['id'], 'available')
        return volume['id']

    def wait_for(self, path, *states):
        """Wait until a resource is in one of these states; None: gone."""
        until = time.monotonic() + 60
        while True:
            try:
                state = self.api.get(path)[path.split('/')[0].rstrip('s')][
                    'status']
            except cluster.Refused:
                state = None
            if state in states:
                return
            if time.monotonic() > until:
                self.fail('%s is %s\n%s' % (path, state,
                                            self.cluster.last_errors()))
            time.sleep(0.2)

    # Repair, as an operator does it

    def all(self, kind):
        """Return path and state of all volumes or snapshots."""
        return [('%s/%s' % (kind, found['id']), found['status'])
                for found in self.api.get(kind + '/detail')[kind]]

    def settled(self):
        """Wait until nothing changes any more; return all states."""
        before, since = None, time.monotonic()
        while time.monotonic() < since + cluster.LOCK_TIMEOUT + 4:
            now = self.all('volumes') + self.all('snapshots')
            if now != before:
                before, since = now, time.monotonic()
            time.sleep(0.5)
        return now

    def repair(self):
        """Bring all to a good state; return the states that were not."""
        found = sorted(state for _path, state in self.settled()
                       if state != 'available')
        for path, _state in self.all('volumes'):
            self.guest.let_go(path.partition('/')[2])
        # A snapshot can't be deleted while its volume is in such a state.
        for path, state in self.all('volumes'):
            if state == 'extending':
                self.repeat_extension(path)
            elif state != 'available':
                self.reset(path, 'available')
        for path, state in self.all('snapshots'):
            if state == 'restoring':
                # Its volume was going back to it: it is as good as before.
                self.reset(path, 'available')
            elif state != 'available':
                self.reset(path, 'error')
                self.api.delete(path)
                self.wait_for(path, None)
        return found

    def repeat_extension(self, path):
        """Its image may be larger than its record says."""
        self.reset(path, 'available')
        size = self.api.get(path)['volume']['size'] + 1
        self.api.action(path, **{'os-extend': {'new_size': size}})
        self.wait_for(path, 'available')

    def reset(self, path, state):
        self.api.action(path, **{'os-reset_status': {'status': state}})

    # What is left

    def verify(self, volumes):
        kept = [volume.id for volume in volumes]
        for path, _state in self.all('volumes'):
            if path.partition('/')[2] not in kept:
                self.remove(path)
        self.assert_accounted()
        for volume in volumes:
            self.assert_on(volume.id, volume.regions)
            for snapshot in volume.snapshots:
                self.assert_in(snapshot)
        self.assert_unlocked()
        for path, _state in self.all('snapshots'):
            self.remove(path)
        for volume in kept:
            self.remove('volumes/' + volume)
        self.assertEqual([], self.listing())

    def remove(self, path):
        self.api.delete(path)
        self.wait_for(path, None)

    def assert_on(self, volume_id, regions):
        attachment = self.guest.attach(volume_id)
        self.assertEqual([], self.guest.wrong(attachment, regions))
        self.assertFalse(self.guest.check(attachment))
        self.guest.detach(attachment)
        self.wait_for('volumes/' + volume_id, 'available')

    def assert_in(self, snapshot):
        copy = self.api.post('volumes', volume={
            'snapshot_id': snapshot.id, 'size': None})['volume']['id']
        self.wait_for('volumes/' + copy, 'available')
        self.assert_on(copy, snapshot.regions)
        self.remove('volumes/' + copy)

    def listing(self):
        return sorted({*os.listdir(self.directory)}
                      - {lustre_brick.LOCK_FILE})

    def assert_accounted(self):
        """Each file belongs to a volume that there is."""
        expected = {}
        for path, _state in self.all('volumes'):
            name = 'volume-' + path.partition('/')[2]
            expected[name] = {name}
        for found in self.api.get('snapshots/detail')['snapshots']:
            name = 'volume-' + found['volume_id']
            expected[name].add('%s.%s' % (name, found['id']))
        for name, images in expected.items():
            mine = {file for file in self.listing() if file.startswith(name)}
            passing = {name + suffix for suffix in ('.info', '.new',
                                                    '.info.new')}
            self.assertEqual(images, mine - passing)
        strangers = [file for file in self.listing()
                     if not any(files.belongs(file.removesuffix('.new')
                                              .removesuffix('.info'), name)
                                for name in expected)]
        self.assertEqual([], strangers)

    def assert_unlocked(self):
        """Nothing is locked in Redis, and nothing on the share."""
        until = time.monotonic() + 2 * cluster.LOCK_TIMEOUT
        with redis.Redis(port=self.cluster.redis_port) as client:
            # A lock is given up some time after the API says "done".
            while locks := client.keys('*_lock'):
                self.assertLess(time.monotonic(), until, locks)
                time.sleep(0.2)
        path = os.path.join(self.directory, lustre_brick.LOCK_FILE)
        self.assertTrue(lustre_child.lock(path, 0, 0o660, length=0))
        lustre_child.unlock()
