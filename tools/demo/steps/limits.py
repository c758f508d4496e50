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

"""What does not fit."""

import os

from tools.demo import host
from tools.demo import stage

STEPS = []
step = stage.adder(STEPS)


@step('A thick volume larger than the share')
def too_large(demo):
    before = demo.listing()
    total = max(pool.total_capacity_gb
                for pool in demo.api.cinder.pools.list(detailed=True))
    volume, reason = demo.api.create_failing_volume(
        int(total) + 1024, name='too-large', volume_type='thick-raw')
    stage.expect('error', volume.status, 'status of the volume')
    demo.api.delete_volumes([volume])
    stage.expect(before, demo.listing(), 'files on the shares')
    return 'refused ("%s"), nothing left behind' % stage.shorten(reason)


@step('A thick volume, where something else has filled the share')
def share_is_full(demo):
    """The scheduler does not know yet, so the driver has to notice."""
    if demo.shares.real:
        raise stage.NotHere('not on a real Lustre')
    before = demo.listing()
    # Pools and shares are in the same order: both names begin alike.
    export = demo.exports()[0]
    mounted = demo.host.mounted(export, '-t lustre -o flock')
    ballast = mounted / 'ballast'
    room = os.statvfs(mounted)
    host.procs.run('fallocate', '-l',
                   room.f_bavail * room.f_frsize - 700 * stage.MIB, ballast,
                   user=demo.host.user)
    try:
        volume, reason = demo.api.create_failing_volume(
            2, name='no-room', volume_type='thick-on-pool-1')
    finally:
        ballast.unlink()
    stage.expect('error', volume.status, 'status of the volume')
    demo.api.delete_volumes([volume])
    stage.expect(before, demo.listing(), 'files on the shares')
    return 'failed ("%s"), nothing left behind' % stage.shorten(reason)
