# shellcheck shell=bash
# The lab's image: a Debian 13 that boots below QEMU, made from nothing and kept outside the checkout. Sourced, at the checkout's top.

lab_cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/raidguard/lab
lab_release=trixie

# Where the image of this checkout's recipe lies: root.img, kernel, initrd.
lab_image() {
  local hash
  hash=$(find scripts/lib/lab.sh tests/lab/image -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum)
  echo "$lab_cache/${hash:0:16}"
}

needs_lab() {
  needs debootstrap:debootstrap mke2fs:e2fsprogs unshare:util-linux flock:util-linux
}

# Makes it if it is not there.
build_lab() {
  local image began=$SECONDS
  image=$(lab_image)
  if [[ ! -e $image ]]; then
    ((EUID == 0)) || { echo 'the lab is built as root: it makes a root directory with all its owners' >&2 && return 1; }
    needs_lab
    mkdir -p "$lab_cache"
    # Of two that need it, the second waits for the first.
    (flock 9 && make_lab_image "$image") 9>"$lab_cache/lock" || return
    echo "== the lab is built, in $((SECONDS - began)) s" >&2
  fi
  touch "$image"
  # Those of other recipes go when nobody has used them for a day.
  find "$lab_cache" -mindepth 1 -maxdepth 1 -type d ! -path "$image" -mtime +0 -exec rm -rf --one-file-system {} +
}

make_lab_image() (
  local image=$1 part=$1.part
  [[ ! -e $image ]] || return 0
  rm -rf --one-file-system "$part"
  trap 'rm -rf --one-file-system "$part"' EXIT
  trap 'exit 130' INT TERM HUP
  mkdir -p "$part/root" "$part/image"
  lab_step 'packages: debootstrap' lab_packages "$part/root" || return
  lab_step 'users, units, initrd' lab_inside "$part/root" || return
  lab_step 'root disk: mke2fs' lab_disk "$part/root" "$part/image" || return
  sync -f "$part/image" && mv -T "$part/image" "$image"
)

# lab_step TITLE COMMAND...: what it says is shown only when it fails.
lab_step() {
  local began=$SECONDS log
  log=$(mktemp)
  printf '== lab: %s ...' "$1" >&2
  if ! "${@:2}" >"$log" 2>&1 </dev/null; then
    printf ' failed\n' >&2
    tail -n 40 "$log" >&2
    rm -f "$log"
    return 1
  fi
  rm -f "$log"
  printf ' %s s\n' "$((SECONDS - began))" >&2
}

lab_packages() {
  local packages mirror
  packages=$(grep -v '^#' tests/lab/image/packages | paste -sd,) || return
  # The mirror that this machine's apt uses; where it uses none of Debian's, the one that debootstrap knows.
  # shellcheck disable=SC2016 # apt's own variables
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' | head -n1)
  cp -R --no-preserve=ownership tests/lab/image/root/. "$1" || return
  # The kernel's package makes no initrd of its own.
  INITRD=No unshare --mount --propagation private \
    debootstrap --variant=minbase --include="$packages" "$lab_release" "$1" ${mirror:+"$mirror"}
}

# A namespace of processes of its own: what the packages started ends with it.
lab_inside() {
  cp tests/lab/image/inside "$1/inside" &&
    unshare --mount --pid --fork --kill-child --root="$1" --mount-proc /inside &&
    rm "$1/inside"
}

lab_disk() {
  mv "$1/boot/kernel" "$1/boot/initrd" "$2/" &&
    truncate -s 4G "$2/root.img" &&
    mke2fs -q -t ext4 -L lab -E root_owner=0:0 -d "$1" "$2/root.img"
}
