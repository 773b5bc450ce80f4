//! `adopt`: takes a mirror that is there already into care. Nothing on it is changed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    Blocker, Exit, Trouble, execute, mirrors, resumed, rule,
    setup::{self, Manner, NodeChoice, SchedulerChoice},
    trouble::{need_root, unchanged},
};
use crate::{
    backend::{self, MirrorSpec},
    config::{self, Member, Mirror, Node, ScheduleConfig},
    host::{
        Host, inventory, lock,
        schedule::{self, Rule},
    },
    model::{
        BackendKind, Filesystem, Inventory, Level, NodeControl, NodeKind, Scheduler,
        inventory::Device,
        mirror::{ChunkKind, MemberState, MirrorState},
    },
    node,
    plan::{
        self, Plan,
        steps::{Action, Declare, DropIn, Initramfs, InstallSchedule, KnowArray},
    },
    ui::{self, Console},
};

/// What `adopt` was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Where the mirror is mounted.
    pub mountpoint: PathBuf,
    /// What it is to be called.
    pub name: String,
    /// The node's directory, and whether it was named rather than guessed.
    pub directory: Option<(PathBuf, bool)>,
    /// How the node is stopped and started.
    pub node: NodeChoice,
    /// What runs the regular jobs.
    pub scheduler: SchedulerChoice,
}

/// What was found.
#[derive(Debug, Clone)]
struct Facts {
    kind: BackendKind,
    uuid: String,
    state: MirrorState,
    filesystem: Option<Filesystem>,
    inventory: Inventory,
    declared: Vec<Mirror>,
    /// Operations that have not ended: verb and mirror.
    unfinished: Vec<(String, String)>,
    /// The node's directory and the place on the mirror where it ends.
    node: Option<(PathBuf, PathBuf, NodeKind)>,
    unit: Option<String>,
    /// A node's unit that is there and runs nothing on it, where the operator named none.
    idle: Option<String>,
    with: Result<Option<Scheduler>, String>,
    /// The rule by which udev will keep its halves apart, where one runs here.
    rule: Option<Rule>,
    initramfs: Option<Initramfs>,
    systemd: bool,
    binary: PathBuf,
    now: jiff::Timestamp,
}

/// Runs `adopt`.
///
/// # Errors
/// Refused, with every blocker named, or stopped on its way.
pub fn adopt(host: &Host, request: &Request, manner: Manner, console: &mut Console) -> Result<Exit, Trouble> {
    need_root("adopt")?;
    config::check_name(&request.name).map_err(|e| Trouble::Usage(e.to_string()))?;
    let _lock = lock::take(host, &request.name, "adopt")?;
    let facts = gather(host, request)?;
    let plan = decide(request, &facts).map_err(Trouble::Refused)?;
    match &facts.node {
        Some((directory, data, _)) => {
            console.say(format_args!(
                "the node: {} on the mirror at {}",
                directory.display(),
                data.display()
            ));
        }
        None => console.say("no node's directory leads to this mirror; name one with --lightning-dir"),
    }
    if let (Some((directory, _, _)), Some(unit)) = (&facts.node, &facts.idle) {
        console.warn(setup::unguarded(directory, unit));
    }
    let shown = ui::plan(&plan, &[], manner.dry_run);
    if manner.dry_run {
        console.data(shown);
        return Ok(Exit::Done);
    }
    console.say(shown);
    execute::confirm(console, manner.yes, "Nothing on the mirror is changed.")?;
    execute::start(host, plan, console)?;
    console.say(format_args!(
        "\nThe mirror `{}` is in raidguard's care. Look at it any time with: raidguard status",
        request.name
    ));
    Ok(Exit::Done)
}

