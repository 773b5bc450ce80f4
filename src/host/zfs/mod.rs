//! What ZFS leaves on each device of a pool, read without a process and without its module: four labels, each with a description of
//! the pool and a ring of uberblocks (OpenZFS: `vdev_label_t` in `include/sys/vdev_impl.h`, the comment at the top of
//! `module/zfs/vdev_label.c`).

pub mod boot;
pub mod cache;
pub mod kstat;
mod label;
mod nvlist;
mod uberblock;

#[cfg(test)]
pub(crate) mod tests;

use std::{io, path::Path};

pub use label::{Label, PoolState, Vdev};
use ring::digest;
pub use uberblock::Uberblock;

use super::fresh::{self, Fresh, field};
use crate::exec::Cmd;

/// The length of a label in bytes: 8 KiB that are left alone, 8 KiB for a boot loader, the description, the ring.
pub const LABEL: u64 = 256 << 10;
/// Where the description stands in a label, and its length with its checksum.
const DESCRIPTION: (u64, u64) = (16 << 10, 112 << 10);
/// Where the ring stands in a label, and its length.
const RING: (u64, u64) = (128 << 10, 128 << 10);
/// `ZEC_MAGIC`, and the length of what it begins: it and the checksum stand at the end of what they are of (`zio_eck_t`).
const SEAL: (u64, usize) = (0x0210_da7a_b10c_7a11, 40);
/// How often a label whose description has a wrong checksum is read again.
const TRIES: u32 = 3;

/// What is wrong with a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub(self) &'static str);

/// One of a device's four labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Where it stands, in bytes from the start of the device.
    pub at: u64,
    /// The description; nothing where there is none.
    pub label: Result<Option<Label>, Fault>,
    /// The ring's uberblocks whose checksum is right, by their place in it.
    pub uberblocks: Vec<Uberblock>,
}

impl Place {
    /// Is there anything of ZFS here? One in front may be damaged. One at the end that is not whole may be the label of a partition that
    /// ends where the disk does: its checksum is of another place.
    pub fn holds_something(&self) -> bool {
        let in_front = self.at < 2 * LABEL;
        match self.label {
            Ok(Some(_)) => true,
            Err(_) if in_front => true,
            Ok(None) | Err(_) => !self.uberblocks.is_empty(),
        }
    }
}

/// Where the four labels of a device of this size stand; none where it is too small for them.
pub fn places(size: u64) -> Vec<u64> {
    let whole = size - size % LABEL;
    if whole < 4 * LABEL {
        return Vec::new();
    }
    vec![0, LABEL, whole - 2 * LABEL, whole - LABEL]
}

/// Clears the labels of a device of this size, and nothing else. wipefs(8) takes a few bytes of what it knows a member by, which of
/// older versions are uberblocks and of newer ones the descriptions: the others stay, and tools of the other age find them again.
pub fn clear_commands(path: &Path, size: u64) -> Vec<Cmd> {
    // The labels stand in pairs.
    let pairs = places(size).into_iter().step_by(2);
    let clear = |at: u64| {
        Cmd::destroy("blkdiscard")
            .args(["--zeroout", "--offset", &at.to_string(), "--length", &(2 * LABEL).to_string()])
            .arg(path)
    };
    pairs.map(clear).collect()
}

/// The labels of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    /// In the order in which they stand.
    pub places: Vec<Place>,
}

impl Labels {
    /// Reads all of them.
    ///
    /// # Errors
    /// The device cannot be read.
    pub fn read(path: &Path) -> io::Result<Self> {
        let device = Fresh::open(path)?;
        Self::of(&device, 0, device.size()?)
    }

    /// Reads those of what was a device of `size` bytes and began at `start` of this one: a partition that is not in its table any more.
    ///
    /// # Errors
    /// The device cannot be read.
    pub fn within(path: &Path, start: u64, size: u64) -> io::Result<Self> {
        Self::of(&Fresh::open(path)?, start, size)
    }

    fn of(device: &Fresh, start: u64, size: u64) -> io::Result<Self> {
        let places = places(size).into_iter().map(|at| place(device, start, at));
        Ok(Self { places: places.collect::<io::Result<_>>()? })
    }

    /// As [`Labels::read`]; nothing where none of the four has a description, without their rings being read.
    ///
    /// # Errors
    /// As [`Labels::read`].
    pub fn of_member(path: &Path) -> io::Result<Option<Self>> {
        let device = Fresh::open(path)?;
        let places = places(device.size()?);
        let begins = |at: &u64| {
            let block = device.block(at + DESCRIPTION.0)?;
            Ok::<_, io::Error>(block.is_some_and(|block| label::begins(&block)))
        };
        for at in &places {
            if begins(at)? {
                return Self::of(&device, 0, device.size()?).map(Some);
            }
        }
        Ok(None)
    }

    /// Is there anything of ZFS on the device?
    pub fn hold_something(&self) -> bool {
        self.places.iter().any(Place::holds_something)
    }

