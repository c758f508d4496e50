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

from tools import suites

# Upstream's compliance tests look for drivers below the current directory: in
# this tree those are ours. There is no Fibre Channel zone manager among them.
COMPLIANCE = ('cinder.tests.compliance.test_backup_drivers',
              'cinder.tests.compliance.test_volume_drivers')


def load_tests(loader, tests, pattern):
    return suites.suite(loader, 'cinder/tests/unit', 'os_brick/tests',
                        'tools/certify/tests', also=COMPLIANCE)
