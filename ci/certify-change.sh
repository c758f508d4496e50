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
# Certify the drivers with a change of Cinder or os-brick that is checked out
# somewhere, or a change of the drivers themselves.
#
# tools/certify.sh installs released versions. A change gets into their place
# as a wheel of the same version with a build number: by the specification of
# wheels that comes before one without. Afterwards it is checked that it was
# this wheel that was installed: a verdict on anything else would be none.

set -u -o pipefail

usage() {
    cat <<'USAGE'
Usage: ci/certify-change.sh --output DIR [--release N] [--nova]
                            PROJECT=DIRECTORY...

  PROJECT=DIRECTORY  openstack/cinder, openstack/os-brick or cinder-lustre, and
                     where the change is checked out
  --output DIR       where to write the bundle of results
  --release N        the release of Cinder whose other parts are used [29]
  --nova             with servers

Exit status: 0 passed, 1 failed, 75 it could not be found out.

It installs packages, and runs as root what the change says: use a machine that
is thrown away.
USAGE
}

# EX_TEMPFAIL of sysexits.h: nothing was found out, try again.
give_up() {
    echo "certify-change.sh: $*" >&2
    exit 75
}

tree=$(cd "$(dirname "$0")/.." && pwd)
output='' release=29 arguments=() changes=()
while [ $# -gt 0 ]; do
    case $1 in
        --output) output=${2:-}; shift ;;
        --release) release=${2:-}; shift ;;
        --nova) arguments+=(--nova) ;;
        -h | --help) usage; exit 0 ;;
        cinder-lustre=* | */cinder-lustre=*) tree=$(cd "${1#*=}" && pwd) ||
            give_up "${1#*=} is not there" ;;
        openstack/cinder=* | openstack/os-brick=*) changes+=("$1") ;;
        *) usage >&2; exit 75 ;;
    esac
    shift
done
constraints=$tree/tools/constraints/certify-$release.txt
[ -f "$constraints" ] || constraints=$tree/tools/constraints/$release.txt
[ "$(id -u)" = 0 ] || give_up "it has to be run as root"
[ -n "$output" ] || { usage >&2; exit 75; }
[ -f "$constraints" ] || give_up "there are no constraints for $release"
mkdir -p "$output" || give_up "$output can't be made"

base=${CINDER_LUSTRE_HOME:-/opt/cinder-lustre}
mkdir -p "$base" || give_up "$base can't be made"
home=$(mktemp -d "$base/change-XXXXXX") || give_up "$base can't be written to"
# What is mounted there, if anything is left, is not touched.
trap 'rm -rf --one-file-system "$home"' EXIT
# The services' user has to get in.
chmod 755 "$home"

# shellcheck source=tools/build-tools.sh
. "$tree/tools/build-tools.sh"
venv=$(build_tools "$tree") || give_up "the tools could not be installed"

released_version() {
    sed -n "s/^$1==//p" "$constraints"
}

build() {
    local directory=$1 version=$2 wheels=$home/wheels
    PBR_VERSION=$version "$venv/bin/pip" wheel --quiet --no-index --no-deps \
        --no-build-isolation --wheel-dir "$wheels" "$directory" &&
        "$venv/bin/wheel" tags --remove --build 1 "$wheels"/*-py3-none-any.whl
}

# Whether each installed copy of a package is the wheel that was built here.
was_tested() {
    local package=$1 version=$2 file found=false
    while IFS= read -r file; do
        found=true
        grep -qx 'Build: 1' "$file" || return
    done < <(find "$home" -xdev -path \
                  "*/${package//-/_}-$version.dist-info/WHEEL")
    [ "$found" = true ]
}

mkdir "$home/wheels"
for change in "${changes[@]}"; do
    package=${change%%=*} package=${package#openstack/}
    build "$(cd "${change#*=}" && pwd)" "$(released_version "$package")" ||
        give_up "no wheel could be built of ${change#*=}"
done

CINDER_LUSTRE_HOME=$home \
    PIP_FIND_LINKS="$home/wheels ${PIP_FIND_LINKS:-}" \
    "$tree/tools/certify.sh" --release "$release" "${arguments[@]}" \
    --output "$output"
verdict=$?

for change in "${changes[@]}"; do
    package=${change%%=*} package=${package#openstack/}
    was_tested "$package" "$(released_version "$package")" ||
        give_up "it was not this $package that was tested"
done
[ -n "$(find "$output" -name index.html -print -quit)" ] ||
    give_up "there are no results"
case $verdict in
    0 | 1) exit "$verdict" ;;
    *) give_up "certify.sh ended with $verdict" ;;
esac
