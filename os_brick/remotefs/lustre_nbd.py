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

"""A client of the network block device protocol, as far as qemu-nbd needs it.

libnbd would be the library for this. It isn't on PyPI, and its Python module
waits in C, where neither eventlet nor a time limit reaches it.

The protocol is doc/proto.md of https://github.com/NetworkBlockDevice/nbd. All
numbers are big-endian. What is spoken here:

Handshake (fixed newstyle)
    The server greets with ``NBDMAGIC``, ``IHAVEOPT`` and its flags (16 bits);
    the client answers with its own (32 bits).
Options
    ``IHAVEOPT``, option, length, data. The server answers with a magic
    number, the option, a type of reply, length, data; one of type ACK, or an
    error, is the last. ``STRUCTURED_REPLY`` is asked for first, and must be
    granted. ``GO`` names the export (the nameless one) and ends the phase; an
    ``INFO`` of type EXPORT before its ACK tells the size. No block size is
    asked for, so the server takes requests of any alignment, up to 32 MiB.
Requests
    Magic number, flags, command (READ, WRITE, DISC, FLUSH or WRITE_ZEROES),
    cookie, offset, length; what is written follows. A flag keeps the space of
    what becomes zeros. Sixteen at most are under way at once, which is what
    qemu-nbd works on at a time.
Replies
    In any order. A read is answered by chunks: magic number, flags, type,
    cookie, length, payload; a flag marks the last. Each tells what is read at
    an offset: data, a hole (zeros, which are not sent), or an error. Other
    commands may also be answered by a simple reply: magic number, error,
    cookie.
"""

import itertools
import os
import struct

from os_brick import exception
from os_brick.i18n import _

_NBDMAGIC = b'NBDMAGIC'
_IHAVEOPT = b'IHAVEOPT'
_OPTION_REPLY_MAGIC = 0x3e889045565a9
_REQUEST_MAGIC = 0x25609513
_SIMPLE_REPLY_MAGIC = 0x67446698
_CHUNK_MAGIC = 0x668e33ef

# Of both sides: option replies are what they should be, and no padding.
_FIXED_NEWSTYLE = 1 << 0
_NO_ZEROES = 1 << 1

_OPT_GO = 7
_OPT_STRUCTURED_REPLY = 8
_REP_ACK = 1
_REP_INFO = 3
_REP_ERROR = 1 << 31
_INFO_EXPORT = 0

_CMD_READ = 0
_CMD_WRITE = 1
_CMD_DISC = 2
_CMD_FLUSH = 3
_CMD_WRITE_ZEROES = 6

# The zeros must take the space of other data.
_FLAG_NO_HOLE = 1 << 1

_LAST_CHUNK = 1 << 0
_CHUNK_NONE = 0
_CHUNK_DATA = 1
_CHUNK_HOLE = 2
_CHUNK_ERROR = 1 << 15

_GREETING = struct.Struct('>8s8sH')
_OPTION = struct.Struct('>8sII')
_OPTION_REPLY = struct.Struct('>QIII')
_EXPORT = struct.Struct('>HQH')
_REQUEST = struct.Struct('>IHHQQI')
_MAGIC = struct.Struct('>I')
_SIMPLE_REPLY = struct.Struct('>IQ')
_CHUNK = struct.Struct('>HHQI')
_OFFSET = struct.Struct('>Q')
_HOLE = struct.Struct('>QI')
_ERROR = struct.Struct('>IH')

# What qemu-nbd works on at a time.
_MOST_REQUESTS = 16

# Bytes of one request. A write is looked at for zeros by the server as a
# whole, and Cinder looks at as much when it restores a backup; a read costs
# the less the larger it is, up to here.
_LARGEST_WRITE = 1 << 20
_LARGEST_READ = 4 << 20
# Nothing of it is sent, but it must be done within the limit of one wait.
_LARGEST_ZERO = 1 << 30

# Of what is no content: names, texts.
_LONGEST_TEXT = 64 << 10


class ProtocolError(exception.BrickException):
    message = _("The NBD server broke the protocol: %(reason)s")


class RequestFailed(OSError):
    """What the server answers to a request that it could not fulfil."""


