//! A database's check that does not hang: SQLite works on a thread of its own, is told to stop when its time is up or the operator wants
//! it, and is not waited for any longer where it does not even hear that, because the disk does not answer.

use std::{
    path::Path,
    sync::{
        Arc, OnceLock,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use super::database::{self, DatabaseError};
use crate::{exec::Interrupt, model::observed::DatabaseVersion};

/// How often is looked.
const LOOK: Duration = Duration::from_millis(50);
/// How long SQLite may take to stop: it looks between two steps, and one may wait for a disk.
const GRACE: Duration = Duration::from_secs(5);
/// How long the check of an empty database may take.
const LEAST: Duration = Duration::from_secs(600);
/// How much of it is checked in a second at least; a stick that is slow at small reads does many times that.
const SLOWEST: u64 = 1 << 20;

/// How long the check of a database of so many bytes may take.
pub fn limit_for(size: u64) -> Duration {
    LEAST + Duration::from_secs(size / SLOWEST)
}

/// Has SQLite recover and check a database that is nobody else's, within `limit` and until the operator wants to stop.
///
/// # Errors
/// It does not pass, or could not be checked in that time.
pub fn judge_within(
    copy: &Path,
    limit: Duration,
    interrupt: &Interrupt,
) -> Result<DatabaseVersion, DatabaseError> {
    let (tell, told) = mpsc::channel();
    let handle = Arc::new(OnceLock::new());
    let (path, opened) = (copy.to_owned(), Arc::clone(&handle));
    let started = thread::Builder::new().spawn(move || {
        let found = database::judge(&path, |db| drop(opened.set(db.get_interrupt_handle())));
        // Nobody may want to know any more.
        let _ = tell.send(found);
    });
    started.map_err(DatabaseError::Thread)?;
    let began = Instant::now();
    let why = loop {
        match told.recv_timeout(LOOK) {
            Ok(found) => return found,
            Err(RecvTimeoutError::Timeout) if interrupt.is_raised() => break DatabaseError::Stopped,
            Err(RecvTimeoutError::Timeout) if began.elapsed() >= limit => break DatabaseError::Late(limit),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(DatabaseError::Stopped),
        }
    };
    let stopping = Instant::now();
    while stopping.elapsed() < GRACE {
        // Only a statement that runs hears it.
        if let Some(handle) = handle.get() {
            handle.interrupt();
        }
        if !matches!(told.recv_timeout(LOOK), Err(RecvTimeoutError::Timeout)) {
            break;
        }
    }
    Err(why)
}

/// A database that takes minutes to check: each of its rows has a condition of its own that takes long to see.
#[cfg(test)]
pub(crate) fn slow(path: &Path) {
    let db = rusqlite::Connection::open(path).unwrap();
    db.execute_batch(
        "CREATE TABLE slow(x CHECK (instr(replace(hex(zeroblob(1000000 + x)), '0', '00'), '1') = 0));
         PRAGMA ignore_check_constraints = ON;
         INSERT INTO slow WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) SELECT i FROM n;",
    )
    .unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_takes_too_long_is_stopped_and_so_is_one_that_nobody_waits_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lightningd.sqlite3");
        slow(&path);
        let began = Instant::now();
        let late = judge_within(&path, Duration::from_millis(200), &Interrupt::default()).unwrap_err();
        assert!(matches!(late, DatabaseError::Late(_)) && !late.is_fault(), "{late}");
        let stop = Interrupt::default();
        stop.raise();
        let stopped = judge_within(&path, Duration::from_secs(3600), &stop).unwrap_err();
        assert!(matches!(stopped, DatabaseError::Stopped) && !stopped.is_fault(), "{stopped}");
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    }

    #[test]
    fn one_that_is_checked_in_time_says_what_it_always_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lightningd.sqlite3");
        let judge = || judge_within(&path, Duration::from_secs(600), &Interrupt::default());
        rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE vars(name TEXT)").unwrap();
        assert_eq!(judge().unwrap(), DatabaseVersion::default());
        std::fs::write(&path, "").unwrap();
        assert!(matches!(judge(), Err(DatabaseError::Empty)));
    }

    #[test]
    fn a_large_database_is_given_more_time() {
        assert_eq!(limit_for(0), Duration::from_secs(600));
        assert_eq!(limit_for(3 << 30), Duration::from_secs(600 + 3072));
        assert!(limit_for(u64::MAX) > limit_for(1 << 40));
    }
}
