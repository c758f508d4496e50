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

"""The services: the demo's, and Keystone, Placement and Nova."""

import pathlib

from tools.demo import procs
from tools.demo import stack
from tools.nova_stack import compute
from tools.nova_stack import config

# One as Nova is, and two with our driver: servers are migrated from one to the
# other.
COMPUTES = {'stock': 'libvirt.LibvirtDriver',
            'lustre': 'lustre.LibvirtDriver',
            'lustre2': 'lustre.LibvirtDriver'}


class Stack(stack.Stack):
    """The services of one stack.

    :param computes: {name of a compute host: its compute_driver}; without
        any, there is no Nova
    """

    writer_class = config.Writer

    def __init__(self, layout, shares, computes=COMPUTES):
        super().__init__(layout, shares)
        self.writer = None
        self.drivers = computes
        self.computes = {
            name: compute.ComputeHost(self, name, number)
            for number, name in enumerate(computes, 1)}

    # Going up.

    def write_configuration(self, rabbitmq, mysql):
        self.ports = config.Ports()
        self.writer = self.writer_class(self.layout, self.ports, self.shares,
                                        self.drivers)
        self.writer.write_all(self.user, rabbitmq, mysql)

    def start(self, progress):
        progress('RabbitMQ and MariaDB')
        self._start_rabbitmq()
        self._start_mariadb()
        progress('the databases')
        self._fill_databases()
        self.wait('rabbitmq', self._rabbitmq_answers, 60)
        progress('Keystone')
        self._start_keystone()
        progress("Cinder's and Glance's services")
        for name in ('scheduler', 'volume', 'backup'):
            self._start_cinder(name)
        self._start_cinder_api()
        self._start_glance_api()
        self._start_neutron()
        self._wait_for_apis('cinder', 'glance')
        if self.computes:
            self._start_computes(progress)

    def _start_computes(self, progress):
        """Start Nova, and the compute hosts."""
        progress("Nova's services")
        self._start_placement()
        self._start_nova()
        self._wait_for_apis('placement', 'nova')
        progress('the compute hosts')
        compute.make_hypervisor_user()
        for host in self.computes.values():
            host.start()

    def _wait_for_apis(self, *names):
        for name in names:
            self.wait(name + '-api', lambda name=name: stack.answers(
                self.writer.url(name)), 120)

    def catalog(self):
        """Types of services, and where they are."""
        url = self.writer.url
        found = {'identity': url('keystone') + '/v3',
                 'image': url('glance'),
                 'network': url('neutron'),
                 'block-storage': url('cinder') + '/v3'}
        if self.computes:
            found.update(placement=url('placement'),
                         compute=url('nova') + '/v2.1')
        return found

    def _manage(self, command, *arguments, limit=180):
        service = command.partition('-')[0]
        path = (self.layout.glance_conf if service == 'glance'
                else self.layout.file(service))
        procs.run(self.layout.venv / 'bin' / command, '--config-file', path,
                  *arguments, user=self.user, env=self.environment(),
                  limit=limit, cwd=self.layout.lib)

    def _fill_databases(self):
        self._manage('cinder-manage', 'db', 'sync')
        self._manage('glance-manage', 'db_sync')
        self._manage('keystone-manage', 'db_sync')
        if self.computes:
            self._fill_nova_databases()

    def _fill_nova_databases(self):
        self._manage('placement-manage', 'db', 'sync')
        self._manage('nova-manage', 'api_db', 'sync')
        self._manage(
            'nova-manage', 'cell_v2', 'map_cell0', '--database_connection',
            config.config.database(
                self.layout, 'nova_cell0', self.writer.password
            ).partition(' = ')[2])
        self._manage('nova-manage', 'cell_v2', 'create_cell')
        self._manage('nova-manage', 'db', 'sync')

    def _start_wsgi(self, name, module, **environment):
        """Start an API that is a WSGI application."""
        self.spawn(name + '-api', [
            'uwsgi', '--plugin', 'python3', '--virtualenv', self.layout.venv,
            '--module', module,
            '--http-socket', '127.0.0.1:%d' % getattr(self.ports, name),
            '--master', '--processes', 2, '--lazy-apps', '--enable-threads',
            '--need-app', '--die-on-term', '--disable-logging',
            '--add-header', 'Connection: close'],
            self.user, self.environment(**environment))

    def _start_keystone(self):
        group = ('--keystone-user', self.user.pw_name,
                 '--keystone-group', self.user.pw_name)
        for what in ('fernet_setup', 'receipt_setup', 'credential_setup'):
            self._manage('keystone-manage', what, *group)
        self._manage('keystone-manage', 'bootstrap',
                     '--bootstrap-username', config.ADMIN,
                     '--bootstrap-password', self.writer.password,
                     '--bootstrap-project-name', config.PROJECT,
                     '--bootstrap-region-id', config.REGION)
        self._start_wsgi('keystone', 'keystone.wsgi.api:application',
                         OS_KEYSTONE_CONFIG_FILES=str(
                             self.layout.file('keystone')))
        self.wait('keystone-api', lambda: stack.answers(
            self.writer.url('keystone')), 60)
        # Not before: it needs the environment, which ending does without.
        from tools.nova_stack import identity

        identity.fill(self.catalog()['identity'], self.writer.password,
                      self.catalog())

    def _start_placement(self):
        self._start_wsgi('placement', 'placement.wsgi.api:application',
                         OS_PLACEMENT_CONFIG_DIR=str(
                             self.layout.file('placement').parent))

    def _start_neutron(self):
        self.spawn('neutron', [
            self.layout.venv / 'bin/python',
            pathlib.Path(__file__).with_name('neutron.py'),
            self.ports.neutron], self.user, self.environment())

    def _start_nova(self):
        self._start_wsgi('nova', 'nova.wsgi.osapi_compute:application',
                         OS_NOVA_CONFIG_DIR=str(
                             self.layout.file('nova').parent),
                         # It is no place for green threads.
                         OS_NOVA_DISABLE_EVENTLET_PATCHING='1')
        for name in ('conductor', 'scheduler'):
            self.spawn('nova-' + name, [
                self.layout.venv / 'bin' / ('nova-' + name), '--config-file',
                self.layout.file('nova')], self.user, self.environment())

    def forget_overlay(self, volume, snapshot):
        """Let Nova know the image that a volume had before a snapshot.

        :returns: False if it does not know the overlay yet
        """
        changed = procs.run(
            'mariadb', '--no-defaults', '--skip-column-names', '--socket',
            self.layout.mariadb_socket, 'nova', '--execute',
            "UPDATE block_device_mapping SET connection_info = REPLACE("
            "connection_info, '%(volume)s.%(snapshot)s', '%(volume)s') WHERE "
            "volume_id = '%(volume)s' AND deleted = 0; SELECT ROW_COUNT()" % {
                'volume': volume.id, 'snapshot': snapshot.id})
        return int(changed) == 1
