//! What a mirror of ZFS is: labels and kstat without a process, then `zpool status`, which is the only one that tells of an imported
//! pool's devices. It is not run for a pool that is suspended, since it may never end there, and has a short time limit elsewhere.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use super::{
    json, list,
    rescue::relate,
    text,
    told::{as_told, call, empty, level_of, mark, of_members},
};
use crate::{
    backend::{
        BackendError, ParseError,
        blocks::{self, Seen},
    },
    exec::{Cmd, CmdError},
    host::{
        Host,
        mountinfo::{self, Mount},
        zfs::{
            Label, Labels,
            kstat::{self, SUSPENDED},
        },
    },
    model::{
        Bytes,
        mirror::{MemberState, MirrorState},
        observed::Claim,
        zfs::{ZfsState, ZfsVdev},
    },
};

/// How long `zpool status` may take.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// A device with labels of ZFS.
pub(super) struct Labelled {
    pub(super) seen: Arc<Seen<Labels>>,
    pub(super) label: Label,
}

/// Observes the pool with this number, in decimal, or of one that was made with this UUID; its dataset should be mounted at `mountpoint`.
/// The UUID in what is seen is the number.
///
/// # Errors
/// Something could not be read or understood, or `zpool` did not answer: the mirror's state is then unknown.
pub fn observe(host: &Host, uuid: &str, mountpoint: &Path) -> Result<MirrorState, BackendError> {
    let mounts = mountinfo::read(host)?;
    if let Some(pool) = stopped_at(host, &mounts, mountpoint)? {
        let mut state = MirrorState::unseen(uuid, mountpoint);
        see_mounts(&mut state, &mounts, Some(&pool), mountpoint);
        state.zfs = Some(pool);
        return Ok(state);
    }
    let (labelled, unread) = labelled(host)?;
    let ours: Vec<&Labelled> = labelled.iter().filter(|l| is_of(&l.label, uuid)).collect();
    let newest = ours.iter().map(|l| &l.label).max_by_key(|label| label.txg);
    let uuid =
        newest.and_then(|label| label.pool_guid).map_or_else(|| uuid.to_owned(), |guid| guid.to_string());
    let mut state = MirrorState::unseen(&uuid, mountpoint);
    // Where no device is left that could tell, what is mounted may.
    let mounted = mountinfo::topmost_at(&mounts, mountpoint).and_then(pool_of);
    let mut pool = match newest.and_then(|label| label.pool.clone()).or(mounted) {
        Some(name) => imported(host, &name, &uuid)?,
        None => None,
    };
    if let Some(pool) = &mut pool {
        let labels: Vec<_> = ours.iter().map(|l| &l.label).collect();
        for vdev in &mut pool.vdevs {
            call(vdev, &labels);
            mark(vdev);
        }
        pool.level = level_of(pool);
    }
    see_mounts(&mut state, &mounts, pool.as_ref(), mountpoint);
    match pool {
        Some(pool) if !pool.vdevs.is_empty() => {
            let leaves = of_members(&pool);
            state.members =
                leaves.into_iter().map(|leaf| member(host, leaf, &ours)).collect::<Result<_, _>>()?;
            state.read_only |= pool.read_only;
            state.exclusive_operation = pool.is_filling().then(|| "resilver".to_owned());
            state.zfs = Some(pool);
        }
        found => {
            state.members = ours.iter().filter_map(|l| left(l)).collect();
            state.unread = unread;
            state.zfs = found;
        }
    }
    state.members.sort_by(|a, b| (a.devid, b.generation).cmp(&(b.devid, a.generation)));
    if state.zfs.is_none() {
        // Of two that say they are the same, the newer is the member.
        state.members.dedup_by_key(|m| m.devid);
    }
    let present = state.members.iter().filter(|m| !m.missing && !m.replace_target);
    state.raw_size = Bytes(present.filter_map(|m| m.size).map(|size| size.0).sum());
    let suspended = state.zfs.as_ref().is_some_and(ZfsState::is_suspended);
    // A pool that is suspended may keep whoever asks for its space.
    if state.mounted && !suspended {
        if let Ok((used, free)) = blocks::space(&host.path(mountpoint)) {
            (state.used, state.free) = (used, Some(free));
        }
    }
    Ok(state)
}

