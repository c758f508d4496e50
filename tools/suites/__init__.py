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

"""Which tests there are.

unittest's discovery goes into a directory only if it holds an ``__init__.py``.
``cinder/``, ``cinder/tests/``, ``os_brick/`` and so on have none in this tree:
those belong to Cinder and os-brick, whose packages our modules join when they
are installed (or linked, see ``tools/dev-link``). So discovery is pointed at a
package of ours, which names the test modules it finds in the tree.
"""

import os


def suite(loader, *directories, root='.', also=(), without=None):
    """Load the tests below some directories.

    :param root: what is to be left out of the names of modules
    :param also: names of further modules
    :param without: a directory below them that is left out
    """
    names = list(also)
    for directory in directories:
        for path, _dirs, files in os.walk(directory):
            if path == without:
                continue
            package = os.path.relpath(path, root).replace(os.sep, '.')
            names += ['%s.%s' % (package, name[:-3]) for name in files
                      if name.startswith('test_') and name.endswith('.py')]
    return loader.loadTestsFromNames(sorted(names))
