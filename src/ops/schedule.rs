//! `schedule install|show|remove`.

use std::path::Path;

use super::{Exit, Trouble, mirrors, rule};
use crate::{
    config::Mirror,
    host::{Host, schedule, state::State, zone},
    model::{Record, Schedule},
    plan::steps::Initramfs,
    ui::{self, Console, JobReport, maintain::ScheduleReport},
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
    let binary = binary()?;
    schedule::install(host, with, &declared, &binary)
        .and_then(|()| schedule::install_dropins(host, &declared, &binary))
        .map_err(|e| Trouble::failed("the jobs could not be installed", e))?;
    rules(host, &declared, &binary, console)?;
    show(host, false, console)
}

/// Writes the rules of udev, and what else keeps halves apart, that are not there as they should be; the initramfs has copies of them.
fn rules(host: &Host, declared: &[Mirror], binary: &Path, console: &Console) -> Result<(), Trouble> {
    let failed = |e| Trouble::failed("what keeps halves of a mirror apart at a boot could not be written", e);
    let mut written = false;
    for mirror in declared {
        let rule =
            rule::of(host, mirror, binary).map_err(|e| Trouble::failed("the mounts cannot be read", e))?;
        let Some(rule) = rule else { continue };
        if !rule.is_there(host).map_err(failed)? {
            rule.write(host).map_err(failed)?;
            written |= rule.is_in_initramfs();
        }
    }
    match Initramfs::of(host).filter(|_| written) {
        Some(initramfs) => {
            console.say("making the initramfs anew, which has copies of the rules of udev");
            initramfs.renew(host).map_err(|e| {
                Trouble::failed("the rule of udev is written, and the initramfs could not be made anew", e)
                    .hint(format!("mend what it names, then make it by hand: {}", initramfs.cmd().line()))
            })
        }
        None => Ok(()),
    }
}

/// A mirror's declared jobs with their next runs.
pub(super) fn jobs(host: &Host, mirror: &Mirror, record: Option<&Record>, runs: usize) -> Vec<JobReport> {
    let (now, zone) = (host.now(), zone::read(host));
    let report = |job, when: &Schedule| JobReport {
        job,
        when: when.as_crontab().to_owned(),
        next: when.next(now, runs, &zone).iter().map(|t| t.strftime("%F %H:%M %Z").to_string()).collect(),
        last: record.and_then(|r| r.jobs.get(job)).and_then(|run| run.good),
        failed: record.and_then(|r| r.jobs.get(job)).and_then(|run| run.failed.clone()),
    };
    mirror.schedule.as_ref().map_or_else(Vec::new, |s| {
        let balance = s.balance.as_ref().map(|when| ("balance", when));
        let jobs = [("check", &s.check), ("deep", &s.deep)].into_iter().chain(balance);
        jobs.chain([("scrub", &s.scrub)]).map(|(job, when)| report(job, when)).collect()
    })
}

/// Shows the jobs and their next runs.
///
/// # Errors
/// The declaration cannot be read.
pub fn show(host: &Host, json: bool, console: &Console) -> Result<Exit, Trouble> {
    let declared = mirrors::declared(host)?;
    let state = State::open_existing(host);
    let mut reports = Vec::new();
    for mirror in &declared {
        let with = mirror.schedule.as_ref().map(|s| s.with);
        let installed = match with {
            None => false,
            Some(with) => schedule::is_installed(host, with, &declared, &binary()?)
                .map_err(|e| Trouble::failed("the jobs could not be read", e))?,
        };
        let jobs = jobs(host, mirror, mirrors::recorded(&state, &mirror.name).get(), 2);
        reports.push(ScheduleReport { mirror: mirror.name.clone(), with, installed, jobs });
    }
    console.data(if json { ui::json("schedule", &reports)? } else { ui::maintain::schedule(&reports) });
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
