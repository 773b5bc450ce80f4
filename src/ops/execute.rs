//! From a decided plan to its end: asked for, carried out, taken up again, put back.

use std::path::{Path, PathBuf};

use super::{
    Exit, Trouble, stopped,
    trouble::{need_root, not_begun, unchanged},
};
use crate::{
    host::{Host, inventory, lock},
    model::{Identity, Inventory},
    plan::{
        Ended, Executor, JOURNAL_DIR, Journal, JournalError, Plan, Recheck, Step as _, StepError, journals,
        steps::Action,
    },
    ui::Console,
};

/// Which way an interrupted operation shall go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To its end.
    Forward,
    /// To where it began.
    Back,
}

/// Asks, unless told not to.
///
/// # Errors
/// Refused: the answer was not `yes`, or nobody can be asked.
pub(super) fn confirm(console: &Console, yes: bool, question: &str) -> Result<(), Trouble> {
    if yes {
        return Ok(());
    }
    match console.confirm(question) {
        Some(true) => Ok(()),
        Some(false) if console.is_stopped() => Err(Trouble::refused(
            "it was stopped at the question, as asked",
            "run it again when you are sure",
        )),
        Some(false) => Err(Trouble::refused("the answer was not `yes`", "run it again when you are sure")),
        None => Err(Trouble::refused(
            "there is no terminal to ask for a `yes`",
            "give --yes, after a look at --dry-run",
        )),
    }
}

/// Compares a planned device with the one that is there now.
pub(super) fn recheck(host: &Host) -> impl Fn(&Identity) -> Result<Option<String>, StepError> + '_ {
    |planned| {
        let there = inventory::identify(host, &planned.path)
            .map_err(|e| StepError::failed("the devices cannot be read again right before erasing", e))?;
        let difference = match there {
            None => Some("it is not there any more".to_owned()),
            Some(there) => planned.difference(&there),
        };
        // Somebody may have plugged it in again.
        let elsewhere = || inventory::list(host).ok()?.elsewhere(planned).map(|device| device.path.clone());
        Ok(difference.map(|difference| match elsewhere() {
            Some(path) => format!(
                "{difference}; that one is called {} now, and is found there when this is taken up again",
                path.display()
            ),
            None => difference,
        }))
    }
}

const NAMING: &str = "the plan's disks cannot be named anew";

fn machine(host: &Host) -> Result<Inventory, Trouble> {
    inventory::list(host).map_err(unchanged("the devices cannot be read"))
}

/// An interrupted plan with the names that its disks have now.
///
/// # Errors
/// As [`again`].
pub(super) fn named_anew(host: &Host, plan: Plan<Action>) -> Result<Plan<Action>, Trouble> {
    Ok(plan.follow(&machine(host)?).map_err(unchanged(NAMING))?.0)
}

/// Opens the journal of an interrupted plan, whose disks may have other names now: a boot gives them anew.
///
/// # Errors
/// It cannot be read, or the devices cannot.
pub(super) fn again<'a>(
    host: &'a Host,
    recheck: Recheck<'a>,
    journal: &Path,
    console: &Console,
) -> Result<Executor<'a, Action>, Trouble> {
    let executor = Executor::take_up(host, recheck, journal)?;
    let (executor, renamed) = executor.follow(&machine(host)?).map_err(unchanged(NAMING))?;
    for disk in renamed {
        let (was, is) = (disk.was.display(), disk.is.display());
        console.say(format_args!(
            "{was} of the plan is called {is} now: it is known by its serial number or World Wide Name"
        ));
    }
    Ok(executor)
}

/// Where the node's files are, all of them, in the middle of a plan.
fn kept(plan: &Plan<Action>) -> Option<String> {
    let untouched = |path: &Path| format!("{} is untouched", path.display());
    let proven = |path: &Path| {
        format!("{} holds the node's files, and they were compared byte for byte", path.display())
    };
    plan.steps.iter().find_map(|step| match step {
        Action::Exchange(e) if e.directory.is_symlink() => Some(proven(&e.data)),
        Action::Exchange(e) => Some(untouched(&e.directory)),
        Action::ExchangeBack(e) if e.directory.is_symlink() => Some(untouched(&e.data)),
        Action::ExchangeBack(e) => Some(proven(&e.directory)),
        _ => None,
    })
}

