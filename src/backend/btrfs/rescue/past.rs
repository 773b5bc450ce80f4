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
    pub(super) fn parts(self) -> bool {
        self.same == 0 && self.contrary > 0
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
    let mut judge = |mine: &Block, theirs: Option<Block>| {
        if mine.generation != last {
            return;
        }
        match theirs {
            Some(theirs) if mine.is_same(&theirs) => evidence.same += u64::from(mine.is_telling()),
            Some(theirs) if theirs.generation <= last => evidence.contrary += 1,
            _ => {}
        }
    };
    let on_one = |at: u64| one.reader.block_on(one.reader.own(), at);
    let on_peers = |at: u64| peers.iter().map(move |peer| other.reader.block_on(*peer, at));
    one.reader.state(one.root, last, &mut |block| {
        if let Some(mine) = on_one(block.at) {
            on_peers(block.at).for_each(|theirs| judge(&mine, theirs));
        }
    });
    // What of that transaction is still alive on the others must be the same here.
    other.reader.state(other.root, last, &mut |block| {
        on_peers(block.at).flatten().for_each(|theirs| judge(&theirs, on_one(block.at)));
    });
    evidence
}
