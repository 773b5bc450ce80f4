//! Members made of crafted blocks: what two pasts look like from outside.

use std::os::unix::fs::FileExt as _;

use super::{
    map::tests::item as chunk,
    past::{Evidence, Side, compare},
    supers::{Super, seal, tests::craft},
    tree::Reader,
    *,
};

pub(super) const NODE: u64 = 16384;
const BYTES: usize = 16384;
/// A leaf's key and content.
pub(super) type Item = ((u64, u8, u64), Vec<u8>);
pub(super) const SYSTEM: u64 = 22 << 20;
pub(super) const META: u64 = 64 << 20;
const ROOT: u64 = META + NODE;
const FILES: u64 = META + 2 * NODE;
/// Where the metadata chunk lies on the member.
pub(super) const ON_MEMBER: u64 = 16 << 20;

/// A leaf with these items, sealed.
pub(super) fn leaf(at: u64, owner: u64, generation: u64, items: &[Item]) -> Vec<u8> {
    let mut block = vec![0; BYTES];
    let fsid =
        u128::from_str_radix(&super::super::superblock::tests::sample().fsid.replace('-', ""), 16).unwrap();
    let put =
        |block: &mut Vec<u8>, at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(&mut block, 32, &fsid.to_be_bytes());
    put(&mut block, 48, &at.to_le_bytes());
    put(&mut block, 80, &generation.to_le_bytes());
    put(&mut block, 88, &owner.to_le_bytes());
    put(&mut block, 96, &u32::try_from(items.len()).unwrap().to_le_bytes());
    let mut end = BYTES - 101;
    for (index, ((id, kind, offset), content)) in items.iter().enumerate() {
        end -= content.len();
        let at = 101 + index * 25;
        put(&mut block, at, &id.to_le_bytes());
        block[at + 8] = *kind;
        put(&mut block, at + 9, &offset.to_le_bytes());
        put(&mut block, at + 17, &u32::try_from(end).unwrap().to_le_bytes());
        put(&mut block, at + 21, &u32::try_from(content.len()).unwrap().to_le_bytes());
        put(&mut block, 101 + end, content);
    }
    seal(&mut block);
    block
}

pub(super) fn root_item(at: u64, generation: u64, changed: (u64, u32)) -> Vec<u8> {
    let mut item = vec![0; 439];
    item[160..168].copy_from_slice(&generation.to_le_bytes());
    item[176..184].copy_from_slice(&at.to_le_bytes());
    item[327..335].copy_from_slice(&changed.0.to_le_bytes());
    item[335..339].copy_from_slice(&changed.1.to_le_bytes());
    item
}

struct Member {
    file: tempfile::NamedTempFile,
    sb: Super,
}

impl Member {
    /// At this transaction, its files changed at this time.
    fn new(generation: u64, changed: (u64, u32)) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(40 << 20).unwrap();
        let mut block = craft(OFFSET, generation, ROOT, 0);
        block[0x58..0x60].copy_from_slice(&SYSTEM.to_le_bytes());
        block[0xa4..0xac].copy_from_slice(&1_u64.to_le_bytes());
        block[0x94..0x98].copy_from_slice(&u32::try_from(NODE).unwrap().to_le_bytes());
        seal(&mut block);
        let sb = Super::parse(&block, OFFSET).unwrap().unwrap();
        let member = Self { file, sb };
        let chunks = [((256, 228, META), chunk(8 << 20, 1 << 2 | 1 << 4, &[(1, ON_MEMBER), (2, ON_MEMBER)]))];
        // The crafted system chunk lies at 1 MiB on member 1.
        member.file.as_file().write_all_at(&leaf(SYSTEM, 3, 1, &chunks), 1 << 20).unwrap();
        member.commit(ROOT, FILES, generation, changed);
        member
    }

    fn write(&self, at: u64, block: &[u8]) {
        self.file.as_file().write_all_at(block, ON_MEMBER + at - META).unwrap();
    }

    fn commit(&self, root: u64, files: u64, generation: u64, changed: (u64, u32)) {
        let inode = ((257, 1, 0), [&changed.0.to_le_bytes()[..], &changed.1.to_le_bytes()].concat());
        self.write(files, &leaf(files, 5, generation, &[inode]));
        self.write(root, &leaf(root, 1, generation, &[((5, 132, 0), root_item(files, generation, changed))]));
    }

    fn reader(&self) -> Reader {
        Reader::open(self.file.path(), &self.sb, &[]).unwrap()
    }
}

