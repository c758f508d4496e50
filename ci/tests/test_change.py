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

"""A change on its way from Gerrit into what is certified.

Only the certification is stood in for, by a script that installs Cinder as the
real one does: from an index that has the release, with the constraints.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import fixtures
from oslotest import base

# stestr runs in the root of the tree.
TREE = pathlib.Path.cwd()
VERSION = '29.0.0'

CERTIFY = """#!/bin/bash
set -e
echo "$PWD $0 $*" >>{here}/certified
site=$CINDER_LUSTRE_HOME/certify/29/venv/site
PIP_FIND_LINKS="{here}/index ${{PIP_FIND_LINKS:-}}" {python} -m pip install \
    --quiet --no-index --no-compile --target "$site" cinder=={version}
cat "$site/cinder.py" >>{here}/certified
[ -e {here}/no-results ] || echo Results >"${{!#}}/index.html"
exit $(cat {here}/status)
"""

SETUP = """
import os
import setuptools
setuptools.setup(name='cinder', version=os.environ['PBR_VERSION'],
                 py_modules=['cinder'])
"""


class ChangeTestCase(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        if os.geteuid() != 0:
            self.skipTest('needs root')
        self.here = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.make_tree()
        self.make_tools()
        self.end_with(0)
        # As it was released, and as the change has it.
        self.make_index()
        self.change = self.make_change()
        self.revision = self.commit(self.change)

    def make_tree(self):
        """Make a tree of ours with another certification."""
        self.tree = self.here / 'tree'
        for name in ('ci/certify-change.sh', 'ci/test-change.sh',
                     'tools/build-tools.sh', 'tools/package/requirements.txt'):
            target = self.tree / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(TREE / name, target)
        constraints = self.tree / 'tools/constraints'
        constraints.mkdir()
        (constraints / '29.txt').write_text('cinder==%s\n' % VERSION)
        certify = self.tree / 'tools/certify.sh'
        certify.write_text(CERTIFY.format(here=self.here, version=VERSION,
                                          python=sys.executable))
        certify.chmod(0o755)

    def make_tools(self):
        """Let the tools be those of this environment."""
        venv = self.here / 'cache/venv-package'
        (venv / 'bin').mkdir(parents=True)
        for name in 'pip', 'wheel':
            script = venv / 'bin' / name
            script.write_text('#!/bin/sh\nexec %s -m %s "$@"\n' % (
                sys.executable, name))
            script.chmod(0o755)
        shutil.copy(TREE / 'tools/package/requirements.txt',
                    venv / 'requirements.stamp')

    def make_index(self):
        """Make a wheel of what was released; pip would take its time."""
        index = self.here / 'index'
        index.mkdir()
        name = 'cinder-%s' % VERSION
        with zipfile.ZipFile(index / (name + '-py3-none-any.whl'),
                             'w') as wheel:
            wheel.writestr('cinder.py', '# The release\n')
            wheel.writestr(name + '.dist-info/METADATA', 'Metadata-Version: '
                           '2.1\nName: cinder\nVersion: %s\n' % VERSION)
            wheel.writestr(name + '.dist-info/WHEEL', 'Wheel-Version: 1.0\n'
                           'Root-Is-Purelib: true\nTag: py3-none-any\n')
            wheel.writestr(name + '.dist-info/RECORD', '')

    def make_change(self):
        project = self.here / 'gerrit/openstack/cinder'
        project.mkdir(parents=True)
        (project / 'setup.py').write_text(SETUP)
        (project / 'cinder.py').write_text('# The change\n')
        return project

    def commit(self, project):
        """Commit what is there, as a patch set; returns the commit's ID."""
        git = ('git', '-C', project, '-c', 'user.name=A Name', '-c',
               'user.email=name@example.com', '-c', 'core.hooksPath=/dev/null')
        self.run_command(*git, 'init', '--quiet')
        self.run_command(*git, 'add', '--all')
        self.run_command(*git, 'commit', '--quiet', '--message', 'A change')
        self.run_command(*git, 'update-ref', 'refs/changes/11/4711/2', 'HEAD')
        return self.run_command(*git, 'rev-parse', 'HEAD').stdout.strip()

    def run_command(self, *command, check=True, **environment):
        result = subprocess.run(
            [str(word) for word in command], text=True, cwd=self.here,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, 'CINDER_LUSTRE_HOME': str(self.here / 'home'),
                 'CINDER_LUSTRE_CACHE': str(self.here / 'cache'),
                 **environment})
        if check:
            self.assertEqual(0, result.returncode, result.stdout)
        return result

    def end_with(self, status):
        (self.here / 'status').write_text('%d\n' % status)

    def try_change(self, *arguments, status=0, **options):
        """Run it, and return what it said."""
        options = {'project': 'openstack/cinder',
                   'ref': 'refs/changes/11/4711/2', 'revision': self.revision,
                   'gerrit': 'file://%s/gerrit' % self.here,
                   'output': self.here / 'output', **options}
        for name, value in options.items():
            arguments += '--' + name, value
        result = self.run_command(self.tree / 'ci/test-change.sh', *arguments,
                                  check=False)
        self.assertEqual(status, result.returncode, result.stdout)
        # Nothing is left, whatever has become of it.
        home = self.here / 'home'
        self.assertEqual([], list(home.iterdir()) if home.exists() else [])
        return result.stdout

    def certified(self):
        path = self.here / 'certified'
        return path.read_text() if path.exists() else ''

    def test_it_is_the_change_that_is_certified(self):
        self.try_change('--nova')
        self.assertIn(
            '--release 29 --nova --output %s/output' % self.here,
            self.certified())
        self.assertIn('# The change', self.certified())
        self.assertEqual('Results\n',
                         (self.here / 'output/index.html').read_text())

    def test_failure(self):
        self.end_with(1)
        self.try_change(status=1)

    def test_certification_that_was_not_finished(self):
        self.end_with(2)
        self.try_change(status=75)

    def test_no_results(self):
        (self.here / 'no-results').touch()
        self.assertIn('no results', self.try_change(status=75))

    def test_something_else_was_tested(self):
        """Which must not become a vote."""
        script = self.tree / 'tools/certify.sh'
        script.write_text(script.read_text().replace('${PIP_FIND_LINKS:-}',
                                                     ''))
        self.assertIn('not this cinder', self.try_change(status=75))
        self.assertIn('# The release', self.certified())

    def test_change_that_can_not_be_built(self):
        (self.change / 'setup.py').write_text('raise SystemExit(3)\n')
        self.try_change(status=75, revision=self.commit(self.change))
        self.assertEqual('', self.certified())

    def test_change_of_ours(self):
        """Its own certification is run."""
        ours = self.here / 'gerrit/example/cinder-lustre'
        shutil.copytree(self.tree, ours)
        script = ours / 'tools/certify.sh'
        script.write_text(script.read_text() + '# Changed\n')
        self.try_change(project='example/cinder-lustre',
                        revision=self.commit(ours))
        self.assertNotIn(str(self.tree / 'tools/certify.sh'),
                         self.certified())
        self.assertIn('# The release', self.certified())

    def test_another_commit(self):
        said = self.try_change(status=75, revision='a' * 40)
        self.assertIn(self.revision, said)
        self.assertEqual('', self.certified())

    def test_no_such_patch_set(self):
        self.try_change(status=75, ref='refs/changes/11/4711/3')

    def test_what_can_not_be(self):
        for option in ({'ref': '--upload-pack=touch bad'},
                       {'ref': 'refs/heads/master'},
                       {'revision': '$(touch bad)'},
                       {'project': '../../etc'}, {'project': '--output'}):
            self.try_change(status=75, **option)
        self.assertFalse((self.here / 'bad').exists())

    def test_project_that_is_not_tested(self):
        shutil.move(self.change, self.here / 'gerrit/openstack/nova')
        self.try_change(status=75, project='openstack/nova')
