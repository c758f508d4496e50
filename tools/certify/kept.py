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

"""Results that outlive a run, so that what passed need not run again.

What is kept is judged again: an excuse that was missing needs no new run.
"""

import hashlib
import json
import os

from tools.certify import results
from tools.certify import scrub
from tools.demo import bootstrap


class Kept:
    """The streams of suites, without secrets; they outlive a run.

    A suite need not run again for what is the same in all that the results
    depend on.
    """

    def __init__(self, arguments, layout, name):
        self.resume = arguments.resume
        self.directory = layout.home / ('streams-%s-%d%s' % (
            name, arguments.release, '-part' if arguments.tests else ''))
        self.directory.mkdir(exist_ok=True)
        self.depends = self._digest(arguments)

    @staticmethod
    def _digest(arguments):
        tree = bootstrap.REPOSITORY
        sources = bootstrap.wheel_sources(tree)
        for name in ('nova-lustre', 'sandbox', 'tools'):
            sources += (tree / name).rglob('*.py')
        # Not excuses.toml: it is for what is kept as well.
        sources += (tree / 'tools/constraints').glob('*.txt')
        return hashlib.sha256(json.dumps([
            bootstrap.digest(sources, tree), arguments.nova,
            arguments.tests, os.environ.get('LUSTRE_SHARE')
        ]).encode()).hexdigest()

    def _path(self, suite, suffix):
        return self.directory / (suite.name + suffix)

    def has(self, suite):
        """Whether the suite ran to its end in the same circumstances."""
        stamp = self._path(suite, '.of')
        return (self.resume and stamp.exists()
                and stamp.read_text() == self.depends)

    def put(self, suite, names, raw, secrets):
        self._path(suite, '.of').unlink(missing_ok=True)
        self._path(suite, '.names').write_text('\n'.join(names))
        scrub.stream(raw, self._path(suite, '.subunit'), secrets)

    def tests(self, suite):
        return results.read(self._path(suite, '.subunit'), self._path(
            suite, '.names').read_text().splitlines())

    def finish(self, suite):
        """Note that the suite ran to its end."""
        self._path(suite, '.of').write_text(self.depends)
