//! Whether the regular jobs are there as declared, and something runs them.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp};

use super::{DropInOf, Rendered, Rule, ScheduleError, cron_runs, dropin, is_systemd, present, render};
use crate::{
    config::Mirror,
    host::{Host, files::Doing as _, zone},
    model::{BackendKind, Scheduler, observed::JobFacts},
};

/// Jobs of distributions that check every array: Debian's (mdadm.cron.d, until 2021; then the timers of mdadm), Fedora's raid-check.
const CHECKS: [&str; 5] = [
    "/etc/cron.d/mdadm",
    "/etc/systemd/system/mdmonitor.service.wants/mdcheck_start.timer",
    "/etc/systemd/system/timers.target.wants/mdcheck_start.timer",
    "/etc/cron.d/raid-check",
    "/etc/systemd/system/timers.target.wants/raid-check.timer",
];

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

/// Stands for the program while files are compared: whichever they name, it must be one that can be run.
const ANY: &str = "/any/program";

/// The jobs of one of the declared mirrors, and whether udev keeps its halves apart where it should (`ruled`). Starts no process.
///
/// # Errors
/// A file could not be looked at.
pub fn facts(
    host: &Host,
    mirrors: &[Mirror],
    mirror: &Mirror,
    ruled: bool,
) -> Result<JobFacts, ScheduleError> {
    let with = mirror.schedule.as_ref().map(|s| s.with);
    let shared = host.once(format!("{with:?}"), || common(host, mirrors, with))?;
    let mut facts = JobFacts::clone(&shared);
    if with.is_some() {
        let others: &[&str] = match mirror.backend {
            BackendKind::Btrfs => &OTHERS,
            BackendKind::Mdadm => &CHECKS,
            BackendKind::Zfs => &[],
        };
        let there = others.iter().filter(|path| host.path(path).symlink_metadata().is_ok());
        facts.doubled = there.map(|path| (*path).to_owned()).collect();
    }
    let unit = mirror.node.as_ref().and_then(|node| node.unit.as_deref());
    if let Some(unit) = unit {
        let binary = Path::new(ANY);
        let (mountpoint, name, backend) = (&mirror.mountpoint, &mirror.name, mirror.backend);
        let of = DropInOf { unit, mountpoint, mirror: name, backend, binary };
        facts.dropin = fault(host, &dropin(of)?)?;
    }
    if let Some(rule) = Rule::of(mirror, Path::new(ANY)).filter(|_| ruled) {
        facts.rule = fault(host, &rule.rendered()?)?;
    }
    Ok(facts)
}

/// What is wrong with a file that asks this program, if anything.
fn fault(host: &Host, file: &Rendered) -> Result<Option<String>, ScheduleError> {
    let at = file.path.display();
    Ok(match compare(host, file)? {
        Standing::Same => None,
        Standing::Other => Some(format!("{at} is not as raidguard writes it")),
        Standing::Dead(program) => Some(format!("{at} asks {}, which is no program", program.display())),
        Standing::Gone => Some(format!("{at} is missing")),
    })
}

/// When the machine was started, by `/proc/uptime` (proc_uptime(5)): seconds since then, then another number.
fn booted(host: &Host) -> Option<Timestamp> {
    let text = host.read("/proc/uptime").ok()?;
    let seconds: f64 = text.split_whitespace().next()?.parse().ok()?;
    host.now().checked_sub(SignedDuration::try_from_secs_f64(seconds).ok()?).ok()
}

/// What the mirrors have in common: the files are those of all of them.
fn common(host: &Host, mirrors: &[Mirror], with: Option<Scheduler>) -> Result<JobFacts, ScheduleError> {
    let mut facts = JobFacts { with, booted: booted(host), zone: zone::read(host), ..JobFacts::default() };
    let wanted = with.map_or(Ok(Vec::new()), |with| render(with, mirrors, Path::new(ANY)))?;
    for file in &wanted {
        let at = file.path.display();
        match compare(host, file)? {
            Standing::Same => {}
            Standing::Other => facts.altered.push(at.to_string()),
            Standing::Dead(program) => {
                facts.altered.push(format!("{at} runs {}, which is no program", program.display()));
            }
            Standing::Gone => facts.missing.push(at.to_string()),
        }
    }
    let surplus = present(host)?.into_iter().filter(|path| !wanted.iter().any(|w| w.path == *path));
    facts.surplus = surplus.map(|path| path.display().to_string()).collect();
    facts.idle = idle(host, with, &wanted);
    Ok(facts)
}

enum Standing {
    Same,
    Other,
    /// As raidguard writes it, for a program that is not there.
    Dead(PathBuf),
    Gone,
}

