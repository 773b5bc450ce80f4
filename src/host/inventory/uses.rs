//! What uses a device: mounts, swap, what lies on it, and the kernel's own word on what is busy.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use crate::{
    host::{Host, mountinfo},
    model::inventory::{Device, Inventory, Use},
};

/// Each loop device in use, by its kernel name, with the file or the block device that it shows.
pub(super) fn backings(host: &Host) -> Vec<(String, PathBuf)> {
    let shown = list(host, "/sys/class/block").into_iter().filter_map(|kname| {
        let text =
            host.read_optional(format!("/sys/class/block/{kname}/loop/backing_file")).ok().flatten()?;
        Some((kname, PathBuf::from(text.trim_end_matches('\n'))))
    });
    shown.collect()
}

/// A loop device that shows a block device lies on it; lsblk does not say so.
pub(super) fn lay_loops(inventory: &mut Inventory, backings: &[(String, PathBuf)]) {
    for (kname, backing) in backings {
        let Some(base) = inventory.by_path(backing) else { continue };
        // The path may be that of another mount namespace: never a circle.
        let circle = inventory.above(base).iter().any(|d| d.kname == *kname);
        let base = base.kname.clone();
        if let Some(device) = inventory.devices.iter_mut().find(|d| d.kname == *kname && !circle) {
            device.parents.push(base);
        }
    }
}

pub(super) fn uses(
    host: &Host,
    device: &Device,
    mounts: &[mountinfo::Mount],
    swaps: &[PathBuf],
    backings: &[(String, PathBuf)],
) -> Vec<Use> {
    let mut uses = Vec::new();
    // A btrfs has an anonymous number, and only one of its members is the source: sysfs knows the others.
    let fellows = fellows(host, &device.kname);
    for mount in mounts {
        let own = mount.dev == device.dev || mount.source == device.path;
        let fellow =
            || mount.source.file_name().is_some_and(|name| fellows.iter().any(|f| name == f.as_str()));
        if own || fellow() {
            uses.push(Use::Mounted(mount.mountpoint.clone()));
        }
    }
    if swaps.contains(&device.path) {
        uses.push(Use::Swap);
    }
    let class = format!("/sys/class/block/{}", device.kname);
    uses.extend(list(host, &format!("{class}/holders")).into_iter().map(Use::Held));
    let own = backings.iter().find(|(kname, _)| *kname == device.kname).map(|(_, backing)| backing);
    for (kname, backing) in backings.iter().filter(|(kname, _)| *kname != device.kname) {
        // A loop device that was made of a block device holds it without being a holder.
        if *backing == device.path {
            uses.push(Use::Held(kname.clone()));
        } else if own == Some(backing) {
            uses.push(Use::SameFile(Path::new("/dev").join(kname)));
        }
    }
    if uses.is_empty() && is_busy(host, &device.path) {
        uses.push(Use::Busy);
    }
    uses
}

/// The kernel names of all members of the mounted btrfs that this device is a member of, without itself.
fn fellows(host: &Host, kname: &str) -> Vec<String> {
    let filesystems = list(host, "/sys/fs/btrfs");
    let members = filesystems.iter().map(|uuid| list(host, &format!("/sys/fs/btrfs/{uuid}/devices")));
    members.filter(|m| m.iter().any(|name| name == kname)).flatten().filter(|name| name != kname).collect()
}

/// An exclusive open fails on whatever the kernel has claimed: also for a ZFS pool, of which nothing else tells.
fn is_busy(host: &Host, path: &Path) -> bool {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_EXCL | nix::libc::O_CLOEXEC)
        .open(host.path(path));
    opened.is_err_and(|e| e.kind() == io::ErrorKind::ResourceBusy)
}

fn list(host: &Host, dir: &str) -> Vec<String> {
    let entries = fs::read_dir(host.path(dir)).into_iter().flatten().flatten();
    entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

/// The directory of a block device that its link below `/sys/class/block` leads to.
fn place_in_sysfs(host: &Host, kname: &str) -> Option<PathBuf> {
    let class = host.path("/sys/class/block");
    let link = fs::read_link(class.join(kname)).ok()?;
    let mut place = class;
    for part in link.components() {
        match part {
            std::path::Component::ParentDir => drop(place.pop()),
            part => place.push(part),
        }
    }
    Some(place)
}

/// The USB device above a block device, by its place in sysfs, and its link's speed.
pub(in crate::host) fn usb(host: &Host, kname: &str) -> Option<(String, u32)> {
    let real = place_in_sysfs(host, kname)?;
    // Each bus begins at a hub of that name (kernel: `drivers/usb/core/hcd.c`), and most disks hang on none.
    let of_usb = |part: std::path::Component<'_>| part.as_os_str().to_string_lossy().starts_with("usb");
    if !real.components().any(of_usb) {
        return None;
    }
    real.ancestors().find_map(|at| {
        let speed = fs::read_to_string(at.join("speed")).ok()?;
        at.join("bDeviceClass").exists().then_some(())?;
        Some((at.file_name()?.to_string_lossy().into_owned(), speed.trim().parse().ok()?))
    })
}
