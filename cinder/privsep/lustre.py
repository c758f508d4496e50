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

"""What needs root on Lustre shares.

One function each. They run in the privileged daemon, which has but a few
threads for all shares: so what touches a share is done in the daemon's own
guarded children, and never for longer than the caller says.

Each returns plain values: an exception of a guarded call would not survive the
way through the daemon's socket.
"""

from cinder.lustre import files
import cinder.privsep
from os_brick.remotefs import lustre_guard

_guard = lustre_guard.Guard()


def _run(share, timeout, *argv):
    try:
        code, _output, error = _guard.run(share, *argv, timeout=timeout)
    except lustre_guard.ShareHung as exc:
        return None, str(exc)
    return code, ' '.join(error.split())


def _call(share, timeout, function, *args):
    try:
        return _guard.call(share, function, *args, timeout=timeout), None
    except (OSError, ValueError, lustre_guard.ShareUnavailable) as exc:
        return None, str(exc)


@cinder.privsep.sys_admin_pctxt.entrypoint
def mount(source, mount_point, options, timeout):
    """Mount a share.

    The system call alone would not do: mount.lustre(8) makes the options that
    the kernel gets.

    :returns: exit code (None if it still waits after ``timeout`` seconds) and
        what it said on standard error
    """
    return _run(source, timeout, 'mount', '-t', 'lustre', '-o', options,
                source, mount_point)


@cinder.privsep.sys_admin_pctxt.entrypoint
def unmount(mount_point, timeout):
    """Unmount a share that is not in use.

    :returns: as :func:`mount`
    """
    return _run(mount_point, timeout, 'umount', mount_point)


@cinder.privsep.sys_admin_pctxt.entrypoint
def take_over(share, path, uid, gid, timeout):
    """Give a file of a share to the service.

    :returns: None, or why it failed
    """
    return _call(share, timeout, files.take_over, path, uid, gid)[1]


@cinder.privsep.sys_admin_pctxt.entrypoint
def set_project(share, path, project, timeout):
    """Count the space of a file for a project, which Lustre lets root do only.

    :returns: as :func:`mount`
    """
    return _run(share, timeout, 'lfs', 'project', '-p', str(project), path)


@cinder.privsep.sys_admin_pctxt.entrypoint
def set_limit(share, directory, project, limit, timeout):
    """Limit the space that a project may take on a file system.

    :param directory: the share's mount point
    :param limit: MiB; 0 for none
    :returns: as :func:`mount`
    """
    return _run(share, timeout, 'lfs', 'setquota', '-p', str(project),
                '-B', '%dM' % limit, directory)


@cinder.privsep.sys_admin_pctxt.entrypoint
def grow(share, path, size, allocate, timeout):
    """Grow a raw image that the hypervisor's user owns now.

    :param size: bytes
    :param allocate: whether all of its space is to be allocated
    :returns: None, or why it failed
    """
    error = _call(share, timeout, files.grow, path, size)[1]
    if allocate and not error:
        error = _call(share, timeout, files.allocate, path)[1]
    return error or _call(share, timeout, files.sync, path)[1]


@cinder.privsep.sys_admin_pctxt.entrypoint
def chain(share, directory, name, active, base_format, timeout):
    """Follow a chain of images that the hypervisor's user owns now.

    :returns: what :func:`cinder.lustre.files.chain` does, and why it failed
    """
    return _call(share, timeout, files.chain, directory, name, active,
                 base_format)
