//! A btrfs superblock: who a device belongs to, read without a process and without a mount.

use std::{io, path::Path, thread, time::Duration};

use ring::digest;

use super::{ParseError, rescue::crc32c::crc32c};
pub(super) use crate::backend::blocks::{field, format_uuid};
use crate::host::fresh::{self, Fresh};

/// Where the first copy lies, and its size in bytes (kernel: `BTRFS_SUPER_INFO_OFFSET`, `BTRFS_SUPER_INFO_SIZE`).
pub(super) const OFFSET: u64 = 64 << 10;
pub(super) const SIZE: usize = fresh::SIZE;
const MAGIC: &[u8; 8] = b"_BHRfS_M";
/// What mkfs.btrfs writes until the filesystem is whole (btrfs-progs: `BTRFS_MAGIC_TEMPORARY`).
const UNFINISHED: &[u8; 8] = b"!BHRfS_M";

/// The checksum's length in a block; what follows it is what it is of (kernel: `BTRFS_CSUM_SIZE`).
const CHECKSUM: usize = 32;
/// How long is waited before a wrong checksum is looked at again, in milliseconds: a commit may be under way.
const AGAIN: [u64; 5] = [20, 50, 100, 200, 400];

/// Is a superblock's checksum right?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checksum {
    Right,
    Wrong,
    /// It is of a kind that is not computed here: xxhash64 or BLAKE2b (kernel: `enum btrfs_csum_type`, 1 and 3).
    Unknown,
}

impl Checksum {
    fn of(block: &[u8], kind: u16) -> Option<Self> {
        let (written, content) = (block.get(..CHECKSUM)?, block.get(CHECKSUM..)?);
        let right = match kind {
            CRC32C => field::<4>(written, 0)? == crc32c(content).to_le_bytes(),
            SHA256 => written == digest::digest(&digest::SHA256, content).as_ref(),
            _ => return Some(Self::Unknown),
        };
        Some(if right { Self::Right } else { Self::Wrong })
    }
}

/// Kinds of checksums (kernel: `enum btrfs_csum_type`).
pub(super) const CRC32C: u16 = 0;
const SHA256: u16 = 2;

/// The fields of a superblock that tell who a device belongs to (kernel: `struct btrfs_super_block` and `struct btrfs_dev_item` in
/// `include/uapi/linux/btrfs_tree.h`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Superblock {
    /// The filesystem's UUID.
    pub(super) fsid: String,
    /// Whether mkfs finished.
    pub(super) finished: bool,
    /// The number of the last commit that reached this member.
    pub(super) generation: u64,
    /// How many members the filesystem has.
    pub(super) num_devices: u64,
    /// This member's number.
    pub(super) devid: u64,
    /// This member's UUID.
    pub(super) uuid: String,
    /// How much of this member the filesystem may use, in bytes.
    pub(super) total: u64,
    /// How much of it belongs to chunks, in bytes.
    pub(super) allocated: u64,
    /// Whether all of this can be believed.
    pub(super) checksum: Checksum,
}

impl Superblock {
    /// Reads the block at 64 KiB. `None` where there is no btrfs signature.
    pub(super) fn parse(block: &[u8]) -> Result<Option<Self>, ParseError> {
        Self::parse_at(block, OFFSET)
    }

    /// Reads the copy that belongs at `place`, in bytes from the start of the device. `None` where there is no btrfs signature.
    pub(super) fn parse_at(block: &[u8], place: u64) -> Result<Option<Self>, ParseError> {
        let bad = |what: &str| ParseError::new("btrfs superblock", what);
        let short = || bad("it is cut short");
        let magic = field::<8>(block, 0x40).ok_or_else(short)?;
        if magic != *MAGIC && magic != *UNFINISHED {
            return Ok(None);
        }
        let number = |at: usize| field::<8>(block, at).map(u64::from_le_bytes).ok_or_else(short);
        let uuid = |at: usize| field::<16>(block, at).map(|bytes| format_uuid(&bytes)).ok_or_else(short);
        let kind = field::<2>(block, 0xc4).map(u16::from_le_bytes).ok_or_else(short)?;
        if number(0x30)? != place {
            return Err(bad("it says that it belongs elsewhere"));
        }
        let found = Self {
            fsid: uuid(0x20)?,
            finished: magic == *MAGIC,
            generation: number(0x48)?,
            num_devices: number(0x88)?,
            devid: number(0xc9)?,
            uuid: uuid(0x10b)?,
            total: number(0xd1)?,
            allocated: number(0xd9)?,
            checksum: Checksum::of(block, kind).ok_or_else(short)?,
        };
        if found.allocated > found.total {
            return Err(bad("more is allocated than the member has"));
        }
        Ok(Some(found))
    }

    /// What is wrong with it.
    pub(super) fn damage(&self) -> Option<String> {
        (self.checksum == Checksum::Wrong).then(|| "its checksum is wrong".to_owned())
    }

    /// Reads it from a device. `None` where there is no btrfs signature, or the device is too small for one. A checksum that is wrong was
    /// so for most of a second.
    pub(super) fn read(path: &Path) -> io::Result<Option<Self>> {
        let device = Fresh::open(path)?;
        Self::settled(|| Self::read_once(&device))
    }

