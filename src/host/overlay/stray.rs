//! Scratch directories whose record a reboot has forgotten.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    unistd::geteuid,
};
use tempfile::TempDir;

use super::{OverlayError, PREFIX, record::Alone};
use crate::host::{
    Host,
    files::{self, Doing as _, FileError},
    overlay::RESCUE_DIR,
};

/// A scratch directory without a record, for copies that are thrown away: it goes with this, and with the next rescue that has scratch
/// files in the same place where this process is killed.
#[derive(Debug)]
pub struct Passing {
    dir: TempDir,
    _held: Flock<File>,
}

impl Passing {
    /// Makes one in `scratch`.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make(host: &Host, scratch: &Path) -> Result<Self, OverlayError> {
        let place = host.path(scratch);
        let private = Permissions::from_mode(0o700);
        let made = tempfile::Builder::new().prefix(PREFIX).permissions(private).tempdir_in(&place);
        let dir = made.doing("making a directory in", &place)?;
        let held = hold(dir.path())?;
        Ok(Self { dir, _held: held })
    }

    /// It.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Takes the lock that tells others, also those who do not see our records, that a scratch directory is in use.
pub(super) fn hold(dir: &Path) -> Result<Flock<File>, OverlayError> {
    let file = File::open(dir).doing("opening", dir)?;
    let locked = Flock::lock(file, FlockArg::LockExclusiveNonblock);
    Ok(locked.map_err(|(_, e)| io::Error::from(e)).doing("locking", dir)?)
}

/// Removes scratch directories of ours in `scratch` that no record knows and nobody holds. Says which.
pub(super) fn clear(host: &Host, _alone: &Alone, scratch: &Path) -> Result<Vec<String>, OverlayError> {
    let place = host.path(scratch);
    let entries = match fs::read_dir(&place) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).doing("reading", &place).map_err(Into::into),
    };
    let mut said = Vec::new();
    for entry in entries {
        let entry = entry.doing("reading", &place)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(id) = name.strip_prefix(PREFIX) else { continue };
        let meta = entry.metadata().doing("reading", entry.path())?;
        // Others may make directories of any name there.
        let ours = meta.is_dir() && meta.uid() == geteuid().as_raw() && meta.mode() & 0o7777 == 0o700;
        if ours && !host.path(RESCUE_DIR).join(id).exists() && remove(&entry.path())? {
            said.push(format!("removed {}", scratch.join(&name).display()));
        }
    }
    Ok(said)
}

/// Files in it and in the directories in it, nothing below. False: somebody holds it.
fn remove(dir: &Path) -> Result<bool, OverlayError> {
    let file = File::open(dir).doing("opening", dir)?;
    let _held = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(held) => held,
        Err((_, Errno::EWOULDBLOCK)) => return Ok(false),
        Err((_, e)) => return Err(io::Error::from(e)).doing("locking", dir).map_err(Into::into),
    };
    empty(dir, &mut |below| {
        empty(below, &mut |deeper| fs::remove_file(deeper).doing("removing", deeper))?;
        fs::remove_dir(below).doing("removing", below)
    })?;
    fs::remove_dir(dir).doing("removing", dir)?;
    files::sync_dir(files::parent(dir))?;
    Ok(true)
}

/// Removes the files in a directory; what is to be done with a directory in it `each` knows.
fn empty(dir: &Path, each: &mut dyn FnMut(&Path) -> Result<(), FileError>) -> Result<(), FileError> {
    for entry in fs::read_dir(dir).doing("reading", dir)? {
        let entry = entry.doing("reading", dir)?;
        let path = entry.path();
        if entry.file_type().doing("reading", &path)?.is_dir() {
            each(&path)?;
        } else {
            fs::remove_file(&path).doing("removing", &path)?;
        }
    }
    Ok(())
}
