//! Deep checks beside a node at work: no commit fails, and none waits longer than commits do beside a plain check.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rusqlite::{Connection, params};

use crate::{
    check::{finds, set_up},
    sandbox::{Sandbox, isolated, note},
};

const DATABASE: &str = "/srv/lightning/lightning/bitcoin/lightningd.sqlite3";
const CHECKS: usize = 200;
/// Nothing that only takes its time takes so long.
const HANG: Duration = Duration::from_secs(5);

/// Commits every few milliseconds, durably, and waits for no lock: as lightningd's connection does, which has no busy timeout.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Writer {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let db = Connection::open(DATABASE).unwrap();
            db.busy_timeout(Duration::ZERO).unwrap();
            db.pragma_update(None, "synchronous", "FULL").unwrap();
            let mut took = Vec::new();
            while !end.load(Ordering::Relaxed) {
                let began = Instant::now();
                // Not one may fail.
                db.execute_batch("BEGIN IMMEDIATE").unwrap();
                db.execute("UPDATE vars SET intval = intval + 1 WHERE name = 'data_version'", []).unwrap();
                db.execute("INSERT INTO p VALUES (randomblob(?1))", params![700 + took.len() % 900]).unwrap();
                db.execute("DELETE FROM p WHERE rowid = (SELECT min(rowid) FROM p)", []).unwrap();
                db.execute_batch("COMMIT").unwrap();
                took.push(began.elapsed());
                thread::sleep(Duration::from_millis(3));
            }
            took
        });
        Self { stop, thread }
    }

    /// How long each commit took, the quickest first.
    fn stop(self) -> Vec<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        let mut took = self.thread.join().unwrap();
        took.sort();
        took
    }
}

/// Commits beside so many checks.
fn beside(s: &Sandbox, args: &[&str], checks: usize) -> Vec<Duration> {
    let writer = Writer::start();
    for _ in 0..checks {
        let ran = s.run(args);
        assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    }
    writer.stop()
}

fn part(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() - 1) * percent / 100]
}

fn runs_through(s: &Sandbox, mode: &str) {
    let set: String = Connection::open(DATABASE)
        .unwrap()
        .pragma_update_and_check(None, "journal_mode", mode, |row| row.get(0))
        .unwrap();
    assert_eq!(set, mode);
    let plain = beside(s, &["check"], CHECKS);
    let deep = beside(s, &["check", "--deep"], CHECKS);
    assert!(deep.len() > CHECKS, "{} commits", deep.len());
    assert!(deep[deep.len() - 1] < HANG, "a commit took {:?}", deep[deep.len() - 1]);
    let ratio = |percent| part(&deep, percent).as_secs_f64() / part(&plain, percent).as_secs_f64();
    note(format!(
        "journal_mode={mode}: {} commits beside {CHECKS} deep checks, none failed; against {} beside plain ones they took {:.2} (median), \
         {:.2} (99 %), {:.2} (longest, {} ms)",
        deep.len(),
        plain.len(),
        ratio(50),
        ratio(99),
        ratio(100),
        deep[deep.len() - 1].as_millis()
    ));
    finds(s, &["--deep"], 0, &[]);
}

#[test]
fn a_node_at_work_does_not_notice_deep_checks() {
    isolated("live::a_node_at_work_does_not_notice_deep_checks", |s| {
        set_up(s);
        runs_through(s, "delete");
        runs_through(s, "wal");
    });
}
