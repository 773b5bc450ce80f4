//! What is done to every path of a tree, the deepest first: owning and removing.

use std::{
    fs::{self, Metadata},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown},
    path::Path,
};

use super::{
    At as _, CopyError,
    tree::{lstat, names},
};

/// Calls `each` on every path of the tree, the deepest first, the tree itself last.
fn deepest_first(
    path: &Path,
    dev: u64,
    each: &mut dyn FnMut(&Path, &Metadata) -> Result<(), CopyError>,
) -> Result<(), CopyError> {
    let meta = lstat(path)?;
    if meta.is_dir() {
        if meta.dev() != dev {
            return Err(CopyError::MountInside(path.to_owned()));
        }
        for name in names(path)? {
            deepest_first(&path.join(name), dev, each)?;
        }
    }
    each(path, &meta)
}

/// Gives everything in the tree to one owner. Bits that a change of owner clears are set again.
///
/// # Errors
/// An owner cannot be set.
pub fn own_tree(target: &Path, uid: u32, gid: u32) -> Result<(), CopyError> {
    deepest_first(target, lstat(target)?.dev(), &mut |path, meta| {
        if (meta.uid(), meta.gid()) == (uid, gid) {
            return Ok(());
        }
        lchown(path, Some(uid), Some(gid)).at("setting the owner of", path)?;
        if !meta.is_symlink() && meta.mode() & 0o6000 != 0 {
            let mode = fs::Permissions::from_mode(meta.mode() & 0o7777);
            fs::set_permissions(path, mode).at("setting the mode of", path)?;
        }
        Ok(())
    })
}

/// Does everything in the tree belong to this owner?
///
/// # Errors
/// Something cannot be read.
pub fn is_owned_by(target: &Path, uid: u32, gid: u32) -> Result<bool, CopyError> {
    let mut all = true;
    deepest_first(target, lstat(target)?.dev(), &mut |_, meta| {
        all &= (meta.uid(), meta.gid()) == (uid, gid);
        Ok(())
    })?;
    Ok(all)
}

fn remove(path: &Path, meta: &Metadata) -> Result<(), CopyError> {
    if meta.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) }.at("removing", path)
}

/// Removes a tree.
///
/// # Errors
/// Something cannot be removed, or another filesystem is mounted inside: then nothing below that mount point is touched.
pub fn remove_tree(dir: &Path) -> Result<(), CopyError> {
    deepest_first(dir, lstat(dir)?.dev(), &mut remove)
}

/// Removes what is in a directory.
///
/// # Errors
/// As [`remove_tree`].
pub fn empty_tree(dir: &Path) -> Result<(), CopyError> {
    let dev = lstat(dir)?.dev();
    names(dir)?.iter().try_for_each(|name| deepest_first(&dir.join(name), dev, &mut remove))
}
