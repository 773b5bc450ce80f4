//! The directory that the files go into: judged before, filled aside, presented only when all is done.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use nix::{
    sys::statvfs::{FsFlags, statvfs},
    unistd::{AccessFlags, access},
};

use crate::{
    backend::rescue::Remains,
    host::{
        Host, copy,
        files::{self, Doing as _, FileError},
        mountinfo::{self, Mount},
    },
    model::Bytes,
    ops::Blocker,
};

/// Where files are while the rescue is not done. Whoever finds this name knows that it did not end.
const INCOMPLETE: &str = ".raidguard-incomplete";
/// Where the files are.
pub(super) const FILES: &str = "files";
/// Where the readable parts of files that are not whole are.
pub(super) const DAMAGED: &str = "damaged";
/// What says what all of it is; written last.
pub(super) const PAGE: &str = "RECOVERY.md";
/// The hashes of the files.
pub(super) const SUMS: &str = "SHA256SUMS";
/// What a target keeps free.
const MARGIN: u64 = 16 << 20;

/// What stands against a directory; `mounts` are those of the machine.
pub(super) fn judge(host: &Host, dir: &Path, picked: Option<&Remains>, mounts: &[Mount]) -> Vec<Blocker> {
    let real = host.path(dir);
    let shown = dir.display();
    let killed = real.join(INCOMPLETE).is_dir();
    // What a killed rescue showed before it came to its files is made anew.
    let shown_first = [PAGE, SUMS, DAMAGED].map(OsStr::new);
    let ours = |name: &OsStr| name == INCOMPLETE || (killed && shown_first.contains(&name));
    match fs::read_dir(&real) {
        Ok(entries) => {
            let others = entries.filter(|e| {
                e.as_ref().map_or(true, |e| !ours(&e.file_name()) && e.file_name() != "lost+found")
            });
            if others.count() > 0 {
                return vec![Blocker::new(
                    format!("{shown} is not empty, and nothing may be mixed with what comes out"),
                    "name a new or an empty directory with --to",
                )];
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => {
            return vec![Blocker::new(
                format!("{shown} cannot be used: {e}"),
                "name a new or an empty directory with --to",
            )];
        }
    }
    let Some(above) = real.ancestors().find(|at| at.is_dir()) else {
        return vec![Blocker::new(
            format!("nothing of {shown} is there"),
            "name another directory with --to",
        )];
    };
    let place = match fs::canonicalize(above) {
        Ok(place) => place,
        Err(e) => {
            return vec![Blocker::new(
                format!("{shown} cannot be used: {e}"),
                "name another directory with --to",
            )];
        }
    };
    let mut blockers = Vec::new();
    if let (Some(mount), Some(picked)) = (mountinfo::containing(mounts, &place), picked) {
        let on_member = picked.survivors.iter().any(|s| s.path == mount.source);
        let on_mirror = picked.mounted.as_ref().is_some_and(|places| places.contains(&mount.mountpoint));
        if on_member || on_mirror {
            blockers.push(Blocker::new(
                format!("{shown} lies on a survivor, and nothing may be written to one"),
                "name a directory on another disk with --to",
            ));
        }
    }
    match statvfs(&place) {
        Ok(stat) if stat.flags().contains(FsFlags::ST_RDONLY) => blockers.push(Blocker::new(
            format!(
                "{shown} lies on a filesystem that is mounted read-only: {}",
                io::Error::from_raw_os_error(nix::libc::EROFS)
            ),
            "name a directory on a disk that can be written with --to",
        )),
        Ok(_) => {
            if let Err(e) = access(&place, AccessFlags::W_OK) {
                blockers.push(Blocker::new(
                    format!("{shown} cannot be written: {}", io::Error::from(e)),
                    "name a directory that can be written with --to",
                ));
            }
        }
        Err(e) => blockers.push(Blocker::new(
            format!("the filesystem of {shown} cannot be asked for its state: {}", io::Error::from(e)),
            "name another directory with --to",
        )),
    }
    blockers
}

/// The directory while it is filled. What is in it goes again when this is dropped before it was presented.
#[derive(Debug)]
pub(super) struct Target {
    dir: PathBuf,
    made: Vec<PathBuf>,
    presented: bool,
}

impl Target {
    /// Makes the directory, and in it the place aside. What an earlier rescue left there is removed.
    pub(super) fn make(host: &Host, dir: &Path) -> Result<Self, FileError> {
        let dir = host.path(dir);
        let mut target = Self { made: Vec::new(), dir: dir.clone(), presented: false };
        target.made = files::create_dirs(&dir, 0o700)?;
        target.clear();
        let aside = target.aside();
        for path in [aside.clone(), aside.join(FILES), aside.join(DAMAGED)] {
            DirBuilder::new().mode(0o700).create(&path).doing("creating directory", &path)?;
        }
        Ok(target)
    }

    fn aside(&self) -> PathBuf {
        self.dir.join(INCOMPLETE)
    }

    /// Where files go for now.
    pub(super) fn files(&self) -> PathBuf {
        self.aside().join(FILES)
    }

    /// Where parts of files go for now.
    pub(super) fn damaged(&self) -> PathBuf {
        self.aside().join(DAMAGED)
    }

    /// A directory on the same filesystem for copies that are thrown away.
    pub(super) fn scratch(&self) -> PathBuf {
        self.aside().join("scratch")
    }

    /// Where a way without a mount puts the files that are then copied: nobody else clears it.
    pub(super) fn extracted(&self) -> PathBuf {
        self.aside().join("extracted")
    }

    /// Whether so many bytes fit; else how many there is room for.
    pub(super) fn has_room(&self, bytes: u64) -> Result<Result<(), Bytes>, FileError> {
        let stat =
            statvfs(&self.dir).map_err(io::Error::from).doing("asking for free space at", &self.dir)?;
        let room = (stat.blocks_available() * stat.fragment_size()).saturating_sub(MARGIN);
        // What a filesystem keeps for itself: extents, directories.
        Ok(if bytes + bytes / 50 <= room { Ok(()) } else { Err(Bytes(room)) })
    }

    /// Removes what an attempt copied, so that another begins with nothing.
    pub(super) fn empty(&self) -> Result<(), copy::CopyError> {
        copy::empty_tree(&self.files())?;
        copy::empty_tree(&self.damaged())?;
        if self.extracted().symlink_metadata().is_ok() {
            copy::remove_tree(&self.extracted())?;
        }
        Ok(())
    }

    /// Presents what was copied: what says what the files are first, the files last. Whoever finds them finds all that is said of them.
    pub(super) fn present(mut self, sums: &[u8], page: &str) -> Result<(), FileError> {
        let aside = self.aside();
        for passing in [self.scratch(), self.extracted()] {
            let _ = fs::remove_dir_all(passing);
        }
        let show = |name: &str| {
            fs::rename(aside.join(name), self.dir.join(name)).doing("renaming", aside.join(name))
        };
        for (name, bytes) in [(PAGE, page.as_bytes()), (SUMS, sums)] {
            files::replace(&aside.join(name), bytes, 0o600)?;
            show(name)?;
        }
        if fs::remove_dir(self.damaged()).is_err() {
            show(DAMAGED)?;
        }
        files::sync_dir(&self.dir)?;
        show(FILES)?;
        self.presented = true;
        fs::remove_dir(&aside).doing("removing", &aside)?;
        files::sync_dir(&self.dir)
    }

    /// What is aside goes last: without it nobody could tell whose the rest is.
    fn clear(&self) {
        if self.aside().symlink_metadata().is_err() {
            return;
        }
        for name in [PAGE, SUMS] {
            let _ = fs::remove_file(self.dir.join(name));
        }
        for path in [self.dir.join(DAMAGED), self.aside()] {
            if path.symlink_metadata().is_ok() {
                if let Err(e) = copy::remove_tree(&path) {
                    tracing::warn!("{} could not be removed: {e}", path.display());
                }
            }
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if self.presented {
            return;
        }
        self.clear();
        for dir in self.made.iter().rev() {
            let _ = fs::remove_dir(dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::ScriptedRunner;

    fn host(dir: &Path) -> Host {
        Host::captured(dir, std::sync::Arc::new(ScriptedRunner::new()), jiff::Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn what_is_not_presented_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path());
        let target = Target::make(&host, Path::new("/a/b")).unwrap();
        fs::write(target.files().join("x"), "x").unwrap();
        drop(target);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_presented_has_its_page_and_nothing_else_beside_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path());
        // A killed rescue was here before.
        fs::create_dir_all(dir.path().join("to").join(INCOMPLETE).join("files/old")).unwrap();
        fs::write(dir.path().join("to").join(PAGE), "of files that were never there").unwrap();
        fs::create_dir(dir.path().join("to").join(DAMAGED)).unwrap();
        fs::write(dir.path().join("to").join(DAMAGED).join("1-part"), "of a file").unwrap();
        assert!(judge(&host, Path::new("/to"), None, &[]).is_empty());
        let target = Target::make(&host, Path::new("/to")).unwrap();
        assert!(!target.files().join("old").exists());
        fs::write(target.files().join("x"), "x").unwrap();
        target.present(b"sums", "page").unwrap();
        let mut names: Vec<_> =
            fs::read_dir(dir.path().join("to")).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["RECOVERY.md", "SHA256SUMS", "files"]);
        assert_eq!(judge(&host, Path::new("/to"), None, &[]).len(), 1, "not a second time");
    }

    #[test]
    fn what_was_extracted_stays_while_a_database_is_checked_and_goes_with_the_attempt() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path());
        let target = Target::make(&host, Path::new("/to")).unwrap();
        let extract = || {
            fs::create_dir(target.extracted()).unwrap();
            fs::write(target.extracted().join("x"), "x").unwrap();
        };
        extract();
        target.empty().unwrap();
        assert!(!target.extracted().exists(), "another attempt begins with nothing");
        extract();
        let database = target.files().join("lightningd.sqlite3");
        fs::write(&database, "no database").unwrap();
        crate::node::database::judge_on_scratch(&database, &target.scratch(), false, |_| {}).unwrap_err();
        assert!(target.extracted().join("x").exists(), "it is still being copied");
        target.present(b"sums", "page").unwrap();
        assert!(!dir.path().join("to").join(INCOMPLETE).exists());
    }

    #[test]
    fn parts_of_damaged_files_are_nobodys_but_a_killed_rescues() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path());
        fs::create_dir_all(dir.path().join("to").join(DAMAGED)).unwrap();
        assert_eq!(judge(&host, Path::new("/to"), None, &[]).len(), 1);
    }

    #[test]
    fn a_directory_that_holds_something_or_is_none_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("full")).unwrap();
        fs::write(dir.path().join("full/x"), "x").unwrap();
        for name in ["/full", "/full/x", "/full/x/y"] {
            assert_eq!(judge(&host(dir.path()), Path::new(name), None, &[]).len(), 1, "{name}");
        }
        assert!(judge(&host(dir.path()), Path::new("/new/deep"), None, &[]).is_empty());
    }
}
