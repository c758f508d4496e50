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

"""What shares hold and can still take, as pools for Cinder's scheduler.

Sizes come from statfs, which takes the same time however many volumes there
are, and which answers with the project's quota for a directory that has one
(Lustre's ``statfs_project``, on by default). What has been promised to thin
volumes isn't counted here: Cinder's database knows, and the driver asks it.

Where the operator asks for it, the pools are a share's OST pools instead of
the share. What these hold is told by one call of ``lfs df`` for each report.
Which OSTs are in them changes when an administrator says so, and is asked less
often. OSTs that are full, inactive or don't answer don't count.
"""

import hashlib
import re
import threading
import time

from oslo_log import log as logging
from oslo_utils import units

from cinder.i18n import _
from cinder.lustre import files
from cinder.lustre import layout
from os_brick.remotefs import lustre as lustre_brick

LOG = logging.getLogger(__name__)

# cinder.volumes.host has 255 characters for <host>@<backend>#<pool>.
_LONGEST_POOL_NAME = 100

# How long a report waits for shares to answer, in seconds. Much less than the
# period of the reports: a share that takes longer is reported as down.
_PATIENCE = 10


# How long it is taken for granted which OSTs are in which pool, in seconds.
_MEMBERS_AGE = 600

# An OST with less than this part of its space available is full. Lustre makes
# no objects there then (reserved_mb_low of its osp devices).
_FULL = 1000

# Asks for all OST pools that there are.
ALL = 'all'


def pool_name(share):
    """Name the pool of a share.

    The same name as long as the file system and the directory are the same,
    wherever the MGS moves. Without the characters that mean something in
    Cinder's host strings.
    """
    name = re.sub(r'[^A-Za-z0-9._/-]',
                  lambda m: ''.join('%%%02X' % b for b in m.group().encode()),
                  share.path)
    if len(name) <= _LONGEST_POOL_NAME:
        return name
    digest = hashlib.sha256(share.path.encode()).hexdigest()[:16]
    return '%s~%s' % (name[:_LONGEST_POOL_NAME - 17], digest)


def ost_pool_name(share_pool, ost_pool):
    """Name the pool of an OST pool of a share."""
    return '%s+%s' % (share_pool, ost_pool)


def split_pool(name):
    """Return the names of the share's pool, and of the OST pool or None."""
    share_pool, _plus, ost_pool = name.partition('+')
    return share_pool, ost_pool or None


