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

"""The encryptor of volumes on Lustre shares.

os-brick's encryptors of LUKS lay dm-crypt over a block device. A volume on
Lustre is encrypted within its image, LUKS in qcow2, which QEMU reads and
writes: so it is the connector's file-like object that gets the passphrase.

:func:`os_brick.encryptors.get_volume_encryptor` picks an encryptor by the
format of the encryption alone. :func:`os_brick.initiator.connectors.lustre.
register` puts the functions below in the place of os-brick's own classes; for
all other volumes these are what the functions return.
"""

from os_brick.encryptors import base
from os_brick.encryptors import luks
from os_brick import exception
from os_brick.remotefs import lustre_container


def luks_encryptor(root_helper, connection_info, *args, **kwargs):
    """Return the encryptor of a volume whose encryption is LUKS."""
    return _encryptor_class(connection_info, luks.LuksEncryptor)(
        root_helper, connection_info, *args, **kwargs)


def luks2_encryptor(root_helper, connection_info, *args, **kwargs):
    """Return the encryptor of a volume whose encryption is LUKS 2."""
    return _encryptor_class(connection_info, luks.Luks2Encryptor)(
        root_helper, connection_info, *args, **kwargs)


def _encryptor_class(connection_info, other):
    if connection_info['driver_volume_type'] == 'lustre':
        return LustreEncryptor
    return other


class LustreEncryptor(base.VolumeEncryptor):
    """Unlocks the disk that the connector has given.

    :raises VolumeEncryptionNotSupported: it has given a path
    """

    def __init__(self, root_helper, connection_info, keymgr, execute=None,
                 *args, **kwargs):
        super().__init__(root_helper, connection_info, keymgr, execute,
                         *args, **kwargs)
        self._disk = connection_info['data'].get('device_path')
        if not isinstance(self._disk, lustre_container.EncryptedDisk):
            raise exception.VolumeEncryptionNotSupported(
                volume_id=connection_info['data'].get('volume_id'),
                volume_type=connection_info['driver_volume_type'])

    def attach_volume(self, context, **kwargs):
        """Give the disk the volume's passphrase."""
        self._disk.unlock(self._get_encryption_key_as_passphrase(context))

    def detach_volume(self, **kwargs):
        """Let the disk forget the passphrase, and be closed."""
        self._disk.lock()

    def extend_volume(self, context, **kwargs):
        """What is extended has to be attached again."""
        raise NotImplementedError
