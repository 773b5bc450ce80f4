//! A mirror as the machine shows it.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Bytes, lossy, md::MdState, zfs::ZfsState};

/// A mirror as the machine shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own, read from a place of its own")]
pub struct MirrorState {
    /// The filesystem's UUID, in lower case.
    pub uuid: String,
    /// Where it was looked for.
    #[serde(serialize_with = "lossy::option")]
    pub mountpoint: Option<PathBuf>,
    /// Whether it, and nothing else, is mounted there.
    pub mounted: bool,
    /// Other places where it is mounted (subvolumes and bind mounts included).
    #[serde(serialize_with = "lossy::list")]
    pub also_mounted: Vec<PathBuf>,
    /// What is mounted at the mount point instead, as `TYPE from SOURCE`.
    pub instead: Option<String>,
    /// The mount's options and the filesystem's, in the kernel's order.
    pub mount_options: Vec<String>,
    /// Whether it cannot be written to.
    pub read_only: bool,
    /// Whether the kernel made it so by itself: the mount is read-write, the filesystem is not.
    pub forced_read_only: bool,
    /// Whether `degraded` is among the mount options.
    pub degraded_option: bool,
    /// Its members, by devid.
    pub members: Vec<MemberState>,
    /// How its space is laid out; empty where the filesystem is not mounted.
    pub profiles: Vec<ProfileUse>,
    /// The sizes of all members that are present, added.
    pub raw_size: Bytes,
    /// What data and metadata take, counted once whatever the number of copies.
    pub used: Bytes,
    /// How much more data would fit at the profile that data has now; unknown where a member's free space is.
    pub free: Option<Bytes>,
    /// The long work that the kernel does on it (`balance`, `device replace`, ...), if any.
    pub exclusive_operation: Option<String>,
    /// Devices that could not be read while members were looked for, each with the reason.
    pub unread: Vec<String>,
    /// The array that the mirror is, where it is one of md and the kernel has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub md: Option<MdState>,
    /// The pool that the mirror is, where it is one of ZFS and imported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zfs: Option<ZfsState>,
}

impl MirrorState {
    /// Nothing is seen of it yet.
    pub fn unseen(uuid: &str, mountpoint: &Path) -> Self {
        Self {
            uuid: uuid.to_owned(),
            mountpoint: Some(mountpoint.to_owned()),
            mounted: false,
            also_mounted: Vec::new(),
            instead: None,
            mount_options: Vec::new(),
            read_only: false,
            forced_read_only: false,
            degraded_option: false,
            members: Vec::new(),
            profiles: Vec::new(),
            raw_size: Bytes(0),
            used: Bytes(0),
            free: None,
            exclusive_operation: None,
            unread: Vec::new(),
            md: None,
            zfs: None,
        }
    }

    /// What is stored at another level than this, in words.
    pub fn drifted(&self, level: &str) -> Vec<String> {
        let chunks = self.profiles.iter().filter(|p| p.total.0 > 0 && p.profile != level);
        let md = self.md.iter().filter(|md| md.runs() && md.level != level);
        let pool = self.zfs.iter().filter_map(|pool| pool.level.as_ref()).filter(|other| *other != level);
        let chunks = chunks.map(|p| format!("{} as {}: {}", p.kind, p.profile, p.total));
        let whole = md.map(|md| &md.level).chain(pool);
        chunks.chain(whole.map(|other| format!("everything as {other}"))).collect()
    }

    /// Has it stopped, so that nothing of it was read but that?
    pub fn has_stopped(&self) -> bool {
        self.zfs.as_ref().is_some_and(ZfsState::is_suspended)
    }

    /// The number of the newest commit on any member that is there.
    pub fn newest(&self) -> Option<u64> {
        self.members.iter().filter(|m| !m.missing).filter_map(|m| m.generation).max()
    }
}

