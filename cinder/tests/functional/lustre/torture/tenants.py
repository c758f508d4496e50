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


"""Tenants who get in each other's way, and remember what they were promised.

Each thread sends requests for the same few volumes, at random. Whatever is
written goes to a place of its own on the volume and is written once, so that
it is known at any time which bytes must be there, however the requests of all
threads were ordered.
"""

import collections
import contextlib
import os
import random
import subprocess
import threading
import time

import requests

from cinder.tests.functional.lustre.torture import cluster

REGION = 64 << 10
_AT_ONCE = 4

# In GiB: what is copied in the end has to fit on the share beside the rest.
_LARGEST = 3

_CONNECTOR = {'host': 'compute', 'ip': '127.0.0.1', 'multipath': False,
              'os_type': 'linux', 'platform': 'x86_64',
              'initiator': 'iqn.2026-01.org.example:compute'}

# Seconds after which a request counts as lost: its service was killed.
_PATIENCE = 30


class Lost(Exception):
    """Nobody works on a request any more, or its outcome is not known."""


class Snapshot:
    """A snapshot, and the regions that must be in it."""

    def __init__(self, id_, regions):
        self.id = id_
        self.regions = regions


class Volume:
    """A volume, and what must be on it.

    :ivar regions: {number: byte} of regions that were acknowledged
    :ivar snapshots: those that are available, oldest first
    """

    def __init__(self, id_):
        self.id = id_
        self.regions = {}
        self.snapshots = []
        self.reverting = threading.Lock()
        self._asking = False
        self._next = 0
        self._mutex = threading.Lock()

    def places(self):
        """Name regions that were never written to, and a byte for each."""
        with self._mutex:
            numbers = range(self._next, self._next + _AT_ONCE)
            self._next += _AT_ONCE
        return {number: number % 255 + 1 for number in numbers}

    def acknowledge(self, regions):
        """Take regions for certain, which a guest has just written."""
        with self._mutex:
            # The guest may be gone by the time the API looks whether the
            # volume can be reverted.
            if not self._asking:
                self.regions.update(regions)

    def certain(self, before=None):
        """What is on the volume for certain, and was there before."""
        with self._mutex:
            return {number: byte for number, byte in self.regions.items()
                    if before is None or number in before}

    @contextlib.contextmanager
    def going_back(self, snapshot):
        """Ask for a revert; then only what is in a snapshot is certain.

        That it is may be so before we hear of it.
        """
        with self._mutex:
            before = self.regions
            self.regions = {number: byte for number, byte in before.items()
                            if number in snapshot.regions}
            self._asking = True
        try:
            yield
        except cluster.Refused:
            self.regions = before
            raise
        finally:
            self._asking = False


class Guest:
    """Opens volumes as an instance does.

    :param directory: where the share is mounted on this host
    """

    def __init__(self, api, directory):
        self._api = api
        self._directory = directory

    def attach(self, volume_id, complete=False):
        """Attach a volume.

        :param complete: say that the instance has it, as Nova does in the end
        :returns: the attachment
        """
        attachment = self._api.post('attachments', attachment={
            'volume_uuid': volume_id, 'connector': _CONNECTOR})['attachment']
        if complete:
            self._api.action('attachments/' + attachment['id'],
                             **{'os-complete': {}})
        return attachment

    def detach(self, attachment):
        self._api.delete('attachments/' + attachment['id'])

    def let_go(self, volume_id):
        """Remove all attachments of a volume, of whatever state."""
        for attachment in self._api.get(
                'attachments?volume_id=' + volume_id)['attachments']:
            self.detach(attachment)

    def write(self, attachment, regions):
        self._qemu_io(attachment, [
            'write -P %d %d %d' % (byte, number * REGION, REGION)
            for number, byte in regions.items()] + ['flush'])

    def fill(self, attachment, byte, length):
        """Write so many bytes from the start of a volume on."""
        self._qemu_io(attachment, ['write -P %d 0 %d' % (byte, length),
                                   'flush'])

    def is_filled(self, attachment, byte, length):
        return 'Pattern verification failed' not in self._qemu_io(
            attachment, ['read -P %d 0 %d' % (byte, length)])

    def wrong(self, attachment, regions):
        """Name the regions that don't read as they should."""
        numbers = list(regions)
        said = self._qemu_io(attachment, [
            'read -P %d %d %d' % (regions[number], number * REGION, REGION)
            for number in numbers])
        if 'Pattern verification failed' not in said:
            return []
        # One by one, to tell which.
        return [number for number in numbers
                if 'Pattern' in self._qemu_io(attachment, [
                    'read -P %d %d %d' % (regions[number], number * REGION,
                                          REGION)])]

    def check(self, attachment):
        """Let qemu-img check an image; returns what is wrong."""
        info = attachment['connection_info']
        if info['format'] == 'raw':
            return ''
        done = subprocess.run(['qemu-img', 'check', '-f', info['format'],
                               self._path(info)], capture_output=True,
                              text=True)
        return done.returncode and done.stdout + done.stderr

    def _qemu_io(self, attachment, commands):
        info = attachment['connection_info']
        arguments = [a for command in commands for a in ('-c', command)]
        done = subprocess.run(
            ['qemu-io', '-f', info['format'], *arguments, self._path(info)],
            capture_output=True, text=True)
        said = done.stdout + done.stderr
        if done.returncode and 'Pattern verification failed' not in said:
            raise AssertionError('the guest could not use %s: %s' % (
                info['name'], said[-2000:]))
        return said

    def _path(self, info):
        return os.path.join(self._directory, info['name'])


