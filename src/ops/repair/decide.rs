//! From what the machine says to what is wrong, and to a plan that puts it right. Pure.

use std::{collections::BTreeMap, path::Path};

use crate::{
    backend::{self, Exchange, MirrorSpec},
    config::{self, Member, Mirror},
    model::{
        Identity,
        mirror::ErrorCounts,
        observed::{Claim, ScrubRecord},
        zfs::{ZfsClass, ZfsState, ZfsVdev},
    },
    node,
    ops::{
        Blocker,
        replace::{Facts, Parting, blockers, is_stopped},
    },
    plan::{
        self, Plan,
        steps::{
            AcceptCounters, Action, Asked, Discard, MountForWork, MountInPlace, Prove, Redeclare,
            ReplaceMember, RestoreLevel, ReturnMember, StartNode, StopNode, WakePool, private_place,
        },
    },
};

/// What the machine says, beyond what `replace` asks.
#[derive(Debug, Clone)]
pub struct More {
    /// The last scrub.
    pub scrub: Option<ScrubRecord>,
    /// Error counters that were acknowledged, or that a good proof has seen, by the member's UUID.
    pub known: BTreeMap<String, ErrorCounts>,
}

/// What will be done.
#[derive(Debug)]
pub struct Decision {
    /// What is wrong, in words.
    pub found: Vec<String>,
    /// The plan; nothing where nothing is wrong.
    pub plan: Option<Plan<Action>>,
    /// The half that is given up: identity and what it is.
    pub discarded: Option<(Identity, String)>,
}

/// A member that the running mirror does without, or doubts, though its device is here.
fn returned(facts: &Facts) -> Vec<&Claim> {
    let (mut gone, ids) = (facts.gone(), facts.ids());
    gone.extend(doubted(facts).iter().filter_map(|leaf| leaf.guid));
    // Of a mirror that has stopped nothing is told but who is here.
    let back =
        |c: &&Claim| if is_stopped(&facts.state) { ids.contains(&c.devid) } else { gone.contains(&c.devid) };
    facts.claims.iter().filter(|c| facts.state.mounted && back(c)).collect()
}

/// Members of a pool that serve, and that ZFS does not trust any more.
fn doubted(facts: &Facts) -> Vec<&ZfsVdev> {
    let leaves = facts.state.zfs.iter().flat_map(ZfsState::leaves);
    leaves.filter(|leaf| leaf.class == ZfsClass::Normal && leaf.serves() && leaf.state != "ONLINE").collect()
}

/// Whether the running mirror takes a member in again.
fn takes_back(spec: &MirrorSpec) -> bool {
    let nothing = std::path::PathBuf::new();
    let exchange =
        Exchange { uuid: spec.uuid.clone(), id: 0, new: nothing, partuuid: None, avoid_old: false };
    !backend::of(spec.backend).return_commands(spec, &exchange).is_empty()
}

/// Decides.
///
/// # Errors
/// Every blocker, not only the first.
pub fn decide(facts: &Facts, more: &More) -> Result<Decision, Vec<Blocker>> {
    let mut against = Vec::new();
    blockers::standing(true, facts, &mut against);
    let loser = loser(facts, &mut against);
    if loser.is_none() {
        halves(facts, &mut against);
    }
    let back = returned(facts);
    let gone: Vec<u64> = facts.gone().into_iter().filter(|id| !back.iter().any(|c| c.devid == *id)).collect();
    let none = blockers::none_here(facts);
    // One that has stopped goes on with those that are here.
    if none.is_none() && loser.is_none() && !is_stopped(&facts.state) {
        for id in &gone {
            against.push(Blocker::new(
                format!("{} is missing", facts.name_of(*id)),
                format!(
                    "plug it in again; if it is dead: raidguard replace {} --old {id} --new DEVICE",
                    facts.mirror.name
                ),
            ));
        }
    }
    against.extend(none);
    let mut found = wrong(facts, more, &back);
    if found.is_empty() {
        against.extend(facts.state.members.iter().filter(|m| m.bad_sectors > 0).map(|m| {
            let clears = format!(
                "exchange it: raidguard replace {} --old {} --new DEVICE",
                facts.mirror.name, m.devid
            );
            Blocker::new(format!("{} lacks {} sectors", facts.name_of(m.devid), m.bad_sectors), clears)
        }));
    }
    if let Some((claim, _)) = &loser {
        found.insert(
            0,
            format!("two halves were each written to alone; {} is given up", claim.path.display()),
        );
    }
    let spec = MirrorSpec::of(&facts.mirror, &facts.state, Vec::new());
    let anew =
        (!back.is_empty() && !takes_back(&spec)) || (facts.state.mounted && facts.state.degraded_option);
    if let Some(node) = facts.mirror.node.as_ref().filter(|n| n.control().is_none()) {
        if anew && !facts.running.is_quiet() {
            against.push(Blocker::new(
                format!(
                    "the mirror must be unmounted for it, and {} is in use: {}",
                    node.data.display(),
                    facts.running
                ),
                "stop what uses it",
            ));
        }
    }
    if !against.is_empty() {
        return Err(against);
    }
    let discarded = loser.as_ref().map(|(claim, identity)| {
        (identity.clone(), format!("a half of this mirror, its last commit {}", claim.generation))
    });
    let plan = (!found.is_empty()).then(|| plan_of(facts, loser, anew));
    Ok(Decision { found, plan, discarded })
}

