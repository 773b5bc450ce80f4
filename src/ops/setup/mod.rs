//! `setup`: two or more devices become a mirror, and the node's directory moves onto it.

mod blockers;
mod decide;
mod gather;
mod members;
mod pool;

use std::path::{Path, PathBuf};

pub(in crate::ops) use blockers::unguarded;
pub use decide::{Decision, decide};
pub use gather::{ArrayFacts, Facts, gather};
pub(in crate::ops) use gather::{idle, unfinished};
pub use pool::PoolFacts;

use super::{Exit, Trouble, execute, trouble::need_root};
use crate::{
    host::{Host, files, lock},
    model::{BackendKind, Bytes, FilesystemKind, Level, Scheduler},
    ui::{self, Console},
};

/// What was asked for, whole and sensible in itself.
#[derive(Debug, Clone)]
pub struct Request {
    /// The devices, in the order they were named.
    pub devices: Vec<PathBuf>,
    /// What holds the mirror.
    pub backend: BackendKind,
    /// The filesystem on it, where it is none itself.
    pub filesystem: Option<FilesystemKind>,
    /// The level.
    pub level: Level,
    /// The mirror's name.
    pub name: String,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// The node's directory, as named.
    pub directory: PathBuf,
    /// Who shall own the copy.
    pub user: Option<String>,
    /// How the node is stopped and started.
    pub node: NodeChoice,
    /// How long it may take to stop, in seconds.
    pub patience: u64,
    /// What runs the regular jobs.
    pub scheduler: SchedulerChoice,
    /// Whether the original is kept.
    pub keep_original: bool,
    /// Make a new partition of this size on each disk named, and use that.
    pub size: Option<Bytes>,
    /// Whether what is found on the devices may be erased.
    pub wipe: bool,
    /// Whether two members may lie on one disk.
    pub allow_same_disk: bool,
}

/// How the operator wants the node handled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeChoice {
    /// Find out.
    Detect,
    /// This systemd unit.
    Unit(String),
    /// These commands.
    Commands {
        /// Stops it.
        stop: Vec<String>,
        /// Starts it.
        start: Vec<String>,
    },
    /// None is managed.
    None,
}

/// What the operator wants to run the jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchedulerChoice {
    /// What runs on the machine.
    Auto,
    /// This.
    With(Scheduler),
    /// Nothing.
    None,
}

/// How to go about it.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Print the plan and change nothing.
    pub dry_run: bool,
    /// Do not ask.
    pub yes: bool,
}

/// Runs `setup`.
///
/// # Errors
/// Refused, with every blocker named, or stopped on its way.
pub fn setup(host: &Host, request: &Request, manner: Manner, console: &mut Console) -> Result<Exit, Trouble> {
    need_root("setup")?;
    let _lock = lock::take(host, &request.name, "setup")?;
    let request = &Request { mountpoint: real(&request.mountpoint)?, ..request.clone() };
    let facts = gather(host, request)?;
    let decision = decide(request, &facts).map_err(Trouble::Refused)?;
    for warning in &decision.warnings {
        console.warn(warning);
    }
    let shown = ui::plan(&decision.plan, &decision.erased, manner.dry_run);
    if manner.dry_run {
        console.data(shown);
        return Ok(Exit::Done);
    }
    console.say(shown);
    execute::confirm(console, manner.yes, "Everything on the devices above will be erased.")?;
    execute::start(host, decision.plan, console)?;
    console.say(format_args!(
        "\n{} is on the mirror now. Look at it any time with: raidguard status",
        request.directory.display()
    ));
    Ok(Exit::Done)
}

/// The mount point as the kernel will show it, or the mirror would not be seen where it is mounted.
fn real(mountpoint: &Path) -> Result<PathBuf, Trouble> {
    files::real_path(mountpoint).map_err(|e| {
        Trouble::refused(
            format!("{} cannot be the mount point: {e}", mountpoint.display()),
            "choose another --mountpoint",
        )
    })
}

#[cfg(test)]
mod tests;
