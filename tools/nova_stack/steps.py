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

"""What is done with servers and volumes, in the order in which it is done.

Each step runs with two servers: one on a host that runs Nova as it is, one on
a host with our driver. A step returns a line that says what was checked.
"""

import contextlib
import os
import time

from tools.demo import content
from tools.demo import host
from tools.demo import stage
from tools.demo.steps import encryption
from tools.guest import image
from tools.nova_stack import cloud

STEPS = []
step = stage.adder(STEPS)

# The compute hosts, and what they run.
HOSTS = {'stock': 'Nova as it is', 'lustre': 'our driver'}

MIB = stage.MIB
GIB = stage.GIB
# The type of the connection that Cinder gives to each compute host.
PROTOCOLS = {'stock': 'nfs', 'lustre': 'lustre'}
# Where guests write, in MiB: behind their system, and up to the end.
PLACES = (image.SYSTEM_MIB, 4), (1020, 4)


def on_each_host(title, *arguments, **more):
    """A decorator that makes a function a step for each compute host.

    :param arguments: for the function, beside the name of the host
    """
    def add(function):
        for name, what in HOSTS.items():
            step('%s (%s)' % (title, what), name, *arguments, **more)(
                function)
        return function
    return add


class Server:
    """A server, and what should be on its disks."""

    def __init__(self, run, name, api, volume):
        self.run = run
        self.name = name
        self.api = api
        self.volume = volume
        # Of its own disk, by place.
        self.sums = {}

    def console(self):
        return self.run.api.console(self.api)

    def host(self):
        return self.run.api.host_of(self.api)

    def disks(self):
        """What libvirt has opened: {serial: (path, format)}."""
        return self.run.api.disks_of(self.api)


class Run:
    """What the steps share."""

    def __init__(self, stack, shares, on_wait):
        self.stack = stack
        self.shares = shares
        self.api = cloud.Cloud(stack, on_wait)
        self.api.wait_for_computes()
        self.outside = host.Host(stack.layout, stack.user)
        self.servers = {}
        self.secret = None

    def need_server(self, name):
        if name not in self.servers:
            raise stage.Missing('there is no server on %s' % name)
        return self.servers[name]

    def make_type(self, name, **specs):
        """Make a volume type of thin volumes, with these extra specs."""
        self.api.cinder.volume_types.create(name).set_keys({
            'provisioning:type': 'thin', **{
                key.replace('lustre_', 'lustre:'): value
                for key, value in specs.items()}})

    def outside_checksum(self, volume):
        """The checksum of the file of a volume that no server has."""
        with self.outside.attached(self.api, volume) as disk:
            return content.file_checksum(disk.path)

    def volume(self, name, type_name, size=1, **more):
        return self.api.create_volume(size, name=name, volume_type=type_name,
                                      **more)

    def expect_outside(self, volume, sums):
        """Compare a volume that no server has with what guests wrote."""
        with self.outside.attached(self.api, volume) as disk:
            for (slot, count), wanted in sums.items():
                stage.expect(wanted, disk.sha256(slot * MIB, count * MIB),
                             '%s, %d MiB at MiB %d' % (volume.name, count,
                                                       slot))


def write(console, disk, places=PLACES):
    """Let a guest write to these places; returns {place: checksum}."""
    return {place: console.ask('write', disk, *place) for place in places}


def expect_inside(console, disk, sums):
    for place, wanted in sums.items():
        stage.expect(wanted, console.ask('sum', disk, *place),
                     'what the guest reads of %s at MiB %d' % (disk,
                                                               place[0]))


# What a guest goes on writing to; the other places are beyond.
KEPT = (0, 16)


def keep(console):
    """Let a guest go on writing to vdb."""
    console.ask('keep', 'vdb', *KEPT)


def expect_kept(console):
    """Let a guest end what it went on writing, and compare that."""
    answer = console.ask('stop')
    if not answer.endswith(' bad=0'):
        raise cloud.Unexpected('the guest lost writes: %s' % answer)


def wait_for_disks(run, console, wanted):
    """Wait until the guest sees these disks, of so many bytes."""
    run.api.wait('guest to see %s' % ' '.join(sorted(wanted)),
                 lambda: console.disks() == wanted, 60)


@contextlib.contextmanager
def attached(run, server, name, type_name):
    """Attach a new volume to a server; its guest sees vdb, and writes to it.

    Gives the volume, and the checksums by place, to which more may be added.
    They are compared at the end, when the volume has been detached.
    """
    volume = run.volume(name, type_name)
    run.api.attach_to(server.api, volume)
    with server.console() as console:
        wait_for_disks(run, console, {'vda': GIB, 'vdb': GIB})
        sums = write(console, 'vdb')
    yield volume, sums
    run.api.detach_from(server.api, volume)
    run.expect_outside(volume, sums)
    run.api.delete_volumes([volume])


