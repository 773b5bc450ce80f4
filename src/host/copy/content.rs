//! A file's content, window by window.
//!
//! The hash is over the units of 1 MiB that hold a byte other than zero, each with its place, and the length: so it is the same whether a
//! run of zeros is stored or a hole, and a hole of a terabyte costs nothing.

use std::{
    fs::{File, OpenOptions},
    io,
    ops::Range,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, PosixFadviseAdvice, posix_fadvise},
    unistd::{Whence, lseek64},
};
use rustix::fs::{AtFlags, StatxFlags};

/// How much is read at once: enough for a device to be asked for several parts at the same time.
pub(super) const WINDOW: usize = 4 << 20;
/// The unit of the hash. A window is a whole number of them.
const UNIT: usize = 1 << 20;
/// How many windows a reader may be ahead of who takes them.
const AHEAD: usize = 4;
/// A file of more than this is written past the page cache.
pub(super) const LARGE: u64 = 2 * WINDOW as u64;
/// The unit in which zeros become holes, and to which direct reads align.
pub(super) const BLOCK: usize = 4096;

/// A window's memory, aligned for direct reads.
pub(in crate::host) struct Buffer {
    memory: Vec<u8>,
    start: usize,
}

impl Buffer {
    pub(in crate::host) fn new() -> Self {
        let memory = vec![0; WINDOW + BLOCK];
        let start = memory.as_ptr().align_offset(BLOCK).min(BLOCK);
        Self { memory, start }
    }

    /// As much of it as is asked for, or all.
    pub(in crate::host) fn part(&mut self, length: u64) -> &mut [u8] {
        let length = usize::try_from(length).unwrap_or(WINDOW).min(WINDOW);
        self.window().get_mut(..length).unwrap_or_default()
    }

    fn window(&mut self) -> &mut [u8] {
        self.memory.get_mut(self.start..self.start + WINDOW).unwrap_or_default()
    }

    fn bytes(&self, filled: usize) -> &[u8] {
        self.memory.get(self.start..self.start + filled).unwrap_or_default()
    }
}

/// A window on its way from the thread that reads to the one that takes it.
pub(super) struct Window {
    pub(super) offset: u64,
    buffer: Buffer,
    filled: usize,
}

impl Window {
    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.bytes(self.filled)
    }
}

/// Buffers between two threads: there are only so many, so memory stays flat and a reader waits for who is behind.
pub(super) struct Pool {
    spare: Vec<Buffer>,
    free: Receiver<Buffer>,
}

/// The way back of a [`Pool`]'s windows. When it is gone the pool runs dry, which is an error and no waiting.
pub(super) struct Returns(SyncSender<Buffer>);

impl Returns {
    pub(super) fn put(&self, window: Window) {
        let _ = self.0.try_send(window.buffer);
    }
}

impl Pool {
    pub(super) fn new() -> (Self, Returns) {
        let (give, free) = sync_channel(AHEAD + 1);
        (Self { spare: (0..=AHEAD).map(|_| Buffer::new()).collect(), free }, Returns(give))
    }

    /// Calls `each` with every window of the file's first `size` bytes that may hold data.
    pub(super) fn windows<E: From<io::Error>>(
        &mut self,
        file: &File,
        size: u64,
        mut each: impl FnMut(Window) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut buffer = self.take()?;
        lend(file, 0..size, &mut buffer, |offset, buffer, filled| {
            let next = self.take()?;
            each(Window { offset, buffer: std::mem::replace(buffer, next), filled })
        })?;
        self.spare.push(buffer);
        Ok(())
    }

    fn take(&mut self) -> io::Result<Buffer> {
        self.spare.pop().map_or_else(|| self.free.recv().map_err(io::Error::other), Ok)
    }
}

/// Each byte is compared with the next, which is what memcmp(3) is fast at.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.split_last().is_none_or(|(last, front)| *last == 0 && bytes.get(1..) == Some(front))
}

/// Calls `each` with every window of this part of the file that may hold data, and its offset. The part begins where a window does.
pub(super) fn windows<E: From<io::Error>>(
    file: &File,
    part: Range<u64>,
    buffer: &mut Buffer,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    lend(file, part, buffer, |offset, buffer, filled| each(offset, buffer.bytes(filled)))
}

