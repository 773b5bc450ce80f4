//! The node's database, judged on a scratch copy. Where it lies it is never opened: a reader's lock can kill the node, and opening
//! a file beside its hot journal rewrites it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    fcntl::{PosixFadviseAdvice, posix_fadvise},
    sys::sysinfo::sysinfo,
};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

use crate::{
    host::files::{self, Doing as _, FileError},
    model::observed::DatabaseVersion,
};

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
    /// Its check took too long.
    #[error(
        "SQLite has not checked it within {} min: the disk is very slow, or does not answer; nothing is known of the database",
        .0.as_secs() / 60
    )]
    Late(Duration),
    /// The operator did not want to wait for its check.
    #[error("its check was stopped")]
    Stopped,
    /// No thread could be had for its check.
    #[error("its check could not be begun")]
    Thread(#[source] io::Error),
}

impl DatabaseError {
    /// Is something wrong with the database itself, rather than with the place where it was checked?
    pub fn is_fault(&self) -> bool {
        use rusqlite::ErrorCode::{
            CannotOpen, DiskFull, OutOfMemory, PermissionDenied, ReadOnly, SystemIoFailure,
        };
        match self {
            Self::Scratch(_) | Self::Late(_) | Self::Stopped | Self::Thread(_) => false,
            Self::Sqlite(e) => !matches!(
                e.sqlite_error_code(),
                Some(CannotOpen | DiskFull | OutOfMemory | PermissionDenied | ReadOnly | SystemIoFailure)
            ),
            Self::Corrupt(_) | Self::Empty => true,
        }
    }
}

/// What SQLite needs to recover a database; `-shm` holds nothing of its own.
pub(super) const PARTS: [&str; 3] = ["", "-journal", "-wal"];

pub(super) fn part(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    database.with_file_name(name)
}

/// What of a database is a symlink, the file or what SQLite needs beside it, in words: off a rescued mirror it may lead to anything of the
/// machine that looks.
pub fn linked(database: &Path) -> Option<String> {
    let linked = |path: PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        fs::read_link(&path).ok().map(|to| format!("{name} is a symlink to {}", to.display()))
    };
    PARTS.iter().find_map(|suffix| linked(part(database, suffix)))
}

/// Is a journal or a log beside the database that SQLite would work off when it opens it?
pub fn has_journal(database: &Path) -> Option<Journal> {
    let is_there = |suffix: &str| fs::metadata(part(database, suffix)).is_ok_and(|meta| meta.len() > 0);
    if is_there("-journal") {
        Some(Journal::Rollback)
    } else {
        is_there("-wal").then_some(Journal::WriteAhead)
    }
}

/// What SQLite works off when it opens a database after a crash (sqlite.org, "Temporary Files Used By SQLite").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Journal {
    /// A rollback journal: what was begun is taken back.
    Rollback,
    /// A write-ahead log: what was committed is put in.
    WriteAhead,
}

/// Has SQLite check a database that has no journal beside it, where it lies, without writing anything or taking a lock (sqlite.org, "URI
/// Filenames", `immutable`). Nobody may write to it meanwhile. `opened` is given the database before it is checked.
///
/// # Errors
/// It does not pass, or could not be checked.
pub fn judge_in_place(
    database: &Path,
    opened: impl FnOnce(&Connection),
) -> Result<DatabaseVersion, DatabaseError> {
    let open = open_in_place(database)?;
    opened(&open);
    whole(&open)?;
    refers(&open)?;
    version(&open)
}

