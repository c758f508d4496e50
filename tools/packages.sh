# shellcheck shell=bash
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
# Sourced by what installs Debian packages. Tests and demo start servers of
# their own: installing the packages must not start, or restart, any that are
# the machine's.

policy=/usr/sbin/policy-rc.d
policy_mark="# left by cinder-lustre's demo.sh; may be removed"

put_policy() {
    [ ! -e "$policy" ] || return 0
    printf '#!/bin/sh\n%s\nexit 101\n' "$policy_mark" >"$policy"
    chmod 755 "$policy"
}

drop_policy() {
    # Only ours: a container image may have one of its own.
    if grep -qsF "$policy_mark" "$policy"; then rm -f "$policy"; fi
}

missing_packages() {
    local name
    for name in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" \
            = installed ] || echo "$name"
    done
}

# Show that apt-get moves: one line on a terminal, a line now and then
# elsewhere.
show_progress() {
    local line
    if [ -t 1 ]; then
        while IFS= read -r line; do
            printf '\r\033[K  %.70s' "$line"
        done
        printf '\r\033[K'
    else
        awk '/^(Get:|Unpacking |Setting up |E:)/ && n++ % 20 == 0 {
                 print "  " $0; fflush() }'
    fi
}

apt_install() {
    export DEBIAN_FRONTEND=noninteractive
    # An earlier run may have been killed in the middle of this.
    dpkg --configure -a &&
        apt-get -o DPkg::Lock::Timeout=120 -qq update &&
        timeout 1200 apt-get -o DPkg::Lock::Timeout=120 -y \
            --no-install-recommends install "$@"
}

# Install those of these Debian packages that are missing.
install_packages() {
    local missing log rc=0
    mapfile -t missing < <(missing_packages "$@")
    [ ${#missing[@]} != 0 ] || return 0
    command -v apt-get >/dev/null || {
        echo "It needs Debian, and there: ${missing[*]}" >&2; return 1; }
    echo "Installing Debian packages: ${missing[*]}"
    log=$(mktemp)
    trap drop_policy EXIT
    put_policy
    (set -o pipefail
     apt_install "${missing[@]}" </dev/null 2>&1 | tee "$log" | show_progress
    ) || rc=$?
    drop_policy
    trap - EXIT
    if [ "$rc" != 0 ]; then
        tail -n 20 "$log" >&2
        echo "apt-get failed" >&2
    fi
    rm -f "$log"
    return "$rc"
}
