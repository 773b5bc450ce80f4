# shellcheck shell=bash
# The lab's image: a Debian that boots below QEMU, made from nothing and kept outside the checkout. Sourced, at the checkout's top.

# Which Debian: 12 or 13. What tests start, cargo among it, learns it from the environment.
: "${RAIDGUARD_LAB_DEBIAN:=13}"
export RAIDGUARD_LAB_DEBIAN
lab_cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/raidguard/lab

# Where the image of this checkout's recipe lies: root.img, kernel, initrd.
lab_image() {
  local hash
  hash=$({
    echo "$RAIDGUARD_LAB_DEBIAN"
    find scripts/lib/lab.sh scripts/lib/lab-image tests/lab/image -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
  } | sha256sum)
  echo "$lab_cache/${hash:0:16}"
}

needs_lab() {
  needs debootstrap:debootstrap mke2fs:e2fsprogs unshare:util-linux setpriv:util-linux flock:util-linux
}

# Makes it if it is not there.
build_lab() {
  local image began=$SECONDS
  [[ $RAIDGUARD_LAB_DEBIAN == 1[23] ]] || { echo "the lab is a Debian 12 or 13, not $RAIDGUARD_LAB_DEBIAN" >&2 && return 2; }
  image=$(lab_image)
  if [[ ! -e $image ]]; then
    ((EUID == 0)) || { echo 'the lab is built as root: it makes a root directory with all its owners' >&2 && return 1; }
    needs_lab
    mkdir -p "$lab_cache"
    # Of two that need it, the second waits for the first. It ends with this, however this ends.
    # shellcheck disable=SC2016 # its own argument
    setpriv --pdeathsig TERM flock --no-fork "$lab_cache/lock" "$BASH" -c '[[ -e $1 ]] || exec scripts/lib/lab-image "$1"' - "$image" || return
    echo "== the lab, Debian $RAIDGUARD_LAB_DEBIAN, is built, in $((SECONDS - began)) s" >&2
  fi
  touch "$image"
  # Those of other recipes go when nobody has used them for a day, ZFS's modules when no image was made of them for a month.
  find "$lab_cache" -mindepth 1 -maxdepth 1 -type d ! -path "$image" \
    \( ! -name 'zfs-*' -mtime +0 -o -mtime +30 \) -exec rm -rf --one-file-system {} +
}
