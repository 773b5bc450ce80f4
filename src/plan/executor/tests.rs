//! The executor against steps that are files in a directory, with a failure at every place where one can happen.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::*;
use crate::{exec::ScriptedRunner, plan::Outcome};

/// A step that makes a file; its own path decides how it misbehaves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Touch {
    file: PathBuf,
    fails: bool,
    last: bool,
    boots: bool,
    erases: Vec<Identity>,
}

impl Step for Touch {
    fn says(&self) -> String {
        format!("make {}", self.file.display())
    }
    fn commands(&self) -> Vec<String> {
        vec![format!("touch {}", self.file.display())]
    }
    fn probe(&self, _: &Host) -> Result<Probe, StepError> {
        Ok(if self.file.exists() { Probe::Done } else { Probe::Pending })
    }
    fn apply(&self, _: &mut Context<'_>) -> Result<Outcome, StepError> {
        if self.fails {
            return Err(StepError::wrong("told to fail"));
        }
        fs::write(&self.file, "").map_err(|e| StepError::failed("making it", e))?;
        Ok(Outcome::note("made"))
    }
    fn undo(&self, _: &mut Context<'_>) -> Result<(), StepError> {
        match fs::remove_file(&self.file) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StepError::failed("removing it", e)),
            _ => Ok(()),
        }
    }
    fn may_undo(&self, _: &Host) -> Result<(), StepError> {
        match fs::read_to_string(&self.file) {
            Ok(text) if !text.is_empty() => Err(StepError::refused("somebody has written to it")),
            _ => Ok(()),
        }
    }
    fn erases(&self) -> &[Identity] {
        &self.erases
    }
    fn comes_by_boot(&self) -> bool {
        self.boots
    }
    fn is_final(&self) -> bool {
        self.last
    }
}

struct Machine {
    dir: tempfile::TempDir,
    host: Host,
}

fn machine() -> Machine {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::captured(dir.path(), Arc::new(ScriptedRunner::new()), Timestamp::UNIX_EPOCH);
    Machine { dir, host }
}

fn steps(dir: &Path, n: usize) -> Vec<Touch> {
    (0..n)
        .map(|i| Touch {
            file: dir.join(format!("s{i}")),
            fails: false,
            last: false,
            boots: false,
            erases: Vec::new(),
        })
        .collect()
}

#[allow(clippy::unnecessary_wraps, reason = "the shape of a recheck")]
fn same(_: &Identity) -> Result<Option<String>, StepError> {
    Ok(None)
}

fn made(dir: &Path, n: usize) -> usize {
    (0..n).filter(|i| dir.join(format!("s{i}")).exists()).count()
}

fn plan(steps: Vec<Touch>) -> Plan<Touch> {
    Plan::new("setup", "m", Timestamp::UNIX_EPOCH, steps)
}

#[test]
fn a_failure_at_each_step_can_be_resumed_and_rolled_back() {
    for failing in 0..4 {
        for resume in [true, false] {
            let m = machine();
            let mut list = steps(m.dir.path(), 4);
            list[failing].fails = true;
            let mut executor = Executor::begin(&m.host, &same, plan(list)).unwrap();
            let error = executor.forward(&mut ()).unwrap_err();
            assert!(matches!(error, ExecuteError::Step { index, of: 4, .. } if index == failing), "{error}");
            assert_eq!(made(m.dir.path(), 4), failing);
            let journal = executor.journal().to_owned();
            drop(executor);
            let mended = fs::read_to_string(&journal).unwrap().replace("\"fails\":true", "\"fails\":false");
            fs::write(&journal, mended).unwrap();
            let mut again = Executor::<Touch>::take_up(&m.host, &same, &journal).unwrap();
            if resume {
                assert_eq!(again.forward(&mut ()).unwrap(), Ended::Complete);
                assert_eq!(made(m.dir.path(), 4), 4);
                assert!(matches!(
                    again.back(&mut ()),
                    Err(ExecuteError::HasEnded { ended: Ended::Complete })
                ));
            } else {
                assert_eq!(again.back(&mut ()).unwrap(), Ended::RolledBack);
                assert_eq!(made(m.dir.path(), 4), 0);
                assert!(matches!(
                    again.forward(&mut ()),
                    Err(ExecuteError::HasEnded { ended: Ended::RolledBack })
                ));
            }
        }
    }
}

#[test]
fn the_journal_cut_at_every_byte_is_read_or_says_that_nothing_was_changed() {
    let m = machine();
    let mut executor = Executor::begin(&m.host, &same, plan(steps(m.dir.path(), 3))).unwrap();
    executor.forward(&mut ()).unwrap();
    let journal = executor.journal().to_owned();
    let whole = fs::read(&journal).unwrap();
    for cut in 0..whole.len() {
        fs::write(&journal, &whole[..cut]).unwrap();
        match Executor::<Touch>::take_up(&m.host, &same, &journal) {
            Ok(mut again) => assert_eq!(again.forward(&mut ()).unwrap(), Ended::Complete),
            Err(e) => assert!(matches!(e, JournalError::Empty { .. }), "{e}"),
        }
    }
}

#[test]
fn nothing_goes_back_after_a_final_step_was_begun() {
    let m = machine();
    let mut list = steps(m.dir.path(), 3);
    list[1].last = true;
    list[2].fails = true;
    let mut executor = Executor::begin(&m.host, &same, plan(list)).unwrap();
    executor.forward(&mut ()).unwrap_err();
    assert!(matches!(executor.back(&mut ()), Err(ExecuteError::TooLate { .. })));
    assert_eq!(made(m.dir.path(), 3), 2);
}

