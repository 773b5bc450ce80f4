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
        let mut entries = BTreeMap::new();
        for (number, line) in text.lines().enumerate() {
            let bad = || CopyError::Manifest { path: path.to_owned(), line: number + 1 };
            let Line { path: name, entry } = serde_json::from_str(line).map_err(|_| bad())?;
            entries.insert(unescape(&name).ok_or_else(bad)?, entry);
        }
        Ok(Self { entries, skipped: Vec::new() })
    }
}
