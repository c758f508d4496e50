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
# A Lustre back end for DevStack, in local.conf:
#
#     enable_plugin cinder-lustre <this repository>
#
# See doc/source/contributor/devstack.rst. DevStack sources this file at each of
# its phases, and lib/cinder calls the functions whose names it makes of the type
# of the back end and of the backup driver: *_cinder_backend_lustre and
# *_cinder_backup_lustre.

LUSTRE_TREE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
LUSTRE_MGS=10.0.2.15@tcp

# What is asked
# -------------

# Whether a back end is ours, and a service of this host has to do with it.
function is_lustre_enabled {
    [[ ,$CINDER_ENABLED_BACKENDS, == *,lustre:* ]] &&
        is_service_enabled c-vol c-bak n-cpu
}

function is_lustre_backup_enabled {
    [[ $CINDER_BACKUP_DRIVER == lustre ]] && is_service_enabled c-bak
}

function is_lustre_nova_driver_enabled {
    [[ $LUSTRE_NOVA_DRIVER == True ]] && is_service_enabled n-cpu
}

function is_lustre_sandbox {
    [[ -z $LUSTRE_SHARE ]]
}

# The Python that runs a program.
function lustre_python_of {
    sed -n '1s/^#! *//p' "$1"
}

# The shares
# ----------

# With a directory of its own for what it makes.
function lustre_sandbox {
    sudo env PYTHONDONTWRITEBYTECODE=1 \
        LUSTRE_SANDBOX_STATE="$DATA_DIR/lustre-sandbox" \
        "$LUSTRE_TREE/sandbox/lustre-sandbox" "$@"
}

function check_lustre_shares {
    if [[ -n $LUSTRE_BACKUP_SHARE && -z $LUSTRE_SHARE ]]; then
        die $LINENO "LUSTRE_BACKUP_SHARE is set: set LUSTRE_SHARE as well"
    fi
    if is_lustre_sandbox; then
        # What it makes is on this host alone.
        is_service_enabled c-vol || die $LINENO "the sandbox is for DevStacks" \
            "of one host: set LUSTRE_SHARE"
        return
    fi
    if is_lustre_backup_enabled && [[ -z $LUSTRE_BACKUP_SHARE ]]; then
        die $LINENO "LUSTRE_SHARE is set: set LUSTRE_BACKUP_SHARE to a" \
            "directory for backups, or LUSTRE_BACKUP=False"
    fi
    if ! type -p mount.lustre >/dev/null &&
        ! [[ -x /sbin/mount.lustre ]]; then
        die $LINENO "LUSTRE_SHARE is set, and there is no mount.lustre:" \
            "install the Lustre client"
    fi
}

function make_lustre_shares {
    check_lustre_shares
    is_lustre_sandbox || return 0
    install_package xfsprogs
    lustre_sandbox install
    # What an earlier stack.sh has left.
    lustre_sandbox destroy-all
    lustre_sandbox create "$LUSTRE_SANDBOX_FSNAME" --mgs "$LUSTRE_MGS" \
        --ost-size "$LUSTRE_SANDBOX_OST_SIZE" --owner "$STACK_USER" \
        --dir cinder --dir backup
}

function lustre_share {
    echo "${LUSTRE_SHARE:-$LUSTRE_MGS:/$LUSTRE_SANDBOX_FSNAME/cinder}"
}

function lustre_backup_share {
    echo "${LUSTRE_BACKUP_SHARE:-$LUSTRE_MGS:/$LUSTRE_SANDBOX_FSNAME/backup}"
}

# The drivers
# -----------

# Put our modules into the packages of the services, wherever those are.
function install_lustre_drivers {
    lustre_dev_link "$CINDER_BIN_DIR/cinder-volume"
    if is_lustre_nova_driver_enabled; then
        lustre_dev_link "$NOVA_BIN_DIR/nova-compute" --nova
    fi
}

function remove_lustre_drivers {
    lustre_dev_link "$CINDER_BIN_DIR/cinder-volume" --remove
    if is_lustre_nova_driver_enabled; then
        lustre_dev_link "$NOVA_BIN_DIR/nova-compute" --nova --remove
    fi
}

function lustre_dev_link {
    local program=$1
    shift
    # There is none before the first stack.sh.
    [[ -e $program ]] || return 0
    # The packages may be the system's.
    sudo "$(lustre_python_of "$program")" -B "$LUSTRE_TREE/tools/dev-link" "$@"
}

# Configuration
# -------------

# Called by configure_cinder, with the name of the back end.
function configure_cinder_backend_lustre {
    local name=$1
    iniset "$CINDER_CONF" "$name" volume_driver \
        cinder.volume.drivers.lustre.LustreDriver
    iniset "$CINDER_CONF" "$name" volume_backend_name "$name"
    iniset "$CINDER_CONF" "$name" lustre_shares "$(lustre_share)"
    if is_lustre_sandbox; then
        iniset "$CINDER_CONF" "$name" lustre_file_system_types lustre,xfs
    fi
}

