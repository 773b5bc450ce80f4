//! Bringing the files out: one way after the other until one opens the survivors, then the copy.

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use super::{
    Request, STEPS,
    halted::interrupted,
    judging::Judging,
    ladder::{Halt, Open, Reached, Scene, broken_trouble, reach},
    no_target, outcome,
    target::{self, Target},
};
use crate::{
    backend::rescue::{Rung, Survivor, Way},
    host::{
        Host,
        copy::{self, CopyError, Ears, Rescued, Wanted},
    },
    model::{Bytes, Record, observed::causes},
    node,
    ops::Trouble,
    plan::{Outcome, Watch as _, Work},
    ui::{Console, TriedReport, UnreadableReport},
};

/// How old an answer to the question whether the overlay is sound may be while files are copied; at the end it is asked anew.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// What one way brought into the target.
pub(super) struct Brought {
    pub(super) rescued: Rescued,
    pub(super) unreadable: Vec<UnreadableReport>,
}

/// The way that opened the survivors.
pub(super) struct Climbed {
    pub(super) brought: Brought,
    pub(super) reached: Reached,
    pub(super) rung: &'static Rung,
    pub(super) tried: Vec<TriedReport>,
    pub(super) used: Vec<Survivor>,
}

/// Brings what is wanted into the target, by the first way that opens the survivors.
pub(super) fn climb(
    scene: &Scene<'_>,
    used: &[Survivor],
    request: &Request,
    target: &Target,
    record: Option<&Record>,
    console: &mut Console,
) -> Result<(Climbed, Judging), Trouble> {
    let [title, ..] = STEPS;
    let mut bring_by = |rung: &Rung| {
        console.begin(0, title);
        // A judgement of what an earlier way brought has ended.
        target.empty().map_err(|e| no_copy(e, target, None))?;
        let extracted = (rung.way == Way::Extract).then(|| target.extracted());
        let judging = Judging::ready(target.files(), target.scratch(), record.cloned())
            .map_err(|e| Trouble::failed("the databases could not be checked beside the copy", e))?;
        let bring = |open: &Open<'_>, console: &mut Console| {
            bring(scene.host, open, request, target, &judging, console)
        };
        let done = reach(scene, used, rung, extracted.as_deref(), console, bring);
        match &done {
            Ok((_, reached)) => {
                let notes = vec![format!("through a {}, {}", reached.overlay, rung.says)];
                console.done(0, title, &Outcome { notes }, true);
            }
            Err(Halt::Stop(_)) => console.failed(0, title),
            Err(Halt::Closed(why)) => {
                console.clear();
                console.warn(format_args!("it could not be {}: {why}", rung.says));
                if scene.host.interrupt().is_raised() {
                    return Err(interrupted().into());
                }
            }
        }
        done.map(|(brought, reached)| (brought, reached, judging))
    };
    let ((brought, reached, judging), rung, tried) =
        ascend(scene.backend.rungs(), request.allow_old, &mut bring_by)?;
    Ok((Climbed { brought, reached, rung, tried, used: used.to_vec() }, judging))
}

/// Tries one way after the other, each on a fresh overlay, until one opens the survivors. What leaves out the newest is only tried when
/// that is allowed.
pub(super) fn ascend<T>(
    rungs: &'static [Rung],
    allow_old: bool,
    bring: &mut dyn FnMut(&Rung) -> Result<T, Halt>,
) -> Result<(T, &'static Rung, Vec<TriedReport>), Trouble> {
    let mut tried = Vec::new();
    for rung in rungs.iter().filter(|rung| allow_old || !rung.when_allowed) {
        match bring(rung) {
            Ok(brought) => return Ok((brought, rung, tried)),
            Err(Halt::Stop(trouble)) => return Err(trouble),
            Err(Halt::Closed(why)) => tried.push(TriedReport { way: rung.name, why }),
        }
    }
    let why = tried.iter().map(|t| format!("{}: {}", t.way, t.why)).collect::<Vec<_>>().join("; ");
    Err(if allow_old {
        Trouble::failed("no way opens what is left of the mirror", io::Error::other(why)).hint(
            "nothing was written to a survivor; another member may be readable, or a specialist may help",
        )
    } else {
        Trouble::refused(
            format!("no way that brings out the newest state opens it ({why})"),
            "--allow-old tries the ways that leave out what was fsynced last: the files may then be old, and a node must never start \
             from them. Another member may still hold the newest: look for it first",
        )
    })
}

