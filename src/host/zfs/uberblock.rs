//! The ring of uberblocks: what was committed last (OpenZFS: `struct uberblock` in `include/sys/uberblock_impl.h`).

use super::{Order, is_sealed};
use crate::host::fresh::field;

/// `UBERBLOCK_MAGIC`.
const MAGIC: u64 = 0x00ba_b10c;
/// `MMP_MAGIC`, and the bit that says that there is a number of the write (`MMP_SEQ_VALID_BIT`).
const MMP: (u64, u64) = (0xa11c_ea11, 2);
/// A slot is as large as the pool's smallest write, within these (`UBERBLOCK_SHIFT`, `MAX_UBERBLOCK_SHIFT`).
const SHIFTS: std::ops::RangeInclusive<u64> = 10..=13;

/// The root of a pool at one transaction group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uberblock {
    /// The transaction group.
    pub txg: u64,
    /// The sum of the numbers of all vdevs.
    pub guid_sum: u64,
    /// When it was written, in seconds since 1970.
    pub timestamp: u64,
    /// Which of several writes of the same transaction group in the same second, where the pool is watched by several machines
    /// (zpoolprops(7), multihost).
    pub sequence: u64,
    /// The pointer to the root of everything: two of one transaction group that point elsewhere are of two histories.
    pub root: [u8; 128],
    /// Whether it is a checkpoint (zpool-checkpoint(8)).
    pub checkpoint: bool,
}

impl Uberblock {
    /// That by which the newest is told (`vdev_uberblock_compare`).
    pub fn order(&self) -> (u64, u64, u64) {
        (self.txg, self.timestamp, self.sequence)
    }

    fn parse(slot: &[u8]) -> Option<Self> {
        let order = Order::of(slot, 0, MAGIC)?;
        let long = |at| order.number(slot, at);
        let config = long(192)?;
        let numbered = long(176)? == MMP.0 && config & MMP.1 != 0;
        Some(Self {
            txg: long(16)?,
            guid_sum: long(24)?,
            timestamp: long(32)?,
            sequence: if numbered { (config >> 32) & 0xffff } else { 0 },
            root: field(slot, 40)?,
            checkpoint: long(200)? != 0,
        })
    }
}

/// The size of a slot, as a power of two, by the vdev's smallest write.
pub(super) fn shift(ashift: u64) -> u64 {
    ashift.clamp(*SHIFTS.start(), *SHIFTS.end())
}

/// The uberblocks whose checksum is right, of a ring that stands at this place of the device. The size of a slot follows from the vdev's
/// smallest write, as a power of two; where that is not known, each is tried.
pub(super) fn parse_ring(ring: &[u8], at: u64, ashift: Option<u64>) -> Vec<Uberblock> {
    let shifts = match ashift {
        Some(ashift) => shift(ashift)..=shift(ashift),
        None => SHIFTS,
    };
    let slots = |shift: u64| {
        let starts = (at..).step_by(1 << shift);
        starts.zip(ring.chunks_exact(1 << shift)).filter(|(at, slot)| is_sealed(slot, *at))
    };
    shifts.flat_map(slots).filter_map(|(_, slot)| Uberblock::parse(slot)).collect()
}
