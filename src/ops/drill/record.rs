//! The record of a drill that runs, so that the next one finds what a killed one left. Held locked: one drill at a time.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use serde::{Deserialize, Serialize};

use crate::host::{
    Host,
    files::{self, Doing as _, FileError},
    lock::RUN_DIR,
};

const FILE: &str = "drill.json";
const SCHEMA: u32 = 1;
/// What the scratch directory's name begins with.
pub(super) const PREFIX: &str = "raidguard-drill-";

/// What a drill has made on the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    schema: u32,
    /// The process.
    pub(super) pid: u32,
    /// The directory of everything that takes room; its name is unique.
    pub(super) scratch: PathBuf,
    /// Loop devices that it used, by kernel name.
    pub(super) loops: Vec<String>,
    /// Directories below `/run` that were not there before, outermost first.
    pub(super) made: Vec<PathBuf>,
}

impl Record {
    /// The name of the scratch directory, by which loop devices over its files are told.
    pub(super) fn name(&self) -> &str {
        self.scratch
            .file_name()
            .and_then(|n| n.to_str())
            .filter(|n| n.starts_with(PREFIX))
            .unwrap_or_default()
    }
}

/// Why there is no record.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error("another drill is at work{}", .0.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Held(Option<u32>),
    #[error("{} is not a record of a drill that this raidguard knows", .0.display())]
    Unknown(PathBuf),
    #[error(transparent)]
    File(#[from] FileError),
}

/// The record, held. The kernel lets go of it with the process, however that ends.
#[derive(Debug)]
pub(super) struct Keeper {
    file: Flock<File>,
    path: PathBuf,
    pub(super) record: Record,
}

impl Keeper {
    /// Takes the record. The other value is what a drill that was killed left in it.
    pub(super) fn take(host: &Host, scratch: PathBuf) -> Result<(Self, Option<Record>), RecordError> {
        let dir = host.path(RUN_DIR);
        let made = files::create_dirs(&dir, 0o700)?;
        let path = dir.join(FILE);
        let mut file = locked(&path)?;
        let mut text = String::new();
        file.read_to_string(&mut text).doing("reading", &path)?;
        let dead = read(&text).map_err(|NoRecord| RecordError::Unknown(path.clone()))?;
        let made = dead.iter().flat_map(|d| d.made.clone()).chain(made).collect();
        let record = Record { schema: SCHEMA, pid: std::process::id(), scratch, loops: Vec::new(), made };
        let keeper = Self { file, path, record };
        // What is dead is written over when it is cleared.
        if dead.is_none() {
            keeper.save()?;
        }
        Ok((keeper, dead))
    }

    /// Writes it down, by the open file: its name may not be seen from where this is called.
    pub(super) fn save(&self) -> Result<(), FileError> {
        let text = serde_json::to_string(&self.record).map_err(io::Error::other);
        let mut file: &File = &self.file;
        let written = text.and_then(|text| {
            file.rewind()?;
            file.write_all(text.as_bytes())?;
            file.set_len(text.len() as u64)?;
            file.sync_data()
        });
        written.doing("writing", &self.path)
    }

    /// Sees that a directory is there, which goes with the record if nothing else comes to lie in it; unless `stays`, because it was there
    /// before.
    pub(super) fn directory(&mut self, path: &Path, stays: bool) -> Result<(), FileError> {
        files::create_dirs(path, 0o700)?;
        if !stays && !self.record.made.iter().any(|made| made == path) {
            self.record.made.push(path.to_owned());
        }
        self.save()
    }

