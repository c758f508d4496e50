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

"""lustre-sandbox: the operator's command."""

import argparse
import contextlib
import grp
import os
import pwd
import re
import shutil
import sys

from sandbox import faults
from sandbox import hang
from sandbox import install
from sandbox import loops
from sandbox import mounts
from sandbox import names
from sandbox import state
from sandbox import stuck

DEFAULT_MGS = '10.0.2.15@tcp'
_UNITS = {'': 1, 'K': 1 << 10, 'M': 1 << 20, 'G': 1 << 30, 'T': 1 << 40}


def main():
    arguments = _parser().parse_args()
    try:
        _check_root(arguments)
        arguments.run(arguments)
    except (state.SandboxError, OSError) as error:
        print('lustre-sandbox: %s' % error, file=sys.stderr)
        return 1
    return 0


def _check_root(arguments):
    if os.geteuid() and arguments.run is not list_all:
        raise state.SandboxError('needs root')


def _parser():
    parser = argparse.ArgumentParser(
        prog='lustre-sandbox',
        description='Stands in for a Lustre client where there is none.')
    commands = parser.add_subparsers(required=True, metavar='COMMAND')

    def command(name, run, help):
        added = commands.add_parser(name, help=help, description=help)
        added.set_defaults(run=run)
        return added

    command('install', _install, 'put mount.lustre and lfs into place')
    command('uninstall', _uninstall, 'take them away').add_argument(
        '--force', action='store_true', help='even if they are in use')
    _add_create(command)
    command('destroy', _destroy, 'unmount and remove a file system'
            ).add_argument('fsname')
    command('destroy-all', destroy_all,
            'unmount and remove all file systems, and what a killed run left')
    command('list', list_all, 'list the file systems, faults and mounts')
    pool = command('pool', _pool, 'make an OST pool, or change its OSTs')
    pool.add_argument('fsname')
    pool.add_argument('pool', type=_pool_definition, metavar='POOL=OSTS',
                      help='for example flash=0-1,3; POOL= for an empty one')
    fault = command('fault', _fault, 'switch faults on, or clear them all')
    fault.add_argument('fsname')
    fault.add_argument('fault', nargs='+', metavar='FAULT',
                       help=' '.join(faults.ALL))
    command('serve-hang', _serve_hang, 'internal: the server of a hung share'
            ).add_argument('fsname')
    serve = command('serve-stuck', _serve_stuck,
                    'internal: the server of a mount whose calls get stuck')
    for argument in 'fsname', 'target', 'source':
        serve.add_argument(argument)
    return parser


def _add_create(command):
    create = command('create', _create, 'make a file system')
    create.add_argument('fsname', type=_fsname)
    create.add_argument('--mgs', default=DEFAULT_MGS, metavar='NIDS',
                        help='as in a share name (%(default)s)')
    create.add_argument('--osts', type=int, default=2, metavar='N',
                        help='number of OSTs (%(default)s)')
    create.add_argument('--ost-size', type=_size, default='4G',
                        metavar='SIZE', help='each (%(default)s), sparse')
    create.add_argument('--fstype', choices=sorted(loops.MKFS), default='xfs')
    create.add_argument('--dir', action='append', default=[], metavar='PATH',
                        help='make a directory in it; may be repeated')
    create.add_argument('--owner', type=_owner, default='root:root',
                        metavar='USER[:GROUP]', help='of these directories')
    create.add_argument('--pool', action='append', default=[],
                        type=_pool_definition, metavar='POOL=OSTS',
                        help='make an OST pool; may be repeated')


# The commands

def _install(arguments):
    install.install()


def _uninstall(arguments):
    install.uninstall(force=arguments.force)


def _create(arguments):
    fs = state.FileSystem(
        name=arguments.fsname, mgs=_nids(arguments.mgs),
        fstype=arguments.fstype, ost_size=arguments.ost_size,
        osts=arguments.osts, pools=dict(arguments.pool),
        directory=os.path.join(os.path.realpath(state.state_directory()),
                               arguments.fsname))
    _check_new(fs)
    os.makedirs(fs.directory, mode=0o755)
    try:
        loops.make_image(fs)
        mounts.privately(
            loops.device(fs), fs.fstype,
            lambda root: _make_directories(root, arguments.dir,
                                           arguments.owner))
        # From here on it can be mounted.
        state.save(fs)
    except BaseException:
        _remove(fs.name, fs.directory)
        raise
    print('%s:/%s' % (arguments.mgs, fs.name))


