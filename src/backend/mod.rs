//! All that is particular to one kind of mirror.

mod blocks;
pub mod btrfs;
pub mod mdadm;
mod members;
mod report;
pub mod rescue;
pub mod zfs;

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

pub use members::{Exchange, ExchangeEnd, ExchangeProgress, Layout, LevelEnd, Members, Piece};
pub use report::{BalanceEnd, BalanceReport, ScrubCounts, ScrubEnd, ScrubProgress, ScrubReport, ScrubStatus};

use serde::{Deserialize, Serialize};

use crate::{
    config::Mirror,
    exec::{Cmd, CmdError, Flow},
    host::{
        Host,
        files::{Doing as _, FileError},
        fstab,
        mountinfo::MountinfoError,
    },
    model::{
        BackendKind, Filesystem, FilesystemKind, Identity, Level,
        mirror::MirrorState,
        observed::{Claim, ScrubRecord},
    },
};

/// Shown progress, it says whether to go on.
pub type Watcher<'w, P> = dyn FnMut(&P) -> Flow + 'w;

/// A mirror to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorSpec {
    /// What holds it.
    pub backend: BackendKind,
    /// Its name, which becomes the filesystem's label.
    pub name: String,
    /// What ZFS calls it, where that is another name: a pool that was adopted keeps its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_name: Option<String>,
    /// How redundant it is to be.
    pub level: Level,
    /// Its UUID in lower case (btrfs: the filesystem's, md: the array's), chosen beforehand: so that what was made can be told from what
    /// was there. ZFS chooses the number of a pool itself, so it is written as its comment; of a pool that is declared it is that number,
    /// in decimal.
    pub uuid: String,
    /// The filesystem on it, where it is none itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<Filesystem>,
    /// What a pool of ZFS is made with beyond that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolSpec>,
    /// The members, as device nodes.
    pub devices: Vec<PathBuf>,
    /// Where it is to be mounted.
    pub mountpoint: PathBuf,
}

impl MirrorSpec {
    /// A declared mirror as it is seen, with these devices as its members.
    pub fn of(mirror: &Mirror, seen: &MirrorState, devices: Vec<PathBuf>) -> Self {
        let pool_name = seen.zfs.as_ref().map(|pool| pool.name.clone());
        Self {
            backend: mirror.backend,
            name: mirror.name.clone(),
            pool_name: pool_name.filter(|name| *name != mirror.name),
            level: mirror.level,
            uuid: mirror.uuid.clone(),
            filesystem: mirror.filesystem.clone(),
            pool: None,
            devices,
            mountpoint: mirror.mountpoint.clone(),
        }
    }

    /// What ZFS calls the pool.
    pub fn pool_name(&self) -> &str {
        self.pool_name.as_deref().unwrap_or(&self.name)
    }
}

/// What a pool of ZFS is made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolSpec {
    /// The smallest write, as a power of two: it cannot be changed later.
    pub ashift: u64,
    /// Whether the members differ in size by more than ZFS takes unasked.
    #[serde(default)]
    pub uneven: bool,
    /// The members by paths that stay the same, since ZFS keeps the path by which it opened one; in the order of the device nodes.
    pub paths: Vec<PathBuf>,
}

/// How far the making of a mirror came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Made {
    /// None of the devices belongs to it, or making it was ended so early that it can be made as if nothing had been.
    No,
    /// It lies whole over exactly these devices.
    Complete,
    /// Some of it is there; the reason says what is not.
    Partial(String),
}

/// Why a mirror could not be read or worked on.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The kernel or the tools cannot do it.
    #[error("{what} is not supported here: {why}")]
    Unsupported {
        /// What was asked for.
        what: String,
        /// What is missing.
        why: String,
    },
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The mounts could not be read.
    #[error(transparent)]
    Mounts(#[from] MountinfoError),
    /// Something was not in the form that it should have.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// A device that was being made a member is of no use.
    #[error("the new device {} fails: {why}", device.display())]
    NewDevice {
        /// The device.
        device: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The mirror is not as what was to be done needs it.
    #[error("{0}")]
    State(String),
    /// A command failed.
    #[error(transparent)]
    Command(#[from] CmdError),
    /// A btrfs is mounted, but none that the kernel lists holds its device.
    #[error(
        "cannot tell which filesystem is mounted at {}: no filesystem in /sys/fs/btrfs has {}",
        mountpoint.display(),
        source_device.display()
    )]
    UnclearMount {
        /// Where it is mounted.
        mountpoint: PathBuf,
        /// From which device.
        source_device: PathBuf,
    },
}

/// Text that is not in the form that it should have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot understand {what}: {found:?}")]
pub struct ParseError {
    what: &'static str,
    found: String,
}

impl ParseError {
    /// What was read, and the part of it that is not understood; only its first 200 characters are kept.
    pub fn new(what: &'static str, found: impl AsRef<str>) -> Self {
        Self { what, found: found.as_ref().chars().take(200).collect() }
    }
}

