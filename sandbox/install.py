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

"""Puts mount.lustre and lfs where mount(8) and the users look for them.

Each is one executable file, a zip archive of this package behind a line that
names the interpreter: so any user can run it wherever the repository lies.
What bears no mark of ours is never touched.

Python goes on reading from an archive while it runs, so one is replaced only
when its content has changed; the same sources make the same archive.
"""

import contextlib
import fcntl
import io
import os
import zipfile

from sandbox import state

MARK = b'# a part of lustre-sandbox, not of Lustre\n'
PLACES = {'sbin/mount.lustre': 'mount_lustre', 'usr/bin/lfs': 'lfs'}
# Others run programs by their system's interpreter; so must these.
INTERPRETER = '/usr/bin/python3'


def install(root='/'):
    _check_no_real_client(root)
    for place, module in PLACES.items():
        _replace(os.path.join(root, place), _program(module))


def uninstall(root='/', force=False):
    """Take them away, unless someone uses them."""
    with _alone(force):
        used = [fs.name for fs in state.load_everything()]
        if used and not force:
            raise state.SandboxError(
                'these file systems are still there: %s' % ' '.join(used))
        for place in PLACES:
            path = os.path.join(root, place)
            if _is_ours(path):
                os.unlink(path)


def is_installed(root='/'):
    return all(_is_ours(os.path.join(root, place)) for place in PLACES)


def keep():
    """Keep others from uninstalling until the file returned is closed."""
    lock = _open_lock()
    fcntl.flock(lock, fcntl.LOCK_SH)
    return lock


def _open_lock():
    os.makedirs(state.REGISTRY, mode=0o755, exist_ok=True)
    return open(os.path.join(state.REGISTRY, '.installed'), 'a')


@contextlib.contextmanager
def _alone(force):
    with _open_lock() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not force:
                raise state.SandboxError('tests are using the sandbox')
        yield


def _check_no_real_client(root):
    foreign = [path for path in (os.path.join(root, place)
                                 for place in PLACES)
               if os.path.lexists(path) and not _is_ours(path)]
    kernel = os.path.join(root, 'sys/fs/lustre')
    if os.path.exists(kernel):
        foreign.append(kernel)
    if foreign:
        raise state.SandboxError(
            'a real Lustre client is installed here (%s): use that'
            % ', '.join(foreign))


def _is_ours(path):
    try:
        with open(path, 'rb') as program:
            return MARK in program.read(256)
    except OSError:
        return False


def _program(module):
    """An archive that runs that module's main()."""
    archive = io.BytesIO()
    archive.write(b'#!%s -I\n%s' % (_interpreter().encode(), MARK))
    with zipfile.ZipFile(archive, 'a', zipfile.ZIP_DEFLATED) as programs:
        _add(programs, '__main__.py', 'import sys\n\n'
             'from sandbox import %s\n\nsys.exit(%s.main())\n' % (
                 module, module))
        for path, name in _files():
            with open(path) as source:
                _add(programs, 'sandbox/' + name, source.read())
    return archive.getvalue()


def _add(programs, name, text):
    # A date of its own would make every archive another one.
    programs.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)


def _interpreter():
    if not os.access(INTERPRETER, os.X_OK):
        raise state.SandboxError('%s is not installed' % INTERPRETER)
    return INTERPRETER


def _files():
    here = os.path.dirname(os.path.abspath(__file__))
    for directory in '', 'usage':
        for name in sorted(os.listdir(os.path.join(here, directory))):
            if name.endswith(('.py', '.txt')):
                name = os.path.join(directory, name)
                yield os.path.join(here, name), name


def _replace(path, content):
    with contextlib.suppress(FileNotFoundError):
        with open(path, 'rb') as program:
            if program.read() == content:
                return
    temporary = '%s.%d' % (path, os.getpid())
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(temporary, 'wb') as program:
        program.write(content)
    os.chmod(temporary, 0o755)
    os.rename(temporary, path)