fn open_in_place(database: &Path) -> Result<Connection, DatabaseError> {
    use std::{fmt::Write as _, os::unix::ffi::OsStrExt as _};
    if fs::metadata(database).doing("reading", database).map_err(DatabaseError::Scratch)?.len() == 0 {
        return Err(DatabaseError::Empty);
    }
    let name = database.as_os_str().as_bytes().iter().fold(String::new(), |mut out, byte| {
        let _ = match byte {
            b'/' | b'-' | b'.' | b'_' => write!(out, "{}", char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => write!(out, "{}", char::from(*byte)),
            byte => write!(out, "%{byte:02X}"),
        };
        out
    });
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(format!("file:{name}?immutable=1"), flags).map_err(DatabaseError::Sqlite)
}

/// Copies the database with its journal into `scratch`, a directory that is made and removed, and has SQLite recover and check it there
/// as one that is nobody else's; `without` leaves the journal out. `opened` is given the copy before it is checked.
///
/// # Errors
/// It does not pass, or could not be checked.
pub fn judge_on_scratch(
    database: &Path,
    scratch: &Path,
    without: bool,
    opened: impl FnOnce(&Connection),
) -> Result<DatabaseVersion, DatabaseError> {
    let parts = if without { &PARTS[..1] } else { &PARTS[..] };
    on_scratch_of(database, scratch, parts, |copy| judge(copy, opened))
}

/// How many bytes the scratch copy of this database takes.
pub fn scratch_size(database: &Path) -> u64 {
    PARTS.iter().filter_map(|suffix| fs::metadata(part(database, suffix)).ok()).map(|meta| meta.len()).sum()
}

/// Copies the database with its journal into `scratch`, a directory that is made and removed, and has SQLite recover and check it.
///
/// # Errors
/// It does not pass, or could not be checked.
pub fn check_on_scratch(database: &Path, scratch: &Path) -> Result<DatabaseVersion, DatabaseError> {
    on_scratch(database, scratch, |copy| sound(copy).and_then(|open| version(&open)))
}

pub(super) fn on_scratch<T>(
    database: &Path,
    scratch: &Path,
    read: impl FnOnce(&Path) -> Result<T, DatabaseError>,
) -> Result<T, DatabaseError> {
    on_scratch_of(database, scratch, &PARTS, read)
}

fn on_scratch_of<T>(
    database: &Path,
    scratch: &Path,
    parts: &[&str],
    read: impl FnOnce(&Path) -> Result<T, DatabaseError>,
) -> Result<T, DatabaseError> {
    let clear = || match fs::remove_dir_all(scratch) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).doing("removing", scratch).map_err(DatabaseError::Scratch)
        }
        _ => Ok(()),
    };
    clear()?;
    files::create_dirs(scratch, 0o700).map_err(DatabaseError::Scratch)?;
    let result = copy_in(database, scratch, parts).and_then(|copy| read(&copy));
    clear()?;
    result
}

