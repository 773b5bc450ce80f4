//! The copy off something that is damaged: what can be read comes out, what cannot is named, and no half of a file is left under the
//! file's own name.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fmt::Write as _,
    fs::{DirBuilder, Metadata},
    io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    rc::Rc,
};

use super::{
    At as _, CopyError, Kind, Manifest, Progress,
    ahead::Scout,
    content::Sum,
    metadata,
    prover::{Proven, Prover},
    tree::{Copier, lstat, sync},
};
use crate::exec::Interrupt;

/// What is to be copied.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// All there is.
    pub all: bool,
    /// Files, relative to the source: they come first. Of directories only those on the way to them are made.
    pub files: BTreeSet<PathBuf>,
    /// Whether a directory is left out, by its path relative to the source.
    pub never: fn(&Path) -> bool,
}

/// Something that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Its path, relative to the source.
    pub path: PathBuf,
    /// Whether it is a directory: then nobody knows what was in it.
    pub directory: bool,
    /// What the kernel said.
    pub why: String,
}

/// What came out.
#[derive(Debug, Default)]
pub struct Rescued {
    /// Every entry of the copy.
    pub manifest: Manifest,
    /// What could not be read.
    pub faults: Vec<Fault>,
    /// The SHA-256 of each file, in hex.
    pub sums: BTreeMap<PathBuf, String>,
    /// What was read back while the rest was copied.
    pub proven: Proven,
}

/// Holes beyond this are not hashed as zeros: that would take longer than the copy.
const LARGEST_HOLE: u64 = 4 << 30;

/// How many bytes are allocated to what is wanted, each name by itself. What cannot be looked at counts nothing.
pub fn measure(source: &Path, wanted: &Wanted) -> u64 {
    fn below(dir: &Path, inside: &Path, wanted: &Wanted) -> u64 {
        let each = |name: OsString| {
            let (path, inside) = (dir.join(&name), inside.join(&name));
            match lstat(&path) {
                Ok(meta) if meta.is_dir() && wanted.takes(&inside, true) => below(&path, &inside, wanted),
                Ok(meta) if meta.is_file() && wanted.takes(&inside, false) => allocated(&meta),
                _ => 0,
            }
        };
        listed(dir).0.into_iter().map(each).sum()
    }
    if wanted.all {
        return below(source, Path::new(""), wanted);
    }
    wanted.files.iter().filter_map(|file| lstat(&source.join(file)).ok()).map(|meta| allocated(&meta)).sum()
}

fn allocated(meta: &Metadata) -> u64 {
    (meta.blocks() * 512).min(meta.len())
}

/// When it is asked whether what is read from can still be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Between two files or blocks: an answer that is a moment old will do.
    Between,
    /// Something could not be read: is it the file, or all of it?
    Failed,
}

/// Who has a say in a copy, or wants to hear of it.
pub(crate) struct Ears<'a> {
    /// Told how far it is.
    pub progress: &'a mut dyn FnMut(Progress),
    /// Asked before each file, and when one cannot be read, whether what is read from can still be trusted.
    pub trusted: &'a mut dyn FnMut(Asked) -> bool,
    /// Told when the files that come first are there, and read back.
    pub first: &'a mut (dyn FnMut() + Send),
}

struct Walk<'a> {
    copier: Copier<'a>,
    wanted: &'a Wanted,
    /// Whether it is the round in which all the rest comes.
    rest: bool,
    trusted: &'a mut dyn FnMut(Asked) -> bool,
    rescued: Rescued,
}

