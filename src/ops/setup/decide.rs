//! From what was asked and what the machine says to a plan, or to everything that stands in the way. Pure.

use std::{ffi::OsString, path::Path};

use super::{
    Facts, Request,
    blockers::{conflicts, node_control, placement, unguarded},
    members::{self, Chosen, NewPartition},
    pool,
};
use crate::{
    backend::{self, MirrorSpec},
    config::{self, Member, Mirror},
    model::{Bytes, Identity, NodeControl, Scheduler},
    ops::Blocker,
    plan::{
        self, Plan,
        steps::{
            Action, Container, CopyTree, Declare, DropIn, Erase, Exchange, Fstab, InstallSchedule,
            KeepOriginal, KnowArray, MakeMirror, MakePartition, MountMirror, MountPoint, Own, RemoveOriginal,
            StartNode, StopNode, Verify,
        },
    },
};

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
#[allow(clippy::too_many_lines, clippy::similar_names, reason = "the order of the steps is the point of it")]
pub fn decide(request: &Request, facts: &Facts) -> Result<Decision, Vec<Blocker>> {
    let mut blockers = Vec::new();
    let mut warnings = Vec::new();
    conflicts(request, facts, &mut blockers);
    placement(request, facts, &mut blockers);
    let control = node_control(request, facts, &mut blockers);
    warnings.extend(facts.idle.as_ref().map(|unit| unguarded(&facts.directory, unit)));
    let members = members::choose(request, facts, &mut blockers, &mut warnings);
    if !blockers.is_empty() {
        return Err(blockers);
    }

    let date = facts.now.strftime("%Y%m%d-%H%M%S").to_string();
    let base = facts.directory.file_name().unwrap_or_default();
    let data = request.mountpoint.join(container_name(base));
    let mut aside_name = OsString::from(base);
    aside_name.push(format!(".before-raidguard-{date}"));
    let aside = facts.directory.with_file_name(aside_name);
    let id = plan::id_of("setup", &request.name, facts.now);
    let (manifest, proof) = (plan::record_of(&id, "manifest"), plan::record_of(&id, "proof"));
    let spec = MirrorSpec {
        backend: request.backend,
        name: request.name.clone(),
        pool_name: None,
        level: request.level,
        uuid: facts.uuid.clone(),
        filesystem: facts.filesystem.clone(),
        pool: pool::spec(facts, &members, &mut blockers),
        devices: members::paths(&members),
        mountpoint: request.mountpoint.clone(),
    };
    if !blockers.is_empty() {
        return Err(blockers);
    }
    let owner = facts.user.flatten().map(|user| (user.uid, user.gid));
    let unit = control.as_ref().and_then(|c| c.unit()).map(str::to_owned);

    let mut steps = Vec::new();
    if let Some(control) = &control {
        steps.push(Action::StopNode(StopNode {
            control: control.clone(),
            directory: facts.directory.clone(),
            data: data.clone(),
            patience: request.patience,
            backwards: false,
        }));
    }
    let anew = |m: &&Chosen<'_>| m.is_parted_anew() && !m.device.content.is_empty();
    let whole: Vec<_> = members.iter().filter(anew).collect();
    if !whole.is_empty() {
        let mut erase =
            Erase::of(whole.iter().map(|m| (m.device.identity(), &m.device.content)), spec.clone());
        erase.before = whole.iter().filter_map(|m| m.partition.as_ref()).map(|p| p.uuid.to_owned()).collect();
        steps.push(Action::Erase(erase));
    }
    for Chosen { device, partition, .. } in &members {
        if let Some(NewPartition { slot, fresh, uuid, .. }) = partition {
            steps.push(Action::MakePartition(MakePartition {
                disk: device.identity(),
                slot: *slot,
                fresh: *fresh,
                uuid: (*uuid).to_owned(),
                name: request.name.clone(),
            }));
        }
    }
    let erased = || members.iter().filter(|m| !m.content.is_empty()).map(|m| (m.identity.clone(), m.content));
    if erased().next().is_some() {
        steps.push(Action::Erase(Erase::of(erased(), spec.clone())));
    }
    let identities: Vec<Identity> = members.iter().map(|m| m.identity.clone()).collect();
    steps.push(Action::MakeMirror(MakeMirror { spec: spec.clone(), members: identities.clone() }));
    let known = match (&facts.array, facts.rule.clone()) {
        (Some(array), rule) => Some(KnowArray {
            line: Some(array.line.clone()),
            comment: format!("{} mirror, written by raidguard", request.name),
            file: array.file.clone(),
            initramfs: facts.initramfs,
            record: plan::record_of(&id, "initramfs"),
            rule,
        }),
        (None, rule) => rule.map(|rule| KnowArray::by_rule(rule, facts.initramfs, &id)),
    };
    steps.extend(known.map(Action::KnowArray));
    steps.push(Action::MountPoint(MountPoint {
        path: request.mountpoint.clone(),
        missing: facts.missing_dirs.clone(),
        immutable: facts.immutable,
    }));
    if let Some(entry) = backend::of(request.backend).fstab_entry(&spec) {
        let comment = format!("{} mirror, written by raidguard", request.name);
        steps.push(Action::Fstab(Fstab { entry, comment, systemd: facts.systemd }));
    }
    let boot = facts.pool.as_ref().map(|pool| pool.boot.clone());
    steps.extend(boot.filter(|boot| facts.systemd && !boot.enable.is_empty()).map(Action::BootPool));
    steps.push(Action::MountMirror(MountMirror { spec: spec.clone() }));
    steps.push(Action::Container(Container { spec: spec.clone(), path: data.clone() }));
    steps.push(Action::Copy(CopyTree {
        source: facts.directory.clone(),
        target: data.clone(),
        bytes: Bytes(facts.survey.bytes),
        manifest: manifest.clone(),
        directory: facts.directory.clone(),
        backwards: false,
    }));
    if let (Some(user), Some((uid, gid))) = (&request.user, owner) {
        steps.push(Action::Own(Own {
            target: data.clone(),
            user: user.clone(),
            uid,
            gid,
            directory: facts.directory.clone(),
        }));
    }
    steps.push(Action::Verify(Verify {
        target: data.clone(),
        manifest: manifest.clone(),
        owner,
        databases: facts.layout.databases.clone(),
        scratch: request.mountpoint.join(".raidguard-scratch"),
        proof,
        directory: facts.directory.clone(),
        backwards: false,
    }));
    steps.push(Action::Exchange(Exchange {
        directory: facts.directory.clone(),
        data: data.clone(),
        aside: aside.clone(),
        manifest,
    }));
    if let (Some(unit), true) = (&unit, facts.systemd) {
        steps.push(Action::DropIn(DropIn {
            unit: unit.clone(),
            mountpoint: request.mountpoint.clone(),
            mirror: request.name.clone(),
            backend: request.backend,
            binary: facts.binary.clone(),
        }));
    }
    let with = facts.with.as_ref().ok().copied().flatten();
    let mirror = declared(request, facts, &members, &data, control.as_ref(), with).map_err(|b| vec![b])?;
    if let Some(with) = with {
        let before = facts.config.mirror.clone();
        let mut mirrors = before.clone();
        mirrors.push(mirror.clone());
        steps.push(Action::Schedule(InstallSchedule { with, mirrors, before, binary: facts.binary.clone() }));
    }
    steps.push(Action::Declare(Declare { spec, mirror }));
    if let Some(control) = control {
        steps.push(Action::StartNode(StartNode { control, data }));
    }
    let (mode, uid, gid) = facts.owner;
    steps.push(if request.keep_original {
        Action::KeepOriginal(KeepOriginal { aside, mode, uid, gid })
    } else {
        Action::RemoveOriginal(RemoveOriginal { aside })
    });
    if !facts.immutable {
        warnings.push(format!(
            "the filesystem below {} has no immutable flag: while the mirror is not mounted, nothing but its owner (root) keeps writers out",
            request.mountpoint.display()
        ));
    }
    Ok(Decision {
        plan: Plan::new("setup", &request.name, facts.now, steps).naming(&facts.inventory),
        warnings,
        erased: members.into_iter().map(|m| m.erased()).collect(),
    })
}

