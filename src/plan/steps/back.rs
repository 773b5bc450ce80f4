//! The way back: the directory becomes plain again, and steps of a setup are taken back.

use std::{fs, io, os::unix::fs::symlink, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    Action,
    exchange::{exchange_line, quiet, unchanged},
    fail, line,
};
use crate::{
    exec::log_change,
    host::{Host, exchange, files},
    plan::{Context, Outcome, Probe, Step, StepError},
};

/// Puts the verified copy in the place of the symlink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExchangeBack {
    /// The node's directory: a symlink before, plain after.
    pub directory: PathBuf,
    /// Where the symlink points.
    pub data: PathBuf,
    /// The copy, in the same directory as the symlink.
    pub copy: PathBuf,
    /// What was copied.
    pub manifest: PathBuf,
}

/// Takes back a step of an earlier operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TakeBack {
    /// The step.
    pub of: Box<Action>,
}

impl ExchangeBack {
    fn is_plain(&self) -> Result<bool, StepError> {
        let meta = match fs::symlink_metadata(&self.directory) {
            Ok(meta) => meta,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(fail("reading", &self.directory)(e)),
        };
        Ok(meta.is_dir())
    }
}

impl Step for ExchangeBack {
    fn says(&self) -> String {
        format!("put the copy in the place of the symlink {}", self.directory.display())
    }

    fn commands(&self) -> Vec<String> {
        vec![exchange_line(&self.directory, &self.copy), line("rm", [self.copy.as_os_str()])]
    }

    fn probe(&self, _: &Host) -> Result<Probe, StepError> {
        Ok(if self.is_plain()? && !self.copy.is_symlink() { Probe::Done } else { Probe::Pending })
    }

    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError> {
        exchange::settle(&self.directory, &self.copy).map_err(fail("settling", &self.directory))?;
        self.commands().iter().for_each(|c| log_change(c));
        if !self.is_plain()? {
            quiet(cx.host, &self.data)?;
            unchanged(&self.data, &self.manifest, "the data on the mirror changed after they were copied")
                .map_err(|e| e.hint("see that nothing writes there; --resume copies them anew"))?;
            exchange::exchange(&self.directory, &self.copy).map_err(fail("exchanging", &self.directory))?;
        }
        if self.copy.is_symlink() {
            files::remove(&self.copy).map_err(fail("removing the symlink", &self.copy))?;
        }
        Ok(Outcome::default())
    }

    /// Somebody may have started the node on the plain directory since.
    fn may_undo(&self, host: &Host) -> Result<(), StepError> {
        if !self.is_plain()? {
            return Ok(());
        }
        let on = "`raidguard release --resume` finishes the way back";
        quiet(host, &self.directory).map_err(|e| {
            e.hint(format!("{on}; to put it back instead, stop what uses it, and keep it stopped"))
        })?;
        unchanged(
            &self.directory,
            &self.manifest,
            "the directory changed since, so what is on the mirror is old state",
        )
        .map_err(|e| e.hint(on))
    }

    fn undo(&self, cx: &mut Context<'_>) -> Result<(), StepError> {
        exchange::settle(&self.directory, &self.copy).map_err(fail("settling", &self.directory))?;
        if self.is_plain()? {
            self.may_undo(cx.host)?;
            if !self.copy.is_symlink() {
                symlink(&self.data, &self.copy).map_err(fail("making the symlink", &self.copy))?;
            }
            exchange::exchange(&self.directory, &self.copy).map_err(fail("exchanging", &self.directory))?;
        }
        Ok(())
    }
}

impl Step for TakeBack {
    fn says(&self) -> String {
        self.of.unsays()
    }

    fn commands(&self) -> Vec<String> {
        self.of.undo_commands()
    }

    fn probe(&self, host: &Host) -> Result<Probe, StepError> {
        self.of.probe_undone(host)
    }

    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError> {
        self.of.undo(cx)?;
        Ok(Outcome::default())
    }

