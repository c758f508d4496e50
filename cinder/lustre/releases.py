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

from cinder.image import image_utils
from cinder import utils
from cinder import version

RELEASE = int(version.version_string().split('.')[0])


class _NoThreadPool:
    """Has the callers of eventlet.tpool do their work themselves."""

    @staticmethod
    def Proxy(obj):
        return obj

    @staticmethod
    def execute(function, *args, **kwargs):
        return function(*args, **kwargs)


def _has_native_threads():
    return RELEASE >= 29 and utils.concurrency_mode_threading()


def free_image_utils_from_eventlet():
    """Let images be downloaded and uploaded by native threads.

    Cinder 29 can do without eventlet, but its image_utils still hands image
    files to eventlet's thread pool. That serves the native thread which was
    the first to use it; any other one waits for ever. cinder-volume itself
    downloads an image by image_utils before it asks the driver, so this has
    to be mended there. With eventlet, and before 29, nothing is changed.
    """
    if _has_native_threads():
        image_utils.tpool = _NoThreadPool
