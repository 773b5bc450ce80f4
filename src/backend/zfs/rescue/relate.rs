//! How two devices of one pool stand to each other, by their labels: two that were each written to without the other are imported together
//! without a word, and what the one of the lower transaction group has alone is gone.
//!
//! What proves what (`module/zfs/vdev_label.c`, `vdev_config_sync` and what it calls; `module/zfs/spa.c`, `spa_sync_rewrite_vdev_config`):
//! - Each transaction group's uberblock goes to every device that can be written of at most three vdevs at the top, so with up to three of
//!   them all have it; a device that missed it was away, or a write to it failed. It stands in the ring's slot of its number.
//! - A half that is imported alone goes on counting where it stood. Two uberblocks of one number that lead to different roots are then of
//!   two pasts; the root's pointer has the checksum of all that was committed.
//! - When a device is gone, the others write so into their descriptions, with the next transaction group; when it comes back, all do.
//! - Of a raidz in which two sets that suffice always have a device in common nobody can have written to one without the other.

use crate::{
    backend::rescue::Relation,
    host::zfs::{Label, Labels, Uberblock, Vdev},
};

/// With more vdevs at the top than this, an uberblock is not written to all (`SPA_SYNC_MIN_VDEVS`).
const TO_ALL: u64 = 3;

/// What a device's description says of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// It belongs to the pool.
    In,
    /// It is not written to.
    Out,
    /// There is none of this number.
    Gone,
    /// It belongs to another vdev at the top, of which the description says nothing.
    Elsewhere,
}

/// What there is of one device.
struct Side<'a> {
    label: &'a Label,
    last: &'a Uberblock,
    history: Vec<&'a Uberblock>,
}

impl<'a> Side<'a> {
    fn of(labels: &'a Labels) -> Option<Self> {
        let last = labels.last()?;
        // A device that was added begins with one of number 0.
        let history = labels.history().into_iter().filter(|uberblock| uberblock.txg > 0).collect();
        Some(Self { label: labels.at(last.txg)?, last, history })
    }

    fn sees(&self, other: &Self) -> Seen {
        if self.label.top_guid != other.label.top_guid {
            return Seen::Elsewhere;
        }
        match self.label.tree.as_ref().and_then(|tree| tree.find(other.label.guid)) {
            None => Seen::Gone,
            Some(found) if found.is_out() => Seen::Out,
            Some(_) => Seen::In,
        }
    }

    fn leaves(&self) -> Vec<&Vdev> {
        self.label.tree.as_ref().map(Vdev::leaves).unwrap_or_default()
    }

    /// Is it one of two that hold the same?
    fn is_of_a_pair(&self) -> bool {
        self.label.tree.as_ref().is_some_and(|tree| tree.kind == "mirror") && self.leaves().len() == 2
    }

    fn holds_the_log(&self) -> bool {
        self.label.tree.as_ref().is_some_and(|tree| tree.is_log)
    }
}

/// How `one` stands to `newest`, whose last transaction group is not lower.
pub(super) fn relate(one: &Labels, newest: &Labels) -> Relation {
    let (Some(older), Some(newer)) = (Side::of(one), Side::of(newest)) else { return Relation::Unclear };
    let common = common(&older, &newer);
    if contradict(&older, &newer, common) {
        return Relation::Diverged;
    }
    let behind = Relation::Behind(newer.last.txg.saturating_sub(older.last.txg).max(1));
    let seen = (newer.sees(&older), older.sees(&newer));
    if common == Some(older.last.txg) {
        // One that the pool still counts is read with it: what it lacks ZFS knows, and every block has a checksum.
        return if matches!(seen.0, Seen::Out | Seen::Gone) { behind } else { Relation::Same };
    }
    // It is not told of every transaction group.
    if older.holds_the_log() || newer.holds_the_log() {
        return Relation::Same;
    }
    if is_bound(&older, &newer) {
        return behind;
    }
    if missed(newest, &newer, older.last.txg) {
        return Relation::Diverged;
    }
    let before = older.last.txg < newer.label.txg;
    match seen {
        (Seen::Out | Seen::Gone, Seen::In) => {
            if before {
                behind
            } else {
                Relation::Diverged
            }
        }
        // The newer one came into the pool later, by others.
        (Seen::Out | Seen::Gone, Seen::Gone) if before && !older.leaves().iter().any(|v| v.is_out()) => {
            behind
        }
        (Seen::In | Seen::Out | Seen::Gone, Seen::Out) if older.is_of_a_pair() => Relation::Diverged,
        // Of more than two, one may have been brought up to date by a third.
        _ => Relation::Unclear,
    }
}

