//! Back to the declared level: what a degraded mount wrote exists once only (btrfs-balance(8), `convert`, `soft`).

use std::{path::Path, thread, time::Duration};

use super::{BackendError, sysfs::SysFs};
use crate::{
    backend::{LevelEnd, Watcher},
    exec::{Cmd, Failure, Flow},
    host::Host,
    model::{Level, mirror::MirrorState},
};

const TICK: Duration = Duration::from_millis(250);

/// Only chunks at another level are rewritten. -f: system chunks are touched only when told so, and going down in redundancy is what
/// it is asked to be sure of, which this never does.
pub(super) fn command(level: Level, at: &Path) -> Cmd {
    let filters = ["-d", "-m", "-s"].map(|kind| format!("{kind}convert={level},soft"));
    Cmd::change("btrfs").args(["balance", "start", "-f"]).args(filters).arg(at).without_limit()
}

fn operation(host: &Host, uuid: &str) -> Result<Option<String>, BackendError> {
    Ok(SysFs::find(host, uuid)?.map(|dir| dir.exclusive_operation()).transpose()?.flatten())
}

pub(super) fn restore(
    host: &Host,
    state: &MirrorState,
    level: Level,
    at: &Path,
    watch: &mut Watcher<'_, ()>,
) -> Result<LevelEnd, BackendError> {
    let cancel = || host.runner().run(&Cmd::change("btrfs").args(["balance", "cancel"]).arg(at));
    // One that an interrupted run left, or that the kernel took up again at the mount; or the end of a replace.
    let stands = |op: &String| op.starts_with("balance") || op == super::replace::OPERATION;
    while let Some(operation) = operation(host, &state.uuid)?.filter(stands) {
        if operation == "balance paused" {
            cancel()?;
            continue;
        }
        if watch(&()) == Flow::Stop {
            if operation != super::replace::OPERATION {
                cancel()?;
            }
            return Ok(LevelEnd::Stopped);
        }
        thread::sleep(TICK);
    }
    let mut stopping = false;
    let mut tick = || {
        if stopping || watch(&()) == Flow::Continue {
            return Flow::Continue;
        }
        stopping = true;
        // Returns when the chunk at hand is done; the balance then ends by itself.
        if cancel().is_ok() { Flow::Continue } else { Flow::Stop }
    };
    match host.runner().run_watched(&command(level, at), &mut tick) {
        Ok(_) => Ok(LevelEnd::Done),
        Err(_) if stopping => Ok(LevelEnd::Stopped),
        Err(e) if e.failure == Failure::Code(1) => {
            let full = e.said.as_deref().is_some_and(|said| said.contains("No space left on device"));
            if full { Ok(LevelEnd::NoSpace) } else { Err(e.into()) }
        }
        Err(e) => Err(e.into()),
    }
}
