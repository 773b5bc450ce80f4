//! Decides whether a mirror is well: a pure function of what was declared, what was seen and what was known before. Reads nothing.

mod case;
pub mod findings;
pub mod guard;
mod judge;
#[cfg(test)]
mod md_states;
mod rules;
#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod states;
mod tell;
#[cfg(test)]
mod zfs_states;

pub use judge::judge;
pub use rules::{away, failed_writes, kept_by, last_scrub, mismatches};
pub use tell::tell;
