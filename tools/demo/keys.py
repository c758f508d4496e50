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

"""A key manager with each key in a file: the demo's stand-in for Barbican.

Cinder's own for a cloud without Barbican, ConfKeyManager, has one key for all
volumes, so that nobody would see which key opens what. This one must not be
used but for a demo: keys lie in the clear, in Cinder's state_path.

The services import this file from a directory that their user can read, for
which reason it imports nothing else of the demo.
"""

import binascii
import collections.abc
import os
import pathlib

from castellan.common.objects import symmetric_key
from castellan.tests.unit.key_manager import mock_key_manager


class Files(collections.abc.MutableMapping):
    """Symmetric keys by their IDs."""

    def __init__(self, directory):
        self._directory = pathlib.Path(directory)

    def __getitem__(self, key_id):
        try:
            data = (self._directory / key_id).read_bytes()
        except FileNotFoundError:
            raise KeyError(key_id)
        return symmetric_key.SymmetricKey('AES', len(data) * 8, data)

    def __setitem__(self, key_id, key):
        handle = os.open(self._directory / key_id,
                         os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, 'wb') as target:
            target.write(key.get_encoded())

    def __delitem__(self, key_id):
        try:
            (self._directory / key_id).unlink()
        except FileNotFoundError:
            raise KeyError(key_id)

    def __iter__(self):
        return iter(os.listdir(self._directory))

    def __len__(self):
        return len(os.listdir(self._directory))

    def passphrase(self, key_id):
        """What opens a volume with this key, as Nova hands it to QEMU."""
        return binascii.hexlify(self[key_id].get_encoded())


class KeyManager(mock_key_manager.MockKeyManager):
    """Castellan's own for tests, with keys that all services see."""

    def __init__(self, configuration):
        super().__init__(configuration)
        self.keys = Files(pathlib.Path(configuration.state_path, 'keys'))
