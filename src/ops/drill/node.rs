//! The node that is rehearsed with: files as a Lightning node has them, with names that are awkward on purpose, and somebody who commits
//! to its database.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileExt as _, PermissionsExt as _, lchown, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rusqlite::Connection;

use super::rehearsal::Rehearsal;
use crate::model::NodeKind;

/// Where it lies, as seen by those in the drill.
pub(super) const DIRECTORY: &str = "/home/bitcoin/.lightning";
/// Rows of 4,000 bytes: 200 MiB.
const ROWS: u32 = 52_000;
/// Between two commits.
const PAUSE: Duration = Duration::from_millis(20);
/// Nobody's, most likely; only a number in here.
const OWNER: u32 = 1000;

/// Why the node could not be made or does not work.
#[derive(Debug, thiserror::Error)]
pub(super) enum NodeError {
    #[error("the made-up node's files cannot be written")]
    Files(#[from] io::Error),
    #[error("the made-up node's database refuses")]
    Sqlite(#[from] rusqlite::Error),
}

/// Makes the node's directory.
pub(super) fn make(rehearsal: &Rehearsal) -> Result<(), NodeError> {
    let node = Path::new(DIRECTORY);
    let net = match rehearsal.kind {
        NodeKind::CoreLightning => node.join("bitcoin"),
        NodeKind::Generic => node.to_owned(),
    };
    fs::create_dir_all(net.join("notes of mine"))?;
    database(&node.join(rehearsal.database()))?;
    // A directory of any kind has no files of a node's name: a node without a database would be something else.
    let (secret, copy, more) = match rehearsal.kind {
        NodeKind::CoreLightning => ("hsm_secret", "hsm_secret (hard link)", "emergency.recover"),
        NodeKind::Generic => ("key", "key (hard link)", "blob"),
    };
    let secret = net.join(secret);
    fs::write(&secret, random(32)?)?;
    fs::set_permissions(&secret, Permissions::from_mode(0o400))?;
    fs::hard_link(&secret, net.join(copy))?;
    fs::write(net.join(more), random(700)?)?;
    fs::write(net.join("notes of mine/a name\nof two lines"), "bitcoin only\n")?;
    fs::write(net.join(std::ffi::OsStr::from_bytes(b"caf\xe9")), "no UTF-8\n")?;
    fs::write(node.join("config"), "network=bitcoin\n")?;
    symlink(rehearsal.database(), node.join("database"))?;
    let holes = File::create(net.join("mostly holes"))?;
    holes.write_all_at(b"an island", 6 << 20)?;
    holes.set_len(8 << 20)?;
    // As a node that has ended leaves it behind.
    drop(UnixListener::bind(net.join("lightning-rpc"))?);
    fs::set_permissions(node, Permissions::from_mode(0o700))?;
    own(node)
}

fn random(bytes: usize) -> io::Result<Vec<u8>> {
    use io::Read as _;
    let mut out = vec![0; bytes];
    File::open("/dev/urandom")?.read_exact(&mut out)?;
    Ok(out)
}

fn own(path: &Path) -> Result<(), NodeError> {
    lchown(path, Some(OWNER), Some(OWNER))?;
    if !path.is_symlink() && path.is_dir() {
        for entry in fs::read_dir(path)? {
            own(&entry?.path())?;
        }
    }
    Ok(())
}

/// The tables that raidguard knows of Core Lightning's, and ballast.
fn database(path: &Path) -> Result<(), NodeError> {
    let mut open = Connection::open(path)?;
    open.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")?;
    let all = open.transaction()?;
    all.execute_batch(
        "CREATE TABLE version (version INTEGER);
         INSERT INTO version VALUES (270);
         CREATE TABLE vars (name TEXT PRIMARY KEY, val TEXT, intval INTEGER, blobval BLOB);
         INSERT INTO vars (name, intval) VALUES ('data_version', 123456);
         INSERT INTO vars (name, blobval) VALUES ('node_id', CAST(x'02' || randomblob(32) AS BLOB));
         CREATE TABLE htlc_sigs (id INTEGER PRIMARY KEY, signature BLOB);",
    )?;
    {
        let mut insert = all.prepare("INSERT INTO htlc_sigs VALUES (?1, randomblob(4000))")?;
        for id in 0..ROWS {
            insert.execute([id])?;
        }
    }
    all.commit()?;
    Ok(())
}

/// Commits to the node's database until it is stopped.
#[derive(Debug)]
pub(super) struct Writer {
    stop: Arc<AtomicBool>,
    committed: Arc<AtomicI64>,
    between: Arc<Mutex<()>>,
    thread: Option<JoinHandle<Result<(), NodeError>>>,
}

impl Writer {
    /// Begins. In the mount namespace of the thread that asks.
    pub(super) fn start(database: PathBuf) -> Result<Self, NodeError> {
        let (stop, committed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
        let between = Arc::new(Mutex::new(()));
        let (told, done, turn) = (Arc::clone(&stop), Arc::clone(&committed), Arc::clone(&between));
        let work = move || {
            let open = Connection::open(&database)?;
            // The journal's end is on the disk too before a commit counts (sqlite.org, PRAGMA synchronous): what is acknowledged here
            // must be there after a power cut.
            open.execute_batch("PRAGMA synchronous = EXTRA;")?;
            let mut update = open.prepare(
                "UPDATE vars SET intval = intval + 1 WHERE name = 'data_version' RETURNING intval",
            )?;
            while !told.load(Ordering::Relaxed) {
                let working = turn.lock().unwrap_or_else(PoisonError::into_inner);
                let version = update.query_map([], |row| row.get(0))?.last().transpose()?.unwrap_or_default();
                done.store(version, Ordering::Release);
                drop(working);
                thread::sleep(PAUSE);
            }
            Ok(())
        };
        let thread = thread::Builder::new().name("node".to_owned()).spawn(work)?;
        Ok(Self { stop, committed, between, thread: Some(thread) })
    }

    /// Between two commits: the next one waits for as long as this is held.
    pub(super) fn between(&self) -> MutexGuard<'_, ()> {
        self.between.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest that was acknowledged; 0 where nothing was yet.
    pub(super) fn committed(&self) -> i64 {
        self.committed.load(Ordering::Acquire)
    }

    /// Whether it has ended by itself, which it only does on an error.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops it after the commit that is under way. Returns the newest that was acknowledged.
    pub(super) fn stop(mut self) -> Result<i64, NodeError> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(self.committed())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_acknowledged_is_in_the_database() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lightningd.sqlite3");
        let open = Connection::open(&path).unwrap();
        open.execute_batch(
            "CREATE TABLE vars (name TEXT PRIMARY KEY, intval INTEGER); INSERT INTO vars VALUES ('data_version', 7);",
        )
        .unwrap();
        let writer = Writer::start(path.clone()).unwrap();
        while writer.committed() < 10 {
            assert!(!writer.has_ended());
            thread::sleep(Duration::from_millis(5));
        }
        let last = writer.stop().unwrap();
        let there: i64 = open.query_row("SELECT intval FROM vars", [], |row| row.get(0)).unwrap();
        assert_eq!(there, last);
        assert!(last >= 10);
    }

    #[test]
    fn one_that_cannot_commit_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let writer = Writer::start(dir.path().join("none/none")).unwrap();
        while !writer.has_ended() {
            thread::sleep(Duration::from_millis(5));
        }
        assert!(matches!(writer.stop(), Err(NodeError::Sqlite(_))));
    }
}