@step('Volume types, a flavor, and an image that boots', essential=True)
def prepare(run):
    for name, (provisioning, image_format) in stage.TYPES.items():
        run.api.cinder.volume_types.create(name).set_keys({
            'provisioning:type': provisioning, 'lustre:format': image_format})
    run.flavor = run.api.nova.flavors.create('guest', 192, 1, 1)
    run.image = run.api.create_image('guest', run.stack.layout.guest, 'raw')
    return 'the guest is Debian\'s kernel and busybox'


@on_each_host('Boot from a qcow2 volume', essential=True)
def boot(run, name):
    volume = run.volume('root-' + name, 'thin-qcow2', imageRef=run.image)
    server = Server(run, name, run.api.boot(name, volume, name, run.flavor),
                    volume)
    stage.expect(PROTOCOLS[name], run.api.protocol(volume), 'type')
    path, image_format = server.disks()[volume.id]
    stage.expect('qcow2', image_format, "the format in libvirt's XML")
    with run.api.booted(server.api) as console:
        stage.expect({'vda': GIB}, console.disks(), 'disks')
        server.sums = write(console, 'vda')
        expect_inside(console, 'vda', server.sums)
    run.servers[name] = server
    return 'type %s; the guest sees 1 GiB, writes, and reads the same' % (
        PROTOCOLS[name])


@on_each_host('Attach a raw volume, write, detach')
def attach(run, name):
    server = run.need_server(name)
    with attached(run, server, 'data-' + name, 'thin-raw') as (volume, _sums):
        stage.expect('raw', server.disks()[volume.id][1], 'format')
    with server.console() as console:
        wait_for_disks(run, console, {'vda': GIB})
    return 'the guest sees it come and go; its bytes are in the file'


@on_each_host('A volume that QEMU limits (front-end QoS)')
def limited(run, name):
    server = run.need_server(name)
    qos = run.api.cinder.qos_specs.create(
        'slow-' + name, {'consumer': 'front-end', 'total_bytes_sec': str(MIB)})
    run.make_type('slow-' + name)
    run.api.cinder.qos_specs.associate(
        qos, run.api.cinder.volume_types.find(name='slow-' + name).id)
    with attached(run, server, 'slow-' + name, 'slow-' + name) as (
            volume, sums):
        stage.expect({'total_bytes_sec': str(MIB)},
                     run.api.limits_of(server.api)[volume.id], 'limits')
        began = time.monotonic()
        with server.console() as console:
            sums.update(write(console, 'vdb', [(64, 8)]))
        took = time.monotonic() - began
        # A tenth of a second's worth may come at once.
        if took < 7:
            raise cloud.Unexpected('8 MiB at 1 MiB/s took %.1f s' % took)
    return '8 MiB at 1 MiB/s take %.0f s' % took


@on_each_host('Reboot the server')
def reboot(run, name):
    server = run.need_server(name)
    with run.api.hard_reboot(server.api) as console:
        expect_inside(console, 'vda', server.sums)
    return 'it boots again, and reads what it wrote'


@on_each_host('Extend an attached raw volume')
def extend(run, name):
    server = run.need_server(name)
    with attached(run, server, 'grown-' + name, 'thin-raw') as (
            volume, sums), server.console() as console:
        run.api.extend_attached(volume, 2)
        wait_for_disks(run, console, {'vda': GIB, 'vdb': 2 * GIB})
        expect_inside(console, 'vdb', sums)
        sums.update(write(console, 'vdb', [(2044, 4)]))
    return 'the guest sees 2 GiB, and writes up to the end'


@on_each_host('Extend an attached qcow2 volume')
def extend_qcow2(run, name):
    server = run.need_server(name)
    run.api.extend_attached_failing(server.volume, 2)
    with server.console() as console:
        stage.expect({'vda': GIB}, console.disks(), 'disks')
        expect_inside(console, 'vda', server.sums)
    return 'is refused: Nova could not tell Cinder whether it went well'


# The order in which the snapshots of a chain of four are deleted.
ORDERS = {'the first': 0, 'the middle': 1, 'the last': -1}


@on_each_host('Snapshots of an attached raw volume', 'thin-raw')
@on_each_host('Snapshots of an attached qcow2 volume', 'thin-qcow2')
def snapshots(run, name, type_name):
    server = run.need_server(name)
    with attached(run, server, 'chain-' + name, type_name) as (volume, sums):
        chain = Chain(run, volume, sums)
        with server.console() as console:
            chain.grow(console, 5)
            chain.shrink(console, 'the middle', 'the first', 'the last')
        with run.api.stopped(server.api) as console:
            chain.expect(console)
            chain.shrink(console, 'the last', 'the first')
            chain.grow(console, 2)
            chain.shrink(console, 'the first', 'the last')
    return ('7 taken and 7 deleted while the guest wrote: the first, one in '
            'the middle, the last, and again after stop and start; a volume '
            'from each has what it should')


