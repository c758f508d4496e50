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


"""A service that is killed, or whose share loses power, at any step.

An operation runs once to its end, and each system call that changes the share
or the database is noted: that are its steps. Then it runs again for each of
them, on the same files and the same database, and the service is killed right
before that step, with all it has started. (After a step is before the next
one, or at the end.) Then a new driver starts, and

* what is not being changed reads as before; what is reads as before or after,
  or can't be read before it is completed or deleted; if the database says that
  the operation is done, all reads as after;
* the operation, repeated, comes to its end, and all is as if it had never been
  interrupted; or it is given up, and all is as if it had never begun;
* the volumes, deleted, leave nothing behind.

When a share's servers lose power there is less left than after a kill: what
was not synced. These states are made from the steps, see :class:`PowerCuts`.

The ordinary run cuts only before the last step on a file that has not got its
name yet, and before the first and the last of other runs of the same call.
With CINDER_LUSTRE_KILLS=all it cuts before each.

doc/source/contributor/kill-points.csv lists the steps. A test fails where it
is not up to date; CINDER_LUSTRE_KILLS=write mends it.
"""

import contextlib
import csv
import dataclasses
import io
import itertools
import os
import re
import shutil
import subprocess

import ddt
from eventlet import tpool

from cinder.backup.drivers import lustre as lustre_backup
from cinder.db import api as db
from cinder import exception
from cinder import objects
from cinder.objects import fields
from cinder.privsep import lustre as privileged
from cinder.tests.functional.lustre import base
from cinder.tests.functional.lustre import stand_ins
from cinder.tests.functional.lustre.torture import steps
from cinder.tests.unit import utils as tests_utils

MODE = os.environ.get('CINDER_LUSTRE_KILLS', '')

TABLE = os.path.join(os.getcwd(), 'doc', 'source', 'contributor',
                     'kill-points.csv')

THIN, THIN_RAW, THICK, THICK_QCOW2 = (
    {'provisioning__type': provisioning, 'lustre__format': image_format}
    for provisioning, image_format in (
        ('thin', 'qcow2'), ('thin', 'raw'), ('thick', 'raw'),
        ('thick', 'qcow2')))
ENCRYPTED = 'encrypted'

LAID_OUT = dict(THIN, lustre__stripe_count='2')

# Of a file that is no volume's.
FILE = 'disk.img'

# What qemu-img check exits with.
_LEAKS = 3


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operation on a world of volumes and snapshots.

    :ivar name: as in the table
    :ivar prepare: given the test, makes the world: a namespace of the ids of
        volumes and snapshots
    :ivar run: given the test and the world, does it, as cinder-volume does
    :ivar give_up: given the same, what may be done instead of a repetition,
        such that all is as before
    :ivar repeat: whether it can be repeated; or does that, given the same,
        and may return what is expected then
    :ivar slow: QEMU takes seconds for it, so that the ordinary run leaves the
        power cuts out
    :ivar deletable: whether volumes can be deleted before it is repeated
    """

    name: str
    prepare: object
    run: object
    give_up: object = None
    repeat: object = True
    slow: bool = False
    deletable: bool = True

    @property
    def __name__(self):
        """What ddt adds to a test's name."""
        return self.name


# Worlds

@dataclasses.dataclass
class World:
    """The ids of what an operation is about.

    :ivar volume: a volume with data
    :ivar taken: its snapshots, the oldest first
    :ivar snapshot: one that is being taken, managed or deleted
    :ivar new: a volume that is being made
    :ivar unfinished: what can't be read before it is available
    :ivar file: name and format of a file that is or becomes no volume's
    :ivar backup: a backup that is being made or restored
    :ivar type: the id of a volume type that it gets
    :ivar twin: the same of the other volume of a group
    """

    volume: str = None
    taken: list = dataclasses.field(default_factory=list)
    snapshot: str = None
    new: str = None
    unfinished: list = dataclasses.field(default_factory=list)
    file: tuple = (None, None)
    backup: str = None
    type: str = None
    twin: 'World' = None

    def all(self):
        return [self, self.twin] if self.twin else [self]


def of_type(test, specs):
    """The fields of a volume's record; an encrypted one has a key."""
    return test.encrypted() if specs is ENCRYPTED else {'specs': specs}


