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

"""Cinder and Glance as their users see them: the ordinary clients."""

import time

from cinderclient import client as cinder_client
from cinderclient.contrib import noauth
from cinderclient import exceptions as cinder_exceptions
from glanceclient import client as glance_client
from glanceclient import exc as glance_exceptions
from keystoneauth1 import session as ks_session

from tools.demo import config

# What stock Nova says of a compute host, as far as Cinder looks at it.
CONNECTOR = {'host': 'compute', 'ip': '127.0.0.1', 'multipath': False,
             'os_type': 'linux', 'platform': 'x86_64',
             'initiator': 'iqn.2026-01.org.example:compute'}
MICROVERSION = '3.70'


class Unexpected(Exception):
    """Something did not come out as it should."""


class Cloud:
    """One project's clients, and waiting for what they asked for."""

    # How long a single operation may take.
    LIMIT = 120

    def __init__(self, stack, on_wait, project=config.PROJECT):
        session = ks_session.Session(auth=noauth.CinderNoAuthPlugin(
            config.USER, project, endpoint=stack.cinder_url + 'v3'))
        self.cinder = cinder_client.Client(MICROVERSION, session=session,
                                           service_type='block-storage')
        self.glance = glance_client.Client('2', stack.glance_url)
        # Called while waiting, with what is being waited for.
        self.on_wait = on_wait

    def wait(self, what, check, limit=None):
        """Call check() until it returns something true, and return that."""
        limit = limit or self.LIMIT
        until = time.monotonic() + limit
        pause = 0.1
        while True:
            answer = check()
            if answer:
                return answer
            if time.monotonic() > until:
                raise Unexpected('%s: not after %d s' % (what, limit))
            self.on_wait(what)
            time.sleep(pause)
            pause = min(0.5, pause * 1.2)

    def _wait_status(self, manager, item, wanted, limit):
        kind = type(item).__name__.lower()

        def check():
            found = manager.get(item.id)
            if found.status in wanted:
                return found
            if 'error' in found.status:
                raise Unexpected('%s %s is %s%s' % (
                    kind, item.id, found.status, self._why(found)))
        return self.wait('%s to be %s' % (kind, wanted[0]), check, limit)

    def _why(self, item):
        """What Cinder tells the user about a failure."""
        reasons = [getattr(item, 'fail_reason', None)]
        reasons += [message.user_message
                    for message in self.cinder.messages.list()
                    if message.resource_uuid == item.id]
        # One after another and each once: a failure may be told again.
        text = '; '.join(dict.fromkeys(reason for reason in reasons
                                       if reason))
        return text and ': ' + text

    def wait_volume(self, volume, *wanted, limit=None):
        return self._wait_status(self.cinder.volumes, volume,
                                 wanted or ('available',), limit)

    def wait_snapshot(self, snapshot, limit=None):
        return self._wait_status(self.cinder.volume_snapshots, snapshot,
                                 ('available',), limit)

    def wait_backup(self, backup, *wanted, limit=None):
        return self._wait_status(self.cinder.backups, backup,
                                 wanted or ('available',), limit)

    def _wait_gone(self, manager, items, limit):
        for item in items:
            def check(item=item):
                try:
                    found = manager.get(item.id)
                except cinder_exceptions.NotFound:
                    return True
                if 'error' in found.status:
                    raise Unexpected('%s is %s%s' % (item.id, found.status,
                                                     self._why(found)))
                return False
            self.wait('%s to be gone' % type(item).__name__.lower(), check,
                      limit)

    # The operations, each to its end.

    def create_volume(self, size, limit=None, **more):
        volume = self.cinder.volumes.create(size, **more)
        return self.wait_volume(volume, limit=limit)

    def create_failing_volume(self, size, **more):
        """Ask for a volume that cannot be had; returns it and the reason."""
        volume = self.cinder.volumes.create(size, **more)
        volume = self.wait_volume(volume, 'error', 'available')
        return volume, self._why(volume).lstrip(': ')

    def delete_volumes(self, volumes):
        for volume in volumes:
            self.cinder.volumes.delete(volume.id)
        self._wait_gone(self.cinder.volumes, volumes, None)

    def refuse_deletion(self, volume):
        """Ask for the deletion of a volume that Cinder must refuse."""
        self.cinder.volumes.delete(volume.id)
        # For a moment it is "deleting".
        self.wait_volume(volume, 'available')

    def extend_volume(self, volume, size):
        self.cinder.volumes.extend(volume, size)
        found = self.wait_volume(volume)
        if found.size != size:
            raise Unexpected('volume %s has %d GiB, wanted %d' % (
                volume.id, found.size, size))

    def create_snapshot(self, volume, **more):
        return self.wait_snapshot(
            self.cinder.volume_snapshots.create(volume.id, **more))

    def delete_snapshots(self, snapshots):
        for snapshot in snapshots:
            self.cinder.volume_snapshots.delete(snapshot.id)
        self._wait_gone(self.cinder.volume_snapshots, snapshots, None)

    def revert(self, volume, snapshot):
        self.cinder.volumes.revert_to_snapshot(volume, snapshot)
        self.wait_volume(volume)
        self.wait_snapshot(snapshot)

    def reimage(self, volume, image_id):
        """Fill a volume anew, as the rebuild of a server does."""
        self.cinder.volumes.reimage(volume, image_id)
        self.wait_volume(volume)

    def key_id(self, volume):
        """The ID of an encrypted volume's key, as Nova asks for it."""
        return self.cinder.volumes.get_encryption_metadata(
            volume.id)['encryption_key_id']

    # Files that become volumes, and return.

    def manage(self, host, source_name, **more):
        """Make a file of a share, by its name, into a volume."""
        return self.wait_volume(self.cinder.volumes.manage(
            host, {'source-name': source_name}, **more))

    def unmanage(self, volume):
        self.cinder.volumes.unmanage(volume.id)
        self._wait_gone(self.cinder.volumes, [volume], None)

    def manage_failing(self, host, source_name, **more):
        """The same of a file that is refused; returns the volume's status."""
        volume = self.cinder.volumes.manage(
            host, {'source-name': source_name}, **more)
        status = self.wait_volume(volume, 'error', 'error_managing',
                                  'available').status
        self.delete_volumes([volume])
        return status

    def manage_snapshot(self, volume, source_name):
        """Make an overlay of a volume, by its name, into a snapshot."""
        return self.wait_snapshot(self.cinder.volume_snapshots.manage(
            volume.id, {'source-name': source_name}))

    def unmanage_snapshot(self, snapshot):
        self.cinder.volume_snapshots.unmanage(snapshot.id)
        self._wait_gone(self.cinder.volume_snapshots, [snapshot], None)

    # Groups.

    def create_group(self, group_type, volume_types):
        group = self.cinder.groups.create(
            group_type.id, ','.join(found.id for found in volume_types))
        return self._wait_status(self.cinder.groups, group, ('available',),
                                 None)

    def create_group_snapshot(self, group):
        return self._wait_status(
            self.cinder.group_snapshots,
            self.cinder.group_snapshots.create(group.id), ('available',),
            None)

    def create_group_from(self, group_snapshot):
        """Make a group of a group snapshot; returns its volumes, too."""
        made = self.cinder.groups.create_from_src(group_snapshot.id, None)
        group = self._wait_status(self.cinder.groups,
                                  self.cinder.groups.get(made['id']),
                                  ('available',), None)
        return group, self.cinder.volumes.list(
            search_opts={'group_id': group.id})

    def delete_group_snapshots(self, group_snapshots):
        for group_snapshot in group_snapshots:
            self.cinder.group_snapshots.delete(group_snapshot.id)
        self._wait_gone(self.cinder.group_snapshots, group_snapshots, None)

    def delete_groups(self, groups):
        """Delete groups with their volumes."""
        for group in groups:
            self.cinder.groups.delete(group.id, delete_volumes=True)
        self._wait_gone(self.cinder.groups, groups, None)

    # Backups.

    def create_backup(self, volume, **more):
        return self.wait_backup(
            self.cinder.backups.create(volume.id, **more))

    def restore(self, backup, volume=None):
        """Restore to this volume, or to a new one; returns the volume."""
        restore = self.cinder.restores.restore(
            backup.id, volume.id if volume else None)
        target = self.cinder.volumes.get(restore.volume_id)
        # A new volume is "creating" first.
        self.wait_backup(backup)
        return self.wait_volume(target)

    def delete_backups(self, backups):
        # One by one: an incremental backup's parent cannot go before it.
        for backup in backups:
            self.cinder.backups.delete(backup.id)
            self._wait_gone(self.cinder.backups, [backup], None)

    def attach(self, volume):
        """Attach as Nova does; returns the attachment, as a dictionary.

        Encrypted volumes are attached where our driver for Nova is.
        """
        encrypted = self.cinder.volumes.get(volume.id).encrypted
        attachment = self.cinder.attachments.create(
            volume.id, dict(CONNECTOR, lustre_connector=encrypted),
            mode='rw')
        self.cinder.attachments.complete(attachment['id'])
        return attachment

    def detach(self, volume, attachment):
        self.cinder.attachments.delete(attachment['id'])
        self.wait_volume(volume)

    # Images.

    def create_image(self, name, path, disk_format):
        image = self.glance.images.create(
            name=name, disk_format=disk_format, container_format='bare')
        with open(path, 'rb') as data:
            self.glance.images.upload(image.id, data)
        return image.id

    def volume_to_image(self, volume, name, disk_format):
        answer = self.cinder.volumes.upload_to_image(
            volume, False, name, 'bare', disk_format, 'shared', False)
        image_id = answer[1]['os-volume_upload_image']['image_id']
        self.wait_volume(volume)

        def check():
            return self.glance.images.get(image_id).status == 'active'
        self.wait('image to be active', check)
        return image_id

    def download_image(self, image_id, path):
        with open(path, 'wb') as target:
            for chunk in self.glance.images.data(image_id):
                target.write(chunk)

    def delete_image(self, image_id):
        try:
            self.glance.images.delete(image_id)
        except glance_exceptions.HTTPNotFound:
            pass
