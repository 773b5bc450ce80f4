//! A half of an array that was written to alone, seen as it comes: without a process, and before md gets it.

use std::path::{Path, PathBuf};

use super::{observe, rescue::by_superblocks, superblock::Superblock};
use crate::{
    backend::{BackendError, blocks, rescue::Relation},
    host::{Host, files::Doing as _},
};

/// Were these two members of one array each written to alone? One that is being filled has nothing of its own.
fn apart(one: &Superblock, other: &Superblock) -> bool {
    let halves = one.array == other.array && one.uuid != other.uuid && one.serves() && other.serves();
    let (older, newer) = if one.events > other.events { (other, one) } else { (one, other) };
    halves && by_superblocks(older, newer) == Relation::Diverged
}

/// The half of the same array that was written to without `device`, which itself was written to without that one; nothing where there is
/// none. Other devices are read only where this one was written to without a member: of two halves each was.
///
/// # Errors
/// The device, or what there is of devices, cannot be read.
pub(super) fn other_half(host: &Host, device: &Path) -> Result<Option<PathBuf>, BackendError> {
    let found = Superblock::read(&host.path(device)).doing("reading the superblock of", device)?;
    let Some(own) = found.filter(|own| !own.counts_all()) else { return Ok(None) };
    let name = blocks::kernel_name(host, device);
    let seen = observe::candidates(host)?;
    // One that cannot be read is none that md could be given.
    let half = seen.iter().filter(|seen| seen.path != blocks::node_of(&name)).find(|seen| {
        let other = seen.superblock.as_ref().ok().and_then(Option::as_ref);
        other.is_some_and(|other| apart(&own, other))
    });
    Ok(half.map(|seen| seen.path.clone()))
}

#[cfg(test)]
mod tests {
    use super::{super::superblock::tests::block, *};

    /// A superblock of `roles.len()` members; the number of the device, its array's events, who has which place.
    fn of(number: u8, events: u8, roles: &[u16], more: fn(&mut [u8])) -> Superblock {
        let change = |b: &mut [u8]| {
            b[92] = u8::try_from(roles.len()).unwrap();
            b[160] = number;
            b[168] = number;
            b[200] = events;
            for (device, role) in roles.iter().enumerate() {
                b[256 + 2 * device..258 + 2 * device].copy_from_slice(&role.to_le_bytes());
            }
            more(b);
        };
        Superblock::parse(&block(change)).unwrap().unwrap()
    }

    const GONE: u16 = 0xfffe;
    const SPARE: u16 = 0xffff;
    const AS_IT_IS: fn(&mut [u8]) = |_| {};
    const FILLING: fn(&mut [u8]) = |b| b[8] |= 2;

    #[test]
    fn only_halves_that_were_each_written_to_alone_stand_apart() {
        let of = |number, events, roles| of(number, events, roles, AS_IT_IS);
        for (says, one, other, expected) in [
            ("in sync", of(0, 18, &[0, 1]), of(1, 18, &[0, 1]), false),
            ("a power cut between two superblocks", of(0, 19, &[0, 1]), of(1, 18, &[0, 1]), false),
            ("one was away", of(0, 30, &[0, GONE]), of(1, 18, &[0, 1]), false),
            ("one was away, and is not known any more", of(0, 30, &[0, SPARE]), of(1, 18, &[0, 1]), false),
            ("each alone, as often", of(0, 22, &[0, SPARE]), of(1, 22, &[SPARE, 1]), true),
            ("each alone, off by one", of(0, 22, &[0, GONE]), of(1, 23, &[SPARE, 1]), true),
            ("each alone, far apart", of(0, 22, &[0, SPARE]), of(1, 54, &[SPARE, 1]), true),
            ("a spare", of(0, 22, &[0, SPARE]), of(1, 22, &[0, SPARE]), false),
            ("one of three alone", of(2, 22, &[GONE, GONE, 2]), of(0, 40, &[0, 1, GONE]), true),
            ("two of three together", of(1, 39, &[0, 1, GONE]), of(0, 40, &[0, 1, GONE]), false),
            ("a pair of a raid10 each", of(0, 30, &[0, GONE, 2, GONE]), of(3, 30, &[GONE, 1, GONE, 3]), true),
        ] {
            assert_eq!(apart(&one, &other), expected, "{says}");
            assert_eq!(apart(&other, &one), expected, "{says}, the other way round");
        }
    }

    #[test]
    fn what_has_nothing_of_its_own_stands_not_apart() {
        let alone = of(0, 22, &[0, SPARE], AS_IT_IS);
        let filled = of(1, 23, &[0, 1], FILLING);
        assert!(!apart(&alone, &filled) && !apart(&filled, &alone), "a power cut while it is taken in again");
        let elsewhere = of(1, 22, &[SPARE, 1], |b| b[16] ^= 1);
        assert!(!apart(&alone, &elsewhere), "another array");
        assert!(!apart(&alone, &alone), "itself, or a clone");
    }

    #[test]
    fn who_counts_a_device_at_each_place_was_never_alone() {
        for (roles, expected) in [
            (&[0, 1][..], true),
            (&[0, GONE], false),
            (&[SPARE, 1], false),
            (&[0, GONE, 1], false),
            (&[0, 1, 2, 3], true),
        ] {
            assert_eq!(of(0, 18, roles, AS_IT_IS).counts_all(), expected, "{roles:?}");
        }
        // The third device has taken the place of the second.
        assert!(of(0, 18, &[0, GONE, 1], |b| b[92] = 2).counts_all());
    }
}
