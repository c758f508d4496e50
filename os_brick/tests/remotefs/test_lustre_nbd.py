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
import random
import shutil
import socket
import struct
import subprocess
import threading
import time
import unittest

import ddt
import fixtures
import hypothesis
from hypothesis import strategies

from os_brick.remotefs import lustre_nbd
from os_brick.tests import base

MIB = 1 << 20

GREETING = b'NBDMAGICIHAVEOPT\x00\x03'
# What the nameless export is said to have.
SIZE = 3 * MIB


def option_reply(option, kind, content=b''):
    return struct.pack('>QIII', 0x3e889045565a9, option, kind,
                       len(content)) + content


def chunk(kind, content, flags=1, cookie=1):
    return struct.pack('>IHHQI', 0x668e33ef, flags, kind, cookie,
                       len(content)) + content


def simple_reply(error, cookie=1):
    return struct.pack('>IIQ', 0x67446698, error, cookie)


STRUCTURED = option_reply(8, 1)
GO = option_reply(7, 3, struct.pack('>HQH', 0, SIZE, 0)) + option_reply(7, 1)
HANDSHAKE = GREETING + STRUCTURED + GO


def data(offset, content, **kwargs):
    return chunk(1, struct.pack('>Q', offset) + content, **kwargs)


def hole(offset, length, **kwargs):
    return chunk(2, struct.pack('>QI', offset, length), **kwargs)


class NbdTestCase(base.TestCase):

    def setUp(self):
        super().setUp()
        self.temp = self.useFixture(fixtures.TempDir()).path

    @staticmethod
    def read(client, offset, length):
        content = io.BytesIO(bytes(length))
        with content.getbuffer() as view:
            client.read_into(offset, view)
        return content.getvalue()


