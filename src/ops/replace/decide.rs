//! From what was asked and what the machine says to a plan, or to everything that stands in the way. Pure.

use std::path::PathBuf;

use super::{
    Facts, Parting, Request,
    gather::is_stopped,
    pool::{self, New},
};
use crate::{
    backend::{self, Exchange, MirrorSpec},
    config::{self, Member},
    model::{BackendKind, Bytes, Device, Identity, mirror::MemberState},
    node,
    ops::{Blocker, refusal},
    plan::{
        self, Plan,
        steps::{
            AcceptCounters, Action, Asked, Erase, GrowMember, LeavePrivate, MakePartition, MountForWork,
            MountInPlace, Prove, Redeclare, ReplaceMember, RestoreLevel, StartNode, StopNode, private_place,
        },
    },
};

/// btrfs's own sectors: it uses whole ones of a device.
const SECTOR: u64 = 4096;

/// What will be done.
#[derive(Debug)]
pub struct Decision {
    /// The plan.
    pub plan: Plan<Action>,
    /// What the operator should know and may accept.
    pub warnings: Vec<String>,
    /// What is erased: identity and present content.
    pub erased: Vec<(Identity, String)>,
}

/// Decides.
///
/// # Errors
/// Every blocker, not only the first.
pub fn decide(request: &Request, facts: &Facts) -> Result<Decision, Vec<Blocker>> {
    let (mut blockers, mut warnings) = (Vec::new(), Vec::new());
    super::blockers::standing(request.online, facts, &mut blockers);
    blockers.extend(apart(facts));
    blockers.extend(stopped(facts));
    let old = match super::blockers::old_member(request, facts) {
        Ok(old) => Some(old),
        Err(blocker) => {
            blockers.push(blocker);
            None
        }
    };
    let new = new_device(request, facts, old, &mut blockers, &mut warnings);
    if let Some(old) = old {
        super::blockers::reach(facts, old, &mut blockers);
        blockers.extend(super::blockers::first_place(facts, old));
    }
    match (old, new) {
        (Some(old), Some(new)) if blockers.is_empty() => Ok(Decision {
            plan: plan_of(request, facts, old, &new, &mut warnings),
            warnings,
            erased: vec![(new.device.identity(), new.device.content.to_string())],
        }),
        _ => Err(blockers),
    }
}

/// Judges the device that comes.
fn new_device<'a>(
    request: &Request,
    facts: &'a Facts,
    old: Option<u64>,
    blockers: &mut Vec<Blocker>,
    warnings: &mut Vec<String>,
) -> Option<New<'a>> {
    let device = match facts.new.as_ref()? {
        Ok(dev) => facts.inventory.by_dev(*dev),
        Err(why) => {
            blockers.push(Blocker::new(why.clone(), "see `raidguard devices` for those that are there"));
            return None;
        }
    };
    let Some(device) = device else {
        let shown = request.new.display();
        blockers.push(Blocker::new(
            format!("{shown} is not among the devices that lsblk shows"),
            "see `raidguard devices`",
        ));
        return None;
    };
    let own = facts.claim_on(device);
    // A pool gives a new member a new number: the old one's is known no more, nor that of one that fell out while it was filled.
    let once = own.filter(|claim| facts.was_once(claim));
    if let Some(claim) = once.filter(|_| !request.wipe) {
        let path = claim.path.display();
        blockers.push(Blocker::new(
            format!(
                "{path} was a member of this mirror once ({}), which has gone on without it",
                claim.devid
            ),
            "if nothing on it is needed: --wipe",
        ));
        return None;
    }
    let begun = once.is_some() || own.is_some_and(|claim| facts.is_leftover(claim));
    if let Some(claim) = own.filter(|_| !begun) {
        blockers.push(Blocker::new(
            format!("{} is member {} of this very mirror", device.path.display(), claim.devid),
            "name another device; a member that was away and is back is taken in again by `raidguard repair`",
        ));
        return None;
    }
    // It names this mirror as its own.
    let mut mirrors: Vec<_> =
        facts.declared.iter().filter(|m| !(begun && m.name == facts.mirror.name)).cloned().collect();
    // The disk of the member that goes may be the one that comes, with something else on it or nothing.
    if let Some(old) = old.filter(|old| facts.gone().contains(old)) {
        let ours = mirrors.iter_mut().filter(|m| m.name == facts.mirror.name);
        ours.for_each(|mirror| mirror.member.retain(|m| m.id != old.to_string()));
    }
    let refusals = refusal::judge_device(&facts.inventory, device, &mirrors, request.wipe || begun);
    blockers.extend(refusals.iter().map(|r| Blocker::new(r.to_string(), r.clears_with())));
    let new = match &facts.pool {
        // What is refused needs no word about its room.
        Some(_) if !refusals.is_empty() => None,
        Some(pool) => pool::choose(request, facts, pool, device, blockers),
        None => {
            fits(facts, old, device, blockers);
            Some(New::of(device))
        }
    };
    let stay = facts.state.members.iter().filter(|m| !m.missing && m.devid != 0 && Some(m.devid) != old);
    let mut set: Vec<&Device> = stay.filter_map(|m| facts.inventory.by_path(m.path.as_ref()?)).collect();
    set.push(device);
    let (refusals, warned) = refusal::judge_set(&facts.inventory, &set, request.allow_same_disk);
    // The others are as they are.
    let ours = refusals.iter().filter(|r| r.device == device.path);
    blockers.extend(ours.map(|r| Blocker::new(r.to_string(), r.clears_with())));
    let shown = device.path.display().to_string();
    warnings.extend(warned.into_iter().filter(|w| w.contains(&shown)));
    new
}