/// Copies what is wanted off an open mirror.
fn bring(
    host: &Host,
    open: &Open<'_>,
    request: &Request,
    target: &Target,
    judging: &Judging,
    console: &mut Console,
) -> Result<Brought, Halt> {
    let mut go_on = || !host.interrupt().is_raised();
    let found = match node::find(open.place, &mut go_on) {
        Ok(found) => found,
        Err(_) if host.interrupt().is_raised() => return Err(interrupted().into()),
        Err(e) => return Err(Halt::Closed(format!("its top directory cannot be read: {e}"))),
    };
    if found.places.is_empty() && !request.all {
        return Err(no_node(&found, open.left));
    }
    let wanted = Wanted { all: request.all, files: found.files.clone(), never: node::is_own };
    let bytes = copy::measure(open.place, &wanted);
    // A database with a journal is copied once more to be checked.
    let scratch =
        found.files.iter().filter(|f| f.ends_with("lightningd.sqlite3")).map(|f| open.place.join(f));
    let scratch: u64 = scratch
        .filter(|db| node::database::linked(db).is_none() && node::database::has_journal(db).is_some())
        .map(|db| node::database::scratch_size(&db))
        .sum();
    match target.has_room(bytes + scratch) {
        Ok(Ok(())) => {}
        Ok(Err(room)) => {
            return Err(Halt::Stop(Trouble::refused(
                format!(
                    "there is too little room in {}: {} are needed, and {room} are free",
                    request.to.display(),
                    Bytes(bytes + scratch)
                ),
                "name a directory with more room with --to",
            )));
        }
        Err(e) => return Err(no_target(&request.to, e).into()),
    }
    let mut broken = None;
    let mut looked = Instant::now();
    let mut trusted = |asked: copy::Asked| {
        if broken.is_none() && (asked == copy::Asked::Failed || looked.elapsed() >= LOOK_AGAIN) {
            (broken, looked) = (open.broken(), Instant::now());
        }
        broken.is_none()
    };
    let mut told =
        |done: copy::Progress| console.work(Work { done: Bytes(done.bytes_done), total: Bytes(bytes) });
    let ears =
        Ears { progress: &mut told, trusted: &mut trusted, first: &mut || judging.begin(&found.places) };
    let copied = copy::copy_readable(open.place, &target.files(), &wanted, ears, host.interrupt());
    let rescued = match copied {
        Ok(rescued) => rescued,
        Err(e) => return Err(no_copy(e, target, broken.as_deref()).into()),
    };
    // Parts of files must not take the room that the whole ones still need to be checked and presented.
    let mut has_room = || target.has_room(scratch).is_ok_and(|room| room.is_ok());
    let parts = salvage(host, open, target, &rescued.faults, &mut trusted, &mut has_room);
    let mut unreadable = match parts {
        Ok(unreadable) => unreadable,
        Err(e) => return Err(no_copy(e, target, broken.as_deref()).into()),
    };
    for (dir, why) in &found.unread {
        if !unreadable.iter().any(|u| u.path == *dir) {
            unreadable.push(UnreadableReport {
                path: dir.clone(),
                why: why.clone(),
                salvaged: None,
                lost: None,
            });
        }
    }
    if let Some(why) = broken.or_else(|| open.broken()) {
        return Err(broken_trouble(&why).into());
    }
    Ok(Brought { rescued, unreadable })
}

/// What is said where no node is among what is mounted. Where not all of it could be read, another way may bring it.
pub(super) fn no_node(found: &node::Found, left: Option<&str>) -> Halt {
    const NONE: &str = "no node's files were found";
    match (found.unread.first(), left) {
        (None, None) => Halt::Stop(Trouble::refused(
            format!("{NONE}: no lightningd.sqlite3, hsm_secret or emergency.recover in any directory"),
            "--all copies everything; or name another mirror with --from",
        )),
        (Some((dir, why)), _) => Halt::Closed(format!("{NONE}, and {} cannot be read: {why}", dir.display())),
        (None, Some(left)) => Halt::Closed(format!("{NONE}, and not all could be mounted: {left}")),
    }
}

/// Brings out what can be read of the files that are not whole, as far as there is room.
fn salvage(
    host: &Host,
    open: &Open<'_>,
    target: &Target,
    faults: &[copy::Fault],
    trusted: &mut dyn FnMut(copy::Asked) -> bool,
    has_room: &mut dyn FnMut() -> bool,
) -> Result<Vec<UnreadableReport>, CopyError> {
    let mut unreadable = Vec::new();
    for fault in faults {
        let mut report =
            UnreadableReport { path: fault.path.clone(), why: fault.why.clone(), salvaged: None, lost: None };
        if !fault.directory {
            // Flat names: the directories above may be what cannot be read.
            let name = format!(
                "{}-{}",
                unreadable.len() + 1,
                fault.path.file_name().unwrap_or_default().to_string_lossy()
            );
            let (from, to) = (open.place.join(&fault.path), target.damaged().join(&name));
            match copy::salvage(&from, &to, host.interrupt(), trusted, has_room) {
                Ok(lost) => {
                    report.salvaged = Some(outcome::inside(target::DAMAGED, Path::new(&name)));
                    report.lost = Some(lost.iter().map(|range| range.end - range.start).sum());
                }
                Err(e @ (CopyError::Untrusted | CopyError::Interrupted)) => return Err(e),
                Err(e) => {
                    tracing::info!("{}: {}", fault.path.display(), causes(&e));
                    if e.is_no_space() {
                        report.why.push_str("; there was too little room to keep its readable parts");
                    }
                }
            }
        }
        unreadable.push(report);
    }
    Ok(unreadable)
}

pub(super) fn no_copy(e: CopyError, target: &Target, broken: Option<&str>) -> Trouble {
    let nothing = "nothing was written to a survivor, and what was copied so far was removed";
    match e {
        e @ (CopyError::Interrupted | CopyError::Differs { .. }) => not_what_was_read(e),
        CopyError::Untrusted => broken_trouble(broken.unwrap_or("it is not to be trusted any more")),
        e if e.is_no_space() => Trouble::failed("the target is full", e)
            .hint(nothing)
            .hint("name a directory with more room with --to, and run it again"),
        e => Trouble::failed(format!("the files cannot be written to {}", target.files().display()), e)
            .hint(nothing)
            .hint(
                "see whether the target's disk is still there and sound, or name another directory with --to",
            ),
    }
}

/// The copy was compared, and it is not what it must be, or it could not be.
pub(super) fn not_what_was_read(e: CopyError) -> Trouble {
    match e {
        CopyError::Interrupted => interrupted(),
        e => Trouble::failed(
            "what the target gives back is not what was read from the survivors, so nothing is presented",
            e,
        )
        .hint("the target's disk is not to be trusted; name a directory on another one with --to"),
    }
}
