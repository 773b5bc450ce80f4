//! `drill`: the bad day, rehearsed on disks that are thrown away.
//!
//! Everything happens on a thread with a mount namespace of its own, which covers the machine's `/etc`, `/home`, `/mnt`, `/run`, `/srv` and
//! `/var`. raidguard is called there as it would be on a real day. What takes room lies in one scratch directory, loop devices go by
//! themselves with the process, and a record in `/run/raidguard` tells the next drill what a killed one left.

mod log;
mod node;
mod play;
mod record;
mod rehearsal;
mod stage;
mod steps;
mod told;
mod tree;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::sys::statvfs::statvfs;

use self::{
    log::Log,
    play::{Play, Stop, mountpoint},
    record::{Keeper, PREFIX, RecordError},
    rehearsal::{Rehearsal, rehearsal},
    stage::Stage,
    steps::STEPS,
};
use super::{
    Blocker, Exit, Trouble,
    trouble::{need_root, unchanged},
};
use crate::{
    config::Config,
    host::{Host, apart::apart, declaration, overlay, random_uuid, schedule},
    model::{Bytes, observed::causes},
    plan::Watch as _,
    ui::{
        self, Console,
        drill::{Announced, DrillReport, StepEnd, StepReport},
    },
};

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Wait for a key before each step.
    pub step: bool,
    /// Where the throw-away disks are kept.
    pub scratch: PathBuf,
    /// Print JSON.
    pub json: bool,
}

/// What is called here itself; what setup and the others call they ask for themselves.
const TOOLS: [&str; 7] = ["blockdev", "btrfs", "cp", "losetup", "mkfs.btrfs", "mount", "umount"];
/// Room for a mirror of two, and for each disk more.
const ROOM: Bytes = Bytes::gib(4);
const ROOM_MORE: Bytes = Bytes::mib(512);

/// Runs `drill`.
///
/// # Errors
/// Refused, or a step did not do what it should.
pub fn drill(host: &Host, request: &Request, console: &mut Console) -> Result<Exit, Trouble> {
    need_root("drill")?;
    let began = Instant::now();
    let config = declaration::load(host).unwrap_or_else(|e| {
        console.warn(format_args!("your own declaration cannot be used: {}", causes(&e)));
        Config::default()
    });
    let rehearsal = rehearsal(&config, schedule::cron_runs(host));
    let scratch = permitted(host, request, &rehearsal, console)?;
    let id = random_uuid().map_err(unchanged("no random number can be had"))?;
    let name = format!("{PREFIX}{}", id.split('-').next().unwrap_or_default());
    let mut keeper = take(host, scratch.join(name), console)?;

    console.say(ui::drill::opening(&intro(&rehearsal, &scratch)));
    let mut log = Log::default();
    log.note(&rehearsal.says);
    let mut steps: Vec<StepReport> = STEPS.iter().map(|step| not_reached(*step, &rehearsal)).collect();
    let stop = stage(host, request, &rehearsal, &mut keeper, &mut steps, &mut log, console);

    let cleared = stage::remove_scratch(&keeper.record.scratch).map_err(|e| causes(&e));
    let cleared = cleared.and_then(|_| keeper.forget().map_err(|e| causes(&e)));
    let passed = stop.is_none() && cleared.is_ok();
    let mut kept = None;
    if let Some(End::Failed { why, .. }) = &stop {
        log.note(&format!("\nfailed: {why}"));
        kept = match log.keep(host, &scratch) {
            Ok(path) => Some(path),
            Err(e) => {
                console.warn(format_args!("the log could not be kept: {}", causes(&e)));
                None
            }
        };
    }
    let report =
        DrillReport { passed, terms: rehearsal.says.clone(), steps, took: began.elapsed(), log: kept };
    console.say("");
    console.data(if request.json { ui::json("drill", &report)? } else { ui::drill::scorecard(&report) });
    end(stop, cleared, &report)
}

