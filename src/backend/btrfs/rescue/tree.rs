//! The trees of a btrfs, read without a mount: as much of them as is needed to tell one past from two. A block counts only when its
//! checksum, its filesystem, its own address and the transaction that its parent names are right (kernel: `struct btrfs_header`,
//! `btrfs_key_ptr`, `btrfs_item`).

use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::{
    super::superblock::{field, format_uuid},
    crc32c::crc32c,
    map::{Chunk, Map},
    supers::{Super, system_chunks},
};

const HEADER: usize = 101;
/// A pointer of a node: key, address, generation.
const POINTER: usize = 33;
/// An item of a leaf: key, place, length.
const ITEM: usize = 25;
const CHUNK_ITEM: u8 = 228;
const ROOT_ITEM: u8 = 132;
/// Trees (kernel: `BTRFS_ROOT_TREE_OBJECTID` and its like).
const ROOT_TREE: u64 = 1;
const FS_TREE: u64 = 5;
const FIRST_SUBVOLUME: u64 = 256;
const LAST_SUBVOLUME: u64 = u64::MAX - 255;
const LOG_TREE: u64 = u64::MAX - 5;
/// Deeper is no tree (kernel: `BTRFS_MAX_LEVEL`).
const HIGHEST: u8 = 8;
/// How many blocks are read at most for one question.
const MOST: usize = 50_000;

/// A member and where it is read from.
pub(super) type Known = (PathBuf, Super);

/// What one member's superblock leads to. What lies on other members only is read there.
#[derive(Debug)]
pub(super) struct Reader {
    /// Member and file, its own first.
    files: Vec<(u64, File)>,
    fsid: String,
    own: u64,
    node_size: usize,
    map: Map,
    /// Whether all of the tree of chunks could be read.
    whole: bool,
}

/// A block of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) at: u64,
    pub(super) generation: u64,
    pub(super) owner: u64,
    pub(super) level: u8,
    count: usize,
    bytes: Vec<u8>,
}

impl Reader {
    /// Opens a member, and of `all` those of the same filesystem; what of the tree of chunks cannot be read is not in the map.
    ///
    /// # Errors
    /// The device cannot be opened, or its checksums are of a kind that is not known here.
    pub(super) fn open(path: &Path, sb: &Super, all: &[Known]) -> io::Result<Self> {
        let node_size = usize::try_from(sb.node_size).unwrap_or_default();
        if !sb.crc32c || !(4096..=65536).contains(&node_size) {
            return Err(io::Error::from(io::ErrorKind::Unsupported));
        }
        let mut files = vec![(sb.own.devid, open(path)?)];
        let others = all.iter().filter(|(other, theirs)| {
            // Of two that say they are one member, neither speaks for the other.
            other != path && theirs.own.fsid == sb.own.fsid && theirs.own.devid != sb.own.devid
        });
        files.extend(others.filter_map(|(other, theirs)| Some((theirs.own.devid, open(other).ok()?))));
        let mut map = Map::default();
        map.add(system_chunks(&sb.block).unwrap_or_default());
        let (fsid, own) = (sb.own.fsid.clone(), sb.own.devid);
        let mut reader = Self { files, fsid, own, node_size, map, whole: false };
        let mut chunks = Vec::new();
        let root = (sb.chunk_root.0, sb.chunk_root_generation);
        let whole = reader.walk(root, 0, &mut MOST.clone(), &mut |block| {
            let items = block.items().filter(|(_, kind, ..)| *kind == CHUNK_ITEM);
            chunks.extend(items.map(|(_, _, start, item)| Chunk::parse(item, start)));
            true
        });
        reader.whole = whole && chunks.iter().all(Option::is_some);
        reader.map.add(chunks.into_iter().flatten().map(|(chunk, _)| chunk));
        Ok(reader)
    }

    /// The member whose superblock it reads by.
    pub(super) fn own(&self) -> u64 {
        self.own
    }

