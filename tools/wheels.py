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

"""Build the wheels of this repository, to ship them and to test them."""

import glob
import os
import shutil
import subprocess
import sys

# What each is made of, from the directory of its setup.cfg.
CINDER = ('.', ('LICENSE', 'README.md', 'pyproject.toml', 'requirements.txt',
                'setup.cfg', 'setup.py', 'test-requirements.txt', 'cinder',
                'os_brick', 'etc'))
NOVA = ('nova-lustre', ('LICENSE', 'README.md', 'pyproject.toml', 'setup.cfg',
                        'setup.py', 'test-requirements.txt', 'nova'))


def run(*command, cwd, **environment):
    """Run a command; if it fails, what it said is in the error.

    :param environment: variables to set
    """
    result = subprocess.run(command, cwd=cwd, text=True, umask=0o022,
                            env={**os.environ, **environment},
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if result.returncode:
        raise AssertionError('%s: exit code %d\n%s' % (
            ' '.join(command), result.returncode, result.stdout))
    return result.stdout


def build(project, tree, directory, **environment):
    """Build a wheel, and return its path.

    From a copy, so that nothing of an older build is in. The copy has no
    history either: an exported archive has to build as well.

    :param project: CINDER or NOVA
    :param tree: the repository
    :param directory: where to put wheel and copy
    :param environment: variables for those who build
    """
    where, names = project
    directory = os.path.join(directory, os.path.basename(where).strip('.')
                             or 'cinder-lustre')
    source = os.path.join(directory, 'source')
    os.makedirs(source)
    for name in names:
        path, copy = os.path.join(tree, where, name), os.path.join(source,
                                                                   name)
        if os.path.isdir(path):
            shutil.copytree(path, copy,
                            ignore=shutil.ignore_patterns('__pycache__'))
        else:
            shutil.copy(path, copy)
    run(sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-index',
        '--no-deps', '--no-build-isolation', '--wheel-dir', directory, source,
        cwd=tree, **environment)
    wheel, = glob.glob(os.path.join(directory, '*.whl'))
    return wheel
