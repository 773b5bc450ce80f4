//! `schedule install|show|remove`.

use super::{Exit, Trouble, mirrors};
use crate::{
    host::{Host, schedule},
    ui::Console,
};

fn binary() -> Result<std::path::PathBuf, Trouble> {
    std::env::current_exe().map_err(|e| Trouble::failed("raidguard's own path cannot be read", e))
}

/// Installs the jobs of every declared mirror.
///
/// # Errors
/// Nothing is declared, or the files cannot be written.
pub fn install(host: &Host, console: &Console) -> Result<Exit, Trouble> {
    let declared = mirrors::declared(host)?;
    let Some(with) = declared.iter().find_map(|m| m.schedule.as_ref()).map(|s| s.with) else {
        return Err(Trouble::refused(
            "no mirror with a schedule is declared",
            "raidguard setup, or a [mirror.schedule] in /etc/raidguard/raidguard.toml",
        ));
    };
    schedule::install(host, with, &declared, &binary()?)
        .map_err(|e| Trouble::failed("the jobs could not be installed", e))?;
    show(host, console)
}

/// Shows the jobs and their next runs.
///
/// # Errors
/// The declaration cannot be read.
pub fn show(host: &Host, console: &Console) -> Result<Exit, Trouble> {
    let declared = mirrors::declared(host)?;
    let now = host.now();
    for mirror in &declared {
        let Some(jobs) = &mirror.schedule else {
            console.data(format_args!("{}: no jobs are declared\n", mirror.name));
            continue;
        };
        let there = schedule::is_installed(host, jobs.with, &declared, &binary()?)
            .map_err(|e| Trouble::failed("the jobs could not be read", e))?;
        let state = if there { "installed" } else { "NOT installed as declared: raidguard schedule install" };
        console.data(format_args!("{} by {}: {state}\n", mirror.name, jobs.with));
        for (job, when) in [("check", &jobs.check), ("balance", &jobs.balance), ("scrub", &jobs.scrub)] {
            let next: Vec<String> =
                when.next(now, 2).iter().map(|t| t.strftime("%F %H:%M %Z").to_string()).collect();
            console.data(format_args!(
                "  {job:<8} {:<14} next {}\n",
                when.as_crontab(),
                next.join(", then ")
            ));
        }
    }
    Ok(Exit::Done)
}

/// Takes the jobs away.
///
/// # Errors
/// The files cannot be removed.
pub fn remove(host: &Host, console: &Console) -> Result<Exit, Trouble> {
    schedule::remove(host).map_err(|e| Trouble::failed("the jobs could not be removed", e))?;
    console.say("the jobs are gone; nothing looks after the mirror now");
    Ok(Exit::Done)
}
