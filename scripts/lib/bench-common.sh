# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # took is read by the parts; bin is set by scripts/bench
# Figures and rows that every part of scripts/bench uses. Sourced.

# median NUMBER...
median() { printf '%s\n' "$@" | sort -n | awk '{v[NR]=$1} END {m=int((NR+1)/2); print NR%2 ? v[m] : (v[m]+v[m+1])/2}'; }
least() { printf '%s\n' "$@" | sort -n | head -n1; }
most() { printf '%s\n' "$@" | sort -n | tail -n1; }
calculate() { awk "BEGIN {printf \"$1\", $2}"; }

# In the namespace: directories of its own over the machine's, `scratch` at /mnt and the program in it.
own_directories() {
  local name
  cp -a "$bin/raidguard" "$scratch/raidguard"
  mkdir "$scratch/etc"
  for name in passwd group nsswitch.conf alternatives ld.so.cache; do
    if [[ -e /etc/$name ]]; then cp -a "/etc/$name" "$scratch/etc/"; fi
  done
  mount --bind "$scratch" /mnt
  for name in etc var srv run home; do mount -t tmpfs -o mode=0755 tmpfs "/$name"; done
  scratch=/mnt
  cp -a "$scratch/etc/." /etc/
  mkdir -p /etc/cron.d /var/lib /var/tmp
  echo 'proc /proc proc defaults 0 0' >/etc/fstab
}

cold() {
  sync
  echo 3 >/proc/sys/vm/drop_caches
}

# timed COMMAND...: its seconds in `took`. Starts no process itself: the next thing that is timed would pay for that.
timed() {
  local began=${EPOCHREALTIME/[.,]/} us
  "$@"
  us=$((${EPOCHREALTIME/[.,]/} - began))
  printf -v took '%d.%06d' $((us / 1000000)) $((us % 1000000))
}

heading() { printf '\n%-36s  %-28s  %-12s  %s\n' 'what' 'measured' 'target' 'reached'; }

# row NAME MEASURED [TARGET HOLDS]
row() { printf '%-36s  %-28s  %-12s  %s\n' "$1" "$2" "${3:-none}" "${4:+$(awk "BEGIN {print ($4) ? \"yes\" : \"no\"}")}"; }

# spread NUMBER...: the median with the least and the most.
spread() { printf '%.2f (%.2f to %.2f)' "$(median "$@")" "$(least "$@")" "$(most "$@")"; }
