//! What is left of a btrfs, and how to open it on overlays.

pub(super) mod crc32c;
pub(super) mod halves;
mod map;
mod past;
mod relate;
mod state;
mod supers;
mod tree;

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::{self, Seek as _, SeekFrom, Write as _},
    ops::Range,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use self::{
    supers::{Copy, Super},
    tree::{Known, Reader},
};
use super::{
    Btrfs,
    replace::FILLING,
    superblock::{OFFSET, SIZE},
    sysfs::SysFs,
};
use crate::{
    backend::{
        BackendError, ParseError, blocks,
        rescue::{Freshness, History, Mended, Relation, Remains, Rescue, Rung, Survivor, Way},
    },
    exec::Cmd,
    host::{Host, files::Doing as _, mountinfo},
    model::{BackendKind, Bytes},
};

/// From the one that loses nothing to the last resort. A log of fsyncs that cannot be replayed fails the first two alike.
const RUNGS: [Rung; 6] = [
    Rung {
        name: "degraded",
        says: "mounted degraded, with all that was fsynced",
        freshness: Freshness::Newest,
        lacks: None,
        when_allowed: false,
        way: Way::Mount("ro,degraded,nosuid,nodev,noexec"),
    },
    Rung {
        name: "backup-root",
        says: "mounted by an earlier root that the superblock remembers",
        freshness: Freshness::Old,
        lacks: Some("the last transactions: up to some minutes, or whatever was fsynced in them"),
        when_allowed: false,
        way: Way::Mount("ro,degraded,rescue=usebackuproot,nosuid,nodev,noexec"),
    },
    Rung {
        name: "no-log",
        says: "mounted without what was fsynced since the last transaction",
        freshness: Freshness::Old,
        lacks: Some("whatever was fsynced since the last transaction: 30 seconds and more"),
        when_allowed: true,
        way: Way::Mount("ro,degraded,rescue=nologreplay,nosuid,nodev,noexec"),
    },
    Rung {
        name: "no-log-backup-root",
        says: "mounted by an earlier root, without what was fsynced",
        freshness: Freshness::Old,
        lacks: Some("the last transactions, and whatever was fsynced"),
        when_allowed: true,
        way: Way::Mount("ro,degraded,rescue=usebackuproot:nologreplay:ignorebadroots,nosuid,nodev,noexec"),
    },
    Rung {
        name: "all",
        says: "mounted with every rescue option: content is not checked any more",
        freshness: Freshness::Old,
        lacks: Some(
            "whatever was fsynced since the last transaction; and damaged content is not noticed by btrfs",
        ),
        when_allowed: true,
        way: Way::Mount("ro,degraded,rescue=all,nosuid,nodev,noexec"),
    },
    Rung {
        name: "restore",
        says: "read out by `btrfs restore`, without a mount",
        freshness: Freshness::Old,
        lacks: Some("whatever was fsynced since the last transaction; and `btrfs restore` checks no content"),
        when_allowed: true,
        way: Way::Extract,
    },
];

impl Rescue for Btrfs {
    fn remains(&self, host: &Host) -> Result<Vec<Remains>, BackendError> {
        remains(host)
    }

    fn relate(
        &self,
        host: &Host,
        one: &Survivor,
        newest: &Survivor,
        all: &[Survivor],
    ) -> Result<Relation, BackendError> {
        Ok(relate::relate(host, one, newest, all))
    }

    fn rungs(&self) -> &'static [Rung] {
        &RUNGS
    }

    fn forget_commands(&self, devices: &[PathBuf]) -> Vec<Cmd> {
        // One that it does not know is no error (exit code 1).
        let forget =
            |device| Cmd::change("btrfs").args(["device", "scan", "--forget"]).arg(device).accept(&[0, 1]);
        devices.iter().map(forget).collect()
    }

    fn mount_commands(&self, options: &str, _: &[Survivor], overlays: &[PathBuf], place: &Path) -> Vec<Cmd> {
        let Some(first) = overlays.first() else { return Vec::new() };
        let named: String = overlays.iter().map(|device| format!(",device={}", device.display())).collect();
        let mount = Cmd::change("mount").args(["-t", "btrfs", "-o", &format!("{options}{named}")]);
        vec![mount.arg(first).arg(place)]
    }

    fn extract_command(&self, overlay: &Path, to: &Path) -> Option<Cmd> {
        let restore = Cmd::change("btrfs").args(["restore", "-i", "-m", "-S", "-x"]);
        Some(restore.arg(overlay).arg(to).without_limit())
    }

    fn mend(
        &self,
        host: &Host,
        survivors: &[Survivor],
        index: usize,
        overlay: &Path,
    ) -> Result<Option<Mended>, BackendError> {
        let Some((leader, survivor)) = survivors.first().zip(survivors.get(index)) else { return Ok(None) };
        mend(host, leader, survivor, survivors, overlay)
    }

    fn used(&self, host: &Host, survivor: &Survivor, all: &[Survivor]) -> Option<Vec<Range<u64>>> {
        let known = relate::known(host, all);
        let path = host.path(&survivor.path);
        let (_, best) = known.iter().find(|(known, _)| *known == path)?;
        let mut used = Reader::open(&path, best, &known).ok()?.used()?;
        used.extend(supers::PLACES.map(|place| place..place + SIZE as u64));
        used.retain(|range| range.end <= survivor.size.0);
        Some(used)
    }

    fn mounted(&self, host: &Host, uuid: &str) -> Result<(Vec<PathBuf>, Option<u64>), BackendError> {
        mounted(host, uuid)
    }
}

