//! Commands on the real machine, through duct.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read as _, Seek as _},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use duct::unix::HandleExt;
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use super::{Cmd, CmdError, Effect, Failure, Flow, Held, Output, Runner};

/// Where the system's own tools live. root's PATH is not asked: it may hold anything.
const TOOL_DIRS: &str = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin";
/// What a command sees of the environment, whatever raidguard's own is.
const ENVIRONMENT: [(&str, &str); 3] = [("PATH", TOOL_DIRS), ("LC_ALL", "C.UTF-8"), ("TZ", "UTC")];
const TICK: Duration = Duration::from_millis(250);
/// How long a command may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(30);

/// Runs commands for real.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealRunner;

impl RealRunner {
    fn find(tool: &str) -> Option<PathBuf> {
        which::which_in(tool, Some(TOOL_DIRS), "/").ok()
    }
}

impl Runner for RealRunner {
    #[allow(clippy::disallowed_methods, reason = "the one place that starts a process")]
    fn run_watched(&self, cmd: &Cmd, tick: &mut dyn FnMut() -> Flow) -> Result<Output, CmdError> {
        match cmd.effect {
            Effect::Probe => tracing::debug!(target: "raidguard::exec", "probe: {}", cmd.line()),
            Effect::Change | Effect::Destroy => {
                super::log_change(&cmd.line());
            }
        }
        let fail = |failure, stderr: &[u8]| CmdError::new(cmd, failure, stderr);
        let found = cmd.program.clone().or_else(|| Self::find(cmd.tool));
        let path = found.ok_or_else(|| fail(Failure::Absent { dirs: TOOL_DIRS.to_owned() }, &[]))?;
        let not_started = |e: &io::Error| fail(Failure::NotStarted(e.to_string()), &[]);

        let spared = cmd.spared;
        let expression = duct::cmd(path, &cmd.args)
            .full_env(ENVIRONMENT.map(|(k, v)| (OsString::from(k), OsString::from(v))))
            .before_spawn(move |command| {
                // A group of its own: Ctrl-C reaches raidguard alone, and a time limit reaches grandchildren too.
                command.process_group(0);
                if !spared {
                    super::child::die_with_parent(command);
                }
                Ok(())
            })
            .unchecked();
        // What outlives us must not be left with pipes that nobody reads, nor be waited for because a child of it holds one.
        let files = spared.then(|| Ok((tempfile::tempfile()?, tempfile::tempfile()?))).transpose();
        let files = files.map_err(|e: io::Error| not_started(&e))?;
        let expression = match &files {
            None => expression.stdout_capture().stderr_capture(),
            Some((out, err)) => expression
                .stdout_file(out.try_clone().map_err(|e| not_started(&e))?)
                .stderr_file(err.try_clone().map_err(|e| not_started(&e))?),
        };
        let expression = match &cmd.stdin {
            Some(bytes) => expression.stdin_bytes(bytes.clone()),
            None => expression.stdin_null(),
        };

        let started = Instant::now();
        let handle = expression.start().map_err(|e| not_started(&e))?;
        let group = handle.pids().first().and_then(|pid| i32::try_from(*pid).ok()).map(Pid::from_raw);
        let mut asked_to_stop: Option<Instant> = None;
        let result = loop {
            match handle.wait_timeout(TICK).map_err(|e| not_started(&e))? {
                Some(output) => break output,
                None if cmd.timeout.is_some_and(|limit| started.elapsed() > limit) => {
                    let limit = cmd.timeout.unwrap_or_default();
                    if spared {
                        return Err(fail(Failure::LeftRunning(limit), &[]));
                    }
                    end_group(group);
                    // A process in uninterruptible sleep outlives SIGKILL: it is not waited for.
                    return Err(fail(Failure::TimedOut(limit), &[]));
                }
                None if asked_to_stop.is_some_and(|since| since.elapsed() > GRACE) => end_group(group),
                None => {
                    if !spared && asked_to_stop.is_none() && tick() == Flow::Stop {
                        asked_to_stop = Some(Instant::now());
                        let _ = handle.send_signal(Signal::SIGINT as i32);
                    }
                }
            }
        };
        let (stdout, stderr) = match files {
            None => (result.stdout.clone(), result.stderr.clone()),
            Some((out, err)) => (beginning(out), beginning(err)),
        };
        match (result.status.code(), result.status.signal()) {
            (Some(code), _) if cmd.accepted.contains(&code) => Ok(Output { code, stdout, stderr }),
            (Some(code), _) => Err(fail(Failure::Code(code), &stderr)),
            (None, signal) => Err(fail(Failure::Signal(signal.unwrap_or_default()), &stderr)),
        }
    }

    #[allow(clippy::disallowed_methods, reason = "the one place that starts a process")]
    fn hold(&self, cmd: &Cmd) -> Result<Held, CmdError> {
        tracing::debug!(target: "raidguard::exec", "meanwhile: {}", cmd.line());
        let path = Self::find(cmd.tool)
            .ok_or_else(|| CmdError::new(cmd, Failure::Absent { dirs: TOOL_DIRS.to_owned() }, &[]))?;
        let mut command = Command::new(path);
        command.args(&cmd.args).env_clear().envs(ENVIRONMENT);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        super::child::die_with_parent(&mut command);
        let started = command.spawn();
        Ok(Held::new(started.map_err(|e| CmdError::new(cmd, Failure::NotStarted(e.to_string()), &[]))?))
    }

    fn signal(&self, pid: i32, signal: Signal) -> io::Result<()> {
        super::log_change(&format!("kill -{} {pid}", signal.as_str().trim_start_matches("SIG")));
        Ok(kill(Pid::from_raw(pid), signal)?)
    }

