//! One file per verb: gather, decide, show, apply, verify.

mod trouble;

pub use trouble::{Blocker, Exit, Trouble, stopped};