fn lend<E: From<io::Error>>(
    file: &File,
    part: Range<u64>,
    buffer: &mut Buffer,
    mut each: impl FnMut(u64, &mut Buffer, usize) -> Result<(), E>,
) -> Result<(), E> {
    let mut offset = part.start;
    while offset < part.end {
        match next_data(file, offset)? {
            None => break,
            Some(data) => {
                let skipped = data / WINDOW as u64 * WINDOW as u64;
                offset = offset.max(skipped);
            }
        }
        let Some(left) = part.end.checked_sub(offset).filter(|left| *left > 0) else { break };
        let length = usize::try_from(left).unwrap_or(WINDOW).min(WINDOW);
        let filled = fill(file, buffer.window(), offset, length)?;
        each(offset, buffer, filled)?;
        if filled < length {
            break;
        }
        offset += length as u64;
    }
    Ok(())
}

/// Where the next data are at or after `offset`; `None` when only a hole follows.
fn next_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    let from = i64::try_from(offset).map_err(io::Error::other)?;
    match lseek64(file, from, Whence::SeekData) {
        Ok(at) => Ok(Some(u64::try_from(at).unwrap_or(offset))),
        Err(Errno::ENXIO) => Ok(None),
        // A filesystem without holes: all is data.
        Err(Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(Some(offset)),
        Err(e) => Err(e.into()),
    }
}

/// Reads up to `length` bytes, fewer only at the file's end. Whole blocks are asked for, as direct reads want them, and no more: the kernel
/// fills all that is asked for beyond the end with zeros.
fn fill(file: &File, window: &mut [u8], offset: u64, length: usize) -> io::Result<usize> {
    let window = window.get_mut(..length.next_multiple_of(BLOCK)).unwrap_or_default();
    let mut filled = 0;
    while filled < length {
        match file.read_at(window.get_mut(filled..).unwrap_or_default(), offset + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled.min(length))
}

/// The hash of a content as it goes by.
pub(super) struct Digest(blake3::Hasher);

impl Digest {
    pub(super) fn new() -> Self {
        Self(blake3::Hasher::new())
    }

    pub(super) fn window(&mut self, offset: u64, bytes: &[u8]) {
        for (index, unit) in bytes.chunks(UNIT).enumerate().filter(|(_, unit)| !is_zero(unit)) {
            self.0.update(&(offset + (index * UNIT) as u64).to_le_bytes());
            self.0.update(unit);
        }
    }

    pub(super) fn finish(mut self, size: u64) -> [u8; 32] {
        self.0.update(&size.to_le_bytes());
        self.0.finalize().into()
    }
}

/// The SHA-256 of a content as it goes by, as sha256sum(1) has it: holes are zeros.
pub(super) struct Sum {
    context: ring::digest::Context,
    at: u64,
}

impl Sum {
    pub(super) fn new() -> Self {
        Self { context: ring::digest::Context::new(&ring::digest::SHA256), at: 0 }
    }

    pub(super) fn window(&mut self, offset: u64, bytes: &[u8]) {
        self.zeros_to(offset);
        self.context.update(bytes);
        self.at += bytes.len() as u64;
    }

    fn zeros_to(&mut self, offset: u64) {
        static ZEROS: [u8; 4 << 10] = [0; 4 << 10];
        while self.at < offset {
            let length = usize::try_from(offset - self.at).unwrap_or(ZEROS.len()).min(ZEROS.len());
            self.context.update(ZEROS.get(..length).unwrap_or_default());
            self.at += length as u64;
        }
    }

    /// In hex.
    pub(super) fn finish(mut self, size: u64) -> String {
        self.zeros_to(size);
        self.context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Opens what may be no file: no symlink is followed, and no FIFO waited for.
pub(super) fn open_to_read(path: &Path, extra: OFlag) -> io::Result<File> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | extra).bits();
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// Do reads and writes with `O_DIRECT` pass the page cache by on this file's filesystem, of blocks as they are asked for here? Many
/// filesystems take the flag and do as they like; the kernel tells (statx(2), `STATX_DIOALIGN`, Linux 6.1).
pub(super) fn is_direct(file: &File) -> bool {
    let told = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok();
    let known = told.filter(|told| told.stx_mask & StatxFlags::DIOALIGN.bits() != 0);
    let fits = |align: u32| usize::try_from(align).is_ok_and(|align| (1..=BLOCK).contains(&align));
    known.is_some_and(|told| fits(told.stx_dio_mem_align) && fits(told.stx_dio_offset_align))
}

/// A large file that is written past the page cache where that can be: the devices then have no backlog that a sync would have to wait for,
/// and the progress is theirs.
pub(super) struct Direct<'a> {
    file: &'a File,
    past_the_cache: Option<File>,
}

impl<'a> Direct<'a> {
    /// `file` is what lies at `path`.
    pub(super) fn new(file: &'a File, path: &Path) -> Self {
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_DIRECT).bits();
        let opened = OpenOptions::new().write(true).custom_flags(flags).open(path).ok();
        Self { file, past_the_cache: opened.filter(is_direct) }
    }

    /// Is it written past the page cache, all but what follows the last whole block?
    pub(super) fn is_direct(&self) -> bool {
        self.past_the_cache.is_some()
    }

    /// Writes what is not zero; the rest stays a hole. `offset` is that of a block, and the bytes lie in memory as a [`Buffer`]'s do.
    pub(super) fn write_sparse(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        runs(offset, bytes, |offset, run| {
            let (blocks, end) = run.split_at(run.len() / BLOCK * BLOCK);
            self.past_the_cache.as_ref().unwrap_or(self.file).write_all_at(blocks, offset)?;
            self.file.write_all_at(end, offset + blocks.len() as u64)
        })
    }

    /// As the function of this name, where there is a backlog.
    pub(super) fn begin_writing(&self, from: u64, to: u64) {
        if self.past_the_cache.is_none() {
            begin_writing(self.file, from, to);
        }
    }
}

