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

"""Snapshots. The same story for either format of the base: the volume holds
A, B, C and then D; its three snapshots hold A, B and C.
"""

import time

from tools.demo import content
from tools.demo import stage

STEPS = []
step = stage.adder(STEPS)


def snapshot_chain(demo, kind):
    volume = demo.create('%s-chain' % kind, 'thin-' + kind)
    demo.write(volume, 0, 512 * stage.MIB)
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
                   512 * stage.MIB + number * 8 * content.BLOCK)
    demo.keep('%s-contents' % kind, contents)
    stage.expect(4, len({found.checksum()
                         for found in contents + [volume.content]}),
                 'different contents')
    return 'four contents, each written over the last; the volume reads right'


def from_snapshot(demo, kind):
    volume, snapshot, contents = demo.need(
        kind + '-chain', kind + '-snapshot-2', kind + '-contents')
    copy = demo.create('%s-from-snapshot' % kind, 'thin-' + kind, size=2,
                       snapshot_id=snapshot.id, disk_content=contents[1])
    demo.write(copy, 2 * stage.GIB - 16 * content.BLOCK)
    demo.verify(volume)
    return '2 GiB from 1 GiB; holds what the second held; its end is writable'


def clone(demo, kind):
    volume = demo.need(kind + '-chain')
    copy = demo.create('%s-clone' % kind, 'thin-' + kind, size=2,
                       source_volid=volume.id, disk_content=volume.content)
    demo.write(copy, 0, 2 * stage.GIB - 16 * content.BLOCK)
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
    demo.write(volume, 2 * stage.GIB - 16 * content.BLOCK)
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
    stage.expect(1, len(files), 'image files of a volume without snapshots')
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
