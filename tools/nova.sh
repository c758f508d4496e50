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
# Run a real Nova with volumes on Lustre: guests boot from them, write, and are
# compared. See doc/source/contributor/nova-stack.rst.

set -eu

usage() {
    cat <<'USAGE'
Usage: tools/nova.sh [--keep | --stop]

Installs what it needs (Debian 12; root or sudo), starts RabbitMQ, MariaDB,
Keystone, Glance, Placement, Cinder and Nova with three compute hosts, boots
servers from volumes, tries what can be done with them, and removes it all.

  --keep   leave it running afterwards
  --stop   take down what an earlier run left
  --help   this text

Environment: LUSTRE_SHARE and CINDER_LUSTRE_HOME, as for tools/demo.sh.
USAGE
}

case "${1:-}" in
    -h|--help) usage; exit 0 ;;
    ''|--keep|--stop) ;;
    *) usage >&2; exit 2 ;;
esac

here=$(cd "$(dirname "$0")" && pwd)
export CINDER_LUSTRE_HOME="${CINDER_LUSTRE_HOME:-/opt/cinder-lustre}"

if [ "$(id -u)" -ne 0 ]; then
    exec sudo env CINDER_LUSTRE_HOME="$CINDER_LUSTRE_HOME" \
        LUSTRE_SHARE="${LUSTRE_SHARE:-}" bash "$here/nova.sh" "$@"
fi

export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
# shellcheck source=tools/packages.sh
. "$here/packages.sh"

# As tools/demo.sh has them, and what a compute host needs. Nova asks
# cryptsetup of an encrypted volume, and makes no other use of it.
packages=(ca-certificates cryptsetup-bin libvirt-clients libvirt-daemon
          libvirt-daemon-driver-qemu mariadb-server mtools python3
          python3-libvirt python3-venv qemu-system-x86 qemu-utils
          rabbitmq-server sudo syslinux util-linux uwsgi-core
          uwsgi-plugin-python3)
[ -n "${LUSTRE_SHARE:-}" ] || packages+=(xfsprogs)

[ "${1:-}" = --stop ] || install_packages "${packages[@]}"
exec env PYTHONPATH="$(dirname "$here")" /usr/bin/python3 -B \
    -m tools.nova_stack.bootstrap "$@"