/// The pool that is mounted there, where it has stopped: nothing else is known of it then, since whatever is asked of it, or of its devices,
/// may never be answered.
fn stopped_at(host: &Host, mounts: &[Mount], mountpoint: &Path) -> Result<Option<ZfsState>, BackendError> {
    let Some(name) = mountinfo::topmost_at(mounts, mountpoint).and_then(pool_of) else { return Ok(None) };
    let word = kstat::state(host, &name)?;
    Ok((word.as_deref() == Some(SUSPENDED)).then(|| suspended(&name)))
}

/// Has the pool stopped that is mounted there? Told at once, by what the kernel keeps in memory.
pub(super) fn has_stopped(host: &Host, mountpoint: &Path) -> Result<bool, BackendError> {
    Ok(stopped_at(host, &mountinfo::read(host)?, mountpoint)?.is_some())
}

/// Is the label of the pool with this number, or of one that was made with this UUID?
pub(super) fn is_of(label: &Label, uuid: &str) -> bool {
    // One of transaction group 0 was taken out of the pool, or never came in.
    let numbered = || label.pool_guid.is_some_and(|guid| guid.to_string() == uuid);
    label.txg > 0 && (numbered() || of_setup(label, uuid))
}

/// Is the label of a pool that was made with this UUID, which is its comment?
pub(super) fn of_setup(label: &Label, uuid: &str) -> bool {
    label.comment.as_ref().is_some_and(|comment| *comment == super::make::comment(uuid))
}

/// The newest label of a pool, by what [`observe`] knows one by.
pub(super) fn newest(host: &Host, uuid: &str) -> Result<Option<Label>, BackendError> {
    let (labelled, _) = labelled(host)?;
    let ours = labelled.into_iter().map(|l| l.label).filter(|label| is_of(label, uuid));
    Ok(ours.max_by_key(|label| label.txg))
}

/// The name and number of a pool of which there are devices, imported or not.
pub(super) fn named(host: &Host, uuid: &str) -> Result<Option<(String, String)>, BackendError> {
    Ok(newest(host, uuid)?.and_then(|label| Some((label.pool?, label.pool_guid?.to_string()))))
}

/// The UUID that a pool was made with; its number where it was made by somebody else.
pub(super) fn made_as(host: &Host, uuid: &str) -> Result<String, BackendError> {
    let comment = newest(host, uuid)?.and_then(|label| label.comment);
    Ok(comment.and_then(|comment| as_uuid(&comment)).unwrap_or_else(|| uuid.to_owned()))
}

/// 32 digits as a UUID.
fn as_uuid(comment: &str) -> Option<String> {
    let digits =
        comment.len() == 32 && comment.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let part = |range| comment.get(range);
    digits.then_some(())?;
    Some([part(0..8)?, part(8..12)?, part(12..16)?, part(16..20)?, part(20..32)?].join("-"))
}

/// Every block device with whole labels; and those that could not be read, each with the reason.
pub(super) fn labelled(host: &Host) -> Result<(Vec<Labelled>, Vec<String>), BackendError> {
    let (mut found, mut unread) = (Vec::new(), Vec::new());
    for (name, _) in blocks::candidate_names(host, |_| false)? {
        let seen = look_at(host, &name)?;
        match &seen.superblock {
            Ok(Some(labels)) => {
                if let Some(label) = labels.newest().cloned() {
                    found.push(Labelled { seen, label });
                } else {
                    unread.push(format!("{}: {}", seen.path.display(), labels.faults().join("; ")));
                }
            }
            Ok(None) => {}
            Err(e) => unread.push(format!("{}: {e}", seen.path.display())),
        }
    }
    Ok((found, unread))
}

fn look_at(host: &Host, name: &str) -> Result<Arc<Seen<Labels>>, BackendError> {
    blocks::look_at(host, name, Labels::of_member)
}

/// The name of the pool that a mount is of: `tank` of `tank/lightning`.
pub(super) fn pool_of(mount: &Mount) -> Option<String> {
    let source = mount.source.to_str().filter(|_| mount.fstype == "zfs")?;
    source.split('/').next().map(str::to_owned)
}

