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
    files::{Doing as _, FileError},
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
        let read = || -> io::Result<String> {
            let mut buffer = [0; 64];
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let comm = openat(self.proc, self.at("comm", &mut buffer)?, flags, Mode::empty())?;
            io::read_to_string(fs::File::from(comm))
        };
        read().unwrap_or_default().trim().to_owned()
    }

    /// What tells its tree of mounts from others'.
    pub(super) fn namespace(&self) -> Option<PathBuf> {
        let (mut path, mut buffer) = ([0; 64], [MaybeUninit::uninit(); LONGEST]);
        let (target, _) = readlinkat_raw(self.proc, self.at("ns/mnt", &mut path).ok()?, &mut buffer).ok()?;
        Some(Path::new(OsStr::from_bytes(target)).to_owned())
    }

    /// Shows what it has as its working directory, its root or open to `see`, until that says that it has seen enough.
    ///
    /// # Errors
    /// It hides what it has open, or has ended.
    pub(super) fn each_held(&self, mut see: impl FnMut(&Link<'_>) -> Enough) -> io::Result<()> {
        let mut path = [0; 64];
        for name in ["cwd", "root"] {
            if look(self.proc, self.at(name, &mut path)?, &mut see)?.is_break() {
                return Ok(());
            }
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let files = openat(self.proc, self.at("fd", &mut path)?, flags, Mode::empty())?;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut entries = RawDir::new(&files, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if name != c"." && name != c".." && look(&files, name, &mut see)?.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Whether enough was seen.
pub(super) type Enough = ControlFlow<()>;

fn look(at: &OwnedFd, name: &CStr, see: &mut impl FnMut(&Link<'_>) -> Enough) -> io::Result<Enough> {
    let mut buffer = [MaybeUninit::uninit(); LONGEST];
    match readlinkat_raw(at, name, &mut buffer) {
        // Sockets, pipes and their like are no files of a directory.
        Ok((target, _)) if target.first() != Some(&b'/') => Ok(Enough::Continue(())),
        Ok((target, _)) => Ok(see(&Link { at, name, target })),
        // A kernel thread has none; a file that was closed meanwhile is not held.
        Err(rustix::io::Errno::NOENT) => Ok(Enough::Continue(())),
        Err(e) => Err(e.into()),
    }
}

/// Shows every other process to `look`. What cannot be told of one, and why, is the answer.
///
/// # Errors
/// `/proc` cannot be read.
pub(super) fn each_process(
    host: &Host,
    mut look: impl FnMut(&Process<'_>) -> io::Result<()>,
) -> Result<Option<String>, FileError> {
    let proc = host.path("/proc");
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let all = openat(CWD, &proc, flags, Mode::empty()).map_err(io::Error::from).doing("reading", &proc)?;
    let mut unknown = None;
    let mut buffer = [MaybeUninit::uninit(); 8192];
    let mut entries = RawDir::new(&all, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(io::Error::from).doing("reading", &proc)?;
        let Ok(dir) = entry.file_name().to_str() else { continue };
        let Some(pid) = dir.parse::<i32>().ok().filter(|pid| *pid != own) else { continue };
        let process = Process { proc: &all, dir, pid };
        match process.each_part(&mut look) {
            Ok(()) => {}
            // A process that ended meanwhile holds nothing.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {}
            // Some virtual machines and containers hide what init has open, also from root. Init is no node unless it is named so; its
            // lock and socket are looked at all the same.
            Err(_) if pid == 1 && is_foreign(&process.name()) => {}
            Err(e) => unknown = Some(format!("what process {pid} has open cannot be read: {e}")),
        }
    }
    Ok(unknown)
}

impl Process<'_> {
    /// Itself; nothing where it is a thread of the kernel, which holds no files of a directory. Where its first thread has ended and others
    /// have not, what they hold is seen only by them.
    fn each_part(&self, look: &mut impl FnMut(&Process<'_>) -> io::Result<()>) -> io::Result<()> {
        let (mut path, mut buffer) = ([0; 64], [MaybeUninit::uninit(); LONGEST]);
        if !matches!(
            readlinkat_raw(self.proc, self.at("exe", &mut path)?, &mut buffer),
            Err(rustix::io::Errno::NOENT)
        ) {
            return look(self);
        }
        // It runs no program. The directory has a link for each of its threads, beside the two that every directory has.
        let threads = statat(self.proc, self.at("task", &mut path)?, AtFlags::empty())?.st_nlink;
        if matches!(threads, 2 | 3) {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let tasks = openat(self.proc, self.at("task", &mut path)?, flags, Mode::empty())?;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut entries = RawDir::new(&tasks, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            if let Some(thread) = entry.file_name().to_str().ok().filter(|name| !name.starts_with('.')) {
                let dir = format!("{}/task/{thread}", self.dir);
                match look(&Process { proc: self.proc, dir: &dir, pid: self.pid }) {
                    Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {}
                    other => other?,
                }
            }
        }
        Ok(())
    }
}

fn is_foreign(name: &str) -> bool {
    !name.is_empty() && !name.starts_with("lightning")
}
