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

"""What certify.sh can be asked for.

Only the standard library: bootstrap.py asks before there is an environment.
"""

import argparse
import os
import pathlib

# Cinder's releases, and the series of OpenStack that each belongs to.
RELEASES = {26: '2025.1', 27: '2025.2', 28: '2026.1', 29: '2026.2'}
NEWEST = max(RELEASES)
TYPES = ('thin', 'thick', 'encrypted')


def parse(arguments):
    parser = argparse.ArgumentParser(
        prog='certify.sh', description='Run the tests of OpenStack that '
        'every volume driver has to pass, and write a bundle of results.')
    parser.add_argument('--release', type=int, choices=sorted(RELEASES),
                        default=NEWEST,
                        help="Cinder's major version [%(default)s]")
    parser.add_argument('--nova', action='store_true',
                        help='with Nova, and the tests that need servers')
    parser.add_argument('--stock', action='store_true',
                        help="only tests whose failure is excused, on "
                        "Cinder's NFS driver, where they have to fail too")
    parser.add_argument('--types', type=_types, default=TYPES,
                        metavar='TYPE,...',
                        help='volume types to test [%s]' % ','.join(TYPES))
    parser.add_argument('--suites', type=_words, metavar='SUITE,...',
                        help='only suites whose names start like this, as '
                        'api or plugin-thin')
    parser.add_argument('--tests', metavar='REGEX',
                        help='only tests whose names match')
    parser.add_argument('--resume', action='store_true',
                        help='keep the results of suites that passed in the '
                        'last run, if it was of the same tree')
    parser.add_argument('--concurrency', type=int, default=os.cpu_count(),
                        metavar='N', help='tests at a time [%(default)s]')
    parser.add_argument('--cache', type=pathlib.Path, metavar='DIRECTORY',
                        help="where to keep downloaded wheels [pip's own]")
    parser.add_argument('--output', type=pathlib.Path, metavar='DIRECTORY',
                        help='where to write the bundle '
                        '[$CINDER_LUSTRE_HOME/certify/bundles]')
    parser.add_argument('--record', action='store_true',
                        help='write the verdict to certification/, if the '
                        'suites ran to their end')
    parser.add_argument('--keep', action='store_true',
                        help='leave the services running')
    parser.add_argument('--stop', action='store_true',
                        help='take down what an earlier run left')
    # Held open until we end; the lock on it is bootstrap.py's.
    parser.add_argument('--lock-fd', type=int, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _words(text):
    return tuple(text.split(','))


def _types(text):
    unknown = set(_words(text)) - set(TYPES)
    if unknown:
        raise argparse.ArgumentTypeError('no such volume type: %s; there are '
                                         '%s' % (', '.join(unknown),
                                                 ', '.join(TYPES)))
    return _words(text)