class Survey:
    """Asks shares for their space: all at once, and not for ever.

    Mounts those that are not mounted. A share that has not answered in time
    counts as down until it has; it is not asked again before.

    :param client: the :class:`os_brick.remotefs.lustre.ShareClient`
    :param ost_pools: names of the OST pools that are pools, or [ALL]; none
        where it is the shares that are
    """

    def __init__(self, client, ost_pools=()):
        self._client = client
        self._ost_pools = ost_pools
        self._running = {}
        self._down = {}
        self._members = {}
        self._useless = {}

    def take(self, shares):
        """Return the pools' capacities.

        :param shares: {pool name: share}
        :returns: {pool name: capacity as a pool reports it}
        """
        questions = {name: self._ask(name, share)
                     for name, share in shares.items()}
        end = time.monotonic() + _PATIENCE
        for question in questions.values():
            question.join(max(0, end - time.monotonic()))
        return {pool: space for name, question in questions.items()
                for pool, space in self._capacities(name, question)}

    def useless_osts(self, name):
        """Return {index: why} of OSTs that the last report had no use for.

        :param name: of a share's pool
        """
        return self._useless.get(name, {})

    def exclude(self, name, index, why):
        """Count an OST as useless until the next report."""
        self._useless.setdefault(name, {})[index] = why

    def _ask(self, name, share):
        question = self._running.get(name)
        if question is None or not question.is_alive():
            members = None
            if self._ost_pools:
                members = self._members.setdefault(
                    name, _Members(self._ost_pools))
            question = self._running[name] = _Question(self._client, share,
                                                       members)
            question.start()
        return question

    def _capacities(self, name, question):
        """Yield a share's pools and what they can take."""
        if question.is_alive():
            self._tell(name, _('no answer within %s s') % _PATIENCE)
        else:
            self._tell(name, question.failure)
        is_down = name in self._down
        if not self._ost_pools:
            yield name, _NOTHING if is_down else _space(*question.space)
            return
        if not is_down:
            self._look_for_useless(name, question)
        pools = self._members[name].osts
        for ost_pool in pools:
            yield ost_pool_name(name, ost_pool), dict(
                _NOTHING if is_down else self._ost_space(
                    name, question.osts, pools[ost_pool]),
                lustre_pool=ost_pool)
        if not pools:
            yield name, _NOTHING

    def _look_for_useless(self, name, question):
        """Find the OSTs that can take nothing; log it when that changes."""
        useless = {}
        for index in set(question.osts).union(
                *self._members[name].osts.values()):
            space = question.osts.get(index, ())
            if space is None:
                useless[index] = _('does not answer')
            elif not space:
                useless[index] = _('is inactive')
            elif space[1] * _FULL < space[0]:
                useless[index] = _('is full')
        before = self._useless.get(name, {})
        self._useless[name] = useless
        for index in sorted(useless.keys() | before.keys()):
            if useless.get(index) != before.get(index):
                LOG.warning('%(ost)s %(state)s', {
                    'ost': layout.ost_name(question.share, index),
                    'state': useless.get(index, _('can be used again'))})

    def _ost_space(self, name, osts, members):
        usable = [osts[index] for index in members
                  if index not in self._useless[name]]
        if not usable:
            return _NOTHING
        return _space(*map(sum, zip(*usable)))

    def _tell(self, name, failure):
        """Log when a share goes and when it comes back, not in between."""
        if failure and name not in self._down:
            LOG.error('Pool %(name)s is down: %(failure)s', {
                'name': name, 'failure': failure})
        elif not failure and name in self._down:
            LOG.info('Pool %s is up again', name)
        if failure:
            self._down[name] = failure
        else:
            self._down.pop(name, None)


_NOTHING = {'total_capacity_gb': 0, 'free_capacity_gb': 0,
            'backend_state': 'down'}


def _space(size, available):
    return {'total_capacity_gb': round(size / units.Gi, 2),
            'free_capacity_gb': round(available / units.Gi, 2),
            'backend_state': 'up'}


class _Members:
    """The OSTs of a file system's pools.

    :ivar osts: {pool: indices of its OSTs}, as last seen; those that were
        asked for by name are there from the start
    """

    def __init__(self, wanted):
        self._wanted = wanted
        self._since = None
        self.osts = {} if wanted == [ALL] else dict.fromkeys(wanted, ())

    def refresh(self, place):
        """Ask for them, unless that was done a short time ago."""
        now = time.monotonic()
        if self._since is None or now - self._since > _MEMBERS_AGE:
            names = (layout.pool_names(place) if self._wanted == [ALL]
                     else self._wanted)
            found = {name: layout.pool_members(place, name) for name in names}
            for name, members in found.items():
                if not members:
                    LOG.error('OST pool %(pool)s of file system %(fsname)s '
                              'does not exist, or is empty', {
                                  'pool': name,
                                  'fsname': place.share.fsname})
            self.osts, self._since = found, now


class _Question(threading.Thread):

    def __init__(self, client, share, members):
        super().__init__(daemon=True)
        self._client = client
        self.share = share
        self._members = members
        self.space = None
        self.osts = None
        self.failure = None

    def run(self):
        try:
            self.space = self._client.ensure_mounted(self.share)
            self._check_writable()
            if self._members:
                place = layout.OnShare(self.share, self._client)
                self.osts = layout.osts(place)
                self._members.refresh(place)
        except Exception as exc:
            self.failure = str(exc) or repr(exc)

    def _check_writable(self):
        directory = self._client.mount_point(self.share)
        if self._client.call(self.share, files.not_writable, [directory]):
            raise lustre_brick.ShareUnavailable(share=self.share, reason=_(
                "the user of cinder-volume can't write to its directory; "
                "change the directory's owner or mode"))
