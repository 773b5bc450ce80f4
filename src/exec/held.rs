//! A process that lives for as long as a value does, and no longer, however raidguard ends.

use std::{
    process::Child,
    thread,
    time::{Duration, Instant},
};

/// How long it may take to end when its standard input has come to its end.
const GRACE: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What runs meanwhile. Its standard input is a pipe that nothing is written to: it ends when that does, so also with raidguard.
#[derive(Debug, Default)]
pub struct Held(Option<Child>);

impl Held {
    pub(super) fn new(child: Child) -> Self {
        Self(Some(child))
    }

    /// Does it run?
    pub fn runs(&mut self) -> bool {
        self.0.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(mut child) = self.0.take() else { return };
        drop(child.stdin.take());
        let began = Instant::now();
        while began.elapsed() < GRACE && matches!(child.try_wait(), Ok(None)) {
            thread::sleep(LOOK_AGAIN);
        }
        // One that has ended is not there to be killed.
        let _ = child.kill();
        let _ = child.wait();
    }
}
