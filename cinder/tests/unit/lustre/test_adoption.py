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

"""Tests of what may become a volume, and what is said of what may not."""

import os
from unittest import mock
import uuid

import ddt
from oslo_utils import units
from oslotest import base

from cinder import exception
from cinder.lustre import adoption
from cinder.lustre import images
from cinder.lustre import places
from cinder.tests.unit.lustre import fakes
from os_brick.remotefs import lustre as lustre_brick

ID = str(uuid.UUID(int=1))


@ddt.ddt
class SplitTestCase(base.BaseTestCase):

    @ddt.data(
        ({'source-name': 'disk.img'}, (None, 'disk.img', None)),
        ({'source-name': 'disk.img', 'format': 'raw'},
         (None, 'disk.img', 'raw')),
        ({'source-name': 'mgs@tcp:/lustre/cinder/disk.img'},
         ('mgs@tcp:/lustre/cinder', 'disk.img', None)))
    @ddt.unpack
    def test_split(self, reference, expected):
        self.assertEqual(expected, adoption.split(reference))

    @ddt.data({}, {'source-name': ''}, {'source-name': 'a/'},
              {'source-name': '..'}, {'source-name': 'a/.'},
              {'source-name': 'a\nb'},
              {'source-name': 'a', 'format': 'vmdk'},
              {'source-name': 'volume-x.info'},
              {'source-name': 'volume-x.new'},
              {'source-name': 'volume-x.info.new'},
              {'source-name': 'volume-x.' + ID},
              {'source-name': lustre_brick.LOCK_FILE})
    def test_refused(self, reference):
        self.assertRaises(exception.ManageExistingInvalidReference,
                          adoption.split, reference)

    @ddt.data((True, []), (False, ['migrated']))
    @ddt.unpack
    def test_managed(self, by_id, by_name_id):
        with mock.patch('cinder.volume.volume_utils.'
                        'check_already_managed_volume', lambda _id: by_id), \
                mock.patch('cinder.objects.VolumeList.get_all',
                           lambda context, filters: by_name_id):
            self.assertRaises(
                exception.ManageExistingAlreadyManaged, adoption.split,
                {'source-name': 'volume-' + ID})


@ddt.ddt
class CandidateTestCase(base.BaseTestCase):

    def setUp(self):
        super().setUp()
        self.lustre = self.useFixture(fakes.FakeLustre())
        self.share = lustre_brick.Share.parse('mgs@tcp:/lustre/cinder')
        client = self.lustre.client()
        client.ensure_mounted(self.share)
        self.place = places.Place(self.share, client, self.lustre, 0o660)

    def put(self, content, name='disk.img'):
        with open(os.path.join(self.place.directory, name), 'wb') as f:
            f.write(content)

    def candidate(self, image_format=None):
        return adoption.candidate(self.place, {}, 'disk.img', image_format,
                                  images.THIN).active()

    def assert_refused(self, reason, **kwargs):
        error = self.assertRaises(exception.ManageExistingInvalidReference,
                                  self.candidate, **kwargs)
        self.assertIn(reason, str(error))

    def test_raw(self):
        self.put(b'guest' * fakes.KIB)
        self.assertEqual(('raw', 5 * fakes.KIB), (
            self.candidate().format, self.candidate().virtual_size))

    def test_qcow2(self):
        fakes.qemu_img('create', '-q', '-f', 'qcow2', os.path.join(
            self.place.directory, 'disk.img'), '3M')
        self.assertEqual(('qcow2', 3 * fakes.MIB), (
            self.candidate().format, self.candidate().virtual_size))
        self.assertEqual('raw', self.candidate(image_format='raw').format)

    @ddt.data(
        (fakes.qcow2_header(backing='/etc/passwd', backing_format='raw'),
         "'/etc/passwd' is not a file of"),
        (fakes.qcow2_header(incompatible=1 << 2), 'data in another file'),
        (b'KDMV' + bytes(508), 'vmdk'),
        (b'LUKS\xba\xbe\0\1' + bytes(592), 'luks'))
    @ddt.unpack
    def test_refused(self, content, reason):
        self.put(content)
        self.assert_refused(reason)
        self.assertEqual('raw', self.candidate(image_format='raw').format)

    def test_named_qcow2_but_is_not(self):
        self.put(b'guest')
        self.assert_refused('but is not', image_format='qcow2')

    def test_missing(self):
        self.assert_refused('disk.img')

    def test_list(self):
        volume = mock.Mock(id=ID, size=7)
        self.put(b'guest', 'a.img')
        for name in ('volume-' + ID, 'volume-%s.info' % ID,
                     lustre_brick.LOCK_FILE):
            self.put(b'', name)
        found = {entry['reference']['source-name'].rpartition('/')[2]:
                 (entry['size'], entry['safe_to_manage'], entry['cinder_id'])
                 for entry in adoption.volumes(self.place,
                                               {'volume-' + ID: volume})}
        self.assertEqual({'a.img': (1, True, None),
                          'volume-' + ID: (7, False, ID)}, found)


@ddt.ddt
class GibibytesTestCase(base.BaseTestCase):

    @ddt.data((1, 1), (units.Gi, 1), (units.Gi + 1, 2))
    @ddt.unpack
    def test_gibibytes(self, size, expected):
        self.assertEqual(expected, adoption.gibibytes(size))
