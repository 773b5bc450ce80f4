//! A node that runs: found, stopped, moved, started; never killed, and never two at once. The node is a stand-in.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::sandbox::{Sandbox, isolated, note};

const NODE: &str = "/home/bitcoin/.lightning";
const COMMITTED: &str = "/run/committed";

/// The stand-in: tests/standin/main.rs.
fn standin(s: &Sandbox) -> PathBuf {
    s.scratch().join("bin/standin-node")
}

pub(crate) fn command(s: &Sandbox, more: &str) -> String {
    format!("'{}' --dir {NODE} --committed {COMMITTED}{more}", standin(s).display())
}

pub(crate) fn ask(s: &Sandbox, dir: &str, flags: &[&str]) -> bool {
    let mut cmd = Command::new(standin(s));
    cmd.args(["--dir", dir, "--committed", COMMITTED])
        .args(flags)
        .stderr(Stdio::null())
        .status()
        .unwrap()
        .success()
}

pub(crate) fn pids() -> Vec<i32> {
    let all = fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().to_str()?.parse().ok());
    let ours = |pid: &i32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let same = |link: &str| fs::read_link(link).ok();
        name.trim() == "standin-node"
            && same(&format!("/proc/{pid}/ns/mnt")) == same("/proc/thread-self/ns/mnt")
    };
    all.filter(ours).collect()
}

/// Ends whatever stand-in still runs here, also when a test fails.
pub(crate) struct Ended;

impl Drop for Ended {
    fn drop(&mut self) {
        for pid in pids() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
        }
    }
}

pub(crate) fn committed() -> i64 {
    fs::read_to_string(COMMITTED).ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0)
}

