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

"""Where the demo keeps its files, and the services' configuration."""

import itertools
import os
import pathlib
import secrets
import shutil
import socket

# The name of the host that runs the services, as Cinder knows it.
HOST = 'demo'
BACKEND = 'lustre'
# Any project will do without keystone; its id must look like one.
PROJECT = '0123456789abcdef0123456789abcdef'
# Another one, to which a volume is handed.
OTHER_PROJECT = 'fedcba9876543210fedcba9876543210'
USER = 'admin'

KEY_MANAGER = pathlib.Path(__file__).with_name('keys.py')


class Layout:
    """The directories and files of one demo.

    Everything that belongs to a run is below ``state``, so that taking it
    down is removing that directory once nothing is mounted there.
    """

    def __init__(self, home):
        self.home = pathlib.Path(home)
        self.venv = self.home / 'venv-demo'
        # What a guest boots from; bootstrap.py makes it.
        self.guest = self.home / 'guest.raw'
        self.state = self.home / 'demo'
        self.etc = self.state / 'etc'
        self.log = self.state / 'log'
        self.run = self.state / 'run'
        self.lib = self.state / 'lib'
        self.tmp = self.state / 'tmp'
        # What the services import beside their environment.
        self.python = self.etc / 'python'
        self.keys = self.lib / 'cinder' / 'keys'
        # Where cinder-volume and cinder-backup mount shares.
        self.volume_mounts = self.state / 'mnt'
        self.backup_mounts = self.state / 'backup_mount'
        # Where the demo mounts them, in the place of a compute host.
        self.client_mounts = self.state / 'client'
        self.sandbox_state = self.state / 'sandbox'
        self.sudoers = pathlib.Path('/etc/sudoers.d/cinder-lustre-demo')

    @property
    def cinder_conf(self):
        return self.etc / 'cinder' / 'cinder.conf'

    @property
    def glance_conf(self):
        return self.etc / 'glance' / 'glance-api.conf'

    @property
    def rabbitmq_conf(self):
        return self.etc / 'rabbitmq' / 'rabbitmq.conf'

    @property
    def mariadb_init(self):
        return self.etc / 'mariadb' / 'init.sql'

    @property
    def mariadb_socket(self):
        return self.lib / 'mariadb' / 'socket'

    @property
    def mariadb_tmp(self):
        return self.lib / 'mariadb-tmp'

    def make(self, service, rabbitmq, mysql):
        """Make the directories, for the service user where it writes."""
        for path in (self.state, self.etc, self.run, self.log,
                     self.client_mounts):
            path.mkdir(parents=True, exist_ok=True)
        for owner, path in (
                (service, self.lib / 'cinder'),
                (service, self.lib / 'cinder' / 'locks'),
                (service, self.lib / 'cinder' / 'conversion'),
                (service, self.keys),
                (service, self.lib / 'glance'),
                (service, self.lib / 'glance' / 'images'),
                (service, self.tmp),
                (service, self.volume_mounts),
                (service, self.backup_mounts),
                (rabbitmq, self.lib / 'rabbitmq'),
                (rabbitmq, self.log / 'rabbitmq'),
                (mysql, self.lib / 'mariadb'),
                (mysql, self.mariadb_tmp)):
            path.mkdir(parents=True, exist_ok=True)
            os.chown(path, owner.pw_uid, owner.pw_gid)


class Ports:
    """Ports on the loopback interface that nobody uses."""

    NAMES = ('rabbitmq', 'erlang', 'epmd', 'redis', 'cinder', 'glance')

    def __init__(self):
        # All at once, so that no two are the same.
        sockets = []
        for name in self.NAMES:
            taken = socket.socket()
            taken.bind(('127.0.0.1', 0))
            setattr(self, name, taken.getsockname()[1])
            sockets.append(taken)
        for taken in sockets:
            taken.close()


