//! `drill`: it holds, it leaves the machine as it found it however it ends, and it says what it is refused for.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Read as _},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    sandbox::{OWN, Ran, Sandbox, isolated, note},
    terminal::Terminal,
    trouble::ended,
};

/// What an operator has declared; nothing of it but the first lines and the kind may turn up in a drill.
const DECLARED: &str = r#"
[[mirror]]
name = "vault"
backend = "btrfs"
level = "raid1"
uuid = "1f624a50-0f62-4fea-8ae9-91647e74e09e"
mountpoint = "/srv/the-real-one"

[[mirror.member]]
id = "1"
uuid = "9b668d84-53e5-4efa-af0c-0fae0fd02f71"
serial = "REAL-1"
size = 32010928128

[[mirror.member]]
id = "2"
uuid = "9b668d84-53e5-4efa-af0c-0fae0fd02f72"
serial = "REAL-2"
size = 32010928128

[mirror.node]
kind = "core-lightning"
directory = "/home/real/.lightning"
data = "/srv/the-real-one/lightning"
user = "realuser"
unit = "real.service"

[mirror.schedule]
with = "cron"
check = "*/15 * * * *"
deep = "30 3 * * *"
balance = "0 0 * * *"
scrub = "0 0 * * 0"

[notify]
command = ["/usr/bin/touch", "/home/told"]
"#;

/// All that a drill could leave.
#[derive(Debug, PartialEq)]
struct Machine {
    loops: String,
    read_only: BTreeSet<PathBuf>,
    mounts: Vec<String>,
    processes: Vec<String>,
    files: Vec<(PathBuf, String)>,
}

/// Where its disks are in these tests: not in memory.
fn scratch(s: &Sandbox) -> PathBuf {
    let dir = s.scratch().join("drills");
    fs::create_dir_all(&dir).unwrap();
    dir
}

fn machine(s: &Sandbox) -> Machine {
    let own: Vec<_> =
        OWN.iter().map(|name| format!("/{name}")).chain([scratch(s).display().to_string()]).collect();
    let files = own.iter().flat_map(|dir| {
        s.tree_of(dir).into_iter().map(move |(path, facts)| (Path::new(dir).join(path), facts))
    });
    let is_read_only =
        |path: &PathBuf| fs::read_to_string(path.join("ro")).is_ok_and(|text| text.trim() == "1");
    let blocks = fs::read_dir("/sys/class/block").unwrap().map(|e| e.unwrap().path());
    let loops = blocks.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("loop"));
    // A mount's own number and its parent's differ from run to run.
    let mounts = s.mounts().lines().map(|l| l.splitn(3, ' ').nth(2).unwrap().to_owned()).collect();
    let mut processes: Vec<_> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|e| fs::read(e.unwrap().path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| {
            let program =
                Path::new(line.split(' ').next().unwrap_or_default()).file_name().unwrap_or_default();
            program == "raidguard" || program == "qemu-storage-daemon"
        })
        .collect();
    processes.sort();
    Machine {
        loops: s.tool("losetup", &["--list", "--noheadings", "--output", "NAME,BACK-FILE"]),
        read_only: loops.filter(is_read_only).collect(),
        mounts,
        processes,
        files: files.collect(),
    }
}

#[track_caller]
fn unchanged(s: &Sandbox, before: &Machine) {
    let now = machine(s);
    assert_eq!(now.loops, before.loops);
    assert_eq!(now.read_only, before.read_only);
    assert_eq!(now.mounts, before.mounts);
    assert_eq!(now.processes, before.processes);
    let (was, is): (BTreeSet<_>, BTreeSet<_>) = (before.files.iter().collect(), now.files.iter().collect());
    let differ: Vec<_> = was.symmetric_difference(&is).collect();
    assert!(differ.is_empty(), "{differ:#?}");
}

/// A drill that runs; what it says is read line by line.
struct Running {
    child: Child,
    said: String,
}

