//! `check` and `status`: what should be, what is, what that means.

mod catch_up;
mod keep;

use std::path::PathBuf;

use super::{Trouble, deep, mirrors, mirrors::Judged, notify};
use crate::{
    config::Config,
    health,
    host::{Host, files},
    model::{
        Record, Seen, Severity,
        observed::{Standing, causes},
    },
    ui::{self, Console, DirectoryStatus, StatusReport, check::Checked},
};

/// Who reads what `check` says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// A person.
    #[default]
    Human,
    /// A program.
    Json,
    /// Nagios and its kin: one line with performance data.
    Nagios,
    /// Prometheus' node_exporter, by its textfile collector.
    Prometheus,
}

/// What `check` is to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Options {
    /// Who reads it.
    pub format: Format,
    /// Where it is written to, at once and whole; standard output otherwise.
    pub output: Option<PathBuf>,
    /// Whether the databases are looked at too.
    pub deep: bool,
    /// Whether the operator is told of changes.
    pub notify: bool,
    /// Whether jobs that were missed are run afterwards.
    pub catch_up: bool,
    /// Whether the counters as they are now are taken as known.
    pub acknowledge: bool,
    /// Where all that was seen is written to.
    pub dump: Option<PathBuf>,
}

/// Runs `check`. The answer is the verdict's exit code: 0 ok, 1 warning, 2 critical, 3 unknown.
///
/// # Errors
/// The command line makes no sense. Whatever else keeps a verdict from being reached is said, and is 3: nobody knows.
pub fn check(host: &Host, options: &Options, console: &mut Console) -> Result<u8, Trouble> {
    match verdict(host, options, console) {
        Err(Trouble::Usage(why)) => Err(Trouble::Usage(why)),
        Err(trouble) => {
            if options.format == Format::Nagios && options.output.is_none() {
                console.data(ui::nagios::unknown(&causes(&trouble)));
            }
            console.problem(&trouble.problem());
            Ok(Severity::Unknown.exit_code())
        }
        Ok(level) => Ok(level.exit_code()),
    }
}

fn verdict(host: &Host, options: &Options, console: &mut Console) -> Result<Severity, Trouble> {
    let declared = mirrors::declaration(host);
    if let (Err(trouble), true) = (&declared, options.notify && nix::unistd::geteuid().is_root()) {
        notify::tell_unreadable(host, &causes(trouble), console);
    }
    let Config { mirror, notify } = declared?;
    let (mut judged, state) = mirrors::judge_all(host, mirror);
    unless_stopped(host)?;
    if options.deep {
        for one in &mut judged {
            // A job's words are mailed.
            if !options.notify {
                console.waiting_for(&format!("SQLite has checked the databases of {}", one.mirror.name));
            }
            look_deep(host, one);
            unless_stopped(host)?;
        }
    }
    if options.acknowledge {
        keep::acknowledge(host, &mut judged)?;
    }
    let dumped = match &options.dump {
        Some(file) => dump(host, &judged).and_then(|text| write(file, &(text + "\n"))),
        None => Ok(()),
    };
    let checked: Vec<_> = judged.iter().map(shown).collect();
    let level = ui::check::worst(&checked);
    let text = match options.format {
        Format::Human => ui::check::human(&checked),
        Format::Json => serde_json::to_string_pretty(&ui::check::json(&checked))? + "\n",
        Format::Nagios => ui::nagios::nagios(&checked),
        Format::Prometheus => ui::prometheus::prometheus(&checked, host.now()),
    };
    drop(checked);
    let written = dumped.and_then(|()| {
        if let Some(file) = &options.output {
            return write(file, &text);
        }
        console.data(text);
        Ok(())
    });
    // Whoever is to be told is told also where a file cannot be written.
    keep::keep(host, state, &judged, options, notify.as_ref(), console);
    if options.catch_up {
        catch_up::catch_up(host, &judged, options, console);
    }
    written.map(|()| level)
}