def volume(specs, *status, snapshots=0):
    """A volume with data, and with a different one in each snapshot."""
    def prepare(test):
        made = test.create(**of_type(test, specs))
        taken = []
        test.write(made, 1)
        for number in range(snapshots):
            taken.append(test.snapshot(made).id)
            test.write(made, 2 + number, (number + 1) * base.MIB // 2)
        test.update(made, *status)
        return World(volume=made.id, taken=taken)
    return prepare


def doomed(which, specs, snapshots):
    """A volume with a snapshot that is being deleted."""
    def prepare(test):
        world = volume(specs, snapshots=snapshots)(test)
        world.snapshot = world.taken[which]
        test.update(test.snapshot_of(world), 'deleting')
        return world
    return prepare


def with_snapshot_record(specs, snapshots=0):
    """A volume of which a snapshot is being taken."""
    def prepare(test):
        world = volume(specs, snapshots=snapshots)(test)
        world.snapshot = test.snapshot_record(test.volume_of(world)).id
        return world
    return prepare


def to_retype(specs, new_specs, snapshots=0):
    """A volume that is getting another type."""
    def prepare(test):
        world = volume(specs, 'retyping', snapshots=snapshots)(test)
        world.type = test.volume_type(**new_specs).id
        return world
    return prepare


def with_new(specs, size=1, source=None, snapshots=0):
    """A source, if any, and a volume that is being made."""
    def prepare(test):
        world = (volume(source, snapshots=snapshots)(test) if source
                 else World())
        world.new = test.volume_record(size, **of_type(test, specs)).id
        world.unfinished = [world.new]
        return world
    return prepare


def with_empty(specs):
    """A volume that has been made and is to be filled from an image."""
    def prepare(test):
        made = test.create(**of_type(test, specs))
        test.update(made, 'downloading')
        return World(new=made.id, unfinished=[made.id])
    return prepare


def in_group(prepare):
    """The same twice."""
    def prepare_both(test):
        world = prepare(test)
        world.twin = prepare(test)
        return world
    return prepare_both


def with_file(image_format):
    """A file that Cinder doesn't know, and a volume that it is to become."""
    def prepare(test):
        path = os.path.join(test.share_directories()[0], FILE)
        base.run('qemu-img', 'create', '-q', '-f', image_format, path, '10M')
        base.run('qemu-io', '-f', image_format, '-c', 'write -P 7 1M 1M',
                 path)
        new = test.volume_record(0, status='managing', specs={}).id
        return World(new=new, unfinished=[new], file=(FILE, image_format))
    return prepare


def to_give_back(test):
    """A volume that has had a snapshot."""
    world = volume(THIN)(test)
    made = test.volume_of(world)
    test.delete_snapshot(test.snapshot(made))
    test.update(made, 'unmanaging')
    world.file = made.name, 'qcow2'
    return world


def with_unknown_snapshot(test):
    """A snapshot that Cinder has forgotten, and one that it is to become."""
    world = volume(THIN_RAW, snapshots=1)(test)
    objects.Snapshot.get_by_id(test.context, world.taken[0]).destroy()
    world.snapshot = test.snapshot_record(test.volume_of(world)).id
    return world


def with_backup(specs, *status):
    """A backup that is being made."""
    def prepare(test):
        world = volume(specs, *status)(test)
        backup = tests_utils.create_backup(test.context, world.volume, size=1)
        # In no directory of its own: a power cut has more to it.
        test.update(backup, container='.', service_metadata=None)
        world.backup = backup.id
        return world
    return prepare


def to_restore(specs):
    """A backup that is being restored."""
    def prepare(test):
        world = with_backup(specs, 'backing-up')(test)
        back_up(test, world)
        test.update(test.backup_of(world), 'restoring')
        test.update(test.volume_of(world), 'restoring-backup')
        world.unfinished = [world.volume]
        return world
    return prepare


# What cinder-volume does

def create(test, world):
    new = test.volume_of(world, 'new')
    test._created(new, test.driver.create_volume(new))


def clone(test, world):
    new = test.volume_of(world, 'new')
    test._created(new, test.driver.create_cloned_volume(
        new, test.volume_of(world)))


def from_snapshot(test, world):
    new = test.volume_of(world, 'new')
    test._created(new, test.driver.create_volume_from_snapshot(
        new, objects.Snapshot.get_by_id(test.context, world.taken[0])))


def from_image(image_format):
    def run(test, world):
        new = test.volume_of(world, 'new')
        update = test.driver.create_volume(new)
        new.update(update)
        new.status = 'downloading'
        new.save()
        test.driver.copy_image_to_volume(
            test.context, new, test.image(image_format), 'image')
        test._created(new, update)
    return run


def download(test, world):
    filled = test.volume_of(world, 'new' if world.new else 'volume')
    test.driver.copy_image_to_encrypted_volume(
        test.context, filled, test.image('raw'), 'image')
    test.update(filled, 'available')


def group_from_source(test, world):
    new = [test.volume_of(each, 'new') for each in world.all()]
    _group, updates = test.driver.create_group_from_src(
        test.context, None, new, source_group=None,
        source_vols=[test.volume_of(each) for each in world.all()])
    for made, update in zip(new, updates):
        test._created(made, update)


def delete_new(test, world):
    for each in world.all():
        test.delete(test.volume_of(each, 'new'))


def delete(test, world):
    test.delete(test.volume_of(world))


def extend(test, world):
    made = test.volume_of(world)
    test.extend(made, 2)
    test.update(made, 'available')


def snapshot(test, world):
    taken = test.snapshot_of(world)
    test.driver.create_snapshot(taken)
    test.update(taken, fields.SnapshotStatus.AVAILABLE)


def delete_snapshot(test, world):
    test.delete_snapshot(test.snapshot_of(world))


def revert(test, world):
    made = test.volume_of(world)
    test.driver.revert_to_snapshot(
        test.context, made,
        objects.Snapshot.get_by_id(test.context, world.taken[-1]))
    test.update(made, 'available')


def retype(test, world):
    made = test.volume_of(world)
    done, _update = test.driver.retype(
        test.context, made,
        objects.VolumeType.get_by_id(test.context, world.type), {},
        {'host': made.host})
    assert done
    made.volume_type_id = world.type
    test.update(made, 'available')


def upload(test, world):
    test.driver.copy_volume_to_image(
        test.context, test.volume_of(world), test.image('raw'),
        {'id': 'image', 'disk_format': 'raw', 'container_format': 'bare'})


def group_snapshot(test, world):
    taken = [test.snapshot_of(each) for each in world.all()]
    _group, updates = test.driver.create_group_snapshot(
        test.context, None, taken)
    for snapshot, update in zip(taken, updates):
        test.update(snapshot, update['status'])


def delete_snapshots(test, world):
    for each in world.all():
        delete_snapshot(test, each)


def manage(test, world):
    adopt(test, test.volume_of(world, 'new'), world.file[0])


def adopt(test, new, file):
    reference = {'source-name': file}
    size = test.driver.manage_existing_get_size(new, reference)
    test._created(new, dict(test.driver.manage_existing(new, reference),
                            size=size))


def manage_again(test, world):
    """Forget the volume, and manage the file by the name that it has now."""
    new = test.volume_of(world, 'new')
    if new.status == 'available':
        return test.after
    new.destroy()
    again = test.volume_record(0, status='managing', specs={})
    adopt(test, again,
          new.name if new.name in test.listing() else world.file[0])
    return test.after_with(again.id, new.id)


def unmanage(test, world):
    made = test.volume_of(world)
    test.driver.unmanage(made)
    made.destroy()


def manage_snapshot(test, world):
    taken = test.snapshot_of(world)
    test.driver.manage_existing_snapshot(taken, {
        'source-name': '%s.%s' % (taken.volume.name, world.taken[0])})
    test.update(taken, fields.SnapshotStatus.AVAILABLE)


def manage_snapshot_again(test, world):
    """Forget the snapshot, and manage what there is of it."""
    known = test.snapshot_of(world)
    if known.status == fields.SnapshotStatus.AVAILABLE:
        return test.after
    known.destroy()
    again = test.snapshot_record(known.volume)
    manage_snapshot(test, dataclasses.replace(world, snapshot=again.id))
    return test.after_with(again.id, known.id)


# What cinder-backup does

def back_up(test, world):
    backup = test.backup_of(world)
    # What a service reads of a volume is another test's matter: a small disk
    # has less steps.
    disk = io.BytesIO(b'\1' * base.MIB + b'\2' * base.MIB)
    test.backup_driver().backup(backup, disk)
    test.update(backup, 'available')
    test.update(test.volume_of(world), 'available')


def give_up_backup(test, world):
    test.update(test.volume_of(world), 'available')
    backup = test.backup_of(world)
    test.backup_driver().delete_backup(backup)
    backup.destroy()


def restore(test, world):
    made, backup = test.volume_of(world), test.backup_of(world)
    connection = test.driver.initialize_connection(made, {})['data']
    path = os.path.join(test.directory(made), connection['name'])
    with open(path, 'wb') as disk:
        test.backup_driver().restore(backup, made.id, disk, False)
    test.driver.terminate_connection(made, {})
    test.update(made, 'available')
    test.update(backup, 'available')


def restore_again(test, world):
    test.update(test.volume_of(world), 'restoring-backup')
    test.update(test.backup_of(world), 'restoring')
    restore(test, world)


OPERATIONS = [
    *(Operation('create ' + name, with_new(specs), create, delete_new, False)
      for name, specs in (
          ('(thin qcow2)', THIN), ('(thin raw)', THIN_RAW),
          ('(thick raw)', THICK), ('(thick qcow2)', THICK_QCOW2))),
    *(Operation('clone ' + name,
                with_new(specs, 2, THIN, 1),
                clone, delete_new, False)
      for name, specs in (('(to larger qcow2)', THIN),
                          ('(to larger thick raw)', THICK))),
    *(Operation('volume from snapshot ' + name,
                with_new(specs, 2, THIN, 2),
                from_snapshot, delete_new, False)
      for name, specs in (('(to larger qcow2)', THIN),
                          ('(to larger raw)', THIN_RAW))),
    *(Operation('volume from image ' + name, with_new(specs),
                from_image(image_format), delete_new, False)
      for name, specs, image_format in (('(raw to qcow2)', THIN, 'raw'),
                                        ('(qcow2 to raw)', THIN_RAW,
                                         'qcow2'))),
    *(Operation('extend ' + name, volume(specs, 'extending',
                                         snapshots=snapshots), extend,
                slow=specs is THICK_QCOW2)
      for name, specs, snapshots in (
          ('(qcow2)', THIN, 0), ('(raw)', THIN_RAW, 0),
          ('(thick raw)', THICK, 0), ('(thick qcow2)', THICK_QCOW2, 0),
          ('(with a snapshot)', THIN_RAW, 1))),
    *(Operation('snapshot ' + name,
                with_snapshot_record(specs, snapshots),
                snapshot, delete_snapshot)
      for name, specs, snapshots in (('(first, of qcow2)', THIN, 0),
                                     ('(first, of raw)', THIN_RAW, 0),
                                     ('(second)', THIN_RAW, 1))),
    *(Operation('delete snapshot ' + name, doomed(which, specs, snapshots),
                delete_snapshot)
      for name, which, specs, snapshots in (
          ('(only, of qcow2)', 0, THIN, 1),
          ('(only, of thick raw)', 0, THICK, 1),
          ('(oldest of three)', 0, THIN_RAW, 3),
          ('(middle of three)', 1, THIN, 3),
          ('(newest of three)', 2, THIN, 3))),
    Operation('revert', volume(THIN, 'reverting', snapshots=2), revert),
    Operation('delete', volume(THIN, 'deleting'), delete),
    Operation('delete (with snapshots)',
              volume(THIN_RAW, 'deleting', snapshots=2), delete),
    Operation('upload', volume(THIN, 'uploading', snapshots=1), upload),
    Operation('reimage (with a snapshot)',
              volume(THIN_RAW, 'downloading', snapshots=1), download),
    *(Operation('manage ' + name, with_file(image_format), manage,
                repeat=manage_again)
      for name, image_format in (('(raw)', 'raw'), ('(qcow2)', 'qcow2'))),
    Operation('unmanage', to_give_back, unmanage),
    Operation('manage snapshot', with_unknown_snapshot, manage_snapshot,
              repeat=manage_snapshot_again, deletable=False),
    Operation('group snapshot', in_group(with_snapshot_record(THIN_RAW)),
              group_snapshot, delete_snapshots),
    Operation('group from source', in_group(with_new(THIN, source=THIN)),
              group_from_source, delete_new, False),
    Operation('create (encrypted)', with_new(ENCRYPTED), create, delete_new,
              False, slow=True),
    Operation('clone (encrypted, to larger)',
              with_new(ENCRYPTED, 2, ENCRYPTED), clone, delete_new, False,
              slow=True),
    Operation('volume from image (encrypted)', with_empty(ENCRYPTED),
              download, slow=True),
    Operation('extend (encrypted)', volume(ENCRYPTED, 'extending'), extend),
    Operation('snapshot (encrypted)', with_snapshot_record(ENCRYPTED),
              snapshot, delete_snapshot, slow=True),
    Operation('delete snapshot (encrypted, newest of two)',
              doomed(1, ENCRYPTED, 2), delete_snapshot),
    Operation('backup', with_backup(THIN_RAW, 'backing-up'), back_up,
              give_up_backup, False),
    *(Operation('restore ' + name, to_restore(specs), restore,
                repeat=restore_again)
      for name, specs in (('(to raw)', THIN_RAW), ('(to thick raw)', THICK))),
    Operation('create (with a layout)', with_new(LAID_OUT), create,
              delete_new, False),
    Operation('retype (to another layout)',
              to_retype(THIN, LAID_OUT, snapshots=1), retype),
    Operation('retype (thin to thick raw)', to_retype(THIN_RAW, THICK),
              retype),
    Operation('retype (thick to thin raw)', to_retype(THICK, THIN_RAW),
              retype),
]


def row(name):
    """Find an operation's row of the table."""
    with open(TABLE, newline='') as table:
        return {line[0]: line for line in csv.reader(table)}.get(name)


def write_row(new):
    """Put a row into the table, in the order of the operations."""
    names = [operation.name for operation in OPERATIONS]
    with open(TABLE, newline='') as table:
        head, *rows = csv.reader(table)
    rows = {line[0]: line for line in rows + [new]}
    with open(TABLE, "w", newline="") as table:
        csv.writer(table, lineterminator='\n').writerows(
            [head] + [rows[name] for name in names if name in rows])


def copy_sparse(source, target):
    """Copy a file, but neither its holes nor its zeros.

    cp(1) reads all of a file that has its space allocated. What has been read
    of such space counts as data.
    """
    zeros = bytes(base.BLOCK)
    with open(source, 'rb') as f, open(target, 'wb') as copy:
        copy.truncate(os.fstat(f.fileno()).st_size)
        for offset in base.data_blocks(f):
            block = os.pread(f.fileno(), base.BLOCK, offset)
            if block != zeros:
                copy.seek(offset)
                copy.write(block)
    shutil.copymode(source, target)


class Saved:
    """A copy of the files of the shares and of the database."""

    def __init__(self, test, database):
        self._test = test
        self._database = database
        self._path = os.path.join(test.temp, 'saved-%d' % next(self._numbers))
        os.mkdir(self._path)
        for number, share in enumerate(test.share_directories()):
            self._copy_all(share, os.path.join(self._path, str(number)))
        test.close_database()
        shutil.copy(database, os.path.join(self._path, 'database'))

    _numbers = itertools.count()

    def restore(self):
        for number, share in enumerate(self._test.share_directories()):
            # The directory itself is mounted.
            for name in os.listdir(share):
                os.unlink(os.path.join(share, name))
            self._copy_all(os.path.join(self._path, str(number)), share)
        self._test.close_database()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._database + '-journal')
        shutil.copy(os.path.join(self._path, 'database'), self._database)

    @staticmethod
    def _copy_all(source, target):
        shutil.copytree(source, target, copy_function=copy_sparse,
                        dirs_exist_ok=True)

    def remove(self):
        shutil.rmtree(self._path)