#[test]
fn what_cannot_all_be_put_back_is_not_begun_to_be() {
    let m = machine();
    let mut list = steps(m.dir.path(), 3);
    list[2].fails = true;
    let mut executor = Executor::begin(&m.host, &same, plan(list)).unwrap();
    executor.forward(&mut ()).unwrap_err();
    let first = m.dir.path().join("s0");
    fs::write(&first, "newer").unwrap();
    let error = executor.back(&mut ()).unwrap_err();
    assert!(matches!(error, ExecuteError::Undo { index: 0, of: 3, .. }), "{error}");
    assert_eq!(made(m.dir.path(), 3), 2, "nothing was put back");
    assert!(matches!(executor.forward(&mut ()), Err(ExecuteError::Step { .. })), "it can still go on");
    fs::write(&first, "").unwrap();
    assert_eq!(executor.back(&mut ()).unwrap(), Ended::RolledBack);
    assert_eq!(made(m.dir.path(), 3), 0);
}

#[test]
fn another_device_at_the_planned_path_is_never_erased() {
    let m = machine();
    let mut list = steps(m.dir.path(), 1);
    let planned = Identity {
        path: "/dev/sdx".into(),
        dev: Some(crate::model::DevNo { major: 8, minor: 16 }),
        size: crate::model::Bytes::gib(2),
        model: None,
        serial: None,
        wwn: None,
        partuuid: None,
    };
    list[0].erases = vec![planned];
    let other = |_: &Identity| Ok(Some("its serial number differs".to_owned()));
    let mut executor = Executor::begin(&m.host, &other, plan(list)).unwrap();
    assert!(matches!(executor.forward(&mut ()), Err(ExecuteError::OtherDevice { .. })));
    assert_eq!(made(m.dir.path(), 1), 0);
}

#[test]
fn a_begun_rollback_must_be_finished() {
    let m = machine();
    let mut executor = Executor::begin(&m.host, &same, plan(steps(m.dir.path(), 2))).unwrap();
    executor.journal.write(Timestamp::UNIX_EPOCH, Record::RollBack).unwrap();
    let journal = executor.journal().to_owned();
    let mut again = Executor::<Touch>::take_up(&m.host, &same, &journal).unwrap();
    assert!(matches!(again.forward(&mut ()), Err(ExecuteError::RollingBack)));
    assert_eq!(again.back(&mut ()).unwrap(), Ended::RolledBack);
}

#[test]
fn a_rollback_that_cannot_be_finished_any_more_goes_forward_again() {
    let m = machine();
    let mut list = steps(m.dir.path(), 4);
    list[3].fails = true;
    let mut executor = Executor::begin(&m.host, &same, plan(list)).unwrap();
    executor.forward(&mut ()).unwrap_err();
    // Cut off when the last ones were put back; then somebody uses what the first one made.
    for record in [Record::RollBack, Record::Undone(3), Record::Undone(2)] {
        executor.journal.write(Timestamp::UNIX_EPOCH, record).unwrap();
    }
    fs::remove_file(m.dir.path().join("s2")).unwrap();
    let journal = executor.journal().to_owned();
    let first = m.dir.path().join("s0");
    fs::write(&first, "newer").unwrap();
    let take_up = || Executor::<Touch>::take_up(&m.host, &same, &journal).unwrap();
    assert!(matches!(take_up().back(&mut ()), Err(ExecuteError::Undo { index: 0, .. })));
    assert!(matches!(take_up().forward(&mut ()), Err(ExecuteError::Step { index: 3, .. })));
    assert!(!take_up().state.rolling_back);
    assert_eq!(take_up().state.begun, [true; 4]);
    // It is an interrupted one as any other, and can be put back when that holds again.
    fs::write(&first, "").unwrap();
    let whole = fs::read(&journal).unwrap();
    assert_eq!(take_up().back(&mut ()).unwrap(), Ended::RolledBack);
    assert_eq!(made(m.dir.path(), 4), 0);
    let mended = String::from_utf8(whole).unwrap().replace("\"fails\":true", "\"fails\":false");
    fs::write(&journal, mended).unwrap();
    assert_eq!(take_up().forward(&mut ()).unwrap(), Ended::Complete);
    assert_eq!(made(m.dir.path(), 4), 4);
}

#[test]
fn ctrl_c_stops_between_steps() {
    let m = machine();
    m.host.interrupt().raise();
    let mut executor = Executor::begin(&m.host, &same, plan(steps(m.dir.path(), 2))).unwrap();
    let Err(ExecuteError::Step { source, .. }) = executor.forward(&mut ()) else { panic!("went on") };
    assert!(source.interrupted);
    assert_eq!(made(m.dir.path(), 2), 0);
}

#[test]
fn what_a_boot_has_done_meanwhile_is_put_back_and_what_was_there_before_is_not() {
    let m = machine();
    let mut list = steps(m.dir.path(), 4);
    (list[1].fails, list[2].boots) = (true, true);
    let mut executor = Executor::begin(&m.host, &same, plan(list)).unwrap();
    executor.forward(&mut ()).unwrap_err();
    for file in ["s2", "s3"] {
        fs::write(m.dir.path().join(file), "").unwrap();
    }
    assert_eq!(executor.back(&mut ()).unwrap(), Ended::RolledBack);
    assert_eq!(made(m.dir.path(), 3), 0);
    assert!(m.dir.path().join("s3").exists());
}
