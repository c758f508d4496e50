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

"""Image files on a share, and the chains they form.

A volume named ``volume-X`` has these files on its share:

``volume-X``
    Its first image, raw or qcow2. Which of both is recorded in the volume's
    admin metadata when the image is made (``base_format``), and never changes.
``volume-X.<snapshot id>``
    Overlays, qcow2 always. An overlay holds what was written since the
    snapshot was taken; the snapshot itself is what lies below the overlay.
``volume-X.info``
    The record, as RemoteFSSnapDriver knows it: JSON that tells the active
    image, and for each snapshot the overlay that was made for it. Without it
    the active image is ``volume-X``.
``volume-X.new``, ``volume-X.info.new``
    What is being made. Never part of a volume; replaced by the next attempt,
    removed with the volume, or with the snapshot that was not taken.

The record decides. Every operation holds the volume's lock, changes the record
in one step (a rename), and is ordered around it so that a kill between two
steps leaves a volume that reads as before, or as after, and that the same
operation, repeated, completes:

create, copy, import
    Fill ``.new``; rename it. (No record.) This, as any other ``.new`` that
    becomes an image, is made with the layout of the volume's type.
snapshot
    Fill ``.new`` as an overlay of the active image; rename it; write the
    record with the overlay as active. A kill before the record leaves an
    overlay nobody knows, which a repetition replaces.
delete a snapshot
    Commit its overlay into the image below; let the overlay above point to
    that image or, where there is none above, write the record with that image
    as active; remove the overlay; write the record without the snapshot. The
    overlay is kept intact by the commit, so all images read the same until it
    is gone, and the record names it until then.
move to another directory
    Note both; give all files a second name there; let Cinder know; remove the
    first names, and the note. Whenever this is interrupted, all names are in
    the directory that Cinder knows of, and the note leads a repetition, or the
    deletion, to those in the other one.
move to another layout
    Let Lustre move the bytes of one image after the other, from the base up;
    each keeps its name and inode.
revert
    Fill ``.new`` as an empty overlay of what is below the active image; rename
    it over the active image.
adopt
    Grow a file that was no volume's; rename it. (No record.)
release
    Rename the one image to the volume's name, unless it has it; remove the
    record.
delete
    Remove the chain from its base up, and the record last: it leads a
    repetition to what is left. Snapshots that go with their volume are only
    taken from the record.

The distributed lock may be lost: its server forgets it, or takes a service
that stands still for dead. And a service that was killed may leave a process
behind that waits for a server and finishes one more call. So each operation
also holds a lock on the share itself (``.locks``), which ends when the last
process has that could still do something for it
(:meth:`os_brick.remotefs.lustre.ShareClient.locked`).

No other module runs qemu-img on a share (:mod:`cinder.lustre.places` says how
it is run). This one names the format of every image, and opens an image with
all below it as recorded: as a ``json:`` block node, where the header's own
idea of a backing file is not followed.

An encrypted volume has LUKS in each of its qcow2 images, all with the volume's
one key. qemu-img reads it from a file in memory.
"""

import contextlib
import dataclasses
import functools
import json
import os
import shutil
import signal

from oslo_concurrency import processutils
from oslo_log import log as logging
from oslo_utils import excutils
from oslo_utils import units

from cinder import exception
from cinder.i18n import _
from cinder.lustre import encryption
from cinder.lustre import files
from cinder.lustre import layout
from cinder.lustre import projects
from os_brick.remotefs import lustre_guard

LOG = logging.getLogger(__name__)

RAW = 'raw'
QCOW2 = 'qcow2'
FORMATS = (RAW, QCOW2)

THIN = 'thin'
THICK = 'thick'
PROVISIONING = (THIN, THICK)

# What qemu-img check may have to read, in bytes: an eight-thousandth of a disk
# of 32 TiB. And its exit code where some clusters are lost, but none damaged.
_MOST_METADATA = 4 * units.Gi
_LEAKS = 3

_ACTIVE = 'active'