class _File:
    """A file that a share had, and a copy of what was synced of it."""

    def __init__(self, copy=None):
        self.copy = copy


class PowerCuts:
    """What a share is left with when its servers lose power.

    Of a file's data there is what was synced last, and no data if it never
    was. Of the names there are those of the last sync of the directory, or
    those at the moment: on Lustre the names are another server's than the
    data. A state is a moment's database with one of these; equal ones are
    kept once.

    :param test: the test, whose first share it is
    """

    def __init__(self, test):
        self._test = test
        self._share = test.share_directories()[0]
        self._copies = itertools.count()
        self._files = {}        # by inode
        self._names = {}        # as the directory was synced
        self._synced = None     # by the step that is being made
        self._start()
        self.states = {}

    def _start(self):
        for name in os.listdir(self._share):
            path = os.path.join(self._share, name)
            self._files[os.stat(path).st_ino] = _File(self._copied(path))
        self._names = self._current()

    def before(self, step):
        """Note what is left if the power goes before a step."""
        self._complete()
        self.note(step)
        if step.is_sync:
            self._synced = self._sync(step.paths[0])
        return True

    def end(self):
        self._complete()
        self.note('the end')

    def note(self, step):
        database = self._test.database
        moment = [self._content(database),
                  self._content(database + '-journal')]
        for names in self._names, self._current():
            state = {name: file.copy for name, file in names.items()}
            self.states.setdefault((*moment, *sorted(
                (name, copy or '') for name, copy in state.items())),
                (step, state))

    def restore(self, key):
        """Bring the share and the database into a state."""
        _step, state = self.states[key]
        for name in os.listdir(self._share):
            os.unlink(os.path.join(self._share, name))
        for name, copy in state.items():
            path = os.path.join(self._share, name)
            if copy:
                copy_sparse(copy, path)
            else:
                os.close(os.open(path, os.O_CREAT, 0o660))
        self._test.close_database()
        for suffix, content in zip(('', '-journal'), key):
            path = self._test.database + suffix
            if content is not None:
                with open(path, 'wb') as f:
                    f.write(content)
            elif os.path.exists(path):
                os.unlink(path)

    def _sync(self, path):
        """Copy what is synced; it counts when the call has been made."""
        if os.path.isdir(path):
            names = self._current()
            return lambda: setattr(self, '_names', names)
        file, copy = self._files[os.stat(path).st_ino], self._copied(path)
        return lambda: setattr(file, 'copy', copy)

    def _complete(self):
        if self._synced:
            self._synced()
        self._synced = None

    def _current(self):
        """The names at the moment, with their files."""
        inodes = {entry.name: entry.inode()
                  for entry in os.scandir(self._share)}
        # An inode's number may be used again once its file is gone.
        self._files = {inode: self._files.get(inode) or _File()
                       for inode in inodes.values()}
        return {name: self._files[inode] for name, inode in inodes.items()}

    def _copied(self, path):
        copy = os.path.join(self._test.temp, 'synced-%d' % next(self._copies))
        copy_sparse(path, copy)
        return copy

    @staticmethod
    def _content(path):
        try:
            with open(path, 'rb') as f:
                return f.read()
        except FileNotFoundError:
            return None


