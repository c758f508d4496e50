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

"""A Gerrit to test with: a real ssh server, with Gerrit's commands.

It has one account, takes a command apart as Gerrit does (and as a shell does),
and answers with what Gerrit's documentation says: ``stream-events``, ``query``
and ``review``. Reviews are kept, and refused for what Gerrit refuses.
"""

import argparse
import contextlib
import json
import os
import queue
import shlex
import socket
import threading

import fixtures
import paramiko

ADDRESS = '127.0.0.1'
USER = 'lustre-ci'


class _Refused(Exception):
    pass


class _Parser(argparse.ArgumentParser):

    def error(self, message):
        raise _Refused(message)


class FakeGerrit(fixtures.Fixture):
    """It runs from setUp to cleanup.

    :ivar reviews: (patch set, label, message) of each review
    :ivar streams: how many are listening
    :ivar tags: the tag of each of them
    :ivar queries: the words of each query
    :ivar may_vote: whether the account may
    :ivar open: the open changes, as ``query`` tells of them
    """

    def _setUp(self):
        directory = self.useFixture(fixtures.TempDir()).path
        self._host_key = paramiko.ECDSAKey.generate()
        self._user_key = paramiko.ECDSAKey.generate()
        self.key_file = os.path.join(directory, 'id_ecdsa')
        self._user_key.write_private_key_file(self.key_file)
        self.known_hosts = os.path.join(directory, 'known_hosts')
        self.reviews = []
        self.tags = []
        self.queries = []
        self.open = []
        self.may_vote = True
        self._streams = []
        self._changed = threading.Condition()
        self._transports = []
        self._listening = None
        self.port = None
        self.start()
        with open(self.known_hosts, 'w') as file:
            file.write('[%s]:%d %s %s\n' % (
                ADDRESS, self.port, self._host_key.get_name(),
                self._host_key.get_base64()))
        self.addCleanup(self.stop)

    # What happens to it

    def start(self):
        self._listening = socket.create_server((ADDRESS, self.port or 0),
                                               reuse_port=False)
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listening,),
                         daemon=True).start()

    def stop(self):
        """Go away, with all connections."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.disconnect()

    def disconnect(self):
        """End all connections, and take new ones."""
        for transport in self._transports:
            transport.close()
        with self._changed:
            self._streams.clear()

    def send(self, event):
        """Tell those who listen of an event; bytes are sent as they are."""
        line = event if isinstance(event, bytes) else (
            json.dumps(event).encode() + b'\n')
        with self._changed:
            for stream in self._streams:
                stream.put(line)

    def wait(self, condition, seconds=60):
        """Wait until something is true of it."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self), seconds):
                raise AssertionError('reviews: %s, streams: %s' % (
                    self.reviews, self.streams))

    @property
    def streams(self):
        return len(self._streams)

    # What it does

    def _accept(self, listening):
        while True:
            try:
                client, _address = listening.accept()
            except OSError:
                return
            transport = paramiko.Transport(client)
            transport.add_server_key(self._host_key)
            with contextlib.suppress(paramiko.SSHException, EOFError,
                                     OSError):
                transport.start_server(server=_Server(self))
                self._transports.append(transport)

    def accepts(self, username, key):
        return username == USER and key == self._user_key

    def serve(self, channel, command):
        # A client may go away, and we may.
        with contextlib.suppress(EOFError, OSError, paramiko.SSHException):
            self._serve(channel, command)

    def _serve(self, channel, command):
        try:
            words = shlex.split(command)
            if words[:2] == ['gerrit', 'stream-events']:
                self._stream(channel)
                return
            verbs = {'query': self._query, 'review': self._review}
            if words[0] != 'gerrit' or words[1] not in verbs:
                raise _Refused('%s: not found' % command)
            # The client has heard that its command was taken, and has no more
            # to say: it would not like the channel to be closed before.
            channel.recv(1)
            channel.sendall(verbs[words[1]](words[2:]))
            channel.send_exit_status(0)
        except _Refused as exc:
            channel.sendall_stderr(('fatal: %s\n' % exc).encode())
            channel.send_exit_status(1)
        finally:
            channel.close()

    def _stream(self, channel):
        lines = queue.Queue()
        with self._changed:
            self._streams.append(lines)
            self._changed.notify_all()
        while not channel.closed:
            with contextlib.suppress(queue.Empty, OSError):
                channel.sendall(lines.get(timeout=0.1))

    def _query(self, words):
        with self._changed:
            self.queries.append(words)
            lines = [json.dumps(change) for change in self.open]
            self._changed.notify_all()
        lines.append(json.dumps({'type': 'stats', 'rowCount': len(lines)}))
        return ''.join(line + '\n' for line in lines).encode()

    def _review(self, words):
        parser = _Parser()
        for name in 'project', 'message', 'tag', 'label':
            parser.add_argument('--' + name)
        parser.add_argument('patch_set')
        review = parser.parse_args(words)
        if review.label and not self.may_vote:
            raise _Refused('applying label "%s" is restricted' % review.label)
        with self._changed:
            self.reviews.append((review.patch_set, review.label,
                                 review.message))
            self.tags.append(review.tag)
            self._changed.notify_all()
        return b''


class _Server(paramiko.ServerInterface):

    def __init__(self, gerrit):
        self._gerrit = gerrit

    def get_allowed_auths(self, username):
        return 'publickey'

    def check_auth_publickey(self, username, key):
        return (paramiko.AUTH_SUCCESSFUL
                if self._gerrit.accepts(username, key)
                else paramiko.AUTH_FAILED)

    def check_channel_request(self, kind, channel_id):
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel, command):
        threading.Thread(target=self._gerrit.serve,
                         args=(channel, command.decode()),
                         daemon=True).start()
        return True


def change(number=4711, project='openstack/cinder', branch='master'):
    return {'project': project, 'branch': branch, 'number': number,
            'subject': 'Mend $(touch /tmp/subject)', 'status': 'NEW',
            'owner': {'username': 'somebody'}}


def patch_set(change_number=4711, number=1):
    return {'number': number, 'revision': '%040x' % (change_number + number),
            'ref': 'refs/changes/%02d/%d/%d' % (
                change_number % 100, change_number, number)}


def created(number=4711, patch_set_number=1, **kwargs):
    """A new patch set, as stream-events tells of it."""
    return {'type': 'patchset-created', 'change': change(number, **kwargs),
            'patchSet': patch_set(number, patch_set_number),
            'uploader': {'username': 'somebody'}}


def commented(comment, number=4711, patch_set_number=1, author='somebody'):
    return {'type': 'comment-added', 'change': change(number),
            'patchSet': patch_set(number, patch_set_number),
            'author': {'username': author},
            'comment': 'Patch Set %d:\n\n%s' % (patch_set_number, comment)}


def commented_beside(comment):
    """What Gerrit has told since 3.3 of what is said of a patch set."""
    event = commented('(1 comment)')
    event['patchSetComments'] = {'/PATCHSET_LEVEL': [
        {'file': '/PATCHSET_LEVEL', 'line': 0, 'message': comment,
         'reviewer': {'username': 'somebody'}}]}
    return event


def open_change(number=4711, patch_set_number=1, **kwargs):
    """An open change, as query tells of it."""
    return {**change(number, **kwargs),
            'currentPatchSet': patch_set(number, patch_set_number)}
