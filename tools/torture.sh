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
# Does at random what users do to volumes, and compares with a model, on
# Debian 12:
#
#     tools/torture.sh [STEPS [SEED]]
#
# Without arguments it makes 10,000 steps. Each 200 have a seed of their own,
# one more than the one before; all are printed. A failure shows the steps that
# led to it, and "tools/torture.sh 200 SEED" repeats them.
#
# What it installs, and where, is what tools/test.sh says.

set -u

case ${1:-} in
    -h | --help) echo "usage: tools/torture.sh [STEPS [SEED]]"; exit 0 ;;
esac

export LUSTRE_TORTURE_STEPS=${1:-10000}
export LUSTRE_TORTURE_SEED=${2:-$RANDOM}
# It takes as long as it takes.
export OS_TEST_TIMEOUT=0
exec "$(dirname "$0")/test.sh" model
