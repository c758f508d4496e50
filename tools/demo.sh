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
packages="ca-certificates mariadb-server python3 python3-venv qemu-utils
          rabbitmq-server sudo util-linux uwsgi-core uwsgi-plugin-python3"
# A guest that boots from a volume: it is emulated, so that no processor's
# virtualization is needed. Its kernel and busybox are not installed.
packages="$packages mtools qemu-system-x86 syslinux"
# The sandbox's stand-in for a Lustre client makes xfs file systems.
[ -n "$LUSTRE_SHARE" ] || packages="$packages xfsprogs"

# shellcheck source=tools/no-services.sh
. "$here/no-services.sh"

missing_packages() {
    local name
    for name in $packages; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" \
            = installed ] || echo "$name"
    done
}

tail_of() {
    # What went by while apt-get worked, one line at a time on a terminal.
    if [ -t 1 ]; then
        while IFS= read -r line; do
            printf '\r\033[K  %.70s' "$line"
        done
        printf '\r\033[K'
    else
        grep --line-buffered -E '^(Get:|Unpacking |Setting up |E:)' |
            awk 'NR % 20 == 1 { print "  " $0; fflush() }'
    fi
}

install_packages() {
    local missing log status
    missing=$(missing_packages | tr '\n' ' ')
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null || {
        echo "demo.sh: needs Debian, and there: $missing" >&2; exit 1; }
    echo "Installing Debian packages: $missing"
    log=$(mktemp)
    trap drop_policy EXIT
    put_policy
    set +e
    {
        export DEBIAN_FRONTEND=noninteractive
        # An earlier run may have been killed in the middle of this.
        dpkg --configure -a &&
            apt-get -o DPkg::Lock::Timeout=120 -qq update &&
            timeout 1200 apt-get -o DPkg::Lock::Timeout=120 -y \
                --no-install-recommends install $missing
        echo "$?" >"$log.status"
    } </dev/null 2>&1 | tee "$log" | tail_of
    status=$(cat "$log.status")
    set -e
    drop_policy
    trap - EXIT
    if [ "$status" != 0 ]; then
        tail -20 "$log" >&2
        echo "demo.sh: apt-get failed" >&2
        exit 1
    fi
    rm -f "$log" "$log.status"
}

drop_policy
[ "${1:-}" = --stop ] || install_packages
# Debian's Python, whatever else is first in PATH: the services' user must be
# able to run it, and uwsgi's plugin is made for it.
# -B: what Python caches would be root's, in somebody's clone. -C: Python looks
# where it is first, and that may be another clone.
tree=$(dirname "$here")
exec env -C "$tree" PYTHONPATH="$tree" /usr/bin/python3 -B \
    -m tools.demo.bootstrap "$@"
