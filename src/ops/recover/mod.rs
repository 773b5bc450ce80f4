//! `recover`: the node's files off what is left of a mirror, the newest there is, and nothing written to a survivor.

mod decide;
mod gather;
mod halves;
mod ladder;
mod outcome;
mod target;

use std::{
    io,
    path::{Path, PathBuf},
};

use self::{
    decide::Standing,
    gather::Facts,
    ladder::{Halt, Open, Reached, Scene, broken_trouble, interrupted, reach},
    target::Target,
};
use super::{
    Blocker, Exit, Trouble, execute,
    trouble::{need_root, unchanged},
};
use crate::{
    backend::{
        self,
        rescue::{Freshness, Remains, Rung, Survivor, Way},
    },
    host::{
        Host,
        copy::{self, CopyError, Kind, Rescued, Wanted},
        lock,
        overlay::{self, Choice},
    },
    model::{Bytes, observed::causes},
    node::{self, Found},
    plan::{Outcome, Watch as _, Work},
    ui::{
        self, Console, FileReport, MirrorReport, RecoveryReport, SurvivorReport, TriedReport,
        UnreadableReport, WayReport,
    },
};

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each was asked for by itself")]
pub struct Request {
    /// The survivors that were named; none where every one is to be found.
    pub from: Vec<PathBuf>,
    /// Where the files go.
    pub to: PathBuf,
    /// Everything rather than what makes the node.
    pub all: bool,
    /// What lies above a survivor.
    pub overlay: Choice,
    /// Where the overlay keeps what it takes.
    pub scratch: PathBuf,
    /// Whether a state that may be old is better than none.
    pub allow_old: bool,
    /// Do not ask.
    pub yes: bool,
    /// Print JSON.
    pub json: bool,
}

/// One rescue at a time: two would make the kernel forget each other's devices.
const LOCK: &str = "any.recover";
const STEPS: [&str; 3] =
    ["read the survivors", "read the copy back and compare", "check the databases on the copy"];

/// Runs `recover`.
///
/// # Errors
/// Refused, or it could not bring out what was asked for.
pub fn recover(host: &Host, request: &Request, console: &mut Console) -> Result<Exit, Trouble> {
    need_root("recover")?;
    let at = host.now();
    let _lock = lock::take(host, LOCK, "recover").map_err(|e| match e {
        lock::LockError::Held { holder, .. } => Trouble::refused(
            format!("`{holder}` is at work, and there can be one rescue at a time"),
            "wait until it has ended",
        ),
        e @ lock::LockError::File(_) => e.into(),
    })?;
    for done in
        overlay::clear_leftovers(host).map_err(unchanged("what a killed rescue left cannot be cleared"))?
    {
        console.say(format_args!("left by an earlier rescue that was killed: {done}"));
    }
    let to = std::path::absolute(&request.to).map_err(unchanged("the directory cannot be named"))?;
    let facts = gather::gather(host, request, console)?;
    let picked = decide(host, &facts, &to)?;
    let (mirror, mut shown) = facts.report(host, &picked);
    let rescue = backend::of(picked.backend).rescue();
    let members: Vec<PathBuf> = facts
        .remains
        .iter()
        .filter(|r| r.uuid == picked.uuid)
        .flat_map(|r| r.survivors.iter().map(|s| s.path.clone()))
        .collect();
    let scene = Scene {
        host,
        backend: rescue,
        choice: request.overlay,
        scratch: &request.scratch,
        uuid: &picked.uuid,
        members: &members,
    };
    let mut relation = |one: &Survivor, other: &Survivor| rescue.relate(host, one, other);
    let standing = decide::stand(&picked.survivors, &mut relation)
        .map_err(unchanged("the survivors cannot be compared with each other"))?;
    let (used, left) = match standing {
        Standing::Agreed { used, left } => (used, left),
        other => {
            console.say(ui::survivors(&mirror, &shown));
            halves::settle(&scene, other, request, console)?
        }
    };
    mark(&mut shown, &used, &left);
    console.say(ui::survivors(&mirror, &shown));
    console.say(format_args!(
        "Those marked * are set read-only and read through a layer above them; nothing is written to them.\n{} goes to {}.",
        if request.all { "Everything" } else { "What makes the node" },
        to.display()
    ));
    execute::confirm(console, request.yes, "Read them now?")?;
    console.plan(&STEPS.map(str::to_owned), false);

    let target = Target::make(host, &to).map_err(|e| no_target(&to, e))?;
    let climbed = climb(&scene, &used, request, &target, console)?;
    let record = gather::recorded(host, &mirror, console);
    let report = finish(host, &climbed, &target, (mirror, shown), record.as_ref(), (&to, at), console)?;
    let page =
        report.page().map_err(|e| Trouble::failed("the page beside the files could not be written", e))?;
    let sums = copy::sums_file(&climbed.brought.rescued.sums, Path::new(target::FILES));
    target.present(&sums, &page).map_err(|e| no_target(&to, e))?;
    if request.json {
        console.data(report.json()?);
    } else {
        console.data(report.text());
    }
    Ok(if report.is_good() { Exit::Done } else { Exit::NotFull })
}

