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

"""The steps: what is done with the services, and what is checked.

Each step returns a line that says what was checked. Content is compared by
checksum with what was written; every size is asked of Cinder and of the file.
"""

import os
import stat
import textwrap
import time

from tools.demo import cloud
from tools.demo import config
from tools.demo import content
from tools.demo import host

MIB = 1024 ** 2
GIB = content.GIB
BACKEND = '%s@%s' % (config.HOST, config.BACKEND)

# name of the type: (thin or thick, the file's format)
TYPES = {'thin-raw': ('thin', 'raw'), 'thick-raw': ('thick', 'raw'),
         'thin-qcow2': ('thin', 'qcow2'), 'thick-qcow2': ('thick', 'qcow2')}

STEPS = []


class Missing(Exception):
    """What this step works on was not made, because another step failed."""


class NotHere(Exception):
    """A step that is not meant for these shares."""


class Step:
    """A step; without an essential one, none of the others makes sense."""

    def __init__(self, title, function, arguments, essential):
        self.title = title
        self.function = function
        self.arguments = arguments
        self.essential = essential

    def run(self, demo):
        return self.function(demo, *self.arguments)


def step(title, *arguments, essential=False):
    """Add a function to the steps; with arguments, one step of several."""
    def add(function):
        STEPS.append(Step(title, function, arguments, essential))
        return function
    return add


def expect(wanted, found, what):
    if wanted != found:
        raise cloud.Unexpected('%s: wanted %s, found %s' % (what, wanted,
                                                            found))


class Volume:
    """A volume, and what should be on it."""

    def __init__(self, volume, disk_content, size, disk_format):
        self.api = volume
        self.content = disk_content
        self.size = size
        self.format = disk_format

    @property
    def id(self):
        return self.api.id


class Demo:
    """What the steps share."""

    def __init__(self, stack, shares, on_wait):
        self.stack = stack
        self.shares = shares
        self.api = cloud.Cloud(stack, on_wait)
        self.host = host.Host(stack.layout, stack.user)
        self.pools = []
        self._things = {}
        self._seed = 0

    # Things that one step makes and later ones use.

    def keep(self, name, thing):
        self._things[name] = thing
        return thing

    def need(self, *names):
        missing = [name for name in names if name not in self._things]
        if missing:
            raise Missing('there is no %s' % ', '.join(missing))
        found = [self._things[name] for name in names]
        return found[0] if len(found) == 1 else found

    def take(self, *names):
        """Like need(), for a step that deletes them."""
        found = self.need(*names)
        for name in names:
            del self._things[name]
        return found

    # Volumes with content.

    def create(self, name, type_name, size=1, disk_content=None, **more):
        """Make a volume, and check what it holds from its first moment."""
        made = self.api.create_volume(size, name=name, volume_type=type_name,
                                      **more)
        volume = self.keep(name, Volume(
            made, (disk_content or content.Content()).copy(), size,
            TYPES[type_name][1] if type_name in TYPES else None))
        self.verify(volume)
        return volume

    def write(self, volume, *places, blocks=16):
        """Write something new at these offsets; later than the checks of it.

        The content that is noted is never that of the volume itself.
        """
        with self.host.attached(self.api, volume) as disk:
            for offset in places:
                self._seed += 1
                data = content.noise(self._seed, blocks)
                disk.write(offset, data)
                volume.content.put(offset, data)
        self.verify(volume)

    def verify(self, volume):
        """Attach a volume, and check its content, size and format."""
        with self.host.attached(self.api, volume) as disk:
            self.verify_disk(volume, disk)

    def verify_disk(self, volume, disk):
        what = 'volume %s' % volume.api.name
        if volume.format and disk.format != volume.format:
            # With snapshots the file that is open is an overlay.
            expect('qcow2', disk.format, what + ': format')
            if not self._has_backing(disk):
                expect(volume.format, disk.format, what + ': format')
        expect(volume.size * GIB, disk.size(), what + ': size of the disk')
        expect(volume.content.checksum(), disk.checksum(),
               what + ': checksum')

    @staticmethod
    def _has_backing(disk):
        info = disk.info()
        if 'backing-filename' not in info:
            return False
        if not info.get('backing-filename-format'):
            raise cloud.Unexpected(
                '%s: the format of its backing file is not recorded, so it '
                'would be guessed' % disk.name)
        return True

    # What lies on the shares.

    def listing(self):
        """The names of all files on the shares for volumes.

        But for the one that each share keeps, whose bytes are locked.
        """
        found = []
        for export in self.exports():
            found += os.listdir(self.host.mounted(export, '-t lustre -o '
                                                          'flock'))
        return sorted(name for name in found if name != '.locks')

    def exports(self):
        return [share.split()[0] for share in self.shares.volumes]

    def files_of(self, *volumes):
        """The files on the shares that bear a volume's name."""
        return [name for name in self.listing()
                if any(volume.id in name for volume in volumes)]

    def expect_no_files_of(self, *volumes):
        expect([], self.files_of(*volumes), 'files left behind')