class Chain:
    """The snapshots of an attached volume, while its guest writes."""

    def __init__(self, run, volume, sums):
        self.run = run
        self.volume = volume
        self.sums = sums
        # (snapshot, what the volume had then)
        self.snapshots = []

    def grow(self, console, count):
        keep(console)
        for _ in range(count):
            place = (100 + 10 * len(self.sums), 2)
            self.sums.update(write(console, 'vdb', [place]))
            sums = dict(self.sums)
            self.snapshots.append((self.run.api.create_snapshot(
                self.volume, force=True), sums))
            # Written over afterwards: the snapshot must not see that.
            self.sums.update(write(console, 'vdb', [place]))
        expect_kept(console)
        self._expect_snapshots()

    def shrink(self, console, *which):
        for word in which:
            keep(console)
            snapshot, _ = self.snapshots.pop(ORDERS[word])
            self.run.api.delete_snapshots([snapshot])
            expect_kept(console)
            self.expect(console)
        self._expect_snapshots()

    def expect(self, console):
        expect_inside(console, 'vdb', self.sums)

    def _expect_snapshots(self):
        """Compare volumes that are made from the snapshots."""
        for snapshot, sums in self.snapshots:
            volume = self.run.volume('copy', self.volume.volume_type,
                                     snapshot_id=snapshot.id)
            self.run.expect_outside(volume, sums)
            self.run.api.delete_volumes([volume])


# Whose nova-compute was killed before it could, after the guest had got the
# overlay.
@step('Start a server when Nova has not noted a snapshot')
def unnoted_snapshot(run):
    server = run.need_server('lustre')
    with attached(run, server, 'unnoted', 'thin-raw') as (volume, sums):
        snapshot = run.api.create_snapshot(volume, force=True)
        with server.console() as console:
            sums.update(write(console, 'vdb', [(200, 4)]))
        run.api.wait('Nova to note the overlay', lambda:
                     run.stack.forget_overlay(volume, snapshot), 30)
        with run.api.stopped(server.api) as console:
            expect_inside(console, 'vdb', sums)
            run.api.delete_snapshots([snapshot])
            expect_inside(console, 'vdb', sums)
    return 'our driver asks Cinder: the guest reads what it wrote since'


@step('Two servers with one raw volume')
def multiattach(run):
    servers = [run.need_server(name) for name in HOSTS]
    run.make_type('shared', lustre_format='raw', multiattach='<is> True')
    volume = run.volume('shared', 'shared')
    with servers[0].console() as one, servers[1].console() as other:
        for server in servers:
            run.api.attach_to(server.api, volume)
        for console in one, other:
            wait_for_disks(run, console, {'vda': GIB, 'vdb': GIB})
        sums = write(one, 'vdb', [(0, 4)])
        sums.update(write(other, 'vdb', [(1020, 4)]))
        expect_inside(one, 'vdb', sums)
        expect_inside(other, 'vdb', sums)
        reason = run.api.create_failing_snapshot(volume)
        expect_inside(one, 'vdb', sums)
        run.api.detach_from(servers[0].api, volume, 'in-use')
        sums.update(write(other, 'vdb', [(512, 4)]))
        run.api.detach_from(servers[1].api, volume)
    run.expect_outside(volume, sums)
    run.api.delete_volumes([volume])
    return ('each reads what the other one wrote; a snapshot is refused: %s' %
            reason)


@step('Multiattach of a qcow2 volume')
def multiattach_qcow2(run):
    run.make_type('shared-qcow2', lustre_format='qcow2',
                  multiattach='<is> True')
    volume, _ = run.api.create_failing_volume(1, volume_type='shared-qcow2')
    stage.expect('error', volume.status, 'status')
    run.api.delete_volumes([volume])
    return 'such a volume is not made'


@on_each_host('Migrate an attached volume to the other share')
def migrate_volume(run, name):
    server = run.need_server(name)
    with attached(run, server, 'moved-' + name, 'thin-raw') as (
            volume, sums), server.console() as console:
        before = server.disks()[volume.id][0]
        keep(console)
        run.api.migrate_volume(volume)
        after = server.disks()[volume.id][0]
        if os.path.dirname(before) == os.path.dirname(after):
            raise cloud.Unexpected('it is where it was, %s' % after)
        expect_kept(console)
        expect_inside(console, 'vdb', sums)
    return 'while the guest wrote; its bytes are on the other share'


