//! Carries a plan out: from the start, from where it was cut off, or back.

use serde::{Serialize, de::DeserializeOwned};

use super::{
    Context, Journal, JournalError, JournalState, Plan, Probe, Record, Renamed, Step, StepError, Watch,
};
use crate::{
    host::{Host, awake},
    model::{Identity, Inventory},
};

/// How a plan's execution ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All steps are done.
    Complete,
    /// All begun steps are put back.
    RolledBack,
}

/// Why a plan stopped on its way. Its journal says how far it came.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// A step failed.
    #[error("step {} of {of} did not succeed: {says}", index + 1)]
    Step {
        /// Its index.
        index: usize,
        /// The number of steps.
        of: usize,
        /// What it says to the operator.
        says: String,
        /// Why.
        #[source]
        source: StepError,
    },
    /// A step could not be put back.
    #[error("step {} of {of} could not be put back: {says}", index + 1)]
    Undo {
        /// Its index.
        index: usize,
        /// The number of steps.
        of: usize,
        /// What it says to the operator.
        says: String,
        /// Why.
        #[source]
        source: StepError,
    },
    /// A device is not the one that was planned for.
    #[error("{} is not the device that this plan was made for: {difference}", planned.path.display())]
    OtherDevice {
        /// What was planned for.
        planned: Box<Identity>,
        /// How it differs.
        difference: String,
    },
    /// Going back would bring old state.
    #[error(
        "the node may have run on the mirror since (`{says}` was begun): what was before is old state now"
    )]
    TooLate {
        /// The step that made it final.
        says: String,
    },
    /// The operation ended already.
    #[error("this operation has ended: {}", match ended { Ended::Complete => "all its steps are done", Ended::RolledBack => "it was rolled back" })]
    HasEnded {
        /// How.
        ended: Ended,
    },
    /// It is on its way back: going forward again from the middle would be a guess.
    #[error("a rollback of this operation was begun; finish it before anything else")]
    RollingBack,
    /// The journal failed.
    #[error("the step's record could not be kept, so nothing further was done")]
    Journal(#[source] JournalError),
}

impl ExecuteError {
    /// Did it stop before any step was done?
    pub fn is_in_first_step(&self) -> bool {
        matches!(self, Self::Step { index: 0, .. })
    }
}

impl From<JournalError> for ExecuteError {
    fn from(e: JournalError) -> Self {
        Self::Journal(e)
    }
}

/// Compares a planned identity with the machine: `None` when it is the same device, else the difference in words.
pub type Recheck<'a> = &'a dyn Fn(&Identity) -> Result<Option<String>, StepError>;

/// A plan with its journal, about to be carried out.
pub struct Executor<'a, S> {
    host: &'a Host,
    recheck: Recheck<'a>,
    plan: Plan<S>,
    journal: Journal,
    state: JournalState,
}