/// Was each of these two written to without the other? Which of them is the newer does not matter.
pub(in crate::backend::zfs) fn are_apart(one: &Labels, other: &Labels) -> bool {
    let txg = |labels: &Labels| labels.last().map_or(0, |last| last.txg);
    let (older, newer) = if txg(one) > txg(other) { (other, one) } else { (one, other) };
    relate(older, newer) == Relation::Diverged
}

/// The same commit? One that several machines watch is written anew with other times.
fn is_same(one: &Uberblock, other: &Uberblock) -> bool {
    let watched = one.sequence != 0 || other.sequence != 0;
    one.txg == other.txg && one.root == other.root && (watched || one.timestamp == other.timestamp)
}

/// The last transaction group that both have.
fn common(one: &Side<'_>, other: &Side<'_>) -> Option<u64> {
    let has = |uberblock: &&&Uberblock| other.history.iter().any(|theirs| is_same(uberblock, theirs));
    one.history.iter().filter(has).map(|uberblock| uberblock.txg).max()
}

/// Do both have one of the same number, after the last that they have in common, with different roots? What is before that was put
/// together again.
fn contradict(one: &Side<'_>, other: &Side<'_>, common: Option<u64>) -> bool {
    let since = one.history.iter().filter(|uberblock| common.is_none_or(|common| uberblock.txg > common));
    since.into_iter().any(|uberblock| {
        let mut theirs = other.history.iter().filter(|theirs| theirs.txg == uberblock.txg).peekable();
        theirs.peek().is_some() && theirs.all(|theirs| theirs.root != uberblock.root)
    })
}

/// Do any two sets of devices of the raidz that suffice have one in common?
fn is_bound(one: &Side<'_>, other: &Side<'_>) -> bool {
    let Some(tree) = other.label.tree.as_ref().filter(|tree| tree.kind == "raidz") else { return false };
    let all = tree.children.len() as u64;
    let needed = all.saturating_sub(tree.parity.unwrap_or(1));
    one.label.top_guid == other.label.top_guid && 2 * needed > all
}