    fn settled(mut read: impl FnMut() -> io::Result<Option<Self>>) -> io::Result<Option<Self>> {
        let mut found = read()?;
        for wait in AGAIN {
            if !found.as_ref().is_some_and(|found| found.checksum == Checksum::Wrong) {
                break;
            }
            thread::sleep(Duration::from_millis(wait));
            found = read()?;
        }
        Ok(found)
    }

    fn read_once(device: &Fresh) -> io::Result<Option<Self>> {
        let Some(block) = device.block(OFFSET)? else { return Ok(None) };
        Self::parse(&block).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }
}

/// Writes a block's checksum, CRC-32C, into it.
pub(super) fn seal(block: &mut [u8]) {
    if let Some((written, content)) = block.split_first_chunk_mut::<CHECKSUM>() {
        let [a, b, c, d] = crc32c(content).to_le_bytes();
        *written = [0; CHECKSUM];
        let [first, second, third, fourth, ..] = written;
        (*first, *second, *third, *fourth) = (a, b, c, d);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A superblock with these fields, as mkfs would write it.
    pub(in crate::backend) fn craft(sb: &Superblock) -> Vec<u8> {
        let mut block = vec![0_u8; SIZE];
        let uuid = |text: &str| u128::from_str_radix(&text.replace('-', ""), 16).unwrap().to_be_bytes();
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x20, &uuid(&sb.fsid));
        put(0x30, &OFFSET.to_le_bytes());
        put(0x40, if sb.finished { MAGIC } else { UNFINISHED });
        put(0x48, &sb.generation.to_le_bytes());
        put(0x88, &sb.num_devices.to_le_bytes());
        put(0xc9, &sb.devid.to_le_bytes());
        put(0xd1, &sb.total.to_le_bytes());
        put(0xd9, &sb.allocated.to_le_bytes());
        put(0x10b, &uuid(&sb.uuid));
        seal(&mut block);
        if sb.checksum == Checksum::Wrong {
            block[0] ^= 1;
        }
        block
    }

    pub(in crate::backend) fn sample() -> Superblock {
        Superblock {
            fsid: "25e3e740-8cd1-4cc7-9b25-b175081f4acf".into(),
            finished: true,
            generation: 38,
            num_devices: 2,
            devid: 1,
            uuid: "5515c27f-43dc-47b1-a1df-6c7b3533cac5".into(),
            total: 536_870_912,
            allocated: 129_171_456,
            checksum: Checksum::Right,
        }
    }

    #[test]
    fn reads_back_what_was_written() {
        for finished in [true, false] {
            let sb = Superblock { finished, ..sample() };
            assert_eq!(Superblock::parse(&craft(&sb)).unwrap(), Some(sb));
        }
    }

    #[test]
    fn one_wrong_bit_is_seen_by_each_kind_of_checksum_that_is_known() {
        let of = |block: &[u8]| Superblock::parse(block).unwrap().unwrap().checksum;
        let recorded = include_bytes!("../../../tests/fixtures/btrfs/superblock.bin");
        let mut sha = craft(&sample());
        sha[0xc4] = 2;
        let sum = digest::digest(&digest::SHA256, &sha[CHECKSUM..]);
        sha[..CHECKSUM].copy_from_slice(sum.as_ref());
        for whole in [&craft(&sample())[..], recorded, &sha] {
            assert_eq!(of(whole), Checksum::Right);
            for at in [0, 3, 0x48, 0x12b, SIZE - 1] {
                let mut block = whole.to_vec();
                block[at] ^= 0x10;
                assert_eq!(of(&block), Checksum::Wrong, "{at:#x}");
            }
        }
        let mut other = craft(&sample());
        other[0xc4] = 1;
        assert_eq!(of(&other), Checksum::Unknown);
    }

    #[test]
    fn a_checksum_counts_as_wrong_only_when_it_stays_so() {
        let wrong = || Ok(Some(Superblock { checksum: Checksum::Wrong, ..sample() }));
        let mut left = AGAIN.len();
        let read = || match left.checked_sub(1) {
            Some(less) => {
                left = less;
                wrong()
            }
            None => Ok(Some(sample())),
        };
        assert_eq!(Superblock::settled(read).unwrap(), Some(sample()));
        assert_eq!(Superblock::settled(wrong).unwrap(), wrong().unwrap());
        let mut first = true;
        let torn = || if std::mem::take(&mut first) { wrong() } else { Err(io::Error::other("gone")) };
        assert!(Superblock::settled(torn).is_err());
    }

    #[test]
    fn no_signature_is_no_error_and_nonsense_is() {
        assert_eq!(Superblock::parse(&[0; SIZE]).unwrap(), None);
        assert!(Superblock::parse(&[]).is_err());
        assert!(Superblock::parse(&craft(&sample())[..0x100]).is_err());
        let mut moved = craft(&sample());
        moved[0x30] = 1;
        assert!(Superblock::parse(&moved).is_err());
        assert!(Superblock::parse(&craft(&Superblock { total: 1, ..sample() })).is_err());
    }

    crate::fuzz::fuzzed!(fuzz_superblock, bytes [
        include_bytes!("../../../tests/fixtures/btrfs/superblock.bin"),
    ], |block| {
        if let Ok(Some(found)) = Superblock::parse(block) {
            assert!(found.allocated <= found.total, "{found:?}");
        }
    });
}