    /// The map, where all of it is known.
    pub(super) fn map(&self) -> Option<&Map> {
        self.whole.then_some(&self.map)
    }

    /// The good blocks at an address, with the members that they lie on, its own first.
    fn copies(&self, address: u64) -> impl Iterator<Item = (u64, Block)> {
        let places = self.map.copies(address, self.node_size as u64);
        self.files.iter().flat_map(move |(member, file)| {
            let here: Vec<_> =
                places.iter().filter(|(devid, _)| devid == member).map(|(_, at)| *at).collect();
            here.into_iter().filter_map(move |at| {
                let mut bytes = vec![0; self.node_size];
                file.read_exact_at(&mut bytes, at).ok()?;
                Some((*member, self.parse(bytes, address)?))
            })
        })
    }

    /// The block at an address that this transaction wrote; nothing where no member has a good one.
    fn block(&self, address: u64, generation: u64) -> Option<Block> {
        self.copies(address).map(|(_, block)| block).find(|block| block.generation == generation)
    }

    /// The block at an address on one member; nothing where it has no good one there.
    pub(super) fn block_on(&self, member: u64, address: u64) -> Option<Block> {
        self.copies(address).find(|(on, _)| *on == member).map(|(_, block)| block)
    }

    fn parse(&self, bytes: Vec<u8>, address: u64) -> Option<Block> {
        let number = |at: usize| field::<8>(&bytes, at).map(u64::from_le_bytes);
        let at = number(48)?;
        let known = address == at
            && format_uuid(&field::<16>(&bytes, 32)?) == self.fsid
            && field::<4>(&bytes, 0).map(u32::from_le_bytes)? == crc32c(bytes.get(32..)?);
        let (generation, owner) = (number(80)?, number(88)?);
        let count = usize::try_from(field::<4>(&bytes, 96).map(u32::from_le_bytes)?).ok()?;
        let level = *bytes.get(100)?;
        (known && level < HIGHEST).then_some(Block { at, generation, owner, level, count, bytes })
    }

    /// Calls `each` on every block below and at an address that is not older than `since`, until it says no. Says whether all of them could
    /// be read.
    fn walk(
        &self,
        (root, of): (u64, u64),
        since: u64,
        left: &mut usize,
        each: &mut dyn FnMut(&Block) -> bool,
    ) -> bool {
        let mut waiting = vec![(root, of, HIGHEST)];
        let mut whole = true;
        while let Some((address, generation, below)) = waiting.pop() {
            if *left == 0 {
                return false;
            }
            *left -= 1;
            match self.block(address, generation).filter(|block| block.level < below) {
                Some(block) if block.generation >= since => {
                    let new = block.pointers().filter(|(_, generation)| *generation >= since);
                    waiting.extend(new.map(|(address, generation)| (address, generation, block.level)));
                    if !each(&block) {
                        *left = 0;
                    }
                }
                Some(_) => {}
                None => whole = false,
            }
        }
        whole
    }

    /// Every block of any tree of the state with this root (address and transaction) that is not older than `since`, as far as it can be read.
    pub(super) fn state(&self, root: (u64, u64), since: u64, each: &mut dyn FnMut(&Block)) {
        self.state_until(root, since, &mut |block| {
            each(block);
            true
        });
    }

    /// The same, until `each` says no.
    pub(super) fn state_until(&self, root: (u64, u64), since: u64, each: &mut dyn FnMut(&Block) -> bool) {
        let (mut left, mut roots) = (MOST, Vec::new());
        self.walk(root, since, &mut left, &mut |block| {
            let new = block.roots().filter(|found| found.generation >= since);
            roots.extend(new.map(|found| (found.at, found.generation)));
            each(block)
        });
        for root in roots {
            self.walk(root, since, &mut left, each);
        }
    }

