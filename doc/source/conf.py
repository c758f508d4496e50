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

import logging
import os
import sys

sys.path.insert(0, os.path.abspath('../ext'))

extensions = [
    'certification_matrix',
    'config_table',
    'openstackdocstheme',
    'sphinx_feature_classification.support_matrix',
]

project = 'cinder-lustre'
copyright = 'the cinder-lustre contributors'

html_theme = 'openstackdocs'
# Empty, or the theme links to a repository of this name at opendev.org.
openstackdocs_repo_name = ''
openstackdocs_auto_name = False
# Without tags there is no version to show.
openstackdocs_auto_version = False
openstackdocs_use_storyboard = False
pygments_style = 'native'

# All it would warn of is that it can't read git's history, which an exported
# archive does not have. Warnings are errors here.
logging.getLogger('sphinx.openstackdocstheme').setLevel(logging.ERROR)