class _Request:
    """What was asked for and is not answered yet.

    :ivar offset: of its first byte
    :ivar buffer: what is read goes here; None for all but reads
    :ivar missing: bytes of the buffer that no chunk has told of yet
    """

    def __init__(self, offset=0, buffer=None):
        self.offset = offset
        self.buffer = buffer
        self.missing = 0 if buffer is None else len(buffer)


class Client:
    """A connection to a server.

    Not to be used by two threads at once. After any error but
    :class:`RequestFailed` nothing can be done but to close the socket.

    :param channel: a connected socket; the limit of each wait is its timeout
    :raises ProtocolError: the server says what can't be understood
    :raises EOFError: the server has gone
    :raises OSError: and what else sockets raise
    :ivar size: of the export in bytes
    """

    def __init__(self, channel):
        self._channel = channel
        self._cookies = itertools.count(1)
        self._requests = {}
        self._error = None
        self._greet()
        self._option(_OPT_STRUCTURED_REPLY)
        # The nameless export, and no information but what is always sent.
        self.size = self._export_size(
            self._option(_OPT_GO, struct.pack('>IH', 0, 0)))

    def read_into(self, offset, buffer):
        """Read from an offset until the buffer is full.

        :param buffer: a memoryview of zeros: holes are not filled in
        :raises RequestFailed: the server could not read it
        """
        for start, end in self._parts(offset, len(buffer),
                                      _LARGEST_READ):
            part = buffer[start:end]
            self._send(_CMD_READ, offset + start, len(part),
                       _Request(offset + start, part))
        self._receive_all()

    def write(self, offset, data):
        """Write to an offset.

        :param data: a memoryview
        :raises RequestFailed: the server could not write it
        """
        for start, end in self._parts(offset, len(data), _LARGEST_WRITE):
            self._send(_CMD_WRITE, offset + start, end - start, _Request())
            self._channel.sendall(data[start:end])
        self._receive_all()

    def zero(self, offset, length, thin):
        """Make a part read as zeros, which are not sent.

        :param thin: whether it may give its space back
        :raises RequestFailed: the server could not do it
        """
        for start, end in self._parts(offset, length, _LARGEST_ZERO):
            self._send(_CMD_WRITE_ZEROES, offset + start, end - start,
                       _Request(), 0 if thin else _FLAG_NO_HOLE)
        self._receive_all()

    def flush(self):
        """Wait until all that was written is durable.

        :raises RequestFailed: it isn't
        """
        self._send(_CMD_FLUSH, 0, 0, _Request())
        self._receive_all()

    def disconnect(self):
        """Tell the server that this was all; it says no more."""
        self._channel.sendall(_REQUEST.pack(_REQUEST_MAGIC, 0, _CMD_DISC, 0,
                                            0, 0))

    # The handshake

    def _greet(self):
        magic, option_magic, flags = self._receive_struct(_GREETING)
        wanted = _FIXED_NEWSTYLE | _NO_ZEROES
        if (magic, option_magic) != (_NBDMAGIC, _IHAVEOPT):
            raise ProtocolError(reason=_("it doesn't greet as one"))
        if flags & wanted != wanted:
            raise ProtocolError(reason=_("it is too old"))
        self._channel.sendall(struct.pack('>I', wanted))

    def _option(self, option, data=b''):
        """Ask for an option.

        :returns: data of the INFO replies
        """
        self._channel.sendall(_OPTION.pack(_IHAVEOPT, option, len(data))
                              + data)
        infos = []
        while True:
            magic, answered, kind, length = self._receive_struct(
                _OPTION_REPLY)
            if (magic, answered) != (_OPTION_REPLY_MAGIC, option):
                raise ProtocolError(reason=_("its answer is to nothing"))
            content = self._receive_text(length)
            if kind == _REP_ACK:
                return infos
            if kind & _REP_ERROR:
                raise ProtocolError(reason=_(
                    "it refuses option %(option)d (error %(error)d): "
                    "%(text)s") % {'option': option,
                                   'error': kind & ~_REP_ERROR,
                                   'text': content.decode(errors='replace')})
            if kind == _REP_INFO:
                infos.append(content)

    @staticmethod
    def _export_size(infos):
        for info in infos:
            if len(info) == _EXPORT.size:
                kind, size, _flags = _EXPORT.unpack(info)
                if kind == _INFO_EXPORT:
                    return size
        raise ProtocolError(reason=_("it doesn't tell the export's size"))

    # Requests

    @staticmethod
    def _parts(offset, length, largest):
        """Divide what is to be read or written, at round offsets.

        :returns: pairs of start and end, from 0 to ``length``
        """
        start = 0
        while start < length:
            end = min(length, start + largest - (offset + start) % largest)
            yield start, end
            start = end

    def _send(self, command, offset, length, request, flags=0):
        """Send a request as soon as there is room for one.

        Neither side waits for the other to take what it sends: the replies to
        writes and the requests of reads are small.
        """
        while len(self._requests) >= _MOST_REQUESTS:
            self._receive_reply()
        cookie = next(self._cookies)
        self._requests[cookie] = request
        self._channel.sendall(_REQUEST.pack(_REQUEST_MAGIC, flags, command,
                                            cookie, offset, length))

    # Replies

    def _receive_all(self):
        while self._requests:
            self._receive_reply()
        error, self._error = self._error, None
        if error:
            raise error

    def _receive_reply(self):
        magic, = self._receive_struct(_MAGIC)
        if magic == _SIMPLE_REPLY_MAGIC:
            self._receive_simple_reply()
        elif magic == _CHUNK_MAGIC:
            self._receive_chunk()
        else:
            raise ProtocolError(reason=_("0x%08x begins no reply") % magic)

    def _receive_simple_reply(self):
        error, cookie = self._receive_struct(_SIMPLE_REPLY)
        request = self._request(cookie)
        if request.buffer is not None:
            raise ProtocolError(reason=_("a read has a simple reply"))
        self._note_error(error)
        del self._requests[cookie]

    def _receive_chunk(self):
        flags, kind, cookie, length = self._receive_struct(_CHUNK)
        request = self._request(cookie)
        if kind & _CHUNK_ERROR:
            self._receive_error(length)
        elif kind == _CHUNK_DATA:
            self._receive_data(request, length)
        elif kind == _CHUNK_HOLE:
            self._receive_hole(request, length)
        elif (kind, length) != (_CHUNK_NONE, 0):
            raise ProtocolError(reason=_("unknown type of chunk %d") % kind)
        if flags & _LAST_CHUNK:
            if request.missing and not self._error:
                raise ProtocolError(reason=_("a read is not complete"))
            del self._requests[cookie]

    def _receive_error(self, length):
        content = self._receive_text(length)
        if length < _ERROR.size:
            raise ProtocolError(reason=_("an error is too short"))
        error, text_length = _ERROR.unpack_from(content)
        text = content[_ERROR.size:_ERROR.size + text_length]
        self._note_error(error, text.decode(errors='replace'))

    def _receive_data(self, request, length):
        offset, = self._receive_struct(_OFFSET)
        self._receive_into(self._part(request, offset,
                                      length - _OFFSET.size))

    def _receive_hole(self, request, length):
        if length != _HOLE.size:
            raise ProtocolError(reason=_("a hole has no size"))
        self._part(request, *self._receive_struct(_HOLE))

    @staticmethod
    def _part(request, offset, length):
        """Return the part of a read's buffer that a chunk is about."""
        start = offset - request.offset
        if (request.buffer is None or length < 1 or start < 0
                or start + length > len(request.buffer)):
            raise ProtocolError(reason=_(
                "a chunk is not of what was asked for"))
        request.missing -= length
        return request.buffer[start:start + length]

    def _request(self, cookie):
        if cookie not in self._requests:
            raise ProtocolError(reason=_("a reply is to no request"))
        return self._requests[cookie]

    def _note_error(self, error, text=''):
        """Keep the first error until all replies are in.

        Its numbers are those of Linux, as far as the protocol has them.
        """
        if error and self._error is None:
            self._error = RequestFailed(error, ': '.join(
                filter(None, (os.strerror(error), text))))

    # Bytes

    def _receive_struct(self, structure):
        buffer = bytearray(structure.size)
        self._receive_into(memoryview(buffer))
        return structure.unpack(buffer)

    def _receive_text(self, length):
        if length > _LONGEST_TEXT:
            raise ProtocolError(reason=_("%d bytes are no text") % length)
        buffer = bytearray(length)
        self._receive_into(memoryview(buffer))
        return bytes(buffer)

    def _receive_into(self, view):
        while view:
            count = self._channel.recv_into(view)
            if not count:
                raise EOFError('the NBD server has gone')
            view = view[count:]
