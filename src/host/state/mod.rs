//! raidguard's own record: `/var/lib/raidguard/state.sqlite3`, kept outside the mirror. Each value is a row of its own, so that jobs
//! that run at the same time do not undo each other's.

mod history;
pub mod outbox;
mod whose;

use std::{
    collections::BTreeMap,
    fs::{OpenOptions, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::Duration,
};

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, config::DbConfig, params};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Host,
    files::{self, Doing as _, FileError},
};
use crate::model::{
    observed::DatabaseFacts,
    record::{ChannelFailure, JobRun, LedgerEntry, Record},
};

/// Where it lies.
pub const PATH: &str = "/var/lib/raidguard/state.sqlite3";
/// The form that this version writes, kept in SQLite's `user_version`.
const FORM: i64 = 1;
/// After how many pages the write-ahead log is taken over: those of some hours' checks.
const LOG: u32 = 16;
/// How long another job's change is waited for.
const BUSY: Duration = Duration::from_secs(5);

/// The name of the newest commit seen.
const GENERATION: &str = "generation";

const TABLES: &str = "
    CREATE TABLE record (
        mirror TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (mirror, name)
    ) WITHOUT ROWID;
    CREATE TABLE history (
        mirror TEXT NOT NULL, at INTEGER NOT NULL, verdict TEXT NOT NULL, findings TEXT NOT NULL
    );
    CREATE INDEX history_of ON history (mirror, at);
    CREATE TABLE outbox (
        id TEXT NOT NULL, channel TEXT NOT NULL, event TEXT NOT NULL, attempts INTEGER NOT NULL,
        next INTEGER NOT NULL, PRIMARY KEY (id, channel)
    ) WITHOUT ROWID;
";

/// Why the record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file operation failed.
    #[error("{PATH} cannot be opened")]
    File(#[source] FileError),
    /// SQLite could not do it.
    #[error("{PATH} cannot be read or written")]
    Sqlite(#[source] rusqlite::Error),
    /// A value is not of the form that it should have.
    #[error("`{name}` in {PATH} is not of the known form")]
    Value {
        /// Which.
        name: String,
        /// How not.
        #[source]
        source: serde_json::Error,
    },
    /// It was emptied: what it knew is not to be forgotten without a word.
    #[error(
        "{PATH} is empty, so what it knew is lost: the newest state of the databases, what was acknowledged and told. If that cannot be \
         put back, `rm {PATH}` lets the next check begin a new one"
    )]
    Empty,
    /// It is a database, and another's.
    #[error("{PATH} is not raidguard's record; nothing in it was changed")]
    Foreign,
    /// A newer raidguard wrote it.
    #[error("{PATH} is of form {0}, written by a newer raidguard")]
    Newer(i64),
}

impl From<FileError> for StateError {
    fn from(e: FileError) -> Self {
        Self::File(e)
    }
}

impl From<rusqlite::Error> for StateError {
    fn from(e: rusqlite::Error) -> Self {
        Self::Sqlite(e)
    }
}

/// The record, open.
#[derive(Debug)]
pub struct State {
    db: Connection,
}

impl State {
    /// Opens the record; makes it where there is none.
    ///
    /// # Errors
    /// It cannot be opened, is none, or is a newer version's.
    pub fn open(host: &Host) -> Result<Self, StateError> {
        let path = host.path(PATH);
        prepare(&path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(&path, flags)?;
        db.busy_timeout(BUSY)?;
        let form: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
        match form {
            FORM => {}
            0 => return Err(StateError::Foreign),
            newer => return Err(StateError::Newer(newer)),
        }
        // In this mode a power cut may take the last changes along, but never the file. What must not be lost is written durably.
        db.pragma_update(None, "synchronous", "NORMAL")?;
        // A check would otherwise wait for the disk at each end. Whoever opens the record reads the whole log, so that is kept short.
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        db.pragma_update(None, "wal_autocheckpoint", LOG)?;
        Ok(Self { db })
    }

    /// Opens the record where there is one.
    ///
    /// # Errors
    /// As [`State::open`].
    pub fn open_existing(host: &Host) -> Result<Option<Self>, StateError> {
        let path = host.path(PATH);
        match path.symlink_metadata() {
            Ok(_) => Self::open(host).map(Some),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).doing("looking for", &path).map_err(StateError::File),
        }
    }

    /// What is remembered of a mirror.
    ///
    /// # Errors
    /// It cannot be read, or is not of the known form.
    pub fn record(&self, mirror: &str) -> Result<Record, StateError> {
        let mut record = Record::default();
        let mut statement = self.db.prepare_cached("SELECT name, value FROM record WHERE mirror = ?1")?;
        let mut rows = statement.query([mirror])?;
        while let Some(row) = rows.next()? {
            let (name, value): (String, String) = (row.get(0)?, row.get(1)?);
            take(&mut record, &name, &value)?;
        }
        drop(rows);
        record.channels = self.channel_failures()?;
        Ok(record)
    }

