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
tests by a pattern and says what the test must have said: a test that is
skipped, or fails, for another reason than the one that was looked into has no
excuse.
"""

import dataclasses
import fnmatch
import pathlib
import re
import tomllib

from tools.certify import results

LIST = pathlib.Path(__file__).with_name('excuses.toml')


@dataclasses.dataclass(frozen=True)
class Excuse:
    """Why tests need not pass.

    :param tests: a pattern of their names, with * and ?
    :param said: a regular expression, for a part of what they say
    :param reason: ours
    :param outcome: skipped, or failed
    :param types: volume types for which it holds; all, if there is none
    """

    tests: str
    said: str
    reason: str
    outcome: str = results.SKIPPED
    types: tuple = ()

    def holds(self, test, volume_type):
        return (test.outcome == self.outcome
                and fnmatch.fnmatchcase(test.name, self.tests)
                and re.search(self.said, test.said) is not None
                and (not self.types or volume_type in self.types))


def load(path=LIST):
    with open(path, 'rb') as file:
        return [Excuse(**entry) for entry in tomllib.load(file)['excuse']]


def apply(tests, volume_type, excuses):
    """Give tests that did not pass their excuses."""
    for test in tests:
        test.excuse = next((excuse.reason for excuse in excuses
                            if excuse.holds(test, volume_type)), '')


def unexcused(tests, outcome):
    return [test for test in tests
            if test.outcome == outcome and not test.excuse]
