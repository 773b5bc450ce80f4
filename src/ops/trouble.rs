//! How a verb ends when it does not end well, and the exit codes that scripts rely on.

use std::error::Error;

use crate::{
    host::lock::LockError,
    plan::{ExecuteError, JournalError},
    ui::Problem,
};

/// Exit codes of every verb but `check`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed; what to do next was said.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// A precondition does not hold; nothing was changed.
    Refused = 3,
    /// Done, but redundancy is not full.
    NotFull = 4,
}

/// One thing that stands in the way, and what clears it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// What stands in the way, with its evidence.
    pub says: String,
    /// What the operator can do about it.
    pub clears: String,
}

impl Blocker {
    /// A blocker.
    pub fn new(says: impl Into<String>, clears: impl Into<String>) -> Self {
        Self { says: says.into(), clears: clears.into() }
    }
}

/// Why a verb did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// Preconditions do not hold; nothing was changed.
    #[error("refused: {} in the way, and nothing was changed", things(.0.len()))]
    Refused(Vec<Blocker>),
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// It failed.
    #[error("{what}")]
    Failed {
        /// What failed.
        what: String,
        /// The cause.
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
        /// What to do next, a line each; also what was not lost.
        hints: Vec<String>,
    },
}

fn things(count: usize) -> String {
    if count == 1 { "one thing is".to_owned() } else { format!("{count} things are") }
}

impl Trouble {
    /// A failure with its cause.
    pub fn failed(what: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed { what: what.into(), source: Some(source.into()), hints: Vec::new() }
    }

    /// One blocker.
    pub fn refused(says: impl Into<String>, clears: impl Into<String>) -> Self {
        Self::Refused(vec![Blocker::new(says, clears)])
    }

    /// Adds a line of what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Self::Failed { hints, .. } = &mut self {
            hints.push(hint.into());
        }
        self
    }

    /// Says where the node's files are, all of them.
    #[must_use]
    pub fn keeping(mut self, kept: Option<String>) -> Self {
        if let (Self::Failed { what, .. }, Some(kept)) = (&mut self, kept) {
            *what = format!("{what}: {kept}");
        }
        self
    }

    /// It as it is shown.
    pub fn problem(&self) -> Problem<'_> {
        let headline = self.to_string();
        let none =
            || Problem { headline: headline.clone(), blockers: Vec::new(), cause: None, next: Vec::new() };
        match self {
            Self::Usage(_) => none(),
            Self::Refused(blockers) => Problem {
                blockers: blockers.iter().map(|b| (b.says.as_str(), b.clears.as_str())).collect(),
                ..none()
            },
            Self::Failed { source, hints, .. } => Problem {
                cause: source.as_deref().map(|s| s as &(dyn Error + 'static)),
                next: hints.iter().map(String::as_str).collect(),
                ..none()
            },
        }
    }

    /// The exit code that tells it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Refused(_) => Exit::Refused,
            Self::Usage(_) => Exit::Usage,
            Self::Failed { .. } => Exit::Failed,
        }
    }
}

/// A failure before anything was changed.
pub(super) fn unchanged<E: Into<Box<dyn Error + Send + Sync>>>(what: &str) -> impl FnOnce(E) -> Trouble {
    let what = format!("{what}, so nothing was changed");
    move |e| {
        Trouble::failed(what, e)
            .hint("clear the cause named above, then run it again; nothing has to be undone")
    }
}

/// Refuses anybody but root, before anything else is tried.
pub(super) fn need_root(verb: &str) -> Result<(), Trouble> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Trouble::refused(
        "raidguard changes disks, mounts and system files, and is not root",
        format!("sudo raidguard {verb} ..."),
    ))
}

impl From<LockError> for Trouble {
    fn from(e: LockError) -> Self {
        match e {
            LockError::Held { .. } => Self::refused(e.to_string(), "wait until it has ended"),
            LockError::File(_) => unchanged("the mirror could not be locked")(e),
        }
    }
}

impl From<serde_json::Error> for Trouble {
    fn from(e: serde_json::Error) -> Self {
        Self::failed("the answer could not be written as JSON", e)
    }
}

impl From<JournalError> for Trouble {
    fn from(e: JournalError) -> Self {
        Self::failed("no record could be kept, so nothing further was changed", e)
            .hint("see that /var/lib/raidguard can be written and has room, then try again")
    }
}

/// An execution that was put back after its first step did not succeed.
pub(super) fn not_begun(verb: &str, error: ExecuteError) -> Trouble {
    match error {
        ExecuteError::Step { source, .. } if source.refused => {
            let why = source.source.as_ref().map_or_else(String::new, |cause| format!(": {cause}"));
            let clears = source.hint.clone().unwrap_or_else(|| format!("raidguard {verb} --help"));
            Trouble::refused(format!("{}{why}", source.what), clears)
        }
        ExecuteError::Step { source, .. } => {
            let hint = source.hint.clone();
            let trouble =
                Trouble::failed(format!("{verb} could not begin, and everything is as it was"), source);
            match hint {
                Some(hint) => trouble.hint(hint),
                None => trouble,
            }
        }
        other => stopped(verb, other),
    }
}

/// An interrupted or failed execution of `verb`, with both ways on.
pub fn stopped(verb: &str, error: ExecuteError) -> Trouble {
    match error {
        ExecuteError::TooLate { .. } => Trouble::refused(
            error.to_string(),
            "`raidguard release` copies the newest data back to a plain directory; or go on with --resume",
        ),
        ExecuteError::HasEnded { .. } => Trouble::refused(error.to_string(), "nothing is left to do for it"),
        ExecuteError::RollingBack => {
            Trouble::refused(error.to_string(), format!("raidguard {verb} --rollback"))
        }
        other => {
            let own = match &other {
                ExecuteError::Step { source, .. } | ExecuteError::Undo { source, .. } => source.hint.clone(),
                _ => None,
            };
            let mut trouble =
                Trouble::failed(format!("{verb} stopped on its way, and nothing was lost"), other);
            if let Some(own) = own {
                trouble = trouble.hint(own);
            }
            trouble
                .hint(format!("raidguard {verb} --resume     goes on from here"))
                .hint(format!("raidguard {verb} --rollback   puts everything back as it was before"))
        }
    }
}
