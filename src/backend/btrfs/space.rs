//! How much more would fit, and whether there is room to balance metadata.

use crate::model::{
    Bytes,
    mirror::{ChunkKind, MirrorState},
};

/// How much more data fits: what is free in data chunks, and what new chunks could be made of the members' unallocated space.
/// Unknown where a member's unallocated space or the profile is.
pub(super) fn free_for_data(state: &MirrorState) -> Option<Bytes> {
    let data = state.profiles.iter().filter(|p| p.kind == ChunkKind::Data);
    let main = data.clone().max_by_key(|p| p.total)?;
    let copies = main.copies()?;
    let members = state.members.iter().filter(|m| !m.missing && !m.replace_target);
    let unallocated = members.map(|m| m.unallocated.map(|b| b.0)).collect::<Option<Vec<_>>>()?;
    let inside: u64 = data.map(|p| p.total.0.saturating_sub(p.used.0)).sum();
    let new = placeable(&unallocated, copies.devices) * copies.devices / copies.copies.max(1);
    Some(Bytes(inside.saturating_add(new)))
}

/// The largest size that can be stored once on each of `devices` different members that have this much room.
fn placeable(room: &[u64], devices: u64) -> u64 {
    let fits = |size: u64| {
        let sum: u128 = room.iter().map(|r| u128::from(*r.min(&size))).sum();
        sum >= u128::from(size) * u128::from(devices)
    };
    let total: u64 = room.iter().fold(0, |sum, r| sum.saturating_add(*r));
    let (mut low, mut high) = (0, total / devices.max(1));
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if fits(middle) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low
}

/// Why metadata cannot be balanced safely: a member with under 1 GiB or 10 % unallocated can then end in ENOSPC and read-only.
pub(super) fn too_tight_for_metadata(state: &MirrorState) -> Option<String> {
    for member in state.members.iter().filter(|m| !m.replace_target) {
        let name = match &member.path {
            Some(path) => path.display().to_string(),
            None => format!("member {}", member.devid),
        };
        let (Some(room), Some(size), false) = (member.unallocated, member.size, member.missing) else {
            return Some(format!("how much of {name} is unallocated is not known"));
        };
        if room < Bytes::gib(1) || room.0 < size.0 / 10 {
            return Some(format!("{name} has only {room} of {size} unallocated"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_copy_goes_to_another_member() {
        for (room, devices, fits) in [
            (&[10, 10][..], 2, 10),
            (&[10, 4], 2, 4),
            (&[10, 4, 4], 2, 8),
            (&[10, 10, 10], 2, 15),
            (&[10, 10, 10], 3, 10),
            (&[10, 10, 3], 3, 3),
            (&[10, 10, 10, 10], 4, 10),
            (&[10], 2, 0),
            (&[], 2, 0),
            (&[7, 5], 1, 12),
        ] {
            assert_eq!(placeable(room, devices), fits, "{room:?} on {devices}");
        }
        assert_eq!(placeable(&[u64::MAX, u64::MAX], 2), u64::MAX / 2);
    }
}