/// The pool of this name, if it is imported and has this number.
fn imported(host: &Host, name: &str, uuid: &str) -> Result<Option<ZfsState>, BackendError> {
    let Some(word) = kstat::state(host, name)? else { return Ok(None) };
    if word == SUSPENDED {
        return Ok(Some(suspended(name)));
    }
    match status(host, name) {
        Ok(pool) => Ok(pool.filter(|pool| pool.guid.is_some_and(|guid| guid.to_string() == uuid))),
        Err(e) => {
            // It may have stopped meanwhile.
            if kstat::state(host, name)?.as_deref() == Some(SUSPENDED) {
                Ok(Some(suspended(name)))
            } else {
                Err(e)
            }
        }
    }
}

/// All that is known of a pool that must not be asked.
fn suspended(name: &str) -> ZfsState {
    ZfsState {
        name: name.to_owned(),
        guid: None,
        level: None,
        state: SUSPENDED.to_owned(),
        remark: None,
        vdevs: Vec::new(),
        scan: None,
        rebuilding: false,
        checkpoint: false,
        removing: false,
        damaged: None,
        space: None,
        read_only: false,
    }
}

/// What `zpool status` says of a pool; nothing where it was exported meanwhile.
fn status(host: &Host, name: &str) -> Result<Option<ZfsState>, BackendError> {
    let ask =
        |args: &[&str]| host.runner().run(&Cmd::probe("zpool").args(args).arg("--").arg(name).timeout(LIMIT));
    let gone = |e: &CmdError| e.said.as_deref().is_some_and(|said| said.contains("no such pool"));
    let told = match ask(&["status", "-j", "--json-int"]) {
        Ok(output) => json::parse_status(&output.text())?,
        Err(e) if gone(&e) => return Ok(None),
        // Before 2.3 there is no such option.
        Err(e) if e.code() == Some(2) => match ask(&["status", "-gp"]) {
            Err(e) if gone(&e) => return Ok(None),
            output => text::parse_status(&output?.text())?,
        },
        Err(e) => return Err(e.into()),
    };
    let listed = match ask(&["list", "-Hpo", list::COLUMNS]) {
        Err(e) if gone(&e) => return Ok(None),
        output => list::parse(&output?.text())?,
    };
    let told = told.into_iter().find(|pool| pool.name == name);
    let listed = listed.into_iter().find(|pool| pool.name == name);
    let (Some(told), Some(listed)) = (told, listed) else {
        return Err(ParseError::new("what zpool says", format!("nothing of the pool {name}")).into());
    };
    let guid = Some(listed.guid);
    if told.guid.is_some() && told.guid != guid {
        return Err(BackendError::State(format!("another pool has taken the name {name} meanwhile")));
    }
    Ok(Some(ZfsState { guid, space: listed.space, read_only: listed.read_only, ..told }))
}

fn see_mounts(state: &mut MirrorState, mounts: &[Mount], pool: Option<&ZfsState>, mountpoint: &Path) {
    let is_ours = |mount: &Mount| pool.is_some_and(|pool| pool_of(mount).as_ref() == Some(&pool.name));
    blocks::see_mounts(state, mounts, mountpoint, is_ours);
}

/// A device of a pool that is imported.
fn member(host: &Host, leaf: &ZfsVdev, ours: &[&Labelled]) -> Result<MemberState, BackendError> {
    let guid = leaf.guid.ok_or_else(|| ParseError::new("the number of a device of the pool", &leaf.name))?;
    let labelled = ours.iter().find(|l| l.label.guid == guid);
    let told = as_told(leaf, guid);
    let mut member = MemberState {
        path: labelled.map(|l| l.seen.path.clone()).or(told.path),
        size: labelled.and_then(|l| l.seen.size).filter(|size| size.0 > 0),
        ..told
    };
    if member.missing {
        return Ok(member);
    }
    // ZFS learns that a device is gone when it writes to it; until then it counts it.
    let lost = match (labelled, &leaf.path) {
        (Some(labelled), _) => {
            let faults =
                labelled.seen.superblock.as_ref().ok().and_then(|labels| Some(labels.as_ref()?.faults()));
            member.damaged = faults.filter(|faults| !faults.is_empty()).map(|faults| faults.join("; "));
            None
        }
        (None, Some(path)) => Some(why_lost(host, path)?),
        (None, None) => Some("no device answers as this one".to_owned()),
    };
    if let Some(why) = lost {
        (member.missing, member.pulled, member.missing_because) = (true, true, Some(why));
    }
    Ok(member)
}

