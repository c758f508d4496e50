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
#
# Sourced by what installs packages of servers. Tests and demo start servers of
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