fn told(one: &Member, other: &Member, other_root: (u64, u64)) -> Evidence {
    let (one_reads, other_reads) = (one.reader(), other.reader());
    let one_side = Side { reader: &one_reads, root: (ROOT, 38) };
    compare(&one_side, 38, &Side { reader: &other_reads, root: other_root }, &[1])
}

#[test]
fn the_same_state_is_the_same_and_two_of_one_number_are_not() {
    let one = Member::new(38, (1000, 1));
    let same = told(&one, &Member::new(38, (1000, 1)), (ROOT, 38));
    assert!(same.same >= 2 && same.contrary == 0, "{same:?}");
    // Everything agrees but one nanosecond.
    let other = told(&one, &Member::new(38, (1000, 2)), (ROOT, 38));
    assert!(other.contrary >= 1, "{other:?}");
}

#[test]
fn a_state_that_was_gone_through_is_known_by_what_is_left_of_it() {
    let one = Member::new(38, (1000, 1));
    let (root, files) = (META + 8 * NODE, META + 9 * NODE);
    let later = Member::new(38, (1000, 1));
    later.commit(root, files, 40, (2000, 1));
    let evidence = told(&one, &later, (root, 40));
    assert!(evidence.same >= 1 && evidence.contrary == 0, "{evidence:?}");
    // It went on from another state of the same number.
    let split = Member::new(38, (1000, 7));
    split.commit(root, files, 40, (2000, 1));
    assert!(told(&one, &split, (root, 40)).contrary >= 1);
    // Everything of that time was written over since: nothing is told.
    later.commit(ROOT, FILES, 40, (2000, 1));
    assert_eq!(told(&one, &later, (root, 40)), Evidence::default());
    // What is damaged tells nothing either.
    later.write(ROOT, &[0x5a; BYTES]);
    later.write(FILES, &[0; BYTES]);
    assert_eq!(told(&one, &later, (root, 40)), Evidence::default());
}

#[test]
fn the_last_change_and_the_bytes_in_use_are_read_from_the_trees() {
    let member = Member::new(38, (1000, 5));
    let reader = member.reader();
    assert_eq!(reader.changed((ROOT, 38)).unwrap().as_nanosecond(), 1_000_000_000_005);
    let mut used = reader.used().unwrap();
    used.sort_by_key(|range| range.start);
    assert_eq!(used, [1 << 20..9 << 20, ON_MEMBER..ON_MEMBER + (8 << 20)]);
    // A map with a hole is no map of what is in use.
    member.file.as_file().write_all_at(&[0; 200], 1 << 20).unwrap();
    assert_eq!(member.reader().used(), None);
    assert_eq!(member.reader().changed((ROOT, 38)), None);
}

#[test]
fn a_log_of_the_next_transaction_is_found_wherever_it_lies() {
    const LOG: u64 = u64::MAX - 5;
    let member = Member::new(38, (1000, 5));
    let log = |generation| member.reader().has_log_after(generation, &mut || true);
    assert_eq!(log(38), Some(false));
    member.write(META + 300 * NODE, &leaf(META + 300 * NODE, LOG, 38, &[]));
    assert_eq!(log(38), Some(false), "that one was taken into the transaction");
    member.write(META + 400 * NODE, &leaf(META + 400 * NODE, LOG, 39, &[]));
    assert_eq!(log(38), Some(true));
    assert_eq!(member.reader().has_log_after(39, &mut || false), None, "stopped");
}
