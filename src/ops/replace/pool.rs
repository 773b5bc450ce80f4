//! The device that comes into a pool of ZFS: whether it fits is foretold from what the pool's own devices say, and a whole disk gets a
//! partition first.

use super::{Facts, Request};
use crate::{
    backend::zfs::{
        self,
        fit::{self, Unfit},
    },
    config::Mirror,
    host::{Host, inventory, partition::Slot, random_uuid, zfs::Vdev},
    model::{BackendKind, Content, Device, Identity},
    ops::{Blocker, Trouble, trouble::unchanged, whole_disk},
};

/// What the machine says.
#[derive(Debug, Clone, Default)]
pub struct PoolFacts {
    /// The vdev at the top, as the pool's devices describe it; nothing where none does.
    pub top: Option<Vdev>,
    /// A new UUID for the partition that a whole disk gets.
    pub uuid: String,
    /// Where on the disk it may be, in the order in which they are tried, each with what is left there of something older.
    pub places: Vec<(Slot, Content)>,
}

pub(super) fn gather(
    host: &Host,
    mirror: &Mirror,
    new: Option<&Device>,
    sector: Option<u64>,
) -> Result<Option<PoolFacts>, Trouble> {
    if mirror.backend != BackendKind::Zfs {
        return Ok(None);
    }
    let top = zfs::top(host, &mirror.uuid).map_err(unchanged("the pool's devices cannot be read"))?;
    let uuid = random_uuid().map_err(unchanged("no random numbers can be had"))?;
    let slots = new.zip(sector).map(|(new, sector)| slots(mirror, new, sector)).unwrap_or_default();
    let remains = |slot: Slot| {
        let left = new.map(|new| inventory::content_at(host, &new.path, slot.offset(), slot.size().0));
        (slot, left.unwrap_or(Content::Empty))
    };
    let places = slots.into_iter().map(remains).collect();
    Ok(Some(PoolFacts { top, uuid, places }))
}

/// Where on a whole disk the partition may be: as large as the others are; else as much as there is, of which ZFS may take less than the
/// others have.
fn slots(mirror: &Mirror, disk: &Device, sector: u64) -> Vec<Slot> {
    let Some(size) = whole_disk::size_of(disk) else { return Vec::new() };
    let room = whole_disk::most(size, sector);
    let like = mirror.member.iter().map(|member| member.size).min().filter(|like| *like < room);
    like.into_iter().chain([room]).filter_map(|wanted| whole_disk::slot(size, sector, wanted)).collect()
}

/// What comes into the mirror.
pub(super) struct New<'a> {
    /// The device that was named.
    pub(super) device: &'a Device,
    /// What becomes the member: that device, or a partition that is made on it.
    pub(super) identity: Identity,
    /// That partition: its place, its UUID, and what is left there of something older.
    pub(super) partition: Option<(Slot, &'a str, &'a Content)>,
}

impl<'a> New<'a> {
    pub(super) fn of(device: &'a Device) -> Self {
        Self { device, identity: device.identity(), partition: None }
    }
}

/// The device, or the partition on it, that ZFS will take.
pub(super) fn choose<'a>(
    request: &Request,
    facts: &Facts,
    pool: &'a PoolFacts,
    device: &'a Device,
    blockers: &mut Vec<Blocker>,
) -> Option<New<'a>> {
    let shown = device.path.display();
    let mut block = |says: String, clears: &str| blockers.push(Blocker::new(says, clears));
    let (Some(top), Some(sector)) = (&pool.top, facts.sector) else {
        block(
            format!(
                "it cannot be told whether {shown} fits into the pool: {}",
                match &pool.top {
                    None => "none of its members describes it",
                    Some(_) => "the kernel does not say how large the device's sectors are",
                }
            ),
            "see `raidguard devices` for those that are there",
        );
        return None;
    };
    let whole = whole_disk::size_of(device).is_some();
    let parts = pool.places.iter().map(|(slot, remains)| {
        let identity = whole_disk::identity(device, slot, &pool.uuid);
        New { device, identity, partition: Some((*slot, &pool.uuid, remains)) }
    });
    let candidates: Vec<New<'a>> = if whole { parts.collect() } else { vec![New::of(device)] };
    let mut unfit = None;
    for new in candidates {
        match fit::judge(top, new.identity.size, sector) {
            Some(Ok(())) => {
                if let Some((_, _, remains)) = new.partition {
                    whole_disk::left(request.wipe, device, remains, blockers);
                }
                return Some(new);
            }
            Some(Err(why)) => unfit = Some(why),
            None => {
                block(
                    format!(
                        "it cannot be told whether {shown} fits: the pool's members do not say what is needed"
                    ),
                    "see with zdb -l what they say",
                );
                return None;
            }
        }
    }
    match unfit {
        Some(Unfit::Sectors { pool, device }) => block(
            format!(
                "{shown} is written in pieces of {device} bytes, and the pool in pieces of {pool}: ZFS does not take it, and what a pool is \
                 written in cannot be changed"
            ),
            &format!("name a device with sectors of at most {pool} bytes"),
        ),
        Some(Unfit::Small { needed, usable }) => block(
            format!(
                "{shown} has room for {usable} of data ({} bytes), and {needed} ({} bytes) are needed: as much as the others hold",
                usable.0, needed.0
            ),
            "name a larger device",
        ),
        None => block(format!("{shown} has no room for a partition"), "name a larger device"),
    }
    None
}

#[cfg(test)]
pub(in crate::ops) mod tests;
