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

"""What there is before the first volume: services, pools, volume types."""

from tools.demo import cloud
from tools.demo import config
from tools.demo import stage

STEPS = []
step = stage.adder(STEPS)


@step('The services are up', essential=True)
def services_are_up(demo):
    wanted = {'cinder-scheduler': config.HOST, 'cinder-volume': stage.BACKEND,
              'cinder-backup': config.HOST}

    def check():
        dead = demo.stack.dead()
        if dead:
            raise cloud.Unexpected('%s ended' % ', '.join(dead))
        up = {service.binary: service.host
              for service in demo.api.cinder.services.list()
              if service.state == 'up'}
        return up == wanted
    demo.api.wait('services to be up', check, 60)
    return 'scheduler, volume and backup report as up, as user %s' % (
        demo.stack.user.pw_name)


@step('Pools are visible (cinder get-pools)', essential=True)
def pools(demo):
    def check():
        found = demo.api.cinder.pools.list(detailed=True)
        return found if len(found) == 2 else None
    found = demo.api.wait('a pool for each of the two shares', check, 60)
    texts = []
    for pool in found:
        backend, _, name = pool.name.partition('#')
        stage.expect(stage.BACKEND, backend, 'backend of pool %s' % pool.name)
        if not 0 < pool.free_capacity_gb <= pool.total_capacity_gb:
            raise cloud.Unexpected('pool %s: %s GiB of %s GiB free' % (
                name, pool.free_capacity_gb, pool.total_capacity_gb))
        texts.append('%s, %.1f of %.1f GiB free' % (
            name, pool.free_capacity_gb, pool.total_capacity_gb))
        demo.pools.append(name)
    demo.pools.sort()
    return 'one for each share: ' + '; '.join(sorted(texts))


@step('The backend says what it can do (cinder get-capabilities)')
def capabilities(demo):
    found = demo.api.cinder.capabilities.get(stage.BACKEND)
    wanted = {'lustre:format', 'provisioning:type'}
    stage.expect(set(), wanted - set(found.properties),
                 'properties that are not reported')
    return '; '.join('%s: %s' % (name, ' or '.join(
        found.properties[name]['enum'])) for name in sorted(wanted))


@step('Volume types')
def types(demo):
    volume_types = demo.api.cinder.volume_types
    for name in stage.TYPES:
        volume_types.create(name).set_keys(stage.extra_specs(name))
    # A restore to a new volume makes one of this type.
    volume_types.find(name='__DEFAULT__').set_keys(
        stage.extra_specs('thick-raw'))
    for number, pool in enumerate(demo.pools, 1):
        volume_types.create('on-pool-%d' % number).set_keys(
            {'pool_name': pool})
        volume_types.create('thick-on-pool-%d' % number).set_keys(
            {'pool_name': pool, **stage.extra_specs('thick-raw')})
    names = {found.name for found in volume_types.list()}
    stage.expect(set(), set(stage.TYPES) - names, 'types that are not listed')
    return '%s; and two for each pool' % ', '.join(stage.TYPES)
