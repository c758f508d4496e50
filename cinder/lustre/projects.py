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

"""Projects of Lustre: what volumes and tenants take, and how much they may.

With ``lustre_projects`` every file that is made for a volume has a project ID
of that range, so that ``lfs quota -p`` tells at once what they really take.
The ID follows from that of the volume, or of its tenant, by a hash; nothing is
kept, and two may have the same.

A limit needs an ID that nobody else has. So with ``lustre_project_limits`` a
volume's ID is chosen and kept:

1. Beginning with the hash, the first ID that has neither a file nor a limit
   gets the volume's limit, under a lock. From then on it is taken.
2. It is noted in the volume's admin metadata (``project``).
3. Files are made.

After a kill between 1 and 2 that ID keeps a limit and never has a file; the
repetition takes the next one. What has such a note keeps its limit up to date
even where the option isn't set any more.

The limit is raised before a volume grows or gets a snapshot, and lowered after
it has lost one: an interruption leaves it too high. It goes after the files
have gone. Where files are moved to another volume's record by a migration, the
note goes with them.

A guest can't write more than its disk and its snapshots hold, so the limit is
not what keeps it in bounds; it keeps everything else there, and promises the
space to nobody else. It is wide enough for what the files may take at most:
see :func:`room`.
"""

import contextlib
import hashlib
import re

from oslo_log import log as logging
from oslo_utils import excutils

from cinder import coordination
from cinder import exception
from cinder.i18n import _
from cinder.lustre import layout
from os_brick.remotefs import lustre as lustre_brick

LOG = logging.getLogger(__name__)

# The key of the note.
NOTE = 'project'

# A project ID has 32 bits; of these the last one means none.
LAST = (1 << 32) - 2

# So many IDs are looked at before the range counts as used up.
_ATTEMPTS = 100

# IDs share locks, for one of its own would leave a file for each.
_LOCKS = 256


class ProjectsMixin:
    """The methods of a driver for Lustre's projects."""

    def _configured_projects(self):
        """Read the range of project IDs, and see that limits can be set.

        :returns: a range, or None
        :raises InvalidConfigurationValue: it is none
        """
        conf = self.configuration
        if conf.lustre_project_limits and (
                conf.lustre_projects is None
                or conf.lustre_project_of != 'volume'):
            raise exception.InvalidConfigurationValue(
                option='lustre_project_limits', value=_(
                    "True (limits need lustre_projects, and "
                    "lustre_project_of=volume)"))
        return None if conf.lustre_projects is None else _range(
            conf.lustre_projects)

    def project_of(self, volume):
        """Return the project of files that are made for a volume, or None."""
        conf = self.configuration
        noted = self._noted_project(volume)
        if noted or self._projects is None or conf.lustre_project_limits:
            return noted
        return self._hashed(volume.project_id
                            if conf.lustre_project_of == 'tenant'
                            else volume.name_id)

    def _hashed(self, owner, attempt=0):
        digest = hashlib.blake2b(owner.encode(), digest_size=8).digest()
        return self._projects[(int.from_bytes(digest, 'big') + attempt)
                              % len(self._projects)]

    def _noted_project(self, volume):
        return int(self._admin_metadata(volume).get(NOTE) or 0) or None

    @contextlib.contextmanager
    def _project_taken(self, volume, place, size):
        """Yield the project of a volume that is being made, or None.

        :param size: of the volume, in GiB
        """
        if self.configuration.lustre_project_limits and (
                not self._noted_project(volume)):
            self._note(volume, **{
                NOTE: str(self._take_project(volume, place, size))})
        try:
            yield self.project_of(volume)
        except Exception:
            with excutils.save_and_reraise_exception():
                self._drop_limit(volume, place)

    def _take_project(self, volume, place, size):
        for attempt in range(min(_ATTEMPTS, len(self._projects))):
            project = self._hashed(volume.name_id, attempt)
            if _take(project % _LOCKS, place, project, room(size)):
                return project
        raise exception.VolumeDriverException(message=_(
            "No project ID is free for volume %s: make the range of "
            "lustre_projects larger") % volume.id)

    def _follow_limit(self, volume, volume_images, size=None, more=0):
        """Let a volume's limit be what its files may take.

        :param size: of the volume as it will be, in GiB
        :param more: the snapshots that it will have besides those it has
        """
        project = self._noted_project(volume)
        if project:
            snapshots = len(volume_images.snapshot_ids()) + more
            set_limit(self._place(volume), project,
                      room(size or volume.size, snapshots))

    def _drop_limit(self, volume, place):
        """Take back the limit of a volume that Cinder has no files of.

        One that stays can do no harm: its project has no files.
        """
        project = self._noted_project(volume)
        if not project:
            return
        try:
            set_limit(place, project, 0)
            self._note(volume, **{NOTE: ''})
        except (exception.VolumeDriverException,
                lustre_brick.ShareUnavailable) as exc:
            LOG.warning('The limit of Lustre project %(project)s stays: '
                        '%(exc)s', {'project': project, 'exc': exc})


