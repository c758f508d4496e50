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

"""Backups, full and incremental, and what comes back from them."""

from tools.demo import content
from tools.demo import stage

STEPS = []
step = stage.adder(STEPS)


@step('A full backup')
def full_backup(demo):
    volume = demo.create('backed-up', 'thick-raw')
    demo.write(volume, 0, 256 * stage.MIB)
    demo.keep('full-content', volume.content.copy())
    backup = demo.keep('full', demo.api.create_backup(volume, name='full'))
    stage.expect(1, backup.size, 'size of the backup')
    stage.expect(False, backup.is_incremental, 'incremental')
    demo.verify(volume)
    return '1 GiB, zstd; the volume is as it was'


@step('An incremental backup')
def incremental_backup(demo):
    volume, _ = demo.need('backed-up', 'full')
    demo.write(volume, 0, 128 * stage.MIB, blocks=8)
    backup = demo.keep('incremental', demo.api.create_backup(
        volume, name='incremental', incremental=True))
    stage.expect(True, backup.is_incremental, 'incremental')
    demo.keep('incremental-content', volume.content.copy())
    return 'of what was written over it and beside it'


@step('Restore the incremental backup to a new volume')
def restore_to_new(demo):
    backup, disk = demo.need('incremental', 'incremental-content')
    made = demo.api.restore(backup)
    volume = demo.keep('restored', stage.Volume(made, disk.copy(), 1, 'raw'))
    check_restored(demo, volume)
    return ('1 GiB though it ends in zeros, the checksum of the second '
            'content, still thick')


@step('Restore the full backup over an existing volume')
def restore_to_existing(demo):
    backup, disk = demo.need('full', 'full-content')
    volume = demo.create('overwritten', 'thick-raw')
    # Where the backup has nothing but zeros.
    demo.write(volume, 0, 600 * stage.MIB, stage.GIB - 16 * content.BLOCK)
    demo.api.restore(backup, volume)
    volume.content = disk.copy()
    check_restored(demo, volume)
    demo.write(volume, stage.GIB - 16 * content.BLOCK)
    return ('what was there is gone, zeros included: 1 GiB, the checksum of '
            'the first content, still thick')


def check_restored(demo, volume):
    with demo.host.attached(demo.api, volume) as disk:
        demo.verify_disk(volume, disk)
        stage.expect_allocation(demo, disk, 'thick', stage.GIB)


@step('A backup of qcow2 and of a chain is of the disk, not of the file')
def backups_of_disks(demo):
    qcow2 = demo.need('thin-qcow2')
    raw = demo.create('with-snapshot', 'thin-raw')
    snapshot = demo.api.create_snapshot(raw, name='with-snapshot')
    demo.write(raw, 64 * stage.MIB)
    for volume in (qcow2, raw):
        backup = demo.api.create_backup(volume, name='of-a-disk')
        demo.verify(volume)
        restored = stage.Volume(demo.api.restore(backup),
                                volume.content.copy(), volume.size, None)
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
    stage.expect([], demo.backup_files(), 'files left behind')
    return 'no file is left on the backup share'
