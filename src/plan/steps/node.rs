//! The node: stopped before its files are copied, started on the mirror.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::is_moved;
use crate::{
    host::Host,
    model::NodeControl,
    node::{self, ControlError},
    plan::{Context, Outcome, Probe, Step, StepError},
};

/// Stops the node and holds it, until no process has a file or a working directory below its directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopNode {
    /// How it is stopped.
    pub control: NodeControl,
    /// The node's directory.
    pub directory: PathBuf,
    /// Where its files are after the move; a node that runs there needs no stopping.
    pub data: PathBuf,
    /// How long it may take, in seconds.
    pub patience: u64,
    /// On the way back the node runs on the mirror and must be stopped there.
    pub backwards: bool,
}

/// Starts the node and sees it run with its files at `data`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartNode {
    /// How it is started.
    pub control: NodeControl,
    /// Where its files must be.
    pub data: PathBuf,
}

fn cannot_tell(e: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StepError {
    StepError::failed("it cannot be told whether a node is running", e)
}

impl Step for StopNode {
    fn says(&self) -> String {
        format!("stop the node ({}) and wait until nothing uses {}", self.control, self.directory.display())
    }

    fn commands(&self) -> Vec<String> {
        node::stop_commands(&self.control)
    }

    fn probe(&self, host: &Host) -> Result<Probe, StepError> {
        if is_moved(&self.directory) != self.backwards {
            return Ok(Probe::Done);
        }
        let quiet =
            node::find_running(host, &self.directory, self.control.unit()).map_err(cannot_tell)?.is_quiet();
        Ok(if quiet && node::is_held(host, &self.control) { Probe::Done } else { Probe::Pending })
    }

    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError> {
        let watch = &mut *cx.watch;
        let patience = Duration::from_secs(self.patience);
        node::stop(cx.host, &self.control, &self.directory, patience, &mut |what| watch.waiting(what))
            .map_err(|e| {
                let interrupted = matches!(e, ControlError::Interrupted);
                let refused = matches!(e, ControlError::StillRunning(_));
                let mut error = StepError::failed("the node could not be stopped", e).hint(
                    "stop it yourself, and see that nothing starts it again; raidguard never kills a node",
                );
                error.interrupted = interrupted;
                error.refused = refused;
                error
            })?;
        Ok(Outcome::default())
    }

    fn undo(&self, cx: &mut Context<'_>) -> Result<(), StepError> {
        node::start_again(cx.host, &self.control, &self.directory)
            .map_err(|e| StepError::failed("the node could not be started again", e))
    }
}

impl Step for StartNode {
    fn says(&self) -> String {
        format!("start the node ({}) and see it run with its files at {}", self.control, self.data.display())
    }

    fn commands(&self) -> Vec<String> {
        node::start_commands(&self.control)
    }

    fn probe(&self, host: &Host) -> Result<Probe, StepError> {
        let running = node::find_running(host, &self.data, self.control.unit()).map_err(cannot_tell)?;
        Ok(if running.is_quiet() { Probe::Pending } else { Probe::Done })
    }

    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError> {
        node::start(cx.host, &self.control)
            .map_err(|e| StepError::failed("the node could not be started", e))?;
        let watch = &mut *cx.watch;
        node::verify_running_on(cx.host, &self.data, &mut |what| watch.waiting(what)).map_err(|e| {
            StepError::failed("the node was started, but does not run with its files there", e)
                .hint("look at the node's own log; its files are complete and verified")
        })?;
        Ok(Outcome::default())
    }

    fn undo(&self, _: &mut Context<'_>) -> Result<(), StepError> {
        Err(StepError::refused("the node may have run: what was before is old state"))
    }

    fn is_final(&self) -> bool {
        true
    }
}
