//! An array is made known to what assembles it at boot: mdadm.conf, then the initramfs, which has a copy of that.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{fail, run};
use crate::{
    exec::{Cmd, log_change},
    host::{Host, files, mdadm_conf},
    plan::{Context, Outcome, Probe, Step, StepError},
};

/// An initramfs is compressed, on slow machines for minutes.
const INITRAMFS_TIMEOUT: Duration = Duration::from_secs(1800);

/// What makes an initramfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Initramfs {
    /// Debian's initramfs-tools.
    UpdateInitramfs,
    /// dracut, which has to be told to take mdadm.conf in.
    Dracut,
}

impl Initramfs {
    /// What this machine has, if any.
    pub fn of(host: &Host) -> Option<Self> {
        if host.runner().has("update-initramfs") {
            Some(Self::UpdateInitramfs)
        } else if host.runner().has("dracut") {
            Some(Self::Dracut)
        } else {
            None
        }
    }

    fn cmd(self) -> Cmd {
        let cmd = match self {
            Self::UpdateInitramfs => Cmd::change("update-initramfs").arg("-u"),
            Self::Dracut => Cmd::change("dracut").args(["--force", "--mdadmconf"]),
        };
        cmd.timeout(INITRAMFS_TIMEOUT)
    }
}

/// Adds the array to mdadm.conf, by its UUID, and makes the initramfs anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnowArray {
    /// The line.
    pub line: String,
    /// The comment above it.
    pub comment: String,
    /// The file.
    pub file: PathBuf,
    /// What makes the initramfs, where there is one.
    pub initramfs: Option<Initramfs>,
    /// Where it is kept that the initramfs knows it.
    pub record: PathBuf,
}

impl KnowArray {
    fn tell(&self, host: &Host) -> Result<(), StepError> {
        if let Some(initramfs) = self.initramfs {
            run(host, &initramfs.cmd())?;
        }
        Ok(())
    }

    fn is_told(&self, host: &Host) -> bool {
        self.initramfs.is_none() || host.path(&self.record).exists()
    }

    fn has(&self, host: &Host) -> Result<bool, StepError> {
        mdadm_conf::has(host, &self.line).map_err(fail("reading", &self.file))
    }
}

impl Step for KnowArray {
    fn says(&self) -> String {
        let and = if self.initramfs.is_some() { " and to the initramfs" } else { "" };
        format!("add the array to {}{and}", self.file.display())
    }

    fn commands(&self) -> Vec<String> {
        let mut lines = vec![format!("write {}: {}", self.file.display(), self.line)];
        lines.extend(self.initramfs.map(|initramfs| initramfs.cmd().line()));
        lines
    }

    fn unsays(&self) -> String {
        format!("remove the array from {}", self.file.display())
    }

    fn undo_commands(&self) -> Vec<String> {
        let mut lines = vec![format!("write {}", self.file.display())];
        lines.extend(self.initramfs.map(|initramfs| initramfs.cmd().line()));
        lines
    }

    fn probe(&self, host: &Host) -> Result<Probe, StepError> {
        Ok(if self.has(host)? && self.is_told(host) { Probe::Done } else { Probe::Pending })
    }

    fn probe_undone(&self, host: &Host) -> Result<Probe, StepError> {
        let told = self.initramfs.is_some() && host.path(&self.record).exists();
        Ok(if self.has(host)? || told { Probe::Pending } else { Probe::Done })
    }

    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError> {
        if let Some(write) = self.commands().first() {
            log_change(write);
        }
        mdadm_conf::add(cx.host, &self.line, &self.comment).map_err(fail("changing", &self.file))?;
        self.tell(cx.host)?;
        files::replace(&cx.host.path(&self.record), b"told\n", 0o600)
            .map_err(fail("recording that the initramfs knows it in", &self.record))?;
        Ok(Outcome::default())
    }

    fn undo(&self, cx: &mut Context<'_>) -> Result<(), StepError> {
        let known = self.has(cx.host)? || cx.host.path(&self.record).exists();
        if let Some(write) = self.undo_commands().first() {
            log_change(write);
        }
        mdadm_conf::remove(cx.host, &self.line, &self.comment).map_err(fail("changing", &self.file))?;
        if known {
            self.tell(cx.host)?;
        }
        files::remove(&cx.host.path(&self.record)).map_err(fail("removing", &self.record))?;
        Ok(())
    }
}
