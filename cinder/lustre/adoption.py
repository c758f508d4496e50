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

"""Files that Cinder doesn't know yet, and how they become volumes.

A file is referred to as ``{'source-name': '<file>'}``, on the share that the
volume's host names, or ``{'source-name': '<share>/<file>'}``. It lies in the
share's own directory. Its format is qcow2 if it is one that a driver may open,
and raw if it starts like nothing else. A reference with ``'format': 'raw'``
says that a file is raw whatever it starts like.

A snapshot is referred to by the name of its overlay, as a file is, or by the
ID that it had last: ``{'source-id': '<ID>'}``.

A volume's file is given back by forgetting it: it keeps its name, and can be
adopted again.
"""

import io
import math

from oslo_log import log as logging
from oslo_utils.imageutils import format_inspector
from oslo_utils import units

from cinder import context
from cinder import coordination
from cinder import exception
from cinder.i18n import _
from cinder.lustre import files
from cinder.lustre import images
from cinder.lustre import locks
from cinder import objects
from cinder.volume import volume_utils
from os_brick.remotefs import lustre as lustre_brick
from os_brick.remotefs import lustre_qcow2

LOG = logging.getLogger(__name__)

# What a disk holds that is raw for us.
_PARTITIONED = ('raw', 'gpt')

# How many files of a share are looked at for a list of what can be adopted.
_MOST = 10000


class AdoptionMixin:
    """The methods of a driver for what Cinder doesn't manage, or no longer."""

    def manage_existing_get_size(self, volume, existing_ref):
        """Return the size of a file that is to become a volume, in GiB.

        :raises ManageExistingInvalidReference: it can't become one
        """
        return gibibytes(
            self._candidate(volume, existing_ref).active().virtual_size)

    @locks.volume_locked
    def manage_existing(self, volume, existing_ref):
        """Make a file of a share into a volume, without a copy.

        :raises ManageExistingInvalidReference: it can't become one
        :raises ManageExistingVolumeTypeMismatch: the volume's type asks for
            another format
        """
        found = self._candidate(volume, existing_ref)
        image = found.active()
        specs = self._extra_specs(volume)
        if specs.get('lustre:format', image.format) != image.format:
            raise exception.ManageExistingVolumeTypeMismatch(reason=_(
                "the file is %(is)s, and extra spec lustre:format is "
                "%(spec)s") % {'is': image.format,
                               'spec': specs['lustre:format']})
        place = self._place_on(self._share_of_host(volume))
        self._check_is_in_pool(volume, existing_ref, place, image.path)
        size = gibibytes(image.virtual_size)
        with self._project_taken(volume, place, size) as project:
            found.adopt_as(volume.name, size * units.Gi, project)
        self._note(volume, format=image.format, base_format=image.format)
        return {'provider_location': self._share_of_host(volume).name}

    def get_manageable_volumes(self, cinder_volumes, marker, limit, offset,
                               sort_keys, sort_dirs):
        """List the files of all shares that are there."""
        managed = {volume.name: volume for volume in cinder_volumes}
        return volume_utils.paginate_entries_list(
            [entry for place in self._places_there()
             for entry in volumes(place, managed)],
            marker, limit, offset, sort_keys, sort_dirs)

    @locks.volume_locked
    def unmanage(self, volume):
        """Leave a volume's data in the file of its name.

        :raises InvalidVolume: it has snapshots that Cinder does not manage
        """
        volume_images = self._images(volume)
        volume_images.claim()
        volume_images.release()
        self._drop_limit(volume, self._place(volume))

    def manage_existing_snapshot_get_size(self, snapshot, existing_ref):
        """Return the size of a snapshot that Cinder doesn't know, in GiB."""
        volume_images = self._images(snapshot.volume)
        image = volume_images.snapshot(
            self._unknown_id(volume_images, existing_ref))
        return gibibytes(image.virtual_size)

    @coordination.synchronized('{self.driver_prefix}-{snapshot.volume.id}')
    def manage_existing_snapshot(self, snapshot, existing_ref):
        """Give Cinder a snapshot that is in a volume's chain.

        :raises ManageExistingInvalidReference: there is none of that name
        """
        volume_images = self._images(snapshot.volume)
        volume_images.record_as(
            self._unknown_id(volume_images, existing_ref), snapshot.id)

    def unmanage_snapshot(self, snapshot):
        """Leave a snapshot in its volume's chain."""

    def get_manageable_snapshots(self, cinder_snapshots, marker, limit,
                                 offset, sort_keys, sort_dirs):
        """List the snapshots in all records of shares that are there."""
        known = {snapshot.id: snapshot for snapshot in cinder_snapshots}
        return volume_utils.paginate_entries_list(
            [entry for place in self._places_there()
             for entry in snapshots(place, known)],
            marker, limit, offset, sort_keys, sort_dirs)

    def _candidate(self, volume, reference):
        """Return the images of a file that is to become a volume."""
        place = self._place_on(self._share_of_host(volume))
        place.available()
        share, file, image_format = split(reference)
        if share not in (None, place.share.name):
            raise _invalid(reference,
                           _("the host names share %s") % place.share)
        return candidate(place, reference, file, image_format,
                         self._provisioning(volume))

    def _unknown_id(self, volume_images, reference):
        snapshot_id = reference.get('source-id')
        if snapshot_id is None:
            try:
                snapshot_id = volume_images.recorded_id(
                    reference.get('source-name'))
            except images.InvalidImage as exc:
                raise _invalid(reference, exc.msg)
        elif snapshot_id not in volume_images.snapshot_ids():
            raise _invalid(reference, _("the volume's record has no such "
                                        "snapshot"))
        if is_managed_snapshot(snapshot_id):
            raise _invalid(reference, _("Cinder manages it already"))
        return snapshot_id

    def _places_there(self):
        """Yield the shares that are mounted."""
        for share in self._shares.values():
            place = self._place_on(share)
            try:
                place.available()
            except lustre_brick.ShareUnavailable as exc:
                LOG.warning('Files on %(share)s are not listed: %(exc)s',
                            {'share': share, 'exc': exc})
            else:
                yield place


