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

"""Guests that boot from volumes, in QEMU.

They are told what to do over their serial consoles (tools/guest). Each volume
is attached as Nova does it, and the guest runs while it is.
"""

import contextlib

from tools.demo import server
from tools.demo import stage
from tools.guest import image

STEPS = []
step = stage.adder(STEPS)

# Two places in a disk of 1 GiB, the second up to its end, in MiB.
PLACES = (image.SYSTEM_MIB, 4), (1020, 4)


@contextlib.contextmanager
def running(demo, *volumes):
    """Boot a server from each volume, all at once; they end powered off."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(server.Server(
            demo.host, stack.enter_context(
                demo.host.attached(demo.api, volume))))
            for volume in volumes]
        for volume, running_server in zip(volumes, servers):
            stage.expect({'vda': volume.size * stage.GIB},
                         running_server.console.ready(),
                         "the guest's disks")
        yield servers if len(servers) > 1 else servers[0]
        for running_server in servers:
            running_server.power_off()


def sums_outside(demo, volume):
    """What is in the places, read from the volume's file."""
    with demo.host.attached(demo.api, volume) as disk:
        return [disk.sha256(slot * stage.MIB, count * stage.MIB)
                for slot, count in PLACES]


def write(running_server):
    """Let a guest write to the places; returns what it read back."""
    wrote = [running_server.write(*place) for place in PLACES]
    stage.expect(wrote, sums_inside(running_server),
                 'what the guest reads again')
    return wrote


def sums_inside(running_server):
    return [running_server.sum(*place) for place in PLACES]


@step('A guest boots from a qcow2 volume')
def boot(demo):
    image_id = demo.api.create_image('guest', demo.stack.layout.guest, 'raw')
    volume = demo.keep('server', stage.Volume(demo.api.create_volume(
        1, name='server', volume_type='thin-qcow2', imageRef=image_id),
        None, 1, 'qcow2'))
    stage.expect('true', volume.api.bootable, 'bootable')
    with running(demo, volume) as guest:
        wrote = demo.keep('server-sums', write(guest))
    stage.expect(wrote, sums_outside(demo, volume), 'what the guest wrote')
    demo.api.delete_image(image_id)
    return ('from the image in Glance, in QEMU; it sees 1 GiB; what it wrote '
            'and reads again is what is in the volume')


@step('A guest boots from a copy of its snapshot, beside the first')
def boot_copy(demo):
    volume, wrote = demo.need('server', 'server-sums')
    snapshot = demo.api.create_snapshot(volume, name='server')
    copy = demo.keep('server-copy', stage.Volume(demo.api.create_volume(
        2, name='server-copy', snapshot_id=snapshot.id), None, 2, 'qcow2'))
    with running(demo, volume, copy) as guests:
        for guest in guests:
            stage.expect(wrote, sums_inside(guest), 'what the guest reads')
        after = [write(guest) for guest in guests]
    stage.expect(after, [sums_outside(demo, volume),
                         sums_outside(demo, copy)], 'what they wrote')
    demo.api.delete_snapshots([snapshot])
    stage.expect(after[0], sums_outside(demo, volume),
                 'what is there without the snapshot')
    demo.take('server', 'server-copy', 'server-sums')
    demo.api.delete_volumes([volume, copy])
    demo.expect_no_files_of(volume, copy)
    return ('both read what the first had written, then write something of '
            'their own, which is in its volume and not in the other one; the '
            'copy sees 2 GiB')
