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

"""Make the environments of a release and of Tempest, then certify.

Runs with the system's Python and nothing but its standard library, as the
demo's does.
"""

import os
import pathlib
import sys

from tools.certify import command
from tools.demo import bootstrap
from tools.nova_stack import bootstrap as nova_bootstrap

HERE = pathlib.Path(__file__).resolve().parent
CONSTRAINTS = HERE.parent / 'constraints'


def prepare(home):
    """Make the environments and the guest."""
    arguments = command.parse(sys.argv[1:])
    if arguments.cache:
        os.environ['PIP_CACHE_DIR'] = str(arguments.cache.resolve())
    venv = bootstrap.make_venv(
        home / ('venv-%d' % arguments.release), HERE / 'requirements.txt',
        CONSTRAINTS / ('certify-%d.txt' % arguments.release), home,
        'Cinder %d and its contemporaries' % arguments.release)
    bootstrap.install_driver(home, venv)
    bootstrap.install_driver(home, venv, bootstrap.REPOSITORY / 'nova-lustre')
    if arguments.nova:
        nova_bootstrap.link_libvirt(venv)
    bootstrap.make_venv(
        home / 'venv-tempest', HERE / 'tempest-requirements.txt',
        CONSTRAINTS / 'tempest.txt', home, 'Tempest')
    bootstrap.make_guest(home)
    choose(home, venv)
    return venv


def choose(home, venv):
    """Let the services run from this environment.

    By a name that does not tell the release, so that what is left of any run
    can be recognized.
    """
    link = home / 'venv-demo'
    link.unlink(missing_ok=True)
    link.symlink_to(venv.name)


if __name__ == '__main__':
    bootstrap.launch('certify.sh', 'tools.certify.main', 'certify', prepare)
