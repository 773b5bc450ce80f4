//! What the other processes have open, as `/proc/PID/cwd`, `root` and `fd` say it (proc(5)). A check asks this of every process, so it is
//! done with few system calls and without an allocation for each file.

use std::{
    ffi::{CStr, OsStr},
    fs,
    io::{self, Write as _},
    mem::MaybeUninit,
    ops::ControlFlow,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
};

use nix::libc;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir, Stat, openat, readlinkat_raw, statat};

use crate::host::{
    Host,
    files::{self, Doing as _, FileError},
    proc_stat,
};

/// The longest target that the kernel tells (`PATH_MAX`, with ` (deleted)` at its end).
const LONGEST: usize = 4096 + 16;

/// One process: its directory below `/proc`, or that of one of its threads.
pub(super) struct Process<'a> {
    proc: &'a OwnedFd,
    dir: &'a str,
    /// Its number.
    pub(super) pid: i32,
}

/// What a process has open, or as its working directory or root.
pub(super) struct Link<'a> {
    at: &'a OwnedFd,
    name: &'a CStr,
    target: &'a [u8],
}

impl Link<'_> {
    /// Where it leads; the mark of a file that was deleted is left out.
    pub(super) fn path(&self) -> &Path {
        let plain = self.target.strip_suffix(b" (deleted)").unwrap_or(self.target);
        Path::new(OsStr::from_bytes(plain))
    }

    /// The file itself: also where the process sees other mounts than we do.
    pub(super) fn file(&self) -> Option<Stat> {
        statat(self.at, self.name, AtFlags::empty()).ok()
    }

    /// The target as the kernel writes it.
    pub(super) fn whole(&self) -> PathBuf {
        Path::new(OsStr::from_bytes(self.target)).to_owned()
    }
}

