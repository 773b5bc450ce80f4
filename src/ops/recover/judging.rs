//! SQLite's judgement of the databases that came out, made on a thread of its own as soon as they are there: their pages are still in
//! memory then, and the rest of the copy goes on.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rusqlite::InterruptHandle;

use super::outcome;
use crate::{exec::Interrupt, model::Record, node::Place, ui::NetworkReport};

/// How often SQLite is told to stop until it does.
const TELL_AGAIN: Duration = Duration::from_millis(20);

/// A judgement that is being made, or will be. Dropped before it was asked for, it is broken off, and nothing of it is left.
pub(super) struct Judging {
    places: Sender<Vec<Place>>,
    thread: Option<JoinHandle<Vec<NetworkReport>>>,
    at_work: Arc<Mutex<Option<InterruptHandle>>>,
    /// Nobody wants to know any more.
    stop: Arc<AtomicBool>,
}

impl Judging {
    /// Makes ready for what will come out into `files`. `scratch` is a directory that is made and removed. The thread must not belong to
    /// a mount namespace that is to end before it.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(super) fn ready(files: PathBuf, scratch: PathBuf, record: Option<Record>) -> io::Result<Self> {
        let (places, told) = channel::<Vec<Place>>();
        let at_work = Arc::new(Mutex::new(None));
        let open = Arc::clone(&at_work);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let work = move || {
            let Ok(places) = told.recv() else { return Vec::new() };
            let opened = |db: &rusqlite::Connection| {
                *open.lock().unwrap_or_else(PoisonError::into_inner) = Some(db.get_interrupt_handle());
            };
            let go_on = || !stopped.load(Ordering::Relaxed);
            outcome::networks(&files, &places, record.as_ref(), &scratch, &opened, &go_on)
        };
        let thread = thread::Builder::new().name("judge".to_owned()).spawn(work)?;
        Ok(Self { places, thread: Some(thread), at_work, stop })
    }

    /// What makes the node is there, in these directories.
    pub(super) fn begin(&self, places: &[Place]) {
        // Gone only when it has been begun before.
        let _ = self.places.send(places.to_owned());
    }

    /// Waits for it, or until the operator wants to stop: then not all of it is there.
    pub(super) fn end(mut self, interrupt: &Interrupt) -> Vec<NetworkReport> {
        self.wait(&|| interrupt.is_raised());
        let Some(thread) = self.thread.take() else { return Vec::new() };
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Waits until the thread has ended, and breaks off what it does once `enough` says so.
    fn wait(&mut self, enough: &dyn Fn() -> bool) {
        // Where it was never begun it must not wait.
        self.places = channel().0;
        while self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            if enough() {
                self.stop.store(true, Ordering::Relaxed);
                if let Some(handle) = &*self.at_work.lock().unwrap_or_else(PoisonError::into_inner) {
                    handle.interrupt();
                }
            }
            thread::sleep(TELL_AGAIN);
        }
    }
}

impl Drop for Judging {
    fn drop(&mut self) {
        self.wait(&|| true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn judging(dir: &Path) -> Judging {
        Judging::ready(dir.to_owned(), dir.join("scratch"), None).unwrap()
    }

    /// A database that takes long where it is checked on a copy, as one with a journal is: where it may not be written, SQLite passes its
    /// conditions over.
    fn slow(dir: &Path) {
        crate::node::within::slow(&dir.join("lightningd.sqlite3"));
        std::fs::write(dir.join("lightningd.sqlite3-journal"), "none").unwrap();
    }

    #[test]
    fn nobody_waits_for_what_was_never_begun() {
        let dir = tempfile::tempdir().unwrap();
        drop(judging(dir.path()));
        assert!(judging(dir.path()).end(&Interrupt::default()).is_empty());
    }

    #[test]
    fn a_long_one_is_broken_off() {
        let dir = tempfile::tempdir().unwrap();
        slow(dir.path());
        let judging = judging(dir.path());
        judging.begin(&[Place { directory: "".into(), base: "".into() }]);
        while judging.at_work.lock().unwrap().is_none() {
            thread::sleep(TELL_AGAIN);
        }
        drop(judging);
    }

    #[test]
    fn the_operator_need_not_wait_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let places = ["one", "two"].map(|name| Place { directory: name.into(), base: name.into() });
        for place in &places {
            std::fs::create_dir(dir.path().join(&place.directory)).unwrap();
            slow(&dir.path().join(&place.directory));
        }
        let judging = judging(dir.path());
        judging.begin(&places);
        while judging.at_work.lock().unwrap().is_none() {
            thread::sleep(TELL_AGAIN);
        }
        let began = std::time::Instant::now();
        let stop = Interrupt::default();
        stop.raise();
        let judged = judging.end(&stop);
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
        assert_eq!(judged.len(), 1, "the next one is not begun");
    }
}
