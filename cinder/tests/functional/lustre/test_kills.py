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

"""A service that is killed in the middle of an operation.

The operation runs in a process of its own, on the same share and the same
database, and that process gets SIGKILL before its first step, then before its
second one, and so on until it is done. A step is a call on the share or a
change of the volume in the database; between two of them nothing is done that
stays.
"""

import os
import signal
import subprocess
import time

import ddt

from cinder.db import api as db
from cinder.lustre import files
from cinder import objects
from cinder.tests.functional.lustre import base
from cinder.tests.functional.lustre import stand_ins
from os_brick.remotefs import lustre as lustre_brick
from os_brick.remotefs import lustre_child

STEPS = [(lustre_brick.ShareClient, 'call'),
         (db, 'volume_admin_metadata_update')]

KINDS = (('thin', 'qcow2'), ('thick', 'raw'))


@ddt.ddt
class KillTest(base.LustreTestCase):

    def setUp(self):
        super().setUp()
        self.useFixture(stand_ins.DatabaseFile(os.path.join(
            self.temp, 'cinder.sqlite')))

    def kills(self, operation):
        """Kill an operation before each of its steps in turn.

        Yields after each kill, with a new driver that knows nothing, and
        ends when the operation came to its end.
        """
        number = 1
        # What is open here must not be shared with a process that is killed.
        self.driver._client.close()
        while stand_ins.killed_before(number, STEPS, operation):
            self.driver = self.new_driver()
            yield number
            self.driver._client.close()
            number += 1
        self.driver = self.new_driver()
        self.assertGreater(number, 3, 'it has no steps')

    def kind(self, provisioning, image_format):
        return {'provisioning__type': provisioning,
                'lustre__format': image_format}

    def make(self, kind=KINDS[0]):
        volume = self.create(specs=self.kind(*kind))
        self.write(volume, 1)
        return volume

    def fresh(self, volume):
        """A volume as another process finds it in the database."""
        return objects.Volume.get_by_id(self.context, volume.id)

    def assert_accounted(self, *volumes, snapshots=()):
        """The share has the files of these volumes and no other."""
        expected = set()
        for volume in volumes:
            expected.add(volume.name)
            expected.update('%s.%s' % (volume.name, snapshot.id)
                            for snapshot in snapshots
                            if snapshot.volume_id == volume.id)
        # A record outlives the last snapshot.
        records = {volume.name + '.info' for volume in volumes}
        self.assertEqual(expected, set(self.listing()) - records)

    # What makes a volume: nobody waits for it any more, so it is deleted.

    def killed_creations(self, create, kind, *sources):
        before = [self.content(source) for source in sources]
        listing = self.listing()
        # One more round than there are kills: the last creation succeeds.
        number, killed = 1, True
        while killed:
            volume = self.volume_record(specs=self.kind(*kind))
            self.driver._client.close()
            killed = stand_ins.killed_before(number, STEPS,
                                             lambda: create(volume))
            self.driver = self.new_driver()
            self.delete(self.fresh(volume))
            self.assertEqual(listing, self.listing(), number)
            self.assertEqual(before,
                             [self.content(source) for source in sources])
            number += 1
        self.assertGreater(number, 4)

    @ddt.data(*KINDS)
    def test_create(self, kind):
        self.killed_creations(lambda volume: self.driver.create_volume(
            volume), kind)

    @ddt.data(*KINDS)
    def test_clone(self, kind):
        source = self.make()
        self.snapshot(source)
        self.write(source, 2)
        self.killed_creations(
            lambda volume: self.driver.create_cloned_volume(volume, source),
            kind, source)

    def test_volume_from_snapshot(self):
        source = self.make()
        snapshot = self.snapshot(source)
        self.write(source, 2)
        self.killed_creations(
            lambda volume: self.driver.create_volume_from_snapshot(
                volume, snapshot), KINDS[0], source)

    # What changes a volume: it reads as before or as after, and the same
    # operation completes.

    @ddt.data(*KINDS)
    def test_snapshot(self, kind):
        volume = self.make(kind)
        content = self.content(volume)
        snapshot = self.snapshot_record(volume)
        for _number in self.kills(
                lambda: self.driver.create_snapshot(snapshot)):
            self.assertEqual(content, self.content(self.fresh(volume)))
            self.assertIn(len([name for name in self.listing()
                               if name.endswith('.new')]), (0, 1))
        self.write(volume, 2)
        self.assertEqual(content, self.content_of(snapshot))
        self.assert_reads(volume, 2)
        self.assert_accounted(volume, snapshots=[snapshot])

    def test_snapshot_that_is_given_up(self):
        """The deletion of a snapshot in error leaves nothing of it."""
        volume = self.make()
        content = self.content(volume)
        number, killed = 1, True
        while killed:
            snapshot = self.snapshot_record(volume)
            self.driver._client.close()
            killed = stand_ins.killed_before(
                number, STEPS, lambda: self.driver.create_snapshot(snapshot))
            self.driver = self.new_driver()
            self.delete_snapshot(snapshot)
            self.assertEqual(content, self.content(volume))
            self.assertEqual(
                {volume.name}, set(self.listing())
                - {volume.name + suffix for suffix in (
                    '.info', '.new', '.info.new')})
            number += 1
        self.delete(volume)
        self.assertEqual([], self.listing())

    def chain(self, kind):
        """Make a volume with three snapshots, all different."""
        volume = self.make(kind)
        snapshots, contents = [], []
        for pattern in range(3):
            contents.append(self.content(volume))
            snapshots.append(self.snapshot(volume))
            self.write(volume, 2 + pattern, pattern * base.MIB // 2)
        return volume, snapshots, contents

    def content_of(self, snapshot):
        snapshot.status = 'available'
        return self.snapshot_content(snapshot, share=1)

    @ddt.data((0, KINDS[1]), (1, KINDS[0]), (2, KINDS[0]))
    @ddt.unpack
    def test_delete_snapshot(self, doomed, kind):
        """Of the oldest snapshot, one in the middle and the newest."""
        volume, snapshots, contents = self.chain(kind)
        content = self.content(volume)
        doomed = snapshots[doomed]
        others = [(snapshot, content) for snapshot, content in
                  zip(snapshots, contents) if snapshot != doomed]
        for _number in self.kills(
                lambda: self.driver.delete_snapshot(doomed)):
            self.assertEqual(content, self.content(self.fresh(volume)))
        self.check(volume)
        for snapshot, expected in others:
            self.assertEqual(expected, self.content_of(snapshot))
        self.assert_accounted(volume,
                              snapshots=[other[0] for other in others])

    def test_snapshots_while_another_is_being_deleted(self):
        """The others keep their data at each step."""
        volume, snapshots, contents = self.chain(KINDS[0])
        for _number in self.kills(
                lambda: self.driver.delete_snapshot(snapshots[1])):
            for other in 0, 2:
                self.assertEqual(contents[other],
                                 self.content_of(snapshots[other]))

    def test_revert(self):
        volume = self.make()
        snapshot, reverted = self.snapshot(volume), self.content(volume)
        self.write(volume, 2)
        before = self.content(volume)
        for _number in self.kills(
                lambda: self.driver.revert_to_snapshot(
                    self.context, self.fresh(volume), snapshot)):
            self.assertIn(self.content(volume), (before, reverted))
        self.assertEqual(reverted, self.content(volume))
        self.check(volume)
        self.assert_accounted(volume, snapshots=[snapshot])

    @ddt.data((KINDS[0], 0), (KINDS[0], 1), (KINDS[1], 0), (KINDS[1], 1))
    @ddt.unpack
    def test_extend(self, kind, snapshots):
        volume = self.make(kind)
        taken = [self.snapshot(volume) for _number in range(snapshots)]
        for _number in self.kills(
                lambda: self.driver.extend_volume(self.fresh(volume), 2)):
            # Whoever attaches it may find it larger than it is recorded.
            volume.size = 2
            self.assert_reads(volume, 1)
            volume.size = 1
        volume.size = 2
        volume.save()
        self.assertEqual(2 * base.GIB, self.content(volume)[0])
        self.check(volume)
        self.assert_accounted(volume, snapshots=taken)

    def test_delete(self):
        volume, snapshots, _contents = self.chain(KINDS[0])
        for _number in self.kills(
                lambda: self.driver.delete_volume(self.fresh(volume))):
            self.assertIn(len(self.listing()), (5, 0))
        self.assertEqual([], self.listing())

    def test_delete_that_has_begun(self):
        """Files are removed one by one; a repetition finds the others."""
        for removed in range(1, 5):
            volume, _snapshots, _contents = self.chain(KINDS[0])
            directory = self.directory(volume)
            chain = [volume.name] + [
                os.path.basename(image) for image in self.overlays(volume)]
            for name in chain[:removed]:
                os.unlink(os.path.join(directory, name))
            self.delete(volume)
            self.assertEqual([], self.listing())

    def overlays(self, volume):
        """The overlays of a volume, from its base up."""
        chain = files.chain(self.directory(volume), volume.name,
                            self.driver._images(volume).active().file,
                            'qcow2')
        return [name for name, _format, _size in reversed(chain)][1:]

    @ddt.data(*KINDS)
    def test_image(self, kind):
        volume = self.create(specs=self.kind(*kind))
        empty = self.content(volume)
        path = os.path.join(self.temp, 'image')
        with open(path, 'wb') as image:
            image.write(b'\x41' * base.MIB)
        service = stand_ins.ImageService(path, 'raw')
        filled = None
        for _number in self.kills(
                lambda: self.driver.copy_image_to_volume(
                    self.context, self.fresh(volume), service, 'image')):
            content = self.content(volume)
            if content != empty:
                filled = filled or content
                self.assertEqual(filled, content)
        self.assertEqual(base.GIB, self.content(volume)[0])
        self.assert_reads(volume, 0x41)
        self.assert_reads(volume, 0, base.MIB)
        if filled:
            self.assertEqual(filled, self.content(volume))
        self.assert_accounted(volume)


class KillWithinTest(base.LustreTestCase):
    """The kill comes while qemu-img runs."""

    def setUp(self):
        super().setUp()
        self.useFixture(stand_ins.DatabaseFile(os.path.join(
            self.temp, 'cinder.sqlite')))
        self.volume = self.create()
        self.write(self.volume, 1, 0, 200 * base.MIB)
        self.taken = self.snapshot(self.volume)
        self.write(self.volume, 2, 0, 200 * base.MIB)
        self.expected = self.content(self.volume)
        self.image = self.path(self.volume, '.' + self.taken.id)

    def killed_within(self, subcommand, operation, seconds):
        """Kill a process some time after it has started qemu-img."""
        def run():
            call = lustre_brick.ShareClient.call

            def watched(client, share, function, *args, **kwargs):
                if (function is lustre_child.run_with and
                        args[2:4] == ('qemu-img', subcommand)):
                    if not os.fork():
                        time.sleep(seconds)
                        os.kill(os.getppid(), signal.SIGKILL)
                        os._exit(0)
                return call(client, share, function, *args, **kwargs)

            lustre_brick.ShareClient.call = watched
            operation()

        self.driver._client.close()
        killed = not stand_ins.in_child(run)
        self.wait_for_the_end()
        self.driver = self.new_driver()
        return killed

    def wait_for_the_end(self):
        """qemu-img is killed with the service, but may be in a write.

        Until it has ended its image is locked.
        """
        deadline = time.monotonic() + 10
        while subprocess.run(['qemu-img', 'info', '-f', 'qcow2', self.image],
                             capture_output=True).returncode:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)

    def test_commit(self):
        for seconds in (0, 0.02, 0.05, 0.1):
            killed = self.killed_within(
                'commit', lambda: self.driver.delete_snapshot(self.taken),
                seconds)
            self.assertTrue(killed or seconds)
            self.assertEqual(self.expected, self.content(self.volume))
        self.driver.delete_snapshot(self.taken)
        self.assertEqual(self.expected, self.content(self.volume))
        self.check(self.volume)

    def test_convert(self):
        for seconds in (0, 0.02, 0.05, 0.1):
            copy = self.volume_record()
            self.killed_within(
                'convert', lambda: self.driver.create_cloned_volume(
                    copy, self.volume), seconds)
            self.delete(objects.Volume.get_by_id(self.context, copy.id))
            self.assertEqual(3, len(self.listing()))
        self.assertEqual(self.expected, self.content(self.volume))
