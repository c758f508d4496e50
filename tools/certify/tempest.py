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

"""Tempest's configuration: which features of the drivers it tests.

All that the drivers do is on. What is off is what isn't there: networks that
reach into servers, other backup services, replication.
"""

import configparser

from tools.certify import cloud
from tools.certify import config
from tools.demo import config as demo_config
from tools.nova_stack import config as nova_config


def write(stack, found):
    """Write tempest.conf.

    :param found: what cloud.Cloud.prepare() has made
    """
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_dict(sections(stack, found))
    path = stack.layout.tempest_conf
    demo_config.write(path, '', stack.user, 0o640)
    with open(path, 'w') as target:
        parser.write(target)
    return path


def sections(stack, found):
    layout = stack.layout
    return {
        'DEFAULT': {'log_file': 'tempest.log',
                    'log_dir': layout.tempest},
        'oslo_concurrency': {'lock_path': layout.tempest / 'locks'},
        'auth': {'use_dynamic_credentials': True,
                 'create_isolated_networks': False,
                 'admin_username': nova_config.ADMIN,
                 'admin_password': stack.writer.password,
                 'admin_project_name': nova_config.PROJECT,
                 'admin_domain_name': 'Default'},
        # Nova answers when the compute host, which may be busy, has answered.
        'service-clients': {'http_timeout': 180},
        'identity': {'auth_version': 'v3',
                     'uri_v3': stack.catalog()['identity'],
                     'region': nova_config.REGION},
        'service_available': {'cinder': True, 'glance': True,
                              'nova': stack.with_nova,
                              # Tests of snapshots ask for it, for no use of
                              # it: see tools/nova_stack/neutron.py.
                              'neutron': True,
                              'swift': False, 'horizon': False},
        # Servers have no network, so nobody can log in to them.
        'validation': {'run_validation': False},
        'volume': volume(),
        'volume-feature-enabled': volume_features(),
        **compute(stack, found),
        'scenario': {'img_file': layout.guest, 'img_disk_format': 'raw'},
    }


def volume():
    return {'volume_type': config.DEFAULT_TYPE,
            'volume_type_multiattach': cloud.MULTIATTACH,
            'backend_names': ','.join(config.BACKENDS),
            'storage_protocol': 'nfs', 'vendor_name': 'OpenSFS',
            # It knows no other drivers that write to file systems.
            'backup_driver': 'posix',
            'manage_volume_ref': 'source-name,volume-%s',
            'manage_snapshot_ref': 'source-id,%s',
            # Long, for a machine that emulates servers meanwhile.
            'build_timeout': 600,
            'min_microversion': '3.0', 'max_microversion': 'latest'}


def volume_features():
    return {'multi_backend': True, 'backup': True, 'snapshot': True,
            'clone': True, 'manage_volume': True, 'manage_snapshot': True,
            'extend_attached_volume': True,
            # They are qcow2: see the guide on attached volumes.
            'extend_attached_encrypted_volume': False,
            'extend_volume_with_snapshot': True,
            'enable_volume_image_dep_tests': True,
            # The options of cinder-tempest-plugin.
            'volume_revert': True, 'consistency_group': True,
            'concurrency_tests': True}


def compute(stack, found):
    """What is said of Nova, and of the images that Cinder needs as well."""
    one, two = found['images']
    about = {'image_ref': one, 'image_ref_alt': two,
             # Servers are emulated.
             'build_timeout': 600, 'max_microversion': 'latest'}
    if stack.with_nova:
        small, large = found['flavors']
        about.update(flavor_ref=small, flavor_ref_alt=large,
                     min_compute_nodes=1)
    return {'compute': about, 'compute-feature-enabled': {
        # Tests of Cinder alone ask for these two as well.
        'attach_encrypted_volume': True, 'volume_multiattach': True,
        'snapshot': True, 'console_output': True,
        'suspend': False, 'resize': False, 'cold_migration': False,
        'live_migration': False, 'vnc_console': False,
        'metadata_service': False, 'config_drive': False, 'rescue': False,
        'personality': False, 'shelve': False}}
