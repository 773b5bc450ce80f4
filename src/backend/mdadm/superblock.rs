//! An md superblock of version 1.2: who a device belongs to, read without a process and whether or not the array is assembled.

use std::{io, path::Path};

use crate::{
    backend::{
        ParseError,
        blocks::{field, format_uuid},
    },
    host::fresh::Fresh,
};

/// Where version 1.2 lies: 256 bytes of fields, then two bytes for each device that it has a role for.
const OFFSET: u64 = 4096;
const MAGIC: u32 = 0xa92b_4efc;
/// `MD_FEATURE_RECOVERY_OFFSET`: the device is being filled. `MD_FEATURE_REPLACEMENT`: it fills the place of one that still serves.
const FILLING: u32 = 2;
const REPLACEMENT: u32 = 16;
/// `MD_FEATURE_RESHAPE_ACTIVE`, `MD_FEATURE_RESHAPE_BACKWARDS`, `MD_FEATURE_NEW_OFFSET`: the data are on their way to another layout.
const RESHAPING: u32 = 4 | 32 | 64;
/// `MD_FEATURE_BAD_BLOCKS`: there are entries in its list of bad blocks.
const BAD_BLOCKS: u32 = 8;
/// Roles from here on are no place in the array (`MD_DISK_ROLE_MAX`): spare, faulty, journal.
const NO_ROLE: u16 = 0xff00;
const SECTOR: u64 = 512;
/// How often one whose checksum is wrong is read again.
const TRIES: u32 = 3;

/// The fields that tell who a device belongs to (kernel: `struct mdp_superblock_1` in `include/uapi/linux/raid/md_p.h`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Superblock {
    /// The array's UUID.
    pub(super) array: String,
    /// Its name, which mdadm begins with the machine's.
    pub(super) name: String,
    /// Its level: 1, 10.
    pub(super) level: u32,
    /// How it is laid out, for levels that have a choice.
    pub(super) layout: u32,
    /// How much of the data lies on one member before the next one follows, in bytes, for levels that take turns.
    pub(super) chunk: u64,
    /// How many members the array has.
    pub(super) raid_disks: u32,
    /// How much of each member the array uses, in bytes.
    pub(super) size: u64,
    /// Where on the device that begins, in bytes.
    pub(super) data_offset: u64,
    /// This device's UUID.
    pub(super) uuid: String,
    /// Its place in the array, from 0; nothing where it has none.
    pub(super) role: Option<u16>,
    /// Whether it is being filled: its data are not whole.
    pub(super) filling: bool,
    /// Whether the data are being laid out anew.
    pub(super) reshaping: bool,
    /// Whether there are sectors that it does not hold.
    pub(super) holed: bool,
    /// Which device of the array it is: its number among [`Superblock::roles`].
    pub(super) number: u32,
    /// How often the array's state has changed.
    pub(super) events: u64,
    /// When it was last written, in seconds since 1970.
    pub(super) updated: u64,
    /// The place of each device that ever was one, by its number; nothing where it is not one of the array's any more.
    pub(super) roles: Vec<Option<u16>>,
}

