//! What is known of a node's directory and how the node is handled.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

/// What holds a mirror.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendKind {
    /// btrfs.
    #[default]
    Btrfs,
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Btrfs => f.pad("btrfs"),
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
