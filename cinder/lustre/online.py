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

"""Snapshots of volumes that a server has: Nova lets QEMU do its part.

snapshot
    Make an overlay, write the record with it as active, and note it for the
    servers that have the volume; let Nova have QEMU go over to it. A kill
    before that leaves an empty overlay, and the volume reads the same whether
    a guest writes to it or to the image below. So does a failure, unless it is
    certain that no guest has the overlay: then all is taken back.
delete a snapshot
    Let Nova have QEMU merge two images; see that the volume does not need one
    of them any more; write the record; remove that image. A volume may be
    detached meanwhile: Nova fails then, and the snapshot is deleted as one of
    a volume at rest.

QEMU locks what it has open; that tells whether a guest has an image.
"""

import os
import time

from oslo_log import log as logging
from oslo_utils import excutils

from cinder import exception
from cinder.i18n import _
from cinder.lustre import files
from cinder.lustre import images

LOG = logging.getLogger(__name__)

# Seconds that Nova may take to tell Cinder of a detachment that it has begun.
_DETACHMENT_LIMIT = 60


class OnlineMixin:
    """The methods of a driver for snapshots of volumes in use."""

    def _snapshot_attached(self, snapshot, volume_images):
        """Take a snapshot with Nova's help."""
        volume = snapshot.volume
        if volume.encryption_key_id:
            # libvirt would need a secret for the overlay (Nova 34 gives none).
            raise exception.InvalidVolume(reason=_(
                "volume %s is encrypted and attached, and Nova can't add an "
                "encrypted overlay to it; detach it first") % volume.id)
        if len(volume.volume_attachment) > 1:
            raise exception.InvalidVolume(reason=_(
                "volume %s is attached more than once, and only one of the "
                "servers could be told of a snapshot; detach it first") %
                volume.id)
        before = volume_images.active()
        try:
            volume_images.add_overlay(snapshot.id)
            self._note_for_servers(volume, volume_images.active())
            self._create_snapshot_online(
                snapshot, before.file, self._get_new_snap_path(snapshot))
        except Exception:
            with excutils.save_and_reraise_exception():
                self._take_back(snapshot, volume_images, before)

    def _do_create_snapshot(self, snapshot, backing_filename, new_snap_path):
        """Nothing: the overlay is there before the base class asks for it."""

    def _take_back(self, snapshot, volume_images, before):
        """Let an attached volume have the image that it had before."""
        if not volume_images.is_unused(snapshot.id):
            LOG.warning('A server may have the overlay of snapshot %s: the '
                        'volume keeps it', snapshot.id)
            return
        self._note_for_servers(snapshot.volume, before)
        volume_images.take_back(snapshot.id, before)

    @staticmethod
    def _note_for_servers(volume, image):
        """Let Nova start servers with this image of a volume."""
        for attachment in volume.volume_attachment:
            attachment.connection_info = dict(
                attachment.connection_info or {}, name=image.file,
                format=image.format)
            attachment.save()

    def _delete_snapshot_attached(self, snapshot, volume_images):
        """Delete a snapshot with Nova's help.

        :returns: False if it is there still, and the volume was detached
        """
        try:
            self._merge_attached(snapshot, volume_images)
        except Exception as exc:
            with excutils.save_and_reraise_exception() as failure:
                failure.reraise = not self._has_been_detached(snapshot.volume)
            LOG.info('Volume %(volume)s has been detached, before snapshot '
                     '%(snapshot)s could be deleted: %(exc)s', {
                         'volume': snapshot.volume_id,
                         'snapshot': snapshot.id, 'exc': exc})
            return False
        return True

    def _has_been_detached(self, volume):
        for _second in range(_DETACHMENT_LIMIT):
            if self._as_it_is_now(volume).status != 'detaching':
                break
            time.sleep(1)
        return not self._is_volume_attached(volume)

    def _merge_attached(self, snapshot, volume_images):
        """Let Nova merge images, and forget the one that isn't needed then.

        Nova lets QEMU merge two images. Then the record is written, and one of
        them is removed. If it isn't needed any more to begin with, an earlier
        call has come so far.
        """
        record = volume_images.record()
        if snapshot.id not in record:
            # It was never taken, or has been deleted: Nova knows of no overlay
            # that the record does not name.
            volume_images.drop_overlay(snapshot.id)
            return
        chain = [image.file for image in volume_images.chain()]
        overlay = record.pop(snapshot.id)
        if overlay == record['active']:
            stale, info = self._pull(record, chain, snapshot.volume.name)
        else:
            stale, info = self._commit(chain, overlay)
        if stale in chain:
            self._nova_assisted_vol_snap_delete(
                snapshot._context, snapshot,
                dict(info, type='qcow2', volume_id=snapshot.volume.id))
            self._expect_merged(volume_images, stale)
        volume_images.write_record(record)
        self._delete(os.path.join(self._local_volume_dir(snapshot.volume),
                                  stale))

    @staticmethod
    def _commit(chain, overlay):
        """Merge an overlay into the image below.

        :returns: the file that isn't needed any more then, and what Nova is
            told
        """
        below = chain[chain.index(overlay) + 1] if overlay in chain else None
        return overlay, {'file_to_merge': overlay, 'merge_target_file': below}

    @staticmethod
    def _pull(record, chain, first):
        """Merge what is below the active image into it: QEMU can't leave it.

        The snapshot below, if there is one, has the active image then.

        :param first: the name of the volume's first file
        :returns: as _commit()
        """
        below = chain[1:]
        # After an earlier call there is another image below, but this one's
        # snapshot is still recorded.
        merged = [key for key, file in record.items() if file not in chain]
        snapshot_below = next(iter(
            merged + [key for key, file in record.items()
                      if file in below[:1]]), None)
        if snapshot_below is None:
            stale, base = below[0] if below else first, None
        else:
            stale, base = record[snapshot_below], next(iter(below[1:]), None)
            record[snapshot_below] = chain[0]
        return stale, {'file_to_merge': base, 'merge_target_file': None}

    @staticmethod
    def _expect_merged(volume_images, stale):
        """Keep an image that the volume still needs, whatever Nova says.

        For Nova a merge that is not going on any more went well
        (BlockDevice.is_job_complete in Nova 34). And a server that is started
        in the moment in which it gets a snapshot has the image below open: to
        merge what it hasn't is done at once.

        :raises RemoteFSException: it is needed
        """
        if stale in (image.file for image in volume_images.chain()):
            raise exception.RemoteFSException(_(
                "Nova says that %s has been merged, but the volume still "
                "needs it. Nothing was removed. Stop the server and start it, "
                "so that it opens the active image, set the snapshot to "
                "available, and delete it again") % stale)

    # What of the base class would touch a share on the service's threads

    def _read_info_file(self, info_path, empty_if_missing=False):
        return self._images_at(info_path).record()

    def _write_info_file(self, info_path, snap_info):
        self._images_at(info_path).write_record(snap_info)

    def _delete(self, path):
        self._place_at(path).call(files.remove, [path])

    def _images_at(self, info_path):
        name = os.path.basename(info_path).removesuffix('.info')
        return images.VolumeImages(self._place_at(info_path), name, None,
                                   images.THIN)

    def _place_at(self, path):
        directory = os.path.dirname(path)
        for share in self._shares.values():
            if self._client.mount_point(share) == directory:
                return self._place_on(share)
        raise exception.VolumeDriverException(message=_(
            "%s is on no share") % path)
