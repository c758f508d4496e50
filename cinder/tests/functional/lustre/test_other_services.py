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

"""Services that load a driver of Cinder's own, and our connector with it."""

import os
import subprocess
import sys
import textwrap

import ddt

from cinder.backup.drivers import posix
from cinder.tests.functional.lustre import base
from cinder.tests.functional.lustre import copying
from cinder.tests.functional.lustre import test_copies

GIB, MIB = base.GIB, base.MIB

# What cinder-backup and cinder-volume do to find their manager, and then to
# attach a volume.
_SERVICE = textwrap.dedent("""
    import sys
    from unittest import mock
    from oslo_utils import importutils
    from cinder import objects
    from cinder import service
    from cinder.common import config
    from cinder.volume import volume_utils
    from os_brick import privileged
    objects.register_all()
    privileged.default.set_client_mode(False)
    binary, *arguments = sys.argv[1:]
    config.CONF(arguments, project='cinder')
    with mock.patch.object(service.Service, '__init__',
                           return_value=None) as made:
        service.Service.create(binary=binary, service_name='x')
    importutils.import_class(made.call_args.args[3])
    print(volume_utils.brick_get_connector_properties().get(
        'lustre_connector'))
    """)


@ddt.ddt
class ManagerOptionTest(base.LustreTestCase):

    def service(self, binary, **options):
        """Start a service's process; return our mark, as it has it."""
        path = os.path.join(self.temp, 'cinder.conf')
        with open(path, 'w') as f:
            f.write('[DEFAULT]\nmy_ip = 127.0.0.1\n' + ''.join(
                '%s = %s\n' % option for option in options.items()))
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', _SERVICE, binary,
             '--config-file', path], capture_output=True, text=True)
        self.assertEqual(0, done.returncode, done.stderr)
        return done.stdout.strip()

    @ddt.data('backup', 'volume')
    def test_connector(self, name):
        manager = 'cinder.lustre.{0}_manager.{1}Manager'.format(
            name, name.capitalize())
        self.assertEqual('True', self.service(
            'cinder-' + name, **{name + '_manager': manager}))
        self.assertEqual('None', self.service('cinder-' + name))


class OtherDriverTestCase(copying.BackupTestCase):
    """With Cinder's posix driver, which all others are like."""

    def setUp(self):
        super().setUp()
        path = os.path.join(self.temp, 'posix')
        os.mkdir(path)
        self.override_config('backup_posix_path', path)
        self.backups.driver_name = posix.__name__ + '.PosixBackupDriver'
        self.backups.service = posix.PosixBackupDriver


@ddt.ddt
class OtherDriverTest(OtherDriverTestCase):

    @ddt.data(('raw', 'qcow2'), ('qcow2', 'raw'), ('chain', 'thick'))
    @ddt.unpack
    def test_full_and_incremental(self, kind, target):
        source = self.make(kind)
        # What follows is zeros: a restored volume has them all the same.
        self.write(source, 7, 5 * MIB + 4096, 3 * MIB)
        full, content = self.back_up(source), self.content(source)
        self.assertEqual(posix.__name__ + '.PosixBackupDriver', full.service)
        self.write(source, 0, 5 * MIB, 2 * MIB)
        self.write(source, 9, 300 * MIB)
        later, incremental = self.content(source), self.back_up(source, full)
        snapshot = self.snapshot(source)
        of_snapshot = self.back_up(source, full, snapshot)
        for backup, expected in ((full, content), (incremental, later),
                                 (of_snapshot, later)):
            volume = self.create(status='available', specs={
                'lustre__format': 'qcow2' if target == 'qcow2' else 'raw',
                'provisioning__type': 'thick' if target == 'thick'
                                      else 'thin'})
            # Before Cinder 29 an increment would count as new, too.
            self.restore(backup, volume, backup is full)
            self.assertEqual(expected, self.content(volume))
            if target == 'thick':
                self.assertGreaterEqual(self.allocated(volume), GIB)
        self.write(source, 1, 0)
        self.restore(incremental, source, False)
        self.assertEqual(later, self.content(source))
        self.assertEqual([], self.servers())


class OtherDriverEncryptedTest(OtherDriverTestCase,
                               test_copies.EncryptedTestCase):

    def test_full_and_incremental(self):
        volume, backups = self.backed_up_twice()
        for backup, expected in backups:
            new = self.restored(backup)
            self.assertEqual(expected, self.content(new))
            self.driver._images(new).check()
        full, content = backups[0]
        self.restore(full, volume, False)
        self.assertEqual(content, self.content(volume))