/// Is a device large enough, and written in pieces that are small enough?
fn fits(facts: &Facts, old: Option<u64>, device: &Device, blockers: &mut Vec<Blocker>) {
    if let Some(needed) = old.and_then(|old| facts.needed(old)).filter(|needed| device.size < *needed) {
        blockers.push(Blocker::new(
            format!(
                "{} holds {} ({} bytes), and {} ({} bytes) are needed: as much as the member that it takes the place of",
                device.path.display(),
                device.size,
                device.size.0,
                needed,
                needed.0
            ),
            "name a device of at least that size",
        ));
    }
    // Every device has sectors of 512 bytes at least.
    let largest = facts.largest.unwrap_or(512);
    if let Some(sector) = facts.sector.filter(|sector| *sector > largest) {
        blockers.push(Blocker::new(
            format!(
                "{} is written in pieces of {sector} bytes, and the mirror{} in pieces of {largest}: with it, it could not be mounted again",
                device.path.display(),
                if facts.largest.is_none() { ", as far as can be told," } else { "" }
            ),
            format!("name a device with sectors of at most {largest} bytes"),
        ));
    }
}

/// Is a member not to be trusted to read from?
fn is_doubtful(facts: &Facts, member: &MemberState) -> bool {
    let newest = facts.state.members.iter().filter(|m| !m.missing).filter_map(|m| m.generation).max();
    let behind = member.generation.zip(newest).is_some_and(|(own, newest)| own + 1 < newest);
    member.pulled || behind || member.errors.is_some_and(|e| !e.is_clean())
}