/// One member as the machine shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberState {
    /// The filesystem's number for it.
    pub devid: u64,
    /// The filesystem's UUID for it, in lower case; unknown where it cannot be read.
    pub uuid: Option<String>,
    /// Its device node.
    #[serde(serialize_with = "lossy::option")]
    pub path: Option<PathBuf>,
    /// The size of its block device.
    pub size: Option<Bytes>,
    /// Whether it is gone: the kernel says so, or its block device does.
    pub missing: bool,
    /// Whether it is gone from under the running mirror, while the kernel still counts it.
    pub pulled: bool,
    /// How that is known.
    pub missing_because: Option<String>,
    /// What is wrong with its superblock, though it still says whose it is.
    #[serde(default)]
    pub damaged: Option<String>,
    /// The kernel's error counters; unknown while the filesystem is not mounted.
    pub errors: Option<ErrorCounts>,
    /// Space that belongs to no chunk yet, at the last commit.
    pub unallocated: Option<Bytes>,
    /// The number of the last commit that reached it.
    pub generation: Option<u64>,
    /// Whether the kernel would write to it; unknown while the filesystem is not mounted.
    pub writeable: Option<bool>,
    /// Whether a running replace is filling it.
    pub replace_target: bool,
    /// Sectors that it does not hold, as md keeps a list of: they are on the other members only.
    #[serde(default)]
    pub bad_sectors: u64,
}

impl MemberState {
    /// One of which nothing is known but the number.
    pub fn unseen(devid: u64) -> Self {
        Self {
            devid,
            uuid: None,
            path: None,
            size: None,
            missing: false,
            pulled: false,
            missing_because: None,
            damaged: None,
            errors: None,
            unallocated: None,
            generation: None,
            writeable: None,
            replace_target: false,
            bad_sectors: 0,
        }
    }

    /// Is it there, with everything that it should hold?
    pub fn is_whole(&self) -> bool {
        !self.missing && !self.replace_target && self.bad_sectors == 0
    }
}

/// The error counters of one member, since they were last reset (btrfs-device(8), DEVICE STATS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorCounts {
    /// Writes that failed.
    pub write: u64,
    /// Reads that failed.
    pub read: u64,
    /// Cache flushes that failed.
    pub flush: u64,
    /// Blocks whose checksum was wrong.
    pub corruption: u64,
    /// Metadata blocks older than they should be.
    pub generation: u64,
}

impl ErrorCounts {
    /// Each counter with its name.
    pub fn named(&self) -> [(&'static str, u64); 5] {
        [
            ("write", self.write),
            ("read", self.read),
            ("flush", self.flush),
            ("corruption", self.corruption),
            ("generation", self.generation),
        ]
    }

    /// Is every counter zero?
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

/// What a chunk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChunkKind {
    /// File content.
    Data,
    /// Everything else.
    Metadata,
    /// The map of chunks.
    System,
}

impl ChunkKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Data, Self::Metadata, Self::System];

    /// The word that names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Metadata => "metadata",
            Self::System => "system",
        }
    }
}

impl fmt::Display for ChunkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The chunks of one kind with one profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileUse {
    /// What they hold.
    pub kind: ChunkKind,
    /// How they are stored, in the kernel's word: `raid1`, `single`, `dup` ...
    pub profile: String,
    /// Their size, counted once whatever the number of copies.
    pub total: Bytes,
    /// How much of it is in use.
    pub used: Bytes,
}

impl ProfileUse {
    /// On how many different members each block of this profile lies, and how many copies there are; nothing for a profile that
    /// is not known.
    pub fn copies(&self) -> Option<Copies> {
        let (devices, copies) = match self.profile.as_str() {
            "single" | "raid0" => (1, 1),
            "dup" => (1, 2),
            "raid1" | "raid10" => (2, 2),
            "raid1c3" => (3, 3),
            "raid1c4" => (4, 4),
            _ => return None,
        };
        Some(Copies { devices, copies })
    }
}

/// How often a block is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copies {
    /// On this many members.
    pub devices: u64,
    /// This many times.
    pub copies: u64,
}
