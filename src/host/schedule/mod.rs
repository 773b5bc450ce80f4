//! The regular jobs, as files of cron or systemd. Rendering is pure; never are both installed.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use minijinja::{AutoEscape, Environment, UndefinedBehavior, context};
use serde::Serialize;

use super::{
    Host,
    files::{self, Doing as _, FileError},
};
use crate::{
    config::Mirror,
    exec::{Cmd, CmdError, shell_quote},
    model::Scheduler,
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

fn jobs(mirrors: &[Mirror], binary: &Path) -> Vec<Job> {
    let binary = shell_quote(binary.as_os_str()).into_owned();
    let scheduled: Vec<_> = mirrors.iter().filter_map(|m| Some((m, m.schedule.as_ref()?))).collect();
    let mut jobs = Vec::new();
    // One check looks at every mirror.
    if let Some((_, schedule)) = scheduled.first() {
        jobs.push(Job {
            unit: "raidguard-check".to_owned(),
            title: "is the redundancy real?".to_owned(),
            when: schedule.check.as_crontab().to_owned(),
            calendar: schedule.check.to_oncalendar(),
            delay: 30,
            command: format!("{binary} check"),
            quiet: false,
            // A finding is an answer, not a failure of the job.
            codes: "1 2 3",
        });
    }
    for (mirror, schedule) in scheduled {
        for (verb, when) in [("balance", &schedule.balance), ("scrub", &schedule.scrub)] {
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
    let jobs = jobs(mirrors, binary);
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

fn tell(host: &Host, cmd: &Cmd) -> Result<(), ScheduleError> {
    host.runner().run(cmd).map(drop).map_err(ScheduleError::Systemd)
}

fn enabling(files: &[Rendered]) -> Vec<Cmd> {
    let timers = timers(files);
    if timers.is_empty() {
        return Vec::new();
    }
    vec![systemctl(&["daemon-reload"]), systemctl(&["enable", "--now"]).args(timers)]
}

/// What [`install`] does, a line each.
///
/// # Errors
/// A template is faulty.
pub fn commands(with: Scheduler, mirrors: &[Mirror], binary: &Path) -> Result<Vec<String>, ScheduleError> {
    let files = render(with, mirrors, binary)?;
    let writes = files.iter().map(|f| format!("write {}", f.path.display()));
    Ok(writes.chain(enabling(&files).iter().map(Cmd::line)).collect())
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
        let ours = ["raidguard-check.", "raidguard-balance-", "raidguard-scrub-"]
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
    Ok(names == present(host)? && wanted.iter().all(same))
}

/// Installs the jobs, and takes away what else of ours is there.
///
/// # Errors
/// A file cannot be written, or systemd cannot be told.
pub fn install(host: &Host, with: Scheduler, mirrors: &[Mirror], binary: &Path) -> Result<(), ScheduleError> {
    let files = render(with, mirrors, binary)?;
    remove_others(host, &files)?;
    for file in &files {
        let path = host.path(&file.path);
        files::create_dirs(files::parent(&path), 0o755)?;
        files::replace(&path, file.text.as_bytes(), 0o644)?;
    }
    enabling(&files).iter().try_for_each(|cmd| tell(host, cmd))
}

/// Takes every job of ours away.
///
/// # Errors
/// A file cannot be removed, or systemd cannot be told.
pub fn remove(host: &Host) -> Result<(), ScheduleError> {
    remove_others(host, &[])
}

fn remove_others(host: &Host, keep: &[Rendered]) -> Result<(), ScheduleError> {
    let stale: Vec<PathBuf> =
        present(host)?.into_iter().filter(|path| !keep.iter().any(|k| k.path == *path)).collect();
    let timers: Vec<_> = stale.iter().filter(|p| p.extension().is_some_and(|e| e == "timer")).collect();
    if !timers.is_empty() && is_systemd(host) {
        let names = timers.iter().filter_map(|p| p.file_name());
        tell(host, &systemctl(&["disable", "--now"]).args(names))?;
    }
    for path in &stale {
        files::remove(&host.path(path))?;
    }
    if !timers.is_empty() && is_systemd(host) {
        tell(host, &systemctl(&["daemon-reload"]))?;
    }
    Ok(())
}

/// Does systemd run here (`sd_booted(3)`)?
pub fn is_systemd(host: &Host) -> bool {
    host.path("/run/systemd/system").is_dir()
}

/// What runs jobs on this machine.
///
/// # Errors
/// Nothing does.
pub fn detect(host: &Host) -> Result<Scheduler, ScheduleError> {
    if is_systemd(host) {
        return Ok(Scheduler::Systemd);
    }
    let processes = fs::read_dir(host.path("/proc")).into_iter().flatten().flatten();
    let mut names = processes.filter_map(|e| fs::read_to_string(e.path().join("comm")).ok());
    if names.any(|name| matches!(name.trim_end(), "cron" | "crond")) && host.path("/etc/cron.d").is_dir() {
        return Ok(Scheduler::Cron);
    }
    Err(ScheduleError::Nothing)
}

/// The drop-in that ties a unit to a mount: its path and text. Names with blanks are quoted as systemd wants it (systemd.syntax(7)).
///
/// # Errors
/// A template is faulty.
pub fn dropin(unit: &str, mountpoint: &Path) -> Result<Rendered, ScheduleError> {
    let plain = mountpoint.to_string_lossy().replace('%', "%%");
    let mountpoint = if plain.contains(|c: char| c.is_whitespace() || "\"'\\".contains(c)) {
        format!("\"{}\"", plain.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        plain
    };
    let text = fill(include_str!("../../../templates/dropin.conf"), context! { mountpoint })?;
    Ok(Rendered { path: Path::new(UNITS).join(format!("{unit}.d/raidguard.conf")), text })
}

#[cfg(test)]
mod tests;
