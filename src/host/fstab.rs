//! `/etc/fstab`, edited without touching a byte that is not ours (fstab(5)).

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    Host,
    files::{self, Doing as _, FileError},
    mountinfo::unescape,
};
use crate::model::{Filesystem, FilesystemKind, observed::FstabLine};

/// Where it lies.
pub const PATH: &str = "/etc/fstab";

/// One line's fields, with escapes resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What is mounted: `UUID=...`.
    pub source: String,
    /// Where.
    pub mountpoint: PathBuf,
    /// The filesystem's type.
    pub fstype: String,
    /// The options, joined by commas.
    pub options: String,
    /// fs_freq.
    pub freq: u32,
    /// fs_passno.
    pub passno: u32,
}

/// Why `/etc/fstab` was left as it is.
#[derive(Debug, thiserror::Error)]
pub enum FstabError {
    /// A file operation failed.
    #[error("{PATH} cannot be edited")]
    File(#[source] FileError),
    /// Another line stands against the new one.
    #[error("{0}")]
    Conflict(String),
}

impl From<FileError> for FstabError {
    fn from(e: FileError) -> Self {
        Self::File(e)
    }
}

impl Entry {
    /// The line, with blanks, tabs, newlines and backslashes of the mount point as octal escapes, without a newline at its end.
    /// A mount point that is not UTF-8 cannot stand in a line of text: see [`Entry::bytes`].
    pub fn line(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    /// The line's bytes, without a newline at its end.
    pub fn bytes(&self) -> Vec<u8> {
        let mut line = escape(self.source.as_bytes());
        line.push(b' ');
        line.extend(escape(self.mountpoint.as_os_str().as_bytes()));
        line.extend(format!(" {} {} {} {}", self.fstype, self.options, self.freq, self.passno).bytes());
        line
    }
}

fn escape(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' | b'#' => out.extend(format!("\\{byte:03o}").bytes()),
            other => out.push(*other),
        }
    }
    out
}

/// The line for a btrfs mirror. `autodefrag` because SQLite writes many small pieces; `nofail` so that a dead disk does not keep the
/// machine from booting; never `degraded`, which would hide the loss of a member (btrfs(5)).
pub fn btrfs_entry(uuid: &str, mountpoint: &Path) -> Entry {
    Entry {
        source: format!("UUID={uuid}"),
        mountpoint: mountpoint.to_owned(),
        fstype: "btrfs".to_owned(),
        options: "defaults,autodefrag,nofail,x-systemd.device-timeout=30s".to_owned(),
        freq: 0,
        passno: 0,
    }
}

/// The line for a filesystem on an md array. An array that lacks a member is started half a minute after its other members came
/// (mdadm-last-resort@.timer), so there is more time than that; the rest is as for btrfs.
pub fn array_entry(on: &Filesystem, mountpoint: &Path) -> Entry {
    Entry {
        source: format!("UUID={}", on.uuid),
        mountpoint: mountpoint.to_owned(),
        fstype: on.kind.as_str().to_owned(),
        options: "defaults,nofail,x-systemd.device-timeout=90s".to_owned(),
        freq: 0,
        // XFS replays its log at the mount and has no such check (fsck.xfs(8)).
        passno: if on.kind == FilesystemKind::Ext4 { 2 } else { 0 },
    }
}

/// What a line mounts and where; `None` for comments, empty lines and lines that are not of the known form, which are kept as they
/// are and never touched.
fn fields(line: &[u8]) -> Option<(Vec<u8>, PathBuf)> {
    let mut fields = line.split(u8::is_ascii_whitespace).filter(|f| !f.is_empty());
    let source = fields.next().filter(|f| !f.starts_with(b"#"))?;
    let mountpoint = fields.next()?;
    let path: PathBuf = OsString::from_vec(unescape(mountpoint)).into();
    // "/srv/x/" and "/srv/x" are one place.
    Some((unescape(source), path.components().collect()))
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|b| *b == b'\n')
}

fn trimmed(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").unwrap_or(line)
}