    /// One value of a mirror.
    ///
    /// # Errors
    /// It cannot be read, or is not of the known form.
    pub fn get<T: DeserializeOwned>(&self, mirror: &str, name: &str) -> Result<Option<T>, StateError> {
        let sql = "SELECT value FROM record WHERE mirror = ?1 AND name = ?2";
        let mut statement = self.db.prepare_cached(sql)?;
        let value: Option<String> = statement.query_row([mirror, name], |row| row.get(0)).optional()?;
        value.map(|value| value_of(name, &value)).transpose()
    }

    /// Sets one value of a mirror.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn put<T: Serialize>(&self, mirror: &str, name: &str, value: &T) -> Result<(), StateError> {
        let value = serde_json::to_string(value)
            .map_err(|source| StateError::Value { name: name.to_owned(), source })?;
        let sql = "INSERT INTO record VALUES (?1, ?2, ?3)
                   ON CONFLICT DO UPDATE SET value = excluded.value WHERE value <> excluded.value";
        self.db.prepare_cached(sql)?.execute(params![mirror, name, value])?;
        Ok(())
    }

    /// Removes one value of a mirror.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn forget(&self, mirror: &str, name: &str) -> Result<(), StateError> {
        self.db.execute("DELETE FROM record WHERE mirror = ?1 AND name = ?2", [mirror, name])?;
        Ok(())
    }

    /// Runs `change` as one transaction; within another, as part of that.
    ///
    /// # Errors
    /// `change` failed, or the record cannot be written: nothing of it is kept then.
    pub fn together<T>(&self, change: impl FnOnce() -> Result<T, StateError>) -> Result<T, StateError> {
        if !self.db.is_autocommit() {
            return change();
        }
        let transaction =
            rusqlite::Transaction::new_unchecked(&self.db, rusqlite::TransactionBehavior::Immediate)?;
        let value = change()?;
        transaction.commit()?;
        Ok(value)
    }

    /// Runs `change` as [`State::together`] does; what it changed is on the disk when this returns, or, within another transaction, when
    /// that is kept durably.
    ///
    /// # Errors
    /// As [`State::together`].
    pub fn durably<T>(&self, change: impl FnOnce() -> Result<T, StateError>) -> Result<T, StateError> {
        if !self.db.is_autocommit() {
            return change();
        }
        self.db.pragma_update(None, "synchronous", "FULL")?;
        let done = self.together(change);
        self.db.pragma_update(None, "synchronous", "NORMAL")?;
        done
    }

    /// A job begins.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn job_began(&self, mirror: &str, job: &str, now: Timestamp) -> Result<(), StateError> {
        let name = format!("job/{job}");
        self.together(|| {
            let good = self.get::<JobRun>(mirror, &name)?.and_then(|run| run.good);
            self.put(mirror, &name, &JobRun { started: now, ended: None, failed: None, good })
        })
    }

    /// A job that began at `began` has ended, well or not.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn job_ended(
        &self,
        mirror: &str,
        job: &str,
        (began, ended): (Timestamp, Timestamp),
        failed: Option<String>,
    ) -> Result<(), StateError> {
        let name = format!("job/{job}");
        self.together(|| {
            let good = match &failed {
                None => Some(ended),
                Some(_) => self.get::<JobRun>(mirror, &name)?.and_then(|run| run.good),
            };
            self.put(mirror, &name, &JobRun { started: began, ended: Some(ended), failed, good })
        })
    }

    /// Remembers the newest state of a database: it only ever rises, and another node's database changes nothing.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn raise_ledger(&self, mirror: &str, network: &str, seen: &LedgerEntry) -> Result<(), StateError> {
        let name = format!("ledger/{network}");
        self.durably(|| {
            let before: Option<LedgerEntry> = self.get(mirror, &name)?;
            let newer = |known: LedgerEntry| {
                let other = matches!((&known.node_id, &seen.node_id), (Some(a), Some(b)) if a != b);
                !other && seen.data_version > known.data_version
            };
            if before.is_none_or(newer) {
                self.put(mirror, &name, seen)?;
            }
            Ok(())
        })
    }

    /// Remembers the newest commit that was seen of a mirror: it only ever rises.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn raise_generation(&self, mirror: &str, seen: u64) -> Result<(), StateError> {
        self.together(|| {
            let before: Option<u64> = self.get(mirror, GENERATION)?;
            if before.is_none_or(|before| seen > before) {
                self.put(mirror, GENERATION, &seen)
            } else {
                Ok(())
            }
        })
    }

    /// Remembers which members were away while the mirror was written to, by number, and when they were last seen so.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep_away(&self, mirror: &str, away: &BTreeMap<String, Timestamp>) -> Result<(), StateError> {
        self.put(mirror, "away", away)
    }

    /// The newest commit that was ever seen of a mirror.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn generation(&self, mirror: &str) -> Result<Option<u64>, StateError> {
        self.get(mirror, GENERATION)
    }

    /// What the last look at the databases found.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep_databases(
        &self,
        mirror: &str,
        now: Timestamp,
        found: &[DatabaseFacts],
    ) -> Result<(), StateError> {
        self.put(mirror, "databases", &(now, found))
    }

    /// Every channel whose last message did not arrive.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn channel_failures(&self) -> Result<Vec<ChannelFailure>, StateError> {
        let mut statement = self.db.prepare_cached(
            "SELECT name, value FROM record WHERE mirror = '' AND name >= 'channel/' AND name < 'channel0' ORDER BY name",
        )?;
        let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
        rows.map(|row| {
            let (name, value) = row?;
            value_of(&name, &value)
        })
        .collect()
    }
}

