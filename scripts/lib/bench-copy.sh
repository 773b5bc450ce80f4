# shellcheck shell=bash
# shellcheck disable=SC2154 # bin, scratch, loops, pairs and quick are set by scripts/bench
# The verified copy against cp -a and diff -r; start-up; size. Part of scripts/bench.

# make_data DIRECTORY MEGABYTES: three quarters in one file, the rest in as many files as make 2,000 of 1,600 MB.
make_data() {
  local big=$(($2 * 3 / 4)) files=$(($2 * 5 / 4)) i
  local small=$((($2 - big) * 1000000 / (files - 1)))
  mkdir -p "$1"
  head -c "${big}M" /dev/urandom >"$1/lightningd.sqlite3"
  for ((i = 1; i < files; i++)); do
    ((i % 50 != 1)) || mkdir "$1/$((i / 50))"
    head -c "$small" /dev/urandom >"$1/$(((i - 1) / 50))/file $i"
  done
}

# A new, empty mirror. The images are not punched, so that every run but the first writes into allocated blocks.
empty_target() {
  mountpoint -q "$target" && umount "$target"
  mkfs.btrfs -qfK -d raid1 -m raid1 "${loops[@]}" >/dev/null
  mount -o autodefrag "${loops[0]}" "$target"
  mkdir "$target/lightning"
  cold
}

copy_and_diff() {
  cp -a "$1/." "$target/lightning"
  cold
  diff -r "$1" "$target/lightning"
}

our_copy() { "$bin/examples/copy-bench" "$1" "$target/lightning" >"$scratch/figures"; }

start_up() {
  local i began with=() without=()
  for ((i = 0; i < 200; i++)); do
    began=$EPOCHREALTIME && "$bin/raidguard" --version >/dev/null
    with+=("$(calculate %.3f "($EPOCHREALTIME - $began) * 1000")")
    began=$EPOCHREALTIME && /bin/true >/dev/null
    without+=("$(calculate %.3f "($EPOCHREALTIME - $began) * 1000")")
  done
  calculate %.2f "$(median "${with[@]}") - $(median "${without[@]}")"
}

# In the namespace.
bench_copy() {
  local megabytes=1600 i plain copied verified peak quarter ratio ratios=() starts size
  ((quick)) && megabytes=200
  target=$scratch/target
  mkdir "$target"
  echo "data: $megabytes MB in $((megabytes * 5 / 4)) files, onto btrfs raid1 on two loop devices on one disk"
  make_data "$scratch/data" "$megabytes"
  make_data "$scratch/quarter" $((megabytes / 4))
  empty_target
  copy_and_diff "$scratch/data" # warms up, not measured

  printf '\n%4s  %14s  %10s  %22s  %6s\n' pair 'cp and diff, s' 'ours, s' '(copy + read back)' ratio
  for ((i = 1; i <= pairs; i++)); do
    empty_target
    timed copy_and_diff "$scratch/data"
    plain=$took
    empty_target
    timed our_copy "$scratch/data"
    read -r copied verified peak <"$scratch/figures"
    ratio=$(calculate %.3f "$took / $plain")
    ratios+=("$ratio")
    printf '%4d  %14.3f  %10.3f  %22s  %6s\n' "$i" "$plain" "$took" "($copied + $verified)" "$ratio"
  done
  empty_target
  our_copy "$scratch/quarter"
  read -r _ _ quarter <"$scratch/figures"
  umount "$target"
  starts=$(start_up)
  size=$(calculate %.2f "$(stat -c %s "$bin/raidguard") / 1048576")

  heading
  row 'copy and verify against cp and diff' "$(spread "${ratios[@]}")" '<= 0.8' "$(median "${ratios[@]}") <= 0.8"
  row 'peak memory of the copy' "$(calculate %.1f "$peak / 1024") MiB" '< 64 MiB' "$peak < 65536"
  row 'the same, a quarter of the data' "$(calculate %.1f "$quarter / 1024") MiB" 'about equal' "$peak < $quarter * 1.5 + 1024"
  row 'start-up of --version over /bin/true' "$starts ms" 'about 3 ms' "$starts <= 3"
  row 'size of the program' "$size MiB" '< 8 MiB' "$size < 8"
}