# Called by configure_cinder.
function configure_cinder_backup_lustre {
    iniset "$CINDER_CONF" DEFAULT backup_driver \
        cinder.backup.drivers.lustre.LustreBackupDriver
    iniset "$CINDER_CONF" DEFAULT lustre_backup_share "$(lustre_backup_share)"
    if is_lustre_sandbox; then
        iniset "$CINDER_CONF" DEFAULT lustre_backup_file_system_types \
            lustre,xfs
    fi
}

# Make the connector known to a cinder-backup with another driver.
function configure_lustre_connector {
    if is_service_enabled c-bak && ! is_lustre_backup_enabled; then
        iniset "$CINDER_CONF" DEFAULT backup_manager \
            cinder.lustre.backup_manager.BackupManager
    fi
}

function configure_lustre_nova_driver {
    iniset "$NOVA_CONF" DEFAULT compute_driver lustre.LibvirtDriver
}

# The volume types of our back ends, and that for multiattach, which lib/cinder
# has made.
function configure_lustre_volume_types {
    local be
    for be in ${CINDER_ENABLED_BACKENDS//,/ }; do
        if [[ $be == lustre:* ]]; then
            openstack volume type set "${be#*:}" \
                --property "lustre:format=$LUSTRE_VOLUME_FORMAT"
        fi
    done
    if [[ ${ENABLE_VOLUME_MULTIATTACH:-False} == True ]]; then
        openstack volume type set "${VOLUME_TYPE_MULTIATTACH:-multiattach}" \
            --property lustre:format=raw
    fi
}

function configure_lustre_tempest {
    local raw=False
    if [[ $LUSTRE_VOLUME_FORMAT == raw ]]; then
        raw=True
    fi
    iniset "$TEMPEST_CONFIG" volume vendor_name OpenSFS
    iniset "$TEMPEST_CONFIG" volume storage_protocol nfs
    iniset "$TEMPEST_CONFIG" volume manage_volume_ref source-name,volume-%s
    iniset "$TEMPEST_CONFIG" volume manage_snapshot_ref source-id,%s
    iniset "$TEMPEST_CONFIG" volume-feature-enabled snapshot True
    iniset "$TEMPEST_CONFIG" volume-feature-enabled clone True
    iniset "$TEMPEST_CONFIG" volume-feature-enabled manage_volume True
    iniset "$TEMPEST_CONFIG" volume-feature-enabled manage_snapshot True
    iniset "$TEMPEST_CONFIG" volume-feature-enabled extend_attached_volume \
        "$raw"
    iniset "$TEMPEST_CONFIG" volume-feature-enabled volume_revert True
    iniset "$TEMPEST_CONFIG" volume-feature-enabled consistency_group True
    if is_lustre_backup_enabled; then
        # Of those that it knows, the one that writes files as well.
        iniset "$TEMPEST_CONFIG" volume backup_driver posix
        iniset "$TEMPEST_CONFIG" volume-feature-enabled backup True
    fi
    if is_service_enabled n-cpu; then
        iniset "$TEMPEST_CONFIG" compute-feature-enabled \
            attach_encrypted_volume "$LUSTRE_NOVA_DRIVER"
    fi
}

# The end
# -------

# Called by cleanup_cinder, when the services are down.
function cleanup_cinder_backend_lustre {
    unmount_lustre_below "$CINDER_STATE_PATH/mnt"
    if is_lustre_sandbox; then
        lustre_sandbox destroy-all
    fi
}

# Called by cleanup_cinder.
function cleanup_cinder_backup_lustre {
    unmount_lustre_below "$CINDER_STATE_PATH/lustre_backup_mount"
}

# Unmount what is mounted in a directory. Nobody uses it any more, and if
# somebody does it fails: nothing is lost.
function unmount_lustre_below {
    local directory=$1 mounted
    findmnt --list --noheadings --output TARGET |
        while IFS= read -r mounted; do
            if [[ $mounted == "$directory"/* || $mounted == "$directory" ]]
            then
                sudo umount "$mounted" || true
            fi
        done
}

# When what is done
# -----------------

if is_lustre_enabled; then
    case "$1 ${2:-}" in
        'stack pre-install')
            echo_summary "Making the Lustre shares"
            make_lustre_shares
            ;;
        'stack install')
            echo_summary "Installing the Lustre drivers"
            install_lustre_drivers
            ;;
        'stack post-config')
            echo_summary "Configuring the Lustre drivers"
            configure_lustre_connector
            if is_lustre_nova_driver_enabled; then
                configure_lustre_nova_driver
            fi
            ;;
        'stack extra')
            if is_service_enabled c-api; then
                configure_lustre_volume_types
            fi
            ;;
        'stack test-config')
            if is_service_enabled tempest; then
                configure_lustre_tempest
            fi
            ;;
        'clean ')
            remove_lustre_drivers
            if is_lustre_sandbox; then
                lustre_sandbox uninstall || true
            fi
            ;;
    esac
fi
