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

"""What is said in Gerrit of a run.

In the form that OpenDev's Gerrit shows as a table, and that Cinder counts:
https://docs.opendev.org/opendev/system-config/latest/third_party.html
"""

from ci.gerrit import runner

_SENTENCES = {
    runner.SUCCESS: 'Build succeeded.',
    runner.FAILURE: 'Build failed.',
    runner.ERROR: 'Build could not be finished. This says nothing of the '
                  'change.',
}
_VOTES = {runner.SUCCESS: 1, runner.FAILURE: -1}


def comment(options, result, url, seconds):
    """Return the text of a comment.

    :param options: the group ``ci`` of :mod:`ci.gerrit.options`
    :param url: where the logs are
    """
    minutes, seconds = divmod(int(seconds), 60)
    return '\n'.join([
        '%s %s' % (options.name, _SENTENCES[result]),
        '',
        '* %s %s : %s in %dm %02ds' % (options.job, url, result, minutes,
                                       seconds),
        '',
        # None of these lines begins with what would ask for a run.
        'To run it again, comment "run-%s" in a line of its own; "recheck" '
        'runs all CIs.' % options.name,
        'About this CI, and whom to ask: %s' % options.wiki_url,
    ])


def vote(options, result):
    """Return the vote, or None if there is none."""
    return _VOTES.get(result) if options.vote else None
