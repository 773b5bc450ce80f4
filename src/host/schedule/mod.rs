//! The regular jobs, as files of cron or systemd. Rendering is pure; never are both installed.

mod dropin;
mod facts;
mod rule;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

pub use dropin::{DropInOf, dropin, install_dropins};
pub use facts::facts;
pub use rule::{EARLY, Rule, apart_flag, has_udev};

use minijinja::{AutoEscape, Environment, UndefinedBehavior, context};
use serde::Serialize;

use super::{
    Host,
    files::{self, Doing as _, FileError},
};
use crate::{
    config::Mirror,
    exec::{Cmd, CmdError, log_change},
    model::{Scheduler, quote::shell_quote},
};

const CRON: &str = "/etc/cron.d/raidguard";
const UNITS: &str = "/etc/systemd/system";

/// Why the jobs could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// A file operation failed.
    #[error("the jobs' files cannot be changed")]
    File(#[source] FileError),
    /// systemctl failed.
    #[error("systemd could not be told")]
    Systemd(#[source] CmdError),
    /// A template failed: a fault of this program.
    #[error("a template of raidguard is faulty")]
    Template(#[source] minijinja::Error),
    /// The program's path cannot be written there.
    #[error("{} cannot be written in a rule of udev: install raidguard under a name without quotes", .0.display())]
    Unwritable(PathBuf),
    /// Nothing here runs jobs.
    #[error("neither systemd nor cron runs jobs here")]
    Nothing,
}

impl From<FileError> for ScheduleError {
    fn from(e: FileError) -> Self {
        Self::File(e)
    }
}

#[derive(Serialize)]
struct Job {
    unit: String,
    title: String,
    when: String,
    calendar: String,
    delay: u32,
    command: String,
    quiet: bool,
    codes: &'static str,
}

/// One file of the schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// Where it goes.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
}

fn jobs(with: Scheduler, mirrors: &[Mirror], binary: &Path) -> Vec<Job> {
    let binary = shell_quote(binary.as_os_str()).into_owned();
    let scheduled: Vec<_> = mirrors.iter().filter_map(|m| Some((m, m.schedule.as_ref()?))).collect();
    let mut jobs = Vec::new();
    // One check looks at every mirror. systemd catches up on what was missed by itself (Persistent=); cron does not.
    let catch_up = if with == Scheduler::Cron { " --catch-up" } else { "" };
    if let Some((_, schedule)) = scheduled.first() {
        let checks = [
            ("check", "is the redundancy real?", &schedule.check, format!("check --notify{catch_up}"), 30),
            (
                "deep",
                "are the databases whole, and the newest?",
                &schedule.deep,
                "check --deep --notify".to_owned(),
                300,
            ),
        ];
        for (unit, title, when, command, delay) in checks {
            jobs.push(Job {
                unit: format!("raidguard-{unit}"),
                title: title.to_owned(),
                when: when.as_crontab().to_owned(),
                calendar: when.to_oncalendar(),
                delay,
                command: format!("{binary} {command}"),
                quiet: unit == "deep",
                // A finding is an answer, not a failure of the job.
                codes: "1 2 3",
            });
        }
    }
    for (mirror, schedule) in scheduled {
        let balance = schedule.balance.as_ref().map(|when| ("balance", when));
        for (verb, when) in balance.into_iter().chain([("scrub", &schedule.scrub)]) {
            jobs.push(Job {
                unit: format!("raidguard-{verb}-{}", mirror.name),
                title: format!("{verb} of the mirror {}", mirror.name),
                when: when.as_crontab().to_owned(),
                calendar: when.to_oncalendar(),
                delay: 300,
                command: format!("{binary} {verb} {}", mirror.name),
                quiet: true,
                codes: "",
            });
        }
    }
    jobs
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_keep_trailing_newline(true);
    environment
}

fn fill(template: &str, context: minijinja::Value) -> Result<String, ScheduleError> {
    environment().render_str(template, context).map_err(ScheduleError::Template)
}

/// The files that run the jobs of these mirrors.
///
/// # Errors
/// A template is faulty.
pub fn render(with: Scheduler, mirrors: &[Mirror], binary: &Path) -> Result<Vec<Rendered>, ScheduleError> {
    let jobs = jobs(with, mirrors, binary);
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    match with {
        Scheduler::Cron => {
            let text = fill(include_str!("../../../templates/cron"), context! { jobs })?;
            Ok(vec![Rendered { path: CRON.into(), text }])
        }
        Scheduler::Systemd => {
            let mut files = Vec::new();
            for job in jobs {
                for (ending, template) in [
                    ("service", include_str!("../../../templates/service")),
                    ("timer", include_str!("../../../templates/timer")),
                ] {
                    let path = Path::new(UNITS).join(format!("{}.{ending}", job.unit));
                    files.push(Rendered { path, text: fill(template, context! { job })? });
                }
            }
            Ok(files)
        }
    }
}

fn timers(files: &[Rendered]) -> Vec<String> {
    let names = files.iter().filter(|f| f.path.extension().is_some_and(|e| e == "timer"));
    names.filter_map(|f| Some(f.path.file_name()?.to_string_lossy().into_owned())).collect()
}

fn systemctl(args: &[&str]) -> Cmd {
    Cmd::change("systemctl").args(args)
}

fn enabling(files: &[Rendered]) -> Vec<Cmd> {
    let timers = timers(files);
    if timers.is_empty() {
        return Vec::new();
    }
    vec![systemctl(&["daemon-reload"]), systemctl(&["enable", "--now"]).args(timers)]
}

/// One change on the way from the files that are there to those that should be.
enum Act {
    Write(Rendered),
    Remove(PathBuf),
    Tell(Cmd),
}

impl Act {
    fn line(&self) -> String {
        match self {
            Self::Write(file) => format!("write {}", file.path.display()),
            Self::Remove(path) => Cmd::change("rm").arg(path).line(),
            Self::Tell(cmd) => cmd.line(),
        }
    }

    fn apply(&self, host: &Host) -> Result<(), ScheduleError> {
        match self {
            Self::Tell(cmd) => return host.runner().run(cmd).map(drop).map_err(ScheduleError::Systemd),
            Self::Write(file) => {
                log_change(&self.line());
                let path = host.path(&file.path);
                files::create_dirs(files::parent(&path), 0o755)?;
                files::replace(&path, file.text.as_bytes(), 0o644)?;
            }
            Self::Remove(path) => {
                log_change(&self.line());
                files::remove(&host.path(path))?;
            }
        }
        Ok(())
    }
}

/// From these files to those. Timers are stopped before their files go.
fn replacing(old: &[PathBuf], new: Vec<Rendered>, systemd: bool) -> Vec<Act> {
    let mut stale: Vec<_> = old.iter().filter(|path| !new.iter().any(|n| n.path == **path)).collect();
    stale.sort();
    let is_timer = |path: &&PathBuf| path.extension().is_some_and(|e| e == "timer");
    let names: Vec<_> = stale.iter().copied().filter(is_timer).filter_map(|p| p.file_name()).collect();
    let stopping = systemd && !names.is_empty();
    let mut acts = Vec::new();
    if stopping {
        acts.push(Act::Tell(systemctl(&["disable", "--now"]).args(names)));
    }
    acts.extend(stale.into_iter().cloned().map(Act::Remove));
    let starting = enabling(&new);
    acts.extend(new.into_iter().map(Act::Write));
    if stopping && starting.is_empty() {
        acts.push(Act::Tell(systemctl(&["daemon-reload"])));
    }
    acts.extend(starting.into_iter().map(Act::Tell));
    acts
}

/// What [`install`] does where nothing is installed, a line each.
///
/// # Errors
/// A template is faulty.
pub fn commands(with: Scheduler, mirrors: &[Mirror], binary: &Path) -> Result<Vec<String>, ScheduleError> {
    let acts = replacing(&[], render(with, mirrors, binary)?, with == Scheduler::Systemd);
    Ok(acts.iter().map(Act::line).collect())
}

/// What it does to go from the jobs of `mirrors` back to those of `before`, a line each.
///
/// # Errors
/// A template is faulty.
pub fn undo_commands(
    with: Scheduler,
    mirrors: &[Mirror],
    before: &[Mirror],
    binary: &Path,
) -> Result<Vec<String>, ScheduleError> {
    let old: Vec<_> = render(with, mirrors, binary)?.into_iter().map(|file| file.path).collect();
    let acts = replacing(&old, render(with, before, binary)?, with == Scheduler::Systemd);
    Ok(acts.iter().map(Act::line).collect())
}

/// Files of ours that are there, of cron and of systemd.
fn present(host: &Host) -> Result<Vec<PathBuf>, FileError> {
    let mut found = Vec::new();
    if host.path(CRON).exists() {
        found.push(CRON.into());
    }
    let units = host.path(UNITS);
    let entries = match fs::read_dir(&units) {
        Ok(entries) => entries.collect::<io::Result<Vec<_>>>().doing("reading", &units)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(e).doing("reading", &units),
    };
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let ours = ["raidguard-check.", "raidguard-deep.", "raidguard-balance-", "raidguard-scrub-"]
            .iter()
            .any(|p| name.starts_with(p));
        if ours && Path::new(&name).extension().is_some_and(|e| e == "timer" || e == "service") {
            found.push(Path::new(UNITS).join(name));
        }
    }
    found.sort();
    Ok(found)
}

