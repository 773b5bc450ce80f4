//! What stands in the way of an exchange. Pure.

use super::{Facts, Request};
use crate::{
    model::{BackendKind, mirror::MemberState},
    ops::{Blocker, resumed},
};

/// What has nothing to do with which member and which device.
pub(in crate::ops) fn standing(online: bool, facts: &Facts, blockers: &mut Vec<Blocker>) {
    let (mirror, state) = (&facts.mirror, &facts.state);
    let unfinished = facts.unfinished.iter().filter(|(_, of)| *of == mirror.name);
    blockers.extend(unfinished.map(|(verb, of)| resumed::in_the_way(verb, of)));
    let mut block = |says: String, clears: String| blockers.push(Blocker::new(says, clears));
    let at = mirror.mountpoint.display();
    if let Some(other) = &state.instead {
        block(format!("{at} shows another filesystem than the mirror: {other}"), format!("umount {at}"));
    }
    if state.read_only {
        block(
            format!("the mirror is read-only at {at}"),
            format!("read the reason in dmesg, stop the node, then: umount {at}; mount {at}"),
        );
    }
    if let (false, Some(elsewhere)) = (state.mounted, state.also_mounted.first()) {
        block(
            format!("the mirror is mounted at {}, and not at its place", elsewhere.display()),
            format!("umount {}", elsewhere.display()),
        );
    }
    if let Some(pool) = &state.zfs {
        if pool.checkpoint {
            block(
                format!("the pool {} has a checkpoint, and ZFS exchanges no member beside one", pool.name),
                format!("if you do not need to go back to it: zpool checkpoint -d {}", pool.name),
            );
        }
        if pool.removing {
            block(
                format!("a vdev is being taken out of the pool {}", pool.name),
                "wait until it is".to_owned(),
            );
        }
    }
    // Beside a resilver ZFS begins another one, now or when it has ended: that of an exchange that was given up goes on to its end.
    let resilvers = state.zfs.as_ref().is_some_and(|pool| !pool.rebuilding);
    if let Some(work) = state.exclusive_operation.as_ref().filter(|_| !resilvers) {
        block(format!("the kernel is at work on the mirror: {work}"), "wait until it has ended".to_owned());
    }
    if facts.scrubbing {
        block(
            "a scrub is running".to_owned(),
            match &state.md {
                None => format!("wait until it has ended, or: btrfs scrub cancel {at}"),
                Some(md) => {
                    format!("wait until it has ended, or: mdadm --action=idle {}", md.device.display())
                }
            },
        );
    }
    if let Some(node) = mirror.node.as_ref().filter(|n| n.control().is_none() && !online) {
        if !facts.running.is_quiet() {
            block(
                format!(
                    "{} is in use, and no way to stop the node is declared: {}",
                    node.data.display(),
                    facts.running
                ),
                "stop what uses it, or leave it running with --online".to_owned(),
            );
        }
    }
    blockers.extend(older(facts));
    blockers.extend(leftovers(facts));
}

/// Beside a device that an exchange which was given up has left the kernel mounts nothing.
fn leftovers(facts: &Facts) -> Vec<Blocker> {
    let left = facts.claims.iter().filter(|c| c.devid == 0 && !facts.state.mounted);
    let left = left.map(|claim| {
        let path = claim.path.display();
        Blocker::new(
            format!("{path} says that it is being made a member, and beside it the mirror cannot be mounted"),
            format!(
                "unplug it, or erase it: wipefs --all --types btrfs {path}; btrfs device scan --forget {path}"
            ),
        )
    });
    left.collect()
}

/// What is here is older than what raidguard has seen: the newer half is elsewhere, and this one must not be taken for the newest.
pub(super) fn older(facts: &Facts) -> Option<Blocker> {
    let (known, newest) = (facts.known?, facts.state.newest()?);
    (newest < known).then(|| {
        Blocker::new(
            format!(
                "what is here is old: its last commit is {newest}, and raidguard has seen commit {known} of this mirror. \
                 The newer state is on a member that is not here"
            ),
            "plug that member in; it holds the newest data",
        )
    })
}

/// Nothing of the mirror is there to be copied from.
pub(in crate::ops) fn none_here(facts: &Facts) -> Option<Blocker> {
    let ids = facts.ids();
    (!ids.is_empty() && facts.gone().len() == ids.len()).then(|| {
        Blocker::new(
            format!("no member of `{}` is there", facts.mirror.name),
            "plug one in; `raidguard devices` shows every device that is seen",
        )
    })
}