    /// Nothing is left: the record goes, and the directories that were made for it, as far as they are empty.
    pub(super) fn forget(self) -> Result<(), FileError> {
        files::remove(&self.path)?;
        for dir in self.record.made.iter().rev() {
            match fs::remove_dir(dir) {
                Err(e) if !matches!(e.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound) => {
                    return Err(e).doing("removing", dir);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A text is not of the known form.
struct NoRecord;

/// Nothing for an empty text.
fn read(text: &str) -> Result<Option<Record>, NoRecord> {
    if text.is_empty() {
        return Ok(None);
    }
    match serde_json::from_str::<Record>(text) {
        // What is removed must be a drill's.
        Ok(record) if record.schema == SCHEMA && !record.name().is_empty() => Ok(Some(record)),
        _ => Err(NoRecord),
    }
}

/// The file at this path, locked; one that was removed by its holder meanwhile does not count.
fn locked(path: &Path) -> Result<Flock<File>, RecordError> {
    loop {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path).doing("opening", path)?;
        let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((mut file, Errno::EWOULDBLOCK)) => {
                let mut text = String::new();
                file.read_to_string(&mut text).doing("reading", path)?;
                return Err(RecordError::Held(read(&text).ok().flatten().map(|r| r.pid)));
            }
            Err((_, e)) => return Err(io::Error::from(e)).doing("locking", path).map_err(Into::into),
        };
        let held = file.metadata().doing("reading", path)?;
        if fs::metadata(path).is_ok_and(|there| there.ino() == held.ino() && there.dev() == held.dev()) {
            return Ok(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::ScriptedRunner;
    use std::sync::Arc;

    fn machine(dir: &Path) -> Host {
        Host::captured(dir, Arc::new(ScriptedRunner::new()), jiff::Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn one_at_a_time_and_nothing_is_left_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let host = machine(dir.path());
        let scratch = PathBuf::from("/var/tmp/raidguard-drill-1");
        let (mut keeper, dead) = Keeper::take(&host, scratch.clone()).unwrap();
        assert_eq!(dead, None);
        let second = Keeper::take(&host, scratch).unwrap_err().to_string();
        assert_eq!(second, format!("another drill is at work (pid {})", std::process::id()));
        keeper.directory(&host.path("/run/raidguard/rescue"), false).unwrap();
        keeper.forget().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_one_left_is_known_to_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let host = machine(dir.path());
        let (mut killed, _) = Keeper::take(&host, "/var/tmp/raidguard-drill-1".into()).unwrap();
        killed.record.loops.push("loop7".into());
        killed.save().unwrap();
        drop(killed);
        let (next, dead) = Keeper::take(&host, "/scratch/raidguard-drill-2".into()).unwrap();
        let dead = dead.unwrap();
        assert_eq!((dead.name(), &dead.loops[..]), ("raidguard-drill-1", &["loop7".to_owned()][..]));
        // Until that is cleared it stays on record.
        drop(next);
        let (next, dead) = Keeper::take(&host, "/scratch/raidguard-drill-3".into()).unwrap();
        assert!(dead.is_some());
        next.save().unwrap();
        next.forget().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "the directories of the first go too");
    }

    #[test]
    fn what_is_no_record_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let host = machine(dir.path());
        fs::create_dir_all(host.path(RUN_DIR)).unwrap();
        for text in [
            "garbage",
            r#"{"schema":2,"pid":1,"scratch":"/var/tmp/raidguard-drill-1","loops":[],"made":[]}"#,
            r#"{"schema":1,"pid":1,"scratch":"/home","loops":[],"made":[]}"#,
        ] {
            fs::write(host.path(RUN_DIR).join(FILE), text).unwrap();
            let error = Keeper::take(&host, "/var/tmp/raidguard-drill-2".into()).unwrap_err();
            assert!(matches!(error, RecordError::Unknown(_)), "{error}");
        }
    }

    crate::fuzz::fuzzed!(fuzz_drill_record, text [
        br#"{"schema":1,"pid":4711,"scratch":"/var/tmp/raidguard-drill-1","loops":["loop7"],"made":["/run/raidguard","/run/raidguard/rescue"]}"#,
    ], |text| {
        if let Ok(Some(record)) = read(text) {
            assert!(record.name().starts_with(PREFIX), "what is removed must be a drill's: {record:?}");
        }
    });
}