    /// When the files of the state with this root were last changed.
    pub(super) fn changed(&self, root: (u64, u64)) -> Option<Timestamp> {
        let mut last = None;
        self.walk(root, 0, &mut MOST.clone(), &mut |block| {
            last = last.max(
                block.roots().filter(|found| is_files(found.tree)).filter_map(|found| found.changed).max(),
            );
            true
        });
        last
    }

    /// Whether any block of a log of fsyncs is there that belongs to the transaction after `generation`. `None`: not everything where one
    /// may lie can be looked through.
    pub(super) fn has_log_after(&self, generation: u64, go_on: &mut dyn FnMut() -> bool) -> Option<bool> {
        let mut header = [0; HEADER];
        let present: Vec<u64> = self.files.iter().map(|(member, _)| *member).collect();
        let places = self.map()?.metadata(&present)?;
        for (member, range) in &places {
            for (_, file) in self.files.iter().filter(|(devid, _)| devid == member) {
                for at in range.clone().step_by(self.node_size) {
                    file.read_exact_at(&mut header, at).ok()?;
                    let number = |at: usize| field::<8>(&header, at).map(u64::from_le_bytes);
                    let ours = field::<16>(&header, 32).is_some_and(|fsid| format_uuid(&fsid) == self.fsid);
                    if ours && number(88) == Some(LOG_TREE) && number(80) > Some(generation) {
                        return Some(true);
                    }
                }
                if !go_on() {
                    return None;
                }
            }
        }
        (!places.is_empty()).then_some(false)
    }

    /// The bytes of its own member that the filesystem has given to anything, superblocks not counted; nothing where that cannot be told.
    pub(super) fn used(&self) -> Option<Vec<Range<u64>>> {
        Some(self.map()?.used(self.own))
    }
}

fn open(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    // Headers far from each other are read: what follows one is of no use.
    let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM);
    Ok(file)
}

/// Another tree that a block of the tree of roots leads to.
struct Root {
    tree: u64,
    at: u64,
    generation: u64,
    changed: Option<Timestamp>,
}

impl Block {
    fn number(&self, at: usize) -> Option<u64> {
        field::<8>(&self.bytes, at).map(u64::from_le_bytes)
    }

    /// Address and generation of what a node leads to.
    fn pointers(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let count = if self.level > 0 { self.count } else { 0 };
        (0..count).map_while(|index| {
            let at = HEADER + index * POINTER;
            Some((self.number(at + 17)?, self.number(at + 25)?))
        })
    }

    /// Key and content of a leaf's items.
    fn items(&self) -> impl Iterator<Item = (u64, u8, u64, &[u8])> {
        let count = if self.level == 0 { self.count } else { 0 };
        (0..count).map_while(|index| {
            let at = HEADER + index * ITEM;
            let word = |at: usize| field::<4>(&self.bytes, at).map(u32::from_le_bytes);
            let start = HEADER.checked_add(usize::try_from(word(at + 17)?).ok()?)?;
            let end = start.checked_add(usize::try_from(word(at + 21)?).ok()?)?;
            Some((
                self.number(at)?,
                *self.bytes.get(at + 8)?,
                self.number(at + 9)?,
                self.bytes.get(start..end)?,
            ))
        })
    }

    /// The trees that it leads to (kernel: `struct btrfs_root_item`: generation at 160, address at 176, time of the last change at 327).
    fn roots(&self) -> impl Iterator<Item = Root> {
        let items = self.items().filter(|(_, kind, ..)| *kind == ROOT_ITEM && self.owner == ROOT_TREE);
        items.filter_map(|(tree, _, _, item)| {
            let number = |at: usize| field::<8>(item, at).map(u64::from_le_bytes);
            let seconds = number(327).and_then(|s| i64::try_from(s).ok()).filter(|s| *s > 0);
            let nanos = field::<4>(item, 335).map(u32::from_le_bytes).and_then(|n| i32::try_from(n).ok());
            let changed = seconds.zip(nanos).and_then(|(s, n)| Timestamp::new(s, n).ok());
            Some(Root { tree, at: number(176)?, generation: number(160)?, changed })
        })
    }

