//! Plans that are taken up by running the same command again: `replace` and `repair`.

use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};

use super::{
    Blocker, Trouble, execute,
    trouble::{not_begun, unchanged},
};
use crate::{
    host::Host,
    plan::{
        self, Ended, ExecuteError, Executor, JOURNAL_DIR, Journal, JournalError, Plan, journals,
        steps::Action,
    },
    ui::Console,
};

/// An operation that has not ended stands in the way of another.
pub(super) fn in_the_way(verb: &str, of: &str) -> Blocker {
    Blocker::new(
        format!("`raidguard {verb}` of `{of}` was interrupted and has not ended"),
        match verb {
            "replace" | "repair" => {
                "run the same command again: it goes on, or puts back what it had done".to_owned()
            }
            _ => format!("raidguard {verb} --resume, or raidguard {verb} --rollback"),
        },
    )
}

/// How a plan that was taken up ended.
#[derive(Debug)]
pub(super) enum Ran {
    /// All its steps are done.
    Complete(Plan<Action>),
    /// It was put back.
    Back,
}

/// The plan of `verb` on a mirror that has not ended, with its journal.
///
/// # Errors
/// The journals cannot be read.
pub(super) fn unfinished_of(
    host: &Host,
    verb: &str,
    mirror: &str,
) -> Result<Option<(PathBuf, Plan<Action>)>, Trouble> {
    for path in journals(&host.path(JOURNAL_DIR)).map_err(unchanged("the journals cannot be read"))? {
        match Journal::read::<Action>(&path) {
            Ok((plan, state, _)) if state.ended.is_none() && plan.verb == verb && plan.mirror == mirror => {
                return Ok(Some((path, execute::named_anew(host, plan)?)));
            }
            Ok(_) | Err(JournalError::Empty { .. }) => {}
            Err(e) => return Err(unchanged("a journal cannot be read")(e)),
        }
    }
    Ok(None)
}

/// The time that a new operation is named after: a second later than an earlier one that was as quick.
pub(super) fn moment(host: &Host, verb: &str, mirror: &str) -> Timestamp {
    let mut at = host.now();
    while host.path(plan::record_of(&plan::id_of(verb, mirror, at), "jsonl")).exists() {
        at += SignedDuration::from_secs(1);
    }
    at
}

/// Whether a plan has come so far that it can only go on.
pub(super) type Settled = fn(&Host, &Plan<Action>) -> bool;

/// Begins a plan and carries it out.
///
/// # Errors
/// It failed or was stopped. Before it is settled it is put back at once; afterwards its journal stands, and the same command goes on.
pub(super) fn begin(
    host: &Host,
    plan: Plan<Action>,
    settled: Settled,
    console: &mut Console,
) -> Result<Plan<Action>, Trouble> {
    let recheck = execute::recheck(host);
    let executor = Executor::begin(host, &recheck, plan).map_err(unchanged("no record can be kept"))?;
    match run(host, executor, settled, console)? {
        Ran::Complete(plan) => Ok(plan),
        Ran::Back => Err(Trouble::refused("it was put back", "run it again")),
    }
}

/// Goes on with an interrupted plan, in the direction that it had.
///
/// # Errors
/// As [`begin`].
pub(super) fn go_on(
    host: &Host,
    journal: &Path,
    settled: Settled,
    console: &mut Console,
) -> Result<Ran, Trouble> {
    let recheck = execute::recheck(host);
    let executor = execute::again(host, &recheck, journal, console)?;
    run(host, executor, settled, console)
}

/// Puts an interrupted plan back.
///
/// # Errors
/// It could not be put back.
pub(super) fn back(host: &Host, journal: &Path, console: &mut Console) -> Result<(), Trouble> {
    let recheck = execute::recheck(host);
    let mut executor = execute::again(host, &recheck, journal, console)?;
    let verb = executor.plan().verb.clone();
    executor.back(console).map_err(|e| stopped(&verb, e))?;
    Ok(())
}

fn run(
    host: &Host,
    mut executor: Executor<'_, Action>,
    settled: Settled,
    console: &mut Console,
) -> Result<Ran, Trouble> {
    let verb = executor.plan().verb.clone();
    match executor.forward(console) {
        Ok(Ended::Complete) => Ok(Ran::Complete(executor.plan().clone())),
        Ok(Ended::RolledBack) => Ok(Ran::Back),
        Err(ExecuteError::RollingBack) => {
            executor.back(console).map_err(|e| stopped(&verb, e))?;
            Ok(Ran::Back)
        }
        Err(e @ ExecuteError::Journal(_)) => Err(stopped(&verb, e)),
        // Nothing is settled yet: rather as it was, with the node running, than half done.
        Err(e) if !settled(host, executor.plan()) => match executor.back(console) {
            Ok(_) => Err(put_back(&verb, e)),
            Err(back) => Err(stopped(&verb, e).hint(format!("it could not be put back either: {back}"))),
        },
        Err(e) => Err(stopped(&verb, e)),
    }
}

/// A plan that did not come to its turning point, and was put back.
fn put_back(verb: &str, error: ExecuteError) -> Trouble {
    match error {
        ExecuteError::Step { source, .. } if source.interrupted => {
            Trouble::failed(format!("{verb} was stopped, as asked, and what it had done is put back"), source)
                .hint("the same command begins it again")
        }
        other => not_begun(verb, other),
    }
}

/// A plan that stopped where it stands.
fn stopped(verb: &str, error: ExecuteError) -> Trouble {
    let own = match &error {
        ExecuteError::Step { source, .. } | ExecuteError::Undo { source, .. } => source.hint.clone(),
        _ => None,
    };
    let trouble = Trouble::failed(format!("{verb} stopped on its way, and nothing was lost"), error);
    let trouble = match own {
        Some(own) => trouble.hint(own),
        None => trouble,
    };
    trouble.hint("the same command again goes on from here; a node that it stopped is started at its end")
}
