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

"""The support matrix says of the driver what it says of itself."""

import configparser
import os

import fixtures

from cinder.tests.unit.lustre import fakes
from cinder.tests.unit import test
from cinder.volume import configuration
from cinder.volume import driver
from cinder.volume.drivers import lustre
from cinder.volume.drivers import remotefs

# stestr runs in the root of the tree. This file may be a copy elsewhere.
MATRIX = os.path.join(os.getcwd(), 'doc/source/reference/support-matrix.ini')
SHARE = '10.0.2.15@tcp:/lustre/cinder'

# What a driver tells the scheduler, by the matrix's row.
CAPABILITIES = {
    'operation.online_extend_support': 'online_extend_support',
    'operation.qos': 'QoS_support',
    'operation.volume_replication': 'replication_enabled',
    'operation.consistency_groups': 'consistent_group_snapshot_enabled',
    'operation.thin_provisioning': 'thin_provisioning_support',
    'operation.multi-attach': 'multiattach',
}

# Rows that are told by methods which a driver has for itself.
METHODS = {
    'operation.volume_migration_storage_assisted': 'migrate_volume',
    'operation.revert_to_snapshot_assisted': 'revert_to_snapshot',
}


class SupportMatrixTestCase(test.TestCase):

    def setUp(self):
        super().setUp()
        self.matrix = configparser.ConfigParser()
        with open(MATRIX) as file:
            self.matrix.read_file(file)

    def claimed(self, row):
        return self.matrix[row]['driver.lustre'] in ('complete', 'partial')

    def pool(self):
        """Return what the scheduler is told of a pool."""
        fake = self.useFixture(fakes.FakeLustre())
        self.useFixture(fixtures.MockPatchObject(lustre, 'privileged', fake))
        conf = configuration.Configuration(
            lustre.lustre_opts + remotefs.nas_opts, 'lustre')
        self.override_config('lustre_shares', [SHARE], 'lustre')
        self.override_config('lustre_mount_point_base', fake.base, 'lustre')
        backend = lustre.LustreDriver(configuration=conf)
        backend.do_setup(None)
        pool, = backend.get_volume_stats(refresh=True)['pools']
        return pool

    def test_every_row_is_filled_in_for_every_driver(self):
        drivers = {name for name in self.matrix
                   if name.startswith('driver.')}
        rows = [row for row in self.matrix if row.startswith('operation.')]
        self.assertIn('driver.lustre', drivers)
        for row in rows:
            self.assertEqual(drivers, {
                name for name in self.matrix[row]
                if name.startswith('driver.')}, row)

    def test_every_row_is_compared(self):
        self.assertEqual(
            {'operation.supported', 'operation.active_active_ha',
             *CAPABILITIES, *METHODS},
            {row for row in self.matrix if row.startswith('operation.')})

    def test_capabilities(self):
        pool = self.pool()
        self.assertEqual(
            {row: bool(pool.get(key)) for row, key in CAPABILITIES.items()},
            {row: self.claimed(row) for row in CAPABILITIES})

    def test_methods(self):
        theirs = (driver.BaseVD, driver.VolumeDriver, driver.MigrateVD,
                  remotefs.RemoteFSDriver)

        def own(method):
            return not any(
                getattr(lustre.LustreDriver, method) is
                getattr(base, method, None) for base in theirs)

        self.assertEqual(
            {row: own(method) for row, method in METHODS.items()},
            {row: self.claimed(row) for row in METHODS})

    def test_active_active(self):
        self.assertEqual(lustre.LustreDriver.SUPPORTS_ACTIVE_ACTIVE,
                         self.claimed('operation.active_active_ha'))

    def test_supported(self):
        """Upstream means a CI by it that reports on Cinder's changes."""
        self.assertFalse(self.claimed('operation.supported'))