class StepsTestCase(base.LustreTestCase):

    def setUp(self):
        super().setUp()
        self.database = os.path.join(self.temp, 'cinder.sqlite')
        self.useFixture(stand_ins.DatabaseFile(self.database))
        self._read = {}
        self._backup_client = None
        self._configure_backups()
        self.addCleanup(self._end_backups)

    def new_driver(self, *args, **options):
        # A step waits until the test has looked at it.
        return super().new_driver(*args, lustre_operation_timeout=120,
                                  **options)

    def _configure_backups(self):
        for name, value in {
                'lustre_backup_share': self.shares[0],
                'lustre_backup_mount_point': self.mount_base,
                'lustre_backup_file_system_types': base.FILE_SYSTEM_TYPES,
                'backup_file_size': base.MIB,
                'backup_sha_block_size_bytes': base.MIB,
                'backup_enable_progress_timer': False}.items():
            self.override_config(name, value)

    # For operations

    def backup_driver(self):
        driver = lustre_backup.LustreBackupDriver(self.context)
        self._backup_client = driver._client
        return driver

    def _end_backups(self):
        """Let the next driver have a client and threads of its own."""
        if self._backup_client:
            self._backup_client.close()
            lustre_backup._share_client.cache_clear()
            self._backup_client = None
        tpool.killall()

    def backup_of(self, world):
        return objects.Backup.get_by_id(self.context, world.backup)

    def volume_of(self, world, which='volume'):
        return objects.Volume.get_by_id(self.context, getattr(world, which))

    def snapshot_of(self, world):
        return objects.Snapshot.get_by_id(self.context, world.snapshot)

    def update(self, record, *status, **values):
        record.update({'status': status[0]} if status else values)
        record.save()

    def image(self, image_format):
        path = os.path.join(self.temp, 'image.' + image_format)
        if not os.path.exists(path):
            base.run('qemu-img', 'create', '-q', '-f', image_format, path,
                     '4M')
            base.run('qemu-io', '-f', image_format, '-c',
                     'write -P 65 1M 1M', path)
        return stand_ins.ImageService(path, image_format)

    # What there is

    def share_directories(self):
        return [path + share[len(root):] for (root, path), share in
                zip(self.file_systems.roots, self.shares)]

    @staticmethod
    def close_database():
        db.get_engine().dispose()

    def everything(self):
        return {**self.contents(), 'files': self.files()}

    def after_with(self, new, old):
        """What is expected at the end, but for the id of a record."""
        expected = {
            {old: new, (old, 'size'): (new, 'size')}.get(key, key): value
            for key, value in self.after.items()}
        expected['files'] = [name.replace(old, new)
                             for name in expected['files']]
        return expected

    def records(self):
        """What the database says."""
        return sorted(
            [(made.id, made.status, made.size)
             for made in objects.VolumeList.get_all(self.context)] +
            [(taken.id, taken.status, taken.volume_size)
             for taken in objects.SnapshotList.get_all(self.context, {})] +
            [(backup.id, backup.status, backup.size)
             for backup in objects.BackupList.get_all(self.context)])

    def contents(self):
        """What read all volumes, snapshots and backups that can be read."""
        return {**self.contents_of_volumes(), **self.contents_of_backups(),
                **{name: self.image_content(
                    os.path.join(self.share_directories()[0], name),
                    self.world.file[1])[1] for name in self.unmanaged()}}

    def unmanaged(self):
        """Name the file that is no volume's, if it is there."""
        volumes = [made.name for made in
                   objects.VolumeList.get_all(self.context)]
        return [name for name in self.listing()
                if name == self.world.file[0] and name not in volumes]

    def contents_of_backups(self):
        contents = {}
        for backup in objects.BackupList.get_all(self.context):
            if backup.status == 'available':
                path = os.path.join(self.temp, 'restored')
                self.update(backup, 'restoring')
                with open(path, 'wb') as disk:
                    self.backup_driver().restore(backup, backup.volume_id,
                                                 disk, False)
                self.update(backup, 'available')
                contents[backup.id] = base.digest(path)
        return contents

    def contents_of_volumes(self):
        unfinished = [made for world in self.world.all()
                      for made in world.unfinished]
        contents = {}
        for made in objects.VolumeList.get_all(self.context):
            if made.status == 'deleting' or (
                    made.status != 'available' and made.id in unfinished):
                continue
            contents[made.id, 'size'] = made.size
            contents[made.id] = self.attach_and_read(made)
            for taken in objects.SnapshotList.get_all_for_volume(
                    self.context, made.id):
                if taken.status == fields.SnapshotStatus.AVAILABLE:
                    contents[taken.id] = self.read(
                        made, self.driver._images(made).snapshot(taken.id))
        return contents

    def attach_and_read(self, made):
        status = made.status
        try:
            with self.attached(made):
                pass
        except exception.InvalidVolume:
            # It has been made larger; it can't be attached until the
            # extension has been repeated.
            self.assertEqual('extending', status)
        return self.read(made, self.driver._images(made).active())

    def read(self, made, image):
        """Check and read an image, unless it has been read before."""
        passphrase = self.passphrase(made)
        chain = self.driver._images(made)._follow(image.file)
        key = tuple(base.digest(image.path) for image in chain)
        if key not in self._read:
            for link in chain:
                if link.format == 'qcow2':
                    self.check_image(link.path, passphrase)
            self._read[key] = self.image_content(image.path, image.format,
                                                 passphrase)
        return self._read[key]

    def check_image(self, path, key):
        with self.opened({'path': path, 'format': 'qcow2',
                          'key': key}) as image:
            done = subprocess.run(['qemu-img', 'check', '-q', *image],
                                  capture_output=True, text=True)
        # Clusters that are allocated and not used do no harm.
        self.assertIn(done.returncode, (0, _LEAKS), done.stdout + done.stderr)

    def files(self):
        """All files, except for records, which outlive the snapshots."""
        return [name for share in (0, 1) for name in self.listing(share)
                if not name.endswith('.info')]

    # Steps

    def run_by_steps(self, operation, world, before):
        # What is open here must not be shared with another process.
        self.driver._client.close()
        self._end_backups()
        privileged._guard.close()
        self.close_database()
        ended = steps.supervise(
            lambda: operation.run(self, world), self.watched, before)
        self.driver = self.new_driver()
        return ended

    def watched(self, path):
        return (path.startswith(self.mount_base)
                or path == self.database + '-journal')

    def steps_of(self, operation, world, cuts):
        """Run an operation to its end and return its steps."""
        found = []

        def note(step):
            if self.is_part_of_transaction(step):
                return True
            found.append(step)
            return cuts.before(step)

        self.assertTrue(self.run_by_steps(operation, world, note))
        cuts.end()
        return found

    def is_part_of_transaction(self, step):
        """SQLite commits by removing its journal."""
        return (step.paths[0].startswith(self.database)
                and step.call != 'unlink')


