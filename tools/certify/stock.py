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

"""The same tests, on Cinder's NFS driver.

A failure that is excused is not our drivers' fault if that driver fails as
well, and the test says the same. It finds the shares mounted already, so that
no server for NFS is needed; no test that is run here comes as far as attaching
a volume. All other tests are left out.
"""

import hashlib

from tools.certify import certification
from tools.certify import config
from tools.certify import excuses
from tools.certify import stack
from tools.certify import suites
from tools.certify import verdict
from tools.demo import procs
from tools.demo import share
from tools.nova_stack import stack as nova_stack

# The suites with such tests.
SUITES = ('api-encrypted', 'scenario-encrypted')


def nfs_share(backend):
    """The name of a backend's share, which nothing answers to."""
    return '192.0.2.1:/%s' % backend


class Writer(config.Writer):

    def _backends(self):
        lines = super()._backends()
        for name in self.shares.backends:
            path = self.layout.etc / 'cinder' / (name + '.shares')
            path.write_text(nfs_share(name) + '\n')
            lines += ['[%s]' % name,
                      'volume_driver = cinder.volume.drivers.nfs.NfsDriver',
                      'nfs_shares_config = %s' % path,
                      'nfs_mount_point_base = %s' % self.layout.volume_mounts,
                      # As the service's user, like ours.
                      'nas_secure_file_operations = true',
                      'nas_secure_file_permissions = true']
        return lines


class Stack(stack.Stack):

    writer_class = Writer
    compute_driver = nova_stack.COMPUTES['stock']

    def start(self, progress):
        for name, shares in self.shares.backends.items():
            where = self.layout.volume_mounts / hashlib.md5(
                nfs_share(name).encode(), usedforsecurity=False).hexdigest()
            procs.run('mkdir', where, user=self.user)
            # Options may follow.
            share.mount(shares[0].partition(' ')[0], where)
        super().start(progress)


class Certification(certification.Certification):
    """Of excuses, not of drivers."""

    name = 'stock'
    stack_class = Stack

    def _choose(self):
        return [suite for suite in suites.choose(self.arguments)
                if suite.name in SUITES]

    def _split(self, suite, names):
        wanted = excuses.failing(names, suite.volume_type, self.excuses)
        return wanted, [name for name in names if name not in wanted]

    def faults(self, tests):
        return excuses.unshown(tests)

    def _judge(self, stopped):
        return verdict.judge_excuses(self.arguments.release, self.tests,
                                     stopped)