class Tenants:
    """Threads that send requests.

    :param volumes: the :class:`Volume` objects they share
    :ivar counts: how often what was done, refused and lost
    :ivar faults: what must not be
    """

    def __init__(self, api, guest, volumes, seed, threads=6):
        self._api = api
        self._guest = guest
        self._volumes = volumes
        self._stop = threading.Event()
        self.counts = collections.Counter()
        self.faults = []
        self._threads = [
            threading.Thread(target=self._work, daemon=True,
                             args=(random.Random('%s %d' % (seed, number)),))
            for number in range(threads)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _work(self, rng):
        requests_ = (self.write, self.write, self.write, self.snapshot,
                     self.snapshot, self.delete_snapshot, self.extend,
                     self.clone, self.volume_from_snapshot, self.revert)
        while not self._stop.is_set():
            request = rng.choice(requests_)
            try:
                request(rng.choice(self._volumes), rng)
                outcome = 'done'
            except cluster.Refused:
                outcome = 'refused'
                self._stop.wait(0.2)
            except (Lost, requests.RequestException):
                outcome = 'lost'
            except Exception as exc:
                outcome = 'fault'
                self.faults.append('%s: %s' % (request.__name__, exc))
            self.counts[outcome] += 1
            self.counts['%s %s' % (request.__name__, outcome)] += 1

    def _wait(self, path, *passing):
        """Wait until a resource has left these states.

        :returns: the resource, or None if it is gone
        """
        until = time.monotonic() + _PATIENCE
        kind = path.split('/')[0].rstrip('s')
        while time.monotonic() < until:
            try:
                found = self._api.get(path)[kind]
            except cluster.Refused:
                return None
            if found['status'] not in passing:
                return found
            time.sleep(0.3)
        raise Lost('%s is %s' % (path, found['status']))

    # The requests

    def write(self, volume, rng):
        try:
            attachment = self._guest.attach(volume.id, rng.random() < 0.3)
        except requests.RequestException:
            self._guest.let_go(volume.id)
            raise
        regions = volume.places()
        try:
            self._guest.write(attachment, regions)
            volume.acknowledge(regions)
        finally:
            self._guest.detach(attachment)

    def snapshot(self, volume, rng):
        before = volume.certain()
        snapshot = self._api.post('snapshots', snapshot={
            'volume_id': volume.id})['snapshot']
        path = 'snapshots/' + snapshot['id']
        found = self._wait(path, 'creating')
        if not found or found['status'] != 'available':
            self._api.delete(path)
            raise Lost(path)
        volume.snapshots.append(Snapshot(snapshot['id'],
                                         volume.certain(before)))

    def delete_snapshot(self, volume, rng):
        snapshot = self._some_snapshot(volume, rng)
        path = 'snapshots/' + snapshot.id
        self._api.delete(path)
        if snapshot in volume.snapshots:
            volume.snapshots.remove(snapshot)
        if self._wait(path, 'deleting'):
            raise Lost(path)

    def extend(self, volume, rng):
        path = 'volumes/' + volume.id
        size = self._api.get(path)['volume']['size'] + 1
        if size > _LARGEST:
            raise cluster.Refused('%s is large enough' % path)
        self._api.action(path, **{'os-extend': {'new_size': size}})
        found = self._wait(path, 'extending')
        if found and found['size'] < size:
            raise Lost(path)

    def revert(self, volume, rng):
        snapshot = self._some_snapshot(volume, rng, newest=True)
        path = 'volumes/' + volume.id
        # Of two at once one would be refused, and then we could not tell
        # what the other one leaves.
        with volume.reverting:
            with volume.going_back(snapshot):
                self._api.action(path, revert={'snapshot_id': snapshot.id})
            self._wait(path, 'reverting')

    def clone(self, volume, rng):
        self._copy(volume, volume.certain(), source_volid=volume.id)

    def volume_from_snapshot(self, volume, rng):
        snapshot = self._some_snapshot(volume, rng)
        self._copy(None, snapshot.regions, snapshot_id=snapshot.id)

    def _copy(self, source, regions, **arguments):
        """Make a volume, look what is on it, and delete it."""
        copy = self._api.post('volumes', volume=dict(
            arguments, size=None))['volume']
        path = 'volumes/' + copy['id']
        found = self._wait(path, 'creating')
        try:
            if not found or found['status'] != 'available':
                raise Lost(path)
            if source:
                regions = source.certain(regions)
            self._look(copy['id'], regions)
        finally:
            self._api.delete(path)
            self._wait(path, 'deleting')

    def _look(self, volume_id, regions):
        try:
            attachment = self._guest.attach(volume_id)
        except requests.RequestException:
            self._guest.let_go(volume_id)
            raise
        try:
            wrong = self._guest.wrong(attachment, regions)
            if wrong:
                raise AssertionError('copy %s lacks %s' % (volume_id, wrong))
        finally:
            self._guest.detach(attachment)

    @staticmethod
    def _some_snapshot(volume, rng, newest=False):
        snapshots = list(volume.snapshots)
        if not snapshots:
            raise cluster.Refused('it has no snapshot')
        return snapshots[-1] if newest else rng.choice(snapshots)
