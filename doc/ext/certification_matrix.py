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

"""Show the records of certifications.

The directive takes nothing::

    .. certification-matrix::

There is a table of all releases, and a list of the tests that did not have to
pass, with the reasons, and what Cinder's NFS driver made of them. It is made
of ``certification/*.yaml``, which ``tools/certify.sh`` writes.
"""

import pathlib

from docutils.parsers import rst
from docutils import statemachine
import yaml

RECORDS = pathlib.Path(__file__).resolve().parents[2] / 'certification'
# What says most of a cloud; the records have more.
VERSIONS = ('cinder', 'os-brick', 'nova', 'tempest', 'cinder-tempest-plugin')


def load(name='cinder'):
    """The records, newest release first."""
    records = [yaml.safe_load(path.read_text())
               for path in RECORDS.glob(name + '-*.yaml')]
    return sorted(records, key=lambda record: -record['release'])


def matrix(records):
    """A table with a row for each release."""
    lines = ['.. list-table::', '   :header-rows: 1', '']
    lines += row('Cinder', 'OpenStack', 'Verdict', 'Date', 'Passed', 'Failed',
                 'Skipped', 'With')
    for record in records:
        total = {outcome: sum(suite[outcome] for suite in record['suites'])
                 for outcome in ('passed', 'failed', 'skipped')}
        lines += row(
            record['release'], record['series'],
            'passed' if record['passed'] else '**failed**', record['date'],
            *total.values(), ', '.join(
                '%s %s' % (name, record['versions'][name])
                for name in VERSIONS if name in record['versions']))
    return lines + ['']


def row(first, *others):
    return ['   * - %s' % first, *['     - %s' % other for other in others]]


def suites(records):
    """A table of what passed, with a row for each suite."""
    names = list(dict.fromkeys(suite['name'] for record in records
                               for suite in record['suites']))
    lines = ['.. list-table:: Passed, failed and skipped tests of each suite',
             '   :header-rows: 1', '']
    lines += row('Suite', *['Cinder %d' % record['release']
                            for record in records])
    for name in names:
        lines += row(name, *[counts(record, name) for record in records])
    return lines + ['']


def counts(record, name):
    for suite in record['suites']:
        if suite['name'] == name:
            return '%(passed)d, %(failed)d, %(skipped)d' % suite
    return 'not run'


def excused(records, failed_elsewhere):
    """What did not pass, by the reason, with the releases.

    :param failed_elsewhere: names of tests that failed on the NFS driver too
    """
    reasons = {}
    for record in records:
        for entry in record['excused']:
            tests = reasons.setdefault((entry['reason'], entry['outcome']),
                                       {})
            for test in entry['tests']:
                tests.setdefault(test['name'], []).append(record['release'])
    lines = []
    for (reason, outcome), tests in reasons.items():
        lines += ['* %s (%s):' % (reason, outcome), '']
        lines += ['  * ``%s`` (%s)%s' % (
            name, ', '.join(map(str, sorted(releases))),
            "; fails on Cinder's NFS driver as well"
            if name in failed_elsewhere else '')
            for name, releases in sorted(tests.items())]
        lines += ['']
    return lines


def failed(records):
    """The names of the tests that failed."""
    return {test['name'] for record in records for entry in record['excused']
            if entry['outcome'] == 'failed' for test in entry['tests']}


class CertificationMatrix(rst.Directive):

    def run(self):
        records = load()
        self.state.document.settings.env.note_dependency(str(RECORDS))
        for path in RECORDS.glob('*.yaml'):
            self.state.document.settings.env.note_dependency(str(path))
        lines = ['No release has been certified yet.']
        if records:
            lines = matrix(records) + suites(records) + [
                'What did not pass, and why:', '',
                *excused(records, failed(load('stock')))]
        parsed = rst.nodes.Element()
        self.state.nested_parse(statemachine.StringList(
            lines, 'certification-matrix'), 0, parsed)
        return parsed.children


def setup(app):
    app.add_directive('certification-matrix', CertificationMatrix)
    return {'parallel_read_safe': True}
