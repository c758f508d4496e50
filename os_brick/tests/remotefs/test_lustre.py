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

import io
import os
import string
import subprocess
import sys
import threading
from unittest import mock

import ddt
import hypothesis
from hypothesis import strategies

from os_brick.remotefs import lustre
from os_brick.remotefs import lustre_child
from os_brick.remotefs import lustre_guard
from os_brick.remotefs import remotefs
from os_brick.tests import base

# As recorded on a node that is client and server; /proc/self/mountinfo.
_OPTIONS = ('rw,flock,checksum,encrypt,lazystatfs,lruresize,nolock,'
            'statfs_project,nosync_on_close,nouser_fid2path,nouser_xattr,'
            'verbose')
_MOUNTINFO = r"""
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
33 25 0:27 / /mnt/mdt rw - lustre /dev/vdb rw,svname=lustre-MDT0000,mgs,osd=osd-ldiskfs,user_xattr,errors=remount-ro
35 25 0:28 / /mnt/ost0 rw - lustre /dev/vdc rw,svname=lustre-OST0000,mgsnode=10.0.2.15@tcp,osd=osd-ldiskfs,errors=remount-ro
42 25 1273:181606 / /mnt/lustre rw - lustre 10.0.2.15@tcp:/lustre %(o)s
44 25 1273:181606 / /mnt/l3 rw - lustre 10.0.2.15@tcp:/lustre/cinder %(o)s
45 25 1273:181606 / /mnt/l4 rw shared:7 master:1 - lustre 10.0.2.99@tcp:10.0.2.15@tcp:/lustre %(o)s
46 25 1273:181606 / /mnt/l5 rw - lustre mgs.example.com@tcp:/lustre %(o)s
47 25 1273:181606 / /mnt/l6 rw - lustre mgs.example.com:/lustre %(o)s
50 25 1273:181606 / /mnt/two\040words rw - lustre 10.0.2.15@tcp:/lustre/two\040words %(o)s
51 44 0:44 / /mnt/l3 rw - tmpfs tmpfs rw
""".lstrip() % {'o': _OPTIONS}  # noqa: E501

# The same examples each time, however long they take.
_SETTINGS = hypothesis.settings(deadline=None, derandomize=True)

_HOLD_LOCK = """
import fcntl
import sys
with open(sys.argv[1], 'a') as f:
    fcntl.lockf(f, fcntl.LOCK_EX)
    print(flush=True)
    sys.stdin.read()
"""

_LUSTRE_MAGIC = 0x0BD00BD0


class Kernel:
    """A mount table, mount(8) and statfs(2)."""

    def __init__(self, **kwargs):
        self.table = {}
        self.mounted = []
        # What mount answers, one after the other; success when used up.
        self.answers = []
        self.magic = _LUSTRE_MAGIC
        self.fs_type = 'lustre'

    def mount(self, source, mount_point, options, timeout):
        self.mounted.append((source, mount_point, options))
        code, error = self.answers.pop(0) if self.answers else (0, '')
        if code == 0:
            self.add(mount_point, source)
        return code, error

    def unmount(self, mount_point, timeout):
        if self.answers:
            return self.answers.pop(0)
        del self.table[mount_point]
        return 0, ''

    def add(self, mount_point, source):
        self.table[mount_point] = lustre.Mount(mount_point, self.fs_type,
                                               source)

    def call(self, share, function, *args, timeout):
        """Stands in for Guard.call."""
        assert function is lustre_child.statfs
        assert args[0] in self.table
        return self.magic, 1000, 600


