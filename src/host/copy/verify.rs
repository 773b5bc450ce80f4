//! Is the copy what was recorded? Read back from the devices, not from memory.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use nix::fcntl::OFlag;

use super::{
    At as _, CopyError, Entry, Kind, Manifest, Meter, Progress,
    content::{Digest, Pool, Returns, Window, forget, open_to_read},
    manifest::escape,
    metadata,
    prover::Proven,
    tree::{left_out, lstat, names, sync},
};
use crate::exec::Interrupt;

/// Has all of a copy on its devices, and none of its content in memory: from here on whoever reads it reads what the devices give.
///
/// # Errors
/// The devices do not take it, or the kernel keeps it in memory.
pub fn settle(target: &Path, manifest: &Manifest, proven: &Proven) -> Result<(), CopyError> {
    sync(target)?;
    for (inside, entry) in &manifest.entries {
        if let (Kind::File { size, same_as: None, .. }, false) = (&entry.kind, proven.has(inside)) {
            let path = target.join(inside);
            // What cannot be opened the comparison names.
            if let Ok(file) = open_to_read(&path, OFlag::empty()) {
                forget(&file, 0..*size).at("dropping the cache of", &path)?;
            }
        }
    }
    Ok(())
}

/// Opens a file so that reads pass the page cache by; some filesystems have none.
fn open_past_the_cache(path: &Path) -> Result<File, CopyError> {
    match open_to_read(path, OFlag::O_DIRECT) {
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => open_to_read(path, OFlag::empty()),
        opened => opened,
    }
    .at("opening", path)
}

/// Is it the content that was read from the original?
pub(super) fn compare_hash(digest: Digest, size: u64, expected: &str, path: &Path) -> Result<(), CopyError> {
    if blake3::Hash::from(digest.finish(size)).to_hex().as_str() == expected {
        return Ok(());
    }
    let difference = "its content differs from what was read from the original".to_owned();
    Err(CopyError::Differs { path: path.to_owned(), difference })
}

/// Compares a copy that was [settled](settle) with its record: every name, type, owner, mode, time, attribute, link and byte. The content
/// of what is `proven` is not read once more.
///
/// # Errors
/// The first difference, with its path; or something cannot be read, or the operator asked to stop.
pub fn verify_tree(
    target: &Path,
    manifest: &Manifest,
    proven: &Proven,
    owner: Option<(u32, u32)>,
    progress: &mut dyn FnMut(Progress),
    interrupt: &Interrupt,
) -> Result<(), CopyError> {
    if let Some(difference) = first_difference(target, manifest)? {
        return Err(CopyError::Differs { path: target.to_owned(), difference });
    }
    let (pool, returns) = Pool::new();
    let (send, receive) = sync_channel(AHEAD);
    thread::scope(|scope| {
        let hashing = scope.spawn(move || compare(receive, &returns));
        let mut reader = Reader { pool, send, meter: Meter::new(progress), interrupt };
        let read = read_back(target, manifest, proven, owner, &mut reader);
        drop(reader.send);
        let compared = hashing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // What is behind comes first: a reader whose listener has left stops for that reason only.
        compared.and(read)?;
        reader.meter.finish();
        Ok(())
    })
}

/// How many messages the reader may be ahead.
const AHEAD: usize = 64;

/// What the thread that reads tells the one that hashes.
enum Message<'a> {
    Window(Window),
    /// The file at this path is at its end: its length, the expected hash.
    End(PathBuf, u64, &'a str),
}

/// Hashes what comes in and compares, file by file.
fn compare(receive: Receiver<Message<'_>>, returns: &Returns) -> Result<(), CopyError> {
    let mut digest = Digest::new();
    for message in receive {
        match message {
            Message::Window(window) => {
                digest.window(window.offset, window.bytes());
                returns.put(window);
            }
            Message::End(path, size, expected) => {
                let done = std::mem::replace(&mut digest, Digest::new());
                compare_hash(done, size, expected, &path)?;
            }
        }
    }
    Ok(())
}

/// The thread that reads, in the order of the names: one reader, because the heads of a disk can be in one place only.
struct Reader<'m, 'r> {
    pool: Pool,
    send: SyncSender<Message<'m>>,
    meter: Meter<'r>,
    interrupt: &'r Interrupt,
}

fn read_back<'m>(
    target: &Path,
    manifest: &'m Manifest,
    proven: &Proven,
    owner: Option<(u32, u32)>,
    reader: &mut Reader<'m, '_>,
) -> Result<(), CopyError> {
    let mut inodes: HashMap<u64, &Path> = HashMap::new();
    let firsts = manifest.entries.iter().filter(|(_, e)| matches!(e.kind, Kind::File { same_as: None, .. }));
    for (inside, _) in firsts {
        inodes.entry(lstat(&target.join(inside))?.ino()).or_insert(inside);
    }
    for (inside, entry) in &manifest.entries {
        if reader.interrupt.is_raised() {
            return Err(CopyError::Interrupted);
        }
        let path = target.join(inside);
        let differs = |difference: String| CopyError::Differs { path: path.clone(), difference };
        let meta = lstat(&path)?;
        belongs(entry, &meta, owner, &path)?;
        if let Kind::File { size, hash, same_as } = &entry.kind {
            let first = inodes.get(&meta.ino()).map(|first| escape(first.as_os_str()));
            let expected = same_as.clone().unwrap_or_else(|| escape(inside.as_os_str()));
            if first != Some(expected) {
                return Err(differs("its hard links differ".to_owned()));
            }
            if same_as.is_none() && proven.has(inside) {
                reader.meter.bytes(*size);
            } else if same_as.is_none() {
                reader.content(path, *size, hash)?;
            }
            reader.meter.file();
        }
    }
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

impl<'m> Reader<'m, '_> {
    /// Sends a file's content as the devices hold it.
    fn content(&mut self, path: PathBuf, size: u64, expected: &'m str) -> Result<(), CopyError> {
        let file = open_past_the_cache(&path)?;
        let Self { pool, send, meter, interrupt } = self;
        let mut stopped = false;
        let read = pool.windows(&file, size, |window| {
            let length = window.bytes().len() as u64;
            stopped = interrupt.is_raised() || send.send(Message::Window(window)).is_err();
            if stopped {
                return Err(io::Error::from(io::ErrorKind::Interrupted));
            }
            meter.bytes(length);
            Ok(())
        });
        if stopped {
            return Err(CopyError::Interrupted);
        }
        read.at("reading back", &path)?;
        send.send(Message::End(path, size, expected)).map_err(|_| CopyError::Interrupted)
    }
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
