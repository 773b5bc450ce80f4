//! A sign of life after each check: whoever waits for it notices silence.

use std::{fmt, io, path::PathBuf};

use jiff::Timestamp;

use super::{Limits, SendError, http};
use crate::{
    host::{
        Host,
        files::{self, Doing as _},
    },
    model::Severity,
};

pub(super) const NAME: &str = "heartbeat";

/// An address that is asked for, a file that is written anew, or both.
#[derive(Clone, PartialEq, Eq)]
pub struct Heartbeat {
    url: Option<String>,
    file: Option<PathBuf>,
}

impl fmt::Debug for Heartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heartbeat").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Heartbeat {
    /// The name by which it is known among the channels.
    pub const NAME: &'static str = NAME;

    pub(super) fn of(url: Option<String>, file: Option<PathBuf>) -> Option<Self> {
        (url.is_some() || file.is_some()).then_some(Self { url, file })
    }

    /// Gives the sign: a check ran to its end at `now` with this verdict.
    ///
    /// # Errors
    /// One of them failed; both were tried.
    pub fn beat(
        &self,
        host: &Host,
        now: Timestamp,
        verdict: Severity,
        limits: Limits,
    ) -> Result<(), SendError> {
        let written = self.file.as_ref().map_or(Ok(()), |file| {
            let line = format!("{now:.0} {verdict}\n");
            files::replace(&host.path(file), line.as_bytes(), 0o644).map_err(SendError::File)
        });
        self.ask(host, limits).and(written)
    }

    /// Tries it without a check: the address is asked for, the file is left as it is.
    ///
    /// # Errors
    /// One of them would fail.
    pub fn try_out(&self, host: &Host, limits: Limits) -> Result<(), SendError> {
        let writable = self.file.as_ref().map_or(Ok(()), |file| {
            let file = host.path(file);
            let dir = files::parent(&file);
            let tried = tempfile::tempfile_in(dir).map(drop).doing("creating a file in", dir);
            let plain = if file.is_dir() { Err(io::ErrorKind::IsADirectory.into()) } else { Ok(()) };
            tried.and(plain.doing("replacing", &file)).map_err(SendError::File)
        });
        self.ask(host, limits).and(writable)
    }

    fn ask(&self, host: &Host, limits: Limits) -> Result<(), SendError> {
        let Some(url) = &self.url else { return Ok(()) };
        let request = http::Request { url, token: None, message: None };
        Ok(http::ask(host, &request, http::Roots::OfTheMachine, limits.http)?)
    }
}