/// Copies what is wanted and can be read from `source` into `target`, an empty directory. Other subvolumes are entered: nothing else may
/// be mounted below. All of it is on the devices when this returns.
///
/// # Errors
/// The target cannot be written, or does not give back what was written; `trusted` says no; or the operator asked to stop. That something
/// cannot be read is no error.
pub(crate) fn copy_readable(
    source: &Path,
    target: &Path,
    wanted: &Wanted,
    ears: Ears<'_>,
    interrupt: &Interrupt,
) -> Result<Rescued, CopyError> {
    let Ears { progress, trusted, first } = ears;
    let copied = Prover::with(target, first, |prover| {
        Scout::with(|scout| {
            let copier = Copier::new(0, scout, Some(prover), progress, interrupt);
            let mut walk = Walk { copier, wanted, rest: false, trusted, rescued: Rescued::default() };
            walk.directory(source, target, Path::new(""))?;
            prover.rest();
            if wanted.all {
                walk.rest = true;
                walk.directory(source, target, Path::new(""))?;
            }
            walk.copier.meter.finish();
            sync(target)?;
            let mut rescued = walk.rescued;
            rescued.manifest = walk.copier.out;
            Ok(rescued)
        })
    });
    copied.map(|(rescued, proven)| Rescued { proven, ..rescued })
}

impl Wanted {
    fn takes(&self, inside: &Path, directory: bool) -> bool {
        (!directory || !(self.never)(inside)) && (self.all || self.is_first(inside, directory))
    }

    /// Is it one of the files that come first, or on the way to one?
    fn is_first(&self, inside: &Path, directory: bool) -> bool {
        if directory {
            self.files.iter().any(|file| file.starts_with(inside))
        } else {
            self.files.contains(inside)
        }
    }
}

impl Walk<'_> {
    /// Does it come in this round?
    fn takes(&self, inside: &Path, directory: bool) -> bool {
        self.wanted.takes(inside, directory) && (self.rest || self.wanted.is_first(inside, directory))
    }

    fn directory(&mut self, from: &Path, to: &Path, inside: &Path) -> Result<(), CopyError> {
        let (meta, attributes) = match lstat(from).and_then(|meta| Ok((meta, metadata::attributes(from)?))) {
            Ok(read) => read,
            Err(e) => {
                // Nothing is known of what is in it: an empty one would say that there is nothing.
                if !self.copier.out.entries.contains_key(inside) && !inside.as_os_str().is_empty() {
                    std::fs::remove_dir(to).at("removing", to)?;
                }
                return self.unreadable(e, inside, true);
            }
        };
        self.copier.record(inside, &meta, Kind::Directory, metadata::digest(&attributes));
        let (mut names, broken) = listed(from);
        if let Some(e) = broken {
            self.unreadable(
                CopyError::Io { doing: "reading", path: from.to_owned(), source: e },
                inside,
                true,
            )?;
            // What is known to be there may be found by its name all the same.
            let known =
                self.wanted.files.iter().filter_map(|file| file.strip_prefix(inside).ok()?.iter().next());
            names.extend(known.map(OsStr::to_owned));
        }
        names.retain(|name| {
            let path = inside.join(name);
            self.takes(&path, true) || self.takes(&path, false)
        });
        let names: Vec<_> = names.into_iter().collect();
        let scout = Rc::clone(&self.copier.scout);
        for name in scout.ahead_of(from, &names) {
            self.entry(&from.join(name), &to.join(name), &inside.join(name))?;
        }
        metadata::apply(&meta, &attributes, to)
    }

    fn entry(&mut self, from: &Path, to: &Path, inside: &Path) -> Result<(), CopyError> {
        if self.copier.interrupt.is_raised() {
            return Err(CopyError::Interrupted);
        }
        let meta = match lstat(from) {
            Ok(meta) => meta,
            Err(e) => return self.unreadable(e, inside, false),
        };
        if !self.takes(inside, meta.is_dir()) {
            return Ok(());
        }
        let known = self.copier.out.entries.contains_key(inside);
        if meta.is_dir() {
            if !known {
                DirBuilder::new().mode(0o700).create(to).at("making the directory", to)?;
            }
            return self.directory(from, to, inside);
        }
        if known || self.rescued.faults.iter().any(|fault| fault.path == inside) {
            return Ok(());
        }
        if !(self.trusted)(Asked::Between) {
            return Err(CopyError::Untrusted);
        }
        self.copier.sum = is_summed(&meta).then(Sum::new);
        match self.copier.leaf(from, to, inside, &meta) {
            Ok(()) => {
                let sum = self.copier.sum.take().filter(|_| self.is_file(inside));
                self.rescued.sums.extend(sum.map(|sum| (inside.to_owned(), sum.finish(meta.len()))));
                Ok(())
            }
            // What is read from has given out altogether: that is no fault of this file.
            Err(e) if !from_source(&e, from) || !(self.trusted)(Asked::Failed) => {
                Err(if from_source(&e, from) { CopyError::Untrusted } else { e })
            }
            Err(e) => {
                match std::fs::remove_file(to) {
                    Err(gone) if gone.kind() != io::ErrorKind::NotFound => {
                        return Err(gone).at("removing", to);
                    }
                    _ => {}
                }
                self.unreadable(e, inside, false)
            }
        }
    }

    /// Whether the entry was made as a file, and not as another name of one.
    fn is_file(&self, inside: &Path) -> bool {
        matches!(self.copier.out.entries.get(inside).map(|e| &e.kind), Some(Kind::File { same_as: None, .. }))
    }

    fn unreadable(&mut self, error: CopyError, inside: &Path, directory: bool) -> Result<(), CopyError> {
        let why = match error {
            CopyError::Io { source, .. } => source.to_string(),
            CopyError::Changed(_) => "it is not what its directory says".to_owned(),
            other => return Err(other),
        };
        // One that comes in both rounds fails in both.
        if !self.rescued.faults.iter().any(|fault| fault.path == inside) {
            self.rescued.faults.push(Fault { path: inside.to_owned(), directory, why });
        }
        Ok(())
    }
}

