//! One past or two? Numbers and places may agree by chance: two halves that were each mounted alone begin from the same state and do much
//! the same. What was written does not: its times differ.
//!
//! Let `one` be at transaction N, and the others at N or later. If they went through the state of `one`, then every block of that state
//! was at its address on them too, and what is there now is that block or a later one. A block that is the same tells that it is so;
//! another one that is not later tells that it is not.

use super::tree::{Block, Reader};

/// What the blocks of a member tell beside those of the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Evidence {
    /// Blocks with times in them that are the same on both.
    pub(super) same: u64,
    /// Blocks that cannot be if the second went through the state of the first.
    pub(super) contrary: u64,
    /// The profiles let nobody write to the one while the others were not there.
    pub(super) bound: bool,
}

impl Evidence {
    /// Does it tell nothing?
    pub(super) fn is_silent(self) -> bool {
        self.same == 0 && self.contrary == 0
    }

    /// Does it tell of two pasts, and nothing of one?
    fn parts(self) -> bool {
        self.same == 0 && self.contrary > 0
    }

    /// Takes in what a block of the transaction `last` tells beside the one in its place on the other side.
    fn judge(&mut self, last: u64, mine: &Block, theirs: Option<Block>) {
        if mine.generation != last {
            return;
        }
        match theirs {
            Some(theirs) if mine.is_same(&theirs) => self.same += u64::from(mine.is_telling()),
            Some(theirs) if theirs.generation <= last => self.contrary += 1,
            _ => {}
        }
    }
}

/// One side: what reads it, where its tree of roots is, and of which transaction.
pub(super) struct Side<'r> {
    pub(super) reader: &'r Reader,
    pub(super) root: (u64, u64),
}

/// Compares what `one` wrote in its last transaction, `last`, with what `peers` have in the same places, and the other way round. The
/// peers are of one state, that of `other`.
pub(super) fn compare(one: &Side<'_>, last: u64, other: &Side<'_>, peers: &[u64]) -> Evidence {
    let mut evidence = Evidence::default();
    forth(one, last, other, peers, &mut evidence, |_| true);
    back(one, last, other, peers, &mut evidence, |_| true);
    evidence
}

/// Was each of them written to without the other? As [`compare`], but no more is read than it takes to tell: the machine waits for it.
pub(super) fn have_parted(one: &Side<'_>, last: u64, other: &Side<'_>, peers: &[u64]) -> bool {
    let mut evidence = Evidence::default();
    forth(one, last, other, peers, &mut evidence, |evidence| evidence.same == 0);
    if evidence.is_silent() {
        back(one, last, other, peers, &mut evidence, Evidence::is_silent);
    }
    evidence.parts()
}

/// What `one` wrote in that transaction must be on the others, if they went through it. Asked until `go_on` says no.
fn forth(
    one: &Side<'_>,
    last: u64,
    other: &Side<'_>,
    peers: &[u64],
    evidence: &mut Evidence,
    go_on: fn(Evidence) -> bool,
) {
    one.reader.state_until(one.root, last, &mut |block| {
        if let Some(mine) = one.reader.block_on(one.reader.own(), block.at) {
            for peer in peers {
                evidence.judge(last, &mine, other.reader.block_on(*peer, block.at));
            }
        }
        go_on(*evidence)
    });
}

/// What of that transaction is still alive on the others must be the same on `one`. Asked until `go_on` says no.
fn back(
    one: &Side<'_>,
    last: u64,
    other: &Side<'_>,
    peers: &[u64],
    evidence: &mut Evidence,
    go_on: fn(Evidence) -> bool,
) {
    other.reader.state_until(other.root, last, &mut |block| {
        for theirs in peers.iter().filter_map(|peer| other.reader.block_on(*peer, block.at)) {
            evidence.judge(last, &theirs, one.reader.block_on(one.reader.own(), block.at));
        }
        go_on(*evidence)
    });
}
