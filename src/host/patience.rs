//! Questions that may never be answered: a dead NFS server, a FUSE filesystem whose program hangs. They are asked by a few threads and
//! waited for until their time is up. Where one hangs, another thread takes the next; a thread that hangs ends with the process.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use crate::exec::Interrupt;

/// How many threads ask as long as none hangs. What most questions wait for is the processor.
const THREADS: usize = 2;
/// After so long without an answer, another thread helps.
const HELP: Duration = Duration::from_millis(50);

type Question = Box<dyn FnOnce() + Send>;

/// Those who ask.
#[derive(Clone, Default)]
pub struct Askers(Arc<Mutex<Queue>>);

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Question>,
    threads: usize,
}

/// A question that is being asked.
pub struct Asked<T> {
    answer: Receiver<T>,
    began: Arc<OnceLock<Instant>>,
    askers: Askers,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// None came in time.
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
    /// The question could not be asked to its end.
    #[error("it could not be asked to its end")]
    Broken,
    /// The operator does not want to wait.
    #[error("it was not waited for any longer")]
    Stopped,
}

impl std::fmt::Debug for Askers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Askers").finish_non_exhaustive()
    }
}

impl<T> std::fmt::Debug for Asked<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asked").field("began", &self.began.get()).finish_non_exhaustive()
    }
}

impl Askers {
    /// Asks as soon as somebody is free to.
    pub fn ask<T: Send + 'static>(&self, question: impl FnOnce() -> T + Send + 'static) -> Asked<T> {
        let (tell, answer) = mpsc::channel();
        let began = Arc::new(OnceLock::new());
        let begins = Arc::clone(&began);
        self.queue().waiting.push_back(Box::new(move || {
            let _ = begins.set(Instant::now());
            // Nobody may want to know any more.
            let _ = tell.send(question());
        }));
        self.help(THREADS);
        Asked { answer, began, askers: self.clone() }
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has one more thread ask, where something waits and there are fewer than `enough`.
    fn help(&self, enough: usize) {
        let mut queue = self.queue();
        if queue.waiting.is_empty() || queue.threads >= enough {
            return;
        }
        queue.threads += 1;
        drop(queue);
        let askers = self.clone();
        let started = thread::Builder::new().spawn(move || {
            let _leaving = Leaving(&askers);
            while let Some(question) = askers.next() {
                question();
            }
        });
        if started.is_err() {
            self.queue().threads -= 1;
        }
    }

    fn next(&self) -> Option<Question> {
        self.queue().waiting.pop_front()
    }
}

/// A thread that leaves makes room for another, however it ends.
struct Leaving<'a>(&'a Askers);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.queue().threads -= 1;
        // What came in between must not wait for nobody.
        self.0.help(THREADS);
    }
}

impl<T> Asked<T> {
    /// The answer, if it comes within `limit` of the asking, and before the operator wants to stop.
    ///
    /// # Errors
    /// It did not.
    pub fn wait(self, limit: Duration, interrupt: &Interrupt) -> Result<T, NoAnswer> {
        let waits = Instant::now();
        loop {
            // One that nobody could even begin with is not waited for much longer than the others.
            let since = self.began.get().copied().unwrap_or(waits);
            let left = limit.saturating_sub(since.elapsed());
            match self.answer.recv_timeout(left.min(HELP)) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Disconnected) => return Err(NoAnswer::Broken),
                Err(RecvTimeoutError::Timeout) if interrupt.is_raised() => return Err(NoAnswer::Stopped),
                Err(RecvTimeoutError::Timeout) if left.is_zero() => return Err(NoAnswer::Late(limit)),
                Err(RecvTimeoutError::Timeout) => self.askers.help(usize::MAX),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_hang_cost_their_limit_and_the_others_nothing() {
        let (_never, hang) = mpsc::channel::<()>();
        let hang = Arc::new(Mutex::new(hang));
        let limit = Duration::from_secs(1);
        let (askers, never) = (Askers::default(), Interrupt::default());
        let stuck: Vec<_> = (0..5)
            .map(|_| {
                let hang = Arc::clone(&hang);
                askers.ask(move || hang.lock().unwrap().recv())
            })
            .collect();
        let well: Vec<_> = (0..100).map(|n| askers.ask(move || n)).collect();
        let broken = askers.ask(|| -> u8 { std::panic::resume_unwind(Box::new(())) });
        let last = askers.ask(|| 42);
        let began = Instant::now();
        for (n, one) in well.into_iter().enumerate() {
            assert_eq!(one.wait(Duration::from_secs(60), &never), Ok(n));
        }
        assert_eq!(broken.wait(Duration::from_secs(60), &never), Err(NoAnswer::Broken));
        assert_eq!(last.wait(Duration::from_secs(60), &never), Ok(42));
        for one in stuck {
            assert!(matches!(one.wait(limit, &never), Err(NoAnswer::Late(_))));
        }
        assert!(began.elapsed() < Duration::from_secs(30), "they hang at the same time");
    }

    #[test]
    fn nobody_waits_once_the_operator_wants_to_stop() {
        let (_never, hang) = mpsc::channel::<()>();
        let stop = Interrupt::default();
        stop.raise();
        let stuck = Askers::default().ask(move || hang.recv());
        assert_eq!(stuck.wait(Duration::from_secs(600), &stop).map(drop), Err(NoAnswer::Stopped));
    }
}