impl Running {
    fn start(s: &Sandbox) -> Self {
        let child = Command::new(s.program())
            .args(["drill", "--scratch", scratch(s).to_str().unwrap()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, said: String::new() }
    }

    /// Until it has said a line that holds this.
    fn until(&mut self, words: &str) {
        // One byte at a time: what comes later is read by whoever comes later.
        let stderr = self.child.stderr.as_mut().unwrap();
        let mut byte = [0];
        let from = self.said.len();
        while !self.said[from..].contains(words) {
            assert_eq!(
                stderr.read(&mut byte).unwrap(),
                1,
                "it ended before it said `{words}`: {}",
                self.said
            );
            self.said.push(char::from(byte[0]));
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    fn end(mut self) -> Ran {
        let stderr = self.child.stderr.take().unwrap();
        for line in BufReader::new(stderr).split(b'\n') {
            self.said += &String::from_utf8_lossy(&line.unwrap());
            self.said.push('\n');
        }
        let status = self.child.wait().unwrap();
        let code = status.code().or(status.signal().map(|n| 128 + n)).unwrap();
        Ran { code, stdout: String::new(), stderr: self.said }
    }
}

#[test]
fn every_step_holds_and_nothing_is_left() {
    isolated("drill::every_step_holds_and_nothing_is_left", |s| {
        fs::create_dir("/etc/raidguard").unwrap();
        fs::write("/etc/raidguard/raidguard.toml", DECLARED).unwrap();
        let before = machine(s);
        let ran = s.run(&["drill", "--json", "--scratch", scratch(s).to_str().unwrap()]);
        assert_eq!(ran.code, 0, "{}{}", ran.stderr, ran.stdout);
        unchanged(s, &before);
        let printed: Value = serde_json::from_str(&ran.stdout).unwrap();
        let drill = &printed["drill"];
        assert_eq!(
            (&printed["schema"], &drill["passed"], &drill["log"]),
            (&1.into(), &true.into(), &Value::Null)
        );
        let steps = drill["steps"].as_array().unwrap();
        assert_eq!(steps.len(), 10);
        for step in steps {
            assert_eq!(step["end"], "held", "{step}");
            assert!(
                !step["came_out"].as_str().unwrap().is_empty() && step["milliseconds"].is_u64(),
                "{step}"
            );
        }
        // The operator's name, level, kind and cron; and nothing that is real.
        let setup = steps[0]["command"].as_str().unwrap();
        assert!(
            setup.contains("--level raid1 --name vault") && setup.contains("--scheduler cron"),
            "{setup}"
        );
        for real in
            ["1f624a50", "9b668d84", "REAL-", "the-real-one", "/home/real", "realuser", "real.service"]
        {
            assert!(!ran.stderr.contains(real) && !ran.stdout.contains(real), "{real}: {}", ran.stderr);
        }
        assert!(!Path::new("/home/told").exists(), "somebody was notified");
        let wide: Vec<_> = ran.stderr.lines().filter(|l| l.chars().count() > 80).collect();
        assert!(wide.is_empty(), "{wide:#?}");
        for step in steps {
            note(format_args!(
                "{}: {} ({} ms)",
                step["step"].as_str().unwrap(),
                step["came_out"].as_str().unwrap(),
                step["milliseconds"]
            ));
        }
    });
}

/// A level whose members each have only a part of everything.
#[test]
fn it_holds_with_a_raid10() {
    isolated("drill::it_holds_with_a_raid10", |s| {
        let more = |number: u32| {
            format!(
                "[[mirror.member]]\nid = \"{number}\"\nuuid = \"9b668d84-53e5-4efa-af0c-0fae0fd02f7{number}\"\n\
                 size = 32010928128\n\n[mirror.node]"
            )
        };
        let declared = DECLARED.replace("\"raid1\"", "\"raid10\"");
        let declared = declared.replace("[mirror.node]", &more(3)).replace("[mirror.node]", &more(4));
        fs::create_dir("/etc/raidguard").unwrap();
        fs::write("/etc/raidguard/raidguard.toml", declared).unwrap();
        let before = machine(s);
        let ran = s.run(&["drill", "--scratch", scratch(s).to_str().unwrap()]);
        assert_eq!(ran.code, 0, "{}{}", ran.stderr, ran.stdout);
        assert!(ran.stderr.contains("raid10 of 4"), "{}{}", ran.stderr, ran.stdout);
        unchanged(s, &before);
    });
}

/// A step by the words with which it is announced, and how long after them something happens, in milliseconds: less than the step takes on
/// a fast machine.
type At = (&'static str, u64);

#[test]
fn whoever_stops_it_finds_nothing_left() {
    isolated("drill::whoever_stops_it_finds_nothing_left", |s| {
        let before = machine(s);
        let instants: [(At, Signal); 6] = [
            (("A drill:", 0), Signal::SIGINT),
            (("/10 The node moves", 300), Signal::SIGTERM),
            (("/10 A disk is pulled", 50), Signal::SIGINT),
            (("/10 The power fails", 50), Signal::SIGHUP),
            (("/10 The rescue", 300), Signal::SIGINT),
            (("/10 A new disk", 200), Signal::SIGTERM),
        ];
        for ((words, after), signal) in instants {
            let mut drill = Running::start(s);
            drill.until(words);
            thread::sleep(Duration::from_millis(after));
            drill.signal(signal);
            let ran = drill.end();
            ended(&ran, 1, &["the drill was stopped, as asked", "nothing of this machine was touched"]);
            unchanged(s, &before);
        }
    });
}

#[test]
fn what_a_killed_one_leaves_the_next_one_clears() {
    isolated("drill::what_a_killed_one_leaves_the_next_one_clears", |s| {
        let before = machine(s);
        for (words, after) in [("/10 The node moves", 300), ("/10 The rescue", 300), ("/10 A new disk", 200)]
        {
            let mut drill = Running::start(s);
            drill.until(words);
            thread::sleep(Duration::from_millis(after));
            drill.signal(Signal::SIGKILL);
            assert_eq!(drill.end().code, 128 + 9);
            assert!(fs::read_dir(scratch(s)).unwrap().count() > 0, "something is left to clear");
            let mut next = Running::start(s);
            next.until("A drill:");
            next.signal(Signal::SIGINT);
            let ran = next.end();
            ended(&ran, 1, &["cleared what a drill that was killed had left", "stopped, as asked"]);
            unchanged(s, &before);
        }
    });
}

#[test]
fn what_it_is_refused_for() {
    isolated("drill::what_it_is_refused_for", |s| {
        let dir = scratch(s);
        let dir = dir.to_str().unwrap();
        let before = machine(s);
        let refused = |args: &[&str], words: &[&str]| {
            let ran = s.run(&[&["drill"], args].concat());
            ended(&ran, 3, &[words, &["nothing was changed"]].concat());
            unchanged(s, &before);
        };
        refused(&["--step", "--scratch", dir], &["no terminal", "leave --step out"]);
        refused(&["--scratch", "/nowhere"], &["/nowhere", "No such file"]);
        refused(&["--scratch", "/etc/fstab"], &["/etc/fstab is no directory", "name a directory"]);
        let (kind, flags) = (Some("tmpfs"), nix::mount::MsFlags::empty());
        nix::mount::mount(kind, "/mnt", kind, flags, Some("size=100m")).unwrap();
        let ran = s.run(&["drill", "--scratch", "/mnt"]);
        ended(&ran, 3, &["/mnt has 100 MiB free", "may need 4 GiB", "nothing was changed"]);
        nix::mount::umount("/mnt").unwrap();
        unchanged(s, &before);

        // One at a time.
        let mut first = Running::start(s);
        first.until("A drill:");
        let ran = s.run(&["drill", "--scratch", dir]);
        ended(
            &ran,
            3,
            &[&format!("another drill is at work (pid {})", first.child.id()), "nothing was changed"],
        );
        first.signal(Signal::SIGTERM);
        assert_eq!(first.end().code, 1);
        unchanged(s, &before);

        // A declaration that makes no sense is said, and it goes on without.
        fs::create_dir("/etc/raidguard").unwrap();
        fs::write("/etc/raidguard/raidguard.toml", "[[mirror]\n").unwrap();
        let mut drill = Running::start(s);
        drill.until("A drill:");
        drill.signal(Signal::SIGINT);
        let ran = drill.end();
        ended(&ran, 1, &["your own declaration cannot be used", "line 1", "No mirror is declared"]);
        fs::remove_dir_all("/etc/raidguard").unwrap();
        unchanged(s, &before);
    });
}

#[test]
fn a_step_that_fails_says_what_that_means_and_keeps_its_log() {
    isolated("drill::a_step_that_fails_says_what_that_means_and_keeps_its_log", |s| {
        let before = machine(s);
        let chattr = fs::canonicalize("/usr/bin/chattr").unwrap();
        let none: Option<&str> = None;
        nix::mount::mount(Some("/dev/null"), &chattr, none, nix::mount::MsFlags::MS_BIND, none).unwrap();
        let ran = s.run(&["drill", "--scratch", scratch(s).to_str().unwrap()]);
        nix::mount::umount(&chattr).unwrap();
        ended(
            &ran,
            1,
            &["the drill failed at `The node moves`", "chattr", "a setup on this machine would stop"],
        );
        assert!(ran.stdout.contains("FAILED The node moves"), "{}", ran.stdout);
        assert!(ran.stdout.contains("0 of 10 steps held"), "{}", ran.stdout);
        assert_eq!(ran.stdout.matches("not reached").count(), 9, "{}", ran.stdout);
        let logs: Vec<_> = fs::read_dir(scratch(s)).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(logs.len(), 1, "{logs:?}");
        assert!(ran.stderr.contains(logs[0].to_str().unwrap()), "{}", ran.stderr);
        let log = fs::read_to_string(&logs[0]).unwrap();
        assert!(log.contains("$ raidguard setup") && log.contains("chattr"), "{log}");
        fs::remove_file(&logs[0]).unwrap();
        unchanged(s, &before);
    });
}

#[test]
fn step_by_step_at_a_terminal() {
    isolated("drill::step_by_step_at_a_terminal", |s| {
        let before = machine(s);
        let mut terminal = Terminal::run(s, &format!("drill --step --scratch {}", scratch(s).display()));
        terminal.until("press a key to go on");
        // Without a key nothing goes on.
        thread::sleep(Duration::from_secs(2));
        let drill = fs::read_dir(scratch(s)).unwrap().next().unwrap().unwrap().path();
        assert!(drill.join("var/lib").is_dir() && !drill.join("var/lib/raidguard").exists());
        terminal.types(" ");
        terminal.until("held");
        assert!(terminal.shown.contains("$ raidguard setup"), "{}", terminal.shown);
        terminal.until("press a key to go on");
        // Ctrl-C, as a terminal turns it into a signal.
        terminal.types("\x03");
        terminal.until("stopped, as asked");
        terminal.ends_with(1);
        unchanged(s, &before);
    });
}