def _range(text):
    match = re.fullmatch(r'([1-9][0-9]{0,9})-([1-9][0-9]{0,9})', text)
    first, last = map(int, match.groups()) if match else (1, 0)
    if not first <= last <= LAST:
        raise exception.InvalidConfigurationValue(
            option='lustre_projects', value=_(
                "%(text)s (<first>-<last>, from 1 to %(last)s)") % {
                    'text': text, 'last': LAST})
    return range(first, last + 1)


def room(size, snapshots=0):
    """Return how much the files of a volume may take at most, in MiB.

    That is an image for the volume and each snapshot, and one more for as long
    as an image is made anew (``lfs migrate``, a conversion). What qcow2 and
    ldiskfs need to find an image's data is less than a 64th of them: a qcow2
    cluster of 64 KiB has 10 bytes in tables, and an extent of 4 KiB, which is
    the least there is, 12 bytes on ldiskfs.

    :param size: of the volume, in GiB
    """
    return (snapshots + 2) * (size * (1024 + 16) + 64)


@coordination.synchronized('lustre-project-{lock}')
def _take(lock, place, project, limit):
    """Give a project a limit, unless it is somebody's.

    :param limit: MiB
    :returns: whether it was nobody's
    """
    files, limited = _usage(place, project)
    if files or limited:
        return False
    set_limit(place, project, limit)
    return True


def _usage(place, project):
    """Return how many files a project has, and its limit in KiB.

    :raises VolumeDriverException: there is no telling
    """
    code, output, error = layout.lfs(place, 'quota', '-q', '-p', str(project),
                                     place.directory)
    # Directory, KiB, soft and hard limit, grace period, files and the same of
    # them. A star follows what is beyond a limit; in brackets is what may be
    # more, for an OST didn't answer.
    row = re.fullmatch(r'\s*\S+\s+\d+\*? +\d+ +(\d+) +\S+ +(\d+)\*? .*\s*',
                       output)
    if code or not row:
        raise _failed(place, project, error and layout.said(code, error)
                      or output.strip())
    limit, files = map(int, row.groups())
    return files, limit


def set_limit(place, project, limit):
    """Limit the space of a project.

    :param limit: MiB; 0 for none
    :raises VolumeDriverException: Lustre can't, or won't let root of this host
    """
    code, error = place.set_limit(project, limit)
    if code != 0:
        raise _failed(place, project, error or layout.said(code, ''))


def give(place, path, project):
    """Count the space of a file for a project.

    :raises VolumeDriverException: Lustre can't, or won't let root of this host
    """
    code, error = place.set_project(path, project)
    if code != 0:
        raise exception.VolumeDriverException(message=_(
            "Project %(project)s can't be given to %(path)s on Lustre share "
            "%(share)s (lustre_projects): %(reason)s") % {
                'project': project, 'path': path, 'share': place.share,
                'reason': error or layout.said(code, '')})


def _failed(place, project, reason):
    return exception.VolumeDriverException(message=_(
        "Project %(project)s of Lustre share %(share)s can't have a limit "
        "(lustre_project_limits): %(reason)s") % {
            'project': project, 'share': place.share, 'reason': reason})