@ddt.ddt
class QemuNbdTest(NbdTestCase):
    """The real server."""

    def serve(self, image_format, size, *options):
        if not shutil.which('qemu-nbd'):
            raise unittest.SkipTest('qemu-utils is not installed')
        self.path = os.path.join(self.temp, 'image')
        subprocess.run(['qemu-img', 'create', '-q', '-f', image_format,
                        self.path, str(size)], check=True)
        path = os.path.join(self.temp, 'socket')
        process = subprocess.Popen(
            ['qemu-nbd', '-f', image_format, '-k', path, *options,
             self.path], stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        channel = socket.socket(socket.AF_UNIX)
        self.addCleanup(channel.close)
        channel.settimeout(60)
        while True:
            try:
                channel.connect(path)
                return lustre_nbd.Client(channel)
            except (FileNotFoundError, ConnectionRefusedError):
                self.assertIsNone(process.poll())
                time.sleep(0.01)

    @ddt.data('raw', 'qcow2')
    def test_random_reads_and_writes(self, image_format):
        size = 40 * MIB + 512
        client = self.serve(image_format, size)
        self.assertEqual(size, client.size)
        model = bytearray(size)
        generator = random.Random(1)
        for _round in range(60):
            offset = generator.randrange(size)
            length = min(size - offset, generator.choice(
                (0, 1, 511, 4096, MIB, MIB + 1, 20 * MIB)))
            what = generator.choice(('read', 'write', 'zero'))
            if what == 'write':
                content = (bytes(length) if generator.random() < 0.3
                           else generator.randbytes(length))
                client.write(offset, memoryview(content))
                model[offset:offset + length] = content
            elif what == 'zero':
                client.zero(offset, length, generator.random() < 0.5)
                model[offset:offset + length] = bytes(length)
            else:
                self.assertEqual(model[offset:offset + length],
                                 self.read(client, offset, length))
        client.flush()
        self.assertEqual(model, self.read(client, 0, size))

    def test_reads_beyond_the_end_fail_and_leave_a_client_that_works(self):
        client = self.serve('raw', MIB)
        for offset in MIB - 1, MIB, 1 << 40:
            self.assertRaises(lustre_nbd.RequestFailed, self.read, client,
                              offset, 2)
        self.assertEqual(bytes(2), self.read(client, MIB - 2, 2))

    def test_writes_that_fail(self):
        client = self.serve('raw', 100 * MIB, '--read-only')
        self.assertRaises(lustre_nbd.RequestFailed, client.write, 0,
                          memoryview(bytes(50 * MIB)))
        self.assertRaises(lustre_nbd.RequestFailed, client.zero, 0, 50 * MIB,
                          True)
        self.assertEqual(bytes(MIB), self.read(client, 0, MIB))

    def test_nothing_of_a_hole_is_sent(self):
        # It would take longer than a test may.
        size = 1 << 40
        client = self.serve('qcow2', size)
        for offset in 0, size - (1 << 30):
            self.assertEqual(0, self.read(client, offset, 1 << 30).find(
                bytes(100)))

    def test_disconnect_ends_the_server(self):
        client = self.serve('raw', MIB)
        client.disconnect()
        self.assertEqual(b'', client._channel.recv(1))


class ScriptedServer:
    """Says what it is told to say, whatever it hears, and hangs up."""

    def __init__(self, test, script):
        self.channel, far_end = socket.socketpair()
        self.channel.settimeout(20)
        self._far_end = far_end
        test.addCleanup(self.channel.close)
        test.addCleanup(far_end.close)
        thread = threading.Thread(target=self._say, args=(script,))
        thread.start()
        test.addCleanup(thread.join)
        test.addCleanup(self.channel.close)

    def _say(self, script):
        try:
            self._far_end.sendall(script)
            self._far_end.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def hear(self):
        """Return all that the other side has said when it has hung up."""
        heard = b''
        while part := self._far_end.recv(1 << 16):
            heard += part
        return heard


@ddt.ddt
class ScriptedTest(NbdTestCase):

    def client(self, script):
        self.server = ScriptedServer(self, script)
        return lustre_nbd.Client(self.server.channel)

    def test_what_is_said(self):
        client = self.client(HANDSHAKE + hole(0, 100) + simple_reply(
            0, cookie=2) + simple_reply(0, cookie=3) + simple_reply(
            0, cookie=4) + simple_reply(0, cookie=5) + simple_reply(
            0, cookie=6))
        self.assertEqual(SIZE, client.size)
        self.read(client, 0, 100)
        client.write(5, memoryview(b'abc'))
        client.zero((1 << 30) - 2, 3, True)
        client.zero(1, 2, False)
        client.flush()
        client.disconnect()
        client._channel.shutdown(socket.SHUT_WR)
        request = struct.Struct('>IHHQQI')
        expected = b''.join((
            struct.pack('>I', 3),
            struct.pack('>8sII', b'IHAVEOPT', 8, 0),
            struct.pack('>8sII4sH', b'IHAVEOPT', 7, 6, bytes(4), 0),
            request.pack(0x25609513, 0, 0, 1, 0, 100),
            request.pack(0x25609513, 0, 1, 2, 5, 3), b'abc',
            request.pack(0x25609513, 0, 6, 3, (1 << 30) - 2, 2),
            request.pack(0x25609513, 0, 6, 4, 1 << 30, 1),
            request.pack(0x25609513, 2, 6, 5, 1, 2),
            request.pack(0x25609513, 0, 3, 6, 0, 0),
            request.pack(0x25609513, 0, 2, 0, 0, 0)))
        self.assertEqual(expected, self.server.hear())

    @ddt.data(
        (b'SSH-2.0-OpenSSH_9.2p1 Debian', 'greet'),
        (b'NBDMAGICIHAVEOPT\x00\x00', 'too old'),
        (GREETING + b'x' * 20, 'answer is to nothing'),
        (GREETING + option_reply(7, 1), 'answer is to nothing'),
        (GREETING + option_reply(8, 1 << 31 | 1, b'never'), 'never'),
        (GREETING + option_reply(8, 2, bytes(70000)), 'no text'),
        (GREETING + STRUCTURED + option_reply(7, 1), 'size'))
    @ddt.unpack
    def test_handshakes(self, script, reason):
        error = self.assertRaises(lustre_nbd.ProtocolError, self.client,
                                  script)
        self.assertIn(reason, str(error))

    def test_what_is_not_known_is_skipped(self):
        block_size = struct.pack('>HIII', 3, 1, 4096, 32 * MIB)
        self.assertEqual(SIZE, self.client(
            GREETING + STRUCTURED + option_reply(7, 3, block_size)
            + GO).size)

    def test_chunks_in_any_order(self):
        client = self.client(
            HANDSHAKE + data(150, b'b' * 20, flags=0)
            + hole(120, 30, flags=0) + data(100, b'a' * 20, flags=0)
            + chunk(0, b''))
        self.assertEqual(b'a' * 20 + bytes(30) + b'b' * 20,
                         self.read(client, 100, 70))

    @ddt.data(
        (b'nobody!!', 'begins no reply'),
        (simple_reply(0), 'simple reply'),
        (chunk(0, b'', cookie=2), 'no request'),
        (chunk(0, b''), 'not complete'),
        (data(100, b'a' * 69), 'not complete'),
        (data(99, b'a' * 70), 'not of what'),
        (data(100, b'a' * 71), 'not of what'),
        (data(1 << 63, b'a' * 70), 'not of what'),
        (hole(100, 71), 'not of what'),
        (hole(100, 0), 'not of what'),
        (chunk(1, b'short'), 'not of what'),
        (chunk(2, bytes(11)), 'no size'),
        (chunk(5, b''), 'unknown type'),
        (chunk(0x8001, b''), 'too short'),
        (chunk(0x8001, bytes(70000)), 'no text'))
    @ddt.unpack
    def test_replies_to_a_read(self, script, reason):
        client = self.client(HANDSHAKE + script + bytes(100))
        error = self.assertRaises(lustre_nbd.ProtocolError, self.read,
                                  client, 100, 70)
        self.assertIn(reason, str(error))

    def test_an_error_is_the_server_s(self):
        text = struct.pack('>IH', 28, 3) + b'why'
        client = self.client(HANDSHAKE + chunk(0x8001, text, cookie=1)
                             + simple_reply(5, cookie=2)
                             + hole(0, 10, cookie=3))
        error = self.assertRaises(lustre_nbd.RequestFailed, self.read,
                                  client, 0, 10)
        self.assertEqual((28, 'No space left on device: why'),
                         (error.errno, error.strerror))
        error = self.assertRaises(lustre_nbd.RequestFailed, client.flush)
        self.assertEqual(5, error.errno)
        self.assertEqual(bytes(10), self.read(client, 0, 10))

    @ddt.data(0, 10, len(GREETING), len(HANDSHAKE) - 1)
    def test_a_server_that_goes(self, after):
        self.assertRaises(EOFError, self.client, HANDSHAKE[:after])

    def test_a_server_that_says_nothing(self):
        channel, far_end = socket.socketpair()
        self.addCleanup(far_end.close)
        self.addCleanup(channel.close)
        channel.settimeout(0.1)
        self.assertRaises(TimeoutError, lustre_nbd.Client, channel)

    _CONVERSATION = (HANDSHAKE + data(0, b'a' * 100, flags=0)
                     + hole(100, 50, flags=0) + data(150, b'b' * 50)
                     + chunk(0, b'', cookie=2))

    @hypothesis.settings(max_examples=200, deadline=None)
    @hypothesis.given(strategies.lists(strategies.tuples(
        strategies.integers(0, len(_CONVERSATION) - 1),
        strategies.integers(0, 255)), max_size=4),
        strategies.integers(1, len(_CONVERSATION)))
    def test_a_conversation_with_faults(self, faults, end):
        script = bytearray(self._CONVERSATION)
        for position, byte in faults:
            script[position] = byte
        channel, far_end = socket.socketpair()
        with channel, far_end:
            channel.settimeout(20)
            far_end.sendall(script[:end])
            far_end.shutdown(socket.SHUT_WR)
            try:
                client = lustre_nbd.Client(channel)
                content = self.read(client, 0, 200)
                client.flush()
            except (lustre_nbd.ProtocolError, EOFError,
                    lustre_nbd.RequestFailed):
                return
        # All of it was told; what it was nobody could check.
        self.assertEqual(200, len(content))
