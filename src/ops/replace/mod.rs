//! `replace`: another device takes a member's place, and redundancy is proven afterwards.

pub(in crate::ops) mod blockers;
mod decide;
mod gather;
pub(in crate::ops) mod pool;

use std::path::{Path, PathBuf};

pub use decide::{Decision, decide};
pub(in crate::ops) use gather::is_stopped;
pub use gather::{Facts, Named, Parting, gather};
pub use pool::PoolFacts;

use super::{
    Exit, Trouble, execute, mirrors,
    resumed::{self, Ran},
    setup::Manner,
    trouble::need_root,
};
use crate::{
    backend,
    config::Mirror,
    host::{Host, inventory, lock},
    plan::{
        Plan,
        steps::{Action, Proof, ReplaceMember},
    },
    ui::{self, Console},
};

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each was asked for by itself")]
pub struct Request {
    /// The mirror's name, where one was given.
    pub name: Option<String>,
    /// The member that goes, as typed.
    pub old: Option<String>,
    /// The device that comes.
    pub new: PathBuf,
    /// Leave the node running.
    pub online: bool,
    /// Erase what is on the new device.
    pub wipe: bool,
    /// Take one that shares a disk or bridge with another member.
    pub allow_same_disk: bool,
}

/// Runs `replace`: a new exchange, or the rest of one that was interrupted.
///
/// # Errors
/// Refused, with every blocker named, or stopped on its way.
pub fn replace(
    host: &Host,
    request: &Request,
    manner: Manner,
    console: &mut Console,
) -> Result<Exit, Trouble> {
    need_root("replace")?;
    let mirror = mirrors::named(host, request.name.as_deref())?;
    let _lock = lock::take(host, &mirror.name, "replace")?;
    if let Some((journal, plan)) = resumed::unfinished_of(host, "replace", &mirror.name)? {
        let step = exchange_of(&plan);
        if step.is_none_or(|s| is_same(host, request, s)) {
            if manner.dry_run {
                console.say("An exchange was interrupted; this would go on with it.");
                console.data(ui::plan(&plan, &[], true));
                return Ok(Exit::Done);
            }
            match resumed::go_on(host, &journal, is_settled, console)? {
                Ran::Complete(plan) => return ended(host, &mirror, &plan, console),
                // It was on its way back, and is there: it begins anew.
                Ran::Back => {}
            }
        } else if let Some(step) = step {
            give_up(host, &journal, step, manner, console)?;
        }
    }
    let named = Named { old: request.old.as_deref(), new: Some(&request.new) };
    let facts = gather(host, mirror.clone(), "replace", named)?;
    let decision = decide(request, &facts).map_err(Trouble::Refused)?;
    for warning in &decision.warnings {
        console.warn(warning);
    }
    let shown = ui::plan(&decision.plan, &decision.erased, manner.dry_run);
    if manner.dry_run {
        console.data(shown);
        return Ok(Exit::Done);
    }
    console.say(shown);
    execute::confirm(console, manner.yes, "Everything on the device above will be erased.")?;
    let plan = resumed::begin(host, decision.plan, is_settled, console)?;
    ended(host, &mirror, &plan, console)
}

fn exchange_of(plan: &Plan<Action>) -> Option<&ReplaceMember> {
    plan.steps.iter().find_map(|step| match step {
        Action::ReplaceMember(step) => Some(step),
        _ => None,
    })
}

/// Has the new device taken the old one's place? Before that everything can be put back; afterwards it can only go on.
fn is_settled(host: &Host, plan: &Plan<Action>) -> bool {
    // What cannot be told is not put back.
    exchange_of(plan).is_none_or(|step| step.is_done(host).unwrap_or(true))
}

