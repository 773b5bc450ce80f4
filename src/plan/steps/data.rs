//! Copying the node's files and proving the copy.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{fail, is_moved, line};
use crate::{
    exec::log_change,
    host::{
        Host,
        copy::{self, CopyError, Manifest, Progress},
        files,
    },
    model::{Bytes, quote::shell_quote},
    node::database,
    plan::{Context, Outcome, Probe, Step, StepError, Watch, Work},
};

/// Makes an empty plain directory: the target of a way back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlainDirectory {
    /// Where.
    pub path: PathBuf,
    /// The symlink whose place it takes in the end.
    pub directory: PathBuf,
}

/// Copies a tree with everything that belongs to it, hashing on the way, and records what was copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyTree {
    /// From where.
    pub source: PathBuf,
    /// Into this directory, which exists.
    pub target: PathBuf,
    /// How much there is to read, counted when the plan was made.
    pub bytes: Bytes,
    /// The record of the copy: names, sizes, times, hashes.
    pub manifest: PathBuf,
    /// The name that becomes a symlink once the copy is in use; from then on the source is not compared again.
    pub directory: PathBuf,
    /// Whether `directory` is a symlink before the move (on the way back) rather than after it.
    pub backwards: bool,
}

/// Gives the copy to a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    /// The copy.
    pub target: PathBuf,
    /// The user, as named.
    pub user: String,
    /// Its number.
    pub uid: u32,
    /// Its group's number.
    pub gid: u32,
    /// As in [`CopyTree`].
    pub directory: PathBuf,
}

/// Reads the copy back from the devices and compares it; lets SQLite judge the databases on a scratch copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verify {
    /// The copy.
    pub target: PathBuf,
    /// What it must be.
    pub manifest: PathBuf,
    /// Who owns it, where that was changed.
    pub owner: Option<(u32, u32)>,
    /// Databases below the copy, relative to it.
    pub databases: Vec<PathBuf>,
    /// Where the scratch copy of a database may lie; made and removed.
    pub scratch: PathBuf,
    /// Written when all of it holds.
    pub proof: PathBuf,
    /// As in [`CopyTree`].
    pub directory: PathBuf,
    /// As in [`CopyTree`].
    pub backwards: bool,
}

fn in_use(directory: &Path, backwards: bool) -> bool {
    is_moved(directory) != backwards
}

fn copying(doing: &str, path: &Path, error: CopyError) -> StepError {
    if error.is_interrupted() {
        return StepError::interrupted(format!("stopped while {doing} {}, as asked", path.display()));
    }
    let hint = match &error {
        CopyError::Changed(path) => Some(format!(
            "see with `fuser -v {}` what writes it, and stop that",
            shell_quote(path.as_os_str())
        )),
        _ if error.is_disk_failure() => Some(
            "see in dmesg and with smartctl which disk fails; what cannot be read has to come from a backup"
                .to_owned(),
        ),
        _ if error.is_no_space() => {
            Some("the target is full: free room on it, or roll back and use larger devices".to_owned())
        }
        _ => None,
    };
    let failed = StepError::failed(format!("{doing} {}", path.display()), error);
    match hint {
        Some(hint) => failed.hint(hint),
        None => failed,
    }
}

fn told(watch: &mut dyn Watch, total: Bytes) -> impl FnMut(Progress) + '_ {
    move |progress| {
        watch.work(Work { done: Bytes(progress.bytes_done), total: Bytes(total.0.max(progress.bytes_done)) })
    }
}

fn there(path: &Path) -> Result<bool, StepError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(fail("reading", path)(e)),
    }
}

fn load(manifest: &Path) -> Result<Manifest, StepError> {
    Manifest::load(manifest).map_err(|e| StepError::failed("the record of the copy cannot be read", e))
}

impl Step for PlainDirectory {
    fn says(&self) -> String {
        format!("make the directory {}", self.path.display())
    }
    fn commands(&self) -> Vec<String> {
        vec![line("mkdir", ["-m".as_ref(), "0700".as_ref(), self.path.as_os_str()])]
    }
    fn probe(&self, _: &Host) -> Result<Probe, StepError> {
        let taken = !is_moved(&self.directory) && self.directory.is_dir();
        Ok(if taken || there(&self.path)? { Probe::Done } else { Probe::Pending })
    }
    fn apply(&self, _: &mut Context<'_>) -> Result<Outcome, StepError> {
        self.commands().iter().for_each(|c| log_change(c));
        files::create_dirs(&self.path, 0o700).map_err(fail("making", &self.path))?;
        Ok(Outcome::default())
    }
    fn undo(&self, _: &mut Context<'_>) -> Result<(), StepError> {
        // After an exchange that was put back the symlink is at its old name again and this is our copy.
        if there(&self.path)? && !is_moved(&self.path) {
            copy::remove_tree(&self.path).map_err(fail("removing", &self.path))?;
        }
        Ok(())
    }
}

impl Step for CopyTree {
    fn says(&self) -> String {
        format!("copy {} to {} ({})", self.source.display(), self.target.display(), self.bytes)
    }

    fn commands(&self) -> Vec<String> {
        vec![line("cp", ["-a".as_ref(), self.source.join(".").as_os_str(), self.target.as_os_str()])]
    }

