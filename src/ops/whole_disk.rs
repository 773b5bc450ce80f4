//! One partition on all of a disk, for a pool of ZFS. A disk that ZFS was given whole it would divide by itself, with a reserve of so
//! many sectors, whatever their size: an equally large disk of larger sectors could not take its place.

use std::path::{Path, PathBuf};

use super::Blocker;
use crate::{
    host::partition::{Slot, Table, node_of},
    model::{Bytes, Content, Device, Identity},
};

/// Of a whole disk a hundredth stays free, so that another maker's disk of the same name, which may be a little smaller, can take its
/// place; of a large one no more than this.
const SPARED: u64 = 4 << 30;

/// Its size, where a device is a whole disk: what lies on another one is none that could be divided.
pub(super) fn size_of(device: &Device) -> Option<Bytes> {
    device.parents.is_empty().then_some(device.size)
}

/// How large a partition a disk of so many bytes a sector can have.
pub(super) fn most(disk: Bytes, sector: u64) -> Bytes {
    Table::fresh(disk, sector).room()
}

/// How large one it gets.
pub(super) fn usable(disk: Bytes, sector: u64) -> Bytes {
    let room = most(disk, sector);
    Bytes(room.0 - (room.0 / 100).min(SPARED))
}

/// The place of a partition of this size.
pub(super) fn slot(disk: Bytes, sector: u64, size: Bytes) -> Option<Slot> {
    Table::fresh(disk, sector).slot(size)
}

/// The partition that is made there.
pub(super) fn identity(disk: &Device, slot: &Slot, uuid: &str) -> Identity {
    Identity {
        path: node_of(&disk.path, slot.number),
        dev: None,
        size: slot.size(),
        partuuid: Some(uuid.to_owned()),
        ..disk.identity()
    }
}

/// A name that stays: `/dev/sdX` may be another disk after the next boot, and ZFS keeps what it was given.
pub(super) fn stable(member: &Identity) -> PathBuf {
    match &member.partuuid {
        Some(uuid) => Path::new("/dev/disk/by-partuuid").join(uuid),
        None => member.path.clone(),
    }
}

/// Something older in the partition's place is only erased when that was asked for. A disk that holds something is refused for that.
pub(super) fn left(wipe: bool, disk: &Device, remains: &Content, blockers: &mut Vec<Blocker>) {
    let shown = disk.path.display();
    match remains {
        Content::Empty => {}
        Content::Known(_) if wipe || !disk.content.is_empty() => {}
        Content::Known(_) => blockers.push(Blocker::new(
            format!("on {shown} is left of something older: {remains}"),
            "give --wipe if nothing of it is needed",
        )),
        Content::Unknown(why) => blockers.push(Blocker::new(
            format!("what is left of something older on {shown} cannot be told: {why}"),
            "look at it with wipefs and blkid -p, and erase it yourself if nothing is needed",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_not_used_to_its_end() {
        // The table takes a MiB at each end; a hundredth of 1022 MiB stays.
        assert_eq!(usable(Bytes::gib(1), 512), Bytes(Bytes::mib(1022).0 - Bytes::mib(1022).0 / 100));
        assert_eq!(usable(Bytes::gib(4096), 4096).0, Bytes::gib(4096).0 - Bytes::mib(2).0 - SPARED);
        assert_eq!(usable(Bytes(0), 512), Bytes(0));
    }
}