    /// A leaf that carries times to the nanosecond: two pasts do not make the same one.
    pub(super) fn is_telling(&self) -> bool {
        self.level == 0 && (self.owner == ROOT_TREE || is_files(self.owner))
    }

    /// Is it the same block, to the byte?
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

fn is_files(tree: u64) -> bool {
    tree == FS_TREE || (FIRST_SUBVOLUME..=LAST_SUBVOLUME).contains(&tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A superblock whose chunks are known; a leaf of the tree of roots with one root, and a node.
    const SUPERBLOCK: &[u8] = include_bytes!("../../../../tests/fixtures/btrfs/superblock.bin");

    fn leaf() -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
        put(80, &38_u64.to_le_bytes());
        put(88, &ROOT_TREE.to_le_bytes());
        put(96, &1_u32.to_le_bytes());
        put(HEADER, &FS_TREE.to_le_bytes());
        put(HEADER + 8, &[ROOT_ITEM]);
        put(HEADER + 17, &3000_u32.to_le_bytes());
        put(HEADER + 21, &439_u32.to_le_bytes());
        put(HEADER + 3000 + 160, &38_u64.to_le_bytes());
        put(HEADER + 3000 + 176, &(5_u64 << 20).to_le_bytes());
        put(HEADER + 3000 + 327, &1_790_000_000_u64.to_le_bytes());
        put(HEADER + 3000 + 335, &17_u32.to_le_bytes());
        bytes
    }

    fn block(bytes: &[u8]) -> Option<Block> {
        let number = |at: usize| field::<8>(bytes, at).map(u64::from_le_bytes);
        let count = usize::try_from(field::<4>(bytes, 96).map(u32::from_le_bytes)?).ok()?;
        let level = *bytes.get(100)?;
        Some(Block {
            at: number(48)?,
            generation: number(80)?,
            owner: number(88)?,
            level,
            count,
            bytes: bytes.to_vec(),
        })
    }

    #[test]
    fn a_root_is_found_in_a_leaf() {
        let found: Vec<_> = block(&leaf()).unwrap().roots().map(|r| (r.tree, r.at, r.changed)).collect();
        assert_eq!(found, [(FS_TREE, 5 << 20, Some(Timestamp::new(1_790_000_000, 17).unwrap()))]);
    }

    fn samples() -> &'static [&'static [u8]] {
        let mut node = leaf();
        node[100] = 1;
        let kept = [leaf(), node].map(|bytes| &*Box::leak(bytes.into_boxed_slice()));
        Box::leak(Box::new(kept))
    }

    proptest::proptest! {
        #[test]
        fn fuzz_tree_block(bytes in crate::fuzz::mutated(samples())) {
            if let Some(block) = block(&bytes) {
                let (items, pointers) = (block.items().count(), block.pointers().count());
                assert!((items + pointers) * ITEM <= bytes.len(), "{items} {pointers}");
                assert!(block.roots().count() <= items && block.is_same(&block));
            }
        }
    }

    crate::fuzz::fuzzed!(fuzz_chunk_map, bytes[SUPERBLOCK], |bytes| {
        let known = system_chunks(bytes).unwrap_or_default();
        let mut map = Map::default();
        map.add(known.iter().cloned());
        let files = vec![(1, File::open("/dev/null").unwrap())];
        let reader = Reader { files, fsid: String::new(), own: 1, node_size: 16384, map, whole: true };
        for chunk in known {
            for address in [chunk.start, chunk.start.saturating_add(chunk.length / 2), u64::MAX] {
                assert_eq!(reader.block(address, 38), None);
            }
        }
        assert_ne!(reader.has_log_after(38, &mut || true), Some(true));
        reader.used();
    });
}
