//! Which survivors are read, decided from what is known of them: pure.

use std::path::{Path, PathBuf};

use crate::{
    backend::rescue::{Freshness, Relation, Remains, Survivor},
    config::Mirror,
    model::BackendKind,
    ops::Blocker,
};

/// What was asked for, with every device by the name that the inventory gives it.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    /// The survivors that were named; none where every one is to be found.
    pub(super) from: Vec<PathBuf>,
}

/// The mirror to read, with only those survivors that may be read.
///
/// # Errors
/// Everything that stands in the way.
pub(super) fn pick(asked: &Asked, found: &[Remains], declared: &[Mirror]) -> Result<Remains, Vec<Blocker>> {
    let mut picked =
        if asked.from.is_empty() { the_only(found, declared)? } else { named(&asked.from, found)? };
    let mut blockers = Vec::new();
    if let Some(places) = &picked.mounted {
        let at: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
        let at =
            if at.is_empty() { "somewhere that is not seen from here".to_owned() } else { at.join(", ") };
        blockers.push(match picked.backend {
            BackendKind::Zfs => imported(&picked, places),
            BackendKind::Btrfs | BackendKind::Mdadm => Blocker::new(
                format!("{} is mounted at {at}: it cannot be mounted a second time beside itself", picked.called()),
                "copy the files from there (cp -a), or mend the mirror with `raidguard replace` or `raidguard repair`; or unmount it first",
            ),
        });
    }
    if picked.backend == BackendKind::Mdadm {
        blockers.extend(without_data(&picked));
        // What was being filled is no survivor.
        picked.survivors.retain(|s| s.data.is_some());
    }
    picked.survivors.sort_by(|a, b| (a.devid, &a.path).cmp(&(b.devid, &b.path)));
    for pair in picked.survivors.windows(2) {
        if let [one, two] = pair {
            if one.devid == two.devid {
                blockers.push(Blocker::new(
                    format!(
                        "{} and {} both say that they are member {} of {}: one is a copy of the other",
                        one.path.display(),
                        two.path.display(),
                        one.devid,
                        picked.called()
                    ),
                    "detach one of them, or name the one to read with --from",
                ));
            }
        }
    }
    if blockers.is_empty() { Ok(picked) } else { Err(blockers) }
}

/// A pool that the kernel has.
fn imported(picked: &Remains, places: &[PathBuf]) -> Blocker {
    let at: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
    if at.is_empty() {
        return Blocker::new(
            format!(
                "the pool {} is imported, and mounted nowhere that is seen from here: it cannot be imported a second time",
                picked.called()
            ),
            format!(
                "mount it (zfs mount) and copy the files from there; or export it first (zpool export {}), and where it has stopped, \
                 start the machine anew without it",
                picked.label
            ),
        );
    }
    Blocker::new(
        format!(
            "the pool {} is imported and mounted at {}: it cannot be imported a second time",
            picked.called(),
            at.join(", ")
        ),
        format!(
            "copy the files from there (cp -a), or mend the mirror with `raidguard replace` or `raidguard repair`; or export it first \
             (zpool export {})",
            picked.label
        ),
    )
}

/// Why none of an array's members has anything that can be read without it.
fn without_data(picked: &Remains) -> Vec<Blocker> {
    let mut blockers = Vec::new();
    if picked.survivors.iter().any(|s| s.data.is_none() && s.faults.is_empty()) {
        blockers.push(Blocker::new(
            format!("{} is neither a raid1 nor a raid10 of pairs (near=2): what its members hold cannot be put together here", picked.called()),
            "lay an overlay above each member (dmsetup, snapshot), and then: mdadm --assemble --run --readonly /dev/md/rescue OVERLAYS",
        ));
    } else if picked.survivors.iter().all(|s| s.data.is_none()) {
        blockers.extend(picked.survivors.iter().map(|s| {
            Blocker::new(
                format!("{}: {}", s.path.display(), s.faults.join("; ")),
                "connect another member of it, which holds all of its data",
            )
        }));
    }
    blockers
}

