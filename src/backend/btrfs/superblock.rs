//! A btrfs superblock: who a device belongs to, read without a process and without a mount.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt as _, FileTypeExt as _},
    path::Path,
};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::ParseError;
pub(super) use crate::backend::blocks::{field, format_uuid};

/// Where the first copy lies, and its size in bytes (kernel: `BTRFS_SUPER_INFO_OFFSET`, `BTRFS_SUPER_INFO_SIZE`).
pub(super) const OFFSET: u64 = 64 << 10;
pub(super) const SIZE: usize = 4096;
const MAGIC: &[u8; 8] = b"_BHRfS_M";
/// What mkfs.btrfs writes until the filesystem is whole (btrfs-progs: `BTRFS_MAGIC_TEMPORARY`).
const UNFINISHED: &[u8; 8] = b"!BHRfS_M";

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
        };
        if found.allocated > found.total {
            return Err(bad("more is allocated than the member has"));
        }
        Ok(Some(found))
    }

    /// Reads it from a device. `None` where there is no btrfs signature, or the device is too small for one.
    pub(super) fn read(path: &Path) -> io::Result<Option<Self>> {
        let file = File::open(path)?;
        // What other openers of the device left in the page cache may be older than what is on it.
        let _ = posix_fadvise(&file, 64 << 10, 4096, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        let mut block = [0; SIZE];
        match file.read_exact_at(&mut block, OFFSET) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                // A block device that was pulled but is still open has size 0.
                let pulled = file.metadata()?.file_type().is_block_device();
                return if pulled { Err(io::Error::from_raw_os_error(nix::libc::ENXIO)) } else { Ok(None) };
            }
            Err(e) => return Err(e),
        }
        Self::parse(&block).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
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
