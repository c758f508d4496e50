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

"""The steps: what is done with the services, and what is checked.

Each module has the steps of one subject, a function each, in the order in
which they run. A step returns a line that says what was checked. Content is
compared by checksum with what was written; every size is asked of Cinder and
of the file.
"""

from tools.demo.steps import backups
from tools.demo.steps import encryption
from tools.demo.steps import ending
from tools.demo.steps import groups
from tools.demo.steps import guests
from tools.demo.steps import images
from tools.demo.steps import limits
from tools.demo.steps import management
from tools.demo.steps import offered
from tools.demo.steps import snapshots
from tools.demo.steps import volumes

STEPS = [step for subject in (offered, volumes, snapshots, encryption, images,
                              guests, management, groups, backups, limits,
                              ending)
         for step in subject.STEPS]
