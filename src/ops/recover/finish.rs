//! What was brought out, read back, judged, and put into words.

use std::path::Path;

use jiff::Timestamp;

use super::{
    STEPS,
    bring::{Climbed, not_what_was_read},
    judging::Judging,
    ladder::Reached,
    outcome,
    target::Target,
};
use crate::{
    backend::rescue::{Freshness, Rung, Survivor},
    host::{
        Host,
        copy::{self, Kind},
    },
    model::Bytes,
    ops::Trouble,
    plan::{Outcome, Watch as _, Work},
    ui::{Console, FileReport, MirrorReport, RecoveryReport, SurvivorReport, WayReport},
};

/// Reads the copy back, judges it, and says what it is.
pub(super) fn finish(
    host: &Host,
    (climbed, judging): (&Climbed, Judging),
    target: &Target,
    (mirror, mut survivors, beside): (MirrorReport, Vec<SurvivorReport>, Vec<(Freshness, String)>),
    (to, at): (&Path, Timestamp),
    console: &mut Console,
) -> Result<RecoveryReport, Trouble> {
    let Climbed { brought, reached, rung, tried, used } = climbed;
    let manifest = &brought.rescued.manifest;
    let [_, verify, judge] = STEPS;
    console.begin(1, verify);
    let total = Bytes(manifest.bytes());
    let proven = &brought.rescued.proven;
    let mut told = |done: copy::Progress| console.work(Work { done: Bytes(done.bytes_done), total });
    copy::settle(&target.files(), manifest, proven)
        .and_then(|()| {
            copy::verify_tree(&target.files(), manifest, proven, None, &mut told, host.interrupt())
        })
        .map_err(|e| if e.is_interrupted() { reached.interrupted() } else { not_what_was_read(e) })?;
    console.done(1, verify, &Outcome::note(format!("{} files, {total}", manifest.files())), true);
    console.begin(2, judge);
    console.waiting("checking the databases");
    let networks = judging.end(host.interrupt());
    if host.interrupt().is_raised() {
        return Err(reached.interrupted());
    }
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
    let (mut base, mut doubts) = base_of(reached, rung, used);
    for (freshness, says) in beside {
        base = base.max(freshness);
        doubts.push(says);
    }
    outcome::conclude(&mut report, base, doubts);
    Ok(report)
}

/// How new the way itself makes what came out, and what speaks against it.
pub(super) fn base_of(reached: &Reached, rung: &Rung, used: &[Survivor]) -> (Freshness, Vec<String>) {
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
    if let Some((freshness, says)) = &reached.doubt {
        base = base.max(*freshness);
        doubts.push(says.clone());
    }
    if reached.complaints.is_some() {
        base = base.max(Freshness::Unproven);
    }
    doubts.extend(reached.complaints.iter().map(|said| format!("on the way it was said: {said}")));
    (base, doubts)
}
