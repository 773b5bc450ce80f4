//! `recover`: the node's files off what is left of a mirror, the newest there is, and nothing written to a survivor.

mod bring;
mod decide;
mod finish;
mod gather;
mod halted;
mod halves;
mod judging;
mod ladder;
mod outcome;
mod target;

use std::path::{Path, PathBuf};

use self::{bring::climb, decide::Standing, finish::finish, gather::Facts, ladder::Scene, target::Target};
use super::{
    Blocker, Exit, Trouble, execute,
    trouble::{need_root, unchanged},
};
use crate::{
    backend::{
        self,
        rescue::{Remains, Survivor},
    },
    host::{
        Host, awake, copy,
        files::FileError,
        lock,
        overlay::{self, Choice},
    },
    model::{BackendKind, observed::causes},
    plan::Watch as _,
    ui::{self, Console, SurvivorReport},
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
    let picked = decide(host, request, &facts, &to)?;
    let (mirror, mut shown) = facts.report(host, &picked);
    let rescue = backend::of(picked.backend).rescue();
    rescue
        .ready(host)
        .map_err(|e| Trouble::refused(causes(&e), "install it, or run the rescue on a system that has it"))?;
    let members: Vec<PathBuf> = facts
        .remains
        .iter()
        .filter(|r| r.uuid == picked.uuid)
        .flat_map(|r| r.survivors.iter().map(|s| &s.path).chain(&r.begun).cloned())
        .collect();
    let of_it = |m: &&crate::config::Mirror| m.uuid.eq_ignore_ascii_case(&picked.uuid);
    let belongs = facts.declared.iter().find(of_it).map(|mirror| mirror.mountpoint.clone());
    let scene = Scene {
        host,
        backend: rescue,
        choice: request.overlay,
        scratch: &request.scratch,
        uuid: &picked.uuid,
        missing: (picked.members.saturating_sub(picked.survivors.len() as u64), picked.members),
        members: &members,
        belongs: belongs.as_deref(),
    };
    let mut relation =
        |one: &Survivor, newest: &Survivor| rescue.relate(host, one, newest, &picked.survivors);
    let standing = decide::stand(&picked.survivors, &mut relation)
        .map_err(unchanged("the survivors cannot be compared with each other"))?;
    let (used, left) = match standing {
        Standing::Agreed { used, left } => (used, left),
        other => {
            console.say(ui::survivors(&mirror, &shown));
            halves::settle(&scene, other, request, console)?
        }
    };
    let others = decide::others(&picked, &facts.remains);
    let every: Vec<Survivor> = picked.survivors.iter().chain(&others).cloned().collect();
    let mut relation = |one: &Survivor, newer: &Survivor| rescue.relate(host, one, newer, &every);
    let beside = decide::not_named(&used, &others, &mut relation, |e| causes(e));
    for (_, says) in &beside {
        console.warn(says);
    }
    mark(&mut shown, &used, &left);
    console.say(ui::survivors(&mirror, &shown));
    rescue.shares(&used).map_err(|missing| too_few(&picked, &left, &missing))?;
    rescue
        .enough(host, &used)
        .map_err(unchanged("the survivors cannot be read"))?
        .map_err(|missing| too_few(&picked, &left, &missing))?;
    console.say(format_args!(
        "Those marked * are set read-only and read through a layer above them; nothing is written to them.\n{} goes to {}.",
        if request.all { "Everything" } else { "What makes the node" },
        to.display()
    ));
    execute::confirm(console, request.yes, "Read them now?")?;
    let _awake = awake::hold(host, "recover");
    console.plan(&STEPS.map(str::to_owned), false);

    let target = Target::make(host, &to).map_err(|e| no_target(&to, e))?;
    let record = gather::recorded(host, &mirror, console);
    let (climbed, judging) = climb(&scene, &used, request, &target, record.as_ref(), console)?;
    let report = finish(host, (&climbed, judging), &target, (mirror, shown, beside), (&to, at), console)?;
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
fn decide(host: &Host, request: &Request, facts: &Facts, to: &Path) -> Result<Remains, Trouble> {
    let mut blockers: Vec<Blocker> = facts.blockers.clone();
    if !host.path(&request.scratch).is_dir() {
        blockers.push(Blocker::new(
            format!("there is no scratch directory {}", request.scratch.display()),
            "name one on a disk that is no survivor with --scratch",
        ));
    }
    let picked = match decide::pick(&facts.asked, &facts.remains, &facts.declared) {
        Ok(picked) => Some(picked),
        // What was named is said already.
        Err(_) if !facts.blockers.is_empty() => None,
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

/// What is left does not hold all of the data.
fn too_few(picked: &Remains, left: &[(Survivor, String)], missing: &str) -> Trouble {
    let mut blockers = vec![Blocker::new(
        format!("{} cannot be put together: {missing}", picked.called()),
        match picked.backend {
            BackendKind::Zfs => "connect a member that is missing",
            BackendKind::Btrfs | BackendKind::Mdadm => {
                "connect a member that is missing; one of each pair is enough"
            }
        },
    )];
    blockers.extend(left.iter().map(|(survivor, why)| {
        Blocker::new(
            format!("{} (member {}) is not read: {why}", survivor.path.display(), survivor.devid),
            "look for a newer one first: what is on it is an old state",
        )
    }));
    Trouble::Refused(blockers)
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

fn no_target(to: &Path, e: FileError) -> Trouble {
    Trouble::failed(format!("{} cannot take the files, so nothing is presented there", to.display()), e)
        .hint("nothing was written to a survivor; name another directory with --to and run it again")
}

#[cfg(test)]
pub(in crate::ops) mod tests;