def split(reference):
    """Take a reference apart.

    :returns: the share's name or None, the file's name, its format or None
    :raises ManageExistingInvalidReference: naming what is wrong
    """
    share, _slash, file = reference.get('source-name', '').rpartition('/')
    image_format = reference.get('format')
    if not file or not file.isprintable() or file in ('.', '..'):
        raise _invalid(reference, _(
            "source-name has to be the name of a file on the share, or "
            "<share>/<file>"))
    if image_format not in (None, *images.FORMATS):
        raise _invalid(reference, _("format has to be raw or qcow2"))
    if _is_reserved(file):
        raise _invalid(reference, _("it is part of a volume of Cinder's"))
    known = volume_utils.extract_id_from_volume_name(file)
    if known and _is_managed(known):
        raise exception.ManageExistingAlreadyManaged(volume_ref=known)
    return share or None, file, image_format


def _is_reserved(file):
    """Tell whether a file is part of what is there already."""
    return file == lustre_brick.LOCK_FILE or files.is_auxiliary(file)


def is_managed_snapshot(snapshot_id):
    """Tell whether Cinder knows a snapshot."""
    return objects.Snapshot.exists(context.get_admin_context(), snapshot_id)


def _is_managed(volume_id):
    # A migrated volume keeps its file's name.
    return (volume_utils.check_already_managed_volume(volume_id) or
            objects.VolumeList.get_all(context.get_admin_context(),
                                       filters={'_name_id': volume_id}))


def candidate(place, reference, file, image_format, provisioning):
    """Return the images of a file that may be adopted: of one image.

    :param place: the :class:`cinder.lustre.places.Place` of its share
    :raises ManageExistingInvalidReference: it may not, and why
    """
    found = _plain(place, reference, file, image_format, provisioning)
    try:
        found.check()
    except images.InvalidImage as exc:
        raise _invalid(reference, exc)
    return found


