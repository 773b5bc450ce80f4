//! A runner that answers from a script: for tests of everything above this room.

use std::{
    io,
    sync::{Mutex, PoisonError},
};

use super::{Cmd, CmdError, Effect, Failure, Flow, Held, Output, Runner, Signal};

/// What a scripted command answers.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The exit code.
    pub code: i32,
    /// The standard output.
    pub stdout: Vec<u8>,
    /// The standard error.
    pub stderr: Vec<u8>,
}

impl Reply {
    /// Exit code 0 with this standard output.
    pub fn ok(stdout: impl Into<Vec<u8>>) -> Self {
        Self { code: 0, stdout: stdout.into(), stderr: Vec::new() }
    }

    /// This exit code with this standard error.
    pub fn fail(code: i32, stderr: impl Into<Vec<u8>>) -> Self {
        Self { code, stdout: Vec::new(), stderr: stderr.into() }
    }
}

type Rule = (String, Reply);

/// Answers each command by the longest rule that its line starts with; a command without a rule fails, so that nothing unforeseen
/// passes as success. It can be told to fail at the n-th call.
#[derive(Debug, Default)]
pub struct ScriptedRunner {
    rules: Vec<Rule>,
    absent: Vec<String>,
    fail_at: Vec<usize>,
    calls: Mutex<Vec<(Effect, String)>>,
    inputs: Mutex<Vec<Vec<u8>>>,
    held: Mutex<Vec<String>>,
}

impl ScriptedRunner {
    /// A runner that knows no command yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers lines that start with `prefix` with `reply`.
    #[must_use]
    pub fn on(mut self, prefix: &str, reply: Reply) -> Self {
        self.rules.push((prefix.to_owned(), reply));
        self
    }

    /// Makes this tool absent.
    #[must_use]
    pub fn without(mut self, tool: &str) -> Self {
        self.absent.push(tool.to_owned());
        self
    }

    /// Makes the call with this number (from 0) fail.
    #[must_use]
    pub fn fail_at(mut self, call: usize) -> Self {
        self.fail_at.push(call);
        self
    }

    /// Every command that was run, with its effect, in order.
    pub fn calls(&self) -> Vec<(Effect, String)> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the commands were given on their standard input, in order.
    pub fn inputs(&self) -> Vec<Vec<u8>> {
        self.inputs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was started to run beside other work, in order.
    pub fn held(&self) -> Vec<String> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Runner for ScriptedRunner {
    fn hold(&self, cmd: &Cmd) -> Result<Held, CmdError> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).push(cmd.line());
        Ok(Held::default())
    }

    fn run_watched(&self, cmd: &Cmd, tick: &mut dyn FnMut() -> Flow) -> Result<Output, CmdError> {
        let line = cmd.line();
        let number = {
            let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
            calls.push((cmd.effect, line.clone()));
            calls.len() - 1
        };
        if let Some(input) = cmd.input() {
            self.inputs.lock().unwrap_or_else(PoisonError::into_inner).push(input.to_vec());
        }
        let fail = |failure, stderr: &[u8]| CmdError::new(cmd, failure, stderr);
        if self.absent.iter().any(|tool| tool == cmd.tool) {
            return Err(fail(Failure::Absent { dirs: "the script".to_owned() }, &[]));
        }
        if self.fail_at.contains(&number) {
            return Err(fail(Failure::Code(1), b"injected failure"));
        }
        tick();
        let rule = self.rules.iter().filter(|(prefix, _)| line.starts_with(prefix.as_str()));
        let Some((_, reply)) = rule.max_by_key(|(prefix, _)| prefix.len()) else {
            return Err(fail(Failure::NotStarted("the script has no rule for it".to_owned()), &[]));
        };
        if !cmd.accepted.contains(&reply.code) {
            return Err(fail(Failure::Code(reply.code), &reply.stderr));
        }
        Ok(Output { code: reply.code, stdout: reply.stdout.clone(), stderr: reply.stderr.clone() })
    }

    fn signal(&self, pid: i32, signal: Signal) -> io::Result<()> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.push((Effect::Change, format!("kill -{} {pid}", signal.as_str().trim_start_matches("SIG"))));
        Err(io::Error::from_raw_os_error(nix::libc::ESRCH))
    }

    fn has(&self, tool: &str) -> bool {
        !self.absent.iter().any(|absent| absent == tool)
    }
}