/// A device with a good superblock.
struct Member {
    path: PathBuf,
    size: Bytes,
    /// The newest good copy.
    best: Super,
    /// What is wrong with the others.
    faults: Vec<String>,
    /// Whether it is the first, by which the kernel mounts.
    opens: bool,
}

/// What is left of every btrfs, by the superblocks on all block devices.
fn remains(host: &Host) -> Result<Vec<Remains>, BackendError> {
    let mut found: BTreeMap<String, Vec<Member>> = BTreeMap::new();
    for (path, size) in blocks::block_devices(host, |_| false)? {
        let copies = match supers::read(&host.path(&path)) {
            Ok(copies) => copies,
            Err(e) => {
                tracing::debug!("{} cannot be read: {e}", path.display());
                continue;
            }
        };
        if let Some((best, faults, opens)) = best_of(copies) {
            let member = Member { path, size, best, faults, opens };
            found.entry(member.best.own.fsid.clone()).or_default().push(member);
        }
    }
    let mounts = mountinfo::read(host)?;
    found
        .into_iter()
        .map(|(uuid, members)| {
            let (begun, members) = apart(members);
            let newest = members.iter().map(|m| &m.best).max_by_key(|sb| sb.own.generation);
            let (label, count) = newest.map(|sb| (sb.label.clone(), sb.own.num_devices)).unwrap_or_default();
            let mirrored = count > 1 && members.iter().any(|m| m.best.mirrored);
            let mounted = match SysFs::find(host, &uuid)? {
                None => None,
                Some(dir) => {
                    let names = dir.devices()?;
                    let ours = |mount: &&mountinfo::Mount| {
                        mount.fstype == "btrfs" && names.contains(&blocks::kernel_name(host, &mount.source))
                    };
                    Some(mounts.iter().filter(ours).map(|mount| mount.mountpoint.clone()).collect())
                }
            };
            let known: Vec<Known> = members.iter().map(|m| (host.path(&m.path), m.best.clone())).collect();
            let survivors = members
                .into_iter()
                .map(|member| {
                    let reader = Reader::open(&host.path(&member.path), &member.best, &known).ok();
                    let changed = reader.as_ref().and_then(|reader| reader.changed(member.best.state()));
                    let map = reader.as_ref().and_then(Reader::map);
                    let alone = map.is_none_or(|map| map.is_whole_on(member.best.own.devid));
                    Survivor { changed, alone, ..survivor(member) }
                })
                .collect();
            Ok(Remains {
                backend: BackendKind::Btrfs,
                uuid,
                label,
                members: count,
                mirrored,
                mounted,
                survivors,
                begun,
            })
        })
        .collect()
}

/// Devices that were being filled, and the members. One that has got its place is known by its number; where none is left but such a device,
/// that is what is left.
fn apart(members: Vec<Member>) -> (Vec<PathBuf>, Vec<Member>) {
    let (begun, whole): (Vec<_>, Vec<_>) = members.into_iter().partition(|m| m.best.own.devid == FILLING);
    if whole.is_empty() {
        return (Vec::new(), begun);
    }
    (begun.into_iter().map(|m| m.path).collect(), whole)
}

/// The newest good copy, what is wrong with the others, and whether it is the first, by which the kernel mounts.
fn best_of(copies: Vec<(u64, Copy)>) -> Option<(Super, Vec<String>, bool)> {
    let mut faults = Vec::new();
    let mut good: Vec<(u64, Super)> = Vec::new();
    for (place, copy) in copies {
        let which = match place {
            OFFSET => "the first superblock",
            supers::SECOND => "the second superblock",
            _ => "the third superblock",
        };
        match copy {
            Copy::Good(found) => {
                if !found.proven {
                    faults.push(format!("{which} has a checksum of a kind that is not known here"));
                }
                good.push((place, *found));
            }
            Copy::None => faults.push(format!("{which} is gone")),
            Copy::Bad(why) => faults.push(format!("{which} is damaged ({why})")),
            Copy::Unread(e) => faults.push(format!("{which} cannot be read ({e})")),
        }
    }
    // Of equal age the first: it alone knows of what was fsynced since.
    let newest = good.iter().map(|(_, found)| found.own.generation).max()?;
    let first = good.iter().find(|(place, found)| *place == OFFSET && found.own.generation == newest);
    let opens = first.is_some();
    let best = first.or_else(|| good.iter().find(|(_, found)| found.own.generation == newest))?;
    Some((best.1.clone(), faults, opens))
}

