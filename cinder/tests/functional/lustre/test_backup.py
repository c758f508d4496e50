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

"""Backups of large volumes, at the cost of their data."""

import os
import subprocess

from cinder.backup.drivers import lustre as lustre_backup
from cinder.objects import fields
from cinder.tests.functional.lustre import base
from cinder.tests.unit import utils as tests_utils

MIB = base.MIB
GIB = 1 << 30
SIZE = 20


def bytes_read():
    """Return how many bytes this process has read from files so far."""
    with open('/proc/self/io') as counters:
        return int(dict(line.split(': ') for line in counters)['rchar'])


class LargeVolumeTest(base.LustreTestCase):

    def setUp(self):
        super().setUp()
        for name, value in {
                'lustre_backup_share': self.shares[1],
                'lustre_backup_mount_point': os.path.join(self.temp,
                                                          'backup'),
                'lustre_backup_mount_timeout': 10,
                'lustre_backup_file_system_types': base.FILE_SYSTEM_TYPES,
                'backup_compression_algorithm': 'zlib'}.items():
            self.override_config(name, value)
        backups = self.backup_driver()
        backups.check_for_setup_error()
        self.addCleanup(subprocess.run, ['umount', '-l', backups.backup_path],
                        capture_output=True)

    def backup_driver(self):
        return lustre_backup.LustreBackupDriver(self.context)

    def make(self):
        volume = self.create(SIZE, specs={'provisioning__type': 'thin',
                                          'lustre__format': 'raw'})
        return volume, self.path(volume)

    def back_up(self, volume, parent=None):
        backup = tests_utils.create_backup(
            self.context, volume.id, parent_id=parent and parent.id,
            size=SIZE)
        backup.container = None
        with open(self.path(volume), 'rb') as file:
            self.backup_driver().backup(backup, file)
        return backup

    def restore(self, backup, volume):
        backup.status = fields.BackupStatus.RESTORING
        backup.save()
        with open(self.path(volume), 'wb') as file:
            self.backup_driver().restore(backup, volume.id, file, True)

    @staticmethod
    def space(path):
        return int(base.run('du', '--block-size=1', '-s', path).split()[0])

    def test_mostly_empty(self):
        source, path = self.make()
        self.write(source, 1, 0)
        self.write(source, 2, 7 * GIB + 5)
        self.write(source, 3, SIZE * GIB - MIB)
        before = bytes_read()
        full = self.back_up(source)
        self.write(source, 4, 7 * GIB)
        self.write(source, 0, 0)
        incremental = self.back_up(source, full)
        # The list of digests alone has 45 MiB.
        self.assertLess(bytes_read() - before, GIB)
        self.assertLess(self.space(self.backup_driver().backup_path),
                        200 * MIB)
        target, copy = self.make()
        before = bytes_read()
        self.restore(incremental, target)
        self.assertLess(bytes_read() - before, GIB)
        base.run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', path,
                 copy)
        self.assertLess(self.space(copy), 10 * MIB)
