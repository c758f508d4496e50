#!/bin/busybox sh
# shellcheck shell=dash
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
# The guest's only program, /init of its initramfs. It does what it is told
# over its serial console; see console.py for the words.

# What is written to a slot that is being kept, by its number.
KEPT=/run/kept

say() {
    echo "guest: $*" >/dev/console
}

start_up() {
    /bin/busybox mkdir -p /dev /proc /sys /tmp /run $KEPT
    /bin/busybox --install -s /bin
    mount -t devtmpfs devtmpfs /dev
    mount -t proc proc /proc
    mount -t sysfs sysfs /sys
    for module in /modules/*; do
        insmod "$module"
    done
    # Or every command would be seen twice.
    stty -echo </dev/console
    mkdir -p /etc/acpi/PWRF /var/log /var/run
    printf '#!/bin/sh\npoweroff -f\n' >/etc/acpi/PWRF/00000080
    chmod +x /etc/acpi/PWRF/00000080
    # A hypervisor presses the power button to stop it.
    acpid
}

disks() {
    for path in /sys/block/[vs]d*; do
        [ -e "$path" ] && printf ' %s=%s' "${path##*/}" \
            $(($(cat "$path/size") * 512))
    done
}

reason() {
    tr '\n' ' ' 2>/dev/null </tmp/error || echo 'not now'
}

# Slots: the whole MiB of a disk, from 0. Always past the guest's own cache.

get() {
    dd if="/dev/$1" bs=1M skip="$2" count="$3" iflag=direct 2>/tmp/error
}

put() {
    # Standard input to so many slots; done when the disk says that it is.
    # dd would make a file where there is no disk.
    [ -b "/dev/$1" ] || { echo "no disk $1" >/tmp/error; return 1; }
    dd of="/dev/$1" bs=1M seek="$2" count="$3" iflag=fullblock oflag=direct \
        conv=notrunc,fsync 2>/tmp/error
}

checksum() {
    sha256sum "$@" | cut -d' ' -f1
}

write_noise() {
    head -c $(($3 << 20)) /dev/urandom >/tmp/noise &&
        put "$1" "$2" "$3" </tmp/noise && checksum /tmp/noise
}

keep_writing() {
    # Over and over, until told to end; each slot's checksum is noted before
    # the slot is written.
    slot=$2
    while [ ! -e /run/end ]; do
        head -c 1048576 /dev/urandom >/tmp/kept
        checksum /tmp/kept >"$KEPT/$slot"
        if ! put "$1" "$slot" 1 </tmp/kept; then
            say "keep failed: slot $slot: $(reason)"
            cp /tmp/error /run/failed
            return
        fi
        echo >>/run/writes
        slot=$((slot + 1))
        [ "$slot" -lt $(($2 + $3)) ] || slot=$2
    done
}

count_bad() {
    bad=0
    for noted in "$KEPT"/*; do
        slot=${noted##*/}
        found=$(get "$1" "$slot" 1 | checksum)
        [ "$found" = "$(cat "$noted")" ] || bad=$((bad + 1))
    done
    echo "$bad"
}

# The commands. Each says one line, and fails if it could not be done.

do_disks() {
    disks | cut -c2-
}

do_write() {
    write_noise "$@"
}

do_sum() {
    get "$@" >/tmp/read && [ "$(stat -c %s /tmp/read)" = $(($3 << 20)) ] &&
        checksum /tmp/read
}

do_keep() {
    [ -z "$keeper" ] || return 1
    rm -f /run/end /run/failed /run/writes "$KEPT"/*
    touch /run/writes
    kept_disk=$1
    keep_writing "$@" &
    keeper=$!
    echo started
}

do_kept() {
    echo "writes=$(wc -l </run/writes)"
}

do_stop() {
    [ -n "$keeper" ] || return 1
    touch /run/end
    wait "$keeper"
    keeper=
    ! cp /run/failed /tmp/error 2>/dev/null &&
        echo "writes=$(wc -l </run/writes) bad=$(count_bad "$kept_disk")"
}

do_poweroff() {
    say 'poweroff = now'
    sync
    poweroff -f
}

do_reboot() {
    say 'reboot = now'
    sync
    reboot -f
}

answer() {
    # In this shell, not in another one: keep and stop share variables.
    command="$*"
    word=$1
    shift
    rm -f /tmp/error
    if "do_$word" "$@" >/tmp/answer; then
        say "$command = $(cat /tmp/answer)"
    else
        say "$command ! $(reason)"
    fi
}

start_up
say "ready$(disks)"
while read -r line; do
    # shellcheck disable=SC2086
    set -- $line
    case "$1" in
        '') ;;
        disks|write|sum|keep|kept|stop|poweroff|reboot) answer "$@" ;;
        *) say "$* ! unknown" ;;
    esac
done </dev/console
# Nobody can tell us anything any more.
poweroff -f
