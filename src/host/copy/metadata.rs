//! What belongs to a file besides its content.

use std::{
    ffi::OsString,
    fs::{self, Metadata, Permissions},
    io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, PermissionsExt as _, lchown},
    },
    path::Path,
};

use nix::{
    fcntl::AT_FDCWD,
    sys::{
        stat::{UtimensatFlags, utimensat},
        time::TimeSpec,
    },
};

use super::{At as _, CopyError};

type Attributes = Vec<(OsString, Vec<u8>)>;

/// The extended attributes of a path (no symlink followed), sorted. btrfs shows its own properties as `btrfs.*`: those are the
/// filesystem's, not the file's.
pub(super) fn attributes(path: &Path) -> Result<Attributes, CopyError> {
    let names = match xattr::list(path) {
        Ok(names) => names,
        Err(e) if e.kind() == io::ErrorKind::Unsupported => return Ok(Vec::new()),
        Err(e) => return Err(e).at("listing the attributes of", path),
    };
    let mut found = Attributes::new();
    for name in names.filter(|n| !n.as_bytes().starts_with(b"btrfs.")) {
        if let Some(value) = xattr::get(path, &name).at("reading an attribute of", path)? {
            found.push((name, value));
        }
    }
    found.sort();
    Ok(found)
}

/// A short digest of the attributes; `None` where there are none.
pub(super) fn digest(attributes: &Attributes) -> Option<String> {
    if attributes.is_empty() {
        return None;
    }
    let mut hasher = blake3::Hasher::new();
    for (name, value) in attributes {
        for part in [name.as_bytes(), value.as_slice()] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
    Some(hasher.finalize().to_hex().as_str().chars().take(32).collect())
}

/// Gives `target` all that belongs to `source` besides content. The owner goes first: changing it clears setuid bits and file
/// capabilities.
pub(super) fn apply(meta: &Metadata, attributes: &Attributes, target: &Path) -> Result<(), CopyError> {
    lchown(target, Some(meta.uid()), Some(meta.gid())).at("setting the owner of", target)?;
    if !meta.is_symlink() {
        fs::set_permissions(target, Permissions::from_mode(meta.mode() & 0o7777))
            .at("setting the mode of", target)?;
    }
    for (name, value) in attributes {
        xattr::set(target, name, value).at("setting an attribute of", target)?;
    }
    times(meta, target)
}

pub(super) fn times(meta: &Metadata, target: &Path) -> Result<(), CopyError> {
    let (atime, mtime) =
        (TimeSpec::new(meta.atime(), meta.atime_nsec()), TimeSpec::new(meta.mtime(), meta.mtime_nsec()));
    utimensat(AT_FDCWD, target, &atime, &mtime, UtimensatFlags::NoFollowSymlink)
        .at("setting the times of", target)
}
