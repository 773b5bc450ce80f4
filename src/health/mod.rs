//! Decides whether a mirror is well: a pure function of what was declared and what was seen. Reads nothing.

pub mod findings;
mod judge;

pub use judge::judge;

use serde::{Deserialize, Serialize};

/// How bad a finding is. The order is that of the verdict: the worst finding decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Every source was read and nothing is wrong.
    Ok,
    /// Full redundancy holds, but something drifts.
    Warning,
    /// Something could not be read, so nobody knows.
    Unknown,
    /// Losing one more device could lose data, or data is wrong already.
    Critical,
}

impl Level {
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

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Its stable code, one of [`findings::CODES`].
    pub code: String,
    /// How bad it is.
    pub severity: Level,
    /// It in one sentence.
    pub says: String,
    /// What was seen.
    pub evidence: Vec<String>,
    /// What mends it.
    pub remedy: String,
}

/// What is to be said of one mirror.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The worst finding's severity, or ok.
    pub level: Level,
    /// How many more members may fail without loss of data; unknown where that cannot be told.
    pub may_fail: Option<u64>,
    /// The faults, the worst first.
    pub findings: Vec<Finding>,
}

impl Verdict {
    /// The verdict on these findings.
    pub fn of(mut findings: Vec<Finding>, may_fail: Option<u64>) -> Self {
        findings.sort_by_key(|f| std::cmp::Reverse(f.severity));
        let level = findings.first().map_or(Level::Ok, |f| f.severity);
        Self { level, may_fail, findings }
    }
}

#[cfg(test)]
pub(crate) mod samples {
    use crate::{
        config::{Member, Mirror},
        model::{
            BackendKind, Bytes, Level,
            mirror::{ChunkKind, ErrorCounts, MemberState, MirrorState, Observation, ProfileUse},
        },
    };

    /// A healthy raid1 of two.
    pub(crate) fn healthy() -> (Mirror, Observation) {
        let uuid = |n: u64| format!("5515c27f-43dc-47b1-a1df-6c7b3533ca{n:02}");
        let declared = Mirror {
            name: "lightning".into(),
            backend: BackendKind::Btrfs,
            level: Level::Raid1,
            uuid: "25e3e740-8cd1-4cc7-9b25-b175081f4acf".into(),
            mountpoint: "/srv/lightning".into(),
            member: [1, 2]
                .map(|n| Member {
                    id: n.to_string(),
                    uuid: uuid(n),
                    model: Some("Example Disk".into()),
                    serial: Some(format!("E{n}")),
                    size: Bytes::gib(32),
                })
                .to_vec(),
            node: None,
            schedule: None,
        };
        let member = |n: u64| MemberState {
            devid: n,
            uuid: Some(uuid(n)),
            path: Some(format!("/dev/sd{}", if n == 1 { 'b' } else { 'c' }).into()),
            size: Some(Bytes::gib(32)),
            missing: false,
            missing_because: None,
            errors: Some(ErrorCounts::default()),
            unallocated: Some(Bytes::gib(30)),
            generation: Some(38),
            writeable: Some(true),
            replace_target: false,
        };
        let state = MirrorState {
            uuid: declared.uuid.clone(),
            mountpoint: Some(declared.mountpoint.clone()),
            mounted: true,
            also_mounted: Vec::new(),
            instead: None,
            mount_options: vec!["rw".into(), "relatime".into()],
            read_only: false,
            forced_read_only: false,
            degraded_option: false,
            members: vec![member(1), member(2)],
            profiles: ChunkKind::ALL
                .map(|kind| ProfileUse {
                    kind,
                    profile: "raid1".into(),
                    total: Bytes::gib(1),
                    used: Bytes::mib(200),
                })
                .to_vec(),
            raw_size: Bytes::gib(64),
            used: Bytes::mib(400),
            free: Some(Bytes::gib(30)),
            exclusive_operation: None,
            unread: Vec::new(),
        };
        (declared, Observation { state: Some(state), failures: Vec::new() })
    }
}
