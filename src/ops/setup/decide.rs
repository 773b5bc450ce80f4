//! From what was asked and what the machine says to a plan, or to everything that stands in the way. Pure.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::{Facts, NodeChoice, Request};
use crate::{
    backend::MirrorSpec,
    config::{self, Member, Mirror},
    host::{fstab, mountinfo},
    model::{Bytes, Device, Identity, NodeControl, Scheduler},
    ops::{Blocker, refusal},
    plan::{
        JOURNAL_DIR, Plan,
        steps::{
            Action, Container, CopyTree, Declare, DropIn, Erase, Exchange, Fstab, InstallSchedule,
            KeepOriginal, MakeMirror, MountMirror, MountPoint, Own, RemoveOriginal, StartNode, StopNode,
            Verify,
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

/// Room that btrfs needs for itself beside the data: system and metadata chunks on each member.
const OVERHEAD: u64 = 512 << 20;

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
    let members = members(request, facts, &mut blockers, &mut warnings);
    if !blockers.is_empty() {
        return Err(blockers);
    }

    let date = facts.now.strftime("%Y%m%d-%H%M%S").to_string();
    let base = facts.directory.file_name().unwrap_or_default();
    let data = request.mountpoint.join(container_name(base));
    let mut aside_name = OsString::from(base);
    aside_name.push(format!(".before-raidguard-{date}"));
    let aside = facts.directory.with_file_name(aside_name);
    let record = |ending: &str| -> PathBuf {
        Path::new(JOURNAL_DIR).join(format!(
            "{}-setup-{}.{ending}",
            facts.now.strftime("%Y%m%dT%H%M%SZ"),
            request.name
        ))
    };
    let (manifest, proof) = (record("manifest"), record("proof"));
    let spec = MirrorSpec {
        backend: request.backend,
        name: request.name.clone(),
        level: request.level,
        uuid: facts.uuid.clone(),
        devices: members.iter().map(|m| m.path.clone()).collect(),
        mountpoint: request.mountpoint.clone(),
    };
    let owner = facts.user.flatten();
    let unit = control.as_ref().and_then(|c| c.unit()).map(str::to_owned);

    let mut steps = Vec::new();
    if let Some(control) = &control {
        steps.push(Action::StopNode(StopNode {
            control: control.clone(),
            directory: facts.directory.clone(),
            data: data.clone(),
            backwards: false,
        }));
    }
    let erased: Vec<Identity> =
        members.iter().filter(|m| m.has_content).map(|m| m.identity.clone()).collect();
    if !erased.is_empty() {
        steps.push(Action::Erase(Erase { devices: erased, spec: spec.clone() }));
    }
    let identities: Vec<Identity> = members.iter().map(|m| m.identity.clone()).collect();
    steps.push(Action::MakeMirror(MakeMirror { spec: spec.clone(), members: identities.clone() }));
    steps.push(Action::MountPoint(MountPoint {
        path: request.mountpoint.clone(),
        missing: facts.missing_dirs.clone(),
        immutable: facts.immutable,
    }));
    steps.push(Action::Fstab(Fstab {
        entry: fstab::btrfs_entry(&facts.uuid, &request.mountpoint),
        comment: format!("{} mirror, written by raidguard", request.name),
        systemd: facts.systemd,
    }));
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
        steps.push(Action::DropIn(DropIn { unit: unit.clone(), mountpoint: request.mountpoint.clone() }));
    }
    let with = facts.with.as_ref().ok().copied().flatten();
    let mirror = declared(request, facts, &members, &data, control.as_ref(), with);
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
    if facts.immutable {
        // Nothing to say: the usual case.
    } else {
        warnings.push(format!(
            "the filesystem below {} has no immutable flag: while the mirror is not mounted, nothing but its owner (root) keeps writers out",
            request.mountpoint.display()
        ));
    }
    Ok(Decision {
        plan: Plan::new("setup", &request.name, facts.now, steps),
        warnings,
        erased: members.into_iter().map(|m| (m.identity, m.content)).collect(),
    })
}

fn container_name(base: &std::ffi::OsStr) -> OsString {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    let bytes = base.as_bytes();
    let stripped = bytes.strip_prefix(b".").filter(|rest| !rest.is_empty()).unwrap_or(bytes);
    OsString::from_vec(stripped.to_vec())
}

/// What is declared, begun or configured already.
fn conflicts(request: &Request, facts: &Facts, blockers: &mut Vec<Blocker>) {
    if let Err(e) = config::check_name(&request.name) {
        blockers.push(Blocker::new(e.to_string(), "choose another --name"));
    }
    if facts.config.mirror.iter().any(|m| m.name == request.name) {
        blockers.push(Blocker::new(
            format!("a mirror `{}` is declared already", request.name),
            "choose another --name, or take the node off it with `raidguard release`",
        ));
    }
    for (verb, mirror) in &facts.unfinished {
        blockers.push(Blocker::new(
            format!("`raidguard {verb}` of `{mirror}` was interrupted and has not ended"),
            format!("raidguard {verb} --resume, or raidguard {verb} --rollback"),
        ));
    }
    if let Some(why) = &facts.unsupported {
        blockers.push(Blocker::new(why.clone(), "load the kernel module, or use a kernel that has it"));
    }
    if let Some(conflict) = &facts.fstab_conflict {
        blockers.push(Blocker::new(conflict.clone(), "choose another --mountpoint, or clear that line"));
    }
    if let Some(why) = &facts.mountpoint_in_use {
        blockers.push(Blocker::new(
            format!("{} cannot be the mount point: {why}", request.mountpoint.display()),
            "choose another --mountpoint",
        ));
    }
    if let Err(why) = &facts.with {
        blockers.push(Blocker::new(why.clone(), "name one with --scheduler cron or systemd, or none"));
    }
    if facts.user == Some(None) {
        let user = request.user.as_deref().unwrap_or_default();
        blockers
            .push(Blocker::new(format!("there is no user `{user}`"), "name an existing user with --user"));
    }
}

/// Where the node's directory lies.
fn placement(request: &Request, facts: &Facts, blockers: &mut Vec<Blocker>) {
    let dir = &facts.directory;
    let mut block = |says: String, clears: &str| blockers.push(Blocker::new(says, clears));
    if mountinfo::topmost_at(&facts.mounts, dir).is_some() {
        block(
            format!("{} is itself a mount point, which cannot be exchanged for a symlink", dir.display()),
            "move the node's files into a directory inside that mount, and point the node there",
        );
    }
    if dir.starts_with(&request.mountpoint) || request.mountpoint.starts_with(dir) {
        block(
            format!(
                "{} and the mount point {} lie within each other",
                dir.display(),
                request.mountpoint.display()
            ),
            "choose another --mountpoint",
        );
    }
    if let Some(mirror) = facts.config.mirror.iter().find(|m| dir.starts_with(&m.mountpoint)) {
        block(
            format!("{} is on the declared mirror `{}` already", dir.display(), mirror.name),
            "nothing is left to be done; see `raidguard status`",
        );
    }
    if dir.parent().is_none() {
        block(
            "the root directory cannot be moved".to_owned(),
            "name the node's directory with --lightning-dir",
        );
    }
}

/// How the node is stopped and started. `None` where none is managed.
fn node_control(request: &Request, facts: &Facts, blockers: &mut Vec<Blocker>) -> Option<NodeControl> {
    if let Some(why) = &facts.running.unknown {
        blockers.push(Blocker::new(
            format!("it cannot be told whether a node is running: {why}"),
            "run raidguard as root",
        ));
    }
    match &request.node {
        NodeChoice::Unit(unit) => Some(NodeControl::Systemd { unit: unit.clone() }),
        NodeChoice::Commands { stop, start } => {
            Some(NodeControl::Commands { stop: stop.clone(), start: start.clone() })
        }
        NodeChoice::Detect => match &facts.running.unit {
            Some(unit) => Some(NodeControl::Systemd { unit: unit.clone() }),
            None if facts.running.is_quiet() => None,
            None if facts.running.unknown.is_some() => None,
            None => {
                blockers.push(Blocker::new(
                    format!("a node runs there, and raidguard does not know how to start it again: {}", facts.running),
                    "name its unit with --node-unit, or its commands with --node-stop and --node-start, or stop it yourself",
                ));
                None
            }
        },
        NodeChoice::None => {
            if !facts.running.is_quiet() {
                blockers.push(Blocker::new(
                    format!("--no-node was given, but the directory is in use: {}", facts.running),
                    "stop what uses it, or leave --no-node out",
                ));
            }
            None
        }
    }
}

/// A member to be: its device, or the partition that will be made.
struct Chosen {
    path: PathBuf,
    identity: Identity,
    size: Bytes,
    model: Option<String>,
    serial: Option<String>,
    content: String,
    has_content: bool,
}

fn members(
    request: &Request,
    facts: &Facts,
    blockers: &mut Vec<Blocker>,
    warnings: &mut Vec<String>,
) -> Vec<Chosen> {
    let mut devices: Vec<&Device> = Vec::new();
    let mut chosen = Vec::new();
    for (path, found) in request.devices.iter().zip(&facts.devices) {
        let device = match found {
            Ok(dev) => facts.inventory.by_dev(*dev),
            Err(why) => {
                blockers.push(Blocker::new(why.clone(), "see `raidguard devices` for those that are there"));
                continue;
            }
        };
        let Some(device) = device else {
            blockers.push(Blocker::new(
                format!("{} is not among the devices that lsblk shows", path.display()),
                "see `raidguard devices`",
            ));
            continue;
        };
        devices.push(device);
        let refusals = refusal::judge_device(&facts.inventory, device, &facts.config.mirror, request.wipe);
        blockers.extend(refusals.iter().map(|r| Blocker::new(r.to_string(), r.clears_with())));
        chosen.push(Chosen {
            path: device.path.clone(),
            identity: device.identity(),
            size: device.size,
            model: device.model.clone(),
            serial: device.serial.clone(),
            content: device.content.to_string(),
            has_content: !device.content.is_empty(),
        });
    }
    let (refusals, warned) = refusal::judge_set(&facts.inventory, &devices, request.allow_same_disk);
    blockers.extend(refusals.iter().map(|r| Blocker::new(r.to_string(), r.clears_with())));
    warnings.extend(warned);
    let room = chosen.iter().map(|m| m.size.0).min().unwrap_or_default();
    let needed = facts.survey.bytes.saturating_add(OVERHEAD);
    if blockers.is_empty() && room < needed {
        blockers.push(Blocker::new(
            format!(
                "the smallest device holds {}, and {} are needed for the node's files",
                Bytes(room),
                Bytes(needed)
            ),
            "use larger devices",
        ));
    }
    chosen
}

fn declared(
    request: &Request,
    facts: &Facts,
    members: &[Chosen],
    data: &Path,
    control: Option<&NodeControl>,
    with: Option<Scheduler>,
) -> Mirror {
    Mirror {
        name: request.name.clone(),
        backend: request.backend,
        level: request.level,
        uuid: facts.uuid.clone(),
        mountpoint: request.mountpoint.clone(),
        member: members
            .iter()
            .map(|m| Member {
                id: String::new(),
                uuid: String::new(),
                model: m.model.clone(),
                serial: m.serial.clone(),
                size: m.size,
            })
            .collect(),
        node: Some(config::Node {
            kind: facts.layout.kind,
            directory: facts.directory.clone(),
            data: data.to_owned(),
            user: request.user.clone(),
            control: control.cloned(),
        }),
        schedule: with.and_then(|with| config::ScheduleConfig::standard(with).ok()),
    }
}
