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

"""The connector of Cinder services for volumes on Lustre shares.

A service that copies a volume gets what a guest sees of it: the path of a
plain raw file, and otherwise a :class:`os_brick.remotefs.lustre_disk.Disk`,
as os-brick's RBD connector gives a file-like object. Of an encrypted volume it
gets the file with the ciphertext, unless an encryptor unlocks it
(:class:`os_brick.remotefs.lustre_container.EncryptedDisk`).

os-brick lists its connectors in its code. :func:`register` adds this one to
the lists of the process; those of our modules that Cinder loads call it.
"""

import dataclasses
import functools
import os

from os_brick import encryptors
from os_brick import exception
from os_brick.i18n import _
from os_brick.initiator import connector
from os_brick.initiator.connectors import base
from os_brick.remotefs import lustre
from os_brick.remotefs import lustre_child
from os_brick.remotefs import lustre_container
from os_brick.remotefs import lustre_disk

PROTOCOL = 'lustre'

# What the connector's properties carry where it is registered.
MARK = 'lustre_connector'

_CONNECTOR = 'os_brick.initiator.connectors.lustre.LustreConnector'
_ENCRYPTORS = {
    encryptors.LUKS: 'os_brick.encryptors.lustre.luks_encryptor',
    encryptors.LUKS2: 'os_brick.encryptors.lustre.luks2_encryptor',
}

# What check_valid_device reads.
_BLOCK = 4096

_mounter = None


def register(mounter):
    """Make os-brick know the connector, in this process.

    :param mounter: as for :class:`os_brick.remotefs.lustre.ShareClient`
    """
    global _mounter
    _mounter = mounter
    connector.get_connector_mapping()[PROTOCOL.upper()] = _CONNECTOR
    if _CONNECTOR not in connector.unix_connector_list:
        connector.unix_connector_list.append(_CONNECTOR)
    encryptors.FORMAT_TO_FRONTEND_ENCRYPTOR_MAP.update(_ENCRYPTORS)


@functools.lru_cache
def _share_client(mount_point_base, attempts, mount_timeout, timeout,
                  fs_types):
    """Return the process's client for the shares of a volume service.

    A connector is made for every attachment; what is known of calls that hang
    must outlive it.
    """
    return lustre.ShareClient(
        mount_point_base, _mounter, attempts=attempts,
        mount_timeout=mount_timeout, timeout=timeout, fs_types=fs_types)


class LustreConnector(base.BaseLinuxConnector):
    """Attaches volumes on Lustre shares for Cinder services.

    :param conn: the connection's information, whose ``mount_point_base`` is
        used
    """

    def __init__(self, root_helper, driver=None, execute=None, conn=None,
                 *args, **kwargs):
        super().__init__(root_helper, driver=driver, execute=execute,
                         *args, **kwargs)
        self._mount_point_base = (conn or {}).get('mount_point_base')
        self._client = None
        self._share = None

    @staticmethod
    def get_connector_properties(root_helper, *args, **kwargs):
        """Tell the driver that there is this connector here."""
        return {MARK: True}

    def connect_volume(self, connection_properties):
        """Mount the share if need be, and open the volume.

        :param connection_properties: with

            export
                the share's name
            options
                its mount options
            chain
                ``[file, format]`` of each image, from the active one to the
                base; format is raw or qcow2
            size
                bytes that a guest sees
            thin
                whether zeros may give space back to the share
            encrypted
                whether the images are
            read_only
                whether it may only be read
            container_length
                bytes of the file of an encrypted volume
                (:class:`os_brick.remotefs.lustre_disk.Image`)
            client
                attempts, mount_timeout, timeout and fs_types of
                :class:`os_brick.remotefs.lustre.ShareClient`
        :returns: a dictionary whose ``path`` is a path or a file-like object
        :raises ShareUnavailable: the share can't be mounted or doesn't answer
        :raises DiskError: an image can't be opened
        """
        image = self._connect(connection_properties)
        if image.is_plain:
            return {'path': image.path}
        disk = (lustre_container.EncryptedDisk if image.encrypted
                else lustre_disk.Disk)
        return {'path': disk(self._client, self._share, image)}

    def disconnect_volume(self, connection_properties, device_info,
                          force=False, ignore_errors=False):
        """Close the volume; the share stays mounted."""
        path = (device_info or {}).get('path')
        if path is None or isinstance(path, str):
            return
        try:
            path.close()
        except Exception:
            if not (force and ignore_errors):
                raise

    def check_valid_device(self, path, run_as_root=True):
        """Tell whether a volume can be read.

        As the service's own user: on a share root may be nobody. A chain that
        is encrypted can't be read before it has its passphrase.
        """
        if not isinstance(path, str):
            return self._reads(path)
        try:
            return bool(self._client.call(
                self._share, lustre_child.read, path, _BLOCK))
        except (OSError, lustre.ShareUnavailable):
            return False

    def get_volume_paths(self, connection_properties):
        """Return the path of the active image."""
        return [self._connect(connection_properties).path]

    def get_search_path(self):
        """Return the directory of the shares' mount points."""
        return self._mount_point_base

    def extend_volume(self, connection_properties):
        """What is extended has to be attached again."""
        raise NotImplementedError

    def _connect(self, properties):
        """Mount the share, and describe the volume's image."""
        try:
            self._client = self._client_for(properties['client'])
            self._share = self._named_share(properties)
            image = self._checked(lustre_disk.Image(
                self._client.mount_point(self._share),
                tuple((file, image_format)
                      for file, image_format in properties['chain']),
                properties['size'], bool(properties.get('encrypted')),
                properties['thin'], properties.get('read_only', False),
                properties.get('container_length', 0)))
        except (KeyError, TypeError, ValueError) as exc:
            raise exception.BrickException(_(
                "Malformed connection properties of a volume on Lustre: %r")
                % exc) from exc
        self._client.ensure_mounted(self._share)
        return image

    def _client_for(self, settings):
        return _share_client(
            self._mount_point_base, settings['attempts'],
            settings['mount_timeout'], settings['timeout'],
            tuple(settings['fs_types']))

    @staticmethod
    def _named_share(properties):
        share = lustre.Share.parse(
            properties['export'].replace(' ', '\\040'))
        lustre.check_mount_options(properties['options'])
        return dataclasses.replace(share, options=properties['options'])

    @staticmethod
    def _checked(image):
        for file, image_format in image.chain:
            if os.path.basename(file) != file or file in ('', '.', '..'):
                raise ValueError(_("'%s' is no file's name") % file)
            if image_format not in lustre_disk.FORMATS:
                raise ValueError(_("'%s' is no format") % image_format)
            if image.encrypted and image_format == lustre_disk.RAW:
                raise ValueError(_("'%s' is encrypted, but raw") % file)
        if not image.chain:
            raise ValueError(_("there is no image"))
        return image

    @staticmethod
    def _reads(disk):
        position = disk.tell()
        try:
            disk.seek(0)
            return bool(disk.read(_BLOCK))
        except lustre_disk.DiskLocked:
            return True
        except (OSError, ValueError, exception.BrickException):
            return False
        finally:
            disk.seek(position)
