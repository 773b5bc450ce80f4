//! `release`: the way back. Newest data to a plain directory, verified, exchanged; what setup added to the machine removed.

use std::path::{Path, PathBuf};

use super::{
    Blocker, Exit, Trouble, execute, mirrors, resumed, rule,
    setup::Manner,
    trouble::{need_root, unchanged},
};
use crate::{
    backend::{self, MirrorSpec},
    config::{self, Mirror},
    host::{
        Host,
        copy::{self, Survey},
        files, inventory, lock, mountinfo,
        schedule::{self, Rule},
    },
    model::{Bytes, Inventory, mirror::MirrorState},
    node,
    plan::{
        self, JOURNAL_DIR, Journal, Plan, journals,
        steps::{
            Action, CopyTree, Declare, DropIn, ExchangeBack, Fstab, Initramfs, InstallSchedule, KnowArray,
            MountMirror, PlainDirectory, StartNode, StopNode, TakeBack, Verify,
        },
    },
    ui::{self, Console},
};

/// What the machine says before `release` decides.
#[derive(Debug)]
struct Facts {
    mirror: Mirror,
    others: Vec<Mirror>,
    node: config::Node,
    survey: Survey,
    databases: Vec<PathBuf>,
    scratch: u64,
    state: MirrorState,
    inventory: Inventory,
    free: Bytes,
    points: bool,
    running: node::Running,
    unfinished: Vec<(String, String)>,
    added: Vec<Action>,
    /// The rule by which udev keeps its halves apart.
    rule: Option<Rule>,
    initramfs: Option<Initramfs>,
    systemd: bool,
    binary: PathBuf,
    now: jiff::Timestamp,
}

/// Runs `release`.
///
/// # Errors
/// Refused, with every blocker named, or stopped on its way.
pub fn release(
    host: &Host,
    name: Option<&str>,
    manner: Manner,
    console: &mut Console,
) -> Result<Exit, Trouble> {
    need_root("release")?;
    let mirror = mirrors::named(host, name)?;
    let _lock = lock::take(host, &mirror.name, "release")?;
    let facts = gather(host, mirror)?;
    let plan = decide(&facts).map_err(Trouble::Refused)?;
    let shown = ui::plan(&plan, &[], manner.dry_run);
    if manner.dry_run {
        console.data(shown);
        return Ok(Exit::Done);
    }
    console.say(shown);
    execute::confirm(
        console,
        manner.yes,
        "The node will run from a plain directory again, without redundancy.",
    )?;
    execute::start(host, plan, console)?;
    console.say(format_args!(
        "\n{} is a plain directory again, with the newest data. What is left on the mirror is old state from now on: never start a node from it.",
        facts.node.directory.display()
    ));
    Ok(Exit::Done)
}

fn gather(host: &Host, mirror: Mirror) -> Result<Facts, Trouble> {
    let node = mirror.node.clone().ok_or_else(|| {
        Trouble::refused(
            format!("no node lives on the mirror `{}`", mirror.name),
            "nothing is left to be done",
        )
    })?;
    let mounts = mountinfo::read(host).map_err(unchanged("the mounts cannot be read"))?;
    if mountinfo::topmost_at(&mounts, &mirror.mountpoint).is_none() {
        return Err(Trouble::refused(
            format!("the mirror is not mounted at {}", mirror.mountpoint.display()),
            format!("mount {}", mirror.mountpoint.display()),
        ));
    }
    let state = backend::of(mirror.backend)
        .observe(host, &mirror.uuid, &mirror.mountpoint)
        .map_err(unchanged("the mirror cannot be looked at"))?;
    let survey = copy::survey(&node.data).map_err(unchanged("the node's files cannot be read whole"))?;
    let unit = node.unit.as_deref();
    let running = node::find_running(host, &node.data, unit)
        .map_err(unchanged("it cannot be told whether a node is running"))?;
    let parent = files::parent(&node.directory);
    let space = nix::sys::statvfs::statvfs(parent).map_err(unchanged("the free space cannot be read"))?;
    let binary = std::env::current_exe().map_err(unchanged("raidguard's own path cannot be read"))?;
    let layout = node::read_layout(&node.data).map_err(unchanged("the node's directory cannot be read"))?;
    Ok(Facts {
        others: mirrors::declared(host)?.into_iter().filter(|m| m.name != mirror.name).collect(),
        survey,
        state,
        inventory: inventory::list(host).map_err(unchanged("the devices cannot be read"))?,
        scratch: layout
            .databases
            .iter()
            .map(|path| node::database::scratch_size(&node.data.join(path)))
            .max()
            .unwrap_or_default(),
        databases: layout.databases,
        free: Bytes(space.blocks_available().saturating_mul(space.fragment_size())),
        points: std::fs::read_link(&node.directory).is_ok_and(|to| to == node.data),
        running,
        unfinished: super::setup::unfinished(host)?,
        added: added(host, &mirror)?,
        rule: rule(host, &mirror, &binary)?,
        initramfs: Initramfs::of(host),
        systemd: schedule::is_systemd(host),
        binary,
        now: host.now(),
        node,
        mirror,
    })
}