def _preallocation(space):
    return () if space == 'off' else ('-o', 'preallocation=' + space)


def _written(space, size):
    """Return how many bytes of an empty image may have to be written."""
    return 0 if space == 'off' else size


def check_qemu_img():
    """Make sure that qemu-img is there.

    :raises VolumeDriverException: it isn't
    """
    if not shutil.which('qemu-img'):
        raise exception.VolumeDriverException(message=_(
            "qemu-img is not installed (qemu-utils)"))


class InvalidImage(exception.VolumeDriverException):
    message = _("Image %(image)s on %(share)s can't be used: %(reason)s. "
                "Nothing was changed.")


@dataclasses.dataclass(frozen=True)
class Image:
    """An image of a chain.

    :ivar path: where it is
    :ivar format: raw or qcow2, as recorded; one that is imported may have
        another format that QEMU knows
    :ivar virtual_size: bytes that a guest sees
    :ivar key: the :class:`cinder.lustre.encryption.Key` it is encrypted with,
        or None
    :ivar backing: the image below, or None
    :ivar share: the :class:`os_brick.remotefs.lustre.Share` it is on; None
        for a local file
    """

    path: str
    format: str
    virtual_size: int
    key: encryption.Key = None
    backing: 'Image' = None
    share: object = dataclasses.field(default=None, compare=False)

    @property
    def file(self):
        return os.path.basename(self.path)

    @property
    def downwards(self):
        """This image and those below, in a list."""
        return [self] + (self.backing.downwards if self.backing else [])

    @property
    def alone(self):
        """This image without the ones below."""
        return dataclasses.replace(self, backing=None)

    @property
    def node(self):
        """How QEMU is to open it: its blockdev options."""
        node = {'driver': self.format,
                'file': {'driver': 'file', 'filename': self.path}}
        if self.key:
            node.update(self.key.to_open(self.format))
        if self.backing:
            node['backing'] = self.backing.node
        return node

    def __str__(self):
        """What qemu-img takes for a file name."""
        return 'json:' + json.dumps(self.node)


def _locked(method):
    """Hold the volume's lock on the share."""
    @functools.wraps(method)
    def wrapper(self, *args, **kwargs):
        with self.locked():
            return method(self, *args, **kwargs)
    return wrapper


