//! A copy of a database that a node is writing to, where the filesystem has no snapshots: taken without a lock, and proven to be of one
//! instant by nothing having changed while it was made.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};

use super::{
    database::{self, DatabaseError, PARTS, part},
    within::{judge_within, limit_for},
};
use crate::{
    host::{
        Host,
        files::{Doing as _, FileError},
    },
    model::observed::DatabaseVersion,
};

/// How coarse the times of files may be: one tick of the slowest kernel is 10 ms. A change within the tick of the one before it would not
/// be seen, so the last must be older than that.
const TICK: SignedDuration = SignedDuration::from_millis(20);
/// How often it is tried, and how long is waited in between.
const TRIES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(25);

/// What would be another if somebody had written: each part's inode, size and times.
type Marks = Vec<Option<(u64, u64, i64, i64, i64, i64)>>;

fn marks(database: &Path) -> Result<Marks, FileError> {
    let mark = |suffix: &&str| {
        let path = part(database, suffix);
        match fs::metadata(&path) {
            Ok(m) => Ok(Some((m.ino(), m.size(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).doing("looking at", path),
        }
    };
    PARTS.iter().map(mark).collect()
}

/// Has nothing been written for longer than a tick?
fn is_quiet(marks: &Marks, now: Timestamp) -> bool {
    let changed = |(.., seconds, nanos): &(u64, u64, i64, i64, i64, i64)| {
        let at = Timestamp::new(*seconds, i32::try_from(*nanos).unwrap_or_default()).ok()?;
        Some(now.duration_since(at) > TICK)
    };
    marks.iter().flatten().all(|mark| changed(mark).unwrap_or(false))
}

/// Copies the database with its journal into `scratch`, a directory that is made and removed, until the copy is of one instant, and has
/// SQLite recover and check it there. Nothing is locked where it lies.
///
/// # Errors
/// It does not pass, could not be checked in the time that its size allows, or is written to without a pause.
pub fn judge(host: &Host, database: &Path, scratch: &Path) -> Result<DatabaseVersion, DatabaseError> {
    let (began, limit) = (Instant::now(), limit_for(database::scratch_size(database)));
    for _ in 0..TRIES {
        if host.interrupt().is_raised() {
            return Err(DatabaseError::Stopped);
        }
        let Some(left) = limit.checked_sub(began.elapsed()) else { return Err(DatabaseError::Late(limit)) };
        let before = marks(database).map_err(DatabaseError::Scratch)?;
        if !is_quiet(&before, host.now()) {
            thread::sleep(PAUSE);
            continue;
        }
        let found = database::on_scratch(database, scratch, |copy| {
            let after = marks(database).map_err(DatabaseError::Scratch)?;
            if after == before { judge_within(copy, left, host.interrupt()).map(Some) } else { Ok(None) }
        })?;
        if let Some(version) = found {
            return Ok(version);
        }
    }
    Err(io::Error::other("it is written to without a pause, so no copy is of one instant"))
        .doing("copying", database)
        .map_err(DatabaseError::Scratch)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::exec::ScriptedRunner;

    fn host(now: Timestamp) -> Host {
        Host::captured("/", Arc::new(ScriptedRunner::new()), now)
    }

    fn changed_at(path: &Path) -> Timestamp {
        let meta = fs::metadata(path).unwrap();
        Timestamp::new(meta.ctime(), i32::try_from(meta.ctime_nsec()).unwrap()).unwrap()
    }

    #[test]
    fn a_quiet_database_is_judged_and_one_that_was_just_written_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (path, scratch) = (dir.path().join("lightningd.sqlite3"), dir.path().join("scratch"));
        let db = rusqlite::Connection::open(&path).unwrap();
        db.execute_batch("CREATE TABLE vars(name TEXT, intval INTEGER, blobval BLOB); INSERT INTO vars VALUES('data_version', 7, NULL)")
            .unwrap();
        drop(db);
        let later = changed_at(&path) + SignedDuration::from_secs(1);
        assert_eq!(judge(&host(later), &path, &scratch).unwrap().data_version, Some(7));
        assert!(!scratch.exists());
        // By a clock that stands still at the moment of the last write it never is quiet.
        let at_once = judge(&host(changed_at(&path)), &path, &scratch).unwrap_err();
        assert!(!at_once.is_fault() && !scratch.exists(), "{at_once:?}");
        fs::write(&path, "garbage").unwrap();
        let later = changed_at(&path) + SignedDuration::from_secs(1);
        assert!(judge(&host(later), &path, &scratch).unwrap_err().is_fault());
    }

    #[test]
    fn whoever_stops_it_is_heard_before_and_while_it_is_judged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lightningd.sqlite3");
        crate::node::within::slow(&path);
        let host = host(changed_at(&path) + SignedDuration::from_secs(1));
        let scratch = dir.path().join("scratch");
        let began = Instant::now();
        thread::scope(|scope| {
            scope.spawn(|| {
                while !scratch.exists() {
                    thread::sleep(PAUSE);
                }
                host.interrupt().raise();
            });
            let stopped = judge(&host, &path, &scratch);
            assert!(matches!(stopped, Err(DatabaseError::Stopped)), "{stopped:?}");
        });
        assert!(matches!(judge(&host, &path, &scratch), Err(DatabaseError::Stopped)));
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
        assert!(!scratch.exists());
    }

    #[test]
    fn whatever_is_written_leaves_a_mark() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        fs::write(&path, "one").unwrap();
        let before = marks(&path).unwrap();
        assert_eq!(marks(&path).unwrap(), before);
        fs::write(dir.path().join("db-journal"), "").unwrap();
        let with_journal = marks(&path).unwrap();
        assert_ne!(with_journal, before);
        fs::remove_file(dir.path().join("db-journal")).unwrap();
        assert_eq!(marks(&path).unwrap(), before);
    }
}
