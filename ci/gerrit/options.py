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

"""The options of the listener and reporter, as in ci/gerrit-ci.conf.sample."""

from oslo_config import cfg

gerrit_opts = [
    cfg.HostAddressOpt('host', default='review.opendev.org',
                       help='The Gerrit.'),
    cfg.PortOpt('port', default=29418, help='Its port for ssh.'),
    cfg.StrOpt('username', required=True,
               help='The account of the CI, whose own comments ask for '
                    'nothing.'),
    cfg.StrOpt('key_file', required=True,
               help='File of its private key.'),
    cfg.StrOpt('known_hosts', required=True,
               help="File with the Gerrit's host key, which ssh-keyscan "
                    'writes. No other key is accepted.'),
    cfg.IntOpt('timeout', default=60, min=1,
               help='Seconds to wait for an answer.'),
    cfg.IntOpt('silence', default=900, min=1,
               help='Seconds without an event after which the connection is '
                    'made anew.'),
    cfg.IntOpt('longest_pause', default=300, min=1,
               help='Seconds between attempts to connect, or to report; the '
                    'first come sooner.'),
    cfg.IntOpt('report_hours', default=24, min=1,
               help='Hours after which a report that Gerrit did not take is '
                    'given up.'),
]

ci_opts = [
    cfg.StrOpt('name', default='Lustre CI',
               help="The CI's name, as in its account and wiki page."),
    cfg.StrOpt('job', default='cinder-lustre-certify', regex=r'\S+',
               help="The job's name, without blanks."),
    cfg.URIOpt('wiki_url', required=True,
               help='Address of the wiki page: each comment must have it.'),
    cfg.ListOpt('projects',
                default=['openstack/cinder', 'openstack/os-brick'],
                help='Projects whose changes are tested.'),
    cfg.ListOpt('branches', default=['master'],
                help='Branches whose changes are tested.'),
    cfg.StrOpt('command', required=True,
               help='What tests a patch set. It is split into words as a '
                    'shell does, but there is no shell. {project}, {branch}, '
                    '{ref}, {revision} and {output}, the directory for what '
                    'it writes, are filled in. Exit status 0 is success, 1 '
                    'failure, and any other an error that says nothing of '
                    'the change.'),
    cfg.IntOpt('time_limit', default=4 * 3600, min=1,
               help='Seconds after which a run is ended.'),
    cfg.StrOpt('log_dir', required=True,
               help='Directory for the logs, which a web server shows.'),
    cfg.URIOpt('log_url', required=True,
               help='Address of that directory.'),
    cfg.IntOpt('keep_days', default=30, min=1,
               help='Days to keep logs for. OpenDev asks for a month.'),
    cfg.IntOpt('waiting', default=100, min=1,
               help='How many patch sets may wait. More are dropped; recheck '
                    'brings them back.'),
    cfg.IntOpt('catch_up_hours', default=24, min=0,
               help='After a connection was lost, open changes that something '
                    'happened to in these hours are looked at: events are not '
                    'sent again. 0 leaves that out.'),
    cfg.BoolOpt('vote', default=False,
                help='Vote on the label Verified. A new CI only comments '
                     'until its results can be relied upon.'),
]


def list_opts():
    return [('gerrit', gerrit_opts), ('ci', ci_opts)]


def load(path):
    """Return the configuration in a file.

    :raises cfg.Error: an option is missing or wrong
    """
    conf = cfg.ConfigOpts()
    for group, opts in list_opts():
        conf.register_opts(opts, group=group)
    conf([], project='gerrit-ci', default_config_files=[path])
    for group, opts in list_opts():
        # Reads each, so that a wrong value shows now and not in a day.
        for opt in opts:
            conf[group][opt.dest]
    return conf
