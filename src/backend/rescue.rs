//! What is left of a mirror, and the ways to open it, from the one that loses nothing to the last resort.

use std::{
    fs::File,
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use serde::Serialize;

use super::BackendError;
use crate::{
    exec::{Cmd, CmdError, Output},
    host::{Host, overlay::Striped},
    model::{BackendKind, Bytes, lossy},
};

/// What is left of a mirror is opened in seconds; off a disk that reads some places only after many tries it takes minutes.
pub const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// A mirror, or what is left of one, by what its members say themselves: nothing need be declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remains {
    /// What holds it.
    pub backend: BackendKind,
    /// Its UUID, in lower case.
    pub uuid: String,
    /// Its label.
    pub label: String,
    /// How many members it had.
    pub members: u64,
    /// Whether it keeps its files on more than one member.
    pub mirrored: bool,
    /// Whether the kernel has it mounted now, by anybody, and where as far as that is seen from here.
    pub mounted: Option<Vec<PathBuf>>,
    /// The members that can still be read.
    pub survivors: Vec<Survivor>,
    /// Devices that were being made a member: none is a half, and the kernel must not know of any when it mounts the halves.
    pub begun: Vec<PathBuf>,
}

/// A member that can still be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Survivor {
    /// The device.
    #[serde(serialize_with = "lossy::path")]
    pub path: PathBuf,
    /// The member's number.
    pub devid: u64,
    /// The member's UUID.
    pub uuid: String,
    /// The device's size.
    pub size: Bytes,
    /// The last transaction that reached it.
    pub generation: u64,
    /// When something of its files was last changed in that transaction, where that can be told.
    pub changed: Option<Timestamp>,
    /// What is wrong with what says who it belongs to, in words; empty where all is well.
    pub faults: Vec<String>,
    /// What of its data it does not hold, in words, where it says so itself.
    pub lacks: Option<String>,
    /// The kernel can open it as it lies there.
    pub opens: bool,
    /// It has a copy of everything, so that it can be read alone, as far as is known.
    #[serde(skip)]
    pub alone: bool,
    /// Its history, to be compared with another's.
    #[serde(skip)]
    pub history: History,
    /// Where on it a whole filesystem lies, or its share of one, in bytes, where it is not the device's own.
    #[serde(skip)]
    pub data: Option<Range<u64>>,
    /// Which share that is, of members that take turns.
    #[serde(skip)]
    pub share: Option<Share>,
}

/// A share of a filesystem whose members take turns: each holds one chunk, then the next member its one. Several may hold the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Which, from 0.
    pub number: u64,
    /// Of how many.
    pub of: u64,
    /// How long a turn is, in bytes.
    pub chunk: u64,
}

/// What a member knows of its own past: enough to tell whether another one has the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The transactions it remembers, the last first: number, and where it was put.
    pub commits: Vec<(u64, u64)>,
    /// Where what was fsynced since the last of them was put; 0 where nothing was.
    pub log: u64,
}

/// How one survivor's state stands to another's that is not older by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// The same transaction, and the same fsyncs since.
    Same,
    /// The same transaction; what was fsynced since differs.
    OtherLog,
    /// The first is a state that the other went through, this many transactions ago.
    Behind(u64),
    /// Each was written without the other.
    Diverged,
    /// It cannot be told which of these it is.
    Unclear,
}

/// Overlays that are to be mounted, with what that needs to know.
#[derive(Debug, Clone, Copy)]
pub struct Opening<'a> {
    /// What the way says of how.
    pub options: &'a str,
    /// Those that lie below.
    pub survivors: &'a [Survivor],
    /// One of each, or one of all their shares.
    pub overlays: &'a [PathBuf],
    /// Where it is mounted.
    pub place: &'a Path,
    /// What it may be called meanwhile: nothing else is.
    pub name: &'a str,
    /// Where the mirror belongs, where that is declared.
    pub belongs: Option<&'a Path>,
    /// It was mounted before, and all is in its place that had to be written: now it is only read.
    pub again: bool,
}

/// Runs a command for a rescue, and stops it when the operator asks.
pub type Run<'r> = &'r mut dyn FnMut(&Cmd) -> Result<Output, CmdError>;

/// What was put right on an overlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mended {
    /// What it was, in words.
    pub says: String,
    /// Whether the state is the newest all the same.
    pub complete: bool,
}

/// How new the state is that a way opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Freshness {
    /// The last commit that was acknowledged is in it.
    Newest,
    /// It may be, and there is no proof.
    Unproven,
    /// It is not, or nobody can say.
    Old,
}

/// How survivors were opened.
#[derive(Debug, Clone, Default)]
pub struct Opened {
    /// What of it could not be mounted.
    pub left: Vec<String>,
    /// What makes the state an older one than the way to it promises, and how old.
    pub doubt: Option<(Freshness, String)>,
}

/// A way to open survivors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rung {
    /// Its name, for programs.
    pub name: &'static str,
    /// What it does, for people.
    pub says: &'static str,
    /// How new what it opens is.
    pub freshness: Freshness,
    /// What may be lacking in it, in words; nothing where nothing is.
    pub lacks: Option<&'static str>,
    /// Whether it is only gone when asked for.
    pub when_allowed: bool,
    /// How it opens.
    pub way: Way,
}

/// How a way opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It is mounted with these options.
    Mount(&'static str),
    /// A tool reads the files out without a mount.
    Extract,
}

