//! What can go wrong with an overlay.

use std::{io, path::PathBuf};

use super::Kind;
use crate::{
    exec::CmdError,
    host::{files::FileError, mountinfo::MountinfoError},
    model::Bytes,
};

/// Why what was read from an overlay is not to be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The scratch filesystem is full, or was.
    #[error("the scratch filesystem at {} is full ({} free)", scratch.display(), Bytes(*free))]
    Full {
        /// Where.
        scratch: PathBuf,
        /// Bytes free.
        free: u64,
    },
    /// It has grown past its limit.
    #[error("the overlay uses {} of scratch space, more than the {} that it may", Bytes(*used), Bytes(*limit))]
    Limit {
        /// Bytes used.
        used: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// The kernel gave the snapshot up.
    #[error("the snapshot is not usable: {0}")]
    Snapshot(String),
    /// The daemon has ended.
    #[error("qemu-storage-daemon has ended")]
    Daemon,
    /// A device of the overlay is gone.
    #[error("{} is gone", .0.display())]
    Gone(PathBuf),
    /// A survivor takes writes.
    #[error("{} is not read-only any more", .0.display())]
    Writable(PathBuf),
    /// The pool that was imported from it has stopped.
    #[error("the pool {0} that was imported from it has stopped")]
    Pool(String),
}

/// Why there is no overlay, or why it could not be taken down.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// The machine cannot have this kind.
    #[error("there is no {kind} to be had here: {why}")]
    Unavailable {
        /// Which.
        kind: Kind,
        /// Why.
        why: String,
    },
    /// What several survivors hold together cannot be put together here.
    #[error("what the survivors hold by turns cannot be put together here: {0}")]
    NoJoin(String),
    /// Another rescue has the survivor.
    #[error("the rescue by process {pid} is at work on {}, or was and could not be cleared", device.display())]
    Taken {
        /// Which device.
        device: PathBuf,
        /// Whose rescue.
        pid: u32,
    },
    /// A device cannot serve.
    #[error("{}: {why}", device.display())]
    Device {
        /// Which.
        device: PathBuf,
        /// Why.
        why: String,
    },
    /// The scratch directory cannot serve.
    #[error("{} cannot hold scratch files: {why}", path.display())]
    Scratch {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Too little scratch space.
    #[error("{} of scratch space are needed in {}, and {} may be used there", Bytes(*needed), scratch.display(), Bytes(*room))]
    NoRoom {
        /// Where.
        scratch: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// Bytes that may be used.
        room: u64,
    },
    /// The survivor does not give its bytes.
    #[error("{} cannot be read at byte {offset}", device.display())]
    Unreadable {
        /// Which.
        device: PathBuf,
        /// Where.
        offset: u64,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It came about, but is of no use.
    #[error("the overlay failed: {0}")]
    Broken(Broken),
    /// Something is still in use; it stays until a later run takes it down.
    #[error("{what} is still in use")]
    InUse {
        /// What.
        what: String,
    },
    /// A pool on an overlay cannot be taken away: it has stopped.
    #[error(
        "the pool {name} on the overlay has stopped, since what it lies on fails; it goes only when the machine is started anew"
    )]
    PoolStopped {
        /// What it is called.
        name: String,
    },
    /// A record is not of the known form.
    #[error("{} is not a record of a rescue that this raidguard knows", path.display())]
    Record {
        /// Which.
        path: PathBuf,
    },
    /// The operator asked to stop.
    #[error("stopped, as asked")]
    Stopped,
    /// A command failed.
    #[error(transparent)]
    Cmd(#[from] CmdError),
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The mounts cannot be read.
    #[error(transparent)]
    Mounts(#[from] MountinfoError),
}

impl OverlayError {
    /// Did the operator ask to stop?
    pub fn is_stopped(&self) -> bool {
        matches!(self, Self::Stopped)
    }
}
