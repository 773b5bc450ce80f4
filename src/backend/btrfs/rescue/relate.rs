//! How survivors stand to each other, by what their superblocks remember and their blocks tell.

use std::collections::BTreeSet;

use super::{
    best_of,
    past::{self, Evidence, Side, compare},
    state, supers,
    tree::{Known, Reader},
};
use crate::{
    backend::rescue::{Relation, Survivor},
    host::Host,
};

/// How `one` stands to `newest`; all survivors are asked.
pub(super) fn relate(host: &Host, one: &Survivor, newest: &Survivor, all: &[Survivor]) -> Relation {
    if contradict(one, newest) {
        return Relation::Diverged;
    }
    let evidence = evidence(host, one, newest, all).unwrap_or_default();
    tracing::info!("{} and {}: {evidence:?}", one.path.display(), newest.path.display());
    by_evidence(one, newest, evidence)
}

/// Was each of two survivors written to without the other? That the newer one did not go through the older's state is not enough where it
/// has some of that state's last transaction: then a write did not reach one of them, and both were members all the time.
pub(super) fn have_parted(host: &Host, older: &Survivor, newer: &Survivor, all: &[Survivor]) -> bool {
    let by_blocks = |pair: &Pair| {
        let (older_side, newer_side) = pair.sides();
        past::have_parted(&older_side, older.generation, &newer_side, &pair.peers)
    };
    contradict(older, newer) || Pair::open(host, older, newer, all).is_some_and(|pair| by_blocks(&pair))
}

/// The superblocks of survivors, where they are read; those whose every copy is gone by now are left out.
pub(super) fn known(host: &Host, survivors: &[Survivor]) -> Vec<Known> {
    let read = |survivor: &Survivor| {
        let path = host.path(&survivor.path);
        let (best, ..) = best_of(supers::read(&path).ok()?)?;
        Some((path, best))
    };
    survivors.iter().filter_map(read).collect()
}

/// Two survivors, opened.
struct Pair {
    one: Reader,
    one_root: (u64, u64),
    newest: Reader,
    newest_root: (u64, u64),
    /// The members that are in the state of the second.
    peers: Vec<u64>,
}

impl Pair {
    /// Nothing where one of the two cannot be read.
    fn open(host: &Host, one: &Survivor, newest: &Survivor, all: &[Survivor]) -> Option<Self> {
        let known = known(host, all);
        let of = |survivor: &Survivor| known.iter().find(|(path, _)| *path == host.path(&survivor.path));
        let (one_known, newest_known) = (of(one)?, of(newest)?);
        let is_peer = |known: &&Known| known.0 != one_known.0 && known.1.state() == newest_known.1.state();
        let peers: Vec<Known> = known.iter().filter(is_peer).cloned().collect();
        // Those of one state before those that lag.
        let rest = known.iter().filter(|k| !peers.iter().any(|peer| peer.0 == k.0)).cloned();
        let known: Vec<Known> = peers.iter().cloned().chain(rest).collect();
        let open = |(path, sb): &Known| Reader::open(path, sb, &known).ok();
        Some(Self {
            one: open(one_known)?,
            one_root: one_known.1.state(),
            newest: open(newest_known)?,
            newest_root: newest_known.1.state(),
            peers: peers.iter().map(|(_, sb)| sb.own.devid).collect(),
        })
    }

    fn sides(&self) -> (Side<'_>, Side<'_>) {
        (
            Side { reader: &self.one, root: self.one_root },
            Side { reader: &self.newest, root: self.newest_root },
        )
    }
}

/// What the blocks of `one` tell beside those of the members that are in the state of `newest`; nothing where one of the two cannot be
/// read.
fn evidence(host: &Host, one: &Survivor, newest: &Survivor, all: &[Survivor]) -> Option<Evidence> {
    let pair = Pair::open(host, one, newest, all)?;
    let ((one_side, newest_side), peers) = (pair.sides(), &pair.peers);
    let mut evidence = compare(&one_side, one.generation, &newest_side, peers);
    if evidence.is_silent() && pair.one_root == pair.newest_root {
        // After a degraded mount the last of it may lie on one of them only.
        let is_one = |side| state::is_one(side, &one_side, &newest_side, peers);
        evidence.same = u64::from(is_one(&one_side) || is_one(&newest_side));
    }
    let others: BTreeSet<u64> = peers.iter().copied().collect();
    let bound = |reader: &Reader| reader.map().is_some_and(|map| !map.allows_apart(pair.one.own(), &others));
    evidence.bound = bound(&pair.one) && bound(&pair.newest);
    Some(evidence)
}

/// How `one` stands to `other`, where numbers and places do not speak for two pasts.
pub(super) fn by_evidence(one: &Survivor, other: &Survivor, evidence: Evidence) -> Relation {
    match (evidence, other.generation.saturating_sub(one.generation)) {
        (Evidence { contrary: 1.., .. }, _) => Relation::Diverged,
        (Evidence { same: 0, bound: false, .. }, _) => Relation::Unclear,
        (_, 0) if one.history.log == other.history.log => Relation::Same,
        (_, 0) => Relation::OtherLog,
        (_, behind) => Relation::Behind(behind),
    }
}

/// Do two survivors remember a transaction of one number at two places? Then each was written without the other. That they do not says
/// little: halves that were mounted alone begin alike.
pub(super) fn contradict(one: &Survivor, other: &Survivor) -> bool {
    let theirs = |number: u64| other.history.commits.iter().find(|(theirs, _)| *theirs == number);
    one.history
        .commits
        .iter()
        .any(|(number, place)| theirs(*number).is_some_and(|(_, theirs)| theirs != place))
}
