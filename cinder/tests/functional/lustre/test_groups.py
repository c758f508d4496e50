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

"""Groups of volumes and their snapshots, asked for as the API asks."""

import threading
import time
from unittest import mock
import uuid

import ddt

from cinder import coordination
from cinder import exception
from cinder.lustre import images
from cinder import objects
from cinder.objects import fields
from cinder.tests.functional.lustre import base
from cinder.tests.functional.lustre import managed
from cinder.tests.functional.lustre import stand_ins
from cinder.tests.unit import utils as tests_utils
from cinder.volume import group_types

PLAIN = {}
CONSISTENT = {'consistent_group_snapshot_enabled': '<is> True'}

# In seconds, for what takes one or two.
LONG = 120


class GroupTestCase(managed.ManagerTestCase):

    def new_group(self, specs=CONSISTENT, **fields_):
        """Make the record of a group, as the API does."""
        group_type = group_types.create(
            self.context, 'group-type-' + uuid.uuid4().hex, specs)
        return tests_utils.create_group(
            self.context, host=self.host(0), group_type_id=group_type.id,
            volume_type_ids=[self.volume_type().id],
            status=fields.GroupStatus.CREATING, **fields_)

    def group_of(self, *volumes, specs=CONSISTENT):
        """Create a group and put volumes into it."""
        group = self.new_group(specs)
        self.manager.create_group(self.context, group)
        self.manager.update_group(
            self.context, group,
            add_volumes=','.join(volume.id for volume in volumes))
        return group

    def group_snapshot_of(self, group):
        """Make the records of a group's snapshot, as the API does."""
        group_snapshot = tests_utils.create_group_snapshot(
            self.context, group.id, group.group_type_id)
        for volume in self.volumes_of(group):
            tests_utils.create_snapshot(self.context, volume.id,
                                        group_snapshot_id=group_snapshot.id)
        return group_snapshot

    def take(self, group):
        group_snapshot = self.group_snapshot_of(group)
        self.manager.create_group_snapshot(self.context, group_snapshot)
        return group_snapshot

    def delete_group(self, group):
        group.status = fields.GroupStatus.DELETING
        group.save()
        self.set_status('deleting', self.volumes_of(group))
        self.manager.delete_group(self.context, group)

    def delete_group_snapshot(self, group_snapshot):
        group_snapshot.status = fields.GroupSnapshotStatus.DELETING
        group_snapshot.save()
        self.set_status('deleting', self.snapshots_of(group_snapshot))
        self.manager.delete_group_snapshot(self.context, group_snapshot)

    @staticmethod
    def set_status(status, resources):
        for resource in resources:
            resource.status = status
            resource.save()

    def volumes_of(self, group):
        """Return the volumes of a group, in the order of their creation."""
        return sorted(objects.VolumeList.get_all_by_generic_group(
            self.context, group.id), key=lambda volume: volume.display_name)

    def snapshots_of(self, group_snapshot):
        return sorted(objects.SnapshotList.get_all_for_group_snapshot(
            self.context, group_snapshot.id),
            key=lambda snapshot: snapshot.volume.display_name)

    def two_volumes(self):
        volumes = [self.create(display_name=name) for name in 'ab']
        for pattern, volume in enumerate(volumes, 1):
            self.write(volume, pattern)
        return volumes

    def copied_records(self, group, **sources):
        """Make the records of a group that is to be made from a source.

        :param sources: the field that names a volume's source, and sources
        """
        new = self.new_group()
        (field, found), = sources.items()
        for source in found:
            volume = source if field == 'source_volid' else source.volume
            self.volume_record(group_id=new.id, **{field: source.id},
                               display_name=volume.display_name,
                               volume_type_id=volume.volume_type_id)
        return new

    @staticmethod
    def statuses(resources):
        return [resource.status for resource in resources]

    def damage(self, volume):
        with open(self.path(volume, '.info'), 'w') as f:
            f.write('{')

    def image_files(self):
        """Name all files but records: one may be left that says nothing."""
        return [name for name in self.listing()
                if not name.endswith('.info')]

    def assert_one_image(self, volume):
        """A volume has no snapshot, and no file of one."""
        self.assertEqual([volume.name], [
            name for name in self.image_files()
            if name.startswith(volume.name)])
        self.assertEqual([], self.driver._images(volume).snapshot_ids())


