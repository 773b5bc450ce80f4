//! A device's own blocks, read past the page cache: other openers may have left there what is older than what is on the device, and md
//! writes its superblocks past it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Seek as _, SeekFrom},
    os::unix::fs::{FileExt as _, FileTypeExt as _, OpenOptionsExt as _},
    path::Path,
};

use nix::{
    fcntl::{PosixFadviseAdvice, posix_fadvise},
    libc,
};

/// A block's length in bytes.
pub(crate) const SIZE: usize = 4096;

/// Aligned as direct I/O wants it: no logical sector is larger (open(2), `O_DIRECT`).
#[repr(align(4096))]
struct Block([u8; SIZE]);

/// A device, or an image of one.
#[derive(Debug)]
pub(crate) struct Fresh {
    file: File,
    direct: bool,
}

impl Fresh {
    /// Opens it to be read.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        match OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path) {
            // An image, on a filesystem that knows no such thing.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                Ok(Self { file: File::open(path)?, direct: false })
            }
            opened => Ok(Self { file: opened?, direct: true }),
        }
    }

    /// Its size in bytes.
    ///
    /// # Errors
    /// It does not say.
    pub(crate) fn size(&self) -> io::Result<u64> {
        (&self.file).seek(SeekFrom::End(0))
    }

    /// The block that begins at a place, in bytes from the start; nothing where an image ends before its end.
    ///
    /// # Errors
    /// It cannot be read, or is of a device that is gone.
    pub(crate) fn block(&self, at: u64) -> io::Result<Option<[u8; SIZE]>> {
        if !self.direct {
            // The whole of it: pages may be larger than what is asked for, and are dropped only as a whole.
            let _ = posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        }
        let mut block = Block([0; SIZE]);
        match self.file.read_exact_at(&mut block.0, at) {
            Ok(()) => Ok(Some(block.0)),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                // A block device that was pulled but is still open has size 0.
                let pulled = self.file.metadata()?.file_type().is_block_device();
                if pulled { Err(io::Error::from_raw_os_error(libc::ENXIO)) } else { Ok(None) }
            }
            Err(e) => Err(e),
        }
    }
}

/// So many bytes of a block; nothing where it ends before.
pub(crate) fn field<const N: usize>(block: &[u8], at: usize) -> Option<[u8; N]> {
    block.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_was_written_last_is_read_and_what_is_not_there_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        fs::write(&image, [1; 2 * SIZE]).unwrap();
        let device = Fresh::open(&image).unwrap();
        assert_eq!(device.size().unwrap(), 2 * SIZE as u64);
        assert_eq!(device.block(SIZE as u64).unwrap(), Some([1; SIZE]));
        fs::write(&image, [2; 2 * SIZE]).unwrap();
        assert_eq!(device.block(SIZE as u64).unwrap(), Some([2; SIZE]));
        assert_eq!(device.block(2 * SIZE as u64).unwrap(), None);
        fs::write(&image, [3; SIZE + 512]).unwrap();
        assert_eq!(device.block(SIZE as u64).unwrap(), None, "not whole");
        assert!(Fresh::open(&dir.path().join("none")).is_err());
    }
}
