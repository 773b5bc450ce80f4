//! From the filesystem's own addresses to places on its members, for every profile that keeps whole copies (kernel: `btrfs_map_block` in
//! fs/btrfs/volumes.c, `struct btrfs_chunk` in include/uapi/linux/btrfs_tree.h). Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use super::super::superblock::field;

/// What lies in one piece on one member, in striped profiles and in the records of all (kernel: `BTRFS_STRIPE_LEN`).
const STRIPE: u64 = 64 << 10;
/// Kinds of chunks (kernel: `BTRFS_BLOCK_GROUP_METADATA`, `_RAID0` ...).
const METADATA: u64 = 1 << 2;
const RAID0: u64 = 1 << 3;
const RAID1: u64 = 1 << 4;
const DUP: u64 = 1 << 5;
const RAID10: u64 = 1 << 6;
const RAID5: u64 = 1 << 7;
const RAID6: u64 = 1 << 8;
const RAID1C3: u64 = 1 << 9;
const RAID1C4: u64 = 1 << 10;
const PROFILES: u64 = RAID0 | RAID1 | DUP | RAID10 | RAID5 | RAID6 | RAID1C3 | RAID1C4;
/// So many members that are neither here nor there are tried on both sides at most.
const MOST_FREE: usize = 12;

/// How a chunk lies on its stripes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Each stripe has all of it.
    Copies,
    /// Piece after piece goes to the next group of so many stripes, each of which has a copy.
    Striped(usize),
    /// Pieces are spread, and so many stripes of each row are parity.
    Parity(usize),
}

/// A chunk: a range of the filesystem's addresses, and where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) start: u64,
    pub(super) length: u64,
    kind: u64,
    layout: Layout,
    /// Member and place on it, in bytes.
    stripes: Vec<(u64, u64)>,
}

impl Chunk {
    /// Reads a chunk item, and how long it is. Nothing where it is none, or of a profile that is not known here.
    pub(super) fn parse(item: &[u8], start: u64) -> Option<(Self, usize)> {
        let number = |at: usize| field::<8>(item, at).map(u64::from_le_bytes);
        let half = |at: usize| field::<2>(item, at).map(|bytes| usize::from(u16::from_le_bytes(bytes)));
        let (length, kind, count, sub) = (number(0)?, number(24)?, half(44)?, half(46)?);
        let layout = match kind & PROFILES {
            0 | DUP | RAID1 | RAID1C3 | RAID1C4 => Layout::Copies,
            RAID0 => Layout::Striped(1),
            RAID10 => Layout::Striped(2),
            RAID5 => Layout::Parity(1),
            RAID6 => Layout::Parity(2),
            _ => return None,
        };
        let fits = match layout {
            Layout::Copies => count > 0,
            Layout::Striped(group) => count > 0 && count % group == 0 && (group == 1 || sub == group),
            Layout::Parity(parity) => count > parity,
        };
        if !fits || length == 0 || number(16)? != STRIPE || start.checked_add(length).is_none() {
            return None;
        }
        let size = 48 + count * 32;
        item.get(..size)?;
        let stripes = (48..size).step_by(32).map(|at| Some((number(at)?, number(at + 8)?)));
        let stripes = stripes.collect::<Option<_>>()?;
        let chunk = Self { start, length, kind, layout, stripes };
        // What lies past the end of all disks is no place.
        chunk.stripes.iter().all(|(_, at)| at.checked_add(chunk.on_each()).is_some()).then_some(())?;
        Some((chunk, size))
    }

    /// Does it hold trees?
    pub(super) fn is_metadata(&self) -> bool {
        self.kind & METADATA != 0
    }

    /// Is it kept on more than one member?
    pub(super) fn is_mirrored(&self) -> bool {
        self.kind & (RAID1 | RAID10 | RAID1C3 | RAID1C4) != 0
    }

