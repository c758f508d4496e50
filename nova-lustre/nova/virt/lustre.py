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

"""The libvirt driver, with a volume driver for Lustre.

Nova lists its volume drivers in its code, and loads the compute driver by
name: ``compute_driver = lustre.LibvirtDriver``.
"""

from nova.virt.libvirt import driver

PROTOCOL = 'lustre'

# What a connector's properties carry where volumes of this type can be
# attached. The driver in Cinder answers other hosts with another type.
MARK = 'lustre_connector'

driver.VOLUME_DRIVERS[PROTOCOL] = (
    'nova.virt.libvirt.volume.lustre.LibvirtLustreVolumeDriver')


class LibvirtDriver(driver.LibvirtDriver):
    """Nova's libvirt driver, which also attaches volumes of type lustre."""

    def get_volume_connector(self, instance):
        """Tell Cinder what this host is, and that it takes type lustre."""
        return dict(super().get_volume_connector(instance), **{MARK: True})