# What is offered.

@step('The services are up', essential=True)
def services_are_up(demo):
    wanted = {'cinder-scheduler': config.HOST, 'cinder-volume': BACKEND,
              'cinder-backup': config.HOST}

    def check():
        dead = demo.stack.dead()
        if dead:
            raise cloud.Unexpected('%s ended' % ', '.join(dead))
        up = {service.binary: service.host
              for service in demo.api.cinder.services.list()
              if service.state == 'up'}
        return up == wanted
    demo.api.wait('services to be up', check, 60)
    return 'scheduler, volume and backup report as up, as user %s' % (
        demo.stack.user.pw_name)


@step('Pools are visible (cinder get-pools)', essential=True)
def pools(demo):
    def check():
        found = demo.api.cinder.pools.list(detailed=True)
        return found if len(found) == 2 else None
    found = demo.api.wait('a pool for each of the two shares', check, 60)
    texts = []
    for pool in found:
        backend, _, name = pool.name.partition('#')
        expect(BACKEND, backend, 'backend of pool %s' % pool.name)
        if not 0 < pool.free_capacity_gb <= pool.total_capacity_gb:
            raise cloud.Unexpected('pool %s: %s GiB of %s GiB free' % (
                name, pool.free_capacity_gb, pool.total_capacity_gb))
        texts.append('%s, %.1f of %.1f GiB free' % (
            name, pool.free_capacity_gb, pool.total_capacity_gb))
        demo.pools.append(name)
    demo.pools.sort()
    return 'one for each share: ' + '; '.join(sorted(texts))


@step('The backend says what it can do (cinder get-capabilities)')
def capabilities(demo):
    found = demo.api.cinder.capabilities.get(BACKEND)
    wanted = {'lustre:format', 'provisioning:type'}
    expect(set(), wanted - set(found.properties),
           'properties that are not reported')
    return '; '.join('%s: %s' % (name, ' or '.join(
        found.properties[name]['enum'])) for name in sorted(wanted))


@step('Volume types')
def types(demo):
    volume_types = demo.api.cinder.volume_types
    for name in TYPES:
        volume_types.create(name).set_keys(extra_specs(name))
    # A restore to a new volume makes one of this type.
    volume_types.find(name='__DEFAULT__').set_keys(extra_specs('thick-raw'))
    for number, pool in enumerate(demo.pools, 1):
        volume_types.create('on-pool-%d' % number).set_keys(
            {'pool_name': pool})
        volume_types.create('thick-on-pool-%d' % number).set_keys(
            {'pool_name': pool, **extra_specs('thick-raw')})
    names = {found.name for found in volume_types.list()}
    expect(set(), set(TYPES) - names, 'types that are not listed')
    return '%s; and two for each pool' % ', '.join(TYPES)


def extra_specs(type_name):
    provisioning, disk_format = TYPES[type_name]
    return {'provisioning:type': provisioning, 'lustre:format': disk_format}


# Volumes of each kind.

def new_volume(demo, type_name):
    provisioning, disk_format = TYPES[type_name]
    volume = demo.create(type_name, type_name)
    with demo.host.attached(demo.api, volume) as disk:
        expect(disk_format, disk.format, 'format')
        demo.verify_disk(volume, disk)
        expect_allocation(demo, disk, provisioning, GIB)
        took = disk.allocated()
        about = os.stat(disk.path)
        expect('0o660', oct(stat.S_IMODE(about.st_mode)), 'mode')
        expect((demo.stack.user.pw_uid, demo.stack.user.pw_gid),
               (about.st_uid, about.st_gid), 'owner')
    # At the start, across a gigabyte's middle, and its last byte.
    demo.write(volume, 0, 512 * MIB, GIB - 16 * content.BLOCK)
    return ('1 GiB, %s of the share taken, mode 0660; read as zeros; '
            '3 MiB written and read back' % size_text(took))


