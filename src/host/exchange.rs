//! Two names trade places in one step.
//!
//! `renameat2(2)` with `RENAME_EXCHANGE` does it atomically. Where a filesystem has none (old FUSE and network filesystems), two
//! renames do it, and the name is absent between them for that long only; a third name tells a later run how far it came.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, RenameFlags, renameat2},
};

use super::files::{Doing as _, FileError, parent, sync_dir};

/// How two names came to trade places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exchanged {
    /// In one atomic step.
    AtOnce,
    /// By renames, with `live` absent between two of them.
    ByRenames,
}

/// Exchanges `live` and `spare`, which must lie in the same directory, durably.
///
/// # Errors
/// One of them is missing, or the filesystem refuses both ways; both are then where they were.
pub fn exchange(live: &Path, spare: &Path) -> Result<Exchanged, FileError> {
    let how = match renameat2(AT_FDCWD, live, AT_FDCWD, spare, RenameFlags::RENAME_EXCHANGE) {
        Ok(()) => Exchanged::AtOnce,
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {
            by_renames(live, spare)?;
            Exchanged::ByRenames
        }
        Err(e) => return Err(io::Error::from(e)).doing("exchanging", live),
    };
    sync_dir(parent(live))?;
    Ok(how)
}

/// The third name, which stands only while renames are under way.
fn middle(live: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(live.file_name().unwrap_or_default());
    name.push(".raidguard-exchange");
    live.with_file_name(name)
}

fn by_renames(live: &Path, spare: &Path) -> Result<(), FileError> {
    let middle = middle(live);
    fs::symlink_metadata(spare).doing("reading", spare)?;
    fs::rename(live, &middle).doing("renaming", live)?;
    if let Err(e) = fs::rename(spare, live) {
        // Back at once: the name must not stay absent.
        fs::rename(&middle, live).doing("renaming back", live)?;
        return Err(e).doing("renaming", spare);
    }
    fs::rename(&middle, spare).doing("renaming", &middle)
}

/// Finishes an exchange by renames that a kill cut short. Whether anything was to be done.
///
/// # Errors
/// A rename failed, or all three names exist, which no interrupted exchange leaves.
pub fn settle(live: &Path, spare: &Path) -> Result<bool, FileError> {
    let middle = middle(live);
    let there = |path: &Path| match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).doing("reading", path),
    };
    match (there(live)?, there(&middle)?, there(spare)?) {
        (_, false, _) => return Ok(false),
        // Cut between the first and the second rename: as if it had not begun.
        (false, true, _) => fs::rename(&middle, live).doing("renaming back", live)?,
        // Cut before the third.
        (true, true, false) => fs::rename(&middle, spare).doing("renaming", &middle)?,
        (true, true, true) => {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists))
                .doing("settling the exchange of", live);
        }
    }
    sync_dir(parent(live))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn names() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (live, spare) = (dir.path().join("live"), dir.path().join("spare"));
        fs::create_dir(&live).unwrap();
        symlink("/elsewhere", &spare).unwrap();
        (dir, live, spare)
    }

    fn traded(live: &Path, spare: &Path) -> bool {
        live.is_symlink() && spare.is_dir() && !spare.is_symlink()
    }

    #[test]
    fn both_ways_trade_places_and_back() {
        let (_dir, live, spare) = names();
        assert_eq!(exchange(&live, &spare).unwrap(), Exchanged::AtOnce);
        assert!(traded(&live, &spare));
        by_renames(&live, &spare).unwrap();
        assert!(traded(&spare, &live));
        assert!(!settle(&live, &spare).unwrap());
    }

    #[test]
    fn a_missing_spare_leaves_the_live_name_alone() {
        let (_dir, live, spare) = names();
        fs::remove_file(&spare).unwrap();
        assert!(exchange(&live, &spare).is_err());
        assert!(by_renames(&live, &spare).is_err());
        assert!(live.is_dir());
    }

    #[test]
    fn a_kill_between_the_renames_is_settled() {
        let (_dir, live, spare) = names();
        fs::rename(&live, middle(&live)).unwrap();
        assert!(settle(&live, &spare).unwrap());
        assert!(traded(&spare, &live), "not begun");

        fs::rename(&live, middle(&live)).unwrap();
        fs::rename(&spare, &live).unwrap();
        assert!(settle(&live, &spare).unwrap());
        assert!(traded(&live, &spare), "finished");
    }
}
