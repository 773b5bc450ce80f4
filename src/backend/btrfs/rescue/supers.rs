//! Every copy of a member's superblock, judged by its checksum. The first one is what the kernel mounts by; the others are written only
//! when a transaction is committed, so none of them knows of what was fsynced since (kernel: `write_all_supers` is told to write one
//! copy by `btrfs_sync_log`).

use std::{io, ops::Range, path::Path};

pub(super) use super::super::superblock::seal;
use super::{
    super::superblock::{CRC32C, Checksum, OFFSET, SIZE, Superblock, field},
    map::Chunk,
};
use crate::{backend::ParseError, host::fresh::Fresh};

/// Where the second copy lies.
pub(super) const SECOND: u64 = 64 << 20;
/// Where the copies lie, in bytes from the start of the device (kernel: `btrfs_sb_offset`).
pub(super) const PLACES: [u64; 3] = [OFFSET, SECOND, 256 << 30];

/// What a superblock says of the member that it lies on (kernel: `struct btrfs_dev_item`).
const MEMBER: Range<usize> = 0xc9..0x12b;
/// A root's backup (kernel: `struct btrfs_root_backup`): four of them, of the last four transactions.
const BACKUPS: usize = 0xb2b;
const BACKUP: usize = 168;

/// A superblock with all that a rescue needs to know of it (kernel: `struct btrfs_super_block`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Super {
    /// Who the device belongs to.
    pub(super) own: Superblock,
    /// The filesystem's label.
    pub(super) label: String,
    /// The tree of roots: where, in the filesystem's own addresses, and how high.
    pub(super) root: (u64, u8),
    /// The tree of chunks, likewise, with the transaction that wrote it.
    pub(super) chunk_root: (u64, u8),
    pub(super) chunk_root_generation: u64,
    /// The log of what was fsynced since that transaction; 0 where nothing was.
    pub(super) log_root: u64,
    /// Size of a tree block in bytes.
    pub(super) node_size: u32,
    /// Earlier transactions: number and place of the tree of roots, the newest first.
    pub(super) backups: Vec<(u64, u64)>,
    /// Whether its own tree of chunks is kept on more than one member.
    pub(super) mirrored: bool,
    /// Whether its checksum is of a kind that can be computed here, and right.
    pub(super) proven: bool,
    /// Whether that kind can be computed here.
    pub(super) crc32c: bool,
    /// The block as it lies there.
    pub(super) block: Vec<u8>,
}

/// What lies at the place of one copy.
#[derive(Debug)]
pub(super) enum Copy {
    /// A superblock, right as far as can be told.
    Good(Box<Super>),
    /// No superblock.
    None,
    /// A damaged one, and how.
    Bad(String),
    /// It cannot be read.
    Unread(io::Error),
}

impl Super {
    /// Reads the block of the copy that belongs at `place`. `None` where there is no btrfs signature.
    ///
    /// # Errors
    /// It is damaged.
    pub(super) fn parse(block: &[u8], place: u64) -> Result<Option<Self>, ParseError> {
        let Some(own) = Superblock::parse_at(block, place)? else { return Ok(None) };
        let bad = |what: &str| ParseError::new("btrfs superblock", what);
        let short = || bad("it is cut short");
        let number = |at: usize| field::<8>(block, at).map(u64::from_le_bytes).ok_or_else(short);
        let word = |at: usize| field::<4>(block, at).map(u32::from_le_bytes).ok_or_else(short);
        let byte = |at: usize| block.get(at).copied().ok_or_else(short);
        let kind = field::<2>(block, 0xc4).map(u16::from_le_bytes).ok_or_else(short)?;
        if own.checksum == Checksum::Wrong {
            return Err(bad("its checksum is wrong"));
        }
        let label = block.get(0x12b..0x22b).ok_or_else(short)?;
        let label = label.split(|b| *b == 0).next().unwrap_or_default();
        let mut backups = Vec::new();
        for slot in 0..4 {
            let at = BACKUPS + slot * BACKUP;
            let (place, generation) = (number(at)?, number(at + 8)?);
            if place != 0 {
                backups.push((generation, place));
            }
        }
        backups.sort_unstable_by(|a, b| b.cmp(a));
        Ok(Some(Self {
            label: String::from_utf8_lossy(label).into_owned(),
            root: (number(0x50)?, byte(0xc6)?),
            chunk_root: (number(0x58)?, byte(0xc7)?),
            chunk_root_generation: number(0xa4)?,
            log_root: number(0x60)?,
            node_size: word(0x94)?,
            backups,
            mirrored: system_chunks(block)
                .ok_or_else(|| bad("its list of chunks is garbled"))?
                .iter()
                .any(Chunk::is_mirrored),
            proven: own.checksum == Checksum::Right,
            crc32c: kind == CRC32C,
            block: block.to_vec(),
            own,
        }))
    }

