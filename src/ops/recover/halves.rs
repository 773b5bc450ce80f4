//! Survivors that are not of one state: each is looked at through an overlay of its own, all are shown, and nobody guesses.

use std::path::{Path, PathBuf};

use super::{
    Request,
    decide::{Standing, Versions, newest_of},
    halted::interrupted,
    ladder::{Halt, Open, Scene, reach},
};
use crate::{
    backend::rescue::{Relation, Survivor, Way},
    host::{Host, overlay::Passing},
    model::observed::causes,
    node::{self, database},
    ops::{Blocker, Trouble, trouble::unchanged},
    ui::Console,
};

/// What is read and what is left out, where that can be told.
pub(super) type Settled = (Vec<Survivor>, Vec<(Survivor, String)>);

/// Settles which of the survivors is read.
///
/// # Errors
/// Refused: it cannot be told, or each was written alone; all are shown.
pub(super) fn settle(
    scene: &Scene<'_>,
    standing: Standing,
    request: &Request,
    console: &mut Console,
) -> Result<Settled, Trouble> {
    let (survivors, split) = match standing {
        Standing::Agreed { used, left } => return Ok((used, left)),
        Standing::Logs { one } => (one, None),
        Standing::Split { halves, proven } => (halves, Some(proven)),
    };
    console.say("They are not of one state. Each is looked at through a layer of its own; nothing is written to them.");
    let states = if split.is_none() {
        by_log(&survivors)
    } else {
        let mut relation =
            |one: &Survivor, newer: &Survivor| scene.backend.relate(scene.host, one, newer, &survivors);
        by_past(&survivors, &mut relation)
            .map_err(unchanged("the survivors cannot be compared with each other"))?
    };
    let mut seen = Vec::new();
    for state in &states {
        let versions = look(scene, state, request, console)?;
        console.say(format_args!("  {}: {}", led(state), in_words(&versions)));
        seen.push(versions);
    }
    let all: Option<Vec<Versions>> = seen.iter().map(|v| v.as_ref().ok().cloned()).collect();
    if split.is_none() {
        let newest = all.as_deref().and_then(newest_of).and_then(|index| states.get(index));
        if let Some(newest) = newest {
            let others = survivors.iter().filter(|s| newest.iter().all(|read| read.path != s.path));
            let why = "its database is not newer than that of the one that is read";
            return Ok((newest.clone(), others.map(|s| (s.clone(), why.to_owned())).collect()));
        }
    }
    let says = match split {
        Some(true) => "the members were each written without the other: there are two states of one node",
        Some(false) => {
            "it cannot be told whether the members have one past or were each written without the other"
        }
        None => "what was fsynced last differs, and the databases do not tell which is newer",
    };
    let mut blockers =
        vec![Blocker::new(says, "choose the one whose node ran last, and name it alone with --from")];
    let from = |state: &[Survivor]| {
        // Where none has everything, all that are of one state are named.
        let named = state.iter().enumerate().filter(|(n, s)| *n == 0 || !s.alone);
        named.map(|(_, s)| format!("--from {}", s.path.display())).collect::<Vec<_>>().join(" ")
    };
    if let (1.., of) = scene.missing {
        // Of a striped mirror too few may be left for anything.
        blockers.push(Blocker::new(
            format!("{} of its {of} members are missing, and may hold what would tell", scene.missing.0),
            "connect another one",
        ));
    }
    for (state, versions) in states.iter().zip(&seen) {
        let Some(survivor) = state.first() else { continue };
        let changed =
            survivor.changed.map_or_else(String::new, |at| format!(", changed {}", at.strftime("%F %T UTC")));
        blockers.push(Blocker::new(
            format!("{}: generation {}{changed}: {}", led(state), survivor.generation, in_words(versions)),
            from(state),
        ));
    }
    Err(Trouble::Refused(blockers))
}

/// The states that differ in what was fsynced last: each survivor where one alone has everything, else all of them, led by one with each
/// log.
fn by_log(survivors: &[Survivor]) -> Vec<Vec<Survivor>> {
    if survivors.iter().all(|s| s.alone) {
        return survivors.iter().map(|s| vec![s.clone()]).collect();
    }
    let mut states: Vec<Vec<Survivor>> = Vec::new();
    for leader in survivors.iter().filter(|s| s.opens) {
        let is_known =
            |state: &Vec<Survivor>| state.first().is_some_and(|s| s.history.log == leader.history.log);
        if !states.iter().any(is_known) {
            let others = survivors.iter().filter(|s| s.path != leader.path);
            states.push(std::iter::once(leader).chain(others).cloned().collect());
        }
    }
    states
}

/// The states of survivors that parted: each alone, or, where none has everything, those that were written together.
fn by_past<E>(
    survivors: &[Survivor],
    relation: &mut dyn FnMut(&Survivor, &Survivor) -> Result<Relation, E>,
) -> Result<Vec<Vec<Survivor>>, E> {
    let mut sorted = survivors.to_vec();
    sorted.sort_by_key(|s| std::cmp::Reverse(s.generation));
    let mut states: Vec<Vec<Survivor>> = Vec::new();
    for survivor in sorted {
        let mut with = None;
        for (index, state) in states.iter().enumerate().filter(|_| !survivor.alone) {
            let mut together = true;
            for other in state {
                together &= relation(&survivor, other)? == Relation::Same;
            }
            if together {
                with = Some(index);
                break;
            }
        }
        match with.and_then(|index| states.get_mut(index)) {
            Some(state) => state.push(survivor),
            None => states.push(vec![survivor]),
        }
    }
    Ok(states)
}

