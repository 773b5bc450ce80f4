//! One change, and what a change must be able to do: say itself, look, apply, undo.

use std::error::Error;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    host::Host,
    model::{Bytes, Identity},
};

/// What looking at the machine says about a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// It holds already.
    Done,
    /// It is still to be done, wholly or in part.
    Pending,
    /// It cannot be done as things are, and why.
    Blocked(String),
}

/// What a step did, for the record and for people: `made subvolume /srv/lightning/lightning`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Facts worth keeping, one a line.
    pub notes: Vec<String>,
}

impl Outcome {
    /// An outcome with one note.
    pub fn note(text: impl Into<String>) -> Self {
        Self { notes: vec![text.into()] }
    }
}

/// Long work under way: how much of how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Bytes done.
    pub done: Bytes,
    /// Bytes in all.
    pub total: Bytes,
}

/// Looks on while a plan is carried out: the terminal, a log, a test.
pub trait Watch {
    /// A plan begins, or is taken up again.
    fn plan(&mut self, _titles: &[String], _resumed: bool) {}
    /// Step `index` begins.
    fn begin(&mut self, _index: usize, _title: &str) {}
    /// Work within the step goes on.
    fn work(&mut self, _work: Work) {}
    /// The step waits for something, in words.
    fn waiting(&mut self, _what: &str) {}
    /// The step ended well; `fresh` is false where it was found done.
    fn done(&mut self, _index: usize, _title: &str, _outcome: &Outcome, _fresh: bool) {}
    /// Step `index` was put back.
    fn undone(&mut self, _index: usize, _title: &str) {}
    /// The step failed.
    fn failed(&mut self, _index: usize, _title: &str) {}
}

/// Nobody looks.
impl Watch for () {}

/// What a step may use.
pub struct Context<'a> {
    /// The machine.
    pub host: &'a Host,
    /// Who looks on.
    pub watch: &'a mut dyn Watch,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("host", self.host).finish_non_exhaustive()
    }
}

/// Why a step did not do what it should.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct StepError {
    /// What failed, on which object.
    pub what: String,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
    /// What to do next.
    pub hint: Option<String>,
    /// The operator asked to stop: nothing is wrong.
    pub interrupted: bool,
    /// A precondition does not hold: nothing was tried.
    pub refused: bool,
}

impl StepError {
    /// A failure with its cause.
    pub fn failed(what: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..Self::refused(what) }.tried()
    }

    /// A precondition that does not hold.
    pub fn refused(what: impl Into<String>) -> Self {
        Self { what: what.into(), source: None, hint: None, interrupted: false, refused: true }
    }

    /// Something that was tried and did not come out as it must, with no further cause.
    pub fn wrong(what: impl Into<String>) -> Self {
        Self::refused(what).tried()
    }

    /// The operator asked to stop.
    pub fn interrupted(during: impl Into<String>) -> Self {
        Self { interrupted: true, ..Self::refused(during).tried() }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn tried(mut self) -> Self {
        self.refused = false;
        self
    }
}

/// One change. It is data: everything it needs was decided when the plan was made.
pub trait Step: std::fmt::Debug {
    /// What it says to the operator, in the imperative, with the objects named.
    fn says(&self) -> String;

    /// The exact commands that [`Step::apply`] runs, in order; what is done without a command is written as the command that would do it.
    fn commands(&self) -> Vec<String>;

    /// What putting it back says to the operator.
    fn unsays(&self) -> String {
        format!("put back: {}", self.says())
    }

    /// The exact commands that [`Step::undo`] runs on a step that is done, as in [`Step::commands`].
    fn undo_commands(&self) -> Vec<String> {
        Vec::new()
    }

    /// Looks at the machine, not at the journal.
    ///
    /// # Errors
    /// It could not be told; the plan then stops.
    fn probe(&self, host: &Host) -> Result<Probe, StepError>;

    /// Is nothing of it there any more? Half of it is neither done nor this.
    ///
    /// # Errors
    /// It could not be told.
    fn probe_undone(&self, host: &Host) -> Result<Probe, StepError> {
        Ok(match self.probe(host)? {
            Probe::Done => Probe::Pending,
            Probe::Pending => Probe::Done,
            blocked @ Probe::Blocked(_) => blocked,
        })
    }

    /// Does it, from whatever an interrupted attempt left.
    ///
    /// # Errors
    /// It could not be done; what was there before is as it was.
    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError>;

    /// Puts back what was before, also after half an [`Step::apply`], also twice.
    ///
    /// # Errors
    /// It could not be put back, or putting back would lose something newer.
    fn undo(&self, cx: &mut Context<'_>) -> Result<(), StepError>;

    /// Whether it can be put back as the machine is now, where that must be known before anything is.
    ///
    /// # Errors
    /// Why not.
    fn may_undo(&self, _: &Host) -> Result<(), StepError> {
        Ok(())
    }

    /// The devices whose content or partition table this step writes over: their identity is compared right before.
    fn erases(&self) -> &[Identity] {
        &[]
    }

    /// Whether a boot does it too, from what an earlier step left: then it has to be put back although nobody has begun it.
    fn comes_by_boot(&self) -> bool {
        false
    }

    /// From this step on nothing goes back: the data may be newer than what a rollback would bring.
    fn is_final(&self) -> bool {
        false
    }
}

/// An ordered list of changes that a verb will make.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan<S> {
    /// The version of this form.
    pub schema: u32,
    /// The operation's name: date, verb and mirror; the journal's file name.
    pub id: String,
    /// The verb that made it.
    pub verb: String,
    /// The mirror that it changes.
    pub mirror: String,
    /// When it was made.
    pub created: Timestamp,
    /// The disks that it names, as they were then. Plans of before they were kept have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Identity>,
    /// The changes, in order.
    pub steps: Vec<S>,
}

impl<S> Plan<S> {
    /// A plan of `verb` on `mirror`, made at `created`.
    pub fn new(verb: &str, mirror: &str, created: Timestamp, steps: Vec<S>) -> Self {
        let id = super::id_of(verb, mirror, created);
        let devices = Vec::new();
        Self { schema: 1, id, verb: verb.to_owned(), mirror: mirror.to_owned(), created, devices, steps }
    }
}