    /// How many bytes of each stripe it takes (kernel: `btrfs_calc_stripe_length`).
    fn on_each(&self) -> u64 {
        let rows = match self.layout {
            Layout::Copies => 1,
            Layout::Striped(group) => self.stripes.len() / group,
            Layout::Parity(parity) => self.stripes.len() - parity,
        };
        self.length / rows as u64
    }

    /// Groups of stripes of which each has a copy of the same; none where there is parity.
    fn groups(&self) -> impl Iterator<Item = &[(u64, u64)]> {
        let group = match self.layout {
            Layout::Copies => self.stripes.len(),
            Layout::Striped(group) => group,
            Layout::Parity(_) => self.stripes.len() + 1,
        };
        self.stripes.chunks_exact(group)
    }

    /// How many members may be missing for the kernel to write to it all the same (kernel: `tolerated_failures`).
    fn tolerates(&self) -> usize {
        match self.kind & PROFILES {
            RAID1 | RAID10 | RAID5 => 1,
            RAID1C3 | RAID6 => 2,
            RAID1C4 => 3,
            _ => 0,
        }
    }

    /// Member and place of each copy of a range of addresses; none where it is not in one piece.
    fn copies(&self, address: u64, length: u64) -> Vec<(u64, u64)> {
        let inside = address
            .checked_sub(self.start)
            .filter(|offset| offset.checked_add(length).is_some_and(|end| length > 0 && end <= self.length));
        let Some(offset) = inside else { return Vec::new() };
        let (group, within) = match self.layout {
            Layout::Copies => (self.stripes.as_slice(), offset),
            Layout::Parity(_) => return Vec::new(),
            Layout::Striped(size) => {
                let (piece, within) = (offset / STRIPE, offset % STRIPE);
                let groups = (self.stripes.len() / size) as u64;
                let group = usize::try_from(piece % groups).ok().and_then(|n| self.groups().nth(n));
                match group.filter(|_| within + length <= STRIPE) {
                    Some(group) => (group, piece / groups * STRIPE + within),
                    None => return Vec::new(),
                }
            }
        };
        if within + length > self.on_each() {
            return Vec::new();
        }
        group.iter().map(|(member, at)| (*member, at + within)).collect()
    }
}

/// All chunks of a filesystem, by their addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Map(BTreeMap<u64, Chunk>);

impl Map {
    pub(super) fn add(&mut self, chunks: impl IntoIterator<Item = Chunk>) {
        self.0.extend(chunks.into_iter().map(|chunk| (chunk.start, chunk)));
    }

    /// Member and place of each copy of a range of addresses.
    pub(super) fn copies(&self, address: u64, length: u64) -> Vec<(u64, u64)> {
        let chunk = self.0.range(..=address).next_back();
        chunk.map(|(_, chunk)| chunk.copies(address, length)).unwrap_or_default()
    }

    /// The bytes of a member that belong to chunks.
    pub(super) fn used(&self, member: u64) -> Vec<Range<u64>> {
        let of = |chunk: &Chunk| {
            let (own, each) = (chunk.stripes.iter().filter(|(devid, _)| *devid == member), chunk.on_each());
            own.map(|(_, at)| *at..at + each).collect::<Vec<_>>()
        };
        self.0.values().flat_map(of).collect()
    }

    /// Where on the members `present` trees may lie. Nothing where some of it is on none of them.
    pub(super) fn metadata(&self, present: &[u64]) -> Option<Vec<(u64, Range<u64>)>> {
        let mut places = Vec::new();
        for chunk in self.0.values().filter(|chunk| chunk.is_metadata()) {
            let each = chunk.on_each();
            let mut groups = chunk.groups().peekable();
            groups.peek()?;
            for group in groups {
                let here = group.iter().filter(|(member, _)| present.contains(member));
                let before = places.len();
                places.extend(here.map(|(member, at)| (*member, *at..at + each)));
                if places.len() == before {
                    return None;
                }
            }
        }
        Some(places)
    }