def write(path, text, group=None, mode=0o644):
    """Write a file of root's that is never more readable than this."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(handle, 'w') as target:
        if group is not None:
            os.fchown(handle, 0, group.pw_gid)
        os.fchmod(handle, mode)
        target.write(text)


def write_all(layout, ports, shares, service, rabbitmq, mysql):
    """Write every configuration file."""
    password = secrets.token_hex(16)
    write_cinder(layout, ports, shares, password, service, rabbitmq, mysql)
    write_glance(layout, password, service)
    write(layout.sudoers, sudoers(layout, service), mode=0o440)


def write_cinder(layout, ports, shares, password, service, rabbitmq, mysql):
    """Write what Cinder, RabbitMQ and MariaDB need."""
    write(layout.rabbitmq_conf, rabbitmq_conf(ports, password),
          rabbitmq, 0o640)
    write(layout.rabbitmq_conf.with_name('enabled_plugins'), '[].\n')
    write(layout.mariadb_init, mariadb_init(password), mysql, 0o640)
    write(layout.cinder_conf, cinder_conf(layout, ports, shares, password),
          service, 0o640)
    write_rootwrap(layout)
    # Not from where it is: the services' user may not be able to read that.
    write(layout.python / 'demo_keys.py', KEY_MANAGER.read_text())
    for name in ('cinder/api-paste.ini', 'cinder/resource_filters.json'):
        shutil.copy(layout.venv / 'etc' / name, layout.etc / name)


def write_glance(layout, password, service):
    write(layout.glance_conf, glance_conf(layout, password), service, 0o640)
    # Glance asks for roles, and nobody has any without keystone.
    write(layout.glance_conf.with_name('policy.yaml'),
          '"context_is_admin": "@"\n"service_api": "@"\n')
    shutil.copy(layout.venv / 'etc/glance/glance-api-paste.ini',
                layout.etc / 'glance')


def rabbitmq_conf(ports, password):
    return '\n'.join([
        'listeners.tcp.1 = 127.0.0.1:%d' % ports.rabbitmq,
        'default_user = demo',
        'default_pass = %s' % password,
        # By default it blocks publishers for good, without a word to them,
        # when less than 50 MB of disk are free.
        'disk_free_limit.absolute = 1MB',
        'log.file.level = warning',
        ''])


def mariadb_init(password, names=('cinder', 'glance')):
    """What MariaDB does when it has started: make these databases."""
    lines = []
    for name in names:
        lines += ["CREATE DATABASE %s CHARACTER SET utf8mb3;" % name,
                  "CREATE USER %s@localhost IDENTIFIED BY '%s';" % (
                      name, password),
                  "GRANT ALL ON %s.* TO %s@localhost;" % (name, name)]
    return '\n'.join(lines + [''])


def database(layout, name, password):
    return 'connection = mysql+pymysql://%s:%s@localhost/%s?unix_socket=%s' % (
        name, password, name, layout.mariadb_socket)


def cinder_conf(layout, ports, shares, password):
    lib = layout.lib / 'cinder'
    etc = layout.etc / 'cinder'
    helper = 'helper_command = sudo %s --config-file %s' % (
        layout.venv / 'bin/privsep-helper', layout.cinder_conf)
    return '\n'.join([
        '[DEFAULT]',
        'auth_strategy = noauth',
        'host = %s' % HOST,
        'my_ip = 127.0.0.1',
        'state_path = %s' % lib,
        'image_conversion_dir = %s' % (lib / 'conversion'),
        'api_paste_config = %s' % (etc / 'api-paste.ini'),
        'resource_query_filters_file = %s' % (etc / 'resource_filters.json'),
        'rootwrap_config = %s' % (etc / 'rootwrap.conf'),
        'transport_url = rabbit://demo:%s@127.0.0.1:%d/' % (
            password, ports.rabbitmq),
        'glance_api_servers = http://127.0.0.1:%d' % ports.glance,
        'enabled_backends = %s' % ','.join(shares.backends),
        # The scheduler learns of freed space, and of a backup service, from
        # such reports only. The first should not come after a minute.
        'backend_stats_polling_interval = 15',
        'backup_driver_stats_polling_interval = 10',
        'periodic_interval = 10',
        'periodic_fuzzy_delay = 0',
        *['quota_%s = -1' % what for what in (
            'volumes', 'snapshots', 'gigabytes', 'backups',
            'backup_gigabytes')],
        'backup_driver = cinder.backup.drivers.lustre.LustreBackupDriver',
        'lustre_backup_share = %s' % shares.backup,
        'lustre_backup_mount_point = %s' % layout.backup_mounts,
        'backup_compression_algorithm = zstd',
        *shares.backup_options,
        '',
        *itertools.chain.from_iterable(
            backend(layout, shares, name) for name in shares.backends),
        '[key_manager]',
        'backend = demo_keys.KeyManager',
        '',
        '[cinder_sys_admin]',
        helper,
        '',
        # os-brick's own daemon: cinder-backup asks it who this host is.
        '[privsep_osbrick]',
        helper,
        '',
        '[database]',
        database(layout, 'cinder', password),
        '',
        '[oslo_concurrency]',
        'lock_path = %s' % (lib / 'locks'),
        ''])


def backend(layout, shares, name):
    """The section of a backend of Cinder's."""
    return [
        '[%s]' % name,
        'volume_driver = cinder.volume.drivers.lustre.LustreDriver',
        'volume_backend_name = %s' % name,
        *['lustre_shares = %s' % share for share in shares.backends[name]],
        'lustre_mount_point_base = %s' % layout.volume_mounts,
        *shares.volume_options,
        '']


