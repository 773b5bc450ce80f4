//! All that is seen of one mirror and its node at one moment, as JSON too: a state captured on a real machine becomes a test.

use std::{error::Error, fmt, path::PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Bytes, Scheduler, Zone, finding::Source, lossy, mirror::MirrorState};

/// What one source said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seen<T> {
    /// It was read.
    Read(T),
    /// It could not be read, and why.
    Failed(String),
    /// It was not asked, because nothing depends on it here: a mirror without a node has no database.
    Skipped,
}

impl<T> Seen<T> {
    /// What was read, if it was.
    pub fn get(&self) -> Option<&T> {
        match self {
            Self::Read(value) => Some(value),
            Self::Failed(_) | Self::Skipped => None,
        }
    }

    /// What was read, to be changed.
    pub fn get_mut(&mut self) -> Option<&mut T> {
        match self {
            Self::Read(value) => Some(value),
            Self::Failed(_) | Self::Skipped => None,
        }
    }

    /// The same of something that is made of it.
    pub fn as_seen<U>(&self, make: impl FnOnce(&T) -> U) -> Seen<U> {
        match self {
            Self::Read(value) => Seen::Read(make(value)),
            Self::Failed(why) => Seen::Failed(why.clone()),
            Self::Skipped => Seen::Skipped,
        }
    }

    /// Why it could not be read.
    pub fn failure(&self) -> Option<&str> {
        match self {
            Self::Failed(why) => Some(why),
            Self::Read(_) | Self::Skipped => None,
        }
    }

    /// What came of reading; a failure with all its causes.
    pub fn of<E: Error>(result: Result<T, E>) -> Self {
        match result {
            Ok(value) => Self::Read(value),
            Err(e) => Self::Failed(causes(&e)),
        }
    }
}

/// An error with its causes, in one line.
pub fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

/// What every source said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// The mirror itself.
    pub storage: Seen<MirrorState>,
    /// Every device that says it belongs to the mirror.
    pub claims: Seen<Vec<Claim>>,
    /// fstab, and what lies below the mount point.
    pub mount: Seen<MountFacts>,
    /// What the backend's own record says of the last scrub; nothing where there was none.
    pub scrub: Seen<Option<ScrubRecord>>,
    /// How the members' disks are attached.
    pub disks: Seen<Vec<DiskFacts>>,
    /// What each disk says of its health.
    pub smart: Vec<SmartFacts>,
    /// The node's directory.
    pub node: Seen<NodeFacts>,
    /// Processes that run on the node's files off the mirror.
    pub processes: Seen<Vec<StrayProcess>>,
    /// Who works as a node on the node's files: asked only before a start, when there may be none.
    pub users: Seen<Vec<String>>,
    /// The regular jobs.
    pub jobs: Seen<JobFacts>,
    /// The databases, each on a snapshot; skipped unless that was asked for.
    pub databases: Seen<Vec<DatabaseFacts>>,
    /// The channels.
    pub channels: Seen<ChannelFacts>,
}

impl Observed {
    /// Every source that could not be read, with the reason.
    pub fn failures(&self) -> Vec<(Source, &str)> {
        let mut out = Vec::new();
        let mut add = |source, why| out.extend(Option::map(why, |why| (source, why)));
        add(Source::Storage, self.storage.failure());
        add(Source::Clones, self.claims.failure());
        add(Source::Mount, self.mount.failure());
        add(Source::Scrubs, self.scrub.failure());
        add(Source::Disks, self.disks.failure());
        for disk in &self.smart {
            add(Source::Smart, disk.smart.failure());
        }
        add(Source::Node, self.node.failure());
        add(Source::Processes, self.processes.failure());
        add(Source::Processes, self.users.failure());
        add(Source::Jobs, self.jobs.failure());
        add(Source::Databases, self.databases.failure());
        add(Source::Channels, self.channels.failure());
        out
    }
}