fn unless_stopped(host: &Host) -> Result<(), Trouble> {
    if !host.interrupt().is_raised() {
        return Ok(());
    }
    Err(Trouble::Failed {
        what: "the check was stopped before it reached a verdict".to_owned(),
        source: None,
        hints: vec!["raidguard check".to_owned()],
    })
}

fn shown(judged: &Judged) -> Checked<'_> {
    let Judged { mirror, observed, record, verdict, .. } = judged;
    Checked { declared: mirror, observed, record: record.get(), verdict }
}

fn look_deep(host: &Host, one: &mut Judged) {
    let nothing = Record::default();
    let record = one.record.get().unwrap_or(&nothing);
    // Where the directory could not even be looked at, the databases would be waited for without an end.
    one.observed.databases = match &one.observed.node {
        Seen::Failed(_) => Seen::Failed("the node's directory could not be read".to_owned()),
        Seen::Read(_) | Seen::Skipped => deep::databases(host, &one.mirror, record),
    };
    one.verdict = health::judge(&one.mirror, &one.observed, &one.record, host.now());
}

/// All that the verdicts were made of, so that they can be made again.
fn dump(host: &Host, judged: &[Judged]) -> Result<String, Trouble> {
    let one = |j: &Judged| {
        serde_json::json!({
            "declared": j.mirror, "observed": j.observed, "record": j.record, "verdict": j.verdict,
        })
    };
    let mirrors: Vec<_> = judged.iter().map(one).collect();
    Ok(serde_json::to_string_pretty(
        &serde_json::json!({ "schema": 1, "now": host.now(), "mirrors": mirrors }),
    )?)
}

/// In one step, so that a collector never reads half of it. Where it is no plain file it is written to as it is.
fn write(file: &std::path::Path, text: &str) -> Result<(), Trouble> {
    let failed = |e: &dyn std::fmt::Display| Trouble::refused(e.to_string(), "name another file");
    let special = std::fs::metadata(file).is_ok_and(|m| !m.is_file());
    if special {
        return std::fs::write(file, text).map_err(|e| failed(&format!("{}: {e}", file.display())));
    }
    files::replace(file, text.as_bytes(), 0o644)
        .map_err(|e| Trouble::failed(format!("{} cannot be written", file.display()), e))
}

/// Runs `status`.
///
/// # Errors
/// The declaration cannot be read.
pub fn status(host: &Host, json: bool, console: &Console) -> Result<(), Trouble> {
    let (judged, state) = mirrors::judge_all(host, mirrors::declared(host)?);
    let state = state.ok().flatten();
    let reports: Vec<StatusReport> = judged
        .into_iter()
        .map(|judged| {
            let read = judged.mirror.node.as_ref().zip(judged.observed.node.get());
            let directory = read.map(|(node, facts)| {
                let points_to = match &facts.directory {
                    Standing::Symlink(to) => Some(to.clone()),
                    _ => None,
                };
                let on_the_mirror = points_to.as_ref() == Some(&node.data) && facts.data.is_some();
                DirectoryStatus { directory: node.directory.clone(), points_to, on_the_mirror }
            });
            let record = judged.record.get();
            let same = |(level, at): (Severity, _)| (level == judged.verdict.level).then_some(at);
            let name = &judged.mirror.name;
            StatusReport {
                since: record.and_then(|r| r.verdict).and_then(same),
                history: state.as_ref().and_then(|s| s.history(name, 5).ok()).unwrap_or_default(),
                jobs: super::schedule::jobs(host, &judged.mirror, record, 1),
                observed: judged.observed.storage.get().cloned(),
                verdict: judged.verdict,
                directory,
                declared: judged.mirror,
            }
        })
        .collect();
    console.data(if json { ui::json("mirrors", &reports)? } else { ui::status(&reports, host.now()) });
    Ok(())
}