/// A file for SQLite to open. It is closed again before that: closing it later would take SQLite's locks away (sqlite.org, How To Corrupt
/// An SQLite Database File, section 2.2).
fn prepare(path: &Path) -> Result<(), StateError> {
    let open = || files::open_regular(path, OpenOptions::new().append(true));
    let file = match open() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            files::create_dirs(files::parent(path), 0o700)?;
            make(path)?;
            open()
        }
        opened => opened,
    };
    let file = file.doing("opening", path)?;
    let meta = file.metadata().doing("reading", path)?;
    if meta.len() == 0 {
        return Err(StateError::Empty);
    }
    let mode = meta.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600)).doing("setting the mode of", path)?;
    }
    Ok(())
}

/// Makes a new record. It gets its name when it is whole, so that an empty one is never a new one; who comes second leaves it to the
/// first.
fn make(path: &Path) -> Result<(), StateError> {
    let dir = files::parent(path);
    let file =
        tempfile::Builder::new().prefix(".state-new-").tempfile_in(dir).doing("creating a file in", dir)?;
    let db = Connection::open(file.path())?;
    db.execute_batch(&format!("BEGIN;{TABLES}PRAGMA user_version = {FORM};COMMIT;"))?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.close().map_err(|(_, e)| e)?;
    file.as_file().sync_all().doing("syncing", file.path())?;
    match file.persist_noclobber(path) {
        Err(e) if e.error.kind() != io::ErrorKind::AlreadyExists => Err(e.error).doing("creating", path)?,
        _ => Ok(files::sync_dir(dir)?),
    }
}

/// Puts one value of a record in its place. Names of other values are passed over.
fn take(record: &mut Record, name: &str, value: &str) -> Result<(), StateError> {
    match name.split_once('/').unwrap_or((name, "")) {
        ("first-seen", _) => record.first_seen = Some(value_of(name, value)?),
        ("acknowledged", _) => record.acknowledged = value_of(name, value)?,
        ("acknowledged-sectors", _) => record.acknowledged_sectors = value_of(name, value)?,
        ("acknowledged-mismatches", _) => record.acknowledged_mismatches = Some(value_of(name, value)?),
        ("acknowledged-scrub", _) => record.acknowledged_scrub = Some(value_of(name, value)?),
        ("mismatches", _) => record.mismatches = Some(value_of(name, value)?),
        ("failed-writes", _) => record.failed_writes = value_of(name, value)?,
        ("away", _) => record.away = value_of(name, value)?,
        ("open", _) => record.open = value_of(name, value)?,
        ("verdict", _) => record.verdict = Some(value_of(name, value)?),
        ("databases", _) => record.databases = Some(value_of(name, value)?),
        (GENERATION, _) => record.generation = Some(value_of(name, value)?),
        ("told", _) => record.told = Some(value_of(name, value)?),
        ("overridden", _) => record.overridden = Some(value_of(name, value)?),
        ("job", job) => drop(record.jobs.insert(job.to_owned(), value_of(name, value)?)),
        ("ledger", network) => {
            record.ledger.insert(network.to_owned(), value_of(name, value)?);
        }
        _ => {}
    }
    Ok(())
}

fn value_of<T: DeserializeOwned>(name: &str, value: &str) -> Result<T, StateError> {
    serde_json::from_str(value).map_err(|source| StateError::Value { name: name.to_owned(), source })
}

#[cfg(test)]
mod tests;