def expect_allocation(demo, disk, provisioning, size):
    """Whether the file takes its space at once, or as it is written."""
    took = disk.allocated()
    if provisioning == 'thin' and took >= size // 4:
        raise cloud.Unexpected('thin, but takes %s' % size_text(took))
    # Zeros that were written may take no space on Lustre on ZFS.
    if provisioning == 'thick' and took < size and not demo.shares.real:
        raise cloud.Unexpected('thick, but takes %s' % size_text(took))


def shorten(text):
    return textwrap.shorten(text, 300, placeholder=' ...')


def size_text(size):
    for unit, name in ((GIB, 'GiB'), (MIB, 'MiB'), (1024, 'KiB')):
        if size >= unit:
            return '%.3g %s' % (size / unit, name)
    return '%d bytes' % size


for _name in TYPES:
    step('A %s volume' % _name.replace('-', ' '), _name)(new_volume)


@step('A type chooses the share')
def choose_share(demo):
    texts = []
    for number, pool in enumerate(demo.pools, 1):
        name = 'on-pool-%d' % number
        volume = demo.create(name, name)
        placed = getattr(demo.api.cinder.volumes.get(volume.id),
                         'os-vol-host-attr:host')
        expect('%s#%s' % (BACKEND, pool), placed, 'host of the volume')
        texts.append(pool)
    demo.api.delete_volumes([demo.take('on-pool-%d' % number)
                             for number in (1, 2)])
    return 'pool_name = %s' % ', then '.join(texts)


@step('A guest writes a qcow2 header into its raw volume')
def hostile_header(demo):
    """The header names a backing file that is none of the guest's business."""
    volume = demo.create('hostile', 'thin-raw')
    with demo.host.scratch('.qcow2') as header:
        host.procs.run('qemu-img', 'create', '-q', '-f', 'qcow2', '-u', '-b',
                       '/etc/passwd', '-F', 'raw', header, '1T')
        data = header.read_bytes()[:content.BLOCK].ljust(content.BLOCK,
                                                         b'\0')
    with demo.host.attached(demo.api, volume) as disk:
        disk.write(0, data)
    volume.content.put(0, data)
    demo.verify(volume)
    snapshot = demo.api.create_snapshot(volume, name='hostile')
    demo.write(volume, MIB)
    demo.api.delete_snapshots([snapshot])
    demo.verify(volume)
    copy = demo.create('hostile-copy', 'thin-raw', source_volid=volume.id,
                       disk_content=volume.content)
    demo.take('hostile', 'hostile-copy')
    demo.api.delete_volumes([volume, copy])
    demo.expect_no_files_of(volume, copy)
    return ('it stays 1 GiB of raw bytes through a snapshot, its deletion and '
            'a clone')


def extend_plain(demo, type_name):
    provisioning, _ = TYPES[type_name]
    volume = demo.need(type_name)
    demo.api.extend_volume(volume, 2)
    volume.size = 2
    with demo.host.attached(demo.api, volume) as disk:
        demo.verify_disk(volume, disk)
        # What the steps before it wrote is next to nothing.
        expect_allocation(demo, disk, provisioning, 2 * GIB)
        took = disk.allocated()
    demo.write(volume, 2 * GIB - 16 * content.BLOCK)
    return '2 GiB, %s taken; checksum the same; its new end is writable' % (
        size_text(took))


for _name in TYPES:
    step('Extend the %s volume' % _name.replace('-', ' '), _name)(
        extend_plain)


# Snapshots. The same story for either format of the base: the volume holds
# A, B, C and then D; its three snapshots hold A, B and C.

def snapshot_chain(demo, kind):
    volume = demo.create('%s-chain' % kind, 'thin-' + kind)
    demo.write(volume, 0, 512 * MIB)
    contents = []
    for number in (1, 2, 3):
        # Cinder tells by the second which snapshot is the latest, and would
        # refuse to revert to the last of two.
        time.sleep(1)
        contents.append(volume.content.copy())
        demo.keep('%s-snapshot-%d' % (kind, number),
                  demo.api.create_snapshot(volume, name='%s-snapshot-%d' % (
                      kind, number)))
        # Half over what is there, so that each layer has to win.
        demo.write(volume, number * 8 * content.BLOCK,
                   512 * MIB + number * 8 * content.BLOCK)
    demo.keep('%s-contents' % kind, contents)
    expect(4, len({found.checksum()
                   for found in contents + [volume.content]}),
           'different contents')
    return 'four contents, each written over the last; the volume reads right'


