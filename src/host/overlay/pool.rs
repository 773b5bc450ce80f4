//! A pool of ZFS that was imported from an overlay.

use std::path::Path;

use super::{
    OverlayError,
    undo::{PATIENCE, wait},
};
use crate::{
    exec::{Cmd, CmdError},
    host::{Host, files::Doing as _},
};

/// What the kernel calls a pool that waits for its devices to work again.
pub(super) const STOPPED: &str = "SUSPENDED";

/// Has the kernel let go of it, if it has it. One that has stopped is not asked: whoever asks for that waits for it, and whoever asks
/// for any other pool waits for him (`spa_namespace_lock`).
pub(super) fn export(host: &Host, name: &str) -> Result<Option<String>, OverlayError> {
    let mut last: Option<CmdError> = None;
    let mut told = None;
    let gone = wait(PATIENCE, || {
        match state(host, name)?.as_deref() {
            None => return Ok(true),
            Some(STOPPED) => return Err(OverlayError::PoolStopped { name: name.to_owned() }),
            Some(_) => {}
        }
        // What a namespace held the kernel unmounts after its last thread has gone.
        match host.runner().run(&Cmd::change("zpool").args(["export", "-f", "--", name])) {
            Ok(_) => told = Some(format!("exported the pool {name}")),
            Err(e) => last = Some(e),
        }
        Ok(state(host, name)?.is_none())
    })?;
    match last {
        Some(e) if !gone => Err(e.into()),
        _ if gone => Ok(told),
        _ => Err(OverlayError::InUse { what: format!("the pool {name}") }),
    }
}

/// What the kernel says of a pool; nothing where it has none of this name.
pub(super) fn state(host: &Host, name: &str) -> Result<Option<String>, OverlayError> {
    let file = Path::new("/proc/spl/kstat/zfs").join(name).join("state");
    let text = host.read_optional(&file).doing("reading", &file)?;
    Ok(text.map(|text| text.trim().to_owned()))
}
