//! Walking and copying trees. No symlink is followed, no mount point is crossed.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    fs::{self, DirBuilder, File, Metadata, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, symlink},
    path::{Path, PathBuf},
    rc::Rc,
    sync::mpsc::{Receiver, sync_channel},
    thread,
};

use nix::fcntl::OFlag;

use super::{
    At as _, CopyError, Entry, Kind, Manifest, Meter, Progress, Skipped, Survey,
    ahead::Scout,
    content::{
        Buffer, Digest, Direct, LARGE, Pool, Returns, Sum, WINDOW, Window, announce, begin_writing, forget,
        open_to_read, windows, write_sparse,
    },
    deepest::empty_tree,
    manifest::escape,
    metadata,
    prover::Prover,
};
use crate::exec::Interrupt;

pub(super) fn names(dir: &Path) -> Result<Vec<OsString>, CopyError> {
    let entries = fs::read_dir(dir).at("reading the directory", dir)?;
    let mut names = entries
        .map(|e| Ok(e?.file_name()))
        .collect::<io::Result<Vec<_>>>()
        .at("reading the directory", dir)?;
    names.sort();
    Ok(names)
}

pub(super) fn lstat(path: &Path) -> Result<Metadata, CopyError> {
    fs::symlink_metadata(path).at("reading", path)
}

pub(super) fn left_out(meta: &Metadata) -> Option<&'static str> {
    let kind = meta.file_type();
    if kind.is_socket() {
        Some("socket")
    } else if kind.is_fifo() {
        Some("FIFO")
    } else if kind.is_block_device() || kind.is_char_device() {
        Some("device")
    } else {
        None
    }
}

/// Counts what will be copied.
///
/// # Errors
/// Something cannot be read, or another filesystem is mounted inside.
pub fn survey(source: &Path) -> Result<Survey, CopyError> {
    fn visit(
        path: &Path,
        inside: &Path,
        dev: u64,
        links: &mut HashSet<u64>,
        out: &mut Survey,
    ) -> Result<(), CopyError> {
        let meta = lstat(path)?;
        if meta.is_dir() {
            if meta.dev() != dev {
                return Err(CopyError::MountInside(path.to_owned()));
            }
            out.directories += 1;
            for name in names(path)? {
                visit(&path.join(&name), &inside.join(&name), dev, links, out)?;
            }
        } else if let Some(kind) = left_out(&meta) {
            out.skipped.push(Skipped { path: inside.to_owned(), kind });
        } else {
            out.files += 1;
            if meta.nlink() == 1 || links.insert(meta.ino()) {
                out.bytes += (meta.blocks() * 512).min(meta.len());
            }
        }
        Ok(())
    }
    let mut out = Survey::default();
    visit(source, Path::new(""), lstat(source)?.dev(), &mut HashSet::new(), &mut out)?;
    Ok(out)
}

/// How much of a file is written before the devices are set to work: enough for long extents.
pub(super) const WRITTEN_AT_ONCE: u64 = 16 << 20;

pub(super) struct Copier<'a> {
    dev: u64,
    pub(super) scout: Rc<Scout>,
    /// The first name of each inode that has several, by filesystem and number.
    links: HashMap<(u64, u64), PathBuf>,
    buffer: Buffer,
    pub(super) meter: Meter<'a>,
    pub(super) interrupt: &'a Interrupt,
    pub(super) out: Manifest,
    /// Where a second hash is wanted, over all bytes in their order.
    pub(super) sum: Option<Sum>,
    /// Who reads back what is written.
    prover: Option<&'a Prover>,
}

/// Copies the tree at `source` into the directory `target`, which exists; what is in it from an earlier attempt is removed first.
/// All of it is on the devices when this returns.
///
/// # Errors
/// Something cannot be read or written, a file changed meanwhile, another filesystem is mounted inside, or the operator asked to
/// stop. The source is as it was.
pub fn copy_tree(
    source: &Path,
    target: &Path,
    progress: &mut dyn FnMut(Progress),
    interrupt: &Interrupt,
) -> Result<Manifest, CopyError> {
    empty_tree(target)?;
    let dev = lstat(source)?.dev();
    Scout::with(|scout| {
        let mut copier = Copier::new(dev, scout, None, progress, interrupt);
        copier.directory(source, target, Path::new(""))?;
        copier.meter.finish();
        sync(target)?;
        Ok(copier.out)
    })
}

/// Has all that was written to the filesystem of a path on its devices.
pub(super) fn sync(path: &Path) -> Result<(), CopyError> {
    let whole = File::open(path).at("opening", path)?;
    nix::unistd::syncfs(&whole).at("syncing the filesystem of", path)
}

