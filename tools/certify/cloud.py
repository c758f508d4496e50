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

"""What Tempest finds in the cloud: volume types, images, flavors."""

from cinderclient import client as cinder_client
from glanceclient import client as glance_client
from novaclient import client as nova_client

from tools.certify import command
from tools.certify import config
from tools.certify import stack
from tools.demo import cloud as demo_cloud
from tools.nova_stack import identity

# Extra specs of the types; they choose no backend.
SPECS = {'thin': {'provisioning:type': 'thin'},
         'thick': {'provisioning:type': 'thick'},
         'encrypted': {}}
MULTIATTACH = 'multiattach'


class Cloud:
    """The administrator's clients."""

    def __init__(self, stack):
        session = identity.log_in(stack.catalog()['identity'],
                                  stack.writer.password)
        self.stack = stack
        self.cinder = cinder_client.Client(demo_cloud.MICROVERSION,
                                           session=session)
        self.glance = glance_client.Client('2', session=session)
        self.nova = nova_client.Client('2.1', session=session)
        # The type under test.
        self._default = None

    def prepare(self):
        """Make everything; returns what tempest.conf has to name.

        :returns: {'images': [IDs], 'flavors': [IDs]}
        """
        self.make_types()
        if self.stack.with_nova:
            self.stack.wait(stack.COMPUTE + '-nova', self._is_mapped, 180)
        return {'images': [self.make_image(name) for name in ('one', 'two')],
                'flavors': [self.make_flavor(name, size) for name, size in (
                    ('small', 256), ('large', 320))]
                if self.stack.with_nova else []}

    def _is_mapped(self):
        """Whether Nova's scheduler knows in which cell the host is.

        It looks from time to time, and refuses servers before.
        """
        return bool(self.nova.hypervisors.list())

    def make_types(self):
        for name in command.TYPES:
            self.cinder.volume_types.create(name).set_keys(SPECS[name])
        made = self.cinder.volume_types.find(name='encrypted')
        self.cinder.volume_encryption_types.create(made, {
            'provider': 'luks', 'cipher': 'aes-xts-plain64', 'key_size': 256,
            'control_location': 'front-end'})
        self.cinder.volume_types.create(MULTIATTACH).set_keys(
            {'multiattach': '<is> True'})

    def make_default(self, name):
        """Let one of the types be that of volumes for which none is named.

        Many scenarios name none. Cinder looks for the type by the name in its
        configuration, each time.
        """
        types = self.cinder.volume_types
        if self._default:
            types.update(types.find(name=config.DEFAULT_TYPE), self._default)
        types.update(types.find(name=name), config.DEFAULT_TYPE)
        self._default = name

    def make_image(self, name):
        image = self.glance.images.create(
            name=name, disk_format='raw', container_format='bare',
            visibility='public')
        with open(self.stack.layout.guest, 'rb') as data:
            self.glance.images.upload(image.id, data)
        return image.id

    def make_flavor(self, name, memory):
        """A flavor with this memory in MiB.

        Tempest boots servers from images too: their disk is on the host.
        """
        return self.nova.flavors.create(name, memory, 1, 1).id
