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
# Sourced by what builds wheels. The tools are pinned, so that the same sources
# give the same bytes, and kept from one run to the next.

# Make the environment with the tools if need be, and print where it is.
build_tools() {
    local pins=$1/tools/package/requirements.txt venv
    venv=${CINDER_LUSTRE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/cinder-lustre}/venv-package
    # The stamp is written last: an installation that was interrupted has none.
    if ! cmp -s "$pins" "$venv/requirements.stamp"; then
        "${PYTHON:-/usr/bin/python3}" -m venv --clear "$venv" >&2 &&
            "$venv/bin/pip" install --quiet --disable-pip-version-check \
                -r "$pins" >&2 &&
            cp "$pins" "$venv/requirements.stamp" || return
    fi
    echo "$venv"
}
