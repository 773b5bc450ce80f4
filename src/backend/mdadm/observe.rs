//! What a mirror of md is, seen without a process: mountinfo, sysfs and each device's superblock.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    superblock::Superblock,
    sysfs::{self, Array, Device},
};
use crate::{
    backend::{BackendError, blocks},
    host::{
        Host,
        mountinfo::{self, Mount},
    },
    model::{
        Bytes,
        mirror::{ErrorCounts, MemberState, MirrorState},
        observed::Claim,
    },
};

pub(super) type Seen = blocks::Seen<Superblock>;

/// The number by which a member is known: its place in the array, from 1. 0 is a device that is being made a member.
pub(super) fn number_of(slot: u64) -> u64 {
    slot.saturating_add(1)
}

/// Observes the array with this UUID, whose filesystem should be mounted at `mountpoint`.
pub(super) fn observe(host: &Host, uuid: &str, mountpoint: &Path) -> Result<MirrorState, BackendError> {
    let mounts = mountinfo::read(host)?;
    let mut state = MirrorState::unseen(uuid, mountpoint);
    match Array::find(host, uuid)? {
        Some(array) if array.state.runs() => {
            see_mounts(host, &mut state, &mounts, Some(&array), mountpoint);
            state.members = members(host, uuid, &array)?;
            state.exclusive_operation = work(&array).map(str::to_owned);
            state.read_only |= matches!(array.state.state.as_str(), "readonly" | "suspended");
            state.md = Some(array.state);
        }
        found => {
            see_mounts(host, &mut state, &mounts, None, mountpoint);
            scan(host, &mut state)?;
            state.md = found.map(|array| array.state);
        }
    }
    let present = state.members.iter().filter(|m| !m.missing && !m.replace_target);
    state.raw_size = Bytes(present.filter_map(|m| m.size).map(|size| size.0).sum());
    if state.mounted {
        blocks::see_space(&mut state, blocks::space(&host.path(mountpoint)));
    }
    Ok(state)
}

/// The kernel's work that stands in the way of an exchange. Comparing what the members hold changes nothing on them. And once a member has
/// failed the kernel says `recover`, and that nothing of it is done, until it has looked for another one to be filled, which it does when
/// what was being written has come to an end (`md_error`, `md_sync_action` and `md_start_sync` in drivers/md/md.c): where there is none,
/// that is no work.
fn work(array: &Array) -> Option<&str> {
    let is_filled = |device: &Device| !device.is("faulty") && !device.serves();
    array.state.action.as_deref().filter(|action| match *action {
        "check" => false,
        "recover" => array.devices.iter().any(is_filled),
        _ => true,
    })
}

fn see_mounts(
    host: &Host,
    state: &mut MirrorState,
    mounts: &[Mount],
    array: Option<&Array>,
    mountpoint: &Path,
) {
    let is_ours = |mount: &Mount| {
        let name = || blocks::kernel_name(host, &mount.source);
        array.is_some_and(|array| mount.source.starts_with("/dev") && name() == array.name)
    };
    blocks::see_mounts(state, mounts, mountpoint, is_ours);
}

/// The UUID of the array whose filesystem is mounted at exactly this place.
pub(super) fn uuid_at(host: &Host, mountpoint: &Path) -> Result<Option<String>, BackendError> {
    let mounts = mountinfo::read(host)?;
    let Some(mount) = mountinfo::topmost_at(&mounts, mountpoint) else { return Ok(None) };
    match Array::at(host, &mount.source)? {
        Some(array) => array.uuid(host),
        None => Ok(None),
    }
}

pub(super) fn look_at(host: &Host, name: &str) -> Result<Arc<Seen>, BackendError> {
    blocks::look_at(host, name, Superblock::read)
}

/// The members of an array that runs: each place, with the device that fills it.
fn members(host: &Host, uuid: &str, array: &Array) -> Result<Vec<MemberState>, BackendError> {
    let mut members = Vec::new();
    for slot in 0..array.state.raid_disks {
        let holds = |d: &&Device| d.slot == Some(slot) && !d.is("faulty") && !d.is("replacement");
        members.push(match array.devices.iter().find(holds) {
            Some(device) => member(host, uuid, slot, device)?,
            None => gone(slot, array),
        });
    }
    for device in array.devices.iter().filter(|d| d.is("replacement") && !d.is("faulty")) {
        let Some(slot) = device.slot else { continue };
        members.push(MemberState { devid: 0, replace_target: true, ..member(host, uuid, slot, device)? });
    }
    Ok(members)
}