impl Superblock {
    /// Reads the block at 4 KiB. `None` where there is no signature.
    ///
    /// # Errors
    /// It is cut short, of another version, at the wrong place, or its checksum is wrong.
    pub(super) fn parse(block: &[u8]) -> Result<Option<Self>, ParseError> {
        let bad = |what: &str| ParseError::new("md superblock", what);
        let short = || bad("it is cut short");
        let half = |at: usize| field::<2>(block, at).map(u16::from_le_bytes).ok_or_else(short);
        let word = |at: usize| field::<4>(block, at).map(u32::from_le_bytes).ok_or_else(short);
        let long = |at: usize| field::<8>(block, at).map(u64::from_le_bytes).ok_or_else(short);
        let uuid = |at: usize| field::<16>(block, at).map(|bytes| format_uuid(&bytes)).ok_or_else(short);
        if word(0)? != MAGIC {
            return Ok(None);
        }
        if word(4)? != 1 {
            return Err(bad("it is not of version 1"));
        }
        if long(144)? != OFFSET / SECTOR {
            return Err(bad("it says that it belongs elsewhere"));
        }
        let devices = usize::try_from(word(220)?).unwrap_or(usize::MAX);
        let end = devices.saturating_mul(2).saturating_add(256);
        let summed = block.get(..end).ok_or_else(|| bad("it speaks of more devices than it has room for"))?;
        if checksum(summed) != word(216)? {
            return Err(bad("its checksum is wrong"));
        }
        let place = |role: u16| (role < NO_ROLE).then_some(role);
        let roles = (0..devices).map(|n| half(256 + 2 * n).map(place)).collect::<Result<Vec<_>, _>>()?;
        let number = word(160)?;
        let bytes = |sectors: u64| sectors.checked_mul(SECTOR).ok_or_else(|| bad("it is larger than can be"));
        let name = field::<32>(block, 32).ok_or_else(short)?;
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(Some(Self {
            array: uuid(16)?,
            name: String::from_utf8_lossy(name).into_owned(),
            level: word(72)?,
            layout: word(76)?,
            chunk: bytes(word(88)?.into())?,
            raid_disks: word(92)?,
            size: bytes(long(80)?)?,
            data_offset: bytes(long(128)?)?,
            uuid: uuid(168)?,
            role: roles.get(usize::try_from(number).unwrap_or(usize::MAX)).copied().flatten(),
            filling: word(8)? & (FILLING | REPLACEMENT) != 0,
            reshaping: word(8)? & RESHAPING != 0,
            holed: word(8)? & BAD_BLOCKS != 0,
            number,
            events: long(200)?,
            // The lower 40 bits are seconds, the others microseconds.
            updated: long(192)? & 0xff_ffff_ffff,
            roles,
        }))
    }

    /// Reads it from a device. `None` where there is no signature, or the device is too small for one.
    ///
    /// # Errors
    /// The device cannot be read, or what is there cannot be understood.
    pub(super) fn read(path: &Path) -> io::Result<Option<Self>> {
        let device = Fresh::open(path)?;
        let mut tries = 1;
        loop {
            let Some(block) = device.block(OFFSET)? else { return Ok(None) };
            match Self::parse(&block) {
                // The kernel may be writing it.
                Err(_) if tries < TRIES => tries += 1,
                parsed => return parsed.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e)),
            }
        }
    }

    /// Is it of the array, at a place, and with data that are whole?
    pub(super) fn serves(&self) -> bool {
        self.role.is_some() && !self.filling
    }

    /// Does it count a device at each place of the array?
    pub(super) fn counts_all(&self) -> bool {
        (0..self.raid_disks).all(|place| self.roles.iter().flatten().any(|role| u32::from(*role) == place))
    }

    /// Does it count `other` among the array's own?
    pub(super) fn counts(&self, other: &Self) -> bool {
        let place = self.roles.get(usize::try_from(other.number).unwrap_or(usize::MAX));
        other.role.is_some() && place.copied().flatten() == other.role
    }

    /// Was it written to when `other` was no member any more? What it never knew of is not shut out: a device that came later has a higher
    /// number, and one whose place it has taken a lower one.
    pub(super) fn shuts_out(&self, other: &Self) -> bool {
        if other.role.is_none() || self.counts(other) {
            return false;
        }
        match (0_u32..).zip(&self.roles).find(|(_, role)| **role == other.role) {
            Some((number, _)) if number == self.number => self.number > other.number,
            Some(_) | None => true,
        }
    }

    /// The array's name without the machine's.
    pub(super) fn short_name(&self) -> &str {
        self.name.split_once(':').map_or(&self.name, |(_, name)| name)
    }
}