fn gather(host: &Host, request: &Request) -> Result<Facts, Trouble> {
    let place = &request.mountpoint;
    let looked = "the mirror cannot be looked at";
    let (kind, uuid) = found_at(host, place)?.ok_or_else(|| {
        Trouble::refused(
            format!("no btrfs, array of md or pool of ZFS is mounted at {}", place.display()),
            "mount it there first, without `degraded`; `findmnt` shows what is mounted",
        )
    })?;
    let backend = backend::of(kind);
    let state = backend.observe(host, &uuid, place).map_err(unchanged(looked))?;
    let filesystem = backend.filesystem(host, &state).map_err(unchanged(looked))?;
    let node = match (&request.node, &request.directory) {
        (NodeChoice::None, _) | (_, None) => None,
        (_, Some((directory, named))) => find_node(directory, *named, place)?,
    };
    let (unit, idle) = match (&request.node, &node) {
        (NodeChoice::Unit(unit), _) => (Some(unit.clone()), None),
        (choice @ NodeChoice::Detect, Some((_, data, _))) => {
            let running = node::find_running(host, data, None)
                .map_err(unchanged("it cannot be told whether a node is running"))?;
            let idle = setup::idle(host, choice, &running);
            (running.unit, idle)
        }
        _ => (None, None),
    };
    let binary = std::env::current_exe().map_err(unchanged("raidguard's own path cannot be read"))?;
    let wanted = rule::is_wanted(host, kind, &uuid).map_err(unchanged(looked))?;
    let rule = Rule::for_mirror(kind, &request.name, &uuid, place, &binary).filter(|_| wanted);
    Ok(Facts {
        kind,
        uuid,
        state,
        filesystem,
        inventory: inventory::gather(host).map_err(unchanged("the block devices cannot be read"))?,
        declared: mirrors::declared(host)?,
        unfinished: setup::unfinished(host)?,
        node,
        unit,
        idle,
        with: match request.scheduler {
            SchedulerChoice::None => Ok(None),
            SchedulerChoice::With(with) => Ok(Some(with)),
            SchedulerChoice::Auto => schedule::detect(host).map(Some).map_err(|e| e.to_string()),
        },
        rule,
        initramfs: Initramfs::of(host),
        systemd: schedule::is_systemd(host),
        binary,
        now: host.now(),
    })
}

/// What is mounted there, and its UUID.
fn found_at(host: &Host, place: &Path) -> Result<Option<(BackendKind, String)>, Trouble> {
    for kind in backend::ALL {
        let uuid = backend::of(kind).uuid_at(host, place).map_err(unchanged("the mounts cannot be read"))?;
        if let Some(uuid) = uuid {
            return Ok(Some((kind, uuid)));
        }
    }
    Ok(None)
}

/// The node's directory, where it ends on the mirror. One that was only guessed may well be none.
fn find_node(
    directory: &Path,
    named: bool,
    mountpoint: &Path,
) -> Result<Option<(PathBuf, PathBuf, NodeKind)>, Trouble> {
    let real = match fs::canonicalize(directory) {
        Ok(real) => real,
        Err(_) if !named => return Ok(None),
        Err(e) => {
            return Err(Trouble::refused(
                format!("{} cannot be read: {e}", directory.display()),
                "name the node's directory with --lightning-dir",
            ));
        }
    };
    if !real.starts_with(mountpoint) || !real.is_dir() {
        return if named {
            Err(Trouble::refused(
                format!(
                    "{} does not lead to a directory below {}",
                    directory.display(),
                    mountpoint.display()
                ),
                "adopt takes the node as it is; `raidguard setup` moves one onto a mirror that it makes",
            ))
        } else {
            Ok(None)
        };
    }
    let layout = node::read_layout(&real).map_err(unchanged("the node's directory cannot be read"))?;
    Ok(Some((directory.to_owned(), real, layout.kind)))
}

