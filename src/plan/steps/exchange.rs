//! The moment of the move: a symlink into the mirror and the node's directory trade names.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, symlink},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{fail, line};
use crate::{
    exec::log_change,
    host::{
        Host,
        copy::{self, Manifest},
        exchange, files,
    },
    node,
    plan::{Context, Outcome, Probe, Step, StepError},
};

/// Puts a symlink to `data` in the place of `directory`; the original then stands at `aside`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// The node's directory, with no symlink on the way to it.
    pub directory: PathBuf,
    /// The copy inside the mirror.
    pub data: PathBuf,
    /// The name that the original gets, in the same directory.
    pub aside: PathBuf,
    /// What was copied.
    pub manifest: PathBuf,
}

impl Exchange {
    fn points(&self, path: &Path) -> Result<bool, StepError> {
        match fs::read_link(path) {
            Ok(to) => Ok(to == self.data),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => Ok(false),
            Err(e) => Err(fail("reading the link", path)(e)),
        }
    }
}

/// Refuses while a process holds anything below `dir`.
pub(super) fn quiet(host: &Host, dir: &Path) -> Result<(), StepError> {
    let running = node::find_running(host, dir, None)
        .map_err(|e| StepError::failed("it cannot be told whether a node is running", e))?;
    if running.is_quiet() {
        return Ok(());
    }
    Err(StepError::refused(format!("{} is in use: {running}", dir.display()))
        .hint("stop what uses it, and keep it stopped"))
}

/// Refuses when `dir` is no longer what the manifest says.
pub(super) fn unchanged(dir: &Path, manifest: &Path, meaning: &str) -> Result<(), StepError> {
    let manifest = Manifest::load(manifest)
        .map_err(|e| StepError::failed("the record of the copy cannot be read", e))?;
    match copy::first_difference(dir, &manifest).map_err(fail("comparing", dir))? {
        None => Ok(()),
        Some(difference) => Err(StepError::refused(format!("{meaning}: {difference}"))),
    }
}

/// The command that would exchange two names (coreutils 9.5; older ones have none).
pub(super) fn exchange_line(one: &Path, other: &Path) -> String {
    line("mv", ["--exchange".as_ref(), "--no-copy".as_ref(), one.as_os_str(), other.as_os_str()])
}

impl Step for Exchange {
    fn says(&self) -> String {
        format!("put a symlink to {} in the place of {}", self.data.display(), self.directory.display())
    }

    fn commands(&self) -> Vec<String> {
        vec![
            line("ln", ["-s".as_ref(), self.data.as_os_str(), self.aside.as_os_str()]),
            exchange_line(&self.directory, &self.aside),
        ]
    }

    fn probe(&self, _: &Host) -> Result<Probe, StepError> {
        Ok(if self.points(&self.directory)? { Probe::Done } else { Probe::Pending })
    }

    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError> {
        exchange::settle(&self.directory, &self.aside).map_err(fail("settling", &self.directory))?;
        if self.points(&self.directory)? {
            return Ok(Outcome::default());
        }
        quiet(cx.host, &self.directory)?;
        unchanged(&self.directory, &self.manifest, "the directory changed after it was copied")
            .map_err(|e| e.hint("see that nothing writes there; --resume copies it anew"))?;
        let [link, swap] = <[String; 2]>::try_from(self.commands()).unwrap_or_default();
        if !self.points(&self.aside)? {
            log_change(&link);
            symlink(&self.data, &self.aside).map_err(fail("making the symlink", &self.aside))?;
            let owner = fs::symlink_metadata(&self.directory).map_err(fail("reading", &self.directory))?;
            std::os::unix::fs::lchown(&self.aside, Some(owner.uid()), Some(owner.gid()))
                .map_err(fail("setting the owner of", &self.aside))?;
            files::sync_dir(files::parent(&self.aside)).map_err(fail("syncing", &self.aside))?;
        }
        log_change(&swap);
        let how =
            exchange::exchange(&self.directory, &self.aside).map_err(fail("exchanging", &self.directory))?;
        Ok(Outcome::note(match how {
            exchange::Exchanged::AtOnce => {
                format!("in one atomic step; the original is at {}", self.aside.display())
            }
            exchange::Exchanged::ByRenames => {
                format!(
                    "by renames, this filesystem has no exchange; the original is at {}",
                    self.aside.display()
                )
            }
        }))
    }

    /// After a power cut the boot may have started the node on the mirror.
    fn may_undo(&self, host: &Host) -> Result<(), StepError> {
        if !self.points(&self.directory)? {
            return Ok(());
        }
        unchanged(&self.data, &self.manifest, "the data on the mirror changed since they were copied, so the original is old state")
            .map_err(|e| e.hint("`raidguard setup --resume` finishes the move; `raidguard release` then brings the newest data back"))?;
        quiet(host, &self.data)
    }

    fn undo(&self, cx: &mut Context<'_>) -> Result<(), StepError> {
        exchange::settle(&self.directory, &self.aside).map_err(fail("settling", &self.directory))?;
        if self.points(&self.directory)? {
            self.may_undo(cx.host)?;
            exchange::exchange(&self.directory, &self.aside).map_err(fail("exchanging", &self.directory))?;
        }
        if self.points(&self.aside)? {
            files::remove(&self.aside).map_err(fail("removing the symlink", &self.aside))?;
        }
        Ok(())
    }
}
