//! Questions that may never be answered: a dead NFS server, a FUSE filesystem whose program hangs. Each is asked on a thread of its own
//! and waited for until its time is up; a thread that hangs ends with the process.

use std::{
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

/// A question that is being asked.
#[derive(Debug)]
pub struct Asked<T> {
    answer: Receiver<T>,
    began: Instant,
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
}

/// Asks on a thread.
pub fn ask<T: Send + 'static>(question: impl FnOnce() -> T + Send + 'static) -> Asked<T> {
    let (tell, answer) = mpsc::channel();
    // Where no thread can be had, nobody tells, and the answer is that it is broken.
    let _ = thread::Builder::new().spawn(move || tell.send(question()));
    Asked { answer, began: Instant::now() }
}

impl<T> Asked<T> {
    /// The answer, if it comes within `limit` of the asking.
    ///
    /// # Errors
    /// It did not.
    pub fn wait(self, limit: Duration) -> Result<T, NoAnswer> {
        match self.answer.recv_timeout(limit.saturating_sub(self.began.elapsed())) {
            Ok(answer) => Ok(answer),
            Err(RecvTimeoutError::Timeout) => Err(NoAnswer::Late(limit)),
            Err(RecvTimeoutError::Disconnected) => Err(NoAnswer::Broken),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_hangs_costs_its_limit_and_the_others_nothing() {
        let (_never, hang) = mpsc::channel::<()>();
        let limit = Duration::from_millis(200);
        let stuck = ask(move || hang.recv());
        let well = ask(|| 42);
        let broken = ask(|| -> u8 { std::panic::resume_unwind(Box::new(())) });
        assert!(matches!(stuck.wait(limit), Err(NoAnswer::Late(_))));
        assert_eq!(well.wait(limit), Ok(42));
        assert_eq!(broken.wait(limit), Err(NoAnswer::Broken));
    }
}
