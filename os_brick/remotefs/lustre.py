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

"""Lustre shares: their names, and whether and where they are mounted.

A share is a Lustre file system or a directory of one. Its name is what
mount.lustre(8) takes::

    <MGS NID>[,<NID of the same server>...][:<NIDs of the next MGS>...]:/<file system>[/<directory>]

What was learned from a Lustre 2.17 client and decides how this module works:

* The mount table shows the name as it was given to mount, a bare address as
  ``<address>@tcp``. A server's own targets have the type ``lustre`` too, with
  a block device as their source.
* Only the mount table answers when a server is down: even ``stat`` of a mount
  point may wait for ever. All else goes through the guard.
* An MGS that does not answer makes mount wait for 163 s, and the mount option
  ``retry`` doesn't shorten that.
"""  # noqa: E501

import collections
import contextlib
import dataclasses
import hashlib
import os
import re
import threading
import time
from typing import Optional

from oslo_concurrency import lockutils
from oslo_config import cfg
from oslo_log import log as logging

from os_brick import exception
from os_brick.i18n import _
from os_brick.remotefs import lustre_child
from os_brick.remotefs import lustre_guard

LOG = logging.getLogger(__name__)

ShareUnavailable = lustre_guard.ShareUnavailable

# The file of a share whose bytes are locked, one for each name.
LOCK_FILE = '.locks'
# Seconds between two attempts to lock.
_LOCK_POLL = 0.1

# statfs(2)'s f_type of the file systems that have a well-known one here.
MAGIC = {'lustre': 0x0BD00BD0}

# With noflock qemu-img can't lock an image at all, with localflock it doesn't
# see the lock of another host: both were tried, the second one resized an
# image in use.
_LOCKLESS_OPTIONS = {'noflock', 'localflock'}

# An IPv6 address needs its network to tell where it ends.
_ADDRESS = (r'(?:\[?[0-9A-Fa-f]*:[0-9A-Fa-f:.]*\]?(?=@)'
            r'|[A-Za-z0-9][A-Za-z0-9._-]*)')
_NID = r'%s(?:@[a-z][a-z0-9]*)?' % _ADDRESS
_MGS = r'%(nid)s(?:[,:]%(nid)s)*' % {'nid': _NID}
# mkfs.lustre(8): at most 8 letters, digits, underscores and hyphens.
_FSNAME = r'[A-Za-z0-9_-]{1,8}'


class InvalidShare(exception.BrickException):
    message = _("'%(share)s' is not the name of a Lustre share "
                "(<MGS NIDs>:/<file system>[/<directory>]): %(reason)s")


class InvalidMountOptions(exception.BrickException):
    message = _("Lustre mount options '%(options)s' can't be used: "
                "%(reason)s")


class Locked(exception.BrickException):
    message = _("%(name)s on Lustre share %(share)s has been locked by "
                "another process for more than %(timeout)s s. It may be one "
                "that a service left behind on this host or another: it ends "
                "when the share's servers answer it.")


