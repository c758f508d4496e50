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
volumes isn't counted here: Cinder keeps ``allocated_capacity_gb`` of each pool
and takes it as provisioned where a driver reports nothing else.
"""

import hashlib
import re
import threading
import time

from oslo_log import log as logging
from oslo_utils import units

from cinder.i18n import _
from cinder.lustre import files
from os_brick.remotefs import lustre as lustre_brick

LOG = logging.getLogger(__name__)

# cinder.volumes.host has 255 characters for <host>@<backend>#<pool>.
_LONGEST_POOL_NAME = 100

# How long a report waits for shares to answer, in seconds. Much less than the
# period of the reports: a share that takes longer is reported as down.
_PATIENCE = 10


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


class Survey:
    """Asks shares for their space: all at once, and not for ever.

    Mounts those that are not mounted. A share that has not answered in time
    counts as down until it has; it is not asked again before.

    :param client: the :class:`os_brick.remotefs.lustre.ShareClient`
    """

    def __init__(self, client):
        self._client = client
        self._running = {}
        self._down = {}

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
        return {name: self._capacity(name, question)
                for name, question in questions.items()}

    def _ask(self, name, share):
        question = self._running.get(name)
        if question is None or not question.is_alive():
            question = self._running[name] = _Question(self._client, share)
            question.start()
        return question

    def _capacity(self, name, question):
        if question.is_alive():
            self._tell(name, _('no answer within %s s') % _PATIENCE)
        else:
            self._tell(name, question.failure)
        if name in self._down:
            return {'total_capacity_gb': 0, 'free_capacity_gb': 0,
                    'backend_state': 'down'}
        size, available = question.space
        return {'total_capacity_gb': round(size / units.Gi, 2),
                'free_capacity_gb': round(available / units.Gi, 2),
                'backend_state': 'up'}

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


class _Question(threading.Thread):

    def __init__(self, client, share):
        super().__init__(daemon=True)
        self._client = client
        self._share = share
        self.space = None
        self.failure = None

    def run(self):
        try:
            self.space = self._client.ensure_mounted(self._share)
            self._check_writable()
        except Exception as exc:
            self.failure = str(exc) or repr(exc)

    def _check_writable(self):
        directory = self._client.mount_point(self._share)
        if self._client.call(self._share, files.not_writable, [directory]):
            raise lustre_brick.ShareUnavailable(share=self._share, reason=_(
                "the user of cinder-volume can't write to its directory; "
                "change the directory's owner or mode"))
