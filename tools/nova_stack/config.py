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

"""Where the stack keeps its files, and the services' configuration.

Cinder and Glance are configured as in the demo, with Keystone added. What is
said twice in a file counts as it is said last.
"""

import secrets
import shutil

from tools.demo import config

REGION = 'RegionOne'
ADMIN = 'openstack'
PROJECT = 'service'
DATABASES = ('cinder', 'glance', 'keystone', 'placement', 'nova_api', 'nova',
             'nova_cell0')


class Layout(config.Layout):
    """The directories and files of one stack."""

    def file(self, service):
        return self.etc / service / (service + '.conf')

    @property
    def compute_state(self):
        """Where each compute host sees its own directory.

        One path, because a live migration keeps those of images and consoles.
        """
        return self.lib / 'compute'

    def compute(self, name):
        return self.lib / name

    def compute_conf(self, name):
        return self.etc / name / 'nova.conf'

    def make(self, service, rabbitmq, mysql):
        super().make(service, rabbitmq, mysql)
        for name in ('keystone/fernet', 'keystone/receipt',
                     'keystone/credential', 'nova/locks', 'compute'):
            path = self.lib / name
            path.mkdir(parents=True, exist_ok=True)
            for directory in (path, path.parent):
                shutil.chown(directory, service.pw_uid, service.pw_gid)
        for name in ('keystone', 'placement', 'nova'):
            (self.etc / name).mkdir(parents=True, exist_ok=True)


class Ports(config.Ports):
    """Ports on the loopback interface that nobody uses."""

    NAMES = (*config.Ports.NAMES, 'keystone', 'placement', 'nova', 'neutron',
             'libvirt')


