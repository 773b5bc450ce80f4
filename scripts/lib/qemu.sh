# shellcheck shell=bash
# QEMU for the lab: what it needs, and a console in the terminal. Sourced, at the checkout's top, after needs.sh and lab.sh.

# A newer qemu-utils than the rest of QEMU gives way to it, and comes back in the same version.
needs_qemu() {
  needs qemu-system-x86_64:qemu-system-x86
  needs qemu-img:qemu-utils setpriv:util-linux
}

# A console in this terminal; nothing of what is done is kept. `shell`: with the programs of this checkout.
lab_console() {
  local image disks=() name
  image=$(lab_image)
  scratch=$(mktemp -d /var/tmp/raidguard-lab.XXXXXX)
  trap 'rm -rf "$scratch"' EXIT
  for name in one two; do truncate -s 2G "$scratch/$name"; done
  disks=(-drive "if=none,id=one,format=raw,file=$scratch/one" -device 'scsi-hd,drive=one,serial=one'
    -drive "if=none,id=two,format=raw,file=$scratch/two" -device 'usb-storage,drive=two,serial=two')
  if [[ $1 == shell ]]; then
    lab_programs "$scratch"
    disks+=(-drive "if=none,id=programs,format=raw,readonly=on,file=$scratch/programs.tar"
      -device 'virtio-blk-pci,drive=programs,serial=programs')
  fi
  qemu-system-x86_64 -machine q35 -accel tcg,thread=single -icount shift=0,sleep=on -cpu max,la57=off,svm=off -smp 1 -m 768 -nodefaults -nographic \
    -serial mon:stdio -kernel "$image/kernel" -initrd "$image/initrd" \
    -append 'root=/dev/vda rw console=ttyS0 quiet loglevel=4 mitigations=off cryptomgr.notests 8250.nr_uarts=1' \
    -drive "if=none,id=root,format=raw,snapshot=on,file=$image/root.img" -device 'virtio-blk-pci,drive=root,serial=root' \
    -device virtio-scsi-pci -device qemu-xhci "${disks[@]}"
}

# What `shell` unpacks in the guest: tar reads a disk as it reads a file.
lab_programs() {
  local target=${CARGO_TARGET_DIR:-$PWD/target}/debug
  needs_rust ''
  cargo build --locked --quiet --bin raidguard --example standin-node
  mkdir -p "$1/tree/usr/local/sbin" "$1/tree/usr/local/bin"
  strip -o "$1/tree/usr/local/sbin/raidguard" "$target/raidguard"
  strip -o "$1/tree/usr/local/bin/standin-node" "$target/examples/standin-node"
  tar --owner=0 --group=0 -C "$1/tree" -cf "$1/programs.tar" usr
}
