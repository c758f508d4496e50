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

"""Take secrets out of what is handed over.

Two ways, because neither knows all: options whose names say that they are
secret, and passwords in URLs, lose their values in configuration files; and
what these files say is a secret is looked for everywhere else. The secrets of
one file are in the logs of others.
"""

import re

import subunit

from tools.certify import results
from tools.certify import runner

MASK = '***'
# Names of options, as oslo.config's libraries have them.
NAMES = re.compile(r'(password|passwd|passphrase|secret|token|private_key|'
                   r'access_key|api_key|fixed_key|(^|_)pass|credential)s?$')
# user:password@host, in URLs; a password may hold anything but a slash.
CREDENTIALS = re.compile(r'(?<=://)[^\s/]+(?=@)')
# Shorter ones would be found where they are none.
SHORTEST = 6


class Leak(Exception):
    """A secret is where everybody can read it."""


def options(text):
    """The lines of a configuration file that count: (name or None, text).

    Comments and blank lines are none. A line that starts with a blank goes on
    with the value of the line before it.
    """
    found = []
    for line in text.splitlines():
        if not line.strip() or line.lstrip()[0] in '#;':
            continue
        if line[0].isspace() and found and found[-1][0]:
            found[-1] = (found[-1][0], found[-1][1] + '\n' + line)
        else:
            name = line.partition('=')[0].strip() if '=' in line else None
            found.append((name, line))
    return found


def configuration(text):
    """A configuration file without comments and without secrets."""
    lines = []
    for name, line in options(text):
        if name and NAMES.search(name.lower()):
            line = '%s = %s' % (name, MASK)
        lines.append(CREDENTIALS.sub(MASK, line))
    return '\n'.join(lines + [''])


def secrets(text):
    """What configuration() takes out of a file."""
    found = set()
    for name, line in options(text):
        value = line.partition('=')[2].strip()
        if name and NAMES.search(name.lower()):
            found.add(value)
        for credentials in CREDENTIALS.findall(line):
            found.add(credentials.partition(':')[2])
    return {secret for secret in found if len(secret) >= SHORTEST}


def log(text, known):
    """Any other text, without these secrets."""
    # A secret may be a part of another one.
    for secret in sorted(known, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return CREDENTIALS.sub(MASK, text)


def stream(source, target, known):
    """Copy a subunit stream, with what its tests said in a log's place.

    Of tests that passed only the result is kept, which is also what keeps the
    copy small.
    """
    with open(source, 'rb') as original, open(target, 'wb') as copy:
        output = subunit.StreamResultToBytes(copy)
        output.startTestRun()
        runner.read_stream(original,
                           lambda test: emit(output, test, known))
        output.stopTestRun()


def emit(output, test, known):
    started, ended = test['timestamps']
    output.status(test_id=test['id'], test_status='inprogress',
                  timestamp=started)
    if results.describe(test).outcome != results.PASSED:
        for name, content in test['details'].items():
            if content.content_type.type == 'text':
                output.status(
                    test_id=test['id'], file_name=name, eof=True,
                    file_bytes=log(content.as_text(), known).encode(),
                    mime_type='text/plain; charset=utf8', timestamp=ended)
    output.status(test_id=test['id'], test_status=test['status'],
                  test_tags=test['tags'], timestamp=ended)


def check(directory, known):
    """Make sure that no file below a directory has one of these secrets.

    :raises Leak: names the file
    """
    known = [secret.encode() for secret in known]
    for path in directory.rglob('*'):
        if path.is_file():
            content = path.read_bytes()
            if any(secret in content for secret in known):
                raise Leak('%s has a secret in it' % path)
