//! A pool of ZFS that was imported from an overlay.

use super::{
    OverlayError,
    undo::{PATIENCE, wait},
};
use crate::{
    exec::{Cmd, CmdError},
    host::{
        Host,
        zfs::kstat::{self, SUSPENDED},
    },
};

/// Has the kernel let go of it, if it has it. One that has stopped is not asked: whoever asks for that waits for it, and whoever asks
/// for any other pool waits for him (`spa_namespace_lock`).
pub(super) fn export(host: &Host, name: &str) -> Result<Option<String>, OverlayError> {
    let mut last: Option<CmdError> = None;
    let mut told = None;
    let gone = wait(PATIENCE, || {
        match kstat::state(host, name)?.as_deref() {
            None => return Ok(true),
            Some(SUSPENDED) => return Err(OverlayError::PoolStopped { name: name.to_owned() }),
            Some(_) => {}
        }
        // What a namespace held the kernel unmounts after its last thread has gone.
        match host.runner().run(&Cmd::change("zpool").args(["export", "-f", "--", name])) {
            Ok(_) => told = Some(format!("exported the pool {name}")),
            Err(e) => last = Some(e),
        }
        Ok(kstat::state(host, name)?.is_none())
    })?;
    match last {
        Some(e) if !gone => Err(e.into()),
        _ if gone => Ok(told),
        _ => Err(OverlayError::InUse { what: format!("the pool {name}") }),
    }
}
