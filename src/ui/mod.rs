//! What a person or a program reads: tables, prompts, progress, JSON. Decides nothing.

pub mod check;
mod console;
mod devices;
mod plan;
mod status;

pub use console::Console;
pub use devices::devices;
pub use plan::plan;
pub use status::{DirectoryStatus, StatusReport, status};

/// `{"schema": 1, NAME: ...}`, indented, with a newline at its end.
pub fn json<T: serde::Serialize>(name: &str, value: &T) -> String {
    let body = serde_json::json!({ "schema": 1, name: value });
    format!("{body:#}\n")
}