@ddt.ddt
class ShareNameTestCase(base.TestCase):

    @ddt.data(
        ('10.0.2.15@tcp:/lustre', '10.0.2.15@tcp', 'lustre', ''),
        ('10.0.2.15@tcp0:/lustre', '10.0.2.15@tcp0', 'lustre', ''),
        ('10.0.2.15:/lustre', '10.0.2.15', 'lustre', ''),
        ('10.0.2.15@tcp:/lustre/', '10.0.2.15@tcp', 'lustre', ''),
        ('10.0.2.15@tcp:/lustre/cinder', '10.0.2.15@tcp', 'lustre',
         'cinder'),
        ('10.0.2.15@tcp:/lustre/cinder/sub/', '10.0.2.15@tcp', 'lustre',
         'cinder/sub'),
        ('10.0.2.99@tcp:10.0.2.15@tcp:/lustre',
         '10.0.2.99@tcp:10.0.2.15@tcp', 'lustre', ''),
        ('10.0.2.15@tcp,10.0.2.16@tcp:/lustre',
         '10.0.2.15@tcp,10.0.2.16@tcp', 'lustre', ''),
        ('10.0.0.1@tcp,10.0.1.1@o2ib:10.0.0.2@tcp:/scratch/cinder',
         '10.0.0.1@tcp,10.0.1.1@o2ib:10.0.0.2@tcp', 'scratch', 'cinder'),
        ('mgs.example.com@tcp:/lustre', 'mgs.example.com@tcp', 'lustre', ''),
        ('mgs.example.com:/lustre', 'mgs.example.com', 'lustre', ''),
        ('mgs-01_a@o2ib1:/l-1_x', 'mgs-01_a@o2ib1', 'l-1_x', ''),
        ('fe80::1@tcp:/lustre', 'fe80::1@tcp', 'lustre', ''),
        ('12345@gni:/lustre', '12345@gni', 'lustre', ''),
        ('mgs@tcp:/lustre/...', 'mgs@tcp', 'lustre', '...'),
        ('mgs@tcp:/lustre/a@b#c,d:e', 'mgs@tcp', 'lustre', 'a@b#c,d:e'),
        (r'mgs@tcp:/lustre/two\040words', 'mgs@tcp', 'lustre', 'two words'),
    )
    @ddt.unpack
    def test_good(self, text, mgs, fsname, directory):
        self.assertEqual(lustre.Share(mgs, fsname, directory),
                         lustre.Share.parse(text))

    @ddt.data(
        ('', 'expected a share'),
        (' ', 'expected a share'),
        ('10.0.2.15@tcp', "there is no ':/'"),
        ('10.0.2.15@tcp:lustre', "there is no ':/'"),
        ('/lustre', "there is no ':/'"),
        ('10.0.2.15@tcp:', "there is no ':/'"),
        (':/lustre', "'' is not a list of NIDs"),
        ('10.0.2.15@:/lustre', "not a list of NIDs"),
        ('@tcp:/lustre', "not a list of NIDs"),
        ('10.0.2.15@tcp,:/lustre', "not a list of NIDs"),
        (',10.0.2.15@tcp:/lustre', "not a list of NIDs"),
        ('10.0.2.15@tcp::/lustre', "not a list of NIDs"),
        ('10.0.2.15@9tcp:/lustre', "not a list of NIDs"),
        ('10.0.2.15@tcp;10.0.2.16@tcp:/lustre', "not a list of NIDs"),
        ('mgs@tcp@tcp:/lustre', "not a list of NIDs"),
        ('-o@tcp:/lustre', "not a list of NIDs"),
        (r'mgs\040b@tcp:/lustre', "not a list of NIDs"),
        ('mgs/b@tcp:/lustre', "not a list of NIDs"),
        ('10.0.2.15@tcp:/', "'' is not a file system's name"),
        ('10.0.2.15@tcp://lustre', "'' is not a file system's name"),
        ('10.0.2.15@tcp:/ninechars', "is not a file system's name"),
        ('10.0.2.15@tcp:/lu.tre', "is not a file system's name"),
        ('10.0.2.15@tcp:/..', "is not a file system's name"),
        ('10.0.2.15@tcp:/lustre/../etc', "no empty part, '.' or '..'"),
        ('10.0.2.15@tcp:/lustre/a/..', "no empty part, '.' or '..'"),
        ('10.0.2.15@tcp:/lustre/./a', "no empty part, '.' or '..'"),
        ('10.0.2.15@tcp:/lustre/a//b', "no empty part, '.' or '..'"),
        ('10.0.2.15@tcp:/lustre//a', "no empty part, '.' or '..'"),
        ('10.0.2.15@tcp:/lustre flock', "'-o' and mount options"),
        ('10.0.2.15@tcp:/lustre -o', "'-o' and mount options"),
        ('10.0.2.15@tcp:/lustre -o flock ro', "'-o' and mount options"),
        ('10.0.2.15@tcp:/lustre --o flock', "'-o' and mount options"),
    )
    @ddt.unpack
    def test_bad(self, text, reason):
        error = self.assertRaises(lustre.InvalidShare, lustre.Share.parse,
                                  text)
        self.assertIn(reason, str(error))
        self.assertIn(text.partition(' ')[0].replace(r'\040', ' '),
                      str(error))

    def test_own_mount_options(self):
        share = lustre.Share.parse(
            '10.0.2.15@tcp:/lustre/cinder   -o flock,noatime\n')
        self.assertEqual('flock,noatime', share.options)
        self.assertEqual('10.0.2.15@tcp:/lustre/cinder', share.name)

    @ddt.data('noflock', 'localflock', 'user_xattr,localflock',
              'noflock,flock')
    def test_mount_options_without_locks(self, options):
        for refuses in (
                lambda: lustre.Share.parse('mgs@tcp:/lustre -o ' + options),
                lambda: lustre.check_mount_options(options),
                lambda: lustre.ShareClient('/mnt', None, options)):
            error = self.assertRaises(lustre.InvalidMountOptions, refuses)
            self.assertIn(options, str(error))
            self.assertIn("need 'flock'", str(error))

    @ddt.data(None, '', 'flock', 'flock,user_xattr', 'ro',
              'flock,user_xattr,lazystatfs,noatime,nodev,nosuid,noexec')
    def test_mount_options_with_locks(self, options):
        self.assertIsNone(lustre.check_mount_options(options))

    _NID = strategies.from_regex(
        r'[a-z0-9]([a-z0-9.-]{0,10}[a-z0-9])?(@[a-z]{1,4}[0-9]{0,2})?',
        fullmatch=True)
    _PART = strategies.text(
        strategies.characters(exclude_categories=['C', 'Z'],
                              exclude_characters='/\\') |
        strategies.just(' '),
        min_size=1).filter(lambda part: part not in ('.', '..'))

    @_SETTINGS
    @hypothesis.given(
        strategies.lists(strategies.lists(_NID, min_size=1, max_size=3),
                         min_size=1, max_size=3),
        strategies.text(string.ascii_letters + string.digits + '_-',
                        min_size=1, max_size=8),
        strategies.lists(_PART, max_size=3))
    def test_round_trip(self, servers, fsname, parts):
        name = '%s:/%s' % (':'.join(','.join(nids) for nids in servers),
                           '/'.join([fsname] + parts))
        share = lustre.Share.parse(name.replace(' ', r'\040'))
        self.assertEqual(name, share.name)
        self.assertEqual(name, str(share))
        self.assertEqual(fsname, share.fsname)
        self.assertEqual('/'.join(parts), share.directory)
        self.assertTrue(share.is_source(name, 'flock'))

    @_SETTINGS
    @hypothesis.given(strategies.text())
    def test_no_text_is_mistaken(self, text):
        try:
            share = lustre.Share.parse(text)
        except (lustre.InvalidShare, lustre.InvalidMountOptions):
            return
        self.assertEqual(share.name, lustre.Share.parse(
            share.name.replace(' ', r'\040')).name)


