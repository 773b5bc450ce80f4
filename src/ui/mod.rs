//! What a person or a program reads: tables, prompts, progress, JSON. Decides nothing.

pub mod check;
mod console;
mod devices;
pub mod drill;
mod key;
pub mod maintain;
pub mod nagios;
mod notify;
mod plan;
pub mod prometheus;
mod recover;
mod repair;
mod status;

pub use console::{Console, Problem};
pub use devices::{ContentReport, DeviceReport, Reason, UsbReport, devices};
pub use notify::{Tried, notify};
pub use plan::plan;
pub use recover::{
    AgainstLedger, DatabaseReport, FileReport, LedgerReport, MirrorReport, NetworkReport, RecoveryReport,
    SecretReport, SurvivorReport, TriedReport, UnreadableReport, WayReport, survivors,
};
pub use repair::{RepairReport, repair};
pub use status::{DirectoryStatus, JobReport, StatusReport, status};

use anstyle::{AnsiColor, Style};

use crate::model::{Severity, quote::printable};

/// The colour of a verdict.
fn style_of(level: Severity) -> Style {
    let colour = match level {
        Severity::Ok => AnsiColor::Green,
        Severity::Warning => AnsiColor::Yellow,
        Severity::Unknown => AnsiColor::Magenta,
        Severity::Critical => AnsiColor::Red,
    };
    colour.on_default().bold()
}

/// `{"schema": 1, NAME: ...}`, indented, with a newline at its end.
///
/// # Errors
/// The value has no form in JSON.
pub fn json<T: serde::Serialize>(name: &str, value: &T) -> serde_json::Result<String> {
    let value = serde_json::to_value(value)?;
    Ok(format!("{:#}\n", serde_json::json!({ "schema": 1, name: value })))
}

#[cfg(test)]
mod json_tests;
