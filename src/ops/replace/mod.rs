//! `replace`: another device takes a member's place, and redundancy is proven afterwards.

use std::path::PathBuf;

use super::{Exit, Trouble, setup::Manner};
use crate::{host::Host, ui::Console};

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each was asked for by itself")]
pub struct Request {
    /// The mirror's name, where one was given.
    pub name: Option<String>,
    /// The member that goes, as typed.
    pub old: Option<String>,
    /// The device that comes.
    pub new: PathBuf,
    /// Leave the node running.
    pub online: bool,
    /// Erase what is on the new device.
    pub wipe: bool,
    /// Take one that shares a disk or bridge with another member.
    pub allow_same_disk: bool,
}

/// Runs `replace`.
///
/// # Errors
/// Refused, with every blocker named, or stopped on its way.
pub fn replace(
    _host: &Host,
    _request: &Request,
    _manner: Manner,
    _console: &mut Console,
) -> Result<Exit, Trouble> {
    Err(Trouble::refused("replace is not built yet", "wait for it"))
}
