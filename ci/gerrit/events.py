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

"""What Gerrit tells, and which of it asks for a run.

An event is what anybody who has an account may have written. Nothing of it is
used that does not look as Gerrit makes it, and of a comment nothing at all but
whether it asks for another run.

The fields are those of Gerrit's ``stream-events`` and ``query``
(https://gerrit-review.googlesource.com/Documentation/json.html).
"""

import dataclasses
import json
import re

CREATED = 'patchset-created'
COMMENTED = 'comment-added'

_REVISION = re.compile(r'[0-9a-f]{40}|[0-9a-f]{64}')
# What Gerrit puts above a comment: "Patch Set 3: Code-Review+1".
_HEADER = re.compile(r'\s*Patch Set \d+:?.*')


class Malformed(Exception):
    """What can't be a patch set of Gerrit's; the message says why."""


@dataclasses.dataclass(frozen=True)
class PatchSet:
    """A version of a change."""

    project: str
    branch: str
    change: int
    number: int
    ref: str
    revision: str

    def __str__(self):
        return '%d,%d' % (self.change, self.number)

    @classmethod
    def of(cls, change, patch_set):
        """Take it from what Gerrit says of both.

        :raises Malformed: something is missing, or not as Gerrit makes it
        """
        try:
            number = _number(change['number'])
            found = cls(_text(change['project']), _text(change['branch']),
                        number, _number(patch_set['number']),
                        _text(patch_set['ref']), _text(patch_set['revision']))
        except (KeyError, TypeError, ValueError) as exc:
            raise Malformed('a change without a proper %s' % exc)
        ref = 'refs/changes/%02d/%d/%d' % (number % 100, number, found.number)
        if found.ref != ref:
            raise Malformed('ref %.100r of %s' % (found.ref, found))
        if not _REVISION.fullmatch(found.revision):
            raise Malformed('revision %.100r of %s' % (found.revision, found))
        return found


def _text(value):
    if not isinstance(value, str):
        raise ValueError('text: %.100r' % (value,))
    return value


def _number(value):
    # Gerrit had them as text before 3.0, and some events still do.
    if not re.fullmatch(r'[1-9][0-9]{0,8}', str(value)):
        raise ValueError('number: %.100r' % (value,))
    return int(value)


class Filter:
    """Which patch sets are to be tested.

    :param projects: names of Gerrit's projects
    :param branches: names of branches
    :param user: our own name, whose comments ask for nothing
    :param ci_name: ``run-<name>`` asks for a run of this CI only
    """

    def __init__(self, projects, branches, user, ci_name):
        self._projects = frozenset(projects)
        self._branches = frozenset(branches)
        self._user = user
        self._request = re.compile(
            r'\s*(recheck(\s.*)?|run-%s\s*)' % re.escape(ci_name), re.I)

    def wants(self, patch_set):
        return (patch_set.project in self._projects and
                patch_set.branch in self._branches)

    def of_event(self, event):
        """Return the patch set that an event asks to test, or None.

        :returns: the patch set, and whether it may have been tested before
        :raises Malformed: it is an event that matters, and broken
        """
        kind = event.get('type')
        again = kind == COMMENTED and self._asks(event)
        if kind != CREATED and not again:
            return None, False
        patch_set = PatchSet.of(event.get('change'), event.get('patchSet'))
        return (patch_set if self.wants(patch_set) else None), again

    def of_query(self, result):
        """Return the newest patch set of one of a query's results, or None."""
        if 'currentPatchSet' not in result:
            # The last one has the number of results.
            return None
        patch_set = PatchSet.of(result, result['currentPatchSet'])
        return patch_set if self.wants(patch_set) else None

    def _asks(self, event):
        author = event.get('author')
        if isinstance(author, dict) and author.get('username') == self._user:
            return False
        return any(self._request.fullmatch(line)
                   for text in _texts(event) for line in _lines(text))


def _texts(event):
    """Yield what somebody has said, wherever Gerrit puts it.

    Since 3.3 what is said of a whole patch set is beside the event's comment,
    which has the number of such comments only.
    """
    yield event.get('comment')
    placed = event.get('patchSetComments')
    comments = (placed.get('/PATCHSET_LEVEL')
                if isinstance(placed, dict) else None)
    for comment in comments if isinstance(comments, list) else []:
        if isinstance(comment, dict):
            yield comment.get('message')


def _lines(text):
    lines = text[:10000].splitlines() if isinstance(text, str) else []
    return lines[1:] if lines and _HEADER.fullmatch(lines[0]) else lines


def parse(line):
    """Return the event, or the query's result, of one line.

    :param line: bytes
    :raises Malformed: it is not one
    """
    try:
        event = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise Malformed('not JSON: %s' % exc)
    if not isinstance(event, dict):
        raise Malformed('not an object: %.100r' % (event,))
    return event
