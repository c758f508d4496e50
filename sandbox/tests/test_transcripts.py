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

"""Replays what was recorded on a real Lustre: same command, same answer.

The excerpts in transcripts/ are in the recorder's form. The file system's
name and the directories are replaced by the test's own before a command is
run; what can't be the same is masked on both sides: numbers, the identity of
a client, the columns' widths, and in the mount table the type and Lustre's
own options.
"""

import os
import re

from sandbox.tests import base

VISIBLE_OPTIONS = {'ro', 'rw', 'nosuid', 'nodev', 'noexec', 'noatime'}
# The recorder's file system was called lustre, as much else is.
FSNAME = re.compile(r'(?<![-\w])(?<!-t )(?<!mount\.)(?<!mkfs\.)(?<!fs/)lustre'
                    r'(?!\w|-sandbox| rw| ro)')
MASKS = (
    # Bash's own report of "time".
    (r'\n*real\t.*\nuser\t.*\nsys\t.*\n', '\n'),
    (r'ff11000[0-9a-f]{9}', 'CLIENT'),
    (r"'\d+/\d+' dev", "'DEVICE' dev"),
    (r'\b\d+(\.\d+)?[KMGT]?(?= +\d+(\.\d+)?[KMGT%]? )', 'NUMBER'),
    (r'\b[1-9]\d*%', 'PERCENT'),
    # The kernel wants a directory where a source ends in a slash.
    (r'(?m)^(\S+:/\S*)/ (/\S+) ', r'\1 \2 '),
    # Which OSTs an object is on, and its number there.
    (r'(?m)^(lmm_|      lmm_)stripe_offset: +\d+', r'\1stripe_offset: OST'),
    (r'(?m)^\t +\d+\t +\d+\t +0x\w+\t +0x\w+$', 'OBJECT'),
    (r'l_ost_idx: +\d+(, | *\n +)l_fid: +\S+', 'OBJECT'),
    # How long dd took, and when a file was made.
    (r'copied, .*', 'copied'),
    (r'(?m)[A-Z][a-z]{2} +\d+ \d\d:\d\d(?= \w+$)', 'DATE'),
    (r' +', ' '),
)


def entries(name):
    """The commands of a transcript, each with what was answered."""
    path = os.path.join(base.HERE, 'transcripts', name + '.txt')
    with open(path) as transcript:
        text = transcript.read()
    form = r'(?ms)^\$ (.*?)\n(.*?)(?:^\[stderr\]\n(.*?))?^\[exit (\d+)\]$'
    return re.findall(form, text)


def masked(text):
    text = re.sub(r'(?m)^(\S+ /\S+) (?:lustre|xfs) (\S+) 0 0$',
                  lambda m: '%s TYPE %s' % (m[1], _visible(m[2])), text)
    for pattern, mask in MASKS:
        text = re.sub(pattern, mask, text)
    return text.strip('\n')


def _visible(options):
    return sorted(VISIBLE_OPTIONS & set(options.split(',')))


class TranscriptTestCase(base.SandboxTestCase):

    def setUp(self):
        super().setUp()
        self.name = self.create('--mgs', '%s,mgs.example.com@tcp' % base.MGS)
        self.top_of_names = self.mount(
            '%s:/%s' % (base.MGS, self.name), self.name)
        for name in ('l2', 'l3', 'l4', 'l5', 'l6'):
            self.place(name)

    def ours(self, text):
        """A recorded text with the names of this test."""
        # The usage text mentions lustre and /mnt/lustre of its own accord.
        text, usage, rest = text.partition('\nusage: ')
        text = text.replace('/mnt/', self.top + '/')
        # In others' directories these few letters may turn up too.
        text = re.sub(r'grep (l\d+) ', r'grep %s/\1 ' % self.top, text)
        text = text.replace('runuser -u cinder', 'runuser -u nobody')
        return FSNAME.sub(self.name, text) + usage + rest

    def replay(self, transcript):
        for command, output, errors, code in entries(transcript):
            with self.subTest(command):
                answer = base.run(self.ours(command))
                self.assertEqual(
                    (masked(self.ours(output)), masked(self.ours(errors)),
                     int(code)),
                    (masked(answer.output), masked(answer.errors),
                     answer.code))

    def test_mounts(self):
        self.replay('mounts')

    def test_mount_errors(self):
        self.replay('mount-errors')

    def test_lfs(self):
        self.replay('lfs')

    def test_pools(self):
        self.replay('pools')

    def test_layouts(self):
        self.replay('layouts')

    def test_projects(self):
        self.replay('projects')
