//! The one unsafe line of this room: a child that dies with its parent.

use std::{io, os::unix::process::CommandExt, process::Command};

use nix::sys::{prctl, signal::Signal};

/// Has the kernel end the child when raidguard is killed. A mkfs that outlived a SIGKILL would write below a `--resume`.
#[allow(unsafe_code)]
pub(super) fn die_with_parent(command: &mut Command) {
    // SAFETY: the closure runs between fork and exec and makes one async-signal-safe system call, prctl(2), without allocating.
    unsafe {
        command.pre_exec(|| prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from));
    }
}
