//! The program at a terminal, by script(1).

use std::{
    io::{Read as _, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::sandbox::Sandbox;

pub(crate) struct Terminal {
    script: Child,
    keys: ChildStdin,
    screen: ChildStdout,
    /// All that was shown so far.
    pub(crate) shown: String,
}

impl Terminal {
    /// Runs it with these arguments, as one types them.
    pub(crate) fn run(s: &Sandbox, args: &str) -> Self {
        // The shell tells the exit code: script(1) reads it at times before there is one.
        let command = format!("trap : INT; {} {args}; echo \"it ended with $?\"", s.program().display());
        let mut script = Command::new("script")
            .args(["--quiet", "--command", &command, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (keys, screen) = (script.stdin.take().unwrap(), script.stdout.take().unwrap());
        Self { script, keys, screen, shown: String::new() }
    }

    pub(crate) fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Reads on until these words are shown.
    pub(crate) fn until(&mut self, words: &str) {
        let (from, mut byte) = (self.shown.len(), [0]);
        while !self.shown[from..].contains(words) {
            assert_eq!(self.screen.read(&mut byte).unwrap(), 1, "{}", self.shown);
            self.shown.push(char::from(byte[0]));
        }
    }

    /// Waits for its end, which must be with this exit code.
    pub(crate) fn ends_with(mut self, code: i32) {
        self.until(&format!("it ended with {code}\r\n"));
        drop(self.keys);
        self.script.wait().unwrap();
    }
}
