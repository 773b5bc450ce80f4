//! `check` and `status`: what should be, what is, what that means.

use super::{Trouble, mirrors};
use crate::{
    health::Level,
    host::Host,
    ui::{self, Console, DirectoryStatus, StatusReport, check::Checked},
};

/// Runs `check`. The answer is the verdict's exit code: 0 ok, 1 warning, 2 critical, 3 unknown.
///
/// # Errors
/// The declaration cannot be read.
pub fn check(host: &Host, json: bool, console: &Console) -> Result<u8, Trouble> {
    let declared = mirrors::declared(host)?;
    if declared.is_empty() {
        // Nothing to look at is not the same as nothing wrong.
        console.say("unknown: no mirror is declared in /etc/raidguard/raidguard.toml");
        return Ok(Level::Unknown.exit_code());
    }
    let judged: Vec<_> = declared.into_iter().map(|mirror| mirrors::judge(host, mirror)).collect();
    let checked: Vec<_> = judged
        .iter()
        .map(|j| Checked { declared: &j.mirror, observed: &j.observed, verdict: &j.verdict })
        .collect();
    if json {
        console.data(serde_json::to_string_pretty(&ui::check::json(&checked))? + "\n");
    } else {
        console.data(ui::check::human(&checked));
    }
    Ok(ui::check::worst(&checked).exit_code())
}

/// Runs `status`.
///
/// # Errors
/// The declaration cannot be read.
pub fn status(host: &Host, json: bool, console: &Console) -> Result<(), Trouble> {
    let reports: Vec<StatusReport> = mirrors::declared(host)?
        .into_iter()
        .map(|mirror| {
            let judged = mirrors::judge(host, mirror);
            let directory = judged.mirror.node.as_ref().map(|node| {
                let points_to = std::fs::read_link(&node.directory).ok();
                let on_the_mirror = points_to.as_ref() == Some(&node.data) && node.data.is_dir();
                DirectoryStatus { directory: node.directory.clone(), points_to, on_the_mirror }
            });
            StatusReport {
                observed: judged.observed.state,
                verdict: judged.verdict,
                directory,
                jobs: super::schedule::jobs(host, &judged.mirror, 1),
                declared: judged.mirror,
            }
        })
        .collect();
    console.data(if json { ui::json("mirrors", &reports)? } else { ui::status(&reports) });
    Ok(())
}