    fn undo(&self, cx: &mut Context<'_>) -> Result<(), StepError> {
        if self.of.probe(cx.host)? != Probe::Done {
            self.of.apply(cx)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;
    use crate::{
        exec::{Interrupt, ScriptedRunner},
        host::copy,
        plan::{Ended, ExecuteError, Executor, Journal, Plan, steps::PlainDirectory},
    };

    /// A copy that has taken the symlink's place, a later step that fails, and the node's files on the mirror beside.
    fn failed(dir: &tempfile::TempDir, host: &Host) -> (PathBuf, PathBuf) {
        let at = |name: &str| dir.path().join(name);
        for made in ["proc", "data", "copy"] {
            fs::create_dir(at(made)).unwrap();
        }
        fs::write(at("data/db"), "newest").unwrap();
        copy::copy_tree(&at("data"), &at("copy"), &mut |_| {}, &Interrupt::default())
            .unwrap()
            .save(&at("manifest"))
            .unwrap();
        symlink(at("data"), at("node")).unwrap();
        symlink("gone", at("later")).unwrap();
        let back = ExchangeBack {
            directory: at("node"),
            data: at("data"),
            copy: at("copy"),
            manifest: at("manifest"),
        };
        let later = PlainDirectory { path: at("later/made"), directory: at("later/symlink") };
        let steps = vec![Action::ExchangeBack(back), Action::PlainDirectory(later)];
        let plan = Plan::new("release", "lightning", Timestamp::UNIX_EPOCH, steps);
        let mut executor = Executor::begin(host, &|_| Ok(None), plan).unwrap();
        let error = executor.forward(&mut ()).unwrap_err();
        assert!(matches!(error, ExecuteError::Step { index: 1, .. }), "{error}");
        (executor.journal().to_owned(), at("node"))
    }

    fn machine(dir: &tempfile::TempDir) -> Host {
        Host::captured(dir.path(), Arc::new(ScriptedRunner::new()), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_way_back_whose_directory_was_used_since_is_not_begun_to_be_put_back_and_can_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let host = machine(&dir);
        let (journal, node) = failed(&dir, &host);
        let take_up = || Executor::<Action>::take_up(&host, &|_| Ok(None), &journal).unwrap();
        let process = dir.path().join("proc/42");
        fs::create_dir_all(process.join("fd")).unwrap();
        fs::write(process.join("comm"), "lightningd").unwrap();
        symlink("/", process.join("root")).unwrap();
        symlink(fs::canonicalize(&node).unwrap(), process.join("cwd")).unwrap();
        let refused = |why: &str| {
            let error = take_up().back(&mut ()).unwrap_err();
            let ExecuteError::Undo { index: 0, source, .. } = error else { panic!("{error}") };
            assert!(!Journal::read::<Action>(&journal).unwrap().1.rolling_back);
            assert!(source.what.contains(why), "{why}: {}", source.what);
            assert!(source.hint.unwrap().contains("`raidguard release --resume` finishes the way back"));
        };
        refused("is in use: lightningd");
        fs::remove_dir_all(&process).unwrap();
        fs::write(node.join("db"), "newer than what is on the mirror").unwrap();
        refused("the directory changed since");
        fs::create_dir(dir.path().join("gone")).unwrap();
        assert_eq!(take_up().forward(&mut ()).unwrap(), Ended::Complete);
        assert_eq!(fs::read_to_string(node.join("db")).unwrap(), "newer than what is on the mirror");
    }

    #[test]
    fn a_way_back_whose_directory_nobody_used_is_put_back() {
        let dir = tempfile::tempdir().unwrap();
        let host = machine(&dir);
        let (journal, node) = failed(&dir, &host);
        let mut again = Executor::<Action>::take_up(&host, &|_| Ok(None), &journal).unwrap();
        assert_eq!(again.back(&mut ()).unwrap(), Ended::RolledBack);
        assert_eq!(fs::read_link(&node).unwrap(), dir.path().join("data"));
        assert_eq!(fs::read_to_string(dir.path().join("copy/db")).unwrap(), "newest");
    }
}