/// Begins a plan and carries it out.
///
/// # Errors
/// It stopped on its way; its journal stands.
pub(super) fn start(host: &Host, plan: Plan<Action>, console: &mut Console) -> Result<(), Trouble> {
    let verb = plan.verb.clone();
    let recheck = recheck(host);
    let mut executor = Executor::begin(host, &recheck, plan).map_err(unchanged("no record can be kept"))?;
    match executor.forward(console) {
        Ok(_) => Ok(()),
        // Nothing but this step was begun, and it erased nothing: there is nothing to decide, it is put back at once.
        Err(e)
            if e.is_in_first_step()
                && executor.plan().steps.first().is_some_and(|s| s.erases().is_empty()) =>
        {
            match executor.back(console) {
                Ok(_) => Err(not_begun(&verb, e)),
                Err(back) => Err(stopped(&verb, back)),
            }
        }
        Err(e) => Err(stopped(&verb, e).keeping(kept(executor.plan()))),
    }
}

/// The journal of `verb` that is to be taken up, and its mirror: the last one that has not ended, else the last one.
fn last_of(host: &Host, verb: &str) -> Result<Option<(PathBuf, String)>, Trouble> {
    let mut found = Vec::new();
    for path in journals(&host.path(JOURNAL_DIR)).map_err(unchanged("the journals cannot be read"))? {
        match Journal::read::<Action>(&path) {
            Ok((plan, state, _)) if plan.verb == verb => {
                found.push((state.ended.is_none(), path, plan.mirror));
            }
            Ok(_) | Err(JournalError::Empty { .. }) => {}
            Err(e) => return Err(unchanged("a journal cannot be read")(e)),
        }
    }
    Ok(found.into_iter().max_by_key(|(open, _, _)| *open).map(|(_, path, mirror)| (path, mirror)))
}

/// Takes an interrupted operation of `verb` up again, in either direction.
///
/// # Errors
/// There is none, or it stopped again.
pub fn take_up(
    host: &Host,
    verb: &str,
    direction: Direction,
    console: &mut Console,
) -> Result<Exit, Trouble> {
    need_root(verb)?;
    let way = if direction == Direction::Forward { "go on with" } else { "put back" };
    let none =
        || Trouble::refused(format!("there is no {verb} to {way}"), format!("raidguard {verb} --help"));
    let (path, mirror) = last_of(host, verb)?.ok_or_else(none)?;
    let _lock = lock::take(host, &mirror, verb)?;
    let recheck = recheck(host);
    let mut executor = again(host, &recheck, &path, console)?;
    let ended = match direction {
        Direction::Forward => executor.forward(console),
        Direction::Back => executor.back(console),
    };
    match ended.map_err(|e| stopped(verb, e).keeping(kept(executor.plan())))? {
        Ended::Complete => console.say(format_args!("\n{verb} of `{mirror}` is complete")),
        Ended::RolledBack => {
            console.say(format_args!("\n{verb} of `{mirror}` was put back: everything is as it was before"))
        }
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{exec::ScriptedRunner, plan::Record};

    #[test]
    fn what_has_not_ended_is_taken_up_before_a_later_one_that_has() {
        let dir = tempfile::tempdir().unwrap();
        let at = |second| jiff::Timestamp::from_second(second).unwrap();
        let host = Host::captured(dir.path(), std::sync::Arc::new(ScriptedRunner::new()), at(0));
        let last = || last_of(&host, "adopt").unwrap().map(|(_, mirror)| mirror);
        assert_eq!(last(), None);
        let operations = [
            ("adopt", "one", true, "one"),
            ("adopt", "two", true, "two"),
            ("adopt", "three", false, "three"),
            ("adopt", "four", true, "three"),
            ("setup", "five", false, "three"),
            ("adopt", "six", false, "six"),
        ];
        for (second, (verb, mirror, ended, expected)) in (0..).zip(operations) {
            let plan = Plan::<Action>::new(verb, mirror, at(second), Vec::new());
            let mut journal = Journal::create(&host.path(JOURNAL_DIR), &plan).unwrap();
            if ended {
                journal.write(at(second), Record::Complete).unwrap();
            }
            assert_eq!(last().as_deref(), Some(expected), "after {mirror}");
        }
    }
}