impl<'a> Copier<'a> {
    pub(super) fn new(
        dev: u64,
        scout: Scout,
        prover: Option<&'a Prover>,
        progress: &'a mut dyn FnMut(Progress),
        interrupt: &'a Interrupt,
    ) -> Self {
        Self {
            dev,
            scout: Rc::new(scout),
            links: HashMap::new(),
            buffer: Buffer::new(),
            meter: Meter::new(progress),
            interrupt,
            out: Manifest::default(),
            sum: None,
            prover,
        }
    }

    fn directory(&mut self, from: &Path, to: &Path, inside: &Path) -> Result<(), CopyError> {
        let meta = lstat(from)?;
        if meta.dev() != self.dev {
            return Err(CopyError::MountInside(from.to_owned()));
        }
        let attributes = metadata::attributes(from)?;
        self.record(inside, &meta, Kind::Directory, metadata::digest(&attributes));
        let scout = Rc::clone(&self.scout);
        for name in scout.ahead_of(from, &names(from)?) {
            self.entry(&from.join(name), &to.join(name), &inside.join(name))?;
        }
        if lstat(from)?.mtime_nsec() != meta.mtime_nsec() || lstat(from)?.mtime() != meta.mtime() {
            return Err(CopyError::Changed(from.to_owned()));
        }
        // Last, because making what is inside sets the time.
        metadata::apply(&meta, &attributes, to)
    }

    fn entry(&mut self, from: &Path, to: &Path, inside: &Path) -> Result<(), CopyError> {
        if self.interrupt.is_raised() {
            return Err(CopyError::Interrupted);
        }
        let meta = lstat(from)?;
        if meta.is_dir() {
            DirBuilder::new().mode(0o700).create(to).at("making the directory", to)?;
            return self.directory(from, to, inside);
        }
        self.leaf(from, to, inside, &meta)
    }

    /// Copies what is no directory.
    pub(super) fn leaf(
        &mut self,
        from: &Path,
        to: &Path,
        inside: &Path,
        meta: &Metadata,
    ) -> Result<(), CopyError> {
        if let Some(kind) = left_out(meta) {
            self.out.skipped.push(Skipped { path: inside.to_owned(), kind });
            return Ok(());
        }
        if meta.is_symlink() {
            let holds = fs::read_link(from).at("reading the symlink", from)?;
            symlink(&holds, to).at("making the symlink", to)?;
            let attributes = metadata::attributes(from)?;
            metadata::apply(meta, &attributes, to)?;
            self.record(
                inside,
                meta,
                Kind::Symlink(escape(holds.as_os_str())),
                metadata::digest(&attributes),
            );
        } else if let Some(first) = self.links.get(&(meta.dev(), meta.ino())).filter(|_| meta.nlink() > 1) {
            let root = to.ancestors().nth(inside.components().count()).unwrap_or(to);
            fs::hard_link(root.join(first), to).at("making the hard link", to)?;
            let Some(mut entry) = self.out.entries.get(first).cloned() else {
                return Err(CopyError::Changed(from.to_owned()));
            };
            if let Kind::File { same_as, .. } = &mut entry.kind {
                *same_as = Some(escape(first.as_os_str()));
            }
            self.out.entries.insert(inside.to_owned(), entry);
        } else {
            self.file(from, to, inside, meta)?;
        }
        self.meter.file();
        Ok(())
    }