/// Writes what is not zero; the rest stays a hole.
pub(in crate::host) fn write_sparse(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    runs(offset, bytes, |offset, run| file.write_all_at(run, offset))
}

/// Calls `write` with each run of blocks that are not all zero, and its offset.
fn runs(offset: u64, bytes: &[u8], mut write: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut run: Option<(usize, usize)> = None;
    let mut flush =
        |run: Option<(usize, usize)>| match run.and_then(|(from, to)| Some((from, bytes.get(from..to)?))) {
            Some((from, part)) => write(offset + from as u64, part),
            None => Ok(()),
        };
    for (index, block) in bytes.chunks(BLOCK).enumerate() {
        let at = index * BLOCK;
        if is_zero(block) {
            flush(run.take())?;
        } else {
            run = Some((run.map_or(at, |(from, _)| from), at + block.len()));
        }
    }
    flush(run)
}

/// Tells the kernel what will be read soon. Advice: where it is not taken, the read just waits.
pub(super) fn announce(file: &File, offset: u64, length: u64) {
    let (offset, length) = (i64::try_from(offset).unwrap_or(0), i64::try_from(length).unwrap_or(0));
    let _ = posix_fadvise(file, offset, length, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
}

/// Has the kernel begin to write what was written between two offsets, and keep none of it longer than it must: so devices write
/// while the next window is read. Advice: what it leaves undone the sync at the end does.
pub(super) fn begin_writing(file: &File, from: u64, to: u64) {
    let (offset, length) =
        (i64::try_from(from).unwrap_or(0), i64::try_from(to.saturating_sub(from)).unwrap_or(0));
    let _ = posix_fadvise(file, offset, length, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
}

/// Has the kernel drop what it holds of this part of the file's content, so that the next read comes from the devices.
pub(super) fn forget(file: &File, part: Range<u64>) -> io::Result<()> {
    let from = i64::try_from(part.start).map_err(io::Error::other)?;
    let length = i64::try_from(part.end.saturating_sub(part.start)).map_err(io::Error::other)?;
    posix_fadvise(file, from, length, PosixFadviseAdvice::POSIX_FADV_DONTNEED).map_err(io::Error::from)
}
