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

import types
from unittest import mock

import ddt
from oslotest import base

from cinder.lustre import projects
from cinder.lustre import rates


@ddt.ddt
class RatesTestCase(base.BaseTestCase):

    @ddt.data(
        ({}, None),
        ({'total_iops_sec': '500'}, 500),
        ({'total_iops_sec': '0'}, None),
        ({'total_bytes_sec': '500'}, None),
        ({'read_iops_sec': '100', 'write_iops_sec': '50'}, 150),
        ({'read_iops_sec': '100'}, None),
        ({'total_iops_sec_per_gb': '10'}, 40),
        ({'total_iops_sec_per_gb': '10', 'total_iops_sec_per_gb_min': '100'},
         100),
        ({'total_iops_sec_per_gb': '10', 'total_iops_sec_max': '30'}, 30))
    @ddt.unpack
    def test_rate(self, specs, expected):
        self.assertEqual(expected, rates.rate(specs, 4))

    def test_who_shares_a_project_shares_its_rate(self):
        volumes = [(types.SimpleNamespace(id=name, size=1, iops=iops), project)
                   for name, project, iops in (
                       ('a', 9, '10'), ('b', 8, '20'), ('c', 9, '5'),
                       # They can't be told apart, and one has no limit.
                       ('d', 7, '10'), ('e', 7, '0'))]
        with mock.patch.object(rates, '_specs', side_effect=lambda volume: {
                'total_iops_sec': volume.iops}):
            lines = [line for line in rates.commands(volumes)
                     if not line.startswith('#') or len(line) < 10]
        rule = 'lctl set_param ost.OSS.ost_io.nrs_tbf_rule="start %s"'
        self.assertEqual(
            ['lctl set_param ost.OSS.ost_io.nrs_policies="tbf projid"',
             '# b', rule % 'vol8 projid={8} rate=20',
             '# a c', rule % 'vol9 projid={9} rate=15'], lines)

    def test_the_longest_name(self):
        # MAX_TBF_NAME is 16 with the zero at its end.
        self.assertLess(len('vol%d' % projects.LAST), 16)


class UsageTestCase(base.BaseTestCase):
    """What lfs quota prints: 09-migrate-mirror-quota of a real Lustre."""

    def usage(self, output, code=0):
        place = types.SimpleNamespace(directory='/mnt', share='share')
        with mock.patch.object(projects.layout, 'lfs',
                               return_value=(code, output, '')):
            return projects._usage(place, 5)

    def test_rows(self):
        self.assertEqual((3, 204800), self.usage(
            '    /mnt/lustre   65544  153600  204800       -       3       0  '
            '  1000       - \n'))
        self.assertEqual((4, 204800), self.usage(
            '    /mnt/lustre 372748*  153600  204800       -      4*       0  '
            '  1000       - \n'))
        # lfs breaks the line after a long name.
        self.assertEqual((0, 0), self.usage(
            '/var/lib/cinder/mnt/0123456789\n'
            '                      0       0       0       -       0       0  '
            '     0       - \n'))

    def test_what_is_not_sure(self):
        for output in ('', '    /mnt/lustre [65544]  153600  204800       -   '
                           '    [3]       0    1000       - \n'):
            self.assertRaises(projects.exception.VolumeDriverException,
                              self.usage, output)
