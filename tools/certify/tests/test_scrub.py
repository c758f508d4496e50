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

"""No secret is handed over."""

import datetime
import pathlib
import tarfile
import tempfile
import types

from oslo_utils import timeutils
import subunit
import testtools

from tools.certify import bundle
from tools.certify import record
from tools.certify import results
from tools.certify import scrub
from tools.certify import suites
from tools.certify import verdict

SECRET = 'f00dfeed0123456789'
OTHER = 'p@ss:word-of-nova'
CONF = '''
# transport_url = rabbit://demo:%(secret)s@example.org:5672/
[DEFAULT]
transport_url = rabbit://demo:%(secret)s@127.0.0.1:5672/
debug = true
; password = %(secret)s
[database]
connection = mysql+pymysql://cinder:%(secret)s@localhost/cinder?x=y
[keystone_authtoken]
username = openstack
password = %(secret)s
   %(secret)s
Admin_Token=%(secret)s
[barbican]
fixed_key = %(secret)s
[nova]
password = %(other)s
[key_manager]
backend = demo_keys.KeyManager
''' % {'secret': SECRET, 'other': OTHER}
SUITE = suites.Suite('api', 'x', 'thin')


def stream(path, *tests):
    """Write a stream: of each test its ID, its status and what it said."""
    now = timeutils.utcnow(with_timezone=True)
    with open(path, 'wb') as target:
        output = subunit.StreamResultToBytes(target)
        for test_id, status, said in tests:
            output.status(test_id=test_id, test_status='inprogress',
                          timestamp=now)
            output.status(test_id=test_id, file_name='reason', eof=True,
                          file_bytes=said.encode(),
                          mime_type='text/plain; charset=utf8')
            output.status(
                test_id=test_id, test_status=status,
                timestamp=now + datetime.timedelta(seconds=2))


class ConfigurationTest(testtools.TestCase):

    def test_what_is_left(self):
        self.assertEqual([
            '[DEFAULT]',
            'transport_url = rabbit://***@127.0.0.1:5672/',
            'debug = true',
            '[database]',
            'connection = mysql+pymysql://***@localhost/cinder?x=y',
            '[keystone_authtoken]',
            'username = openstack',
            'password = ***',
            'Admin_Token = ***',
            '[barbican]',
            'fixed_key = ***',
            '[nova]',
            'password = ***',
            '[key_manager]',
            'backend = demo_keys.KeyManager'],
            scrub.configuration(CONF).splitlines())

    def test_secrets(self):
        self.assertEqual({SECRET, OTHER, '%s\n   %s' % (SECRET, SECRET)},
                         scrub.secrets(CONF))

    def test_log(self):
        self.assertEqual(
            'with *** at http://***@example.org/, of glance://a/b@c',
            scrub.log('with %s at http://me:x@example.org/, of glance://a/b@c'
                      % SECRET, {SECRET}))


class BundleTest(testtools.TestCase):
    """Secrets everywhere, and a bundle without any."""

    def setUp(self):
        super().setUp()
        made = tempfile.TemporaryDirectory()
        self.addCleanup(made.cleanup)
        home = pathlib.Path(made.name)
        self.layout = types.SimpleNamespace(etc=home / 'etc',
                                            log=home / 'log')
        self.streams = home / 'streams'
        for path in (self.layout.etc / 'cinder', self.layout.log / 'rabbitmq',
                     self.streams):
            path.mkdir(parents=True)
        (self.layout.etc / 'cinder' / 'cinder.conf').write_text(CONF)
        for name in ('cinder-api.log', 'rabbitmq/rabbit.log'):
            (self.layout.log / name).write_text('it is %s\n' % SECRET)
        self.raw = home / 'raw'
        stream(self.raw, ('a.b', 'success', SECRET),
               ('a.c', 'skip', 'for want of ' + SECRET),
               ('a.d', 'fail', 'Traceback\n%s is wrong' % OTHER))
        self.bundle = bundle.Bundle(home / 'out' / 'bundle', self.layout)

    def fill(self):
        made = self.bundle
        made.add_configuration()
        kept = self.streams / (SUITE.name + '.subunit')
        scrub.stream(self.raw, kept, made.secrets)
        tests = {SUITE: results.read(kept, ['a.b', 'a.c', 'a.d'])}
        judged = verdict.judge(29, tests, 'at ' + SECRET, True)
        made.add_logs()
        made.add_results(judged, record.make(
            29, tests, judged, {'cinder': '29.0.0'},
            {'commit': 'c0ffee', 'directories': {'cinder': 'abcd'},
             'changed': []}, 'the sandbox'), tests, self.streams)

    def test_no_secret_leaks(self):
        self.fill()
        # Streams are not compressed, so that this finds what is in them.
        with tarfile.open(self.bundle.pack()) as archive:
            files = {member.name: archive.extractfile(member).read()
                     for member in archive if member.isfile()}
        self.assertEqual(
            {'bundle/index.html', 'bundle/verdict.txt', 'bundle/record.yaml',
             'bundle/etc/cinder.conf', 'bundle/log/cinder-api.log',
             'bundle/log/rabbitmq/rabbit.log',
             'bundle/streams/api-thin.subunit'}, set(files))
        for name, content in files.items():
            for secret in (SECRET, OTHER):
                self.assertNotIn(secret.encode(), content, name)
        self.assertIn(b'for want of ***', files['bundle/index.html'])

    def test_leak_is_noticed(self):
        self.fill()
        self.bundle.path('log', 'other.txt').write_text('x' + OTHER)
        error = self.assertRaises(scrub.Leak, self.bundle.pack)
        self.assertIn('other.txt', str(error))
        self.assertEqual([], list(
            self.bundle.directory.parent.glob('*.tar.gz')))

    def test_streams_keep_what_counts(self):
        copy = self.streams / 'copy'
        scrub.stream(self.raw, copy, {SECRET, OTHER})
        self.assertEqual(
            [('a.b', 'passed', 2.0, ''),
             ('a.c', 'skipped', 2.0, 'for want of ***'),
             ('a.d', 'failed', 2.0, 'Traceback\n*** is wrong')],
            [(test.name, test.outcome, test.seconds, test.said)
             for test in results.read(copy, ['a.b', 'a.c', 'a.d'])])