fn empty(slot: u64) -> MemberState {
    MemberState::unseen(number_of(slot))
}

/// A place that no device fills. One that failed stays beside the array until it is taken out.
fn gone(slot: u64, array: &Array) -> MemberState {
    let mut failed = array.devices.iter().filter(|d| d.is("faulty"));
    let because = match (failed.next(), failed.next()) {
        (None, _) => "the array runs without it".to_owned(),
        (Some(one), None) => format!("the kernel has given {} up as faulty", one.path().display()),
        (Some(_), Some(_)) => "the kernel has given devices up as faulty".to_owned(),
    };
    MemberState { missing: true, missing_because: Some(because), ..empty(slot) }
}

fn member(host: &Host, uuid: &str, slot: u64, device: &Device) -> Result<MemberState, BackendError> {
    let seen = look_at(host, &device.name)?;
    let mut member = MemberState {
        path: Some(seen.path.clone()),
        size: seen.size.filter(|size| size.0 > 0),
        errors: Some(ErrorCounts { read: device.errors, ..ErrorCounts::default() }),
        bad_sectors: device.bad,
        // Being filled, it holds a part of the data.
        replace_target: !device.serves(),
        ..empty(slot)
    };
    let lost = match &seen.superblock {
        Ok(Some(sb)) if sb.array == uuid => {
            member.uuid = Some(sb.uuid.clone());
            member.generation = Some(sb.events);
            None
        }
        Ok(Some(_)) => Some("its superblock is of another array".to_owned()),
        Ok(None) => Some("its superblock is gone".to_owned()),
        Err(e) => Some(e.to_string()),
    };
    if let Some(why) = lost {
        (member.missing, member.pulled, member.missing_because) = (true, true, Some(why));
    }
    Ok(member)
}

/// The devices that may hold a member: nothing but an array lies on them.
pub(super) fn candidates(host: &Host) -> Result<Vec<Arc<Seen>>, BackendError> {
    let names = blocks::candidate_names(host, sysfs::is_array)?;
    names.iter().filter(|(name, _)| !sysfs::is_array(name)).map(|(name, _)| look_at(host, name)).collect()
}

/// Every device at a place of an array, by the array's UUID.
pub(super) fn claims(host: &Host) -> Result<BTreeMap<String, Vec<Claim>>, BackendError> {
    let mut found: BTreeMap<String, Vec<(PathBuf, Superblock)>> = BTreeMap::new();
    for seen in candidates(host)? {
        if let Ok(Some(sb)) = &seen.superblock {
            found.entry(sb.array.clone()).or_default().push((seen.path.clone(), sb.clone()));
        }
    }
    let claims_of = |devices: Vec<(PathBuf, Superblock)>| {
        let mut claims: Vec<Claim> = devices
            .iter()
            .filter_map(|(path, sb)| {
                let without = devices.iter().filter(|(_, other)| sb.shuts_out(other));
                Some(Claim {
                    path: path.clone(),
                    devid: number_of(u64::from(sb.role?)),
                    uuid: sb.uuid.clone(),
                    generation: sb.events,
                    filling: sb.filling,
                    without: without.map(|(_, other)| other.uuid.clone()).collect(),
                })
            })
            .collect();
        claims.sort_by(|a, b| (a.devid, &a.path).cmp(&(b.devid, &b.path)));
        claims
    };
    Ok(found.into_iter().map(|(uuid, devices)| (uuid, claims_of(devices))).collect())
}

/// Looks for the members of an array that does not run on every block device.
fn scan(host: &Host, state: &mut MirrorState) -> Result<(), BackendError> {
    for seen in candidates(host)? {
        match &seen.superblock {
            Ok(Some(sb)) if sb.array == state.uuid => {
                let Some(role) = sb.role else { continue };
                state.members.push(MemberState {
                    uuid: Some(sb.uuid.clone()),
                    path: Some(seen.path.clone()),
                    size: seen.size,
                    generation: Some(sb.events),
                    replace_target: sb.filling,
                    ..empty(u64::from(role))
                });
            }
            Ok(_) => {}
            Err(e) => state.unread.push(format!("{}: {e}", seen.path.display())),
        }
    }
    // Of two that say they are the same, one was away while the other took its place: the newer is the member.
    state.members.sort_by_key(|m| (m.devid, std::cmp::Reverse(m.generation)));
    state.members.dedup_by_key(|m| m.devid);
    Ok(())
}
