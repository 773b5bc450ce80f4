//! The only place that starts a process. A command is a value: its tool, arguments, effect, time limit and purpose.
//! Nothing here interprets what a command says.

mod child;
mod cmd;
mod held;
mod interrupt;
mod real;
mod scripted;

pub use cmd::{Cmd, CmdError, Effect, Failure, Output};
pub use held::Held;
pub use interrupt::Interrupt;
pub use real::RealRunner;
pub use scripted::{Reply, ScriptedRunner};

use std::{io, time::Duration};

pub use nix::sys::signal::Signal;

/// What a caller of [`Runner::run_watched`] wants after a look at how things are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Go on waiting.
    Continue,
    /// Ask the command to end (SIGINT to its process group, SIGKILL after a while), then return its output.
    Stop,
}

/// Runs commands: the real machine, or a script in tests.
pub trait Runner: Send + Sync + std::fmt::Debug {
    /// Runs `cmd` to its end, calling `tick` about four times a second meanwhile.
    ///
    /// # Errors
    /// The tool is absent, could not be started, ran past its time limit, died by a signal, or ended with an exit code that `cmd`
    /// does not accept.
    fn run_watched(&self, cmd: &Cmd, tick: &mut dyn FnMut() -> Flow) -> Result<Output, CmdError>;

    /// Runs `cmd` to its end. Errors as [`Runner::run_watched`].
    fn run(&self, cmd: &Cmd) -> Result<Output, CmdError> {
        self.run_watched(cmd, &mut || Flow::Continue)
    }

    /// Starts `cmd`, which runs until its standard input ends: for as long as the value lives.
    ///
    /// # Errors
    /// The tool is absent, or could not be started.
    fn hold(&self, cmd: &Cmd) -> Result<Held, CmdError>;

    /// Sends a signal to a process that a command left behind: a daemon.
    ///
    /// # Errors
    /// There is no such process, or it is not ours to signal.
    fn signal(&self, pid: i32, signal: Signal) -> io::Result<()>;

    /// Is this tool on the machine?
    fn has(&self, tool: &str) -> bool;
}

/// Logs a change that is made without a process, as the command that would make it: so that the log lists every change.
pub fn log_change(line: &str) {
    tracing::info!("run: {line}");
}

/// How long a probe may take before it counts as failed.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a change (mkfs, mount, sfdisk) may take. A USB stick that stalls for longer is broken.
pub const CHANGE_TIMEOUT: Duration = Duration::from_secs(300);