/// The node commits further than this, in a while.
pub(crate) fn commits_past(version: i64) {
    let began = Instant::now();
    while committed() <= version {
        assert!(began.elapsed() < Duration::from_secs(20), "the node does not go on from {version}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn setup<'a>(s: &'a Sandbox, more: &[&'a str]) -> Vec<&'a str> {
    let plain = ["--lightning-dir", NODE, "--scheduler", "cron", "--yes"];
    [&["setup", "--hdd", s.one(), "--usb", s.two()], &plain[..], more].concat()
}

pub(crate) fn started(s: &Sandbox, flags: &[&str]) -> Ended {
    let guard = Ended;
    assert!(ask(s, NODE, &[&["--daemon"], flags].concat()), "the stand-in does not start");
    commits_past(3);
    guard
}

/// All that the one node running here has open lies on the mirror.
fn runs_on_the_mirror() {
    let found = pids();
    assert_eq!(found.len(), 1, "{found:?}");
    let cwd = fs::read_link(format!("/proc/{}/cwd", found[0])).unwrap();
    assert!(cwd.starts_with("/srv/lightning/lightning"), "{}", cwd.display());
}

#[test]
fn a_node_is_stopped_moved_and_started_and_brought_back() {
    isolated("node::a_node_is_stopped_moved_and_started_and_brought_back", |s| {
        let _ended = started(s, &[]);
        for (more, words) in [
            (&[][..], ["standin-node (pid", "--node-stop"]),
            (&["--no-node"], ["standin-node (pid", "leave --no-node out"]),
        ] {
            let refused = s.run(&setup(s, more));
            assert_eq!(refused.code, 3, "{}", refused.stderr);
            assert!(words.iter().all(|w| refused.stderr.contains(w)), "{}", refused.stderr);
        }
        let before = committed();
        let (stop, start) = (command(s, " --stop"), command(s, " --daemon"));
        let done = s.run(&setup(s, &["--node-stop", &stop, "--node-start", &start]));
        assert_eq!(done.code, 0, "{}", done.stderr);
        let moved = committed();
        assert!(moved >= before, "{moved} after {before}");
        commits_past(moved);
        runs_on_the_mirror();
        assert_eq!(s.run(&["status"]).code, 0);

        let back = s.run(&["release", "--yes"]);
        assert_eq!(back.code, 0, "{}", back.stderr);
        assert!(!Path::new(NODE).is_symlink());
        let home = committed();
        assert!(home >= moved, "{home} after {moved}");
        commits_past(home);
        let cwd = fs::read_link(format!("/proc/{}/cwd", pids()[0])).unwrap();
        assert!(cwd.starts_with(NODE), "{}", cwd.display());
        note(format!(
            "data_version {before}, {moved} after the move, {home} after the way back: none was lost"
        ));
    });
}

#[test]
fn a_node_that_will_not_stop_is_refused_and_goes_on() {
    isolated("node::a_node_that_will_not_stop_is_refused_and_goes_on", |s| {
        let _ended = started(s, &["--stubborn"]);
        let (stop, start) = (command(s, " --stop"), command(s, " --daemon"));
        let flags = ["--node-stop", &stop, "--node-start", &start, "--node-timeout", "2"];
        let devices = s.devices();
        let refused = s.run(&setup(s, &flags));
        assert_eq!(refused.code, 3, "{}", refused.stderr);
        assert!(refused.stderr.contains("still in use: standin-node (pid"), "{}", refused.stderr);
        assert_eq!(pids().len(), 1, "neither ended nor a second one");
        commits_past(committed());
        assert!(!Path::new(NODE).is_symlink());
        assert!(s.devices() == devices, "something was written");
        // Nothing is left over that would stand in the way of the next try.
        let again = s.run(&["setup", "--resume"]);
        assert!(again.code == 3 && again.stderr.contains("rolled back"), "{}", again.stderr);
    });
}

#[test]
fn a_stop_command_that_fails_leaves_the_node_as_it_was() {
    isolated("node::a_stop_command_that_fails_leaves_the_node_as_it_was", |s| {
        let _ended = started(s, &[]);
        let start = command(s, " --daemon");
        let failed = s.run(&setup(s, &["--node-stop", "false", "--node-start", &start]));
        assert_eq!(failed.code, 1, "{}", failed.stderr);
        assert!(failed.stderr.contains("everything is as it was"), "{}", failed.stderr);
        assert_eq!(pids().len(), 1);
        commits_past(committed());
    });
}

/// A process that has its working directory in the node's, as a plugin that outlived its node.
fn lingerer(dir: &str) -> Child {
    Command::new("sleep").arg("60").current_dir(dir).spawn().unwrap()
}

#[test]
fn what_outlives_its_node_is_waited_for_and_named() {
    isolated("node::what_outlives_its_node_is_waited_for_and_named", |s| {
        let _ended = started(s, &[]);
        let mut plugin = lingerer(NODE);
        let (stop, start) = (command(s, " --stop"), command(s, " --daemon"));
        let flags = ["--node-stop", &stop, "--node-start", &start, "--node-timeout", "2"];
        let refused = s.run(&setup(s, &flags));
        assert_eq!(refused.code, 3, "{}", refused.stderr);
        assert!(refused.stderr.contains("sleep (pid"), "{}", refused.stderr);
        assert_eq!(pids().len(), 1, "the node was started again");
        commits_past(committed());
        plugin.kill().unwrap();
        plugin.wait().unwrap();
        let done = s.run(&setup(s, &flags));
        assert_eq!(done.code, 0, "{}", done.stderr);
        runs_on_the_mirror();
    });
}

#[test]
fn a_node_in_a_container_is_found_by_its_files() {
    isolated("node::a_node_in_a_container_is_found_by_its_files", |s| {
        // As a container does it: other mounts, where the same files have another name.
        let script = format!(
            "mkdir -p /run/inside && mount --bind {NODE} /run/inside && exec '{}' --dir /run/inside --committed {COMMITTED}",
            standin(s).display()
        );
        let mut container = Command::new("unshare").args(["--mount", "sh", "-c", &script]).spawn().unwrap();
        commits_past(3);
        let refused = s.run(&setup(s, &["--no-node"]));
        container.kill().unwrap();
        container.wait().unwrap();
        assert_eq!(refused.code, 3, "{}", refused.stderr);
        assert!(refused.stderr.contains("standin-node (pid"), "{}", refused.stderr);
        // A killed node leaves its pid file and its socket; neither stands in the way.
        let done = s.run(&setup(s, &["--no-node"]));
        assert_eq!(done.code, 0, "{}", done.stderr);
    });
}

#[test]
fn a_kill_while_a_node_is_moved_never_loses_a_commit() {
    isolated("node::a_kill_while_a_node_is_moved_never_loses_a_commit", |s| {
        let _ended = Ended;
        let mut instants = 0;
        for (calls, numbers) in
            [("fsync,fdatasync", [2, 3, 12, 20, 26]), ("rename,renameat,renameat2,symlink", [1, 2, 3, 4, 5])]
        {
            for number in numbers {
                for direction in ["--resume", "--rollback"] {
                    let (stop, start) = (command(s, " --stop"), command(s, " --daemon"));
                    let _ended = started(s, &[]);
                    let args = setup(s, &["--node-stop", &stop, "--node-start", &start]);
                    if !s.run_killed(calls, number, &args) {
                        panic!("it ended before call {number} of {calls}");
                    }
                    instants += 1;
                    let at = format!("killed at call {number} of {calls}, then {direction}");
                    let before = committed();
                    let second = s.run(&["setup", direction]);
                    let too_late = direction == "--rollback" && second.stderr.contains("old state now");
                    let nothing = second.stderr.contains("there is no setup");
                    assert!(second.code == 0 || too_late || nothing, "{at}: {}", second.stderr);
                    if too_late {
                        assert_eq!(s.run(&["setup", "--resume"]).code, 0, "{at}");
                    }
                    commits_past(before);
                    assert_eq!(pids().len(), 1, "{at}");
                    if Path::new(NODE).is_symlink() {
                        runs_on_the_mirror();
                    }
                    drop(_ended);
                    thread::sleep(Duration::from_millis(50));
                    s.reset();
                }
            }
        }
        note(format!(
            "killed at {instants} instants while a node was moved: one node ran afterwards, no commit was lost"
        ));
    });
}
