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

"""Keys of encrypted volumes, as QEMU takes them.

QEMU's LUKS is version 1. The passphrase is the key in hexadecimal digits, as
Nova, os-brick and Cinder's other drivers have it
(os_brick.encryptors.base.VolumeEncryptor).
"""

import binascii
import functools

from castellan import key_manager
from oslo_config import cfg

from cinder import exception
from cinder.i18n import _
from cinder.image import image_utils
from cinder.volume import volume_utils

CONF = cfg.CONF

LUKS = 'luks'

# Milliseconds that QEMU may spend on stretching a passphrase, each time an
# image is opened. Stretching makes passphrases harder to guess that people
# have thought of; these have the entropy of the key itself.
_STRETCHING = 10


class Key:
    """The key of an encrypted volume, fetched when it is needed.

    :param volume: the volume, which has an encryption_key_id
    """

    def __init__(self, volume):
        self._volume = volume
        self._context = volume._context
        self.id = 'key-' + volume.id

    @classmethod
    def of(cls, volume):
        """Return the key of a volume, None if it isn't encrypted."""
        return cls(volume) if volume.encryption_key_id else None

    @functools.cached_property
    def passphrase(self):
        """What opens the volume's images, as bytes.

        :raises VolumeDriverException: the key manager doesn't give it
        """
        try:
            key = key_manager.API(CONF).get(self._context,
                                            self._volume.encryption_key_id)
        except Exception as exc:
            # Each key manager raises what it likes.
            raise exception.VolumeDriverException(message=_(
                "The key manager doesn't give the key of volume %(id)s: "
                "%(error)s") % {'id': self._volume.id, 'error': exc})
        return binascii.hexlify(key.get_encoded())

    @property
    def file(self):
        """What the file with the passphrase is called among arguments."""
        return '@%s@' % self.id

    @property
    def as_object(self):
        """Arguments that tell qemu-img of the key."""
        return ('--object',
                'secret,id=%s,format=raw,file=%s' % (self.id, self.file))

    def to_open(self, image_format):
        """Blockdev options that open an image: qcow2, or LUKS itself."""
        if image_format == LUKS:
            return {'key-secret': self.id}
        return {'encrypt': {'format': LUKS, 'key-secret': self.id}}

    def to_create(self, image_format):
        """Arguments of qemu-img that make an image: qcow2, or LUKS itself.

        :raises VolumeDriverException: the volume's type asks for another
            provider than LUKS, or names no cipher
        """
        options = {'key-secret': self.id, 'iter-time': _STRETCHING,
                   **self._cipher()}
        prefix = ''
        if image_format != LUKS:
            options['format'] = LUKS
            prefix = 'encrypt.'
        return '-o', ','.join('%s%s=%s' % (prefix, name, value)
                              for name, value in options.items())

    def _cipher(self):
        spec = volume_utils.check_encryption_provider(
            self._volume, self._context.elevated())
        # dm-crypt counts both keys of XTS, 512 bits with AES-256. QEMU does
        # not, nor do Cinder's drivers where a type says 256.
        key_size = spec['key_size']
        if '-xts-' in spec['cipher'] and key_size == 512:
            key_size = 256
        cipher = image_utils.decode_cipher(spec['cipher'], key_size)
        return {'cipher-alg': cipher['cipher_alg'],
                'cipher-mode': cipher['cipher_mode'],
                'ivgen-alg': cipher['ivgen_alg']}
