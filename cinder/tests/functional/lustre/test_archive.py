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

"""What is shipped: built, installed, and removed, as it says itself."""

import hashlib
from importlib import metadata
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import textwrap

import fixtures

from cinder.tests.functional.lustre import test_package
from tools.package import main as package

TREE = test_package.TREE
# What the environment of these tests has.
CINDER = int(metadata.version('cinder').partition('.')[0])
# What has neither to do with wheels nor with what is shipped beside them.
NOT_PACKED = shutil.ignore_patterns('.git', '.tox', '__pycache__', 'build',
                                    'dist', '.stestr', '.hypothesis')


def git(repository, *arguments, time='2026-01-02T03:04:05+00:00'):
    test_package.run(
        'env', 'GIT_AUTHOR_DATE=' + time, 'GIT_COMMITTER_DATE=' + time,
        'git', '-c', 'user.name=A Name', '-c', 'user.email=name@example.com',
        '-c', 'init.defaultBranch=main', '-c', 'core.hooksPath=/dev/null',
        *arguments, cwd=repository)


class ArchiveTestCase(test_package.EnvironmentTestCase):

    def setUp(self):
        super().setUp()
        self.repository = self.clone('clone')
        self.known = package.known_releases(self.repository)
        self.release = next(name for name, services in self.known.items()
                            if services['Cinder'][0] == CINDER)

    def clone(self, name):
        """Make a repository whose only commit is the tree as it is now."""
        repository = pathlib.Path(self.directory, name)
        shutil.copytree(TREE, repository, ignore=NOT_PACKED)
        git(repository, 'init', '--quiet')
        git(repository, 'add', '--all')
        git(repository, 'commit', '--quiet', '--message', 'The tree')
        return repository

    def build(self, release=None, repository=None, output='output'):
        return package.build(release or self.release,
                             os.path.join(self.directory, output),
                             repository or self.repository)

    def unpack(self, path):
        with tarfile.open(path) as archive:
            archive.extractall(self.directory)
        return pathlib.Path(self.directory, path.name.removesuffix('.tar.gz'))

    def test_same_commit_same_bytes(self):
        """Whoever builds, where, when, and whatever is not committed."""
        other = self.clone('elsewhere')
        (other / 'LICENSE').write_text('None.')
        self.addCleanup(os.umask, os.umask(0o077))
        first, is_all = self.build()
        self.assertTrue(is_all)
        os.umask(0o002)
        with fixtures.EnvironmentVariable('TZ', 'Asia/Kathmandu'):
            second, is_all = self.build(repository=other, output='other')
        self.assertFalse(is_all)
        self.assertEqual(first.read_bytes(), second.read_bytes())
        self.assertIn(hashlib.sha256(first.read_bytes()).hexdigest(),
                      pathlib.Path(str(first) + '.sha256').read_text())

    def test_releases(self):
        for name, services in self.known.items():
            release = package.Release(name, self.repository)
            text = package.instructions(release, self.repository, '1.2.3', [
                'cinder_lustre-1.2.3.whl', 'nova_lustre-1.2.3.whl'])
            self.assertIn('Cinder %d,' % services['Cinder'][0], text)
            self.assertIn('Nova %d,' % services['Nova'][0], text)
            self.assertNotIn('$', re.sub(r'^ +\$ .*', '', text, flags=re.M))
            self.assertIn('cinder==%d.' % release.cinder,
                          release.constraints.read_text())

    def test_constraints_of_the_certification(self):
        """They come before those of the tests."""
        for name in 'certify-%d.txt', '%d.txt':
            expected = self.repository / 'tools/constraints' / (name % CINDER)
            self.assertEqual(expected, package.Release(
                self.release, self.repository).constraints)
            expected.unlink()

    def test_unknown_release(self):
        error = self.assertRaises(package.PackageError, self.build, '2013.2')
        self.assertIn(self.release, str(error))

    def test_not_a_clone(self):
        shutil.rmtree(self.repository / '.git')
        error = self.assertRaises(package.PackageError, self.build)
        self.assertIn(str(self.repository), str(error))

    # What INSTALL.rst says is done, word for word.

    def environment_with_pip(self):
        """Make an environment with Cinder, whose pip is the one of ours."""
        python = self.environment_with_cinder()
        pip = os.path.join(self.environment, 'bin/pip')
        with open(pip, 'w') as script:
            script.write('#!/bin/sh\nexec %s -m pip --python %s "$@"\n' % (
                sys.executable, python))
        os.chmod(pip, 0o755)
        return python

    def commands(self, section):
        """Return what is to be typed, for our environment."""
        text = (self.unpacked / 'INSTALL.rst').read_text()
        body = re.split(r'^(\w.*)\n~+\n', text, flags=re.M)
        body = body[body.index(section) + 1]
        blocks = re.findall(r'code-block:: console\n((?:\n| +.+\n)+)', body)
        lines = [line for block in blocks
                 for line in textwrap.dedent(block).strip().splitlines()]
        self.assertNotEqual([], lines)
        return [line.removeprefix('# ').removeprefix('$ ').replace(
            '/opt/cinder', self.environment) for line in lines]

    def type(self, command):
        return subprocess.run(['bash', '-c', command], cwd=self.unpacked,
                              text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)

    def follow(self, section):
        for command in self.commands(section):
            result = self.type(command)
            self.assertEqual(0, result.returncode, result.stdout)

    def test_instructions(self):
        python = self.environment_with_pip()
        self.unpacked = self.unpack(self.build()[0])
        self.assertLess({
            'INSTALL.rst', 'LICENSE', 'MANIFEST', 'SHA256SUMS',
            'certification.yaml', 'cinder-lustre.conf.sample',
            'constraints.txt', 'constraints-nova.txt'},
            set(os.listdir(self.unpacked)))
        before = self.listing()
        self.follow('Check what you have')
        self.follow('Install')
        test_package.run(python, '-B', '-c', test_package.IMPORT % self.site,
                         cwd='/')
        self.assertEqual(set(), before - self.listing())
        self.follow('Remove')
        self.assertEqual(set(), before ^ self.listing())

        wheel, = self.unpacked.glob('cinder_lustre-*.whl')
        wheel.write_bytes(wheel.read_bytes()[:-1] + b'?')
        check, = self.commands('Check what you have')
        result = self.type(check)
        self.assertNotEqual(0, result.returncode)
        self.assertIn(wheel.name + ': FAILED', result.stdout)
