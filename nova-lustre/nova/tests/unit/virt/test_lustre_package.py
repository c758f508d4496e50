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

"""Both wheels of this repository: a host gets one of them or the other."""

from importlib import metadata
import os
import sys
import zipfile

import fixtures
from oslotest import base

from tools import wheels

# stestr runs in the root of the repository.
TREE = os.getcwd()
MODULES = {'nova/virt/lustre.py', 'nova/virt/libvirt/volume/lustre.py'}

ALONE = """
import sys

from nova.virt.libvirt.volume import lustre as volume_driver
from nova.virt import lustre

volume_driver.LibvirtLustreVolumeDriver, lustre.LibvirtDriver
assert 'cinder' not in sys.modules
assert not [name for name in sys.modules if name.startswith('os_brick')
            and 'lustre' in name]
"""


def modules_in(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist()
                if '.dist-info/' not in name}


def shipped_by(distribution):
    return {str(path) for path in metadata.distribution(distribution).files}


class WheelsTestCase(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        directory = self.useFixture(fixtures.TempDir()).path
        self.nova = wheels.build(wheels.NOVA, TREE, directory)
        self.cinder = wheels.build(wheels.CINDER, TREE, directory)

    def test_a_compute_host_gets_two_modules(self):
        self.assertEqual(MODULES, modules_in(self.nova))

    def test_a_controller_gets_nothing_of_novas(self):
        packages = {name.split('/')[0] for name in modules_in(self.cinder)}
        packages = {name for name in packages if '.data' not in name}
        self.assertEqual({'cinder', 'os_brick'}, packages)

    def test_no_file_that_others_ship(self):
        for distribution in 'nova', 'os-brick':
            shipped = shipped_by(distribution)
            # Or the comparison would be with nothing.
            self.assertIn('/__init__.py', ' '.join(shipped))
            for wheel in self.nova, self.cinder:
                self.assertEqual(set(), modules_in(wheel) & shipped)

    def test_nothing_is_required(self):
        distribution = metadata.PathDistribution(zipfile.Path(
            self.nova, os.path.basename(self.nova).replace(
                '-py3-none-any.whl', '.dist-info/')))
        self.assertEqual(
            [], [requirement for requirement in distribution.requires or []
                 if 'extra ==' not in requirement])

    def test_works_without_the_other(self):
        """Where there is neither Cinder nor the wheel for it."""
        wheels.run(sys.executable, '-W', 'ignore', '-c', ALONE, cwd='/')
