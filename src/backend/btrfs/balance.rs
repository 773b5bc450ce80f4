//! Balance: give half-empty chunks back (btrfs-balance(8)).

use std::path::Path;

use super::{BackendError, ParseError, space};
use crate::{
    backend::{BalanceEnd, BalanceReport, Watcher},
    exec::{Cmd, Failure, Flow},
    host::Host,
    model::mirror::MirrorState,
};

/// The documented command. The metadata filters are left out where metadata balance could end in ENOSPC; the note says so.
pub(super) fn command(state: &MirrorState, mountpoint: &Path) -> (Cmd, Option<String>) {
    let cmd = Cmd::change("btrfs").args(["balance", "start", "-dusage=50", "-dlimit=2"]);
    let (cmd, note) = match space::too_tight_for_metadata(state) {
        None => (cmd.args(["-musage=50", "-mlimit=4"]), None),
        Some(why) => (cmd, Some(format!("metadata is left as it is: {why}"))),
    };
    (cmd.arg(mountpoint).without_limit(), note)
}

/// Balances to the end, or until `watch` says stop.
pub(super) fn balance(
    host: &Host,
    mountpoint: &Path,
    state: &MirrorState,
    watch: &mut Watcher<'_, ()>,
) -> Result<BalanceReport, BackendError> {
    let (cmd, note) = command(state, mountpoint);
    let mut stopping = false;
    let mut tick = || {
        if stopping || watch(&()) == Flow::Continue {
            return Flow::Continue;
        }
        stopping = true;
        // Returns when the chunk at hand is done; the balance then ends by itself.
        match host.runner().run(&Cmd::change("btrfs").args(["balance", "cancel"]).arg(mountpoint)) {
            Ok(_) => Flow::Continue,
            Err(_) => Flow::Stop,
        }
    };
    let ended = host.runner().run_watched(&cmd, &mut tick);
    let (end, chunks) = match ended {
        Ok(output) => (BalanceEnd::Done, Some(parse_done(&output.text())?)),
        Err(_) if stopping => (BalanceEnd::Stopped, None),
        Err(e) if e.failure == Failure::Code(1) => {
            let said = e.said.as_deref().unwrap_or_default();
            if said.contains("another exclusive operation") || said.contains("Operation now in progress") {
                (BalanceEnd::AlreadyRunning, None)
            } else if said.contains("No space left on device") {
                (BalanceEnd::NoSpace, None)
            } else {
                return Err(e.into());
            }
        }
        Err(e) => return Err(e.into()),
    };
    let (relocated, considered) = chunks.unzip();
    Ok(BalanceReport { command: cmd.line(), note, end, relocated, considered })
}

/// Reads `Done, had to relocate 1 out of 3 chunks`.
pub(super) fn parse_done(text: &str) -> Result<(u64, u64), ParseError> {
    let read = |line: &str| {
        let rest = line.strip_prefix("Done, had to relocate ")?.strip_suffix(" chunks")?;
        let (relocated, considered) = rest.split_once(" out of ")?;
        Some((relocated.parse().ok()?, considered.parse().ok()?))
    };
    text.lines()
        .find_map(|line| read(line.trim()))
        .ok_or_else(|| ParseError::new("btrfs balance start", text))
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::fuzz::fuzzed!(fuzz_balance, text[b"Done, had to relocate 1 out of 3 chunks\n"], |text| {
        if parse_done(text).is_ok() {
            assert!(text.contains("Done, had to relocate "));
        }
    });
}
