//! `repair`: a member that was away comes back, the declared level is restored, what rotted is mended or named.

mod decide;

use std::path::PathBuf;

pub use decide::{Decision, More, decide};

use super::{
    Exit, Trouble, execute, mirrors,
    replace::{Facts, Named, gather},
    resumed::{self, Ran},
    setup::Manner,
    trouble::{need_root, unchanged},
};
use crate::{
    backend,
    config::Mirror,
    host::{Host, lock, state::State},
    model::Identity,
    plan::{
        Plan, Step,
        steps::{Action, Proof},
    },
    ui::{self, Console, RepairReport},
};

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The mirror's name, where one was given.
    pub name: Option<String>,
    /// Of two halves that were each written alone: the one that is given up.
    pub discard: Option<PathBuf>,
    /// Print JSON.
    pub json: bool,
}

/// Runs `repair`, or the rest of one that was interrupted.
///
/// # Errors
/// Refused, or something could not be put right.
pub fn repair(
    host: &Host,
    request: &Request,
    manner: Manner,
    console: &mut Console,
) -> Result<Exit, Trouble> {
    need_root("repair")?;
    let mirror = mirrors::named(host, request.name.as_deref())?;
    let _lock = lock::take(host, &mirror.name, "repair")?;
    if let Some((journal, plan)) = resumed::unfinished_of(host, "repair", &mirror.name)? {
        if manner.dry_run {
            console.say("A repair was interrupted; this would go on with it.");
            console.data(ui::plan(&plan, &[], true));
            return Ok(Exit::Done);
        }
        match resumed::go_on(host, &journal, is_settled, console)? {
            Ran::Complete(plan) => return ended(host, &mirror, Vec::new(), Some(&plan), request, console),
            Ran::Back => {}
        }
    }
    let named = Named { old: None, new: request.discard.as_deref() };
    let facts = gather(host, mirror.clone(), "repair", named)?;
    let more = more(host, &facts)?;
    let decision = decide(&facts, &more).map_err(Trouble::Refused)?;
    let Some(plan) = decision.plan else {
        return ended(host, &mirror, decision.found, None, request, console);
    };
    for says in &decision.found {
        console.say(format_args!("found: {says}"));
    }
    let erased: Vec<_> = decision.discarded.iter().cloned().collect();
    let shown = ui::plan(&plan, &erased, manner.dry_run);
    if manner.dry_run {
        console.data(shown);
        return Ok(Exit::Done);
    }
    console.say(shown);
    match &decision.discarded {
        Some((identity, _)) => confirm_loss(console, manner.yes, request, identity)?,
        None => execute::confirm(console, manner.yes, "The mirror is repaired as above.")?,
    }
    let plan = resumed::begin(host, plan, is_settled, console)?;
    ended(host, &mirror, decision.found, Some(&plan), request, console)
}

fn more(host: &Host, facts: &Facts) -> Result<More, Trouble> {
    let recorded = "raidguard's own record cannot be read";
    let scrub = backend::of(facts.mirror.backend)
        .scrub_record(host, &facts.mirror.uuid)
        .map_err(unchanged("the last scrub cannot be read"))?;
    let state = State::open_existing(host).map_err(unchanged(recorded))?;
    let get = |name| match &state {
        Some(state) => state.get(&facts.mirror.name, name).map_err(unchanged(recorded)),
        None => Ok(None),
    };
    let mut known: std::collections::BTreeMap<_, _> = get("acknowledged")?.unwrap_or_default();
    known.extend(get("proven")?.unwrap_or_default());
    Ok(More { scrub, known })
}

/// What is erased is gone for good: its serial number is typed, here or as a part of the name that was given.
fn confirm_loss(console: &Console, yes: bool, request: &Request, identity: &Identity) -> Result<(), Trouble> {
    let shown = identity.path.display();
    let typed = request.discard.as_ref().map(|d| d.to_string_lossy().into_owned()).unwrap_or_default();
    // Where a device has no serial number, nothing but its name can be asked for.
    let words = identity.serial.clone().unwrap_or_else(|| identity.path.display().to_string());
    if yes && typed.contains(&words) {
        return Ok(());
    }
    match console.confirm_by(&format!("The state on {shown} is erased, and nothing brings it back."), &words)
    {
        Some(true) => Ok(()),
        Some(false) => {
            Err(Trouble::refused("its serial number was not typed", "run it again when you are sure"))
        }
        None => Err(Trouble::refused(
            format!("there is no terminal to ask for the serial number of {shown}"),
            "with --yes, name the device by a path that holds it: /dev/disk/by-id/...",
        )),
    }
}

/// From when a half is erased on, it can only go on; before that, everything can be put back.
fn is_settled(host: &Host, plan: &Plan<Action>) -> bool {
    plan.steps.iter().any(|step| match step {
        Action::Discard(_) => !matches!(step.probe(host), Ok(crate::plan::Probe::Pending)),
        Action::ReplaceMember(step) => step.is_done(host).unwrap_or(true),
        _ => false,
    })
}

/// Says how it ended, after a last look.
fn ended(
    host: &Host,
    mirror: &Mirror,
    found: Vec<String>,
    plan: Option<&Plan<Action>>,
    request: &Request,
    console: &Console,
) -> Result<Exit, Trouble> {
    let state = backend::of(mirror.backend)
        .observe(host, &mirror.uuid, &mirror.mountpoint)
        .map_err(|e| Trouble::failed("the repair has ended, but the mirror cannot be looked at", e))?;
    let steps = plan.map(|p| p.steps.as_slice()).unwrap_or_default();
    let record = steps.iter().find_map(|s| match s {
        Action::Prove(prove) => Some(&prove.record),
        _ => None,
    });
    let proof = record.map(|record| Proof::load(host, record)).transpose();
    let proof =
        proof.map_err(|e| Trouble::failed("the repair has ended, but its proof cannot be read", e))?;
    let proof =
        proof.flatten().unwrap_or(Proof { scrubs: Vec::new(), damaged: Vec::new(), lacks: Vec::new() });
    let level = mirror.level.as_str();
    let report = RepairReport {
        mirror: mirror.name.clone(),
        found,
        done: steps.iter().map(Step::says).collect(),
        whole: state.mounted
            && !state.degraded_option
            && state.members.iter().all(|m| !m.missing)
            && state.profiles.iter().all(|p| p.profile == level || p.total.0 == 0)
            && proof.lacks.is_empty(),
        lacks: proof.lacks,
        scrubs: proof.scrubs,
        damaged: proof.damaged,
    };
    console.data(if request.json { ui::json("repair", &report)? } else { ui::repair(&report) });
    let lost = report.scrubs.last().is_some_and(|s| !s.is_good()) || !report.damaged.is_empty();
    Ok(match (report.whole, lost) {
        (true, false) => Exit::Done,
        (true, true) => Exit::Failed,
        (false, _) => Exit::NotFull,
    })
}

#[cfg(test)]
mod tests;
