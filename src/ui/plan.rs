//! A plan as people read it before they say yes: what is erased, then each step with its exact commands.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use crate::{
    model::Identity,
    plan::{Plan, Step},
};

const STRONG: Style = Style::new().bold();
const QUIET: Style = Style::new().dimmed();
const ERASED: Style = AnsiColor::Red.on_default().bold();

/// Renders a plan; with `commands`, each exact command on a line of its own, after `$ `.
pub fn plan<S: Step>(plan: &Plan<S>, erased: &[(Identity, String)], commands: bool) -> String {
    let mut out = String::new();
    if !erased.is_empty() {
        let _ = writeln!(out, "{ERASED}Everything on these devices will be erased:{ERASED:#}");
        for (device, content) in erased {
            let unknown = || "no serial number".to_owned();
            let _ = writeln!(
                out,
                "  {STRONG}{}{STRONG:#}  {}  {}  {}\n      now: {content}",
                device.path.display(),
                device.size,
                device.model.as_deref().unwrap_or("no model name"),
                device.serial.as_ref().map_or_else(unknown, |s| format!("serial {s}")),
            );
        }
        out.push('\n');
    }
    let _ = writeln!(out, "{STRONG}The plan, {} steps:{STRONG:#}", plan.steps.len());
    for (number, step) in plan.steps.iter().enumerate() {
        let _ = writeln!(out, "{:>3}. {}", number + 1, step.says());
        for command in step.commands().iter().filter(|_| commands) {
            let _ = writeln!(out, "       {QUIET}$ {command}{QUIET:#}");
        }
    }
    if !commands {
        let _ = writeln!(out, "{QUIET}     The exact commands: --dry-run{QUIET:#}");
    }
    out
}
