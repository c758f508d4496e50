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

"""Files that become volumes, and return; volumes that change hands."""

from tools.demo import cloud
from tools.demo import config
from tools.demo import content
from tools.demo import host
from tools.demo import stage

STEPS = []
step = stage.adder(STEPS)


@step('A file on the share becomes a volume (cinder manage)')
def manage(demo):
    disk = content.Content()
    disk.put(64 * stage.MIB, content.noise('old disk', 16))
    path = put_file(demo, 'old-disk', disk, 300 * stage.MIB)
    inode = path.stat().st_ino
    listed = manageable(demo, 'old-disk')
    stage.expect((True, 1), (listed.safe_to_manage, listed.size),
                 'safe to manage, and size')
    made = demo.api.manage(pool_host(demo), 'old-disk', name='adopted',
                           volume_type='thin-raw')
    volume = demo.adopt('adopted', made, 1, disk)
    with demo.host.attached(demo.api, volume) as attached:
        stage.expect(inode, attached.path.stat().st_ino, 'inode of the file')
    demo.write(volume, stage.GIB - 16 * content.BLOCK)
    stage.expect(False, path.exists(), 'there under its old name')
    return ('300 MiB, listed as 1 GiB; renamed, not copied; its content, then '
            'zeros up to 1 GiB; its end is writable')


def put_file(demo, name, disk, size):
    """Put a raw disk into the directory of the first share."""
    path = demo.host.mounted(demo.exports()[0], '-t lustre -o flock') / name
    # By its owner: root may be nobody on somebody's Lustre.
    with demo.host.scratch() as source:
        disk.write_file(source, size)
        host.procs.run('cp', '--sparse=always', source, path,
                       user=demo.host.user)
    return path


def pool_host(demo):
    return '%s#%s' % (stage.BACKEND, demo.pools[0])


def manageable(demo, name):
    """What is said of a file of the first share."""
    return next(found for found in demo.api.cinder.volumes.list_manageable(
        pool_host(demo)) if found.reference['source-name'].endswith(
            '/' + name))


@step('The volume becomes a file, and a volume again (cinder unmanage)')
def unmanage(demo):
    volume = demo.take('adopted')
    demo.api.unmanage(volume)
    name = 'volume-' + volume.id
    stage.expect([name], demo.files_of(volume), 'files of it')
    made = demo.api.manage(pool_host(demo), name, name='adopted-again',
                           volume_type='thin-raw')
    demo.adopt('adopted-again', made, 1, volume.content)
    demo.expect_no_files_of(volume)
    return 'one file stays, and is adopted again: the same size and checksum'


@step('A snapshot that Cinder forgets, and takes back')
def snapshot_comes_back(demo):
    volume = demo.need('adopted-again')
    before = volume.content.copy()
    snapshot = demo.api.create_snapshot(volume, name='forgotten')
    demo.write(volume, 0, 64 * stage.MIB)
    demo.api.unmanage_snapshot(snapshot)
    stage.expect([], demo.api.cinder.volume_snapshots.list(), 'snapshots')
    demo.api.refuse_deletion(volume)
    demo.verify(volume)
    found = demo.api.manage_snapshot(
        volume, 'volume-%s.%s' % (volume.id, snapshot.id))
    copy = demo.create('from-forgotten', 'thin-raw', snapshot_id=found.id,
                       disk_content=before)
    demo.verify(volume)
    demo.api.delete_snapshots([found])
    demo.take('adopted-again', 'from-forgotten')
    demo.api.delete_volumes([volume, copy])
    demo.expect_no_files_of(volume, copy)
    return ('meanwhile its volume is not deleted; then a volume made from it '
            'has the checksum of that time')


@step('Files that must not become volumes')
def refuse_to_manage(demo):
    """An image on a file of somebody else's."""
    path = demo.host.mounted(demo.exports()[0], '-t lustre -o flock') / 'trap'
    host.procs.run('qemu-img', 'create', '-q', '-f', 'qcow2', '-u', '-b',
                   '/etc/passwd', '-F', 'raw', path, '1G',
                   user=demo.host.user)
    try:
        stage.expect(False, manageable(demo, 'trap').safe_to_manage,
                     'safe to manage')
        status = demo.api.manage_failing(pool_host(demo), 'trap', name='trap')
        stage.expect('error', status.partition('_')[0], 'status')
        stage.expect(True, path.exists(), 'the file is still there')
    finally:
        path.unlink()
    return ('qcow2 on top of /etc/passwd is not offered, and refused; the '
            'file is untouched')


@step('A volume changes hands (cinder transfer-create)')
def transfer(demo):
    volume = demo.create('given-away', 'thin-qcow2')
    demo.write(volume, 0)
    receiver = cloud.Cloud(demo.stack, demo.api.on_wait,
                           config.OTHER_PROJECT)
    offer = demo.api.cinder.transfers.create(volume.id)
    receiver.cinder.transfers.accept(offer.id, offer.auth_key)
    found = receiver.wait_volume(volume)
    stage.expect(config.OTHER_PROJECT,
                 getattr(found, 'os-vol-tenant-attr:tenant_id'), 'owner')
    with demo.host.attached(receiver, volume) as disk:
        demo.verify_disk(volume, disk)
    demo.take('given-away')
    receiver.delete_volumes([volume])
    demo.expect_no_files_of(volume)
    return 'another project has it, with the same checksum, and deletes it'
