//! How much more would fit, and whether there is room to balance metadata.

use crate::model::{
    Bytes, Level,
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

/// Why `btrfs replace` may not begin. The kernel sets each chunk read-only while it copies it, and for the only chunk of the system, which
/// is always there, it wants room for more: since Linux 6.7 that of a data chunk, which is 1 GiB, or a tenth of all members where that is
/// less (kernel: `inc_block_group_ro` in `fs/btrfs/block-group.c`, `calc_available_free_space` in `fs/btrfs/space-info.c`; seen on 6.18;
/// btrfs-progs, issue 870).
pub(super) fn too_tight_to_exchange(state: &MirrorState, level: Level) -> Option<String> {
    let there = || state.members.iter().filter(|m| !m.missing && !m.pulled && !m.replace_target);
    let sum =
        |values: Option<Vec<Bytes>>| values.map(|v| v.iter().fold(0, |sum: u64, b| sum.saturating_add(b.0)));
    let room = sum(there().map(|m| m.unallocated).collect())?;
    let all = sum(there().map(|m| m.size).collect())?;
    let copies = level.copies().min(there().count()).max(1) as u64;
    let needed = Bytes((all / 10).min(Bytes::gib(1).0));
    let room = Bytes(room / copies);
    (room <= needed).then(|| {
        format!(
            "only {room} are in no chunk yet, and Linux 6.7 or newer may not begin an exchange where that is not more than {needed} (`No \
             space left on device`): nothing is lost then; `raidguard balance` first gives half-empty chunks back"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::samples;

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
    /// Each was tried on Linux 6.18 with two loop devices of this size (MiB) and this much in no chunk (bytes).
    #[test]
    fn where_the_kernel_refuses_an_exchange_it_is_foretold() {
        for (size, room, begins) in [
            (1024, 414_450_000, true),
            (1024, 22_020_096, false),
            (1500, 501_219_000, true),
            (2048, 1_048_576, false),
            (4096, 971_440_128, true),
            (4096, 99_024_896, false),
            (4400, 184_549_376, false),
            (10240, 1_870_660_000, true),
            (10240, 796_918_000, false),
        ] {
            let mut state = samples::healthy().1.storage.get().unwrap().clone();
            for member in &mut state.members {
                (member.size, member.unallocated) = (Some(Bytes::mib(size)), Some(Bytes(room)));
            }
            let told = too_tight_to_exchange(&state, Level::Raid1);
            assert_eq!(told.is_none(), begins, "{size} {room}: {told:?}");
            state.members[1].unallocated = None;
            assert_eq!(too_tight_to_exchange(&state, Level::Raid1), None);
            state.members[1].missing = true;
            let alone = too_tight_to_exchange(&state, Level::Raid1);
            assert_eq!(alone.is_none(), begins, "what is left alone: {size} {room}: {alone:?}");
        }
    }
}
