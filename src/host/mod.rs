//! The machine, one file a source: what lsblk, the kernel and the files below `/etc` say. Knows no verb.

pub mod accounts;
pub mod apart;
pub mod awake;
pub mod below;
pub mod copy;
pub mod declaration;
pub mod disks;
mod dying;
pub mod exchange;
pub mod files;
pub(crate) mod fresh;
pub mod fstab;
mod glance;
pub mod inventory;
pub mod kmsg;
pub mod lock;
pub mod mdadm_conf;
pub mod mountinfo;
pub mod overlay;
pub mod partition;
pub mod patience;
pub mod proc_stat;
pub mod readable;
pub mod schedule;
pub mod secrets;
pub mod smart;
pub mod state;
pub mod zfs;
pub mod zone;

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;

use glance::Glance;

use crate::exec::{Interrupt, RealRunner, Runner};

/// The one seam to the machine: a command runner, a root for `/proc`, `/sys`, `/etc`, `/var` and `/run`, a clock and the operator's
/// wish to stop. Tests hand it a captured tree and a scripted runner.
#[derive(Clone)]
pub struct Host {
    root: PathBuf,
    runner: Arc<dyn Runner>,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    interrupt: Interrupt,
    glance: Option<Arc<Glance>>,
}

/// A version 4 UUID (RFC 9562) from the kernel.
pub fn random_uuid() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/uuid").map(|text| text.trim().to_owned())
}

/// An attribute in sysfs: of at most a page, which the kernel gives as a whole to whoever asks for so much
/// (Documentation/filesystems/sysfs.rst).
fn attribute(path: &Path) -> io::Result<String> {
    let mut page = [0; 4096];
    let length = io::Read::read(&mut fs::File::open(path)?, &mut page)?;
    if length == page.len() {
        return fs::read_to_string(path);
    }
    let text = page.get(..length).unwrap_or_default();
    std::str::from_utf8(text).map(str::to_owned).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("root", &self.root).field("runner", &self.runner).finish_non_exhaustive()
    }
}

impl Host {
    /// The machine that raidguard runs on.
    #[allow(clippy::disallowed_methods, reason = "the seam through which everybody else asks the clock")]
    pub fn real(interrupt: Interrupt) -> Self {
        Self {
            root: "/".into(),
            runner: Arc::new(RealRunner),
            clock: Arc::new(Timestamp::now),
            interrupt,
            glance: None,
        }
    }

    /// A captured machine: files below `root`, commands from `runner`, a clock that stands at `now`.
    pub fn captured(root: impl Into<PathBuf>, runner: Arc<dyn Runner>, now: Timestamp) -> Self {
        Self {
            root: root.into(),
            runner,
            clock: Arc::new(move || now),
            interrupt: Interrupt::default(),
            glance: None,
        }
    }

    /// The same machine for one look at it: what several questions need (the mounts, fstab, a device's superblock) is read once. Not for
    /// who changes something and looks again.
    #[must_use]
    pub fn at_a_glance(&self) -> Self {
        Self { glance: Some(Arc::default()), ..self.clone() }
    }

    /// What `read` reads about a path: once where this is [`Host::at_a_glance`], every time otherwise. A failure is not kept.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn once<T: Send + Sync + 'static, E>(
        &self,
        about: impl AsRef<Path>,
        read: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        match &self.glance {
            Some(glance) => glance.once(about.as_ref(), read),
            None => read().map(Arc::new),
        }
    }

    /// Where a path leads, as the machine itself would name it: symlinks resolved, below the root.
    ///
    /// # Errors
    /// It leads nowhere, or out of a captured tree.
    pub fn resolve(&self, absolute: impl AsRef<Path>) -> io::Result<PathBuf> {
        let real = fs::canonicalize(self.path(absolute))?;
        let below = real.strip_prefix(&self.root).map_err(io::Error::other)?;
        Ok(Path::new("/").join(below))
    }

    /// Where an absolute path of the machine lies below the root.
    pub fn path(&self, absolute: impl AsRef<Path>) -> PathBuf {
        let absolute = absolute.as_ref();
        self.root.join(absolute.strip_prefix("/").unwrap_or(absolute))
    }

    /// A regular file as text. Bytes that are not UTF-8 are an error: what is decided on must be read exactly.
    pub fn read(&self, absolute: impl AsRef<Path>) -> io::Result<String> {
        let path = self.path(&absolute);
        if absolute.as_ref().starts_with("/sys") { attribute(&path) } else { files::read_text(&path) }
    }

    /// As [`Host::read`], where a missing file is an ordinary answer.
    pub fn read_optional(&self, absolute: impl AsRef<Path>) -> io::Result<Option<String>> {
        match self.read(absolute) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The machine's name, as its kernel has it.
    pub fn name(&self) -> String {
        let name = self.read("/proc/sys/kernel/hostname").unwrap_or_default();
        if name.trim().is_empty() { "localhost".to_owned() } else { name.trim().to_owned() }
    }

    /// Runs commands.
    pub fn runner(&self) -> &dyn Runner {
        &*self.runner
    }

    /// What time it is.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Did the operator ask to stop?
    pub fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }
}
