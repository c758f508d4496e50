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

"""Tests of what is done for several volumes at once."""

import types
from unittest import mock

from oslotest import base

from cinder import exception
from cinder.lustre import groups


class Driver(groups.GroupsMixin):
    """Notes what it does, and fails where it is told to."""

    driver_prefix = 'lustre'

    def __init__(self, fails_at=()):
        self.done = []
        self._fails_at = fails_at

    def _do(self, *what):
        self.done.append(what)
        if what in self._fails_at:
            raise exception.VolumeDriverException(message=' '.join(what))

    def delete_volume(self, volume):
        self._do('delete', volume.id)

    def delete_snapshot(self, snapshot):
        self._do('delete', snapshot.id)

    def _create_snapshot(self, snapshot):
        self._do('snapshot', snapshot.id)

    def _delete_snapshot(self, snapshot):
        self._do('undo', snapshot.id)

    def _clone(self, volume, source):
        self._do('clone', volume.id, source.id)

    def _from_snapshot(self, volume, snapshot):
        self._do('copy', volume.id, snapshot.id)

    def _images(self, volume):
        return types.SimpleNamespace(
            remove=lambda: self._do('undo', volume.id))

    def _as_it_is_now(self, volume):
        self._do('look', volume.id)
        return volume

    @staticmethod
    def _is_volume_attached(volume):
        return volume.attached


def volume(name, attached=False):
    return types.SimpleNamespace(id=name, name=name, attached=attached)


def snapshot(name, of):
    return types.SimpleNamespace(id=name, name=name, volume=of,
                                 volume_id=of.id)


class GroupsTestCase(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        self.volumes = [volume('b'), volume('a')]
        self.snapshots = [snapshot('s-' + v.id, v) for v in self.volumes]
        self.locks = []
        patch = mock.patch('cinder.coordination.synchronized', self.lock)
        patch.start()
        self.addCleanup(patch.stop)

    def lock(self, *names):
        def decorate(work):
            def locked(*args):
                self.locks.append(set(names))
                return work(*args)
            return locked
        return decorate

    def test_delete_goes_on(self):
        driver = Driver([('delete', 'b')])
        group = types.SimpleNamespace(status='deleting')
        self.assertEqual(
            ({'status': 'deleting'}, [{'id': 'b', 'status': 'error_deleting'},
                                      {'id': 'a', 'status': 'deleted'}]),
            driver.delete_group(None, group, self.volumes))
        self.assertEqual(
            ({'status': 'deleting'}, [{'id': 's-b', 'status': 'deleted'},
                                      {'id': 's-a', 'status': 'deleted'}]),
            driver.delete_group_snapshot(None, group, self.snapshots))

    def test_snapshots(self):
        driver = Driver()
        update = driver.create_group_snapshot(None, None, self.snapshots)
        self.assertEqual(
            ({'status': 'available'}, [{'id': 's-b', 'status': 'available'},
                                       {'id': 's-a', 'status': 'available'}]),
            update)
        self.assertEqual([{'lustre-a', 'lustre-b'}], self.locks)
        self.assertEqual([('look', 'b'), ('look', 'a'), ('snapshot', 's-b'),
                          ('snapshot', 's-a')], driver.done)

    def test_attached(self):
        driver = Driver()
        self.volumes[1].attached = True
        error = self.assertRaises(
            exception.InvalidVolume, driver.create_group_snapshot, None, None,
            self.snapshots)
        self.assertIn('volume a is attached', str(error))
        self.assertEqual([('look', 'b'), ('look', 'a')], driver.done)

    def test_all_is_undone(self):
        """Also what has failed; and when undoing fails, the rest."""
        driver = Driver([('snapshot', 's-a'), ('undo', 's-b')])
        error = self.assertRaises(
            exception.VolumeDriverException, driver.create_group_snapshot,
            None, None, self.snapshots)
        self.assertIn('snapshot s-a', str(error))
        self.assertEqual([('undo', 's-b'), ('undo', 's-a')], driver.done[-2:])

    def new_volumes(self):
        return [types.SimpleNamespace(id=name, name=name,
                                      provider_location='share')
                for name in ('c', 'd')]

    def test_from_snapshots(self):
        driver = Driver()
        update = driver.create_group_from_src(
            None, None, self.new_volumes(), 'group snapshot', self.snapshots)
        self.assertEqual(
            (None, [{'id': 'c', 'provider_location': 'share'},
                    {'id': 'd', 'provider_location': 'share'}]), update)
        self.assertEqual([('copy', 'c', 's-b'), ('copy', 'd', 's-a')],
                         driver.done)
        self.assertEqual([{'lustre-' + name for name in 'abcd'}], self.locks)

    def test_from_a_group(self):
        driver = Driver([('clone', 'd', 'a')])
        self.assertRaises(
            exception.VolumeDriverException, driver.create_group_from_src,
            None, None, self.new_volumes(), source_group='group',
            source_vols=self.volumes)
        self.assertEqual(
            [('clone', 'c', 'b'), ('clone', 'd', 'a'), ('undo', 'c'),
             ('undo', 'd')], driver.done)
        self.assertEqual([{'lustre-' + name for name in 'abcd'}], self.locks)
