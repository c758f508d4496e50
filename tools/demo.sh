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
# Run a real Cinder with the Lustre drivers and take volumes through their
# whole life. This script installs the Debian packages that are missing;
# tools/demo/bootstrap.py makes the Python environment and the disk of a guest;
# tools/demo/main.py starts the services and runs the steps.

set -eu

usage() {
    cat <<'USAGE'
Usage: tools/demo.sh [--keep | --stop]

Installs what it needs (Debian 12; root or sudo), starts RabbitMQ, MariaDB, cinder-api,
cinder-scheduler, cinder-volume with two Lustre shares, cinder-backup and
glance-api, takes volumes through their whole life, boots guests from them in
QEMU, and removes it all again.

  --keep   leave the services running afterwards, and say how to use them
  --stop   take down what an earlier run left
  --help   this text

Environment:
  LUSTRE_SHARE         use this Lustre share (as one would name it to mount)
                       instead of the sandbox's stand-in; the demo makes a
                       directory of its own in it and removes that at the end
  OS_CINDER_DISABLE_EVENTLET_PATCHING
                       1 runs Cinder's services on native threads
  CINDER_LUSTRE_HOME   where to install and run [/opt/cinder-lustre]; the
                       service user must be able to read it
USAGE
}

case "${1:-}" in
    -h|--help) usage; exit 0 ;;
    ''|--keep|--stop) ;;
    *) usage >&2; exit 2 ;;
esac
[ $# -le 1 ] || { usage >&2; exit 2; }

here=$(cd "$(dirname "$0")" && pwd)
export CINDER_LUSTRE_HOME="${CINDER_LUSTRE_HOME:-/opt/cinder-lustre}"
export LUSTRE_SHARE="${LUSTRE_SHARE:-}"

if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
        echo "demo.sh: run it as root, or install sudo" >&2; exit 1; }
    exec sudo env CINDER_LUSTRE_HOME="$CINDER_LUSTRE_HOME" \
        LUSTRE_SHARE="$LUSTRE_SHARE" \
        OS_CINDER_DISABLE_EVENTLET_PATCHING="${OS_CINDER_DISABLE_EVENTLET_PATCHING:-}" \
        bash "$here/demo.sh" "$@"
fi

# A root shell got with su may lack these.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

# uwsgi and its plugin come from Debian, so that no compiler is needed.
packages=(ca-certificates mariadb-server python3 python3-venv qemu-utils
          rabbitmq-server sudo util-linux uwsgi-core uwsgi-plugin-python3)
# A guest that boots from a volume: it is emulated, so that no processor's
# virtualization is needed. Its kernel and busybox are not installed.
packages+=(mtools qemu-system-x86 syslinux)
# The sandbox's stand-in for a Lustre client makes xfs file systems.
[ -n "$LUSTRE_SHARE" ] || packages+=(xfsprogs)

# shellcheck source=tools/packages.sh
. "$here/packages.sh"

# One that was killed while it installed leaves it.
drop_policy
[ "${1:-}" = --stop ] || install_packages "${packages[@]}"
# Debian's Python, whatever else is first in PATH: the services' user must be
# able to run it, and uwsgi's plugin is made for it.
# -B: what Python caches would be root's, in somebody's clone. -C: Python looks
# where it is first, and that may be another clone.
tree=$(dirname "$here")
exec env -C "$tree" PYTHONPATH="$tree" /usr/bin/python3 -B \
    -m tools.demo.bootstrap "$@"
