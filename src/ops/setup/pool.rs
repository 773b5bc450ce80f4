//! What a pool of ZFS needs beyond other mirrors: the size of its smallest write, names that stay, a partition on each whole disk.

use std::path::{Path, PathBuf};

use super::{Facts, members::Chosen};
use crate::{
    backend::{self, MirrorSpec, PoolSpec, zfs},
    host::{
        Host,
        partition::{self, Slot, Table},
    },
    model::{BackendKind, Bytes, DevNo, Inventory},
    ops::{Blocker, Trouble, trouble::unchanged},
    plan::steps::BootPool,
};

/// Of a whole disk a hundredth stays free, so that another maker's disk of the same name, which may be a little smaller, can take its
/// place; of a large one no more than this.
const SPARED: u64 = 4 << 30;

/// What the machine says.
#[derive(Debug, Clone, Default)]
pub struct PoolFacts {
    /// What there is already by its name.
    pub conflict: Option<String>,
    /// What imports and mounts it at a boot.
    pub boot: BootPool,
    /// For each device named: the logical and the physical size of its sectors in bytes, where it is there and the kernel says so.
    pub sectors: Vec<Option<(u64, u64)>>,
    /// For each device named: its size, where it is a whole disk, which ZFS would divide by itself.
    pub whole: Vec<Option<Bytes>>,
    /// The size of every partition that is made.
    pub size: Bytes,
}

pub(super) fn gather(
    host: &Host,
    spec: &MirrorSpec,
    inventory: &Inventory,
    devices: &[Result<DevNo, String>],
) -> Result<Option<PoolFacts>, Trouble> {
    if spec.backend != BackendKind::Zfs {
        return Ok(None);
    }
    let found: Vec<_> =
        devices.iter().map(|dev| dev.as_ref().ok().and_then(|dev| inventory.by_dev(*dev))).collect();
    let sectors: Vec<_> =
        found.iter().map(|device| partition::sectors(host, &device.as_ref()?.kname)).collect();
    // What lies on another device is no disk that could be divided.
    let whole: Vec<_> =
        found.iter().map(|device| device.filter(|d| d.parents.is_empty()).map(|d| d.size)).collect();
    let sizes = found.iter().zip(&sectors).zip(&whole).filter_map(|((device, sectors), whole)| {
        Some(match whole {
            Some(disk) => usable(*disk, sectors.as_ref()?.0),
            None => device.as_ref()?.size,
        })
    });
    let conflict = backend::of(spec.backend).name_conflict(host, spec);
    Ok(Some(PoolFacts {
        conflict: conflict.map_err(unchanged("the pools cannot be read"))?,
        boot: BootPool::of(host).map_err(unchanged("what a boot starts cannot be read"))?,
        size: sizes.min().unwrap_or_default(),
        sectors,
        whole,
    }))
}

/// How large a partition a whole disk gets.
fn usable(disk: Bytes, sector: u64) -> Bytes {
    let room = Table::fresh(disk, sector).room();
    Bytes(room.0 - (room.0 / 100).min(SPARED))
}

/// Is the device a whole disk that gets a partition? One that ZFS was given whole it would divide by itself, with a reserve of so many
/// sectors, whatever their size: an equally large disk of larger sectors could not take its place.
pub(super) fn is_parted(facts: &Facts, index: usize) -> bool {
    facts.pool.as_ref().and_then(|pool| pool.whole.get(index)).is_some_and(Option::is_some)
}

/// The place of that partition.
pub(super) fn slot(facts: &Facts, index: usize) -> Option<Slot> {
    let pool = facts.pool.as_ref()?;
    let disk = pool.whole.get(index).copied().flatten()?;
    let (sector, _) = pool.sectors.get(index).copied().flatten()?;
    Table::fresh(disk, sector).slot(pool.size)
}

/// What it is made with; nothing for a mirror of another kind.
pub(super) fn spec(facts: &Facts, members: &[Chosen<'_>], blockers: &mut Vec<Blocker>) -> Option<PoolSpec> {
    let pool = facts.pool.as_ref()?;
    let sectors = pool.sectors.iter().copied().collect::<Option<Vec<_>>>();
    let Some(ashift) = sectors.as_deref().and_then(zfs::fit::ashift) else {
        let says =
            "how large the sectors of the devices are cannot be told: a pool's smallest write depends on it";
        blockers.push(Blocker::new(says, "see /sys/class/block/NAME/queue; name other devices"));
        return None;
    };
    let sizes: Vec<_> = members.iter().map(|member| member.identity.size).collect();
    Some(PoolSpec { ashift, uneven: zfs::are_uneven(&sizes), paths: members.iter().map(stable).collect() })
}

/// A name that stays: `/dev/sdX` may be another disk after the next boot, and ZFS keeps what it was given.
fn stable(member: &Chosen<'_>) -> PathBuf {
    match &member.identity.partuuid {
        Some(uuid) => Path::new("/dev/disk/by-partuuid").join(uuid),
        None => member.identity.path.clone(),
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
