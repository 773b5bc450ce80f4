//! The one unsafe piece of this room: a child that dies with its parent, and can be asked to end.

use std::{io, os::unix::process::CommandExt, process::Command};

use nix::sys::{
    prctl,
    signal::{SigHandler, Signal, signal},
};

/// Has the kernel end the child when raidguard is killed: a mkfs that outlived a SIGKILL would write below a `--resume`. A raidguard that was
/// started in the background by a shell without jobs ignores SIGINT, and its children would, too.
#[allow(unsafe_code)]
pub(super) fn die_with_parent(command: &mut Command) {
    // SAFETY: the closure runs between fork and exec and makes two async-signal-safe system calls, prctl(2) and sigaction(2), without
    // allocating; no handler is installed.
    unsafe {
        command.pre_exec(|| {
            prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from)?;
            signal(Signal::SIGINT, SigHandler::SigDfl).map(drop).map_err(io::Error::from)
        });
    }
}
