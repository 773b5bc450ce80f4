//! A plan as data, the durable record of how far it got, and the executor that applies, resumes and rolls back.
//!
//! A plan is decided whole before anything changes. It is written to its journal first; then each step is begun, applied, looked at
//! and done, each of these on disk before the next. So a kill at any instant leaves a record that is never behind the machine by
//! more than the one step that was under way, and that step's probe says how far it came.

mod executor;
mod journal;
mod names;
mod step;
pub mod steps;

pub use executor::{Ended, ExecuteError, Executor, Recheck};
pub use journal::{Journal, JournalError, JournalState, Record, journals};
pub use names::Renamed;
pub use step::{Context, Outcome, Plan, Probe, Step, StepError, Watch, Work};

/// The name of an operation: date, verb and mirror.
pub fn id_of(verb: &str, mirror: &str, created: jiff::Timestamp) -> String {
    format!("{}-{verb}-{mirror}", created.strftime("%Y%m%dT%H%M%SZ"))
}

/// Where an operation keeps a record beside its journal.
pub fn record_of(id: &str, ending: &str) -> std::path::PathBuf {
    std::path::Path::new(JOURNAL_DIR).join(format!("{id}.{ending}"))
}

/// Where journals are kept, one file an operation.
pub const JOURNAL_DIR: &str = "/var/lib/raidguard/journal";
