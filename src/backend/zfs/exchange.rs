//! A member is given up for a device (zpool-replace(8)). The work is the kernel's: it goes on whatever becomes of this program, and after
//! a reboot.
//!
//! How far it is, is read from what the devices say of the pool: the description on them is written anew with every change of members,
//! before the command that makes it ends, and can be read where the pool is not imported. While the new device is filled, it and the old
//! one are parts of a vdev `replacing`, which ends by itself when the new one has all. The new device has a number of its own.

use std::{
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use super::{fit, make, observe};
use crate::{
    backend::{
        BackendError, Exchange, ExchangeEnd, ExchangeProgress, Layout, Piece, Watcher,
        blocks::{kernel_name, size_of},
    },
    exec::{Cmd, Flow},
    host::{
        Host,
        zfs::{self, Label, Labels, Vdev},
    },
    model::{
        Bytes,
        mirror::MirrorState,
        zfs::{ZfsScan, ZfsScanKind, ZfsScanState},
    },
};

/// How often the pool is asked how far it is.
pub(super) const TICK: Duration = if cfg!(test) { Duration::from_millis(1) } else { Duration::from_secs(1) };
/// After so many looks without any work of the kernel it counts as not begun.
const IDLE: u32 = 60;
/// After so many a resilver that has ended is believed to be the last.
const ENDED: u32 = 5;
/// So many looks in a row may fail: a pool that is written to hard answers late.
const BLIND: u32 = 5;
/// In hundredths of a percent: from here on an exchange is not taken back any more, but waited for. The new device must not be taken out
/// of the pool at the moment in which the old one is.
const NEAR: u64 = 9_900;
/// How often and how far apart it is looked for the name that udev gives a partition, a moment after the kernel has made it.
const LOOKS: u32 = 50;
const BETWEEN: Duration = Duration::from_millis(100);

pub(super) fn replace(pool: &str, old: u64, new: &Path) -> Cmd {
    Cmd::destroy("zpool").args(["replace", "--", pool, &old.to_string()]).arg(new)
}

fn detach(pool: &str, guid: u64) -> Cmd {
    Cmd::change("zpool").args(["detach", "--", pool, &guid.to_string()])
}

/// The new device by a name that stays, which ZFS keeps.
pub(super) fn stable(exchange: &Exchange) -> PathBuf {
    match &exchange.partuuid {
        Some(uuid) => Path::new("/dev/disk/by-partuuid").join(uuid),
        None => exchange.new.clone(),
    }
}

/// As [`stable`], where this machine has such names.
fn name_of(host: &Host, exchange: &Exchange) -> PathBuf {
    let stable = stable(exchange);
    for _ in 0..LOOKS {
        if host.path(&stable).exists() {
            return stable;
        }
        if !host.path("/run/udev").is_dir() {
            break;
        }
        thread::sleep(BETWEEN);
    }
    exchange.new.clone()
}

/// What the devices of a pool say of it last.
pub(super) fn described(host: &Host, uuid: &str) -> Result<(Label, Vdev), BackendError> {
    let label = observe::newest(host, uuid)?;
    let tree = label.as_ref().and_then(|label| label.tree.clone());
    label.zip(tree).ok_or_else(|| BackendError::State("no device says that it is of the pool".to_owned()))
}

/// What a device says of itself, whatever it is worth; nothing where that cannot be read.
fn own(host: &Host, device: &Path) -> Option<Label> {
    Labels::of_member(&host.path(device)).ok().flatten()?.newest().cloned()
}

/// Where the new device stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    /// It is not of the pool.
    Out,
    /// It, of this number, is being filled beside the old one.
    Filling(u64),
    /// Another device is, of this path.
    Other(String),
    /// It has the old one's place.
    In,
}

