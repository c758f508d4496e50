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

"""The end: everything can be deleted, and nothing stays behind."""

from tools.demo import stage

STEPS = []
step = stage.adder(STEPS)


@step('Delete everything')
def delete_everything(demo):
    """Whatever steps failed before, and with them what they have left."""
    cinder = demo.api.cinder
    demo.api.delete_group_snapshots(cinder.group_snapshots.list())
    demo.api.delete_groups(cinder.groups.list())
    backups = cinder.backups.list(sort='created_at:desc')
    demo.api.delete_backups(backups)
    snapshots = cinder.volume_snapshots.list()
    # Those too that another project was handed.
    volumes = cinder.volumes.list(search_opts={'all_tenants': True})
    for volume in volumes:
        if volume.status not in ('available', 'error'):
            cinder.volumes.reset_state(volume, 'available', 'detached')
    demo.api.delete_snapshots(snapshots)
    demo.api.delete_volumes(volumes)
    for image in list(demo.api.glance.images.list()):
        demo.api.delete_image(image.id)
    for found in cinder.volume_types.list():
        if found.name == '__DEFAULT__':
            found.unset_keys(list(stage.extra_specs('thick-raw')))
        else:
            cinder.volume_types.delete(found)
    stage.expect([], cinder.volumes.list() + cinder.volume_snapshots.list()
                 + cinder.backups.list(), 'what is still listed')
    return '%d volumes, %d snapshots, %d backups, images and types' % (
        len(volumes), len(snapshots), len(backups))


@step('Nothing is left on the shares')
def nothing_left(demo):
    stage.expect([], demo.listing(), 'files on the shares for volumes')
    stage.expect([], demo.backup_files(), 'files on the share for backups')
    return 'both directories are empty, and no file is in that for backups'
