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
# Installs what the tests need and runs them, on Debian 12:
#
#     tools/test.sh [all | STEP]...
#
# The steps are pep8 and docs; unit-nova with Nova; unit-ci, the tests of what
# runs the drivers elsewhere, in a CI or with DevStack; unit, functional and
# torture with the newest release of Cinder; unit-native, functional-native and
# torture-native with it and without eventlet; unit-26, functional-27 and so on
# with other releases, unit-nova-31 and so on with those of Nova; releases, which
# is unit, unit-nova and functional with everything; and model, which is a part
# of torture (see tools/torture.sh). all, which is also what comes without
# arguments and what continuous integration runs, has the unit tests with the
# oldest releases and on native threads too, but functional and torture with the
# newest release only.
#
# The last line says how many tests passed, failed and were skipped; a style
# check or a documentation build that fails counts as a failed test. Before it
# stands what failed, and why. With LUSTRE_SHARE set the functional tests use
# that share instead of the sandbox.
#
# Everything it makes is in CINDER_LUSTRE_HOME (default /opt/cinder-lustre),
# nothing in the tree: the services that the functional tests start run as a
# user of their own, who can't read root's home.

set -u -o pipefail

tree=$(cd "$(dirname "$0")/.." && pwd)
home=${CINDER_LUSTRE_HOME:-/opt/cinder-lustre}
python=${PYTHON:-/usr/bin/python3}
unset PYTHON    # stestr would start its workers with it
# A root shell got with su may lack these.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

usage="usage: tools/test.sh [all | releases | pep8 | docs | model |
                      unit-nova[-31 | -32 | -33] | unit-ci |
                      (unit | functional | torture)[-native | -26 | -27 | -28]]..."
other_units=(unit-native unit-26 unit-27 unit-28
             unit-nova-31 unit-nova-32 unit-nova-33)
other_functionals=(functional-native functional-26 functional-27 functional-28)
steps=()
for step in "${@:-all}"; do
    case $step in
        all) steps+=(pep8 unit unit-native unit-26 unit-nova unit-nova-31
                     unit-ci functional torture docs) ;;
        releases) steps+=(unit unit-nova "${other_units[@]}"
                          functional "${other_functionals[@]}") ;;
        pep8 | docs | model | unit | functional | torture) steps+=("$step") ;;
        unit-nova | unit-nova-3[123] | unit-ci | \
        unit-native | functional-native | torture-native | \
        unit-2[678] | functional-2[678] | torture-2[678]) steps+=("$step") ;;
        -h | --help) echo "$usage"; exit 0 ;;
        *) echo "$usage" >&2; exit 2 ;;
    esac
done

if [ "$(id -u)" != 0 ]; then
    echo "Packages and mounts need root: going on with sudo."
    exec sudo -E "$0" "${steps[@]}"
fi

say() {
    printf '\n=== %s\n' "$*"
}

die() {
    echo "$*" >&2
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
}

# shellcheck source=tools/packages.sh
. "$tree/tools/packages.sh"

set_up() {
    "$python" -c 'import ensurepip' 2>/dev/null ||
        install_packages python3-venv || return
    # tox would make its directory readable by root alone.
    mkdir -p "$home/tox" && chmod 755 "$home/tox" || return

    local venv=$home/venv-test
    # Whether both start shows whether an earlier installation was finished.
    if ! { "$venv/bin/tox" --version && "$venv/bin/bindep" --version
         } >/dev/null 2>&1; then
        say "Installing tox and bindep in $venv"
        "$python" -m venv --clear "$venv" &&
            "$venv/bin/pip" install --quiet --disable-pip-version-check \
                'tox>=4' bindep || return
    fi
    PATH=$venv/bin:$PATH

    local missing
    # bindep exits with 1 when packages are missing, and then lists them.
    if ! missing=$(bindep --brief --file "$tree/bindep.txt" test doc); then
        # shellcheck disable=SC2086 # one word for each package
        install_packages $missing || return
    fi
}

tox_in_home() {
    tox --conf "$tree/tox.ini" --workdir "$home/tox" "$@"
}

# Run a tox environment, with arguments for its command.
run_tox() {
    local environment=$1
    shift
    tox_in_home -e "$environment" -- "$@"
}

# Run stestr as run_tox does, but on the results that a run has left.
run_stestr() {
    local environment=$1 results=$2 suite=()
    shift 2
    [ ! -d "tools/suites/${environment%-*}" ] ||
        suite=(--test-path "tools/suites/${environment%-*}")
    tox_in_home -qq exec -e "$environment" -- \
        stestr --repo-url "$results" "${suite[@]}" "$@"
}

passed=0 failed=0 skipped=0
table=
failures=$home/results/failures

# Run a tox environment that runs stestr, and add up what became of its tests.
# Further arguments tell which tests.
run_tests() {
    local step=$1 results=$home/results/$1 environment=$2 counts='' rc
    shift 2
    rm -rf "$results"
    mkdir -p "$results"
    STESTR_REPO=$results run_tox "$environment" "$@"
    rc=$?
    if run_stestr "$environment" "$results" list "$@" >"$results/list"; then
        counts=$(run_stestr "$environment" "$results" last --subunit |
            "$home/tox/$environment/bin/python" tools/count-tests \
                "$results/list" "$failures")
    fi
    [ -n "$counts" ] || { counts="0 0 0" rc=1; }
    local p f s
    read -r p f s <<<"$counts"
    # stestr may fail for a reason that no test shows.
    if [ "$rc" != 0 ] && [ "$f" = 0 ]; then
        f=1
        printf 'FAILED\n%s, with no test that did\n\n' "$step" >>"$failures"
    fi
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    table+=$(printf '%-20s %4d passed, %d failed, %d skipped' \
                    "$step" "$p" "$f" "$s")$'\n'
}

# Run a tox environment that has no tests: it counts if it fails.
run_check() {
    run_tox "$1" && return
    failed=$((failed + 1))
    printf 'FAILED\n%s (see above)\n\n' "$1" >>"$failures"
}

cd "$tree" || exit
start=$SECONDS
mkdir -p "$home/results" && : >"$failures" || exit
set_up || die "The tests could not be set up."
for step in "${steps[@]}"; do
    say "$step"
    began=$SECONDS
    case $step in
        unit-nova*) run_tests "$step" "${step#unit-}" ;;
        unit-ci) run_tests unit-ci ci ;;
        unit*) run_tests "$step" "${step/unit/py3}" ;;
        functional* | torture*) run_tests "$step" "$step" ;;
        model) run_tests model torture test_model.ModelTest ;;
        *) run_check "$step" ;;
    esac
    echo "$step took $((SECONDS - began)) s"
done

say "All took $((SECONDS - start)) s"
cat "$failures"
printf '%s' "$table"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