class Writer:
    """Writes every configuration file.

    :param computes: {name of a compute host: its compute_driver}
    """

    def __init__(self, layout, ports, shares, computes):
        self.layout = layout
        self.ports = ports
        self.shares = shares
        self.computes = computes
        self.password = secrets.token_hex(16)

    def url(self, service):
        return 'http://127.0.0.1:%d' % getattr(self.ports, service)

    def write_all(self, service, rabbitmq, mysql):
        layout = self.layout
        config.write_cinder(layout, self.ports, self.shares, self.password,
                            service, rabbitmq, mysql)
        config.write_glance(layout, self.password, service)
        config.write(layout.sudoers, config.sudoers(layout, service),
                     mode=0o440)
        config.write(layout.mariadb_init,
                     config.mariadb_init(self.password, DATABASES), mysql,
                     0o640)
        # Glance's policy without Keystone lets everybody do everything.
        layout.glance_conf.with_name('policy.yaml').write_text('')
        self._add(layout.cinder_conf, self._cinder())
        self._add(layout.glance_conf, self._glance())
        for name, lines in (('keystone', self._keystone()),
                            ('placement', self._placement()),
                            ('nova', self._nova())):
            config.write(layout.file(name), '\n'.join(lines + ['']), service,
                         0o640)
        shutil.copy(layout.venv / 'etc/nova/api-paste.ini',
                    layout.etc / 'nova')
        for number, name in enumerate(self.computes, 1):
            config.write(layout.compute_conf(name), '\n'.join(
                self._nova() + self._compute(name, number) + ['']), service,
                0o640)

    @staticmethod
    def _add(path, lines):
        with open(path, 'a') as file:
            file.write('\n'.join(lines + ['']))

    def _credentials(self, section, **more):
        """How a service logs in at Keystone."""
        values = {'auth_type': 'password', 'auth_url': self.url('keystone'),
                  'username': ADMIN, 'password': self.password,
                  'user_domain_name': 'Default',
                  'project_name': PROJECT, 'project_domain_name': 'Default',
                  'region_name': REGION, **more}
        return ['[%s]' % section,
                *['%s = %s' % item for item in values.items()]]

    def _authtoken(self):
        return [*self._credentials('keystone_authtoken',
                                   www_authenticate_uri=self.url('keystone'),
                                   service_token_roles='service',
                                   service_token_roles_required='true'),
                *self._credentials('service_user',
                                   send_service_user_token='true')]

    def _database(self, section, name):
        return ['[%s]' % section,
                config.database(self.layout, name, self.password)]

    def _cinder(self):
        return ['[DEFAULT]', 'auth_strategy = keystone',
                'report_discard_supported = true',
                *self._credentials('nova'), *self._authtoken()]

    def _glance(self):
        return ['[paste_deploy]', 'flavor = keystone', *self._authtoken()]

    def _keystone(self):
        lib = self.layout.lib / 'keystone'
        return [*self._database('database', 'keystone'),
                '[fernet_tokens]', 'key_repository = %s' % (lib / 'fernet'),
                '[fernet_receipts]', 'key_repository = %s' % (lib / 'receipt'),
                '[credential]', 'key_repository = %s' % (lib / 'credential')]

    def _placement(self):
        return ['[api]', 'auth_strategy = keystone',
                *self._database('placement_database', 'placement'),
                *self._authtoken()]

    def _nova(self):
        lib = self.layout.lib / 'nova'
        return ['[DEFAULT]',
                'transport_url = rabbit://demo:%s@127.0.0.1:%d/' % (
                    self.password, self.ports.rabbitmq),
                'my_ip = 127.0.0.1',
                'state_path = %s' % lib,
                'log_dir =',
                'enabled_apis = osapi_compute',
                'osapi_compute_workers = 1',
                'metadata_workers = 1',
                # Pings and statistics of a machine with two processors.
                'rpc_response_timeout = 180',
                'allow_resize_to_same_host = true',
                '[conductor]', 'workers = 1',
                '[scheduler]', 'workers = 1',
                'discover_hosts_in_cells_interval = 5',
                '[filter_scheduler]',
                'enabled_filters = ComputeFilter,ImagePropertiesFilter',
                '[api]', 'auth_strategy = keystone',
                '[api_database]',
                config.database(self.layout, 'nova_api', self.password),
                *self._database('database', 'nova'),
                '[glance]', 'endpoint_override = %s' % self.url('glance'),
                *self._credentials('cinder',
                                   catalog_info='block-storage::publicURL',
                                   os_region_name=REGION),
                *self._credentials('placement'),
                *self._credentials('neutron',
                                   endpoint_override=self.url('neutron')),
                *self._authtoken(),
                '[key_manager]',
                'backend = demo_keys.KeyManager',
                '[oslo_concurrency]', 'lock_path = %s' % (lib / 'locks'),
                '[barbican_service_user]', 'auth_section = service_user']

    def _compute(self, name, number):
        lib = self.layout.compute_state
        helper = 'helper_command = %s --config-file %s' % (
            self.layout.venv / 'bin/privsep-helper',
            self.layout.compute_conf(name))
        return ['[DEFAULT]', 'host = %s' % name,
                'compute_driver = %s' % self.computes[name],
                'state_path = %s' % lib,
                'instances_path = %s' % (lib / 'instances'),
                # A machine with little to spare is still a compute host.
                'reserved_host_memory_mb = 0',
                'cpu_allocation_ratio = 64',
                'ram_allocation_ratio = 4',
                '[oslo_concurrency]', 'lock_path = %s' % (lib / 'locks'),
                '[vnc]', 'enabled = false',
                '[libvirt]', 'virt_type = qemu', 'cpu_mode = none',
                'live_migration_uri = qemu+tcp://%%s:%d/system' %
                self.ports.libvirt,
                'live_migration_inbound_addr = 127.0.0.%d' % number,
                # What Nova waits before it asks a guest again to let go.
                'device_detach_attempts = 8',
                'device_detach_timeout = 20',
                '[privsep_osbrick]', helper,
                '[nova_sys_admin]', helper,
                '[vif_plug_ovs_privileged]', helper,
                '[vif_plug_linux_bridge_privileged]', helper]
