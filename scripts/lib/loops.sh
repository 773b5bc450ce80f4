# shellcheck shell=bash
# Scratch space, loop devices and a mount namespace that are gone when the script ends, however it ends. Sourced.

scratch='' child='' loops=()

# make_scratch NAME: a directory on a real disk.
make_scratch() {
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  scratch=$(mktemp -d "/var/tmp/raidguard-$1.XXXXXX")
}

# make_loops SIZE [OPTION]...: two sparse devices in `loops`.
make_loops() {
  local disk
  for disk in one two; do
    truncate -s "$1" "$scratch/$disk"
    loops+=("$(losetup --find --show "${@:2}" "$scratch/$disk")")
  done
}

# in_namespace COMMAND...: runs it where what it mounts is seen by nobody else and ends with it.
in_namespace() {
  setsid unshare --mount --propagation private "$@" &
  child=$!
  wait "$child"
  child=''
}

# shellcheck disable=SC2317 # called by the trap
clean_up() {
  local code=$? left device
  set +e
  trap '' INT TERM HUP
  if [[ -n $child ]]; then
    # A session of its own: the whole of it goes, and the mounts with it.
    kill -TERM -- "-$child" 2>/dev/null
    for ((left = 100; left > 0; left--)); do
      kill -0 -- "-$child" 2>/dev/null || break
      sleep 0.1
    done
    kill -KILL -- "-$child" 2>/dev/null
  fi
  for device in "${loops[@]}"; do losetup --detach "$device"; done
  # A device that is still in use goes when its mount is gone.
  for ((left = 50; left > 0 && ${#loops[@]} > 0; left--)); do
    [[ -n $(losetup --associated "$scratch/one")$(losetup --associated "$scratch/two") ]] || break
    sleep 0.1
  done
  if [[ -n $scratch ]]; then rm -rf --one-file-system "$scratch"; fi
  exit "$code"
}
