//! Reads back past the page cache what was written, while the rest is still copied: a copy that is proven costs little more than one that
//! is not. Whether the devices keep it is for the sync to say with which the copy ends.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use nix::fcntl::OFlag;

use super::{
    At as _, CopyError,
    content::{BLOCK, Buffer, Digest, WINDOW, announce, forget, is_direct, open_to_read, windows},
    tree::WRITTEN_AT_ONCE,
    verify::compare_hash,
};

/// How much is written until it is read back: most of it has gone to the devices by then.
const AT_ONCE: u64 = if cfg!(test) { 1 << 20 } else { 64 << 20 };
/// How much is announced at once, in bytes.
const ASKED_FOR: u64 = 512 << 10;

/// The files, relative to the copy, whose content is on the devices as it was read. Of none it is known by default.
#[derive(Debug, Default)]
pub struct Proven(BTreeSet<PathBuf>);

impl Proven {
    /// Is it known of this one?
    pub(super) fn has(&self, inside: &Path) -> bool {
        self.0.contains(inside)
    }
}

/// What has been written of a file that was not told yet.
struct Written {
    path: PathBuf,
    end: u64,
    /// All but what follows the last whole block was written past the page cache.
    past_the_cache: bool,
    /// The hash of all of it, where this was the last.
    hash: Option<String>,
}

enum Message {
    Written(Written),
    /// What is read from here on nobody reads again soon.
    Rest,
    /// All that was to be copied has been.
    Done,
}

/// Tells the thread that reads back what there is to read.
pub(super) struct Prover(Sender<Message>);

impl Prover {
    /// Has what `work` writes below `target` read back. `first` is told when all that came before [`Prover::rest`] has been.
    ///
    /// # Errors
    /// Those of `work`; or something is not as it was written, or the devices do not give it.
    pub(super) fn with<T>(
        target: &Path,
        first: impl FnOnce() + Send,
        work: impl FnOnce(&Self) -> Result<T, CopyError>,
    ) -> Result<(T, Proven), CopyError> {
        let (send, receive) = channel();
        thread::scope(|scope| {
            let reading = scope.spawn(move || Reader::new(target).read(&receive, first));
            let prover = Self(send);
            let worked = work(&prover);
            if worked.is_ok() {
                let _ = prover.0.send(Message::Done);
            }
            drop(prover);
            let read = reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            match (worked, read) {
                // Who is no longer listened to stops for that reason only.
                (Err(CopyError::Interrupted), Err(e)) => Err(e),
                (worked, read) => worked.and_then(|value| Ok((value, read?))),
            }
        })
    }

    /// A file has been written up to `end`, where a window ends; past the page cache, or through it.
    ///
    /// # Errors
    /// [`CopyError::Interrupted`]: what was read back so far is not what it must be.
    pub(super) fn written(&self, path: &Path, end: u64, past_the_cache: bool) -> Result<(), CopyError> {
        self.tell(Written { path: path.to_owned(), end, past_the_cache, hash: None })
    }

    /// All of a file has been written; its size in bytes, and the hash of its content.
    ///
    /// # Errors
    /// As [`Prover::written`].
    pub(super) fn ended(
        &self,
        path: &Path,
        size: u64,
        past_the_cache: bool,
        hash: &str,
    ) -> Result<(), CopyError> {
        self.tell(Written { path: path.to_owned(), end: size, past_the_cache, hash: Some(hash.to_owned()) })
    }

    /// Nobody will read again soon what is copied from here on.
    pub(super) fn rest(&self) {
        let _ = self.0.send(Message::Rest);
    }

    fn tell(&self, written: Written) -> Result<(), CopyError> {
        self.0.send(Message::Written(written)).map_err(|_| CopyError::Interrupted)
    }
}

/// A file of which not all has been read back.
struct Begun {
    path: PathBuf,
    file: File,
    digest: Digest,
    at: u64,
}

struct Reader<'a> {
    target: &'a Path,
    buffer: Buffer,
    begun: Option<Begun>,
    /// What is read stays in memory, for who reads it next.
    stays: bool,
    proven: Proven,
}

impl<'a> Reader<'a> {
    fn new(target: &'a Path) -> Self {
        Self { target, buffer: Buffer::new(), begun: None, stays: true, proven: Proven::default() }
    }

    /// Reads whatever is told until that ends: where it ends without a word, nobody wants to know.
    fn read(mut self, receive: &Receiver<Message>, first: impl FnOnce()) -> Result<Proven, CopyError> {
        let (mut waiting, mut bytes, mut first): (Vec<Written>, u64, _) = (Vec::new(), 0, Some(first));
        loop {
            match receive.recv() {
                Ok(Message::Written(written)) => {
                    bytes += written.end.min(WRITTEN_AT_ONCE);
                    // What is still written to must not be read through the page cache.
                    if !self.keeps(&written) || written.hash.is_some() {
                        waiting.push(written);
                    }
                    if bytes >= AT_ONCE {
                        self.all(std::mem::take(&mut waiting))?;
                        bytes = 0;
                    }
                }
                Ok(Message::Rest) => {
                    self.all(std::mem::take(&mut waiting))?;
                    (bytes, self.stays) = (0, false);
                    first.take().into_iter().for_each(|first| first());
                }
                Ok(Message::Done) => {
                    self.all(waiting)?;
                    return Ok(self.proven);
                }
                Err(_) => return Ok(self.proven),
            }
        }
    }

    fn all(&mut self, written: Vec<Written>) -> Result<(), CopyError> {
        written.into_iter().try_for_each(|part| self.part(part))
    }