fn survivor(Member { path, size, best: sb, faults, opens }: Member) -> Survivor {
    let last = (sb.own.generation, sb.root.0);
    let earlier = sb.backups.iter().copied().filter(|(generation, _)| *generation < sb.own.generation);
    Survivor {
        path,
        devid: sb.own.devid,
        uuid: sb.own.uuid,
        size,
        generation: sb.own.generation,
        changed: None,
        alone: true,
        faults,
        lacks: None,
        opens,
        history: History { commits: std::iter::once(last).chain(earlier).collect(), log: sb.log_root },
        data: None,
        share: None,
    }
}

/// Gives an overlay the first superblock that its survivor should have: that of the leading survivor, where that one has it, else one made
/// of its own newest good copy. Says what was done; nothing where all is well.
fn mend(
    host: &Host,
    leader: &Survivor,
    survivor: &Survivor,
    all: &[Survivor],
    overlay: &Path,
) -> Result<Option<Mended>, BackendError> {
    let follows = survivor.path != leader.path && leader.opens && survivor.generation == leader.generation;
    if survivor.opens && !(follows && survivor.history.log != leader.history.log) {
        return Ok(None);
    }
    let real = host.path(&survivor.path);
    let copies = supers::read(&real).doing("reading the superblocks of", &survivor.path)?;
    let Some((best, ..)) = best_of(copies) else { return Ok(None) };
    if follows {
        let copies =
            supers::read(&host.path(&leader.path)).doing("reading the superblocks of", &leader.path)?;
        if let Some((like, _, true)) = best_of(copies) {
            write_first(host, &best.as_first(Some(&like))?, best.own.generation, overlay)?;
            let was = if survivor.opens {
                "it does not know what was fsynced last"
            } else {
                "its first superblock is gone"
            };
            let says = format!("{was}; on the overlay it was given that of {}", leader.path.display());
            return Ok(Some(Mended { says, complete: true }));
        }
    }
    let generation = best.own.generation;
    write_first(host, &best.as_first(None)?, generation, overlay)?;
    // The copy knows nothing of a log of fsyncs; whether there is one its blocks tell.
    let reader = Reader::open(&real, &best, &relate::known(host, all));
    let mut go_on = || !host.interrupt().is_raised();
    let log = reader.ok().and_then(|reader| reader.has_log_after(generation, &mut go_on));
    let and = match log {
        Some(false) => "nothing was fsynced after that, so nothing is lacking",
        Some(true) => "something was fsynced after that, and no superblock leads to it any more",
        None => "whether something was fsynced after that cannot be told",
    };
    Ok(Some(Mended {
        says: format!(
            "its first superblock is gone; on the overlay it was written anew from another copy, of generation {generation}: {and}"
        ),
        complete: log == Some(false),
    }))
}

fn write_first(host: &Host, block: &[u8], generation: u64, overlay: &Path) -> Result<(), BackendError> {
    crate::exec::log_change(&format!(
        "write a superblock of generation {generation} to {}",
        overlay.display()
    ));
    let path = host.path(overlay);
    let write = || -> io::Result<()> {
        let mut device = OpenOptions::new().write(true).custom_flags(nix::libc::O_CLOEXEC).open(&path)?;
        device.seek(SeekFrom::Start(OFFSET))?;
        device.write_all(block)?;
        device.sync_all()
    };
    Ok(write().doing("writing a superblock to", overlay)?)
}

/// The devices that the kernel counts to a mounted filesystem, and the transaction that it is at.
fn mounted(host: &Host, uuid: &str) -> Result<(Vec<PathBuf>, Option<u64>), BackendError> {
    let Some(dir) = SysFs::find(host, uuid)? else { return Ok((Vec::new(), None)) };
    let devices = dir.devices()?.iter().map(|name| blocks::node_of(name)).collect();
    let file = format!("/sys/fs/btrfs/{uuid}/generation");
    let text = host.read_optional(&file).doing("reading", &file)?;
    let generation = text
        .map(|text| text.trim().parse().map_err(|_| ParseError::new("a generation in sysfs", &text)))
        .transpose()?;
    Ok((devices, generation))
}

#[cfg(test)]
mod halves_tests;
#[cfg(test)]
mod past_tests;
#[cfg(test)]
mod striped_tests;
#[cfg(test)]
mod tests;