/// Kernel: `calc_sb_1_csum` in `drivers/md/md.c`: all as words of four bytes, without the checksum itself, folded once.
fn checksum(block: &[u8]) -> u32 {
    let mut sum = 0_u64;
    for (index, bytes) in block.chunks(4).enumerate() {
        let mut word = [0; 4];
        for (to, from) in word.iter_mut().zip(bytes) {
            *to = *from;
        }
        if index != 216 / 4 {
            sum += u64::from(u32::from_le_bytes(word));
        }
    }
    u32::try_from(((sum & 0xffff_ffff) + (sum >> 32)) & 0xffff_ffff).unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const CRAFTED: &[u8] = include_bytes!("../../../tests/fixtures/md/superblock.bin");

    /// A superblock of the first member of a two-way mirror, changed, its checksum right.
    pub(in crate::backend::mdadm) fn block(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut block = CRAFTED.to_vec();
        change(&mut block);
        let sum = checksum(&block[..512]);
        block[216..220].copy_from_slice(&sum.to_le_bytes());
        block
    }

    #[test]
    fn who_a_device_belongs_to() {
        let found = Superblock::parse(&block(|_| {})).unwrap().unwrap();
        assert_eq!(found.array, "3aaa0122-294f-5372-918d-05fe88b0b1b5");
        assert_eq!(found.uuid, "5aaa0122-29af-5372-918d-05fe88b0b1b6");
        assert_eq!((found.short_name(), found.level, found.raid_disks), ("lightning", 1, 2));
        assert_eq!((found.size, found.data_offset), (1 << 30, 1 << 20));
        assert_eq!((found.role, found.serves(), found.events, found.holed), (Some(0), true, 18, false));
        assert!(Superblock::parse(&block(|b| b[8] |= 8)).unwrap().unwrap().holed);
        assert_eq!(found.roles[..3], [Some(0), Some(1), None]);
        let two = Superblock::parse(&block(|b| b[160] = 1)).unwrap().unwrap();
        assert_eq!(two.role, Some(1));
        assert!(found.counts(&two) && two.counts(&found));
        let alone = Superblock::parse(&block(|b| b[258] = 0xfe)).unwrap().unwrap();
        assert!(!alone.counts(&two) && two.counts(&alone));
        assert!(alone.shuts_out(&two) && !two.shuts_out(&alone));
        // Device 2 came later, into the place of device 1.
        let later = |b: &mut [u8]| {
            b[160] = 2;
            b[258..262].copy_from_slice(&[0xfe, 0xff, 1, 0]);
        };
        let later = Superblock::parse(&block(later)).unwrap().unwrap();
        assert!(later.shuts_out(&two) && !two.shuts_out(&later), "it never knew of it");
        assert!(later.shuts_out(&two) && !found.shuts_out(&two));
    }

    #[test]
    fn one_that_is_being_filled_does_not_serve() {
        let of = |change: fn(&mut [u8])| Superblock::parse(&block(change)).unwrap().unwrap();
        assert!(!of(|b| b[8] = 3).serves(), "recovering");
        assert!(!of(|b| b[8] = 17).serves(), "a replacement");
        assert!(!of(|b| b[160] = 2).serves(), "a spare");
        assert!(!of(|b| b[160..164].copy_from_slice(&[0xff; 4])).serves(), "of a number that nobody has");
    }

    #[test]
    fn what_is_not_whole_is_an_error_and_nothing_is_nothing() {
        assert_eq!(Superblock::parse(&[0; 4096]), Ok(None));
        let mut broken = block(|_| {});
        broken[80] ^= 1;
        assert!(Superblock::parse(&broken).is_err(), "the checksum");
        for change in [
            (|b| b[4] = 0) as fn(&mut [u8]),
            |b| b[144] = 0,
            |b| b[222] = 0xff,
            |b| b[128..136].copy_from_slice(&[0xff; 8]),
        ] {
            assert!(Superblock::parse(&block(change)).is_err());
        }
        assert!(Superblock::parse(&block(|_| {})[..300]).is_err(), "cut short");
    }

    crate::fuzz::fuzzed!(
        fuzz_md_superblock,
        bytes[include_bytes!("../../../tests/fixtures/md/superblock.bin")],
        |bytes| {
            if let Ok(Some(found)) = Superblock::parse(bytes) {
                assert!(found.roles.len() <= bytes.len() / 2);
            }
        }
    );
}
