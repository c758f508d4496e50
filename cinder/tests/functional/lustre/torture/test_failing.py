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

"""A share that is full, over quota, broken or read-only, at every write.

Each operation runs on a file system of which one call that changes something
fails, the first one, then the second, and so on until none is left; and once
more with that call and all after it failing, as they do until someone makes
room. After each the volumes must read as before or as after the operation,
and the operation must succeed when repeated, or the volume can be deleted.

Ordinary runs let the first calls and then each third one fail, with one error
after the other. With $CINDER_LUSTRE_EXHAUSTIVE set each call fails with each
error.
"""

import errno
import itertools
import os
import subprocess
from unittest import mock

import ddt
from testtools import content

from cinder import objects
from cinder.tests.functional.lustre import base
from cinder.tests.functional.lustre import stand_ins
from cinder.tests.functional.lustre.torture import failing_fs
from os_brick.remotefs import lustre as lustre_brick

EXHAUSTIVE = bool(os.environ.get('CINDER_LUSTRE_EXHAUSTIVE'))

KINDS = {'thin': {'provisioning__type': 'thin', 'lustre__format': 'qcow2'},
         'thick': {'provisioning__type': 'thick', 'lustre__format': 'raw'}}

ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS)

# More calls than any operation makes.
_FOREVER = 1 << 40

_HEAD = 4 * base.MIB


def few(*kinds):
    """Choose kinds of volumes for ordinary runs."""
    return KINDS if EXHAUSTIVE else kinds


