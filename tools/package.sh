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
# Build what is shipped for a release of OpenStack: one archive with the wheels,
# the constraints, a sample of the configuration, and what to do with them.
# tools/package/main.py does it, in an environment with pinned tools.

set -eu

usage() {
    cat <<'USAGE'
Usage: tools/package.sh RELEASE [--output DIR]

Builds cinder-lustre-<version>-<RELEASE>.tar.gz, and its checksum beside it, of
the commit that is checked out. Needs git and Python 3 with venv; no root.

  RELEASE       of OpenStack, like 2026.2
  --output DIR  where to put it [dist]
  --help        this text

Environment:
  CINDER_LUSTRE_CACHE  where to keep the tools that build it
                       [~/.cache/cinder-lustre]
USAGE
}

case " $* " in
    '  ') usage >&2; exit 2 ;;
    *' -h '* | *' --help '*) usage; exit 0 ;;
esac

tree=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=tools/build-tools.sh
. "$tree/tools/build-tools.sh"
venv=$(build_tools "$tree")
exec env PYTHONPATH="$tree" "$venv/bin/python" -B -m tools.package.main "$@"
