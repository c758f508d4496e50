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
# Measure our drivers against Cinder's own for NFS, on the same file system and
# by turns, on Debian 12:
#
#     tools/bench.sh [--quick] [--json FILE] [-n N] [OPERATION]...
#
# It installs what it needs, and removes what it made but for the environment
# and the logs: a file system in a loop device, the user "cinder-bench" and a
# sudoers file. A run that was killed is cleaned up by the next one, or by
# --clean. With LUSTRE_SHARE set both drivers use directories on that share.
#
# Everything is in CINDER_LUSTRE_HOME (default /opt/cinder-lustre).

set -eu -o pipefail

tree=$(cd "$(dirname "$0")/.." && pwd)
export CINDER_LUSTRE_HOME="${CINDER_LUSTRE_HOME:-/opt/cinder-lustre}"
venv=$CINDER_LUSTRE_HOME/venv-bench
# Debian's, which the services' user can run.
python=/usr/bin/python3

if [ "$(id -u)" != 0 ]; then
    echo "Users, packages and mounts need root: going on with sudo."
    exec sudo env CINDER_LUSTRE_HOME="$CINDER_LUSTRE_HOME" \
        LUSTRE_SHARE="${LUSTRE_SHARE:-}" bash "$0" "$@"
fi
# A root shell got with su may lack these.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
umask 022
# shellcheck source=tools/packages.sh
. "$tree/tools/packages.sh"

packages=(python3-venv qemu-utils sudo util-linux)
[ -n "${LUSTRE_SHARE:-}" ] || packages+=(xfsprogs)

make_environment() {
    local asked
    asked=$(cat "$tree/tools/bench/requirements.txt" \
        "$tree/tools/demo/constraints.txt" | sha256sum)
    if [ "$(cat "$venv/requirements.stamp" 2>/dev/null)" != "$asked" ]; then
        echo "Installing Cinder in $venv: a minute or two"
        "$python" -m venv --clear "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check \
            -r "$tree/tools/bench/requirements.txt" \
            -c "$tree/tools/demo/constraints.txt"
        echo "$asked" >"$venv/requirements.stamp"
    fi
    "$venv/bin/python" "$tree/tools/dev-link" --copy
}

for argument in "$@"; do
    # Asking for help installs nothing, unless nothing can be asked yet.
    case $argument in
        -h | --help) [ ! -x "$venv/bin/python" ] || exec env -C "$tree" \
            "$venv/bin/python" -m tools.bench.main "$@" ;;
    esac
done
mkdir -p "$CINDER_LUSTRE_HOME"
install_packages "${packages[@]}"
make_environment
exec env -C "$tree" "$venv/bin/python" -m tools.bench.main "$@"
