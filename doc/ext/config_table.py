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

"""List the options of a driver, as they are in the code.

The directive is called and used as that in Cinder's own documentation, so
that a page can move there as it is::

    .. config-table::
       :config-target: Lustre

       cinder.volume.drivers.lustre
"""

import importlib

from docutils.parsers import rst
from docutils.parsers.rst import directives
from docutils import statemachine
from oslo_config import cfg


def options_of(module):
    """Yield the options that a module defines, alone or in lists."""
    for thing in vars(importlib.import_module(module)).values():
        if isinstance(thing, list):
            yield from (item for item in thing if isinstance(item, cfg.Opt))
        elif isinstance(thing, cfg.Opt):
            yield thing


def default_of(option):
    default = option.sample_default or option.default
    if isinstance(default, list):
        default = ', '.join(str(item) for item in default)
    return '' if default is None else str(default)


class ConfigTable(rst.Directive):

    has_content = True
    option_spec = {'config-target': directives.unchanged_required}

    def run(self):
        options = [option for module in self.content if module.strip()
                   for option in options_of(module.strip())]
        if not options:
            raise self.error('No options in %s.' % ', '.join(self.content))
        lines = ['.. list-table:: Description of %s configuration options' %
                 self.options['config-target'],
                 '   :header-rows: 1',
                 '   :class: config-ref-table',
                 '',
                 '   * - Configuration option = Default value',
                 '     - Description']
        for option in sorted(options, key=lambda option: option.name):
            text = ' '.join(option.help.split())
            lines += ['   * - ``%s`` = ``%s``' % (
                option.name, default_of(option) or '<>'),
                '     - (%s) %s' % (option.type, text)]
        parsed = rst.nodes.Element()
        self.state.nested_parse(
            statemachine.StringList(lines, 'config-table'), 0, parsed)
        return parsed.children


def setup(app):
    app.add_directive('config-table', ConfigTable)
    return {'parallel_read_safe': True}
