//! One past or two? Numbers and places may agree by chance: two halves that were each mounted alone begin from the same state and do much
//! the same. What was written does not: its times differ.
//!
//! Let `one` be at transaction N, and `other` at N or later. If `other` went through the state of `one`, then every block of that state
//! was at its address on `other` too, and what is there now is that block or a later one. A block that is the same tells that it is so;
//! another one that is not later tells that it is not.

use super::tree::{Block, Reader};

/// What the blocks of two members tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Evidence {
    /// Blocks with times in them that are the same on both.
    pub(super) same: u64,
    /// Blocks that cannot be if the second went through the state of the first.
    pub(super) contrary: u64,
}

/// One side: what reads it, and where its tree of roots is.
pub(super) struct Side<'r> {
    pub(super) reader: &'r Reader,
    pub(super) root: u64,
}

/// Compares what `one` wrote in its last transaction, `last`, with what `other` has in the same places, and the other way round.
pub(super) fn compare(one: &Side<'_>, last: u64, other: &Side<'_>) -> Evidence {
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
    one.reader.state(one.root, last, &mut |block| judge(block, other.reader.block(block.at)));
    // What of that transaction is still alive on the other must be the same here.
    other.reader.state(other.root, last, &mut |block| judge(block, one.reader.block(block.at)));
    evidence
}
