//! What a btrfs mirror is, seen without a process: mountinfo, sysfs and each member's superblock.

use std::{collections::BTreeMap, path::Path, sync::Arc, thread, time::Duration};

use super::{
    BackendError,
    replace::FILLING,
    rescue::halves,
    space,
    superblock::Superblock,
    sysfs::{DevInfo, SysFs},
};
use crate::{
    backend::blocks,
    host::{
        Host,
        mountinfo::{self, Mount},
    },
    model::{
        Bytes,
        mirror::{ChunkKind, MemberState, MirrorState},
        observed::Claim,
    },
};

type Seen = blocks::Seen<Superblock>;

/// What is mounted, and of which devices a filesystem is made, are two looks, and an exchange may end between them.
const AGAIN: u32 = 3;
const APART: Duration = Duration::from_millis(50);

/// Observes the filesystem with this UUID, which should be mounted at `mountpoint`.
pub(super) fn observe(host: &Host, uuid: &str, mountpoint: &Path) -> Result<MirrorState, BackendError> {
    for _ in 0..AGAIN {
        match observed(host, uuid, mountpoint) {
            Err(BackendError::UnclearMount { .. }) => thread::sleep(APART),
            told => return told,
        }
    }
    observed(host, uuid, mountpoint)
}

fn observed(host: &Host, uuid: &str, mountpoint: &Path) -> Result<MirrorState, BackendError> {
    let mounts = mountinfo::read(host)?;
    let mut state = MirrorState::unseen(uuid, mountpoint);
    let found = SysFs::find(host, uuid)?;
    let devices = found.as_ref().map(SysFs::devices).transpose()?.unwrap_or_default();
    see_mounts(host, &mut state, &mounts, &devices, mountpoint)?;
    match found {
        Some(dir) => {
            state.profiles = dir.profiles()?;
            state.exclusive_operation = dir.exclusive_operation()?;
            let seen = devices.iter().map(|name| look_at(host, name)).collect::<Result<Vec<_>, _>>()?;
            state.members = mounted_members(uuid, dir.members()?, &seen);
        }
        None => scan(host, &mut state)?,
    }
    let present = state.members.iter().filter(|m| !m.missing && !m.replace_target);
    state.raw_size = Bytes(present.filter_map(|m| m.size).map(|size| size.0).sum());
    let stored = state.profiles.iter().filter(|p| p.kind != ChunkKind::System);
    state.used = Bytes(stored.map(|p| p.used.0).sum());
    state.free = space::free_for_data(&state);
    Ok(state)
}

fn see_mounts(
    host: &Host,
    state: &mut MirrorState,
    mounts: &[Mount],
    devices: &[String],
    mountpoint: &Path,
) -> Result<(), BackendError> {
    // Mounts stack: the last one at a place is the one that paths lead to.
    let here = mountinfo::place_of_topmost(mounts, mountpoint);
    let place = here.and_then(|index| mounts.get(index));
    let mut is_ours = false;
    for (index, name) in &host.once("btrfs", || Ok::<_, BackendError>(BtrfsMounts::of(host, mounts)))?.0 {
        let Some(mount) = mounts.get(*index).filter(|_| devices.contains(name)) else { continue };
        if Some(*index) == here {
            is_ours = true;
        } else if place.is_none_or(|place| place.mountpoint != mount.mountpoint) {
            state.also_mounted.push(mount.mountpoint.clone());
        }
    }
    let Some(mount) = place else { return Ok(()) };
    if !is_ours {
        if mount.fstype == "btrfs" && !owned_by_another(host, &state.uuid, &mount.source)? {
            return Err(BackendError::UnclearMount {
                mountpoint: mountpoint.to_owned(),
                source_device: mount.source.clone(),
            });
        }
        state.instead = Some(format!("{} from {}", mount.fstype, mount.source.display()));
        return Ok(());
    }
    blocks::see_mount(state, mount);
    state.degraded_option = mount.super_options.iter().any(|option| option == "degraded");
    Ok(())
}

/// The mounts of btrfs: each one's place in the list, and the kernel's name of the device that it shows.
struct BtrfsMounts(Vec<(usize, String)>);

impl BtrfsMounts {
    fn of(host: &Host, mounts: &[Mount]) -> Self {
        let btrfs = mounts.iter().enumerate().filter(|(_, mount)| mount.fstype == "btrfs");
        Self(btrfs.map(|(index, mount)| (index, blocks::kernel_name(host, &mount.source))).collect())
    }
}

fn owned_by_another(host: &Host, uuid: &str, source: &Path) -> Result<bool, BackendError> {
    Ok(owner_of(host, source)?.is_some_and(|owner| owner != uuid))
}

/// The mounted filesystem that a device is a member of.
fn owner_of(host: &Host, device: &Path) -> Result<Option<String>, BackendError> {
    let name = blocks::kernel_name(host, device);
    for uuid in blocks::names(host, "/sys/fs/btrfs")? {
        if uuid == "features" || uuid == "debug" {
            continue;
        }
        if let Some(dir) = SysFs::find(host, &uuid)? {
            if dir.devices()?.contains(&name) {
                return Ok(Some(uuid));
            }
        }
    }
    Ok(None)
}

