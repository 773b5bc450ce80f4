//! What is asked of the machine before anything is decided.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Request, decide::Asked};
use crate::{
    backend::{self, rescue::Remains},
    config::{self, Mirror},
    host::{
        Host, inventory,
        mountinfo::{self, Mount},
        state::State,
    },
    model::{Inventory, Record, observed::causes},
    ops::{Blocker, Trouble, mirrors, trouble::unchanged},
    ui::{Console, MirrorReport, SurvivorReport},
};

/// The machine, as far as a rescue needs to know it.
pub(super) struct Facts {
    pub(super) remains: Vec<Remains>,
    pub(super) declared: Vec<Mirror>,
    pub(super) inventory: Inventory,
    pub(super) mounts: Arc<Vec<Mount>>,
    pub(super) asked: Asked,
    /// What was named and is no block device.
    pub(super) blockers: Vec<Blocker>,
}

pub(super) fn gather(host: &Host, request: &Request, console: &Console) -> Result<Facts, Trouble> {
    let mut remains = Vec::new();
    for kind in backend::ALL {
        let found = backend::of(kind).rescue().remains(host);
        remains.extend(found.map_err(unchanged("the block devices cannot be looked through"))?);
    }
    // A rescue must not fail for what a broken system has lost: its declaration is of use, no more.
    let declared = mirrors::declared(host).unwrap_or_else(|e| {
        let why = match &e {
            Trouble::Failed { source: Some(source), .. } => causes(source.as_ref()),
            other => other.to_string(),
        };
        console.warn(format_args!("the declaration of mirrors cannot be read, and is left aside: {why}"));
        Vec::new()
    });
    let inventory = inventory::list(host).map_err(unchanged("the block devices cannot be read"))?;
    let survivors: Vec<_> = remains.iter().flat_map(|r| &r.survivors).map(|s| s.path.clone()).collect();
    let mut blockers = Vec::new();
    let mut from = Vec::new();
    for path in &request.from {
        match inventory::resolve(host, path) {
            Ok(_) => {
                let named = kernels(host, path);
                let part = inventory.partition_among(&named, &survivors).map(|part| part.path.clone());
                from.push(part.unwrap_or(named));
            }
            Err(e) => {
                blockers.push(Blocker::new(e.to_string(), "raidguard devices shows every block device"))
            }
        }
    }
    Ok(Facts {
        remains,
        declared,
        inventory,
        mounts: mountinfo::read(host).map_err(unchanged("the mounts cannot be read"))?,
        asked: Asked { from },
        blockers,
    })
}

/// A device's path by the kernel's name, all symlinks followed.
fn kernels(host: &Host, path: &Path) -> PathBuf {
    let real = fs::canonicalize(host.path(path)).unwrap_or_else(|_| path.to_owned());
    let root = fs::canonicalize(host.path("/")).unwrap_or_default();
    real.strip_prefix(&root).map_or_else(|_| real.clone(), |inside| Path::new("/").join(inside))
}

impl Facts {
    /// A mirror and its survivors as they are shown; which are read is said later.
    pub(super) fn report(&self, host: &Host, remains: &Remains) -> (MirrorReport, Vec<SurvivorReport>) {
        let name =
            self.declared.iter().find(|m| m.uuid.eq_ignore_ascii_case(&remains.uuid)).map(|m| m.name.clone());
        let mirror = MirrorReport {
            backend: remains.backend,
            uuid: remains.uuid.clone(),
            label: remains.label.clone(),
            name,
            members: remains.members,
        };
        let survivors = remains.survivors.iter().map(|survivor| {
            let device =
                inventory::resolve(host, &survivor.path).ok().and_then(|dev| self.inventory.by_dev(dev));
            SurvivorReport {
                device: survivor.path.clone(),
                model: device.and_then(|d| d.model.clone()),
                serial: device.and_then(|d| d.serial.clone()),
                size: survivor.size,
                devid: survivor.devid,
                generation: survivor.generation,
                changed: survivor.changed,
                faults: survivor.faults.clone(),
                lacks: survivor.lacks.clone(),
                share: survivor.share.map_or(0, |share| share.number),
                used: false,
                left_out: None,
                unchanged: None,
                proof: None,
            }
        });
        (mirror, survivors.collect())
    }
}

/// What raidguard remembers of a mirror: by its name where it is declared, else by its label, which setup makes the same.
pub(super) fn recorded(host: &Host, mirror: &MirrorReport, console: &Console) -> Option<Record> {
    let name = mirror
        .name
        .clone()
        .or_else(|| config::check_name(&mirror.label).ok().map(|()| mirror.label.clone()))?;
    match State::open_existing(host).and_then(|state| state.map(|state| state.record(&name)).transpose()) {
        Ok(record) => record,
        Err(e) => {
            console.warn(format_args!(
                "raidguard's own record cannot be read, so nothing can be compared with it: {}",
                causes(&e)
            ));
            None
        }
    }
}
