//! What lies below a mount point, seen without unmounting anything: a private copy of the mount above it (open_tree(2)) shows the
//! directory that is covered.

use std::{io, path::Path};

use rustix::{
    fs::{CWD, Dir, Mode, OFlags, openat},
    mount::{OpenTreeFlags, open_tree},
};

use super::{
    Host,
    files::{self, Doing as _, FileError},
};
use crate::model::observed::MountFacts;

/// How many names are kept.
const NAMES: usize = 20;

/// The names in the directory that a mount covers.
///
/// # Errors
/// It could not be looked at: the kernel is older than 5.2, or this is not root.
pub fn hidden(host: &Host, mountpoint: &Path, facts: &mut MountFacts) -> Result<(), FileError> {
    let mut names = covered(&host.path(mountpoint)).doing("looking below", mountpoint)?;
    names.sort();
    facts.hidden_count = names.len() as u64;
    names.truncate(NAMES);
    facts.hidden = names;
    Ok(())
}

fn covered(mountpoint: &Path) -> io::Result<Vec<String>> {
    let Some(name) = mountpoint.file_name() else { return Ok(Vec::new()) };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let above = open_tree(CWD, files::parent(mountpoint), flags)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let dir = match openat(&above, name, flags, Mode::empty()) {
        Ok(dir) => dir,
        // The mount point is a mount of a place that is gone below.
        Err(rustix::io::Errno::NOENT) => return Ok(Vec::new()),
        Err(e) => return Err(e.into()),
    };
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    Ok(names)
}