/// Everything that stands in the way, at once.
fn decide(host: &Host, facts: &Facts, to: &Path) -> Result<Remains, Trouble> {
    let mut blockers: Vec<Blocker> = facts.blockers.clone();
    let picked = match decide::pick(&facts.asked, &facts.remains, &facts.declared) {
        Ok(picked) => Some(picked),
        // What was named is said already.
        Err(_) if !blockers.is_empty() => None,
        Err(more) => {
            blockers.extend(more);
            None
        }
    };
    let all = facts.remains.iter().flat_map(|r| &r.survivors).cloned().collect();
    let any = facts.remains.first().map(|first| Remains {
        survivors: all,
        mounted: Some(mounted_anywhere(facts)),
        ..first.clone()
    });
    blockers.extend(target::judge(host, to, picked.as_ref().or(any.as_ref()), &facts.mounts));
    match picked {
        Some(picked) if blockers.is_empty() => Ok(picked),
        _ => Err(Trouble::Refused(blockers)),
    }
}

fn mounted_anywhere(facts: &Facts) -> Vec<PathBuf> {
    let mirrors = facts.remains.iter().filter(|r| r.mirrored);
    mirrors.filter_map(|r| r.mounted.clone()).flatten().collect()
}

fn mark(shown: &mut [SurvivorReport], used: &[Survivor], left: &[(Survivor, String)]) {
    for report in shown {
        report.used = used.iter().any(|s| s.path == report.device);
        report.left_out = left.iter().find(|(s, _)| s.path == report.device).map(|(_, why)| why.clone());
    }
}

fn no_target(to: &Path, e: crate::host::files::FileError) -> Trouble {
    Trouble::failed(format!("{} cannot take the files, so nothing is presented there", to.display()), e)
        .hint("nothing was written to a survivor; name another directory with --to and run it again")
}

/// What one way brought into the target.
struct Brought {
    found: Found,
    rescued: Rescued,
    unreadable: Vec<UnreadableReport>,
}

/// The way that opened the survivors.
struct Climbed {
    brought: Brought,
    reached: Reached,
    rung: &'static Rung,
    tried: Vec<TriedReport>,
    used: Vec<Survivor>,
}

/// Brings what is wanted into the target, by the first way that opens the survivors.
fn climb(
    scene: &Scene<'_>,
    used: &[Survivor],
    request: &Request,
    target: &Target,
    console: &mut Console,
) -> Result<Climbed, Trouble> {
    let [title, ..] = STEPS;
    let mut bring_by = |rung: &Rung| {
        console.begin(0, title);
        target.empty().map_err(|e| no_copy(e, target, None))?;
        let extracted = (rung.way == Way::Extract).then(|| target.scratch());
        let bring =
            |open: &Open<'_>, console: &mut Console| bring(scene.host, open, request, target, console);
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
        done
    };
    let ((brought, reached), rung, tried) = ascend(scene.backend.rungs(), request.allow_old, &mut bring_by)?;
    Ok(Climbed { brought, reached, rung, tried, used: used.to_vec() })
}

/// Tries one way after the other, each on a fresh overlay, until one opens the survivors. What leaves out the newest is only tried when
/// that is allowed.
fn ascend<T>(
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
    console: &mut Console,
) -> Result<Brought, Halt> {
    let mut go_on = || !host.interrupt().is_raised();
    let found = match node::find(open.place, &mut go_on) {
        Ok(found) => found,
        Err(_) if host.interrupt().is_raised() => return Err(interrupted().into()),
        Err(e) => return Err(Halt::Closed(format!("its top directory cannot be read: {e}"))),
    };
    if found.places.is_empty() && !request.all {
        return Err(Halt::Stop(match found.unread.first() {
            None => Trouble::refused(
                "no node's files were found: no lightningd.sqlite3, hsm_secret or emergency.recover in any directory",
                "--all copies everything; or name another mirror with --from",
            ),
            Some((dir, why)) => Trouble::failed(
                "no node's files were found, and not every directory could be read",
                io::Error::other(format!("{}: {why}", dir.display())),
            )
            .hint("--all copies everything that can be read; another member may hold the rest"),
        }));
    }
    let wanted = Wanted { all: request.all, files: found.files.clone(), never: node::is_own };
    let bytes = copy::measure(open.place, &wanted);
    // A database with a journal is copied once more to be checked.
    let scratch =
        found.files.iter().filter(|f| f.ends_with("lightningd.sqlite3")).map(|f| open.place.join(f));
    let scratch: u64 = scratch
        .filter(|db| node::database::has_journal(db).is_some())
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
    let mut trusted = || {
        broken = broken.take().or_else(|| open.broken());
        broken.is_none()
    };
    let mut told =
        |done: copy::Progress| console.work(Work { done: Bytes(done.bytes_done), total: Bytes(bytes) });
    let copied =
        copy::copy_readable(open.place, &target.files(), &wanted, &mut told, host.interrupt(), &mut trusted);
    let rescued = match copied {
        Ok(rescued) => rescued,
        Err(e) => return Err(no_copy(e, target, broken.as_deref()).into()),
    };
    let mut unreadable = Vec::new();
    for fault in &rescued.faults {
        let mut report =
            UnreadableReport { path: fault.path.clone(), why: fault.why.clone(), salvaged: None, lost: None };
        if !fault.directory {
            // Flat names: the directories above may be what cannot be read.
            let name = format!(
                "{}-{}",
                unreadable.len() + 1,
                fault.path.file_name().unwrap_or_default().to_string_lossy()
            );
            match copy::salvage(
                &open.place.join(&fault.path),
                &target.damaged().join(&name),
                host.interrupt(),
                &mut trusted,
            ) {
                Ok(lost) => {
                    report.salvaged = Some(outcome::inside(target::DAMAGED, Path::new(&name)));
                    report.lost = Some(lost.iter().map(|range| range.end - range.start).sum());
                }
                Err(e @ (CopyError::Untrusted | CopyError::Interrupted)) => {
                    return Err(no_copy(e, target, broken.as_deref()).into());
                }
                Err(e) => tracing::info!("{}: {}", fault.path.display(), causes(&e)),
            }
        }
        unreadable.push(report);
    }
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
    Ok(Brought { found, rescued, unreadable })
}