@ddt.ddt
class KillTest(StepsTestCase):

    def test_table_is_complete(self):
        with open(TABLE, newline='') as table:
            self.assertEqual([operation.name for operation in OPERATIONS],
                             [line[0] for line in csv.reader(table)][1:])

    @ddt.data(*OPERATIONS)
    def test_kills(self, operation):
        self.operation = operation
        self.world = operation.prepare(self)
        self.before = self.everything()
        start = Saved(self, self.database)
        cuts = PowerCuts(self)
        found = self.steps_of(operation, self.world, cuts)
        self.after, self.acknowledged = self.everything(), self.records()
        self.check_table(found)
        for number in self.kill_points(found):
            start.restore()
            self.kill_before(number, found)
            self.check_killed()
        if self.operation.slow and MODE != 'all':
            return
        for key in cuts.states:
            cuts.restore(key)
            self.point = (operation.name, 'power cut before',
                          cuts.states[key])
            self.check_killed()

    def kill_points(self, found):
        """Number the steps before which to kill, and the end."""
        points = {len(found)}
        for (of_new_file, *_same), run in itertools.groupby(
                enumerate(found), key=self.run_of):
            numbers = [number for number, step in run if not step.is_sync]
            if MODE != 'all':
                first = [] if of_new_file else numbers[:1]
                numbers = first + numbers[-1:]
            points.update(numbers)
        return sorted(points)

    @staticmethod
    def run_of(numbered):
        """Tell what a step has in common with those around it."""
        _number, step = numbered
        if len(step.paths) == 1 and step.paths[0].endswith('.new'):
            return True, step.paths
        return False, step.command, step.call, step.paths

    def kill_before(self, number, found):
        count = itertools.count()

        def before(step):
            return (self.is_part_of_transaction(step)
                    or next(count) != number)

        self.run_by_steps(self.operation, self.world, before)
        self.point = (self.operation.name, number, len(found),
                      [self.described(step) for step
                       in found[max(0, number - 1):number + 1]])

    def check_killed(self):
        self.assert_before_or_after()
        killed = Saved(self, self.database)
        repeat = self.operation.repeat
        if repeat:
            self.finish(self.operation.run if repeat is True else repeat,
                        self.after)
        if self.operation.deletable:
            killed.restore()
        if self.operation.give_up:
            self.finish(self.operation.give_up, self.before)
            killed.restore()
        self.delete_everything()
        killed.remove()

    def assert_before_or_after(self):
        contents = self.contents()
        for key, content in contents.items():
            self.assertIn(content, (self.before.get(key),
                                    self.after.get(key)), self.point)
        if self.records() == self.acknowledged:
            self.assertEqual(self.after, {**contents, 'files':
                                          self.after['files']}, self.point)

    def finish(self, work, expected):
        try:
            expected = work(self, self.world) or expected
        except exception.NotFound:
            # It was acknowledged right before the kill.
            pass
        found = self.everything()
        for key in {*found, *expected}:
            if key in {**self.before, **self.after, **expected}:
                self.assertEqual(expected.get(key), found.get(key),
                                 self.point)

    def delete_everything(self):
        unmanaged = self.unmanaged()
        for backup in objects.BackupList.get_all(self.context):
            self.backup_driver().delete_backup(backup)
        # Cinder deletes no volume of which a snapshot is being taken.
        for taken in objects.SnapshotList.get_all(self.context, {}):
            if taken.status == fields.SnapshotStatus.CREATING:
                self.driver.delete_snapshot(taken)
        for made in objects.VolumeList.get_all(self.context):
            self.driver.delete_volume(made)
        self.assertEqual([unmanaged, []], [self.listing(0), self.listing(1)],
                         self.point)

    # The table

    def check_table(self, found):
        text = self.table_text(found)
        if MODE == 'write':
            write_row([self.operation.name, str(len(
                [step for step in found if not step.is_sync]) + 1), text])
        if self.file_systems.sandboxed:
            self.assertEqual(self.without_counts(text), self.without_counts(
                row(self.operation.name)[2]))

    def table_text(self, found):
        """Describe the steps; those of a command are counted only."""
        described = []
        for command, group in itertools.groupby(
                found, key=lambda step: step.command):
            group = list(group)
            if command:
                described.append('%s (%d)' % (command, len(
                    [step for step in group if not step.is_sync])))
            else:
                described += [self.described(step) for step in group]
        return ', '.join(
            '%d x %s' % (count, text) if count > 1 else text
            for text, count in (
                (text, len(list(same)))
                for text, same in itertools.groupby(described)))

    @staticmethod
    def without_counts(text):
        """Leave out how often, and what QEMU was asked for again.

        It sometimes can't measure the time of a key: see Place.qemu_img().
        """
        text = re.sub(r'\(\d+\)', '()', text)
        # In memory, or on the share.
        text = re.sub(r'open ([^,]+), unlink \1, ', '', text)
        return re.sub(r'(open [^,]+, qemu-img \w+ \(\), )\1+', r'\1', text)

    def described(self, step):
        if step.paths[0].startswith(self.database):
            return 'commit'
        return ' '.join(filter(None, (
            step.command, step.call, *map(self.short_name, step.paths))))

    def short_name(self, path):
        """Name a file so that it is the same in each run."""
        name = os.path.basename(path)
        if os.path.dirname(path) == self.mount_base:
            return 'directory'
        for label, world in zip(('volume', 'twin'), self.world.all()):
            names = {taken: 'snapshot%d' % number
                     for number, taken in enumerate(world.taken, 1)}
            names['volume-%s' % (world.new or world.volume)] = label
            names[world.snapshot] = 'snapshot'
            for uuid in filter(None, names):
                name = name.replace(uuid, names[uuid])
        return re.sub('volume_.*_backup_' + (self.world.backup or ''),
                      'backup', name)