/// One kind of mirror. It reads through the [`Host`] and gives the commands that change; the plan runs those.
pub trait Backend: Members + Send + Sync + fmt::Debug {
    /// The tools it needs.
    fn tools(&self) -> &[&'static str];

    /// Those that it needs beyond them to make one, with this filesystem on it.
    fn tools_to_make(&self, on: Option<FilesystemKind>) -> Vec<&'static str>;

    /// The packages of Debian that they are in.
    fn packages(&self) -> &'static str;

    /// Can this machine's kernel do this level? May load a kernel module.
    ///
    /// # Errors
    /// It cannot, or that could not be found out.
    fn supported(&self, host: &Host, level: Level) -> Result<(), BackendError>;

    /// Makes the mirror. What is on the devices must have been erased before: a signature that is left makes it fail.
    fn create_commands(&self, spec: &MirrorSpec) -> Vec<Cmd>;

    /// How far an earlier making came, by looking at the devices.
    ///
    /// # Errors
    /// A device could not be read.
    fn made(&self, host: &Host, spec: &MirrorSpec) -> Result<Made, BackendError>;

    /// Erases what was made, and nothing of another kind.
    fn unmaking(&self, spec: &MirrorSpec) -> Vec<Cmd>;

    /// As [`Backend::unmaking`], with what must end before it on this machine.
    ///
    /// # Errors
    /// What is there could not be read.
    fn unmake_commands(&self, _host: &Host, spec: &MirrorSpec) -> Result<Vec<Cmd>, BackendError> {
        Ok(self.unmaking(spec))
    }

    /// Erases the one member of this mirror whose state is given up, and takes nothing else of the mirror away.
    fn discarding(&self, spec: &MirrorSpec, _half: &Identity) -> Vec<Cmd> {
        self.unmaking(spec)
    }

    /// As [`Backend::discarding`], with what must end before it on this machine.
    ///
    /// # Errors
    /// What is there could not be read.
    fn discard_commands(
        &self,
        host: &Host,
        spec: &MirrorSpec,
        _half: &Identity,
    ) -> Result<Vec<Cmd>, BackendError> {
        self.unmake_commands(host, spec)
    }

    /// The line of fstab by which it is mounted; nothing where the backend knows by itself.
    fn fstab_entry(&self, spec: &MirrorSpec) -> Option<fstab::Entry>;

    /// Mounts it at its place, once the kernel knows its members.
    fn mounting(&self, spec: &MirrorSpec) -> Vec<Cmd> {
        vec![Cmd::change("mount").arg(&spec.mountpoint)]
    }

    /// As [`Backend::mounting`], of what is there on this machine.
    ///
    /// # Errors
    /// It could not be read.
    fn mount_in_place(&self, _host: &Host, spec: &MirrorSpec) -> Result<Vec<Cmd>, BackendError> {
        Ok(self.mounting(spec))
    }

    /// What there is already by this mirror's name, in words, and stands against it being made.
    ///
    /// # Errors
    /// It could not be looked for.
    fn name_conflict(&self, _host: &Host, _spec: &MirrorSpec) -> Result<Option<String>, BackendError> {
        Ok(None)
    }

    /// Under which [`MirrorSpec::uuid`] the mirror with this UUID was made.
    ///
    /// # Errors
    /// Its devices could not be read.
    fn made_as(&self, _host: &Host, uuid: &str) -> Result<String, BackendError> {
        Ok(uuid.to_owned())
    }

    /// What a container is called.
    fn container_word(&self) -> &'static str {
        "directory"
    }

    /// Whether a container can be snapshotted. Where it cannot, databases are copied, and each copy is proven to be of one instant.
    fn has_snapshots(&self) -> bool;

    /// Makes the container (btrfs: subvolume, else a plain directory) at `path` that a node's files go into.
    fn container_commands(&self, path: &Path) -> Vec<Cmd> {
        vec![Cmd::change("mkdir").arg("--").arg(path)]
    }

    /// Deletes such a container with all that is in it.
    fn container_delete_commands(&self, path: &Path) -> Vec<Cmd> {
        vec![Cmd::change("rmdir").arg("--").arg(path)]
    }

    /// Is `path` such a container? A path that does not exist is none.
    ///
    /// # Errors
    /// The path could not be looked at.
    fn is_container(&self, host: &Host, path: &Path) -> Result<bool, BackendError> {
        match fs::symlink_metadata(host.path(path)) {
            Ok(meta) => Ok(meta.is_dir()),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
            Err(e) => Err(e).doing("reading", path).map_err(Into::into),
        }
    }

    /// What the mirror with this UUID is now. Starts no process, but where only the backend's tool can tell (ZFS): each with a short time
    /// limit, and none that would wait for a mirror which has stopped.
    ///
    /// # Errors
    /// Something could not be read or understood: the mirror's state is then unknown.
    fn observe(&self, host: &Host, uuid: &str, mountpoint: &Path) -> Result<MirrorState, BackendError>;

