//! A member that was away comes back (zpool-online(8), zpool-clear(8)), and a pool that has stopped goes on.

use std::{path::Path, thread, time::Duration};

use super::{
    exchange::{TICK, look, progress, resilver},
    observe,
};
use crate::{
    backend::{BackendError, Exchange, ExchangeEnd, ExchangeProgress, MirrorSpec, Watcher},
    exec::{Cmd, Flow},
    host::{Host, files::Doing as _, zfs::Labels},
    model::{mirror::MirrorState, zfs::ZfsState},
};

/// For so many looks it is waited for a resilver to begin. Where none comes, nothing was written while the member was away, or ZFS does
/// not know of it: the scrub that follows reads everything.
const IDLE: u32 = 5;
/// How often a pool that has stopped is told to go on: a device that was just plugged in may not be there yet.
const TRIES: u32 = 5;
/// How long that may take: where members are still gone, it may wait for them.
const LIMIT: Duration = Duration::from_secs(30);

pub(super) fn clear_pool(pool: &str) -> Cmd {
    Cmd::change("zpool").args(["clear", "--", pool]).timeout(LIMIT)
}

/// ZFS opens the device again; then it forgets what it held against it, which keeps one that failed from being used.
pub(super) fn commands(pool: &str, guid: u64) -> Vec<Cmd> {
    let cmd = |verb| Cmd::change("zpool").args([verb, "--", pool, &guid.to_string()]);
    vec![cmd("online"), cmd("clear")]
}

/// How ZFS calls a member that it cannot use, or doubts.
fn against(state: &MirrorState, guid: u64) -> Option<String> {
    let leaves = state.zfs.as_ref().map(|pool| pool.leaves()).unwrap_or_default();
    let leaf = leaves.into_iter().find(|leaf| leaf.guid == Some(guid));
    let member = state.members.iter().find(|member| member.devid == guid);
    match (leaf, member) {
        (Some(leaf), _) if leaf.state != "ONLINE" => Some(format!("ZFS calls it {}", leaf.state)),
        (Some(_), Some(member)) if member.missing => {
            Some(member.missing_because.clone().unwrap_or_else(|| "it is gone".to_owned()))
        }
        (Some(_), _) => None,
        (None, _) => Some("it is not of the pool".to_owned()),
    }
}

/// Does the member serve, with nothing left to be filled?
pub(super) fn is_returned(host: &Host, exchange: &Exchange) -> Result<bool, BackendError> {
    let state = observe::observe(host, &exchange.uuid, Path::new("/"))?;
    Ok(state.zfs.is_some() && against(&state, exchange.id).is_none() && resilver(&state).is_none())
}

/// Takes a member in again, and waits until it holds what was written without it.
pub(super) fn take_back(
    host: &Host,
    exchange: &Exchange,
    watch: &mut Watcher<'_, ExchangeProgress>,
) -> Result<ExchangeEnd, BackendError> {
    let device = exchange.new.as_path();
    // What was held against it is only forgotten when it can be read.
    let labels = Labels::of_member(&host.path(device)).doing("reading the labels of", device)?;
    let own = labels.as_ref().and_then(Labels::newest);
    if own.is_none_or(|label| label.guid != exchange.id) {
        let why = format!("{} does not say that it is member {}", device.display(), exchange.id);
        return Err(BackendError::State(why));
    }
    let (pool, state) = look(host, &exchange.uuid, Path::new("/"))?;
    if against(&state, exchange.id).is_some() {
        for cmd in commands(&pool, exchange.id) {
            host.runner().run(&cmd)?;
        }
    }
    let (mut idle, mut seen) = (0, false);
    loop {
        let (_, state) = look(host, &exchange.uuid, Path::new("/"))?;
        let scan = resilver(&state);
        let against = against(&state, exchange.id);
        seen |= scan.is_some();
        idle = if scan.is_some() { 0 } else { idle + 1 };
        match against {
            Some(why) if idle > IDLE => {
                return Err(BackendError::State(format!("{} does not serve: {why}", device.display())));
            }
            None if scan.is_none() && (seen || idle > IDLE) => {
                return Ok(ExchangeEnd::Done { unreadable: 0 });
            }
            _ => {}
        }
        if watch(&progress(scan)) == Flow::Stop {
            return Ok(ExchangeEnd::Stopped);
        }
        thread::sleep(TICK);
    }
}

/// Has a pool go on that has stopped.
pub(super) fn wake(host: &Host, spec: &MirrorSpec) -> Result<(), BackendError> {
    let mut tries = 1;
    loop {
        let state = observe::observe(host, &spec.uuid, &spec.mountpoint)?;
        let Some(pool) = state.zfs.filter(ZfsState::is_suspended) else { return Ok(()) };
        let told = host.runner().run(&clear_pool(&pool.name));
        let state = observe::observe(host, &spec.uuid, &spec.mountpoint)?;
        if !state.zfs.is_some_and(|pool| pool.is_suspended()) {
            return Ok(());
        }
        if tries == TRIES {
            told?;
            return Err(super::exchange::stopped(&pool.name));
        }
        tries += 1;
        thread::sleep(TICK);
    }
}
