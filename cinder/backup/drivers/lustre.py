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

"""Backups on a Lustre share.

The share is mounted once, when cinder-backup starts, and looked at again
before each backup, restore and deletion: without the mount the files would end
up in, or be missing from, a directory of the local disk.

What is stored is the chunked driver's, and any posix driver of Cinder can
restore it; what that costs is :mod:`cinder.lustre.chunks`'.
"""

from concurrent import futures
import functools
import io
import os
import re

from oslo_config import cfg
from oslo_log import log as logging
from oslo_utils import units

from cinder.backup.drivers import posix
from cinder import exception
from cinder.i18n import _
from cinder import interface
from cinder.lustre import chunks
from cinder.lustre import files
from cinder.lustre import layout
from cinder import objects
from cinder.privsep import lustre as privileged
from os_brick.initiator.connectors import lustre as lustre_connector
from os_brick.remotefs import lustre as lustre_brick

LOG = logging.getLogger(__name__)

lustre_backup_opts = [
    cfg.StrOpt('lustre_backup_share',
               help='The Lustre share that holds the backups: '
                    '<MGS NIDs>:/<file system>[/<directory>].'),
    cfg.StrOpt('lustre_backup_mount_point',
               default='$state_path/lustre_backup_mount',
               help='Directory of the mount point of the backup share.'),
    cfg.StrOpt('lustre_backup_mount_options',
               default='flock',
               help='Mount options of the backup share.'),
    cfg.IntOpt('lustre_backup_mount_attempts',
               default=3,
               min=1,
               help='How often to try to mount the backup share.'),
    cfg.IntOpt('lustre_backup_mount_timeout',
               default=60,
               min=1,
               help='Seconds that one attempt to mount the backup share may '
                    'take, and that it may take to answer.'),
    cfg.StrOpt('lustre_backup_layout',
               metavar='-c <count> -S <size> -p <pool>',
               help='Layout of the files of backups, in the options -E, -c, '
                    '-C, -S, -p and -L of lfs setstripe. Left alone, they get '
                    'the default layout of their directory, without a call '
                    'of lfs.'),
    cfg.ListOpt('lustre_backup_file_system_types',
                default=['lustre'],
                help='Types of mounted file systems that count as the backup '
                     'share. Anything but lustre is for tests without '
                     'Lustre.'),
]

CONF = cfg.CONF
CONF.register_opts(lustre_backup_opts)

lustre_connector.register(privileged)


@functools.lru_cache
def _share_client(base, options, attempts, timeout, fs_types):
    """Return the process's client for the backup share.

    cinder-backup makes a driver for every operation; what is known of calls
    that hang must outlive it.
    """
    return lustre_brick.ShareClient(base, privileged, options, attempts,
                                    timeout, timeout, fs_types)


class _DurableFile(io.BufferedWriter):
    """A new file that is on the servers' disks when it has been closed."""

    def __init__(self, path):
        super().__init__(io.FileIO(path, 'w', opener=self._open))
        # Whatever umask the service was started with.
        os.fchmod(self.fileno(), 0o660)

    @staticmethod
    def _open(path, flags):
        return os.open(path, flags, 0o660)

    def write(self, data):
        if isinstance(data, chunks.Zeros):
            # As a hole, which takes no space.
            return self.truncate(len(data))
        return super().write(data)

    def close(self):
        try:
            if not self.closed:
                self.flush()
                os.fsync(self.fileno())
                files.sync(os.path.dirname(self.name))
        finally:
            super().close()


class _LateWriter:
    """A writer that lets the chunked driver go on meanwhile."""

    def __init__(self, write):
        self.write = write

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass


