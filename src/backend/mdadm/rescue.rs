//! What is left of an array, and how it is opened: a member of a raid1 holds all of the filesystem, so it is mounted from there without an
//! array. No half of one can be assembled by udev that way, and a system without md will do. Of a raid10 one member of each pair is put
//! together by device-mapper: nothing is compared, filled or counted as it would be in an array.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use super::{
    Mdadm,
    observe::{self, number_of},
    shares, stop,
    superblock::Superblock,
    sysfs::Array,
};
use crate::{
    backend::{
        BackendError, blocks,
        rescue::{Freshness, History, Mended, Relation, Remains, Rescue, Rung, Survivor, Way},
    },
    exec::Cmd,
    host::{Host, files::Doing as _, mountinfo, overlay::Striped},
    model::{BackendKind, Bytes},
};

/// The first mount replays the filesystem's log, so it is one for writing: what it writes goes to the overlay.
const RUNGS: [Rung; 2] = [
    Rung {
        name: "alone",
        says: "mounted without an array, with all that was fsynced",
        freshness: Freshness::Newest,
        lacks: None,
        when_allowed: false,
        way: Way::Mount("rw,noatime,nosuid,nodev,noexec"),
    },
    Rung {
        name: "no-log",
        says: "mounted without an array, and without replaying the filesystem's log",
        freshness: Freshness::Old,
        lacks: Some(
            "what the log holds and was not yet written to its place: the last seconds, and whatever was fsynced in them",
        ),
        when_allowed: true,
        way: Way::Mount("ro,norecovery,nosuid,nodev,noexec"),
    },
];

impl Rescue for Mdadm {
    fn remains(&self, host: &Host) -> Result<Vec<Remains>, BackendError> {
        remains(host)
    }

    fn relate(
        &self,
        host: &Host,
        one: &Survivor,
        other: &Survivor,
        _: &[Survivor],
    ) -> Result<Relation, BackendError> {
        let read = |survivor: &Survivor| {
            let path = &survivor.path;
            Superblock::read(&host.path(path)).doing("reading the superblock of", path)
        };
        Ok(match (read(one)?, read(other)?) {
            (Some(one), Some(other)) => by_superblocks(&one, &other),
            _ => Relation::Unclear,
        })
    }

    fn rungs(&self) -> &'static [Rung] {
        &RUNGS
    }

    fn forget_commands(&self, _: &[PathBuf]) -> Vec<Cmd> {
        Vec::new()
    }

    fn forget(&self, host: &Host, devices: &[PathBuf]) -> Result<Vec<Cmd>, BackendError> {
        let names: Vec<_> = devices.iter().map(|device| blocks::kernel_name(host, device)).collect();
        let holds = |array: &Array| array.devices.iter().any(|d| names.contains(&d.name));
        let mounts = mountinfo::read(host)?;
        let mounted = |array: &Array| !places(host, &mounts, array).is_empty();
        let held = Array::all(host)?.into_iter().filter(|array| holds(array) && !mounted(array));
        Ok(held.map(|array| stop(&array.state.device)).collect())
    }

    fn shares(&self, survivors: &[Survivor]) -> Result<Option<Striped>, String> {
        shares::together(survivors)
    }

    fn mount_commands(
        &self,
        options: &str,
        survivors: &[Survivor],
        overlays: &[PathBuf],
        place: &Path,
    ) -> Vec<Cmd> {
        if let ([joined], Some(_)) = (overlays, survivors.iter().find_map(|s| s.share)) {
            return vec![Cmd::change("mount").args(["-o", options]).arg(joined).arg(place)];
        }
        let whole =
            survivors.iter().zip(overlays).filter_map(|(s, overlay)| Some((s, s.data.clone()?, overlay)));
        let Some((_, data, overlay)) = whole.min_by_key(|(s, ..)| s.lacks.is_some()) else {
            return Vec::new();
        };
        // The loop device goes with the mount.
        let window = format!("{options},loop,offset={},sizelimit={}", data.start, data.end - data.start);
        vec![Cmd::change("mount").args(["-o", &window]).arg(overlay).arg(place)]
    }

    fn mend(&self, _: &Host, _: &[Survivor], _: usize, _: &Path) -> Result<Option<Mended>, BackendError> {
        Ok(None)
    }

    fn used(&self, _: &Host, _: &Survivor, _: &[Survivor]) -> Option<Vec<Range<u64>>> {
        None
    }

    fn mounted(&self, _: &Host, _: &str) -> Result<(Vec<PathBuf>, Option<u64>), BackendError> {
        // What is mounted is the overlay that was named, and nothing that the kernel could have chosen.
        Ok((Vec::new(), None))
    }
}

/// Where the filesystem of an array is mounted.
fn places(host: &Host, mounts: &[mountinfo::Mount], array: &Array) -> Vec<PathBuf> {
    let ours = |m: &&mountinfo::Mount| {
        m.source.starts_with("/dev") && blocks::kernel_name(host, &m.source) == array.name
    };
    mounts.iter().filter(ours).map(|m| m.mountpoint.clone()).collect()
}

