//! Whether a device fits into a pool: what ZFS will say of it, foretold before anything is written.

use crate::{
    host::zfs::{LABEL, Vdev},
    model::Bytes,
};

/// What a device does not give for data: two labels and room for a boot loader in front (`VDEV_LABEL_START_SIZE` in
/// `include/sys/vdev_impl.h`), two labels at the end.
const FRONT: u64 = 2 * LABEL + (7 << 19);
const END: u64 = 2 * LABEL;
/// The smallest and the largest write that a vdev may have, as powers of two (`ASHIFT_MIN`, `ASHIFT_MAX`).
const ASHIFTS: std::ops::RangeInclusive<u64> = 9..=16;
/// What a new mirror is made with at least: a disk that shows sectors of 512 bytes today may be replaced by one of 4096.
pub(super) const COMMON: u64 = 12;
/// A whole disk gets a partition that begins at this sector and ends at a multiple of as many (`NEW_START_BLOCK`,
/// `PARTITION_END_ALIGNMENT` in `include/sys/vdev_disk.h`).
const ALIGNMENT: u64 = 2048;
/// And another one behind it, in sectors of whichever size (`EFI_MIN_RESV_SIZE` in `include/sys/efi_partition.h`).
const RESERVED: u64 = 16 << 10;
/// A GPT's entries, in bytes; its header is one sector more (`EFI_MIN_ARRAY_SIZE`).
const TABLE: u64 = 16 << 10;

/// A power of two as its exponent.
fn exponent(size: u64) -> Option<u64> {
    size.is_power_of_two().then(|| u64::from(size.trailing_zeros()))
}

/// With which smallest write, as a power of two, a mirror of these disks is made: of each the logical and the physical size of a sector
/// in bytes. It cannot be changed later, so it is that of the largest, and never below 4096 bytes. Nothing where a size is none.
pub fn ashift(sectors: &[(u64, u64)]) -> Option<u64> {
    let each = sectors.iter().map(|(logical, physical)| Some(exponent(*logical)?.max(exponent(*physical)?)));
    let largest = each.collect::<Option<Vec<_>>>()?.into_iter().max()?;
    Some(largest.max(COMMON)).filter(|ashift| ASHIFTS.contains(ashift))
}

/// How much data ZFS lays on a device of this size (`vdev_open` in `module/zfs/vdev.c`).
pub fn usable(device: Bytes) -> Bytes {
    let whole = device.0 - device.0 % LABEL;
    Bytes(whole.saturating_sub(FRONT + END))
}

/// The partition that ZFS makes for the data on a disk which it is given whole, with sectors of so many bytes (`zpool_label_disk` in
/// `lib/libzfs/os/linux/libzfs_pool_os.c`). The reserve behind it has a number of sectors, so that a disk with large ones, just as
/// large as one with small ones, gives less.
pub fn on_whole_disk(disk: Bytes, sector: u64) -> Bytes {
    let Some(sectors) = disk.0.checked_div(sector) else { return Bytes(0) };
    let table = TABLE / sector + 1;
    let slice = sectors.saturating_sub(table).saturating_sub(RESERVED + ALIGNMENT);
    Bytes((slice - slice % ALIGNMENT).saturating_mul(sector))
}

/// How much data a device must have room for to become one of this vdev at the top, as a label describes it (`vdev_get_min_asize`):
/// less than the others give, by what does not fill a metaslab. Nothing where the label does not say.
pub fn needed(top: &Vdev) -> Option<Bytes> {
    let metaslab = 1_u64.checked_shl(u32::try_from(top.metaslab_shift?).ok()?)?;
    let all = top.asize?;
    let least = all - all % metaslab;
    match top.kind.as_str() {
        "mirror" | "disk" | "file" => Some(Bytes(least)),
        "raidz" => Some(Bytes(least.div_ceil(u64::try_from(top.children.len()).ok().filter(|n| *n > 0)?))),
        _ => None,
    }
}

/// The size of the smallest device that has room for as much.
pub fn smallest(top: &Vdev) -> Option<Bytes> {
    let all = needed(top)?.0.checked_add(FRONT + END)?;
    all.checked_next_multiple_of(LABEL).map(Bytes)
}

/// What stands against a device as one of a vdev.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// Its sectors are larger than the smallest write of the pool, which cannot be changed: in bytes.
    Sectors {
        /// What the pool writes.
        pool: u64,
        /// What the device can.
        device: u64,
    },
    /// It is too small.
    Small {
        /// What there must be room for.
        needed: Bytes,
        /// What there is room for.
        usable: Bytes,
    },
}