fn named(from: &[PathBuf], found: &[Remains]) -> Result<Remains, Vec<Blocker>> {
    let mut blockers = Vec::new();
    let mut picked: Option<Remains> = None;
    for path in from {
        let Some((remains, survivor)) = whose(path, found) else {
            blockers.push(Blocker::new(
                format!(
                    "{} holds no member of a mirror: there is no good superblock on it, in any copy",
                    path.display()
                ),
                "raidguard devices shows what each device holds",
            ));
            continue;
        };
        match &mut picked {
            None => picked = Some(Remains { survivors: vec![survivor.clone()], ..remains.clone() }),
            Some(picked) if picked.uuid != remains.uuid => blockers.push(Blocker::new(
                format!("{} belongs to {}, not to {}", path.display(), remains.called(), picked.called()),
                "name survivors of one mirror only",
            )),
            Some(picked) if picked.survivors.contains(survivor) => {}
            Some(picked) => picked.survivors.push(survivor.clone()),
        }
    }
    picked.filter(|_| blockers.is_empty()).ok_or(blockers)
}

fn whose<'f>(path: &Path, found: &'f [Remains]) -> Option<(&'f Remains, &'f Survivor)> {
    found.iter().find_map(|remains| Some((remains, remains.survivors.iter().find(|s| s.path == *path)?)))
}

/// The mirror that must be meant where none was named. One that is mounted is not meant while another is not.
fn the_only(found: &[Remains], declared: &[Mirror]) -> Result<Remains, Vec<Blocker>> {
    let is_declared =
        |remains: &&Remains| declared.iter().any(|m| m.uuid.eq_ignore_ascii_case(&remains.uuid));
    let mirrors: Vec<&Remains> = found.iter().filter(|r| r.mirrored || is_declared(r)).collect();
    let free = |r: &&&Remains| r.mounted.is_none();
    // A declared one is meant before all others.
    let of_declared: Vec<&Remains> = mirrors.iter().copied().filter(|r| is_declared(r)).collect();
    for candidates in [&of_declared, &mirrors] {
        let waiting: Vec<&&Remains> = candidates.iter().filter(free).collect();
        if let [one] = waiting[..] {
            return Ok((*one).clone());
        }
        if let ([one], true) = (&candidates[..], waiting.is_empty()) {
            return Ok((*one).clone());
        }
        if !waiting.is_empty() {
            break;
        }
    }
    let list = |remains: &Remains| {
        let devices: Vec<_> = remains.survivors.iter().map(|s| s.path.display().to_string()).collect();
        let mounted = if remains.mounted.is_some() { ", mounted" } else { "" };
        Blocker::new(
            format!("{} {} on {}{mounted}", remains.backend, remains.called(), devices.join(", ")),
            format!("if it is meant: --from {}", devices.join(" --from ")),
        )
    };
    if mirrors.is_empty() {
        let mut blockers = vec![Blocker::new(
            "no member of a mirror was found on any block device",
            "connect the disk; `raidguard devices` shows what is seen",
        )];
        blockers.extend(found.iter().map(list));
        return Err(blockers);
    }
    Err(mirrors.into_iter().map(list).collect())
}

/// How the survivors of one mirror stand to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// These are of one state, the newest; the others are left out, each for a reason.
    Agreed { used: Vec<Survivor>, left: Vec<(Survivor, String)> },
    /// They have one state in common, and what was fsynced since differs: their databases tell which is newer.
    Logs { one: Vec<Survivor> },
    /// Each was written without the other, or nobody can tell.
    Split { halves: Vec<Survivor>, proven: bool },
}

/// Judges survivors, the one with the highest number being compared with each other by `relation`.
///
/// # Errors
/// What `relation` could not tell.
pub(super) fn stand<E>(
    survivors: &[Survivor],
    relation: &mut dyn FnMut(&Survivor, &Survivor) -> Result<Relation, E>,
) -> Result<Standing, E> {
    let Some(newest) = newest(survivors) else {
        return Ok(Standing::Agreed { used: Vec::new(), left: Vec::new() });
    };
    let (mut used, mut left, mut logs, mut split, mut proven) =
        (vec![newest.clone()], Vec::new(), false, false, false);
    for other in survivors.iter().filter(|s| s.path != newest.path) {
        match relation(other, newest)? {
            // Its copy of the superblock does not know what was fsynced; the newest's does.
            Relation::Same | Relation::OtherLog if !other.opens && newest.opens && !newest.alone => {
                used.push(other.clone());
            }
            Relation::Same | Relation::OtherLog if !other.opens && newest.opens => {
                left.push((other.clone(), "it is not needed, and its first superblock is gone".to_owned()));
            }
            Relation::Same => used.push(other.clone()),
            Relation::OtherLog => logs = true,
            Relation::Behind(count) => {
                let s = if count == 1 { "" } else { "s" };
                left.push((
                    other.clone(),
                    format!("it dropped off {count} transaction{s} earlier, and the others went on"),
                ));
            }
            Relation::Diverged => (split, proven) = (true, true),
            Relation::Unclear => split = true,
        }
    }
    Ok(if split {
        Standing::Split { halves: survivors.to_vec(), proven }
    } else if logs {
        Standing::Logs { one: survivors.to_vec() }
    } else {
        Standing::Agreed { used, left }
    })
}

