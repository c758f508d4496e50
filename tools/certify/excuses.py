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

"""Skips that are right, and failures that are upstream's: each with a reason.

They are listed in excuses.toml, which people read and review. An entry names
tests by patterns and says what the test must have said: a test that is
skipped, or fails, for another reason than the one that was looked into has no
excuse. Tests for which there is not what they need are left out: they do not
run, and count as skipped.
"""

import dataclasses
import fnmatch
import pathlib
import re
import tomllib

from tools.certify import results

LEFT_OUT = 'left out'
LIST = pathlib.Path(__file__).with_name('excuses.toml')


@dataclasses.dataclass(frozen=True)
class Excuse:
    """Why tests need not pass.

    :param tests: patterns of their names, with * and ?
    :param said: a regular expression, for a part of what they say
    :param reason: ours
    :param outcome: skipped, failed, or left out
    :param types: volume types for which it holds; all, if there is none
    :param stock: whether Cinder's NFS driver can show a failure: see stock.py
    """

    tests: list
    said: str
    reason: str
    outcome: str = results.SKIPPED
    types: tuple = ()
    stock: bool = True

    def holds(self, test, volume_type):
        return (test.outcome == (results.FAILED if self.outcome == LEFT_OUT
                                 else self.outcome)
                and re.search(self.said, test.said) is not None
                and self.is_about(test.name, volume_type))

    def is_about(self, name, volume_type):
        return (any(fnmatch.fnmatchcase(name, tests) for tests in self.tests)
                and (not self.types or volume_type in self.types))


def load(path=LIST):
    with open(path, 'rb') as file:
        return [Excuse(**entry) for entry in tomllib.load(file)['excuse']]


def left_out(names, volume_type, excuses):
    """The names of the tests that shall not run."""
    return [name for name in names if any(
        excuse.outcome == LEFT_OUT and excuse.is_about(name, volume_type)
        for excuse in excuses)]


def failing(names, volume_type, excuses):
    """The names of the tests that may fail, and would on a stock driver."""
    return [name for name in names if any(
        excuse.outcome == results.FAILED and excuse.stock
        and excuse.is_about(name, volume_type) for excuse in excuses)]


def apply(tests, volume_type, excuses):
    """Give tests that did not pass their excuses."""
    for test in tests:
        excuse = next((excuse for excuse in excuses
                       if excuse.holds(test, volume_type)), None)
        test.excuse = excuse.reason if excuse else ''
        if excuse and excuse.outcome == LEFT_OUT:
            test.outcome = results.SKIPPED


def unshown(tests):
    """Those that were to fail as their excuses say, and did not.

    What says that it was skipped, with an excuse, shows nothing.
    """
    return [test for test in tests
            if test.outcome == results.PASSED or not test.excuse]


def unexcused(tests, outcome):
    return [test for test in tests
            if test.outcome == outcome and not test.excuse]
