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

"""The verdict: one line, and whether it is good."""

import collections
import dataclasses

from tools.certify import command
from tools.certify import excuses
from tools.certify import results


@dataclasses.dataclass(frozen=True)
class Verdict:
    passed: bool
    line: str


def judge(release, tests, stopped, whole):
    """Judge what became of the tests.

    :param tests: {suite: its tests}
    :param stopped: why the run ended before its end, or None
    :param whole: whether all suites were asked for
    """
    total = collections.Counter()
    faults = collections.Counter()
    for found in tests.values():
        total.update(results.count(found))
        faults['failed'] += len(excuses.unexcused(found, results.FAILED))
        faults['skipped and nobody said why that is right'] += len(
            excuses.unexcused(found, results.SKIPPED))
    why = ['%d %s' % (count, what) for what, count in faults.items() if count]
    if stopped:
        why.append(_unfinished(stopped))
    if not total['passed']:
        why.append('no test passed')
    line = '%s: %s: %d passed, %d failed, %d skipped' % (
        _name(release), 'FAILED' if why else 'PASSED',
        total['passed'], total['failed'], total['skipped'])
    if why:
        line += ' (%s)' % '; '.join(why)
    elif total['failed']:
        line += ' (these failures are of the tests themselves)'
    if not whole:
        line += ' [a part of the tests only]'
    return Verdict(not why, line)


def judge_excuses(release, tests, stopped):
    """Judge whether tests fail on Cinder's NFS driver as with ours.

    The arguments are judge()'s.
    """
    found = [test for those in tests.values() for test in those]
    unshown = excuses.unshown(found)
    shown = [test for test in found
             if test.outcome == results.FAILED and test.excuse]
    passed = bool(shown) and not unshown and not stopped
    line = '%s, its NFS driver: %s: %d tests fail as with ours, %d do not' % (
        _name(release), 'SHOWN' if passed else 'NOT SHOWN', len(shown),
        len(unshown))
    if stopped:
        line += ' (%s)' % _unfinished(stopped)
    return Verdict(passed, line)


def _name(release):
    return 'Cinder %d (%s)' % (release, command.RELEASES[release])


def _unfinished(stopped):
    return 'not finished: %s' % stopped.splitlines()[0][-300:]
