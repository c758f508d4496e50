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
# Fetch a change from Gerrit and certify the drivers with it. This is what the
# listener and Jenkins run; Zuul has the change already, and runs
# ci/certify-change.sh.

set -u -o pipefail

usage() {
    cat <<'USAGE'
Usage: ci/test-change.sh --project P --ref R --revision SHA --output DIR
                         [--gerrit URL] [OPTION OF ci/certify-change.sh]...

  --project P     Gerrit's name of the project, as openstack/cinder
  --ref R         of the patch set, as refs/changes/11/4711/2
  --revision SHA  its commit; another one is not tested
  --output DIR    where to write the bundle of results
  --gerrit URL    where to fetch from [https://review.opendev.org]

Exit status: 0 passed, 1 failed, 75 it could not be found out.
USAGE
}

give_up() {
    echo "test-change.sh: $*" >&2
    exit 75
}

gerrit=https://review.opendev.org project='' ref='' revision='' others=()
while [ $# -gt 0 ]; do
    case $1 in
        --gerrit) gerrit=${2:-}; shift ;;
        --project) project=${2:-}; shift ;;
        --ref) ref=${2:-}; shift ;;
        --revision) revision=${2:-}; shift ;;
        --output | --release) others+=("$1" "${2:-}"); shift ;;
        -h | --help) usage; exit 0 ;;
        *) others+=("$1") ;;
    esac
    shift
done
[[ $ref =~ ^refs/changes/[0-9]{2}/[0-9]+/[0-9]+$ ]] ||
    give_up "--ref is '$ref', not a patch set's"
[[ $revision =~ ^[0-9a-f]{40,64}$ ]] ||
    give_up "--revision is '$revision', not a commit's"
[[ $project =~ ^[A-Za-z0-9][A-Za-z0-9._/-]*$ ]] ||
    give_up "--project is '$project', which is no name of a project"

source=$(mktemp -d) || give_up "no directory for the change"
trap 'rm -rf "$source"' EXIT
git init --quiet "$source" || give_up "git does not work"
timeout 900 git -C "$source" fetch --quiet --no-tags --depth 1 \
    "$gerrit/$project" "$ref" ||
    give_up "$ref can't be fetched from $gerrit/$project"
fetched=$(git -C "$source" rev-parse FETCH_HEAD)
[ "$fetched" = "$revision" ] ||
    give_up "$ref is $fetched, not $revision"
git -C "$source" checkout --quiet --detach "$revision" ||
    give_up "$revision can't be checked out"

"$(dirname "$0")/certify-change.sh" "$project=$source" "${others[@]}"
