//! `/sys/block/mdN/md` (kernel: Documentation/admin-guide/md.rst, `drivers/md/md.c`): an assembled array and its devices, without a
//! process.

use std::path::{Path, PathBuf};

use super::superblock::Superblock;
use crate::{
    backend::{
        BackendError, ParseError,
        blocks::{self, names, parse_number},
    },
    host::{Host, files::Doing as _},
    model::{
        Bytes,
        md::{MdProgress, MdState},
    },
};

/// May it be the kernel's name of an array? `md127`, or `md_NAME` where mdadm.conf(5) says so; its partitions look alike, and have no
/// directory `md`.
pub(super) fn is_array(name: &str) -> bool {
    name.strip_prefix("md").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit() || c == '_'))
}

/// One array that the kernel has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Array {
    /// The kernel's name.
    pub(super) name: String,
    /// What it is.
    pub(super) state: MdState,
    /// Its devices, in no order.
    pub(super) devices: Vec<Device>,
}

/// One device of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device {
    /// The kernel's name.
    pub(super) name: String,
    /// Its place in the array, from 0; nothing where it has none.
    pub(super) slot: Option<u64>,
    /// What the kernel says of it: `in_sync`, `faulty`, `spare`, `replacement`, ...
    pub(super) flags: Vec<String>,
    /// Read errors that it has got over.
    pub(super) errors: u64,
    /// Sectors in its list of bad blocks: they could not be written to it, or not read from it and not written anew.
    pub(super) bad: u64,
}

impl Device {
    pub(super) fn is(&self, flag: &str) -> bool {
        self.flags.iter().any(|f| f == flag)
    }

    /// Does it serve at its place, with data that are whole?
    pub(super) fn serves(&self) -> bool {
        self.is("in_sync") && !self.is("faulty") && !self.is("replacement")
    }

    /// Its device node.
    pub(super) fn path(&self) -> PathBuf {
        blocks::node_of(&self.name)
    }

    /// Whether its block device is there.
    pub(super) fn is_there(&self, host: &Host) -> Result<bool, BackendError> {
        Ok(blocks::size_of(host, &self.name)?.is_some_and(|size| size.0 > 0))
    }
}

impl Array {
    /// Every array.
    pub(super) fn all(host: &Host) -> Result<Vec<Self>, BackendError> {
        blocks::steady(|| Self::listed(host))
    }

    fn listed(host: &Host) -> Result<Vec<Self>, BackendError> {
        let names = names(host, "/sys/class/block")?;
        names
            .iter()
            .filter(|name| is_array(name))
            .filter_map(|name| Self::read(host, name).transpose())
            .collect()
    }

    /// The array with this UUID.
    pub(super) fn find(host: &Host, uuid: &str) -> Result<Option<Self>, BackendError> {
        let mut unknown = None;
        for array in Self::all(host)? {
            match array.uuid(host)? {
                Some(own) if own == uuid => return Ok(Some(array)),
                Some(_) => {}
                None => unknown = Some(array),
            }
        }
        match unknown.filter(|array| array.state.runs()) {
            // It may be this one: that it is not there would be a guess.
            Some(array) => Err(BackendError::State(format!(
                "it cannot be told which array {} is: none of its devices can be read",
                array.state.device.display()
            ))),
            None => Ok(None),
        }
    }

    /// The array that a device node is.
    pub(super) fn at(host: &Host, device: &Path) -> Result<Option<Self>, BackendError> {
        let name = blocks::kernel_name(host, device);
        if is_array(&name) { Self::read(host, &name) } else { Ok(None) }
    }

    /// Its UUID: what the kernel says, and before Linux 6.3 what its devices say.
    pub(super) fn uuid(&self, host: &Host) -> Result<Option<String>, BackendError> {
        let file = self.dir().join("uuid");
        if let Some(text) = host.read_optional(&file).doing("reading", &file)? {
            return Ok(Some(text.trim().to_lowercase()));
        }
        let said = |device: &Device| Superblock::read(&host.path(device.path())).ok().flatten();
        Ok(self.devices.iter().find_map(said).map(|sb| sb.array))
    }

    fn dir(&self) -> PathBuf {
        dir_of(&self.name)
    }

    fn read(host: &Host, name: &str) -> Result<Option<Self>, BackendError> {
        let dir = dir_of(name);
        let optional = |file: &str| {
            let path = dir.join(file);
            let text = host.read_optional(&path).doing("reading", path)?;
            Ok::<_, BackendError>(text.map(|t| t.trim().to_owned()))
        };
        // One that is being stopped.
        let Some(state) = optional("array_state")?.filter(|state| state != "clear") else { return Ok(None) };
        let number = |file: &'static str| {
            Ok::<_, BackendError>(optional(file)?.map(|text| parse_number(file, &text)).transpose()?)
        };
        let raid_disks = optional("raid_disks")?.unwrap_or_default();
        let speed = optional("sync_speed")?.filter(|s| s != "none").map(|s| parse_number("sync_speed", &s));
        let speed = speed.transpose()?.map(|kib| Bytes(kib.saturating_mul(1024)));
        let progress = optional("sync_completed")?.map(|text| parse_completed(&text)).transpose()?.flatten();
        let state = MdState {
            device: blocks::node_of(name),
            metadata: optional("metadata_version")?.unwrap_or_default(),
            state,
            level: optional("level")?.unwrap_or_default(),
            raid_disks: parse_disks(&raid_disks)?,
            degraded: number("degraded")?,
            action: optional("sync_action")?.filter(|word| !matches!(word.as_str(), "idle" | "frozen" | "")),
            progress: progress.map(|(done, total)| MdProgress { done, total, speed }),
            mismatches: number("mismatch_cnt")?,
            policy: optional("consistency_policy")?,
        };
        let mut devices = Vec::new();
        for entry in names(host, &dir)? {
            if let Some(of) = entry.strip_prefix("dev-") {
                devices.extend(device(host, &dir.join(&entry), of)?);
            }
        }
        Ok(Some(Self { name: name.to_owned(), state, devices }))
    }
}

