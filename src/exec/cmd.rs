//! A command as a value, and what comes back from it.

use std::{
    borrow::Cow,
    ffi::{OsStr, OsString},
    fmt::Write as _,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{CHANGE_TIMEOUT, PROBE_TIMEOUT};
use crate::model::quote::shell_quote;

/// What a command does to the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It only reads.
    Probe,
    /// It changes something that can be put back.
    Change,
    /// It erases.
    Destroy,
}

/// One command: never a shell line, always an argument vector.
#[derive(Debug, Clone)]
pub struct Cmd {
    pub(super) tool: &'static str,
    pub(super) program: Option<PathBuf>,
    pub(super) args: Vec<OsString>,
    pub(super) effect: Effect,
    pub(super) timeout: Option<Duration>,
    pub(super) accepted: Vec<i32>,
    pub(super) stdin: Option<Vec<u8>>,
    pub(super) spared: bool,
    stdin_in_line: bool,
}

impl Cmd {
    fn new(tool: &'static str, effect: Effect, timeout: Duration) -> Self {
        Self {
            tool,
            program: None,
            args: Vec::new(),
            effect,
            timeout: Some(timeout),
            accepted: vec![0],
            stdin: None,
            spared: false,
            stdin_in_line: true,
        }
    }

    /// A command that only reads, limited to [`PROBE_TIMEOUT`].
    pub fn probe(tool: &'static str) -> Self {
        Self::new(tool, Effect::Probe, PROBE_TIMEOUT)
    }

    /// A command that changes the machine, limited to [`CHANGE_TIMEOUT`].
    pub fn change(tool: &'static str) -> Self {
        Self::new(tool, Effect::Change, CHANGE_TIMEOUT)
    }

    /// A command that erases, limited to [`CHANGE_TIMEOUT`].
    pub fn destroy(tool: &'static str) -> Self {
        Self::new(tool, Effect::Destroy, CHANGE_TIMEOUT)
    }

    /// raidguard itself, run anew from this file, limited to [`CHANGE_TIMEOUT`]. Its line is as it would be typed.
    pub fn raidguard(program: &Path) -> Self {
        Self { program: Some(program.to_owned()), ..Self::new("raidguard", Effect::Change, CHANGE_TIMEOUT) }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item: AsRef<OsStr>>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Accepts these exit codes instead of 0 alone.
    #[must_use]
    pub fn accept(mut self, codes: &[i32]) -> Self {
        self.accepted = codes.to_vec();
        self
    }

    /// Another time limit.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Never ended by us: past its time limit it is left running, and it outlives raidguard. For what may be the node itself.
    #[must_use]
    pub fn spared(mut self) -> Self {
        self.spared = true;
        self
    }

    #[cfg(test)]
    pub(crate) fn is_spared(&self) -> bool {
        self.spared
    }

    /// No time limit: for work whose length nobody can foresee, such as a scrub.
    #[must_use]
    pub fn without_limit(mut self) -> Self {
        self.timeout = None;
        self
    }

    /// What the command reads on its standard input; nothing otherwise.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// As [`Cmd::stdin`], for what is too long for a line of a log: the command's line leaves it out.
    #[must_use]
    pub fn letter(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin_in_line = false;
        self.stdin(bytes)
    }

    /// What the command reads on its standard input.
    pub fn input(&self) -> Option<&[u8]> {
        self.stdin.as_deref()
    }

    /// The tool's name.
    pub fn tool(&self) -> &'static str {
        self.tool
    }

    /// What the command does to the machine.
    pub fn effect(&self) -> Effect {
        self.effect
    }

    /// The command as it would be typed, quoted where a shell needs it.
    pub fn line(&self) -> String {
        let mut line = self.tool.to_owned();
        for arg in &self.args {
            line.push(' ');
            line.push_str(&shell_quote(arg));
        }
        if let Some(bytes) = self.stdin.as_ref().filter(|_| self.stdin_in_line) {
            let _ = write!(line, " <<< {}", shell_quote(OsStr::from_bytes(bytes)));
        }
        line
    }
}

/// What a command that ran to its end left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit code, one of those accepted.
    pub code: i32,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Standard output as text; bytes that are not UTF-8 become U+FFFD.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.stdout)
    }

    /// Standard error as text, likewise.
    pub fn errors(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.stderr)
    }
}

/// How a command failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The tool is in none of the system's directories.
    #[error("it is not installed (looked in {dirs})")]
    Absent {
        /// The directories, joined by colons.
        dirs: String,
    },
    /// The kernel would not start it.
    #[error("it could not be started: {0}")]
    NotStarted(String),
    /// It ended with a code that means failure.
    #[error("it ended with exit code {0}")]
    Code(i32),
    /// A signal ended it.
    #[error("signal {0} ended it")]
    Signal(i32),
    /// It took longer than allowed and was killed with its children.
    #[error("it took longer than {} s and was ended", .0.as_secs())]
    TimedOut(Duration),
    /// It took longer than allowed, and is one that is never ended.
    #[error("it took longer than {} s, and was left running", .0.as_secs())]
    LeftRunning(Duration),
}

/// A command that failed: the line, how, and the end of what it said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{line}` failed: {failure}{}", .said.as_ref().map(|s| format!("; it said: {s}")).unwrap_or_default())]
pub struct CmdError {
    /// The command as it would be typed.
    pub line: String,
    /// How it failed.
    pub failure: Failure,
    /// The last KiB of its standard error, if it said anything.
    pub said: Option<String>,
}

impl CmdError {
    pub(crate) fn new(cmd: &Cmd, failure: Failure, stderr: &[u8]) -> Self {
        let tail = stderr.get(stderr.len().saturating_sub(1024)..).unwrap_or(stderr);
        let said = String::from_utf8_lossy(tail).trim().to_owned();
        Self { line: cmd.line(), failure, said: (!said.is_empty()).then_some(said) }
    }

    /// The exit code, where it ended with one.
    pub fn code(&self) -> Option<i32> {
        match self.failure {
            Failure::Code(code) => Some(code),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_can_be_pasted_into_a_shell() {
        let cmd = Cmd::change("mkfs.btrfs").args(["-L", "my mirror", "it's", "", "a\nb"]).arg("/dev/sdb1");
        assert_eq!(cmd.line(), r"mkfs.btrfs -L 'my mirror' 'it'\''s' '' $'a\nb' /dev/sdb1");
    }

    #[test]
    fn an_error_carries_only_the_end_of_what_was_said() {
        let long = [b"x".repeat(5000), b"the reason\n".to_vec()].concat();
        let error = CmdError::new(&Cmd::probe("lsblk"), Failure::Code(1), &long);
        assert_eq!(error.said.as_ref().map(String::len), Some(1023));
        assert!(error.to_string().ends_with("the reason"));
    }
}
