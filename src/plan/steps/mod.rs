//! The changes that verbs are made of. Each is plain data with a way to look, apply and undo.

mod back;
mod boot;
mod data;
mod exchange;
mod member;
mod mountpoint;
mod node;
mod original;
mod partition;
mod pool;
mod proof;
mod reach;
mod service;
mod storage;

use std::{
    error::Error,
    ffi::OsStr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub use back::{ExchangeBack, TakeBack};
pub use boot::{Initramfs, KnowArray};
pub use data::{CopyTree, Own, PlainDirectory, Verify};
pub use exchange::Exchange;
pub use member::{Asked, Discard, GrowMember, ReplaceMember, RestoreLevel, ReturnMember};
pub use mountpoint::MountPoint;
pub use node::{StartNode, StopNode};
pub use original::{KeepOriginal, RemoveOriginal};
pub use partition::MakePartition;
pub use pool::{BootPool, WakePool};
pub use proof::{AcceptCounters, Proof, Prove, Redeclare};
pub use reach::{LeavePrivate, MountForWork, MountInPlace, private_place};
pub use service::{Declare, DropIn, InstallSchedule};
pub use storage::{Container, Erase, Fstab, MakeMirror, MountMirror};

use super::{Context, Outcome, Probe, Step, StepError};
use crate::{
    exec::{Cmd, Output},
    host::Host,
    model::{Identity, quote::shell_quote},
};

/// Every change that a plan may hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
#[allow(missing_docs, reason = "each is documented where it is defined")]
#[allow(clippy::large_enum_variant, reason = "a plan has a score of them")]
pub enum Action {
    StopNode(StopNode),
    MakePartition(MakePartition),
    Erase(Erase),
    MakeMirror(MakeMirror),
    KnowArray(KnowArray),
    MountPoint(MountPoint),
    Fstab(Fstab),
    BootPool(BootPool),
    WakePool(WakePool),
    MountMirror(MountMirror),
    Container(Container),
    PlainDirectory(PlainDirectory),
    Copy(CopyTree),
    Own(Own),
    Verify(Verify),
    Exchange(Exchange),
    ExchangeBack(ExchangeBack),
    TakeBack(TakeBack),
    DropIn(DropIn),
    Schedule(InstallSchedule),
    Declare(Declare),
    StartNode(StartNode),
    KeepOriginal(KeepOriginal),
    RemoveOriginal(RemoveOriginal),
    MountForWork(MountForWork),
    Discard(Discard),
    ReplaceMember(ReplaceMember),
    ReturnMember(ReturnMember),
    GrowMember(GrowMember),
    RestoreLevel(RestoreLevel),
    MountInPlace(MountInPlace),
    LeavePrivate(LeavePrivate),
    Prove(Prove),
    Redeclare(Redeclare),
    AcceptCounters(AcceptCounters),
}

impl Action {
    fn step(&self) -> &dyn Step {
        match self {
            Self::StopNode(s) => s,
            Self::MakePartition(s) => s,
            Self::Erase(s) => s,
            Self::MakeMirror(s) => s,
            Self::KnowArray(s) => s,
            Self::MountPoint(s) => s,
            Self::Fstab(s) => s,
            Self::BootPool(s) => s,
            Self::WakePool(s) => s,
            Self::MountMirror(s) => s,
            Self::Container(s) => s,
            Self::PlainDirectory(s) => s,
            Self::Copy(s) => s,
            Self::Own(s) => s,
            Self::Verify(s) => s,
            Self::Exchange(s) => s,
            Self::ExchangeBack(s) => s,
            Self::TakeBack(s) => s,
            Self::DropIn(s) => s,
            Self::Schedule(s) => s,
            Self::Declare(s) => s,
            Self::StartNode(s) => s,
            Self::KeepOriginal(s) => s,
            Self::RemoveOriginal(s) => s,
            Self::MountForWork(s) => s,
            Self::Discard(s) => s,
            Self::ReplaceMember(s) => s,
            Self::ReturnMember(s) => s,
            Self::GrowMember(s) => s,
            Self::RestoreLevel(s) => s,
            Self::MountInPlace(s) => s,
            Self::LeavePrivate(s) => s,
            Self::Prove(s) => s,
            Self::Redeclare(s) => s,
            Self::AcceptCounters(s) => s,
        }
    }
}

impl Step for Action {
    fn says(&self) -> String {
        self.step().says()
    }
    fn commands(&self) -> Vec<String> {
        self.step().commands()
    }
    fn unsays(&self) -> String {
        self.step().unsays()
    }
    fn undo_commands(&self) -> Vec<String> {
        self.step().undo_commands()
    }
    fn probe(&self, host: &Host) -> Result<Probe, StepError> {
        self.step().probe(host)
    }
    fn probe_undone(&self, host: &Host) -> Result<Probe, StepError> {
        self.step().probe_undone(host)
    }
    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError> {
        self.step().apply(cx)
    }
    fn undo(&self, cx: &mut Context<'_>) -> Result<(), StepError> {
        self.step().undo(cx)
    }
    fn may_undo(&self, host: &Host) -> Result<(), StepError> {
        self.step().may_undo(host)
    }
    fn erases(&self) -> &[Identity] {
        self.step().erases()
    }
    fn comes_by_boot(&self) -> bool {
        self.step().comes_by_boot()
    }
    fn is_final(&self) -> bool {
        self.step().is_final()
    }
}

/// Turns a cause into a step's failure: `making /srv/lightning`.
fn fail<E: Into<Box<dyn Error + Send + Sync>>>(
    doing: &str,
    path: impl AsRef<Path>,
) -> impl FnOnce(E) -> StepError {
    let what = format!("{doing} {}", path.as_ref().display());
    move |e| StepError::failed(what, e)
}

/// Runs a command of a step.
fn run(host: &Host, cmd: &Cmd) -> Result<Output, StepError> {
    host.runner().run(cmd).map_err(|e| StepError::failed("a command did not succeed", e))
}

/// A command line for what is done without a command.
fn line<'a>(tool: &str, args: impl IntoIterator<Item = &'a OsStr>) -> String {
    args.into_iter().fold(tool.to_owned(), |line, arg| format!("{line} {}", shell_quote(arg)))
}

/// Has the directory been exchanged for a symlink?
fn is_moved(directory: &Path) -> bool {
    directory.is_symlink()
}

/// Paths as one list for people.
fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}
