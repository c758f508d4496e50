# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""What the sandbox remembers of each file system.

A state directory holds one directory for each file system:

    <state>/<fsname>/state.json    OSTs, pools, faults: replaced, not rewritten
    <state>/<fsname>/limits.json   of projects: soft and hard, KiB and files
    <state>/<fsname>/disk.img      the image file under the loop device
    <state>/<fsname>/lock          held over every change and every mount
    <state>/<fsname>/hang.pid      held locked by the server of a hung share

The directory is $LUSTRE_SANDBOX_STATE, or /var/lib/lustre-sandbox. As sudo
and services drop the environment, the file /run/lustre-sandbox/<fsname> says
where the state of a file system is; so several sandboxes can be used at once.
Everything but the image is readable by all: lfs needs no root.
"""

import contextlib
import dataclasses
import fcntl
import glob
import json
import os

DEFAULT_STATE = '/var/lib/lustre-sandbox'
REGISTRY = '/run/lustre-sandbox'


class SandboxError(Exception):
    """Something the operator should read; no traceback."""


@dataclasses.dataclass
class FileSystem:
    name: str
    mgs: list                    # NIDs
    fstype: str
    ost_size: int                # bytes
    osts: int
    pools: dict = dataclasses.field(default_factory=dict)   # name: [index]
    # The names of the faults that are on; those of an OST are 'name=index'.
    faults: list = dataclasses.field(default_factory=list)
    directory: str = ''          # where this is kept; not in the JSON

    @property
    def image(self):
        return os.path.join(self.directory, 'disk.img')

    @property
    def size(self):
        return self.osts * self.ost_size

    def faulty_osts(self, fault):
        return {int(word.partition('=')[2]) for word in self.faults
                if word.startswith(fault + '=')}


def state_directory():
    return os.environ.get('LUSTRE_SANDBOX_STATE') or DEFAULT_STATE


def is_mine(fs):
    """Whether a list of all is to show this one.

    Who names a state directory sees a machine of his own.
    """
    mine = os.environ.get('LUSTRE_SANDBOX_STATE')
    return not mine or os.path.realpath(mine) == os.path.dirname(fs.directory)


def load(name):
    """The file system of that name, in whatever sandbox; None if unknown."""
    found = (_read_if_there(directory) for directory in _candidates(name))
    return next(filter(None, found), None)


def reload(fs):
    """The file system as it is now; None if it is gone."""
    return _read_if_there(fs.directory)


def load_all(state):
    """The file systems of one state directory."""
    found = (_read_if_there(os.path.join(state, name))
             for name in _names(state))
    return [fs for fs in found if fs]


def load_everything():
    """The file systems of every sandbox on this machine."""
    names = set(_names(state_directory())) | set(_names(REGISTRY))
    found = (load(name) for name in sorted(names | set(_names(DEFAULT_STATE))))
    return [fs for fs in found if fs]


def save(fs):
    """Write the state, whole or not at all, and tell the registry."""
    os.makedirs(fs.directory, mode=0o755, exist_ok=True)
    fields = dataclasses.asdict(fs)
    del fields['directory']
    _replace(os.path.join(fs.directory, 'state.json'),
             json.dumps(fields, indent=1) + '\n')
    os.makedirs(REGISTRY, mode=0o755, exist_ok=True)
    _replace(os.path.join(REGISTRY, fs.name), fs.directory + '\n')


def limits(fs):
    """The limits of projects that have any, by the projects' numbers."""
    with contextlib.suppress(FileNotFoundError):
        with open(os.path.join(fs.directory, 'limits.json')) as kept:
            return json.load(kept)
    return {}


def save_limits(fs, limits):
    _replace(os.path.join(fs.directory, 'limits.json'), json.dumps(limits))


def registered():
    """The names in the registry, and where their states are or were."""
    return [(name, _registered(name)) for name in _names(REGISTRY)]


def forget(name, directory):
    """Take a file system out of the registry if it is that directory's."""
    with contextlib.suppress(FileNotFoundError):
        if _registered(name) != directory:
            return
        os.unlink(os.path.join(REGISTRY, name))
    # Those who were killed before they had renamed it.
    for half in glob.glob(os.path.join(REGISTRY, '.%s.*' % name)):
        os.unlink(half)


@contextlib.contextmanager
def locked(directory):
    """One change, or one mount, of a file system at a time."""
    with open(os.path.join(directory, 'lock'), 'a') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _candidates(name):
    yield os.path.join(state_directory(), name)
    with contextlib.suppress(FileNotFoundError):
        yield _registered(name)
    yield os.path.join(DEFAULT_STATE, name)


def _registered(name):
    with open(os.path.join(REGISTRY, name)) as entry:
        return entry.read().strip()


def _read_if_there(directory):
    # Not permitted: someone else's sandbox, in a directory of their own.
    with contextlib.suppress(FileNotFoundError, NotADirectoryError,
                             PermissionError):
        return _read(directory)
    return None


def _read(directory):
    with open(os.path.join(directory, 'state.json')) as state:
        return FileSystem(directory=directory, **json.load(state))


def _names(directory):
    # A name that starts with a dot is a file on its way to its name.
    with contextlib.suppress(FileNotFoundError):
        return sorted(name for name in os.listdir(directory)
                      if not name.startswith('.'))
    return []


def _replace(path, text):
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, '.%s.%d' % (name, os.getpid()))
    with open(temporary, 'w') as new:
        new.write(text)
        new.flush()
        os.fsync(new.fileno())
    os.chmod(temporary, 0o644)
    os.rename(temporary, path)
