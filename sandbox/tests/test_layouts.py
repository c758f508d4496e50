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

"""Layouts, where the transcripts can't show them."""

import json
import os
import subprocess

from sandbox.tests import base


class LayoutTestCase(base.SandboxTestCase):

    def setUp(self):
        super().setUp()
        self.name = self.create('--pool', 'flash=0-1', '--pool', 'cap=2-3')
        self.top_of_fs = self.mount('%s:/%s' % (base.MGS, self.name))

    def lfs(self, *words, code=0):
        answer = base.run('cd %s; lfs %s' % (self.top_of_fs, ' '.join(words)))
        self.assertEqual(code, answer.code, answer.errors)
        return answer

    def osts(self, path):
        rows = self.lfs('getstripe', '-q', path).output.splitlines()[2:]
        return [int(row.split()[0]) for row in rows if row]

    def test_objects_are_in_the_pool(self):
        for number in range(4):
            path = 'f%d' % number
            self.lfs('setstripe', '-p', 'cap', '-c', '2', path)
            self.assertEqual([2, 3], sorted(self.osts(path)))

    def test_full_and_inactive_osts_get_no_objects(self):
        self.command('fault', self.name, 'ost-full=0', 'ost-inactive=3')
        self.lfs('setstripe', '-c', '-1', 'f')
        self.assertEqual([1, 2], sorted(self.osts('f')))
        self.command('fault', self.name, 'ost-full=1')
        errors = self.lfs('setstripe', '-p', 'flash', 'g', code=28).errors
        self.assertIn('No space left on device', errors)
        self.assertFalse(os.path.exists(os.path.join(self.top_of_fs, 'g')))

    def test_a_copy_has_no_layout_whatever_it_takes_along(self):
        self.lfs('setstripe', '-c', '3', 'f')
        base.run('cd %s; cp -a f g; mv f h' % self.top_of_fs)
        self.assertEqual(1, len(self.osts('g')))
        self.assertEqual(3, len(self.osts('h')))

    def test_what_is_open_is_migrated_only_with_blocking(self):
        path = os.path.join(self.top_of_fs, 'f')
        self.lfs('setstripe', '-p', 'flash', 'f')
        with open(path, 'r+b'):
            self.lfs('migrate', '-n', '-p', 'cap', 'f', code=16)
            self.assertIn(self.osts('f')[0], (0, 1))
            inode = os.stat(path).st_ino
            self.lfs('migrate', '-p', 'cap', 'f')
            self.assertIn(self.osts('f')[0], (2, 3))
            self.assertEqual(inode, os.stat(path).st_ino)
        self.lfs('migrate', '-n', '-p', 'flash', 'f')
        self.assertIn(self.osts('f')[0], (0, 1))

    def test_a_part_has_objects_when_the_file_reaches_it(self):
        self.lfs('setstripe', '-E', '64M', '-c', '1', '-E', '-1', '-c', '4',
                 'f')

        def flags():
            return [line.split()[1] for line
                    in self.lfs('getstripe', 'f').output.splitlines()
                    if 'lcme_flags' in line]
        self.assertEqual(['init', '0'], flags())
        base.run('truncate -s 1G %s/f' % self.top_of_fs)
        self.assertEqual(['init', 'init'], flags())

    def test_any_user_makes_files_where_it_may(self):
        directory = os.path.join(self.top_of_fs, 'mine')
        os.mkdir(directory)
        subprocess.run(['chown', 'nobody', directory], check=True)
        runuser = 'cd %s; runuser -u nobody -- ' % self.top_of_fs
        for words, code in (('setstripe -c 2 mine/f', 0),
                            ('setstripe -c 2 mine', 0),
                            ('setstripe -c 2 f', 13)):
            answer = base.run(runuser + 'lfs ' + words)
            self.assertEqual(code, answer.code, answer.errors)
        self.assertEqual(2, len(self.osts('mine/f')))

    def test_the_record_takes_no_block(self):
        self.lfs('setstripe', '-E', '1T', '-c', '1', '-E', '16T', '-c', '4',
                 '-E', '-1', '-c', '4', 'f')
        path = os.path.join(self.top_of_fs, 'f')
        self.assertEqual(0, os.stat(path).st_blocks)
        self.assertTrue(json.loads(os.getxattr(
            path, 'user.lustre-sandbox.layout')))
