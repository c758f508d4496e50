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

"""The bundle: what is handed over, as a directory and as a .tar.gz.

    index.html    each test's result; needs no server
    verdict.txt   one line
    record.yaml   counts, versions and skips
    streams/      subunit
    etc/          the services' configuration
    log/          the services' logs
    versions/     of all packages; the state of git

There is no secret in it: see scrub.py.
"""

import pathlib
import shutil
import tarfile

import jinja2

from tools.certify import record
from tools.certify import results
from tools.certify import scrub
from tools.certify import versions

TEMPLATE = pathlib.Path(__file__).with_name('page.html')
# The configuration of services that is of interest, and where secrets are.
SUFFIX = '.conf'


class Bundle:
    """Collects, while the stack is up and when it is down.

    :param directory: of the bundle; what was there is removed
    """

    def __init__(self, directory, layout):
        self.directory = directory
        self.layout = layout
        self.secrets = set()
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)

    def path(self, *names):
        path = self.directory.joinpath(*names)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def add_configuration(self):
        """Take the services' configuration, and remember its secrets.

        As soon as it is there, so that nothing is said that is one; and
        before they are taken down, with whom it goes.
        """
        for source in sorted(self.layout.etc.rglob('*' + SUFFIX)):
            text = source.read_text()
            self.secrets |= scrub.secrets(text)
            self.path('etc', source.name if source.stem == source.parent.name
                      else '%s-%s' % (source.parent.name, source.name)
                      ).write_text(scrub.configuration(text))

    def add_results(self, judged, made, tests, streams):
        """The verdict, its record, the page and the streams.

        :param tests: {suite: its tests}
        :param streams: directory of the suites' streams
        """
        for suite in tests:
            name = suite.name + '.subunit'
            shutil.copyfile(streams / name, self.path('streams', name))
        self._add_text('verdict.txt', judged.line + '\n')
        self._add_text('record.yaml', record.text(made))
        self._add_text('index.html', page(judged, made, tests, self.files()))

    def add_versions(self, tempest_python, python):
        for name, packages in (('tempest', versions.freeze(tempest_python)),
                               ('services', versions.freeze(python))):
            self.path('versions', name + '.txt').write_text(''.join(
                '%s==%s\n' % item for item in sorted(packages.items())))
        self.path('versions', 'debian.txt').write_text(versions.debian())
        tree = versions.tree()
        self._add_text('versions/git.txt', '\n'.join(
            [tree['commit'] or '', *tree['changed'], '']))
        if tree['commit'] and tree['changed']:
            self._add_text('versions/git.diff',
                           versions.git('diff', 'HEAD') + '\n')

    def add_logs(self):
        for source in sorted(self.layout.log.rglob('*.log')):
            self._add_text('log/%s' % source.relative_to(self.layout.log),
                           source.read_text(errors='replace'))

    def _add_text(self, name, text):
        self.path(*name.split('/')).write_text(scrub.log(text, self.secrets))

    def files(self):
        """What is in it, for links."""
        return sorted(path.name + ('/' if path.is_dir() else '')
                      for path in self.directory.iterdir())

    def pack(self):
        """Make sure that no secret is in it, and write the archive.

        :raises scrub.Leak: there is one; there is no archive then
        """
        scrub.check(self.directory, self.secrets)
        archive = self.directory.with_name(self.directory.name + '.tar.gz')
        with tarfile.open(archive, 'w:gz') as target:
            target.add(self.directory, self.directory.name)
        return archive


def page(judged, made, tests, files):
    """The page, as HTML."""
    template = jinja2.Environment(
        autoescape=True, trim_blocks=True,
        undefined=jinja2.StrictUndefined).from_string(TEMPLATE.read_text())
    return template.render(verdict=judged, record=made, tests=tests,
                           files=files, counts=results.count)
