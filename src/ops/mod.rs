//! One file per verb: gather, decide, show, apply, verify.

mod check;
pub mod devices;
pub mod execute;
mod maintain;
mod mirrors;
pub mod refusal;
pub mod release;
pub mod schedule;
pub mod setup;
mod trouble;

pub use check::{check, status};
pub use maintain::{balance, scrub};

pub use trouble::{Blocker, Exit, Trouble, stopped};