/// Why the device at this path is not the one that ZFS opened there.
fn why_lost(host: &Host, path: &Path) -> Result<String, BackendError> {
    let name = blocks::kernel_name(host, path);
    if blocks::size_of(host, &name)?.is_none_or(|size| size.0 == 0) {
        return Ok("its block device is gone".to_owned());
    }
    Ok(match &look_at(host, &name)?.superblock {
        Ok(Some(labels)) if labels.newest().is_none() => labels.faults().join("; "),
        Ok(Some(_)) => "its labels are of another device".to_owned(),
        Ok(None) => "its labels are gone".to_owned(),
        Err(e) => e.to_string(),
    })
}

/// A device of a pool that is not imported.
fn left(labelled: &Labelled) -> Option<MemberState> {
    let labels = labelled.seen.superblock.as_ref().ok()?.as_ref()?;
    let faults = labels.faults();
    Some(MemberState {
        path: Some(labelled.seen.path.clone()),
        size: labelled.seen.size,
        generation: labels.last().map(|uberblock| uberblock.txg),
        damaged: (!faults.is_empty()).then(|| faults.join("; ")),
        ..empty(labelled.label.guid)
    })
}

/// Every device that says it belongs to a pool, by the pool's number in decimal. Starts no process.
///
/// # Errors
/// The devices could not be listed.
pub fn claims(host: &Host) -> Result<BTreeMap<String, Vec<Claim>>, BackendError> {
    let mut found: BTreeMap<String, Vec<Claim>> = BTreeMap::new();
    let all = labelled(host)?.0;
    for labelled in &all {
        let Some(pool) = labelled.label.pool_guid.filter(|_| labelled.label.txg > 0) else { continue };
        let labels = labelled.seen.superblock.as_ref().ok().and_then(Option::as_ref);
        let last = labels.and_then(|labels| labels.last().map(|uberblock| uberblock.txg));
        found.entry(pool.to_string()).or_default().push(Claim {
            path: labelled.seen.path.clone(),
            devid: labelled.label.guid,
            uuid: labelled.label.guid.to_string(),
            generation: last.unwrap_or(labelled.label.txg),
            filling: false,
            without: without(labelled, &all),
        });
    }
    for claims in found.values_mut() {
        claims.sort_by(|a, b| (a.devid, &a.path).cmp(&(b.devid, &b.path)));
    }
    Ok(found)
}

/// The devices of the same pool, by their numbers, that were written to without this one as this one was without them.
fn without(one: &Labelled, all: &[Labelled]) -> Vec<String> {
    let labels = |l: &Labelled| l.seen.superblock.as_ref().ok().and_then(Option::as_ref).cloned();
    let is_other = |l: &&Labelled| {
        l.label.pool_guid == one.label.pool_guid && l.label.txg > 0 && l.label.guid != one.label.guid
    };
    let Some(own) = labels(one) else { return Vec::new() };
    let apart = all
        .iter()
        .filter(is_other)
        .filter(|l| labels(l).is_some_and(|other| relate::are_apart(&own, &other)));
    apart.map(|l| l.label.guid.to_string()).collect()
}

/// The number, in decimal, of the pool whose dataset is mounted at exactly this place; nothing where none is. Starts no process.
///
/// # Errors
/// The mounts or the devices could not be read.
pub fn uuid_at(host: &Host, mountpoint: &Path) -> Result<Option<String>, BackendError> {
    let mounts = mountinfo::read(host)?;
    let Some(name) = mountinfo::topmost_at(&mounts, mountpoint).and_then(pool_of) else { return Ok(None) };
    let (labelled, _) = labelled(host)?;
    let mut pools: Vec<u64> = labelled
        .iter()
        .filter(|l| l.label.txg > 0 && l.label.pool.as_ref() == Some(&name))
        .filter_map(|l| l.label.pool_guid)
        .collect();
    pools.sort_unstable();
    pools.dedup();
    match pools[..] {
        [] => Ok(None),
        [guid] => Ok(Some(guid.to_string())),
        // An earlier pool of the same name has left its labels.
        [..] => Err(BackendError::State(format!(
            "devices say that they are of {} pools called {name}",
            pools.len()
        ))),
    }
}
