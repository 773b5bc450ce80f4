//! GPT partition tables as sfdisk(8) shows them, and the room that is left in them. Pure.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::model::Bytes;

/// Partitions begin at whole megabytes, as sfdisk and parted place them.
const ALIGNMENT: u64 = 1 << 20;
/// The size of the table's entries: 128 of 128 bytes (UEFI specification, 5.3.2).
const ENTRIES: u64 = 16 * 1024;
/// The number of entries that tables have by default; sfdisk's JSON does not tell it.
const SLOTS: u32 = 128;

/// A GUID partition table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Bytes a sector.
    pub sector: u64,
    /// The first sector that a partition may use.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// The partitions, as the table lists them.
    pub partitions: Vec<Partition>,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number, from 1.
    pub number: u32,
    /// Its first sector.
    pub start: u64,
    /// Its length in sectors.
    pub sectors: u64,
    /// Its own UUID, in lower case.
    pub uuid: String,
}

/// A place for a new partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// The number that it will have.
    pub number: u32,
    /// Its first sector.
    pub start: u64,
    /// Its length in sectors.
    pub sectors: u64,
    /// Bytes a sector.
    pub sector: u64,
}

impl Slot {
    /// Its size in bytes.
    pub fn size(&self) -> Bytes {
        Bytes(self.sectors * self.sector)
    }

    /// Where it begins, in bytes.
    pub fn offset(&self) -> u64 {
        self.start * self.sector
    }
}

/// Why a table cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The answer is not of the known form.
    #[error("sfdisk's answer cannot be understood")]
    Form(#[source] serde_json::Error),
    /// It is no GPT.
    #[error("its partition table is `{0}`, and only a GPT is added to")]
    Label(String),
    /// A partition has a name that does not tell its number.
    #[error("the number of the partition {0} cannot be told")]
    Number(String),
}

/// Reads `sfdisk --json`.
///
/// # Errors
/// It is not of the known form, or the table is no GPT.
pub(super) fn parse(text: &str) -> Result<Table, TableError> {
    #[derive(Deserialize)]
    struct Answer {
        partitiontable: Found,
    }
    #[derive(Deserialize)]
    struct Found {
        label: String,
        device: String,
        firstlba: Option<u64>,
        lastlba: Option<u64>,
        sectorsize: Option<u64>,
        #[serde(default)]
        partitions: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        node: String,
        start: u64,
        size: u64,
        uuid: Option<String>,
    }
    let Answer { partitiontable: found } = serde_json::from_str(text).map_err(TableError::Form)?;
    let (Some(first), Some(last), Some(sector), "gpt") =
        (found.firstlba, found.lastlba, found.sectorsize.filter(|s| *s > 0), found.label.as_str())
    else {
        return Err(TableError::Label(found.label));
    };
    let partitions = found.partitions.into_iter().map(|one| {
        let number = one.node.strip_prefix(&found.device).map(|rest| rest.trim_start_matches('p'));
        let number = number.and_then(|digits| digits.parse().ok());
        Ok(Partition {
            number: number.ok_or(TableError::Number(one.node))?,
            start: one.start,
            sectors: one.size,
            uuid: one.uuid.unwrap_or_default().to_lowercase(),
        })
    });
    Ok(Table { sector, first, last, partitions: partitions.collect::<Result<_, _>>()? })
}

impl Table {
    /// The table that sfdisk makes on an empty disk.
    pub fn fresh(size: Bytes, sector: u64) -> Self {
        let sector = sector.max(1);
        // At the end: the backup of the entries and of the header.
        let last = (size.0 / sector).saturating_sub(ENTRIES / sector + 2);
        Self { sector, first: ALIGNMENT / sector, last, partitions: Vec::new() }
    }

    /// The first place where `size` fits between the partitions, rounded down to whole megabytes.
    pub fn slot(&self, size: Bytes) -> Option<Slot> {
        let step = (ALIGNMENT / self.sector).max(1);
        let sectors = size.0 / ALIGNMENT * step;
        let number = (1..=SLOTS).find(|n| self.partitions.iter().all(|p| p.number != *n))?;
        let mut used: Vec<(u64, u64)> =
            self.partitions.iter().map(|p| (p.start, p.start.saturating_add(p.sectors))).collect();
        used.sort_unstable();
        used.push((self.last.saturating_add(1), u64::MAX));
        let mut from = self.first;
        for (start, end) in used {
            let aligned = from.div_ceil(step).saturating_mul(step);
            if sectors > 0 && aligned.saturating_add(sectors) <= start {
                return Some(Slot { number, start: aligned, sectors, sector: self.sector });
            }
            from = from.max(end);
        }
        None
    }

    /// The largest size for which there is a place.
    pub fn room(&self) -> Bytes {
        let (mut fits, mut fails) = (0, self.last.saturating_mul(self.sector) / ALIGNMENT + 1);
        while fails - fits > 1 {
            let middle = u64::midpoint(fits, fails);
            if self.slot(Bytes(middle * ALIGNMENT)).is_some() { fits = middle } else { fails = middle }
        }
        Bytes(fits * ALIGNMENT)
    }

    /// The partition with this UUID.
    pub fn by_uuid(&self, uuid: &str) -> Option<&Partition> {
        self.partitions.iter().find(|p| p.uuid == uuid)
    }

