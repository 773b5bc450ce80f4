//! The node's database, judged on a scratch copy. Where it lies it is never opened: a reader's lock can kill the node, and opening
//! a file beside its hot journal rewrites it.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

use crate::host::files::{self, Doing as _, FileError};

/// What a database says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseFacts {
    /// Core Lightning's count of committed transactions: of two copies of one node's database the higher is the newer.
    pub data_version: Option<i64>,
    /// The version of its tables.
    pub schema_version: Option<i64>,
}

/// Why a database does not pass.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The scratch copy could not be made or removed.
    #[error("no scratch copy of it could be made")]
    Scratch(#[source] FileError),
    /// SQLite cannot read it.
    #[error("SQLite cannot read it")]
    Sqlite(#[source] rusqlite::Error),
    /// SQLite found faults.
    #[error("SQLite finds faults in it: {0}")]
    Corrupt(String),
    /// It is empty, which no node's database is.
    #[error("it is empty")]
    Empty,
}

impl DatabaseError {
    /// Is something wrong with the database itself, rather than with the place where it was checked?
    pub fn is_fault(&self) -> bool {
        use rusqlite::ErrorCode::{
            CannotOpen, DiskFull, OutOfMemory, PermissionDenied, ReadOnly, SystemIoFailure,
        };
        match self {
            Self::Scratch(_) => false,
            Self::Sqlite(e) => !matches!(
                e.sqlite_error_code(),
                Some(CannotOpen | DiskFull | OutOfMemory | PermissionDenied | ReadOnly | SystemIoFailure)
            ),
            Self::Corrupt(_) | Self::Empty => true,
        }
    }
}

impl fmt::Display for DatabaseFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sound")?;
        if let Some(version) = self.data_version {
            write!(f, ", data_version {version}")?;
        }
        Ok(())
    }
}

/// What SQLite needs to recover a database; `-shm` holds nothing of its own.
const PARTS: [&str; 3] = ["", "-journal", "-wal"];

fn part(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    database.with_file_name(name)
}

/// How many bytes the scratch copy of this database takes.
pub fn scratch_size(database: &Path) -> u64 {
    PARTS.iter().filter_map(|suffix| fs::metadata(part(database, suffix)).ok()).map(|meta| meta.len()).sum()
}

/// Copies the database with its journal into `scratch`, a directory that is made and removed, and has SQLite recover and check it.
///
/// # Errors
/// It does not pass, or could not be checked.
pub fn check_on_scratch(database: &Path, scratch: &Path) -> Result<DatabaseFacts, DatabaseError> {
    let clear = || match fs::remove_dir_all(scratch) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).doing("removing", scratch).map_err(DatabaseError::Scratch)
        }
        _ => Ok(()),
    };
    clear()?;
    files::create_dirs(scratch, 0o700).map_err(DatabaseError::Scratch)?;
    let result = copy_in(database, scratch).and_then(|copy| judge(&copy));
    clear()?;
    result
}

/// The database and what SQLite needs to recover it, under the same names.
fn copy_in(database: &Path, scratch: &Path) -> Result<PathBuf, DatabaseError> {
    for suffix in PARTS {
        let from = part(database, suffix);
        match fs::copy(&from, scratch.join(from.file_name().unwrap_or_default())) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && !suffix.is_empty() => {}
            Err(e) => return Err(e).doing("copying", &from).map_err(DatabaseError::Scratch),
            Ok(0) if suffix.is_empty() => return Err(DatabaseError::Empty),
            Ok(_) => {}
        }
    }
    Ok(scratch.join(database.file_name().unwrap_or_default()))
}

fn judge(copy: &Path) -> Result<DatabaseFacts, DatabaseError> {
    let open = Connection::open_with_flags(copy, OpenFlags::SQLITE_OPEN_READ_WRITE)
        .map_err(DatabaseError::Sqlite)?;
    let faults = || -> rusqlite::Result<Vec<String>> {
        let mut statement = open.prepare("PRAGMA integrity_check(5)")?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
        rows.collect()
    };
    let faults = faults().map_err(DatabaseError::Sqlite)?;
    if faults != ["ok"] {
        return Err(DatabaseError::Corrupt(faults.join("; ").replace('\n', "; ")));
    }
    let number = |sql: &str| -> rusqlite::Result<Option<i64>> {
        match open.query_row(sql, [], |row| row.get(0)).optional() {
            // A database of another make has no such table.
            Err(rusqlite::Error::SqliteFailure(_, Some(text))) if text.starts_with("no such") => Ok(None),
            answer => answer,
        }
    };
    Ok(DatabaseFacts {
        data_version: number("SELECT intval FROM vars WHERE name = 'data_version'")
            .map_err(DatabaseError::Sqlite)?,
        schema_version: number("SELECT version FROM version").map_err(DatabaseError::Sqlite)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(path: &Path, rows: i64) {
        let db = Connection::open(path).unwrap();
        db.execute_batch("CREATE TABLE vars(name TEXT, intval INTEGER); CREATE TABLE version(version INTEGER); CREATE TABLE p(x BLOB);").unwrap();
        db.execute("INSERT INTO vars VALUES('data_version', ?)", [rows]).unwrap();
        db.execute("INSERT INTO version VALUES(270)", []).unwrap();
        for _ in 0..rows {
            db.execute("INSERT INTO p VALUES(randomblob(900))", []).unwrap();
        }
    }

    #[test]
    fn a_sound_one_tells_its_versions_and_stays_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lightningd.sqlite3");
        make(&path, 42);
        let before = fs::read(&path).unwrap();
        let facts = check_on_scratch(&path, &dir.path().join("scratch")).unwrap();
        assert_eq!(facts, DatabaseFacts { data_version: Some(42), schema_version: Some(270) });
        assert_eq!(fs::read(&path).unwrap(), before);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_write_ahead_log_is_taken_along() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lightningd.sqlite3");
        make(&path, 1);
        let live = Connection::open(&path).unwrap();
        live.execute_batch("PRAGMA journal_mode=WAL; UPDATE vars SET intval = 7;").unwrap();
        let facts = check_on_scratch(&path, &dir.path().join("scratch")).unwrap();
        assert_eq!(facts.data_version, Some(7));
        let sizes =
            ["lightningd.sqlite3", "lightningd.sqlite3-wal"].map(|n| fs::metadata(dir.path().join(n)));
        assert_eq!(scratch_size(&path), sizes.into_iter().map(|m| m.unwrap().len()).sum::<u64>());
    }

    #[test]
    fn damage_garbage_and_nothing_do_not_pass() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lightningd.sqlite3");
        let check = || check_on_scratch(&path, &dir.path().join("scratch"));
        make(&path, 300);
        let mut bytes = fs::read(&path).unwrap();
        for at in 3..20 {
            bytes[at * 4096..at * 4096 + 64].fill(0xa5);
        }
        fs::write(&path, &bytes).unwrap();
        assert!(check().unwrap_err().is_fault());
        fs::write(&path, "garbage, and enough of it to be no empty file").unwrap();
        assert!(matches!(check(), Err(e @ DatabaseError::Sqlite(_)) if e.is_fault()));
        fs::write(&path, "").unwrap();
        assert!(matches!(check(), Err(DatabaseError::Empty)));
        fs::remove_file(&path).unwrap();
        let absent = check().unwrap_err();
        assert!(matches!(absent, DatabaseError::Scratch(_)) && !absent.is_fault());
    }
}
