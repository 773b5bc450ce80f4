//! One file per verb: gather, decide, show, apply, verify.

pub mod adopt;
mod apart;
pub mod check;
mod deep;
pub mod devices;
pub mod drill;
pub mod execute;
mod explain;
mod guard;
mod maintain;
mod mirrors;
mod notify;
mod observe;
pub mod recover;
pub mod refusal;
pub mod release;
pub mod repair;
pub mod replace;
mod resumed;
mod rule;
pub mod schedule;
pub mod setup;
mod trouble;
mod whole_disk;

pub use apart::{apart, pool_apart};
pub use check::{check, status};
pub use explain::explain;
pub use guard::guard;
pub use maintain::{balance, scrub};
pub use notify::test as notify_test;

pub use trouble::{Blocker, Exit, Trouble, stopped};