impl Process<'_> {
    /// A path in its directory.
    fn at<'b>(&self, name: &str, buffer: &'b mut [u8; 64]) -> io::Result<&'b CStr> {
        write!(&mut buffer[..], "{}/{name}\0", self.dir)?;
        CStr::from_bytes_until_nul(buffer).map_err(io::Error::other)
    }

    /// What it is called.
    pub(super) fn name(&self) -> String {
        let read = || -> io::Result<Vec<u8>> {
            let mut buffer = [0; 64];
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let comm = openat(self.proc, self.at("comm", &mut buffer)?, flags, Mode::empty())?;
            files::rest_of(&fs::File::from(comm))
        };
        String::from_utf8_lossy(&read().unwrap_or_default()).trim().to_owned()
    }

    /// What tells its tree of mounts from others'.
    pub(super) fn namespace(&self) -> Option<PathBuf> {
        let (mut path, mut buffer) = ([0; 64], [MaybeUninit::uninit(); LONGEST]);
        let (target, _) = readlinkat_raw(self.proc, self.at("ns/mnt", &mut path).ok()?, &mut buffer).ok()?;
        Some(Path::new(OsStr::from_bytes(target)).to_owned())
    }

    /// Shows what it has as its root, its working directory or open to `see`, until that says that it has seen enough.
    ///
    /// # Errors
    /// It hides what it has open, or has ended.
    pub(super) fn each_held(&self, mut see: impl FnMut(&Link<'_>) -> Enough) -> io::Result<()> {
        match look(self.proc, self.at("root", &mut [0; 64])?, &mut see)? {
            Enough::Break(()) => Ok(()),
            Enough::Continue(()) => self.each_open(see),
        }
    }

    /// As [`Process::each_held`], without its root: in nothing else does a process work.
    ///
    /// # Errors
    /// Those of [`Process::each_held`].
    pub(super) fn each_open(&self, mut see: impl FnMut(&Link<'_>) -> Enough) -> io::Result<()> {
        let mut path = [0; 64];
        if look(self.proc, self.at("cwd", &mut path)?, &mut see)?.is_break() {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let files = openat(self.proc, self.at("fd", &mut path)?, flags, Mode::empty())?;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut entries = RawDir::new(&files, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            match look(&files, name, &mut see) {
                // A file that was closed meanwhile is not held.
                Err(rustix::io::Errno::NOENT) => {}
                seen => {
                    if seen?.is_break() {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }
}

/// Whether enough was seen.
pub(super) type Enough = ControlFlow<()>;

fn look(
    at: &OwnedFd,
    name: &CStr,
    see: &mut impl FnMut(&Link<'_>) -> Enough,
) -> Result<Enough, rustix::io::Errno> {
    let mut buffer = [MaybeUninit::uninit(); LONGEST];
    match readlinkat_raw(at, name, &mut buffer) {
        // Sockets, pipes and their like are no files of a directory.
        Ok((target, _)) if target.first() != Some(&b'/') => Ok(Enough::Continue(())),
        Ok((target, _)) => Ok(see(&Link { at, name, target })),
        Err(e) => Err(e),
    }
}

/// Some of the processes, so that several may ask at once: every `of`th of them, from the `first`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Which of the shares, from 0.
    pub first: u32,
    /// How many shares there are; not 0.
    pub of: u32,
}

impl Share {
    /// All processes.
    pub const ALL: Self = Self { first: 0, of: 1 };

    fn has(self, pid: i32) -> bool {
        pid.unsigned_abs() % self.of.max(1) == self.first
    }
}

/// Shows every other process of this share to `look`. What cannot be told of one, and why, is the answer.
///
/// # Errors
/// `/proc` cannot be read.
pub(super) fn each_process(
    host: &Host,
    share: Share,
    mut look: impl FnMut(&Process<'_>) -> io::Result<()>,
) -> Result<Option<String>, FileError> {
    let proc = host.path("/proc");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let all = openat(CWD, &proc, flags, Mode::empty()).map_err(io::Error::from).doing("reading", &proc)?;
    let others = host.once(&proc, || others(&all)).doing("reading", &proc)?;
    let mut unknown = None;
    for pid in others.iter().copied().filter(|pid| share.has(*pid)) {
        let process = Process { proc: &all, dir: &pid.to_string(), pid };
        let seen = match look(&process) {
            Err(e) if has_ended(&e) => process.each_thread(&mut look),
            seen => seen,
        };
        match seen {
            Ok(()) => {}
            // A process that ended meanwhile holds nothing.
            Err(e) if has_ended(&e) => {}
            // Some virtual machines and containers hide what init has open, also from root. Init is no node unless it is named so; its
            // lock and socket are looked at all the same.
            Err(_) if pid == 1 && is_foreign(&process.name()) => {}
            Err(e) => unknown = Some(format!("what process {pid} has open cannot be read: {e}")),
        }
    }
    Ok(unknown)
}

/// The numbers of all processes but this one and the kernel's own.
fn others(proc: &OwnedFd) -> io::Result<Vec<i32>> {
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let kernel = kernel_threads(proc).unwrap_or_default();
    let mut others = Vec::new();
    let mut buffer = [MaybeUninit::uninit(); 8192];
    let mut entries = RawDir::new(proc, &mut buffer);
    while let Some(entry) = entries.next() {
        let pid = entry?.file_name().to_str().ok().and_then(|name| name.parse().ok());
        others.extend(pid.filter(|pid| *pid != own && kernel.binary_search(pid).is_err()));
    }
    Ok(others)
}

fn has_ended(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

impl Process<'_> {
    /// Shows its threads to `look`: where its first one has ended, which holds nothing any more, others may not have.
    fn each_thread(&self, look: &mut impl FnMut(&Process<'_>) -> io::Result<()>) -> io::Result<()> {
        let mut path = [0; 64];
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let tasks = openat(self.proc, self.at("task", &mut path)?, flags, Mode::empty())?;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut entries = RawDir::new(&tasks, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            if let Some(thread) = entry.file_name().to_str().ok().filter(|name| !name.starts_with('.')) {
                let dir = format!("{}/task/{thread}", self.dir);
                match look(&Process { proc: self.proc, dir: &dir, pid: self.pid }) {
                    Err(e) if has_ended(&e) => {}
                    other => other?,
                }
            }
        }
        Ok(())
    }
}

/// The threads of the kernel, in order, where it tells them: the children of its own kthreadd, which is process 2 wherever it can be seen
/// (kernel: `kernel/kthread.c`). They are half of all that runs on a small machine, and hold no files of a directory.
fn kernel_threads(proc: &OwnedFd) -> io::Result<Vec<i32>> {
    let read = |path: &CStr| -> io::Result<String> {
        let file = openat(proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        String::from_utf8(files::rest_of(&fs::File::from(file))?).map_err(io::Error::other)
    };
    if !is_of_the_kernel(&read(c"2/stat")?) {
        return Ok(Vec::new());
    }
    let mut children: Vec<i32> =
        read(c"2/task/2/children")?.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect();
    children.sort_unstable();
    Ok(children)
}

/// Does this `/proc/PID/stat` say `PF_KTHREAD` (kernel: `include/linux/sched.h`) among its flags?
fn is_of_the_kernel(stat: &str) -> bool {
    const KTHREAD: u64 = 0x0020_0000;
    proc_stat::flags(stat).is_some_and(|flags| flags & KTHREAD != 0)
}

fn is_foreign(name: &str) -> bool {
    !name.is_empty() && !name.starts_with("lightning")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_are_known_by_their_flag() {
        let kthreadd =
            "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 3 0 0 20 0 1 0 1 0 0 18446744073709551615 0 0";
        assert!(is_of_the_kernel(kthreadd));
        for other in [
            "2 (kthreadd) S 1 2 2 0 -1 4194560 0 0 0 0",
            "2 (a) S 0 0 0 0 -1 2129984 0) S 1 2 2 0 -1 4194560 0 0",
            "2 (kthreadd) S 0 0",
            "",
        ] {
            assert!(!is_of_the_kernel(other), "{other}");
        }
    }

    #[test]
    fn of_the_kernels_own_none_runs_a_program() {
        let proc = openat(CWD, "/proc", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        for pid in kernel_threads(&proc).unwrap_or_default() {
            assert!(fs::read_link(format!("/proc/{pid}/exe")).is_err(), "{pid}");
        }
    }

    crate::fuzz::fuzzed!(fuzz_kernel_thread, text[b"2 (kthreadd) S 0 0 0 0 -1 2129984 0"], |text| {
        is_of_the_kernel(text);
    });
}