def _plain(place, reference, file, image_format, provisioning):
    """Return the images of a file that may be adopted by its header."""
    try:
        start = place.call(files.start_of, place.directory, file)
        found = images.VolumeImages(
            place, file, image_format or _format(start), provisioning)
        if len(found.chain()) > 1:
            raise ValueError(_("it has a backing file"))
        if found.active().format == images.QCOW2:
            lustre_qcow2.Header.parse(start).check_plain()
        if not found.active().virtual_size:
            raise ValueError(_("it is empty"))
    except (OSError, ValueError, images.InvalidImage) as exc:
        raise _invalid(reference, exc)
    return found


def _format(start):
    """Tell the format of a file by its first bytes, if that is safe.

    :raises ValueError: it isn't
    """
    # A short file is looked at as what it will be when it has grown.
    inspector = format_inspector.InspectWrapper(
        io.BytesIO(start.ljust(units.Mi, b'\0')))
    while inspector.read(units.Mi):
        pass
    inspector.close()
    try:
        names = {str(found) for found in inspector.formats}
    except format_inspector.ImageFormatError:
        names = {'more than one format'}
    if names == {images.QCOW2}:
        return images.QCOW2
    others = names.difference(_PARTITIONED)
    if others:
        raise ValueError(_(
            "it starts like %s; if it is a raw disk, say so by 'format': "
            "'raw' in the reference") % ' and '.join(sorted(others)))
    return images.RAW


def gibibytes(size):
    """Return the volume size in GiB that has room for so many bytes."""
    return math.ceil(size / units.Gi)


def volumes(place, managed):
    """List the files of a share for the manager, as their headers are.

    Whether QEMU can use them is seen when they are adopted.

    :param managed: IDs of the volumes of Cinder, by the names of their files
    """
    for name in place.call(files.names, place.directory, _MOST):
        if _is_reserved(name):
            continue
        entry = {'reference': {'source-name': '%s/%s' % (place.share, name)},
                 'size': 0, 'safe_to_manage': False,
                 'reason_not_safe': None, 'cinder_id': None,
                 'extra_info': None}
        if name in managed:
            volume = managed[name]
            entry.update(size=volume.size, cinder_id=volume.id,
                         reason_not_safe='already managed')
        else:
            entry.update(_offer(place, entry['reference'], name))
        yield entry


def _offer(place, reference, file):
    try:
        split(reference)
        found = _plain(place, reference, file, None, images.THIN).active()
    except exception.CinderException as exc:
        return {'reason_not_safe': exc.msg}
    return {'size': gibibytes(found.virtual_size), 'safe_to_manage': True,
            'extra_info': {'format': found.format}}


def snapshots(place, managed):
    """List the snapshots in the records of a share for the manager.

    :param managed: the snapshots of Cinder, by their IDs
    """
    for name, snapshot_id, overlay in place.call(
            files.recorded_snapshots, place.directory, _MOST):
        entry = {'reference': {'source-name': overlay},
                 'source_reference': {'source-name': name},
                 'size': 0, 'safe_to_manage': False,
                 'reason_not_safe': None, 'cinder_id': None,
                 'extra_info': None}
        if snapshot_id in managed:
            snapshot = managed[snapshot_id]
            entry.update(size=snapshot.volume_size, cinder_id=snapshot_id,
                         reason_not_safe='already managed')
        else:
            entry.update(_offer_snapshot(name))
        yield entry


def _offer_snapshot(name):
    volume_id = volume_utils.extract_id_from_volume_name(name)
    found = objects.VolumeList.get_all(context.get_admin_context(),
                                       filters={'id': volume_id})
    if not found:
        return {'reason_not_safe': 'its volume is not managed'}
    return {'size': found[0].size, 'safe_to_manage': True}


def _invalid(reference, reason):
    return exception.ManageExistingInvalidReference(existing_ref=reference,
                                                    reason=reason)