/// The half that the operator gives up.
fn loser<'a>(facts: &'a Facts, against: &mut Vec<Blocker>) -> Option<(&'a Claim, Identity)> {
    let mut block = |says: String, clears: &str| {
        against.push(Blocker::new(says, clears));
    };
    let device = match facts.new.as_ref()? {
        Ok(dev) => facts.inventory.by_dev(*dev),
        Err(why) => {
            block(why.clone(), "see `raidguard devices` for those that are there");
            return None;
        }
    };
    let claim = device.and_then(|d| Some((facts.claims.iter().find(|c| c.path == d.path)?, d)));
    let Some((claim, device)) = claim else {
        block(
            "what --discard names is no half of this mirror".to_owned(),
            "an empty device is brought in by `raidguard replace`",
        );
        return None;
    };
    if facts.parting == Parting::Behind {
        block(
            format!("{} was not written to apart from the others", device.path.display()),
            "leave --discard out: it can be brought up to date",
        );
        return None;
    }
    let serves = |m: &&crate::model::mirror::MemberState| m.path.as_ref() == Some(&device.path) && !m.missing;
    if facts.state.mounted && facts.state.members.iter().any(|m| serves(&m)) {
        let at = facts.mirror.mountpoint.display();
        block(format!("{} is mounted at {at}", device.path.display()), "stop the node and unmount it first");
        return None;
    }
    Some((claim, device.identity()))
}

/// Halves that cannot be brought together are shown, and nothing is chosen.
fn halves(facts: &Facts, against: &mut Vec<Blocker>) {
    let (says, why) = match &facts.parting {
        Parting::Behind => return,
        Parting::Apart(why) => ("halves were each written to alone, and nobody can merge them", why),
        Parting::Unclear(why) => ("it cannot be told whether the halves of the mirror belong together", why),
    };
    let name = &facts.mirror.name;
    let shown = facts.claims.iter().map(|c| {
        let device = facts.inventory.by_path(&c.path);
        let serial = device.and_then(|d| d.serial.as_ref()).map(|s| format!(", serial {s}"));
        let serial = serial.unwrap_or_default();
        format!("{} (member {}, last commit {}{serial})", c.path.display(), c.devid, c.generation)
    });
    let shown = shown.collect::<Vec<_>>().join("; ");
    against.push(Blocker::new(
        format!("{says}: {shown}: {why}"),
        format!(
            "find out which holds the newest data: raidguard recover --degraded --from DEVICE --to DIR, for each. \
             Then give the other one up: raidguard repair {name} --discard DEVICE. What it holds is erased"
        ),
    ));
}

