//! Is the copy what was recorded? Read back from the devices, not from memory.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File, Metadata, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::fcntl::OFlag;

use super::{
    At as _, CopyError, Entry, Kind, Manifest, Meter, Progress,
    content::{Buffer, Digest, forget, windows},
    manifest::escape,
    metadata,
    tree::{left_out, lstat, names},
};
use crate::exec::Interrupt;

/// Compares a copy with its record: every name, type, owner, mode, time, attribute, link and byte.
///
/// # Errors
/// The first difference, with its path; or something cannot be read, or the operator asked to stop.
pub fn verify_tree(
    target: &Path,
    manifest: &Manifest,
    owner: Option<(u32, u32)>,
    progress: &mut dyn FnMut(Progress),
    interrupt: &Interrupt,
) -> Result<(), CopyError> {
    let whole = File::open(target).at("opening", target)?;
    nix::unistd::syncfs(&whole).at("syncing the filesystem of", target)?;
    if let Some(difference) = first_difference(target, manifest)? {
        return Err(CopyError::Differs { path: target.to_owned(), difference });
    }
    let mut meter = Meter::new(progress);
    let mut buffer = Buffer::new();
    let mut inodes: HashMap<u64, &Path> = HashMap::new();
    for (inside, entry) in &manifest.entries {
        if interrupt.is_raised() {
            return Err(CopyError::Interrupted);
        }
        let path = target.join(inside);
        let differs = |difference: String| CopyError::Differs { path: path.clone(), difference };
        let meta = lstat(&path)?;
        belongs(entry, &meta, owner, &path)?;
        if let Kind::File { size, hash, same_as } = &entry.kind {
            let first = inodes.entry(meta.ino()).or_insert(inside);
            let expected = same_as.clone().unwrap_or_else(|| escape(inside.as_os_str()));
            if escape(first.as_os_str()) != expected {
                return Err(differs("its hard links differ".to_owned()));
            }
            if same_as.is_none() && content(&path, *size, &mut buffer, &mut meter, interrupt)? != *hash {
                return Err(differs("its content differs from what was read from the original".to_owned()));
            }
            meter.file();
        }
    }
    meter.finish();
    Ok(())
}

fn belongs(entry: &Entry, meta: &Metadata, owner: Option<(u32, u32)>, path: &Path) -> Result<(), CopyError> {
    let differs = |difference: String| Err(CopyError::Differs { path: path.to_owned(), difference });
    let expected = owner.unwrap_or((entry.uid, entry.gid));
    if (meta.uid(), meta.gid()) != expected {
        return differs(format!(
            "it belongs to {}:{}, not {}:{}",
            meta.uid(),
            meta.gid(),
            expected.0,
            expected.1
        ));
    }
    if !meta.is_symlink() && meta.mode() & 0o7777 != entry.mode {
        return differs(format!("its mode is {:o}, not {:o}", meta.mode() & 0o7777, entry.mode));
    }
    if metadata::digest(&metadata::attributes(path)?) != entry.xattrs {
        return differs("its extended attributes differ".to_owned());
    }
    Ok(())
}

/// The hash of a file's content as the devices hold it.
fn content(
    path: &Path,
    size: u64,
    buffer: &mut Buffer,
    meter: &mut Meter<'_>,
    interrupt: &Interrupt,
) -> Result<String, CopyError> {
    let open = |extra: OFlag| {
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | extra).bits();
        OpenOptions::new().read(true).custom_flags(flags).open(path)
    };
    // Direct reads pass the page cache by. Where a filesystem has none, the cache is told to forget the file first.
    let file = match open(OFlag::O_DIRECT) {
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => open(OFlag::empty()),
        opened => opened,
    }
    .at("opening", path)?;
    forget(&file).at("dropping the cache of", path)?;
    let mut digest = Digest::new();
    let mut asked = false;
    let read = windows(&file, size, buffer, |offset, bytes| {
        asked = interrupt.is_raised();
        if asked {
            return Err(io::Error::from(io::ErrorKind::Interrupted));
        }
        digest.window(offset, bytes);
        meter.bytes(bytes.len() as u64);
        Ok(())
    });
    if asked {
        return Err(CopyError::Interrupted);
    }
    read.at("reading back", path)?;
    Ok(blake3::Hash::from(digest.finish(size)).to_hex().to_string())
}

/// Has anything in `dir` changed since the record? Names, types, lengths, modification times and symlinks are compared, no content
/// is read. The first difference in words, or `None`.
///
/// # Errors
/// Something cannot be read.
pub fn first_difference(dir: &Path, manifest: &Manifest) -> Result<Option<String>, CopyError> {
    let mut seen = BTreeSet::new();
    collect(dir, Path::new(""), &mut seen)?;
    let known: BTreeSet<&PathBuf> = manifest.entries.keys().collect();
    if let Some(new) = seen.iter().find(|path| !known.contains(path)) {
        return Ok(Some(format!("{} is new", new.display())));
    }
    if let Some(gone) = known.iter().find(|path| !seen.contains(**path)) {
        return Ok(Some(format!("{} is gone", gone.display())));
    }
    for (inside, entry) in &manifest.entries {
        let path = dir.join(inside);
        let meta = lstat(&path)?;
        let name = if inside.as_os_str().is_empty() {
            "the directory itself".to_owned()
        } else {
            inside.display().to_string()
        };
        let same_kind = match &entry.kind {
            Kind::Directory => meta.is_dir(),
            Kind::File { .. } => meta.is_file(),
            Kind::Symlink(holds) => {
                meta.is_symlink()
                    && escape(fs::read_link(&path).at("reading the symlink", &path)?.as_os_str()) == *holds
            }
        };
        if !same_kind {
            return Ok(Some(format!("{name} is something else now")));
        }
        if let Kind::File { size, .. } = entry.kind {
            if meta.len() != size {
                return Ok(Some(format!("{name} has {} bytes, not {size}", meta.len())));
            }
        }
        if (meta.mtime(), meta.mtime_nsec()) != entry.mtime {
            return Ok(Some(format!("{name} was modified")));
        }
    }
    Ok(None)
}

fn collect(dir: &Path, inside: &Path, seen: &mut BTreeSet<PathBuf>) -> Result<(), CopyError> {
    seen.insert(inside.to_owned());
    for name in names(dir)? {
        let (path, inside) = (dir.join(&name), inside.join(&name));
        let meta = lstat(&path)?;
        if meta.is_dir() {
            collect(&path, &inside, seen)?;
        } else if left_out(&meta).is_none() {
            seen.insert(inside);
        }
    }
    Ok(())
}
