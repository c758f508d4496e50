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

"""The libvirt driver, with a volume driver for Lustre.

Nova lists its volume drivers in its code, and loads the compute driver by
name: ``compute_driver = lustre.LibvirtDriver``.
"""

import os
import re
import time

from lxml import etree
from oslo_log import log as logging

from nova.compute import vm_states
from nova import exception
from nova.privsep import path as privileged
from nova.virt import driver as virt_driver
from nova.virt.libvirt import driver
from nova.virt.libvirt import guest as libvirt_guest

LOG = logging.getLogger(__name__)

PROTOCOL = 'lustre'

# What a connector's properties carry where volumes of this type can be
# attached. The driver in Cinder answers other hosts with another type.
MARK = 'lustre_connector'

driver.VOLUME_DRIVERS[PROTOCOL] = (
    'nova.virt.libvirt.volume.lustre.LibvirtLustreVolumeDriver')

# Seconds that a detachment waits for the deletion of snapshots.
MERGE_LIMIT = 300

# Ways of QEMU to open an image that leave nothing of it in the host's cache.
_CACHELESS = {'none', 'directsync'}


class _GuestOfShares(libvirt_guest.Guest):
    """A guest that is migrated though libvirt doesn't know its file system.

    libvirt has a list of the shared file systems that it knows
    (virFileIsSharedFSType). Lustre is none of them, so libvirt refuses a live
    migration as unsafe, unless it is told not to ask. It would ask two things:
    whether images are shared, and whether no host caches them. We know the
    first from Cinder, and see to the second.

    :param volumes: the ids of volumes on Lustre
    """

    def __init__(self, domain, volumes):
        super().__init__(domain)
        self._volumes = volumes

    def migrate(self, destination, flags=0, **kwargs):
        if all(map(self._is_safe, self.get_all_disks())):
            flags |= driver.libvirt.VIR_MIGRATE_UNSAFE
        super().migrate(destination, flags=flags, **kwargs)

    def _is_safe(self, disk):
        """Whether nothing but the type of file system speaks against it."""
        if disk.source_path is None or disk.readonly:
            return True
        return (disk.serial in self._volumes
                and disk.driver_cache in _CACHELESS)


class LibvirtDriver(driver.LibvirtDriver):
    """Nova's libvirt driver, which also attaches volumes of type lustre."""

    def get_volume_connector(self, instance):
        """Tell Cinder what this host is, and that it takes type lustre."""
        return dict(super().get_volume_connector(instance), **{MARK: True})

    def _hard_reboot(self, context, instance, network_info, share_info,
                     block_device_info=None, accel_info=None):
        """Start a guest on the images that Cinder says its volumes have.

        What Nova has noted is the image below for up to a second after a
        snapshot, and until the next migration if nova-compute is killed in
        this time (volume_snapshot_create). A guest that wrote to it would
        change the snapshot, and the overlay would no longer fit.
        """
        for mapping in _on_lustre(block_device_info):
            mapping.refresh_connection_info(context, instance,
                                            self._volume_api, self)
        super()._hard_reboot(context, instance, network_info, share_info,
                             block_device_info, accel_info)

    def _volume_snapshot_create(self, context, instance, guest, volume_id,
                                new_file):
        """Let a guest write to an overlay.

        Not in rescue: Nova has kept the guest's definition from before, with
        the image below, and goes back to that (unrescue).
        """
        if instance.vm_state == vm_states.RESCUED:
            raise exception.InstanceInvalidState(
                attr='vm_state', instance_uuid=instance.uuid,
                state=instance.vm_state, method='volume_snapshot_create')
        super()._volume_snapshot_create(context, instance, guest, volume_id,
                                        new_file)

    def detach_volume(self, context, connection_info, instance, mountpoint,
                      encryption=None):
        if connection_info['driver_volume_type'] == PROTOCOL:
            self._wait_for_merge(instance, mountpoint.rpartition('/')[2])
        super().detach_volume(context, connection_info, instance, mountpoint,
                              encryption)

    def _wait_for_merge(self, instance, disk):
        """Wait until no snapshot of a disk is being deleted any more.

        libvirt does not detach it before, and Nova leaves a disk that is only
        half detached. Nobody needs to have deleted one: of an attached volume
        Cinder says that it has been backed up while the snapshot for that goes
        (BackupManager.continue_backup).
        """
        try:
            device = self._host.get_guest(instance).get_block_device(disk)
            for _second in range(MERGE_LIMIT):
                if device.get_job_info() is None:
                    return
                time.sleep(1)
        except (exception.InstanceNotFound, driver.libvirt.libvirtError):
            # Nova has its ways with what is not there.
            return
        LOG.warning('A snapshot of %s is still being deleted', disk,
                    instance=instance)

    def _live_migration_operation(self, context, instance, dest,
                                  block_migration, migrate_data, guest,
                                  device_names):
        """Migrate a guest whose disks are all on Lustre.

        All others are left to Nova, and to what libvirt thinks of them.
        """
        volumes = {bdm.serial for bdm in migrate_data.bdms
                   if bdm.connection_info['driver_volume_type'] == PROTOCOL}
        if volumes:
            guest = _GuestOfShares(guest._domain, volumes)
        super()._live_migration_operation(
            context, instance, dest, block_migration, migrate_data, guest,
            device_names)

    def post_live_migration_at_destination(self, context, instance,
                                           network_info, block_migration=False,
                                           block_device_info=None):
        """Complete a migration, and let QEMU own its images again.

        The libvirt that the guest has left does not know that they are shared,
        and gives them back to whom they belonged before, or to root
        (virSecurityDACRestoreAllLabel). QEMU has them open, and only notices
        when it opens one anew, for a snapshot.
        """
        super().post_live_migration_at_destination(
            context, instance, network_info, block_migration,
            block_device_info)
        volumes = {mapping['connection_info'].get('serial')
                   for mapping in _on_lustre(block_device_info)}
        if volumes:
            guest = self._host.get_guest(instance)
            user, group = _owner(guest)
            for disk in guest.get_all_disks():
                if disk.serial in volumes:
                    _let_own(disk.source_path, user, group)


def _on_lustre(block_device_info):
    """Return what Nova knows of those volumes of a guest that are ours."""
    return [mapping for mapping in
            virt_driver.block_device_info_get_mapping(block_device_info)
            if mapping['connection_info']['driver_volume_type'] == PROTOCOL]


def _owner(guest):
    """Return user and group that QEMU runs a guest as, by their IDs.

    None of both where libvirt gives it no files (dynamic_ownership).
    """
    label = etree.fromstring(guest.get_xml_desc()).findtext(
        "./seclabel[@model='dac'][@relabel='yes']/label")
    found = re.fullmatch(r'\+([0-9]+):\+([0-9]+)', label or '')
    return map(int, found.groups()) if found else (None, None)


def _let_own(path, user, group):
    try:
        status = os.stat(path)
        if user not in (None, status.st_uid) and group != status.st_gid:
            privileged.chown(path, user, group)
    except OSError as exc:
        LOG.warning('%(path)s can not be given to QEMU (user %(user)s): a '
                    'snapshot of its volume will fail until the server has '
                    'been rebooted: %(exc)s', {
                        'path': path, 'user': user, 'exc': exc})