@dataclasses.dataclass(frozen=True)
class Share:
    """A share, by its name.

    :ivar mgs: NIDs of the MGS, as given
    :ivar fsname: name of the file system
    :ivar directory: directory of the file system, '' for its root
    :ivar options: mount options for this share alone, or None
    """

    mgs: str
    fsname: str
    directory: str = ''
    options: Optional[str] = None

    @classmethod
    def parse(cls, text):
        """Parse ``<share>`` or ``<share> -o <mount options>``.

        ``\\040`` stands for a space in the share's name, as in fstab(5).

        :raises InvalidShare: with what is wrong
        :raises InvalidMountOptions: options that QEMU's locks don't work with
        """
        name, options = cls._split_options(text)
        mgs, separator, path = name.partition(':/')
        if not separator:
            raise InvalidShare(share=name, reason=_("there is no ':/'"))
        if not re.fullmatch(_MGS, mgs):
            raise InvalidShare(share=name, reason=_(
                "'%s' is not a list of NIDs (address[@network], with commas "
                "between those of one server and colons between servers)")
                % mgs)
        fsname, _slash, directory = path.partition('/')
        if not re.fullmatch(_FSNAME, fsname):
            raise InvalidShare(share=name, reason=_(
                "'%s' is not a file system's name (1 to 8 letters, digits, "
                "'_' and '-')") % fsname)
        return cls(mgs, fsname, cls._checked_directory(name, directory),
                   options)

    @staticmethod
    def _split_options(text):
        words = text.split()
        if not words or not (len(words) == 1 or
                             len(words) == 3 and words[1] == '-o'):
            raise InvalidShare(share=text, reason=_(
                "expected a share, or a share, '-o' and mount options"))
        options = words[2] if len(words) == 3 else None
        check_mount_options(options)
        return words[0].replace('\\040', ' '), options

    @staticmethod
    def _checked_directory(name, directory):
        parts = directory.rstrip('/').split('/') if directory else []
        if '..' in parts or '.' in parts or '' in parts[1:] or \
                parts[:1] == [''] and directory.strip('/'):
            raise InvalidShare(share=name, reason=_(
                "the directory must have no empty part, '.' or '..'"))
        return '/'.join(parts)

    @property
    def name(self):
        """What mount gets, and the guard's name for the share."""
        return '%s:/%s' % (self.mgs, self.path)

    @property
    def path(self):
        """File system and directory: stays when the MGS list changes."""
        return os.path.join(self.fsname, self.directory).rstrip('/')

    @property
    def root(self):
        """The share of the whole file system."""
        return dataclasses.replace(self, directory='')

    def is_source(self, source, options):
        """Tell whether a source in the mount table is this share.

        :param options: it was mounted with; ``mgsname`` is what mount.lustre
            shows instead of the NIDs
        """
        shown = re.search(r'(?:^|,)mgsname=([^,]*)', options)
        mgs = shown.group(1) if shown else self.mgs
        return _normal(source) == _normal('%s:/%s' % (mgs, self.path))

    def __str__(self):
        return self.name


def _normal(name):
    """Spell a share's name in one of the ways that mean the same."""
    mgs, _separator, path = name.partition(':/')
    nids = [_normal_nid(nid) for nid in re.split(r'([,:])', mgs)]
    return '%s:/%s' % (''.join(nids), path.rstrip('/'))


def _normal_nid(nid):
    # LNet's default network is tcp, and a network without a number is its
    # number 0.
    if nid in (',', ':'):
        return nid
    address, _at, network = nid.partition('@')
    network = network or 'tcp'
    return '%s@%s' % (address, re.sub(r'(?<=[a-z])0$', '', network))


def check_mount_options(options):
    """Refuse mount options that QEMU's image locks don't work with.

    :raises InvalidMountOptions:
    """
    bad = _LOCKLESS_OPTIONS.intersection((options or '').split(','))
    if bad:
        raise InvalidMountOptions(options=options, reason=_(
            "QEMU's image locks keep two hosts from writing one image, and "
            "they need 'flock', not '%s'") % bad.pop())


@dataclasses.dataclass(frozen=True)
class Mount:
    """An entry of the mount table."""

    mount_point: str
    fs_type: str
    source: str


def mounted_at(mount_point):
    """Return what the mount table says of a mount point, or None.

    Where several file systems are mounted over each other it is the last
    that counts.
    """
    found = None
    with open('/proc/self/mountinfo', errors='surrogateescape') as table:
        for line in table:
            before, _dash, after = line.partition(' - ')
            where = _unescape(before.split()[4])
            if where == mount_point:
                fs_type, source = after.split()[:2]
                found = Mount(where, fs_type, _unescape(source))
    return found


def _unescape(text):
    return re.sub(r'\\([0-7]{3})', lambda m: chr(int(m.group(1), 8)), text)


