//! JSON, a line each, over a unix socket: what QEMU's monitor and its agent in the guest have in common.

use std::{
    io::{BufRead as _, BufReader, ErrorKind, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// How long anything may take before it counts as hung: emulation on a busy machine is slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(900);
/// How long one look at the socket takes.
const GLANCE: Duration = Duration::from_millis(500);

pub(crate) struct Talk {
    stream: BufReader<UnixStream>,
    line: Vec<u8>,
    events: Vec<Value>,
}

impl Talk {
    /// Connects as soon as somebody listens. `alive` says whether that can still be.
    pub(crate) fn connect(path: &Path, alive: &mut dyn FnMut() -> bool) -> Self {
        let began = Instant::now();
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(e) => assert!(alive() && began.elapsed() < PATIENCE, "{}: {e}", path.display()),
            }
            thread::sleep(Duration::from_millis(50));
        };
        stream.set_read_timeout(Some(GLANCE)).unwrap();
        Self { stream: BufReader::new(stream), line: Vec::new(), events: Vec::new() }
    }

    /// The next message; `None`: not within a glance. What has come of a line is kept for the next look.
    pub(crate) fn receive(&mut self) -> Option<Value> {
        match self.stream.read_until(b'\n', &mut self.line) {
            Ok(0) => panic!("the other end has closed"),
            Ok(_) => {
                let line = std::mem::take(&mut self.line);
                // The agent begins an answer to `guest-sync-delimited` with this byte.
                let text = line.strip_prefix(b"\xff").unwrap_or(&line);
                Some(serde_json::from_slice(text).unwrap_or(Value::Null))
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(e) => panic!("{e}"),
        }
    }

    pub(crate) fn send(&mut self, command: &str, arguments: Value) {
        let text = json!({"execute": command, "arguments": arguments}).to_string() + "\n";
        self.stream.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// Sends a command and waits for its answer. Events that come between are kept.
    #[track_caller]
    pub(crate) fn ask(&mut self, command: &str, arguments: Value) -> Value {
        self.send(command, arguments.clone());
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < PATIENCE, "no answer to {command} {arguments}");
            let Some(message) = self.receive() else { continue };
            if let Some(answer) = message.get("return") {
                return answer.clone();
            }
            if let Some(error) = message.get("error") {
                panic!("{command} {arguments}: {error}");
            }
            if message.get("event").is_some() {
                self.events.push(message);
            }
        }
    }

    /// Asks again and again, until the answer is the one that is waited for.
    #[track_caller]
    pub(crate) fn wait_until(&mut self, command: &str, is_it: impl Fn(&Value) -> bool) {
        let began = Instant::now();
        loop {
            let answer = self.ask(command, json!({}));
            if is_it(&answer) {
                return;
            }
            assert!(began.elapsed() < PATIENCE && answer["status"] != "failed", "{command}: {answer}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits for an event that says this of its `key`.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, event: &str, key: &str, value: &str) {
        let began = Instant::now();
        loop {
            let is_it = |e: &Value| e["event"] == event && e["data"][key] == value;
            if let Some(at) = self.events.iter().position(is_it) {
                self.events.remove(at);
                return;
            }
            assert!(began.elapsed() < PATIENCE, "no {event} for {key} {value}");
            let message = self.receive();
            self.events.extend(message.filter(|m| m.get("event").is_some()));
        }
    }
}