def _check_new(fs):
    if not 1 <= fs.osts <= 0xffff:
        raise state.SandboxError('--osts: 1 or more')
    for pool, members in fs.pools.items():
        _check_members(fs, pool, members)
    other = state.load(fs.name)
    if other or os.path.exists(fs.directory):
        raise state.SandboxError('%s exists already in %s' % (
            fs.name, other.directory if other else fs.directory))


def _make_directories(root, directories, owner):
    os.chmod(root, 0o755)
    for directory in directories:
        path = os.path.join(root, directory.strip('/'))
        os.makedirs(path, mode=0o755, exist_ok=True)
        os.chmod(path, 0o755)
        os.chown(path, *owner)


def _destroy(arguments):
    fs = _existing(arguments.fsname)
    _remove(fs.name, fs.directory)


def destroy_all(arguments):
    """Remove whatever lies in the state directory, whole or half made."""
    top = os.path.realpath(state.state_directory())
    for name in sorted(os.listdir(top) if os.path.isdir(top) else []):
        if os.path.isdir(os.path.join(top, name)):
            _remove(name, os.path.join(top, name))
    # What is left if someone removed the directory itself.
    _release_devices(top)
    for name, directory in state.registered():
        if os.path.dirname(directory) == top:
            state.forget(name, directory)


def _remove(name, directory):
    fs = state.load(name)
    if fs and fs.directory == directory:
        with contextlib.suppress(state.SandboxError):
            faults.clear(fs)
        mounts.unmount_all(mounts.of(name))
    _release_devices(directory)
    # The record goes last: until then a killed removal can be repeated.
    for entry in ('disk.img', 'hang.pid', 'lock'):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(directory, entry))
    state.forget(name, directory)
    shutil.rmtree(directory, ignore_errors=True)


def _release_devices(directory):
    for device in loops.devices_below(directory):
        mounts.unmount_all(mounts.on(loops.number(device)))
        loops.detach(device)


def list_all(arguments):
    for fs in state.load_all(state.state_directory()):
        print('%s:/%s  %s, %d OSTs of %d MiB%s' % (
            ':'.join(fs.mgs), fs.name, fs.fstype, fs.osts,
            fs.ost_size >> 20,
            ', faults: ' + ' '.join(fs.faults) if fs.faults else ''))
        for mount in mounts.of(fs.name):
            print('    %s on %s (%s)' % (mount.source, mount.target,
                                         mount.fstype))


def _pool(arguments):
    fs = _existing(arguments.fsname)
    pool, members = arguments.pool
    _check_members(fs, pool, members)
    with state.locked(fs.directory):
        fs = _existing(arguments.fsname)
        fs.pools[pool] = members
        state.save(fs)


def _check_members(fs, pool, members):
    if any(index >= fs.osts for index in members):
        raise state.SandboxError('pool %s: %s has OSTs 0 to %d' % (
            pool, fs.name, fs.osts - 1))


def _fault(arguments):
    directory = _existing(arguments.fsname).directory
    with state.locked(directory):
        for fault in arguments.fault:
            faults.switch(_existing(arguments.fsname), fault)


def _serve_hang(arguments):
    hang.serve(_existing(arguments.fsname))


def _serve_stuck(arguments):
    stuck.serve(_existing(arguments.fsname), arguments.target,
                arguments.source)


# What the words on the command line mean

def _existing(name):
    fs = state.load(name)
    if not fs:
        raise state.SandboxError('no file system %s' % name)
    return fs


def _nids(text):
    nids = [nid for nid in re.split('[:,]', text) if nid]
    for nid in nids:
        try:
            names.network(nid)
        except names.BadNID:
            raise state.SandboxError('--mgs: bad NID %s' % nid)
    return nids


def _fsname(text):
    if not names.FSNAME.match(text):
        raise argparse.ArgumentTypeError(
            'a name has 1 to 8 letters, digits, _ and -')
    return text


def _size(text):
    match = re.fullmatch(r'(\d+)([KMGT]?)(i?B)?', text.upper())
    if not match:
        raise argparse.ArgumentTypeError('a size is a number and K, M, G, T')
    return int(match[1]) * _UNITS[match[2]]


def _owner(text):
    user, _, group = text.partition(':')
    try:
        entry = pwd.getpwnam(user)
        return entry.pw_uid, grp.getgrnam(group).gr_gid if group else (
            entry.pw_gid)
    except KeyError as error:
        raise argparse.ArgumentTypeError(error)


def _pool_definition(text):
    match = re.fullmatch(r'([\w-]{1,15})=([\d,-]*)', text)
    if not match:
        raise argparse.ArgumentTypeError('POOL=0-1,3')
    members = set()
    for part in filter(None, match[2].split(',')):
        first, _, last = part.partition('-')
        members.update(range(int(first), int(last or first) + 1))
    return match[1], sorted(members)