class VolumeImages:
    """The images of one volume.

    The caller holds the volume's distributed lock.

    :param place: the :class:`cinder.lustre.places.Place` of the volume's share
    :param name: the volume's name, which names its files
    :param base_format: the recorded format of the file of that name; None if
        there is none yet
    :param provisioning: thin or thick
    :param key: the :class:`cinder.lustre.encryption.Key` of an encrypted
        volume
    :param wanted_layout: called when a file is to be made: returns the
        :class:`cinder.lustre.layout.Layout` for it, or None
    :param project: the Lustre project that the files are of, or None
    """

    def __init__(self, place, name, base_format, provisioning, key=None,
                 wanted_layout=lambda: None, project=None):
        self._place = place
        self._name = name
        self._base_format = base_format
        self._provisioning = provisioning
        self._key = key
        self._wanted_layout = wanted_layout
        self._project = project

    def locked(self):
        """Hold the volume's lock on the share for several operations."""
        return self._place.locked(self._name)

    # What there is

    @_locked
    def chain(self):
        """Return the volume's images, from the active one to the base.

        :raises InvalidImage: an image is missing or not what is recorded
        """
        return self._follow(self._active(self.record()))

    def active(self):
        """Return the image that a guest writes to."""
        return self.chain()[0]

    def snapshot(self, snapshot_id):
        """Return the image that holds the data of a snapshot.

        It can be read, even while the volume is attached: QEMU keeps what it
        has open when a file changes hands.

        :raises InvalidImage: there is no such snapshot
        """
        image = self._below(self._overlay(self.record(), snapshot_id))
        self._claim(i.file for i in image.downwards)
        return image

    @_locked
    def snapshots_on(self, snapshot_id):
        """Return the IDs of snapshots that have the data of this one below.

        Itself is one of them, if it has been taken; then come the newer ones.
        """
        record = self.record()
        upper = []
        for image in self.chain():
            upper.append(image.file)
            if image.file == record.get(snapshot_id):
                return {key for key, file in record.items()
                        if key != _ACTIVE and file in upper}
        return set()

    @_locked
    def claim(self):
        """Make sure that the service may write all images of the volume.

        For a volume that is not attached: libvirt may have left its images to
        another user.
        """
        self._claim(self._known_files(self.record()))
        self._claim(image.file for image in self.chain())

    # The record

    def record(self):
        """Read the volume's record; {} if there is none.

        :raises InvalidImage: it is damaged
        """
        path = self._path('.info')
        content = self._place.call(files.read, path)
        if content is None:
            return {}
        try:
            return self._checked_record(json.loads(content))
        except ValueError as exc:
            raise self._invalid(os.path.basename(path), _(
                "%s; write it again as \"A damaged record\" in the driver's "
                "documentation says, or delete the volume") % exc)

    def recorded_id(self, file):
        """Return the ID under which a snapshot's overlay is recorded.

        :param file: the overlay's name
        :raises InvalidImage: it is in no record
        """
        for snapshot_id, overlay in self.record().items():
            if overlay == file and snapshot_id != _ACTIVE:
                return snapshot_id
        raise self._invalid(file, _("it is no overlay of %s") % self._name)

    def record_as(self, old_id, snapshot_id):
        """Record a snapshot under another ID; its overlay keeps its name."""
        record = self.record()
        record[snapshot_id] = record.pop(old_id)
        self.write_record(record)

    def snapshot_ids(self):
        """Return the IDs of all snapshots that the record knows."""
        return [key for key in self.record() if key != _ACTIVE]

    def _checked_record(self, record):
        if not isinstance(record, dict) or record and _ACTIVE not in record:
            raise ValueError(_("it names no active image"))
        for file in record.values():
            if not files.belongs(str(file), self._name):
                raise ValueError(_("it names %s") % file)
        return record

    @_locked
    def write_record(self, record):
        """Replace the volume's record."""
        path = self._path('.info')
        content = json.dumps(record, indent=1, sort_keys=True).encode()
        self._place.call(files.replace, path, path + '.new', content,
                         self._place.mode)

    # Making images

    @_locked
    def create(self, image_format, size):
        """Make the volume's first image, empty.

        :param size: bytes
        """
        with self._made(self._path()) as new:
            self._format(new, image_format, size)

    @_locked
    def copy(self, source, image_format, size):
        """Make the volume's first image with the content of another image.

        :param source: the :class:`Image`, with all below it
        :param size: bytes, at least the source's
        """
        with self._made(self._path()) as new:
            self._convert(source, new, image_format, size, ('-T', 'none'))

    @_locked
    def import_image(self, source, size):
        """Fill the volume with the content of a local file.

        Snapshots keep what they have: the volume's active image is replaced.

        :param source: the file as an :class:`Image` that needs no other file
        :param size: of the volume, in bytes
        """
        active = self.active()
        with self._made(active.path) as new:
            if active.backing:
                self._convert_onto(active.backing, source, new, size)
            else:
                self._convert(source, new, active.format, size)

    @_locked
    def export(self, path, file_format):
        """Write what a guest sees to a local file.

        :param file_format: one that QEMU knows; luks for an encrypted volume,
            whose content does not leave the share in the clear
        """
        source = self.active()
        self._place.qemu_img(
            'convert', '-O', file_format, *self._encrypted(file_format),
            '-T', 'none', source, path,
            keys=[self._key], copied=source.virtual_size)

    @_locked
    def grow(self, size):
        """Give the active image a larger size in bytes.

        For a raw image this is safe while QEMU has it open.
        """
        image = self.active()
        if image.format == RAW:
            self._grow_in_place(image.path, size)
        elif image.virtual_size < size:
            # qemu-img fails to preallocate what is as large already: a file
            # that is adopted, or an extension that is repeated.
            self._grow_qcow2(image, size)

    @_locked
    def complete(self, size, refill=False):
        """Give an image its full size again, and its space.

        A Cinder service that copies into a volume opens its file so that it
        is truncated, and writes no zeros: a raw file may end too early, and
        that of a thick volume has holes.

        :param size: bytes
        :param refill: allocate the space of a thick image even if it does
            have its size
        """
        image = self.active()
        if image.format == RAW and (image.virtual_size < size or refill):
            self._grow_in_place(image.path, size)
        elif image.key and refill:
            # The file as such was copied, but for what it had not written.
            self._allocate(image.path, size)

    # Moving

    @_locked
    def names(self):
        """Return the names of all files of the volume, its record's too."""
        record = self.record()
        return (sorted({*self._known_files(record),
                        *(image.file for image in self.chain())})
                + ([self._name + '.info'] if record else []))

    @_locked
    def layouts(self):
        """Return what each image is on, by its name, from the active one."""
        return {image.file: layout.of_file(self._place, image.path)
                for image in self.chain()}

    @_locked
    def lay_out(self, wanted):
        """Move the bytes of all images to where a layout puts them.

        For a volume that is not attached.

        :param wanted: the :class:`cinder.lustre.layout.Layout`; None for
            layouts as they are, off the OSTs that the place avoids
        """
        chain = self.chain()
        for number, image in enumerate(reversed(chain), 1):
            size = self._place.call(files.size, image.path)
            LOG.info('Image %(number)s of %(all)s of %(volume)s is looked at',
                     {'number': number, 'all': len(chain),
                      'volume': self._name})
            if layout.migrate(self._place, image.path, wanted, size):
                self._count(image.path, self._project)
                if image.backing is None:
                    self._allocate(image.path, size)

    @_locked
    def provision(self):
        """Give an image its space, or give back what it does not need.

        :raises InvalidVolume: only a raw image without snapshots can
        """
        image, *below = self.chain()
        if below or image.format != RAW:
            raise exception.InvalidVolume(reason=_(
                "%s has snapshots or is qcow2: its space can't be changed "
                "where it is") % self._name)
        size = image.virtual_size
        if self._provisioning == THICK:
            self._allocate(image.path, size)
        else:
            self._place.call(files.dig_holes, image.path, copied=size)
        self._place.call(files.sync, image.path)

    # Snapshots

    @_locked
    def add_overlay(self, snapshot_id):
        """Take a snapshot, as far as that can be done on the share."""
        record = self.record()
        if snapshot_id in record:
            return
        overlay = self.new_overlay(snapshot_id)
        record[snapshot_id] = record[_ACTIVE] = overlay.file
        self.write_record(record)

    @_locked
    def new_overlay(self, snapshot_id):
        """Make the overlay for a snapshot; the record isn't changed."""
        backing = self.active()
        path = self._path('.' + snapshot_id)
        with self._made(path) as new:
            self._make_overlay(new, backing)
        return Image(path, QCOW2, backing.virtual_size)

    @_locked
    def is_unused(self, snapshot_id):
        """Tell whether no guest has got the overlay of a snapshot."""
        return self._place.call(files.is_unused,
                                self._path('.' + snapshot_id))

    @_locked
    def take_back(self, snapshot_id, before):
        """Undo add_overlay() for a volume that may be attached.

        :param before: the :class:`Image` that was active before
        """
        record = self.record()
        if record.pop(snapshot_id, None):
            self.write_record({**record, _ACTIVE: before.file})
        self._remove_leftover('%s.%s' % (self._name, snapshot_id))

    @_locked
    def drop_overlay(self, snapshot_id):
        """Delete a snapshot of a volume that is not attached."""
        record = self.record()
        overlay = record.pop(snapshot_id, None)
        if overlay is None:
            # The snapshot was never taken, or has been deleted.
            for begun in snapshot_id, 'new', 'info.new':
                self._remove_leftover(self._name + '.' + begun)
            return
        chain = self.chain()
        for above, image, below in zip([None] + chain, chain, chain[1:]):
            if image.file == overlay:
                self._merge(above, image, below)
                if above is None:
                    record[_ACTIVE] = below.file
                    self.write_record({**record, snapshot_id: overlay})
        self._remove_leftover(overlay)
        self.write_record(record)

    @_locked
    def forget(self, snapshot_id):
        """Delete a snapshot of a volume that is about to be deleted.

        Its overlay stays in the chain, which reads as before.
        """
        record = self.record()
        if record.pop(snapshot_id, None):
            self.write_record(record)
        else:
            self.drop_overlay(snapshot_id)

    @_locked
    def revert(self, snapshot_id):
        """Go back to the newest snapshot of a volume.

        :raises InvalidSnapshot: it is not the newest
        """
        record = self.record()
        overlay = self._overlay(record, snapshot_id)
        if overlay != record[_ACTIVE]:
            raise exception.InvalidSnapshot(reason=_(
                "%(snapshot)s is not the newest snapshot of %(volume)s; "
                "delete the newer ones first") % {
                    'snapshot': snapshot_id, 'volume': self._name})
        backing = self._below(overlay)
        with self._made(self._join(overlay)) as new:
            self._make_overlay(new, backing)

    # Giving and taking

    def check(self):
        """Make sure that QEMU can use the one image, which others have made.

        :raises InvalidImage: it can't be opened, or is damaged
        """
        image = self.active()
        if image.format == RAW:
            return
        try:
            self._place.qemu_img('check', image, keys=[image.key],
                                 copied=_MOST_METADATA)
        except processutils.ProcessExecutionError as exc:
            if exc.exit_code != _LEAKS:
                raise self._invalid(image.file, _(
                    "qemu-img check fails: %s") % (exc.stderr or exc.stdout))

    @_locked
    def adopt_as(self, name, size, project=None):
        """Make the only image of a file that is no volume yet one's first.

        :param name: the volume's
        :param size: the volume's, in bytes
        :param project: the Lustre project of its files, or None
        """
        self.grow(size)
        self._count(self._path(), project)
        self._place.call(files.rename, self._path(), self._join(name),
                         self._place.mode)

    @_locked
    def release(self):
        """Leave the volume's data in the file of its name, and no other.

        :raises InvalidVolume: they are in more than one file
        """
        image, *below = self.chain()
        if below:
            raise exception.InvalidVolume(reason=_(
                "%(volume)s has snapshots that Cinder does not manage; manage "
                "and delete them first") % {'volume': self._name})
        if image.file != self._name:
            self._place.call(files.rename, image.path, self._path(),
                             self._place.mode)
        self._remove_all(self._name + '.new', self._name + '.info.new',
                         self._name + '.info')

    # Removal

    @_locked
    def remove(self):
        """Remove all files of the volume, whatever is left of them."""
        self._remove_all(self._name + '.new', self._name + '.info.new',
                         *self._files_to_remove(), self._name + '.info')

    def _files_to_remove(self):
        """Name the volume's images, from the base up.

        Where a damaged record doesn't tell, their names do: no other volume
        has files of such names.
        """
        try:
            record = self.record()
        except InvalidImage as exc:
            LOG.warning('%(exc)s Volume %(name)s is being deleted: its files '
                        'are found by their names instead.', {
                            'exc': exc, 'name': self._name})
            return self._place.call(files.named, self._place.directory,
                                    self._name)
        self._claim(self._known_files(record))
        links = self._place.call(files.links, self._place.directory,
                                 self._name, self._active(record))
        return [*reversed(links), *self._known_files(record)]

    # How it is done

    @contextlib.contextmanager
    def _made(self, path):
        """Make a file: give it its name when it is complete."""
        new = self._path('.new')
        self._create(new, path == self._path())
        try:
            yield new
            self._place.call(files.publish, new, path)
        except Exception:
            with excutils.save_and_reraise_exception():
                self._discard(new)

    def _create(self, path, is_first):
        """Make an empty file, whose layout stays what it is made with."""
        wanted = self._wanted_layout()
        if wanted:
            layout.create(self._place, path, wanted, is_first)
        else:
            self._place.call(files.create, path, self._place.mode)
        try:
            self._count(path, self._project)
        except exception.VolumeDriverException:
            with excutils.save_and_reraise_exception():
                self._discard(path)

    def _count(self, path, project):
        """Let a file's space count for a project, if there is one."""
        if project is not None:
            projects.give(self._place, path, project)

    def _discard(self, path):
        try:
            self._place.call(files.remove, [path])
        except (OSError, lustre_guard.ShareUnavailable) as exc:
            LOG.warning('%(path)s is left behind until the volume is '
                        'deleted: %(exc)s', {'path': path, 'exc': exc})

    def _format(self, path, image_format, size):
        if image_format == RAW:
            self._grow_raw(path, size)
        else:
            again = functools.partial(self._create, path, False)
            self._with_space(QCOW2, lambda space: self._place.qemu_img(
                'create', '-f', QCOW2, *self._encrypted(QCOW2),
                *_preallocation(space), path, size,
                keys=[self._key], copied=_written(space, size),
                made=path if space == 'off' else None, again=again), again)

    def _convert(self, source, path, image_format, size, cache=()):
        """Fill a file with a copy of an image, as large or larger."""
        order = ('-W',) if image_format == RAW else ()
        again = functools.partial(self._create, path, False)
        self._with_space(image_format, lambda space: self._place.qemu_img(
            'convert', '-O', image_format, *self._encrypted(image_format),
            *_preallocation(space), *cache, '-t', 'none', '-m', '16', *order,
            source, path,
            keys=[source.key, self._key], copied=source.virtual_size,
            source=source.share, again=again), again)
        if image_format == RAW:
            self._grow_raw(path, size)
        elif source.virtual_size < size:
            self._grow_qcow2(self._image(path, QCOW2, source.virtual_size),
                             size)

    def _convert_onto(self, backing, source, path, size):
        """Fill a file with an overlay that holds all of another image.

        Made as large as that image, so that all of it is written, zeros too,
        and then grown, which hides the rest of what is below with zeros.
        """
        overlay = self._image(path, QCOW2, source.virtual_size, backing)
        self._make_overlay(path, backing, overlay.virtual_size)
        self._place.qemu_img(
            'convert', '-n', '-O', QCOW2, '-t', 'none', '-m', '16',
            source, overlay,
            keys=[source.key, self._key], copied=source.virtual_size)
        self._grow_qcow2(overlay, size)

    def _grow_in_place(self, path, size):
        try:
            self._grow_raw(path, size)
            self._place.call(files.sync, path)
        except PermissionError:
            # It belongs to the hypervisor's user: it is attached.
            self._place.privileged_grow(path, size,
                                        self._provisioning == THICK)

    def _grow_raw(self, path, size):
        self._place.call(files.grow, path, size)
        self._allocate(path, size)

    def _allocate(self, path, size):
        if self._provisioning == THICK:
            self._place.call(files.allocate, path, copied=size)

    def _grow_qcow2(self, image, size):
        if image.backing:
            # An overlay takes space as it is written to.
            self._resize(image, size, 'off')
            return
        try:
            self._with_space(QCOW2, functools.partial(self._resize, image,
                                                      size))
        except processutils.ProcessExecutionError as exc:
            if exc.exit_code != -signal.SIGABRT:
                raise
            # An extension that was killed has counted references to clusters
            # beyond the end of the file, and QEMU aborts where it would do so
            # again (assertion in qcow2_refcount_area). It can still grow.
            LOG.warning('%s has its new size, but takes the space for it only '
                        'as it is written to: an earlier extension was '
                        'interrupted', image.path)
            self._resize(image, size, 'off')

    def _resize(self, image, size, space):
        self._place.qemu_img('resize', '--preallocation=' + space, image,
                             size, keys=[self._key],
                             copied=_written(space, size))

    def _with_space(self, image_format, run, again=lambda: None):
        """Run qemu-img such that a thick qcow2 image gets all its space.

        Raw images get theirs afterwards.

        :param run: called with the kind of preallocation
        :param again: called before another attempt
        """
        if self._provisioning == THIN or image_format == RAW:
            return run('off')
        try:
            run('falloc')
        except processutils.ProcessExecutionError as exc:
            # Lustre on ZFS has no fallocate: write zeros.
            if 'not supported' not in exc.stderr:
                raise
            again()
            run('full')

    def _make_overlay(self, path, backing, size=None):
        # -u: what backing is, is known; it isn't opened, which would fail
        # for a file of the hypervisor's user.
        self._place.qemu_img(
            'create', '-f', QCOW2, *self._encrypted(QCOW2),
            '-u', '-b', backing.file, '-F', backing.format, path,
            backing.virtual_size if size is None else size,
            keys=[self._key], made=path)

    def _merge(self, above, overlay, below):
        """Commit an overlay into the image below, and take it out."""
        self._place.qemu_img('commit', '-d', overlay, keys=[self._key],
                             copied=overlay.virtual_size)
        if below.format == RAW:
            self._allocate(below.path, overlay.virtual_size)
        self._place.call(files.sync, below.path)
        if above:
            self._place.qemu_img('rebase', '-u', '-b', below.file,
                                 '-F', below.format, above.alone,
                                 keys=[self._key])

    def _encrypted(self, image_format):
        """Options for qemu-img to encrypt what it makes."""
        return self._key.to_create(image_format) if self._key else ()

    def _image(self, path, image_format, virtual_size, backing=None):
        return Image(path, image_format, virtual_size, self._key, backing,
                     self._place.share)

    def _remove_leftover(self, name):
        if name not in [image.file for image in self.chain()]:
            self._remove_all(name)

    def _remove_all(self, *names):
        self._place.call(files.remove, [self._join(name) for name in names])

    def _claim(self, names):
        paths = [self._join(name) for name in names]
        for path in self._place.call(files.not_writable, paths):
            error = self._place.take_over(path)
            if error:
                raise self._invalid(path, error)

    def _known_files(self, record):
        return sorted({self._name, *record.values()})

    def _overlay(self, record, snapshot_id):
        if snapshot_id not in record:
            raise self._invalid(self._name + '.info', _(
                "it has no snapshot %s") % snapshot_id)
        return record[snapshot_id]

    def _below(self, overlay):
        chain = self._follow(overlay)
        if len(chain) < 2:
            raise self._invalid(overlay, _("it has no backing file"))
        return chain[1]

    def _active(self, record):
        return record.get(_ACTIVE, self._name)

    def _follow(self, image):
        if self._base_format not in FORMATS:
            raise self._invalid(self._name, _(
                "its format is not recorded in the volume's admin metadata "
                "(base_format)"))
        where = (self._name, image, self._base_format)
        try:
            try:
                chain = self._place.call(files.chain, self._place.directory,
                                         *where)
            except PermissionError:
                chain = self._place.privileged_chain(*where)
        except FileNotFoundError as exc:
            raise self._invalid(image, _("%s is missing") % exc.filename)
        except ValueError as exc:
            raise self._invalid(image, exc)
        images = [None]
        for name, image_format, virtual_size in reversed(chain):
            images.append(self._image(self._join(name), image_format,
                                      virtual_size, images[-1]))
        return images[:0:-1]

    def _invalid(self, image, reason):
        return InvalidImage(image=image, share=self._place.share,
                            reason=reason)

    def _path(self, suffix=''):
        return self._join(self._name + suffix)

    def _join(self, name):
        return os.path.join(self._place.directory, name)
