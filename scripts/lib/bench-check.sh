# shellcheck shell=bash
# shellcheck disable=SC2154 # bin, scratch, loops, pairs and quick are set by scripts/bench
# A check of a healthy mirror against the six commands an operator would type; a check of many mirrors. Part of scripts/bench.

# A node's directory such as a small node has.
make_node() {
  local net=$1/bitcoin
  mkdir -p "$net"
  sqlite3 "$net/lightningd.sqlite3" <<'SQL'
CREATE TABLE version (version INTEGER);
INSERT INTO version VALUES (270);
CREATE TABLE vars (name TEXT PRIMARY KEY, val TEXT, intval INTEGER, blobval BLOB);
INSERT INTO vars (name, intval) VALUES ('data_version', 123456);
CREATE TABLE htlc_sigs (id INTEGER PRIMARY KEY, signature BLOB);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
INSERT INTO htlc_sigs SELECT i, randomblob(4000) FROM n;
SQL
  head -c 32 /dev/urandom >"$net/hsm_secret"
  chmod 0400 "$net/hsm_secret"
  chmod 0700 "$1"
}

# Directories of its own over the machine's, something that is called cron, and a mirror that `setup` made with a node on it.
healthy_mirror() {
  cp /bin/sleep "$scratch/cron"
  own_directories
  "$scratch/cron" infinity >/dev/null 2>&1 &
  # shellcheck disable=SC2064 # this one
  trap "kill $!" EXIT
  echo $! >/run/crond.pid # as Debian's does
  make_node /home/bitcoin/.lightning
  "$scratch/raidguard" setup --hdd "${loops[0]}" --usb "${loops[1]}" --lightning-dir /home/bitcoin/.lightning --no-node \
    --scheduler cron --yes >"$scratch/said" 2>&1 || { cat "$scratch/said" >&2 && return 1; }
  "$scratch/raidguard" scrub >/dev/null
  "$scratch/raidguard" check --deep || { echo 'the mirror is not healthy, so this would measure something else' >&2 && return 1; }
}

six_commands() {
  btrfs device stats /srv/lightning
  btrfs filesystem usage /srv/lightning
  btrfs scrub status /srv/lightning
  btrfs filesystem show /srv/lightning
  findmnt /srv/lightning
  lsblk
} >/dev/null

our_check() { "$scratch/raidguard" check >/dev/null; }

median_of_five() {
  local i all=()
  for ((i = 0; i < 5; i++)); do all+=("$("$bin/examples/check-bench" mirrors "$@")"); done
  median "${all[@]}"
}

# In the namespace.
bench_check() {
  local i six=() ours=() ratios=() peaks=() peak few many theirs own
  healthy_mirror
  for ((i = 0; i < 5; i++)); do six_commands && our_check; done # warms up, not measured
  for ((i = 0; i < pairs * 20; i++)); do
    timed six_commands && theirs=$took
    timed our_check && own=$took
    six+=("$(calculate %.3f "$theirs * 1000")")
    ours+=("$(calculate %.3f "$own * 1000")")
    ratios+=("$(calculate %.3f "${ours[-1]} / ${six[-1]}")")
  done
  for ((i = 0; i < 10; i++)); do
    peaks+=("$("$bin/examples/check-bench" peak "$scratch/raidguard" check)")
  done
  peak=$(most "${peaks[@]}")
  echo
  echo "${#ratios[@]} pairs; the six commands: $(spread "${six[@]}") ms; check: $(spread "${ours[@]}") ms"
  # In memory, as the kernel's files are: on a disk's filesystem this would measure its directories.
  few=$(median_of_five /var/tmp/tree 250)
  many=$(median_of_five /var/tmp/tree 1000)

  heading
  row 'check against the six commands' "$(spread "${ratios[@]}")" '<= 0.33' "$(median "${ratios[@]}") <= 0.334"
  row 'peak memory of check' "$(calculate %.1f "$peak / 1024") MiB" '< 16 MiB' "$peak < 16384"
  row 'check of 1,000 captured mirrors' "$(calculate %.3f "$many / 1000") s" '< 1 s' "$many < 1000"
  row 'the same over 250, for each mirror' "$(calculate %.2f "$many / $few / 4")" 'about 1' "$many < $few * 5"
}
