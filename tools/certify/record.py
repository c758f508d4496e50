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

"""Records: the last verdict on each release, in certification/.

A record is a YAML file that certify.sh writes, for people and for the matrix
in the documentation. There are no logs in it, and nothing of the machine.
"""

import pathlib

from oslo_utils import timeutils
import yaml

from tools.certify import command
from tools.certify import results

DIRECTORY = pathlib.Path(__file__).resolve().parents[2] / 'certification'
HEAD = '# Written by tools/certify.sh: do not edit.\n'


def make(release, tests, verdict, versions, tree, share):
    """Return a record.

    :param tests: {suite: its tests}
    :param verdict: a Verdict
    :param share: what the shares were
    """
    return {
        'release': release,
        'series': command.RELEASES[release],
        'date': timeutils.utcnow().date().isoformat(),
        'passed': verdict.passed,
        'verdict': verdict.line,
        # See "git rev-parse HEAD:cinder", for one.
        'tree': {'commit': tree['commit'], **tree['directories'],
                 'changed': bool(tree['changed'])},
        'shares': share,
        'versions': versions,
        'suites': [{'name': suite.name, **results.count(found)}
                   for suite, found in tests.items()],
        'excused': excused(tests),
    }


def excused(tests):
    """What did not pass and need not: one entry for each reason."""
    entries = {}
    for suite, found in tests.items():
        for test in found:
            if test.outcome != results.PASSED:
                entry = entries.setdefault(
                    (test.outcome, test.excuse or 'NONE'), {})
                entry.setdefault(test.name, []).append(suite.name)
    return [{'outcome': outcome, 'reason': reason,
             'tests': [{'name': name, 'suites': suites}
                       for name, suites in sorted(found.items())]}
            for (outcome, reason), found in entries.items()]


def path_of(release, name='cinder', directory=DIRECTORY):
    return directory / ('%s-%d.yaml' % (name, release))


def text(record):
    return HEAD + yaml.safe_dump(record, sort_keys=False, width=79)


def write(record, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text(record))


def load(release, directory=DIRECTORY):
    """The record of a release, or None."""
    try:
        return yaml.safe_load(
            path_of(release, directory=directory).read_text())
    except FileNotFoundError:
        return None