class ShareClient:
    """Mounts shares and watches over the mounts.

    :param mount_point_base: directory of the mount points
    :param mounter: has ``mount(source, mount_point, options, timeout)`` and
        ``unmount(mount_point, timeout)``, run with root's rights, which
        return an exit code (None: still waiting after ``timeout`` seconds)
        and an error text
    :param options: mount options for shares that have none of their own
    :param attempts: how often to try to mount
    :param mount_timeout: seconds that one attempt may take
    :param timeout: seconds that any other call on a share may take
    :param fs_types: types of file systems that count as a share
    """

    def __init__(self, mount_point_base, mounter, options='flock', attempts=3,
                 mount_timeout=60, timeout=60, fs_types=('lustre',)):
        check_mount_options(options)
        self.mount_point_base = os.path.realpath(mount_point_base)
        self._mounter = mounter
        self._options = options
        self._attempts = max(1, attempts)
        self._mount_timeout = mount_timeout
        self.timeout = timeout
        self._fs_types = tuple(fs_types)
        self._guard = lustre_guard.Guard()

    def mount_point(self, share):
        """Where a share is mounted.

        The same place that os-brick and Nova give to a file share of this
        name, so that a host mounts it once.
        """
        digest = hashlib.md5(share.name.encode(), usedforsecurity=False)
        return os.path.join(self.mount_point_base, digest.hexdigest())

    def options(self, share):
        """The mount options of a share, flock among them.

        Clients before Lustre 2.12 don't have it unless told so.
        """
        options = share.options or self._options
        if 'flock' in options.split(','):
            return options
        return ','.join(filter(None, (options, 'flock')))

    def call(self, share, function, *args, timeout=None, source=None,
             session=None):
        """Call a function on a share, guarded.

        See :meth:`os_brick.remotefs.lustre_guard.Guard.call`.

        :param source: another share, if the call reads from that. Which of
            both doesn't answer can't be told then: what is left behind counts
            against calls from the one to the other, not against either.
        :param session: that :meth:`locked` gave
        """
        touched = share.name
        if source not in (None, share):
            touched = _('%(share)s (or %(source)s, its source)') % {
                'share': share, 'source': source}
        call = session.call if session else self._guard.call
        return call(touched, function, *args, timeout=timeout or self.timeout)

    @contextlib.contextmanager
    def locked(self, share, name, mode):
        """Hold the lock of a name on a share, between all hosts.

        It is held by the process that makes the calls, and by the commands
        it runs: so it lasts as long as any of them may still change something,
        be the service killed or its other locks lost.

        The lock is one byte of a file of the share; the name tells which.
        There are 2^62, so that two names have the same one once in a very
        long time, and then wait for each other.

        :param mode: of the lock file if it has to be made
        :returns: a session, for the calls that the lock is for
        :raises Locked: another process has had it for ``timeout`` seconds
        :raises ShareUnavailable: the share has been unmounted before the lock
            was taken, or while it was held: a file that was not found, to
            remove it, may be on the share all the same
        """
        with self._guard.session(share.name) as session:
            self._lock(session, share, name, mode)
            try:
                self._check_table(share, self.mount_point(share))
                yield session
            finally:
                in_place = self._unlock(session, share, name)
            if not in_place:
                raise ShareUnavailable(share=share, reason=_(
                    'it was unmounted while %s was worked on') % name)

    def _lock_path(self, share):
        return os.path.join(self.mount_point(share), LOCK_FILE)

    def _lock(self, session, share, name, mode):
        path = self._lock_path(share)
        digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
        offset = int.from_bytes(digest, 'big') >> 2
        end = time.monotonic() + self.timeout
        while not session.call(share.name, lustre_child.lock, path, offset,
                               mode, timeout=self.timeout):
            if time.monotonic() > end:
                raise Locked(name=name, share=share, timeout=self.timeout)
            time.sleep(_LOCK_POLL)

    def _unlock(self, session, share, name):
        """Give a lock up, and tell whether it was on what is mounted now."""
        if session.over:
            return True
        try:
            return session.call(share.name, lustre_child.unlock,
                                self._lock_path(share), timeout=self.timeout)
        except ShareUnavailable as exc:
            # What the lock was for is done.
            session.give_up(share.name)
            LOG.warning('%(name)s stays locked until its process has ended: '
                        '%(exc)s', {'name': name, 'exc': exc})
            return True

    def resident(self, share):
        """Return a guarded child for what outlasts a call on a share.

        See :meth:`os_brick.remotefs.lustre_guard.Guard.resident`.
        """
        return self._guard.resident(share.name)

    def check(self, share):
        """Make sure that a share is mounted, as what it should be.

        :returns: size and available space in bytes
        :raises ShareUnavailable: if it isn't, or doesn't answer
        """
        mount_point = self.mount_point(share)
        fs_type = self._check_table(share, mount_point).fs_type
        magic, size, available = self.call(share, lustre_child.statfs,
                                           mount_point)
        self._check_magic(share, mount_point, magic,
                          MAGIC.get(fs_type, magic))
        return size, available

    def ensure_mounted(self, share):
        """Mount a share unless it is mounted.

        :returns: size and available space in bytes
        :raises ShareUnavailable: if it can't be mounted
        """
        if not self._is_in_table(share):
            self._mount(share)
        return self.check(share)

    def unmount(self, share):
        """Unmount a share; it must not be in use.

        :raises ShareUnavailable: if it can't be unmounted
        """
        mount_point = self.mount_point(share)
        with self._host_lock(share):
            if mounted_at(mount_point):
                self._report(share, _('unmount'), *self._mounter.unmount(
                    mount_point, self._mount_timeout))

    def close(self):
        """End the guard's idle children."""
        self._guard.close()

    def _is_in_table(self, share):
        return mounted_at(self.mount_point(share)) is not None

    def _check_table(self, share, mount_point):
        mount = mounted_at(mount_point)
        if mount is None:
            raise ShareUnavailable(share=share, reason=_(
                'it is not mounted at %s') % mount_point)
        if mount.fs_type not in self._fs_types:
            raise ShareUnavailable(share=share, reason=_(
                'what is mounted at %(where)s has the type %(type)s, not '
                '%(expected)s') % {'where': mount_point,
                                   'type': mount.fs_type,
                                   'expected': ' or '.join(self._fs_types)})
        if not share.is_source(mount.source, self.options(share)):
            raise ShareUnavailable(share=share, reason=_(
                'what is mounted at %(where)s is %(source)s') % {
                    'where': mount_point, 'source': mount.source})
        return mount

    @staticmethod
    def _check_magic(share, mount_point, magic, expected):
        if magic != expected:
            raise ShareUnavailable(share=share, reason=_(
                'the file system at %(where)s has the magic number '
                '0x%(magic)08X, not 0x%(expected)08X') % {
                    'where': mount_point, 'magic': magic,
                    'expected': expected})

    def _mount(self, share):
        mount_point = self.mount_point(share)
        # Not exist_ok, which looks at what is mounted there by now.
        with contextlib.suppress(FileExistsError):
            os.makedirs(mount_point, mode=0o755)
        with self._host_lock(share):
            for attempt in range(self._attempts):
                if attempt:
                    time.sleep(1)
                # Another process may have mounted it meanwhile.
                if self._is_in_table(share):
                    return
                code, error = self._mounter.mount(
                    share.name, mount_point, self.options(share),
                    self._mount_timeout)
                # One that still waits for the MGS will go on doing so: a
                # second one beside it is no help.
                if not code:
                    break
                LOG.warning('Attempt %(n)s to mount %(share)s: %(error)s', {
                    'n': attempt + 1, 'share': share, 'error': error})
        self._report(share, _('mount'), code, error)

    def _report(self, share, what, code, error):
        if code is None:
            raise lustre_guard.ShareHung(share=share, reason=_(
                '%(what)s has not returned within %(timeout)s s') % {
                    'what': what, 'timeout': self._mount_timeout})
        if code:
            raise ShareUnavailable(share=share, reason=_(
                '%(what)s failed: %(error)s') % {'what': what,
                                                 'error': error})
        LOG.info('%(what)s of %(share)s: done', {'what': what,
                                                 'share': share})

    def _host_lock(self, share):
        """Serialise mount and unmount of a share on a host."""
        mount_point = self.mount_point(share)
        digest = os.path.basename(mount_point)
        return _BoundedLock(_mount_locks[mount_point], lockutils.external_lock(
            'mount-' + digest, lock_file_prefix='lustre-',
            lock_path=lockutils.get_lock_path(cfg.CONF)
            or self.mount_point_base),
            self._mount_timeout, share)


# Locks between processes don't hold between the threads of one.
_mount_locks = collections.defaultdict(threading.Lock)


class _BoundedLock:
    """Locks for threads and for processes, with an end to the wait."""

    def __init__(self, thread_lock, process_lock, timeout, share):
        self._locks = (thread_lock, process_lock)
        self._timeout = timeout
        self._share = share
        self._held = contextlib.ExitStack()

    def __enter__(self):
        with self._held:
            for lock in self._locks:
                if not lock.acquire(timeout=self._timeout):
                    raise lustre_guard.ShareHung(share=self._share, reason=_(
                        'another process has been mounting it for more than '
                        '%s s') % self._timeout)
                self._held.callback(lock.release)
            self._held = self._held.pop_all()

    def __exit__(self, *exc):
        self._held.close()
