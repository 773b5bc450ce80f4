//! What a person or a program reads: tables, prompts, progress, JSON. Decides nothing.

pub mod check;
mod console;
mod devices;
pub mod maintain;
mod plan;
mod status;

pub use console::{Console, Problem};
pub use devices::{ContentReport, DeviceReport, Reason, UsbReport, devices};
pub use plan::plan;
pub use status::{DirectoryStatus, JobReport, StatusReport, status};

/// Names of disks and paths come from outside: what would move the cursor is shown, not done.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .collect()
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