/// Are exactly these jobs installed?
///
/// # Errors
/// The files cannot be read.
pub fn is_installed(
    host: &Host,
    with: Scheduler,
    mirrors: &[Mirror],
    binary: &Path,
) -> Result<bool, ScheduleError> {
    let wanted = render(with, mirrors, binary)?;
    let mut names: Vec<_> = wanted.iter().map(|f| f.path.clone()).collect();
    names.sort();
    let same = |f: &Rendered| host.read(&f.path).is_ok_and(|text| text == f.text);
    Ok(names == present(host)? && wanted.iter().all(same) && not_enabled(host, &wanted).is_empty())
}

/// The link by which a boot starts a timer (systemctl(1), enable).
fn wanted_by(timer: &str) -> PathBuf {
    Path::new(UNITS).join("timers.target.wants").join(timer)
}

/// Those of the timers that no boot starts.
fn not_enabled(host: &Host, files: &[Rendered]) -> Vec<String> {
    let has_none = |timer: &String| host.path(wanted_by(timer)).symlink_metadata().is_err();
    timers(files).into_iter().filter(has_none).collect()
}

/// Installs the jobs, and takes away what else of ours is there; no mirrors, no jobs.
///
/// # Errors
/// A file cannot be written or removed, or systemd cannot be told.
pub fn install(host: &Host, with: Scheduler, mirrors: &[Mirror], binary: &Path) -> Result<(), ScheduleError> {
    let wanted = render(with, mirrors, binary)?;
    let timer = timers(&wanted).pop();
    let acts = replacing(&present(host)?, wanted, is_systemd(host));
    acts.iter().try_for_each(|act| act.apply(host))?;
    // systemd has made the links, and left to the kernel when they reach the disk.
    let links = timer.map(|timer| host.path(wanted_by(&timer)));
    match links.as_deref().map(files::parent) {
        Some(links) if links.is_dir() => Ok(files::sync_dir(links)?),
        _ => Ok(()),
    }
}

