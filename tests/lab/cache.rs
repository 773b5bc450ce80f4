//! What a power cut leaves of a disk with a volatile write cache: told from the log of QEMU's `blklogwrites`, which is that of the kernel's
//! dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst): a block of 512 bytes that says what it is, then each write as a
//! block that says where it goes, followed by its data.

use std::{fs::File, os::unix::fs::FileExt as _, path::Path, process::Command};

use crate::ready::succeed;

const SECTOR: u64 = 512;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;

struct Write {
    /// Where it goes, in bytes.
    at: u64,
    length: u64,
    /// Where its data is in the log, in bytes; `None`: it is a discard.
    data: Option<u64>,
    /// It was on the disk when it was answered.
    durable: bool,
}

/// Makes `to` from `base` and what the log says up to `end`. What no flush had made durable by then is lost where `is_lost` says so.
/// False, and nothing made: at that instant the log itself was being written in two places.
pub(crate) fn replay(
    log: &Path,
    end: u64,
    base: &Path,
    to: &Path,
    mut is_lost: impl FnMut() -> bool,
) -> bool {
    let log = File::open(log).unwrap();
    let Some(writes) = writes(&log, end) else { return false };
    succeed(Command::new("cp").args(["--sparse=always", "--"]).args([base, to]));
    let disk = File::options().write(true).open(to).unwrap();
    let mut buffer = Vec::new();
    for write in writes {
        if !write.durable && is_lost() {
            continue;
        }
        buffer.resize(write.length.try_into().unwrap(), 0);
        match write.data {
            Some(at) => log.read_exact_at(&mut buffer, at).unwrap(),
            // Whether a disk gives zeros for what was discarded is its own affair; this one does.
            None => buffer.fill(0),
        }
        disk.write_all_at(&buffer, write.at).unwrap();
    }
    true
}

/// What the log tells of before `end`, in its order.
fn writes(log: &File, end: u64) -> Option<Vec<Write>> {
    let word = |at: u64| {
        let mut bytes = [0; 8];
        log.read_exact_at(&mut bytes, at).unwrap();
        u64::from_le_bytes(bytes)
    };
    let mut writes: Vec<Write> = Vec::new();
    let mut at = SECTOR;
    while at + SECTOR <= end {
        let [sector, count, flags] = [0, 8, 16].map(|offset| word(at + offset));
        if count == 0 && flags == 0 {
            return None;
        }
        let (begins, discard) = (at + SECTOR, flags & DISCARD != 0);
        at = if discard { begins } else { begins + count * SECTOR };
        // What was being written to the log at that instant: the guest has no answer to it.
        if at > end {
            break;
        }
        if flags & FLUSH != 0 {
            writes.iter_mut().for_each(|w| w.durable = true);
        }
        if count > 0 {
            let (data, durable) = ((!discard).then_some(begins), flags & FUA != 0);
            writes.push(Write { at: sector * SECTOR, length: count * SECTOR, data, durable });
        }
    }
    Some(writes)
}
