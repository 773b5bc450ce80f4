//! The proof that nothing was written to a survivor: the kernel's counts of completed writes and discards are what they were
//! (Documentation/block/stat.rst), it was read-only all the time, and the bytes that any write to it would change are the same.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use serde::Serialize;

use super::{OverlayError, block, block::Survivor};
use crate::host::{Host, copy::Memory, files::Doing as _};

/// What a survivor's kernel counters say. In completed requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// Writes.
    pub writes: u64,
    /// 512-byte sectors written.
    pub sectors: u64,
    /// Discards; 0 before Linux 4.18, which does not count them.
    pub discards: u64,
}

/// A stretch of a survivor that was compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stretch {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u64,
    /// The BLAKE3 hash of its bytes; `None`: they could not be read.
    pub hash: Option<String>,
}

/// A survivor as it was at one time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Look {
    /// The kernel's running number of the disk (Linux 5.15 on).
    pub sequence: Option<u64>,
    /// Whether the kernel refused writes.
    pub read_only: bool,
    /// The counters; `None` where the kernel does not keep them for this disk.
    pub counted: Option<Counted>,
    /// Where superblocks of btrfs, md and ZFS lie.
    pub stretches: Vec<Stretch>,
}

/// What is known of one survivor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Untouched {
    /// The device.
    pub device: PathBuf,
    /// When the overlay was opened.
    pub before: Look,
    /// Now; or why it could not be looked at.
    pub after: Result<Look, String>,
}

/// That no survivor was written to, or what speaks against it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Proof {
    /// Every survivor.
    pub survivors: Vec<Untouched>,
}

impl Proof {
    /// Is it proven of all of them?
    pub fn holds(&self) -> bool {
        self.survivors.iter().all(|s| s.objection().is_none())
    }
}

impl Look {
    /// Takes into it what came between two counts, if that was flushes and nothing else: the loop driver has a device flush its cache when it
    /// is attached to it, which the kernel counts as a write of no sectors.
    pub(super) fn excuse_flush(&mut self, before: Option<Counted>, after: Option<Counted>) {
        let (Some(counted), Some(before), Some(after)) = (&mut self.counted, before, after) else { return };
        if (Counted { writes: after.writes, ..before }) == after {
            counted.writes += after.writes.saturating_sub(before.writes);
        }
    }
}

impl Untouched {
    /// What speaks against it, in words; `None`: it is proven.
    pub fn objection(&self) -> Option<String> {
        let after = match &self.after {
            Ok(after) => after,
            Err(why) => return Some(format!("it cannot be looked at any more: {why}")),
        };
        let (Some(then), Some(now)) = (self.before.counted, after.counted) else {
            return Some("the kernel does not count writes to it".to_owned());
        };
        if self.before.sequence != after.sequence {
            return Some("another disk has taken its name".to_owned());
        }
        if !(self.before.read_only && after.read_only) {
            return Some("it was not read-only all the time".to_owned());
        }
        if then != now {
            let (writes, discards) =
                (now.writes.wrapping_sub(then.writes), now.discards.wrapping_sub(then.discards));
            return Some(format!("{writes} writes and {discards} discards reached it"));
        }
        let changed = self.before.stretches.iter().zip(&after.stretches).find(|(a, b)| a != b);
        changed.map(|(a, _)| format!("its bytes from {} on changed, or can no longer be read", a.offset))
    }
}

impl fmt::Display for Untouched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = self.device.display();
        match self.objection() {
            Some(objection) => write!(f, "{device} is not proven to be unchanged: {objection}"),
            None => write!(
                f,
                "{device} is unchanged: read-only all the time, no write and no discard completed, its superblocks equal"
            ),
        }
    }
}

/// Looks at a survivor.
pub(super) fn look(host: &Host, survivor: &Survivor) -> Result<Look, OverlayError> {
    let kname = &survivor.kname;
    let counted = count(host, kname)?;
    Ok(Look {
        sequence: block::sequence(host, kname)?,
        read_only: block::is_read_only(host, kname)?,
        counted,
        stretches: stretches(&host.path(&survivor.device), survivor.size)?,
    })
}

/// What has been written to a device, where the kernel counts.
pub(super) fn count(host: &Host, kname: &str) -> Result<Option<Counted>, OverlayError> {
    let counts = block::attribute(host, &block::disk_of(host, kname), "queue/iostats")?;
    Ok(match counts.as_deref() {
        Some("0") => None,
        _ => block::attribute(host, kname, "stat")?.as_deref().and_then(parse_stat),
    })
}

/// Fields 5 and 7 are writes, in requests and sectors; field 12, since 4.18, discards.
fn parse_stat(text: &str) -> Option<Counted> {
    let fields: Vec<u64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    if fields.len() < 11 {
        return None;
    }
    let discards = fields.get(11).copied().unwrap_or(0);
    Some(Counted { writes: *fields.get(4)?, sectors: *fields.get(6)?, discards })
}