    /// Has what is mounted there stopped, so that whoever reads from it may wait for ever? Told at once, and by nothing that could wait.
    ///
    /// # Errors
    /// It could not be read.
    fn has_stopped(&self, _host: &Host, _mountpoint: &Path) -> Result<bool, BackendError> {
        Ok(false)
    }

    /// Jobs of the distribution that scrub this mirror too, beyond those for every mirror of its kind
    /// ([`crate::host::schedule::facts`]). Starts a process only where nothing else tells, with a short time limit.
    ///
    /// # Errors
    /// That could not be found out.
    fn doubled(&self, _host: &Host, _mirror: &Mirror) -> Result<Vec<String>, BackendError> {
        Ok(Vec::new())
    }

    /// What keeps a boot from bringing back the mirror with this UUID, where it has no line in fstab. Starts no process.
    ///
    /// # Errors
    /// That could not be read.
    fn boot_faults(&self, _host: &Host, _uuid: &str) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// The UUID, in lower case, of what is mounted at exactly this place; nothing where no mirror of this kind is. Starts no process.
    ///
    /// # Errors
    /// The mounts could not be read.
    fn uuid_at(&self, host: &Host, mountpoint: &Path) -> Result<Option<String>, BackendError>;

    /// The filesystem on a mirror that is none itself, by what a member of it holds. Starts no process.
    ///
    /// # Errors
    /// A member could not be read.
    fn filesystem(&self, host: &Host, state: &MirrorState) -> Result<Option<Filesystem>, BackendError>;

    /// Every device that says it is a member of a mirror of this kind, mounted or not, by the mirror's UUID in lower case. Starts no
    /// process.
    ///
    /// # Errors
    /// The devices could not be listed.
    fn claims(&self, host: &Host) -> Result<BTreeMap<String, Vec<Claim>>, BackendError>;

    /// The half of the same mirror that was written to without `device`, which itself was written to without that one; nothing where there
    /// is none, or where this is no member of such a mirror. Starts no process.
    ///
    /// # Errors
    /// The device, or what there is of devices, could not be read.
    fn other_half(&self, host: &Host, device: &Path) -> Result<Option<PathBuf>, BackendError>;

    /// What the backend's own record says of the last scrub. Starts no process.
    ///
    /// # Errors
    /// It could not be read or understood.
    fn scrub_record(&self, host: &Host, uuid: &str) -> Result<Option<ScrubRecord>, BackendError>;

    /// How what is left of such a mirror is read.
    fn rescue(&self) -> &dyn rescue::Rescue;

    /// Takes a snapshot of what `data` lies in, all of it at one instant, at `to` on the mirror, which is mounted at `mountpoint`. It can be
    /// written to, and is there until [`Backend::drop_snapshot`]. Gives where what is at `data` is in it. Only of a backend that
    /// [has snapshots](Backend::has_snapshots).
    ///
    /// # Errors
    /// `data` is not on the mirror, or no snapshot could be taken.
    fn take_snapshot(
        &self,
        host: &Host,
        mountpoint: &Path,
        data: &Path,
        to: &Path,
    ) -> Result<PathBuf, BackendError>;

    /// Deletes that snapshot, if it is there, whole or in part.
    ///
    /// # Errors
    /// It could not be looked for or deleted.
    fn drop_snapshot(&self, host: &Host, mountpoint: &Path, to: &Path) -> Result<(), BackendError>;

    /// Runs the balance that the schedule documents, fitted to the mirror, until it is done or `watch` says stop.
    ///
    /// # Errors
    /// It could not be started or failed for an unforeseen reason.
    fn balance(
        &self,
        host: &Host,
        mountpoint: &Path,
        state: &MirrorState,
        watch: &mut Watcher<'_, ()>,
    ) -> Result<BalanceReport, BackendError>;

    /// The scrub that the schedule documents.
    fn scrub_command(&self, spec: &MirrorSpec) -> Cmd;

    /// Runs the scrub that the schedule documents, until it is done or `watch` says stop.
    ///
    /// # Errors
    /// It could not be started, or what it did could not be found out.
    fn scrub(
        &self,
        host: &Host,
        mountpoint: &Path,
        state: &MirrorState,
        watch: &mut Watcher<'_, ScrubProgress>,
    ) -> Result<ScrubReport, BackendError>;
}

/// Every kind.
pub const ALL: [BackendKind; 3] = [BackendKind::Btrfs, BackendKind::Mdadm, BackendKind::Zfs];

/// The backend of a kind.
pub fn of(kind: BackendKind) -> &'static dyn Backend {
    match kind {
        BackendKind::Btrfs => &btrfs::Btrfs,
        BackendKind::Mdadm => &mdadm::Mdadm,
        BackendKind::Zfs => &zfs::Zfs,
    }
}
