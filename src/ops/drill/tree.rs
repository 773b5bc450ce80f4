//! A directory as it is, looked at without the copier that is rehearsed: every name with its content's hash, mode, owner, links and time.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use crate::model::quote::printable;

/// Every entry by its path within the directory, sockets left out: they stay behind, as they must.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tree(BTreeMap<PathBuf, Entry>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// A file's hash, a symlink's target, or nothing for a directory.
    content: String,
    size: u64,
    mode: u32,
    owner: (u32, u32),
    /// For a file only: a directory's count is its filesystem's business.
    links: u64,
    modified: (i64, i64),
    attributes: String,
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compare {
    /// Everything.
    All,
    /// Content, mode and owner of what should be there; what has come beside it does not matter.
    Rescued,
}

impl Tree {
    /// Reads a directory; a symlink at the path itself is followed.
    ///
    /// # Errors
    /// Something below it cannot be read.
    pub(super) fn of(root: &Path) -> io::Result<Self> {
        let mut entries = BTreeMap::new();
        let mut left = vec![PathBuf::new()];
        while let Some(inside) = left.pop() {
            for found in fs::read_dir(root.join(&inside))? {
                let path = inside.join(found?.file_name());
                let meta = fs::symlink_metadata(root.join(&path))?;
                if meta.file_type().is_socket() {
                    continue;
                }
                if meta.is_dir() {
                    left.push(path.clone());
                }
                entries.insert(path.clone(), entry(&root.join(&path), &meta)?);
            }
        }
        Ok(Self(entries))
    }

    /// How many files and symlinks.
    pub(super) fn files(&self) -> usize {
        self.0.values().filter(|e| !e.content.is_empty()).count()
    }

    /// Bytes of content.
    pub(super) fn bytes(&self) -> u64 {
        self.0.values().map(|e| e.size).sum()
    }

    /// Where `now` is not as this is, at most five lines.
    pub(super) fn differences(&self, now: &Self, what: Compare) -> Vec<String> {
        let mut found = Vec::new();
        for (path, was) in &self.0 {
            let name = printable(&path.to_string_lossy());
            match now.0.get(path) {
                None => found.push(format!("{name} is missing")),
                Some(is) => found.extend(was.difference(is, what).map(|how| format!("{name}: {how}"))),
            }
        }
        if what == Compare::All {
            let more = now.0.keys().filter(|path| !self.0.contains_key(*path));
            found.extend(
                more.map(|path| format!("{} was not there before", printable(&path.to_string_lossy()))),
            );
        }
        found.truncate(5);
        found
    }
}

impl Entry {
    fn difference(&self, now: &Self, what: Compare) -> Option<&'static str> {
        let rescued = [
            (self.content != now.content || self.size != now.size, "its content differs"),
            (self.mode != now.mode, "its mode differs"),
            (self.owner != now.owner, "its owner differs"),
        ];
        let all = [
            (self.links != now.links, "its hard links differ"),
            (self.modified != now.modified, "its time differs"),
            (self.attributes != now.attributes, "its extended attributes differ"),
        ];
        let more = all.into_iter().filter(|_| what == Compare::All);
        rescued.into_iter().chain(more).find_map(|(differs, how)| differs.then_some(how))
    }
}

fn entry(path: &Path, meta: &fs::Metadata) -> io::Result<Entry> {
    let content = if meta.is_symlink() {
        format!("-> {}", fs::read_link(path)?.display())
    } else if meta.is_file() {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(File::open(path)?)?;
        hasher.finalize().to_hex().to_string()
    } else {
        String::new()
    };
    let file = !meta.is_dir();
    let mode = if meta.is_symlink() { 0 } else { meta.mode() };
    Ok(Entry {
        content,
        size: if file { meta.size() } else { 0 },
        mode,
        owner: (meta.uid(), meta.gid()),
        links: if file { meta.nlink() } else { 0 },
        modified: (meta.mtime(), meta.mtime_nsec()),
        attributes: attributes(path)?,
    })
}

/// Its extended attributes with their values; btrfs's own are how it stores the file.
fn attributes(path: &Path) -> io::Result<String> {
    let mut out = Vec::new();
    for name in xattr::list(path)?.filter(|name| !name.as_bytes().starts_with(b"btrfs.")) {
        out.push(format!("{name:?}={:?}", xattr::get(path, &name)?));
    }
    out.sort();
    Ok(out.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn each_kind_of_change_is_found_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("d")).unwrap();
        fs::write(at("d/file"), "one").unwrap();
        fs::write(at("other"), "").unwrap();
        symlink("d/file", at("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        let before = Tree::of(dir.path()).unwrap();
        assert_eq!((before.files(), before.bytes()), (3, 3 + 6));
        let differs = |what| before.differences(&Tree::of(dir.path()).unwrap(), what);
        assert!(differs(Compare::All).is_empty());

        fs::write(at("d/file"), "two").unwrap();
        assert_eq!(differs(Compare::Rescued), ["d/file: its content differs"]);
        fs::write(at("d/file"), "one").unwrap();
        assert!(differs(Compare::Rescued).is_empty());
        assert_eq!(differs(Compare::All), ["d/file: its time differs"], "it was written anew");

        fs::set_permissions(at("other"), fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(differs(Compare::Rescued), ["other: its mode differs"]);
        fs::remove_file(at("link")).unwrap();
        symlink("d", at("link")).unwrap();
        assert_eq!(differs(Compare::Rescued), ["link: its content differs", "other: its mode differs"]);
        fs::remove_file(at("link")).unwrap();
        fs::write(at("new"), "").unwrap();
        assert_eq!(differs(Compare::Rescued), ["link is missing", "other: its mode differs"]);
        assert!(differs(Compare::All).contains(&"new was not there before".to_owned()));
    }
}