def from_snapshot(demo, kind):
    volume, snapshot, contents = demo.need(
        kind + '-chain', kind + '-snapshot-2', kind + '-contents')
    copy = demo.create('%s-from-snapshot' % kind, 'thin-' + kind, size=2,
                       snapshot_id=snapshot.id, disk_content=contents[1])
    demo.write(copy, 2 * GIB - 16 * content.BLOCK)
    demo.verify(volume)
    return '2 GiB from 1 GiB; holds what the second held; its end is writable'


def clone(demo, kind):
    volume = demo.need(kind + '-chain')
    copy = demo.create('%s-clone' % kind, 'thin-' + kind, size=2,
                       source_volid=volume.id, disk_content=volume.content)
    demo.write(copy, 0, 2 * GIB - 16 * content.BLOCK)
    demo.verify(volume)
    return ('2 GiB from 1 GiB; the same content; what is written to the clone '
            'does not show in the source')


def revert(demo, kind):
    volume, snapshot, contents = demo.need(
        kind + '-chain', kind + '-snapshot-3', kind + '-contents')
    demo.api.revert(volume, snapshot)
    volume.content = contents[2].copy()
    demo.verify(volume)
    demo.write(volume, 0)
    return 'the volume holds what the third snapshot held, and is writable'


def extend_with_snapshots(demo, kind):
    volume = demo.need(kind + '-chain')
    demo.api.extend_volume(volume, 2)
    volume.size = 2
    demo.verify(volume)
    demo.write(volume, 2 * GIB - 16 * content.BLOCK)
    return '2 GiB; checksum the same; its new end is writable'


def delete_middle(demo, kind):
    volume, contents = demo.need(kind + '-chain', kind + '-contents')
    demo.api.delete_snapshots([demo.take(kind + '-snapshot-2')])
    demo.verify(volume)
    # The other two must not have changed.
    copies = []
    for number in (1, 3):
        snapshot = demo.need('%s-snapshot-%d' % (kind, number))
        name = '%s-copy-%d' % (kind, number)
        copies.append(demo.create(name, 'thin-' + kind,
                                  snapshot_id=snapshot.id,
                                  disk_content=contents[number - 1]))
        demo.take(name)
    demo.api.delete_volumes(copies)
    return ('the volume is the same, and so are the first and the third '
            'snapshot')


def delete_others(demo, kind):
    volume = demo.need(kind + '-chain')
    for number in (1, 3):
        demo.api.delete_snapshots([demo.take('%s-snapshot-%d' % (kind,
                                                                 number))])
        demo.verify(volume)
    files = [name for name in demo.files_of(volume)
             if not name.endswith('.info')]
    expect(1, len(files), 'image files of a volume without snapshots')
    return 'oldest, then newest; the volume is the same and one file again'


def delete_chain(demo, kind):
    volumes = demo.take(kind + '-chain', kind + '-from-snapshot',
                        kind + '-clone')
    demo.api.delete_volumes(volumes)
    demo.expect_no_files_of(*volumes)
    return 'none of their files is left'


for _name in ('raw', 'qcow2'):
    step('A chain of three snapshots of a %s volume' % _name, _name)(
        snapshot_chain)
    step('A larger volume from the middle snapshot', _name)(from_snapshot)
    step('A larger clone of the volume with snapshots', _name)(clone)
    step('Revert to the latest snapshot', _name)(revert)
    step('Extend the volume with snapshots', _name)(extend_with_snapshots)
    step('Delete the middle snapshot', _name)(delete_middle)
    step('Delete the other two', _name)(delete_others)
    step('Delete the %s volume, its clone and its copy' % _name, _name)(
        delete_chain)


# Images.

IMAGE_SIZE = 256 * MIB


@step('Images in Glance')
def images(demo):
    disk = content.Content()
    disk.put(0, content.noise('image', 32))
    disk.put(IMAGE_SIZE - 16 * content.BLOCK, content.noise('end', 16))
    ids = []
    with demo.host.scratch() as raw, demo.host.scratch('.qcow2') as qcow2:
        disk.write_file(raw, IMAGE_SIZE)
        host.procs.run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', raw,
                       qcow2)
        for name, path in (('raw', raw), ('qcow2', qcow2)):
            ids.append(demo.api.create_image(name, path, name))
    demo.keep('images', ids)
    demo.keep('image-raw', ids[0])
    demo.keep('image-qcow2', ids[1])
    demo.keep('image-content', disk)
    return 'a disk of 256 MiB, uploaded as raw and as qcow2'


