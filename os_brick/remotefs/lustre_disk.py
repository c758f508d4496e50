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

"""The virtual disk of an image on a Lustre share, as a Python file.

A Cinder service that copies a volume wants the bytes that a guest sees. Those
of a qcow2 image, of a chain, or of an encrypted one are served by a qemu-nbd
of its own: it runs in a guarded child of the service, which is told the format
of every file and probes none, and listens on a socket in a directory that only
the service's user can enter, and that is gone once the service has connected.

Wherever things go wrong, the server ends: it does when its only client hangs
up, and when the child does, which ends with the service.
"""

import contextlib
import dataclasses
import io
import json
import os
import socket
import tempfile
import time

from os_brick import exception
from os_brick.i18n import _
from os_brick.remotefs import lustre_child
from os_brick.remotefs import lustre_guard
from os_brick.remotefs import lustre_nbd

RAW = 'raw'
QCOW2 = 'qcow2'
FORMATS = (RAW, QCOW2)

_SECRET = 'passphrase'

# What the file with it is called among arguments.
_SECRET_FILE = '@passphrase@'

# How often to look whether qemu-nbd listens, in seconds. It takes some 20 ms.
_PAUSE = 0.005


class DiskError(exception.BrickException):
    message = _("The virtual disk of %(file)s on Lustre share %(share)s can't "
                "be used: %(reason)s")


class DiskLocked(DiskError):
    message = _("%(file)s on Lustre share %(share)s is encrypted and has "
                "images below it, and this operation has no key to copy what "
                "they are together")


@dataclasses.dataclass(frozen=True)
class Image:
    """A disk's image files.

    :ivar directory: where they are
    :ivar chain: (file, format) of each, from the active one to the base;
        format is raw or qcow2
    :ivar size: bytes that a guest sees
    :ivar encrypted: whether they are, with one passphrase: LUKS in qcow2
    :ivar thin: whether zeros may give space back to the share
    :ivar read_only: whether nothing may be written
    :ivar container_length: as how many bytes the file of an encrypted disk is
        read, at least, and what length it is given when it is written
    """

    directory: str
    chain: tuple
    size: int
    encrypted: bool = False
    thin: bool = True
    read_only: bool = False
    container_length: int = 0

    @property
    def file(self):
        return self.chain[0][0]

    @property
    def path(self):
        return os.path.join(self.directory, self.file)

    @property
    def is_plain(self):
        """Whether its active file holds what a guest sees, and no more."""
        return len(self.chain) == 1 and self.chain[0][1] == RAW

    def node(self):
        """Return QEMU's description of the chain (BlockdevOptions)."""
        node = None
        for file, image_format in reversed(self.chain):
            path = os.path.join(self.directory, file)
            above = {'driver': image_format,
                     'file': {'driver': 'file', 'filename': path}}
            if image_format == QCOW2:
                # Without it QEMU would look for one in the image's header.
                above['backing'] = node
                if self.encrypted:
                    above['encrypt'] = {'format': 'luks',
                                        'key-secret': _SECRET}
            node = above
        return node

    def server(self, path, writable):
        """Return the command of a server of the disk.

        :param path: of its socket
        """
        return ['qemu-nbd', '--socket=' + path,
                # As for all images on a share: past the cache of this host.
                '--cache=none', '--aio=native',
                '--discard=' + ('unmap' if self.thin else 'ignore'),
                '--detect-zeroes=' + ('unmap' if self.thin else 'on'),
                *([] if writable else ['--read-only']),
                *(['--object', 'secret,id=%s,file=%s' % (_SECRET,
                                                         _SECRET_FILE)]
                  if self.encrypted else []),
                'json:' + json.dumps(self.node())]