/// How a drill ended that did not come to its end.
#[derive(Debug)]
enum End {
    Asked,
    Failed { why: String, means: Option<&'static str> },
}

fn end(stop: Option<End>, cleared: Result<(), String>, report: &DrillReport) -> Result<Exit, Trouble> {
    let left = "not everything could be cleared; the next `raidguard drill` does it";
    match (stop, cleared) {
        (None, Ok(())) => Ok(Exit::Done),
        (None, Err(why)) => Err(Trouble::failed("the drill itself held, but something is left of it", why)
            .hint("raidguard drill   clears what is left before it begins")),
        (Some(End::Asked), cleared) => {
            let trouble = Trouble::Failed {
                what: "the drill was stopped, as asked; it was only a drill, and nothing of this machine was touched".to_owned(),
                source: cleared.err().map(Into::into),
                hints: vec!["raidguard drill   begins anew, and clears first what is left".to_owned()],
            };
            Err(trouble)
        }
        (Some(End::Failed { why, means }), cleared) => {
            let failed = report.steps.iter().find(|s| s.end == StepEnd::Failed);
            let what = match failed {
                Some(failed) => {
                    format!("the drill failed at `{}`; nothing of this machine was touched", failed.title)
                }
                None => "the drill could not go on; nothing of this machine was touched".to_owned(),
            };
            let mut trouble = Trouble::failed(what, why);
            if let Some(means) = means {
                trouble = trouble.hint(means);
            }
            if let Some(log) = &report.log {
                trouble = trouble.hint(format!("all that was run and said is in {}", log.display()));
            }
            if cleared.is_err() {
                trouble = trouble.hint(left);
            }
            Err(trouble)
        }
    }
}

/// Whether a drill can be: the place for the disks, or every blocker.
fn permitted(
    host: &Host,
    request: &Request,
    rehearsal: &Rehearsal,
    console: &Console,
) -> Result<PathBuf, Trouble> {
    let mut blockers = Vec::new();
    if request.step && !console.can_ask() {
        blockers.push(Blocker::new("there is no terminal to wait for a key at", "leave --step out"));
    }
    let missing: Vec<_> = TOOLS.into_iter().filter(|tool| !host.runner().has(tool)).collect();
    if !missing.is_empty() {
        let why = rehearsal.instead.map_or_else(String::new, |why| format!(". {why}"));
        blockers.push(Blocker::new(
            format!("not installed: {}{why}", missing.join(", ")),
            "apt-get install btrfs-progs util-linux mount",
        ));
    }
    let scratch = std::fs::canonicalize(&request.scratch);
    match &scratch {
        Ok(dir) if !dir.is_dir() => blockers.push(Blocker::new(
            format!("{} is no directory", request.scratch.display()),
            "name a directory with --scratch",
        )),
        Ok(dir) => blockers.extend(room(dir, rehearsal)),
        Err(e) => blockers.push(Blocker::new(
            format!("{}: {e}", request.scratch.display()),
            "name a directory with --scratch",
        )),
    }
    match scratch {
        Ok(dir) if blockers.is_empty() => Ok(dir),
        _ => Err(Trouble::Refused(blockers)),
    }
}

fn room(dir: &Path, rehearsal: &Rehearsal) -> Option<Blocker> {
    let more = rehearsal.members().saturating_sub(2) as u64;
    let needed = Bytes(ROOM.0 + more * ROOM_MORE.0);
    let free = match statvfs(dir) {
        Ok(stat) => Bytes(stat.blocks_available() * stat.fragment_size()),
        Err(e) => {
            return Some(Blocker::new(
                format!("{}: {e}", dir.display()),
                "name another directory with --scratch",
            ));
        }
    };
    (free < needed).then(|| {
        Blocker::new(
            format!("{} has {free} free, and the throw-away disks may need {needed}", dir.display()),
            "free some, or name a directory on another disk with --scratch",
        )
    })
}

/// Takes the record of drills, and clears what a killed one left.
fn take(host: &Host, scratch: PathBuf, console: &Console) -> Result<Keeper, Trouble> {
    let (mut keeper, dead) = Keeper::take(host, scratch).map_err(|e| match e {
        RecordError::Held(_) => Trouble::refused(e.to_string(), "wait until it has ended"),
        RecordError::Unknown(_) => Trouble::refused(
            e.to_string(),
            "use the raidguard that wrote it; or remove the file, after a look",
        ),
        RecordError::File(e) => unchanged("no record of a drill can be kept")(e),
    })?;
    let rescue = Path::new(overlay::RESCUE_DIR);
    let stays = rescue.exists() && !dead.as_ref().is_some_and(|d| d.made.iter().any(|made| made == rescue));
    let left = unchanged("what an earlier rescue left cannot be cleared");
    let mut said = overlay::clear_leftovers(host).map_err(left)?;
    if let Some(dead) = &dead {
        let left = unchanged("what an earlier drill left cannot be cleared");
        said.extend(stage::clear(host, dead).map_err(left)?);
        console.say("cleared what a drill that was killed had left");
    }
    for line in said {
        console.say(format_args!("left by a rescue that was killed: {line}"));
    }
    // From here on the record is of this one. The directory is seen from the machine and from within.
    keeper.directory(rescue, stays).map_err(unchanged("no record of a drill can be kept"))?;
    Ok(keeper)
}

fn intro(rehearsal: &Rehearsal, scratch: &Path) -> Vec<String> {
    vec![
        format!(
            "{} throw-away disks and a made-up node, kept in {} until the end. No disk, mirror, node or file of this machine is touched, \
             nobody is notified, and nothing is left of it.",
            steps::capital(steps::count(rehearsal.members() + 1)),
            scratch.display()
        ),
        rehearsal.says.clone(),
    ]
}

fn not_reached(step: steps::Step, rehearsal: &Rehearsal) -> StepReport {
    StepReport {
        step: step.id(),
        title: step.title(),
        command: None,
        promised: step.promises(rehearsal),
        end: StepEnd::NotReached,
        came_out: None,
        took: None,
    }
}

/// Sets the stage, plays, and strikes it, in a mount namespace of its own.
fn stage(
    host: &Host,
    request: &Request,
    rehearsal: &Rehearsal,
    keeper: &mut Keeper,
    steps: &mut [StepReport],
    log: &mut Log,
    console: &mut Console,
) -> Option<End> {
    if let Err(e) = stage::make_scratch(&keeper.record.scratch) {
        return Some(End::Failed { why: causes(&e), means: None });
    }
    let inside = || -> Option<End> {
        let mut stage = match Stage::set(host, keeper, Path::new(overlay::RESCUE_DIR)) {
            Ok(stage) => stage,
            Err(e) => return Some(End::Failed { why: causes(&e), means: None }),
        };
        let end = play(host, request, rehearsal, &mut stage, steps, log, console);
        console.clear();
        // A rescue that was killed in here left a layer over a disk.
        let struck = overlay::clear_leftovers(host).map(drop).map_err(|e| causes(&e));
        let struck = struck.and_then(|()| stage.strike(&mountpoint(rehearsal)).map_err(|e| causes(&e)));
        match (end, struck) {
            (None, Err(why)) => Some(End::Failed { why, means: None }),
            (end, Err(why)) => {
                console.warn(why);
                end
            }
            (end, Ok(())) => end,
        }
    };
    match apart(inside) {
        Ok(end) => end,
        Err(e) => Some(End::Failed { why: format!("no mount namespace can be had: {e}"), means: None }),
    }
}

fn play(
    host: &Host,
    request: &Request,
    rehearsal: &Rehearsal,
    stage: &mut Stage<'_>,
    steps: &mut [StepReport],
    log: &mut Log,
    console: &mut Console,
) -> Option<End> {
    console.say("\nThe disks and the node are made.");
    let mut play = match Play::begin(host, console, rehearsal, stage, log) {
        Ok(play) => play,
        Err(Stop::Asked) => return Some(End::Asked),
        Err(Stop::Failed(why)) => return Some(End::Failed { why, means: None }),
    };
    play.console.say(format_args!("The node has {}.", play.node_says()));
    let titles = STEPS.map(|step| step.title().to_owned());
    play.console.plan(&titles, false);
    let of = STEPS.len();
    for ((number, step), report) in (1..).zip(STEPS).zip(steps) {
        let (happens, on_the_day) = (step.happens(rehearsal), step.on_the_day());
        let announced = Announced { number, of, title: step.title(), happens: &happens, on_the_day };
        play.console.say(ui::drill::announced(&announced));
        play.log.note(&format!("\n== {number}/{of} {}", step.title()));
        let stopped = || host.interrupt().is_raised();
        if stopped() || (request.step && !play.console.wait_for_key(&stopped)) {
            play.end();
            return Some(End::Asked);
        }
        play.console.begin(number - 1, step.title());
        let began = Instant::now();
        let acted = play.act(step);
        let took = Some(round(began.elapsed()));
        play.console.clear();
        report.command = play.command.take();
        let end = match acted {
            Ok(came) => {
                (report.end, report.came_out) = (StepEnd::Held, Some(came));
                None
            }
            Err(Stop::Asked) => Some(End::Asked),
            Err(Stop::Failed(why)) => {
                (report.end, report.came_out) = (StepEnd::Failed, Some(why.clone()));
                Some(End::Failed { why, means: Some(step.failure_means()) })
            }
        };
        if report.end != StepEnd::NotReached {
            report.took = took;
            let line = ui::drill::ended(report);
            play.console.say(line);
        }
        if end.is_some() {
            play.end();
            return end;
        }
    }
    play.end();
    None
}

/// To milliseconds, as it is shown.
fn round(took: Duration) -> Duration {
    Duration::from_millis(u64::try_from(took.as_millis()).unwrap_or(u64::MAX))
}