    /// Is the place still free?
    pub fn has_free(&self, slot: &Slot) -> bool {
        let apart = |p: &Partition| p.start >= slot.start + slot.sectors || p.start + p.sectors <= slot.start;
        self.sector == slot.sector
            && slot.start >= self.first
            && slot.start + slot.sectors <= self.last.saturating_add(1)
            && self.partitions.iter().all(|p| p.number != slot.number && apart(p))
    }
}

/// The device node of a disk's partition: a name that ends in a digit is followed by a `p` (sysfs does the same).
pub fn node_of(disk: &Path, number: u32) -> std::path::PathBuf {
    let mut name = disk.as_os_str().to_owned();
    let digit = disk.to_string_lossy().ends_with(|c: char| c.is_ascii_digit());
    name.push(if digit { format!("p{number}") } else { number.to_string() });
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sfdisk").join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    #[test]
    fn recorded_tables_of_both_versions_are_read() {
        for version in ["2.38.1", "2.41.5"] {
            let table = parse(&fixture(&format!("{version}/gpt-two-partitions.json"))).unwrap();
            assert_eq!((table.sector, table.first, table.last), (512, 2048, 1_048_542));
            assert_eq!(table.partitions.iter().map(|p| p.number).collect::<Vec<_>>(), [1, 2]);
            assert!(table.by_uuid(&table.partitions[1].uuid.clone()).is_some());
            // Behind the second partition.
            let slot = table.slot(Bytes::mib(100)).unwrap();
            assert_eq!((slot.number, slot.start, slot.size()), (3, 264_192 + 131_072, Bytes::mib(100)));
            assert!(table.has_free(&slot));
            assert!(table.slot(table.room()).is_some());
            assert!(table.slot(Bytes(table.room().0 + ALIGNMENT)).is_none());
            let dos = parse(&fixture(&format!("{version}/dos.json")));
            assert!(matches!(dos, Err(TableError::Label(label)) if label == "dos"));
        }
        assert!(matches!(parse("garbage"), Err(TableError::Form(_))));
    }

    #[test]
    fn a_gap_is_used_when_it_is_large_enough_and_its_number_is_free() {
        let part = |number, start, sectors| Partition { number, start, sectors, uuid: number.to_string() };
        let table = Table {
            sector: 512,
            first: 34,
            last: 100 * 2048,
            partitions: vec![part(3, 40 * 2048, 2048), part(1, 2048, 10 * 2048 + 1)],
        };
        let slot = table.slot(Bytes::mib(20)).unwrap();
        assert_eq!((slot.number, slot.start), (2, 12 * 2048), "aligned behind the first one");
        assert_eq!(table.slot(Bytes::mib(29)).unwrap().start, 41 * 2048);
        assert!(table.slot(Bytes::mib(60)).is_none());
        assert_eq!(table.room(), Bytes::mib(59));
        assert!(table.slot(Bytes(4096)).is_none(), "less than a megabyte is nothing");
        let mut changed = table.clone();
        changed.partitions.push(part(9, 20 * 2048, 1));
        assert!(table.has_free(&slot) && !changed.has_free(&slot));
    }

    #[test]
    fn an_empty_disk_has_room_but_for_the_tables_at_both_ends() {
        for (sector, start) in [(512, 2048), (4096, 256)] {
            let table = Table::fresh(Bytes::gib(2), sector);
            assert_eq!(table.slot(Bytes::gib(1)).unwrap().start, start);
            assert_eq!(table.room(), Bytes::mib(2046));
        }
        assert_eq!(Table::fresh(Bytes(0), 512).room(), Bytes(0));
    }

    #[test]
    fn nodes_are_named_as_the_kernel_names_them() {
        for (disk, node) in
            [("/dev/sda", "/dev/sda3"), ("/dev/nvme0n1", "/dev/nvme0n1p3"), ("/dev/loop0", "/dev/loop0p3")]
        {
            assert_eq!(node_of(Path::new(disk), 3), Path::new(node));
        }
    }

    proptest::proptest! {
        #[test]
        fn a_place_never_overlaps_anything(
            parts in proptest::collection::vec((1_u32..6, 0_u64..300_000, 1_u64..50_000), 0..6),
            size in 0_u64..300,
        ) {
            let partitions =
                parts.into_iter().map(|(number, start, sectors)| Partition { number, start, sectors, uuid: String::new() });
            let table = Table { sector: 512, first: 34, last: 300_000, partitions: partitions.collect() };
            if let Some(slot) = table.slot(Bytes::mib(size)) {
                proptest::prop_assert!(table.has_free(&slot));
                proptest::prop_assert_eq!(slot.size(), Bytes::mib(size));
                proptest::prop_assert_eq!(slot.offset() % ALIGNMENT, 0);
            }
        }
    }

    crate::fuzz::fuzzed!(fuzz_sfdisk, text [
        include_bytes!("../../../tests/fixtures/sfdisk/2.41.5/gpt-two-partitions.json"),
        include_bytes!("../../../tests/fixtures/sfdisk/2.38.1/gpt-two-partitions.json"),
    ], |text| {
        let _ = parse(text);
    });
}