@ddt.ddt
class ShareSourceTestCase(base.TestCase):

    @ddt.data(
        # As it was given to mount, and as the mount table shows it.
        ('10.0.2.15@tcp0:/lustre', '10.0.2.15@tcp:/lustre'),
        ('10.0.2.15:/lustre', '10.0.2.15@tcp:/lustre'),
        ('10.0.2.15@tcp:/lustre/', '10.0.2.15@tcp:/lustre/'),
        ('10.0.2.15@tcp:/lustre/cinder/sub/',
         '10.0.2.15@tcp:/lustre/cinder/sub/'),
        ('10.0.2.99@tcp:10.0.2.15@tcp:/lustre',
         '10.0.2.99@tcp:10.0.2.15@tcp:/lustre'),
        ('10.0.2.15@tcp,10.0.2.16@tcp:/lustre',
         '10.0.2.15@tcp,10.0.2.16@tcp:/lustre'),
        ('mgs.example.com@tcp:/lustre', 'mgs.example.com@tcp:/lustre'),
        ('mgs.example.com:/lustre', 'mgs.example.com:/lustre'),
        # The same, mounted by someone who spelt it otherwise.
        ('10.0.2.15@tcp:/lustre', '10.0.2.15@tcp0:/lustre'),
        ('10.0.2.15@o2ib:/lustre', '10.0.2.15@o2ib0:/lustre'),
        ('10.0.2.15@tcp:/lustre', '10.0.2.15@tcp:/lustre/'),
    )
    @ddt.unpack
    def test_same(self, name, source):
        self.assertTrue(lustre.Share.parse(name).is_source(source, ''))

    @ddt.data(
        '10.0.2.16@tcp:/lustre', '10.0.2.15@tcp1:/lustre',
        '10.0.2.15@tcp10:/lustre', '10.0.2.15@o2ib:/lustre',
        '10.0.2.15@tcp:/lustre2', '10.0.2.15@tcp:/lustre/cinder',
        '10.0.2.15@tcp:10.0.2.15@tcp:/lustre', '/dev/vdb', 'tmpfs', '',
        '10.0.2.15@tcp:/', ':/lustre')
    def test_other(self, source):
        share = lustre.Share.parse('10.0.2.15@tcp:/lustre')
        self.assertFalse(share.is_source(source, 'flock'))

    @ddt.data(('flock,mgsname=mgs.example.com', True),
              ('mgsname=mgs.example.com', True),
              ('flock', False),
              ('flock,mgsname=mgs', False),
              ('flock,xmgsname=mgs.example.com', False))
    @ddt.unpack
    def test_name_of_the_mgs_by_mount_option(self, options, same):
        share = lustre.Share.parse('10.0.2.15@tcp:/lustre')
        self.assertEqual(same, share.is_source(
            'mgs.example.com@tcp:/lustre', options))

    def test_path_stays_when_the_mgs_list_changes(self):
        self.assertEqual(
            lustre.Share.parse('10.0.2.15@tcp:/lustre/cinder').path,
            lustre.Share.parse('mgs1@o2ib,mgs1@tcp:mgs2:/lustre/cinder/').path)