fn block(entry: &Entry, comment: &str) -> Vec<u8> {
    [b"# ", comment.as_bytes(), b"\n", &entry.bytes(), b"\n"].concat()
}

/// Does `text` hold this very line?
fn contains(text: &[u8], entry: &Entry) -> bool {
    let line = entry.bytes();
    lines(text).any(|l| trimmed(l) == line)
}

/// A line that stands against `entry`: another one for its mount point, or its source mounted elsewhere. In words, with its number.
pub fn conflict_in(text: &[u8], entry: &Entry) -> Option<String> {
    let ours = entry.bytes();
    let place: PathBuf = entry.mountpoint.components().collect();
    lines(text).enumerate().filter(|(_, line)| trimmed(line) != ours).find_map(|(number, line)| {
        let (source, mountpoint) = fields(line)?;
        let shown = String::from_utf8_lossy(trimmed(line)).into_owned();
        if mountpoint == place {
            Some(format!(
                "line {} of {PATH} already mounts something at {}: {shown}",
                number + 1,
                place.display()
            ))
        } else if source == entry.source.as_bytes() {
            Some(format!("line {} of {PATH} already mounts this filesystem elsewhere: {shown}", number + 1))
        } else {
            None
        }
    })
}

/// `text` with the comment and the line at its end; as it is where the line is there already.
pub fn with(text: &[u8], entry: &Entry, comment: &str) -> Vec<u8> {
    let mut out = text.to_vec();
    if !contains(text, entry) {
        if !out.is_empty() && !out.ends_with(b"\n") {
            out.push(b'\n');
        }
        out.extend(block(entry, comment));
    }
    out
}

/// `text` without the line, and without the comment where it stands right above. Every other byte stays.
pub fn without(text: &[u8], entry: &Entry, comment: &str) -> Vec<u8> {
    let (line, comment) = (entry.bytes(), [b"# ", comment.as_bytes()].concat());
    let mut kept: Vec<&[u8]> = Vec::new();
    for current in lines(text) {
        if trimmed(current) == line {
            if kept.last().is_some_and(|last| trimmed(last) == comment) {
                kept.pop();
            }
        } else {
            kept.push(current);
        }
    }
    kept.concat()
}

/// Where the file really lies: some systems make it a symlink, which must stay one.
fn real_path(host: &Host) -> Result<PathBuf, FileError> {
    let path = host.path(PATH);
    match fs::canonicalize(&path) {
        Ok(real) => Ok(real),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(path),
        Err(e) => Err(e).doing("resolving", &path),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    match files::read_regular(path) {
        Ok(bytes) => Ok(bytes),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e).doing("reading", path),
    }
}

/// The lines of the machine's fstab for a mount point or for a filesystem with this UUID, with their numbers.
///
/// # Errors
/// It cannot be read.
pub fn lines_for(host: &Host, mountpoint: &Path, uuid: &str) -> Result<Vec<FstabLine>, FstabError> {
    let all = host.once(PATH, || Ok::<_, FstabError>(Lines::of(&read(&real_path(host)?)?)))?;
    Ok(all.for_(mountpoint, uuid))
}

/// All lines that mount something.
struct Lines(Vec<(FstabLine, String)>);

impl Lines {
    fn of(text: &[u8]) -> Self {
        let numbered = lines(text).zip(1..);
        let all = numbered.filter_map(|(line, number)| {
            let (source, mountpoint) = fields(line)?;
            let source = String::from_utf8_lossy(&source).into_owned();
            let lower = source.to_lowercase();
            Some((FstabLine { line: number, source, mountpoint, options: options(line) }, lower))
        });
        Self(all.collect())
    }

    fn for_(&self, mountpoint: &Path, uuid: &str) -> Vec<FstabLine> {
        let place: PathBuf = mountpoint.components().collect();
        let uuid = uuid.to_lowercase();
        let ours = |(line, source): &&(FstabLine, String)| {
            line.mountpoint.as_os_str() == place.as_os_str() || source.contains(&uuid)
        };
        self.0.iter().filter(ours).map(|(line, _)| line.clone()).collect()
    }
}

