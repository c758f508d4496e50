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

"""What of Gerrit's events is taken, and for what."""

import json

import ddt
from oslotest import base

from ci.gerrit import events
from ci.tests import fake_gerrit


@ddt.ddt
class EventsTestCase(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        self.filter = events.Filter(['openstack/cinder'], ['master'],
                                    fake_gerrit.USER, 'Lustre CI')

    def test_patch_set(self):
        found, again = self.filter.of_event(fake_gerrit.created(4711, 2))
        self.assertEqual('4711,2', str(found))
        self.assertEqual('refs/changes/11/4711/2', found.ref)
        self.assertFalse(again)

    def test_numbers_as_text(self):
        event = fake_gerrit.created(4711, 2)
        event['change']['number'] = '4711'
        event['patchSet']['number'] = '2'
        self.assertEqual(self.filter.of_event(fake_gerrit.created(4711, 2)),
                         self.filter.of_event(event))

    @ddt.data({'project': 'openstack/nova'}, {'branch': 'stable/2025.1'})
    def test_not_ours(self, where):
        self.assertEqual((None, False), self.filter.of_event(
            fake_gerrit.created(**where)))

    @ddt.data('recheck', 'Recheck', '  recheck', 'recheck bug 123',
              'It timed out.\n\nrecheck cinder-lustre-certify',
              'run-Lustre CI', 'run-lustre ci  ')
    def test_asks(self, comment):
        for event in (fake_gerrit.commented(comment),
                      fake_gerrit.commented_beside(comment)):
            found, again = self.filter.of_event(event)
            self.assertEqual('4711,1', str(found))
            self.assertTrue(again)

    @ddt.data('', 'LGTM', 'rechecked', 'please recheck', '> recheck',
              'run-Other CI', 'run-Lustre CI of course')
    def test_does_not_ask(self, comment):
        for event in (fake_gerrit.commented(comment),
                      fake_gerrit.commented_beside(comment)):
            self.assertEqual((None, False), self.filter.of_event(event))

    def test_vote_above_a_comment(self):
        event = fake_gerrit.commented('')
        event['comment'] = 'Patch Set 1: Code-Review-1\n\nrecheck'
        self.assertTrue(self.filter.of_event(event)[1])

    def test_own_comment(self):
        self.assertEqual((None, False), self.filter.of_event(
            fake_gerrit.commented('recheck', author=fake_gerrit.USER)))

    @ddt.data(
        ('change', 'number', '4711; reboot'), ('change', 'number', -1),
        ('change', 'number', None), ('change', 'number', True),
        ('change', 'project', ['openstack/cinder']),
        ('change', 'branch', None),
        ('patchSet', 'number', '1 --submit'),
        ('patchSet', 'ref', 'refs/changes/11/4711/1 --upload-pack=reboot'),
        ('patchSet', 'ref', 'refs/heads/master'),
        ('patchSet', 'ref', 'refs/changes/11/4711/2'),
        ('patchSet', 'revision', 'HEAD'),
        ('patchSet', 'revision', '--output=/etc/passwd'),
        ('patchSet', 'revision', 'a' * 40 + '\n'))
    @ddt.unpack
    def test_malformed(self, where, key, value):
        event = fake_gerrit.created()
        event[where][key] = value
        self.assertRaises(events.Malformed, self.filter.of_event, event)
        del event[where][key]
        self.assertRaises(events.Malformed, self.filter.of_event, event)
        event[where] = value
        self.assertRaises(events.Malformed, self.filter.of_event, event)

    @ddt.data(b'', b'{', b'[]', b'null', b'"recheck"', b'\xff',
              b'[' * 100000)
    def test_not_an_event(self, line):
        self.assertRaises(events.Malformed, events.parse, line)

    @ddt.data({}, {'type': 'ref-updated'}, {'type': ['patchset-created']},
              {'type': 'comment-added'},
              {'type': 'comment-added', 'comment': 1, 'author': 2},
              {'type': 'comment-added', 'patchSetComments': [1]},
              {'type': 'comment-added', 'patchSetComments': {
                  '/PATCHSET_LEVEL': [1, {}, {'message': 2}]}})
    def test_other_events(self, event):
        self.assertEqual((None, False), self.filter.of_event(
            events.parse(json.dumps(event).encode())))

    def test_query(self):
        self.assertEqual('4711,3', str(self.filter.of_query(
            fake_gerrit.open_change(4711, 3))))
        self.assertIsNone(self.filter.of_query(
            fake_gerrit.open_change(project='openstack/nova')))
        self.assertIsNone(self.filter.of_query({'type': 'stats'}))