fn compare(host: &Host, file: &Rendered) -> Result<Standing, ScheduleError> {
    let text = match host.read_optional(&file.path) {
        Ok(Some(text)) => text,
        Ok(None) => return Ok(Standing::Gone),
        // Bytes that are no text are surely not ours.
        Err(e) if e.kind() == io::ErrorKind::InvalidData => return Ok(Standing::Other),
        Err(e) => return Err(e).doing("reading", &file.path).map_err(ScheduleError::File),
    };
    let Some(mut programs) = programs_of(&file.text, &text) else { return Ok(Standing::Other) };
    // A crontab names the same one for each job.
    programs.dedup();
    let dead = programs.into_iter().map(unquoted).find(|program| !is_program(host, program));
    Ok(dead.map_or(Standing::Same, Standing::Dead))
}

/// What stands for [`ANY`] in a text that is the wanted one but for that; nothing where it is another.
fn programs_of<'t>(wanted: &str, text: &'t str) -> Option<Vec<&'t str>> {
    let mut parts = wanted.split(ANY);
    let mut rest = text.strip_prefix(parts.next()?)?;
    let mut programs = Vec::new();
    for part in parts {
        let end = rest.find(part)?;
        programs.push(rest.get(..end)?);
        rest = rest.get(end + part.len()..)?;
    }
    rest.is_empty().then_some(programs)
}

/// As in a crontab or a unit: in quotes where it has blanks.
fn unquoted(program: &str) -> PathBuf {
    PathBuf::from(program.trim_matches(['"', '\'']))
}

fn is_program(host: &Host, path: &Path) -> bool {
    let meta = fs::metadata(host.path(path));
    path.is_absolute() && meta.is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

fn idle(host: &Host, with: Option<Scheduler>, wanted: &[Rendered]) -> Vec<String> {
    match with {
        None => Vec::new(),
        Some(Scheduler::Cron) if cron_runs(host) => Vec::new(),
        Some(Scheduler::Cron) => vec!["no process is called cron or crond".to_owned()],
        Some(Scheduler::Systemd) if !is_systemd(host) => vec!["systemd does not run here".to_owned()],
        Some(Scheduler::Systemd) => super::not_enabled(host, wanted)
            .into_iter()
            .map(|timer| format!("{timer} is not enabled"))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::ScheduleConfig, exec::ScriptedRunner, health::samples};

    /// The facts of a machine where this text is in the crontab.
    fn facts_with(change: &dyn Fn(String) -> String) -> JobFacts {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::captured(dir.path(), std::sync::Arc::new(ScriptedRunner::new()), samples::now());
        let program = dir.path().join("opt/my tools/raidguard");
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        fs::write(&program, "").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let mut mirror = samples::healthy().0;
        mirror.schedule = Some(ScheduleConfig::standard(Scheduler::Cron, BackendKind::Btrfs).unwrap());
        let mirrors = [mirror.clone()];
        let mut files = render(Scheduler::Cron, &mirrors, Path::new("/opt/my tools/raidguard")).unwrap();
        let file = files.pop().unwrap();
        let at = host.path(&file.path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(at, change(file.text)).unwrap();
        facts(&host, &mirrors, &mirror, false).unwrap()
    }

    #[test]
    fn the_jobs_may_run_any_program_that_can_be_run() {
        assert_eq!(facts_with(&|text| text).altered, [] as [&str; 0]);
        let gone = facts_with(&|text| text.replace("my tools", "no tools"));
        assert_eq!(gone.altered, ["/etc/cron.d/raidguard runs /opt/no tools/raidguard, which is no program"]);
        let partly = facts_with(&|text| text.replacen("my tools", "no tools", 1));
        assert_eq!(partly.altered.len(), 1, "each line counts");
        for other in ["check --notify", "balance lightning", "root", "*/15 "] {
            let altered = facts_with(&|text| text.replacen(other, "x", 1)).altered;
            assert_eq!(altered.len(), 1, "{other}: {altered:?}");
        }
        assert_eq!(facts_with(&|text| text + "# more\n").altered, ["/etc/cron.d/raidguard"]);
        assert_eq!(facts_with(&|text| text.replace("root", "nobody")).altered, ["/etc/cron.d/raidguard"]);
        assert_eq!(facts_with(&|_| String::new()).altered, ["/etc/cron.d/raidguard"]);
    }

    crate::fuzz::fuzzed!(fuzz_installed_jobs, text [
        b"# jobs\n*/15 * * * * root /usr/bin/raidguard check\n0 0 * * * root '/opt/my tools/raidguard' balance\n",
    ], |text| {
        let wanted = "# jobs\n*/15 * * * * root /any/program check\n0 0 * * * root /any/program balance\n";
        if let Some(programs) = programs_of(wanted, text) {
            assert_eq!(programs.len(), 2);
        }
    });
}
