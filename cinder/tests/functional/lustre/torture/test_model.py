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

"""A state machine that does to volumes what users do, beside a model of them.

Cinder's services run the driver on real files and a real database
(:mod:`services`). The model (:mod:`disks`) holds the bytes that each volume
and each snapshot should have. After each step they are compared.

``tools/torture.sh`` makes as many steps as it is told to; the steps that lead
to a failure are printed.
"""

import contextlib
import io
import itertools
import json
import os
import sys
import time
import traceback

import fixtures
import hypothesis
from hypothesis import stateful
from hypothesis import strategies as st
from oslo_utils import units
from testtools import content

from cinder import exception
from cinder.lustre import images
from cinder import objects
from cinder.tests.functional.lustre import base
from cinder.tests.functional.lustre import stand_ins
from cinder.tests.functional.lustre.torture import disks
from cinder.tests.functional.lustre.torture import services
from os_brick.remotefs import lustre as lustre_brick

GIB = units.Gi

STEPS = int(os.environ.get('LUSTRE_TORTURE_STEPS', 200))
SEED = int(os.environ.get('LUSTRE_TORTURE_SEED', 0))

# Of steps. An example begins with nothing, and ends with nothing.
EXAMPLE = 40
# Of examples, which one seed leads to.
ROUND = 5

# No thick and encrypted ones: what they never wrote reads as random bytes.
KINDS = ('thin raw', 'thick raw', 'thin qcow2', 'thick qcow2',
         'thin qcow2 luks')

MOST_VOLUMES = 5
MOST_SNAPSHOTS = 4
# GiB.
LARGEST = 3
# What thick volumes may take together, in GiB; a copy needs room as well.
THICK_ROOM = 4

SECTOR = 512

SHARES = st.integers(0, 1)
MORE = st.integers(0, 1)


class Thing:
    """Something that holds bytes, as it should be.

    :param name: what it is called where steps are printed
    :param id: what Cinder calls it
    """

    def __init__(self, name, id, disk):
        self.name = name
        self.id = id
        self.disk = disk

    def __repr__(self):
        return self.name


class Volume(Thing):
    """A volume.

    :ivar snapshots: the oldest one first
    """

    def __init__(self, name, id, disk, kind):
        super().__init__(name, id, disk)
        self.kind = kind
        self.snapshots = []

    @property
    def size(self):
        return self.disk.size // GIB

    @property
    def is_thick(self):
        return self.kind.startswith('thick')

    @property
    def is_encrypted(self):
        return self.kind.endswith('luks')

    @property
    def is_plain(self):
        """Its active image is a raw file: its bytes are the guest's."""
        return self.kind.endswith('raw') and not self.snapshots

    def expected(self):
        """What it and its snapshots should hold now."""
        return [(self.id, self.disk.copy())] + [
            (snapshot.id, snapshot.disk) for snapshot in self.snapshots]


class Snapshot(Thing):
    """A snapshot of a volume.

    :ivar overlay: the id after which its overlay is named; Cinder may have
        forgotten the snapshot since, and know it again by another
    """

    def __init__(self, name, id, disk, volume):
        super().__init__(name, id, disk)
        self.volume = volume
        self.overlay = id

    @property
    def is_encrypted(self):
        return self.volume.is_encrypted


class File(Thing):
    """A file on a share that Cinder doesn't know; its id is its name."""

    def __init__(self, name, id, disk, image_format, share):
        super().__init__(name, id, disk)
        self.format = image_format
        self.share = share


class Image(Thing):
    """An image of the image service; of LUKS if it is encrypted."""

    def __init__(self, name, id, disk, is_encrypted):
        super().__init__(name, id, disk)
        self.is_encrypted = is_encrypted


def writes(least=0):
    """Some (mebibyte, sector in it, sectors, byte) to be written.

    Often near each other, so that they meet in clusters, and at both ends of
    a disk; see :meth:`Cinder._write`.
    """
    places = st.sampled_from((0, 1, 1023, 1024, -1)) | st.integers(0, 3071)
    return st.lists(st.tuples(places, st.integers(0, 400),
                              st.integers(1, 500),
                              st.just(0) | st.integers(1, 255)),
                    min_size=least, max_size=4)


