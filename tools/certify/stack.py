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

"""The services: those of the stack with Nova, set up for Tempest."""

from tools.certify import config
from tools.nova_stack import stack

# The name of the compute host, if there is one. It has our driver: without
# that, Nova can't attach encrypted volumes.
COMPUTE = 'compute'
INTERNAL = 'cinder-internal'


class Stack(stack.Stack):
    """The services of one certification."""

    writer_class = config.Writer
    compute_driver = stack.COMPUTES['lustre']

    def __init__(self, layout, shares, with_nova):
        super().__init__(layout, shares,
                         {COMPUTE: self.compute_driver} if with_nova
                         else {})

    @property
    def with_nova(self):
        return bool(self.computes)

    def _start_keystone(self):
        super()._start_keystone()
        # Not before: it needs the environment, which ending does without.
        from tools.nova_stack import identity

        self.writer.add_image_cache(*identity.make_tenant(
            self.catalog()['identity'], self.writer.password, INTERNAL))
