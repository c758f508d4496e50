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

"""Encrypted volumes: what is on the share, and what a guest reads."""

import json
import os
from unittest import mock

from castellan import key_manager
import ddt

from cinder import exception
from cinder.keymgr import conf_key_mgr
from cinder.tests.functional.lustre import base
from cinder.tests.functional.lustre import stand_ins

SECRET = b'the tenant wrote this'


@ddt.ddt
class EncryptionTest(base.LustreTestCase):

    def setUp(self):
        super().setUp()
        self.type_id = self.encrypted_type()

    def new(self, **fields_):
        fields_.setdefault('volume_type_id', self.type_id)
        return self.encrypted(**fields_)

    def assert_encrypted(self, volume):
        """Each image of the volume is LUKS, with the volume's key only."""
        with self.attached(volume) as connection:
            self.assertEqual('qcow2', connection['format'])
            chain = base.backing_chain(connection['path'])
            for image in chain:
                self.assertTrue(image['encrypted'], image)
            wrong = dict(connection, key=b'0' * 64)
            error = self.failure_of(self.qemu_io, wrong, 'read 0 512')
            self.assertIn('Invalid password', str(error))

    def write_text(self, volume, text, offset=0):
        path = os.path.join(self.temp, 'text')
        with open(path, 'wb') as f:
            f.write(text)
        with self.attached(volume) as connection:
            self.qemu_io(connection, 'write -s %s %d %d' % (
                path, offset, 1 << 16))

    def snapshot_read(self, snapshot):
        """Return size and checksum of a snapshot, without a copy."""
        below = self.driver._images(snapshot.volume).snapshot(snapshot.id)
        return self.image_content(below.path, 'qcow2',
                                  self.passphrase(snapshot.volume))

    def stored(self, share=0):
        """Return all that is stored on a share."""
        root, path = self.file_systems.roots[share]
        directory = path + self.shares[share][len(root):]
        for name in os.listdir(directory):
            with open(os.path.join(directory, name), 'rb') as f:
                yield f.read()

    def test_deleted_with_its_snapshots(self):
        """Cinder's API deletes the key first."""
        volume = self.create(**self.new())
        snapshots = [self.snapshot(volume), self.snapshot(volume)]
        volume.status = 'deleting'
        volume.save()
        key_manager.API(base.CONF).delete(self.context,
                                          volume.encryption_key_id)
        for snapshot in snapshots:
            self.delete_snapshot(snapshot)
        self.driver.delete_volume(volume)
        self.assertEqual([], self.listing())

    def test_create(self):
        volume = self.create(**self.new())
        self.write_text(volume, SECRET)
        self.assert_encrypted(volume)
        self.assertFalse(any(SECRET in data for data in self.stored()))
        self.assertEqual(base.GIB, self.content(volume)[0])
        self.delete(volume)
        self.assertEqual([], self.listing())

    def test_fixed_key(self):
        """The key manager of cinder.conf, with one key for all."""
        base.CONF.register_opts(conf_key_mgr.key_mgr_opts,
                                group='key_manager')
        self.override_config(
            'backend', 'cinder.keymgr.conf_key_mgr.ConfKeyManager',
            'key_manager')
        self.override_config('fixed_key', '0f' * 32, 'key_manager')
        volume = self.create(**self.new())
        self.write(volume, 5)
        self.assert_encrypted(volume)
        self.assert_reads(volume, 5)

    def test_thick(self):
        volume = self.create(**self.encrypted(
            specs={'provisioning__type': 'thick'}))
        self.assert_encrypted(volume)
        self.assertGreaterEqual(
            os.stat(self.path(volume)).st_blocks * 512, base.GIB)

    def test_raw_is_refused(self):
        volume = self.volume_record(**self.encrypted(
            specs={'lustre__format': 'raw'}))
        error = self.assertRaises(exception.InvalidVolumeType,
                                  self.driver.create_volume, volume)
        self.assertIn('lustre:format=qcow2', str(error))
        self.assertEqual([], self.listing())

    # Each image takes QEMU two seconds, for which reason no more than these.
    @ddt.data((0, 1, 2), (1, 2, 0), (2, 0, 1))
    def test_snapshots_deleted_in_any_order(self, order):
        volume = self.create(**self.new())
        snapshots, contents = [], []
        for pattern in (1, 2, 3):
            self.write(volume, pattern, pattern * base.MIB // 2)
            contents.append(self.content(volume))
            snapshots.append(self.snapshot(volume))
        self.write(volume, 4, base.MIB, 3 * base.MIB)
        last = self.content(volume)
        self.assert_encrypted(volume)
        left = set(range(3))
        for n in order:
            self.delete_snapshot(snapshots[n])
            left.remove(n)
            self.assertEqual(last, self.content(volume))
            for other in left:
                self.assertEqual(contents[other],
                                 self.snapshot_read(snapshots[other]))
        self.assert_encrypted(volume)
        self.assertEqual([volume.name, volume.name + '.info'],
                         self.listing())

    def test_copies_have_a_key_of_their_own(self):
        source = self.create(**self.new())
        self.write(source, 9, 100 * base.MIB)
        snapshot = self.snapshot(source)
        self.write(source, 8)
        clone = self.clone(source, 2, **self.new())
        copy = self.from_snapshot(snapshot, 2, share=1, **self.new())
        keys = {self.passphrase(v) for v in (source, clone, copy)}
        self.assertEqual(3, len(keys))
        for volume, pattern in ((clone, 8), (copy, 0)):
            self.assert_encrypted(volume)
            self.assertEqual(2 * base.GIB, self.content(volume)[0])
            self.assert_reads(volume, 9, 100 * base.MIB)
            self.assert_reads(volume, pattern)
            self.assert_reads(volume, 0, base.GIB)

    def test_extend_and_revert(self):
        volume = self.create(**self.new())
        self.write(volume, 3)
        self.extend(volume, 2)
        snapshot = self.snapshot(volume)
        content = self.content(volume)
        self.write(volume, 4)
        self.extend(volume, 3)
        self.assertEqual(3 * base.GIB, self.content(volume)[0])
        self.assert_reads(volume, 4)
        self.driver.revert_to_snapshot(self.context, volume, snapshot)
        self.assert_reads(volume, 3)
        self.assert_encrypted(volume)
        self.assertEqual(2 * base.GIB, content[0])

    def test_upload_and_download(self):
        volume = self.create(**self.new())
        self.write(volume, 6, 5 * base.MIB)
        content = self.content(volume)
        path = os.path.join(self.temp, 'image')
        images = stand_ins.ImageService(
            path, 'raw', cinder_encryption_key_id=volume.encryption_key_id)
        self.driver.copy_volume_to_image(
            self.context, volume, images, {
                'id': 'uploaded', 'disk_format': 'raw',
                'container_format': 'bare'})
        with open(path, 'rb') as f:
            self.assertEqual(b'LUKS\xba\xbe\0\1', f.read(8))
        # The header of LUKS makes the image larger than the volume was.
        copy = self.create(2, **dict(
            self.new(), encryption_key_id=volume.encryption_key_id))
        self.driver.copy_image_to_volume(self.context, copy, images,
                                         'uploaded')
        self.assert_encrypted(copy)
        self.assert_reads(copy, 6, 5 * base.MIB)
        self.extend(volume, 2)
        self.assertEqual(content[0], base.GIB)
        self.assertEqual(self.content(volume), self.content(copy))

    def test_download_of_what_is_not_encrypted(self):
        path = os.path.join(self.temp, 'image')
        base.run('qemu-img', 'create', '-q', '-f', 'qcow2', path, '8M')
        base.run('qemu-io', '-f', 'qcow2', '-c', 'write -P 7 1M 1M', path)
        images = stand_ins.ImageService(path, 'qcow2')
        volume = self.create(**self.new())
        snapshot = self.snapshot(volume)
        self.write(volume, 5, 500 * base.MIB)
        self.driver.copy_image_to_encrypted_volume(
            self.context, volume, images, 'plain')
        self.assert_encrypted(volume)
        self.assert_reads(volume, 7, base.MIB)
        self.assert_reads(volume, 0, 500 * base.MIB)
        self.driver.revert_to_snapshot(self.context, volume, snapshot)
        self.assert_reads(volume, 0, base.MIB)

    def test_no_key_no_volume(self):
        fields_ = self.new()
        volume = self.volume_record(**dict(
            fields_, encryption_key_id='00000000-1111-2222-3333-444444444444'))
        error = self.assertRaises(exception.VolumeDriverException,
                                  self.driver.create_volume, volume)
        self.assertIn('key manager', str(error))
        self.assertEqual([], self.listing())

    def test_no_command_line_and_no_file_has_the_key(self):
        """Only a file in memory has it, which ends with qemu-img."""
        seen = []
        run = self.driver._client.call

        def watched(share, function, *args, **kwargs):
            seen.append(json.dumps([str(a) for a in args
                                    if not isinstance(a, dict)]))
            return run(share, function, *args, **kwargs)

        volume = self.volume_record(**self.new())
        with mock.patch.object(self.driver._client, 'call', watched):
            self._created(volume, self.driver.create_volume(volume))
        key = self.passphrase(volume)
        self.assertTrue(any('key-secret' in line for line in seen))
        self.assertFalse(any(key.decode() in line for line in seen))
        for directory, _directories, names in os.walk(self.temp):
            for name in names:
                with open(os.path.join(directory, name), 'rb') as f:
                    self.assertNotIn(key, f.read(1 << 20))
