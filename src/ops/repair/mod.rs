//! `repair`: a member that was away comes back, the declared level is restored, what rotted is mended or named.

use std::path::PathBuf;

use super::{Exit, Trouble, setup::Manner};
use crate::{host::Host, ui::Console};

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The mirror's name, where one was given.
    pub name: Option<String>,
    /// Of two halves that were each written alone: the one that is given up.
    pub discard: Option<PathBuf>,
    /// Print JSON.
    pub json: bool,
}

/// Runs `repair`.
///
/// # Errors
/// Refused, or something could not be put right.
pub fn repair(
    _host: &Host,
    _request: &Request,
    _manner: Manner,
    _console: &mut Console,
) -> Result<Exit, Trouble> {
    Err(Trouble::refused("repair is not built yet", "wait for it"))
}