/// The names in a directory as far as it can be read, and what ended that.
pub(crate) fn listed(dir: &Path) -> (BTreeSet<OsString>, Option<io::Error>) {
    let mut names = BTreeSet::new();
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) => return (names, Some(e)),
    };
    for entry in entries {
        match entry {
            Ok(entry) => drop(names.insert(entry.file_name())),
            Err(e) => return (names, Some(e)),
        }
    }
    (names, None)
}

fn is_summed(meta: &Metadata) -> bool {
    meta.is_file() && meta.len().saturating_sub(meta.blocks() * 512) <= LARGEST_HOLE
}

/// Was it reading that failed?
fn from_source(error: &CopyError, from: &Path) -> bool {
    match error {
        CopyError::Io { path, source, .. } => path == from && source.kind() != io::ErrorKind::OutOfMemory,
        CopyError::Changed(path) => path == from,
        _ => false,
    }
}

/// The sums in the form that `sha256sum --check` reads, of files below `prefix` (coreutils: a name with a backslash or a newline is
/// escaped, and its line begins with a backslash).
pub fn sums_file(sums: &BTreeMap<PathBuf, String>, prefix: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    for (path, sum) in sums {
        let path = prefix.join(path);
        let name = path.as_os_str().as_bytes();
        let mut escaped = Vec::with_capacity(name.len());
        for byte in name {
            match byte {
                b'\\' => escaped.extend(b"\\\\"),
                b'\n' => escaped.extend(b"\\n"),
                b'\r' => escaped.extend(b"\\r"),
                plain => escaped.push(*plain),
            }
        }
        let mut line = String::new();
        let _ = write!(line, "{}{sum}  ", if escaped == name { "" } else { "\\" });
        out.extend(line.as_bytes());
        out.extend(&escaped);
        out.push(b'\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{
        super::{content::is_direct, settle, verify_tree},
        *,
    };
    use std::{
        fs::{self, File},
        os::unix::fs::FileExt as _,
    };

    fn wanted(files: &[&str]) -> Wanted {
        Wanted {
            all: files.is_empty(),
            files: files.iter().map(PathBuf::from).collect(),
            never: |inside| inside.file_name().is_some_and(|name| name == ".raidguard-deep"),
        }
    }

    fn copy(source: &Path, target: &Path, wanted: &Wanted) -> Result<Rescued, CopyError> {
        let ears = Ears { progress: &mut |_| {}, trusted: &mut |_| true, first: &mut || {} };
        copy_readable(source, target, wanted, ears, &Interrupt::default())
    }

    fn sample() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("node/bitcoin")).unwrap();
        fs::create_dir_all(from.join("node/.raidguard-deep")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("node/bitcoin/lightningd.sqlite3"), vec![7; 9 << 20]).unwrap();
        fs::write(from.join("node/bitcoin/log"), "talk").unwrap();
        fs::write(from.join("node/.raidguard-deep/old"), "old").unwrap();
        fs::write(from.join("node/config"), "x").unwrap();
        (dir, from, to)
    }

    #[test]
    fn only_what_is_wanted_comes_and_only_the_directories_on_the_way() {
        let (_dir, from, to) = sample();
        fs::create_dir(from.join("other")).unwrap();
        let rescued = copy(&from, &to, &wanted(&["node/bitcoin/lightningd.sqlite3"])).unwrap();
        assert!(rescued.faults.is_empty());
        assert_eq!(rescued.manifest.files(), 1);
        assert!(!to.join("other").exists() && !to.join("node/config").exists());
        let all = tempfile::tempdir().unwrap();
        let rescued = copy(&from, all.path(), &wanted(&[])).unwrap();
        assert_eq!(rescued.manifest.files(), 3);
        assert!(!all.path().join("node/.raidguard-deep").exists());
    }

    #[test]
    fn the_sums_are_those_of_sha256sum() {
        let (_dir, from, to) = sample();
        fs::write(from.join("new\nline"), "abc").unwrap();
        let sparse = File::create(from.join("sparse")).unwrap();
        sparse.set_len(10 << 20).unwrap();
        sparse.write_all_at(b"island", 9 << 20).unwrap();
        let rescued = copy(&from, &to, &wanted(&[])).unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(rescued.sums[Path::new("new\nline")], abc);
        let text = String::from_utf8(sums_file(&rescued.sums, Path::new("files"))).unwrap();
        assert!(text.contains(&format!("\\{abc}  files/new\\nline\n")), "{text}");
        let plain = |path: &str| {
            let mut sum = Sum::new();
            sum.window(0, &fs::read(from.join(path)).unwrap());
            sum.finish(0)
        };
        for path in ["sparse", "node/bitcoin/lightningd.sqlite3"] {
            assert_eq!(rescued.sums[Path::new(path)], plain(path), "{path}");
        }
    }

    #[test]
    fn who_watches_can_stop_it() {
        let (_dir, from, to) = sample();
        let mut asked = 0;
        let mut trusted = |_| {
            asked += 1;
            asked < 3
        };
        let ears = Ears { progress: &mut |_| {}, trusted: &mut trusted, first: &mut || {} };
        let stopped = copy_readable(&from, &to, &wanted(&[]), ears, &Interrupt::default());
        assert!(matches!(stopped, Err(CopyError::Untrusted)));
    }

    #[test]
    fn what_comes_first_is_there_and_read_back_before_the_rest() {
        let (_dir, from, to) = sample();
        // Its other name comes before it in the order of the names, and after it in that of the copy.
        fs::hard_link(from.join("node/bitcoin/lightningd.sqlite3"), from.join("another name")).unwrap();
        let wanted = Wanted { all: true, ..wanted(&["node/bitcoin/lightningd.sqlite3", "node/gone"]) };
        let mut there = false;
        let mut first = || there = to.join("node/bitcoin/lightningd.sqlite3").is_file();
        let ears = Ears { progress: &mut |_| {}, trusted: &mut |_| true, first: &mut first };
        let rescued = copy_readable(&from, &to, &wanted, ears, &Interrupt::default()).unwrap();
        assert!(there && rescued.faults.is_empty());
        assert_eq!(rescued.manifest.files(), 4);
        let again = |proven: &Proven| {
            settle(&to, &rescued.manifest, proven)?;
            verify_tree(&to, &rescued.manifest, proven, None, &mut |_| {}, &Interrupt::default())
        };
        again(&rescued.proven).unwrap();
        again(&Proven::default()).unwrap();
        for name in ["node/bitcoin/lightningd.sqlite3", "node/bitcoin/log", "node/config"] {
            let direct = is_direct(&File::open(to.join(name)).unwrap());
            assert_eq!(rescued.proven.has(Path::new(name)), direct, "{name}");
        }
    }
}
