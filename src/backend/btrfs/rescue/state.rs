//! Are members of one transaction in the very same state? Where nothing of that transaction tells one past from two, every block of the
//! state may be the same all the same: then there is one state, whatever its past was.

use super::past::Side;

/// Compares every block of any tree that `side` leads to with what both `one` and the peers have there. `root` is where the tree of roots
/// is, for all; after a degraded mount only one of them may hold it.
pub(super) fn is_one(side: &Side<'_>, one: &Side<'_>, other: &Side<'_>, peers: &[u64]) -> bool {
    let (mut same, mut differs) = (0_u64, false);
    side.reader.state(side.root, 0, &mut |block| {
        // With more members than copies not every block is on each.
        let Some(mine) = one.reader.block_on(one.reader.own(), block.at) else { return };
        for theirs in peers.iter().filter_map(|peer| other.reader.block_on(*peer, block.at)) {
            if mine.is_same(&theirs) {
                same += u64::from(mine.is_telling());
            } else {
                differs = true;
            }
        }
    });
    same > 0 && !differs
}