#[allow(clippy::too_many_lines, reason = "the order of the steps is the point of it")]
fn plan_of(
    request: &Request,
    facts: &Facts,
    old: u64,
    new: &New<'_>,
    warnings: &mut Vec<String>,
) -> Plan<Action> {
    let Facts { mirror, state, .. } = facts;
    let New { device, identity: new, partition } = new;
    let id = plan::id_of("replace", &mirror.name, facts.now);
    let gone = facts.gone();
    // Others that are gone as well: then this alone does not make the mirror whole.
    let short = gone.iter().any(|id| *id != old);
    let whole = gone.is_empty();
    let devices = |with: &[&PathBuf]| -> Vec<PathBuf> {
        let there = state.members.iter().filter(|m| !m.missing).filter_map(|m| m.path.as_ref());
        there.filter(|p| !with.contains(p)).chain(with.iter().copied()).cloned().collect()
    };
    let spec = |devices| MirrorSpec::of(mirror, state, devices);
    let member = state.members.iter().find(|m| m.devid == old);
    let exchange = Exchange {
        uuid: mirror.uuid.clone(),
        id: old,
        new: new.path.clone(),
        partuuid: new.partuuid.clone().filter(|_| facts.pool.is_some()),
        avoid_old: member.is_some_and(|m| (m.pulled || !m.missing) && is_doubtful(facts, m)),
    };
    let backend = backend::of(mirror.backend);
    let in_place = state.mounted || whole || !backend.degrades_a_mount();
    let at = if in_place { mirror.mountpoint.clone() } else { private_place(&mirror.name) };
    let control = mirror.node.as_ref().and_then(config::Node::control);
    let stopped = control.filter(|_| !request.online && !facts.running.is_quiet());

    warnings.extend(backend.exchange_is_tight(state, mirror.level));

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
    // What is left of an exchange that was given up is erased when this one begins.
    let own = facts.claim_on(device);
    let begun = own.is_some_and(|claim| facts.is_leftover(claim));
    let once = own.filter(|claim| facts.was_once(claim));
    let erase = |what: &Identity, content| Erase {
        leftover: once.map(|claim| claim.devid),
        ..Erase::of([(what.clone(), content)], spec(vec![new.path.clone()]))
    };
    if !device.content.is_empty() && !begun {
        let mut erase = erase(&device.identity(), &device.content);
        erase.before = partition.iter().map(|(_, uuid, _)| (*uuid).to_owned()).collect();
        steps.push(Action::Erase(erase));
    }
    if let Some((slot, uuid, remains)) = partition {
        steps.push(Action::MakePartition(MakePartition {
            disk: device.identity(),
            slot: *slot,
            fresh: true,
            uuid: (*uuid).to_owned(),
            name: mirror.name.clone(),
        }));
        if !remains.is_empty() {
            steps.push(Action::Erase(erase(new, remains)));
        }
    }
    steps.push(Action::MountForWork(MountForWork {
        spec: spec(devices(&[])),
        members: facts.ids(),
        whole,
        mounted: state.mounted,
        without: Vec::new(),
    }));
    steps.push(Action::ReplaceMember(ReplaceMember {
        spec: spec(devices(&[])),
        at: at.clone(),
        exchange: exchange.clone(),
        old: facts.name_of(old),
        old_device: there_still(facts, old, member),
        new: new.clone(),
        asked: Asked { old: request.old.clone(), new: request.new.clone() },
    }));
    let needed = facts.needed(old).unwrap_or_default();
    let grows = !backend.grow_commands(&exchange, &at).is_empty();
    if grows && new.size.0 / SECTOR * SECTOR > needed.0 {
        steps.push(Action::GrowMember(GrowMember { spec: spec(devices(&[])), at: at.clone(), exchange }));
    }
    let mut after: Vec<PathBuf> = devices(&[&new.path]);
    after.retain(|p| member.is_none_or(|m| m.path.as_ref() != Some(p)) || *p == new.path);
    if short {
        warnings.push(format!(
            "{} stay missing: the mirror is not whole before each of them is exchanged too",
            gone.iter().filter(|id| **id != old).map(|id| facts.name_of(*id)).collect::<Vec<_>>().join(", ")
        ));
    } else if backend.restore_level_command(mirror.level, &at).is_some() {
        steps.push(Action::RestoreLevel(RestoreLevel { spec: spec(after.clone()), at }));
    }
    let in_the_way = request.online && !facts.running.is_quiet();
    if state.degraded_option && in_the_way {
        warnings.push(
            "the mirror stays mounted with `degraded` while the node runs: `raidguard check` says so until it is mounted anew"
                .to_owned(),
        );
    } else if !short {
        let private = (!in_place).then(|| private_place(&mirror.name));
        steps.push(Action::MountInPlace(MountInPlace {
            spec: spec(after.clone()),
            anew: false,
            from: private.or_else(|| state.degraded_option.then(|| mirror.mountpoint.clone())),
            record: plan::record_of(&id, "unmounted"),
        }));
    }
    if !short {
        let record = plan::record_of(&id, "proof");
        steps.push(Action::Prove(Prove { spec: spec(after.clone()), record, settled: true }));
    }
    let before = mirror.member.iter().find(|m| m.id == old.to_string());
    let numbered = backend.numbers_anew().then(|| new.path.clone());
    if let Some(before) = before {
        steps.push(Action::Redeclare(Redeclare {
            mirror: mirror.name.clone(),
            before: before.clone(),
            after: declared(mirror.backend, before, new),
            spec: Some(spec(after.clone())),
            device: numbered.clone(),
        }));
    }
    steps.push(Action::AcceptCounters(AcceptCounters {
        spec: spec(after.clone()),
        id: old,
        device: numbered,
    }));
    if short && !in_place {
        steps.push(Action::LeavePrivate(LeavePrivate { spec: spec(after) }));
    }
    if let (Some(control), Some(node)) = (stopped, &mirror.node) {
        steps.push(Action::StartNode(StartNode { control, data: node.data.clone() }));
    }
    Plan::new("replace", &mirror.name, facts.now, steps).naming(&facts.inventory)
}

/// The device of the member that goes, where it is there: its label is cleared afterwards.
fn there_still(facts: &Facts, old: u64, member: Option<&MemberState>) -> Option<Identity> {
    let serves = member.filter(|m| !m.missing).and_then(|m| m.path.as_ref());
    // ZFS may do without a member whose device is there, and that is exchanged all the same.
    let given_up =
        || facts.pool.as_ref().and(facts.claims.iter().find(|claim| claim.devid == old)).map(|c| &c.path);
    facts.inventory.by_path(serves.or_else(given_up)?).map(Device::identity)
}

/// The new device takes over the old one's number, and of btrfs its UUID too (kernel: `btrfs_dev_replace_finishing`). md gives it one of
/// its own, ZFS a number too, which are read when it is a member.
fn declared(backend: BackendKind, before: &Member, new: &Identity) -> Member {
    Member {
        id: if backend::of(backend).numbers_anew() { String::new() } else { before.id.clone() },
        uuid: if backend == BackendKind::Btrfs { before.uuid.clone() } else { String::new() },
        model: new.model.clone(),
        serial: new.serial.clone(),
        size: Bytes(new.size.0),
    }
}

/// Has it stopped?
fn stopped(facts: &Facts) -> Option<Blocker> {
    is_stopped(&facts.state).then(|| {
        Blocker::new(
            "the mirror has stopped, since too few of its members answer: whatever writes to it waits",
            format!("plug in again what is gone, then: raidguard repair {}", facts.mirror.name),
        )
    })
}

/// Are two halves of it apart?
fn apart(facts: &Facts) -> Option<Blocker> {
    let clears =
        format!("look at both with `raidguard repair {}`, which shows how to choose", facts.mirror.name);
    match &facts.parting {
        Parting::Behind => None,
        Parting::Apart(why) => {
            Some(Blocker::new(format!("two halves of the mirror were each written to alone: {why}"), clears))
        }
        Parting::Unclear(why) => Some(Blocker::new(
            format!("it cannot be told whether the halves of the mirror belong together: {why}"),
            clears,
        )),
    }
}