/// Takes every job of ours away.
///
/// # Errors
/// A file cannot be removed, or systemd cannot be told.
pub fn remove(host: &Host) -> Result<(), ScheduleError> {
    replacing(&present(host)?, Vec::new(), is_systemd(host)).iter().try_for_each(|act| act.apply(host))
}

/// Does systemd run here (`sd_booted(3)`)?
pub fn is_systemd(host: &Host) -> bool {
    host.path("/run/systemd/system").is_dir()
}

/// Does a cron daemon run here?
pub fn cron_runs(host: &Host) -> bool {
    let is_cron = |pid: &str| {
        let name = fs::read_to_string(host.path(format!("/proc/{pid}/comm")));
        name.is_ok_and(|name| matches!(name.trim_end(), "cron" | "crond"))
    };
    // Where it says that it is, before every process is asked.
    let told = ["/run/crond.pid", "/run/cron.pid"].iter().filter_map(|file| host.read(file).ok());
    if told.into_iter().any(|pid| is_cron(pid.trim())) {
        return true;
    }
    let processes = fs::read_dir(host.path("/proc")).into_iter().flatten().flatten();
    let is_pid = |name: &String| name.bytes().all(|b| b.is_ascii_digit());
    processes.filter_map(|e| e.file_name().into_string().ok()).filter(is_pid).any(|pid| is_cron(&pid))
}

/// What runs jobs on this machine.
///
/// # Errors
/// Nothing does.
pub fn detect(host: &Host) -> Result<Scheduler, ScheduleError> {
    if is_systemd(host) {
        return Ok(Scheduler::Systemd);
    }
    if host.path("/etc/cron.d").is_dir() && cron_runs(host) {
        return Ok(Scheduler::Cron);
    }
    Err(ScheduleError::Nothing)
}

#[cfg(test)]
mod tests;