/// The first and the last MiB (md's superblocks, ZFS's labels, btrfs's first superblock), and btrfs's further copies at 64 MiB and 256 GiB.
fn stretches(device: &Path, size: u64) -> Result<Vec<Stretch>, OverlayError> {
    const MIB: u64 = 1 << 20;
    let copies = [(64 * MIB, 4096), (256 << 30, 4096)];
    let end = size.saturating_sub(MIB).next_multiple_of(4096).min(size);
    let places = [(0, MIB.min(size))].into_iter().chain(copies).chain([(end, size - end)]);
    let file = open(device).doing("opening", device)?;
    let mut memory = Memory::new();
    let mut found = Vec::new();
    for (offset, length) in places.filter(|(offset, length)| offset + length <= size) {
        // Direct reads want whole blocks; what is left of the last one is below a block.
        let window = memory.part(length / 4096 * 4096);
        let read = file.read_exact_at(window, offset);
        let hash = read.ok().map(|()| blake3::hash(window).to_hex().to_string());
        found.push(Stretch { offset, length: window.len() as u64, hash });
    }
    Ok(found)
}

/// Opens a device for reading past the page cache, where that can be had.
pub(super) fn open(device: &Path) -> io::Result<File> {
    let direct = OpenOptions::new().read(true).custom_flags(nix::libc::O_DIRECT).open(device);
    if direct.as_ref().is_err_and(|e| e.raw_os_error() == Some(nix::libc::EINVAL)) {
        let file = File::open(device)?;
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        return Ok(file);
    }
    direct
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_every_kernel_are_read() {
        let old = "     116        0     5360       69       56     1204     9968      177        0      152      311";
        let counted = Counted { writes: 56, sectors: 9968, discards: 0 };
        assert_eq!(parse_stat(old), Some(counted));
        let new = format!("{old}        1        0  2097152        0       14       64\n");
        assert_eq!(parse_stat(&new), Some(Counted { discards: 1, ..counted }));
        assert_eq!(parse_stat("1 2 3"), None);
        assert_eq!(parse_stat(&old.replace("56", "x")), None);
    }

    #[test]
    fn whatever_speaks_against_it_is_said() {
        let look = Look {
            sequence: Some(7),
            read_only: true,
            counted: Some(Counted { writes: 5, sectors: 40, discards: 1 }),
            stretches: vec![Stretch { offset: 0, length: 4096, hash: Some("a".into()) }],
        };
        let objection = |after: Result<Look, String>| {
            let one = Untouched { device: "/dev/sdb".into(), before: look.clone(), after };
            assert_eq!(one.objection().is_none(), Proof { survivors: vec![one.clone()] }.holds());
            one.objection().unwrap_or_default()
        };
        let counted = |writes, discards| Some(Counted { writes, sectors: 40, discards });
        let hash =
            |hash: Option<&str>| vec![Stretch { offset: 0, length: 4096, hash: hash.map(str::to_owned) }];
        assert_eq!(objection(Ok(look.clone())), "");
        assert!(objection(Err("gone".into())).contains("gone"));
        assert!(objection(Ok(Look { counted: None, ..look.clone() })).contains("does not count"));
        assert!(objection(Ok(Look { counted: counted(6, 1), ..look.clone() })).contains("1 writes"));
        assert!(objection(Ok(Look { counted: counted(5, 2), ..look.clone() })).contains("1 discards"));
        assert!(objection(Ok(Look { sequence: Some(8), ..look.clone() })).contains("another disk"));
        assert!(objection(Ok(Look { read_only: false, ..look.clone() })).contains("read-only"));
        assert!(objection(Ok(Look { stretches: hash(Some("b")), ..look.clone() })).contains("bytes from 0"));
        assert!(objection(Ok(Look { stretches: hash(None), ..look.clone() })).contains("no longer be read"));
    }

    #[test]
    fn a_flush_is_excused_and_nothing_else() {
        let counted = |writes, sectors, discards| Some(Counted { writes, sectors, discards });
        let excused = |before, after| {
            let mut look =
                Look { sequence: None, read_only: true, counted: counted(5, 40, 1), stretches: Vec::new() };
            look.excuse_flush(before, after);
            look.counted
        };
        assert_eq!(excused(counted(5, 40, 1), counted(6, 40, 1)), counted(6, 40, 1));
        // What was written before stays written.
        assert_eq!(excused(counted(6, 48, 1), counted(7, 48, 1)), counted(6, 40, 1));
        for after in [counted(6, 48, 1), counted(6, 40, 2), None] {
            assert_eq!(excused(counted(5, 40, 1), after), counted(5, 40, 1));
        }
    }

    crate::fuzz::fuzzed!(fuzz_disk_stat, text [
        b"  2193   1205   190490  1108  51  0  408  21  0  1052  1130  0  0  0  0  4  0\n",
    ], |text| {
        assert!(parse_stat(text).is_none() || text.split_whitespace().count() >= 11);
    });
}
