//! A fault, and what is to be said of a mirror.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How bad a finding is. The order is that of the verdict: the worst finding decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing is wrong. A finding of this severity is a note: worth a line, and no fault.
    Ok,
    /// Full redundancy holds, but something drifts.
    Warning,
    /// Something could not be read, so nobody knows.
    Unknown,
    /// Losing one more device could lose data, data is wrong already, or the node would not find its data.
    Critical,
}

impl Severity {
    /// The exit code of `check` (the Nagios convention).
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => 3,
        }
    }

    /// The word that names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where a finding was read from. While its source cannot be read, a finding stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The members, their counters, the layout: sysfs, superblocks, mounts.
    Storage,
    /// Every block device's superblock: clones and strangers.
    Clones,
    /// fstab, and what lies below the mount point.
    Mount,
    /// What the last scrub said.
    Scrubs,
    /// How the members' disks are attached.
    Disks,
    /// What the disks say of their health.
    Smart,
    /// The node's directory.
    Node,
    /// The processes.
    Processes,
    /// The regular jobs' files, and what runs them.
    Jobs,
    /// The databases, on a snapshot.
    Databases,
    /// raidguard's own record.
    Record,
    /// The channels by which the operator is told.
    Channels,
}

impl Source {
    /// It in words that follow "could not be read: ".
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Storage => "the mirror",
            Self::Clones => "the block devices",
            Self::Mount => "fstab and the mount point",
            Self::Scrubs => "the last scrub's result",
            Self::Disks => "the disks' attachment",
            Self::Smart => "the disks' health",
            Self::Node => "the node's directory",
            Self::Processes => "the processes",
            Self::Jobs => "the regular jobs",
            Self::Databases => "the databases",
            Self::Record => "raidguard's own record",
            Self::Channels => "the notification channels",
        }
    }
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Its stable code, one of `health::findings::CODES`.
    pub code: String,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about, where the code alone does not say: a member, a job, a path. With the code it tells one fault from another.
    pub about: String,
    /// It in one sentence.
    pub says: String,
    /// What was seen.
    pub evidence: Vec<String>,
    /// What mends it.
    pub remedy: String,
    /// Where it was read from.
    pub source: Source,
    /// Since when it is known, in seconds.
    pub since: Option<Timestamp>,
}

impl Finding {
    /// Is it the same fault, though its evidence may have changed?
    pub fn is_same(&self, other: &Self) -> bool {
        self.code == other.code && self.about == other.about
    }
}

/// What is to be said of one mirror.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The worst finding's severity, or ok.
    pub level: Severity,
    /// How many more members may fail without loss of data; unknown where that cannot be told.
    pub may_fail: Option<u64>,
    /// The faults, the worst first, notes last.
    pub findings: Vec<Finding>,
}

impl Verdict {
    /// The verdict on these findings.
    pub fn of(mut findings: Vec<Finding>, may_fail: Option<u64>) -> Self {
        findings.sort_by_key(|f| std::cmp::Reverse(f.severity));
        let level = findings.first().map_or(Severity::Ok, |f| f.severity);
        Self { level, may_fail, findings }
    }

    /// The findings that are faults.
    pub fn faults(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|f| f.severity > Severity::Ok)
    }
}
