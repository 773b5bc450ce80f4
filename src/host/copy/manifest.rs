//! The record of a copy: JSON lines, a name as text with `%XX` for every byte that is not plain ASCII.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fmt::Write as _,
    fs,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{At as _, CopyError, Skipped};
use crate::host::files::{self, FileError};

/// What something is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A directory.
    Directory,
    /// A file.
    File {
        /// Its length in bytes.
        size: u64,
        /// The hash of its content, in hex.
        hash: String,
        /// The escaped name of the first entry that is the same inode, for hard links.
        same_as: Option<String>,
    },
    /// A symlink and what it holds, escaped.
    Symlink(String),
}

/// One entry of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Mode bits, without the type.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, seconds and nanoseconds.
    pub mtime: (i64, i64),
    /// A digest of its extended attributes, where it has any.
    pub xattrs: Option<String>,
}

/// What was copied: each entry by its path within the tree; the tree itself is the empty path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    pub(super) entries: BTreeMap<PathBuf, Entry>,
    pub(super) skipped: Vec<Skipped>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    path: String,
    #[serde(flatten)]
    entry: Entry,
}

pub(super) fn escape(path: &OsStr) -> String {
    path.as_bytes().iter().fold(String::new(), |mut out, byte| {
        match byte {
            b'%' | ..=b' ' | 0x7f.. => {
                let _ = write!(out, "%{byte:02X}");
            }
            plain => out.push(char::from(*plain)),
        }
        out
    })
}

pub(super) fn unescape(text: &str) -> Option<PathBuf> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let hex = [bytes.next()?, bytes.next()?];
            out.push(u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?);
        } else {
            out.push(byte);
        }
    }
    Some(std::ffi::OsString::from_vec(out).into())
}

impl Manifest {
    /// Every entry by its path within the tree; the tree itself is the empty path.
    pub fn entries(&self) -> impl Iterator<Item = (&PathBuf, &Entry)> {
        self.entries.iter()
    }

    /// How many files and symlinks were copied.
    pub fn files(&self) -> u64 {
        self.entries.values().filter(|e| e.kind != Kind::Directory).count() as u64
    }

    /// How many bytes of content they have, each inode once, holes counted.
    pub fn bytes(&self) -> u64 {
        let size = |entry: &Entry| match entry.kind {
            Kind::File { size, same_as: None, .. } => size,
            _ => 0,
        };
        self.entries.values().map(size).sum()
    }

    /// What was left out. Not part of the saved record.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    fn text(&self) -> String {
        self.entries.iter().fold(String::new(), |mut out, (path, entry)| {
            let line = Line { path: escape(path.as_os_str()), entry: entry.clone() };
            // These types always have a JSON form.
            let _ = writeln!(out, "{}", serde_json::to_string(&line).unwrap_or_default());
            out
        })
    }

    /// A hash of the whole record, in hex.
    pub fn digest(&self) -> String {
        blake3::hash(self.text().as_bytes()).to_hex().to_string()
    }

    /// Saves the record, durably.
    ///
    /// # Errors
    /// It could not be written.
    pub fn save(&self, path: &Path) -> Result<(), FileError> {
        files::replace(path, self.text().as_bytes(), 0o600)
    }

    /// Reads a record.
    ///
    /// # Errors
    /// It cannot be read or is not of the known form.
    pub fn load(path: &Path) -> Result<Self, CopyError> {
        let text = fs::read_to_string(path).at("reading", path)?;
        Self::parse(&text).map_err(|line| CopyError::Manifest { path: path.to_owned(), line })
    }

    /// Reads the text of a record; else the number of the line that is not of the known form.
    fn parse(text: &str) -> Result<Self, usize> {
        let mut entries = BTreeMap::new();
        for (line, number) in text.lines().zip(1_usize..) {
            let Line { path: name, entry } = serde_json::from_str(line).map_err(|_| number)?;
            entries.insert(unescape(&name).ok_or(number)?, entry);
        }
        Ok(Self { entries, skipped: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &[u8] = br#"{"path":"","kind":"directory","mode":448,"uid":0,"gid":0,"mtime":[1,2],"xattrs":null}
{"path":"a%20b","kind":{"file":{"size":5,"hash":"00ff","same_as":"c"}},"mode":256,"uid":1000,"gid":1000,"mtime":[1,2],"xattrs":"00"}
{"path":"l","kind":{"symlink":"..%2Fx"},"mode":511,"uid":0,"gid":0,"mtime":[-1,2],"xattrs":null}
"#;

    #[test]
    fn the_sample_that_is_taken_apart_is_whole() {
        assert_eq!(Manifest::parse(std::str::from_utf8(MANIFEST).unwrap()).unwrap().entries.len(), 3);
    }

    crate::fuzz::fuzzed!(fuzz_manifest, text[MANIFEST], |text| {
        if let Ok(read) = Manifest::parse(text) {
            assert_eq!(Manifest::parse(&read.text()).map(|again| again.entries), Ok(read.entries));
        }
    });
}