fn led(state: &[Survivor]) -> String {
    match state {
        [] => String::new(),
        [one] => one.path.display().to_string(),
        [leader, rest @ ..] => {
            let rest: Vec<_> = rest.iter().map(|s| s.path.display().to_string()).collect();
            format!("as {} has it (with {})", leader.path.display(), rest.join(", "))
        }
    }
}

fn in_words(versions: &Result<Versions, String>) -> String {
    match versions {
        Err(why) => format!("its databases cannot be looked at: {why}"),
        Ok(versions) if versions.is_empty() => "no database".to_owned(),
        Ok(versions) => {
            let one = |(dir, _, version): &(PathBuf, Option<String>, Option<i64>)| {
                let version = version.map_or_else(|| "unknown".to_owned(), |v| v.to_string());
                format!("data_version {version} in {}", dir.display())
            };
            versions.iter().map(one).collect::<Vec<_>>().join(", ")
        }
    }
}

/// What the databases of one state say, by the way that loses nothing.
fn look(
    scene: &Scene<'_>,
    state: &[Survivor],
    request: &Request,
    console: &mut Console,
) -> Result<Result<Versions, String>, Trouble> {
    let host = scene.host;
    let Some(rung) = scene.backend.rungs().iter().find(|r| matches!(r.way, Way::Mount(_))) else {
        return Ok(Err("there is no way to mount it".to_owned()));
    };
    let scratch =
        Passing::make(host, &request.scratch).map_err(unchanged("no scratch directory can be made"))?;
    let read = |open: &Open<'_>, _: &mut Console| versions(host, open, scratch.path());
    match reach(scene, state, rung, None, console, read) {
        Ok((versions, _)) => Ok(Ok(versions)),
        Err(Halt::Closed(why)) => Ok(Err(why)),
        Err(Halt::Stop(trouble)) => Err(trouble),
    }
}

fn versions(host: &Host, open: &Open<'_>, scratch: &Path) -> Result<Versions, Halt> {
    if let Some(left) = open.left {
        return Err(Halt::Closed(left.to_owned()));
    }
    let mut go_on = || !host.interrupt().is_raised();
    let found = node::find(open.place, &mut go_on).map_err(|e| {
        if host.interrupt().is_raised() { interrupted().into() } else { Halt::Closed(e.to_string()) }
    })?;
    let mut all = Vec::new();
    for place in found.places {
        let database = open.place.join(&place.directory).join("lightningd.sqlite3");
        if let Some(linked) = database::linked(&database) {
            return Err(Halt::Closed(format!("{}: {linked}", place.directory.display())));
        }
        if database.is_file() {
            let version = database::version_of_unused(&database, &scratch.join("copy"))
                .map_err(|e| Halt::Closed(format!("{}: {}", place.directory.display(), causes(&e))))?;
            all.push((place.directory, version.node_id, version.data_version));
        }
    }
    match open.broken() {
        Some(broken) => Err(Halt::Closed(broken)),
        None => Ok(all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        backend::rescue::{History, Share},
        model::Bytes,
    };

    fn survivor(devid: u64, log: u64, alone: bool) -> Survivor {
        Survivor {
            path: format!("/dev/{devid}").into(),
            devid,
            uuid: String::new(),
            size: Bytes::gib(1),
            generation: 9,
            changed: None,
            faults: Vec::new(),
            lacks: None,
            opens: true,
            alone,
            history: History { commits: Vec::new(), log },
            data: None,
            share: None,
        }
    }

    fn names(states: &[Vec<Survivor>]) -> Vec<String> {
        states.iter().map(|state| led(state)).collect()
    }

    #[test]
    fn one_that_has_everything_is_looked_at_alone_and_others_once_for_each_log() {
        let alone = [survivor(1, 5, true), survivor(2, 7, true)];
        assert_eq!(names(&by_log(&alone)), ["/dev/1", "/dev/2"]);
        let parts = [survivor(1, 5, false), survivor(2, 7, false), survivor(3, 5, false)];
        assert_eq!(
            names(&by_log(&parts)),
            ["as /dev/1 has it (with /dev/2, /dev/3)", "as /dev/2 has it (with /dev/1, /dev/3)"]
        );
        let lame = Survivor { opens: false, ..survivor(4, 0, false) };
        assert_eq!(by_log(&[parts[0].clone(), lame]).len(), 1, "it does not know its log");
    }

    #[test]
    fn halves_that_parted_are_looked_at_alone_and_shares_with_those_that_were_written_with_them() {
        let mut parted = |one: &Survivor, other: &Survivor| {
            assert!(one.generation <= other.generation);
            let same = one.devid % 2 == other.devid % 2;
            Ok::<_, ()>(if same { Relation::Same } else { Relation::Diverged })
        };
        let share = |devid: u64, generation| Survivor {
            share: Some(Share { number: (devid - 1) / 2, of: 2, chunk: 1 << 19 }),
            generation,
            ..survivor(devid, 0, false)
        };
        let shares = [share(1, 30), share(2, 31), share(3, 30), share(4, 31)];
        assert_eq!(
            names(&by_past(&shares, &mut parted).unwrap()),
            ["as /dev/2 has it (with /dev/4)", "as /dev/1 has it (with /dev/3)"]
        );
        let alone = [survivor(1, 0, true), survivor(3, 0, true)];
        assert_eq!(names(&by_past(&alone, &mut parted).unwrap()), ["/dev/1", "/dev/3"]);
    }
}
