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

"""What tests need to know of the release of Cinder that they run with."""

from oslo_utils import importutils

from cinder.lustre import releases

RELEASE = releases.RELEASE

# The module that has the database's engine.
database = importutils.import_module(
    'cinder.db.api' if RELEASE >= 29 else 'cinder.db.sqlalchemy.api')

# What the stock NFS driver says of an image that is smaller than its volume;
# since 28 it attaches that.
NFS_ON_SMALLER_IMAGE = (RELEASE < 28 and 'virtual_size does not match')


def unlimit_qemu_img(test):
    """Give Cinder's own qemu-img enough memory where GiB are made small.

    Before Cinder 29 the limit is counted when image_utils is imported.
    """
    if RELEASE >= 29:
        test.override_config('image_introspection_address_space_limit', 1024)
