//! What stands in the way of a setup, but for the devices themselves.

use std::path::Path;

use super::{Facts, NodeChoice, Request};
use crate::{
    config,
    host::mountinfo,
    model::NodeControl,
    ops::{Blocker, resumed},
};

/// What is declared, begun or configured already.
pub(super) fn conflicts(request: &Request, facts: &Facts, blockers: &mut Vec<Blocker>) {
    if let Err(e) = config::check_name(&request.name) {
        blockers.push(Blocker::new(e.to_string(), "choose another --name"));
    }
    if facts.config.mirror.iter().any(|m| m.name == request.name) {
        blockers.push(Blocker::new(
            format!("a mirror `{}` is declared already", request.name),
            "choose another --name, or take the node off it with `raidguard release`",
        ));
    }
    blockers.extend(facts.unfinished.iter().map(|(verb, mirror)| resumed::in_the_way(verb, mirror)));
    if let Some(why) = &facts.unsupported {
        blockers.push(Blocker::new(why.clone(), "load the kernel module, or use a kernel that has it"));
    }
    if let Some(conflict) = &facts.fstab_conflict {
        blockers.push(Blocker::new(conflict.clone(), "choose another --mountpoint, or clear that line"));
    }
    if let Some(conflict) = facts.pool.as_ref().and_then(|pool| pool.conflict.clone()) {
        blockers.push(Blocker::new(conflict, "choose another --name"));
    }
    if let Some(conflict) = facts.array.as_ref().and_then(|array| array.conflict.clone()) {
        blockers.push(Blocker::new(conflict, "choose another --name, or clear that line"));
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
pub(super) fn placement(request: &Request, facts: &Facts, blockers: &mut Vec<Blocker>) {
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
pub(super) fn node_control(
    request: &Request,
    facts: &Facts,
    blockers: &mut Vec<Blocker>,
) -> Option<NodeControl> {
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
                    format!(
                        "name its unit with --node-unit; or its commands, such as --node-stop 'runuser -u USER -- lightning-cli \
                         --lightning-dir={dir} stop' --node-start 'runuser -u USER -- lightningd --lightning-dir={dir} --daemon'; or \
                         stop it yourself",
                        dir = request.directory.display()
                    ),
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

/// What the operator should know where no node runs now, but a unit for one is there.
pub(in crate::ops) fn unguarded(directory: &Path, unit: &str) -> String {
    format!(
        "nothing runs in {} now, so no node's unit is tied to the mirror, and none is kept from starting without it; if {unit} is this \
         node's, say --node-unit {unit}",
        directory.display()
    )
}