fn decide(request: &Request, facts: &Facts) -> Result<Plan<Action>, Vec<Blocker>> {
    let mut blockers = standing(request, facts);
    let level = level_of(&facts.state).map_err(|b| blockers.push(b)).ok();
    let with = facts.with.clone().unwrap_or_else(|why| {
        blockers.push(Blocker::new(why, "name one with --scheduler, or --scheduler none"));
        None
    });
    let node = node(request, facts).unwrap_or_else(|b| {
        blockers.push(b);
        None
    });
    let schedule =
        with.map(|with| ScheduleConfig::standard(with, facts.kind)).transpose().unwrap_or_else(|e| {
            blockers.push(Blocker::new(e.to_string(), "use --scheduler none, and tell us"));
            None
        });
    let (Some(level), true) = (level, blockers.is_empty()) else { return Err(blockers) };
    if facts.state.members.len() < level.min_members() {
        return Err(vec![Blocker::new("it has fewer members than its level needs", "add a device first")]);
    }
    let mirror = Mirror {
        name: request.name.clone(),
        backend: facts.kind,
        level,
        uuid: facts.uuid.clone(),
        mountpoint: request.mountpoint.clone(),
        filesystem: facts.filesystem.clone(),
        member: members(facts),
        node,
        schedule,
    };
    Ok(Plan::new("adopt", &request.name, facts.now, steps(facts, mirror)).naming(&facts.inventory))
}

/// What stands in the way of taking it as it is.
fn standing(request: &Request, facts: &Facts) -> Vec<Blocker> {
    let mut blockers: Vec<_> =
        facts.unfinished.iter().map(|(verb, of)| resumed::in_the_way(verb, of)).collect();
    for known in &facts.declared {
        if known.uuid == facts.uuid {
            let says = format!("this mirror is declared already, as `{}`", known.name);
            blockers.push(Blocker::new(says, "raidguard status shows it"));
        } else if known.name == request.name {
            let says = format!("a mirror `{}` is declared already", known.name);
            blockers.push(Blocker::new(says, "give this one another --name"));
        } else if known.mountpoint == request.mountpoint {
            let says = format!("the mirror `{}` is declared for {}", known.name, known.mountpoint.display());
            blockers.push(Blocker::new(says, "take that one out of /etc/raidguard/raidguard.toml"));
        }
    }
    for member in facts.state.members.iter().filter(|m| m.missing || m.uuid.is_none()) {
        let says = format!("member {} of it is missing", member.devid);
        blockers.push(Blocker::new(
            says,
            "only a whole mirror is adopted: plug the member in, or replace it first",
        ));
    }
    if let Some(md) = facts.state.md.as_ref().filter(|md| md.metadata != "1.2") {
        blockers.push(Blocker::new(
            format!("the superblocks of {} are of version {}", md.device.display(), md.metadata),
            "only version 1.2 is taken, at the start of each member: a member of another could be taken for a plain filesystem",
        ));
    } else if facts.kind == BackendKind::Mdadm && facts.filesystem.is_none() {
        blockers.push(Blocker::new(
            "what lies on the array is neither XFS nor ext4",
            "only these two are known to raidguard",
        ));
    }
    if facts.state.exclusive_operation.as_deref().is_some_and(|work| work.starts_with("device ")) {
        blockers.push(Blocker::new("its members are being changed", "wait until that is done"));
    }
    blockers
}

/// The level that it is kept at: that of its data, and nothing may be kept at less.
fn level_of(state: &MirrorState) -> Result<Level, Blocker> {
    if let Some(pool) = &state.zfs {
        let level = pool.level.as_deref().unwrap_or("of an unknown level");
        let known = BackendKind::Zfs.levels().iter().find(|known| known.as_str() == level);
        return known.copied().ok_or_else(|| {
            Blocker::new(
                format!("the pool {} is {level}, which is no mirror that raidguard knows", pool.name),
                "only one mirror, raidz1 or raidz2 is adopted",
            )
        });
    }
    if let Some(md) = &state.md {
        let known = BackendKind::Mdadm.levels().iter().find(|level| level.as_str() == md.level);
        return known.copied().ok_or_else(|| {
            Blocker::new(
                format!("{} is {}, which is no mirror that raidguard knows", md.device.display(), md.level),
                "only raid1 and raid10 are adopted",
            )
        });
    }
    let chunks = || state.profiles.iter().filter(|p| p.total.0 > 0);
    let data = chunks().filter(|p| p.kind == ChunkKind::Data).max_by_key(|p| p.total);
    let single = chunks().find(|p| p.copies().is_none_or(|c| c.devices < 2));
    if let Some(found) = single {
        return Err(Blocker::new(
            format!("it is no mirror: its {} is kept as {}", found.kind, found.profile),
            "with two devices or more: btrfs balance start -dconvert=raid1 -mconvert=raid1 MOUNTPOINT",
        ));
    }
    let word = data.map_or("", |p| p.profile.as_str());
    Level::ALL.into_iter().find(|level| level.as_str() == word).ok_or_else(|| {
        Blocker::new(
            format!("its data is kept as `{word}`, which raidguard does not know"),
            "convert it to raid1 first",
        )
    })
}

