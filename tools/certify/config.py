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

"""Where the stack keeps its files, and the services' configuration.

Cinder is configured as in the stack with Nova. What is said twice in a file
counts as it is said last.
"""

import pathlib

from tools.demo import share
from tools.nova_stack import config

# Cinder's backends. Some tests move volumes from one to the other.
BACKENDS = ('lustre1', 'lustre2')
# The name of the type of volumes for which none is named. The type that is
# under test bears it: see cloud.Cloud.make_default().
DEFAULT_TYPE = 'default'


class Layout(config.Layout):
    """The directories and files of one certification."""

    def __init__(self, home):
        super().__init__(home)
        self.sudoers = pathlib.Path('/etc/sudoers.d/cinder-lustre-certify')
        # Where Tempest runs, and its environment.
        self.tempest = self.state / 'tempest'
        self.tempest_venv = self.home / 'venv-tempest'
        self.bundles = self.home / 'bundles'

    @property
    def tempest_conf(self):
        return self.etc / 'tempest' / 'tempest.conf'


class Backends:
    """Each share for volumes is a backend."""

    @property
    def backends(self):
        return {name: [share] for name, share in zip(BACKENDS, self.volumes)}


class Sandbox(Backends, share.Sandbox):
    """The demo's shares."""


class RealShare(Backends, share.RealShare):
    """Directories of a real share."""


def choose(layout):
    """The shares that the environment asks for."""
    return share.choose(layout, Sandbox, RealShare)


class Writer(config.Writer):
    """Writes every configuration file."""

    def _cinder(self):
        return [
            '[DEFAULT]',
            # Cinder's own, which tests of quotas expect.
            'quota_volumes = 10', 'quota_snapshots = 10',
            'quota_gigabytes = 1000', 'quota_backups = 10',
            'quota_backup_gigabytes = 1000',
            'default_volume_type = %s' % DEFAULT_TYPE,
            *super()._cinder(),
            *self._backends()]

    def _keystone(self):
        return [*super()._keystone(),
                # Tempest makes users for each class of tests. To hash their
                # passwords as it ought to be done takes a third of the time.
                '[identity]', 'password_hash_rounds = 4']

    def _backends(self):
        """What Tempest's own types get, that say nothing.

        One of its tests retypes such a volume to multiattach where it is,
        which takes a raw file. Thin volumes are qcow2.
        """
        lines = []
        for name in self.shares.backends:
            lines += ['[%s]' % name, 'nas_volume_prov_type = thick']
        return lines

    def add_image_cache(self, project_id, user_id):
        """Let Cinder keep images as volumes of this project's."""
        lines = ['[DEFAULT]',
                 'cinder_internal_tenant_project_id = %s' % project_id,
                 'cinder_internal_tenant_user_id = %s' % user_id]
        for name in self.shares.backends:
            lines += ['[%s]' % name, 'image_volume_cache_enabled = true']
        self._add(self.layout.cinder_conf, lines)
