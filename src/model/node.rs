//! What is known of a node's directory and how the node is handled.

use std::{fmt, ops::RangeInclusive, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::Level;

/// What holds a mirror.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendKind {
    /// btrfs: it mirrors by itself, and knows by checksums which copy is right.
    #[default]
    Btrfs,
    /// The kernel's software RAID (md), managed by mdadm, with a filesystem on it.
    Mdadm,
    /// ZFS: a pool mirrors by itself, and knows by checksums which copy is right.
    Zfs,
}

impl BackendKind {
    /// The levels that it can make.
    pub const fn levels(self) -> &'static [Level] {
        match self {
            Self::Btrfs => &[Level::Raid1, Level::Raid10, Level::Raid1c3, Level::Raid1c4],
            Self::Mdadm => &[Level::Raid1, Level::Raid10],
            Self::Zfs => &[Level::Mirror, Level::Raidz1, Level::Raidz2],
        }
    }

    /// The level that it makes unless another is asked for.
    pub const fn level(self) -> Level {
        match self {
            Self::Btrfs | Self::Mdadm => Level::Raid1,
            Self::Zfs => Level::Mirror,
        }
    }

    /// How many members a mirror of this level may have.
    pub fn members(self, level: Level) -> RangeInclusive<usize> {
        match (self, level) {
            (Self::Mdadm, Level::Raid1) | (Self::Zfs, Level::Mirror) => 2..=4,
            (Self::Mdadm, _) => 4..=4,
            (Self::Btrfs | Self::Zfs, level) => level.min_members()..=usize::MAX,
        }
    }

    /// How many members may fail, whichever they are. A raid1 of md and a mirror of ZFS have a copy on every member.
    pub const fn survives(self, level: Level, members: usize) -> usize {
        match (self, level) {
            (Self::Mdadm, Level::Raid1) | (Self::Zfs, Level::Mirror) => members.saturating_sub(1),
            _ => level.survives(),
        }
    }

    /// Whether space is given out in chunks, each with a level of its own.
    pub const fn has_chunks(self) -> bool {
        matches!(self, Self::Btrfs)
    }

    /// What is at the level where a mirror of it is.
    pub const fn whole_word(self) -> &'static str {
        match self {
            Self::Btrfs => "every chunk",
            Self::Mdadm => "the array",
            Self::Zfs => "the pool",
        }
    }

    /// Whether a balance is of any use to it.
    pub const fn has_balance(self) -> bool {
        self.has_chunks()
    }
}

/// A filesystem that lies on a mirror, where the mirror is none itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filesystem {
    /// Its kind.
    pub kind: FilesystemKind,
    /// Its UUID, in lower case.
    pub uuid: String,
}

/// Kinds of filesystem that a mirror of md may hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FilesystemKind {
    /// XFS: a file is copied by sharing its blocks, which makes looking at a database cheap.
    #[default]
    Xfs,
    /// ext4.
    Ext4,
}

impl FilesystemKind {
    /// The word that names it, as mount(8) and the kernel write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Xfs => "xfs",
            Self::Ext4 => "ext4",
        }
    }
}

impl fmt::Display for FilesystemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Btrfs => f.pad("btrfs"),
            Self::Mdadm => f.pad("mdadm"),
            Self::Zfs => f.pad("zfs"),
        }
    }
}

/// What runs regular jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheduler {
    /// `/etc/cron.d`.
    Cron,
    /// systemd timers.
    Systemd,
}

impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cron => "cron",
            Self::Systemd => "systemd",
        })
    }
}

/// What kind of directory it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeKind {
    /// A Core Lightning node's: it has a `lightningd.sqlite3`.
    CoreLightning,
    /// A directory that nothing is known about.
    Generic,
}

/// How a node is stopped and started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum NodeControl {
    /// By its systemd unit.
    Systemd {
        /// The unit.
        unit: String,
    },
    /// By commands; each an argument vector, the program's path first.
    Commands {
        /// Stops it.
        stop: Vec<String>,
        /// Starts it.
        start: Vec<String>,
    },
}

/// What a unit's name may end with (systemd.unit(5)).
const KINDS: [&str; 11] = [
    "service",
    "socket",
    "device",
    "mount",
    "automount",
    "swap",
    "target",
    "path",
    "timer",
    "slice",
    "scope",
];

/// A unit's whole name: one without an ending is a service for systemctl, but its drop-ins are read from a directory of the whole name
/// only.
pub fn unit_name(typed: &str) -> String {
    let is_whole = typed.rsplit_once('.').is_some_and(|(_, kind)| KINDS.contains(&kind));
    if is_whole { typed.to_owned() } else { format!("{typed}.service") }
}

impl NodeControl {
    /// The unit, where there is one.
    pub fn unit(&self) -> Option<&str> {
        match self {
            Self::Systemd { unit } => Some(unit),
            Self::Commands { .. } => None,
        }
    }
}

impl fmt::Display for NodeControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Systemd { unit } => f.write_str(unit),
            Self::Commands { .. } => f.write_str("by the commands given"),
        }
    }
}

/// A process that uses a directory, and how it was found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub pid: i32,
    /// Its name.
    pub name: String,
    /// What it holds: `working directory`, a path, `the lock on ...`.
    pub holds: PathBuf,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {}, {})", self.name, self.pid, self.holds.display())
    }
}
