//! The tree of block devices.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use crate::ops::devices::Judged;

const QUIET: Style = Style::new().dimmed();

/// Renders the tree.
pub fn devices(devices: &[Judged]) -> String {
    let mut out = String::new();
    for Judged { device, depth, refused } in devices {
        let indent = "  ".repeat(*depth);
        let facts = [
            device.model.clone(),
            device.serial.as_ref().map(|s| format!("serial {s}")),
            device.transport.clone(),
            Some(device.content.to_string()),
        ];
        let facts: Vec<String> = facts.into_iter().flatten().collect();
        let name = format!("{indent}{}", device.path.display());
        let _ = writeln!(out, "{name:<22} {:>9}  {}", device.size, facts.join(", "));
        if refused.is_empty() {
            let good = AnsiColor::Green.on_default();
            let _ = writeln!(out, "{indent}    {good}usable{good:#}");
        }
        for why in refused {
            let _ = writeln!(out, "{indent}    {QUIET}refused: {why}{QUIET:#}");
        }
    }
    if devices.is_empty() {
        out.push_str("No block devices are seen.\n");
    }
    out
}
