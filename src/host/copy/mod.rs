//! The verified copy of a directory tree.
//!
//! What belongs to a file comes along: owner, mode, times, extended attributes (ACLs are such), hard links, holes. Sockets, FIFOs and
//! device nodes stay behind and are named. Inode flags do not come along: NOCOW among them would take checksums from the data.
//! Each file is read once and hashed on the way; the copy is then read back past the page cache and compared, where time matters while the
//! rest is copied.

mod ahead;
mod content;
mod deepest;
mod manifest;
mod metadata;
mod prover;
mod rescue;
mod salvage;
mod tree;
mod verify;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

pub(super) use content::{Buffer as Memory, write_sparse};
pub use deepest::{empty_tree, is_owned_by, own_tree, remove_tree};
pub use manifest::{Entry, Kind, Manifest};
pub use prover::Proven;
pub use rescue::{Asked, Fault, Rescued, Wanted, measure, sums_file};
pub(crate) use rescue::{Ears, copy_readable, listed};
pub use salvage::salvage;
pub use tree::{copy_tree, survey};
pub use verify::{first_difference, settle, verify_tree};

/// Something that is not copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Its path within the tree.
    pub path: PathBuf,
    /// `socket`, `FIFO`, `device`.
    pub kind: &'static str,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (a {})", self.path.display(), self.kind)
    }
}

/// What will be copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Bytes that are allocated to files, holes not counted.
    pub bytes: u64,
    /// Files and symlinks.
    pub files: u64,
    /// Directories, the tree itself included.
    pub directories: u64,
    /// What will be left out.
    pub skipped: Vec<Skipped>,
}

/// How far a copy or a comparison is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of content done.
    pub bytes_done: u64,
    /// Files done.
    pub files_done: u64,
}

/// Why a tree could not be copied, compared or removed.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A file operation failed.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which path.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A file changed under the copier's hands.
    #[error("{} changed while it was copied", .0.display())]
    Changed(PathBuf),
    /// Another filesystem is mounted inside the tree.
    #[error("{} is a mount point: another filesystem is mounted inside the tree", .0.display())]
    MountInside(PathBuf),
    /// The copy is not what it must be.
    #[error("{}: {difference}", path.display())]
    Differs {
        /// The path within the copy.
        path: PathBuf,
        /// How.
        difference: String,
    },
    /// A record of a copy is not of the known form.
    #[error("line {line} of {} is not of the known form", path.display())]
    Manifest {
        /// The record.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// Who watches over the source says that what is read from it is not to be trusted.
    #[error("what is read from is not to be trusted any more")]
    Untrusted,
    /// The operator asked to stop.
    #[error("stopped, as asked")]
    Interrupted,
}

impl CopyError {
    /// Did the target run full?
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }

    /// Did a disk fail to give or take the bytes?
    pub fn is_disk_failure(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.raw_os_error() == Some(nix::libc::EIO))
    }

    /// Did the operator ask to stop?
    pub fn is_interrupted(&self) -> bool {
        matches!(self, Self::Interrupted)
    }
}

/// Names the path in a failed file operation.
trait At<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T, CopyError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T, CopyError> {
        self.map_err(|e| CopyError::Io { doing, path: path.to_owned(), source: e.into() })
    }
}

/// Counts, and tells the caller at most ten times a second.
struct Meter<'a> {
    progress: Progress,
    told: Instant,
    tell: &'a mut dyn FnMut(Progress),
}

impl<'a> Meter<'a> {
    fn new(tell: &'a mut dyn FnMut(Progress)) -> Self {
        Self { progress: Progress::default(), told: Instant::now(), tell }
    }

    fn bytes(&mut self, count: u64) {
        self.progress.bytes_done += count;
        if self.told.elapsed() >= Duration::from_millis(100) {
            self.told = Instant::now();
            (self.tell)(self.progress);
        }
    }

    fn file(&mut self) {
        self.progress.files_done += 1;
    }

    fn finish(self) {
        (self.tell)(self.progress);
    }
}

#[cfg(test)]
mod tests;
