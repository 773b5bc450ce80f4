//! An md array as sysfs shows it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Bytes, lossy};

/// An md array (kernel: Documentation/admin-guide/md.rst).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MdState {
    /// Its device node.
    #[serde(serialize_with = "lossy::path")]
    pub device: PathBuf,
    /// The kind of its superblocks, as the kernel writes it: `1.2`.
    pub metadata: String,
    /// `array_state`: `clean`, `active`, `read-auto`, `inactive`, ...
    pub state: String,
    /// Its level, in the kernel's word; empty where it is not started.
    pub level: String,
    /// How many members it is made of.
    pub raid_disks: u64,
    /// How many of them are not in step; unknown where it is not started.
    pub degraded: Option<u64>,
    /// The work that runs on it (`resync`, `recover`, `check`, `repair`, `reshape`); nothing where none does.
    pub action: Option<String>,
    /// How far that work is, where it says so.
    pub progress: Option<MdProgress>,
    /// Sectors that differed between members when they were last compared.
    pub mismatches: Option<u64>,
    /// How it is brought in step after a crash: `bitmap` where it keeps one of what is being written, `resync` otherwise.
    pub policy: Option<String>,
}

/// How far work on an array is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MdProgress {
    /// What was done, on each member.
    pub done: Bytes,
    /// Of this.
    pub total: Bytes,
    /// How fast, in bytes a second; unknown where the kernel does not say.
    pub speed: Option<Bytes>,
}

impl MdProgress {
    /// In percent, rounded down.
    pub fn percent(&self) -> u64 {
        let percent = u128::from(self.done.0) * 100 / u128::from(self.total.0.max(1));
        u64::try_from(percent).unwrap_or(100).min(100)
    }
}

impl MdState {
    /// Does it serve reads and writes?
    pub fn runs(&self) -> bool {
        !matches!(self.state.as_str(), "clear" | "inactive")
    }

    /// Whether work runs that makes members equal which may not be so: until it ends redundancy is not full.
    pub fn is_catching_up(&self) -> bool {
        matches!(self.action.as_deref(), Some("resync" | "recover" | "reshape"))
    }
}
