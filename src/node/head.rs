//! The first page of a database: read by itself, while its node runs and nobody may open it.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::Path,
};

use super::database::{PARTS, part};
use crate::host::files;

/// What the first page of a database says of its size, against the size that it has (sqlite.org, "Database File Format", 1.3). Only read
/// while no journal is about: a writer is between two sizes then.
pub(super) fn cut_short(database: &Path) -> io::Result<Option<String>> {
    let journals =
        || PARTS.iter().skip(1).any(|suffix| fs::metadata(part(database, suffix)).is_ok_and(|m| m.len() > 0));
    if journals() {
        return Ok(None);
    }
    let file = files::open_regular(database, OpenOptions::new().read(true))?;
    let size = file.metadata()?.len();
    let mut head = [0; 100];
    if size < head.len() as u64 {
        return Ok((size > 0).then(|| format!("it has only {size} bytes")));
    }
    file.read_exact_at(&mut head, 0)?;
    let fault = fault_of(&head, size);
    // Somebody may have begun to write meanwhile.
    Ok(if journals() || file.metadata()?.len() != size { None } else { fault })
}

fn fault_of(head: &[u8; 100], size: u64) -> Option<String> {
    let word = |at: usize| head.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes);
    if !head.starts_with(b"SQLite format 3\0") {
        return Some("it is no SQLite database".to_owned());
    }
    let page = match word(16) >> 16 {
        1 => 65536,
        page => u64::from(page),
    };
    // The count is only kept by those who also keep the second number.
    let kept = word(24) == word(92);
    let should = page * u64::from(word(28));
    (kept && should > size).then(|| format!("it has {size} bytes and says that it has {should}"))
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    #[test]
    fn one_that_is_cut_short_is_known_by_its_first_page() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lightningd.sqlite3");
        let db = Connection::open(&path).unwrap();
        db.execute_batch("CREATE TABLE p(x BLOB); INSERT INTO p VALUES(zeroblob(90000));").unwrap();
        drop(db);
        assert_eq!(cut_short(&path).unwrap(), None);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 4096]).unwrap();
        assert!(cut_short(&path).unwrap().unwrap().contains("says that it has"));
        fs::write(dir.path().join("lightningd.sqlite3-journal"), "x").unwrap();
        assert_eq!(cut_short(&path).unwrap(), None, "a writer is at work");
        fs::remove_file(dir.path().join("lightningd.sqlite3-journal")).unwrap();
        fs::write(&path, vec![0; 200]).unwrap();
        assert!(cut_short(&path).unwrap().is_some());
    }

    crate::fuzz::fuzzed!(fuzz_first_page, bytes [
        b"SQLite format 3\0\x10\0\x01\x01\0@  \0\0\0\x06\0\0\0\x13\0\0\0\0\0\0\0\0\0\0\0\x04\0\0\0\x04\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x06\0.\x7a\x71",
    ], |bytes| {
        let mut head = [0; 100];
        let whole = bytes.len().min(100);
        head[..whole].copy_from_slice(&bytes[..whole]);
        fault_of(&head, bytes.len() as u64 * 977);
    });
}
