//! `/sys/fs/btrfs/UUID` (kernel: `fs/btrfs/sysfs.c`): the members and the layout of a mounted filesystem, without a process.

use std::path::PathBuf;

use super::{BackendError, ParseError};
use crate::{
    backend::blocks,
    host::{Host, files::Doing as _},
    model::{
        Bytes,
        mirror::{ChunkKind, ErrorCounts, ProfileUse},
    },
};

/// One directory below `devinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DevInfo {
    /// The member's number.
    pub(super) devid: u64,
    /// The kernel's flag that it is missing. A member that was pulled does not set it.
    pub(super) missing: bool,
    /// Whether the kernel would write to it.
    pub(super) writeable: bool,
    /// Whether a running replace is filling it.
    pub(super) replace_target: bool,
    /// Its error counters, where the kernel has read them.
    pub(super) errors: Option<ErrorCounts>,
}

/// The directory of one filesystem.
#[derive(Debug)]
pub(super) struct SysFs<'h> {
    host: &'h Host,
    dir: PathBuf,
}

impl<'h> SysFs<'h> {
    /// The directory of the filesystem with this UUID, where it is mounted.
    pub(super) fn find(host: &'h Host, uuid: &str) -> Result<Option<Self>, BackendError> {
        let dir = PathBuf::from("/sys/fs/btrfs").join(uuid);
        let there = host.path(&dir).try_exists().doing("looking for", &dir)?;
        Ok(there.then_some(Self { host, dir }))
    }

    /// Its devices by the kernel's names (`sda1`, `loop0`). The links are not followed: they outlive a device that was pulled.
    pub(super) fn devices(&self) -> Result<Vec<String>, BackendError> {
        blocks::names(self.host, self.dir.join("devices"))
    }

    /// Its members, by devid.
    pub(super) fn members(&self) -> Result<Vec<DevInfo>, BackendError> {
        blocks::steady(|| self.members_listed())
    }

    fn members_listed(&self) -> Result<Vec<DevInfo>, BackendError> {
        let dir = self.dir.join("devinfo");
        let mut members = Vec::new();
        for name in blocks::names(self.host, &dir)? {
            let devid = name.parse().map_err(|_| ParseError::new("devinfo", &name))?;
            let read = |file: &str| {
                let path = dir.join(&name).join(file);
                self.host.read(&path).doing("reading", path)
            };
            let flag = |file: &'static str| Ok::<_, BackendError>(parse_flag(file, &read(file)?)?);
            members.push(DevInfo {
                devid,
                missing: flag("missing")?,
                writeable: flag("writeable")?,
                replace_target: flag("replace_target")?,
                errors: parse_error_stats(&read("error_stats")?)?,
            });
        }
        members.sort_by_key(|m| m.devid);
        Ok(members)
    }

    /// How its space is laid out.
    pub(super) fn profiles(&self) -> Result<Vec<ProfileUse>, BackendError> {
        let mut profiles = Vec::new();
        for kind in ChunkKind::ALL {
            let dir = self.dir.join("allocation").join(kind.as_str());
            for profile in blocks::directories(self.host, &dir)? {
                let sub = dir.join(&profile);
                let bytes = |file: &'static str| {
                    let path = sub.join(file);
                    let text = self.host.read(&path).doing("reading", path)?;
                    Ok::<_, BackendError>(Bytes(blocks::parse_number(file, &text)?))
                };
                let (total, used) = (bytes("total_bytes")?, bytes("used_bytes")?);
                profiles.push(ProfileUse { kind, profile, total, used });
            }
        }
        Ok(profiles)
    }

    /// The long work that the kernel does on it.
    pub(super) fn exclusive_operation(&self) -> Result<Option<String>, BackendError> {
        let path = self.dir.join("exclusive_operation");
        let text = self.host.read(&path).doing("reading", path)?;
        let word = text.trim();
        Ok((word != "none").then(|| word.to_owned()))
    }
}

/// `0` or `1`.
fn parse_flag(what: &'static str, text: &str) -> Result<bool, ParseError> {
    match text.trim() {
        "0" => Ok(false),
        "1" => Ok(true),
        other => Err(ParseError::new(what, other)),
    }
}

/// `devinfo/N/error_stats`: five lines of a name and a number. `None` for `invalid`, which the kernel says before it has read them.
fn parse_error_stats(text: &str) -> Result<Option<ErrorCounts>, ParseError> {
    if text.trim() == "invalid" {
        return Ok(None);
    }
    let bad = |line: &str| ParseError::new("error_stats", line);
    let (mut write, mut read, mut flush, mut corruption, mut generation) = (None, None, None, None, None);
    for line in text.lines() {
        let (name, number) = line.split_once(' ').ok_or_else(|| bad(line))?;
        let place = match name {
            "write_errs" => &mut write,
            "read_errs" => &mut read,
            "flush_errs" => &mut flush,
            "corruption_errs" => &mut corruption,
            "generation_errs" => &mut generation,
            _ => return Err(bad(line)),
        };
        *place = Some(number.trim().parse::<u64>().map_err(|_| bad(line))?);
    }
    match (write, read, flush, corruption, generation) {
        (Some(write), Some(read), Some(flush), Some(corruption), Some(generation)) => {
            Ok(Some(ErrorCounts { write, read, flush, corruption, generation }))
        }
        _ => Err(bad(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_error_counters_whole_or_not_at_all() {
        let text = include_str!("../../../tests/fixtures/btrfs/sysfs/healthy/devinfo/1/error_stats");
        assert_eq!(parse_error_stats(text).unwrap(), Some(ErrorCounts::default()));
        let counted =
            text.replace("write_errs 0", "write_errs 7").replace("corruption_errs 0", "corruption_errs 2");
        let expected = ErrorCounts { write: 7, corruption: 2, ..ErrorCounts::default() };
        assert_eq!(parse_error_stats(&counted).unwrap(), Some(expected));
        assert_eq!(parse_error_stats("invalid\n").unwrap(), None);
        for bad in ["", "write_errs 0\n", "write_errs x\n", "write_errs\n"] {
            assert!(parse_error_stats(bad).is_err(), "{bad:?}");
        }
        assert!(parse_error_stats(&format!("{text}other_errs 0\n")).is_err());
    }

    #[test]
    fn a_flag_is_0_or_1() {
        assert!(!parse_flag("missing", "0\n").unwrap());
        assert!(parse_flag("missing", "1\n").unwrap());
        assert!(parse_flag("missing", "").is_err());
        assert!(parse_flag("missing", "2\n").is_err());
    }

    crate::fuzz::fuzzed!(fuzz_error_stats, text [
        include_bytes!("../../../tests/fixtures/btrfs/sysfs/healthy/devinfo/1/error_stats"),
        b"invalid\n",
    ], |text| {
        if let Ok(None) = parse_error_stats(text) {
            assert_eq!(text.trim(), "invalid");
        }
    });

    crate::fuzz::fuzzed!(fuzz_sysfs_flags_and_numbers, text [b"0\n", b"1\n", b"1048576\n"], |text| {
        let _ = parse_flag("missing", text);
        if let Ok(number) = blocks::parse_number("size", text) {
            let plain = text.trim().trim_start_matches('+').trim_start_matches('0');
            assert_eq!(if plain.is_empty() { "0" } else { plain }, number.to_string());
        }
    });
}