fn standing(host: &Host, exchange: &Exchange) -> Result<Standing, BackendError> {
    let (label, tree) = described(host, &exchange.uuid)?;
    let own = own(host, &exchange.new).filter(|own| own.pool_guid == label.pool_guid);
    let stable = stable(exchange);
    // A device that is gone, or fails, cannot say it itself.
    let is_new = |leaf: &&Vdev| match &own {
        Some(own) => own.guid == leaf.guid,
        None => leaf.path.as_deref().map(Path::new).is_some_and(|p| p == stable || p == exchange.new),
    };
    if tree.find(exchange.id).is_none() {
        return Ok(if tree.leaves().iter().any(is_new) { Standing::In } else { Standing::Out });
    }
    let Some(both) = tree.above(exchange.id).filter(|vdev| vdev.kind == "replacing") else {
        return Ok(Standing::Out);
    };
    let mut comes = both.leaves().into_iter().filter(|leaf| leaf.guid != exchange.id);
    let ours = comes.clone().find(is_new);
    Ok(match (ours, comes.next()) {
        (Some(ours), _) => Standing::Filling(ours.guid),
        (None, Some(other)) => Standing::Other(other.path.clone().unwrap_or_default()),
        (None, None) => Standing::Out,
    })
}

/// Has the new device the old one's place?
pub(super) fn is_exchanged(host: &Host, exchange: &Exchange) -> Result<bool, BackendError> {
    Ok(standing(host, exchange)? == Standing::In)
}

/// Clears what a device says of the pool, where that has gone on without it.
pub(super) fn clear(host: &Host, uuid: &str, device: &Path) -> Result<Vec<Cmd>, BackendError> {
    let (label, tree) = described(host, uuid)?;
    let own = own(host, device).filter(|own| own.pool_guid == label.pool_guid);
    if own.is_none_or(|own| tree.find(own.guid).is_some()) {
        return Ok(Vec::new());
    }
    let size = size_of(host, &kernel_name(host, device))?.unwrap_or_default();
    Ok(zfs::clear_commands(device, size.0))
}

fn run(host: &Host, cmds: &[Cmd]) -> Result<(), BackendError> {
    for cmd in cmds {
        host.runner().run(cmd)?;
    }
    Ok(())
}

/// The pool's name, and what it is now.
pub(super) fn look(host: &Host, uuid: &str, at: &Path) -> Result<(String, MirrorState), BackendError> {
    let state = observe::observe(host, uuid, at)?;
    match &state.zfs {
        None => Err(BackendError::State("the pool is not imported".to_owned())),
        Some(pool) if pool.is_suspended() => Err(stopped(&pool.name)),
        Some(pool) => Ok((pool.name.clone(), state)),
    }
}

/// Nothing may be asked of such a pool: whoever does waits.
pub(super) fn stopped(pool: &str) -> BackendError {
    BackendError::State(format!(
        "the pool {pool} has stopped, since too few of its members answer: plug in what is gone, then: zpool clear {pool}"
    ))
}

/// The resilver that runs, in a pool as it was seen.
pub(super) fn resilver(state: &MirrorState) -> Option<&ZfsScan> {
    let scan = state.zfs.as_ref()?.scan.as_ref();
    scan.filter(|scan| scan.kind == ZfsScanKind::Resilver && scan.state == ZfsScanState::Running)
}

fn works(state: &MirrorState) -> bool {
    resilver(state).is_some() || state.zfs.as_ref().is_some_and(|pool| pool.rebuilding)
}

pub(super) fn progress(scan: Option<&ZfsScan>) -> ExchangeProgress {
    let known = scan.and_then(|scan| scan.done.zip(scan.total));
    let part = |done: u64, total: Bytes| u128::from(total.0) * u128::from(done) / 10_000;
    ExchangeProgress {
        copied: known.map(|(done, total)| Bytes(u64::try_from(part(done, total)).unwrap_or(u64::MAX))),
        total: known.map(|(_, total)| total).unwrap_or_default(),
    }
}

