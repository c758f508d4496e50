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
# In the place of DevStack: those of its functions that the plugin calls, which do
# what DevStack's do, and stack.sh and unstack.sh as far as they are about Cinder,
# in the same order. What would change the machine is noted in $CALLS instead.
# Variables are those of DevStack.

# shellcheck disable=SC2034,SC2154

set -o errexit
shopt -s extglob

function note {
    echo "$*" >>"$CALLS"
}

function die {
    shift
    echo "$*" >&2
    exit 1
}

function echo_summary {
    echo "== $*"
}

function is_service_enabled {
    local service
    for service in "$@"; do
        [[ ,$ENABLED_SERVICES, == *,$service,* ]] && return 0
        [[ $service == cinder && ,$ENABLED_SERVICES == *,c-* ]] && return 0
    done
    return 1
}

# A default, and the name of a variable that may say otherwise.
function trueorfalse {
    case ${!2:-} in
        [Tt]rue | [Yy]es | 1) echo True ;;
        [Ff]alse | [Nn]o | 0) echo False ;;
        *) echo "$1" ;;
    esac
}

# Set an option in a section of a file, and make the three if need be.
function iniset {
    local file=$1 section=$2 option=$3 value=$4
    touch "$file"
    grep -qxF "[$section]" "$file" || printf '\n[%s]\n' "$section" >>"$file"
    awk -v section="[$section]" -v option="$option" -v value="$value" '
        function put() { if (inside && !done) print option " = " value
                         done = done || inside }
        /^\[/ { put(); inside = ($0 == section) }
        inside && $1 == option { $0 = option " = " value; done = 1 }
        { print }
        END { put() }' "$file" >"$file.new"
    mv "$file.new" "$file"
}

function sudo {
    "$@"
}

function install_package {
    note install_package "$@"
}

function openstack {
    note openstack "$@"
}

# lib/cinder, when it is sourced
function source_cinder {
    CINDER_STATE_PATH=$DATA_DIR/cinder
    CINDER_CONF=$CONF_DIR/cinder.conf
    CINDER_BIN_DIR=$BIN_DIR
    CINDER_ENABLED_BACKENDS=${CINDER_ENABLED_BACKENDS:-lvm:lvmdriver-1}
    CINDER_BACKUP_DRIVER=${CINDER_BACKUP_DRIVER:-swift}
    if is_service_enabled c-bak; then
        case $CINDER_BACKUP_DRIVER in
            ceph | s3_swift | swift) ;;
            *) die 0 "cinder backup driver $CINDER_BACKUP_DRIVER is not" \
                "supported" ;;
        esac
    fi
    NOVA_CONF=$CONF_DIR/nova.conf
    NOVA_BIN_DIR=$BIN_DIR
    TEMPEST_CONFIG=$CONF_DIR/tempest.conf
}

function configure_cinder_backup_swift {
    iniset "$CINDER_CONF" DEFAULT backup_driver swift
}

function each_backend {
    local what=$1 be
    for be in ${CINDER_ENABLED_BACKENDS//,/ }; do
        if type "${what}_cinder_backend_${be%%:*}" >/dev/null 2>&1; then
            "${what}_cinder_backend_${be%%:*}" "${be##*:}"
        fi
    done
}

function configure_cinder {
    rm -f "$CINDER_CONF"
    if is_service_enabled c-vol; then
        each_backend configure
        local names=,$CINDER_ENABLED_BACKENDS
        names=${names//,*([^,:]):/,}
        iniset "$CINDER_CONF" DEFAULT enabled_backends "${names#,}"
    fi
    if is_service_enabled c-bak; then
        "configure_cinder_backup_$CINDER_BACKUP_DRIVER"
    fi
}

function cleanup_cinder {
    each_backend cleanup
    if type "cleanup_cinder_backup_$CINDER_BACKUP_DRIVER" >/dev/null 2>&1; then
        "cleanup_cinder_backup_$CINDER_BACKUP_DRIVER"
    fi
}

function load {
    # shellcheck source=devstack/override-defaults
    source "$PLUGIN/override-defaults"
    source_cinder
    # shellcheck source=devstack/settings
    source "$PLUGIN/settings"
}

function phase {
    # shellcheck source=devstack/plugin.sh
    source "$PLUGIN/plugin.sh" "$@"
}

function stack {
    load
    phase stack pre-install
    configure_cinder
    iniset "$NOVA_CONF" DEFAULT compute_driver libvirt.LibvirtDriver
    phase stack install
    phase stack post-config
    phase stack extra
    phase stack test-config
}

function unstack {
    load
    phase unstack
    cleanup_cinder
}

function clean {
    load
    phase clean
}
