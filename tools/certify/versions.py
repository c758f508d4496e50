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

"""What took part: versions of packages, and the state of this tree."""

from importlib import metadata
import pathlib
import platform

from tools.certify import runner
from tools.demo import procs

# What a record names: Python's packages of the services,
SERVICES = ('cinder', 'os-brick', 'glance', 'keystone')
NOVA = ('nova', 'openstack-placement')
# those of Tempest's environment,
TEMPEST = ('tempest', 'cinder-tempest-plugin')
# and Debian's.
DEBIAN = ('mariadb-server', 'rabbitmq-server', 'qemu-utils')
DEBIAN_NOVA = ('libvirt-daemon', 'qemu-system-x86')
# Where the drivers are in this tree.
DRIVERS = ('cinder', 'os_brick', 'nova-lustre')


def collect(tempest_python, with_nova):
    """{what: its version}, of what a record names."""
    found = {name: metadata.version(name)
             for name in SERVICES + (NOVA if with_nova else ())}
    of_tempest = freeze(tempest_python)
    found.update((name, of_tempest[name]) for name in TEMPEST)
    found['python'] = platform.python_version()
    for name in DEBIAN + (DEBIAN_NOVA if with_nova else ()):
        found[name] = procs.run('dpkg-query', '-W', '-f', '${Version}', name)
    return found


def freeze(python):
    """{package: version} of a Python's environment."""
    output = procs.run(python, '-m', 'pip', 'list', '--format=freeze',
                       '--disable-pip-version-check')
    return dict(line.split('==', 1) for line in output.splitlines()
                if '==' in line)


def debian():
    """All packages of the machine, one a line."""
    return procs.run('dpkg-query', '-W', '-f', '${Package} ${Version}\n')


def git(*arguments, tree=runner.REPOSITORY):
    """What git says of the tree, who owns it notwithstanding."""
    return procs.run('git', '-c', 'safe.directory=%s' % tree, '-C', tree,
                     *arguments).rstrip('\n')


def tree():
    """The commit of this tree, and whether there is more than that in it.

    The directories that the drivers are in are also named by what they hold:
    that stays the same when a commit is picked or rebased.

    :returns: {'commit': its ID or None, 'directories': {name: ID},
        'changed': [lines of git status]}
    """
    if not pathlib.Path(runner.REPOSITORY, '.git').exists():
        return {'commit': None, 'directories': {},
                'changed': ['no repository']}
    return {'commit': git('rev-parse', 'HEAD'),
            'directories': {name: git('rev-parse', '--short', 'HEAD:' + name)
                            for name in DRIVERS},
            'changed': git('status', '--porcelain').splitlines()}
