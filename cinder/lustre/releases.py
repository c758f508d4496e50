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

"""What differs between the releases of Cinder that the drivers run with.

Nothing else in the drivers asks which release it is.
"""

from cinder import version

RELEASE = int(version.version_string().split('.')[0])

# The restore of an incremental backup to a new volume leaves out chunks of
# zeros, so that what an older backup has there stays.
RESTORE_LOSES_ZEROS = RELEASE < 29
