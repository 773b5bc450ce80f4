//! A writer that behaves toward its files as lightningd does, and what must be found of its work later.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rusqlite::Connection;

pub(crate) const DATABASE: &str = "lightningd.sqlite3";
/// How many rows stay: the database turns over and does not grow.
const ROWS: u64 = 150;

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Mode {
    Rollback,
    Ahead,
}

impl Mode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rollback => "rollback journal",
            Self::Ahead => "write-ahead log",
        }
    }
}

/// What was acknowledged to the writer: the database's `data_version`, the notes, the generation of the file that is replaced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Acknowledged {
    pub(crate) version: u64,
    pub(crate) notes: u64,
    pub(crate) generation: u64,
}

#[derive(Default)]
struct Shared {
    version: AtomicU64,
    notes: AtomicU64,
    generation: AtomicU64,
    stop: AtomicBool,
}

pub(crate) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Begins to commit in `dir`, which exists, and goes on when there is more than the making of the tables that a cut could take back.
    pub(crate) fn start(dir: &Path, mode: Mode) -> Self {
        let shared = Arc::new(Shared::default());
        let (theirs, dir) = (Arc::clone(&shared), dir.to_owned());
        let db = open(&dir, mode);
        let thread = thread::spawn(move || work(&dir, &db, &theirs));
        while shared.version.load(Ordering::SeqCst) < 2 && !thread.is_finished() {
            thread::sleep(Duration::from_millis(1));
        }
        Self { shared, thread: Some(thread) }
    }

    pub(crate) fn acknowledged(&self) -> Acknowledged {
        Acknowledged {
            version: self.shared.version.load(Ordering::SeqCst),
            notes: self.shared.notes.load(Ordering::SeqCst),
            generation: self.shared.generation.load(Ordering::SeqCst),
        }
    }

    /// What was acknowledged in the end.
    pub(crate) fn stop(mut self) -> Acknowledged {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
        self.acknowledged()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn open(dir: &Path, mode: Mode) -> Connection {
    let db = Connection::open(dir.join(DATABASE)).unwrap();
    let journal = if mode == Mode::Ahead { "wal" } else { "delete" };
    db.pragma_update_and_check(None, "journal_mode", journal, |row| row.get::<_, String>(0)).unwrap();
    // As lightningd leaves it: SQLite's own default.
    db.pragma_update(None, "synchronous", "FULL").unwrap();
    db.execute_batch(
        "BEGIN;
         CREATE TABLE vars(name TEXT, intval INTEGER, blobval BLOB);
         INSERT INTO vars VALUES('data_version', 0, NULL), ('node_id', NULL, x'02ab');
         CREATE TABLE version(version INTEGER); INSERT INTO version VALUES(270);
         CREATE TABLE work(at INTEGER PRIMARY KEY, content BLOB);
         COMMIT;",
    )
    .unwrap();
    db
}

fn work(dir: &Path, db: &Connection, shared: &Shared) {
    let mut version = 0;
    while !shared.stop.load(Ordering::SeqCst) {
        version += 1;
        commit(db, version);
        shared.version.store(version, Ordering::SeqCst);
        if version % 7 == 0 {
            let number = version / 7;
            durable(&dir.join(format!("note {number}")), number);
            shared.notes.store(number, Ordering::SeqCst);
        }
        if version % 11 == 0 {
            let generation = version / 11;
            let new = dir.join("replaced.new");
            durable(&new, generation);
            fs::rename(&new, dir.join("replaced")).unwrap();
            File::open(dir).unwrap().sync_all().unwrap();
            shared.generation.store(generation, Ordering::SeqCst);
        }
    }
}

/// One transaction: what a version stands for is known from the version alone.
pub(crate) fn commit(db: &Connection, version: u64) {
    let number = i64::try_from(version).unwrap();
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    db.execute("UPDATE vars SET intval = ?1 WHERE name = 'data_version'", [number]).unwrap();
    db.execute("INSERT INTO work VALUES(?1, ?2)", (number, content(version))).unwrap();
    db.execute("DELETE FROM work WHERE at <= ?1", [number - ROWS as i64]).unwrap();
    db.execute_batch("COMMIT").unwrap();
}

/// Written, synced, and its name too.
fn durable(path: &Path, number: u64) {
    let mut file = File::create(path).unwrap();
    file.write_all(&content(number)).unwrap();
    file.sync_all().unwrap();
    File::open(path.parent().unwrap()).unwrap().sync_all().unwrap();
}

/// The bytes that go by a number: some fit into the tree, most do not.
pub(crate) fn content(number: u64) -> Vec<u8> {
    let mut bytes = vec![0; 100 + usize::try_from(number * 7919 % 12_000).unwrap()];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// The `data_version` of a database, looked at on a copy with whatever SQLite needs to recover it; or what is wrong with it.
pub(crate) fn version_of(database: &Path) -> Result<u64, String> {
    let scratch = tempfile::tempdir().unwrap();
    let copy = scratch.path().join(DATABASE);
    fs::copy(database, &copy).map_err(|e| format!("{}: {e}", database.display()))?;
    for suffix in ["-journal", "-wal"] {
        let beside = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
        if beside(database).exists() {
            fs::copy(beside(database), beside(&copy)).map_err(|e| format!("{suffix}: {e}"))?;
        }
    }
    let db = Connection::open(&copy).unwrap();
    let sound: String =
        db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).map_err(|e| e.to_string())?;
    if sound != "ok" {
        return Err(sound);
    }
    let number = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(|e| e.to_string());
    let version = number("SELECT intval FROM vars WHERE name = 'data_version'")?.unsigned_abs();
    // A transaction is there whole or not at all.
    let mut statement = db.prepare("SELECT at, content FROM work ORDER BY at").map_err(|e| e.to_string())?;
    let rows = statement
        .query_map([], |row| Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get::<_, Vec<u8>>(1)?)))
        .and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>)
        .map_err(|e| e.to_string())?;
    let expected: Vec<u64> = (version.saturating_sub(ROWS) + 1..=version).collect();
    if rows.iter().map(|(at, _)| *at).ne(expected) || rows.iter().any(|(at, bytes)| *bytes != content(*at)) {
        return Err(format!("its rows are not those of version {version}"));
    }
    Ok(version)
}

/// What is wrong with the files beside the database in `dir`, if anything.
pub(crate) fn files_differ(dir: &Path, acknowledged: &Acknowledged) -> Vec<String> {
    let read = |name: &str| fs::read(dir.join(name)).map_err(|e| format!("{name}: {e}"));
    let note = |number: u64| {
        let name = format!("note {number}");
        read(&name)
            .and_then(|bytes| (bytes == content(number)).then_some(()).ok_or(format!("{name} differs")))
    };
    let mut wrong: Vec<String> = (1..=acknowledged.notes).filter_map(|n| note(n).err()).collect();
    let generation = acknowledged.generation;
    // The next one may be there already.
    match read("replaced") {
        Ok(bytes) if [generation, generation + 1].iter().any(|g| bytes == content(*g)) => {}
        Ok(_) => wrong.push(format!("`replaced` is not of generation {generation}")),
        Err(e) if generation > 0 => wrong.push(e),
        Err(_) => {}
    }
    wrong
}
