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

"""The wheel, tools/dev-link, and the sample configuration file."""

import configparser
import glob
from importlib import metadata
import os
import shutil
import sys
import sysconfig
import zipfile

import fixtures
from oslotest import base

from tools import wheels

# stestr runs in the root of the tree. This file may be a copy elsewhere.
TREE = os.getcwd()
DRIVER = 'cinder/volume/drivers/lustre.py'
BACKUP_DRIVER = 'cinder/backup/drivers/lustre.py'
SAMPLE = 'etc/cinder/cinder-lustre.conf.sample'
GENERATOR_CONFIG = 'tools/config/cinder-lustre-config-generator.conf'

# What an operator's configuration names, imported from where it was installed.
IMPORT = """
from importlib import metadata

from cinder import objects
objects.register_all()    # as every service does
from cinder.backup.drivers import lustre as backup
from cinder.volume.drivers import lustre as volume

for module in backup, volume:
    assert module.__file__.startswith(%r), module.__file__
backup.LustreBackupDriver, volume.LustreDriver
options, = metadata.entry_points(group='oslo.config.opts',
                                 name='cinder.lustre')
options.load()()
"""


def run(*command, cwd=TREE):
    return wheels.run(*command, cwd=cwd)


def installed_files(distribution):
    return {str(path) for path in metadata.distribution(distribution).files}


