//! The journal: JSON lines, the plan first, then what was begun and done, each line on disk before the next thing happens.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use nix::fcntl::{FallocateFlags, fallocate};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Outcome, Plan};
use crate::host::files::{self, Doing as _, FileError};

/// Room taken for a journal's records before anything is changed, so that a disk that fills up meanwhile cannot silence it.
const ROOM: i64 = 256 * 1024;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Record {
    /// A step was begun: from here on its effects may be there.
    Begin(usize),
    /// A step was done.
    Done(usize, Outcome),
    /// A rollback was begun.
    RollBack,
    /// The rollback that was begun cannot be finished, so it goes forward again.
    Forward,
    /// A step was put back.
    Undone(usize),
    /// All steps are done.
    Complete,
    /// All begun steps are put back.
    RolledBack,
}

#[derive(Serialize, Deserialize)]
struct Line {
    at: Timestamp,
    record: Record,
}

/// What a journal's records add up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalState {
    /// Whether each step was begun and not put back.
    pub begun: Vec<bool>,
    /// A rollback was begun.
    pub rolling_back: bool,
    /// It ended: complete or rolled back.
    pub ended: Option<Record>,
}

/// Why a journal could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A file operation failed.
    #[error("the journal cannot be kept")]
    File(#[source] FileError),
    /// A line is not what raidguard writes.
    #[error("{}: line {line} cannot be read", path.display())]
    Unreadable {
        /// The journal.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A record speaks of a step that the plan does not have.
    #[error("{}: line {line} speaks of a step that the plan does not have", path.display())]
    NoSuchStep {
        /// The journal.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
    },
    /// The file holds no plan: it was cut off before the first change.
    #[error("{} holds no plan: it was cut off before anything was changed", path.display())]
    Empty {
        /// The journal.
        path: PathBuf,
    },
}

impl From<FileError> for JournalError {
    fn from(e: FileError) -> Self {
        Self::File(e)
    }
}

/// The record of one operation, open for writing.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Begins a journal with the whole plan, durably, and takes room for its records.
    ///
    /// # Errors
    /// There is no room, or one with this name exists.
    pub fn create<S: Serialize>(dir: &Path, plan: &Plan<S>) -> Result<Self, JournalError> {
        files::create_dirs(dir, 0o700)?;
        let path = dir.join(format!("{}.jsonl", plan.id));
        let first = serde_json::to_string(plan).map_err(|source| JournalError::Unreadable {
            path: path.clone(),
            line: 1,
            source,
        })?;
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .doing("creating the journal", &path)?;
        let mut this = Self { path, file };
        let made = this.reserve().and_then(|()| this.write_line(&first));
        if let Err(e) = made {
            // Nothing was changed yet: an empty journal would only puzzle.
            let _ = fs::remove_file(&this.path);
            return Err(e);
        }
        files::sync_dir(dir)?;
        Ok(this)
    }

    fn reserve(&self) -> Result<(), JournalError> {
        use nix::errno::Errno;
        match fallocate(&self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, ROOM) {
            // tmpfs takes it, some network filesystems do not; the records are then as safe as the disk has room.
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(()),
            Err(e) => Err(io::Error::from(e))
                .doing("taking room for the journal", &self.path)
                .map_err(JournalError::from),
        }
    }

    /// Opens a journal to go on with it. A last line that a kill cut short is dropped: what it would have said had not happened.
    ///
    /// # Errors
    /// It cannot be read, or holds something else.
    pub fn open<S: DeserializeOwned>(path: &Path) -> Result<(Self, Plan<S>, JournalState), JournalError> {
        let (plan, state, whole) = Self::read(path)?;
        let file = OpenOptions::new().append(true).open(path).doing("opening the journal", path)?;
        if file.metadata().doing("reading", path)?.len() > whole {
            file.set_len(whole)
                .and_then(|()| file.sync_all())
                .doing("cutting the torn last line of", path)?;
        }
        Ok((Self { path: path.to_owned(), file }, plan, state))
    }

    /// Reads a journal: its plan, what its records add up to, and how many bytes of it are whole lines.
    ///
    /// # Errors
    /// As [`Journal::open`].
    pub fn read<S: DeserializeOwned>(path: &Path) -> Result<(Plan<S>, JournalState, u64), JournalError> {
        let text = files::read_text(path).doing("reading the journal", path)?;
        Self::parse(path, &text)
    }

    fn parse<S: DeserializeOwned>(
        path: &Path,
        text: &str,
    ) -> Result<(Plan<S>, JournalState, u64), JournalError> {
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        let mut lines = text.get(..whole).unwrap_or_default().lines().enumerate();
        let unreadable =
            |line: usize, source| JournalError::Unreadable { path: path.to_owned(), line: line + 1, source };
        let (_, first) = lines.next().ok_or_else(|| JournalError::Empty { path: path.to_owned() })?;
        let plan: Plan<S> = serde_json::from_str(first).map_err(|e| unreadable(0, e))?;
        let mut state =
            JournalState { begun: vec![false; plan.steps.len()], rolling_back: false, ended: None };
        for (number, line) in lines {
            let Line { record, .. } = serde_json::from_str(line).map_err(|e| unreadable(number, e))?;
            state.take(record).ok_or(JournalError::NoSuchStep { path: path.to_owned(), line: number + 1 })?;
        }
        Ok((plan, state, whole as u64))
    }

    /// Appends a record, durably.
    ///
    /// # Errors
    /// It could not be written; what it says must then not be done.
    pub fn write(&mut self, at: Timestamp, record: Record) -> Result<(), JournalError> {
        let line = serde_json::to_string(&Line { at, record })
            .map_err(|source| JournalError::Unreadable { path: self.path.clone(), line: 0, source })?;
        self.write_line(&line)
    }

    fn write_line(&mut self, line: &str) -> Result<(), JournalError> {
        self.file.write_all(format!("{line}\n").as_bytes()).doing("writing the journal", &self.path)?;
        self.file.sync_data().doing("syncing the journal", &self.path)?;
        Ok(())
    }

    /// The journal's file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl JournalState {
    fn take(&mut self, record: Record) -> Option<()> {
        match record {
            Record::Begin(i) => *self.begun.get_mut(i)? = true,
            Record::Undone(i) => *self.begun.get_mut(i)? = false,
            Record::Done(i, _) => {
                self.begun.get(i)?;
            }
            Record::RollBack => self.rolling_back = true,
            Record::Forward => self.rolling_back = false,
            end @ (Record::Complete | Record::RolledBack) => self.ended = Some(end),
        }
        Some(())
    }
}