class Step:
    """Something that is done to the machine, and prints as the call it is."""

    def __init__(self, method, arguments):
        self._method = method
        self._arguments = arguments

    def __repr__(self):
        return '%s(%s)' % (self._method.__name__, ', '.join(
            '%s=%r' % argument for argument in self._arguments.items()))

    def run(self, machine):
        self._method(machine, **self._arguments)


def step(weight, **candidates):
    """Make a method a step that is possible if all arguments have candidates.

    :param weight: how often it is chosen, compared with the others
    :param candidates: for each argument a strategy, or a function that is
        given the machine and returns what may be chosen
    """
    def decorate(method):
        def steps(machine):
            """Return a strategy for this step, None if it isn't possible."""
            arguments = {}
            for name, candidate in candidates.items():
                if callable(candidate):
                    choice = candidate(machine)
                    if not choice:
                        return None
                    candidate = st.sampled_from(list(choice))
                arguments[name] = candidate
            return st.builds(Step, st.just(method),
                             st.fixed_dictionaries(arguments))

        method.steps = steps
        method.weight = weight
        return method
    return decorate


def possible_steps(machine):
    """Return a strategy for all steps that are possible now."""
    strategies = [member.steps(machine)
                  for member in vars(type(machine)).values()
                  if hasattr(member, 'steps')
                  for _time in range(member.weight)]
    return st.one_of([strategy for strategy in strategies
                      if strategy is not None])


def volumes(machine):
    return machine.volumes


def snapshots(machine):
    return [snapshot for volume in machine.volumes
            for snapshot in volume.snapshots]


def _larger(disk, more):
    """Return a copy of a disk, so many GiB larger."""
    return disk.copy(min(disk.size + more * GIB, LARGEST * GIB))


def with_room_for_a_snapshot(machine):
    return [volume for volume in machine.volumes
            if len(volume.snapshots) < MOST_SNAPSHOTS]


def growing(machine):
    """Volumes that can be made larger by 1 GiB."""
    return [volume for volume in machine.volumes if volume.size < LARGEST
            and (not volume.is_thick or machine.thick_room >= 1)]


def revertible(machine):
    """Volumes that are as large as their newest snapshot."""
    return [volume for volume in machine.volumes if volume.snapshots
            and volume.snapshots[-1].disk.size == volume.disk.size]


def kinds(machine):
    """Kinds of volumes for which there is room."""
    if len(machine.volumes) >= MOST_VOLUMES:
        return []
    return [kind for kind in KINDS
            if kind.startswith('thin') or machine.thick_room >= LARGEST]


def copies(things):
    """Things, and the kinds of volumes that can be made of them.

    :param things: called with the machine
    """
    return lambda machine: [
        (thing, kind) for thing in things(machine) for kind in kinds(machine)
        if thing.is_encrypted == kind.endswith('luks')]


def not_encrypted(machine):
    return [volume for volume in machine.volumes if not volume.is_encrypted]


def plain_kinds(machine):
    return [kind for kind in kinds(machine) if not kind.endswith('luks')]


def movable(machine):
    """Cinder moves no volume with snapshots."""
    return [volume for volume in not_encrypted(machine)
            if not volume.snapshots]


