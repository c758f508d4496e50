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

"""Share names and NIDs."""

import unittest

from sandbox import names


class NamesTestCase(unittest.TestCase):

    def test_parse(self):
        share = names.parse('10.0.0.1@tcp,10.1.0.1@o2ib:10.0.0.2@tcp:/s/a/b/')
        self.assertEqual(('10.0.0.1@tcp', '10.1.0.1@o2ib', '10.0.0.2@tcp'),
                         share.nids)
        self.assertEqual(('s', 'a/b'), (share.fsname, share.directory))

    def test_not_a_share(self):
        for source in '10.0.0.1@tcp', '10.0.0.1@tcp:', '/dev/vda', 'a:b':
            self.assertIsNone(names.parse(source))

    def test_a_bare_address_gains_its_network(self):
        self.assertEqual('10.0.0.1@tcp:mgs2:/lustre',
                         names.shown('10.0.0.1:mgs2:/lustre'))

    def test_tcp0_is_shown_as_tcp(self):
        self.assertEqual('10.0.0.1@tcp,10.0.0.2@o2ib1:mgs@tcp0:/lustre',
                         names.shown('10.0.0.1@tcp0,10.0.0.2@o2ib1:mgs@tcp0'
                                     ':/lustre'))

    def test_tcp0_is_tcp(self):
        self.assertEqual(names.spellings('10.0.0.1@tcp'),
                         names.spellings('10.0.0.1@tcp0'))
        self.assertNotEqual(names.spellings('10.0.0.1@tcp'),
                            names.spellings('10.0.0.1@tcp10'))

    def test_bad_network(self):
        for nid in 'h@nonet', 'h@tcpx', 'h@0':
            self.assertRaises(names.BadNID, names.network, nid)

    def test_a_known_host_needs_no_name_service(self):
        known = {'mgs.invalid@tcp'}
        self.assertIn('mgs.invalid@tcp', names.check('mgs.invalid', known))
        self.assertRaises(names.BadNID, names.check, 'else.invalid', known)
