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

"""A share, as image files need it: where, how, and for how long.

Whatever touches a share goes through :class:`Place`: it is done in a guarded
child, and given up after a time that grows with what has to be copied; errors
name the share. What needs root is done by the privileged daemon.
"""

import contextlib
import errno
import os
import resource

from oslo_concurrency import processutils
from oslo_utils import units

from cinder import exception
from cinder.i18n import _
from os_brick.remotefs import lustre_child

# What a copy must manage, in bytes per second, before it counts as stuck.
_SLOWEST_COPY = 8 * units.Mi

# What qemu-img may take, besides the time for a copy: seconds of CPU, and
# bytes of address space. An image of a chain takes 33 MiB of it at most, and
# each of the 64 threads a stack of 8 MiB and a heap that is hardly used.
_CPU_TIME = 30
_ADDRESS_SPACE = 8 * units.Gi

# QEMU measures how fast it is before it makes a LUKS header, and gives up
# where the kernel counts too coarsely for that (its crypto/pbkdf.c): mostly
# another attempt works.
_NOT_MEASURED = 'Unable to get accurate CPU usage'
_MEASUREMENTS = 10

# A file ends where the objects of its stripes do, on ldiskfs at 16 TiB each.
_TOO_LARGE = os.strerror(errno.EFBIG)


def _advised(error):
    """Add to an error what can be done about it."""
    if not error or _TOO_LARGE not in error:
        return error
    return _("%s: one stripe holds 16 TiB at most on ldiskfs, and the file "
             "needs more stripes; a volume gets them by its type's "
             "lustre:stripe_count, one that exists by a retype") % error


class GrowthFailed(exception.VolumeDriverException):
    message = _("Image %(image)s on %(share)s could not be given %(size)s "
                "bytes and their space: %(reason)s. It holds what it held, "
                "but may have its new size already. Repeat the operation "
                "when the share can take it.")


class Place:
    """A mounted share, as images need it.

    :param share: the :class:`os_brick.remotefs.lustre.Share`
    :param client: the :class:`os_brick.remotefs.lustre.ShareClient`
    :param privileged: what needs root: :mod:`cinder.privsep.lustre`
    :param mode: mode of the files that are made
    :param avoid: {index of an OST that no file should be on: why}
    """

    def __init__(self, share, client, privileged, mode, avoid=None):
        self.share = share
        self.directory = client.mount_point(share)
        self.mode = mode
        self.avoid = avoid or {}
        self._client = client
        self._privileged = privileged
        self._session = None

    @contextlib.contextmanager
    def locked(self, name):
        """Hold the share's lock of a volume, unless it is held already.

        :raises Locked: another process has it
        """
        if self._session:
            yield
            return
        with contextlib.ExitStack() as stack:
            with self._share_in_errors():
                self._session = stack.enter_context(
                    self._client.locked(self.share, name, self.mode))
            try:
                yield
            finally:
                self._session = None

    def available(self):
        """Make sure that the share is mounted, and return its free bytes.

        :raises ShareUnavailable: it isn't
        """
        return self._client.check(self.share)[1]

    def call(self, function, *args, copied=0, source=None):
        """Call a function on the share, guarded.

        :param copied: bytes that it may have to write
        :param source: the share that these are read from, if any
        :raises OSError: it failed; the message names the share
        """
        with self._share_in_errors():
            return self._client.call(self.share, function, *args,
                                     timeout=self._timeout(copied),
                                     source=source, session=self._session)

    @contextlib.contextmanager
    def _share_in_errors(self):
        """Let the messages of failed system calls name the share."""
        try:
            yield
        except OSError as exc:
            exc.strerror = _("%(error)s (on Lustre share %(share)s)") % {
                'error': _advised(exc.strerror), 'share': self.share}
            raise

    def qemu_img(self, subcommand, *args, keys=(), copied=0, source=None,
                 made=None, again=None):
        """Run qemu-img.

        A hostile image must not make it take the host's memory or time, and
        what it has in memory when it crashes are tenants' data.

        :param keys: those of the images, None for each that has none
        :param copied: bytes that it may have to write
        :param source: the share that these are read from, if any
        :param made: a file among the arguments that is made in memory first:
            qemu-img create would make four to five durable writes, where the
            one before the file is published is enough
        :param again: called before another attempt: QEMU removes the file that
            it could not create, and one of its own has neither the layout nor
            the mode
        :raises ProcessExecutionError: it failed
        """
        keys = {key.id: key for key in keys if key}.values()
        secrets = {key.file: key.passphrase for key in keys}
        command = ('qemu-img', subcommand, '-q',
                   *(arg for key in keys for arg in key.as_object),
                   *map(str, args))
        limits = {resource.RLIMIT_AS: _ADDRESS_SPACE,
                  resource.RLIMIT_CPU: _CPU_TIME + copied // _SLOWEST_COPY,
                  resource.RLIMIT_CORE: 0}
        run = ([lustre_child.run_to_make, made] if made
               else [lustre_child.run_with])
        for attempt in range(_MEASUREMENTS):
            if attempt and again:
                again()
            code, output, error = self.call(
                *run, limits, secrets, *command, copied=copied, source=source)
            if not code or _NOT_MEASURED not in error:
                break
        if code:
            raise processutils.ProcessExecutionError(
                stdout=output, stderr=_advised(error), exit_code=code,
                cmd=' '.join(command), description=_(
                    "qemu-img failed on Lustre share %s") % self.share)
        return output

    def take_over(self, path):
        """Make a file of the hypervisor's user the service's again.

        :returns: None, or why it failed
        """
        return self._privileged.take_over(
            self.share.name, path, os.geteuid(), os.getegid(),
            self._timeout(0))

    def privileged_grow(self, path, size, allocate):
        """Grow a raw image that the hypervisor's user owns.

        :raises GrowthFailed: it has not got its size, or not its space
        """
        error = self._privileged.grow(
            self.share.name, path, size, allocate,
            self._timeout(size if allocate else 0))
        if error:
            raise GrowthFailed(image=path, share=self.share, size=size,
                               reason=_advised(error))

    def set_project(self, path, project):
        """Count the space of a file for a project; see projects.give."""
        return self._privileged.set_project(self.share.name, path, project,
                                            self._timeout(0))

    def set_limit(self, project, limit):
        """Limit the space of a project, in MiB; see projects.set_limit."""
        return self._privileged.set_limit(self.share.name, self.directory,
                                          project, limit, self._timeout(0))

    def privileged_chain(self, *args):
        """Follow a chain that the hypervisor's user owns."""
        images, error = self._privileged.chain(
            self.share.name, self.directory, *args, self._timeout(0))
        if error:
            raise ValueError(error)
        return images

    def _timeout(self, copied):
        return self._client.timeout + copied / _SLOWEST_COPY