class _Server:
    """A qemu-nbd and the connection to it.

    :raises DiskError: the disk can't be opened, or has another size
    :raises ShareHung: the share doesn't answer
    """

    def __init__(self, client, share, image, secret, writable):
        self.writable = writable
        self._share = share
        self._image = image
        self._timeout = client.timeout
        self._failure = None
        self._resident = client.resident(share)
        self._channel = socket.socket(socket.AF_UNIX)
        with self._all_or_nothing():
            self._channel.settimeout(self._timeout)
            self._start(secret)
            self._nbd = lustre_nbd.Client(self._channel)
            self._check_size()

    def _start(self, secret):
        with tempfile.TemporaryDirectory(prefix='lustre-nbd-') as directory:
            path = os.path.join(directory, 'socket')
            self._call(lustre_child.start, {_SECRET_FILE: secret or b''},
                       *self._image.server(path, self.writable))
            self._connect(path)

    def _connect(self, path):
        end = time.monotonic() + self._timeout
        while True:
            try:
                return self._channel.connect(path)
            except (FileNotFoundError, ConnectionRefusedError):
                self._check_running(end)
                time.sleep(_PAUSE)

    def _check_running(self, end):
        said = self._call(lustre_child.check)
        if said is not None:
            raise self._error(said)
        if time.monotonic() > end:
            raise TimeoutError()

    def _check_size(self):
        if self._nbd.size != self._image.size:
            raise self._error(_(
                "it has %(found)s bytes instead of %(expected)s") % {
                    'found': self._nbd.size, 'expected': self._image.size})

    @contextlib.contextmanager
    def connection(self):
        """Give the connection, for one operation.

        Where an operation has not come to its end nobody knows what the next
        reply would be to: after that there is no other.
        """
        if self._failure:
            raise self._failure
        with self._all_or_nothing():
            yield self._nbd

    @contextlib.contextmanager
    def _all_or_nothing(self):
        try:
            yield
        except lustre_nbd.RequestFailed:
            raise
        except BaseException as exc:
            self._failure = self._explained(exc)
            self._kill()
            raise self._failure

    def _explained(self, exc):
        if isinstance(exc, TimeoutError):
            return lustre_guard.ShareHung(share=self._share, reason=_(
                'qemu-nbd has not answered within %s s') % self._timeout)
        if isinstance(exc, (EOFError, ConnectionError)):
            return self._error(self._last_words())
        if isinstance(exc, lustre_nbd.ProtocolError):
            return self._error(exc)
        return exc

    def _last_words(self):
        try:
            return self._call(lustre_child.wait)[1]
        except lustre_guard.ShareUnavailable as exc:
            return exc

    def end(self):
        """Let the server end, and its locks on the images with it.

        :raises DiskError, ShareHung, RequestFailed: what was written may not
            be durable
        """
        if self._failure:
            return
        try:
            with self.connection() as nbd:
                nbd.flush()
                nbd.disconnect()
            code, said = self._call(lustre_child.wait)
            if code:
                raise self._error(said)
        finally:
            self._failure = self._error(_("its server has ended"))
            self._kill()

    def _kill(self):
        self._channel.close()
        self._resident.end()

    def _call(self, function, *args):
        return self._resident.call(function, *args, timeout=self._timeout)

    def _error(self, reason):
        return DiskError(file=self._image.file, share=self._share,
                         reason=reason)


class File(io.RawIOBase):
    """What is read of an image, as a file with a position.

    :param client: the :class:`os_brick.remotefs.lustre.ShareClient`
    :param share: the share, which must be mounted
    :param image: the :class:`Image`
    """

    def __init__(self, client, share, image):
        super().__init__()
        self._client = client
        self._share = share
        self._image = image
        self._position = 0

    @property
    def _end(self):
        """How many bytes there are."""
        raise NotImplementedError

    def readable(self):
        return True

    def writable(self):
        return not self._image.read_only

    def seekable(self):
        return True

    def tell(self):
        return self._position

    def seek(self, offset, whence=os.SEEK_SET):
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position,
                 os.SEEK_END: self._end}
        if whence not in start or start[whence] + offset < 0:
            raise OSError(_("Invalid argument"))
        self._position = start[whence] + offset
        return self._position

    def readinto(self, buffer):
        content = self.read(len(buffer))
        buffer[:len(content)] = content
        return len(content)


class Disk(File):
    """A virtual disk as a file.

    Images are opened for reading until something is written: what is only
    copied from is not touched.

    As a file of os-brick's RBD connector it has no descriptor. Not to be used
    by two threads at once, but by different ones in turn; it does not log,
    which native threads must not do beside eventlet's.

    :param passphrase: of an encrypted one
    :raises DiskError: it can't be opened, or the passphrase is wrong
    """

    def __init__(self, client, share, image, passphrase=None):
        super().__init__(client, share, image)
        self._secret = passphrase and passphrase.encode()
        self._server = None
        self._serve(writable=False)

    def __repr__(self):
        return '<Disk of %s on %s>' % (self._image.file, self._share)

    @property
    def _end(self):
        return self._image.size

    def read(self, length=-1):
        """Read up to so many bytes.

        Holes take neither time nor memory until they are looked at.
        """
        rest = max(0, self._end - self._position)
        if length is None or length < 0 or length > rest:
            length = rest
        # Filled in place, and handed out without another copy.
        content = io.BytesIO(bytes(length))
        with content.getbuffer() as view, self._connection() as nbd:
            nbd.read_into(self._position, view)
        self._position += length
        return content.getvalue()

    def write(self, data):
        """Write all of the data; what is zeros takes no space."""
        self._make_writable()
        with memoryview(data).cast('B') as view, self._connection() as nbd:
            nbd.write(self._position, view)
            self._position += len(view)
            return len(view)

    def zero(self, offset, length):
        """Make a part read as zeros, however large it is."""
        self._make_writable()
        with self._connection() as nbd:
            nbd.zero(offset, length, self._image.thin)

    def flush(self):
        """Wait until what was written is durable."""
        super().flush()
        if self._server:
            with self._connection() as nbd:
                nbd.flush()

    def close(self):
        """Close the disk; its server has ended when this returns.

        :raises DiskError, ShareHung, OSError: what was written may not be
            durable; not raised again if an operation has raised it
        """
        server, self._server, self._secret = self._server, None, None
        try:
            if server:
                server.end()
        finally:
            super().close()

    def _make_writable(self):
        if not self.writable():
            raise io.UnsupportedOperation(_("it was opened to be read"))
        if self._server and not self._server.writable:
            self._server.end()
            self._serve(writable=True)

    def _serve(self, writable):
        self._server = _Server(self._client, self._share, self._image,
                               self._secret, writable)

    def _connection(self):
        if self.closed:
            raise ValueError(_("the disk has been closed"))
        return self._server.connection()
