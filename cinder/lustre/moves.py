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

"""Volumes that move without a copy through Cinder.

A retype or a migration that stays on a share is done by ``lfs migrate``: the
servers' bytes go from OSTs to OSTs, names, inodes and chains stay. Between
directories of one file system files get other names. It is done to volumes
that nobody has attached. Lustre would do it under a running QEMU,
but who writes then waits for as long as it takes, which a guest may not.

What can't be done so is left to Cinder, which makes another volume and copies.
"""

import os

from oslo_log import log as logging

from cinder.db import api as db
from cinder.i18n import _
from cinder.lustre import capacity
from cinder.lustre import files
from cinder.lustre import images
from cinder.lustre import locks
from cinder.volume import volume_utils
from os_brick.remotefs import lustre as lustre_brick

LOG = logging.getLogger(__name__)

_FORMAT = 'lustre:format'

# In the admin metadata, as long as a volume moves from one share to another:
# its files may have names on both.
_MOVED_FROM, _MOVED_TO = 'moved_from', 'moved_to'


class MovesMixin:
    """The methods of a driver for volumes that get another type or pool."""

    @locks.volume_locked
    def retype(self, context, volume, new_type, diff, host):
        """Change the type of a volume where it is, if that can be done.

        :returns: whether it was, and what else is to be changed
        """
        target = self._as_retyped(self._as_it_is_now(volume), new_type,
                                  host['host'])
        reason = self._why_not_here(volume, target)
        if reason:
            LOG.info('Volume %(id)s is not retyped where it is: %(reason)s',
                     {'id': volume.id, 'reason': reason})
            return False, None
        self._check_ost_pool(target)
        if not self._same_files(volume, target):
            self._move(target, volume)
        return True, None

    @locks.volume_locked
    def migrate_volume(self, context, volume, host):
        """Move a volume to another OST pool or directory of a file system.

        :returns: whether it was, and what else is to be changed
        """
        target = self._as_retyped(self._as_it_is_now(volume),
                                  volume.volume_type, host['host'])
        if self._is_in_use(volume) or not self._is_on_file_system_of(volume,
                                                                     target):
            return False, None
        self._check_ost_pool(target)
        if self._is_on_share_of(volume, target):
            self._move(target, volume)
            return True, None
        return self._relink(volume, target), None

    # What an operator asks for (cinder.lustre.manage)

    def share_names(self):
        """Return the names of the pools of the shares."""
        return list(self._shares)

    def layouts(self, volume):
        """Return what each file of a volume is on, by the file's name."""
        return self._images(volume).layouts()

    def avoid_ost(self, share_name, index, why):
        """Let no file be made on an OST, until the next report.

        :param share_name: of the share's pool
        """
        self._survey.exclude(share_name, index, why)

    @locks.volume_locked
    def lay_out_anew(self, volume):
        """Move a volume's files to where its type says, off useless OSTs.

        :returns: whether that could be done: it was not attached
        """
        if self._is_in_use(self._as_it_is_now(volume)):
            return False
        volume_images = self._images(volume)
        with volume_images.locked():
            volume_images.claim()
            volume_images.lay_out(self._layout(volume))
        return True

    # How it is done

    def _why_not_here(self, volume, target):
        """Tell what keeps a volume from being retyped where it is."""
        if not self._is_on_share_of(volume, target):
            return _("the scheduler has chosen another share")
        # Not what is recorded: of a volume that was made raw Nova may have
        # left an overlay alone.
        chain = self._images(volume).chain()
        base, is_raw = chain[-1].format, chain[0].format == images.RAW
        if self._extra_specs(target).get(_FORMAT, base) != base:
            return _("its file is %s") % base
        if not is_raw and volume_utils.is_boolean_str(
                self._extra_specs(target).get('multiattach')):
            return _("its image is qcow2, which one server can have")
        if self._same_files(volume, target):
            return None
        if self._is_in_use(volume):
            return _("it is attached")
        if self._provisioning(volume) != self._provisioning(target) and (
                not is_raw):
            return _("the space of a qcow2 image can't be changed")
        return None

    @staticmethod
    def _as_retyped(volume, new_type, host):
        """Return a volume as it will be, which is in no database."""
        target = volume.obj_clone()
        target.volume_type = new_type
        target.volume_type_id = new_type.id if new_type else None
        target.host = host
        return target

    @staticmethod
    def _is_on_share_of(volume, target):
        """Tell whether two hosts mean one share of one back end."""
        def share(host):
            pool = volume_utils.extract_host(host, 'pool') or ''
            return (volume_utils.extract_host(host),
                    capacity.split_pool(pool)[0])
        return share(volume.host) == share(target.host)

    def _is_on_file_system_of(self, volume, target):
        """Tell whether two hosts mean one file system of one back end."""
        def backend_and_share(host):
            pool = volume_utils.extract_host(host, 'pool') or ''
            share = self._shares.get(capacity.split_pool(pool)[0])
            return volume_utils.extract_host(host), share and share.root
        return backend_and_share(volume.host) == backend_and_share(
            target.host)

    def _relink(self, volume, target):
        """Move a volume's files to the directory of another share.

        Names can be given across directories only within one mount: that of
        the whole file system.

        :returns: whether that can be done
        """
        new = self._share_of_host(target)
        volume_images = self._images(volume)
        with volume_images.locked():
            volume_images.claim()
            wanted = self._layout(target)
            if wanted and wanted != self._layout(volume):
                volume_images.lay_out(wanted)
            names = volume_images.names()
            if not self._give_names(volume, new, names):
                return False
            volume.update({
                'provider_location': new.name,
                'host': volume_utils.append_host(
                    volume_utils.extract_host(volume.host),
                    capacity.pool_name(new))})
            volume.save()
            try:
                self._remove_second_names(volume, names)
            except (OSError, lustre_brick.ShareUnavailable) as exc:
                # They stay noted.
                LOG.warning('Volume %(id)s was moved, but still has names '
                            'where it was: %(exc)s', {'id': volume.id,
                                                      'exc': exc})
        return True

    def _give_names(self, volume, new, names):
        """Give a volume's files names in the directory of another share.

        :returns: whether that can be done
        """
        old = self._place(volume).share
        try:
            self._client.ensure_mounted(new.root)
            self._remove_second_names(volume)
            self._note(volume, **{_MOVED_FROM: old.name, _MOVED_TO: new.name})
            self._client.call(new.root, files.link, *(
                os.path.join(self._client.mount_point(new.root),
                             share.directory) for share in (old, new)), names)
        except (OSError, lustre_brick.ShareUnavailable) as exc:
            LOG.warning('Volume %(id)s is moved by a copy, not by its names: '
                        '%(exc)s', {'id': volume.id, 'exc': exc})
            if isinstance(exc, OSError):
                # It has come back: no name has been given.
                self._forget_second_names(volume)
            return False
        return True

    def _remove_second_names(self, volume, names=None):
        """Remove the names that a move has left where the volume is not.

        :param names: the files', if they are known; otherwise the directory
            is looked through, if a move was interrupted
        """
        noted = self._admin_metadata(volume)
        if _MOVED_TO not in noted:
            return
        here = self._place(volume).share
        for share in map(self._share_named, (noted[_MOVED_FROM],
                                             noted[_MOVED_TO])):
            if share.path != here.path:
                self._remove_names(volume, share, names)
        self._forget_second_names(volume)

    def _remove_names(self, volume, share, names):
        place = self._place_on(self._shares.get(capacity.pool_name(share),
                                                share))
        place.available()
        if names is None:
            names = place.call(files.named, place.directory, volume.name)
            names.append(volume.name + '.info')
        place.call(files.remove, [os.path.join(place.directory, name)
                                  for name in names])

    def _forget_second_names(self, volume):
        metadata = dict(self._admin_metadata(volume))
        with volume.obj_as_admin():
            for key in _MOVED_TO, _MOVED_FROM:
                db.volume_admin_metadata_delete(volume._context, volume.id,
                                                key)
                metadata.pop(key, None)
            volume.admin_metadata = metadata
            volume.obj_reset_changes(['admin_metadata'])

    def _same_files(self, volume, target):
        """Tell whether nothing has to be done to the files."""
        return (self._layout(volume) == self._layout(target)
                and self._provisioning(volume) == self._provisioning(target))

    def _move(self, target, volume):
        """Make a volume's files those of another type or pool.

        :param target: the volume as it will be
        """
        volume_images = self._images(target)
        with volume_images.locked():
            volume_images.claim()
            self._check_room(target, volume_images)
            wanted = self._layout(target)
            if wanted:
                volume_images.lay_out(wanted)
            if self._provisioning(volume) != self._provisioning(target):
                volume_images.provision()

    def _check_room(self, target, volume_images):
        """Refuse a volume that would be thick and does not fit."""
        size, taken = self._place(target).call(
            files.space, volume_images.active().path)
        self._check_space(self._place(target), target, max(0, size - taken))