    /// Where the tree of roots is, and of which transaction.
    pub(super) fn state(&self) -> (u64, u64) {
        (self.root.0, self.own.generation)
    }

    /// This block as the first copy, which the kernel mounts by; with what another member's first copy of the same transaction says, where
    /// that is given: all of them say the same but for the member itself (kernel: `write_all_supers`).
    ///
    /// # Errors
    /// Its checksum cannot be computed here.
    pub(super) fn as_first(&self, like: Option<&Self>) -> Result<Vec<u8>, ParseError> {
        if !self.crc32c || like.is_some_and(|like| !like.crc32c) {
            return Err(ParseError::new("btrfs superblock", "its kind of checksum cannot be computed here"));
        }
        let mut block = like.unwrap_or(self).block.clone();
        if let Some(own) = self.block.get(MEMBER) {
            put(&mut block, MEMBER.start, own);
        }
        put(&mut block, 0x30, &OFFSET.to_le_bytes());
        seal(&mut block);
        Ok(block)
    }
}

fn put(block: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(to) = block.get_mut(at..at + bytes.len()) {
        to.copy_from_slice(bytes);
    }
}

/// The system chunks that the superblock itself knows.
pub(super) fn system_chunks(block: &[u8]) -> Option<Vec<Chunk>> {
    let length = usize::try_from(field::<4>(block, 0xa0).map(u32::from_le_bytes)?).ok()?;
    let mut rest = block.get(0x32b..0x32b + 2048)?.get(..length)?;
    let mut chunks = Vec::new();
    while !rest.is_empty() {
        let start = field::<8>(rest, 9).map(u64::from_le_bytes)?;
        let (chunk, length) = Chunk::parse(rest.get(17..)?, start)?;
        chunks.push(chunk);
        rest = rest.get(17 + length..)?;
    }
    Some(chunks)
}

/// What lies at each place of a superblock on a device, of those that the device is large enough for.
///
/// # Errors
/// The device cannot be opened.
pub(super) fn read(path: &Path) -> io::Result<Vec<(u64, Copy)>> {
    let device = Fresh::open(path)?;
    let size = device.size()?;
    if size == 0 {
        return Err(io::Error::from_raw_os_error(nix::libc::ENXIO));
    }
    let places = PLACES.into_iter().filter(|place| place + SIZE as u64 <= size);
    Ok(places.map(|place| (place, read_one(&device, place))).collect())
}