@ddt.ddt
class GroupTest(GroupTestCase):

    @ddt.data(PLAIN, CONSISTENT)
    def test_life(self, specs):
        volumes = self.two_volumes()
        group = self.group_of(*volumes, specs=specs)
        self.assertEqual(fields.GroupStatus.AVAILABLE, group.status)
        contents = [self.content(volume) for volume in volumes]
        group_snapshot = self.take(group)
        self.assertEqual(fields.GroupSnapshotStatus.AVAILABLE,
                         group_snapshot.status)
        snapshots = self.snapshots_of(group_snapshot)
        self.assertEqual(['available'] * 2, self.statuses(snapshots))
        for volume in volumes:
            self.write(volume, 9)
        changed = [self.content(volume) for volume in volumes]

        old = self.copied_records(group, snapshot_id=snapshots)
        self.manager.create_group_from_src(self.context, old,
                                           group_snapshot=group_snapshot)
        new = self.copied_records(group,
                                  source_volid=self.volumes_of(group))
        self.manager.create_group_from_src(self.context, new,
                                           source_group=group)
        for copy, expected in (old, contents), (new, changed):
            self.assertEqual(fields.GroupStatus.AVAILABLE, copy.status)
            copies = self.volumes_of(copy)
            self.assertEqual(['available'] * 2, self.statuses(copies))
            self.assertEqual(expected, [self.content(c) for c in copies])
            self.delete_group(copy)
            self.assertEqual([], self.volumes_of(copy))

        self.delete_group_snapshot(group_snapshot)
        self.assertEqual([], self.snapshots_of(group_snapshot))
        volumes = self.volumes_of(group)
        self.assertEqual(changed, [self.content(v) for v in volumes])
        self.manager.update_group(self.context, group,
                                  remove_volumes=volumes[0].id)
        self.delete_group(group)
        left = objects.Volume.get_by_id(self.context, volumes[0].id)
        self.assertEqual(changed[0], self.content(left))
        self.delete(left)
        self.assertEqual([], self.listing())

    def test_one_volume_can_not_be_deleted(self):
        busy, other = self.two_volumes()
        group = self.group_of(busy, other)
        snapshot = self.snapshot(busy)
        self.driver.unmanage_snapshot(snapshot)
        snapshot.destroy()
        self.assertRaises(exception.VolumeDriverException,
                          self.delete_group, group)
        self.assertEqual(fields.GroupStatus.ERROR, group.status)
        self.assertEqual(['error_deleting', 'deleted'],
                         self.statuses(self.volumes_of(group)))
        self.assertEqual([], [name for name in self.listing()
                              if name.startswith(other.name)])
        self.set_status('available', self.volumes_of(group))
        again = self.snapshot_record(busy)
        self.driver.manage_existing_snapshot(
            again, {'source-name': '%s.%s' % (busy.name, snapshot.id)})
        self.delete_snapshot(again)
        self.delete_group(group)
        self.assertEqual([], self.volumes_of(group))
        self.assertEqual([], self.listing())

    def test_one_snapshot_can_not_be_deleted(self):
        damaged, other = self.two_volumes()
        group_snapshot = self.take(self.group_of(damaged, other))
        with open(self.path(damaged, '.info')) as f:
            record = f.read()
        self.damage(damaged)
        self.assertRaises(exception.VolumeDriverException,
                          self.delete_group_snapshot, group_snapshot)
        self.assertEqual(fields.GroupSnapshotStatus.ERROR,
                         group_snapshot.status)
        self.assertEqual('error_deleting',
                         self.snapshots_of(group_snapshot)[0].status)
        self.assert_one_image(other)
        with open(self.path(damaged, '.info'), 'w') as f:
            f.write(record)
        self.delete_group_snapshot(group_snapshot)
        self.assertEqual([], self.snapshots_of(group_snapshot))
        self.assert_one_image(damaged)
        self.assert_reads(damaged, 1)


class AllOrNothingTest(GroupTestCase):

    def assert_refused(self, group, *reasons):
        """No snapshot can be taken of a group, and nothing is left of it."""
        before = self.image_files()
        group_snapshot = self.group_snapshot_of(group)
        error = self.failure_of(self.manager.create_group_snapshot,
                                self.context, group_snapshot)
        for reason in reasons:
            self.assertIn(reason, str(error))
        self.assert_error(group_snapshot)
        self.assertEqual(before, self.image_files())

    def assert_error(self, group_snapshot):
        self.assertEqual(fields.GroupSnapshotStatus.ERROR,
                         group_snapshot.status)
        self.assertEqual(['error'] * 2,
                         self.statuses(self.snapshots_of(group_snapshot)))

    def test_snapshot_of_an_attached_volume(self):
        volumes = self.two_volumes()
        group = self.group_of(*volumes)
        self.attach(volumes[1].id)
        self.assert_refused(group, volumes[1].id, 'is attached')

    @staticmethod
    def attach(volume_id):
        context = base.context.get_admin_context()
        volume = objects.Volume.get_by_id(context, volume_id)
        volume.status = 'in-use'
        volume.attach_status = fields.VolumeAttachStatus.ATTACHED
        volume.save()

    def test_second_snapshot_fails(self):
        volumes = self.two_volumes()
        group = self.group_of(*volumes)
        self.damage(volumes[1])
        self.assert_refused(group, volumes[1].name + '.info')
        self.assert_one_image(volumes[0])
        self.assert_reads(volumes[0], 1)

    def test_what_can_be_undone_is(self):
        """And it is told what has failed first."""
        volumes = self.two_volumes()
        group_snapshot = self.group_snapshot_of(self.group_of(*volumes))
        add = images.VolumeImages.add_overlay

        def add_overlay(volume_images, snapshot_id):
            """Damage the first volume's record, and then fail."""
            add(volume_images, snapshot_id)
            if volume_images.record()['active'].startswith(volumes[1].name):
                self.damage(volumes[0])
                raise exception.VolumeDriverException(message='no more')

        with mock.patch.object(images.VolumeImages, 'add_overlay',
                               add_overlay):
            error = self.failure_of(self.manager.create_group_snapshot,
                                    self.context, group_snapshot)
        self.assertIn('no more', str(error))
        self.assert_error(group_snapshot)
        self.assert_one_image(volumes[1])
        self.assert_reads(volumes[1], 2)

    def test_second_copy_fails(self):
        volumes = self.two_volumes()
        group = self.group_of(*volumes)
        before = self.listing()
        new = self.copied_records(group, source_volid=self.volumes_of(group))
        with open(self.path(volumes[1]), 'r+b') as f:
            f.write(b'no qcow2')
        error = self.failure_of(self.manager.create_group_from_src,
                                self.context, new, None, group)
        self.assertIn(volumes[1].name, str(error))
        self.assertEqual(before, self.listing())
        self.assertEqual(fields.GroupStatus.ERROR, new.status)
        copies = self.volumes_of(new)
        self.assertEqual(['error'] * 2, self.statuses(copies))
        self.delete_group(new)
        self.assertEqual([], self.volumes_of(new))


