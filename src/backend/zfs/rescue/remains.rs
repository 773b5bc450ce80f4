//! What is left of every pool, by the labels on all block devices.

use jiff::Timestamp;

use crate::{
    backend::{
        BackendError, blocks,
        rescue::{History, Remains, Survivor},
        zfs::observe::{self, LIMIT, Labelled},
    },
    exec::Cmd,
    host::{
        Host, mountinfo,
        zfs::{
            Label, PoolState, Vdev,
            kstat::{self, SUSPENDED},
        },
    },
    model::BackendKind,
};

/// Under which name the pool of this number is imported. `called` is its own: a pool that has stopped is not asked for its number.
pub(super) fn imported_as(
    host: &Host,
    guid: &str,
    called: Option<&str>,
) -> Result<Option<String>, BackendError> {
    if !host.path(kstat::POOLS).is_dir() {
        return Ok(None);
    }
    for name in blocks::directories(host, kstat::POOLS)? {
        let Some(state) = kstat::state(host, &name)? else { continue };
        if state == SUSPENDED {
            if called == Some(name.as_str()) {
                return Ok(Some(name));
            }
            continue;
        }
        let ask = Cmd::probe("zpool").args(["get", "-Hpo", "value", "guid", "--", &name]).timeout(LIMIT);
        match host.runner().run(&ask) {
            Ok(said) if said.text().trim() == guid => return Ok(Some(name)),
            Ok(_) => {}
            // It was exported meanwhile.
            Err(_) if kstat::state(host, &name)?.is_none() => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(None)
}

/// What is left of every pool, by the labels on all block devices.
pub(super) fn remains(host: &Host) -> Result<Vec<Remains>, BackendError> {
    let (labelled, unread) = observe::labelled(host)?;
    for why in unread {
        tracing::debug!("{why}");
    }
    let mut guids: Vec<u64> = labelled.iter().filter_map(|l| l.label.pool_guid).collect();
    guids.sort_unstable();
    guids.dedup();
    let pools = guids.into_iter().map(|guid| {
        let ours: Vec<&Labelled> = labelled.iter().filter(|l| l.label.pool_guid == Some(guid)).collect();
        remains_of(host, guid, &ours)
    });
    Ok(pools.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

fn remains_of(host: &Host, guid: u64, ours: &[&Labelled]) -> Result<Option<Remains>, BackendError> {
    let is_member =
        |l: &&&Labelled| l.label.txg > 0 && !matches!(l.label.state, PoolState::Spare | PoolState::Cache);
    let members: Vec<&Labelled> = ours.iter().filter(is_member).copied().collect();
    let Some(newest) = members.iter().map(|l| &l.label).max_by_key(|label| label.txg) else {
        return Ok(None);
    };
    let label = newest.pool.clone().unwrap_or_default();
    let uuid = guid.to_string();
    let mounted = match imported_as(host, &uuid, Some(&label))? {
        None => None,
        Some(name) => {
            let of_it = |m: &&mountinfo::Mount| observe::pool_of(m).as_ref() == Some(&name);
            let mounts = mountinfo::read(host)?;
            Some(mounts.iter().filter(of_it).map(|m| m.mountpoint.clone()).collect())
        }
    };
    let mut tops: Vec<&Vdev> = Vec::new();
    for label in members.iter().map(|l| &l.label) {
        // The newest description of each.
        let tree = label.tree.as_ref().filter(|tree| tops.iter().all(|top| top.guid != tree.guid));
        let of_it = members.iter().map(|l| &l.label).filter(|l| l.top_guid == label.top_guid);
        let best = of_it.max_by_key(|l| l.txg).and_then(|l| l.tree.as_ref());
        tops.extend(tree.and(best));
    }
    let data = tops.iter().filter(|top| !top.is_log);
    let mirrored = data.clone().count() > 0
        && data
            .clone()
            .all(|top| matches!(top.kind.as_str(), "mirror" | "raidz" | "draid") || !top.children.is_empty());
    let survivors: Vec<Survivor> = members.iter().filter_map(|l| survivor(l)).collect();
    let begun = ours.iter().filter(|l| !is_member(l)).map(|l| l.seen.path.clone()).collect();
    Ok((!survivors.is_empty()).then(|| Remains {
        backend: BackendKind::Zfs,
        uuid,
        label,
        members: tops.iter().map(|top| top.leaves().len() as u64).sum(),
        // Nobody means one that was destroyed, if it is not named.
        mirrored: mirrored && newest.state != PoolState::Destroyed,
        mounted,
        survivors,
        begun,
    }))
}

/// A device that holds something of a pool.
fn survivor(labelled: &Labelled) -> Option<Survivor> {
    let labels = labelled.seen.superblock.as_ref().ok()?.as_ref()?;
    let last = labels.last()?;
    let label = labels.at(last.txg)?;
    let own = label.tree.as_ref().and_then(|tree| tree.find(label.guid));
    let top = label.tree.as_ref();
    // A log, and vdevs of which there are several, hold a part of it.
    let alone = label.tops == Some(1)
        && top.is_some_and(|top| matches!(top.kind.as_str(), "mirror" | "disk" | "file"));
    Some(Survivor {
        path: labelled.seen.path.clone(),
        devid: label.guid,
        uuid: label.guid.to_string(),
        size: labelled.seen.size?,
        generation: last.txg,
        changed: i64::try_from(last.timestamp).ok().and_then(|at| Timestamp::from_second(at).ok()),
        faults: labels.faults(),
        lacks: own.and_then(lacks),
        opens: true,
        alone,
        history: History::default(),
        data: None,
        share: None,
    })
}

/// What a device says that it lacks itself.
pub(super) fn lacks(own: &Vdev) -> Option<String> {
    let why = if own.filling.is_some() {
        "it was being filled, and holds a part of the data only"
    } else if own.is_out() {
        "the pool had given it up"
    } else if own.degraded {
        "the pool had found too much on it that was not what had been written"
    } else {
        return None;
    };
    Some(why.to_owned())
}

/// Do devices of a pool with these descriptions hold all of it?
///
/// # Errors
/// How many are missing, in words.
pub(super) fn enough(labels: &[Label]) -> Result<(), String> {
    let mut done = Vec::new();
    for label in labels {
        let Some(tree) =
            label.tree.as_ref().filter(|tree| tree.kind == "raidz" && !done.contains(&tree.guid))
        else {
            continue;
        };
        done.push(tree.guid);
        let is_there = |child: &&Vdev| labels.iter().any(|label| child.find(label.guid).is_some());
        let (all, there) = (tree.children.len(), tree.children.iter().filter(is_there).count());
        let parity = tree.parity.and_then(|parity| usize::try_from(parity).ok()).unwrap_or(1);
        let needed = all.saturating_sub(parity);
        if there < needed {
            return Err(format!(
                "of the {all} devices of a raidz{parity} it takes {needed}, and {there} can be read with the newest state: {} more",
                needed - there
            ));
        }
    }
    Ok(())
}