class FailingTestCase(base.LustreTestCase):
    """Tests with a first share that fails when told to."""

    def setUp(self):
        super().setUp()
        self.mount_point = self.driver._get_mount_point_for_share(
            self.shares[0])
        self.driver.get_volume_stats()
        self.lay_below()
        self.fs = failing_fs.FailingFS(
            self.shares[0], self.mount_point,
            os.path.join(self.temp, 'control'))
        self.addCleanup(self.fs.close)

    def lay_below(self):
        """Mount something that calls are passed on to."""

    def make(self, kind):
        """A volume with two snapshots, and other data after each."""
        self.volume = self.create(specs=KINDS[kind])
        self.snapshots = []
        for number in range(2):
            self.write(self.volume, number + 1, number * base.MIB)
            self.snapshots.append(self.snapshot(self.volume))
        self.write(self.volume, 3, 2 * base.MIB)

    def save(self):
        self.saved = os.path.join(self.temp, 'saved')
        if os.path.isdir(self.saved):
            self.restore()
        else:
            base.run('cp', '-a', '--sparse=always', self.mount_point,
                     self.saved)

    def listing(self, share=0):
        # What was laid below isn't seen from elsewhere.
        return sorted({*os.listdir(self.mount_point)}
                      - {lustre_brick.LOCK_FILE})

    def restore(self):
        for name in os.listdir(self.mount_point):
            os.unlink(os.path.join(self.mount_point, name))
        base.run('cp', '-a', '--sparse=always', self.saved + '/.',
                 self.mount_point)

    def state(self, without=None):
        """What the volume and its snapshots read, but for one of these."""
        images = self.driver._images(self.volume)
        record = images.record()
        found = [self.head(images.active())]
        for snapshot in self.snapshots:
            if snapshot is without:
                continue
            if snapshot.id in record:
                found.append(self.head(images.snapshot(snapshot.id)))
            else:
                found.append(None)
        return found

    def head(self, image):
        """Return size and checksum of an image's first few MiB."""
        path = os.path.join(self.temp, 'head')
        base.run('qemu-img', 'dd', '-f', image.format, '-O', 'raw', 'bs=1M',
                 'count=%d' % (_HEAD // base.MIB), 'if=' + image.path,
                 'of=' + path)
        with open(path, 'rb') as f:
            return image.virtual_size, hash(f.read())

    def check_image(self, path, image_format):
        """Nothing is damaged; what a failed write allocated may be lost."""
        if image_format == 'qcow2':
            done = subprocess.run(
                ['qemu-img', 'check', '-q', '-f', 'qcow2', path],
                capture_output=True, text=True)
            self.assertIn(done.returncode, (0, 3), done.stdout + done.stderr)

    def faults(self):
        """Name calls, the errors they fail with and whether these last."""
        kinds = list(itertools.product(ERRORS, (False, True)))
        if EXHAUSTIVE:
            for number in itertools.count(1):
                yield from ((number, *kind) for kind in kinds)
        # Steps of three, which is no divisor of the number of kinds.
        for number in itertools.chain((1, 2, 3), itertools.count(4, 3)):
            yield (number, *kinds[number % len(kinds)])

    def points(self, prepare, operate):
        """Let an operation fail at each of its calls.

        Yields after each failure what was raised, None where nothing was,
        when the share is healed.
        """
        missed, points = set(), 0
        for number, error, lasts in self.faults():
            if (error, lasts) in missed:
                continue
            prepare()
            self.fs.fail(error, number, _FOREVER if lasts else number)
            raised = None
            try:
                operate()
            except Exception as exc:
                raised = exc
            failed, _counted = self.fs.heal()
            where = '%s at call %d%s' % (errno.errorcode[error], number,
                                         ' and all after' if lasts else '')
            if not failed:
                if raised:
                    raise raised
                missed.add((error, lasts))
                if len(missed) == 2 * len(ERRORS):
                    break
                continue
            points += 1
            self.assert_told(raised, where)
            yield raised, where
        self.assertGreater(points, 1, 'it changes nothing')
        self.addDetail('points', content.text_content(str(points)))

    def assert_told(self, raised, where):
        if raised:
            self.assertIn(self.shares[0], str(raised), where)

    def assert_survives(self, operate, snapshot=None):
        """An operation on the volume is done or not, and can be repeated.

        :param snapshot: that is made or deleted: what it reads half-way
            doesn't count
        """
        self.save()
        before = self.state(snapshot)
        operate()
        after, others_after = self.state(), self.state(snapshot)
        for number, (raised, where) in enumerate(
                self.points(self.restore, operate)):
            if raised:
                self.assertIn(self.state(snapshot), (before, others_after),
                              (where, raised))
            if number % 2 or not raised:
                operate()
                self.assertEqual(after, self.state(), where)
                active = self.driver._images(self.volume).active()
                self.check_image(active.path, active.format)
            if snapshot:
                # Cinder does not delete a volume before its snapshots.
                self.driver.delete_snapshot(snapshot)
                self.assertEqual(before, self.state(snapshot), where)
            self.driver.delete_volume(self.volume)
            self.assertEqual([], self.listing(), (where, raised))

    def assert_makes(self, operate):
        """An operation makes a volume, or can be repeated."""
        before = self.listing()
        done = []

        def prepare():
            for volume in done:
                self.driver.delete_volume(volume)
            done[:] = [self.volume_record(specs=self.specs)]

        for number, (raised, where) in enumerate(
                self.points(prepare, lambda: operate(done[0]))):
            volume = objects.Volume.get_by_id(self.context, done[0].id)
            if number % 2:
                operate(volume)
                active = self.driver._images(volume).active()
                self.assertEqual(self.made, self.head(active), where)
                self.check_image(active.path, active.format)
            self.driver.delete_volume(volume)
            self.assertEqual(before, self.listing(), (where, raised))


@ddt.ddt
class EveryWriteTest(FailingTestCase):

    @ddt.data(*KINDS)
    def test_create(self, kind):
        self.specs = KINDS[kind]
        volume = self.create(specs=self.specs)
        self.made = self.head(self.driver._images(volume).active())
        self.driver.delete_volume(volume)
        self.assert_makes(self.driver.create_volume)

    @ddt.data(*few('thin'))
    def test_clone(self, kind):
        self.make(kind)
        self.specs = KINDS[kind]
        self.made = self.state()[0]
        self.assert_makes(lambda volume: self.driver.create_cloned_volume(
            volume, self.volume))

    @ddt.data(*few('thick'))
    def test_from_snapshot(self, kind):
        self.make(kind)
        self.specs = KINDS[kind]
        self.made = self.state()[2]
        self.assert_makes(
            lambda volume: self.driver.create_volume_from_snapshot(
                volume, self.snapshots[1]))

    @ddt.data(*KINDS)
    def test_image(self, kind):
        self.volume, self.snapshots = self.create(specs=KINDS[kind]), []
        path = os.path.join(self.temp, 'image')
        with open(path, 'wb') as f:
            f.write(b'\x41' * base.MIB)
        service = stand_ins.ImageService(path, 'raw')
        self.assert_survives(lambda: self.driver.copy_image_to_volume(
            self.context, self.volume, service, 'image'))

    @ddt.data(*KINDS)
    def test_extend(self, kind):
        self.volume, self.snapshots = self.create(specs=KINDS[kind]), []
        self.assert_survives(lambda: self.driver.extend_volume(self.volume,
                                                               2))

    def test_extend_with_snapshots(self):
        self.make('thin')
        self.assert_survives(lambda: self.driver.extend_volume(self.volume,
                                                               2))

    @ddt.data(*few('thick'))
    def test_snapshot(self, kind):
        self.make(kind)
        snapshot = self.snapshot_record(self.volume)
        self.snapshots.append(snapshot)
        self.assert_survives(lambda: self.driver.create_snapshot(snapshot),
                             snapshot)

    @ddt.data(*(itertools.product(KINDS, (0, 1)) if EXHAUSTIVE else
                (('thin', 0), ('thick', 1))))
    @ddt.unpack
    def test_delete_snapshot(self, kind, number):
        self.make(kind)
        self.assert_survives(lambda: self.driver.delete_snapshot(
            self.snapshots[number]), self.snapshots[number])

    def test_revert(self):
        self.make('thin')
        self.assert_survives(lambda: self.driver.revert_to_snapshot(
            self.context, self.volume, self.snapshots[1]))

    def test_delete(self):
        self.make('thin')
        self.save()
        for _raised, where in self.points(
                self.restore, lambda: self.driver.delete_volume(self.volume)):
            self.driver.delete_volume(self.volume)
            self.assertEqual([], self.listing(), where)


class RealFaultTestCase(FailingTestCase):
    """Faults that are real, and are there for the whole operation."""

    def points(self, prepare, operate):
        prepare()
        self.break_it()
        raised = None
        try:
            operate()
        except Exception as exc:
            raised = exc
        finally:
            self.heal_it()
        self.assert_told(raised, self.id())
        yield raised, raised

    def assert_operations_survive(self):
        self.make('thin')
        new = self.snapshot_record(self.volume)
        driver, old = self.driver, self.snapshots[0]
        self.snapshots.append(new)
        for operate, snapshot in (
                (lambda: driver.extend_volume(self.volume, 2), None),
                (lambda: driver.create_snapshot(new), new),
                (lambda: driver.delete_snapshot(old), old),
                (lambda: driver.revert_to_snapshot(
                    self.context, self.volume, self.snapshots[1]), None)):
            self.assert_survives(operate, snapshot)
        self.restore()
        self.specs = KINDS['thin']
        self.made = self.state()[0]
        self.assert_makes(lambda volume: driver.create_cloned_volume(
            volume, self.volume))


class LoopTestCase(RealFaultTestCase):
    """Tests on a small file system below."""

    def lay_below(self):
        image = os.path.join(self.temp, 'file-system')
        with open(image, 'wb') as f:
            f.truncate(400 * base.MIB)
        base.run('mkfs.ext4', '-q', '-m', '0', image)
        base.run('mount', '-o', 'loop', image, self.mount_point)
        self.addCleanup(base.run, 'umount', '-l', self.mount_point)
        for name in os.listdir(self.mount_point):
            os.rmdir(os.path.join(self.mount_point, name))
        # What is laid over it hides it.
        self.below = os.open(self.mount_point, os.O_RDONLY)
        self.addCleanup(os.close, self.below)
        self.directory_below = '/proc/%d/fd/%d' % (os.getpid(), self.below)


class FullTest(LoopTestCase):

    def break_it(self):
        """Leave no byte."""
        with open(self.directory_below + '/ballast', 'wb', 0) as f:
            piece = base.MIB
            while piece >= 512:
                try:
                    f.write(bytes(piece))
                except OSError:
                    piece //= 2

    def heal_it(self):
        os.unlink(self.directory_below + '/ballast')

    def test_operations(self):
        self.assert_operations_survive()

    def test_delete(self):
        """It must not need space."""
        self.make('thin')
        self.break_it()
        self.driver.delete_volume(self.volume)
        self.heal_it()
        self.assertEqual([], self.listing())


class ReadOnlyTest(LoopTestCase):

    def break_it(self):
        base.run('mount', '-o', 'remount,ro', self.directory_below + '/.')

    def heal_it(self):
        base.run('mount', '-o', 'remount,rw', self.directory_below + '/.')

    def test_operations(self):
        self.assert_operations_survive()


@ddt.ddt
class QemuImgTest(RealFaultTestCase):
    """qemu-img dies, or says what makes no sense."""

    FAULTS = {
        'killed': 'kill -KILL $$',
        'crashes': 'kill -SEGV $$',
        'nonsense': 'echo "}{"; echo "\\377 not supported" >&2; exit 1',
        'killed when it is done': '/usr/bin/qemu-img "$@"; kill -KILL $$',
    }

    def setUp(self):
        super().setUp()
        self.switch = os.path.join(self.temp, 'switch')
        directory = os.path.join(self.temp, 'bin')
        os.mkdir(directory)
        self.wrapper = os.path.join(directory, 'qemu-img')
        self.driver._client.close()
        patcher = mock.patch.dict(os.environ, PATH='%s:%s' % (
            directory, os.environ['PATH']))
        patcher.start()
        self.addCleanup(patcher.stop)
        self.addCleanup(self.driver._client.close)

    def break_it(self):
        open(self.switch, 'w').close()

    def heal_it(self):
        os.unlink(self.switch)

    @ddt.data(*(FAULTS if EXHAUSTIVE else ('crashes',
                                           'killed when it is done')))
    def test_operations(self, fault):
        with open(self.wrapper, 'w') as f:
            f.write('#!/bin/sh\n[ -e %s ] || exec /usr/bin/qemu-img "$@"\n'
                    '%s\n' % (self.switch, self.FAULTS[fault]))
        os.chmod(self.wrapper, 0o755)
        self.assert_operations_survive()


@ddt.ddt
class RecordTest(base.LustreTestCase):

    @ddt.data('', '{"active": "volume-', '\0\0\0\0', '[]',
              '{"version": 2, "images": []}', '{"active": "../%s"}',
              '{"active": "/etc/passwd"}')
    def test_damaged(self, content):
        """Nothing is done, and why is said; but it can be deleted."""
        volume = self.create()
        self.write(volume, 1)
        snapshot, other = self.snapshot(volume), self.create()
        self.write(volume, 2)
        path = self.path(volume, '.info')
        with open(path) as f:
            good = f.read()
        content = content.replace('%s', other.name)
        with open(path, 'w') as f:
            f.write(content)
        before = self.listing()
        for operation in (
                lambda: self.driver.initialize_connection(volume, {}),
                lambda: self.driver.extend_volume(volume, 2),
                lambda: self.driver.create_snapshot(
                    self.snapshot_record(volume)),
                lambda: self.driver.delete_snapshot(snapshot),
                lambda: self.from_snapshot(snapshot),
                lambda: self.clone(volume),
                lambda: self.driver.revert_to_snapshot(
                    self.context, volume, snapshot)):
            error = str(self.failure_of(operation))
            for part in (self.shares[0], volume.name + '.info',
                         'A damaged record', 'Nothing was changed'):
                self.assertIn(part, error)
        self.assertEqual(before, self.listing())
        with open(path, 'w') as f:
            f.write(good)
        self.assert_reads(volume, 2)
        with open(path, 'w') as f:
            f.write(content)
        self.driver.delete_volume(volume)
        self.assertEqual([other.name], self.listing())
