# shellcheck shell=bash
# shellcheck disable=SC2154 # bin, scratch, loops, pairs and quick are set by scripts/bench
# A rescue against cp of the same files from a plain degraded mount. Part of scripts/bench.

# make_lost_node DIRECTORY MEGABYTES: three quarters in the database, the rest in as many files as make 2,000 of 1,600 MB.
make_lost_node() {
  local net=$1/bitcoin rows=$(($2 * 150 / 4)) files=$(($2 * 5 / 4)) i
  local small=$(($2 * 1000000 / 4 / files))
  mkdir -p "$net"
  # 20,000 bytes a row, as in the larger tables of a node.
  sqlite3 "$net/lightningd.sqlite3" >/dev/null <<SQL
PRAGMA journal_mode = off;
CREATE TABLE version (version INTEGER);
INSERT INTO version VALUES (270);
CREATE TABLE vars (name TEXT PRIMARY KEY, val TEXT, intval INTEGER, blobval BLOB);
INSERT INTO vars (name, intval) VALUES ('data_version', 123456);
CREATE TABLE htlc_sigs (id INTEGER PRIMARY KEY, signature BLOB);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $rows)
INSERT INTO htlc_sigs SELECT i, randomblob(20000) FROM n;
SQL
  head -c 32 /dev/urandom >"$net/hsm_secret"
  chmod 0400 "$net/hsm_secret"
  for ((i = 0; i < files; i++)); do
    ((i % 50)) || mkdir "$net/$((i / 50))"
    head -c "$small" /dev/urandom >"$net/$((i / 50))/file $i"
  done
}

# As fast as a hard disk: a survivor is a disk of its own, and here it is a file on the disk that is copied to.
hard_disk=200

# slow_group DEVICE: makes a control group whose processes read that device at that rate, and says where. Fails where the kernel has none.
slow_group() {
  local number at=/sys/fs/cgroup/blkio
  number=$(lsblk -dno MAJ:MIN "$1" | tr -d ' ')
  if [[ -d $at ]]; then
    at+=/raidguard-bench-$$
    mkdir "$at" && echo "$number ${hard_disk}000000" >"$at/blkio.throttle.read_bps_device" || return
  else
    at=/sys/fs/cgroup
    grep -qw io "$at/cgroup.controllers" && echo +io >"$at/cgroup.subtree_control" || return
    at+=/raidguard-bench-$$
    mkdir "$at" && echo "$number rbps=${hard_disk}000000" >"$at/io.max" || return
  fi
  echo "$at"
}

# Every way begins cold and writes into nothing.
from_cold() {
  rm -rf "$scratch/rescued"
  sync -f "$scratch"
  cold
}

# As an operator would by hand. The mirror was unmounted in order, so that there is no log that this would replay.
copy_by_hand() {
  mount -t btrfs -o ro,degraded "${loops[0]}" "$scratch/mirror"
  cp -a "$scratch/mirror/lightning" "$scratch/rescued"
  sync -f "$scratch/rescued"
  umount "$scratch/mirror"
}

our_rescue() {
  "$bin/raidguard" recover --degraded --from "${loops[0]}" --to "$scratch/rescued" --scratch "$scratch" --all --yes \
    >"$scratch/said" 2>&1 || { cat "$scratch/said" >&2 && return 1; }
}

# As who wants to know whether the disk has it, too.
copy_and_read_by_hand() {
  copy_by_hand
  cold
  find "$scratch/rescued" -type f -exec cat {} + >/dev/null
}

# In the namespace.
bench_recover() {
  local megabytes=1600 ratios=()
  ((quick)) && megabytes=200
  mkdir "$scratch/mirror"
  mkfs.btrfs -qfK -d raid1 -m raid1 "${loops[@]}" >/dev/null
  mount "${loops[0]}" "$scratch/mirror"
  btrfs subvolume create "$scratch/mirror/lightning" >/dev/null
  make_lost_node "$scratch/mirror/lightning" "$megabytes"
  umount "$scratch/mirror"
  # The other half is gone for good.
  wipefs -qa "${loops[1]}"
  btrfs device scan --forget "${loops[@]}"
  echo "data: $megabytes MB in $((megabytes * 5 / 4 + 2)) files, off one half of a btrfs raid1 on loop devices, onto the disk below them"
  from_cold
  copy_by_hand # warms up, not measured

  rescues 'from the disk that is copied to' copy_by_hand
  local beside=("${ratios[@]}")
  rescues 'from the disk that is copied to, by hand with the copy read back' copy_and_read_by_hand
  local read_back=("${ratios[@]}")
  if slow=$(slow_group "${loops[0]}"); then
    trap 'rmdir "$slow"' EXIT
    (
      echo "$BASHPID" >"$slow/cgroup.procs"
      rescues "from a disk of $hard_disk MB/s" copy_by_hand
      heading
      row "recover against cp, from $hard_disk MB/s" "$(spread "${ratios[@]}")" '<= 1.2' "$(median "${ratios[@]}") <= 1.2"
    )
  else
    echo 'from a slower disk: not measured, this kernel slows none down (blkio.throttle, io.max)' >&2
    heading
  fi
  # No survivor is that disk (--to on one is refused), and reading back takes it half as many bytes again: no limit is promised.
  row 'the same, from the disk copied to' "$(spread "${beside[@]}")"
  row 'and against cp and reading that back' "$(spread "${read_back[@]}")" '<= 1' "$(median "${read_back[@]}") <= 1"
}

# rescues WHERE BY_HAND: pairs, into `ratios`.
rescues() {
  local i plain
  printf '\n%s:\n%4s  %10s  %10s  %6s\n' "$1" pair 'by hand, s' 'ours, s' ratio
  ratios=()
  for ((i = 1; i <= pairs; i++)); do
    from_cold
    timed "$2"
    plain=$took
    from_cold
    timed our_rescue
    ratios+=("$(calculate %.3f "$took / $plain")")
    printf '%4d  %10.3f  %10.3f  %6s\n' "$i" "$plain" "$took" "${ratios[-1]}"
  done
}
