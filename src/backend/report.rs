//! What maintenance reports.

use serde::{Deserialize, Serialize};

use crate::model::Bytes;

/// What a balance did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalanceReport {
    /// The command as it would be typed.
    pub command: String,
    /// What was left out of it, and why.
    pub note: Option<String>,
    /// How it ended.
    pub end: BalanceEnd,
    /// How many chunks were rewritten; unknown unless it is done.
    pub relocated: Option<u64>,
    /// Of how many.
    pub considered: Option<u64>,
}

impl BalanceReport {
    /// Of a mirror, called so, that has nothing to balance.
    pub(super) fn without_chunks(what: &str) -> Self {
        Self {
            command: String::new(),
            note: Some(format!("{what} has no chunks to balance: there was nothing to do")),
            end: BalanceEnd::Done,
            relocated: None,
            considered: None,
        }
    }
}

/// How a balance ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BalanceEnd {
    /// It is done.
    Done,
    /// Another balance, replace or resize runs; none was started.
    AlreadyRunning,
    /// It found no room to work in. Nothing is lost.
    NoSpace,
    /// The operator stopped it.
    Stopped,
}

/// What a scrub found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubReport {
    /// The command as it would be typed.
    pub command: String,
    /// How it ended.
    pub end: ScrubEnd,
    /// Members were compared with each other only: there are no checksums that would tell which is right (md).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub compared: bool,
    /// What it read and found; nothing where another one runs.
    pub status: Option<ScrubStatus>,
}

/// How a scrub ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScrubEnd {
    /// Everything was read on every member. What it found is in the counts.
    Finished,
    /// It ended before everything was read: cancelled by somebody else, or a member is missing.
    Aborted,
    /// Another one runs; none was started.
    AlreadyRunning,
    /// The operator stopped it.
    Stopped,
}

/// What `btrfs scrub status -R` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubStatus {
    /// The filesystem's UUID.
    pub uuid: String,
    /// When it was started, in btrfs's words.
    pub started: String,
    /// `finished`, `aborted`, `running` or `interrupted`.
    pub status: String,
    /// How long it took, in btrfs's words.
    pub duration: String,
    /// How much was read, over all members.
    pub bytes_scrubbed: Bytes,
    /// What was wrong.
    pub counts: ScrubCounts,
}

/// So many seconds as `h:mm:ss`.
pub(super) fn duration(seconds: i64) -> String {
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Blocks that a scrub found wrong, by kind (btrfs-scrub(8); kernel: `struct btrfs_scrub_progress`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubCounts {
    /// Could not be read.
    pub read: u64,
    /// Their checksum was wrong.
    pub checksum: u64,
    /// They were metadata of the wrong place or time.
    pub verify: u64,
    /// They were superblocks.
    pub superblock: u64,
    /// There was no memory to check them.
    pub memory: u64,
    /// Mended from another copy.
    pub corrected: u64,
    /// No copy was good.
    pub uncorrectable: u64,
    /// Wrong at first, right when read again.
    pub unverified: u64,
    /// Sectors that differ between members, where nothing tells which of them is right (md).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mismatched: u64,
}

/// From so many sectors on that differ members are not copies of each other. Fewer come of writes that were under way: a page that is
/// changed while it is written reaches each member as it then was (md(4), SCRUBBING AND MISMATCHES).
pub(crate) const MISMATCHES: u64 = 128;

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl ScrubCounts {
    /// Was nothing at all wrong?
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

impl ScrubReport {
    /// In how many sectors all members were found to differ; nothing where not all of them was compared.
    pub fn mismatched(&self) -> Option<u64> {
        let whole = self.status.as_ref().filter(|_| self.compared && self.end == ScrubEnd::Finished);
        whole.map(|status| status.counts.mismatched)
    }

    /// Was every block of every member read, and is every one good now?
    pub fn is_good(&self) -> bool {
        let counts = self.status.as_ref().map(|s| s.counts);
        self.end == ScrubEnd::Finished
            && counts.is_some_and(|c| {
                c.uncorrectable == 0 && c.memory == 0 && c.superblock == 0 && c.mismatched < MISMATCHES
            })
    }
}

/// How far a scrub has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubProgress {
    /// What was read, over all members; nothing where there is no news.
    pub bytes_scrubbed: Option<Bytes>,
    /// What there is to read, where that is known.
    pub bytes_total: Option<Bytes>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_comparison_tells_where_members_differ() {
        let counts = ScrubCounts { mismatched: 256, ..ScrubCounts::default() };
        let status = ScrubStatus {
            uuid: "x".to_owned(),
            started: "now".to_owned(),
            status: "finished".to_owned(),
            duration: duration(1),
            bytes_scrubbed: Bytes(0),
            counts,
        };
        let told = |end, compared, status: Option<&ScrubStatus>| {
            ScrubReport { command: String::new(), end, compared, status: status.cloned() }.mismatched()
        };
        assert_eq!(told(ScrubEnd::Finished, true, Some(&status)), Some(256));
        for end in [ScrubEnd::Aborted, ScrubEnd::Stopped, ScrubEnd::AlreadyRunning] {
            assert_eq!(told(end, true, Some(&status)), None);
        }
        assert_eq!(told(ScrubEnd::AlreadyRunning, true, None), None);
        assert_eq!(told(ScrubEnd::Finished, false, Some(&status)), None, "of other backends");
    }
}