    fn probe(&self, _: &Host) -> Result<Probe, StepError> {
        if in_use(&self.directory, self.backwards) {
            return Ok(Probe::Done);
        }
        if !there(&self.manifest)? {
            return Ok(Probe::Pending);
        }
        let manifest = load(&self.manifest)?;
        for dir in [&self.source, &self.target] {
            if copy::first_difference(dir, &manifest).map_err(fail("comparing", dir))?.is_some() {
                return Ok(Probe::Pending);
            }
        }
        Ok(Probe::Done)
    }

    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError> {
        self.commands().iter().for_each(|c| log_change(c));
        files::remove(&self.manifest).map_err(fail("removing", &self.manifest))?;
        let interrupt = cx.host.interrupt().clone();
        let manifest =
            copy::copy_tree(&self.source, &self.target, &mut told(cx.watch, self.bytes), &interrupt)
                .map_err(|e| copying("copying", &self.source, e))?;
        manifest.save(&self.manifest).map_err(|e| {
            fail("recording the copy in", &self.manifest)(e)
                .hint("see that its disk has room and can be written")
        })?;
        let skipped = manifest.skipped().iter();
        Ok(Outcome { notes: skipped.map(|s| format!("left out: {s}")).collect() })
    }

    fn undo(&self, _: &mut Context<'_>) -> Result<(), StepError> {
        if in_use(&self.directory, self.backwards) {
            return Err(StepError::refused(format!("{} is in use", self.target.display())));
        }
        if there(&self.target)? {
            copy::empty_tree(&self.target).map_err(fail("removing the copy in", &self.target))?;
        }
        files::remove(&self.manifest).map_err(fail("removing", &self.manifest))?;
        Ok(())
    }
}

impl Step for Own {
    fn says(&self) -> String {
        format!("give the copy to {} ({}:{})", self.user, self.uid, self.gid)
    }
    fn commands(&self) -> Vec<String> {
        let owner = format!("{}:{}", self.uid, self.gid);
        vec![line("chown", ["-hR".as_ref(), owner.as_ref(), self.target.as_os_str()])]
    }
    fn probe(&self, _: &Host) -> Result<Probe, StepError> {
        if is_moved(&self.directory) {
            return Ok(Probe::Done);
        }
        let owned =
            copy::is_owned_by(&self.target, self.uid, self.gid).map_err(fail("reading", &self.target))?;
        Ok(if owned { Probe::Done } else { Probe::Pending })
    }
    fn apply(&self, _: &mut Context<'_>) -> Result<Outcome, StepError> {
        self.commands().iter().for_each(|c| log_change(c));
        copy::own_tree(&self.target, self.uid, self.gid)
            .map_err(fail("setting the owner of", &self.target))?;
        Ok(Outcome::default())
    }
    fn undo(&self, _: &mut Context<'_>) -> Result<(), StepError> {
        Ok(())
    }
}

impl Step for Verify {
    fn says(&self) -> String {
        match self.databases.len() {
            0 => "read the copy back from the devices and compare it".to_owned(),
            1 => "read the copy back from the devices, compare it, and have SQLite check the database in it"
                .to_owned(),
            n => format!(
                "read the copy back from the devices, compare it, and have SQLite check the {n} databases in it"
            ),
        }
    }

    fn commands(&self) -> Vec<String> {
        Vec::new()
    }

    fn probe(&self, _: &Host) -> Result<Probe, StepError> {
        if in_use(&self.directory, self.backwards) {
            return Ok(Probe::Done);
        }
        // The proof names the copy that it was made of: a copy made anew has to be proven anew.
        if !there(&self.proof)? || !there(&self.manifest)? {
            return Ok(Probe::Pending);
        }
        let proof = fs::read_to_string(&self.proof).map_err(fail("reading", &self.proof))?;
        let fresh = proof == load(&self.manifest)?.digest();
        Ok(if fresh { Probe::Done } else { Probe::Pending })
    }

    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError> {
        let manifest = load(&self.manifest)?;
        let interrupt = cx.host.interrupt().clone();
        let mut watch = told(cx.watch, Bytes(manifest.bytes()));
        // The copy may have been made days ago, by another run.
        let proven = copy::Proven::default();
        copy::settle(&self.target, &manifest, &proven)
            .and_then(|()| {
                copy::verify_tree(&self.target, &manifest, &proven, self.owner, &mut watch, &interrupt)
            })
            .map_err(|e| copying("verifying", &self.target, e))?;
        drop(watch);
        let mut notes =
            vec![format!("{} files, {} compared byte for byte", manifest.files(), Bytes(manifest.bytes()))];
        if self.databases.is_empty() {
            notes.push("no lightningd.sqlite3 in it: no database to check".to_owned());
        }
        for relative in &self.databases {
            cx.watch.waiting(&format!("SQLite checks {}", relative.display()));
            let path = self.target.join(relative);
            let facts = database::check_on_scratch(&path, &self.scratch).map_err(|e| {
                if e.is_fault() {
                    StepError::failed(format!("the database {} does not pass", relative.display()), e).hint(
                        "the copy equals the original byte for byte, so the original has the same fault; it was not touched. \
                         Put it back with --rollback and have the node's own tools look at it",
                    )
                } else {
                    StepError::failed(format!("the database {} could not be checked", relative.display()), e)
                        .hint(format!("see that {} can be made and has room", self.scratch.display()))
                }
            })?;
            notes.push(format!("{}: {facts}", relative.display()));
        }
        files::replace(&self.proof, manifest.digest().as_bytes(), 0o600)
            .map_err(fail("recording the proof in", &self.proof))?;
        Ok(Outcome { notes })
    }

    fn undo(&self, _: &mut Context<'_>) -> Result<(), StepError> {
        files::remove(&self.proof).map_err(fail("removing", &self.proof))?;
        if there(&self.scratch)? {
            copy::remove_tree(&self.scratch).map_err(fail("removing", &self.scratch))?;
        }
        Ok(())
    }
}
