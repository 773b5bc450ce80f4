//! What becomes of the original directory.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{fail, line};
use crate::{
    exec::log_change,
    host::{Host, copy, files},
    plan::{Context, Outcome, Probe, Step, StepError},
};

const NOTE: &str = "NEVER-START-A-NODE-FROM-THIS-DIRECTORY.txt";
const NOTE_TEXT: &str = "\
The node that lived here was moved onto a mirror by raidguard, and its newest state is there.

What is in this directory is OLD STATE. A Lightning node that is started from it may publish a channel
state that was revoked, and its peers may then take everything in those channels.

Once the node has run well on the mirror for a while, and a backup of hsm_secret is in a safe place,
remove this directory.
";

/// Closes the original to everybody but root and leaves a note in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepOriginal {
    /// Where it stands.
    pub aside: PathBuf,
    /// The mode it had.
    pub mode: u32,
    /// The owner it had.
    pub uid: u32,
    /// The group it had.
    pub gid: u32,
}

/// Removes the original. There is no way back from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveOriginal {
    /// Where it stands.
    pub aside: PathBuf,
}

impl Step for KeepOriginal {
    fn says(&self) -> String {
        format!("keep the original as {}, for root only", self.aside.display())
    }

    fn commands(&self) -> Vec<String> {
        let aside = self.aside.as_os_str();
        vec![
            format!("write {}", self.aside.join(NOTE).display()),
            line("chown", ["root:root".as_ref(), aside]),
            line("chmod", ["0700".as_ref(), aside]),
        ]
    }

    fn probe(&self, _: &Host) -> Result<Probe, StepError> {
        let meta = match fs::symlink_metadata(&self.aside) {
            Ok(meta) if meta.is_dir() => meta,
            // The operator removed it between two runs: nothing is left to keep.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Probe::Done),
            Ok(_) => return Ok(Probe::Pending),
            Err(e) => return Err(fail("reading", &self.aside)(e)),
        };
        let closed = meta.mode() & 0o7777 == 0o700 && (meta.uid(), meta.gid()) == (0, 0);
        Ok(if closed && self.aside.join(NOTE).exists() { Probe::Done } else { Probe::Pending })
    }

    fn apply(&self, _: &mut Context<'_>) -> Result<Outcome, StepError> {
        for command in self.commands() {
            log_change(&command);
        }
        files::replace(&self.aside.join(NOTE), NOTE_TEXT.as_bytes(), 0o400)
            .map_err(fail("writing a note in", &self.aside))?;
        chown(&self.aside, Some(0), Some(0)).map_err(fail("setting the owner of", &self.aside))?;
        set_mode(&self.aside, 0o700)?;
        Ok(Outcome::note("it is old state from now on: never start a node from it"))
    }

    fn undo(&self, _: &mut Context<'_>) -> Result<(), StepError> {
        if !self.aside.is_dir() {
            return Ok(());
        }
        files::remove(&self.aside.join(NOTE)).map_err(fail("removing the note in", &self.aside))?;
        chown(&self.aside, Some(self.uid), Some(self.gid))
            .map_err(fail("setting the owner of", &self.aside))?;
        set_mode(&self.aside, self.mode)
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<(), StepError> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(fail("setting the mode of", path))
}

impl Step for RemoveOriginal {
    fn says(&self) -> String {
        format!("remove the original at {}", self.aside.display())
    }

    fn commands(&self) -> Vec<String> {
        vec![line("rm", ["-r".as_ref(), "--one-file-system".as_ref(), self.aside.as_os_str()])]
    }

    fn probe(&self, _: &Host) -> Result<Probe, StepError> {
        match fs::symlink_metadata(&self.aside) {
            Ok(_) => Ok(Probe::Pending),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Probe::Done),
            Err(e) => Err(fail("reading", &self.aside)(e)),
        }
    }

    fn apply(&self, _: &mut Context<'_>) -> Result<Outcome, StepError> {
        for command in self.commands() {
            log_change(&command);
        }
        copy::remove_tree(&self.aside).map_err(fail("removing", &self.aside))?;
        Ok(Outcome::default())
    }

    fn undo(&self, _: &mut Context<'_>) -> Result<(), StepError> {
        Err(StepError::refused("the original was removed: there is nothing to go back to"))
    }

    fn is_final(&self) -> bool {
        true
    }
}
