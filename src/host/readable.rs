//! Which files of a tree cannot be read: every byte of every file is asked for. After a scrub that could not mend everything
//! this names just the files that have lost something, snapshots included; the kernel's own messages are cut short when there are many.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{PosixFadviseAdvice, posix_fadvise},
    libc,
};
use serde::{Deserialize, Serialize};

use super::{
    Host,
    mountinfo::{self, MountinfoError},
};
use crate::{
    exec::Flow,
    model::{Bytes, lossy},
};

const BLOCK: usize = 1 << 20;

/// One path that cannot be read whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damaged {
    /// Which.
    #[serde(serialize_with = "lossy::path")]
    pub path: PathBuf,
    /// Why, in the kernel's words.
    pub why: String,
}

/// What a search found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// What cannot be read.
    pub damaged: Vec<Damaged>,
    /// How much could be.
    pub read: Bytes,
    /// It was stopped before its end.
    pub stopped: bool,
}

/// Reads everything below `root`, other mounts left out. `watch` is told how much was read.
///
/// # Errors
/// The mounts cannot be read.
pub fn unreadable(
    host: &Host,
    root: &Path,
    watch: &mut dyn FnMut(Bytes) -> Flow,
) -> Result<Found, MountinfoError> {
    let others: Vec<PathBuf> =
        mountinfo::read(host)?.iter().map(|m| m.mountpoint.clone()).filter(|at| at != root).collect();
    let mut found = Found::default();
    let mut waiting = vec![root.to_owned()];
    let mut buffer = vec![0; BLOCK];
    while let Some(path) = waiting.pop() {
        if others.contains(&path) {
            continue;
        }
        let result = fs::symlink_metadata(&path).and_then(|meta| {
            if meta.is_dir() {
                for entry in fs::read_dir(&path)? {
                    waiting.push(entry?.path());
                }
            } else if meta.is_file() {
                read(&path, &mut buffer, &mut found, watch)?;
            }
            Ok(())
        });
        match result {
            Ok(()) => {}
            // A node may be at work on it.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => found.damaged.push(Damaged { path, why: e.to_string() }),
        }
        if found.stopped {
            break;
        }
    }
    found.damaged.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn read(
    path: &Path,
    buffer: &mut [u8],
    found: &mut Found,
    watch: &mut dyn FnMut(Bytes) -> Flow,
) -> io::Result<()> {
    let mut file: File = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    // What is still in memory says nothing of what is on the disks.
    let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    loop {
        let count = file.read(buffer)?;
        found.read.0 += count as u64;
        if watch(found.read) == Flow::Stop {
            found.stopped = true;
        }
        if count == 0 || found.stopped {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::exec::ScriptedRunner;

    #[test]
    fn every_file_is_read_and_a_stop_is_obeyed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("mirror");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir_all(dir.path().join("proc/self")).unwrap();
        fs::write(root.join("a/b/file"), vec![1; 3 << 20]).unwrap();
        fs::write(root.join("a/other"), "x").unwrap();
        std::os::unix::fs::symlink("/nowhere", root.join("link")).unwrap();
        let mounted = root.join("elsewhere");
        fs::create_dir(&mounted).unwrap();
        fs::write(mounted.join("not ours"), "xyz").unwrap();
        let line = format!("73 63 0:40 / {} rw - tmpfs tmpfs rw\n", mounted.display());
        fs::write(dir.path().join("proc/self/mountinfo"), line).unwrap();
        let host = Host::captured(dir.path(), Arc::new(ScriptedRunner::new()), jiff::Timestamp::UNIX_EPOCH);
        let found = unreadable(&host, &root, &mut |_| Flow::Continue).unwrap();
        assert_eq!(found, Found { read: Bytes((3 << 20) + 1), ..Found::default() });
        let found = unreadable(&host, &root, &mut |_| Flow::Stop).unwrap();
        assert!(found.stopped && found.read.0 <= 1 << 20, "{found:?}");
        // A process's memory at 0 cannot be read: what fails is named, and the rest is read all the same.
        std::fs::remove_dir_all(&mounted).unwrap();
        let found = unreadable(&host, Path::new("/proc/self/mem"), &mut |_| Flow::Continue).unwrap();
        assert!(matches!(&found.damaged[..], [one] if one.why.contains("os error 5")), "{found:?}");
    }
}