    /// Has one member a copy of everything?
    pub(super) fn is_whole_on(&self, member: u64) -> bool {
        let on = |group: &[(u64, u64)]| group.iter().any(|(devid, _)| *devid == member);
        !self.0.is_empty()
            && self.0.values().all(|chunk| {
                let mut groups = chunk.groups().peekable();
                groups.peek().is_some() && groups.all(on)
            })
    }

    /// Could `one` have been written while none of `others` was there, and those while it was away? The kernel writes only where each
    /// chunk has so many of its members as its profile needs (kernel: `btrfs_check_rw_degradable`); where two such sets always have a
    /// member in common, that one saw both, and the later went on from the earlier. True also where that is not known.
    pub(super) fn allows_apart(&self, one: u64, others: &BTreeSet<u64>) -> bool {
        let all: BTreeSet<u64> =
            self.0.values().flat_map(|chunk| chunk.stripes.iter().map(|(member, _)| *member)).collect();
        let free: Vec<u64> = all.into_iter().filter(|m| *m != one && !others.contains(m)).collect();
        if self.0.is_empty() || free.len() > MOST_FREE || others.contains(&one) {
            return true;
        }
        (0..1_usize << free.len()).any(|choice| {
            let with_one = |member: u64| {
                let chosen = free.iter().position(|f| *f == member);
                member == one || chosen.is_some_and(|bit| choice & (1 << bit) != 0)
            };
            self.writes(with_one) && self.writes(|member| !with_one(member))
        })
    }