fn read_one(device: &Fresh, place: u64) -> Copy {
    match device.block(place) {
        Err(e) => Copy::Unread(e),
        Ok(None) => Copy::None,
        Ok(Some(block)) => match Super::parse(&block, place) {
            Ok(Some(found)) if found.own.finished => Copy::Good(Box::new(found)),
            Ok(_) => Copy::None,
            Err(e) => Copy::Bad(e.to_string()),
        },
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::{
        super::{super::superblock::tests as crafted, map::tests::item},
        *,
    };

    /// A sealed superblock at `place`, with these roots.
    pub(in super::super) fn craft(place: u64, generation: u64, root: u64, log: u64) -> Vec<u8> {
        let mut block = crafted::craft(&Superblock { generation, ..crafted::sample() });
        put(&mut block, 0x30, &place.to_le_bytes());
        put(&mut block, 0x50, &root.to_le_bytes());
        put(&mut block, 0x60, &log.to_le_bytes());
        put(&mut block, 0x12b, b"lightning");
        for (slot, back) in (0..4_u64).enumerate() {
            put(&mut block, BACKUPS + slot * BACKUP, &(root - back * 16384).to_le_bytes());
            put(&mut block, BACKUPS + slot * BACKUP + 8, &(generation - back).to_le_bytes());
        }
        // One system chunk, raid1 over members 1 and 2.
        let chunk = item(8 << 20, 1 << 4 | 1 << 1, &[(1, 1 << 20), (2, 2 << 20)]);
        let chunk = [&[0; 9][..], &(22_u64 << 20).to_le_bytes(), &chunk].concat();
        put(&mut block, 0xa0, &u32::try_from(chunk.len()).unwrap().to_le_bytes());
        put(&mut block, 0x32b, &chunk);
        seal(&mut block);
        block
    }

    #[test]
    fn a_copy_is_read_and_becomes_the_first() {
        let second = Super::parse(&craft(PLACES[1], 38, 5 << 20, 0), PLACES[1]).unwrap().unwrap();
        assert_eq!((second.label.as_str(), second.mirrored, second.proven), ("lightning", true, true));
        assert_eq!(second.backups, (0..4).map(|b| (38 - b, (5 << 20) - b * 16384)).collect::<Vec<_>>());
        let first = Super::parse(&second.as_first(None).unwrap(), OFFSET).unwrap().unwrap();
        assert_eq!((first.own.clone(), first.root), (second.own.clone(), second.root));
        // Another member knows of the log; who the member is it says itself.
        let mut other = craft(OFFSET, 38, 5 << 20, 7);
        put(&mut other, 0xc9, &2_u64.to_le_bytes());
        seal(&mut other);
        let other = Super::parse(&other, OFFSET).unwrap().unwrap();
        let like = Super::parse(&second.as_first(Some(&other)).unwrap(), OFFSET).unwrap().unwrap();
        assert_eq!((other.own.devid, like.own, like.log_root), (2, second.own.clone(), 7));
        assert!(Super::parse(&second.block, OFFSET).is_err(), "a block says where it belongs");
    }

    #[test]
    fn one_wrong_bit_is_seen() {
        let whole = craft(OFFSET, 38, 5 << 20, 7);
        for at in [0, 0x21, 0x50, 0x12b, 0xfff] {
            let mut block = whole.clone();
            block[at] ^= 1;
            assert!(Super::parse(&block, OFFSET).is_err(), "{at:#x}");
        }
        let mut none = whole;
        none[0x40] ^= 1;
        assert_eq!(Super::parse(&none, OFFSET).unwrap(), None);
    }

    #[test]
    fn the_other_copies_are_found_where_the_first_is_gone() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(65 << 20).unwrap();
        file.as_file().write_all_at(&craft(PLACES[1], 38, 5 << 20, 0), PLACES[1]).unwrap();
        let copies = read(file.path()).unwrap();
        assert!(
            matches!(&copies[..], [(_, Copy::None), (_, Copy::Good(second))] if second.own.generation == 38),
            "{copies:?}"
        );
    }

    proptest::proptest! {
        #[test]
        fn never_panics(mut bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 4096), length in 0_u32..4096) {
            bytes[0x40..0x48].copy_from_slice(b"_BHRfS_M");
            bytes[0x30..0x38].copy_from_slice(&OFFSET.to_le_bytes());
            bytes[0xc4..0xc6].copy_from_slice(&[0, 0]);
            bytes[0xa0..0xa4].copy_from_slice(&length.to_le_bytes());
            seal(&mut bytes);
            let _ = Super::parse(&bytes, OFFSET);
        }
    }

    crate::fuzz::fuzzed!(fuzz_rescue_superblock, bytes [
        include_bytes!("../../../../tests/fixtures/btrfs/superblock.bin"),
    ], |bytes| {
        // A checksum that is right tells nothing of what it is of.
        let mut block = bytes.to_vec();
        seal(&mut block);
        if let Ok(Some(found)) = Super::parse(&block, OFFSET) {
            if found.crc32c {
                let first = Super::parse(&found.as_first(None).unwrap(), OFFSET).unwrap().unwrap();
                assert_eq!((first.own, first.root, first.log_root), (found.own, found.root, found.log_root));
            }
        }
        // As the kernel does, no more of its place is compared than such a checksum is long.
        let sealed = bytes.get(..4) == block.get(..4);
        assert!(sealed || !matches!(Super::parse(bytes, OFFSET), Ok(Some(found)) if found.crc32c));
    });
}
