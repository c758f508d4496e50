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

"""A compute host, as far as a volume's content goes.

Volumes are reached as an instance would reach them: attach through Cinder's
API, mount the share that the answer names as stock Nova mounts it, and open
the file with the format the answer names. Nothing is looked up behind
Cinder's back.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import shlex
import tempfile

from tools.demo import cloud
from tools.demo import content
from tools.demo import keys
from tools.demo import procs
from tools.demo import share


class Disk:
    """An attached volume's virtual disk."""

    def __init__(self, host, connection, key=None):
        self.host = host
        # What opens it if it is encrypted, as bytes.
        self.key = key
        self.type = connection['driver_volume_type']
        self.export = connection['export']
        self.options = connection['options']
        self.format = connection['format']
        self.name = connection['name']
        self.path = host.mounted(self.export, self.options) / self.name

    def info(self):
        """What qemu-img says of the file, told its format."""
        return self.chain()[0]

    def chain(self):
        """The same of it and of each image below it; needs no key."""
        return json.loads(procs.run(
            'qemu-img', 'info', '-f', self.format, '--backing-chain',
            '--output=json', self.path, user=self.host.user))

    def size(self):
        return self.info()['virtual-size']

    @contextlib.contextmanager
    def opened(self):
        """The arguments by which QEMU's tools open the disk."""
        if self.key is None:
            yield '-f', self.format, self.path
            return
        with self.host.scratch('.key') as secret:
            secret.write_bytes(self.key)
            yield ('--object', 'secret,id=key,file=%s' % secret,
                   'json:' + json.dumps(self._with_key()))

    def _with_key(self):
        """Describe the image; the one key opens it and all below it."""
        node = {}
        for _ in self.chain():
            node = {'encrypt.key-secret': 'key',
                    **({'backing': node} if node else {})}
        return {'driver': self.format,
                'file': {'driver': 'file', 'filename': str(self.path)},
                **node}

    def allocated(self):
        """How much of the share the file takes."""
        return os.stat(self.path).st_blocks * 512

    def write(self, offset, data):
        """Write as a guest would: through the image's format."""
        with tempfile.NamedTemporaryFile(dir=self.host.tmp) as source:
            source.write(data)
            source.flush()
            os.fchmod(source.fileno(), 0o644)
            with self.opened() as image:
                procs.run('qemu-io', '-c', 'write -q -s %s %d %d' % (
                    source.name, offset, len(data)), '-c', 'flush', *image,
                    user=self.host.user)

    def checksum(self):
        """The checksum of the whole virtual disk."""
        with self._copy() as copy:
            return content.file_checksum(copy)

    def sha256(self, offset, size):
        """The SHA-256 of a part of it, as a guest reckons it."""
        with self._copy() as copy, open(copy, 'rb') as source:
            source.seek(offset)
            return hashlib.sha256(source.read(size)).hexdigest()

    @contextlib.contextmanager
    def _copy(self):
        """A raw file with holes, which takes no time to read."""
        with self.host.scratch() as copy, self.opened() as image:
            procs.run('qemu-img', 'convert', '-O', 'raw', *image, copy,
                      user=self.host.user, limit=120)
            yield copy


class Host:
    """Where volumes are attached; files are opened as the service's user."""

    def __init__(self, layout, user):
        self.layout = layout
        self.user = user
        self.tmp = layout.tmp
        self.keys = keys.Files(layout.keys)

    def mounted(self, export, options):
        """Where an export is mounted, as stock Nova would mount it."""
        name = hashlib.sha256(export.encode()).hexdigest()[:16]
        path = self.layout.client_mounts / name
        if not os.path.ismount(path):
            path.mkdir(parents=True, exist_ok=True)
            # Stock Nova's own words: the type it knows, then the options it
            # was given. The last -t wins. Our driver for Nova gets the
            # options of mount.lustre alone.
            if not options.startswith('-'):
                options = '-t lustre -o ' + options
            share.mount(export, path, ['-t', 'nfs', *shlex.split(options)])
        return path

    @contextlib.contextmanager
    def attached(self, api, volume):
        """Attach a volume; gives its disk."""
        attachment = api.attach(volume)
        try:
            connection = attachment['connection_info']
            # An encrypted one takes our driver for Nova.
            wanted = 'lustre' if connection['encrypted'] else 'nfs'
            if connection.get('driver_volume_type') != wanted:
                raise cloud.Unexpected(
                    "this compute host can't attach volumes of type %r" %
                    connection.get('driver_volume_type'))
            key = (self.keys.passphrase(api.key_id(volume))
                   if connection['encrypted'] else None)
            yield Disk(self, connection, key)
        finally:
            api.detach(volume, attachment)

    @contextlib.contextmanager
    def scratch(self, suffix='.raw'):
        """The name of a file that is gone afterwards."""
        handle, name = tempfile.mkstemp(suffix, dir=self.tmp)
        os.fchown(handle, self.user.pw_uid, self.user.pw_gid)
        os.close(handle)
        try:
            yield pathlib.Path(name)
        finally:
            pathlib.Path(name).unlink(missing_ok=True)

    def image_checksum(self, path, image_format):
        """The checksum and size of the disk in an image file."""
        info = json.loads(procs.run('qemu-img', 'info', '-f', image_format,
                                    '--output=json', path))
        with self.scratch() as copy:
            procs.run('qemu-img', 'convert', '-f', image_format, '-O', 'raw',
                      path, copy, limit=120)
            return content.file_checksum(copy), info['virtual-size']