impl<S: std::fmt::Debug> std::fmt::Debug for Executor<'_, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executor")
            .field("plan", &self.plan)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl<'a, S: Step + Serialize + DeserializeOwned> Executor<'a, S> {
    /// Writes the plan to a new journal. Nothing is changed yet.
    ///
    /// # Errors
    /// The journal cannot be kept.
    pub fn begin(host: &'a Host, recheck: Recheck<'a>, plan: Plan<S>) -> Result<Self, JournalError> {
        let journal = Journal::create(&host.path(super::JOURNAL_DIR), &plan)?;
        let state = JournalState { begun: vec![false; plan.steps.len()], rolling_back: false, ended: None };
        Ok(Self { host, recheck, plan, journal, state })
    }

    /// Takes up a plan from its journal.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn take_up(
        host: &'a Host,
        recheck: Recheck<'a>,
        journal: &std::path::Path,
    ) -> Result<Self, JournalError> {
        let (journal, plan, state) = Journal::open(journal)?;
        Ok(Self { host, recheck, plan, journal, state })
    }

    /// Calls the plan's disks as the machine does now, and tells which names changed.
    ///
    /// # Errors
    /// As [`Plan::follow`].
    pub fn follow(mut self, machine: &Inventory) -> Result<(Self, Vec<Renamed>), serde_json::Error> {
        let (plan, renamed) = self.plan.follow(machine)?;
        self.plan = plan;
        Ok((self, renamed))
    }

    /// The plan.
    pub fn plan(&self) -> &Plan<S> {
        &self.plan
    }

    /// The journal's file.
    pub fn journal(&self) -> &std::path::Path {
        self.journal.path()
    }

    /// Has it ended? In the way that is asked for, nothing is left to do; in the other, nothing can be done any more.
    fn has_ended(&self, asked: Ended) -> Result<bool, ExecuteError> {
        let ended = match self.state.ended {
            None => return Ok(false),
            Some(Record::RolledBack) => Ended::RolledBack,
            Some(_) => Ended::Complete,
        };
        if ended == asked { Ok(true) } else { Err(ExecuteError::HasEnded { ended }) }
    }

    /// Does every step that the machine does not show as done.
    ///
    /// # Errors
    /// A step failed, a device changed, the operator asked to stop, or the journal could not be kept. The journal then stands, and
    /// the plan can be taken up again in either direction.
    pub fn forward(&mut self, watch: &mut dyn Watch) -> Result<Ended, ExecuteError> {
        if self.has_ended(Ended::Complete)? {
            return Ok(Ended::Complete);
        }
        if self.state.rolling_back {
            self.turn_round()?;
        }
        let of = self.plan.steps.len();
        let _awake = awake::hold(self.host, &format!("{} of {}", self.plan.verb, self.plan.mirror));
        let titles: Vec<String> = self.plan.steps.iter().map(Step::says).collect();
        watch.plan(&titles, self.state.begun.contains(&true));
        for (index, (step, says)) in self.plan.steps.iter().zip(&titles).enumerate() {
            let failed = |source| ExecuteError::Step { index, of, says: says.clone(), source };
            if self.host.interrupt().is_raised() {
                return Err(failed(StepError::interrupted("stopped before this step, as asked")));
            }
            match step.probe(self.host).map_err(failed)? {
                Probe::Done => {
                    watch.done(index, says, &super::Outcome::default(), false);
                    continue;
                }
                Probe::Blocked(why) => return Err(failed(StepError::refused(why))),
                Probe::Pending => {}
            }
            watch.begin(index, says);
            self.journal.write(self.host.now(), Record::Begin(index))?;
            if let Some(begun) = self.state.begun.get_mut(index) {
                *begun = true;
            }
            for planned in step.erases() {
                if let Some(difference) = (self.recheck)(planned).map_err(failed)? {
                    return Err(ExecuteError::OtherDevice { planned: Box::new(planned.clone()), difference });
                }
            }
            let mut cx = Context { host: self.host, watch };
            let outcome = step.apply(&mut cx).map_err(|source| {
                watch.failed(index, says);
                failed(source)
            })?;
            match step.probe(self.host).map_err(failed)? {
                Probe::Done => {}
                Probe::Pending => {
                    return Err(failed(StepError::wrong(
                        "it ran without an error, but the machine does not show its effect",
                    )));
                }
                Probe::Blocked(why) => return Err(failed(StepError::wrong(why))),
            }
            self.journal.write(self.host.now(), Record::Done(index, outcome.clone()))?;
            watch.done(index, says, &outcome, true);
        }
        self.journal.write(self.host.now(), Record::Complete)?;
        self.state.ended = Some(Record::Complete);
        Ok(Ended::Complete)
    }

    /// Can every step that was begun be put back, as the machine is now?
    fn may_go_back(&self) -> Result<(), ExecuteError> {
        let of = self.plan.steps.len();
        for (index, step) in self.plan.steps.iter().enumerate().rev() {
            if self.state.begun.get(index).copied().unwrap_or_default() {
                let failed = |source| ExecuteError::Undo { index, of, says: step.says(), source };
                step.may_undo(self.host).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// A rollback that was cut off is finished. Where what has happened since forbids that, the only way is forward: the step that is not
    /// put back, and all before it, are as they were when they were done, and those after it are done again.
    fn turn_round(&mut self) -> Result<(), ExecuteError> {
        match self.may_go_back() {
            Err(ExecuteError::Undo { source, .. }) if source.refused => {}
            Err(e) => return Err(e),
            Ok(()) => return Err(ExecuteError::RollingBack),
        }
        self.journal.write(self.host.now(), Record::Forward)?;
        self.state.rolling_back = false;
        Ok(())
    }

    /// Puts back every step that was begun, the last one first.
    ///
    /// # Errors
    /// A final step was begun (going back would bring old state), or a step could not be put back.
    pub fn back(&mut self, watch: &mut dyn Watch) -> Result<Ended, ExecuteError> {
        if self.has_ended(Ended::RolledBack)? {
            return Ok(Ended::RolledBack);
        }
        let begun = || self.plan.steps.iter().zip(&self.state.begun).filter(|(_, begun)| **begun);
        if let Some((step, _)) = begun().find(|(step, _)| step.is_final()) {
            return Err(ExecuteError::TooLate { says: step.says() });
        }
        let of = self.plan.steps.len();
        self.may_go_back()?;
        if !self.state.rolling_back {
            self.journal.write(self.host.now(), Record::RollBack)?;
            self.state.rolling_back = true;
        }
        let titles: Vec<String> = self.plan.steps.iter().map(Step::says).collect();
        watch.plan(&titles, false);
        for (index, step) in self.plan.steps.iter().enumerate().rev() {
            let says = step.says();
            let failed = |source| ExecuteError::Undo { index, of, says: says.clone(), source };
            let begun = self.state.begun.get(index).copied().unwrap_or_default();
            let came =
                !begun && step.comes_by_boot() && step.probe(self.host).map_err(failed)? == Probe::Done;
            if !(begun || came) {
                continue;
            }
            let mut cx = Context { host: self.host, watch };
            step.undo(&mut cx).map_err(failed)?;
            self.journal.write(self.host.now(), Record::Undone(index))?;
            if let Some(begun) = self.state.begun.get_mut(index) {
                *begun = false;
            }
            watch.undone(index, &says);
        }
        self.journal.write(self.host.now(), Record::RolledBack)?;
        self.state.ended = Some(Record::RolledBack);
        Ok(Ended::RolledBack)
    }
}

#[cfg(test)]
mod tests;
