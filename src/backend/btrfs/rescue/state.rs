//! Are two members of one transaction in the very same state? Where nothing of that transaction tells one past from two, every block of
//! the state may be the same all the same: then there is one state, whatever its past was.

use super::tree::Reader;

/// Compares every block of any tree that `one` leads to and both have. `root` is where the tree of roots is, for both; after a degraded
/// mount only one of them may hold it.
pub(super) fn is_one(one: &Reader, other: &Reader, root: u64) -> bool {
    let (mut same, mut differs) = (0_u64, false);
    one.state(root, 0, &mut |block| match other.block(block.at) {
        Some(theirs) if block.is_same(&theirs) => same += u64::from(block.is_telling()),
        Some(_) => differs = true,
        // With more members than copies not every block is on each.
        None => {}
    });
    same > 0 && !differs
}
