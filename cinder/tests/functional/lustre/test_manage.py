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

"""Files that become volumes, and volumes that become files again."""

import os
import struct
import subprocess

import ddt

from cinder import exception
from cinder import objects
from cinder.tests.functional.lustre import base
from os_brick.remotefs import lustre as lustre_brick


@ddt.ddt
class ManageTest(base.LustreTestCase):

    def setUp(self):
        super().setUp()
        root, path = self.file_systems.roots[0]
        self.share = path + self.shares[0][len(root):]

    def file(self, name, image_format='raw', size='10M'):
        """Make an image that Cinder knows nothing of."""
        path = os.path.join(self.share, name)
        base.run('qemu-img', 'create', '-q', '-f', image_format, path, size)
        base.run('qemu-io', '-f', image_format, '-c', 'write -P 7 1M 1M',
                 path)
        return path

    def manage(self, name, **fields_):
        reference = {'source-name': name}
        if 'file_format' in fields_:
            reference['format'] = fields_.pop('file_format')
        volume = self.volume_record(**fields_)
        size = self.driver.manage_existing_get_size(volume, reference)
        volume = self._created(volume, self.driver.manage_existing(
            volume, reference))
        volume.size = size
        volume.save()
        return volume

    def assert_refused(self, name, reason, expected=None, **fields_):
        """A refusal changes nothing."""
        before = self.state()
        error = self.assertRaises(
            expected or exception.ManageExistingInvalidReference,
            self.manage, name, **fields_)
        self.assertIn(reason, str(error))
        self.assertEqual(before, self.state())

    def state(self):
        state = {}
        for name in self.listing():
            path = os.path.join(self.share, name)
            status = os.lstat(path)
            with open(path, 'rb') as f:
                state[name] = (status.st_mode, status.st_uid, status.st_ino,
                               status.st_mtime_ns, f.read())
        return state

    @ddt.data('raw', 'qcow2')
    def test_adopt(self, image_format):
        path = self.file('disk.img', image_format)
        inode = os.stat(path).st_ino
        volume = self.manage('disk.img')
        self.assertEqual([volume.name], self.listing())
        status = os.stat(self.path(volume))
        self.assertEqual(inode, status.st_ino)
        self.assertEqual(0o660, status.st_mode & 0o777)
        self.assertEqual(1, volume.size)
        with self.attached(volume) as connection:
            self.assertEqual(image_format, connection['format'])
        self.assertEqual(base.GIB, self.content(volume)[0])
        self.assert_reads(volume, 7, base.MIB)
        snapshot = self.snapshot(volume)
        self.delete_snapshot(snapshot)
        self.delete(volume)
        self.assertEqual([], self.listing())

    @ddt.data('raw', 'qcow2')
    def test_adopt_as_thick(self, image_format):
        """A file of as many GiB as a volume is not to be grown."""
        self.file('disk.img', image_format, '1G')
        volume = self.manage('disk.img', specs={
            'provisioning__type': 'thick'})
        self.assertEqual((base.GIB, 1), (self.content(volume)[0],
                                         volume.size))
        self.assert_reads(volume, 7, base.MIB)

    def test_give_back_and_adopt_again(self):
        volume = self.create()
        self.write(volume, 3)
        self.delete_snapshot(self.snapshot(volume))
        content = self.content(volume)
        self.driver.unmanage(volume)
        self.assertEqual([volume.name], self.listing())
        name = volume.name
        self.assert_refused(name, 'already',
                            exception.ManageExistingAlreadyManaged)
        volume.destroy()
        again = self.manage(name)
        self.assertEqual(content, self.content(again))

    def test_by_the_name_of_the_share(self):
        self.file('disk.img')
        self.assert_refused('10.0.0.9@tcp:/other/disk.img', 'names share')
        self.manage(self.shares[0] + '/disk.img')

    def test_guest_that_wrote_a_header(self):
        """A raw file is never opened as what its guest says it is."""
        secret = os.path.join(self.temp, 'secret')
        with open(secret, 'w') as f:
            f.write('s3cret' * 1000)
        inner = os.path.join(self.temp, 'inner')
        base.run('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', secret,
                 '-F', 'raw', inner)
        path = self.file('disk.img')
        with open(inner, 'rb') as header, open(path, 'r+b') as disk:
            disk.write(header.read())
        self.assert_refused('disk.img', 'is not a file of')
        self.assert_refused('disk.img', 'is not a file of',
                            file_format='qcow2')
        volume = self.manage('disk.img', file_format='raw')
        with self.attached(volume) as connection:
            self.assertEqual('raw', connection['format'])
        with open(self.path(volume), 'rb') as f:
            self.assertEqual(b'QFI\xfb', f.read(4))

    @ddt.data('vmdk', 'vhdx', 'vdi', 'luks')
    def test_other_formats(self, image_format):
        path = os.path.join(self.share, 'disk.img')
        secret = ()
        if image_format == 'luks':
            secret = ('--object', 'secret,id=s,data=aaaaaaaa',
                      '-o', 'key-secret=s,iter-time=10')
        # QEMU measures its speed for LUKS, and can't always.
        for _attempt in range(20):
            if not subprocess.call(['qemu-img', 'create', '-q', '-f',
                                    image_format, *secret, path, '8M']):
                break
        self.assert_refused('disk.img', image_format)
        self.assert_refused('disk.img', 'not', file_format='qcow2')
        self.manage('disk.img', file_format='raw')

    def test_qcow2_that_no_volume_may_be(self):
        path = self.file('disk.img', 'qcow2')
        base.run('qemu-img', 'snapshot', '-c', 'inside', path)
        self.assert_refused('disk.img', 'internal snapshots')
        base.run('qemu-img', 'snapshot', '-d', 'inside', path)
        with open(path, 'r+b') as f:
            f.seek(72)
            f.write(struct.pack('>Q', 1 << 60))
        self.assert_refused('disk.img', 'unknown features')
        with open(path, 'r+b') as f:
            f.seek(72)
            f.write(struct.pack('>Q', 1 << 2))
        self.assert_refused('disk.img', 'data in another file')

    def test_what_is_no_file_of_ones_own(self):
        path = self.file('disk.img')
        os.symlink(path, os.path.join(self.share, 'link'))
        os.mkdir(os.path.join(self.share, 'dir'))
        for name, reason in (('link', 'symbolic'), ('dir', 'directory'),
                             ('missing', 'No such file'), ('..', 'name'),
                             ('', 'name'), ('a\nb', 'name'),
                             ('../../etc/passwd', 'names share')):
            with self.subTest(name=name):
                error = self.assertRaises(
                    exception.ManageExistingInvalidReference, self.manage,
                    name)
                self.assertIn(reason, str(error))
        os.link(path, os.path.join(self.share, 'other'))
        self.assert_refused_file('disk.img', 'hard link')
        os.unlink(os.path.join(self.share, 'other'))
        os.chown(path, 65534, 65534)
        self.assert_refused_file('disk.img', 'user 65534')

    def assert_refused_file(self, name, reason):
        error = self.assertRaises(exception.ManageExistingInvalidReference,
                                  self.manage, name)
        self.assertIn(reason, str(error))

    def test_open_in_qemu(self):
        path = self.file('disk.img')
        with subprocess.Popen(['qemu-io', '-f', 'raw', path],
                              stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE) as qemu:
            qemu.stdin.write(b'length\n')
            qemu.stdin.flush()
            qemu.stdout.readline()
            self.assert_refused('disk.img', 'open in QEMU')
            qemu.stdin.close()
        self.manage('disk.img')

    def test_type_of_another_format(self):
        self.file('disk.img')
        self.assert_refused(
            'disk.img', 'lustre:format',
            exception.ManageExistingVolumeTypeMismatch,
            specs={'lustre__format': 'qcow2'})

    def test_parts_of_volumes(self):
        volume = self.create()
        self.snapshot(volume)
        for name in [*self.listing(), lustre_brick.LOCK_FILE]:
            self.assert_refused(name, '', exception.CinderException)

    def listed(self, **page):
        """Return what the manager answers: objects, which check types."""
        arguments = dict({'marker': None, 'limit': 100, 'offset': 0,
                          'sort_keys': ['reference'], 'sort_dirs': ['asc']},
                         **page)
        volumes = objects.VolumeList.get_all(self.context)
        entries = self.driver.get_manageable_volumes(volumes, **arguments)
        return list(objects.ManageableVolumeList.from_primitives(
            self.context, entries))

    def test_list(self):
        self.file('b.img', 'qcow2', '3G')
        self.file('a.img')
        self.file('c.img', 'vmdk')
        volume = self.create(2)
        self.snapshot(volume)
        entries = {entry['reference']['source-name'].rpartition('/')[2]: entry
                   for entry in self.listed(
                       sort_keys=['size'], sort_dirs=['desc'])}
        self.assertEqual({'a.img', 'b.img', 'c.img', volume.name},
                         set(entries))
        self.assertEqual((3, True), (entries['b.img']['size'],
                                     entries['b.img']['safe_to_manage']))
        self.assertEqual((1, True), (entries['a.img']['size'],
                                     entries['a.img']['safe_to_manage']))
        self.assertEqual({'format': 'qcow2'}, entries['b.img']['extra_info'])
        self.assertFalse(entries['c.img']['safe_to_manage'])
        self.assertIn('vmdk', entries['c.img']['reason_not_safe'])
        self.assertEqual((2, volume.id), (entries[volume.name]['size'],
                                          entries[volume.name]['cinder_id']))
        name = entries['a.img']['reference']['source-name']
        self.manage(name)

    def test_snapshots(self):
        volume = self.create()
        self.write(volume, 1)
        snapshot = self.snapshot(volume)
        content = self.content(volume)
        self.write(volume, 2)
        self.driver.unmanage_snapshot(snapshot)
        snapshot.destroy()
        self.assertRaises(exception.VolumeIsBusy, self.driver.delete_volume,
                          volume)
        self.assertRaises(exception.InvalidVolume, self.driver.unmanage,
                          volume)
        entry, = objects.ManageableSnapshotList.from_primitives(
            self.context, self.driver.get_manageable_snapshots(
                [], None, 10, 0, ['reference'], ['asc']))
        self.assertTrue(entry['safe_to_manage'])
        again = self.snapshot_record(volume)
        self.assertEqual(1, self.driver.manage_existing_snapshot_get_size(
            again, entry['reference']))
        self.driver.manage_existing_snapshot(again, entry['reference'])
        again.status = 'available'
        again.save()
        self.assertEqual(content, self.snapshot_content(again))
        self.delete_snapshot(again)
        self.assert_reads(volume, 2)
        self.delete(volume)
        self.assertEqual([], self.listing())

    def test_snapshot_by_its_last_id(self):
        volume = self.create()
        snapshot = self.snapshot(volume)
        self.driver.unmanage_snapshot(snapshot)
        snapshot.destroy()
        again = self.snapshot_record(volume)
        for unknown in (again.id, 'active'):
            self.assertRaises(exception.ManageExistingInvalidReference,
                              self.driver.manage_existing_snapshot, again,
                              {'source-id': unknown})
        reference = {'source-id': snapshot.id}
        self.assertEqual(1, self.driver.manage_existing_snapshot_get_size(
            again, reference))
        self.driver.manage_existing_snapshot(again, reference)
        again.status = 'available'
        again.save()
        self.assertRaises(exception.ManageExistingInvalidReference,
                          self.driver.manage_existing_snapshot,
                          self.snapshot_record(volume), {'source-id':
                                                         again.id})
        self.delete_snapshot(again)
        self.delete(volume)
        self.assertEqual([], self.listing())