def image_to_volume(demo, image_format, type_name):
    image, disk = demo.need('image-' + image_format, 'image-content')
    volume = demo.create('image-to-' + type_name, type_name, imageRef=image,
                         disk_content=disk)
    with demo.host.attached(demo.api, volume) as attached:
        expect_allocation(demo, attached, TYPES[type_name][0], GIB)
    demo.write(volume, GIB - 16 * content.BLOCK)
    return ('1 GiB; the checksum is that of the image; its end is writable')


def volume_to_image(demo, type_name, image_format):
    """With a snapshot, so that the disk is in more than one file."""
    volume, ids = demo.need('image-to-' + type_name, 'images')
    snapshot = demo.api.create_snapshot(volume, name='before-upload')
    demo.write(volume, 0)
    image = demo.api.volume_to_image(volume, 'from-' + type_name,
                                     image_format)
    ids.append(image)
    with demo.host.scratch('.' + image_format) as path:
        demo.api.download_image(image, path)
        checksum, size = demo.host.image_checksum(path, image_format)
    expect(volume.size * GIB, size, 'size of the disk in the image')
    expect(volume.content.checksum(), checksum, 'checksum of the image')
    demo.api.delete_snapshots([snapshot])
    demo.take('image-to-' + type_name)
    demo.api.delete_volumes([volume])
    demo.expect_no_files_of(volume)
    return ('of a volume with a snapshot; downloaded again: 1 GiB, the '
            'checksum is that of the volume')


for _image, _type in (('qcow2', 'thick-raw'), ('raw', 'thin-qcow2')):
    step('Image to volume: %s to %s' % (_image, _type.replace('-', ' ')),
         _image, _type)(image_to_volume)
for _type, _image in (('thick-raw', 'qcow2'), ('thin-qcow2', 'raw')):
    step('Volume to image: %s to %s' % (_type.replace('-', ' '), _image),
         _type, _image)(volume_to_image)


# Backups.

@step('A full backup')
def full_backup(demo):
    volume = demo.create('backed-up', 'thick-raw')
    demo.write(volume, 0, 256 * MIB)
    demo.keep('full-content', volume.content.copy())
    backup = demo.keep('full', demo.api.create_backup(volume, name='full'))
    expect(1, backup.size, 'size of the backup')
    expect(False, backup.is_incremental, 'incremental')
    demo.verify(volume)
    return '1 GiB, zstd; the volume is as it was'


@step('An incremental backup')
def incremental_backup(demo):
    volume, _ = demo.need('backed-up', 'full')
    demo.write(volume, 0, 128 * MIB, blocks=8)
    backup = demo.keep('incremental', demo.api.create_backup(
        volume, name='incremental', incremental=True))
    expect(True, backup.is_incremental, 'incremental')
    demo.keep('incremental-content', volume.content.copy())
    return 'of what was written over it and beside it'


@step('Restore the incremental backup to a new volume')
def restore_to_new(demo):
    backup, disk = demo.need('incremental', 'incremental-content')
    made = demo.api.restore(backup)
    volume = demo.keep('restored', Volume(made, disk.copy(), 1, 'raw'))
    check_restored(demo, volume)
    return ('1 GiB though it ends in zeros, the checksum of the second '
            'content, still thick')


@step('Restore the full backup over an existing volume')
def restore_to_existing(demo):
    backup, disk = demo.need('full', 'full-content')
    volume = demo.create('overwritten', 'thick-raw')
    # Where the backup has nothing but zeros.
    demo.write(volume, 0, 600 * MIB, GIB - 16 * content.BLOCK)
    demo.api.restore(backup, volume)
    volume.content = disk.copy()
    check_restored(demo, volume)
    demo.write(volume, GIB - 16 * content.BLOCK)
    return ('what was there is gone, zeros included: 1 GiB, the checksum of '
            'the first content, still thick')


def check_restored(demo, volume):
    with demo.host.attached(demo.api, volume) as disk:
        demo.verify_disk(volume, disk)
        expect_allocation(demo, disk, 'thick', GIB)


