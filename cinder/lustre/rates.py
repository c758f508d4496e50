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

"""QoS specs of volume types as rules of Lustre's network request scheduler.

QEMU keeps a guest to the QoS specs of its volume. Lustre's servers can do it
too, whoever asks and from wherever: their policy ``tbf projid`` (a token
bucket filter by the project of a file, from Lustre 2.17 on) lets a project
have so many requests a second. What such a rule means is less than what QEMU
does:

- Requests are counted, not bytes, so that limits of bytes can't be told. One
  of QEMU's requests is one of Lustre's if it is direct, not larger than an RPC
  (4 MiB) and within a stripe, else several.
- The rate is that of each CPU partition of each OSS: a file that lies on four
  of them has four times as much.
- Reads and writes count together.

Only servers can be told, so this writes what their administrator may do.
"""

import collections
import dataclasses
from typing import Optional

from cinder.volume import volume_types

_POLICIES = 'ost.OSS.ost_io.nrs_policies'
_RULES = 'ost.OSS.ost_io.nrs_tbf_rule'

_HEADER = '''\
# For each OSS, as root. A rule that is there already has to be changed:
# "change <name> rate=<rate>"; "stop <name>" ends it. Files without a rule have
# the rate of the rule "default", for each project as a whole: mind project 0,
# which is that of all files that were never given one.'''


@dataclasses.dataclass
class _Project:
    """What is to be limited.

    :ivar rate: requests a second of all its volumes; None if one of them has
        no limit, for they can't be told apart
    :ivar volumes: their IDs
    """

    rate: Optional[int] = 0
    volumes: list = dataclasses.field(default_factory=list)

    def add(self, volume, rate):
        self.volumes.append(volume.id)
        self.rate = None if None in (rate, self.rate) else self.rate + rate


def commands(volumes):
    """Yield the lines of a shell script.

    :param volumes: each volume with the Lustre project of its files
    """
    projects = collections.defaultdict(_Project)
    for volume, project in volumes:
        projects[project].add(volume, rate(_specs(volume), volume.size))
    yield _HEADER
    yield 'lctl set_param %s="tbf projid"' % _POLICIES
    for number, project in sorted(projects.items()):
        if project.rate is not None:
            yield '# %s' % ' '.join(project.volumes)
            # A rule's name has 15 characters at most.
            yield 'lctl set_param %s="start vol%d projid={%d} rate=%d"' % (
                _RULES, number, number, project.rate)


def _specs(volume):
    if not volume.volume_type_id:
        return {}
    found = volume_types.get_volume_type_qos_specs(volume.volume_type_id)
    return (found['qos_specs'] or {}).get('specs', {})


def rate(specs, size):
    """Return how many requests a second QoS specs allow, or None for any.

    :param specs: of a volume's type
    :param size: of the volume, in GiB
    """
    total = _count(specs, 'total_iops_sec', size)
    both = [_count(specs, 'read_iops_sec', size),
            _count(specs, 'write_iops_sec', size)]
    return total or (sum(both) if all(both) else None)


def _count(specs, name, size):
    """Return the value of a spec, as cinder-volume tells it to Nova; or 0.

    See VolumeManager._parse_connection_options in cinder.volume.manager.
    """
    per_gb = specs.get(name + '_per_gb')
    if per_gb is None:
        return int(specs.get(name, 0))
    value = max(int(specs.get(name + '_per_gb_min', 0)), int(per_gb) * size)
    return min(value, int(specs.get(name + '_max', value)))
