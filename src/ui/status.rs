//! The picture at one glance.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::{
    config::Mirror,
    health::{Level, Verdict},
    model::{Bytes, mirror::MirrorState},
};

const STRONG: Style = Style::new().bold();
const QUIET: Style = Style::new().dimmed();

/// All that `status` knows of one mirror.
#[derive(Debug, Serialize)]
pub struct StatusReport {
    /// What should be.
    pub declared: Mirror,
    /// What is, where it could be read.
    pub observed: Option<MirrorState>,
    /// What that means.
    pub verdict: Verdict,
    /// Where the node's directory points, or why that cannot be told.
    pub directory: Option<DirectoryStatus>,
    /// The next run of each job, as RFC 3339 with the machine's zone.
    pub next_jobs: Vec<(String, Option<String>)>,
}

/// Where the node's directory leads.
#[derive(Debug, Serialize)]
pub struct DirectoryStatus {
    /// The directory as the node knows it.
    pub directory: std::path::PathBuf,
    /// The symlink's target, where it is one.
    pub points_to: Option<std::path::PathBuf>,
    /// Whether that is the declared place on the mirror.
    pub on_the_mirror: bool,
}

/// Renders the picture.
pub fn status(reports: &[StatusReport]) -> String {
    let mut out = String::new();
    for report in reports {
        one(&mut out, report);
    }
    if reports.is_empty() {
        out.push_str(
            "No mirror is declared. `raidguard devices` shows what there is; `raidguard setup` makes one.\n",
        );
    }
    out
}

fn one(out: &mut String, report: &StatusReport) {
    let Mirror { name, level, backend, mountpoint, member, .. } = &report.declared;
    let (colour, word) = match report.verdict.level {
        Level::Ok => (AnsiColor::Green, "ok"),
        Level::Warning => (AnsiColor::Yellow, "warning"),
        Level::Unknown => (AnsiColor::Magenta, "unknown"),
        Level::Critical => (AnsiColor::Red, "critical"),
    };
    let style = colour.on_default().bold();
    let _ = writeln!(
        out,
        "{STRONG}{name}{STRONG:#}  {style}{word}{style:#}  {backend} {level} at {}",
        mountpoint.display()
    );
    for (index, declared) in member.iter().enumerate() {
        let seen = report
            .observed
            .as_ref()
            .and_then(|o| o.members.iter().find(|m| m.devid.to_string() == declared.id));
        let branch = if index + 1 == member.len() { "└─" } else { "├─" };
        let state = match seen {
            Some(m) if m.missing => "MISSING".to_owned(),
            Some(m) => match &m.errors {
                Some(e) if e.is_clean() => "no errors".to_owned(),
                Some(e) => {
                    let errors = e.named().into_iter().filter(|(_, n)| *n > 0);
                    errors.map(|(kind, n)| format!("{n} {kind} errors")).collect::<Vec<_>>().join(", ")
                }
                None => "errors unknown".to_owned(),
            },
            None => "not seen".to_owned(),
        };
        let path =
            seen.and_then(|m| m.path.as_ref()).map_or_else(|| "-".to_owned(), |p| p.display().to_string());
        let _ = writeln!(
            out,
            "{branch} {path}  {}  {}  {}  {state}",
            declared.size,
            declared.model.as_deref().unwrap_or("no model name"),
            declared.serial.as_deref().map_or_else(|| "no serial".to_owned(), |s| format!("serial {s}")),
        );
    }
    let label = |text: &str| format!("{QUIET}{text:<11}{QUIET:#}");
    if let Some(state) = &report.observed {
        let profiles: Vec<String> =
            state.profiles.iter().map(|p| format!("{} {}", p.kind, p.profile)).collect();
        let _ = writeln!(out, "{} {}", label("redundancy"), profiles.join(", "));
        let free = state.free.map_or_else(|| "free space unknown".to_owned(), |f: Bytes| format!("{f} free"));
        let _ = writeln!(out, "{} {} used, {free}", label("space"), state.used);
    }
    if let Some(directory) = &report.directory {
        let leads = match &directory.points_to {
            Some(to) if directory.on_the_mirror => format!("→ {}", to.display()),
            Some(to) => format!("→ {}, which is NOT the declared place", to.display()),
            None => "is NOT a symlink into the mirror".to_owned(),
        };
        let _ = writeln!(out, "{} {} {leads}", label("node"), directory.directory.display());
    }
    for (job, next) in &report.next_jobs {
        let _ = writeln!(
            out,
            "{} {}",
            label(job),
            next.as_deref().map_or("never".to_owned(), |n| format!("next {n}"))
        );
    }
    for finding in &report.verdict.findings {
        let _ = writeln!(out, "{style}{}{style:#} {}", finding.code, finding.says);
    }
}