/// The UUID of the filesystem that is mounted at exactly this place.
pub(super) fn uuid_at(host: &Host, mountpoint: &Path) -> Result<Option<String>, BackendError> {
    let mounts = mountinfo::read(host)?;
    match mountinfo::topmost_at(&mounts, mountpoint).filter(|mount| mount.fstype == "btrfs") {
        Some(mount) => owner_of(host, &mount.source),
        None => Ok(None),
    }
}

fn look_at(host: &Host, name: &str) -> Result<Arc<Seen>, BackendError> {
    blocks::look_at(host, name, Superblock::read)
}

/// Joins what the kernel counts as members with the devices that are really there.
fn mounted_members(uuid: &str, infos: Vec<DevInfo>, seen: &[Arc<Seen>]) -> Vec<MemberState> {
    let of =
        |s: &Seen| s.superblock.as_ref().ok().and_then(Option::as_ref).filter(|sb| sb.fsid == uuid).cloned();
    let strangers: Vec<&Seen> = seen.iter().map(Arc::as_ref).filter(|s| of(s).is_none()).collect();
    let unmatched: Vec<u64> = infos
        .iter()
        .filter(|i| !i.missing && !seen.iter().any(|s| of(s).is_some_and(|sb| sb.devid == i.devid)))
        .map(|i| i.devid)
        .collect();
    let join = |info: DevInfo| {
        let mut member = MemberState {
            devid: info.devid,
            uuid: None,
            path: None,
            size: None,
            missing: info.missing,
            pulled: false,
            missing_because: info.missing.then(|| "the kernel says so".to_owned()),
            damaged: None,
            errors: info.errors,
            unallocated: None,
            generation: None,
            writeable: Some(info.writeable),
            replace_target: info.replace_target,
            bad_sectors: 0,
        };
        let own = seen.iter().find_map(|s| of(s).filter(|sb| sb.devid == info.devid).map(|sb| (s, sb)));
        if let Some((device, sb)) = own {
            member.path = Some(device.path.clone());
            member.size = device.size;
            member.unallocated = Some(Bytes(sb.total - sb.allocated));
            member.generation = Some(sb.generation);
            member.damaged = sb.damage();
            member.uuid = Some(sb.uuid);
        } else if info.replace_target {
            // Its superblock is written at the end of the replace.
        } else if !info.missing {
            (member.missing, member.pulled) = (true, true);
            let mut reason = "none of the filesystem's devices answers as this member".to_owned();
            if let ([device], [_]) = (strangers.as_slice(), unmatched.as_slice()) {
                member.path = Some(device.path.clone());
                member.size = device.size.filter(|size| size.0 > 0);
                reason = match &device.superblock {
                    Err(e) => e.to_string(),
                    Ok(Some(_)) => "its superblock is of another filesystem".to_owned(),
                    Ok(None) => "its superblock is gone".to_owned(),
                };
            }
            member.missing_because = Some(reason);
        }
        member
    };
    infos.into_iter().map(join).collect()
}

/// The block devices that may hold a member, and what is on them.
fn candidates(host: &Host) -> Result<Vec<Arc<Seen>>, BackendError> {
    blocks::candidate_names(host, |_| false)?.iter().map(|(name, _)| look_at(host, name)).collect()
}

/// Every device with a superblock, by its filesystem's UUID. A device that cannot be read is no clone that could be mounted.
pub(super) fn claims(host: &Host) -> Result<BTreeMap<String, Vec<Claim>>, BackendError> {
    let mut claims: BTreeMap<String, Vec<Claim>> = BTreeMap::new();
    for seen in candidates(host)? {
        if let Ok(Some(sb)) = &seen.superblock {
            if sb.finished {
                claims.entry(sb.fsid.clone()).or_default().push(Claim {
                    path: seen.path.clone(),
                    devid: sb.devid,
                    uuid: sb.uuid.clone(),
                    generation: sb.generation,
                    filling: false,
                    without: Vec::new(),
                });
            }
        }
    }
    for (uuid, of_one) in &mut claims {
        of_one.sort_by(|a, b| (a.devid, &a.path).cmp(&(b.devid, &b.path)));
        // What is mounted is written to, and the kernel has taken its members for one another's.
        if SysFs::find(host, uuid)?.is_none() {
            halves::tell_apart(host, uuid, of_one);
        }
    }
    Ok(claims)
}

/// Looks for the members of a filesystem that is not mounted on every block device.
fn scan(host: &Host, state: &mut MirrorState) -> Result<(), BackendError> {
    let mut expected = 0;
    for seen in candidates(host)? {
        match &seen.superblock {
            Ok(Some(sb)) if sb.fsid == state.uuid && sb.finished => {
                expected = expected.max(sb.num_devices);
                state.members.push(MemberState {
                    devid: sb.devid,
                    uuid: Some(sb.uuid.clone()),
                    path: Some(seen.path.clone()),
                    size: seen.size,
                    missing: false,
                    pulled: false,
                    missing_because: None,
                    damaged: sb.damage(),
                    errors: None,
                    unallocated: Some(Bytes(sb.total - sb.allocated)),
                    generation: Some(sb.generation),
                    writeable: None,
                    replace_target: sb.devid == FILLING,
                    bad_sectors: 0,
                });
            }
            Ok(_) => {}
            Err(e) => state.unread.push(format!("{}: {e}", seen.path.display())),
        }
    }
    state.members.sort_by_key(|m| m.devid);
    tracing::debug!("{} of {expected} members found by their superblocks", state.members.len());
    Ok(())
}
