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

"""Stand-ins for services that can't run here, and the end of a process."""

import contextlib
import itertools
import os
import pwd
import resource
import shutil
import signal
import sqlite3
import sys
import traceback
from unittest import mock

import fixtures
from oslo_db.sqlalchemy import engines
from sqlalchemy import event

from cinder.tests.unit.lustre import releases


class ImageService:
    """Keeps one image: a local file.

    :param properties: of the image, as the service shows them
    """

    temp_images = None

    def __init__(self, path, disk_format, **properties):
        self._path = path
        self._disk_format = disk_format
        self._properties = properties

    def show(self, context, image_id):
        size = os.stat(self._path).st_size
        return {'id': image_id, 'name': image_id, 'status': 'active',
                'disk_format': self._disk_format, 'container_format': 'bare',
                'size': size, 'min_disk': 0, 'properties': {},
                **self._properties}

    def get_location(self, context, image_id):
        """There is no other way to it than its download."""
        return None, None

    def download(self, context, image_id, data):
        with open(self._path, 'rb') as image:
            shutil.copyfileobj(image, data)

    def update(self, context, image_id, image_meta, data, **kwargs):
        with open(self._path, 'wb') as image:
            shutil.copyfileobj(data, image)


class Nova:
    """Does what Nova does when it is asked for a snapshot, at once.

    :param work: called with what Cinder tells Nova
    """

    def __init__(self, snapshot, work=lambda info: None):
        self._snapshot = snapshot
        self._work = work

    def create_volume_snapshot(self, context, volume_id, create_info):
        self._work(create_info)
        self._done()

    def delete_volume_snapshot(self, context, snapshot_id, delete_info):
        self._work(delete_info)
        self._done()

    def _done(self):
        self._snapshot.progress = '90%'
        self._snapshot.save()


class DatabaseFile(fixtures.Fixture):
    """Moves the test's database into a file, for processes to share it."""

    def __init__(self, path):
        self.path = path

    def _setUp(self):
        with contextlib.closing(sqlite3.connect(self.path)) as file:
            memory = releases.database.get_engine().raw_connection()
            memory.driver_connection.backup(file)
            memory.close()
        engine = engines.create_engine('sqlite:///%s?timeout=60' % self.path,
                                       sqlite_synchronous=False)
        let_transactions_wait(engine)
        self.addCleanup(releases.database.main_context_manager.patch_engine(
            engine))


def let_transactions_wait(engine):
    """Let the transactions of an SQLite database wait for each other.

    Where two that have read want to write, SQLite fails the second one at
    once. So each says at its beginning that it will.
    """
    @event.listens_for(engine, 'before_cursor_execute', retval=True)
    def execute(connection, cursor, statement, parameters, *args):
        # This is oslo.db's.
        if statement == 'BEGIN':
            statement = 'BEGIN IMMEDIATE'
        return statement, parameters


@contextlib.contextmanager
def no_room():
    """Let every write to a file fail in this process and its children."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def readable_by_all(path):
    """Tell whether any user may read a file, as its modes say."""
    path = os.path.realpath(path)
    while os.stat(path).st_mode & 0o005:
        if path == '/':
            return True
        path = os.path.dirname(path)
    return False


def in_child(work, user=None):
    """Run ``work()`` in a forked process.

    :param user: name of the user that this process belongs to
    :returns: whether it came to its end, and wasn't killed
    """
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if not process:
        code = 1
        try:
            if user:
                _become(pwd.getpwnam(user))
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    status = os.waitpid(process, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    if status:
        raise AssertionError('the child failed, and was not killed')
    return True


def _become(entry):
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


def killed_before(number, steps, work):
    """Run ``work()`` in a process that is killed before one of its steps.

    :param number: of the step, from 1
    :param steps: the methods that are steps, as (owner, name); what they
        have done before the kill stays done
    :returns: False if there were fewer steps and ``work`` is done
    """
    count = itertools.count(1)

    def run():
        with contextlib.ExitStack() as stack:
            for owner, name in steps:
                stack.enter_context(mock.patch.object(
                    owner, name, _step(getattr(owner, name))))
            work()

    def _step(method):
        def step(*args, **kwargs):
            if next(count) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return method(*args, **kwargs)
        return step

    return not in_child(run)