/// Carries it out, or takes up one that an interrupted run began.
pub(super) fn exchange(
    host: &Host,
    exchange: &Exchange,
    at: &Path,
    watch: &mut Watcher<'_, ExchangeProgress>,
) -> Result<ExchangeEnd, BackendError> {
    let (pool, _) = look(host, &exchange.uuid, at)?;
    let ashift = described(host, &exchange.uuid)?.1.ashift;
    match standing(host, exchange)? {
        Standing::In | Standing::Filling(_) => {}
        Standing::Other(path) => {
            return Err(BackendError::State(format!("another device is taking its place: {path}")));
        }
        Standing::Out => {
            // One that was of this pool once would be taken, whatever it holds.
            run(host, &clear(host, &exchange.uuid, &exchange.new)?)?;
            host.runner().run(&replace(&pool, exchange.id, &name_of(host, exchange)))?;
        }
    }
    let end = follow(host, exchange, at, &pool, watch)?;
    let now = described(host, &exchange.uuid)?.1.ashift;
    if end != ExchangeEnd::Stopped && now != ashift {
        return Err(BackendError::State(format!("the pool's smallest write has changed: {now:?}")));
    }
    Ok(end)
}

/// Waits for the end.
fn follow(
    host: &Host,
    exchange: &Exchange,
    at: &Path,
    pool: &str,
    watch: &mut Watcher<'_, ExchangeProgress>,
) -> Result<ExchangeEnd, BackendError> {
    let (mut idle, mut blind, mut unreadable, mut stopping) = (0, 0, 0, false);
    let new = exchange.new.display();
    loop {
        let number = match standing(host, exchange)? {
            Standing::In => return Ok(ExchangeEnd::Done { unreadable }),
            Standing::Filling(number) => number,
            Standing::Out | Standing::Other(_) => {
                return Err(BackendError::State(format!("{new} was taken out of the pool")));
            }
        };
        let state = match look(host, &exchange.uuid, at) {
            Ok((_, state)) => Some(state),
            Err(e @ BackendError::State(_)) => return Err(e),
            Err(e) if blind >= BLIND => return Err(e),
            Err(_) => None,
        };
        blind = if state.is_some() { 0 } else { blind + 1 };
        if let Some(why) = state.as_ref().and_then(|state| fails(state, number)) {
            // It may have its place since.
            if is_exchanged(host, exchange)? {
                continue;
            }
            return Err(BackendError::NewDevice { device: exchange.new.clone(), why });
        }
        if let Some(state) = &state {
            idle = if works(state) { 0 } else { idle + 1 };
            match errors_at_end(state).filter(|_| idle >= ENDED) {
                Some(errors) if serves(state, exchange.id) => return Err(unread(pool, errors)),
                // Nobody has what is missing on the new one. The old one can give nothing.
                Some(errors) if unreadable == 0 => {
                    unreadable = errors;
                    host.runner().run(&detach(pool, exchange.id))?;
                    continue;
                }
                _ => {}
            }
            if idle > IDLE {
                return Err(BackendError::State(format!(
                    "{new} is not being filled: ZFS does not begin, or keeps the old member beside it"
                )));
            }
        }
        let scan = state.as_ref().and_then(resilver);
        stopping = stopping || watch(&progress(scan)) == Flow::Stop;
        if stopping && state.is_some() {
            give_up(host, exchange)?;
            let done = is_exchanged(host, exchange)?;
            return Ok(if done { ExchangeEnd::Done { unreadable } } else { ExchangeEnd::Stopped });
        }
        thread::sleep(TICK);
    }
}

/// Why the device of this number cannot be filled, where it cannot.
fn fails(state: &MirrorState, number: u64) -> Option<String> {
    let member = state.members.iter().find(|member| member.devid == number)?;
    member.missing.then(|| member.missing_because.clone().unwrap_or_else(|| "it is gone".to_owned()))
}

fn serves(state: &MirrorState, number: u64) -> bool {
    state.members.iter().any(|member| member.devid == number && !member.missing)
}

