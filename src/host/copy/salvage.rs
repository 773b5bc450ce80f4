//! What can be read of a file that is not whole.

use std::{
    fs::{self, File, OpenOptions},
    io,
    ops::Range,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
};

use nix::fcntl::OFlag;

use super::{
    Asked, At as _, CopyError,
    content::{BLOCK, is_zero, open_to_read},
};
use crate::exec::Interrupt;

/// How much is written before it is asked again whether there is room.
const STEP: u64 = 1 << 20;

/// Copies the blocks of a damaged file that can be read into `to`, which must not exist; the others stay holes, as do zeros, and are
/// returned as ranges of bytes. Nothing is left of it on an error.
///
/// # Errors
/// The file cannot be opened, the target cannot be written, `trusted` or `has_room` says no, or the operator asked to stop.
pub fn salvage(
    from: &Path,
    to: &Path,
    interrupt: &Interrupt,
    trusted: &mut dyn FnMut(Asked) -> bool,
    has_room: &mut dyn FnMut() -> bool,
) -> Result<Vec<Range<u64>>, CopyError> {
    let source = open_to_read(from, OFlag::empty()).at("opening", from)?;
    let size = source.metadata().at("reading", from)?.len();
    let target: File =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).at("making", to)?;
    let salvaged = blocks((&source, size), (&target, to), interrupt, trusted, has_room);
    if salvaged.is_err() {
        let _ = fs::remove_file(to);
    }
    salvaged
}

fn blocks(
    (source, size): (&File, u64),
    (target, to): (&File, &Path),
    interrupt: &Interrupt,
    trusted: &mut dyn FnMut(Asked) -> bool,
    has_room: &mut dyn FnMut() -> bool,
) -> Result<Vec<Range<u64>>, CopyError> {
    let (mut at, mut lost) = (0, Vec::<Range<u64>>::new());
    let mut written = 0;
    let mut block = [0; BLOCK];
    while at < size {
        if interrupt.is_raised() {
            return Err(CopyError::Interrupted);
        }
        let length = usize::try_from(size - at).unwrap_or(BLOCK).min(BLOCK);
        let part = block.get_mut(..length).unwrap_or_default();
        match source.read_exact_at(part, at) {
            Ok(()) if is_zero(part) => {}
            Ok(()) => {
                if written % STEP == 0 && !has_room() {
                    return Err(io::Error::from(io::ErrorKind::StorageFull)).at("writing", to);
                }
                target.write_all_at(part, at).at("writing", to)?;
                written += BLOCK as u64;
            }
            Err(_) if !trusted(Asked::Between) => return Err(CopyError::Untrusted),
            Err(_) => match lost.last_mut().filter(|range| range.end == at) {
                Some(range) => range.end = at + length as u64,
                None => lost.push(at..at + length as u64),
            },
        }
        at += length as u64;
    }
    target.set_len(size).at("setting the length of", to)?;
    target.sync_all().at("syncing", to)?;
    Ok(lost)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn a_whole_file_has_nothing_lost() {
        let dir = tempfile::tempdir().unwrap();
        let (file, to) = (dir.path().join("file"), dir.path().join("salvaged"));
        fs::write(&file, vec![7; (1 << 20) + 1]).unwrap();
        let lost = salvage(&file, &to, &Interrupt::default(), &mut |_| true, &mut || true);
        assert!(lost.unwrap().is_empty());
        assert_eq!(fs::read(file).unwrap(), fs::read(to).unwrap());
    }

    #[test]
    fn holes_take_no_room() {
        let dir = tempfile::tempdir().unwrap();
        let (path, to) = (dir.path().join("file"), dir.path().join("salvaged"));
        let file = File::create(&path).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(&[7; 5000], 40 << 20).unwrap();
        let mut asked = 0;
        let mut room = || {
            asked += 1;
            true
        };
        salvage(&path, &to, &Interrupt::default(), &mut |_| true, &mut room).unwrap();
        assert!(fs::metadata(&to).unwrap().blocks() * 512 <= 1 << 20, "{:?}", fs::metadata(&to));
        assert!(fs::read(path).unwrap() == fs::read(to).unwrap());
        assert_eq!(asked, 1, "only for what is written");
    }

    #[test]
    fn nothing_is_left_of_what_finds_no_room_or_is_broken_off() {
        let dir = tempfile::tempdir().unwrap();
        let (file, to) = (dir.path().join("file"), dir.path().join("salvaged"));
        fs::write(&file, vec![7; 8 << 20]).unwrap();
        let mut left = 3;
        let mut room = || {
            left -= 1;
            left > 0
        };
        let full = salvage(&file, &to, &Interrupt::default(), &mut |_| true, &mut room).unwrap_err();
        assert!(full.is_no_space() && !to.exists(), "{full}");
        let stop = Interrupt::default();
        stop.raise();
        let stopped = salvage(&file, &to, &stop, &mut |_| true, &mut || true).unwrap_err();
        assert!(stopped.is_interrupted() && !to.exists(), "{stopped}");
        // What was there before is nobody's part.
        fs::write(&to, "mine").unwrap();
        salvage(&file, &to, &Interrupt::default(), &mut |_| true, &mut || true).unwrap_err();
        assert_eq!(fs::read(&to).unwrap(), b"mine");
    }
}