def glance_conf(layout, password):
    lib = layout.lib / 'glance'
    return '\n'.join([
        '[DEFAULT]',
        'enabled_backends = file:file',
        '',
        '[glance_store]',
        'default_backend = file',
        '',
        '[file]',
        'filesystem_store_datadir = %s' % (lib / 'images'),
        '',
        '[os_glance_staging_store]',
        'filesystem_store_datadir = %s' % (lib / 'staging'),
        '',
        '[os_glance_tasks_store]',
        'filesystem_store_datadir = %s' % (lib / 'tasks'),
        '',
        '[database]',
        database(layout, 'glance', password),
        '',
        '[paste_deploy]',
        # No flavor: the pipeline without keystone.
        'config_file = %s' % (layout.etc / 'glance' / 'glance-api-paste.ini'),
        '',
        '[oslo_policy]',
        'policy_file = %s' % layout.glance_conf.with_name('policy.yaml'),
        '',
        '[oslo_concurrency]',
        'lock_path = %s' % lib,
        ''])


def write_rootwrap(layout):
    """Let Cinder itself look at images, and copy volumes; nothing else.

    Cinder's own check of a downloaded image (image_utils.fetch_verify_image)
    asks rootwrap for 'qemu-img info', whatever the driver, and its copy of a
    volume to another backend (volume_utils.copy_volume) for dd. The Lustre
    drivers run nothing through rootwrap: were they to, it would be refused.
    """
    directory = layout.etc / 'cinder'
    write(directory / 'rootwrap.d' / 'images.filters', '\n'.join([
        '[Filters]',
        'qemu-img: EnvFilter, env, root, LC_ALL=C, qemu-img',
        'dd: CommandFilter, dd, root',
        '']))
    write(directory / 'rootwrap.conf', '\n'.join([
        '[DEFAULT]',
        'filters_path = %s' % (directory / 'rootwrap.d'),
        'exec_dirs = /usr/sbin,/usr/bin,/sbin,/bin',
        'use_syslog = False',
        '']))


def sudoers(layout, service):
    """What the service user may do as root: start these daemons."""
    rule = '%s ALL = (root) NOPASSWD: ' % service.pw_name
    helper = '%s --config-file %s --privsep_context %%s ' \
        '--privsep_sock_path *' % (layout.venv / 'bin/privsep-helper',
                                   layout.cinder_conf)
    return '\n'.join([
        "# For the demo of cinder-lustre, which removes it again.",
        rule + helper % 'cinder.privsep.sys_admin_pctxt',
        "# os-brick's, in cinder-backup.",
        rule + helper % 'os_brick.privileged.default',
        "# Cinder's own check of downloaded images; see rootwrap.d. It is",
        "# asked for by its name.",
        'Defaults:%s secure_path = %s:/usr/sbin:/usr/bin:/sbin:/bin' % (
            service.pw_name, layout.venv / 'bin'),
        rule + '%s %s *' % (layout.venv / 'bin/cinder-rootwrap',
                            layout.etc / 'cinder' / 'rootwrap.conf'),
        ''])