/// How much a resilver that has ended could not read from anywhere.
fn errors_at_end(state: &MirrorState) -> Option<u64> {
    let scan = state.zfs.as_ref()?.scan.as_ref()?;
    let ended = scan.kind == ZfsScanKind::Resilver && scan.state == ZfsScanState::Finished;
    scan.errors.filter(|errors| ended && *errors > 0)
}

fn unread(pool: &str, errors: u64) -> BackendError {
    BackendError::State(format!(
        "{errors} blocks could not be read from any member, so ZFS keeps the old one. `zpool status -v {pool}` names the files: \
         restore or remove them, then run the same command again"
    ))
}

/// Takes the new device out again, where it has not the old one's place yet, with what that left on it.
pub(super) fn give_up(host: &Host, exchange: &Exchange) -> Result<(), BackendError> {
    let mut waited = 0;
    loop {
        let number = match standing(host, exchange)? {
            Standing::In | Standing::Other(_) => return Ok(()),
            Standing::Out => break,
            Standing::Filling(number) => number,
        };
        run(host, &make::assemble_by_number(host, &exchange.uuid)?)?;
        let (pool, state) = look(host, &exchange.uuid, Path::new("/"))?;
        let scan = state.zfs.as_ref().and_then(|pool| pool.scan.as_ref());
        let near = match resilver(&state) {
            Some(scan) => scan.done.is_some_and(|done| done >= NEAR),
            // It has ended, and the old one is taken out next; or it has not begun.
            None => {
                scan.is_some_and(|scan| scan.kind == ZfsScanKind::Resilver) && errors_at_end(&state).is_none()
            }
        };
        if near && waited < IDLE && fails(&state, number).is_none() {
            waited += 1;
            thread::sleep(TICK);
            continue;
        }
        host.runner().run(&detach(&pool, number))?;
        if described(host, &exchange.uuid)?.1.find(exchange.id).is_none() {
            return Err(BackendError::State(format!(
                "{} was taken out of the pool at the moment in which it took the old member's place: bring it in again with \
                 `raidguard replace`",
                exchange.new.display()
            )));
        }
        break;
    }
    // A device that is gone has nothing on it that could be cleared.
    if host.path(&exchange.new).exists() {
        run(host, &clear(host, &exchange.uuid, &exchange.new)?)?;
    }
    Ok(())
}

/// What still says on the old device that it was a member, once it is out of the pool.
pub(super) fn retire(host: &Host, exchange: &Exchange, old: &Path) -> Vec<Cmd> {
    if *old == *exchange.new {
        return Vec::new();
    }
    // One that was exchanged because it fails, or is gone, may have nothing more to say.
    clear(host, &exchange.uuid, old).unwrap_or_default()
}

/// What lies on which member, as a device of the pool says.
pub(super) fn layout(label: &Label) -> Result<Layout, BackendError> {
    let state = |why: &str| BackendError::State(why.to_owned());
    let top = label.tree.as_ref().ok_or_else(|| state("its description names no device of the pool"))?;
    if label.tops != Some(1) {
        return Err(state("the pool is made of several vdevs, and such a one was not made by raidguard"));
    }
    let needed =
        fit::smallest(top).ok_or_else(|| state("its description does not say how large a member is"))?;
    // Of two of which one is being filled, only the old one has everything.
    let holds = |child: &Vdev| child.leaves().first().map_or(child.guid, |leaf| leaf.guid);
    let children = top.children.len();
    let survives = match top.kind.as_str() {
        "raidz" => usize::try_from(top.parity.unwrap_or(1)).unwrap_or(1),
        _ => children.saturating_sub(1),
    };
    let piece = Piece {
        start: 0,
        parts: 1,
        kind: top.kind.clone(),
        length: Bytes(top.asize.unwrap_or_default()),
        places: top.children.iter().map(|child| (holds(child), 0)).collect(),
        survives,
    };
    let members = top.leaves().iter().map(|leaf| (leaf.guid, needed)).collect();
    Ok(Layout { members, pieces: vec![piece] })
}
