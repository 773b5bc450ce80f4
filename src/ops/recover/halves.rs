//! Survivors that are not of one state: each is looked at through an overlay of its own, all are shown, and nobody guesses.

use std::path::{Path, PathBuf};

use super::{
    Request,
    decide::{Standing, Versions, newest_of},
    ladder::{Halt, Open, Scene, interrupted, reach},
};
use crate::{
    backend::rescue::{Survivor, Way},
    host::Host,
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
    let mut seen = Vec::new();
    for survivor in &survivors {
        let versions = look(scene, survivor, request, console)?;
        console.say(format_args!("  {}: {}", survivor.path.display(), in_words(&versions)));
        seen.push(versions);
    }
    let all: Option<Vec<Versions>> = seen.iter().map(|v| v.as_ref().ok().cloned()).collect();
    if split.is_none() {
        let newest = all.as_deref().and_then(newest_of).and_then(|index| survivors.get(index));
        if let Some(newest) = newest {
            let others = survivors.iter().filter(|s| s.path != newest.path);
            let why = "its database is not newer than that of the one that is read";
            return Ok((vec![newest.clone()], others.map(|s| (s.clone(), why.to_owned())).collect()));
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
    for (survivor, versions) in survivors.iter().zip(&seen) {
        let changed =
            survivor.changed.map_or_else(String::new, |at| format!(", changed {}", at.strftime("%F %T UTC")));
        blockers.push(Blocker::new(
            format!(
                "{}: generation {}{changed}: {}",
                survivor.path.display(),
                survivor.generation,
                in_words(versions)
            ),
            format!("--from {}", survivor.path.display()),
        ));
    }
    Err(Trouble::Refused(blockers))
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

/// What the databases of one survivor say, by the way that loses nothing.
fn look(
    scene: &Scene<'_>,
    survivor: &Survivor,
    request: &Request,
    console: &mut Console,
) -> Result<Result<Versions, String>, Trouble> {
    let host = scene.host;
    let Some(rung) = scene.backend.rungs().iter().find(|r| matches!(r.way, Way::Mount(_))) else {
        return Ok(Err("there is no way to mount it".to_owned()));
    };
    let scratch = tempfile::Builder::new()
        .prefix("raidguard-look-")
        .tempdir_in(host.path(&request.scratch))
        .map_err(unchanged("no scratch directory can be made"))?;
    let read = |open: &Open<'_>, _: &mut Console| versions(host, open, scratch.path());
    match reach(scene, std::slice::from_ref(survivor), rung, None, console, read) {
        Ok((versions, _)) => Ok(Ok(versions)),
        Err(Halt::Closed(why)) => Ok(Err(why)),
        Err(Halt::Stop(trouble)) => Err(trouble),
    }
}

fn versions(host: &Host, open: &Open<'_>, scratch: &Path) -> Result<Versions, Halt> {
    let mut go_on = || !host.interrupt().is_raised();
    let found = node::find(open.place, &mut go_on).map_err(|e| {
        if host.interrupt().is_raised() { interrupted().into() } else { Halt::Closed(e.to_string()) }
    })?;
    let mut all = Vec::new();
    for place in found.places {
        let database = open.place.join(&place.directory).join("lightningd.sqlite3");
        if database.is_file() {
            let version = database::version_on_scratch(&database, &scratch.join("copy"))
                .map_err(|e| Halt::Closed(format!("{}: {}", place.directory.display(), causes(&e))))?;
            all.push((place.directory, version.node_id, version.data_version));
        }
    }
    match open.broken() {
        Some(broken) => Err(Halt::Closed(broken)),
        None => Ok(all),
    }
}
