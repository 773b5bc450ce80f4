//! Everything that was run and said, for whoever has to find out why a step failed.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use crate::{
    exec::{CmdError, Output},
    host::{
        Host,
        files::{self, FileError},
    },
};

/// The text so far.
#[derive(Debug, Default)]
pub(super) struct Log(String);

impl Log {
    /// A line of the drill's own.
    pub(super) fn note(&mut self, text: &str) {
        let _ = writeln!(self.0, "{text}");
    }

    /// A command, with what it answered.
    pub(super) fn ran(&mut self, line: &str, result: &Result<Output, CmdError>) {
        let _ = writeln!(self.0, "\n$ {line}");
        match result {
            Ok(output) => {
                let _ = write!(self.0, "{}{}", output.errors(), output.text());
                let _ = writeln!(self.0, "[exit code {}]", output.code);
            }
            Err(e) => {
                let _ = writeln!(self.0, "[{e}]");
            }
        }
    }

    /// Keeps it in a file of its own in this directory.
    pub(super) fn keep(&self, host: &Host, dir: &Path) -> Result<PathBuf, FileError> {
        let when = host.now().strftime("%Y%m%dT%H%M%SZ");
        let path = dir.join(format!("raidguard-drill-{when}.log"));
        files::replace(&path, self.0.as_bytes(), 0o600)?;
        Ok(path)
    }
}
