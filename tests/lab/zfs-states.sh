#!/usr/bin/env bash
# What the tools of ZFS print of pools of several levels, in states that can be made from inside. Run in the lab with four empty SCSI disks `one`
# to `four`, as root: zfs-states.sh DIRECTORY. Each state is a directory; the commands are those that tests/fixtures/zfs/README.md lists.
set -euo pipefail
export LC_ALL=C TZ=UTC
out=$1 pool=lightning
disk() { echo "/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_$1"; }
halt() { echo "$1" >/sys/module/zfs/parameters/zfs_scan_suspend_progress; }
writes() { head -c "${1}M" /dev/urandom >/$pool/more && zpool sync $pool; }

record() {
  local to=$out/$1
  mkdir -p "$to"
  if zpool status -j >/dev/null 2>&1; then
    timeout 20 zpool status -j --json-int >"$to/status-tree.json" || true
    timeout 20 zpool list -j --json-int -v >"$to/list.json" || true
  fi
  timeout 20 zpool status -p >"$to/status.txt" || true
  timeout 20 zpool status -gp >"$to/status-numbers.txt" || true
  timeout 20 zpool list -HpPv $pool >"$to/list.txt" || true
  cat /proc/spl/kstat/zfs/$pool/state >"$to/kstat.txt" 2>/dev/null || true
}

# A disk goes, as when it is pulled, and comes back.
pull() { echo 1 >"/sys/block/$(basename "$(readlink -f "$(disk "$1")")")/device/delete"; }
plug() {
  for host in /sys/class/scsi_host/host*/scan; do echo '- - -' >"$host"; done
  udevadm settle
  until [[ -e $(disk "$1")-part1 ]]; do sleep 0.2; done
}

# LEVEL DISK...
states_of() {
  local level=$1 n=$(($# - 1)) with=() name
  for name in "${@:2}"; do with+=("$(disk "$name")"); done
  zpool create -o ashift=12 $pool "$level" "${with[@]}"
  zfs create $pool/lightning
  head -c 60M /dev/urandom >/$pool/data
  zpool sync $pool
  record "$level-$n-healthy"
  halt 1
  zpool scrub $pool
  record "$level-$n-scrub-running"
  zpool scrub -p $pool
  record "$level-$n-scrub-paused"
  zpool scrub $pool
  halt 0
  zpool wait -t scrub $pool
  record "$level-$n-scrub-finished"
  dd if=/dev/urandom of="$(disk two)-part1" bs=1M seek=10 count=30 oflag=direct conv=notrunc status=none
  zpool scrub -w $pool
  record "$level-$n-scrub-repaired"
  zpool clear $pool
  zpool offline $pool "$(disk two)"
  writes 30
  record "$level-$n-offline"
  halt 1
  zpool online $pool "$(disk two)"
  sleep 2
  record "$level-$n-resilvering"
  halt 0
  zpool wait -t resilver $pool
  pull two
  writes 5
  sleep 2
  record "$level-$n-pulled"
  plug two
  zpool online $pool "$(disk two)"
  zpool wait -t resilver $pool
  record "$level-$n-plugged"
  if ((n < 4)); then
    halt 1
    zpool replace -f $pool "$(disk two)" "$(disk four)"
    sleep 2
    record "$level-$n-replacing"
    halt 0
    zpool wait -t replace $pool
    record "$level-$n-replaced"
  fi
  zpool destroy $pool
  for name in one two three four; do
    zpool labelclear -f "$(disk $name)-part1" || true
    wipefs -qaf "$(disk $name)"
  done
  udevadm settle
}

modprobe zfs
states_of mirror one two
states_of mirror one two three
states_of raidz1 one two three
states_of raidz2 one two three four