/// The fourth field.
fn options(line: &[u8]) -> Vec<String> {
    let mut fields = line.split(u8::is_ascii_whitespace).filter(|f| !f.is_empty()).skip(3);
    let text = fields.next().map(|f| String::from_utf8_lossy(f).into_owned()).unwrap_or_default();
    text.split(',').filter(|o| !o.is_empty()).map(str::to_owned).collect()
}

/// Does the machine's fstab hold this very line?
///
/// # Errors
/// It cannot be read.
pub fn has(host: &Host, entry: &Entry) -> Result<bool, FstabError> {
    Ok(contains(&read(&real_path(host)?)?, entry))
}

/// As [`conflict_in`], of the machine's fstab.
///
/// # Errors
/// It cannot be read.
pub fn conflict(host: &Host, entry: &Entry) -> Result<Option<String>, FstabError> {
    Ok(conflict_in(&read(&real_path(host)?)?, entry))
}

/// The line of the machine's fstab that mounts anything at this place, in words.
///
/// # Errors
/// It cannot be read.
pub fn line_at(host: &Host, mountpoint: &Path) -> Result<Option<String>, FstabError> {
    // Nothing is called so, so that only the place can be the same.
    let entry =
        Entry { source: String::new(), mountpoint: mountpoint.to_owned(), ..btrfs_entry("", mountpoint) };
    conflict(host, &entry)
}

fn edit(host: &Host, change: impl Fn(&[u8]) -> Vec<u8>) -> Result<(), FstabError> {
    let path = real_path(host)?;
    let before = read(&path)?;
    let after = change(&before);
    if after == before {
        return Ok(());
    }
    let stamp = host.now().strftime("%Y%m%d-%H%M%S");
    let backup = host.path(format!("{PATH}.raidguard-backup-{stamp}"));
    // Two edits within a second: the older backup is the one worth keeping.
    if !backup.exists() {
        files::replace(&backup, &before, 0o644)?;
    }
    files::replace(&path, &after, 0o644)?;
    Ok(())
}

/// Adds the line below its comment, keeping a backup of the file beside it. Nothing is written where it is there already.
///
/// # Errors
/// Another line stands against it, or the file cannot be written; it is then as it was.
pub fn add(host: &Host, entry: &Entry, comment: &str) -> Result<(), FstabError> {
    if let Some(conflict) = conflict(host, entry)? {
        return Err(FstabError::Conflict(conflict));
    }
    edit(host, |text| with(text, entry, comment))
}

