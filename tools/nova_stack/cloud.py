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

"""The services as their users see them, Nova among them."""

import contextlib
import os
import tty
from xml.etree import ElementTree

from cinderclient import client as cinder_client
from glanceclient import client as glance_client
from novaclient import client as nova_client
from novaclient import exceptions as nova_exceptions

from tools.demo import cloud
from tools.guest import console
from tools.nova_stack import identity

Unexpected = cloud.Unexpected
# Before that, Nova wants a network that it should choose.
MICROVERSION = '2.95'


class Cloud(cloud.Cloud):
    """One project's clients, and waiting for what they asked for."""

    def __init__(self, stack, on_wait):
        self.stack = stack
        self.on_wait = on_wait
        session = identity.log_in(stack.catalog()['identity'],
                                  stack.writer.password)
        self.cinder = cinder_client.Client(cloud.MICROVERSION,
                                           session=session)
        self.glance = glance_client.Client('2', session=session)
        self.nova = nova_client.Client(MICROVERSION, session=session)

    def wait_for_computes(self):
        """Wait until the scheduler may choose each compute host."""
        def check():
            found = {host.host for host in self.nova.services.list(
                binary='nova-compute') if host.state == 'up'}
            return found >= set(self.stack.computes) and len(
                self.nova.hypervisors.list()) == len(self.stack.computes)
        self.wait('compute hosts', check, 180)

    # Servers.

    def boot(self, name, volume, host, flavor):
        """Boot a server from a volume, on this host."""
        server = self.nova.servers.create(
            name, None, flavor, nics='none', host=host,
            block_device_mapping_v2=[{
                'boot_index': 0, 'uuid': volume.id, 'source_type': 'volume',
                'destination_type': 'volume',
                'delete_on_termination': False}])
        return self.wait_server(server, 'ACTIVE')

    def wait_server(self, server, *wanted, limit=300):
        def check():
            found = self.nova.servers.get(server.id)
            if found.status in wanted and not getattr(
                    found, 'OS-EXT-STS:task_state'):
                return found
            if found.status == 'ERROR':
                raise Unexpected('server is in error: %s' % getattr(
                    found, 'fault', {}).get('message'))
        return self.wait('server to be %s' % wanted[0], check, limit)

    @contextlib.contextmanager
    def booted(self, server):
        """Wait until a server's guest has booted; gives its console."""
        self.wait('guest to have booted', lambda: 'guest: ready' in
                  self.nova.servers.get_console_output(server.id), 300)
        with self.console(server) as console:
            yield console

    def delete_server(self, server):
        self.nova.servers.delete(server)

        def gone():
            try:
                self.nova.servers.get(server.id)
            except nova_exceptions.NotFound:
                return True
        self.wait('server to be gone', gone)

    def attach_to(self, server, volume):
        self.nova.volumes.create_server_volume(server.id, volume.id)
        self.wait_volume(volume, 'in-use')

    def detach_from(self, server, volume, wanted='available'):
        self.nova.volumes.delete_server_volume(server.id, volume.id)
        self.wait_volume(volume, wanted, limit=240)

    def host_of(self, server):
        """The compute host that a server runs on now."""
        found = self.nova.servers.get(server.id)
        return self.stack.computes[getattr(found, 'OS-EXT-SRV-ATTR:host')]

    def domain_of(self, server):
        return getattr(self.nova.servers.get(server.id),
                       'OS-EXT-SRV-ATTR:instance_name')

    def disks_of(self, server):
        """What libvirt has opened: {volume's ID: (path, format)}."""
        return {disk.findtext('serial'): (disk.find('source').get('file'),
                                          disk.find('driver').get('type'))
                for disk in self._disks(server)}

    def limits_of(self, server):
        """What QEMU limits: {volume's ID: {limit: value}}."""
        return {disk.findtext('serial'): {limit.tag: limit.text for limit in
                                          disk.findall('iotune/*')}
                for disk in self._disks(server)}

    def _disks(self, server):
        return ElementTree.fromstring(self.host_of(server).virsh(
            'dumpxml', self.domain_of(server))).findall('./devices/disk')

    def protocol(self, volume):
        """The type of a volume's connection, as Cinder keeps it."""
        attachment, = self.cinder.attachments.list(
            search_opts={'volume_id': volume.id})
        return self.cinder.attachments.show(
            attachment.id).connection_info['driver_volume_type']

    @contextlib.contextmanager
    def console(self, server):
        """The server's serial console, a terminal that QEMU has made."""
        path = self.host_of(server).virsh(
            'ttyconsole', self.domain_of(server)).strip()
        handle = os.open(path, os.O_RDWR | os.O_NOCTTY)
        try:
            tty.setraw(handle)
            yield console.Console(handle, handle)
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def hard_reboot(self, server):
        """Gives the console of the guest that has booted again."""
        self.nova.servers.reboot(server.id, 'HARD')
        self.wait_server(server, 'ACTIVE')
        with self.booted(server) as console:
            yield console

    @contextlib.contextmanager
    def stopped(self, server):
        """Stop a server and start it; gives its console."""
        self.nova.servers.stop(server.id)
        self.wait_server(server, 'SHUTOFF')
        self.nova.servers.start(server.id)
        self.wait_server(server, 'ACTIVE')
        with self.booted(server) as console:
            yield console

    # Volumes that are attached.

    def extend_attached(self, volume, size):
        self.cinder.volumes.extend(volume, size)
        self.wait_volume(volume, 'in-use')

    def extend_attached_failing(self, volume, size):
        """Ask for an extension that is refused."""
        self.cinder.volumes.extend(volume, size)
        found = self.wait_volume(volume, 'in-use', 'error_extending')
        if found.size == size:
            raise Unexpected('it was extended')
        self.cinder.volumes.reset_state(volume, 'in-use')

    def create_failing_snapshot(self, volume):
        """Ask for a snapshot that is refused; returns the reason."""
        snapshot = self.cinder.volume_snapshots.create(volume.id, force=True)

        def failed():
            return self.cinder.volume_snapshots.get(
                snapshot.id).status == 'error'
        self.wait('snapshot to fail', failed)
        reason = self._why(snapshot).lstrip(': ')
        self.delete_snapshots([snapshot])
        return reason

    def migrate_volume(self, volume):
        """Migrate an attached volume to the other of two pools."""
        def moved():
            found = self.cinder.volumes.get(volume.id)
            if found.migration_status == 'error':
                raise Unexpected('migration failed%s' % self._why(found))
            return found.migration_status == 'success' and \
                found.status == 'in-use'

        pools = {pool.name for pool in self.cinder.pools.list()}
        here = getattr(self.cinder.volumes.get(volume.id),
                       'os-vol-host-attr:host')
        other, = pools - {here}
        self.cinder.volumes.migrate_volume(volume, other, False, False)
        self.wait('volume to be moved', moved, 300)

    def retype_attached(self, volume, type_name):
        def retyped():
            found = self.cinder.volumes.get(volume.id)
            if found.status == 'in-use' and found.migration_status == 'error':
                raise Unexpected('migration failed%s' % self._why(found))
            return (found.volume_type == type_name
                    and found.status == 'in-use')

        self.cinder.volumes.retype(volume, type_name, 'on-demand')
        self.wait('volume to be retyped', retyped, 300)

    def attach_failing(self, server, volume):
        """Attach a volume that is refused; afterwards it is available."""
        try:
            self.nova.volumes.create_server_volume(server.id, volume.id)
        except nova_exceptions.ClientException:
            pass
        self.wait_volume(volume)
        if self.nova.volumes.get_server_volumes(server.id)[1:]:
            raise Unexpected('it is attached')

    def live_migrate(self, server, host):
        """Migrate a server while it runs."""
        def arrived():
            found = self.nova.servers.get(server.id)
            failed = [migration.id for migration in self.nova.migrations.list(
                instance_uuid=server.id) if migration.dest_compute == host
                and migration.status in ('error', 'failed')]
            if failed:
                raise Unexpected('migration %s failed; the log of the compute '
                                 'host says why' % failed[0])
            return (getattr(found, 'OS-EXT-SRV-ATTR:host') == host
                    and found.status == 'ACTIVE')

        self.nova.servers.live_migrate(server.id, host, 'auto')
        self.wait('server to arrive', arrived, 300)

    def live_migrate_failing(self, server, host):
        """Ask for a migration that fails; the server stays where it is."""
        def failed():
            statuses = {migration.status for migration in
                        self.nova.migrations.list(instance_uuid=server.id)}
            if 'completed' in statuses:
                raise Unexpected('the server was migrated')
            return statuses & {'error', 'failed'}

        before = self.host_of(server)
        self.nova.servers.live_migrate(server.id, host, 'auto')
        self.wait('migration to fail', failed, 180)
        # Nova sets the server to error too, a moment after the migration.
        self.wait_server(server, 'ERROR')
        self.nova.servers.reset_state(server.id, 'active')
        self.wait_server(server, 'ACTIVE')
        if self.host_of(server) is not before:
            raise Unexpected('the server is on %s' % host)
