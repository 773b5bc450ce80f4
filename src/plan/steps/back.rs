//! The way back: the directory becomes plain again, and steps of a setup are taken back.

use std::{fs, io, os::unix::fs::symlink, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    Action,
    exchange::{exchange_line, quiet, unchanged},
    fail, line,
};
use crate::{
    exec::log_change,
    host::{Host, exchange, files},
    plan::{Context, Outcome, Probe, Step, StepError},
};

/// Puts the verified copy in the place of the symlink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExchangeBack {
    /// The node's directory: a symlink before, plain after.
    pub directory: PathBuf,
    /// Where the symlink points.
    pub data: PathBuf,
    /// The copy, in the same directory as the symlink.
    pub copy: PathBuf,
    /// What was copied.
    pub manifest: PathBuf,
}

/// Takes back a step of an earlier operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TakeBack {
    /// The step.
    pub of: Box<Action>,
}

impl ExchangeBack {
    fn is_plain(&self) -> Result<bool, StepError> {
        let meta = match fs::symlink_metadata(&self.directory) {
            Ok(meta) => meta,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(fail("reading", &self.directory)(e)),
        };
        Ok(meta.is_dir())
    }
}

impl Step for ExchangeBack {
    fn says(&self) -> String {
        format!("put the copy in the place of the symlink {}", self.directory.display())
    }

    fn commands(&self) -> Vec<String> {
        vec![exchange_line(&self.directory, &self.copy), line("rm", [self.copy.as_os_str()])]
    }

    fn probe(&self, _: &Host) -> Result<Probe, StepError> {
        Ok(if self.is_plain()? && !self.copy.is_symlink() { Probe::Done } else { Probe::Pending })
    }

    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError> {
        exchange::settle(&self.directory, &self.copy).map_err(fail("settling", &self.directory))?;
        self.commands().iter().for_each(|c| log_change(c));
        if !self.is_plain()? {
            quiet(cx.host, &self.data)?;
            unchanged(&self.data, &self.manifest, "the data on the mirror changed after they were copied")
                .map_err(|e| e.hint("see that nothing writes there; --resume copies them anew"))?;
            exchange::exchange(&self.directory, &self.copy).map_err(fail("exchanging", &self.directory))?;
        }
        if self.copy.is_symlink() {
            files::remove(&self.copy).map_err(fail("removing the symlink", &self.copy))?;
        }
        Ok(Outcome::default())
    }

    fn undo(&self, cx: &mut Context<'_>) -> Result<(), StepError> {
        exchange::settle(&self.directory, &self.copy).map_err(fail("settling", &self.directory))?;
        if self.is_plain()? {
            quiet(cx.host, &self.directory)?;
            unchanged(
                &self.directory,
                &self.manifest,
                "the directory changed since, so what is on the mirror is old state",
            )
            .map_err(|e| e.hint("`raidguard release --resume` finishes the way back"))?;
            if !self.copy.is_symlink() {
                symlink(&self.data, &self.copy).map_err(fail("making the symlink", &self.copy))?;
            }
            exchange::exchange(&self.directory, &self.copy).map_err(fail("exchanging", &self.directory))?;
        }
        Ok(())
    }
}

impl Step for TakeBack {
    fn says(&self) -> String {
        self.of.unsays()
    }

    fn commands(&self) -> Vec<String> {
        self.of.undo_commands()
    }

    fn probe(&self, host: &Host) -> Result<Probe, StepError> {
        self.of.probe_undone(host)
    }

    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError> {
        self.of.undo(cx)?;
        Ok(Outcome::default())
    }

    fn undo(&self, cx: &mut Context<'_>) -> Result<(), StepError> {
        if self.of.probe(cx.host)? != Probe::Done {
            self.of.apply(cx)?;
        }
        Ok(())
    }
}
