//! `recover`: the node's files off what is left of a mirror, the newest there is, and nothing written to a survivor.

use std::path::PathBuf;

use super::{Exit, Trouble};
use crate::{host::Host, ui::Console};

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each was asked for by itself")]
pub struct Request {
    /// The survivors that were named; none where every one is to be found.
    pub from: Vec<PathBuf>,
    /// Where the files go.
    pub to: PathBuf,
    /// Everything rather than what makes the node.
    pub all: bool,
    /// Where the overlay keeps what it takes.
    pub scratch: PathBuf,
    /// Whether a state that may be old is better than none.
    pub allow_old: bool,
    /// Do not ask.
    pub yes: bool,
    /// Print JSON.
    pub json: bool,
}

/// Runs `recover`.
///
/// # Errors
/// Refused, or it could not bring out what was asked for.
pub fn recover(_host: &Host, _request: &Request, _console: &mut Console) -> Result<Exit, Trouble> {
    Err(Trouble::refused("recover is not built yet", "wait for it"))
}