/// Every journal's path, oldest first. No directory means none.
///
/// # Errors
/// The directory cannot be read.
pub fn journals(dir: &Path) -> Result<Vec<PathBuf>, FileError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).doing("reading", dir),
    };
    let mut paths = entries.map(|e| Ok(e?.path())).collect::<io::Result<Vec<_>>>().doing("reading", dir)?;
    paths.retain(|p| p.extension().is_some_and(|e| e == "jsonl"));
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan<String> {
        Plan::new("setup", "lightning", Timestamp::UNIX_EPOCH, vec!["one".to_owned(), "two".to_owned()])
    }

    #[test]
    fn a_torn_last_line_is_dropped_and_the_rest_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(dir.path(), &plan()).unwrap();
        journal.write(Timestamp::UNIX_EPOCH, Record::Begin(0)).unwrap();
        let path = journal.path().to_owned();
        let whole = fs::read(&path).unwrap();
        for cut in 1..40 {
            fs::write(
                &path,
                [&whole[..], &br#"{"at":"1970-01-01T00:00:00Z","record":{"begin":1}}"#[..cut]].concat(),
            )
            .unwrap();
            let (mut journal, read, state) = Journal::open::<String>(&path).unwrap();
            assert_eq!((read, &state.begun[..]), (plan(), &[true, false][..]));
            journal.write(Timestamp::UNIX_EPOCH, Record::Complete).unwrap();
            assert_eq!(Journal::read::<String>(&path).unwrap().1.ended, Some(Record::Complete));
        }
    }

    #[test]
    fn a_journal_without_a_plan_says_that_nothing_was_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.jsonl");
        for text in ["", "{\"schema\":1"] {
            fs::write(&path, text).unwrap();
            assert!(matches!(Journal::open::<String>(&path), Err(JournalError::Empty { .. })));
        }
    }

    #[test]
    fn garbage_is_an_error_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(dir.path(), &plan()).unwrap();
        journal.write(Timestamp::UNIX_EPOCH, Record::Begin(7)).unwrap();
        let error = Journal::open::<String>(journal.path()).unwrap_err();
        assert!(matches!(error, JournalError::NoSuchStep { line: 2, .. }), "{error}");
        fs::write(journal.path(), "no json\n").unwrap();
        assert!(matches!(
            Journal::open::<String>(journal.path()),
            Err(JournalError::Unreadable { line: 1, .. })
        ));
    }

    #[test]
    fn two_operations_never_share_a_journal() {
        let dir = tempfile::tempdir().unwrap();
        Journal::create(dir.path(), &plan()).unwrap();
        assert!(Journal::create(dir.path(), &plan()).is_err());
        assert_eq!(journals(dir.path()).unwrap().len(), 1);
        assert!(journals(&dir.path().join("none")).unwrap().is_empty());
    }

    const JOURNAL: &[u8] = br#"{"schema":1,"id":"20261123-120000-setup","verb":"setup","mirror":"lightning","created":"1970-01-01T00:00:00Z","steps":["one","two"]}
{"at":"1970-01-01T00:00:00Z","record":{"begin":0}}
{"at":"1970-01-01T00:00:02Z","record":"complete"}
"#;

    #[test]
    fn the_sample_that_is_taken_apart_is_whole() {
        let text = std::str::from_utf8(JOURNAL).unwrap();
        Journal::parse::<String>(Path::new("x.jsonl"), text).unwrap();
    }

    crate::fuzz::fuzzed!(fuzz_journal, text[JOURNAL], |text| {
        if let Ok((plan, state, whole)) = Journal::parse::<String>(Path::new("x.jsonl"), text) {
            assert!(state.begun.len() == plan.steps.len() && whole <= text.len() as u64);
        }
    });
}
