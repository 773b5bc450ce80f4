//! A plan as data, the durable record of how far it got, and the executor that applies, resumes and rolls back.
//!
//! A plan is decided whole before anything changes. It is written to its journal first; then each step is begun, applied, looked at
//! and done, each of these on disk before the next. So a kill at any instant leaves a record that is never behind the machine by
//! more than the one step that was under way, and that step's probe says how far it came.

mod executor;
mod journal;
mod step;
pub mod steps;

pub use executor::{Ended, ExecuteError, Executor, Recheck};
pub use journal::{Journal, JournalError, JournalState, Record, journals};
pub use step::{Context, Outcome, Plan, Probe, Step, StepError, Watch, Work};

/// Where journals are kept, one file an operation.
pub const JOURNAL_DIR: &str = "/var/lib/raidguard/journal";
