//! The members to be: the devices named, or new partitions in what is free of them.

use std::path::PathBuf;

use super::{Facts, Request, pool};
use crate::{
    host::partition::Slot,
    model::{Bytes, Content, Device, Identity},
    ops::{Blocker, refusal, whole_disk},
};

/// Room that a mirror needs for itself beside the data: btrfs's system and metadata chunks, or md's superblock and bitmap and the log of
/// the filesystem on it.
const OVERHEAD: u64 = 512 << 20;

/// A member to be.
pub(super) struct Chosen<'a> {
    /// The disk or partition that was named.
    pub(super) device: &'a Device,
    /// What the mirror will be made of: that device, or a partition that is made on it.
    pub(super) identity: Identity,
    /// What is there now.
    pub(super) content: &'a Content,
    /// The partition to be made.
    pub(super) partition: Option<NewPartition<'a>>,
}

impl Chosen<'_> {
    /// What is erased, and what it holds: the disk where it gets a new table.
    pub(super) fn erased(&self) -> (Identity, String) {
        if self.is_parted_anew() {
            (self.device.identity(), self.device.content.to_string())
        } else {
            (self.identity.clone(), self.content.to_string())
        }
    }

    /// Does the disk, named whole, get a new table with one partition?
    pub(super) fn is_parted_anew(&self) -> bool {
        self.partition.as_ref().is_some_and(|partition| partition.anew)
    }
}

/// A partition to be made.
pub(super) struct NewPartition<'a> {
    pub(super) slot: Slot,
    /// The disk gets its table too.
    pub(super) fresh: bool,
    /// The whole disk was named, and what is on it is erased first.
    pub(super) anew: bool,
    pub(super) uuid: &'a str,
}

/// Judges the devices named and chooses the members.
pub(super) fn choose<'a>(
    request: &Request,
    facts: &'a Facts,
    blockers: &mut Vec<Blocker>,
    warnings: &mut Vec<String>,
) -> Vec<Chosen<'a>> {
    let mut devices: Vec<&Device> = Vec::new();
    let mut chosen = Vec::new();
    for (index, (path, found)) in request.devices.iter().zip(&facts.devices).enumerate() {
        let device = match found {
            Ok(dev) => facts.inventory.by_dev(*dev),
            Err(why) => {
                blockers.push(Blocker::new(why.clone(), "see `raidguard devices` for those that are there"));
                continue;
            }
        };
        let Some(device) = device else {
            blockers.push(Blocker::new(
                format!("{} is not among the devices that lsblk shows", path.display()),
                "see `raidguard devices`",
            ));
            continue;
        };
        devices.push(device);
        let refusals = match request.size {
            None => refusal::judge_device(&facts.inventory, device, &facts.config.mirror, request.wipe),
            Some(size) => refusal::judge_disk(&facts.inventory, device, size),
        };
        blockers.extend(refusals.iter().map(|r| Blocker::new(r.to_string(), r.clears_with())));
        match (request.size, facts.rooms.get(index)) {
            (None, _) if pool::is_parted(facts, index) => {
                whole_disk::left(request.wipe, device, pool::remains(facts, index), blockers);
                chosen.extend(on_whole_disk(facts, device, index));
            }
            (None, _) => chosen.push(Chosen {
                device,
                identity: device.identity(),
                content: &device.content,
                partition: None,
            }),
            // A disk that is refused needs no word about its room.
            (Some(_), _) if !refusals.is_empty() => {}
            (Some(size), room) => chosen.extend(in_free_space(request, facts, device, size, room, blockers)),
        }
    }
    let (refusals, warned) = refusal::judge_set(&facts.inventory, &devices, request.allow_same_disk);
    blockers.extend(refusals.iter().map(|r| Blocker::new(r.to_string(), r.clears_with())));
    warnings.extend(warned);
    let room = chosen.iter().map(|m| m.identity.size.0).min().unwrap_or_default();
    let needed = facts.survey.bytes.saturating_add(OVERHEAD);
    if blockers.is_empty() && room < needed {
        blockers.push(Blocker::new(
            format!(
                "the smallest member would hold {}: {} too little for the node's files ({}) and what {} needs itself",
                Bytes(room),
                Bytes(needed - room),
                Bytes(facts.survey.bytes),
                request.backend
            ),
            "use larger devices",
        ));
    }
    chosen
}

fn in_free_space<'a>(
    request: &Request,
    facts: &'a Facts,
    disk: &'a Device,
    size: Bytes,
    room: Option<&'a Result<crate::host::partition::Room, String>>,
    blockers: &mut Vec<Blocker>,
) -> Option<Chosen<'a>> {
    let mut block = |says: String, clears: &str| blockers.push(Blocker::new(says, clears));
    let room = match room {
        Some(Ok(room)) => room,
        Some(Err(why)) => {
            block(
                format!("the free space of {} cannot be told: {why}", disk.path.display()),
                "name another disk",
            );
            return None;
        }
        None => {
            block(
                format!("the free space of {} was not looked at", disk.path.display()),
                "name another disk",
            );
            return None;
        }
    };
    let Some(slot) = room.slot else {
        block(
            format!("{} has no free space of {size}: {} is the most", disk.path.display(), room.most),
            "name another --size, or another disk; nothing is ever shrunk, moved or deleted",
        );
        return None;
    };
    match &room.remains {
        Content::Empty => {}
        Content::Known(_) if request.wipe => {}
        Content::Known(_) => block(
            format!(
                "in the free space of {} is left of something older: {}",
                disk.path.display(),
                room.remains
            ),
            "give --wipe if nothing of it is needed",
        ),
        Content::Unknown(why) => block(
            format!("what is left in the free space of {} cannot be told: {why}", disk.path.display()),
            "name another disk",
        ),
    }
    let uuid = facts
        .uuids
        .iter()
        .zip(&facts.devices)
        .find(|(_, dev)| **dev == Ok(disk.dev))
        .map(|(uuid, _)| uuid)?;
    Some(Chosen {
        device: disk,
        identity: whole_disk::identity(disk, &slot, uuid),
        content: &room.remains,
        partition: Some(NewPartition { slot, fresh: room.fresh, anew: false, uuid }),
    })
}

/// One partition on all of a disk but what is left free.
fn on_whole_disk<'a>(facts: &'a Facts, disk: &'a Device, index: usize) -> Option<Chosen<'a>> {
    let slot = pool::slot(facts, index)?;
    let uuid = facts.uuids.get(index)?;
    Some(Chosen {
        device: disk,
        identity: whole_disk::identity(disk, &slot, uuid),
        content: pool::remains(facts, index),
        partition: Some(NewPartition { slot, fresh: true, anew: true, uuid }),
    })
}

/// Where the members are.
pub(super) fn paths(members: &[Chosen<'_>]) -> Vec<PathBuf> {
    members.iter().map(|m| m.identity.path.clone()).collect()
}