impl Remains {
    /// How people call it: the label where it has one.
    pub fn called(&self) -> String {
        if self.label.is_empty() { self.uuid.clone() } else { format!("`{}` ({})", self.label, self.uuid) }
    }
}

/// Reads what is left of one kind of mirror. Nothing here writes to a survivor.
pub trait Rescue: Send + Sync {
    /// What is left of every mirror of this kind, by what all block devices say.
    ///
    /// # Errors
    /// The devices could not be listed.
    fn remains(&self, host: &Host) -> Result<Vec<Remains>, BackendError>;

    /// How `one` stands to `newest`, whose number is not smaller. `all` are the survivors of the mirror, these two among them.
    ///
    /// # Errors
    /// A device could not be read.
    fn relate(
        &self,
        host: &Host,
        one: &Survivor,
        newest: &Survivor,
        all: &[Survivor],
    ) -> Result<Relation, BackendError>;

    /// The ways to open it, from the one that loses nothing to the last resort.
    fn rungs(&self) -> &'static [Rung];

    /// Makes the kernel forget these devices, so that it takes none of them for a member of what is mounted next.
    fn forget_commands(&self, devices: &[PathBuf]) -> Vec<Cmd>;

    /// What of that is to be run on this machine, as things are.
    ///
    /// # Errors
    /// What the kernel has of them could not be read.
    fn forget(&self, _host: &Host, devices: &[PathBuf]) -> Result<Vec<Cmd>, BackendError> {
        Ok(self.forget_commands(devices))
    }

    /// How the survivors' shares are put together; nothing where none has only a share.
    ///
    /// # Errors
    /// What is missing, in words.
    fn shares(&self, _survivors: &[Survivor]) -> Result<Option<Striped>, String> {
        Ok(None)
    }

    /// Can this machine open such a mirror at all? May load a kernel module.
    ///
    /// # Errors
    /// It cannot; the reason says what is missing.
    fn ready(&self, _host: &Host) -> Result<(), BackendError> {
        Ok(())
    }

    /// Whether the kernel has to be given it before it is mounted, and has to let go of it afterwards.
    fn imports(&self) -> bool {
        false
    }

    /// Whether these survivors hold everything together; if not, what is missing, in words.
    ///
    /// # Errors
    /// A survivor could not be read.
    fn enough(&self, _host: &Host, _survivors: &[Survivor]) -> Result<Result<(), String>, BackendError> {
        Ok(Ok(()))
    }

    /// Keeps from the kernel what it could take for a member beside these overlays, for as long as the files are open.
    ///
    /// # Errors
    /// A device could not be read or held.
    fn keep_away(&self, _host: &Host, _overlays: &[PathBuf]) -> Result<Vec<File>, BackendError> {
        Ok(Vec::new())
    }

    /// Mounts these overlays of the survivors, and nothing else, at `place`: one of each, or one of all their shares. Nothing of a mirror that
    /// takes more than commands which are known beforehand.
    fn mount_commands(
        &self,
        _options: &str,
        _survivors: &[Survivor],
        _overlays: &[PathBuf],
        _place: &Path,
    ) -> Vec<Cmd> {
        Vec::new()
    }

    /// Mounts overlays of the survivors, and nothing else.
    ///
    /// # Errors
    /// It cannot be mounted so.
    fn mount(&self, _host: &Host, opening: &Opening<'_>, run: Run<'_>) -> Result<Opened, BackendError> {
        let Opening { options, survivors, overlays, place, .. } = *opening;
        for cmd in self.mount_commands(options, survivors, overlays, place) {
            run(&cmd.timeout(PATIENCE))?;
        }
        Ok(Opened::default())
    }

    /// Takes that mount away, whole or in part.
    ///
    /// # Errors
    /// Some of it is left.
    fn unmount(&self, host: &Host, opening: &Opening<'_>) -> Result<(), BackendError> {
        let unmount = |cmd: Cmd| host.runner().run(&cmd.arg(opening.place));
        if let Err(e) = unmount(Cmd::change("umount")) {
            tracing::warn!("{e}");
            unmount(Cmd::change("umount").arg("--lazy"))?;
        }
        Ok(())
    }

    /// Reads the files out of an overlay into `to`, without a mount; nothing where no tool does.
    fn extract_command(&self, _overlay: &Path, _to: &Path) -> Option<Cmd> {
        None
    }

    /// Puts right on its overlay what keeps the kernel from opening one of the survivors in the state of the first of them, and says what
    /// that was; nothing where there is nothing.
    ///
    /// # Errors
    /// It cannot be put right, or the overlay could not be written.
    fn mend(
        &self,
        host: &Host,
        survivors: &[Survivor],
        index: usize,
        overlay: &Path,
    ) -> Result<Option<Mended>, BackendError>;

    /// The bytes of a survivor that hold anything at all; nothing where that cannot be told for sure. `all` are those that are read.
    fn used(&self, host: &Host, survivor: &Survivor, all: &[Survivor]) -> Option<Vec<Range<u64>>>;

    /// The devices that the kernel counts to the mounted mirror with this UUID, and the transaction that it is at, where it says so.
    ///
    /// # Errors
    /// sysfs could not be read.
    fn mounted(&self, host: &Host, uuid: &str) -> Result<(Vec<PathBuf>, Option<u64>), BackendError>;
}
