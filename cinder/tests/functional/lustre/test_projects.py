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

"""Projects of Lustre, and limits, of all files that the driver makes."""

import os
from unittest import mock

import ddt

from cinder import exception
from cinder.lustre import projects
from cinder.tests.functional.lustre import base
from cinder.volume.drivers import lustre

RANGE = '100000-199999'


class ProjectsTestCase(base.LustreTestCase):

    def new(self, projects=RANGE, **options):
        self.driver = self.new_driver(lustre_projects=projects, **{
            'lustre_project_' + key: value for key, value in options.items()})

    def projects(self):
        """Return the projects of the images, by the volumes' IDs."""
        found = {}
        root, path = self.file_systems.roots[0]
        directory = path + self.shares[0][len(root):]
        for name in self.listing():
            if name.endswith('.info'):
                continue
            number, flag, _path = base.run(
                'lfs', 'project', os.path.join(directory, name)).split()
            self.assertEqual('-', flag)
            found.setdefault(name[len('volume-'):][:36], set()).add(
                int(number))
        return found

    def project(self, volume):
        """Return the one project of all files of a volume."""
        (number,) = self.projects()[volume.id]
        return number

    def quota(self, number):
        """Return KiB, limit in KiB and number of files of a project."""
        columns = base.run('lfs', 'quota', '-q', '-p', str(number),
                           self.file_systems.roots[0][1]).split()
        return int(columns[1]), int(columns[3]), int(columns[5])

    def assert_needs_root(self, call, option):
        """Make no volume where Lustre refuses this to root of this host."""
        volume = self.volume_record()
        with mock.patch.object(lustre.privileged, call,
                               return_value=(1, 'Operation not permitted')):
            error = self.failure_of(self.driver.create_volume, volume)
        for words in option, 'Operation not permitted':
            self.assertIn(words, str(error))
        self.assertEqual([], self.listing())


@ddt.ddt
class ProjectTest(ProjectsTestCase):

    @ddt.data('volume', 'tenant')
    def test_every_file(self, of):
        self.new(of=of)
        specs = {'lustre__stripe_count': '2', 'lustre__format': 'raw',
                 'provisioning__type': 'thick'}
        volume = self.create(specs=specs)
        self.snapshot(volume)
        clone = self.clone(volume)
        other = self.create(project_id='another')
        found = self.projects()
        self.assertEqual({volume.id, clone.id, other.id}, set(found))
        for numbers in found.values():
            self.assertEqual(1, len(numbers))
        numbers = [found[each.id].copy().pop()
                   for each in (volume, clone, other)]
        self.assertEqual(3 if of == 'volume' else 2, len(set(numbers)))
        for number in numbers:
            self.assertIn(number, range(100000, 200000))
        # What is reported agrees with what there is.
        used, limit, files = self.quota(numbers[0])
        self.assertGreaterEqual(used, 1 << 20)
        self.assertEqual((0, 2 if of == 'volume' else 3), (limit, files))

    def test_adopted(self):
        self.new()
        record = self.volume_record(0, status='managing')
        path = self.path(record)
        base.run('truncate', '-s', '1M', path + '-before')
        self.driver.manage_existing(record, {
            'source-name': record.name + '-before'})
        self.assertIn(self.project(record), range(100000, 200000))

    def test_root_of_this_host_is_not_root(self):
        self.new()
        self.assert_needs_root('set_project', 'lustre_projects')


class LimitTest(ProjectsTestCase):

    def setUp(self):
        super().setUp()
        self.new(limits=True)

    def assert_limit(self, volume, size, snapshots):
        number = self.project(volume)
        self.assertEqual(projects.room(size, snapshots) << 10,
                         self.quota(number)[1])
        return number

    def test_life_of_a_volume(self):
        volume = self.create()
        number = self.assert_limit(volume, 1, 0)
        first = self.snapshot(volume)
        second = self.snapshot(volume)
        self.assert_limit(volume, 1, 2)
        self.extend(volume, 3)
        self.assert_limit(volume, 3, 2)
        self.delete_snapshot(first)
        self.assert_limit(volume, 3, 1)
        clone = self.from_snapshot(second)
        self.assert_limit(clone, 1, 0)
        self.delete_snapshot(second)
        self.assertEqual(number, self.assert_limit(volume, 3, 0))
        self.delete(volume)
        self.assertEqual((0, 0, 0), self.quota(number))

    def test_everyone_has_a_project_alone(self):
        with mock.patch.object(self.driver, '_projects', range(7, 9)):
            one, other = self.create(), self.create()
            self.assertEqual({7, 8}, {self.project(one), self.project(other)})
            third = self.volume_record()
            error = self.failure_of(self.driver.create_volume, third)
            self.assertIn('lustre_projects', str(error))
            self.assertNotIn(third.id, self.projects())
            # One that is given back can be had again.
            number = self.project(one)
            self.delete(one)
            self.driver.create_volume(third)
            self.assertEqual(number, self.project(third))

    def test_files_without_a_limit_are_somebodys(self):
        self.new(limits=False)
        before = self.create()
        number = self.project(before)
        self.new(limits=True)
        after = self.volume_record()
        with mock.patch.object(self.driver, '_hashed',
                               side_effect=[number, number + 1]):
            self.driver.create_volume(after)
        self.assertEqual(number + 1, self.project(after))
        # What was there before goes on without a limit.
        self.snapshot(before)
        self.extend(before, 2)
        self.assertEqual(0, self.quota(number)[1])

    def test_failed_creation(self):
        volume = self.volume_record()
        with mock.patch.object(lustre.images.VolumeImages, 'create',
                               side_effect=OSError(5, 'EIO')), \
                mock.patch.object(projects, 'set_limit',
                                  wraps=projects.set_limit) as set_limit:
            self.failure_of(self.driver.create_volume, volume)
        numbers = {call.args[1] for call in set_limit.call_args_list}
        self.assertEqual([1104 * 2, 0],
                         [call.args[2] for call in set_limit.call_args_list])
        self.assertEqual((0, 0, 0), self.quota(numbers.pop()))

    def test_adopted_and_left(self):
        volume = self.volume_record(0, status='managing')
        path = self.path(volume)
        base.run('truncate', '-s', '1536M', path + '-before')
        self.driver.manage_existing(volume, {
            'source-name': volume.name + '-before'})
        number = self.assert_limit(volume, 2, 0)
        self.driver.unmanage(volume)
        self.assertEqual((0, 1), self.quota(number)[1:])

    def test_tenants_follow_it_too(self):
        volume = self.create()
        tenants = self.of_tenant(volume)
        self.driver.extend_volume(tenants, 2)
        self.assert_limit(volume, 2, 0)

    def test_migrated(self):
        source, target = self.create(), self.create()
        numbers = self.project(source), self.project(target)
        self.driver.update_migrated_volume(
            self.of_tenant(source)._context, self.of_tenant(source),
            self.of_tenant(target), 'available')
        source.refresh(), target.refresh()
        self.assertEqual(numbers[::-1], tuple(
            int(each.admin_metadata['project']) for each in (source, target)))

    def test_root_of_this_host_is_not_root(self):
        self.assert_needs_root('set_limit', 'lustre_project_limits')

    def test_options_that_do_not_agree(self):
        for options in ({'of': 'tenant'}, {'projects': None}):
            error = self.assertRaises(
                exception.InvalidConfigurationValue, self.new, limits=True,
                **options)
            self.assertIn('lustre_project_limits', str(error))