/// Is it the command that was interrupted? Names of devices are compared as they were typed, or by the device.
fn is_same(host: &Host, request: &Request, step: &ReplaceMember) -> bool {
    let device = |path: &Path| inventory::resolve(host, path).ok();
    let new = request.new == step.asked.new
        || device(&request.new).is_some_and(|dev| {
            [&step.new.path, &step.asked.new].into_iter().any(|path| Some(dev) == device(path))
        });
    let old = match (request.old.as_deref(), step.asked.old.as_deref()) {
        (None | Some("missing"), None | Some("missing")) => true,
        (Some(now), was) => Some(now) == was || now == step.exchange.id.to_string(),
        (None, Some(_)) => false,
    };
    new && old
}

/// Another exchange is asked for than the one that was interrupted: that one is put back, where it can be.
fn give_up(
    host: &Host,
    journal: &Path,
    step: &ReplaceMember,
    manner: Manner,
    console: &mut Console,
) -> Result<(), Trouble> {
    let own = || {
        let old = step.asked.old.as_ref().map(|old| format!(" --old {old}")).unwrap_or_default();
        format!("raidguard replace {}{old} --new {}", step.spec.name, step.asked.new.display())
    };
    let says = format!("another exchange was interrupted: {} for {}", step.old, step.new.path.display());
    let gone = !host.path(&step.new.path).exists();
    if !gone && step.is_done(host).unwrap_or(true) {
        return Err(Trouble::refused(
            format!("{says}; the new device is in its place, and only the rest is to be done"),
            own(),
        ));
    }
    if manner.dry_run {
        return Err(Trouble::refused(
            format!("{says}; it would be given up first"),
            format!("to go on with it: {}", own()),
        ));
    }
    execute::confirm(
        console,
        manner.yes,
        &format!("{says}. It is given up first; to go on with it instead: {}.", own()),
    )?;
    resumed::back(host, journal, console)
}

/// Says how it ended, after a last look.
fn ended(host: &Host, mirror: &Mirror, plan: &Plan<Action>, console: &mut Console) -> Result<Exit, Trouble> {
    let state = backend::of(mirror.backend)
        .observe(host, &mirror.uuid, &mirror.mountpoint)
        .map_err(|e| Trouble::failed("the exchange is done, but the mirror cannot be looked at", e))?;
    let step = exchange_of(plan);
    let (old, new) =
        step.map_or_else(Default::default, |s| (s.old.clone(), s.new.path.display().to_string()));
    let prove = plan.steps.iter().find_map(|s| match s {
        Action::Prove(prove) => Some(prove),
        _ => None,
    });
    let proof = prove.map(|prove| Proof::load(host, &prove.record)).transpose();
    let proof =
        proof.map_err(|e| Trouble::failed("the exchange is done, but its proof cannot be read", e))?;
    let proof = proof.flatten();
    console.say(format_args!("\n{new} has taken the place of {old}."));
    // Of one that was there, what says so was erased.
    if step.is_none_or(|step| step.old_device.is_none()) {
        console.say("Erase the old one before it is ever plugged in again: it says that it is this member.");
    }
    let whole = state.mounted
        && !state.degraded_option
        && state.members.iter().all(|m| !m.missing)
        && proof.as_ref().is_some_and(Proof::is_good);
    if whole {
        console.say("Redundancy is whole: every copy of everything was read.");
        return Ok(Exit::Done);
    }
    for damaged in proof.iter().flat_map(|p| &p.damaged) {
        console.warn(format_args!("{} has lost something: {}", damaged.path.display(), damaged.why));
    }
    // A member may have gone since.
    let mut lacks: Vec<String> = proof.into_iter().flat_map(|p| p.lacks).collect();
    let since = prove.map(|prove| prove.lacks(&state)).unwrap_or_default();
    lacks.extend(since.into_iter().filter(|lack| !lacks.contains(lack)).collect::<Vec<_>>());
    for lack in lacks {
        console.warn(lack);
    }
    console.warn("redundancy is not full: `raidguard check` says what is left to do");
    Ok(Exit::NotFull)
}

#[cfg(test)]
pub(in crate::ops) mod tests;