@step('A backup of qcow2 and of a chain is of the disk, not of the file')
def backups_of_disks(demo):
    qcow2 = demo.need('thin-qcow2')
    raw = demo.create('with-snapshot', 'thin-raw')
    snapshot = demo.api.create_snapshot(raw, name='with-snapshot')
    demo.write(raw, 64 * MIB)
    for volume in (qcow2, raw):
        backup = demo.api.create_backup(volume, name='of-a-disk')
        demo.verify(volume)
        restored = Volume(demo.api.restore(backup), volume.content.copy(),
                          volume.size, None)
        demo.verify(restored)
        demo.api.delete_volumes([restored])
        demo.api.delete_backups([backup])
    demo.api.delete_snapshots([snapshot])
    demo.take('with-snapshot')
    demo.api.delete_volumes([raw])
    return ('a qcow2 volume, and one with a snapshot, restored: the same size '
            'and checksum')


@step('Delete the backups')
def delete_backups(demo):
    full, incremental = demo.take('full', 'incremental')
    demo.api.delete_backups([incremental, full])
    volumes = demo.take('backed-up', 'restored', 'overwritten')
    demo.api.delete_volumes(volumes)
    expect([], backup_files(demo), 'files left behind')
    return 'no file is left on the backup share'


def backup_files(demo):
    path = demo.host.mounted(demo.shares.backup, '-t lustre -o flock')
    return [os.path.join(directory, name)
            for directory, _, names in os.walk(path) for name in names]


# What does not fit.

@step('A thick volume larger than the share')
def too_large(demo):
    before = demo.listing()
    total = max(pool.total_capacity_gb
                for pool in demo.api.cinder.pools.list(detailed=True))
    volume, reason = demo.api.create_failing_volume(
        int(total) + 1024, name='too-large', volume_type='thick-raw')
    expect('error', volume.status, 'status of the volume')
    demo.api.delete_volumes([volume])
    expect(before, demo.listing(), 'files on the shares')
    return 'refused ("%s"), nothing left behind' % shorten(reason)


@step('A thick volume, where something else has filled the share')
def share_is_full(demo):
    """The scheduler does not know yet, so the driver has to notice."""
    if demo.shares.real:
        raise NotHere('not on a real Lustre')
    before = demo.listing()
    # Pools and shares are in the same order: both names begin alike.
    export = demo.exports()[0]
    mounted = demo.host.mounted(export, '-t lustre -o flock')
    ballast = mounted / 'ballast'
    room = os.statvfs(mounted)
    host.procs.run('fallocate', '-l',
                   room.f_bavail * room.f_frsize - 700 * MIB, ballast,
                   user=demo.host.user)
    try:
        volume, reason = demo.api.create_failing_volume(
            2, name='no-room', volume_type='thick-on-pool-1')
    finally:
        ballast.unlink()
    expect('error', volume.status, 'status of the volume')
    demo.api.delete_volumes([volume])
    expect(before, demo.listing(), 'files on the shares')
    return 'failed ("%s"), nothing left behind' % shorten(reason)


# The end.

@step('Delete everything')
def delete_everything(demo):
    """Whatever steps failed before, and with them what they have left."""
    cinder = demo.api.cinder
    backups = cinder.backups.list(sort='created_at:desc')
    demo.api.delete_backups(backups)
    snapshots = cinder.volume_snapshots.list()
    volumes = cinder.volumes.list()
    for volume in volumes:
        if volume.status not in ('available', 'error'):
            cinder.volumes.reset_state(volume, 'available', 'detached')
    demo.api.delete_snapshots(snapshots)
    demo.api.delete_volumes(volumes)
    for image in list(demo.api.glance.images.list()):
        demo.api.delete_image(image.id)
    for found in cinder.volume_types.list():
        if found.name == '__DEFAULT__':
            found.unset_keys(list(extra_specs('thick-raw')))
        else:
            cinder.volume_types.delete(found)
    expect([], cinder.volumes.list() + cinder.volume_snapshots.list()
           + cinder.backups.list(), 'what is still listed')
    return '%d volumes, %d snapshots, %d backups, images and types' % (
        len(volumes), len(snapshots), len(backups))


@step('Nothing is left on the shares')
def nothing_left(demo):
    expect([], demo.listing(), 'files on the shares for volumes')
    expect([], backup_files(demo), 'files on the share for backups')
    return 'both directories are empty, and no file is in that for backups'