/// Does a device of this size and these logical sectors fit into the vdev at the top that a label describes? Nothing where the label
/// does not say enough: then it cannot be foretold.
pub fn judge(top: &Vdev, device: Bytes, sector: u64) -> Option<Result<(), Unfit>> {
    let pool = 1_u64.checked_shl(u32::try_from(top.ashift?).ok()?)?;
    if sector > pool {
        return Some(Err(Unfit::Sectors { pool, device: sector }));
    }
    let (needed, usable) = (needed(top)?, usable(device));
    Some(if usable < needed { Err(Unfit::Small { needed, usable }) } else { Ok(()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::zfs::{Labels, tests::write_recorded};

    fn top(recorded: &str) -> Vdev {
        let dir = tempfile::tempdir().unwrap();
        write_recorded(recorded, &dir.path().join("device"));
        let labels = Labels::read(&dir.path().join("device")).unwrap();
        labels.newest().unwrap().tree.clone().unwrap()
    }

    const MIRROR: &str = include_str!("../../../tests/fixtures/zfs/label/mirror-one.txt");
    const RAIDZ: &str = include_str!("../../../tests/fixtures/zfs/label/raidz-one.txt");

    #[test]
    fn the_smallest_write_follows_from_both_sizes_of_all_disks() {
        assert_eq!(ashift(&[(512, 512), (512, 512)]), Some(12));
        assert_eq!(ashift(&[(512, 4096), (4096, 4096)]), Some(12));
        assert_eq!(ashift(&[(512, 512), (512, 8192)]), Some(13));
        assert_eq!(ashift(&[(512, 0)]), None);
        assert_eq!(ashift(&[(512, 1 << 20)]), None, "more than a pool can have");
        assert_eq!(ashift(&[]), None);
    }

    #[test]
    fn what_is_used_of_a_device_is_what_openzfs_has_used() {
        assert_eq!(Some(usable(Bytes::mib(128)).0), top(MIRROR).asize);
        assert_eq!(Some(3 * usable(Bytes::mib(128)).0), top(RAIDZ).asize);
        assert_eq!(usable(Bytes(Bytes::mib(128).0 + LABEL - 1)), usable(Bytes::mib(128)));
        assert_eq!(usable(Bytes::mib(4)), Bytes(0));
    }

    #[test]
    fn a_disk_with_large_sectors_gives_less() {
        let small = on_whole_disk(Bytes::gib(16), 512);
        let large = on_whole_disk(Bytes::gib(16), 4096);
        // The table, a MiB in front and 8 behind, and what is not a MiB; and eight times as much.
        assert_eq!((small, large), (Bytes::mib(16384 - 10), Bytes::mib(16384 - 80)));
        // As of a disk of the lab.
        assert_eq!(on_whole_disk(Bytes::mib(512), 512), Bytes(526_385_152));
        assert_eq!(on_whole_disk(Bytes::mib(1), 512), Bytes(0));
        assert_eq!(on_whole_disk(Bytes::mib(1), 0), Bytes(0));
    }

    #[test]
    fn what_a_replacement_needs() {
        let mirror = top(MIRROR);
        // Metaslabs of 16 MiB: seven of them fit.
        assert_eq!((mirror.metaslab_shift, needed(&mirror)), (Some(24), Some(Bytes::mib(112))));
        assert_eq!(judge(&mirror, Bytes::mib(128), 4096), Some(Ok(())));
        assert_eq!(judge(&mirror, Bytes::mib(117), 512), Some(Ok(())), "a smaller one, by what is left over");
        let small = Unfit::Small { needed: Bytes::mib(112), usable: Bytes(Bytes::mib(116).0 - (9 << 19)) };
        assert_eq!(judge(&mirror, Bytes::mib(116), 512), Some(Err(small)));
        let least = smallest(&mirror).unwrap();
        assert_eq!(judge(&mirror, least, 512), Some(Ok(())));
        assert!(matches!(judge(&mirror, Bytes(least.0 - 1), 512), Some(Err(Unfit::Small { .. }))));
        let raidz = top(RAIDZ);
        assert_eq!(needed(&raidz), Some(Bytes((11_u64 << 25).div_ceil(3))));
        let sectors = Unfit::Sectors { pool: 512, device: 4096 };
        assert_eq!(judge(&raidz, Bytes::gib(1), 4096), Some(Err(sectors)));
        let unsaid = Vdev { ashift: None, ..mirror };
        assert_eq!(judge(&unsaid, Bytes::gib(1), 512), None);
        assert_eq!(needed(&Vdev { kind: "draid".into(), ..raidz }), None);
    }
}
