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

"""Encrypted volumes: what is on the share, and which key opens what."""

from tools.demo import cloud
from tools.demo import content
from tools.demo import host
from tools.demo import stage

STEPS = []
step = stage.adder(STEPS)

SECRET = b'the tenant wrote this'.ljust(content.BLOCK, b'!')


@step('An encrypted volume')
def encrypted_volume(demo):
    make_type(demo.api.cinder)
    volume = demo.create('secret', stage.ENCRYPTED)
    with demo.host.attached(demo.api, volume) as disk:
        stage.expect('qcow2', disk.format, 'format')
        disk.write(512 * stage.MIB, SECRET)
        volume.content.put(512 * stage.MIB, SECRET)
        expect_locked(demo, disk)
        stage.expect(False, SECRET[:21] in disk.path.read_bytes(),
                     'what was written can be read in the file')
    demo.verify(volume)
    return ('1 GiB, LUKS in qcow2; read back with its key; another key is '
            'refused; what was written is not in the file')


def make_type(cinder):
    volume_type = cinder.volume_types.create(stage.ENCRYPTED)
    cinder.volume_encryption_types.create(volume_type, {
        'provider': 'luks', 'cipher': 'aes-xts-plain64', 'key_size': 256,
        'control_location': 'front-end'})


def expect_locked(demo, disk):
    """Every image of the disk is encrypted, and no other key opens it."""
    stage.expect([True] * len(disk.chain()),
                 [image.get('encrypted') for image in disk.chain()],
                 'encrypted images')
    right, disk.key = disk.key, b'0' * 64
    try:
        disk.checksum()
    except host.procs.CommandFailed as exc:
        if 'Invalid password' not in str(exc):
            raise
    else:
        raise cloud.Unexpected('a wrong key opens %s' % disk.name)
    finally:
        disk.key = right


@step('Snapshots of the encrypted volume')
def encrypted_snapshots(demo):
    volume = demo.need('secret')
    contents = []
    # It takes QEMU two seconds of a processor to make an encrypted image.
    for number in (1, 2):
        demo.write(volume, number * 8 * content.BLOCK)
        contents.append(volume.content.copy())
        demo.keep('secret-snapshot-%d' % number, demo.api.create_snapshot(
            volume, name='secret-snapshot-%d' % number))
    demo.write(volume, 0, 512 * stage.MIB)
    demo.keep('secret-contents', contents)
    with demo.host.attached(demo.api, volume) as disk:
        stage.expect(3, len(disk.chain()), 'images of the volume')
        expect_locked(demo, disk)
    return 'two; each image is encrypted, and the volume reads right'


@step('Copies of the encrypted volume have keys of their own')
def encrypted_copies(demo):
    volume, snapshot, contents = demo.need(
        'secret', 'secret-snapshot-1', 'secret-contents')
    clone = demo.create('secret-clone', stage.ENCRYPTED, size=2,
                        source_volid=volume.id, disk_content=volume.content)
    copy = demo.create('secret-copy', stage.ENCRYPTED, snapshot_id=snapshot.id,
                       disk_content=contents[0])
    demo.write(clone, 2 * stage.GIB - 16 * content.BLOCK)
    for made in (clone, copy):
        with demo.host.attached(demo.api, made) as disk:
            expect_locked(demo, disk)
    stage.expect(3, len({demo.api.key_id(found)
                         for found in (volume, clone, copy)}), 'keys')
    return ('a clone of 2 GiB, and a volume from the first snapshot: the '
            'checksums are right, and the key manager has a key for each')


@step('Delete the snapshots of the encrypted volume, and extend it')
def encrypted_deletion_of_snapshots(demo):
    volume = demo.need('secret')
    for number in (1, 2):
        demo.api.delete_snapshots([demo.take('secret-snapshot-%d' % number)])
        demo.verify(volume)
    demo.api.extend_volume(volume, 2)
    volume.size = 2
    demo.write(volume, 2 * stage.GIB - 16 * content.BLOCK)
    with demo.host.attached(demo.api, volume) as disk:
        stage.expect(1, len(disk.chain()), 'images of the volume')
        expect_locked(demo, disk)
    return ('oldest, then newest; 2 GiB; checksum the same; its new end is '
            'writable')


@step('Delete the encrypted volume, then its copies')
def encrypted_deletion(demo):
    volume, clone, copy = demo.take('secret', 'secret-clone', 'secret-copy')
    key = demo.api.key_id(volume)
    demo.api.delete_volumes([volume])
    stage.expect(False, key in demo.host.keys, 'its key is there')
    demo.verify(clone)
    demo.verify(copy)
    demo.api.delete_volumes([clone, copy])
    demo.expect_no_files_of(volume, clone, copy)
    stage.expect([], list(demo.host.keys), 'keys left behind')
    return ('its key goes with it, and the copies still open with theirs; no '
            'file and no key is left')
