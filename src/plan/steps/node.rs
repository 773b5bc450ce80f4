//! The node: stopped before its files are copied, started on the mirror.

use std::{fs, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{is_moved, reach};
use crate::{
    exec::Failure,
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

impl StopNode {
    /// Are the node's files on the mirror? Of one that was adopted its directory need not be a symlink.
    fn is_on_mirror(&self) -> bool {
        let real = |path: &PathBuf| fs::canonicalize(path).ok();
        is_moved(&self.directory) || (self.backwards && real(&self.directory) == real(&self.data))
    }
}

impl Step for StopNode {
    fn says(&self) -> String {
        format!("stop the node ({}) and wait until nothing uses {}", self.control, self.directory.display())
    }

    fn commands(&self) -> Vec<String> {
        node::stop_commands(&self.control)
    }

    fn probe(&self, host: &Host) -> Result<Probe, StepError> {
        if self.is_on_mirror() != self.backwards {
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
        // Where its files are out of reach it could not be started before either.
        let absent = if self.backwards { reach::absent_with(cx.host, &self.data)? } else { None };
        if let Some(why) = absent {
            tracing::warn!("the node ({}) was not started: {why}", self.control);
            return node::release(cx.host, &self.control)
                .map_err(|e| StepError::failed("the node could not be released", e));
        }
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
        let runs = node::runs(host, &self.control, &self.data).map_err(cannot_tell)?;
        Ok(if runs { Probe::Done } else { Probe::Pending })
    }

    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError> {
        node::start(cx.host, &self.control).map_err(|e| {
            let left = matches!(&e, ControlError::Command(e) if matches!(e.failure, Failure::LeftRunning(_)));
            let error = StepError::failed("the node could not be started", e);
            if !left {
                return error;
            }
            error.hint("a start command has to return, as `lightningd --daemon` does; look whether the node runs, and go on")
        })?;
        let watch = &mut *cx.watch;
        node::verify_running_on(cx.host, &self.control, &self.data, &mut |what| watch.waiting(what))
            .map_err(|e| {
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

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, path::Path, sync::Arc};

    use super::*;
    use crate::exec::{Reply, ScriptedRunner};

    const HOLD: &str = "run/systemd/system/node.service.d/raidguard-hold.conf";

    /// A machine with a node's directory, and one process at most.
    struct Machine {
        root: tempfile::TempDir,
        data: PathBuf,
        host: Host,
    }

    fn machine(state: &str) -> Machine {
        let root = tempfile::tempdir().unwrap();
        let data = fs::canonicalize(root.path()).unwrap().join("srv/lightning");
        fs::create_dir_all(data.join("bitcoin")).unwrap();
        fs::write(data.join("bitcoin/lightningd.sqlite3"), "").unwrap();
        fs::create_dir_all(root.path().join("proc/42/fd")).unwrap();
        let systemctl = ScriptedRunner::new().on("systemctl", Reply::ok("")).on(
            "systemctl show --property=ActiveState --value -- node.service",
            Reply::ok(format!("{state}\n")),
        );
        let host = Host::captured(root.path(), Arc::new(systemctl), jiff::Timestamp::UNIX_EPOCH);
        Machine { root, data, host }
    }

    impl Machine {
        /// The process is called so, and stands or has open these.
        fn runs(&self, name: &str, cwd: &Path, open: &str) {
            let proc = self.root.path().join("proc/42");
            fs::write(proc.join("comm"), format!("{name}\n")).unwrap();
            for (link, to) in [("root", Path::new("/")), ("cwd", cwd), ("fd/3", &self.data.join(open))] {
                let _ = fs::remove_file(proc.join(link));
                symlink(to, proc.join(link)).unwrap();
            }
        }

        fn starts(&self, control: &NodeControl) -> StartNode {
            StartNode { control: control.clone(), data: self.data.clone() }
        }
    }

    fn unit() -> NodeControl {
        NodeControl::Systemd { unit: "node.service".to_owned() }
    }

    fn commands() -> NodeControl {
        NodeControl::Commands { stop: vec!["stop".to_owned()], start: vec!["start".to_owned()] }
    }

    #[test]
    fn who_only_looks_on_is_not_the_node_that_is_to_be_started() {
        let m = machine("active");
        for control in [unit(), commands()] {
            let start = m.starts(&control);
            m.runs("tail", Path::new("/"), "log");
            assert_eq!(start.probe(&m.host).unwrap(), Probe::Pending, "{control}");
            m.runs("bash", &m.data, "../nothing");
            assert_eq!(start.probe(&m.host).unwrap(), Probe::Pending, "{control}");
            m.runs("node", Path::new("/"), "bitcoin/lightningd.sqlite3");
            assert_eq!(start.probe(&m.host).unwrap(), Probe::Done, "{control}");
            // Its database may have another name.
            m.runs("lightningd", &m.data, "bitcoin/wallet.db");
            assert_eq!(start.probe(&m.host).unwrap(), Probe::Done, "{control}");
        }
    }

    #[test]
    fn a_unit_that_is_held_or_down_is_still_to_be_started() {
        let m = machine("active");
        m.runs("sqlite3", Path::new("/"), "bitcoin/lightningd.sqlite3");
        fs::create_dir_all(m.root.path().join(HOLD).parent().unwrap()).unwrap();
        fs::write(m.root.path().join(HOLD), "").unwrap();
        assert_eq!(m.starts(&unit()).probe(&m.host).unwrap(), Probe::Pending);
        let m = machine("inactive");
        m.runs("sqlite3", Path::new("/"), "bitcoin/lightningd.sqlite3");
        assert_eq!(m.starts(&unit()).probe(&m.host).unwrap(), Probe::Pending);
    }

    #[test]
    fn a_node_that_does_not_come_up_is_waited_for_whoever_looks_on() {
        let m = machine("active");
        m.runs("tail", Path::new("/"), "log");
        m.host.interrupt().raise();
        let watch = &mut ();
        let stopped = m.starts(&unit()).apply(&mut Context { host: &m.host, watch }).unwrap_err();
        assert!(matches!(
            stopped.source.unwrap().downcast_ref::<ControlError>(),
            Some(ControlError::Interrupted)
        ));
    }

    #[test]
    fn of_a_directory_of_which_nothing_is_known_each_user_may_be_the_node() {
        let m = machine("active");
        fs::remove_file(m.data.join("bitcoin/lightningd.sqlite3")).unwrap();
        m.runs("lnd", Path::new("/"), "bitcoin/channel.db");
        for control in [unit(), commands()] {
            assert_eq!(m.starts(&control).probe(&m.host).unwrap(), Probe::Done);
        }
    }

    #[test]
    fn a_node_that_is_told_the_place_on_the_mirror_itself_is_stopped_there() {
        let m = machine("active");
        m.runs("lightningd", &m.data, "bitcoin/lightningd.sqlite3");
        let stops = |directory: &Path| StopNode {
            control: unit(),
            directory: directory.to_owned(),
            data: m.data.clone(),
            patience: 1,
            backwards: true,
        };
        let above = m.root.path().join("store");
        symlink(m.data.parent().unwrap(), &above).unwrap();
        let link = m.root.path().join("link");
        symlink(&m.data, &link).unwrap();
        for directory in [&m.data, &above.join("lightning"), &link] {
            let probe = stops(directory).probe(&m.host).unwrap();
            assert_eq!(probe, Probe::Pending, "{}", directory.display());
        }
        // It was taken back to a directory of its own.
        let own = m.root.path().join("own");
        fs::create_dir(&own).unwrap();
        assert_eq!(stops(&own).probe(&m.host).unwrap(), Probe::Done);
        // With the mirror away nothing is there, and it is held for when it comes back.
        fs::remove_dir_all(&m.data).unwrap();
        for directory in [&m.data, &above.join("lightning"), &link] {
            let probe = stops(directory).probe(&m.host).unwrap();
            assert_eq!(probe, Probe::Pending, "{}", directory.display());
        }
    }
}
