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

"""A key manager with a key for each volume, in memory."""

from castellan.tests.unit.key_manager import mock_key_manager


class KeyManager(mock_key_manager.MockKeyManager):
    """Castellan's own for tests, with one store for all of its objects."""

    _keys = {}

    def __init__(self, configuration=None):
        super().__init__(configuration)
        self.keys = self._keys


def use(test):
    """Let a test use this key manager."""
    test.override_config('backend', __name__ + '.KeyManager', 'key_manager')
