//! What can be read of a file that is not whole.

use std::{
    fs::{File, OpenOptions},
    ops::Range,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
};

use nix::fcntl::OFlag;

use super::{
    Asked, At as _, CopyError,
    content::{BLOCK, open_to_read},
};
use crate::exec::Interrupt;

/// Copies the blocks of a damaged file that can be read into `to`, which must not exist; the others stay holes, and are returned as ranges
/// of bytes.
///
/// # Errors
/// The file cannot be opened, the target cannot be written, `trusted` says no, or the operator asked to stop.
pub fn salvage(
    from: &Path,
    to: &Path,
    interrupt: &Interrupt,
    trusted: &mut dyn FnMut(Asked) -> bool,
) -> Result<Vec<Range<u64>>, CopyError> {
    let source = open_to_read(from, OFlag::empty()).at("opening", from)?;
    let size = source.metadata().at("reading", from)?.len();
    let target: File =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).at("making", to)?;
    let (mut at, mut lost) = (0, Vec::<Range<u64>>::new());
    let mut block = [0; BLOCK];
    while at < size {
        if interrupt.is_raised() {
            return Err(CopyError::Interrupted);
        }
        let length = usize::try_from(size - at).unwrap_or(BLOCK).min(BLOCK);
        let part = block.get_mut(..length).unwrap_or_default();
        match source.read_exact_at(part, at) {
            Ok(()) => target.write_all_at(part, at).at("writing", to)?,
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
    use std::fs;

    #[test]
    fn a_whole_file_has_nothing_lost() {
        let dir = tempfile::tempdir().unwrap();
        let (file, to) = (dir.path().join("file"), dir.path().join("salvaged"));
        fs::write(&file, vec![7; (1 << 20) + 1]).unwrap();
        assert!(salvage(&file, &to, &Interrupt::default(), &mut |_| true).unwrap().is_empty());
        assert_eq!(fs::read(file).unwrap(), fs::read(to).unwrap());
    }
}
