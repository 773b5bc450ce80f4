//! The place where the mirror is mounted, and what stands there while it is not.

use std::{fs, io, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{fail, run};
use crate::{
    exec::{Cmd, log_change},
    host::{Host, files, mountinfo},
    plan::{Context, Outcome, Probe, Step, StepError},
};

/// Makes the mount point: root's, and immutable while nothing is mounted, so that nobody writes below an absent mirror.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPoint {
    /// Where.
    pub path: PathBuf,
    /// The directories that have to be made for it, outermost first. Those alone are removed again.
    pub missing: Vec<PathBuf>,
    /// Whether the filesystem below knows the immutable flag.
    pub immutable: bool,
}

impl MountPoint {
    fn chattr(&self, flag: &str) -> Cmd {
        Cmd::change("chattr").arg(flag).arg("--").arg(&self.path)
    }

    fn is_mounted(&self, host: &Host) -> Result<bool, StepError> {
        let mounts = mountinfo::read(host).map_err(|e| StepError::failed("the mounts cannot be read", e))?;
        Ok(mountinfo::topmost_at(&mounts, &self.path).is_some())
    }

    /// Whether `lsattr` shows the flag.
    fn is_immutable(&self, host: &Host) -> Result<bool, StepError> {
        let output = run(host, &Cmd::probe("lsattr").args(["-d", "--"]).arg(&self.path))?;
        let text = output.text();
        Ok(text.split_whitespace().next().is_some_and(|flags| flags.contains('i')))
    }
}

impl Step for MountPoint {
    fn says(&self) -> String {
        let closed = if self.immutable { ", closed to writing while nothing is mounted" } else { "" };
        format!("make the mount point {}{closed}", self.path.display())
    }

    fn commands(&self) -> Vec<String> {
        let mkdir = Cmd::change("mkdir").args(["-p", "-m", "0755"]).arg(&self.path).line();
        let mut lines = Vec::new();
        if !self.missing.is_empty() {
            lines.push(mkdir);
        }
        if self.immutable {
            lines.push(self.chattr("+i").line());
        }
        lines
    }

    fn unsays(&self) -> String {
        format!("put the mount point {} back as it was", self.path.display())
    }

    fn undo_commands(&self) -> Vec<String> {
        let open = self.immutable.then(|| self.chattr("-i").line());
        let remove = self.missing.iter().rev().map(|dir| Cmd::change("rmdir").arg(dir).line());
        open.into_iter().chain(remove).collect()
    }

    fn probe(&self, host: &Host) -> Result<Probe, StepError> {
        if self.is_mounted(host)? {
            return Ok(Probe::Done);
        }
        match fs::metadata(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Probe::Pending),
            Err(e) => return Err(fail("reading", &self.path)(e)),
            Ok(meta) if !meta.is_dir() => {
                return Ok(Probe::Blocked(format!("{} is not a directory", self.path.display())));
            }
            Ok(_) => {}
        }
        if fs::read_dir(&self.path).map_err(fail("reading", &self.path))?.next().is_some() {
            return Ok(Probe::Blocked(format!(
                "{} is not empty: a mount would hide what is in it",
                self.path.display()
            )));
        }
        Ok(if self.immutable && !self.is_immutable(host)? { Probe::Pending } else { Probe::Done })
    }

    fn probe_undone(&self, host: &Host) -> Result<Probe, StepError> {
        if self.is_mounted(host)? {
            return Ok(Probe::Blocked(format!("something is still mounted at {}", self.path.display())));
        }
        // Directories above it that somebody else uses now stay.
        let gone = !self.path.exists();
        let open = !gone && self.missing.is_empty() && !(self.immutable && self.is_immutable(host)?);
        Ok(if gone || open { Probe::Done } else { Probe::Pending })
    }

    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError> {
        if let Some(mkdir) = self.commands().first().filter(|_| !self.missing.is_empty()) {
            log_change(mkdir);
        }
        files::create_dirs(&self.path, 0o755).map_err(fail("making", &self.path))?;
        if self.immutable {
            run(cx.host, &self.chattr("+i"))?;
        }
        Ok(Outcome::default())
    }

    fn undo(&self, cx: &mut Context<'_>) -> Result<(), StepError> {
        if self.is_mounted(cx.host)? {
            return Err(StepError::refused(format!("something is still mounted at {}", self.path.display())));
        }
        if self.immutable && self.path.exists() {
            run(cx.host, &self.chattr("-i"))?;
        }
        for dir in self.missing.iter().rev().filter(|dir| dir.exists()) {
            log_change(&Cmd::change("rmdir").arg(dir).line());
            match fs::remove_dir(dir) {
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {}
                Err(e) => return Err(fail("removing", dir)(e)),
                Ok(()) => files::sync_dir(files::parent(dir)).map_err(fail("syncing", dir))?,
            }
        }
        Ok(())
    }
}