class MountTableTestCase(base.TestCase):

    def setUp(self):
        super().setUp()
        self.useFixture(base.fixtures.MonkeyPatch(
            'os_brick.remotefs.lustre.open', self._open))

    @staticmethod
    def _open(path, errors):
        # The third mount is not ours, and its name no UTF-8.
        return io.TextIOWrapper(io.BytesIO(
            _MOUNTINFO.encode().replace(b'ost0', b'ost\xff')), 'utf-8',
            errors)

    def test_share(self):
        self.assertEqual(
            lustre.Mount('/mnt/lustre', 'lustre', '10.0.2.15@tcp:/lustre'),
            lustre.mounted_at('/mnt/lustre'))

    def test_optional_fields(self):
        self.assertEqual('10.0.2.99@tcp:10.0.2.15@tcp:/lustre',
                         lustre.mounted_at('/mnt/l4').source)

    def test_the_last_one_counts(self):
        self.assertEqual('tmpfs', lustre.mounted_at('/mnt/l3').fs_type)

    def test_spaces(self):
        self.assertEqual(
            lustre.Mount('/mnt/two words', 'lustre',
                         '10.0.2.15@tcp:/lustre/two words'),
            lustre.mounted_at('/mnt/two words'))
        share = lustre.Share.parse(r'10.0.2.15@tcp:/lustre/two\040words')
        self.assertTrue(share.is_source(
            lustre.mounted_at('/mnt/two words').source, ''))

    def test_nothing(self):
        for mount_point in '/mnt', '/mnt/lustre/', '/mnt/lustr', '/mnt/two':
            self.assertIsNone(lustre.mounted_at(mount_point))

    def test_targets_of_a_server_are_no_share(self):
        mount = lustre.mounted_at('/mnt/mdt')
        self.assertEqual('lustre', mount.fs_type)
        self.assertFalse(lustre.Share.parse(
            '10.0.2.15@tcp:/lustre').is_source(mount.source, ''))

    def test_the_real_one(self):
        with mock.patch.object(lustre, 'open', open):
            self.assertEqual('proc', lustre.mounted_at('/proc').fs_type)
            self.assertIsNone(lustre.mounted_at('/proc/self'))