/// Removes the line and its comment, keeping a backup.
///
/// # Errors
/// The file cannot be written; it is then as it was.
pub fn remove(host: &Host, entry: &Entry, comment: &str) -> Result<(), FstabError> {
    edit(host, |text| without(text, entry, comment))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COMMENT: &str = "lightning mirror, written by raidguard";

    fn entry(mountpoint: &str) -> Entry {
        btrfs_entry("1f624a50-0f62-4fea-8ae9-91647e74e09e", Path::new(mountpoint))
    }

    #[test]
    fn the_line_is_the_documented_one_and_names_are_escaped() {
        assert_eq!(
            entry("/srv/my lightning\\dir#1").line(),
            r"UUID=1f624a50-0f62-4fea-8ae9-91647e74e09e /srv/my\040lightning\134dir\0431 btrfs defaults,autodefrag,nofail,x-systemd.device-timeout=30s 0 0"
        );
    }

    #[test]
    fn a_line_is_never_added_twice() {
        let once = with(b"# mine\nproc /proc proc defaults 0 0", &entry("/srv/l"), COMMENT);
        assert_eq!(with(&once, &entry("/srv/l"), COMMENT), once);
        assert_eq!(lines(&once).count(), 4);
    }

    #[test]
    fn what_stands_against_a_line_is_named_with_its_number() {
        let ours = entry("/srv/l");
        for (text, line) in [
            ("# x\n/dev/sda1 /srv/l ext4 defaults 0 0\n", Some("line 2")),
            ("/dev/sda1 /srv/l/ ext4 defaults 0 0\n", Some("line 1")),
            ("UUID=1f624a50-0f62-4fea-8ae9-91647e74e09e /mnt btrfs degraded 0 0\n", Some("line 1")),
            ("#/dev/sda1 /srv/l ext4 defaults 0 0\n/dev/sda1 /srv/ll ext4 defaults 0 0\n", None),
            ("garbage\n\n \t\n", None),
        ] {
            assert_eq!(
                conflict_in(text.as_bytes(), &ours).map(|c| c[..6].to_owned()).as_deref(),
                line,
                "{text}"
            );
        }
        assert_eq!(conflict_in(&with(b"", &ours, COMMENT), &ours), None);
    }

    #[test]
    fn the_file_is_backed_up_and_a_symlink_stays_one() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("real"), b"# odd \xff\n").unwrap();
        std::os::unix::fs::symlink("../real", dir.path().join("etc/fstab")).unwrap();
        let runner = std::sync::Arc::new(crate::exec::ScriptedRunner::new());
        let host = Host::captured(dir.path(), runner, jiff::Timestamp::UNIX_EPOCH);
        let before = fs::read(dir.path().join("real")).unwrap();
        add(&host, &entry("/srv/l"), COMMENT).unwrap();
        assert!(has(&host, &entry("/srv/l")).unwrap());
        assert!(dir.path().join("etc/fstab").is_symlink());
        assert_eq!(fs::read(dir.path().join("etc/fstab.raidguard-backup-19700101-000000")).unwrap(), before);
        remove(&host, &entry("/srv/l"), COMMENT).unwrap();
        assert_eq!(fs::read(dir.path().join("real")).unwrap(), before);
    }

    proptest! {
        #[test]
        fn adding_and_removing_leaves_every_byte(lines in prop::collection::vec("[ -~\t\u{e9}]{0,40}", 0..12)) {
            let text = lines.iter().map(|l| format!("{l}\n")).collect::<String>().into_bytes();
            let entry = entry("/srv/with blank");
            let added = with(&text, &entry, COMMENT);
            prop_assert!(added.starts_with(&text));
            prop_assert_eq!(without(&added, &entry, COMMENT), text);
        }

        #[test]
        fn any_mount_point_comes_back_from_its_line(bytes in prop::collection::vec(1u8.., 1..40)) {
            let mountpoint = PathBuf::from(OsString::from_vec([b"/".as_slice(), &bytes].concat()));
            let entry = btrfs_entry("x", &mountpoint);
            let plain: PathBuf = mountpoint.components().collect();
            prop_assume!(!bytes.iter().any(|b| b"\x0b\x0c\r".contains(b)));
            prop_assert_eq!(fields(&entry.bytes()).map(|(_, m)| m), Some(plain));
        }
    }

    crate::fuzz::fuzzed!(fuzz_fstab, bytes [
        b"# mine\nUUID=25e3e740-8cd1-4cc7-9b25-b175081f4acf /srv/x btrfs defaults,autodefrag 0 0\n\n/dev/sda1\t/a\\040b ext4 ro 0 1\n",
        b"proc /proc proc defaults 0 0\ntmpfs /tmp tmpfs",
    ], |bytes| {
        let entry = btrfs_entry("25e3e740-8cd1-4cc7-9b25-b175081f4acf", Path::new("/srv/x"));
        Lines::of(bytes).for_(&entry.mountpoint, "25e3e740-8cd1-4cc7-9b25-b175081f4acf");
        conflict_in(bytes, &entry);
        let after = with(bytes, &entry, "ours");
        assert!(after.starts_with(bytes), "what was there is changed");
        if after != bytes {
            let back = without(&after, &entry, "ours");
            assert!(back == bytes || back == [bytes, b"\n"].concat(), "it does not go away again");
        }
    });
}
