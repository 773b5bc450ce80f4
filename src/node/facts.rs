//! What a node's directory looks like, without opening a database.

use std::{
    fs::{self, File, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use rustix::fs::{IFlags, ioctl_getflags};

use super::{head, read_layout, stray::KEPT};
use crate::{
    config::Node,
    host::{
        Host, accounts,
        files::{Doing as _, FileError},
    },
    model::observed::{NetworkFacts, NodeFacts, Original, Owned, Standing},
};

/// How many files without checksums are named.
const NAMED: usize = 10;

/// Looks at the node's directory. `mirror` is the device number of the mirror's filesystem at its mount point, where it is mounted.
///
/// # Errors
/// Something in it could not be looked at.
pub fn facts(host: &Host, node: &Node, mountpoint: &Path) -> Result<NodeFacts, FileError> {
    let (directory, data) = (host.path(&node.directory), host.path(&node.data));
    let standing = match optional(fs::symlink_metadata(&directory)).doing("looking at", &directory)? {
        None => Standing::Nothing,
        Some(meta) if meta.is_symlink() => {
            Standing::Symlink(fs::read_link(&directory).doing("reading", &directory)?)
        }
        Some(meta) if meta.is_dir() => Standing::Directory,
        Some(_) => Standing::Other,
    };
    let real = fs::canonicalize(&data).ok();
    let leads_there = real.is_some() && fs::canonicalize(&directory).ok() == real;
    let meta = optional(fs::symlink_metadata(&data)).doing("looking at", &data)?;
    let mut facts = NodeFacts {
        directory: standing,
        leads_there,
        on_mirror: meta.as_ref().is_some_and(Metadata::is_dir) && is_on(host, &node.data, mountpoint)?,
        data: meta.as_ref().map(owned),
        user: node.user.as_deref().and_then(|name| accounts::find(host, name).ok()?).map(|user| user.uid),
        nocow: Vec::new(),
        networks: Vec::new(),
        originals: originals(&directory)?,
    };
    if facts.on_mirror {
        networks(&data, &mut facts)?;
    }
    Ok(facts)
}

fn optional<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(e),
    }
}

fn owned(meta: &Metadata) -> Owned {
    Owned { uid: meta.uid(), mode: meta.mode() & 0o7777, size: meta.len() }
}

/// Is a path of the filesystem that is mounted there? By the filesystem's id: each subvolume has a device number of its own, and another
/// mount below may hide the mirror.
fn is_on(host: &Host, path: &Path, mountpoint: &Path) -> Result<bool, FileError> {
    let mounts =
        crate::host::mountinfo::read(host).map_err(io::Error::other).doing("reading the mounts for", path)?;
    let real = host.resolve(path).doing("resolving", path)?;
    let place = crate::host::mountinfo::containing(&mounts, &real);
    let mirror = crate::host::mountinfo::topmost_at(&mounts, mountpoint);
    Ok(match (place, mirror) {
        (Some(place), Some(mirror)) => place.source == mirror.source && place.fstype == mirror.fstype,
        _ => false,
    })
}

fn networks(data: &Path, facts: &mut NodeFacts) -> Result<(), FileError> {
    let layout = read_layout(data)?;
    note_nocow(data, Path::new(""), &mut facts.nocow)?;
    for relative in layout.databases {
        let name = relative.parent().unwrap_or(Path::new("")).to_path_buf();
        let path = data.join(&relative);
        let database = optional(fs::symlink_metadata(&path)).doing("looking at", &path)?;
        let secret = data.join(&name).join("hsm_secret");
        let secret = optional(fs::symlink_metadata(&secret)).doing("looking at", &secret)?;
        note_nocow(data, &name, &mut facts.nocow)?;
        note_nocow(data, &relative, &mut facts.nocow)?;
        facts.networks.push(NetworkFacts {
            name: name.to_string_lossy().into_owned(),
            fault: head::cut_short(&path).doing("reading", &path)?,
            database: database.as_ref().map(owned),
            secret: secret.as_ref().map(owned),
        });
    }
    Ok(())
}

/// Adds the file or directory where it has the attribute C (chattr(1)): new files of such a directory have it too.
fn note_nocow(data: &Path, relative: &Path, out: &mut Vec<String>) -> Result<(), FileError> {
    let path: PathBuf = data.join(relative);
    let flags = File::open(&path).and_then(|file| match ioctl_getflags(&file) {
        Ok(flags) => Ok(flags),
        // A filesystem without such attributes has none.
        Err(rustix::io::Errno::NOTTY | rustix::io::Errno::OPNOTSUPP) => Ok(IFlags::empty()),
        Err(e) => Err(e.into()),
    });
    if flags.doing("reading the attributes of", &path)?.contains(IFlags::NOCOW) && out.len() < NAMED {
        out.push(path.display().to_string());
    }
    Ok(())
}

/// What setup kept beside the directory.
fn originals(directory: &Path) -> Result<Vec<Original>, FileError> {
    let (Some(parent), Some(name)) = (directory.parent(), directory.file_name()) else {
        return Ok(Vec::new());
    };
    let prefix = format!("{}{KEPT}", name.to_string_lossy());
    let entries = optional(fs::read_dir(parent)).doing("reading", parent)?;
    let mut out = Vec::new();
    for entry in entries.into_iter().flatten() {
        let entry = entry.doing("reading", parent)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(stamp) = name.strip_prefix(&prefix) {
            out.push(Original { path: entry.path(), since: since(stamp) });
        }
    }
    out.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(out)
}

/// `20261123-120000`, in UTC, as setup writes it.
fn since(stamp: &str) -> Option<Timestamp> {
    let stamp = stamp.get(..15)?;
    let time = jiff::civil::DateTime::strptime("%Y%m%d-%H%M%S", stamp).ok()?;
    time.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|time| time.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_originals_name_tells_its_age() {
        assert_eq!(since("20261123-120000").unwrap().to_string(), "2026-11-23T12:00:00Z");
        for odd in ["", "2026", "20261399-120000", "yesterday-or-so"] {
            assert_eq!(since(odd), None, "{odd}");
        }
    }
}
