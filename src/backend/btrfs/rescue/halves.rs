//! Halves that were each written to alone, seen as they come: without a process, and before the kernel mounts them together. It takes the
//! one of the higher transaction for the newest state and the other for a member that lags, whatever each of them holds.

use std::path::{Path, PathBuf};

use super::{super::replace::FILLING, Member, best_of, relate::have_parted, supers, survivor};
use crate::{
    backend::{BackendError, blocks, rescue::Survivor},
    host::{Host, files::Doing as _},
    model::{Bytes, observed::Claim},
};

/// How often halves must be seen to have parted where one of them is written to: a commit may come between two looks.
const LOOKS: usize = 3;

/// The half of the same filesystem that was written to without `device`, which itself was written to without that one; nothing where there
/// is none. What the kernel has mounted stays with it: systemd unmounts what it takes the device away from.
///
/// # Errors
/// The device, or what there is of devices, cannot be read.
pub(in crate::backend::btrfs) fn other_half(
    host: &Host,
    device: &Path,
) -> Result<Option<PathBuf>, BackendError> {
    let copies = supers::read(&host.path(device)).doing("reading the superblocks of", device)?;
    let Some((best, ..)) = best_of(copies) else { return Ok(None) };
    if best.own.num_devices < 2 || best.own.devid == FILLING {
        return Ok(None);
    }
    let uuid = best.own.fsid;
    let own = blocks::node_of(&blocks::kernel_name(host, device));
    let (counted, _) = super::mounted(host, &uuid)?;
    if counted.contains(&own) {
        return Ok(None);
    }
    let mut found = None;
    for _ in 0..if counted.is_empty() { 1 } else { LOOKS } {
        let devices = blocks::block_devices(host, |_| false)?;
        let halves = halves(host, &uuid, devices);
        let Some(one) = halves.iter().find(|half| half.path == own) else { return Ok(None) };
        found = halves.iter().find(|other| apart(host, one, other, &halves)).map(|half| half.path.clone());
        if found.is_none() {
            break;
        }
    }
    Ok(found)
}

/// Has each of these members of one filesystem say without which of the others it was written to.
pub(in crate::backend::btrfs) fn tell_apart(host: &Host, uuid: &str, claims: &mut [Claim]) {
    if claims.len() < 2 {
        return;
    }
    let halves = halves(host, uuid, claims.iter().map(|claim| (claim.path.clone(), Bytes(0))));
    for claim in claims {
        let Some(one) = halves.iter().find(|half| half.path == claim.path) else { continue };
        let without = halves.iter().filter(|other| apart(host, one, other, &halves));
        claim.without = without.map(|other| other.uuid.clone()).collect();
    }
}

/// The members of one filesystem among these devices. One that cannot be read is none that the kernel could mount.
fn halves(host: &Host, uuid: &str, devices: impl IntoIterator<Item = (PathBuf, Bytes)>) -> Vec<Survivor> {
    let member = |(path, size): (PathBuf, Bytes)| {
        let (best, faults, opens) = best_of(supers::read(&host.path(&path)).ok()?)?;
        let is_half = best.own.fsid == uuid && best.own.devid != FILLING;
        is_half.then(|| survivor(Member { path, size, best, faults, opens }))
    };
    devices.into_iter().filter_map(member).collect()
}

/// Was each of these two written to without the other? Two that say that they are the same member are no halves.
fn apart(host: &Host, one: &Survivor, other: &Survivor, all: &[Survivor]) -> bool {
    let (older, newer) = if one.generation > other.generation { (other, one) } else { (one, other) };
    one.devid != other.devid && have_parted(host, older, newer, all)
}