class Cinder(stateful.RuleBasedStateMachine):
    """Volumes, and what users do to them."""

    def __init__(self, case):
        super().__init__()
        self.case = case
        self.cloud = case.cloud
        self.volumes = []
        self.files = []
        self.images = []
        self.backups = []
        self.most_backups = 0
        self._done = []
        self._names = 0
        self._verified = {}
        case.wipe()

    @stateful.initialize(backups=st.sampled_from((0, 0, 0, 1)))
    def allow_backups(self, backups):
        """They take seconds each."""
        self.most_backups = backups

    @stateful.rule(step=st.runner().flatmap(possible_steps))
    def do(self, step):
        self._done.append(step)
        try:
            step.run(self)
            self.check()
        except Exception:
            # Hypothesis says so at the end, and only if the same steps fail
            # again in the same way.
            self.case.report(traceback.format_exc(), 'These steps led there:',
                             *self._done)
            raise

    # Volumes

    @step(4, volume=volumes, pieces=writes(least=1))
    def write(self, volume, pieces):
        self._write(volume, pieces)

    @step(2, kind=kinds, size=st.integers(1, 2), share=SHARES, pieces=writes())
    def create(self, kind, size, share, pieces):
        self._create(kind, disks.Disk(size * GIB), share, pieces)

    @step(2, copy=copies(volumes), more=MORE, share=SHARES, pieces=writes())
    def clone(self, copy, more, share, pieces):
        source, kind = copy
        self._create(kind, _larger(source.disk, more), share, pieces,
                     source=source.id)

    @step(2, copy=copies(snapshots), more=MORE, share=SHARES, pieces=writes())
    def create_from_snapshot(self, copy, more, share, pieces):
        snapshot, kind = copy
        self._create(kind, _larger(snapshot.disk, more), share, pieces,
                     snapshot=snapshot.id)

    @step(3, volume=growing)
    def extend(self, volume):
        self.cloud.extend(volume.id, volume.size + 1)
        volume.disk = volume.disk.copy((volume.size + 1) * GIB)

    @step(3, volume=volumes)
    def delete(self, volume):
        self.cloud.delete(volume.id)
        self.volumes.remove(volume)

    @step(2, copy=lambda machine: [
        (volume, image) for volume in machine.volumes
        for image in machine.images if volume.size * GIB >= image.disk.size
        and not volume.is_encrypted and not image.is_encrypted])
    def rebuild(self, copy):
        volume, image = copy
        self.cloud.rebuild(volume.id, image.id)
        volume.disk = image.disk.copy(volume.disk.size)

    # Files that Cinder doesn't know

    @step(1, image_format=st.sampled_from(('raw', 'qcow2')), share=SHARES,
          size=st.integers(1, 2047), pieces=writes())
    def make_file(self, image_format, share, size, pieces):
        file = File(self._name('file'), 'disk-%d' % self._names,
                    disks.Disk(size * units.Mi), image_format, share)
        self.case.make_file(file, self._cut(file.disk, pieces))
        self.files.append(file)

    @step(2, volume=lambda machine: [
        volume for volume in machine.volumes
        if not volume.snapshots and not volume.is_encrypted])
    def unmanage(self, volume):
        share = self.case.shares.index(
            self.cloud.volume(volume.id).provider_location)
        self.files.append(File(
            self._name('file'), self.cloud.unmanage(volume.id), volume.disk,
            volume.kind.split()[1], share))
        self.volumes.remove(volume)

    @step(3, found=lambda machine: [
        (file, kind) for file in machine.files for kind in kinds(machine)
        if file.format == kind.split()[1] and not kind.endswith('luks')])
    def manage(self, found):
        file, kind = found
        size = -(-file.disk.size // GIB)
        volume_id = self.cloud.manage(
            self.case.types[kind], file.share,
            {'source-name': file.id, 'format': file.format})
        self.files.remove(file)
        self.volumes.append(Volume(self._name('volume'), volume_id,
                                   file.disk.copy(size * GIB), kind))

    # Snapshots

    @step(1, group=lambda machine: list(itertools.combinations(
        with_room_for_a_snapshot(machine), 2)))
    def take_group_snapshot(self, group):
        for volume, snapshot_id in zip(group, self.cloud.take_group_snapshot(
                [volume.id for volume in group])):
            volume.snapshots.append(Snapshot(
                self._name('snapshot'), snapshot_id, volume.disk.copy(),
                volume))

    @step(2, snapshot=snapshots)
    def manage_snapshot_again(self, snapshot):
        volume = snapshot.volume
        self.cloud.unmanage_snapshot(snapshot.id)
        snapshot.id = self.cloud.manage_snapshot(volume.id, {
            'source-name': '%s.%s' % (self.cloud.volume(volume.id).name,
                                      snapshot.overlay)})

    @step(6, volume=with_room_for_a_snapshot, pieces=writes())
    def take_snapshot(self, volume, pieces):
        volume.snapshots.append(Snapshot(
            self._name('snapshot'), self.cloud.take_snapshot(volume.id),
            volume.disk.copy(), volume))
        self._write(volume, pieces)

    @step(5, snapshot=snapshots)
    def delete_snapshot(self, snapshot):
        self.cloud.delete_snapshot(snapshot.id)
        snapshot.volume.snapshots.remove(snapshot)

    @step(3, volume=revertible)
    def revert(self, volume):
        newest = volume.snapshots[-1]
        self.cloud.revert(volume.id, newest.id)
        volume.disk = newest.disk.copy()

    # Copies

    @step(2, volume=volumes, disk_format=st.sampled_from(('raw', 'qcow2')))
    def upload(self, volume, disk_format):
        if volume.is_encrypted:
            disk_format = 'raw'
        image = self.cloud.upload(volume.id, disk_format)
        self.images.append(Image(self._name('image'), image,
                                 volume.disk.copy(), volume.is_encrypted))

    @step(2, copy=lambda machine: [
        (image, kind) for image in machine.images for kind in kinds(machine)
        if not image.is_encrypted or kind.endswith('luks')],
        more=MORE, share=SHARES, pieces=writes())
    def create_from_image(self, copy, more, share, pieces):
        image, kind = copy
        self._create(kind, _larger(image.disk, more), share, pieces,
                     image=image.id)

    @step(1, volume=lambda machine: [
        volume for volume in not_encrypted(machine)
        if volume.size == 1 and len(machine.backups) < machine.most_backups])
    def back_up(self, volume):
        backup = self.cloud.back_up(volume.id)
        self.backups.append(Thing(self._name('backup'), backup,
                                  volume.disk.copy()))

    @step(2, backup=lambda machine: machine.backups, kind=plain_kinds,
          more=MORE, share=SHARES)
    def restore_to_new(self, backup, kind, more, share):
        disk = _larger(backup.disk, more)
        self._create(kind, disk, share, ())
        self.cloud.restore(backup.id, self.volumes[-1].id, True)

    @step(1, backup=lambda machine: machine.backups, volume=not_encrypted)
    def restore(self, backup, volume):
        self.cloud.restore(backup.id, volume.id)
        volume.disk = backup.disk.copy(volume.disk.size)

    @step(1, volume=movable, share=SHARES)
    def migrate(self, volume, share):
        self.cloud.migrate(volume.id, share)

    # What is refused

    @step(1, copy=copies(volumes))
    def refuse_while_attached(self, copy):
        volume, kind = copy
        with self.cloud.attached(volume.id):
            self._refused(exception.InvalidVolume, self.cloud.create,
                          volume.size, self.case.types[kind],
                          source=volume.id)
            self._refused(exception.InvalidVolume, self.cloud.upload,
                          volume.id, 'raw')

    @step(1, volume=lambda machine: [
        volume for volume in machine.volumes if len(volume.snapshots) > 1])
    def refuse_to_revert_to_older(self, volume):
        self._refused(
            exception.InvalidSnapshot, self.case.driver.revert_to_snapshot,
            self.cloud.context, self.cloud.volume(volume.id),
            self.cloud.snapshot(volume.snapshots[0].id))

    @step(1, copy=copies(lambda machine: [
        volume for volume in machine.volumes if volume.size > 1]))
    def refuse_smaller_copies(self, copy):
        volume, kind = copy
        kind = self.case.types[kind]
        self._refused(exception.InvalidInput, self.cloud.create,
                      volume.size - 1, kind, source=volume.id)
        image = self.cloud.upload(volume.id, 'raw')
        self._refused(exception.ImageUnacceptable, self.cloud.create,
                      volume.size - 1, kind, image=image)

    def _refused(self, error, function, *args, **kwargs):
        """This fails, and leaves all files alone."""
        before = self.case.files()
        self.case.assertRaises(error, function, *args, **kwargs)
        self.cloud.delete_failed()
        self.case.assertEqual(before, self.case.files())

    # What must be so after each step

    def check(self):
        """Compare all there is with the model."""
        self.case.steps += 1
        records = self.cloud.volumes()
        self.case.assertEqual({volume.id for volume in self.volumes},
                              set(records))
        files = self.case.files()
        self.case.assertEqual(self._expected_files(records), {
            name for name in files if not name.endswith('.info')})
        for volume in self.volumes:
            self._verify(volume, records[volume.id], files)

    def _expected_files(self, records):
        expected = set()
        for volume in self.volumes:
            name = records[volume.id].name
            expected.add(name)
            expected.update('%s.%s' % (name, snapshot.overlay)
                            for snapshot in volume.snapshots)
        return expected.union(file.id for file in self.files)

    def _verify(self, volume, record, files):
        """Compare a volume with the model if either has changed."""
        state = (volume.expected(), {
            name: what for name, what in files.items()
            if name.startswith(record.name)})
        if self._verified.get(volume.id) == state:
            return
        self._verify_records(volume, record)
        chain = self.case.chain(record)
        self._verify_content(volume.disk, chain, record)
        if volume.is_thick and volume.is_plain:
            self.case.assertGreaterEqual(
                os.stat(chain[0].path).st_blocks * SECTOR, volume.disk.size)
        for snapshot in volume.snapshots:
            self._verify_content(
                snapshot.disk, self.case.chain(record, snapshot.id), record)
        self.case.check_images(record)
        self._verified[volume.id] = state

    def _verify_records(self, volume, record):
        self.case.assertEqual(('available', volume.size),
                              (record.status, record.size))
        for snapshot in volume.snapshots:
            found = self.cloud.snapshot(snapshot.id)
            self.case.assertEqual(
                ('available', snapshot.disk.size // GIB),
                (found.status, found.volume_size))

    def _verify_content(self, expected, chain, record):
        self.case.assertEqual('', expected.difference(self.case.disk_of(
            chain, self.case.passphrase(record))), chain[0].path)

    def teardown(self):
        """At the end all is compared again, and nothing is left over."""
        if sys.exc_info()[0]:
            return
        self._verified.clear()
        self.check()
        for volume in self.volumes:
            self.cloud.delete(volume.id)
        for backup in self.backups:
            self.cloud.delete_backup(backup.id)
        self.case.assertEqual({file.id for file in self.files},
                              set(self.case.files()))
        self.case.assertEqual([], self.case.backup_files())

    # How it is done

    @property
    def thick_room(self):
        return THICK_ROOM - sum(volume.size for volume in self.volumes
                                if volume.is_thick)

    def _create(self, kind, disk, share, pieces, **source):
        """Create a volume that holds a disk, and write to it."""
        volume = Volume(self._name('volume'), self.cloud.create(
            disk.size // GIB, self.case.types[kind], share, **source),
            disk, kind)
        self.volumes.append(volume)
        self._write(volume, pieces)

    def _write(self, volume, pieces):
        """Let a guest write to a volume.

        :param pieces: of :func:`writes`; they are cut to the volume
        """
        if not pieces:
            return
        todo = self._cut(volume.disk, pieces)
        with self.cloud.attached(volume.id) as connection:
            self.case.guest_writes(self.cloud.volume(volume.id), connection,
                                   todo)

    @staticmethod
    def _cut(disk, pieces):
        """Write pieces to a disk, and return (offset, length, byte)."""
        cut = []
        for mebibyte, sector, sectors, byte in pieces:
            offset = mebibyte * units.Mi % disk.size + sector * SECTOR
            length = min(sectors * SECTOR, disk.size - offset)
            disk.write(offset, bytes([byte]) * length)
            cut.append((offset, length, byte))
        return cut

    def _name(self, what):
        self._names += 1
        return '%s_%d' % (what, self._names)


class ModelTestCase(base.LustreTestCase):

    file_system_types = base.FILE_SYSTEM_TYPES
    # Standard error will be captured.
    output = sys.stderr

    def setUp(self):
        super().setUp()
        # One in memory is gone when its connection is made anew, which is
        # done after an hour (connection_recycle_time).
        self.useFixture(stand_ins.DatabaseFile(os.path.join(
            self.temp, 'cinder.sqlite')))
        self.backup_share = self._new_share(*self.file_systems.roots[1])
        self.cloud = services.Services(self)
        self.types = {kind: self._type(*kind.split()) for kind in KINDS}
        self.steps = 0

    def new_driver(self, *args, **options):
        # What else runs here must not make a share look hung.
        return super().new_driver(
            *args, **dict(options, lustre_operation_timeout=300))

    def _type(self, provisioning, image_format, encryption=None):
        make = self.encrypted_type if encryption else self._plain_type
        return make(provisioning__type=provisioning,
                    lustre__format=image_format)

    def _plain_type(self, **specs):
        return self.volume_type(**specs).id

    def wipe(self):
        """Remove what a failed example has left."""
        for volume in objects.VolumeList.get_all(self.context):
            volume.destroy()
        for entry in self._entries():
            os.unlink(entry.path)
        self.cloud.images.delete_all()

    def files(self):
        """What is on both shares: {name: what tells if it has changed}."""
        found = {}
        for entry in self._entries():
            stat = entry.stat()
            found[entry.name] = stat.st_ino, stat.st_size, stat.st_mtime_ns
        return found

    def _entries(self):
        """What is on both shares, but for what belongs to a share itself."""
        return [entry for directory in self._directories()
                for entry in os.scandir(directory)
                if entry.name != lustre_brick.LOCK_FILE]

    def backup_files(self):
        root, path = self.file_systems.roots[1]
        return [name for _directory, _directories, names in os.walk(
            path + self.backup_share[len(root):]) for name in names]

    def _directories(self):
        return [path + share[len(root):] for share, (root, path) in zip(
            self.shares, self.file_systems.roots)]

    def guest_writes(self, volume, connection, pieces):
        """Write (offset, length, byte) to an attached volume."""
        self._write({
            'path': os.path.join(self.directory(volume), connection['name']),
            'format': connection['format'],
            'key': self.passphrase(volume)}, pieces)

    def make_file(self, file, pieces):
        """Make a file on a share as somebody else does."""
        path = os.path.join(self._directories()[file.share], file.id)
        base.run('qemu-img', 'create', '-q', '-f', file.format, path,
                 str(file.disk.size))
        if pieces:
            self._write({'path': path, 'format': file.format}, pieces)

    def _write(self, connection, pieces):
        self.qemu_io(connection, *(
            'write %s %d %d' % ('-P %d' % byte if byte else '-z', offset,
                                length)
            for offset, length, byte in pieces))

    def chain(self, volume, snapshot_id=None):
        """Return the images that a guest of a volume reads.

        :param snapshot_id: of a snapshot, for those that it consists of
        """
        volume_images = self.driver._images(volume)
        chain = volume_images.chain()
        if snapshot_id:
            top = volume_images.snapshot(snapshot_id)
            return chain[chain.index(top):]
        with self.attached(volume) as connection:
            self.assertEqual((chain[0].path, chain[0].format),
                             (connection['path'], connection['format']))
        return chain

    def disk_of(self, chain, key):
        """Return what QEMU finds in a chain of images.

        :param key: the passphrase of its volume, or None
        """
        find = self._decrypted if key else self._mapped
        with self._opened(chain[0], key) as options:
            return find(chain, options)

    def _mapped(self, chain, options):
        """Let QEMU say where data is, and read that.

        QEMU doesn't see holes in an image that was preallocated, and would
        take seconds.
        """
        extents = json.loads(base.run('qemu-img', 'map', '--output', 'json',
                                      *options))
        return disks.Disk.in_extents(
            extents[-1]['start'] + extents[-1]['length'],
            [(chain[extent['depth']].path, extent['offset'], extent['start'],
              extent['length'])
             for extent in extents if extent['data'] and not extent['zero']])

    def _decrypted(self, chain, options):
        flat = os.path.join(self.temp, 'flat')
        base.run('qemu-img', 'convert', *options, '-O', 'raw', flat)
        size = os.path.getsize(flat)
        return disks.Disk.in_extents(size, [(flat, 0, 0, size)])

    def check_images(self, volume):
        """Let qemu-img check all images of a volume."""
        for image in self.driver._images(volume).chain():
            if image.format == images.QCOW2:
                with self._opened(image, self.passphrase(volume)) as options:
                    base.run('qemu-img', 'check', *options)

    def _opened(self, image, key):
        return self.opened({'path': image.path, 'format': image.format,
                            'key': key})

    def torture(self, steps, seed):
        """Make so many steps, or some more.

        :param seed: the first of those that are used one after the other
        """
        while self.steps < steps:
            self.report('Seed %d, after %d steps' % (seed, self.steps))
            with self.logged_alone():
                stateful.run_state_machine_as_test(
                    hypothesis.seed(seed)(lambda: Cinder(self)),
                    settings=hypothesis.settings(
                        max_examples=ROUND, stateful_step_count=EXAMPLE,
                        # Each step takes long; a failure is not made smaller.
                        deadline=None, phases=[hypothesis.Phase.generate],
                        database=None, report_multiple_bugs=False,
                        suppress_health_check=list(hypothesis.HealthCheck)))
            seed += 1

    @contextlib.contextmanager
    def logged_alone(self):
        """Keep what is logged only if it leads to a failure.

        A log of 10,000 steps is more than a test's result can carry.
        """
        with fixtures.FakeLogger() as log:
            try:
                yield
            except Exception:
                self.addDetail('log', content.text_content(log.output))
                raise

    def report(self, *lines):
        print(*lines, sep='\n', file=self.output, flush=True)


class ModelTest(ModelTestCase):

    def test_driver(self):
        began = time.monotonic()
        self.torture(STEPS, SEED)
        seconds = time.monotonic() - began
        self.report('%d steps in %d s, %.1f a second' % (
            self.steps, seconds, self.steps / seconds))


class BrokenDriverTest(ModelTestCase):
    """What is broken is found."""

    output = io.StringIO()

    def break_(self, name, broken):
        self.mock_object(images.VolumeImages, name, broken)

    def made(self, kind='thin qcow2'):
        """Return a machine with a volume that has a snapshot."""
        machine = Cinder(self)
        machine.create(kind, 1, 0, [(0, 0, 8, 1)])
        machine.take_snapshot(machine.volumes[0], [(0, 4, 8, 2)])
        machine.check()
        return machine

    def assert_found(self, how, machine):
        error = self.assertRaises(AssertionError, machine.check)
        self.assertIn(how, str(error))

    def test_nothing_is_broken(self):
        self.made().teardown()

    def test_snapshot_is_dropped_instead_of_committed(self):
        machine = self.made()
        self.break_('_merge', lambda *args: None)
        machine.delete_snapshot(machine.volumes[0].snapshots[0])
        self.assert_found('2 blocks differ', machine)

    def test_snapshot_is_written_to(self):
        machine = self.made()
        chain = self.chain(self.cloud.volume(machine.volumes[0].id))
        base.run('qemu-io', '-f', 'qcow2', '-c', 'write -P 3 1M 512',
                 chain[1].path)
        self.assert_found('1 blocks differ, from 0x100000', machine)

    def test_overlay_is_left_behind(self):
        machine = self.made()
        self.break_('remove', lambda volume_images: None)
        machine.delete(machine.volumes[0])
        self.assert_found('volume-', machine)

    def test_copy_stays_at_the_size_of_its_source(self):
        machine = self.made()
        self.break_('_grow_qcow2', lambda *args: None)
        machine.clone((machine.volumes[0], 'thin qcow2'), 1, 0, [])
        self.assert_found('bytes instead of', machine)

    def test_thick_volume_has_no_space(self):
        machine = Cinder(self)
        self.break_('_allocate', lambda *args: None)
        machine.create('thick raw', 1, 0, [])
        self.assert_found('not greater', machine)

    def test_image_is_damaged(self):
        machine = self.made()
        path = self.chain(self.cloud.volume(machine.volumes[0].id))[0].path
        with open(path, 'r+b') as image:
            # A refcount of the second cluster, which has the table itself.
            image.seek(2 * 65536 + 2)
            image.write(b'\0\0')
        self.assert_found('qemu-img check', machine)

    def test_failure_shows_its_steps(self):
        self.break_('revert', lambda *args: None)
        error = self.assertRaises(AssertionError, self.torture, 400, 0)
        self.assertIn('blocks differ', str(error))
        self.assertIn('\nrevert(volume=volume_', self.output.getvalue())
