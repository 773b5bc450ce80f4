//! What raidguard remembers of a mirror from one run to the next: its own record, kept outside the mirror.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    event::EventKind,
    finding::{Finding, Severity},
    mirror::ErrorCounts,
    observed::DatabaseFacts,
};

/// All that is remembered of one mirror.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When it was first looked at.
    pub first_seen: Option<Timestamp>,
    /// Error counters that the operator has acknowledged, by the member's UUID.
    pub acknowledged: BTreeMap<String, ErrorCounts>,
    /// Bad sectors that the operator has acknowledged, by the disk's serial number; by its kernel name where it tells none.
    pub acknowledged_sectors: BTreeMap<String, u64>,
    /// The scrub whose mended errors the operator has acknowledged, by when it began.
    pub acknowledged_scrub: Option<Timestamp>,
    /// Sectors that differed between members of an array, and that the operator has acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_mismatches: Option<u64>,
    /// What the members of an array were found to differ in: the kernel forgets that at each boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mismatches: Option<Mismatches>,
    /// Members that writes to have failed, by UUID, of a pool of ZFS, which forgets that at each import.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failed_writes: BTreeMap<String, FailedWrites>,
    /// Members of a btrfs that were away while it was written to, by number, and when they were last seen so.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub away: BTreeMap<String, Timestamp>,
    /// The findings of the last look, with the time since when each is known.
    pub open: Vec<Finding>,
    /// The last verdict, and since when it is that.
    pub verdict: Option<(Severity, Timestamp)>,
    /// The last run of each job.
    pub jobs: BTreeMap<String, JobRun>,
    /// The newest state ever seen of each database, by its network's directory.
    pub ledger: BTreeMap<String, LedgerEntry>,
    /// What the last look at the databases found, and when.
    pub databases: Option<(Timestamp, Vec<DatabaseFacts>)>,
    /// The newest commit that was ever seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// What the operator was told last.
    pub told: Option<Told>,
    /// Channels whose last message did not arrive.
    pub channels: Vec<ChannelFailure>,
    /// A start of the node that was allowed against the guard, until the guard passes by itself.
    pub overridden: Option<Override>,
}

/// Where the members of an array differ: by the last scrub that compared all of it, or as more was seen since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mismatches {
    /// In how many sectors.
    pub sectors: u64,
    /// When that was found.
    pub at: Timestamp,
}

/// Writes to a member that have failed: it lacks them until a scrub has read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedWrites {
    /// How many the counters told beyond what was acknowledged, when they were looked at last.
    pub counted: u64,
    /// How many they told at most.
    pub most: u64,
    /// When they were last found to have grown.
    pub at: Timestamp,
}

/// A start of the node that was allowed against the guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// When.
    pub at: Timestamp,
    /// Why, in the operator's words.
    pub reason: String,
    /// The faults that may be there: any other still stops the node.
    pub faults: Vec<Fault>,
}

/// What the operator was told last of a mirror.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Why.
    pub kind: EventKind,
    /// The verdict that was told.
    pub verdict: Severity,
    /// How many members could still fail then, where that was known.
    pub may_fail: Option<u64>,
    /// The faults that were told.
    pub faults: Vec<Finding>,
    /// When.
    pub at: Timestamp,
}

/// The last run of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRun {
    /// When it began.
    pub started: Timestamp,
    /// When it ended; nothing while it runs, or where it died.
    pub ended: Option<Timestamp>,
    /// Why it failed.
    pub failed: Option<String>,
    /// When it last ended well.
    pub good: Option<Timestamp>,
}

/// The newest state ever seen of a database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// The node's public key, in hexadecimal.
    pub node_id: Option<String>,
    /// Core Lightning's count of committed transactions.
    pub data_version: i64,
    /// When that was seen.
    pub at: Timestamp,
}

/// A channel that fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelFailure {
    /// Which: `mail`, `command`, `webhook`, `heartbeat`.
    pub channel: String,
    /// What happened.
    pub error: String,
    /// Since when.
    pub since: Timestamp,
    /// How many messages wait.
    pub waiting: u64,
}

/// One change of what is to be said of a mirror.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// When.
    pub at: Timestamp,
    /// The verdict from then on.
    pub verdict: Severity,
    /// Its faults.
    pub faults: Vec<Fault>,
}

/// A fault, as far as it is remembered for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Its code.
    pub code: String,
    /// What it is about.
    pub about: String,
}