@interface.backupdriver
class LustreBackupDriver(posix.PosixBackupDriver):
    """Provides backup, restore and delete using a Lustre share."""

    def __init__(self, context):
        self._share = self._configured_share()
        self._layout = self._configured_layout()
        self._threads = chunks.Threads()
        self._source = None
        self._storing = None
        # The first file of a backup shows whether its layout can be had.
        self._is_first_file = True
        try:
            self._client = _share_client(
                CONF.lustre_backup_mount_point,
                CONF.lustre_backup_mount_options,
                CONF.lustre_backup_mount_attempts,
                CONF.lustre_backup_mount_timeout,
                tuple(CONF.lustre_backup_file_system_types))
        except lustre_brick.InvalidMountOptions as exc:
            raise exception.InvalidConfigurationValue(
                option='lustre_backup_mount_options', value='%s (%s)' % (
                    CONF.lustre_backup_mount_options, exc))
        super().__init__(context,
                         backup_path=self._client.mount_point(self._share))

    @staticmethod
    def get_driver_options():
        return lustre_backup_opts + posix.posixbackup_service_opts

    def check_for_setup_error(self):
        """Mount the share and make sure that backups can be written there.

        :raises InvalidConfigurationValue: lustre_backup_share is missing or
            malformed
        :raises BackupDriverException: it can't be mounted or written to
        """
        self._check_share()

    def backup(self, backup, volume_file, backup_metadata=True):
        """Back a volume up."""
        self._check_share()
        self._storing = None
        with self._threads:
            self._source = chunks.Source(
                volume_file, self._threads, self.chunk_size_bytes,
                self.sha_block_size_bytes)
            super().backup(backup, self._source, backup_metadata)
            self._wait_until_stored()

    def restore(self, backup, volume_id, volume_file, volume_is_new):
        """Restore a backup to a volume.

        cinder-backup has opened the volume's file so that it was truncated,
        and zeros at the end of a backup aren't written: a file gets its full
        size back. What lies beyond the end of a smaller backup reads as zeros
        then, and on a disk of our connector as well.
        """
        self._check_share()
        volume = objects.Volume.get_by_id(self.context, volume_id)
        with self._threads:
            target = chunks.Target(volume_file, self._threads)
            super().restore(backup, volume_id, target, volume_is_new)
            target.finish(volume.size * units.Gi)

    def delete_backup(self, backup):
        """Delete a backup; fails if the share isn't there."""
        self._check_share()
        if self._storing:
            # This is a backup that was cancelled.
            futures.wait([self._storing])
        super().delete_backup(backup)

    def get_object_writer(self, container, object_name, extra_metadata=None):
        """Return a file that is durable when it is closed."""
        return _DurableFile(self._path(container, object_name))

    def _path(self, container, object_name):
        return os.path.join(self.backup_path, container, object_name)

    def _lay_out(self, container, object_name):
        """Make a file with its layout, if it is to have one of its own."""
        if self._layout:
            layout.create(layout.OnShare(self._share, self._client),
                          self._path(container, object_name), self._layout,
                          self._is_first_file)
            self._is_first_file = False

    # Steps of the chunked driver

    def _calculate_sha(self, data):
        return self._source.sha256s

    def _backup_chunk(self, backup, container, data, data_offset, object_meta,
                      extra_metadata):
        super()._backup_chunk(backup, container, data, data_offset,
                              object_meta, extra_metadata)
        if isinstance(data, chunks.Zeros):
            # It has looked into a buffer that is empty.
            chunk, = object_meta['list'][-1].values()
            chunk['md5'] = chunks.native(data.md5)()

    def _get_compressor(self, algorithm):
        if super()._get_compressor(algorithm) is None:
            return None
        return chunks.Compressor(algorithm, self._threads)

    def _prepare_output_data(self, data):
        if isinstance(data, chunks.Zeros):
            # A hole is smaller than anything else.
            return 'none', data
        return super()._prepare_output_data(data)

    def _get_object_writer(self, container, object_name, extra_metadata=None):
        def write(data):
            self._wait_until_stored()
            self._lay_out(container, object_name)
            self._storing = self._threads.submit(
                self._store, container, object_name, data)
        return _LateWriter(write)

    def _wait_until_stored(self):
        if self._storing:
            self._storing.result()

    def _store(self, container, object_name, data):
        with self.get_object_writer(container, object_name) as writer:
            writer.write(data)

    def _get_object_reader(self, container, object_name, extra_metadata=None):
        if not re.search(r'-\d{5,}$', object_name):
            return super()._get_object_reader(container, object_name,
                                              extra_metadata)
        # A chunk, which is read when it is restored.
        return chunks.StoredChunk(self._path(container, object_name))

    def _restore_v1(self, backup, volume_id, metadata, volume_file,
                    volume_is_new, requested_backup):
        # Before Cinder 29 incremental backups count as new, too. It must not
        # look for zeros itself.
        volume_file.is_clear = volume_is_new and not backup.parent_id
        super()._restore_v1(backup, volume_id, metadata, volume_file, False,
                            requested_backup)

    @staticmethod
    def _configured_share():
        name = CONF.lustre_backup_share
        try:
            return lustre_brick.Share.parse(name or '')
        except (lustre_brick.InvalidShare,
                lustre_brick.InvalidMountOptions) as exc:
            raise exception.InvalidConfigurationValue(
                option='lustre_backup_share', value='%s (%s)' % (name, exc))

    @staticmethod
    def _configured_layout():
        text = CONF.lustre_backup_layout
        if text is None:
            return None
        try:
            wanted = layout.Layout.parse(text)
        except layout.InvalidLayout as exc:
            raise exception.InvalidConfigurationValue(
                option='lustre_backup_layout', value=exc.msg)
        return wanted.of('option lustre_backup_layout')

    def _check_share(self):
        try:
            self._client.ensure_mounted(self._share)
            read_only = self._client.call(self._share, files.not_writable,
                                          [self.backup_path])
        except (OSError, lustre_brick.ShareUnavailable) as exc:
            raise exception.BackupDriverException(reason=str(exc))
        if read_only:
            raise exception.BackupDriverException(reason=_(
                "the user of cinder-backup can't write to the directory of "
                "%s; change the directory's owner or mode") % self._share)
