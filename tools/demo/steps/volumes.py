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

"""Volumes of each kind, and larger ones."""

import os
import stat

from tools.demo import content
from tools.demo import host
from tools.demo import stage

STEPS = []
step = stage.adder(STEPS)


def new_volume(demo, type_name):
    provisioning, disk_format = stage.TYPES[type_name]
    volume = demo.create(type_name, type_name)
    with demo.host.attached(demo.api, volume) as disk:
        stage.expect(disk_format, disk.format, 'format')
        demo.verify_disk(volume, disk)
        stage.expect_allocation(demo, disk, provisioning, stage.GIB)
        took = disk.allocated()
        about = os.stat(disk.path)
        stage.expect('0o660', oct(stat.S_IMODE(about.st_mode)), 'mode')
        stage.expect((demo.stack.user.pw_uid, demo.stack.user.pw_gid),
                     (about.st_uid, about.st_gid), 'owner')
    # At the start, across a gigabyte's middle, and its last byte.
    demo.write(volume, 0, 512 * stage.MIB, stage.GIB - 16 * content.BLOCK)
    return ('1 GiB, %s of the share taken, mode 0660; read as zeros; '
            '3 MiB written and read back' % stage.size_text(took))


for _name in stage.TYPES:
    step('A %s volume' % _name.replace('-', ' '), _name)(new_volume)


@step('A type chooses the share')
def choose_share(demo):
    texts = []
    for number, pool in enumerate(demo.pools, 1):
        name = 'on-pool-%d' % number
        volume = demo.create(name, name)
        placed = getattr(demo.api.cinder.volumes.get(volume.id),
                         'os-vol-host-attr:host')
        stage.expect('%s#%s' % (stage.BACKEND, pool), placed,
                     'host of the volume')
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
    demo.write(volume, stage.MIB)
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
    provisioning, _ = stage.TYPES[type_name]
    volume = demo.need(type_name)
    demo.api.extend_volume(volume, 2)
    volume.size = 2
    with demo.host.attached(demo.api, volume) as disk:
        demo.verify_disk(volume, disk)
        # What the steps before it wrote is next to nothing.
        stage.expect_allocation(demo, disk, provisioning, 2 * stage.GIB)
        took = disk.allocated()
    demo.write(volume, 2 * stage.GIB - 16 * content.BLOCK)
    return '2 GiB, %s taken; checksum the same; its new end is writable' % (
        stage.size_text(took))


for _name in stage.TYPES:
    step('Extend the %s volume' % _name.replace('-', ' '), _name)(
        extend_plain)