    fn part(&mut self, written: Written) -> Result<(), CopyError> {
        let stays = self.keeps(&written);
        let Written { path, end, hash, .. } = written;
        let begun = match self.begun.take().filter(|begun| begun.path == path) {
            Some(begun) => begun,
            None => match self.open(&path, end, stays) {
                Some(file) => Begun { path, file, digest: Digest::new(), at: 0 },
                None => return Ok(()),
            },
        };
        let Begun { path, file, mut digest, at } = begun;
        let hashed = windows(&file, at..end, &mut self.buffer, |offset, bytes| {
            if stays {
                let next = offset + bytes.len() as u64;
                ask_for(&file, next..end.min(next + 2 * WINDOW as u64));
            }
            digest.window(offset, bytes);
            Ok::<_, io::Error>(())
        });
        hashed.at("reading back", &path)?;
        match hash {
            None => self.begun = Some(Begun { path, file, digest, at: end }),
            Some(expected) => {
                compare_hash(digest, end, &expected, &path)?;
                let inside = path.strip_prefix(self.target).unwrap_or(&path);
                self.proven.0.insert(inside.to_owned());
            }
        }
        Ok(())
    }

    /// Is this to be read through the page cache, and kept there?
    fn keeps(&self, written: &Written) -> bool {
        self.stays && written.past_the_cache
    }

    /// Nothing, where it could not be read past the page cache, or it is gone again because the rest of it could not be copied: whoever
    /// compares all of the copy at its end will see to it.
    fn open(&mut self, path: &Path, size: u64, stays: bool) -> Option<File> {
        let direct = open_to_read(path, OFlag::O_DIRECT).ok().filter(is_direct)?;
        if !stays {
            return Some(direct);
        }
        // Its blocks were written past the page cache, and this waits for what follows the last of them: none of it is in memory then.
        direct.read_at(self.buffer.part(BLOCK as u64), size / BLOCK as u64 * BLOCK as u64).ok()?;
        let file = open_to_read(path, OFlag::empty()).ok()?;
        forget(&file, 0..size).ok()?;
        Some(file)
    }
}

/// Announces what is read next, in parts: of one announcement the kernel takes no more than one request.
fn ask_for(file: &File, part: Range<u64>) {
    let mut from = part.start;
    while from < part.end {
        announce(file, from, ASKED_FOR.min(part.end - from));
        from += ASKED_FOR;
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::content::{Direct, LARGE},
        *,
    };
    use std::fs;

    /// Writes part after part, each told as soon as it is there. Was it past the page cache?
    fn write(prover: &Prover, path: &Path, bytes: &[u8]) -> bool {
        let file = File::create_new(path).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        let (target, mut memory) = (Direct::new(&file, path), Buffer::new());
        let mut end = 0;
        for part in bytes.chunks(WINDOW) {
            let window = memory.part(part.len() as u64);
            window.copy_from_slice(part);
            target.write_sparse(end, window).unwrap();
            end += part.len() as u64;
            prover.written(path, end / WINDOW as u64 * WINDOW as u64, target.is_direct()).unwrap();
        }
        target.is_direct()
    }

    /// Files of all kinds, and the hash that `told` makes of that of their content.
    fn proven(told: impl Fn(String) -> String, first_comes: bool) -> (bool, Result<usize, CopyError>) {
        let dir = tempfile::tempdir().unwrap();
        let content = vec![7; 5 * usize::try_from(LARGE).unwrap() + BLOCK + 1];
        let (mut there, mut direct) = (false, false);
        let done = Prover::with(
            dir.path(),
            || there = true,
            |prover| {
                for (name, length) in [("large", content.len()), ("cached", content.len()), ("small", 5)] {
                    let (path, bytes) = (dir.path().join(name), &content[..length]);
                    let past_the_cache = name == "large" && write(prover, &path, bytes);
                    if name != "large" {
                        fs::write(&path, bytes).unwrap();
                    }
                    direct = is_direct(&File::open(&path).unwrap());
                    let mut digest = Digest::new();
                    bytes
                        .chunks(WINDOW)
                        .enumerate()
                        .for_each(|(at, part)| digest.window((at * WINDOW) as u64, part));
                    let hash = blake3::Hash::from(digest.finish(length as u64)).to_hex().to_string();
                    prover.ended(&path, length as u64, past_the_cache, &told(hash))?;
                }
                prover.ended(&dir.path().join("gone"), 1, false, "")?;
                if first_comes {
                    prover.rest();
                }
                Ok(())
            },
        );
        assert_eq!(there, first_comes && done.is_ok());
        (direct, done.map(|((), proven)| proven.0.len()))
    }

    #[test]
    fn what_the_devices_give_back_is_compared() {
        for first_comes in [true, false] {
            let (direct, found) = proven(|hash| hash, first_comes);
            assert_eq!(found.unwrap(), if direct { 3 } else { 0 });
            let (direct, found) = proven(|_| "another".to_owned(), first_comes);
            assert!(if direct { matches!(found, Err(CopyError::Differs { .. })) } else { found.is_ok() });
        }
    }

    #[test]
    fn a_copy_that_fails_says_why_itself() {
        let dir = tempfile::tempdir().unwrap();
        let work = |prover: &Prover| {
            prover.written(&dir.path().join("gone"), 1, false)?;
            Err::<(), _>(CopyError::Untrusted)
        };
        assert!(matches!(Prover::with(dir.path(), || {}, work), Err(CopyError::Untrusted)));
    }
}