class AtOnceTest(GroupTestCase):
    """What others may do to the volumes of a group meanwhile: nothing."""

    def setUp(self):
        super().setUp()
        self.useFixture(stand_ins.DatabaseFile(self.temp + '/database'))
        self.volumes = self.two_volumes()
        self.group = self.group_of(*self.volumes)
        self.order = []

    def in_thread(self, function, *args):
        def run():
            try:
                function(*args)
            except Exception as exc:
                self.order.append(exc)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def join(self, *threads):
        for thread in threads:
            thread.join(LONG)
            self.assertFalse(thread.is_alive(), 'it hangs')

    def test_all_locks_are_held_together(self):
        """Another's operation on either comes after the snapshots."""
        begun, go_on = threading.Event(), threading.Event()
        add, grow = (images.VolumeImages.add_overlay,
                     images.VolumeImages.grow)

        def add_overlay(volume_images, snapshot_id):
            if begun.is_set():
                go_on.wait(LONG)
            begun.set()
            add(volume_images, snapshot_id)
            self.order.append('snapshot')

        def note_grow(volume_images, size):
            self.order.append('extension')
            grow(volume_images, size)

        group_snapshot = self.group_snapshot_of(self.group)
        with mock.patch.multiple(images.VolumeImages, add_overlay=add_overlay,
                                 grow=note_grow):
            threads = [self.in_thread(self.manager.create_group_snapshot,
                                      self.context, group_snapshot)]
            self.assertTrue(begun.wait(LONG))
            threads += [self.in_thread(self.driver.extend_volume, volume, 2)
                        for volume in self.volumes]
            # Long enough for an extension that doesn't wait.
            time.sleep(1)
            go_on.set()
            self.join(*threads)
        self.assertEqual(['snapshot'] * 2 + ['extension'] * 2, self.order)
        for snapshot in self.snapshots_of(group_snapshot):
            self.assertEqual('available', snapshot.status)

    def test_attached_while_a_snapshot_waits(self):
        self.expect_refused_if_attached_meanwhile(
            self.manager.create_group_snapshot,
            self.group_snapshot_of(self.group))

    def test_attached_while_a_copy_waits(self):
        new = self.copied_records(
            self.group, source_volid=self.volumes_of(self.group))
        self.expect_refused_if_attached_meanwhile(
            self.manager.create_group_from_src, new, None, self.group)

    def expect_refused_if_attached_meanwhile(self, operation, *args):
        before = self.listing()
        with self.lock(self.volumes[0]) as asked:
            thread = self.in_thread(operation, self.context, *args)
            self.assertTrue(asked.wait(LONG))
            AllOrNothingTest.attach(self.volumes[1].id)
        self.join(thread)
        error, = self.order
        self.assertIn('%s is attached' % self.volumes[1].id, str(error))
        self.assertEqual(before, self.listing())

    def lock(self, volume):
        """Hold a volume's lock; gives an event for when the driver asks."""
        return _Lock('lustre-' + volume.id)


class _Lock:

    def __init__(self, name):
        self._lock = coordination.COORDINATOR.get_lock(name)
        self._asked = threading.Event()

    def __enter__(self):
        self._lock.acquire()
        get = coordination.COORDINATOR.get_lock

        def get_lock(name):
            self._asked.set()
            return get(name)

        self._patch = mock.patch.object(coordination.COORDINATOR, 'get_lock',
                                        get_lock)
        self._patch.start()
        return self._asked

    def __exit__(self, *_exc):
        self._lock.release()
        self._patch.stop()
