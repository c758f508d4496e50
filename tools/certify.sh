#!/bin/bash
#
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
#
# Run the tests of OpenStack that every volume driver has to pass, and write a
# bundle of results. See doc/source/contributor/certification.rst.

set -eu

here=$(cd "$(dirname "$0")" && pwd)
tree=$(dirname "$here")
export CINDER_LUSTRE_HOME="${CINDER_LUSTRE_HOME:-/opt/cinder-lustre}"

# It ends here with a wrong argument, or after --help.
check() {
    env -C "$tree" PYTHONPATH="$tree" /usr/bin/python3 -B -c \
        'import sys; from tools.certify import command
command.parse(sys.argv[1:])' "$@"
}

wants() {
    local option=$1
    shift
    [[ " $* " == *" $option "* ]]
}

check "$@"
! wants --help "$@" && ! wants -h "$@" || exit 0

if [ "$(id -u)" -ne 0 ]; then
    exec sudo env CINDER_LUSTRE_HOME="$CINDER_LUSTRE_HOME" \
        LUSTRE_SHARE="${LUSTRE_SHARE:-}" bash "$here/certify.sh" "$@"
fi

export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
# shellcheck source=tools/packages.sh
. "$here/packages.sh"

# As tools/demo.sh and tools/nova.sh have them.
packages=(ca-certificates git mariadb-server mtools python3 python3-venv
          qemu-utils rabbitmq-server sudo syslinux util-linux uwsgi-core
          uwsgi-plugin-python3)
! wants --nova "$@" ||
    packages+=(cryptsetup-bin libvirt-clients libvirt-daemon
               libvirt-daemon-driver-qemu python3-libvirt qemu-system-x86)
[ -n "${LUSTRE_SHARE:-}" ] || packages+=(xfsprogs)

wants --stop "$@" || install_packages "${packages[@]}"
exec env -C "$tree" PYTHONPATH="$tree" /usr/bin/python3 -B \
    -m tools.certify.bootstrap "$@"