/// Did this transaction group never reach a device that has later ones? Its slot then still has what was there before, in each label.
fn missed(labels: &Labels, side: &Side<'_>, txg: u64) -> bool {
    let Some(slots) = labels.slots().filter(|_| side.label.tops.is_some_and(|tops| tops <= TO_ALL)) else {
        return false;
    };
    // The last slots are then used in another way (`MMP_BLOCKS_PER_LABEL`).
    if side.history.iter().any(|uberblock| uberblock.sequence != 0) || side.last.txg <= txg {
        return false;
    }
    let older = |uberblocks: &[Uberblock]| {
        uberblocks.iter().any(|u| u.txg > 0 && u.txg < txg && u.txg % slots == txg % slots)
    };
    labels.places.len() > 1 && labels.places.iter().all(|place| older(&place.uberblocks))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::needless_pass_by_value, reason = "what is written at the place is easier to read")]

    use super::*;
    use crate::host::zfs::{Place, PoolState};

    const ONE: u64 = 18_153_691_538_418_729_421;
    const TWO: u64 = 15_907_726_011_745_772_565;

    fn uberblock(txg: u64, timestamp: u64, root: &str) -> Uberblock {
        let mut bytes = [0; 128];
        for (at, byte) in root.bytes().chain(txg.to_le_bytes()).take(128).enumerate() {
            bytes[at] = byte;
        }
        Uberblock { txg, guid_sum: 1, timestamp, sequence: 0, root: bytes, checkpoint: false }
    }

    /// What `zdb -lu` lists.
    fn recorded(text: &str) -> Vec<Uberblock> {
        let after = |block: &str, word: &str| {
            block.split_once(word).unwrap().1.split_whitespace().next().unwrap().to_owned()
        };
        let one = |block: &str| {
            let number = |word: &str| after(block, word).parse().unwrap();
            uberblock(number("\ttxg = "), number("timestamp = "), &after(block, "cksum="))
        };
        text.split("Uberblock[").skip(1).map(one).collect()
    }

    fn leaf(guid: u64) -> Vdev {
        Vdev { kind: "disk".into(), guid, ..Vdev::default() }
    }

    /// A device of a mirror of these; the description was written in `txg`.
    fn device(guid: u64, txg: u64, children: Vec<Vdev>, uberblocks: Vec<Uberblock>) -> Labels {
        let tree = Vdev { kind: "mirror".into(), guid: 7, ashift: Some(12), children, ..Vdev::default() };
        let label = Label {
            guid,
            state: PoolState::Active,
            pool: Some("lightning".into()),
            pool_guid: Some(9),
            txg,
            top_guid: Some(7),
            tops: Some(1),
            hostid: None,
            hostname: None,
            comment: None,
            tree: Some(tree),
            features: Vec::new(),
        };
        let place = |at| Place { at, label: Ok(Some(label.clone())), uberblocks: uberblocks.clone() };
        Labels { places: [0, 1, 2, 3].map(place).into() }
    }

    fn out(guid: u64) -> Vdev {
        Vdev { absent: true, ..leaf(guid) }
    }

    fn both() -> Vec<Vdev> {
        vec![leaf(1), leaf(2)]
    }

    /// Commits of one past, which is called `past`.
    fn commits(past: &str, numbers: impl IntoIterator<Item = u64>) -> Vec<Uberblock> {
        numbers.into_iter().map(|txg| uberblock(txg, 1000 + txg, past)).collect()
    }

    #[test]
    fn halves_that_parted_in_the_lab() {
        let one = recorded(include_str!("../../../../tests/fixtures/zfs/2.3.9/parted/uberblocks-one.txt"));
        let two = recorded(include_str!("../../../../tests/fixtures/zfs/2.3.9/parted/uberblocks-two.txt"));
        assert_eq!((one.len(), two.len()), (13, 14));
        let first = |children: Vec<Vdev>| device(ONE, 40, children, one.clone());
        let second = |children: Vec<Vdev>| device(TWO, 54, children, two.clone());
        let (a, b) = (first(vec![leaf(ONE), out(TWO)]), second(vec![out(ONE), leaf(TWO)]));
        assert_eq!(relate(&a, &b), Relation::Diverged);
        assert!(are_apart(&a, &b) && are_apart(&b, &a));
        // The rings alone tell: 25, 27 and 29 are of two pasts.
        let whole = vec![leaf(ONE), leaf(TWO)];
        assert_eq!(relate(&first(whole.clone()), &second(whole)), Relation::Diverged);
        // Before one of them was written to alone, it lagged.
        let lagging =
            device(ONE, 23, vec![leaf(ONE), leaf(TWO)], one.into_iter().filter(|u| u.txg <= 23).collect());
        assert_eq!(relate(&lagging, &b), Relation::Behind(31));
        assert!(!are_apart(&lagging, &b));
    }

    #[test]
    fn what_the_pool_counts_and_has_in_its_past_is_read_with_it() {
        let two = device(2, 10, both(), commits("a", 90..=120));
        for last in [120, 119, 100] {
            let one = device(1, 10, both(), commits("a", 88..=last));
            assert_eq!(relate(&one, &two), Relation::Same, "{last}");
        }
        let one = device(1, 10, both(), commits("a", 90..=100));
        let alone = device(2, 101, vec![out(1), leaf(2)], commits("a", 90..=120));
        assert_eq!(relate(&one, &alone), Relation::Behind(20));
        // The description of a transaction group that was never committed says nothing.
        let torn = device(2, 121, vec![out(1), leaf(2)], commits("a", 90..=120));
        let mut torn_labels = torn.clone();
        torn_labels.places[1] = two.places[1].clone();
        assert_eq!(relate(&one, &torn_labels), Relation::Same);
    }

    #[test]
    fn one_that_is_long_behind_is_told_by_who_has_shut_out_whom() {
        let newest = |children, label| device(2, label, children, commits("a", 5000..=5031));
        let one = |children, last| device(1, 50, children, commits("a", last - 20..=last));
        let seen = [leaf(1), leaf(2)];
        let (shuts_1, shuts_2) = (vec![out(1), leaf(2)], vec![leaf(1), out(2)]);
        for (says, older, newer, expected) in [
            ("it dropped off", one(seen.to_vec(), 100), newest(shuts_1.clone(), 101), Relation::Behind(4931)),
            (
                "it was replaced",
                one(seen.to_vec(), 100),
                newest(vec![leaf(2), leaf(3)], 140),
                Relation::Behind(4931),
            ),
            (
                "it was written to after that",
                one(seen.to_vec(), 300),
                newest(shuts_1.clone(), 101),
                Relation::Diverged,
            ),
            ("each alone", one(shuts_2.clone(), 300), newest(shuts_1.clone(), 101), Relation::Diverged),
            ("it went on alone", one(shuts_2.clone(), 300), newest(seen.to_vec(), 40), Relation::Diverged),
            ("nothing tells", one(seen.to_vec(), 100), newest(seen.to_vec(), 40), Relation::Unclear),
            (
                "the newer one came later",
                one(vec![leaf(1), leaf(4)], 100),
                newest(vec![leaf(2), leaf(4)], 140),
                Relation::Behind(4931),
            ),
            (
                "the newer one came later, and it had gone on alone",
                one(vec![leaf(1), out(4)], 100),
                newest(vec![leaf(2), leaf(4)], 140),
                Relation::Unclear,
            ),
            (
                "one of three may have been brought up to date by the third",
                one(vec![leaf(1), out(2), leaf(3)], 300),
                newest(vec![out(1), leaf(2), leaf(3)], 101),
                Relation::Unclear,
            ),
        ] {
            assert_eq!(relate(&older, &newer), expected, "{says}");
        }
    }

    #[test]
    fn a_commit_that_never_reached_the_newer_one_was_made_without_it() {
        // 95 would stand where 63 still does.
        let newer = |numbers: Vec<u64>| device(2, 10, both(), commits("a", numbers));
        let sparse = || (63..=90).chain([97, 99]).collect::<Vec<_>>();
        let one = device(1, 10, both(), commits("b", [91, 95]));
        assert_eq!(relate(&one, &newer(sparse())), Relation::Diverged);
        let overwritten = sparse().into_iter().filter(|n| *n != 63).chain([127]).collect();
        assert_eq!(relate(&one, &newer(overwritten)), Relation::Unclear);
        let mut torn = newer(sparse());
        torn.places[2].uberblocks.retain(|u| u.txg != 63);
        assert_eq!(relate(&one, &torn), Relation::Unclear, "it may have been written there, and not whole");
        let mut many = newer(sparse());
        for place in &mut many.places {
            if let Ok(Some(label)) = &mut place.label {
                label.tops = Some(4);
            }
        }
        assert_eq!(relate(&one, &many), Relation::Unclear, "not every vdev gets every uberblock");
        let mut watched = newer(sparse());
        for place in &mut watched.places {
            place.uberblocks[0].sequence = 5;
        }
        assert_eq!(relate(&one, &watched), Relation::Unclear);
    }

    #[test]
    fn what_was_put_together_again_is_of_one_past() {
        let now = || commits("a", 110..=120);
        let one = device(1, 105, both(), [commits("b", [100, 101]), now()].concat());
        let two = device(2, 105, both(), [commits("a", [100, 101]), now()].concat());
        assert_eq!(relate(&one, &two), Relation::Same);
        // Written anew meanwhile, for other machines to see.
        let mut watched = one.clone();
        for place in &mut watched.places {
            let last = place.uberblocks.last_mut().unwrap();
            (last.timestamp, last.sequence) = (last.timestamp + 3, 2);
        }
        assert_eq!(relate(&two, &watched), Relation::Same);
    }

    #[test]
    fn of_a_raidz_no_two_sets_can_part_that_must_have_a_device_in_common() {
        let member = |guid, parity, count, past: &str, numbers| {
            let children = (1..=count).map(|n| if n == guid { leaf(n) } else { out(n) }).collect();
            let mut labels = device(guid, 99, children, commits(past, numbers));
            for place in &mut labels.places {
                let Ok(Some(label)) = &mut place.label else { panic!() };
                let tree = label.tree.as_mut().unwrap();
                (tree.kind, tree.parity) = ("raidz".into(), Some(parity));
            }
            labels
        };
        let related = |parity, count| {
            let older = member(1, parity, count, "a", 70..=100);
            relate(&older, &member(2, parity, count, "a", 500..=531))
        };
        assert_eq!(related(1, 3), Relation::Behind(431));
        assert_eq!(related(2, 5), Relation::Behind(431));
        assert_eq!(related(2, 4), Relation::Unclear);
        assert_eq!(related(1, 2), Relation::Unclear);
    }

    #[test]
    fn where_nothing_is_left_nobody_guesses() {
        let empty = device(1, 10, both(), Vec::new());
        let two = device(2, 10, both(), commits("a", 90..=120));
        assert_eq!(relate(&empty, &two), Relation::Unclear);
        assert_eq!(relate(&Labels::default(), &two), Relation::Unclear);
    }
}
