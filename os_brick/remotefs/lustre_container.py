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

"""An encrypted volume for who has no key: the bytes of its one file.

A backup must not hold a tenant's data in the clear, and Cinder has no key
where it copies without a change of the encryption. What is copied then is the
*container*: a qcow2 file with LUKS in it. A copy may have been where tenants
can change it, so what is written has to be a container and nothing else: an
image that names a backing file would give its guest a file of the host.
"""

import io
import os

from os_brick.i18n import _
from os_brick.remotefs import lustre_disk
from os_brick.remotefs import lustre_file
from os_brick.remotefs import lustre_qcow2

# What is read or written in one call, in bytes.
_STEP = 8 << 20


class NoContainer(lustre_disk.DiskError):
    message = _("What is copied to encrypted %(file)s on Lustre share "
                "%(share)s can't be its content: %(reason)s")


class Container(lustre_disk.File):
    """The file of an encrypted image.

    It is opened when it is first used, and emptied when it is first written
    to: at its start, with the header of another container.
    """

    def __init__(self, client, share, image):
        super().__init__(client, share, image)
        self._resident = None
        self._writing = False
        self._failed = False
        self._size = 0

    def seek(self, offset, whence=os.SEEK_SET):
        if whence == os.SEEK_END:
            self._open()
        return super().seek(offset, whence)

    def read(self, length=-1):
        """Read up to so many bytes; holes are not read from the share.

        In a migration Cinder reads as many bytes as the disk has and stops
        (volume_utils.copy_volume), but the container of a full disk is larger:
        the read that ends there returns all the rest.
        """
        self._open()
        rest = max(0, self._end - self._position)
        if length is None or length < 0 or length > rest or (
                self._is_last_of_migration(length)):
            length = rest
        content = io.BytesIO(bytes(length))
        with content.getbuffer() as view:
            for start in range(0, length, _STEP):
                self._read_into(view[start:start + _STEP],
                                self._position + start)
        self._position += length
        return content.getvalue()

    def write(self, data):
        """Write all of the data.

        :raises NoContainer: the first data are no container's
        """
        with memoryview(data).cast('B') as view:
            if not self._writing:
                self._begin(view)
            for start in range(0, len(view), _STEP):
                self._call(lustre_file.write, self._position + start,
                           bytes(view[start:start + _STEP]))
            self._position += len(view)
            self._size = max(self._size, self._position)
            return len(view)

    def flush(self):
        """Wait until what was written is durable."""
        super().flush()
        if self._writing and not self._failed:
            self._call(lustre_file.sync)

    def close(self):
        """Close the file.

        :raises NoContainer: what was written is none; the file is empty then
        :raises ShareUnavailable, OSError: it may not be durable
        """
        if self.closed:
            return
        try:
            if self._writing and not self._failed:
                self._finish()
        finally:
            self._release()
            # It would flush.
            self._writing = False
            super().close()

    # How it is done

    @property
    def _end(self):
        return max(self._size, self._image.container_length)

    def _is_last_of_migration(self, length):
        return (not self._image.container_length
                and self._position + length == self._image.size)

    def _open(self):
        if self.closed:
            raise ValueError(_("the file has been closed"))
        if len(self._image.chain) > 1:
            raise lustre_disk.DiskLocked(file=self._image.file,
                                         share=self._share)
        if self._resident is None:
            self._resident = self._client.resident(self._share)
            self._size = self._call(lustre_file.open_to_read,
                                    self._image.path)

    def _begin(self, start):
        self._open()
        if not self.writable():
            raise io.UnsupportedOperation(_("it was opened to be read"))
        if self._position:
            raise self._no_container(_("its start is missing"))
        self._check(start)
        self._release()
        self._resident = self._client.resident(self._share)
        self._call(lustre_file.open_to_write, self._image.path)
        self._writing, self._size = True, 0

    def _finish(self):
        # An increment may have replaced its start.
        start = bytearray(lustre_qcow2.LENGTH)
        self._read_into(start, 0)
        try:
            self._check(start)
        except NoContainer:
            self._call(lustre_file.empty)
            raise
        self._call(lustre_file.finish, self._end)

    def _check(self, start):
        try:
            lustre_qcow2.Header.parse(start).check_container(self._image.size)
        except ValueError as exc:
            raise self._no_container(exc) from exc

    def _no_container(self, reason):
        return NoContainer(file=self._image.file, share=self._share,
                           reason=reason)

    def _read_into(self, view, position):
        for offset, data in self._call(lustre_file.read, position,
                                       len(view)):
            start = offset - position
            view[start:start + len(data)] = data

    def _call(self, function, *args):
        try:
            return self._resident.call(function, *args,
                                       timeout=self._client.timeout)
        except BaseException:
            self._failed = True
            raise

    def _release(self):
        resident, self._resident = self._resident, None
        if resident:
            resident.end()


class EncryptedDisk:
    """An encrypted volume as os-brick's encryptors find it.

    They come when the connector has given it already, where Cinder has the
    key. So this is a :class:`Container` until it is unlocked, and then a
    :class:`os_brick.remotefs.lustre_disk.Disk`.

    :param args: what both take
    """

    def __init__(self, *args):
        self._args = args
        self._file = Container(*args)

    def __getattr__(self, name):
        return getattr(self._file, name)

    def unlock(self, passphrase):
        """Open the disk.

        :raises DiskError: the passphrase is wrong
        """
        self._file.close()
        self._file = lustre_disk.Disk(*self._args, passphrase)

    def lock(self):
        """Forget the passphrase; there is nothing to read any more."""
        self._file.close()
