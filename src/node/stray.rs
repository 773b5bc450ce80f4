//! Processes that work on the node's files where no mirror is.

use std::{
    ffi::OsString,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use super::processes::{Enough, Link, Share, each_process};
use crate::{
    config::Node,
    host::{
        Host,
        files::FileError,
        mountinfo::{self, Mount},
    },
    model::observed::StrayProcess,
};

/// What setup calls an original that it keeps: the directory's own name, and this.
pub(super) const KEPT: &str = ".before-raidguard-";

/// Where a node's files are, and where they should not be.
struct Place {
    data: PathBuf,
    /// The device number of its data.
    dev: Option<u64>,
    /// That of the filesystem below the mount.
    below: Option<u64>,
    /// That of the filesystem on which its directory and the originals lie.
    beside: Option<u64>,
    /// Its directory, where that is not the symlink that it should be.
    directory: Option<PathBuf>,
    /// What the originals' paths begin with that setup kept.
    kept: OsString,
}

/// The processes that hold files of a node's directory that are not on the mirror: of a directory that took the symlink's place, of the
/// kept original, or of what lies hidden below the mount. For each of the nodes, in their order; of this share of the processes.
///
/// # Errors
/// `/proc` cannot be read, or not all of it.
pub fn strays(host: &Host, nodes: &[Node], share: Share) -> Result<Vec<Vec<StrayProcess>>, StrayError> {
    let mounts = mountinfo::read(host).ok();
    let mounts = mounts.as_ref().map_or(&[][..], |mounts| mounts);
    let places: Vec<Place> = nodes.iter().map(|node| Place::of(host, mounts, node)).collect();
    let own = fs::read_link(host.path("/proc/self/ns/mnt")).ok();
    let mut found = vec![Vec::<StrayProcess>::new(); nodes.len()];
    let unknown = each_process(host, share, |process| {
        process.each_open(|link| {
            for (place, found) in places.iter().zip(&mut found) {
                let known = found.last().is_some_and(|last| last.pid == process.pid);
                if !known && place.is_stray(link, || is_elsewhere(process.namespace(), own.as_deref())) {
                    found.push(StrayProcess { pid: process.pid, name: process.name(), holds: link.whole() });
                }
            }
            Enough::Continue(())
        })
    })?;
    match unknown {
        None => Ok(found),
        Some(why) => Err(StrayError::Unknown(why)),
    }
}

impl Place {
    fn of(host: &Host, mounts: &[Mount], node: &Node) -> Self {
        let dev = |path: &Path| fs::metadata(host.path(path)).ok().map(|meta| meta.dev());
        let mount = mountinfo::containing(mounts, &node.data).and_then(|mount| mount.mountpoint.parent());
        let link = fs::symlink_metadata(host.path(&node.directory)).is_ok_and(|m| m.is_symlink());
        let plain = |path: &Path| path.components().collect::<PathBuf>();
        let directory = plain(&node.directory);
        let mut kept = directory.clone().into_os_string();
        kept.push(KEPT);
        Self {
            data: plain(&node.data),
            dev: dev(&node.data),
            below: mount.and_then(dev),
            beside: node.directory.parent().and_then(dev),
            directory: (!link).then_some(directory),
            kept,
        }
    }

    fn is_stray(&self, link: &Link<'_>, elsewhere: impl FnOnce() -> bool) -> bool {
        let path = link.path();
        let filesystem = if is_in(path, &self.data) {
            // The same path on another device is below the mount.
            if self.dev.is_none_or(|dev| link.file().is_none_or(|file| file.st_dev == dev)) {
                return false;
            }
            self.below
        } else if self.directory.as_ref().is_some_and(|own| is_in(path, own)) || self.is_kept(path) {
            self.beside
        } else {
            return false;
        };
        // A container has paths of its own: it is the same file only on the same filesystem.
        !elsewhere() || filesystem.is_none_or(|dev| link.file().is_some_and(|file| file.st_dev == dev))
    }

    fn is_kept(&self, path: &Path) -> bool {
        path.as_os_str().as_bytes().starts_with(self.kept.as_bytes())
    }
}

/// Does a process see other mounts than we do? One that does not say which it sees is taken to see ours.
fn is_elsewhere(namespace: Option<PathBuf>, own: Option<&Path>) -> bool {
    namespace.is_some_and(|namespace| own.is_some_and(|own| namespace != own))
}

/// Is the path this directory, or below it? The kernel's paths need no more than that bytes are compared.
fn is_in(path: &Path, dir: &Path) -> bool {
    let rest = path.as_os_str().as_bytes().strip_prefix(dir.as_os_str().as_bytes());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_original_is_known_by_its_name() {
        let place = Place {
            data: "/srv/lightning/lightning".into(),
            dev: None,
            below: None,
            beside: None,
            directory: None,
            kept: "/home/bitcoin/.lightning.before-raidguard-".into(),
        };
        for (path, kept) in [
            ("/home/bitcoin/.lightning.before-raidguard-20261123-120000/bitcoin", true),
            ("/home/bitcoin/.lightning/bitcoin", false),
            ("/home/bitcoin/.lightning2", false),
            ("/srv/.lightning.before-raidguard-20261123-120000", false),
        ] {
            assert_eq!(place.is_kept(Path::new(path)), kept, "{path}");
        }
    }
    #[test]
    fn a_name_that_only_begins_alike_is_elsewhere() {
        for (path, inside) in [("/srv/l", true), ("/srv/l/x", true), ("/srv/l2", false), ("/srv", false)] {
            assert_eq!(is_in(Path::new(path), Path::new("/srv/l")), inside, "{path}");
        }
    }
}