/// What is left of every array, by the superblocks on all block devices.
fn remains(host: &Host) -> Result<Vec<Remains>, BackendError> {
    let mounts = mountinfo::read(host)?;
    let mut mounted = std::collections::BTreeMap::new();
    for array in Array::all(host)? {
        let at = places(host, &mounts, &array);
        if let Some(uuid) = array.uuid(host)?.filter(|_| !at.is_empty()) {
            mounted.insert(uuid, at);
        }
    }
    let mut found: Vec<Remains> = Vec::new();
    for seen in observe::candidates(host)? {
        let (Ok(Some(sb)), Some(size)) = (&seen.superblock, seen.size) else { continue };
        // A spare holds nothing.
        let Some(role) = sb.role else { continue };
        let survivor = survivor(&seen.path, size, role, sb);
        match found.iter_mut().find(|r| r.uuid == sb.array) {
            Some(known) => known.survivors.push(survivor),
            None => found.push(Remains {
                backend: BackendKind::Mdadm,
                uuid: sb.array.clone(),
                label: sb.short_name().to_owned(),
                members: u64::from(sb.raid_disks),
                mirrored: matches!(sb.level, 1 | 10),
                mounted: mounted.get(&sb.array).cloned(),
                survivors: vec![survivor],
                begun: Vec::new(),
            }),
        }
    }
    Ok(found)
}

pub(super) fn survivor(path: &Path, size: Bytes, role: u16, sb: &Superblock) -> Survivor {
    let mut faults = Vec::new();
    if sb.filling {
        faults.push("it was being filled, and holds a part of the data only".to_owned());
    }
    let end = sb.data_offset.saturating_add(sb.size);
    if end > size.0 {
        faults.push("it is smaller than its superblock says".to_owned());
    }
    if sb.reshaping {
        faults.push("its data were being laid out anew".to_owned());
    }
    let whole = sb.level == 1 && faults.is_empty();
    let share = if faults.is_empty() { shares::share(sb, role) } else { None };
    Survivor {
        path: path.to_owned(),
        devid: number_of(u64::from(role)),
        uuid: sb.uuid.clone(),
        size,
        generation: sb.events,
        changed: i64::try_from(sb.updated).ok().and_then(|at| Timestamp::from_second(at).ok()),
        faults,
        lacks: sb.holed.then(|| {
            "it has a list of sectors that could not be written to it: what is there is older, or nothing"
                .to_owned()
        }),
        opens: true,
        history: History { commits: vec![(sb.events, 0)], log: 0 },
        data: (whole || share.is_some()).then_some(sb.data_offset..end),
        share,
        alone: whole,
    }
}

/// Events more than this apart are of two states: a crash may come between the writes of two superblocks.
const APART: u64 = 1;

/// How `one` stands to `other`, whose count of events is not smaller: each remembers which devices it was written together with.
pub(super) fn by_superblocks(one: &Superblock, other: &Superblock) -> Relation {
    let behind = other.events.saturating_sub(one.events);
    match (one.shuts_out(other), other.shuts_out(one)) {
        // It went on without the other, which has more events all the same: those can only be of a time of its own.
        (true, _) => Relation::Diverged,
        // The other went on without it.
        (false, true) => Relation::Behind(behind.max(1)),
        (false, false) if behind <= APART => Relation::Same,
        (false, false) => Relation::Behind(behind),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::superblock::tests::block, *};

    fn of(number: u8, events: u8, roles: [u16; 2]) -> Superblock {
        let change = |b: &mut [u8]| {
            b[160] = number;
            b[200] = events;
            for (slot, role) in roles.iter().enumerate() {
                b[256 + 2 * slot..258 + 2 * slot].copy_from_slice(&role.to_le_bytes());
            }
        };
        Superblock::parse(&block(change)).unwrap().unwrap()
    }

    #[test]
    fn halves_are_told_apart_by_whom_they_were_written_with() {
        const GONE: u16 = 0xfffe;
        let both = [0, 1];
        for (one, other, expected) in [
            (of(0, 18, both), of(1, 18, both), Relation::Same),
            (of(0, 18, both), of(1, 19, both), Relation::Same),
            (of(0, 18, both), of(1, 25, both), Relation::Behind(7)),
            (of(0, 18, both), of(1, 30, [GONE, 1]), Relation::Behind(12)),
            (of(0, 30, both), of(1, 30, [GONE, 1]), Relation::Behind(1)),
            (of(0, 25, [0, GONE]), of(1, 30, [GONE, 1]), Relation::Diverged),
            (of(0, 30, [0, GONE]), of(1, 30, [GONE, 1]), Relation::Diverged),
            (of(0, 25, [0, GONE]), of(1, 30, both), Relation::Diverged),
        ] {
            assert_eq!(by_superblocks(&one, &other), expected, "{one:?} {other:?}");
        }
    }
}
