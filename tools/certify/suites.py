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

"""The suites, in the order in which they run."""

import dataclasses

# Scenarios of Tempest's that are about volumes.
SCENARIOS = ('encrypted_cinder_volumes', 'instances_with_cinder_volumes',
             'server_volume_attachment', 'snapshot_pattern', 'stamp_pattern',
             'volume_backup_restore', 'volume_boot_pattern',
             'volume_migrate_attached')


@dataclasses.dataclass(frozen=True)
class Suite:
    """Tests that run together.

    :param kind: what the tests are
    :param tests: a regular expression that their names match from the start
    :param volume_type: the one for all volumes whose type a test leaves open
    """

    kind: str
    tests: str
    volume_type: str | None = None

    @property
    def name(self):
        return '-'.join(filter(None, (self.kind, self.volume_type)))


# There is no Fibre Channel zone manager of ours.
COMPLIANCE = Suite('compliance',
                   r'cinder\.tests\.compliance\.test_(backup|volume)_')


def of_tempest(with_nova):
    """The names of Tempest's suites, and their tests."""
    found = {'api': r'tempest\.api\.volume\.',
             'plugin': r'cinder_tempest_plugin\.api\.'}
    if with_nova:
        found['scenario'] = r'tempest\.scenario\.test_(%s)\.' % '|'.join(
            SCENARIOS)
        found['plugin-scenario'] = r'cinder_tempest_plugin\.scenario\.'
    return found


def choose(arguments):
    """The suites that were asked for."""
    found = [COMPLIANCE]
    found += [Suite(kind, tests, volume_type)
              for volume_type in arguments.types
              for kind, tests in of_tempest(arguments.nova).items()]
    if arguments.suites:
        found = [suite for suite in found
                 if suite.name.startswith(arguments.suites)]
    return found


def is_whole(arguments):
    """Whether all that belongs to a verdict was asked for."""
    return not arguments.suites and not arguments.tests and \
        len(choose(arguments)) == 1 + 3 * len(of_tempest(arguments.nova))
