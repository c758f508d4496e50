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

"""What tests of several rooms need."""

import time

import fixtures

from os_brick import encryptors
from os_brick.initiator import connector
from os_brick.initiator.connectors import lustre as lustre_connector

# Seconds until we believe that something will not happen.
LONG = 60


class Registered(fixtures.Fixture):
    """Our connector is registered with os-brick, until the test ends."""

    def _setUp(self):
        for owner, name, kind in (
                (connector, 'unix_connector_list', list),
                (connector, '_connector_mapping_linux', dict),
                (encryptors, 'FORMAT_TO_FRONTEND_ENCRYPTOR_MAP', dict)):
            self.useFixture(fixtures.MockPatchObject(
                owner, name, kind(getattr(owner, name))))
        lustre_connector.register(None)


def wait_for(condition):
    """Wait until it is true."""
    end = time.monotonic() + LONG
    while not condition():
        if time.monotonic() > end:
            raise AssertionError('has not come true in %s s' % LONG)
        time.sleep(0.01)
