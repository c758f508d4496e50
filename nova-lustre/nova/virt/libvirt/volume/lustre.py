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

"""Volumes as image files on Lustre shares.

The compute host mounts the share, once however many volumes its servers use
there, and QEMU opens the image. What is mounted where, and until when, is kept
by :mod:`nova.virt.libvirt.volume.mount`.
"""

from oslo_config import cfg

import nova.conf
from nova.conf import paths
from nova import exception
from nova.i18n import _
from nova.virt.libvirt.volume import fs

CONF = nova.conf.CONF

lustre_opts = [
    cfg.StrOpt('lustre_mount_point_base',
               default=paths.state_path_def('mnt'),
               help="""
Directory where Lustre shares are mounted on the compute node.

Possible values:

* A string representing absolute path of mount point. The same one on all
  compute nodes: a live migration keeps the paths of images.
"""),
    cfg.StrOpt('lustre_mount_options',
               help="""
Mount options of Lustre shares on this compute node, instead of those that
Cinder names for the share.

Possible values:

* Any string representing mount options separated by commas. They should
  include ``flock``, which clients before Lustre 2.12 don't have of themselves.
  ``noflock`` and ``localflock`` are refused: the image locks of QEMU keep two
  nodes from writing one image, and need ``flock``.
"""),
]

CONF.register_opts(lustre_opts, 'libvirt')

FORMATS = ('qcow2', 'raw')

_LOCKLESS_OPTIONS = {'noflock', 'localflock'}


class LibvirtLustreVolumeDriver(fs.LibvirtMountedFileSystemVolumeDriver):
    """Attaches image files, raw or qcow2, on shares of type lustre.

    The connection's ``data`` has the name of the share (``export``) and its
    mount ``options``, the ``name`` of the active image in the share's
    directory, and its ``format``.
    """

    def __init__(self, host):
        super().__init__(host, 'lustre')

    def _get_mount_point_base(self):
        return CONF.libvirt.lustre_mount_point_base

    def connect_volume(self, connection_info, instance):
        """Mount the share if need be.

        :raises InvalidVolume: the image's format isn't known, or the mount
            options are not fit for images
        """
        _known_format(connection_info)
        # In a copy stays what this adds, device_path. Nova takes it for a
        # device to which it may write: of an encrypted volume that has no LUKS
        # header of its own, it would make one (LibvirtDriver.
        # _attach_encryptor). In qcow2 the LUKS header is inside, as QEMU wants
        # it, and dm-crypt is of no use. Without a path Nova leaves the volume
        # alone, as it does with RBD's.
        super().connect_volume(_for_the_mount(connection_info), instance)

    def disconnect_volume(self, connection_info, instance, force=False):
        """Unmount the share if nobody else on this node uses it."""
        super().disconnect_volume(_for_the_mount(connection_info), instance,
                                  force)

    def get_config(self, connection_info, disk_info):
        """Return the disk for libvirt's XML.

        :raises InvalidVolume: the image's format isn't known
        """
        conf = super().get_config(connection_info, disk_info)
        conf.source_type = 'file'
        conf.source_path = self._get_device_path(connection_info)
        conf.driver_format = _known_format(connection_info)
        # An option since Nova 33.
        if not getattr(CONF.libvirt, 'use_default_aio_mode_for_volumes',
                       False):
            conf.driver_io = 'native'
        return conf

    def extend_volume(self, connection_info, instance, requested_size):
        """Tell Nova to show the guest that a raw image is larger.

        Cinder has grown the file. A qcow2 image it can't grow while QEMU has
        it open; QEMU could, but Nova has no way to tell Cinder whether that
        went well.

        :returns: the new size in bytes
        :raises NotImplementedError: the image is qcow2
        """
        if _known_format(connection_info) != 'raw':
            raise NotImplementedError()
        return requested_size

    def _mount_options(self, connection_info):
        options = (CONF.libvirt.lustre_mount_options or
                   connection_info['data'].get('options') or 'flock')
        bad = _LOCKLESS_OPTIONS.intersection(options.split(','))
        if bad:
            raise exception.InvalidVolume(reason=_(
                "mount option '%s' would let two nodes write one image "
                "(lustre_mount_options)") % bad.pop())
        return ['-o', options]


def _for_the_mount(connection_info):
    """Return a connection by which the use of a mount is noted.

    A snapshot changes which image is the active one while the volume is
    attached. Its name begins with the volume's own, which stays.
    """
    data = connection_info['data']
    return dict(connection_info, data=dict(
        data, name=data['name'].partition('.')[0]))


def _known_format(connection_info):
    """Return the format of an image: it is never guessed."""
    image_format = connection_info['data'].get('format')
    if image_format not in FORMATS:
        raise exception.InvalidVolume(reason=_(
            "Cinder says that the format of image %(name)s is %(format)s, "
            "not %(formats)s") % {
                'name': connection_info['data']['name'],
                'format': image_format, 'formats': ' or '.join(FORMATS)})
    return image_format