/// Of equal ones that which the kernel can open as it lies there.
fn newest(survivors: &[Survivor]) -> Option<&Survivor> {
    survivors.iter().max_by_key(|s| (s.generation, s.opens, s.history.log != 0))
}

/// The survivors of the picked mirror that were not named, and hold what the named ones do.
pub(super) fn others(picked: &Remains, found: &[Remains]) -> Vec<Survivor> {
    let is_other = |s: &&Survivor| {
        // What was being filled is no survivor.
        (picked.backend != BackendKind::Mdadm || s.data.is_some())
            && picked.survivors.iter().all(|p| p.path != s.path)
    };
    let same = found.iter().filter(|r| r.backend == picked.backend && r.uuid == picked.uuid);
    same.flat_map(|r| &r.survivors).filter(is_other).cloned().collect()
}

/// What survivors that were not named tell of the state that is read: how new it can be called, and why. Each is compared with the newest
/// one that is read, by `relation`; `in_words` says why that failed. It is no reason to refuse: these ones were asked for.
pub(super) fn not_named<E>(
    used: &[Survivor],
    others: &[Survivor],
    relation: &mut dyn FnMut(&Survivor, &Survivor) -> Result<Relation, E>,
    in_words: impl Fn(&E) -> String,
) -> Vec<(Freshness, String)> {
    let Some(read) = newest(used) else { return Vec::new() };
    let tell = |other: &Survivor| {
        let is_newer = other.generation > read.generation;
        let (one, newer) = if is_newer { (read, other) } else { (other, read) };
        let (freshness, says) = match relation(one, newer) {
            // Its copy of the superblock does not know what was fsynced; the one that is read does.
            Ok(Relation::OtherLog) if !other.opens && read.opens => return None,
            Ok(Relation::Same) => return None,
            Ok(Relation::Behind(_)) if !is_newer => return None,
            Ok(Relation::Behind(count)) => {
                let s = if count == 1 { "" } else { "s" };
                (
                    Freshness::Old,
                    format!("is newer: it went on for {count} transaction{s} after the state that is read"),
                )
            }
            Ok(Relation::Diverged) => (
                Freshness::Unproven,
                "was written without what is read, and that without it: there are two states of one node"
                    .to_owned(),
            ),
            Ok(Relation::Unclear) => (
                Freshness::Unproven,
                "may be newer, or have been written by itself: that cannot be told".to_owned(),
            ),
            Ok(Relation::OtherLog) => {
                (Freshness::Unproven, "may be newer: what was fsynced last differs on it".to_owned())
            }
            Err(e) => (Freshness::Unproven, format!("may be newer: it cannot be compared: {}", in_words(&e))),
        };
        let name =
            format!("{} (member {}, generation {})", other.path.display(), other.devid, other.generation);
        Some((freshness, format!("{name} was not named, and {says}")))
    };
    others.iter().filter_map(tell).collect()
}

/// What the databases of one survivor say: each network's directory, whose node and how new.
pub(super) type Versions = Vec<(PathBuf, Option<String>, Option<i64>)>;

/// Which of several survivors has the newest databases: its index. Of equal ones the first. Nothing where no one has all the newest.
pub(super) fn newest_of(all: &[Versions]) -> Option<usize> {
    let covers = |one: &Versions, other: &Versions| {
        one.len() == other.len()
            && one.iter().zip(other).all(|(a, b)| a.0 == b.0 && a.1 == b.1 && a.2.is_some() && a.2 >= b.2)
    };
    all.iter().position(|one| !one.is_empty() && all.iter().all(|other| covers(one, other)))
}
