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

import os
import subprocess

import setuptools


def history():
    """Whether git can tell pbr which version this is."""
    try:
        return subprocess.run(['git', 'rev-parse', '--verify', 'HEAD'],
                              capture_output=True).returncode == 0
    except OSError:
        return False


# pbr takes the version from git, or from an sdist's PKG-INFO. A tree that has
# neither (an exported archive, a clone that git distrusts because another
# user owns it) installs too, under a version that says so.
if not os.path.exists('PKG-INFO') and not history():
    os.environ.setdefault('PBR_VERSION', '0.0.0.dev0')

setuptools.setup(setup_requires=['pbr>=6.1.1'], pbr=True)