fn node(request: &Request, facts: &Facts) -> Result<Option<Node>, Blocker> {
    let Some((directory, data, kind)) = facts.node.clone() else { return Ok(None) };
    if data == request.mountpoint {
        return Err(Blocker::new(
            format!("{} is the mount point itself", data.display()),
            "a node whose directory is the mount point makes a new, empty one when the mirror is not mounted: move it into a \
             directory below, and lead a symlink there",
        ));
    }
    let control = match (&request.node, &facts.unit) {
        (NodeChoice::Commands { stop, start }, _) => {
            Some(NodeControl::Commands { stop: stop.clone(), start: start.clone() })
        }
        (_, Some(unit)) => Some(NodeControl::Systemd { unit: unit.clone() }),
        _ => None,
    };
    let node = Node { kind, directory, data, user: None, unit: None, stop: None, start: None };
    Ok(Some(node.with_control(control.as_ref())))
}

/// The members as the filesystem numbers them, with what their disks say of themselves.
fn members(facts: &Facts) -> Vec<Member> {
    let member = |m: &MemberState| {
        let device = m.path.as_deref().and_then(|path| facts.inventory.by_path(path));
        let identity = device.map(Device::identity);
        Member {
            id: m.devid.to_string(),
            uuid: m.uuid.clone().unwrap_or_default(),
            model: identity.as_ref().and_then(|i| i.model.clone()),
            serial: identity.as_ref().and_then(|i| i.serial.clone()),
            size: m.size.or(identity.map(|i| i.size)).unwrap_or_default(),
        }
    };
    facts.state.members.iter().map(member).collect()
}

fn steps(facts: &Facts, mirror: Mirror) -> Vec<Action> {
    let mut steps = Vec::new();
    let unit = mirror.node.as_ref().and_then(|node| node.unit.clone());
    let spec = MirrorSpec::of(
        &mirror,
        &facts.state,
        facts.state.members.iter().filter_map(|m| m.path.clone()).collect(),
    );
    // Declared first: the guard that the drop-in asks must know the mirror.
    steps.push(Action::Declare(Declare { spec, mirror: mirror.clone() }));
    if let Some(rule) = facts.rule.clone() {
        let id = plan::id_of("adopt", &mirror.name, facts.now);
        steps.push(Action::KnowArray(KnowArray::by_rule(rule, facts.initramfs, &id)));
    }
    if let (Some(unit), true) = (unit, facts.systemd) {
        steps.push(Action::DropIn(DropIn {
            unit,
            mountpoint: mirror.mountpoint.clone(),
            mirror: mirror.name.clone(),
            backend: mirror.backend,
            binary: facts.binary.clone(),
        }));
    }
    if let Some(with) = mirror.schedule.as_ref().map(|s| s.with) {
        let before = facts.declared.clone();
        let mut mirrors = before.clone();
        mirrors.push(mirror);
        steps.push(Action::Schedule(InstallSchedule { with, mirrors, before, binary: facts.binary.clone() }));
    }
    steps
}

#[cfg(test)]
mod tests;
