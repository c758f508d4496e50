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

"""What a deployment tool puts into Keystone, and sessions with it."""

from keystoneauth1 import identity
from keystoneauth1 import session

from tools.nova_stack import config


def log_in(url, password):
    """Return a session of the administrator's."""
    return session.Session(auth=identity.Password(
        auth_url=url, username=config.ADMIN, password=password,
        user_domain_name='Default', project_name=config.PROJECT,
        project_domain_name='Default'))


def fill(url, password, catalog):
    """Make the services known, and the administrator one of them.

    Services find each other in the catalog when they start, so this is done
    before.

    :param url: Keystone's
    :param catalog: {type of a service: its address}
    """
    administrator = log_in(url, password)

    def post(what, **body):
        return administrator.post('%s/%ss' % (url, what),
                                  json={what: body}).json()[what]

    for kind, address in catalog.items():
        service = post('service', type=kind, name=kind)
        for interface in 'public', 'internal', 'admin':
            post('endpoint', service_id=service['id'], interface=interface,
                 region_id=config.REGION, url=address)
    role, = administrator.get(url + '/roles?name=service').json()['roles']
    administrator.put('%s/projects/%s/users/%s/roles/%s' % (
        url, administrator.get_project_id(), administrator.get_user_id(),
        role['id']))


def make_tenant(url, password, name):
    """Make a project and a user of this name, who can't log in.

    :returns: their IDs
    """
    administrator = log_in(url, password)
    return tuple(
        administrator.post('%s/%ss' % (url, what), json={what: {
            'name': name, 'domain_id': 'default'}}).json()[what]['id']
        for what in ('project', 'user'))
