//! What a directory is: a Core Lightning node's, by its base or its network directory, or just a directory.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    host::files::{Doing as _, FileError},
    model::NodeKind,
};

/// The database that makes a directory a Core Lightning node's (doc/beginners-guide/backup).
const DATABASE: &str = "lightningd.sqlite3";

/// What a directory is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Its kind.
    pub kind: NodeKind,
    /// Its databases, relative to it: of each network, or of the one network whose directory it is.
    pub databases: Vec<PathBuf>,
}

/// Looks for databases in the directory and one level below it, where each network has its directory.
///
/// # Errors
/// It cannot be read.
pub fn read_layout(dir: &Path) -> Result<Layout, FileError> {
    let mut databases = Vec::new();
    let entries =
        fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>).doing("reading", dir)?;
    let below = entries
        .iter()
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        .map(|e| PathBuf::from(e.file_name()));
    for place in std::iter::once(PathBuf::new()).chain(below) {
        let relative = place.join(DATABASE);
        match fs::symlink_metadata(dir.join(&relative)) {
            Ok(meta) if meta.is_file() => databases.push(relative),
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(e).doing("reading", dir.join(&relative));
            }
            _ => {}
        }
    }
    databases.sort();
    let kind = if databases.is_empty() { NodeKind::Generic } else { NodeKind::CoreLightning };
    Ok(Layout { kind, databases })
}
