//! What a pool of ZFS needs beyond other mirrors: the size of its smallest write, names that stay, a partition on each whole disk.

use super::{Facts, members::Chosen};
use crate::{
    backend::{self, MirrorSpec, PoolSpec, zfs},
    host::{
        Host, inventory,
        partition::{self, Slot},
    },
    model::{BackendKind, Bytes, Content, DevNo, Inventory},
    ops::{Blocker, Trouble, trouble::unchanged, whole_disk},
    plan::steps::BootPool,
};

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
    /// For each device named: what is left of something older where its partition will be.
    pub remains: Vec<Content>,
}

pub(super) fn gather(
    host: &Host,
    spec: &MirrorSpec,
    machine: &Inventory,
    devices: &[Result<DevNo, String>],
) -> Result<Option<PoolFacts>, Trouble> {
    if spec.backend != BackendKind::Zfs {
        return Ok(None);
    }
    let found: Vec<_> =
        devices.iter().map(|dev| dev.as_ref().ok().and_then(|dev| machine.by_dev(*dev))).collect();
    let sectors: Vec<_> =
        found.iter().map(|device| partition::sectors(host, &device.as_ref()?.kname)).collect();
    let whole: Vec<_> = found.iter().map(|device| device.and_then(whole_disk::size_of)).collect();
    let sizes = found.iter().zip(&sectors).zip(&whole).filter_map(|((device, sectors), whole)| {
        Some(match whole {
            Some(disk) => whole_disk::usable(*disk, sectors.as_ref()?.0),
            None => device.as_ref()?.size,
        })
    });
    let size = sizes.min().unwrap_or_default();
    let remains = found.iter().zip(&sectors).zip(&whole).map(|((device, sectors), whole)| {
        let slot = whole.and_then(|disk| whole_disk::slot(disk, sectors.as_ref()?.0, size));
        let place = device.zip(slot);
        place.map_or(Content::Empty, |(device, slot)| {
            inventory::content_at(host, &device.path, slot.offset(), slot.size().0)
        })
    });
    let remains = remains.collect();
    let conflict = backend::of(spec.backend).name_conflict(host, spec);
    Ok(Some(PoolFacts {
        conflict: conflict.map_err(unchanged("the pools cannot be read"))?,
        boot: BootPool::of(host).map_err(unchanged("what a boot starts cannot be read"))?,
        size,
        sectors,
        whole,
        remains,
    }))
}

/// Is the device a whole disk that gets a partition?
pub(super) fn is_parted(facts: &Facts, index: usize) -> bool {
    facts.pool.as_ref().and_then(|pool| pool.whole.get(index)).is_some_and(Option::is_some)
}

/// The place of that partition.
pub(super) fn slot(facts: &Facts, index: usize) -> Option<Slot> {
    let pool = facts.pool.as_ref()?;
    let disk = pool.whole.get(index).copied().flatten()?;
    let (sector, _) = pool.sectors.get(index).copied().flatten()?;
    whole_disk::slot(disk, sector, pool.size)
}

/// What is left of something older there.
pub(super) fn remains(facts: &Facts, index: usize) -> &Content {
    facts.pool.as_ref().and_then(|pool| pool.remains.get(index)).unwrap_or(&Content::Empty)
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
    let paths = members.iter().map(|member| whole_disk::stable(&member.identity)).collect();
    let sizes: Vec<_> = members.iter().map(|member| member.identity.size).collect();
    Some(PoolSpec { ashift, uneven: zfs::are_uneven(&sizes), paths })
}
