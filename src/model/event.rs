//! What the operator is told of.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::finding::{Finding, Severity};

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Unlike any other's: a receiver that gets it twice can tell.
    pub id: String,
    /// Why it is sent.
    pub kind: EventKind,
    /// The machine's name.
    pub host: String,
    /// The mirror's name.
    pub mirror: String,
    /// When it was written.
    pub at: Timestamp,
    /// The verdict now.
    pub verdict: Severity,
    /// The verdict that was told of last.
    pub before: Severity,
    /// The faults now, the worst first.
    pub findings: Vec<Finding>,
    /// The faults that are gone since.
    pub cleared: Vec<Finding>,
}

/// Why a message is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// The faults are others than before.
    Change,
    /// They last.
    Reminder,
    /// All is well again.
    Cleared,
    /// The operator tries the channel.
    Test,
}

impl EventKind {
    /// The word that names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Change => "change",
            Self::Reminder => "reminder",
            Self::Cleared => "cleared",
            Self::Test => "test",
        }
    }
}

impl Event {
    /// The codes of its faults, the worst first, each once.
    pub fn codes(&self) -> Vec<&str> {
        let mut codes: Vec<&str> = Vec::new();
        for finding in &self.findings {
            if !codes.contains(&finding.code.as_str()) {
                codes.push(&finding.code);
            }
        }
        codes
    }
}