    fn writes(&self, has: impl Fn(u64) -> bool) -> bool {
        self.0.values().all(|chunk| {
            chunk.stripes.iter().filter(|(member, _)| !has(*member)).count() <= chunk.tolerates()
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A chunk item.
    pub(in super::super) fn item(length: u64, kind: u64, stripes: &[(u64, u64)]) -> Vec<u8> {
        let mut item = vec![0; 48 + stripes.len() * 32];
        let mut put = |at: usize, bytes: &[u8]| item[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &length.to_le_bytes());
        put(16, &STRIPE.to_le_bytes());
        put(24, &kind.to_le_bytes());
        put(44, &u16::try_from(stripes.len()).unwrap().to_le_bytes());
        put(46, &if kind & RAID10 == 0 { 1_u16 } else { 2 }.to_le_bytes());
        for (index, (member, at)) in stripes.iter().enumerate() {
            put(48 + index * 32, &member.to_le_bytes());
            put(56 + index * 32, &at.to_le_bytes());
        }
        item
    }

    const MB: u64 = 1 << 20;
    const START: u64 = 100 * MB;

    fn chunk(kind: u64, members: &[u64]) -> Chunk {
        let stripes: Vec<_> = members.iter().map(|member| (*member, member * 1000 * MB)).collect();
        Chunk::parse(&item(8 * MB, kind, &stripes), START).unwrap().0
    }

    fn map(chunks: &[Chunk]) -> Map {
        let mut map = Map::default();
        map.add(
            chunks
                .iter()
                .cloned()
                .enumerate()
                .map(|(n, chunk)| Chunk { start: START + 8 * MB * n as u64, ..chunk }),
        );
        map
    }

    /// What the kernel's own arithmetic gives, by hand.
    #[test]
    fn an_address_is_found_in_every_profile() {
        let k = 1 << 10;
        for (kind, members, offset, places) in [
            (0, &[3][..], 5 * MB, &[(3, 5 * MB)][..]),
            (DUP, &[3, 3], 5 * MB, &[(3, 5 * MB), (3, 5 * MB)]),
            (RAID1, &[2, 1], 64 * k, &[(2, 64 * k), (1, 64 * k)]),
            (RAID1C3, &[2, 1, 3], 7 * k * 16, &[(2, 112 * k), (1, 112 * k), (3, 112 * k)]),
            (RAID1C4, &[1, 2, 3, 4], 0, &[(1, 0), (2, 0), (3, 0), (4, 0)]),
            (RAID0, &[1, 2, 3], 4 * 64 * k + 16 * k, &[(2, 64 * k + 16 * k)]),
            // Pieces 0, 2, 4 on the first pair, 1, 3, 5 on the second.
            (RAID10, &[4, 1, 3, 2], 0, &[(4, 0), (1, 0)]),
            (RAID10, &[4, 1, 3, 2], 64 * k, &[(3, 0), (2, 0)]),
            (RAID10, &[4, 1, 3, 2], 3 * 64 * k + 48 * k, &[(3, 64 * k + 48 * k), (2, 64 * k + 48 * k)]),
            (RAID10, &[4, 1, 3, 2], 4 * 64 * k, &[(4, 128 * k), (1, 128 * k)]),
            (RAID10, &[6, 5, 4, 3, 2, 1], 5 * 64 * k, &[(2, 64 * k), (1, 64 * k)]),
            // What is rebuilt from parity is not read here.
            (RAID5, &[1, 2, 3], 0, &[]),
            // A block that ends in another piece.
            (RAID10, &[4, 1, 3, 2], 56 * k, &[]),
            (RAID1, &[1, 2], 8 * MB - 16 * k, &[(1, 8 * MB - 16 * k), (2, 8 * MB - 16 * k)]),
            (RAID1, &[1, 2], 8 * MB - 8 * k, &[]),
            (RAID1, &[1, 2], 9 * MB, &[]),
        ] {
            let places: Vec<_> =
                places.iter().map(|(member, at)| (*member, member * 1000 * MB + at)).collect();
            let found = map(&[chunk(kind, members)]).copies(START + offset, 16 * k);
            assert_eq!(found, places, "{kind:#x} {members:?} {offset}");
        }
        assert!(map(&[chunk(RAID1, &[1, 2])]).copies(START - 1, 1).is_empty());
    }

    #[test]
    fn what_a_member_gives_is_its_share() {
        for (kind, members, share) in [
            (0, &[1][..], 8),
            (RAID1, &[1, 2], 8),
            (RAID10, &[1, 2, 3, 4], 4),
            (RAID0, &[1, 2, 3, 4], 2),
            (RAID5, &[1, 2, 3], 4),
            (RAID6, &[1, 2, 3, 4], 4),
        ] {
            let used = map(&[chunk(kind, members)]).used(1);
            assert_eq!(used, [Range { start: 1000 * MB, end: (1000 + share) * MB }], "{kind:#x}");
        }
    }

    #[test]
    fn one_has_everything_or_its_like_is_needed() {
        let meta = METADATA;
        let ten = map(&[chunk(RAID10 | meta, &[1, 2, 3, 4])]);
        assert!(!ten.is_whole_on(1));
        assert!(ten.metadata(&[1]).is_none() && ten.metadata(&[1, 2]).is_none());
        assert_eq!(ten.metadata(&[1, 4]).unwrap().len(), 2);
        assert_eq!(ten.metadata(&[1, 2, 4]).unwrap().len(), 3);
        assert!(map(&[chunk(RAID1C3 | meta, &[1, 2, 3])]).is_whole_on(3));
        assert!(!map(&[chunk(RAID1, &[1, 2]), chunk(0, &[2])]).is_whole_on(1));
        assert!(!map(&[chunk(RAID5 | meta, &[1, 2, 3])]).is_whole_on(1));
        assert!(map(&[chunk(RAID5 | meta, &[1, 2, 3])]).metadata(&[1, 2, 3]).is_none());
        assert!(!Map::default().is_whole_on(1));
    }

    #[test]
    fn two_sets_that_must_share_a_member_were_never_apart() {
        let apart = |chunks: &[Chunk], one, others: &[u64]| {
            map(chunks).allows_apart(one, &others.iter().copied().collect())
        };
        let (ten, c3) = (chunk(RAID10, &[1, 2, 3, 4]), chunk(RAID1C3, &[1, 2, 3]));
        assert!(apart(&[chunk(RAID1, &[1, 2])], 1, &[2]), "each half can go on alone");
        assert!(apart(std::slice::from_ref(&c3), 1, &[2, 3]) && apart(&[c3], 1, &[2]));
        assert!(
            !apart(std::slice::from_ref(&ten), 1, &[2, 3]) && !apart(std::slice::from_ref(&ten), 1, &[3])
        );
        // Of three members one may be away, so two sets of two have one in common; unless all lies on one of them.
        let ring = [chunk(RAID1, &[1, 2]), chunk(RAID1, &[2, 3]), chunk(RAID1, &[3, 1])];
        assert!(!apart(&ring, 1, &[3]) && !apart(&ring, 1, &[2, 3]));
        assert!(apart(&ring[..2], 2, &[1, 3]) && !apart(&ring[..2], 1, &[3]));
        // After a degraded mount some of it lies on one member only.
        assert!(!apart(&[chunk(RAID1, &[1, 2]), chunk(0, &[2])], 1, &[2]));
        // A raid10 of two is a pair of halves.
        assert!(apart(&[chunk(RAID10, &[1, 2])], 1, &[2]));
        assert!(apart(&[], 1, &[2]), "nothing is known");
        let many: Vec<u64> = (1..=20).collect();
        assert!(apart(&[chunk(RAID10, &many)], 1, &[2]), "too many to try");
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        let whole = item(8 * MB, RAID10, &[(1, 0), (2, 0), (3, 0), (4, 0)]);
        assert!(Chunk::parse(&whole, 0).is_some());
        for (at, byte) in [(18, 2), (24, 0xff), (44, 3), (44, 0), (46, 1)] {
            let mut other = whole.clone();
            other[at] = byte;
            assert!(Chunk::parse(&other, 0).is_none(), "{at} {byte}");
        }
        assert!(Chunk::parse(&whole[..whole.len() - 1], 0).is_none());
        assert!(Chunk::parse(&whole, u64::MAX - 4096).is_none());
        assert!(Chunk::parse(&item(8 * MB, RAID1, &[(1, u64::MAX - 5), (2, 0)]), 0).is_none());
    }

    fn sampled(kind: u64) -> Vec<u8> {
        item(8 * MB, kind, &[(1, 0), (2, MB), (3, 2 * MB), (4, 3 * MB)])
    }

    proptest::proptest! {
        /// Whatever a disk says: no panic, every place lies in what the member gives, and no two addresses share one.
        #[test]
        fn fuzz_chunk(
            kind in proptest::sample::select(vec![0, RAID0, RAID1, DUP, RAID10, RAID5, RAID6, RAID1C3, RAID1C4, RAID0 | RAID1]),
            changes in proptest::collection::vec((0_usize..48, proptest::prelude::any::<u8>()), 0..4),
            start in 0..4 * START, block in 0_u64..2048,
        ) {
            let mut item = sampled(kind);
            for (at, byte) in changes {
                item[at] = byte;
            }
            if let Some((chunk, length)) = Chunk::parse(&item, start) {
                proptest::prop_assert!(length <= item.len());
                let (kind, mut map) = (chunk.kind, Map::default());
                map.add([chunk]);
                let copies = |block: u64| map.copies(start + block * 16384, 16384);
                for (member, at) in copies(block) {
                    let inside = |range: &Range<u64>| range.start <= at && at + 16384 <= range.end;
                    proptest::prop_assert!(map.used(member).iter().any(inside), "{:#x}", kind);
                    proptest::prop_assert!(!copies(block + 1).contains(&(member, at)));
                }
                map.metadata(&[1, 2]);
                map.allows_apart(1, &BTreeSet::from([2, 3]));
            }
        }
    }
}
