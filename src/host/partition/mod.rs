//! New partitions in what is free of a disk, by sfdisk(8) and partx(8). Nothing is ever shrunk, moved or deleted but what a plan made
//! itself, which is known by the UUID that was chosen for it.

mod table;

use std::{
    io,
    path::{Path, PathBuf},
};

pub use table::{Partition, Slot, Table, TableError, node_of};

use super::{Host, inventory};
use crate::{
    exec::{Cmd, CmdError},
    model::{Bytes, inventory::Content},
};

/// The type of a partition that holds Linux data (UAPI group, Discoverable Partitions Specification: "generic Linux data").
const LINUX_DATA: &str = "0FC63DAF-8483-4772-8E79-3D69D8477DE4";

const NO_TABLE: &str = "does not contain a recognized partition table";

/// Why a disk's partitions could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum PartitionError {
    /// A tool failed.
    #[error(transparent)]
    Tool(#[from] CmdError),
    /// The table cannot be used.
    #[error("the partition table of {disk} cannot be used", disk = disk.display())]
    Table {
        /// The disk.
        disk: PathBuf,
        /// Why.
        #[source]
        source: TableError,
    },
    /// A file of sysfs cannot be read.
    #[error("{path} cannot be read", path = path.display())]
    Sysfs {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of sysfs holds something else.
    #[error("{path} does not hold a number", path = path.display())]
    Number {
        /// The file.
        path: PathBuf,
    },
}

/// A place for a new partition, and what is found there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// The place; none where there is not enough room.
    pub slot: Option<Slot>,
    /// The most that there is room for.
    pub most: Bytes,
    /// The disk has no table yet.
    pub fresh: bool,
    /// What is left there of something older.
    pub remains: Content,
}

fn number(host: &Host, path: String) -> Result<Option<u64>, PartitionError> {
    match host.read_optional(&path) {
        Ok(None) => Ok(None),
        Ok(Some(text)) => {
            text.trim().parse().map(Some).map_err(|_| PartitionError::Number { path: path.into() })
        }
        Err(source) => Err(PartitionError::Sysfs { path: path.into(), source }),
    }
}

fn kname(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The disk's table; `None` where there is none.
///
/// # Errors
/// It cannot be read, or is no GPT.
pub fn read(host: &Host, disk: &Path) -> Result<Option<Table>, PartitionError> {
    let output = match host.runner().run(&Cmd::probe("sfdisk").arg("--json").arg(disk)) {
        Ok(output) => output,
        // sfdisk has one exit code for every failure; only these words say that the disk was read and has no table.
        Err(e) if e.said.as_deref().is_some_and(|said| said.contains(NO_TABLE)) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let table = table::parse(&output.text());
    table.map(Some).map_err(|source| PartitionError::Table { disk: disk.to_owned(), source })
}

/// Looks for a place of `size` bytes on a disk of `disk_size` bytes.
///
/// # Errors
/// The disk cannot be read, or its table is no GPT.
pub fn room(host: &Host, disk: &Path, disk_size: Bytes, size: Bytes) -> Result<Room, PartitionError> {
    let found = read(host, disk)?;
    let fresh = found.is_none();
    let sector = format!("/sys/class/block/{}/queue/logical_block_size", kname(disk));
    let table = if let Some(table) = found {
        table
    } else {
        let bytes = number(host, sector.clone())?.filter(|b| *b > 0);
        Table::fresh(disk_size, bytes.ok_or(PartitionError::Number { path: sector.into() })?)
    };
    let slot = table.slot(size);
    let remains = match &slot {
        None => Content::Empty,
        Some(slot) => inventory::content_at(host, disk, slot.offset(), slot.size().0),
    };
    Ok(Room { slot, most: table.room(), fresh, remains })
}

/// The logical and the physical size of a device's sectors in bytes; a partition has its disk's (Documentation/ABI/stable/sysfs-block).
/// Nothing where the kernel does not say both.
pub fn sectors(host: &Host, kname: &str) -> Option<(u64, u64)> {
    let dir = Path::new("/sys/class/block").join(kname);
    let queue =
        ["queue", "../queue"].into_iter().map(|queue| host.path(dir.join(queue))).find(|q| q.is_dir())?;
    let size = |name: &str| std::fs::read_to_string(queue.join(name)).ok()?.trim().parse().ok();
    Some((size("logical_block_size")?, size("physical_block_size")?))
}

/// Writes the partition into the table. The kernel is told apart from it: a disk in use does not let its table be read again as a whole.
pub fn make_command(disk: &Path, slot: &Slot, fresh: bool, uuid: &str, name: &str) -> Cmd {
    let line = format!(
        "start={}, size={}, type={LINUX_DATA}, uuid={uuid}, name=\"{name}\"",
        slot.start, slot.sectors
    );
    let script = if fresh { format!("label: gpt\n{line}\n") } else { format!("{line}\n") };
    let cmd = Cmd::change("sfdisk").args(["--quiet", "--lock=yes", "--no-reread", "--no-tell-kernel"]);
    let cmd = cmd.args(["--wipe", "never", "--wipe-partitions", "never"]);
    let cmd = if fresh { cmd } else { cmd.arg("--append") };
    cmd.arg(disk).stdin(script)
}

/// Tells the kernel of the partition; also where it knows it already.
pub fn tell_command(disk: &Path, slot: &Slot) -> Cmd {
    Cmd::change("partx").args(["--update", "--nr", &slot.number.to_string()]).arg(disk)
}

/// Has the kernel forget the partition.
pub fn forget_command(disk: &Path, slot: &Slot) -> Cmd {
    Cmd::change("partx").args(["--delete", "--nr", &slot.number.to_string()]).arg(disk)
}

/// Takes the partition out of the table.
pub fn delete_command(disk: &Path, slot: &Slot) -> Cmd {
    let cmd = Cmd::destroy("sfdisk").args(["--quiet", "--lock=yes", "--no-reread", "--no-tell-kernel"]);
    cmd.arg("--delete").arg(disk).arg(slot.number.to_string())
}

/// Takes an empty table off a disk that had none before.
pub fn erase_table_command(disk: &Path) -> Cmd {
    Cmd::destroy("wipefs").args(["--all", "--types", "gpt,PMBR"]).arg(disk)
}

/// Does the kernel know the partition as it is in the table? sysfs counts in 512 bytes whatever the disk's sectors are
/// (kernel: Documentation/ABI/stable/sysfs-block).
///
/// # Errors
/// sysfs cannot be read.
pub fn is_known(host: &Host, disk: &Path, slot: &Slot) -> Result<bool, PartitionError> {
    let dir = format!("/sys/class/block/{}", kname(&node_of(disk, slot.number)));
    let unit = slot.sector / 512;
    let start = number(host, format!("{dir}/start"))?;
    let sectors = number(host, format!("{dir}/size"))?;
    Ok(start == Some(slot.start * unit) && sectors == Some(slot.sectors * unit))
}
