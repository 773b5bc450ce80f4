//! The members of a raid10 take turns, two of them with the same data: which share each holds, and how shares are put together without
//! an array.

use std::cmp::Reverse;

use super::superblock::Superblock;
use crate::{
    backend::rescue::{Share, Survivor},
    host::overlay::Striped,
};

/// Two copies beside each other, none further on (kernel: `setup_geo` in `drivers/md/raid10.c`): what `near=2` is.
const NEAR_2: u32 = 0x102;

/// The share of a member at this place. Nothing where the array is laid out in another way: chunk `n` then is not on the places `2n` and
/// `2n + 1`, counted around (kernel: `__raid10_find_phys`).
pub(super) fn share(sb: &Superblock, place: u16) -> Option<Share> {
    let paired = sb.level == 10 && sb.layout == NEAR_2 && sb.raid_disks % 2 == 0;
    (paired && sb.chunk > 0).then(|| Share {
        number: u64::from(place) / 2,
        of: u64::from(sb.raid_disks) / 2,
        chunk: sb.chunk,
    })
}

/// One member of each pair: of two one that lacks nothing, and then the one that was written to last.
///
/// # Errors
/// Of which pairs there is none, in words.
pub(super) fn together(survivors: &[Survivor]) -> Result<Option<Striped>, String> {
    let Some(any) = survivors.iter().find_map(|s| s.share) else { return Ok(None) };
    let mut striped = Striped { chunk: any.chunk, length: 0, parts: Vec::new() };
    let (mut shortest, mut lacking) = (u64::MAX, Vec::new());
    for number in 0..any.of {
        let holds = |s: &Survivor| s.share == Some(Share { number, ..any });
        let held = survivors.iter().enumerate().filter(|(_, s)| holds(s));
        let held = held.filter_map(|(index, s)| Some((index, s, s.data.clone()?)));
        match held.min_by_key(|(_, s, _)| (s.lacks.is_some(), Reverse(s.generation))) {
            Some((index, _, data)) => {
                striped.parts.push((index, data.start));
                shortest = shortest.min(data.end - data.start);
            }
            None => lacking.push(format!("{} and {}", 2 * number + 1, 2 * number + 2)),
        }
    }
    if !lacking.is_empty() {
        let pairs = lacking.join(", and of ");
        return Err(format!(
            "of the members {pairs}, which hold the same, neither is among those that can be read: without them there are holes in every file"
        ));
    }
    // What does not fill a turn of each is not used (kernel: `raid10_size`).
    striped.length = (shortest / any.chunk).saturating_mul(any.chunk).saturating_mul(any.of);
    Ok(Some(striped))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            rescue::{by_superblocks, survivor},
            superblock::tests::block,
        },
        *,
    };
    use crate::{backend::rescue::Relation, model::Bytes};

    const CHUNK: u64 = 512 << 10;

    /// A superblock of a raid10 of four with pairs.
    fn sb(number: u8, change: impl FnOnce(&mut [u8])) -> Superblock {
        let changed = |b: &mut [u8]| {
            (b[72], b[76], b[77]) = (10, 2, 1);
            b[88..92].copy_from_slice(&1024_u32.to_le_bytes());
            (b[92], b[160]) = (4, number);
            for slot in 0..4_u8 {
                b[256 + 2 * usize::from(slot)] = slot;
                b[257 + 2 * usize::from(slot)] = 0;
            }
            change(b);
        };
        Superblock::parse(&block(changed)).unwrap().unwrap()
    }

    fn member(number: u8, change: impl FnOnce(&mut [u8])) -> Survivor {
        let sb = sb(number, change);
        let path = format!("/dev/{number}");
        survivor(path.as_ref(), Bytes::gib(2), sb.role.unwrap(), &sb)
    }

    fn four() -> [Survivor; 4] {
        [0, 1, 2, 3].map(|number| member(number, |_| {}))
    }

    #[test]
    fn one_of_each_pair_is_enough_and_both_of_one_are_not() {
        let all = four();
        let mut enough = 0;
        for chosen in 0..16_u8 {
            let left: Vec<Survivor> =
                (0..4).filter(|n| chosen & 1 << n != 0).map(|n| all[n].clone()).collect();
            let pairs = [chosen & 0b0011 != 0, chosen & 0b1100 != 0];
            match together(&left) {
                Ok(None) => assert!(left.is_empty()),
                Ok(Some(striped)) => {
                    assert_eq!(pairs, [true, true], "{chosen:04b}");
                    let shares: Vec<_> =
                        striped.parts.iter().map(|(index, _)| left[*index].share.unwrap().number).collect();
                    assert_eq!(shares, [0, 1]);
                    assert_eq!((striped.chunk, striped.length), (CHUNK, 2 << 30));
                    enough += 1;
                }
                Err(why) => {
                    let gone = if pairs[0] { "members 3 and 4," } else { "members 1 and 2," };
                    assert!(pairs != [true, true] && why.contains(gone), "{chosen:04b}: {why}");
                }
            }
        }
        assert_eq!(enough, 9);
    }

    #[test]
    fn each_is_read_from_where_its_own_data_begin_and_what_fills_no_turn_is_left_out() {
        let far = |b: &mut [u8]| b[128..136].copy_from_slice(&4096_u64.to_le_bytes());
        let short = |b: &mut [u8]| b[80..88].copy_from_slice(&(1024_u64 * 5 + 7).to_le_bytes());
        let left = [
            member(1, short),
            member(2, |b| {
                far(b);
                short(b);
            }),
        ];
        let striped = together(&left).unwrap().unwrap();
        assert_eq!(striped.parts, [(0, 1 << 20), (1, 2 << 20)]);
        assert_eq!(striped.length, 2 * 5 * CHUNK);
    }

    #[test]
    fn of_two_with_the_same_the_one_that_lacks_nothing_is_read() {
        let holed = |b: &mut [u8]| b[8] |= 8;
        let mut all = four();
        all[0] = member(0, holed);
        assert_eq!(together(&all).unwrap().unwrap().parts[0].0, 1);
        all[1] = member(1, holed);
        assert_eq!(together(&all).unwrap().unwrap().parts[0].0, 0);
        all[3] = member(3, |b| b[200] += 1);
        assert_eq!(together(&all).unwrap().unwrap().parts[1].0, 3);
    }

    /// A member's superblock at so many events, when those were not members any more.
    fn at(number: u8, events: u8, gone: &[u8]) -> Superblock {
        sb(number, |b| {
            b[200] = events;
            for slot in gone {
                let at = 256 + 2 * usize::from(*slot);
                b[at..at + 2].copy_from_slice(&[0xfe, 0xff]);
            }
        })
    }

    #[test]
    fn members_of_different_pairs_are_told_apart_by_whom_they_were_written_with() {
        for (one, other, expected) in [
            (at(0, 30, &[1, 3]), at(2, 30, &[1, 3]), Relation::Same),
            (at(1, 18, &[]), at(2, 18, &[]), Relation::Same),
            // It fell out; afterwards one of another pair did, which knows of it.
            (at(1, 18, &[]), at(2, 25, &[1]), Relation::Behind(7)),
            (at(1, 18, &[]), at(3, 19, &[1]), Relation::Behind(1)),
            // Two went on without the other two, and those without them.
            (at(0, 30, &[1, 3]), at(1, 30, &[0, 2]), Relation::Diverged),
            (at(0, 30, &[1, 3]), at(3, 34, &[0, 2]), Relation::Diverged),
        ] {
            assert_eq!(by_superblocks(&one, &other), expected, "{one:?} {other:?}");
        }
    }

    #[test]
    fn what_is_being_filled_or_laid_out_in_another_way_holds_no_share() {
        let filling = [member(0, |b| b[8] |= 2), member(2, |_| {})];
        assert!(together(&filling).unwrap_err().contains("members 1 and 2,"));
        for change in [
            (|b| b[77] = 2) as fn(&mut [u8]),
            |b| (b[76], b[77]) = (1, 2),
            |b| b[78] = 1,
            |b| b[92] = 3,
            |b| b[88..92].fill(0),
            |b| b[72] = 5,
            |b| b[8] |= 4,
        ] {
            let other = member(0, change);
            assert!(other.data.is_none(), "{other:?}");
        }
    }
}
