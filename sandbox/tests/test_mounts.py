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

"""Several shares, many mounts of one, and who may mount."""

import concurrent.futures
import os

from sandbox import mounts
from sandbox.tests import base


class MountsTestCase(base.SandboxTestCase):

    def test_several_shares_are_several_file_systems(self):
        places = []
        for name in (self.create(), self.create('--fstype', 'ext4')):
            places.append(self.mount('%s:/%s/cinder' % (base.MGS, name)))
        with open(os.path.join(places[0], 'only-here'), 'w'):
            pass
        self.assertEqual([['only-here'], []],
                         [os.listdir(place) for place in places])
        self.assertEqual(['xfs', 'ext4'],
                         [mounts.at(place).fstype for place in places])

    def test_one_share_in_many_places_at_once(self):
        source = '%s:/%s/cinder' % (base.MGS, self.create())
        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            places = list(threads.map(
                lambda _: self.mount(source), range(16)))
        for place in places:
            self.assertMounted(source, place)
        with open(os.path.join(places[0], 'seen'), 'w') as file:
            file.write('everywhere')
        for place in places:
            self.assertEqual(['seen'], os.listdir(place))

    def test_one_place_takes_one_of_many_at_once(self):
        source, place = base.MGS + ':/' + self.create(), self.place()
        command = 'mount -t lustre %s %s' % (source, place)
        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(base.run, [command] * 8))
        codes = sorted(answer.code for answer in answers)
        self.assertEqual([0] + [17] * 7, codes)
        self.assertEqual(1, len([mount for mount in mounts.table()
                                 if mount.target == place]))

    def test_two_spellings_of_one_share(self):
        name = self.create()
        sources = ['%s:/%s' % (base.MGS, name), '%s0:/%s' % (base.MGS, name)]
        for source in sources:
            # A real client shows @tcp0 as @tcp.
            self.assertMounted(sources[0], self.mount(source))

    def test_as_stock_nova_mounts(self):
        source = '%s:/%s/cinder' % (base.MGS, self.create())
        place = self.place()
        command = 'mount -t nfs -t lustre -o flock %s %s %s'
        self.assertEqual(22, base.run(
            command % ('-o vers=4', source, place)).code)
        self.assertEqual(0, base.run(command % ('', source, place)).code)
        self.assertMounted(source, place)

    def test_read_only_is_for_one_mount_alone(self):
        source = base.MGS + ':/' + self.create()
        places = self.mount(source, options='ro'), self.mount(source)
        self.assertEqual([os.ST_RDONLY, 0], [
            os.statvfs(place).f_flag & os.ST_RDONLY for place in places])

    def test_directory_has_the_owner_asked_for(self):
        name = self.create('--owner', 'nobody:nogroup')
        place = self.mount('%s:/%s/cinder' % (base.MGS, name))
        self.assertEqual((0o40755, 65534, 65534), os.stat(place)[0:1]
                         + os.stat(place)[4:6])

    def test_a_link_can_not_lead_out(self):
        source = base.MGS + ':/' + self.create()
        os.symlink('/etc', os.path.join(self.mount(source), 'out'))
        answer = base.run('mount -t lustre %s/out %s' % (source,
                                                         self.place()))
        self.assertEqual(2, answer.code)

    def test_unmounting_is_as_usual(self):
        place = self.mount(base.MGS + ':/' + self.create())
        with open(os.path.join(place, 'open'), 'w'):
            self.assertEqual(32, base.run('umount ' + place).code)
        self.assertEqual(0, base.run('umount ' + place).code)
        self.assertNotMounted(place)

    def test_found_without_the_environment(self):
        source = base.MGS + ':/' + self.create()
        place = self.place()
        answer = base.run('env -i /bin/mount -t lustre %s %s' % (source,
                                                                 place))
        self.assertEqual((0, ''), (answer.code, answer.errors))
        self.assertMounted(source, place)

    def test_an_mgs_that_nobody_has(self):
        answer = base.run('mount -t lustre 192.0.2.1@tcp:/%s %s' % (
            self.create(), self.place()))
        self.assertEqual(110, answer.code)
        self.assertIn('Connection timed out', answer.errors)

    def test_nothing_is_left_of_a_killed_mount(self):
        source, place = base.MGS + ':/' + self.create(), self.place()
        before = mounts.table()
        for delay in range(0, 100, 4):
            base.run('timeout -s KILL 0.%03d mount -t lustre %s %s' % (
                delay, source, place))
            base.run('umount ' + place)
        base.run('umount ' + place)
        self.assertEqual(
            [], [mount for mount in mounts.table()
                 if mount not in before and self.top in mount.target])