    fn has(&self, tool: &str) -> bool {
        Self::find(tool).is_some()
    }
}

/// How much of what a spared command said is of use.
const SAID: u64 = 64 << 10;

fn beginning(mut file: File) -> Vec<u8> {
    let mut said = Vec::new();
    // What cannot be read is only words.
    let _ = file.rewind().and_then(|()| file.take(SAID).read_to_end(&mut said));
    said
}

fn end_group(group: Option<Pid>) {
    if let Some(group) = group {
        let _ = killpg(group, Signal::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_carries_what_was_said() {
        let error =
            RealRunner.run(&Cmd::probe("sh").args(["-c", "echo out; echo why >&2; exit 7"])).unwrap_err();
        assert_eq!(error.code(), Some(7));
        assert_eq!(error.said.as_deref(), Some("why"));
        let accepted = RealRunner.run(&Cmd::probe("sh").args(["-c", "exit 7"]).accept(&[0, 7]));
        assert_eq!(accepted.map(|o| o.code), Ok(7));
    }

    #[test]
    fn a_time_limit_ends_grandchildren_too() {
        let cmd = Cmd::probe("sh").args(["-c", "sleep 60 & wait"]).timeout(Duration::from_millis(200));
        let started = Instant::now();
        assert!(matches!(RealRunner.run(&cmd).unwrap_err().failure, Failure::TimedOut(_)));
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn what_is_spared_is_left_running() {
        let dir = tempfile::tempdir().unwrap();
        let told = dir.path().join("pid");
        let cmd = Cmd::change("sh").args(["-c", "echo $$ > \"$0\"; exec sleep 60"]).arg(&told);
        let limit = Duration::from_millis(400);
        let error = RealRunner.run(&cmd.timeout(limit).spared()).unwrap_err();
        assert_eq!(error.failure, Failure::LeftRunning(limit));
        let pid = std::fs::read_to_string(&told).unwrap().trim().parse().unwrap();
        let pid = Pid::from_raw(pid);
        assert_eq!(kill(pid, None), Ok(()));
        kill(pid, Signal::SIGKILL).unwrap();

        // Who has started something, and ended, is not waited for any longer, and what it said is known.
        let script = "sleep 60 & echo $! > \"$0\"; echo said; echo why >&2; exit 3";
        let cmd = Cmd::change("sh").args(["-c", script]).arg(&told).timeout(Duration::from_secs(30)).spared();
        let began = Instant::now();
        let error = RealRunner.run(&cmd).unwrap_err();
        assert_eq!(error.failure, Failure::Code(3));
        assert!(error.to_string().contains("why"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        let child = std::fs::read_to_string(&told).unwrap().trim().parse().unwrap();
        kill(Pid::from_raw(child), Signal::SIGKILL).unwrap();
    }

    #[test]
    fn an_absent_tool_is_named() {
        let error = RealRunner.run(&Cmd::probe("no-such-tool-anywhere")).unwrap_err();
        assert!(error.to_string().contains("not installed"), "{error}");
    }

    #[test]
    fn raidguard_itself_is_run_from_where_it_is() {
        let echo = RealRunner::find("echo").unwrap();
        let output = RealRunner.run(&Cmd::raidguard(&echo).args(["check", "it"])).unwrap();
        assert_eq!(output.text(), "check it\n");
        let gone = Cmd::raidguard(std::path::Path::new("/nowhere/raidguard")).arg("check");
        assert_eq!(gone.line(), "raidguard check");
        assert!(matches!(RealRunner.run(&gone).unwrap_err().failure, Failure::NotStarted(_)));
    }

    #[test]
    fn a_watcher_can_stop_a_command() {
        let cmd = Cmd::probe("sleep").arg("60");
        let error = RealRunner.run_watched(&cmd, &mut || Flow::Stop).unwrap_err();
        assert_eq!(error.failure, Failure::Signal(Signal::SIGINT as i32));
    }

    #[test]
    fn so_can_one_that_was_itself_started_deaf_to_it() {
        let again = r#"trap "" INT; exec "$0" --exact exec::real::tests::a_watcher_can_stop_a_command"#;
        let cmd = Cmd::probe("sh").args(["-c", again]).arg(std::env::current_exe().unwrap());
        let output = RealRunner.run(&cmd.timeout(Duration::from_secs(60))).unwrap();
        assert!(output.text().contains("1 passed"), "{}", output.text());
    }

    #[test]
    fn what_is_held_runs_until_it_is_let_go() {
        let mut held = RealRunner.hold(&Cmd::probe("cat")).unwrap();
        assert!(held.runs());
        let started = Instant::now();
        drop(held);
        assert!(started.elapsed() < Duration::from_secs(30));
        // One that ends by itself, and one that does not end.
        drop(RealRunner.hold(&Cmd::probe("true")).unwrap());
        drop(RealRunner.hold(&Cmd::probe("sleep").arg("600")).unwrap());
        assert!(started.elapsed() < Duration::from_secs(60));
        assert!(RealRunner.hold(&Cmd::probe("no-such-tool-anywhere")).is_err());
    }

    #[test]
    fn the_environment_is_not_inherited() {
        let output = RealRunner.run(&Cmd::probe("env")).unwrap();
        let mut names: Vec<_> =
            output.text().lines().filter_map(|l| Some(l.split_once('=')?.0.to_owned())).collect();
        names.sort();
        assert_eq!(names, ["LC_ALL", "PATH", "TZ"]);
    }
}