class EnvironmentTestCase(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        self.directory = self.useFixture(fixtures.TempDir()).path

    def environment_with_cinder(self):
        """Make an environment like this one, without our modules.

        Of Cinder and os-brick it has copies, where it could be seen if pip
        changed them, and links to all the rest.
        """
        self.environment = os.path.join(self.directory, 'environment')
        run(sys.executable, '-m', 'venv', '--without-pip', self.environment)
        python = os.path.join(self.environment, 'bin/python')
        self.site = run(python, '-c', 'import sysconfig; '
                        'print(sysconfig.get_path("purelib"))').strip()

        for distribution in ('cinder', 'os-brick'):
            for file in metadata.distribution(distribution).files:
                if not {'tests', '__pycache__'} & set(file.parts):
                    target = os.path.join(self.site, file)
                    os.makedirs(os.path.dirname(target), exist_ok=True)
                    shutil.copy2(file.locate(), target)
        here = sysconfig.get_path('purelib')
        for name in os.listdir(here):
            target = os.path.join(self.site, name)
            if not (name.startswith('cinder_lustre-') or
                    os.path.exists(target)):
                os.symlink(os.path.join(here, name), target)
        return python

    def listing(self):
        """Each directory, and each file with what changes if it is written."""
        listing = set()
        for path, directories, files in os.walk(self.environment):
            if '__pycache__' in directories:
                directories.remove('__pycache__')
            listing.update((os.path.join(path, name),)
                           for name in directories)
            for name in files:
                name = os.path.join(path, name)
                stat = os.lstat(name)
                listing.add((name, stat.st_ino, stat.st_size,
                             stat.st_mtime_ns))
        return listing


class WheelTestCase(EnvironmentTestCase):

    def setUp(self):
        super().setUp()
        self.wheel = wheels.build(wheels.CINDER, TREE, self.directory)

    def test_files(self):
        setup = configparser.ConfigParser()
        setup.read(os.path.join(TREE, 'setup.cfg'))
        packages = setup['options']['packages'].split()
        expected = {
            path for package in packages
            for path in glob.glob(package.replace('.', '/') + '/*.py',
                                  root_dir=TREE)}
        self.assertLess({DRIVER, BACKUP_DRIVER}, expected)

        with zipfile.ZipFile(self.wheel) as wheel:
            names = set(wheel.namelist())
        modules = {name for name in names
                   if not name.startswith('cinder_lustre-')}
        self.assertEqual(expected, modules)
        # No module of the tree was forgotten in setup.cfg either.
        self.assertEqual(
            {path for package in ('cinder', 'os_brick')
             for path in glob.glob(package + '/**/*.py', root_dir=TREE,
                                   recursive=True)
             if '/tests/' not in path},
            modules)
        for distribution in ('cinder', 'os-brick'):
            self.assertEqual(set(), modules & installed_files(distribution))
        self.assertEqual(
            {'cinder/lustre/__init__.py'},
            {name for name in names if name.endswith('/__init__.py')})
        self.assertEqual(
            ['etc/cinder/rootwrap.d/lustre.filters'],
            [name.split('.data/data/')[1] for name in names
             if '.data/' in name])

    def test_requirements(self):
        distribution = metadata.PathDistribution(zipfile.Path(
            self.wheel, os.path.basename(self.wheel).replace(
                '-py3-none-any.whl', '.dist-info/')))
        for requirement in distribution.requires:
            if 'extra ==' not in requirement:
                self.assertRegex(requirement, r'^(os-brick|oslo\.[a-z]+)\b')

    def test_install_and_uninstall(self):
        """pip adds our files to an environment with Cinder, and no more."""
        python = self.environment_with_cinder()
        before = self.listing()

        # Without an index pip fails rather than fetch another version of
        # anything, so passing shows that all requirements are there already.
        pip = (sys.executable, '-m', 'pip', '--python', python)
        run(*pip, 'install', '--quiet', '--no-index', '--no-compile',
            self.wheel)
        run(python, '-B', '-c', IMPORT % self.site, cwd='/')
        self.assertEqual(set(), before - self.listing())

        run(*pip, 'uninstall', '--quiet', '--yes', 'cinder-lustre')
        self.assertEqual(set(), before ^ self.listing())


class DevLinkTestCase(EnvironmentTestCase):

    DEV_LINK = os.path.join(TREE, 'tools/dev-link')

    def setUp(self):
        super().setUp()
        self.python = self.environment_with_cinder()
        self.before = self.listing()
        self.driver = os.path.join(self.site, DRIVER)

    def test_link_and_remove(self):
        run(self.python, self.DEV_LINK)
        run(self.python, '-B', '-c', IMPORT % self.site, cwd='/')
        self.assertEqual(os.path.join(TREE, DRIVER),
                         os.path.realpath(self.driver))
        linked = self.listing()
        run(self.python, self.DEV_LINK)
        self.assertEqual(
            {entry for entry in linked if 'dist-info' not in entry[0]},
            {entry for entry in self.listing() if 'dist-info' not in entry[0]})

        run(self.python, self.DEV_LINK, '--copy')
        self.assertFalse(os.path.islink(self.driver))

        run(self.python, self.DEV_LINK, '--remove')
        self.assertEqual(set(), self.before ^ self.listing())

    def test_cinder_from_a_clone(self):
        """As DevStack installs it."""
        clone = os.path.join(self.directory, 'clone')
        os.mkdir(clone)
        shutil.move(os.path.join(self.site, 'cinder'), clone)
        with open(os.path.join(self.site, 'clone.pth'), 'w') as file:
            file.write(clone + '\n')
        before = sorted(os.walk(clone))
        run(self.python, self.DEV_LINK)
        run(self.python, '-B', '-c', IMPORT % clone, cwd='/')
        self.assertEqual(
            os.path.join(TREE, DRIVER),
            os.path.realpath(os.path.join(clone, DRIVER)))
        run(self.python, self.DEV_LINK, '--remove')
        self.assertEqual(before, sorted(os.walk(clone)))

    def test_pip_removes_links(self):
        run(self.python, self.DEV_LINK)
        run(sys.executable, '-m', 'pip', '--python', self.python,
            'uninstall', '--quiet', '--yes', 'cinder-lustre')
        self.assertFalse(os.path.lexists(self.driver))

    def test_file_of_another_package_is_left_alone(self):
        with open(self.driver, 'w') as file:
            file.write('Not ours.')
        before = self.listing()
        error = self.assertRaises(AssertionError, run, self.python,
                                  self.DEV_LINK)
        self.assertIn(self.driver, str(error))
        self.assertEqual(set(), before ^ self.listing())


class SampleTestCase(base.BaseTestCase):

    def test_sample_is_up_to_date(self):
        directory = self.useFixture(fixtures.TempDir()).path
        fresh = os.path.join(directory, 'sample')
        run(os.path.join(os.path.dirname(sys.executable),
                         'oslo-config-generator'),
            '--config-file', GENERATOR_CONFIG, '--output-file', fresh)
        with open(fresh) as expected, open(os.path.join(TREE, SAMPLE)) as file:
            self.assertEqual(
                expected.read(), file.read(),
                'The options have changed: run "tox -e genconfig".')