/// What is wrong, in words.
fn wrong(facts: &Facts, more: &More, back: &[&Claim]) -> Vec<String> {
    let (state, level) = (&facts.state, facts.mirror.level);
    let mut found = Vec::new();
    if is_stopped(state) {
        found.push("the mirror has stopped, since too few of its members answered".to_owned());
    }
    let doubted = doubted(facts);
    for claim in back.iter().filter(|_| !is_stopped(state)) {
        let (id, path) = (claim.devid, claim.path.display());
        found.push(match doubted.iter().find(|leaf| leaf.guid == Some(id)) {
            None => format!("member {id} is back at {path}, and the running mirror does without it"),
            Some(leaf) => format!("ZFS calls member {id} ({path}) {}", leaf.state),
        });
    }
    if let Some(damaged) = state.zfs.as_ref().and_then(|pool| pool.damaged).filter(|damaged| *damaged > 0) {
        found.push(format!("{damaged} places in files are known to be damaged"));
    }
    if !state.mounted {
        found.push(format!("the mirror is not mounted at {}", facts.mirror.mountpoint.display()));
    } else if state.degraded_option && back.is_empty() {
        found.push("the mirror is mounted with `degraded`, though no member is missing".to_owned());
    }
    for profile in state.profiles.iter().filter(|p| p.total.0 > 0 && p.profile != level.as_str()) {
        found.push(format!("{} is stored as {}: {}", profile.kind, profile.profile, profile.total));
    }
    let others = facts.redeclarable();
    found.extend(others.iter().map(|(declared, m)| {
        let path = m.path.as_ref().map(|path| format!(" ({})", path.display())).unwrap_or_default();
        format!("member {}{path} serves, and is declared under another UUID", declared.id)
    }));
    let newest = state.newest().unwrap_or_default();
    for member in state.members.iter().filter(|m| !m.missing) {
        if member.generation.is_some_and(|g| g + 1 < newest) {
            let generation = member.generation.unwrap_or_default();
            found.push(format!("member {} holds older data: commit {generation} of {newest}", member.devid));
        }
        if let Some(why) = &member.damaged {
            found.push(format!("the superblock of member {} is damaged: {why}", member.devid));
        }
        let known = member.uuid.as_ref().and_then(|uuid| more.known.get(uuid)).copied().unwrap_or_default();
        let grown: Vec<_> = (member.errors.unwrap_or_default().named().iter())
            .zip(known.named())
            .filter(|((_, now), (_, known))| now != known)
            .map(|((name, now), (_, known))| format!("{} {name}", now.checked_sub(known).unwrap_or(*now)))
            .collect();
        if !grown.is_empty() {
            found.push(format!("member {} has counted errors: {}", member.devid, grown.join(", ")));
        }
    }
    match &more.scrub {
        Some(scrub) if scrub.ended.is_none() => {}
        Some(scrub) if !scrub.finished => found.push("the last scrub did not read everything".to_owned()),
        Some(scrub) if scrub.uncorrectable > 0 => {
            found.push(format!("the last scrub could not mend {} blocks", scrub.uncorrectable));
        }
        Some(scrub) if scrub.corrected > 0 => {
            found.push(format!("the last scrub mended {} blocks", scrub.corrected));
        }
        _ => {}
    }
    found
}

/// A member of md that has to be filled from its beginning gets a new UUID, which is read then.
fn redeclared(mirror: &Mirror, id: u64, spec: &MirrorSpec) -> Option<Action> {
    let before = mirror.member.iter().find(|m| m.id == id.to_string() && takes_back(spec))?;
    let after = Member { uuid: String::new(), ..before.clone() };
    let (mirror, spec) = (mirror.name.clone(), Some(spec.clone()));
    Some(Action::Redeclare(Redeclare { mirror, before: before.clone(), after, spec, device: None }))
}

/// One of ZFS gets another number too.
fn renumbered(mirror: &Mirror, id: u64, spec: &MirrorSpec, device: &Path) -> Option<Action> {
    let action = redeclared(mirror, id, spec)?;
    Some(match action {
        Action::Redeclare(step) if backend::of(mirror.backend).numbers_anew() => {
            let after = Member { id: String::new(), ..step.after };
            Action::Redeclare(Redeclare { after, device: Some(device.to_owned()), ..step })
        }
        other => other,
    })
}