/// The database and what SQLite needs to recover it, under the same names.
fn copy_in(database: &Path, scratch: &Path, parts: &[&str]) -> Result<PathBuf, DatabaseError> {
    for suffix in parts {
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

/// Has SQLite recover and check a database that is nobody else's: a scratch copy, or one on a snapshot that will be deleted. `opened` is
/// given the database before it is checked.
///
/// # Errors
/// It does not pass, or could not be checked.
pub(super) fn judge(copy: &Path, opened: impl FnOnce(&Connection)) -> Result<DatabaseVersion, DatabaseError> {
    let open = open_some(copy)?;
    opened(&open);
    whole(&open)?;
    refers(&open)?;
    version(&open)
}

/// Finds every reference in it to lead somewhere.
fn refers(open: &Connection) -> Result<(), DatabaseError> {
    let orphans = || -> rusqlite::Result<Vec<String>> {
        let mut statement = open.prepare("PRAGMA foreign_key_check")?;
        let rows = statement.query_map([], |row| {
            let (table, parent): (String, String) = (row.get(0)?, row.get(2)?);
            Ok(format!("a row of {table} refers to none of {parent}"))
        })?;
        rows.take(5).collect()
    };
    let orphans = orphans().map_err(DatabaseError::Sqlite)?;
    if orphans.is_empty() { Ok(()) } else { Err(DatabaseError::Corrupt(orphans.join("; "))) }
}

/// Opens it, and finds its pages whole.
fn sound(copy: &Path) -> Result<Connection, DatabaseError> {
    let open = open_some(copy)?;
    whole(&open)?;
    Ok(open)
}

/// Opens it, if anything is in it.
fn open_some(copy: &Path) -> Result<Connection, DatabaseError> {
    if fs::metadata(copy).doing("reading", copy).map_err(DatabaseError::Scratch)?.len() == 0 {
        return Err(DatabaseError::Empty);
    }
    open(copy)
}

/// How much the kernel is asked for at once.
const PART: i64 = 4 << 20;

/// Has the kernel read the file in its order, as far as it is not in memory, where memory will likely hold it: SQLite goes through a
/// database from the end to the beginning, one page after the other, and there no kernel reads ahead. Whatever cannot be read SQLite
/// finds out.
fn read_in_order(open: &Connection) {
    let (Some(path), Ok(memory)) = (open.path(), sysinfo()) else { return };
    let Ok(file) = fs::File::open(path) else { return };
    let size = file.metadata().map_or(0, |meta| meta.len());
    if size > memory.ram_total() / 2 {
        return;
    }
    let mut at = 0;
    while u64::try_from(at).is_ok_and(|at| at < size) && !open.is_interrupted() {
        let _ = posix_fadvise(&file, at, PART, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
        at += PART;
    }
}

/// Finds its pages whole.
fn whole(open: &Connection) -> Result<(), DatabaseError> {
    read_in_order(open);
    let faults = || -> rusqlite::Result<Vec<String>> {
        let mut statement = open.prepare("PRAGMA integrity_check(5)")?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
        rows.collect()
    };
    let faults = faults().map_err(DatabaseError::Sqlite)?;
    if faults == ["ok"] { Ok(()) } else { Err(DatabaseError::Corrupt(faults.join("; ").replace('\n', "; "))) }
}

/// Only how new a database is, and whose, that is nobody else's.
fn version_of(copy: &Path) -> Result<DatabaseVersion, DatabaseError> {
    version(&open(copy)?)
}

fn open(copy: &Path) -> Result<Connection, DatabaseError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(copy, flags).map_err(DatabaseError::Sqlite)
}

fn version(open: &Connection) -> Result<DatabaseVersion, DatabaseError> {
    fn one<T: rusqlite::types::FromSql>(open: &Connection, sql: &str) -> Result<Option<T>, DatabaseError> {
        match open.query_row(sql, [], |row| row.get(0)).optional() {
            // A database of another make has no such table, or none with such a column.
            Err(
                rusqlite::Error::SqliteFailure(_, Some(text))
                | rusqlite::Error::SqlInputError { msg: text, .. },
            ) if text.starts_with("no such") => Ok(None),
            answer => answer.map(Option::flatten).map_err(DatabaseError::Sqlite),
        }
    }
    let node_id: Option<Vec<u8>> = one(open, "SELECT blobval FROM vars WHERE name = 'node_id'")?;
    Ok(DatabaseVersion {
        data_version: one(open, "SELECT intval FROM vars WHERE name = 'data_version'")?,
        schema_version: one(open, "SELECT version FROM version")?,
        node_id: node_id.map(|bytes| bytes.iter().map(|b| format!("{b:02x}")).collect()),
    })
}

/// Reads how new a database is that nobody uses: where it lies, as [`judge_in_place`] does; or, with a journal beside it, on a copy of both
/// in `scratch`, a directory that is made and removed. Only where the filesystem shares blocks does the copy take no time.
///
/// # Errors
/// It cannot be copied or read.
pub fn version_of_unused(database: &Path, scratch: &Path) -> Result<DatabaseVersion, DatabaseError> {
    match has_journal(database) {
        None => version(&open_in_place(database)?),
        Some(_) => on_scratch(database, scratch, version_of),
    }
}

#[cfg(test)]
mod tests;
