# shellcheck shell=bash
# shellcheck disable=SC2154 # scratch, loops, pairs and quick are set by scripts/bench
# `raidguard replace` up to its proof against `btrfs replace start -B`, in alternating pairs on one mirror of loop devices. A part of
# scripts/bench.

# A mirror that `setup` made. 1: how much is stored, in MB.
replace_mirror() {
  own_directories
  mkdir -p /home/bitcoin/.lightning
  echo bench >/home/bitcoin/.lightning/config
  "$scratch/raidguard" setup --hdd "${loops[0]}" --usb "${loops[1]}" --lightning-dir /home/bitcoin/.lightning --no-node \
    --scheduler none --yes >"$scratch/said" 2>&1 || { cat "$scratch/said" >&2 && return 1; }
  head -c "${1}M" /dev/urandom >/srv/lightning/data
}

# The device that was freed is as new again, and nothing is cached.
replace_ready() {
  wipefs -qaf "$1"
  blkdiscard -f "$1" 2>/dev/null || true
  sync -f /srv/lightning
  cold
}

replace_raw() { btrfs replace start -B 2 "$1" /srv/lightning >/dev/null; }

# Its seconds up to the proof, in `took`: each step says when it is done.
replace_ours() {
  local began=$EPOCHREALTIME line last=''
  while IFS= read -r line; do
    case $line in
      *'done '*'prove it'* | *'held '*'prove it'*) break ;;
      *'done '* | *'held '*) last=$EPOCHREALTIME ;;
    esac
  done < <("$scratch/raidguard" replace --old 2 --new "$1" --yes 2>&1; echo "ended $?")
  wait
  [[ -n $last ]] || { echo 'raidguard replace did not come to its proof' >&2 && return 1; }
  took=$(calculate %.6f "$last - $began")
}

# In the namespace.
bench_replace() {
  local i raw ratio ratios=() megabytes=5000 third free used
  ((quick == 0)) || megabytes=150
  truncate -s 10G "$scratch/three"
  third=$(losetup --find --show --direct-io=on "$scratch/three")
  # shellcheck disable=SC2064 # this one
  trap "umount /srv/lightning 2>/dev/null; losetup --detach '$third'" EXIT
  replace_mirror "$megabytes"
  used=${loops[1]} free=$third
  printf '\nreplace of a member with %s MB on it\n%4s  %18s  %22s  %6s\n' "$megabytes" pair 'btrfs replace, s' 'ours before proof, s' ratio
  for ((i = 0; i <= pairs; i++)); do
    replace_ready "$free"
    timed replace_raw "$free"
    raw=$took
    read -r used free <<<"$free $used"
    replace_ready "$free"
    replace_ours "$free" || return 1
    read -r used free <<<"$free $used"
    # Until the proof has ended nothing else may begin.
    while pgrep -f "^$scratch/raidguard replace" >/dev/null; do sleep 0.1; done
    ((i > 0)) || continue # warms up, not measured
    ratio=$(calculate %.3f "$took / $raw")
    ratios+=("$ratio")
    printf '%4d  %18.3f  %22.3f  %6s\n' "$i" "$raw" "$took" "$ratio"
  done

  heading
  row 'replace against btrfs replace' "$(spread "${ratios[@]}")" '<= 1.05' "$(median "${ratios[@]}") <= 1.05"
}
