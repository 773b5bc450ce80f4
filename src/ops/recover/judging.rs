//! SQLite's judgement of the databases that came out, made on a thread of its own as soon as they are there: their pages are still in
//! memory then, and the rest of the copy goes on.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rusqlite::InterruptHandle;

use super::outcome;
use crate::{model::Record, node::Place, ui::NetworkReport};

/// How often SQLite is told to stop until it does.
const TELL_AGAIN: Duration = Duration::from_millis(20);

/// A judgement that is being made, or will be. Dropped before it was asked for, it is broken off, and nothing of it is left.
pub(super) struct Judging {
    places: Sender<Vec<Place>>,
    thread: Option<JoinHandle<Vec<NetworkReport>>>,
    at_work: Arc<Mutex<Option<InterruptHandle>>>,
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
        let work = move || {
            let Ok(places) = told.recv() else { return Vec::new() };
            let opened = |db: &rusqlite::Connection| {
                *open.lock().unwrap_or_else(PoisonError::into_inner) = Some(db.get_interrupt_handle());
            };
            outcome::networks(&files, &places, record.as_ref(), &scratch, &opened)
        };
        let thread = thread::Builder::new().name("judge".to_owned()).spawn(work)?;
        Ok(Self { places, thread: Some(thread), at_work })
    }

    /// What makes the node is there, in these directories.
    pub(super) fn begin(&self, places: &[Place]) {
        // Gone only when it has been begun before.
        let _ = self.places.send(places.to_owned());
    }

    /// Waits for it.
    pub(super) fn end(mut self) -> Vec<NetworkReport> {
        self.join()
    }

    fn join(&mut self) -> Vec<NetworkReport> {
        // Where it was never begun it must not wait.
        self.places = channel().0;
        let Some(thread) = self.thread.take() else { return Vec::new() };
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Judging {
    fn drop(&mut self) {
        self.places = channel().0;
        while self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            if let Some(handle) = &*self.at_work.lock().unwrap_or_else(PoisonError::into_inner) {
                handle.interrupt();
            }
            thread::sleep(TELL_AGAIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn judging(dir: &Path) -> Judging {
        Judging::ready(dir.to_owned(), dir.join("scratch"), None).unwrap()
    }

    #[test]
    fn nobody_waits_for_what_was_never_begun() {
        let dir = tempfile::tempdir().unwrap();
        drop(judging(dir.path()));
        assert!(judging(dir.path()).end().is_empty());
    }

    #[test]
    fn a_long_one_is_broken_off() {
        let dir = tempfile::tempdir().unwrap();
        crate::node::within::slow(&dir.path().join("lightningd.sqlite3"));
        let judging = judging(dir.path());
        judging.begin(&[Place { directory: "".into(), base: "".into() }]);
        while judging.at_work.lock().unwrap().is_none() {
            thread::sleep(TELL_AGAIN);
        }
        drop(judging);
    }
}