fn no_copy(e: CopyError, target: &Target, broken: Option<&str>) -> Trouble {
    let nothing = "nothing was written to a survivor, and what was copied so far was removed";
    match e {
        CopyError::Interrupted => interrupted(),
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

/// Reads the copy back, judges it, and says what it is.
fn finish(
    host: &Host,
    climbed: &Climbed,
    target: &Target,
    (mirror, mut survivors): (MirrorReport, Vec<SurvivorReport>),
    record: Option<&crate::model::Record>,
    (to, at): (&Path, jiff::Timestamp),
    console: &mut Console,
) -> Result<RecoveryReport, Trouble> {
    let Climbed { brought, reached, rung, tried, used } = climbed;
    let manifest = &brought.rescued.manifest;
    let [_, verify, judge] = STEPS;
    console.begin(1, verify);
    let total = Bytes(manifest.bytes());
    let mut told = |done: copy::Progress| console.work(Work { done: Bytes(done.bytes_done), total });
    copy::verify_tree(&target.files(), manifest, None, &mut told, host.interrupt()).map_err(|e| match e {
        CopyError::Interrupted => interrupted(),
        e => Trouble::failed(
            "what the target gives back is not what was read from the survivors, so nothing is presented",
            e,
        )
        .hint("the target's disk is not to be trusted; name a directory on another one with --to"),
    })?;
    console.done(1, verify, &Outcome::note(format!("{} files, {total}", manifest.files())), true);

    console.begin(2, judge);
    console.waiting("checking the databases");
    let networks = outcome::networks(&target.files(), &brought.found.places, record, &target.scratch());
    console.done(2, judge, &Outcome::default(), true);

    for survivor in &mut survivors {
        if let Some((_, unchanged, proof)) = reached.proof.iter().find(|(path, ..)| *path == survivor.device)
        {
            (survivor.unchanged, survivor.proof) = (Some(*unchanged), Some(proof.clone()));
        }
    }
    let files = manifest.entries().filter_map(|(path, entry)| match &entry.kind {
        Kind::File { size, .. } => Some(FileReport {
            path: path.clone(),
            size: *size,
            sha256: brought.rescued.sums.get(path).cloned(),
        }),
        _ => None,
    });
    let mut report = RecoveryReport {
        at,
        to: to.to_owned(),
        mirror,
        survivors,
        overlay: reached.overlay.clone(),
        way: WayReport { name: rung.name, says: rung.says, lacks: rung.lacks },
        tried: tried.clone(),
        freshness: Freshness::Newest,
        doubts: Vec::new(),
        networks,
        files: files.collect(),
        unreadable: brought.unreadable.clone(),
        next: Vec::new(),
    };
    let (base, doubts) = base_of(reached, rung, used);
    outcome::conclude(&mut report, base, doubts);
    Ok(report)
}

/// How new the way itself makes what came out, and what speaks against it.
fn base_of(reached: &Reached, rung: &Rung, used: &[Survivor]) -> (Freshness, Vec<String>) {
    let mut doubts = Vec::new();
    let mut base = rung.freshness;
    if let Some(lacks) = rung.lacks {
        doubts.push(format!("it was {}; it may lack {lacks}", rung.says));
    }
    let newest = used.iter().map(|s| s.generation).max().unwrap_or_default();
    if let Some(at) = reached.generation.filter(|at| *at < newest) {
        base = Freshness::Old;
        doubts.push(format!("the kernel opened transaction {at}, and {newest} was the last one"));
    }
    for (device, mended) in reached.mended.iter().filter(|(_, mended)| !mended.complete) {
        base = base.max(Freshness::Unproven);
        doubts.push(format!("{}: {}", device.display(), mended.says));
    }
    doubts.extend(reached.complaints.iter().map(|said| format!("on the way it was said: {said}")));
    (base, doubts)
}

#[cfg(test)]
mod tests;
