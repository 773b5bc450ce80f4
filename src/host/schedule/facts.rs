//! Whether the regular jobs are there as declared, and something runs them.

use std::{io, path::Path};

use super::{DropInOf, Rendered, ScheduleError, UNITS, cron_runs, dropin, is_systemd, present, render};
use crate::{
    config::Mirror,
    host::{Host, files::Doing as _},
    model::{Scheduler, observed::JobFacts},
};

/// Jobs of distributions that scrub or balance every btrfs (btrfsmaintenance, btrfs-progs of some).
const OTHERS: [&str; 9] = [
    "/etc/cron.daily/btrfs-scrub",
    "/etc/cron.weekly/btrfs-scrub",
    "/etc/cron.monthly/btrfs-scrub",
    "/etc/cron.daily/btrfs-balance",
    "/etc/cron.weekly/btrfs-balance",
    "/etc/cron.monthly/btrfs-balance",
    "/etc/systemd/system/timers.target.wants/btrfs-scrub.timer",
    "/etc/systemd/system/timers.target.wants/btrfs-balance.timer",
    "/etc/systemd/system/timers.target.wants/btrfsd.timer",
];

/// The jobs of one of the declared mirrors. Starts no process.
///
/// # Errors
/// A file could not be looked at.
pub fn facts(
    host: &Host,
    mirrors: &[Mirror],
    mirror: &Mirror,
    binary: &Path,
) -> Result<JobFacts, ScheduleError> {
    let with = mirror.schedule.as_ref().map(|s| s.with);
    let mut facts = JobFacts { with, ..JobFacts::default() };
    let wanted = with.map_or(Ok(Vec::new()), |with| render(with, mirrors, binary))?;
    for file in &wanted {
        match compare(host, file)? {
            Standing::Same => {}
            Standing::Other => facts.altered.push(file.path.display().to_string()),
            Standing::Gone => facts.missing.push(file.path.display().to_string()),
        }
    }
    let surplus = present(host)?.into_iter().filter(|path| !wanted.iter().any(|w| w.path == *path));
    facts.surplus = surplus.map(|path| path.display().to_string()).collect();
    facts.idle = idle(host, with, &wanted);
    if with.is_some() {
        let there = OTHERS.iter().filter(|path| host.path(path).symlink_metadata().is_ok());
        facts.doubled = there.map(|path| (*path).to_owned()).collect();
    }
    let unit = mirror.node.as_ref().and_then(|node| node.unit.as_deref());
    if let Some(unit) = unit {
        let of = DropInOf { unit, mountpoint: &mirror.mountpoint, mirror: &mirror.name, binary };
        let file = dropin(of)?;
        let at = file.path.display().to_string();
        facts.dropin = match compare(host, &file)? {
            Standing::Same => None,
            Standing::Other => Some(format!("{at} is not as raidguard writes it")),
            Standing::Gone => Some(format!("{at} is missing")),
        };
    }
    Ok(facts)
}

enum Standing {
    Same,
    Other,
    Gone,
}

fn compare(host: &Host, file: &Rendered) -> Result<Standing, ScheduleError> {
    match host.read_optional(&file.path) {
        Ok(Some(text)) if text == file.text => Ok(Standing::Same),
        Ok(None) => Ok(Standing::Gone),
        // Bytes that are no text are surely not ours.
        Ok(Some(_)) => Ok(Standing::Other),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => Ok(Standing::Other),
        Err(e) => Err(e).doing("reading", &file.path).map_err(ScheduleError::File),
    }
}

fn idle(host: &Host, with: Option<Scheduler>, wanted: &[Rendered]) -> Vec<String> {
    match with {
        None => Vec::new(),
        Some(Scheduler::Cron) if cron_runs(host) => Vec::new(),
        Some(Scheduler::Cron) => vec!["no process is called cron or crond".to_owned()],
        Some(Scheduler::Systemd) if !is_systemd(host) => vec!["systemd does not run here".to_owned()],
        Some(Scheduler::Systemd) => super::timers(wanted)
            .into_iter()
            .filter(|timer| {
                let link = Path::new(UNITS).join("timers.target.wants").join(timer);
                host.path(link).symlink_metadata().is_err()
            })
            .map(|timer| format!("{timer} is not enabled"))
            .collect(),
    }
}
