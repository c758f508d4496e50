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

"""Recovery by hand: the commands of the operator's guide, word for word."""

import os
import re

from castellan import key_manager
import ddt

from cinder.tests.functional.lustre import base

GUIDE = os.path.join(os.getcwd(), 'doc', 'source', 'admin', 'recovery.rst')


def commands(title):
    """Return the shell commands of a section of the guide."""
    with open(GUIDE) as f:
        text = f.read()
    heading = '\n%s\n%s\n' % (title, '~' * len(title))
    if heading not in text:
        raise AssertionError('%s has no section "%s"' % (GUIDE, title))
    section = re.split('\n.+\n~~~+\n', text.partition(heading)[2])[0]
    return '\n'.join(re.findall(r'^   \$ ((?:.*\\\n)*.*)$', section, re.M))


@ddt.ddt
class RecoveryTest(base.LustreTestCase):

    def recover(self, title, volume, **variables):
        """Run a section's commands; return size and checksum of the result."""
        out = os.path.join(self.temp, 'out.raw')
        before = self.stored(volume)
        base.run('bash', '-euo', 'pipefail', '-c', commands(title),
                 cwd=self.directory(volume),
                 env=dict(os.environ, volume=volume.name, out=out,
                          **variables))
        self.assertEqual(before, self.stored(volume))
        return os.stat(out).st_size, base.digest(out)

    def stored(self, volume):
        """Return all that is on the volume's share."""
        directory = self.directory(volume)
        return {name: (os.stat(os.path.join(directory, name)).st_mtime_ns,
                       base.digest(os.path.join(directory, name)))
                for name in os.listdir(directory)}

    def written(self, image_format):
        volume = self.create(specs={'lustre__format': image_format})
        self.write(volume, 1, 700 * base.MIB)
        return volume

    @ddt.data('raw', 'qcow2')
    def test_without_snapshots(self, image_format):
        volume = self.written(image_format)
        self.assertEqual(
            self.content(volume),
            self.recover('A %s volume without snapshots' % image_format,
                         volume))

    @ddt.data('raw', 'qcow2')
    def test_with_snapshots(self, image_format):
        volume = self.written(image_format)
        snapshots, contents = [], []
        for pattern in (2, 3):
            contents.append(self.content(volume))
            snapshots.append(self.snapshot(volume))
            self.write(volume, pattern, pattern * base.MIB)
        self.assertEqual(self.content(volume),
                         self.recover('A volume with snapshots', volume))
        for snapshot, content in zip(snapshots, contents):
            self.assertEqual(content, self.recover('A snapshot', volume,
                                                   snapshot=snapshot.id))

    def test_guest_that_wrote_a_header(self):
        """Its disk is what it has written, with an overlay too."""
        header = os.path.join(self.temp, 'header')
        base.run('qemu-img', 'create', '-q', '-f', 'qcow2', '-b',
                 '/etc/passwd', '-F', 'raw', header)
        volume = self.create(specs={'lustre__format': 'raw'})
        with open(header, 'rb') as f, open(self.path(volume), 'r+b') as disk:
            disk.write(f.read())
        content = self.content(volume)
        self.assertEqual(content, self.recover(
            'A raw volume without snapshots', volume))
        snapshot = self.snapshot(volume)
        self.assertEqual(content, self.recover(
            'A volume with snapshots', volume))
        self.assertEqual(content, self.recover(
            'A snapshot', volume, snapshot=snapshot.id))

    def test_encrypted(self):
        volume = self.create(**self.encrypted())
        key = os.path.join(self.temp, 'key')
        with open(key, 'wb') as f:
            f.write(key_manager.API(base.CONF).get(
                self.context, volume.encryption_key_id).get_encoded())
        self.write(volume, 1, 700 * base.MIB)
        self.assertEqual(self.content(volume), self.recover(
            'An encrypted volume', volume, key=key))
        for pattern in (2, 3):
            self.snapshot(volume)
            self.write(volume, pattern, pattern * base.MIB)
        self.assertEqual(self.content(volume), self.recover(
            'An encrypted volume with snapshots', volume, key=key))
