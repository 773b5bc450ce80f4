//! Scratch directories whose record a reboot has forgotten.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    unistd::geteuid,
};

use super::{OverlayError, PREFIX, record::Alone};
use crate::host::{
    Host,
    files::{self, Doing as _},
    overlay::RESCUE_DIR,
};

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

/// Only files in it, nothing below. False: somebody holds it.
fn remove(dir: &Path) -> Result<bool, OverlayError> {
    let file = File::open(dir).doing("opening", dir)?;
    let _held = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(held) => held,
        Err((_, Errno::EWOULDBLOCK)) => return Ok(false),
        Err((_, e)) => return Err(io::Error::from(e)).doing("locking", dir).map_err(Into::into),
    };
    for entry in fs::read_dir(dir).doing("reading", dir)? {
        let path = entry.doing("reading", dir)?.path();
        fs::remove_file(&path).doing("removing", &path)?;
    }
    fs::remove_dir(dir).doing("removing", dir)?;
    files::sync_dir(files::parent(dir))?;
    Ok(true)
}