fn dir_of(name: &str) -> PathBuf {
    Path::new("/sys/class/block").join(name).join("md")
}

/// One device of an array; nothing where it is being taken out at this moment.
fn device(host: &Host, dir: &Path, name: &str) -> Result<Option<Device>, BackendError> {
    let optional = |file: &str| {
        let path = dir.join(file);
        match host.read_optional(&path) {
            // The kernel answers so for one that is leaving.
            Err(e) if matches!(e.raw_os_error(), Some(nix::libc::ENODEV | nix::libc::EBUSY)) => Ok(None),
            other => other.doing("reading", path).map_err(BackendError::from),
        }
    };
    let (Some(state), Some(slot), Some(errors)) =
        (optional("state")?, optional("slot")?, optional("errors")?)
    else {
        return Ok(None);
    };
    Ok(Some(Device {
        name: name.to_owned(),
        slot: parse_slot(&slot)?,
        flags: state.trim().split(',').map(str::to_owned).collect(),
        errors: parse_number("errors", &errors)?,
        bad: optional("bad_blocks")?.map_or(Ok(0), |text| parse_bad(&text))?,
    }))
}

/// `none`, or a place from 0.
fn parse_slot(text: &str) -> Result<Option<u64>, ParseError> {
    match text.trim() {
        "none" | "journal" => Ok(None),
        number => parse_number("slot", number).map(Some),
    }
}

/// The list of bad blocks (kernel: `badblocks_show` in `block/badblocks.c`): a line for each range, its first sector and how many.
fn parse_bad(text: &str) -> Result<u64, ParseError> {
    let length = |line: &str| {
        let (first, length) = line.split_once(' ').ok_or_else(|| ParseError::new("bad_blocks", line))?;
        parse_number("bad_blocks", first)?;
        parse_number("bad_blocks", length)
    };
    text.lines().try_fold(0_u64, |sum, line| Ok(sum.saturating_add(length(line)?)))
}

/// `2`, or `3 (2)` while the number is being changed; empty or 0 where the array is not started.
fn parse_disks(text: &str) -> Result<u64, ParseError> {
    match text.split_whitespace().next() {
        None => Ok(0),
        Some(number) => parse_number("raid_disks", number),
    }
}

/// `none`, `delayed`, or sectors done of sectors in all: `1024 / 2096128`.
fn parse_completed(text: &str) -> Result<Option<(Bytes, Bytes)>, ParseError> {
    if matches!(text.trim(), "none" | "delayed") {
        return Ok(None);
    }
    let (done, total) = text.split_once('/').ok_or_else(|| ParseError::new("sync_completed", text))?;
    let bytes = |text| parse_number("sync_completed", text).map(|sectors| Bytes(sectors.saturating_mul(512)));
    Ok(Some((bytes(done)?, bytes(total)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_arrays() {
        assert!(["md0", "md127", "md_home"].into_iter().all(is_array));
        assert!(!["md", "mdx", "sda", "dm-0", "mmcblk0"].into_iter().any(is_array));
    }

    #[test]
    fn the_words_of_sysfs() {
        assert_eq!(parse_slot("none\n"), Ok(None));
        assert_eq!(parse_slot("1\n"), Ok(Some(1)));
        assert!(parse_slot("").is_err() && parse_slot("one").is_err());
        assert_eq!(parse_disks("2\n"), Ok(2));
        assert_eq!(parse_disks("3 (2)\n"), Ok(3));
        assert_eq!(parse_disks("\n"), Ok(0));
        assert!(parse_disks("x").is_err());
        assert_eq!(parse_bad(""), Ok(0));
        assert_eq!(parse_bad("2048 8\n4096 512\n"), Ok(520));
        assert!(parse_bad("2048\n").is_err() && parse_bad("x 8\n").is_err() && parse_bad("8 x\n").is_err());
        assert_eq!(parse_completed("none\n"), Ok(None));
        assert_eq!(parse_completed("delayed\n"), Ok(None));
        assert_eq!(parse_completed("8 / 16\n"), Ok(Some((Bytes(4096), Bytes(8192)))));
        for bad in ["", "8", "8 / x", "-1 / 2"] {
            assert!(parse_completed(bad).is_err(), "{bad:?}");
        }
    }

    crate::fuzz::fuzzed!(fuzz_md_sysfs, text [b"none\n", b"1024 / 2096128\n", b"3 (2)\n", b"delayed", b"2048 8\n"], |text| {
        let _ = (parse_slot(text), parse_disks(text));
        if let Ok(1..) = parse_bad(text) {
            assert!(text.contains(' '));
        }
        if let Ok(Some(_)) = parse_completed(text) {
            assert!(text.contains('/'));
        }
    });
}
