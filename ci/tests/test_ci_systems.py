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

"""Zuul's job and Jenkins' pipeline, as far as they go without the two."""

import json
import os
import pathlib
import re
import subprocess
import sys

import fixtures
from oslotest import base
import yaml

# stestr runs in the root of the tree.
TREE = pathlib.Path.cwd()
PLAYBOOKS = TREE / 'ci/zuul'

CERTIFY = """#!/bin/sh
printf '%%s\\n' "$@" >%s/arguments
mkdir -p "$2"
exit %d
"""


class ZuulTestCase(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        if os.geteuid() != 0:
            self.skipTest('needs root')
        self.here = pathlib.Path(self.useFixture(fixtures.TempDir()).path)

    def play(self, status=0):
        """Run the job's playbook as Zuul does, on this machine."""
        script = self.here / 'src/example/cinder-lustre/ci/certify-change.sh'
        script.parent.mkdir(parents=True)
        script.write_text(CERTIFY % (self.here, status))
        script.chmod(0o755)
        variables = self.here / 'variables.json'
        variables.write_text(json.dumps({
            'ansible_user_dir': str(self.here),
            'ansible_python_interpreter': sys.executable,
            'zuul': {
                'project': {'name': 'openstack/cinder',
                            'src_dir': 'src/opendev.org/openstack/cinder'},
                'projects': {
                    'opendev.org/openstack/cinder': {
                        'short_name': 'cinder', 'src_dir':
                            'src/opendev.org/openstack/cinder'},
                    'example/cinder-lustre': {
                        'short_name': 'cinder-lustre',
                        'src_dir': 'src/example/cinder-lustre'}}}}))
        return subprocess.run(
            [os.path.join(os.path.dirname(sys.executable), 'ansible-playbook'),
             '--inventory', 'localhost,', '--connection', 'local',
             '--extra-vars', '@%s' % variables, PLAYBOOKS / 'run.yaml'],
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, 'ANSIBLE_HOME': str(self.here / 'ansible'),
                 'ANSIBLE_LOCALHOST_WARNING': 'False', 'LC_ALL': 'C.UTF-8'})

    def test_run(self):
        result = self.play()
        self.assertEqual(0, result.returncode, result.stdout)
        self.assertEqual(
            ['--output', '%s/zuul-output/logs/certification' % self.here,
             'openstack/cinder=%s/src/opendev.org/openstack/cinder' %
             self.here],
            (self.here / 'arguments').read_text().splitlines())

    def test_failure(self):
        self.assertNotEqual(0, self.play(status=1).returncode)

    def test_files_of_the_job_are_there(self):
        job, = [part['job'] for part in yaml.safe_load(
            (TREE / 'ci/zuul.d/jobs.yaml').read_text())]
        for phase in 'pre-run', 'run', 'post-run':
            plays = yaml.safe_load((TREE / job[phase]).read_text())
            self.assertEqual(['all'], [play['hosts'] for play in plays])


class RecheckTestCase(base.BaseTestCase):
    """What asks for a run is the same for all of them."""

    def patterns(self):
        pipeline, = yaml.safe_load((PLAYBOOKS / 'pipeline.yaml').read_text())
        zuul = [event['comment'] for event in
                pipeline['pipeline']['trigger']['gerrit']
                if event['event'] == 'comment-added']
        jenkins = re.findall(r'^//     (\S.*)$',
                             (TREE / 'ci/Jenkinsfile').read_text(), re.M)
        return zuul + jenkins

    def test_patterns(self):
        patterns = self.patterns()
        self.assertEqual(2, len(patterns))
        for pattern in patterns:
            for comment in ('Patch Set 1:\n\nrecheck', 'recheck bug 1',
                            'Patch Set 2: Code-Review+1\n\nrun-lustre ci'):
                self.assertIsNotNone(re.search(pattern, comment), comment)
            for comment in ('rechecked', '> recheck', 'please recheck',
                            'To run it again, comment "run-Lustre CI" in'):
                self.assertIsNone(re.search(pattern, comment), comment)


class JenkinsTestCase(base.BaseTestCase):

    def test_options(self):
        """The commands have the options that the pipeline gives them."""
        said = subprocess.run(
            [sys.executable, TREE / 'ci/gerrit-ci', '--config-file', 'none',
             'report', '--help'], capture_output=True, text=True).stdout
        said += subprocess.run(
            [TREE / 'ci/test-change.sh', '--help'], capture_output=True,
            text=True).stdout
        scripts = re.findall(r"'''(.*?)'''",
                             (TREE / 'ci/Jenkinsfile').read_text(), re.S)
        self.assertEqual(2, len(scripts))
        given = set(re.findall(r' (--[a-z]+) "', ' '.join(scripts)))
        self.assertEqual(set(), given - set(re.findall(r'--[a-z]+', said)) -
                         {'--config'})
        for script in scripts:
            # What a change has said is expanded in quotes only.
            self.assertNotRegex(script, r'[^"{]\$(GERRIT|\{GERRIT)')
