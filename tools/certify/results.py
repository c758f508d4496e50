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

"""What became of each test of a suite."""

import collections
import dataclasses
import re

from tools.certify import runner

PASSED, FAILED, SKIPPED = OUTCOMES = 'passed', 'failed', 'skipped'
# testtools' words; anything else is a failure.
WORDS = {'success': PASSED, 'xfail': PASSED, 'skip': SKIPPED}
# What is said of a test without a result.
NOT_RUN = 'It did not run.'
# What stands for all tests of a class that could not be set up.
CLASS = re.compile(r'(?:setUpClass|tearDownClass) \(([^)]+)\)')


@dataclasses.dataclass
class Test:
    """A test and what became of it.

    :param seconds: how long it took
    :param said: why it was skipped, or the traceback of its failure
    :param excuse: why that need not be put right, from excuses.toml
    """

    name: str
    outcome: str
    seconds: float = 0.0
    said: str = ''
    excuse: str = ''


def read(path, names):
    """The tests of a stream, and those that should be in it.

    :param names: of the tests that were asked for
    """
    found = {}

    def note(test):
        described = describe(test)
        found[described.name] = described

    with open(path, 'rb') as stream:
        runner.read_stream(stream, note)
    classes = {CLASS.fullmatch(name)[1]: test for name, test in found.items()
               if CLASS.fullmatch(name)}
    return sorted(
        [found.get(name) or missing(name, classes) for name in names]
        # Something that failed and is no test, such as a module's import.
        + [test for name, test in found.items()
           if name not in names and test.outcome == FAILED],
        key=lambda test: test.name)


def describe(test):
    started, ended = test['timestamps']
    outcome = WORDS.get(test['status'], FAILED)
    return Test(test['id'].partition('[')[0], outcome,
                (ended - started).total_seconds() if started and ended else 0,
                '' if outcome == PASSED else text_of(test))


def text_of(test):
    """Why a test was skipped or failed."""
    details = test['details']
    if test['status'] == 'inprogress':
        return 'It did not end.'
    for name in ('reason', 'traceback', *sorted(details)):
        if name in details and details[name].content_type.type == 'text':
            text = details[name].as_text().strip()
            if text:
                return text
    return 'no reason given'


def missing(name, classes):
    """A test of which there is no result."""
    of_class = classes.get(name.rpartition('.')[0])
    if of_class is None:
        return Test(name, FAILED, said=NOT_RUN)
    return dataclasses.replace(of_class, name=name, seconds=0.0)


def count(tests):
    """How many tests there are of each outcome."""
    found = collections.Counter(test.outcome for test in tests)
    return {outcome: found[outcome] for outcome in OUTCOMES}