/// The rule that udev should have, or that is there though it need not be any more.
fn rule(host: &Host, mirror: &Mirror, binary: &Path) -> Result<Option<Rule>, Trouble> {
    let wanted = rule::of(host, mirror, binary).map_err(unchanged("the mounts cannot be read"))?;
    let there = || Rule::of(mirror, binary).filter(|rule| host.path(rule.path()).exists());
    Ok(wanted.or_else(there))
}

/// What the setup of this mirror added to the machine, by its journal.
fn added(host: &Host, mirror: &Mirror) -> Result<Vec<Action>, Trouble> {
    let all =
        journals(&host.path(JOURNAL_DIR)).map_err(|e| Trouble::failed("the journals cannot be read", e))?;
    let uuid = backend::of(mirror.backend).made_as(host, &mirror.uuid);
    let uuid = uuid.map_err(unchanged("the mirror cannot be looked at"))?;
    let made = all.iter().rev().find_map(|path| match Journal::read::<Action>(path) {
        Ok((plan, _, _)) if plan.verb == "setup" && made_it(&plan, &uuid) => Some(plan.steps),
        _ => None,
    });
    Ok(made.unwrap_or_default())
}

fn made_it(plan: &Plan<Action>, uuid: &str) -> bool {
    plan.steps.iter().any(|step| matches!(step, Action::MakeMirror(made) if made.spec.uuid == uuid))
}

/// What makes the mirror known to what puts it together at a boot: as its setup wrote it, with the rule of udev, which may have come later.
fn known(facts: &Facts, id: &str) -> Option<KnowArray> {
    let made = facts.added.iter().find_map(|a| match a {
        Action::KnowArray(known) => Some(known.clone()),
        _ => None,
    });
    match (made, facts.rule.clone()) {
        (Some(made), rule) => Some(KnowArray { rule: rule.or(made.rule), ..made }),
        (None, Some(rule)) => Some(KnowArray::by_rule(rule, facts.initramfs, id)),
        (None, None) => None,
    }
}