    /// The description that holds: of the highest transaction group (`vdev_label_read_config`). A device that is not, or not yet, of a
    /// pool has one without.
    pub fn newest(&self) -> Option<&Label> {
        let whole = self.places.iter().filter_map(|place| place.label.as_ref().ok()?.as_ref());
        // The first of several alike.
        whole.rev().max_by_key(|label| label.txg)
    }

    /// The description that was in force at this transaction group: one that was written later was not committed then
    /// (`vdev_label_read_config`). The newest where none is so old.
    pub fn at(&self, txg: u64) -> Option<&Label> {
        let whole = self.places.iter().filter_map(|place| place.label.as_ref().ok()?.as_ref());
        whole.filter(|label| label.txg <= txg).max_by_key(|label| label.txg).or_else(|| self.newest())
    }

    /// How many uberblocks a ring has room for (`VDEV_UBERBLOCK_COUNT`); one of a transaction group stands where its number modulo this
    /// says, if the pool is not watched by several machines.
    pub fn slots(&self) -> Option<u64> {
        let shift = self.newest()?.tree.as_ref()?.ashift?;
        Some(RING.1 >> uberblock::shift(shift))
    }

    /// What was committed to the pool last that reached this device.
    pub fn last(&self) -> Option<&Uberblock> {
        self.places.iter().flat_map(|place| &place.uberblocks).max_by_key(|uberblock| uberblock.order())
    }

    /// All that the rings still tell, the oldest first, each once.
    pub fn history(&self) -> Vec<&Uberblock> {
        let mut all: Vec<_> = self.places.iter().flat_map(|place| &place.uberblocks).collect();
        all.sort_by_key(|uberblock| (uberblock.order(), uberblock.root));
        all.dedup();
        all
    }

    /// What is wrong with each label that is, as `the label at 0: ...`.
    pub fn faults(&self) -> Vec<String> {
        let fault = |place: &Place| {
            let what = match &place.label {
                Ok(Some(_)) => return None,
                Ok(None) => "it is gone".to_owned(),
                Err(fault) => fault.to_string(),
            };
            Some(format!("the label at {}: {what}", place.at))
        };
        self.places.iter().filter_map(fault).collect()
    }
}

fn place(device: &Fresh, start: u64, at: u64) -> io::Result<Place> {
    let mut tries = 1;
    let label = loop {
        let label = match area(device, start + at + DESCRIPTION.0, DESCRIPTION.1)? {
            Some(bytes) => Label::parse(&bytes, at + DESCRIPTION.0),
            None => Ok(None),
        };
        // A pool in use may be writing it.
        if label.is_ok() || tries == TRIES {
            break label;
        }
        tries += 1;
    };
    let ring = area(device, start + at + RING.0, RING.1)?.unwrap_or_default();
    let shift = label.as_ref().ok().and_then(|label| label.as_ref()?.tree.as_ref()?.ashift);
    Ok(Place { at, uberblocks: uberblock::parse_ring(&ring, at + RING.0, shift), label })
}

fn area(device: &Fresh, at: u64, length: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    for block in (at..at + length).step_by(fresh::SIZE) {
        match device.block(block)? {
            Some(block) => bytes.extend_from_slice(&block),
            None => return Ok(None),
        }
    }
    Ok(Some(bytes))
}

/// The order of the bytes of whoever wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Little,
    Big,
}

impl Order {
    /// That in which this number stands there.
    fn of(block: &[u8], at: usize, number: u64) -> Option<Self> {
        let bytes = field::<8>(block, at)?;
        match number {
            n if n == u64::from_le_bytes(bytes) => Some(Self::Little),
            n if n == u64::from_be_bytes(bytes) => Some(Self::Big),
            _ => None,
        }
    }

    fn number(self, block: &[u8], at: usize) -> Option<u64> {
        let bytes = field(block, at)?;
        Some(match self {
            Self::Little => u64::from_le_bytes(bytes),
            Self::Big => u64::from_be_bytes(bytes),
        })
    }

    fn bytes(self, number: u64) -> [u8; 8] {
        match self {
            Self::Little => number.to_le_bytes(),
            Self::Big => number.to_be_bytes(),
        }
    }
}

/// Is the checksum right that ends a block which stands at this place of the device? It is the SHA-256 of the block with that place
/// where the checksum will stand (`zio_checksum_label_verifier` and `zio_checksum_compute` in `module/zfs/zio_checksum.c`).
fn is_sealed(block: &[u8], at: u64) -> bool {
    let sealed = || {
        let start = block.len().checked_sub(SEAL.1)?;
        let order = Order::of(block, start, SEAL.0)?;
        let mut sum = digest::Context::new(&digest::SHA256);
        sum.update(block.get(..start + 8)?);
        sum.update(&order.bytes(at));
        sum.update(&[0; 24]);
        let sum = sum.finish();
        // It is kept as four numbers.
        let words = sum.as_ref().chunks(8).zip(block.get(start + 8..)?.chunks(8));
        let same = |(sum, kept): (&[u8], &[u8])| {
            let sum = <[u8; 8]>::try_from(sum).map(u64::from_be_bytes);
            sum.is_ok_and(|sum| order.bytes(sum) == kept)
        };
        Some(words.into_iter().all(same))
    };
    sealed().unwrap_or_default()
}
