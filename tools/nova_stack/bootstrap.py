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

"""Make the stack's Python environment and its guest, then run it.

Runs with the system's Python and nothing but its standard library, as the
demo's does.
"""

import pathlib

from tools.demo import bootstrap

HERE = pathlib.Path(__file__).resolve().parent
# Debian's package of libvirt's Python module, so that no compiler is needed.
DIST_PACKAGES = pathlib.Path('/usr/lib/python3/dist-packages')


def link_libvirt(venv):
    """Let the environment have Debian's libvirt module, and no other."""
    site, = venv.glob('lib/python3*/site-packages')
    for path in DIST_PACKAGES.glob('libvirt*'):
        target = site / path.name
        if not target.is_symlink():
            target.symlink_to(path)


def prepare(home):
    """Make the environment and the guest of the stack."""
    venv = bootstrap.make_environment(home, HERE)
    bootstrap.install_driver(home, venv)
    bootstrap.install_driver(home, venv, bootstrap.REPOSITORY / 'nova-lustre')
    link_libvirt(venv)
    bootstrap.make_guest(home)
    return venv


if __name__ == '__main__':
    bootstrap.launch('nova.sh', 'tools.nova_stack.main', 'nova', prepare)
