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

"""Groups of volumes, and their snapshots of one moment."""

from tools.demo import stage

STEPS = []
step = stage.adder(STEPS)

TYPES = ('thick-raw', 'thin-qcow2')


@step('A group of two volumes, and a consistent snapshot of it')
def group_snapshot(demo):
    group_type = demo.api.cinder.group_types.create('consistent')
    group_type.set_keys({'consistent_group_snapshot_enabled': '<is> True'})
    group = demo.keep('group', demo.api.create_group(group_type, [
        demo.api.cinder.volume_types.find(name=name) for name in TYPES]))
    contents = {}
    for name in TYPES:
        volume = demo.create('in-group-' + name, name, group_id=group.id)
        demo.write(volume, 0, 512 * stage.MIB)
        contents[name] = volume.content.copy()
    demo.keep('group-contents', contents)
    demo.keep('group-snapshot', demo.api.create_group_snapshot(group))
    for name in TYPES:
        demo.write(demo.need('in-group-' + name), 0, 256 * stage.MIB)
    return '%s and %s; both are writable afterwards' % TYPES


@step('Another group from the group snapshot')
def group_from_snapshot(demo):
    found, contents = demo.need('group-snapshot', 'group-contents')
    group, volumes = demo.api.create_group_from(found)
    for name in TYPES:
        made, = (volume for volume in volumes if volume.volume_type == name)
        demo.adopt('from-group-' + name, demo.api.wait_volume(made), 1,
                   contents[name])
        demo.verify(demo.need('in-group-' + name))
    demo.keep('second-group', group)
    return 'both volumes hold what the first two held at that moment'


@step('Delete both groups with their volumes')
def delete_groups(demo):
    volumes = demo.take(*(prefix + name for prefix in (
        'in-group-', 'from-group-') for name in TYPES))
    demo.api.delete_group_snapshots([demo.take('group-snapshot')])
    for volume in volumes:
        demo.verify(volume)
    demo.api.delete_groups(demo.take('group', 'second-group'))
    demo.expect_no_files_of(*volumes)
    return 'none of their files is left'