    fn file(&mut self, from: &Path, to: &Path, inside: &Path, seen: &Metadata) -> Result<(), CopyError> {
        let source = open_to_read(from, OFlag::empty()).at("opening", from)?;
        let before = source.metadata().at("reading", from)?;
        if !before.is_file() || (before.dev(), before.ino()) != (seen.dev(), seen.ino()) {
            return Err(CopyError::Changed(from.to_owned()));
        }
        let attributes = metadata::attributes(from)?;
        let target = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
            .open(to)
            .at("making", to)?;
        // What is read back while the rest is written must not end before its last zeros.
        target.set_len(before.len()).at("setting the length of", to)?;
        let copied = self.content(&source, &target, before.len(), to).map_err(|stop| stop.at(from, to))?;
        let after = source.metadata().at("reading", from)?;
        let state = |m: &Metadata| (m.len(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec());
        if state(&before) != state(&after) {
            return Err(CopyError::Changed(from.to_owned()));
        }
        drop(target);
        metadata::apply(&before, &attributes, to)?;
        if before.nlink() > 1 {
            self.links.insert((before.dev(), before.ino()), inside.to_owned());
        }
        let hash = blake3::Hash::from(copied.digest.finish(before.len())).to_hex().to_string();
        if let Some(prover) = self.prover {
            prover.ended(to, before.len(), copied.past_the_cache, &hash)?;
        }
        self.record(
            inside,
            &before,
            Kind::File { size: before.len(), hash, same_as: None },
            metadata::digest(&attributes),
        );
        Ok(())
    }

    /// Copies the content, of a large one with a thread that reads, one that hashes and one that writes.
    fn content(&mut self, source: &File, target: &File, size: u64, to: &Path) -> Result<Copied, Stop> {
        let (meter, interrupt, prover) = (&mut self.meter, self.interrupt, self.prover);
        let mut hashes = Hashes { digest: Digest::new(), sum: self.sum.as_mut() };
        let mut seen = |offset: u64, bytes: &[u8]| {
            if interrupt.is_raised() {
                return Err(Stop::Asked);
            }
            announce(source, offset + bytes.len() as u64, 2 * WINDOW as u64);
            meter.bytes(bytes.len() as u64);
            Ok(())
        };
        if size <= LARGE {
            windows(source, 0..size, &mut self.buffer, |offset, bytes| {
                seen(offset, bytes)?;
                hashes.window(offset, bytes);
                write_sparse(target, offset, bytes).map_err(Stop::Writing)
            })?;
            begin_writing(target, 0, size);
            return Ok(Copied { digest: hashes.digest, past_the_cache: false });
        }
        let (mut pool, returns) = Pool::new();
        let (send, receive) = sync_channel(1);
        let (pass, passed) = sync_channel(1);
        thread::scope(|scope| {
            let target = Direct::new(target, to);
            let direct = target.is_direct();
            let written = move |end| prover.is_none_or(|prover| prover.written(to, end, direct).is_ok());
            let hashing = scope.spawn(move || {
                for window in receive {
                    let window: Window = window;
                    hashes.window(window.offset, window.bytes());
                    if pass.send(window).is_err() {
                        break;
                    }
                }
                hashes.digest
            });
            let writing = scope.spawn(move || write(&target, passed, &returns, written));
            let read = pool.windows(source, size, |window| {
                seen(window.offset, window.bytes())?;
                // Nobody needs it again, and the kernel need not drop all of it at once when the source is unmounted.
                let _ = forget(source, window.offset..window.offset + window.bytes().len() as u64);
                // Refused only when the writer has failed, and its error goes first.
                send.send(window).map_err(|_| Stop::Asked)
            });
            drop(send);
            let digest = hashing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let written = writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            written.map_err(Stop::Writing).and(read).map(|()| Copied { digest, past_the_cache: direct })
        })
    }

    pub(super) fn record(&mut self, inside: &Path, meta: &Metadata, kind: Kind, xattrs: Option<String>) {
        let entry = Entry {
            kind,
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            xattrs,
        };
        self.out.entries.insert(inside.to_owned(), entry);
    }
}

/// What is known of a content that has been copied.
struct Copied {
    digest: Digest,
    /// All but what follows the last whole block was written past the page cache.
    past_the_cache: bool,
}

/// What is made of a content as it goes by.
struct Hashes<'a> {
    digest: Digest,
    sum: Option<&'a mut Sum>,
}

impl Hashes<'_> {
    fn window(&mut self, offset: u64, bytes: &[u8]) {
        self.digest.window(offset, bytes);
        if let Some(sum) = &mut self.sum {
            sum.window(offset, bytes);
        }
    }
}

/// Writes what comes in. `written` is told up to where, and whether to go on.
fn write(
    target: &Direct<'_>,
    receive: Receiver<Window>,
    returns: &Returns,
    written: impl Fn(u64) -> bool,
) -> io::Result<()> {
    let mut from = 0;
    for window in receive {
        target.write_sparse(window.offset, window.bytes())?;
        let end = window.offset + window.bytes().len() as u64;
        returns.put(window);
        if end - from >= WRITTEN_AT_ONCE {
            target.begin_writing(from, end);
            from = end;
            if !written(end) {
                break;
            }
        }
    }
    Ok(())
}

enum Stop {
    Asked,
    Reading(io::Error),
    Writing(io::Error),
}

impl From<io::Error> for Stop {
    fn from(e: io::Error) -> Self {
        Self::Reading(e)
    }
}

impl Stop {
    fn at(self, from: &Path, to: &Path) -> CopyError {
        match self {
            Self::Asked => CopyError::Interrupted,
            Self::Reading(source) => CopyError::Io { doing: "reading", path: from.to_owned(), source },
            Self::Writing(source) => CopyError::Io { doing: "writing", path: to.to_owned(), source },
        }
    }
}
