//! What is done in the guest, through its agent.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{machine::Machine, recordings, talk::PATIENCE};

pub(crate) struct Ran {
    pub(crate) code: i64,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Machine {
    /// Starts a command; the number by which its end is asked for.
    pub(crate) fn begin(&mut self, argv: &[&str]) -> i64 {
        let arguments = json!({"path": argv[0], "arg": argv[1..], "capture-output": true});
        self.agent().ask("guest-exec", arguments)["pid"].as_i64().unwrap()
    }

    /// Waits for the end of a command.
    #[track_caller]
    pub(crate) fn finish(&mut self, pid: i64) -> Ran {
        let began = Instant::now();
        let mut pause = Duration::from_millis(20);
        loop {
            let status = self.agent().ask("guest-exec-status", json!({"pid": pid}));
            if status["exited"] == true {
                let text = |key: &str| decoded(status[key].as_str().unwrap_or_default());
                let code = status["exitcode"].as_i64().unwrap_or(-1);
                return Ran { code, stdout: text("out-data"), stderr: text("err-data") };
            }
            assert!(began.elapsed() < PATIENCE, "it does not end");
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    #[track_caller]
    pub(crate) fn run(&mut self, argv: &[&str]) -> Ran {
        let pid = self.begin(argv);
        self.finish(pid)
    }

    #[track_caller]
    pub(crate) fn sh(&mut self, script: &str) -> Ran {
        self.run(&["/bin/bash", "-c", script])
    }

    /// Runs a script that must succeed; what it says.
    #[track_caller]
    pub(crate) fn ok(&mut self, script: &str) -> String {
        let ran = self.sh(script);
        assert_eq!(ran.code, 0, "{script}: {}{}", ran.stdout, ran.stderr);
        ran.stdout
    }

    #[track_caller]
    pub(crate) fn raidguard(&mut self, args: &[&str]) -> Ran {
        self.run(&[&["/usr/local/sbin/raidguard"], args].concat())
    }

    /// Runs a verb without waiting for it. What it says goes to the console.
    pub(crate) fn begin_raidguard(&mut self, args: &[&str]) {
        let words: Vec<_> = args.iter().map(|word| format!("'{word}'")).collect();
        let script = format!("/usr/local/sbin/raidguard {} 2>&1 | cat >/dev/ttyS0", words.join(" "));
        self.begin(&["/bin/bash", "-c", &script]);
    }

    /// What has come out of the console since it had `seen` bytes.
    pub(crate) fn console_since(&self, seen: usize) -> String {
        let bytes = fs::read(self.path("console")).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(seen..).unwrap_or_default()).into_owned()
    }

    /// Waits until the console has said one of these, after it had said `seen` bytes.
    #[track_caller]
    pub(crate) fn console_says(&self, seen: usize, what: &[String]) {
        let began = Instant::now();
        while !what.iter().any(|what| self.console_since(seen).contains(what)) {
            assert!(began.elapsed() < PATIENCE, "it does not say {what:?}: {}", self.console_since(seen));
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Keeps what the last check saw for ring 0, where `RAIDGUARD_RECORD_OBSERVED` names a directory.
    pub(crate) fn record(&mut self, faults: &[&Value]) {
        let Some(dir) = std::env::var_os("RAIDGUARD_RECORD_OBSERVED") else { return };
        let dump = self.ok("cat /run/observed.json");
        fs::create_dir_all(&dir).unwrap();
        let dump = serde_json::from_str(&dump).unwrap();
        recordings::keep(std::path::Path::new(&dir), &format!("lab-{}-", self.name()), dump, faults);
    }

    /// The last commit that the node told of before it went on to the next.
    pub(crate) fn committed(&self) -> i64 {
        let text = fs::read_to_string(self.path("committed")).unwrap_or_default();
        // Only whole lines count.
        text.rsplit_once('\n').and_then(|(lines, _)| lines.lines().last()?.parse().ok()).unwrap_or(0)
    }

    /// How new the node's database is. The stand-in node waits for readers.
    #[track_caller]
    pub(crate) fn database_version(&mut self) -> i64 {
        let asked = "SELECT intval FROM vars WHERE name = 'data_version'";
        let file = "/home/bitcoin/.lightning/bitcoin/lightningd.sqlite3";
        self.ok(&format!("sqlite3 -cmd '.timeout 60000' {file} \"{asked}\"")).trim().parse().unwrap()
    }

    /// Waits until the node has committed more than this.
    #[track_caller]
    pub(crate) fn commits_past(&self, version: i64) {
        let began = Instant::now();
        while self.committed() <= version {
            assert!(began.elapsed() < PATIENCE, "the node does not go on from {version}");
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// RFC 4648, as the agent encodes what a command has said.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let (mut bits, mut held) = (0_u32, 0);
    for c in text.bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A field of what raidguard printed as JSON.
pub(crate) fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}
