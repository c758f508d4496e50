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

"""Images from the image service, as local files that are safe to convert."""

import contextlib
import os

from oslo_concurrency import processutils
from oslo_utils import fileutils
from oslo_utils import strutils
from oslo_utils import units

from cinder import exception
from cinder.i18n import _
from cinder.image import accelerator
from cinder.image import image_utils
from cinder.lustre import encryption
from cinder.lustre import images
from cinder import utils

# Partition images, which QEMU has no name for.
_AMAZON = ('ami', 'ari', 'aki')

# What an image may hold besides a volume's bytes. In a full qcow2 image it is
# an eight-thousandth.
_METADATA = units.Gi


@contextlib.contextmanager
def image(context, image_service, image_id, size, key=None):
    """Fetch an image, check it, and remove it afterwards.

    :param size: of the volume it must fit into, in GiB
    :param key: of that volume; of an encrypted image, too, since Cinder has
        copied the image's key for the volume
    :returns: a context with the :class:`cinder.lustre.images.Image`
    :raises ImageUnacceptable: it is not what it says, or needs other files
    """
    meta = image_service.show(context, image_id)
    with image_utils.temporary_file(prefix='lustre_download_') as path:
        cached = image_utils.TemporaryImages.for_image_service(
            image_service).get(context, image_id)
        if cached:
            path = cached
        else:
            image_utils.fetch(context, image_service, image_id, path, None,
                              None)
        if meta.get('container_format') == 'compressed':
            _decompress(path, image_id, size)
        yield _checked(path, meta, image_id, size, key)


def _decompress(path, image_id, size):
    """Unpack a file in its place, as far as it fits into the volume.

    Not by Cinder's accelerator, which writes what a bomb of a few KiB holds
    until the host's disk is full, and leaves it there.
    """
    if not image_utils.CONF.allow_compression_on_image_upload:
        raise exception.ImageUnacceptable(image_id=image_id, reason=_(
            "container_format is compressed, and "
            "allow_compression_on_image_upload is off"))
    if not accelerator.is_gzip_compressed(path):
        raise exception.ImageUnacceptable(image_id=image_id, reason=_(
            "container_format is compressed, but it is not gzip"))
    compressed = path + '.gz'
    os.rename(path, compressed)
    try:
        utils.execute('gzip', '-d', compressed,
                      prlimit=processutils.ProcessLimits(
                          file_size=size * units.Gi + _METADATA))
    except processutils.ProcessExecutionError:
        raise exception.ImageUnacceptable(image_id=image_id, reason=_(
            "it is damaged, or larger than the volume when unpacked"))
    finally:
        fileutils.delete_if_exists(compressed)


def _checked(path, meta, image_id, size, key):
    disk_format = image_utils.fixup_disk_format(meta['disk_format'])
    if disk_format in _AMAZON:
        disk_format = 'raw'
    try:
        data = image_utils.qemu_img_info(path, run_as_root=False)
    except (exception.Invalid, processutils.ProcessExecutionError):
        raise exception.ImageUnacceptable(image_id=image_id, reason=_(
            "it is damaged or needs other files"))
    if data.backing_file:
        raise exception.ImageUnacceptable(image_id=image_id, reason=_(
            "it has a backing file, %s") % data.backing_file)
    image_utils.check_image_format(path, src_format=disk_format,
                                   image_id=image_id, data=data,
                                   run_as_root=False)
    image_key, virtual_size = None, data.virtual_size
    if key and meta.get('cinder_encryption_key_id'):
        if not strutils.bool_from_string(data.encrypted):
            raise exception.ImageUnacceptable(image_id=image_id, reason=_(
                "it has an encryption key, but it is not LUKS (version 1)"))
        image_key, disk_format = key, encryption.LUKS
    elif disk_format == images.RAW:
        # That of LUKS is less than what there is to copy.
        virtual_size = os.path.getsize(path)
    image_utils.check_virtual_size(virtual_size, size, image_id)
    return images.Image(path, disk_format, virtual_size, image_key)
