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

"""Volumes that change their share, owner or content, as the manager asks."""

from unittest import mock

import ddt

from cinder import exception
from cinder.tests.functional.lustre import base
from cinder.tests.functional.lustre import managed

RAW = {'lustre__format': 'raw', 'provisioning__type': 'thin'}
THICK = {'lustre__format': 'raw', 'provisioning__type': 'thick'}


@ddt.ddt
class MigrationTest(managed.ManagerTestCase):

    def setUp(self):
        super().setUp()
        self.override_config('migration_create_volume_timeout_secs', 60)

    def migrate(self, volume, share, **kwargs):
        """Let the manager copy a volume to another share."""
        volume.previous_status, volume.status = volume.status, 'maintenance'
        volume.save()
        self.manager.migrate_volume(self.context, volume,
                                    {'host': self.host(share)}, **kwargs)
        return self.loaded(volume)

    def assert_files(self, volume, share, *suffixes):
        """All that is on both shares are these files of one volume."""
        names = sorted(volume.name + suffix for suffix in suffixes)
        self.assertEqual(names, self.listing(share))
        self.assertEqual([], self.listing(1 - share))

    @ddt.data(RAW, THICK)
    def test_migrate(self, specs):
        volume = self.create(2, specs=specs)
        self.write(volume, 1, base.GIB)
        content = self.content(volume)
        names = [volume.name]
        for share in (1, 0):
            volume = self.migrate(volume, share)
            self.assertEqual(('available', 'success'),
                             (volume.status, volume.migration_status))
            self.assertEqual(self.shares[share], volume.provider_location)
            self.assertNotIn(volume.name, names)
            self.assertNotIn(volume.id, volume.name)
            names.append(volume.name)
            self.assert_files(volume, share, '')
            self.assertEqual(content, self.content(volume))
        self.delete(volume)
        self.assertEqual([], self.listing(0))

    def test_names_after_a_migration(self):
        """Chain and record have the name that the volume's files have."""
        volume = self.create(specs=RAW)
        self.write(volume, 1)
        volume = self.migrate(volume, 1)
        first = self.snapshot(volume)
        content = self.content(volume)
        self.write(volume, 2)
        second = self.snapshot(volume)
        self.write(volume, 3)
        self.assert_files(volume, 1, '', '.info', '.' + first.id,
                          '.' + second.id)
        with self.attached(volume) as connection:
            self.assertEqual('%s.%s' % (volume.name, second.id),
                             connection['name'])
        self.assertEqual(content, self.snapshot_content(first))
        clone = self.clone(volume)
        self.assert_reads(clone, 3)
        self.delete(clone)
        self.driver.revert_to_snapshot(self.context, volume, second)
        self.assert_reads(volume, 2)
        self.extend(volume, 2)
        self.delete_snapshot(second)
        self.delete_snapshot(first)
        self.assert_reads(volume, 2)
        self.assert_files(volume, 1, '', '.info')
        volume = self.migrate(volume, 0)
        self.assert_files(volume, 0, '')
        self.assertEqual(2 * base.GIB, self.content(volume)[0])
        self.assert_reads(volume, 2)
        self.manager.delete_volume(self.context, volume)
        self.assertEqual([], self.listing(0))

    def test_retype_to_another_format(self):
        """The format that is recorded is the new file's."""
        volume = self.create(specs=RAW)
        self.write(volume, 1)
        content = self.content(volume)
        with mock.patch.object(self.manager, '_copy_volume_data',
                               self.copy_disk):
            volume = self.migrate(volume, 1, force_host_copy=True,
                                  new_type_id=self.volume_type(
                                      lustre__format='qcow2').id)
        with self.attached(volume) as connection:
            self.assertEqual('qcow2', connection['format'])
        self.assertEqual(content, self.content(volume))
        self.snapshot(volume)
        self.assertEqual(content, self.content(volume))

    @ddt.data('raw', 'qcow2')
    def test_retype_by_a_tenant(self, image_format):
        """Cinder hides the recorded format from itself then."""
        volume = self.create(specs=RAW)
        self.write(volume, 1)
        content = self.content(volume)
        source = self.of_tenant(volume)
        source.previous_status, source.status = source.status, 'retyping'
        source.save()
        self.manager.migrate_volume(
            source._context, source, {'host': self.host(1)},
            force_host_copy=True,
            new_type_id=self.volume_type(lustre__format=image_format).id)
        volume = self.loaded(volume)
        self.assertEqual(('available', 'success'),
                         (volume.status, volume.migration_status))
        self.assertEqual(image_format, volume.admin_metadata['base_format'])
        self.assert_files(volume, 1, '')
        with self.attached(volume) as connection:
            self.assertEqual(image_format, connection['format'])
        self.assertEqual(content, self.content(volume))
        self.delete(volume)
        self.assertEqual([], self.listing(1))

    def copy_disk(self, _context, source, target, remote=None):
        """Copy a disk, not bytes, as a connector for images may."""
        base.run('qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'qcow2',
                 self.path(source), self.path(target))

    def test_disk_of_a_qcow2_volume(self):
        """Our connector copies what a guest sees, not the file's bytes."""
        volume = self.create(2)
        self.write(volume, 1, base.GIB)
        content = self.content(volume)
        for share in 1, 0:
            volume = self.migrate(volume, share)
            self.assert_files(volume, share, '')
            with self.attached(volume) as connection:
                self.assertEqual('qcow2', connection['format'])
            self.assertEqual(content, self.content(volume))
            self.check(volume)

    def test_copy_fails(self):
        volume = self.create(specs=RAW)
        self.write(volume, 1)
        with mock.patch('cinder.volume.volume_utils.copy_volume',
                        side_effect=exception.VolumeDriverException(
                            message='no more')):
            error = self.failure_of(self.migrate, volume, 1)
        self.assertIn('no more', str(error))
        volume = self.loaded(volume)
        self.assertEqual('available', volume.status)
        self.assert_files(volume, 0, '')
        self.assert_reads(volume, 1)

    def test_transfer(self):
        volume = self.create()
        self.write(volume, 1)
        snapshot = self.snapshot(volume)
        self.write(volume, 2)
        before = self.listing()
        self.manager.accept_transfer(self.context, volume.id, 'another',
                                     'project')
        volume = self.loaded(volume)
        volume.user_id, volume.project_id = 'another', 'project'
        volume.save()
        self.assertEqual(before, self.listing())
        self.assert_reads(volume, 2)
        self.delete_snapshot(snapshot)
        self.assert_reads(volume, 2)