/// Which member goes.
pub(super) fn old_member(request: &Request, facts: &Facts) -> Result<u64, Blocker> {
    let ids = facts.ids();
    let all = || ids.iter().map(|id| facts.name_of(*id)).collect::<Vec<_>>().join("; ");
    let gone = facts.gone();
    if let Some(none) = none_here(facts) {
        return Err(none);
    }
    match request.old.as_deref() {
        None | Some("missing") => match gone.as_slice() {
            [one] => match returned(facts, *one) {
                None => Ok(*one),
                Some(blocker) => Err(blocker),
            },
            [] => {
                Err(Blocker::new("no member is missing", format!("say with --old which one goes: {}", all())))
            }
            more => Err(Blocker::new(
                format!("{} members are missing", more.len()),
                format!(
                    "say with --old which one this device takes the place of: {}",
                    more.iter().map(|id| facts.name_of(*id)).collect::<Vec<_>>().join("; ")
                ),
            )),
        },
        Some(named) => {
            let by_number = named.parse().ok().filter(|id: &u64| ids.contains(id));
            let by_device = || match &facts.old {
                Some(Ok(dev)) => {
                    let device = facts.inventory.by_dev(*dev)?;
                    let is = |m: &&MemberState| m.path.as_ref() == Some(&device.path);
                    facts.state.members.iter().find(is).map(|m| m.devid)
                }
                // A device that is gone may be known by the name it had.
                _ => facts
                    .state
                    .members
                    .iter()
                    .find(|m| m.path.as_deref() == Some(std::path::Path::new(named)))
                    .map(|m| m.devid),
            };
            let id = by_number.or_else(by_device).filter(|id| *id != 0).ok_or_else(|| {
                Blocker::new(format!("`{named}` is no member of the mirror"), format!("it has: {}", all()))
            })?;
            // A member that ZFS has given up may be exchanged while it is there: the new one has another number.
            let apart = gone.contains(&id) && facts.pool.is_none();
            match apart.then(|| returned(facts, id)).flatten() {
                None => Ok(id),
                Some(blocker) => Err(blocker),
            }
        }
    }
}

/// A member that is missing for the kernel, and whose device is back: after the exchange two would say that they are it.
fn returned(facts: &Facts, id: u64) -> Option<Blocker> {
    let claim = facts.claims.iter().find(|c| c.devid == id && !facts.is_leftover(c))?;
    // One that was pulled and is still open has no superblock that can be read.
    Some(Blocker::new(
        format!(
            "member {id} is missing from the running mirror, but its device is back: {}",
            claim.path.display()
        ),
        match &facts.pool {
            None => "`raidguard repair` takes it in again; to exchange it all the same, unplug it first"
                .to_owned(),
            Some(_) => {
                format!("`raidguard repair` takes it in again; to exchange it all the same: --old {id}")
            }
        },
    ))
}

/// Into which place of an array a device comes nobody can say: the kernel fills the first that is empty (`raid1_add_disk`).
pub(super) fn first_place(facts: &Facts, old: u64) -> Option<Blocker> {
    let first = facts.gone().into_iter().min().filter(|_| facts.mirror.backend == BackendKind::Mdadm)?;
    (first != old).then(|| {
        Blocker::new(
            format!("{} is missing, and the kernel fills member {first} first", facts.name_of(first)),
            format!("exchange that one first: --old {first}"),
        )
    })
}

const PLUG_IN: &str =
    "plug the missing member in again; what can be read without it is brought out by `raidguard recover`";

/// Whether what is left can be mounted and read without those that are gone.
pub(super) fn reach(facts: &Facts, old: u64, blockers: &mut Vec<Blocker>) {
    let layout = match &facts.layout {
        Ok(layout) => layout,
        Err(why) if !facts.gone().is_empty() => {
            blockers.push(Blocker::new(
                format!("what lies on which member cannot be read without those that are gone: {why}"),
                PLUG_IN,
            ));
            return;
        }
        Err(why) => {
            blockers.push(Blocker::new(
                format!("what lies on which member cannot be read: {why}"),
                "see in dmesg which device fails",
            ));
            return;
        }
    };
    if layout.size_of(old).is_none() {
        blockers.push(Blocker::new(
            format!("the mirror knows no member {old}"),
            match &facts.pool {
                None => "compare `btrfs filesystem show` with /etc/raidguard/raidguard.toml",
                Some(_) => "compare `zpool status -g` with /etc/raidguard/raidguard.toml",
            },
        ));
    }
    // What is mounted was let in by the kernel.
    if facts.state.mounted {
        return;
    }
    let gone = facts.gone();
    let lost: Vec<_> = layout.lost_without(&gone).collect();
    if let Some(first) = lost.first() {
        let size: u64 = lost.iter().map(|p| p.length.0).sum();
        blockers.push(Blocker::new(
            format!(
                "{} of the mirror lie only on members that are gone ({}): it cannot be mounted for writing without them",
                crate::model::Bytes(size),
                first.kind
            ),
            PLUG_IN,
        ));
    }
}
