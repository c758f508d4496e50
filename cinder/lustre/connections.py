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

"""What those are told who open a volume: Nova, and Cinder's own services.

A caller whose connector has our mark gets the virtual disk: the whole chain,
with what its share needs. One that has not gets what stock Nova and os-brick
can use: a share of type ``nfs`` that they mount as Lustre, and a single file.
What would harm a volume then is refused.
"""

from oslo_utils import units

from cinder import coordination
from cinder import exception
from cinder.i18n import _
from cinder.lustre import copies
from cinder.lustre import images
from cinder.lustre import locks
from os_brick.initiator.connectors import lustre as lustre_connector

# In these states it is Nova that attaches a volume, which opens an image by
# its format. In all others it is a Cinder service that copies bytes.
_ATTACHED_BY_NOVA = ('reserved', 'attaching', 'in-use', 'detaching')


def _has_mark(connector):
    """Tell whether a caller has our connector."""
    return bool((connector or {}).get(lustre_connector.MARK))


class ConnectionsMixin:
    """The methods of a driver that are about attaching volumes."""

    def ensure_export(self, ctxt, volume):
        """Nothing is exported.

        cinder-volume calls this for every volume in use when it starts, and
        sets those to error for which it fails: a share that is down must not
        do that to the volumes on it.
        """

    def create_export(self, ctxt, volume, connector):
        """Nothing is exported."""

    def remove_export(self, ctxt, volume):
        """Nothing is exported."""

    @coordination.synchronized('{self.driver_prefix}-{volume.id}',
                               blocking=copies.ATTACH_PATIENCE)
    def initialize_connection(self, volume, connector):
        """Tell how to open a volume's active image.

        Stock Nova and os-brick mount a share of type nfs as
        ``mount -t nfs <options> <share> <dir>``, and of two ``-t`` the last
        one counts. A service that has our connector gets what that needs.

        :raises InvalidVolume: the caller can't open this kind of image, or
            would harm it; or a second server asks for an overlay
        :raises Locked: the volume is being copied. With etcd it may be the
            error of the distributed lock; with Redis and files Cinder goes on
            without that lock, and it is the one on the share that counts.
        """
        volume_images = self._images(volume)
        with volume_images.locked():
            if not self._is_volume_attached(volume):
                volume_images.claim()
            volume_images.complete(volume.size * units.Gi)
            chain = volume_images.chain()
        image = chain[0]
        self._refuse_to_share(volume, image)
        if image.virtual_size > volume.size * units.Gi:
            self._as_it_is_now(volume)
            self._refuse_larger(image, volume, volume.size)
        self._refuse_chain_for_container(volume, chain)
        self._refuse_qcow2_of_others(volume)
        if volume.status in _ATTACHED_BY_NOVA and not _has_mark(connector):
            return self._stock_connection(volume, image)
        return self._opened_by_cinder(volume, chain, connector)

    def _opened_by_cinder(self, volume, chain, connector, **data):
        """Tell a Cinder service how to open what it copies.

        :param chain: the images, from the upper one down
        """
        if _has_mark(connector):
            return self._connection(
                volume, chain[0], lustre_connector.PROTOCOL,
                **{**self._for_our_connector(volume, chain), **data})
        self._refuse_byte_copy(volume, chain[0])
        return self._stock_connection(volume, chain[0])

    def _stock_connection(self, volume, image):
        self._refuse_encrypted(volume)
        options = self._client.options(self._place(volume).share)
        return self._connection(volume, image, self.driver_volume_type,
                                options='-t lustre -o ' + options)

    def _connection(self, volume, image, volume_type, **data):
        return {
            'driver_volume_type': volume_type,
            'data': {
                'export': self._place(volume).share.name,
                'name': image.file,
                'format': image.format,
                **data,
            },
            'mount_point_base': self._get_mount_point_base(),
        }

    def _for_our_connector(self, volume, chain):
        """Describe the virtual disk, and how to use its share."""
        conf = self.configuration
        return {
            'options': self._client.options(self._place(volume).share),
            'chain': [(image.file, image.format) for image in chain],
            'size': chain[0].virtual_size,
            'thin': self._provisioning(volume) == images.THIN,
            'encrypted': self._is_encrypted(volume),
            'container_length': self._length_to_copy(
                volume, chain[0].virtual_size),
            'client': {
                'attempts': conf.lustre_mount_attempts,
                'mount_timeout': conf.lustre_mount_timeout,
                'timeout': conf.lustre_operation_timeout,
                'fs_types': conf.lustre_file_system_types,
            },
        }

    def terminate_connection(self, volume, connector, **kwargs):
        """Bring a volume that a Cinder service has filled to its full size.

        Nothing else is to be undone, so that a share that is down doesn't
        keep volumes attached.
        """
        if self._is_filled_by_cinder(volume):
            self._complete(volume)

    @locks.volume_locked
    def _complete(self, volume):
        volume_images = self._images(volume)
        volume_images.complete(volume.size * units.Gi, refill=True)
        if volume.encryption_key_id and volume.migration_status:
            # The source is deleted after this. Of a container it may be that
            # not all was copied: volume_utils.copy_volume() stops at the
            # volume's size.
            volume_images.check()

    @staticmethod
    def _is_filled_by_cinder(volume):
        return (volume.status in ('creating', 'restoring-backup') or
                (volume.migration_status or '').startswith('target:'))

    @staticmethod
    def _refuse_byte_copy(volume, image):
        if image.format != images.RAW:
            # A backup keeps some 130 characters of this.
            raise exception.InvalidVolume(reason=_(
                "%s is qcow2: to copy it a service needs the Lustre connector "
                "(see the driver's guide), or lustre:format=raw") % volume.id)

    def _refuse_to_share(self, volume, image):
        """Keep a second server from a volume that has an overlay."""
        if image.format != images.RAW and len(volume.volume_attachment) > 1:
            self._as_it_is_now(volume)
            servers = {attachment.instance_uuid
                       for attachment in volume.volume_attachment
                       if attachment.attach_status != 'detached'}
            if len(servers) > 1:
                raise exception.InvalidVolume(reason=_(
                    "%s has snapshots, and a server has it: two servers can't "
                    "write one overlay; delete the snapshots, or detach it "
                    "first") % volume.id)

    @staticmethod
    def _refuse_encrypted(volume):
        """Keep stock Nova from an encrypted volume.

        It looks for a LUKS header at the beginning of the file, where qcow2
        has its own, and would format the file (LibvirtDriver.
        _attach_encryptor in Nova 34).
        """
        if volume.encryption_key_id:
            raise exception.InvalidVolume(reason=_(
                "%s is encrypted, and stock Nova would overwrite its image: "
                "the compute host needs the Lustre driver for Nova "
                "(compute_driver = lustre.LibvirtDriver)") % volume.id)

    def _is_in_use(self, volume):
        """Tell whether a server has a volume, or is about to get it."""
        return (self._is_volume_attached(volume) or
                volume.status in _ATTACHED_BY_NOVA)
