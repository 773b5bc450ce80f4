//! Room for data, for new chunks, and for metadata.

use crate::{
    health::case::{Case, name_of},
    model::{
        BackendKind, Bytes, Severity, Source,
        mirror::{ChunkKind, MemberState, MirrorState, ProfileUse},
    },
};

/// Below this share of the capacity, in percent, room is low; below that, the node is about to end.
const LOW: u64 = 10;
const LAST: u64 = 2;
/// A chunk is at most this large. With less room on each member newer kernels do not begin to exchange one (see `too_tight_to_exchange` of
/// btrfs).
const CHUNK: Bytes = Bytes::gib(1);
/// From this share of its chunks, in percent, metadata is nearly full.
const METADATA_FULL: u64 = 80;
/// How full a pool of ZFS may be, in percent: from 80 on it slows down, at about 97 nothing more is taken (`spa_slop_shift`, zfs(4)).
const FULL: [(u128, Severity); 3] =
    [(95, Severity::Critical), (90, Severity::Warning), (80, Severity::Warning)];

pub(in crate::health) fn judge(case: &mut Case<'_>) {
    let Some(state) = case.observed.storage.get().filter(|state| state.mounted) else { return };
    if case.declared.backend == BackendKind::Zfs {
        let full = pool(case, state);
        return free(case, state, full);
    }
    free(case, state, false);
    let tight = unallocated(case, state);
    metadata(case, state, tight);
}

/// How full the pool is, which tells more than what is free: a part of it is kept back, and what is written late lies scattered. Whether
/// that was to be said.
fn pool(case: &mut Case<'_>, state: &MirrorState) -> bool {
    let name = &case.declared.name;
    let Some(pool) = state.zfs.as_ref().filter(|pool| !pool.is_suspended()) else { return false };
    let Some(space) = &pool.space else {
        let says = format!("how full the pool of mirror {name} is could not be read");
        case.unread(Source::Storage, "space", says, Vec::new());
        return false;
    };
    let percent = u128::from(space.allocated.0) * 100 / u128::from(space.size.0.max(1));
    let Some((limit, severity)) = FULL.into_iter().find(|(limit, _)| percent >= *limit) else { return false };
    let says = format!("the pool of mirror {name} is {percent} % full");
    let evidence = vec![format!("{} used of {}, every copy counted", space.allocated, space.size)];
    case.add("SPC-POOL", severity, format!("{limit} %"), says, evidence);
    true
}

/// `said`: that it is low, though not how close to its end.
fn free(case: &mut Case<'_>, state: &MirrorState, said: bool) {
    let Some(free) = state.free else { return };
    let capacity = free.0.saturating_add(state.used.0).max(1);
    let percent = u64::try_from(u128::from(free.0) * 100 / u128::from(capacity)).unwrap_or(100);
    if percent >= if said { LAST } else { LOW } {
        return;
    }
    let severity = if percent < LAST { Severity::Critical } else { Severity::Warning };
    let says = format!("mirror {} has room for {free} more", case.declared.name);
    case.add("SPC-FREE", severity, "", says, vec![format!("{} used, {percent} % free", state.used)]);
}

/// Whether too few members have room for another chunk.
fn unallocated(case: &mut Case<'_>, state: &MirrorState) -> bool {
    let needed = state.profiles.iter().filter_map(ProfileUse::copies).map(|c| c.devices).max().unwrap_or(2);
    let members = || state.members.iter().filter(|m| !m.missing && !m.replace_target);
    let floor = |size: Option<Bytes>| size.map_or(CHUNK, |size| CHUNK.min(Bytes(size.0 / 20)));
    // With a member away nothing is as it should be, and that is said already.
    if members().count() < case.declared.member.len() {
        return false;
    }
    let roomy = members().filter(|m| m.unallocated.is_none_or(|room| room >= floor(m.size))).count() as u64;
    if roomy >= needed {
        return false;
    }
    let show = |m: &MemberState| m.unallocated.map(|room| format!("{}: {room} unallocated", name_of(m)));
    let evidence = members().filter_map(show).collect();
    let says = format!("mirror {} has hardly any room for a new chunk", case.declared.name);
    case.add("SPC-UNALLOCATED", Severity::Warning, "", says, evidence);
    true
}

fn metadata(case: &mut Case<'_>, state: &MirrorState, tight: bool) {
    let chunks = || state.profiles.iter().filter(|p| p.kind == ChunkKind::Metadata);
    let sum = |of: fn(&ProfileUse) -> u64| chunks().map(of).fold(0, u64::saturating_add);
    let (total, used) = (sum(|p| p.total.0), sum(|p| p.used.0));
    if tight && total > 0 && u128::from(used) * 100 >= u128::from(total) * u128::from(METADATA_FULL) {
        let says = format!("metadata of mirror {} is nearly full, and no new chunk fits", case.declared.name);
        let evidence = vec![format!("{} used of {}", Bytes(used), Bytes(total))];
        case.add("SPC-METADATA", Severity::Critical, "", says, evidence);
    }
}