/// A block device with a superblock of the mirror.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The device.
    #[serde(serialize_with = "lossy::path")]
    pub path: PathBuf,
    /// The member that it says it is.
    pub devid: u64,
    /// That member's UUID.
    pub uuid: String,
    /// The last commit that reached it (md: how often the array's state had changed by then).
    pub generation: u64,
    /// It was being filled when it was last written to: what it holds is a part of what others hold. btrfs gives such a device the number 0.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub filling: bool,
    /// The UUIDs of other devices of the mirror that were no members any more when this one was written to (btrfs: that it was written to
    /// without): where that holds of two in both directions, each was written to alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<String>,
}

/// fstab, and what lies below the mount point.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountFacts {
    /// Lines of fstab for the mount point or for the mirror's UUID.
    pub lines: Vec<FstabLine>,
    /// Names in the directory that the mount covers, at most twenty of them.
    pub hidden: Vec<String>,
    /// How many there are.
    pub hidden_count: u64,
    /// What keeps a boot from bringing back a mirror that has no line in fstab: a pool of ZFS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boot: Vec<String>,
}

/// One line of fstab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FstabLine {
    /// Its number, from 1.
    pub line: u64,
    /// What it mounts: `UUID=...`.
    pub source: String,
    /// Where.
    #[serde(serialize_with = "lossy::path")]
    pub mountpoint: PathBuf,
    /// The options.
    pub options: Vec<String>,
}

/// What a backend keeps of a scrub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubRecord {
    /// When it began.
    pub started: Timestamp,
    /// When it ended; nothing while it runs.
    pub ended: Option<Timestamp>,
    /// Whether everything was read on every member.
    pub finished: bool,
    /// Whether it was cancelled.
    pub cancelled: bool,
    /// How much was read, over all members.
    pub scrubbed: Bytes,
    /// Blocks that were wrong and were mended.
    pub corrected: u64,
    /// Blocks that were wrong and could not be mended.
    pub uncorrectable: u64,
    /// The members that they are on; nothing where there are none, or where that is not kept.
    #[serde(default)]
    pub unmended_on: Option<Vec<u64>>,
}

/// How one member's disk is attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskFacts {
    /// The member's number.
    pub devid: u64,
    /// The kernel names of the disks that it lies on.
    pub disks: Vec<String>,
    /// The USB device that it hangs on, as sysfs names it, and that link's speed in Mbit/s.
    pub usb: Option<(String, u32)>,
    /// Whether it turns.
    pub rotational: Option<bool>,
    /// After how many seconds the kernel gives a command up.
    pub timeout: Option<u64>,
}

/// What one disk says of its health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmartFacts {
    /// The disk's kernel name.
    pub disk: String,
    /// Its answer; skipped where the disk has none to give (a loop device, a virtual disk).
    pub smart: Seen<Smart>,
}

/// A disk's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Smart {
    /// It sleeps, and was not woken.
    Asleep,
    /// It, or the bridge before it, does not answer such questions.
    Unsupported(String),
    /// smartctl is not installed.
    NoTool,
    /// This.
    Health(SmartHealth),
}

/// The numbers that foretell a disk's end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmartHealth {
    /// The disk's own judgement.
    pub passed: Option<bool>,
    /// Sectors that were moved elsewhere.
    pub reallocated: Option<u64>,
    /// Sectors that cannot be read now.
    pub pending: Option<u64>,
    /// Sectors that could not be mended, or NVMe's media errors.
    pub uncorrectable: Option<u64>,
    /// In degrees Celsius.
    pub temperature: Option<i64>,
    /// How much of its life is used up, in percent.
    pub wear: Option<u64>,
    /// NVMe's critical warnings, as the bits of its log (NVM Express base specification, SMART / Health Information).
    pub critical_warning: Option<u64>,
    /// For how long the disk tries to read a sector, in tenths of a second; 0 where it never gives up.
    pub erc_read: Option<u64>,
    /// It speaks ATA: only such a disk can be asked for that time (SCT error recovery control).
    #[serde(default)]
    pub ata: Option<bool>,
    /// Its serial number; where it tells none, its World Wide Name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
}

impl SmartHealth {
    /// Is there any word of its health? A temperature, a time limit and a protocol are none.
    pub fn says_something(&self) -> bool {
        let sectors = [self.reallocated, self.pending, self.uncorrectable];
        let numbers = sectors.into_iter().chain([self.wear, self.critical_warning]);
        self.passed.is_some() || numbers.flatten().next().is_some()
    }

