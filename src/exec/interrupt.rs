//! Ctrl-C and SIGTERM become a flag that long work looks at.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Whether the operator asked to stop. Clones share one flag.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// A flag that SIGINT, SIGTERM and SIGHUP raise. A second SIGINT ends the process at once: the journal is made for that.
    ///
    /// # Errors
    /// The kernel refused the handler.
    pub fn on_signals() -> std::io::Result<Self> {
        use signal_hook::{consts::signal, flag};
        let this = Self::default();
        flag::register_conditional_shutdown(signal::SIGINT, 130, Arc::clone(&this.0))?;
        for number in [signal::SIGINT, signal::SIGTERM, signal::SIGHUP] {
            flag::register(number, Arc::clone(&this.0))?;
        }
        Ok(this)
    }

    /// Was it asked?
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Asks, as a signal would.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