@on_each_host('Retype an attached volume, raw to qcow2')
def retype(run, name):
    server = run.need_server(name)
    with attached(run, server, 'retyped-' + name, 'thin-raw') as (
            volume, sums), server.console() as console:
        keep(console)
        run.api.retype_attached(volume, 'thin-qcow2')
        expect_kept(console)
        expect_inside(console, 'vdb', sums)
        stage.expect('qcow2', server.disks()[volume.id][1], 'format')
    return 'while the guest wrote; QEMU has a qcow2 image now'


@step('An encrypted volume (Nova as it is)')
def encrypted_stock(run):
    encryption.make_type(run.api.cinder)
    server = run.need_server('stock')
    volume = run.volume('secret', stage.ENCRYPTED)
    before = run.outside_checksum(volume)
    run.api.attach_failing(server.api, volume)
    stage.expect(before, run.outside_checksum(volume), 'checksum')
    run.secret = volume
    return 'is refused, and its image is as it was'


@step('An encrypted volume (our driver)')
def encrypted(run):
    if run.secret is None:
        raise stage.Missing('there is no encrypted volume')
    server = run.need_server('lustre')
    with server.console() as console:
        run.api.attach_to(server.api, run.secret)
        wait_for_disks(run, console, {'vda': GIB, 'vdb': GIB})
        sums = write(console, 'vdb')
        expect_inside(console, 'vdb', sums)
        reason = run.api.create_failing_snapshot(run.secret)
    with run.api.hard_reboot(server.api) as console:
        expect_inside(console, 'vdb', sums)
        run.api.detach_from(server.api, run.secret)
    run.expect_outside(run.secret, sums)
    run.api.delete_volumes([run.secret])
    return ('the guest writes and reads, after a reboot too; its key opens '
            'it; a snapshot is refused: %s' % reason)


# From our driver to Nova as it is: libvirt does not know the type of file
# system for a shared one. The other way round Nova refuses, before libvirt is
# asked, a volume that will be of type lustre.
@on_each_host('Live migration to a host of the other kind')
def live_migration_failing(run, name):
    server = run.need_server(name)
    other, = set(HOSTS) - {name}
    run.api.live_migrate_failing(server.api, other)
    stage.expect(PROTOCOLS[name], run.api.protocol(server.volume), 'type')
    with server.console() as console:
        expect_inside(console, 'vda', server.sums)
    return 'is refused (see the guide); the guest goes on'


@step('Live migration between hosts with our driver, and back')
def live_migration(run):
    server = run.need_server('lustre')
    with attached(run, server, 'migrated', 'thin-raw') as (volume, sums):
        for number, host_name in enumerate(('lustre2', 'lustre'), 1):
            with server.console() as console:
                keep(console)
                run.api.live_migrate(server.api, host_name)
            with server.console() as console:
                expect_kept(console)
                expect_inside(console, 'vda', server.sums)
                expect_inside(console, 'vdb', sums)
                snapshot = run.api.create_snapshot(volume, force=True)
                sums.update(write(console, 'vdb', [(200 * number, 4)]))
                run.api.delete_snapshots([snapshot])
                expect_inside(console, 'vdb', sums)
    stage.expect([], run.stack.computes['lustre2'].mounts(), 'mounts')
    return ('while the guest wrote; a snapshot comes and goes on either host, '
            'and no mount is left')


@on_each_host('Back up an attached volume, and restore it')
def back_up(run, name):
    server = run.need_server(name)
    with server.console() as console:
        backup = run.api.create_backup(server.volume, force=True)
        server.sums.update(write(console, 'vda', [(600, 4)]))
        expect_inside(console, 'vda', server.sums)
    sums = {place: wanted for place, wanted in server.sums.items()
            if place[0] != 600}
    volume = run.api.restore(backup)
    run.expect_outside(volume, sums)
    run.api.delete_backups([backup])
    run.api.delete_volumes([volume])
    return 'what the guest had written is in the new volume'


@on_each_host('Delete the server')
def delete_server(run, name):
    server = run.need_server(name)
    run.api.delete_server(server.api)
    run.api.wait_volume(server.volume)
    run.expect_outside(server.volume, server.sums)
    run.api.delete_volumes([server.volume])
    return 'what it wrote is in its volume'


@on_each_host('Mounts of the compute host')
def mounts(run, name):
    found = run.stack.computes[name].mounts()
    if name == 'lustre':
        stage.expect([], found, 'mounts')
        return 'none is left'
    # Nova notes who uses a mount by the name of the active image, which a
    # snapshot changes.
    stage.expect(sorted(set(found)), sorted(found), 'shares')
    return 'none is left' if not found else (
        '%d left, one for each share: Nova forgets them when it restarts' %
        len(found))
