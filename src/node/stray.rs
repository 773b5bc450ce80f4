//! Processes that work on the node's files where no mirror is.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::running::{each_process, first_held, strip_deleted};
use crate::{
    config::Node,
    host::{Host, files::FileError},
    model::observed::StrayProcess,
};

/// What setup calls an original that it keeps: the directory's own name, and this.
pub(super) const KEPT: &str = ".before-raidguard-";

/// The processes that hold files of the node's directory that are not on the mirror: of a directory that took the symlink's place, of the
/// kept original, or of what lies hidden below the mount.
///
/// # Errors
/// `/proc` cannot be read, or not all of it.
pub fn strays(host: &Host, node: &Node) -> Result<Vec<StrayProcess>, StrayError> {
    let data = fs::metadata(host.path(&node.data)).ok().map(|m| m.dev());
    let link = fs::symlink_metadata(host.path(&node.directory)).is_ok_and(|m| m.is_symlink());
    let off = |link_of: &Path, target: &Path| {
        let target = strip_deleted(target);
        if target.starts_with(&node.data) {
            // The same path on another device is below the mount.
            return data.is_some_and(|dev| fs::metadata(link_of).is_ok_and(|m| m.dev() != dev));
        }
        (!link && target.starts_with(&node.directory)) || is_kept(&node.directory, target)
    };
    let mut found = Vec::new();
    let unknown = each_process(host, |process, pid, name| {
        first_held(process, off)
            .map(|held| found.extend(held.map(|holds| StrayProcess { pid, name: name(), holds })))
    })?;
    match unknown {
        None => Ok(found),
        Some(why) => Err(StrayError::Unknown(why)),
    }
}

/// Why it is not known who works on the files.
#[derive(Debug, thiserror::Error)]
pub enum StrayError {
    /// `/proc` cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A process hides what it has open.
    #[error("{0}")]
    Unknown(String),
}

/// Does the path lie in an original that was kept of `directory`?
fn is_kept(directory: &Path, path: &Path) -> bool {
    let (Some(parent), Some(name)) = (directory.parent(), directory.file_name()) else { return false };
    let Ok(below) = path.strip_prefix(parent) else { return false };
    let first: PathBuf = below.components().take(1).collect();
    first.to_string_lossy().starts_with(&format!("{}{KEPT}", name.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_original_is_known_by_its_name() {
        let directory = Path::new("/home/bitcoin/.lightning");
        for (path, kept) in [
            ("/home/bitcoin/.lightning.before-raidguard-20261123-120000/bitcoin", true),
            ("/home/bitcoin/.lightning/bitcoin", false),
            ("/home/bitcoin/.lightning2", false),
            ("/srv/.lightning.before-raidguard-20261123-120000", false),
        ] {
            assert_eq!(is_kept(directory, Path::new(path)), kept, "{path}");
        }
    }
}