#[allow(clippy::too_many_lines, reason = "the order of the steps is the point of it")]
fn plan_of(facts: &Facts, loser: Option<(&Claim, Identity)>, anew: bool) -> Plan<Action> {
    let (mirror, state) = (&facts.mirror, &facts.state);
    let id = plan::id_of("repair", &mirror.name, facts.now);
    let lost = loser.as_ref().map(|(claim, _)| claim.path.clone());
    let mut devices: Vec<_> =
        state.members.iter().filter(|m| !m.missing && m.devid != 0).filter_map(|m| m.path.clone()).collect();
    devices.retain(|d| Some(d) != lost.as_ref());
    let mut all = devices.clone();
    all.extend(returned(facts).iter().map(|c| c.path.clone()));
    all.sort();
    all.dedup();
    let spec = |devices: &[std::path::PathBuf]| MirrorSpec::of(mirror, state, devices.to_vec());
    let control = mirror.node.as_ref().and_then(config::Node::control);
    let stopped = control.filter(|_| anew && !facts.running.is_quiet());
    let apart = backend::of(mirror.backend).degrades_a_mount();
    let numbers = backend::of(mirror.backend).numbers_anew();
    let private = (apart && !state.mounted && loser.is_some()).then(|| private_place(&mirror.name));
    let at = private.clone().unwrap_or_else(|| mirror.mountpoint.clone());

    let mut steps = Vec::new();
    if let (Some(control), Some(node)) = (&stopped, &mirror.node) {
        steps.push(Action::StopNode(StopNode {
            control: control.clone(),
            directory: node.directory.clone(),
            data: node.data.clone(),
            patience: node::PATIENCE,
            backwards: true,
        }));
    }
    if let Some((_, identity)) = &loser {
        steps.push(Action::Discard(Discard {
            device: identity.clone(),
            spec: spec(&devices),
            record: plan::record_of(&id, "discarded"),
        }));
    }
    if is_stopped(state) {
        steps.push(Action::WakePool(WakePool { spec: spec(&devices) }));
    }
    if loser.is_some() || !state.mounted {
        steps.push(Action::MountForWork(MountForWork {
            spec: spec(&devices),
            members: facts.ids(),
            whole: loser.is_none(),
            mounted: state.mounted,
            without: Vec::new(),
        }));
    }
    if let Some((claim, identity)) = loser {
        steps.push(Action::ReplaceMember(ReplaceMember {
            spec: spec(&devices),
            at: at.clone(),
            exchange: Exchange {
                uuid: mirror.uuid.clone(),
                id: claim.devid,
                new: claim.path.clone(),
                partuuid: identity.partuuid.clone().filter(|_| numbers),
                avoid_old: false,
            },
            old: facts.name_of(claim.devid),
            old_device: None,
            asked: Asked { old: None, new: claim.path.clone() },
            new: identity,
        }));
        all.push(claim.path.clone());
        steps.extend(renumbered(mirror, claim.devid, &spec(&all), &claim.path));
        steps.push(Action::AcceptCounters(AcceptCounters {
            spec: spec(&all),
            id: claim.devid,
            device: numbers.then(|| claim.path.clone()),
        }));
        if private.is_some() || state.degraded_option {
            let from = private.or_else(|| Some(mirror.mountpoint.clone()));
            let record = plan::record_of(&id, "unmounted");
            steps.push(Action::RestoreLevel(RestoreLevel { spec: spec(&all), at }));
            steps.push(Action::MountInPlace(MountInPlace { spec: spec(&all), anew: false, from, record }));
        }
    } else if anew {
        steps.push(Action::MountInPlace(MountInPlace {
            spec: spec(&all),
            anew: true,
            from: Some(mirror.mountpoint.clone()),
            record: plan::record_of(&id, "unmounted"),
        }));
    }
    for claim in returned(facts).iter().filter(|_| takes_back(&spec(&[]))) {
        let Some(device) = facts.inventory.by_path(&claim.path) else { continue };
        let (uuid, new) = (mirror.uuid.clone(), claim.path.clone());
        steps.push(Action::ReturnMember(ReturnMember {
            spec: spec(&all),
            exchange: Exchange { uuid, id: claim.devid, new, partuuid: None, avoid_old: false },
            device: device.identity(),
        }));
        steps.extend(redeclared(mirror, claim.devid, &spec(&all)).filter(|_| !numbers));
    }
    for (before, found) in facts.redeclarable() {
        let device = found.path.as_ref().and_then(|path| facts.inventory.by_path(path));
        let after = Member { uuid: found.uuid.clone().unwrap_or_default(), ..before.clone() };
        let after = device.map_or(after.clone(), |d| {
            let Identity { model, serial, size, .. } = d.identity();
            Member { model, serial, size, ..after }
        });
        let (mirror, before) = (mirror.name.clone(), before.clone());
        steps.push(Action::Redeclare(Redeclare {
            mirror,
            before,
            after,
            spec: Some(spec(&all)),
            device: None,
        }));
    }
    // What the newest member alone has is given its other copies first.
    let levels =
        backend::of(mirror.backend).restore_level_command(mirror.level, &mirror.mountpoint).is_some();
    if levels && !steps.iter().any(|s| matches!(s, Action::RestoreLevel(_))) {
        steps.push(Action::RestoreLevel(RestoreLevel { spec: spec(&all), at: mirror.mountpoint.clone() }));
    }
    let stays_short = is_stopped(state) && !facts.gone().is_empty();
    if !stays_short {
        let settled = steps.iter().any(|s| matches!(s, Action::Discard(_)));
        let record = plan::record_of(&id, "proof");
        steps.push(Action::Prove(Prove { spec: spec(&all), record, settled }));
    }
    if let (Some(control), Some(node)) = (stopped, &mirror.node) {
        steps.push(Action::StartNode(StartNode { control, data: node.data.clone() }));
    }
    Plan::new("repair", &mirror.name, facts.now, steps).naming(&facts.inventory)
}