    /// Sectors that were moved, wait for it, or are lost.
    pub fn bad_sectors(&self) -> u64 {
        [self.reallocated, self.pending, self.uncorrectable]
            .into_iter()
            .flatten()
            .fold(0, u64::saturating_add)
    }
}

/// A node's directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// What stands at the directory's path.
    pub directory: Standing,
    /// Whether the directory's path ends at the declared place, by whatever links.
    pub leads_there: bool,
    /// Whether the declared place is a directory of the mirror's filesystem.
    pub on_mirror: bool,
    /// The declared place's owner, where it is there.
    pub data: Option<Owned>,
    /// The number of the node's user, where one was declared.
    pub user: Option<u32>,
    /// Files whose content has no checksum.
    pub nocow: Vec<String>,
    /// Each network's files.
    pub networks: Vec<NetworkFacts>,
    /// Originals that setup kept.
    pub originals: Vec<Original>,
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// A symlink to this.
    Symlink(#[serde(serialize_with = "lossy::path")] PathBuf),
    /// A directory.
    Directory,
    /// Something else.
    Other,
    /// Nothing.
    Nothing,
}

/// Who owns a file, and who may use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owned {
    /// The owner's number.
    pub uid: u32,
    /// The permission bits.
    pub mode: u32,
    /// In bytes.
    pub size: u64,
}

/// One network's files, without opening them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkFacts {
    /// Its directory below the node's; empty where that is the network's own.
    pub name: String,
    /// The database, where there is one.
    pub database: Option<Owned>,
    /// Why the database's first page cannot be of a whole one.
    pub fault: Option<String>,
    /// The secret.
    pub secret: Option<Owned>,
}

/// An original that setup kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Original {
    /// Where.
    #[serde(serialize_with = "lossy::path")]
    pub path: PathBuf,
    /// Since when.
    pub since: Option<Timestamp>,
}

/// A process that holds the node's files off the mirror.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StrayProcess {
    /// Its number.
    pub pid: i32,
    /// Its name.
    pub name: String,
    /// The file or directory.
    #[serde(serialize_with = "lossy::path")]
    pub holds: PathBuf,
}

/// The regular jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFacts {
    /// What was declared to run them.
    pub with: Option<Scheduler>,
    /// Files that should be there and are not.
    pub missing: Vec<String>,
    /// Files that are not as raidguard writes them.
    pub altered: Vec<String>,
    /// Files of ours that should not be there: those of the other scheduler, or of a mirror that is gone.
    pub surplus: Vec<String>,
    /// Why nothing runs them: no cron, a timer that is not enabled.
    pub idle: Vec<String>,
    /// The distribution's own jobs for the same.
    pub doubled: Vec<String>,
    /// The drop-in of the node's unit, where it is missing or altered.
    pub dropin: Option<String>,
    /// The rule of udev that keeps halves of the mirror apart, where it is missing or altered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// When the machine was started, where that is known: before, nothing could run.
    #[serde(default)]
    pub booted: Option<Timestamp>,
    /// Local time, by which they run.
    #[serde(default)]
    pub zone: Zone,
}

/// One database, on a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseFacts {
    /// Its network's directory below the node's; empty where that is the network's own.
    pub network: String,
    /// What SQLite says of it.
    pub state: DatabaseState,
}

/// What SQLite says of a database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DatabaseState {
    /// It is sound.
    Sound(DatabaseVersion),
    /// It is not, and how.
    Faulty(String),
    /// There is none.
    Missing,
}

/// How new a database is, and whose.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseVersion {
    /// Core Lightning's count of committed transactions: of two copies of one node's database the higher is the newer.
    pub data_version: Option<i64>,
    /// The version of its tables.
    pub schema_version: Option<i64>,
    /// The node's public key, in hexadecimal.
    pub node_id: Option<String>,
}

impl fmt::Display for DatabaseVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sound")?;
        match self.data_version {
            Some(version) => write!(f, ", data_version {version}"),
            None => Ok(()),
        }
    }
}

/// The channels by which the operator is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelFacts {
    /// What is wrong with the file of secrets: readable by others, not root's, garbage.
    pub secrets: Option<String>,
}