@ddt.ddt
class ShareClientTestCase(base.TestCase):

    def setUp(self):
        super().setUp()
        self.base = self.useFixture(base.fixtures.TempDir()).path
        self.kernel = Kernel()
        for where, name, new in (
                (lustre, 'mounted_at', self.kernel.table.get),
                (lustre_guard.Guard, 'call', self.kernel.call)):
            self.useFixture(base.fixtures.MockPatchObject(where, name, new))
        # Between attempts to mount.
        self.sleep = self.useFixture(base.fixtures.MockPatch(
            'time.sleep')).mock
        self.share = lustre.Share.parse('10.0.2.15@tcp:/lustre/cinder')
        self.client = self.new_client()
        self.mount_point = self.client.mount_point(self.share)

    def new_client(self, **kwargs):
        return lustre.ShareClient(self.base, self.kernel, **kwargs)

    def assert_unavailable(self, reason, function, *args,
                           error_class=lustre.ShareUnavailable):
        error = self.assertRaises(error_class, function, *args)
        self.assertIn(self.share.name, str(error))
        self.assertIn(reason, str(error))

    def test_mount_point_is_that_of_os_brick_s_own_client(self):
        stock = remotefs.RemoteFsClient('nfs', 'sudo',
                                        nfs_mount_point_base=self.base)
        self.assertEqual(stock.get_mount_point(self.share.name),
                         self.mount_point)

    def test_mount_point_base_is_resolved(self):
        os.mkdir(os.path.join(self.base, 'real'))
        os.symlink('real', os.path.join(self.base, 'link'))
        client = lustre.ShareClient(os.path.join(self.base, 'link'), None)
        self.assertEqual(os.path.join(self.base, 'real'),
                         client.mount_point_base)

    # Mounting

    def test_mount(self):
        self.assertEqual((1000, 600), self.client.ensure_mounted(self.share))
        self.assertEqual([(self.share.name, self.mount_point, 'flock')],
                         self.kernel.mounted)
        self.assertTrue(os.path.isdir(self.mount_point))

    def test_mount_once(self):
        self.client.ensure_mounted(self.share)
        self.client.ensure_mounted(self.share)
        self.assertEqual(1, len(self.kernel.mounted))

    def test_mount_with_a_share_s_own_options(self):
        share = lustre.Share.parse('mgs@tcp:/lustre -o flock,noatime')
        self.client.ensure_mounted(share)
        self.assertEqual('flock,noatime', self.kernel.mounted[0][2])

    def test_mount_with_the_backend_s_options(self):
        self.new_client(options='flock,ro').ensure_mounted(self.share)
        self.assertEqual('flock,ro', self.kernel.mounted[0][2])

    def test_mount_again_when_it_fails(self):
        self.kernel.answers = [(110, 'Connection timed out')] * 2
        self.client.ensure_mounted(self.share)
        self.assertEqual(3, len(self.kernel.mounted))

    @ddt.data(
        (2, 'mount.lustre: mount 10.0.2.15@tcp:/nosuch at /mnt/l2 failed: '
            'No such file or directory'),
        (19, 'mount.lustre: 10.0.2.15@tcp has not been formatted with '
             'mkfs.lustre'),
        (22, "mount.lustre: Can't parse NID 'nohost.invalid@tcp'"),
        (110, 'Connection timed out'),
        (32, ''))
    def test_mount_fails(self, answer):
        self.kernel.answers = [answer] * 3
        self.assert_unavailable(answer[1], self.client.ensure_mounted,
                                self.share)
        self.assertEqual(3, len(self.kernel.mounted))

    def test_mount_attempts(self):
        self.kernel.answers = [(2, '')] * 9
        self.assert_unavailable(
            '', self.new_client(attempts=1).ensure_mounted, self.share)
        self.assertEqual(1, len(self.kernel.mounted))

    def test_mount_that_waits_is_not_tried_again(self):
        self.kernel.answers = [(None, '')]
        self.assert_unavailable(
            'has not returned within 60 s', self.client.ensure_mounted,
            self.share, error_class=lustre_guard.ShareHung)
        self.assertEqual(1, len(self.kernel.mounted))

    def test_another_process_mounts_it_meanwhile(self):
        # 17: already mounted, as mount says when another one was faster.
        self.kernel.answers = [(17, 'is already mounted')]
        self.sleep.side_effect = lambda _seconds: self.kernel.add(
            self.mount_point, self.share.name)
        self.client.ensure_mounted(self.share)
        self.assertEqual(1, len(self.kernel.mounted))

    def test_one_mount_at_a_time_on_a_host(self):
        real_mount, running = self.kernel.mount, []

        def mount(*args):
            running.append(args)
            self.assertEqual(1, len(running))
            threading.Event().wait(0.1)
            running.pop()
            return real_mount(*args)

        self.kernel.mount = mount
        failures = []

        def ensure(client):
            try:
                client.ensure_mounted(self.share)
            except BaseException as exc:
                failures.append(exc)

        threads = [threading.Thread(target=ensure, args=(self.new_client(),))
                   for _n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual([], failures)
        self.assertEqual(1, len(self.kernel.mounted))

    def test_wait_for_another_thread_has_an_end(self):
        client = self.new_client(mount_timeout=0.2)
        with self.new_client()._host_lock(self.share):
            self._test_wait_has_an_end(client)

    def test_wait_for_another_process_has_an_end(self):
        client = self.new_client(mount_timeout=0.2)
        lock = client._host_lock(self.share)
        with lock:
            lock_file = lock._locks[1].path.decode()
        with subprocess.Popen(
                [sys.executable, '-c', _HOLD_LOCK, lock_file],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            holder.stdout.readline()
            self._test_wait_has_an_end(client)
            holder.stdin.close()
        client.ensure_mounted(self.share)

    def _test_wait_has_an_end(self, client):
        self.assert_unavailable(
            'another process has been mounting it', client.ensure_mounted,
            self.share, error_class=lustre_guard.ShareHung)
        self.assertEqual([], self.kernel.mounted)

    # What is mounted

    def test_not_mounted(self):
        self.assert_unavailable('it is not mounted at ' + self.mount_point,
                                self.client.check, self.share)

    @ddt.data(('nfs4', '10.0.2.15:/lustre/cinder', 'has the type nfs4'),
              ('ext4', '/dev/vda1', 'has the type ext4, not lustre'),
              ('lustre', '/dev/vdb', 'is /dev/vdb'),
              ('lustre', '10.0.2.15@tcp:/lustre', 'is 10.0.2.15@tcp:/lustre'),
              ('lustre', '10.0.2.16@tcp:/lustre/cinder', 'is 10.0.2.16'))
    @ddt.unpack
    def test_something_else_is_mounted(self, fs_type, source, reason):
        self.kernel.fs_type = fs_type
        self.kernel.add(self.mount_point, source)
        self.assert_unavailable(reason, self.client.ensure_mounted,
                                self.share)
        self.assertEqual([], self.kernel.mounted)

    def test_something_that_calls_itself_lustre(self):
        self.kernel.add(self.mount_point, self.share.name)
        self.kernel.magic = 0xEF53
        self.assert_unavailable(
            'magic number 0x0000EF53, not 0x0BD00BD0',
            self.client.check, self.share)

    def test_other_types_for_tests(self):
        self.kernel.fs_type, self.kernel.magic = 'xfs', 0x58465342
        client = self.new_client(fs_types=['lustre', 'xfs'])
        self.assertEqual((1000, 600), client.ensure_mounted(self.share))

    def test_it_goes_while_it_is_looked_at(self):
        def call(*args, **kwargs):
            self.kernel.table.clear()
            return 0xEF53, 1000, 600

        self.kernel.add(self.mount_point, self.share.name)
        with mock.patch.object(lustre_guard.Guard, 'call', call):
            self.assert_unavailable('magic number', self.client.check,
                                    self.share)

    def test_what_another_process_has_mounted_meanwhile_is_not_looked_at(self):
        """It may hang, and this thread is the service's."""
        os.makedirs(self.mount_point)
        with mock.patch.object(os.path, 'isdir', wraps=os.path.isdir) as isdir:
            self.client.ensure_mounted(self.share)
        self.assertNotIn(mock.call(self.mount_point), isdir.mock_calls)

    # Calls

    def test_a_call_from_one_share_to_another_counts_against_neither(self):
        other = lustre.Share.parse('10.0.2.15@tcp:/scratch')
        with mock.patch.object(lustre_guard.Guard, 'call') as call:
            for source in (None, self.share, other):
                self.client.call(self.share, len, source=source)
        self.assertEqual(
            [self.share.name, self.share.name,
             '%s (or %s, its source)' % (self.share, other)],
            [args[0] for args, _kwargs in call.call_args_list])

    # Unmounting

    def test_unmount(self):
        self.client.ensure_mounted(self.share)
        self.client.unmount(self.share)
        self.assertEqual({}, self.kernel.table)

    def test_unmount_what_is_not_mounted(self):
        self.kernel.answers = [(32, 'not mounted')]
        self.client.unmount(self.share)

    def test_unmount_in_use(self):
        self.client.ensure_mounted(self.share)
        self.kernel.answers = [(32, 'umount: target is busy.')]
        self.assert_unavailable('target is busy', self.client.unmount,
                                self.share)