#[allow(clippy::too_many_lines, reason = "the order of the steps is the point of it")]
fn decide(facts: &Facts) -> Result<Plan<Action>, Vec<Blocker>> {
    let Facts { mirror, node, .. } = facts;
    let mut blockers = Vec::new();
    blockers.extend(facts.unfinished.iter().map(|(verb, of)| resumed::in_the_way(verb, of)));
    if !facts.points {
        blockers.push(Blocker::new(
            format!("{} is not a symlink to {}", node.directory.display(), node.data.display()),
            "look at both, and put the symlink back or remove the declaration by hand",
        ));
    }
    // The largest database is there twice while SQLite checks it.
    let needed = facts.survey.bytes.saturating_add(facts.scratch);
    if facts.free.0 < needed {
        blockers.push(Blocker::new(
            format!(
                "{} are free beside {}: {} too little for the node's files and a second copy of its database",
                facts.free,
                node.directory.display(),
                Bytes(needed - facts.free.0)
            ),
            "make room there",
        ));
    }
    if node.control().is_none() && !facts.running.is_quiet() {
        blockers.push(Blocker::new(
            format!(
                "{} is in use, and no way to stop the node is declared: {}",
                node.data.display(),
                facts.running
            ),
            "stop what uses it, and keep it stopped",
        ));
    }
    if !blockers.is_empty() {
        return Err(blockers);
    }

    let id = plan::id_of("release", &mirror.name, facts.now);
    let mut beside = node.directory.file_name().unwrap_or_default().to_owned();
    beside.push(".raidguard-release");
    let target = node.directory.with_file_name(&beside);
    beside.push("-scratch");
    let scratch = node.directory.with_file_name(&beside);
    let manifest = plan::record_of(&id, "manifest");
    let there = facts.state.members.iter().filter(|m| !m.missing);
    let spec = MirrorSpec::of(mirror, &facts.state, there.filter_map(|m| m.path.clone()).collect());

    let mut steps = Vec::new();
    let control = node.control();
    if let Some(control) = &control {
        steps.push(Action::StopNode(StopNode {
            control: control.clone(),
            directory: node.directory.clone(),
            data: node.data.clone(),
            patience: node::PATIENCE,
            backwards: true,
        }));
    }
    steps.push(Action::PlainDirectory(PlainDirectory {
        path: target.clone(),
        directory: node.directory.clone(),
    }));
    steps.push(Action::Copy(CopyTree {
        source: node.data.clone(),
        target: target.clone(),
        bytes: Bytes(facts.survey.bytes),
        manifest: manifest.clone(),
        directory: node.directory.clone(),
        backwards: true,
    }));
    steps.push(Action::Verify(Verify {
        target: target.clone(),
        manifest: manifest.clone(),
        owner: None,
        databases: facts.databases.clone(),
        scratch,
        proof: plan::record_of(&id, "proof"),
        directory: node.directory.clone(),
        backwards: true,
    }));
    steps.push(Action::ExchangeBack(ExchangeBack {
        directory: node.directory.clone(),
        data: node.data.clone(),
        copy: target,
        manifest,
    }));
    let back = |action: Action| Action::TakeBack(TakeBack { of: Box::new(action) });
    let control = control.as_ref();
    if let (Some(unit), true) = (control.and_then(|c| c.unit()), facts.systemd) {
        steps.push(back(Action::DropIn(DropIn {
            unit: unit.to_owned(),
            mountpoint: mirror.mountpoint.clone(),
            mirror: mirror.name.clone(),
            backend: mirror.backend,
            binary: facts.binary.clone(),
        })));
    }
    if let Some(control) = control {
        steps.push(Action::StartNode(StartNode { control: control.clone(), data: node.directory.clone() }));
    }
    if let Some(with) = mirror.schedule.as_ref().map(|s| s.with) {
        let mut mirrors = facts.others.clone();
        mirrors.push(mirror.clone());
        let before = facts.others.clone();
        steps.push(back(Action::Schedule(InstallSchedule {
            with,
            mirrors,
            before,
            binary: facts.binary.clone(),
        })));
    }
    steps.push(back(Action::MountMirror(MountMirror { spec: spec.clone() })));
    steps.extend(known(facts, &id).map(Action::KnowArray).map(back));
    let at_boot = facts.added.iter().find(|a| matches!(a, Action::Fstab(_) | Action::BootPool(_))).cloned();
    let line = || {
        let entry = backend::of(mirror.backend).fstab_entry(&spec)?;
        let comment = format!("{} mirror, written by raidguard", mirror.name);
        Some(Action::Fstab(Fstab { entry, comment, systemd: facts.systemd }))
    };
    steps.extend(at_boot.or_else(line).map(back));
    // A mount point that somebody else made stays.
    let ours = |a: &&Action| matches!(a, Action::MountPoint(m) if m.immutable || !m.missing.is_empty());
    steps.extend(facts.added.iter().find(ours).cloned().map(back));
    steps.push(back(Action::Declare(Declare { spec, mirror: mirror.clone() })));
    Ok(Plan::new("release", &mirror.name, facts.now, steps).naming(&facts.inventory))
}
