//! `drill`: the bad day, rehearsed on disks that are thrown away.

use std::path::PathBuf;

use super::{Exit, Trouble};
use crate::{host::Host, ui::Console};

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Wait for a key before each step.
    pub step: bool,
    /// Where the throw-away disks are kept.
    pub scratch: PathBuf,
    /// Print JSON.
    pub json: bool,
}

/// Runs `drill`.
///
/// # Errors
/// Refused, or a step did not do what it should.
pub fn drill(_host: &Host, _request: &Request, _console: &mut Console) -> Result<Exit, Trouble> {
    Err(Trouble::refused("drill is not built yet", "wait for it"))
}