fn container_name(base: &std::ffi::OsStr) -> OsString {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    let bytes = base.as_bytes();
    let stripped = bytes.strip_prefix(b".").filter(|rest| !rest.is_empty()).unwrap_or(bytes);
    OsString::from_vec(stripped.to_vec())
}

fn declared(
    request: &Request,
    facts: &Facts,
    members: &[Chosen<'_>],
    data: &Path,
    control: Option<&NodeControl>,
    with: Option<Scheduler>,
) -> Result<Mirror, Blocker> {
    let schedule = with.map(|with| config::ScheduleConfig::standard(with, request.backend)).transpose();
    let schedule = schedule.map_err(|e| Blocker::new(e.to_string(), "use --scheduler none, and tell us"))?;
    let node = config::Node {
        kind: facts.layout.kind,
        directory: facts.directory.clone(),
        data: data.to_owned(),
        user: request.user.clone(),
        unit: None,
        stop: None,
        start: None,
    };
    Ok(Mirror {
        name: request.name.clone(),
        backend: request.backend,
        level: request.level,
        uuid: facts.uuid.clone(),
        mountpoint: request.mountpoint.clone(),
        filesystem: facts.filesystem.clone(),
        member: members
            .iter()
            .map(|m| Member {
                id: String::new(),
                uuid: String::new(),
                model: m.identity.model.clone(),
                serial: m.identity.serial.clone(),
                size: m.identity.size,
            })
            .collect(),
        node: Some(node.with_control(control)),
        schedule,
    })
}
