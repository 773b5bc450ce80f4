//! What goes wrong on the way: each ends with a clear error, the original as it was, and a clean state or a resumable journal.

use std::{
    fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FallocateFlags, fallocate},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    sandbox::{Ran, Sandbox, isolated},
    setup,
};

const NODE: &str = "/home/bitcoin/.lightning";
const DATABASE: &str = "/home/bitcoin/.lightning/bitcoin/lightningd.sqlite3";

/// It ended with this code, says each of these, and what to do next.
pub(crate) fn ended(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code, code, "{}", ran.stderr);
    for word in words {
        assert!(ran.stderr.contains(word), "no `{word}` in {}", ran.stderr);
    }
    assert!(ran.stderr.contains("error:"), "{}", ran.stderr);
    assert!(ran.stderr.contains("next:") || ran.stderr.contains("clears with:"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
}

/// Stopped on its way: the original is at its place and as it was, and it is said.
fn on_the_way(s: &Sandbox, ran: &Ran, before: &Tree, words: &[&str]) {
    ended(ran, 1, words);
    for word in [&format!("{NODE} is untouched") as &str, "setup --resume", "setup --rollback"] {
        assert!(ran.stderr.contains(word), "no `{word}` in {}", ran.stderr);
    }
    assert!(!Path::new(NODE).is_symlink());
    assert!(&s.tree() == before, "the original was changed: {}", ran.stderr);
}

type Tree = std::collections::BTreeMap<PathBuf, String>;

fn rolled_back(s: &Sandbox, before: &Tree, fstab: &[u8]) {
    let back = s.run(&["setup", "--rollback"]);
    assert_eq!(back.code, 0, "{}", back.stderr);
    assert!(!Path::new(NODE).is_symlink());
    assert!(&s.tree() == before, "the original was changed: {}", back.stderr);
    assert_eq!(fs::read("/etc/fstab").unwrap(), fstab);
    assert!(!s.mounts().contains(" /srv/lightning"));
    for gone in ["/srv/lightning", "/etc/raidguard", "/etc/cron.d/raidguard"] {
        assert!(!fs::exists(gone).unwrap(), "{gone} was left");
    }
}

fn resumed(s: &Sandbox, before: &Tree) {
    let on = s.run(&["setup", "--resume"]);
    assert_eq!(on.code, 0, "{}", on.stderr);
    assert!(Path::new(NODE).is_symlink());
    assert!(&s.tree() == before, "the copy is another: {}", on.stderr);
    let check = s.run(&["check", "--format", "nagios"]);
    // Chunks that somebody else had filled are empty, and the kernel gives them back in a while.
    let ok =
        check.code == 0 || check.stdout.starts_with("RAIDGUARD WARNING - lightning: SPC-UNALLOCATED mirror");
    assert!(ok, "{}{}", check.stdout, check.stderr);
}

/// Something that `run` comes upon on its way; both ways on lead to their end, `clear` having cleared it.
fn both_ways(s: &Sandbox, words: &[&str], prepare: &dyn Fn(), run: &dyn Fn() -> Ran, clear: &dyn Fn()) {
    for resume in [false, true] {
        prepare();
        let (before, fstab) = (s.tree(), fs::read("/etc/fstab").unwrap());
        let ran = run();
        on_the_way(s, &ran, &before, words);
        if resume {
            clear();
            resumed(s, &s.tree());
        } else {
            rolled_back(s, &before, &fstab);
        }
        s.reset();
    }
}

/// Does something as soon as the mirror is mounted, and until it is told to end.
fn once_mounted(mut act: impl FnMut() + Send + 'static, again: bool) -> (Arc<AtomicBool>, JoinHandle<()>) {
    let end = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&end);
    let mounted = || {
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        mounts.lines().any(|l| l.contains(" /srv/lightning "))
    };
    let task = thread::spawn(move || {
        while !told.load(Ordering::Relaxed) && !mounted() {
            thread::yield_now();
        }
        while !told.load(Ordering::Relaxed) {
            act();
            if !again {
                break;
            }
        }
    });
    (end, task)
}

/// A file of bytes that are no zeros, which would become a hole.
fn big(path: &str, mebibytes: usize) {
    let mut file = fs::File::create(path).unwrap();
    let block: Vec<u8> = (0..1 << 20).map(|i| (i % 251 + 1) as u8).collect();
    (0..mebibytes).for_each(|_| file.write_all(&block).unwrap());
}

fn in_node(name: &str) -> String {
    format!("{NODE}/{name}")
}

#[test]
fn the_target_runs_full() {
    isolated("trouble::the_target_runs_full", |s| {
        // Somebody else takes the room as soon as there is any.
        let run = || {
            let (end, task) = once_mounted(
                || {
                    let filler = fs::File::create("/srv/lightning/filler").unwrap();
                    let mut at = 0;
                    for step in [64 << 20, 8 << 20, 1 << 20] {
                        while fallocate(&filler, FallocateFlags::empty(), at, step).is_ok() {
                            at += step;
                        }
                    }
                },
                false,
            );
            let ran = s.run(&setup(s, &[]));
            end.store(true, Ordering::Relaxed);
            task.join().unwrap();
            ran
        };
        let clear = || fs::remove_file("/srv/lightning/filler").unwrap();
        let words = ["copying", "No space left on device", "the target is full"];
        both_ways(s, &words, &|| big(&in_node("big"), 200), &run, &clear);
    });
}

#[test]
fn the_records_disk_runs_full_on_the_way() {
    isolated("trouble::the_records_disk_runs_full_on_the_way", |s| {
        let prepare = || {
            fs::create_dir_all("/var/lib/raidguard").unwrap();
            s.tool("mount", &["-t", "tmpfs", "-o", "size=600k", "tmpfs", "/var/lib/raidguard"]);
        };
        let run = || {
            let (end, task) = once_mounted(
                || {
                    let mut full = fs::File::create("/var/lib/raidguard/full").unwrap();
                    while full.write_all(&[1; 512]).is_ok() {}
                },
                false,
            );
            let ran = s.run(&setup(s, &[]));
            end.store(true, Ordering::Relaxed);
            task.join().unwrap();
            ran
        };
        let clear = || fs::remove_file("/var/lib/raidguard/full").unwrap();
        both_ways(
            s,
            &["recording the copy in /var/lib/raidguard", "No space left on device", "has room"],
            &prepare,
            &run,
            &clear,
        );
    });
}

/// A run of `setup` that is in the middle of its copy.
fn copying(s: &Sandbox) -> Child {
    let child = Command::new(env!("CARGO_BIN_EXE_raidguard"))
        .args(setup(s, &[]))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while !fs::exists("/srv/lightning/lightning/bitcoin/big").unwrap() {
        assert!(started.elapsed() < Duration::from_secs(60), "the copy does not begin");
        thread::sleep(Duration::from_millis(1));
    }
    child
}

fn finish(mut child: Child) -> Ran {
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    Ran { code: child.wait().unwrap().code().unwrap_or(-1), stdout: String::new(), stderr }
}

#[test]
fn a_signal_stops_the_copy() {
    isolated("trouble::a_signal_stops_the_copy", |s| {
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let run = || {
                let child = copying(s);
                kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
                finish(child)
            };
            let words = ["stopped while copying", "as asked"];
            both_ways(s, &words, &|| big(&in_node("bitcoin/big"), 256), &run, &|| ());
        }
    });
}

#[test]
fn a_second_run_waits_for_the_first() {
    isolated("trouble::a_second_run_waits_for_the_first", |s| {
        big(&in_node("bitcoin/big"), 256);
        let before = s.tree();
        let first = copying(s);
        let pid = Pid::from_raw(first.id().try_into().unwrap());
        kill(pid, Signal::SIGSTOP).unwrap();
        let named = format!("raidguard setup (pid {pid})");
        for second in [&setup(s, &[])[..], &["setup", "--resume"], &["setup", "--rollback"]] {
            let ran = s.run(second);
            ended(&ran, 3, &[&named, "wait until it has ended", "nothing was changed"]);
        }
        kill(pid, Signal::SIGCONT).unwrap();
        let done = finish(first);
        assert_eq!(done.code, 0, "{}", done.stderr);
        assert!(s.tree() == before);
    });
}

#[test]
fn a_file_changes_while_it_is_copied() {
    isolated("trouble::a_file_changes_while_it_is_copied", |s| {
        let log = in_node("debug.log");
        for resume in [false, true] {
            big(&log, 64);
            let rest = |s: &Sandbox| {
                let mut tree = s.tree();
                tree.remove(Path::new("debug.log"));
                tree
            };
            let (before, fstab) = (rest(s), fs::read("/etc/fstab").unwrap());
            let path = log.clone();
            let grow = move || {
                fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"a line\n").unwrap();
                thread::sleep(Duration::from_millis(1));
            };
            let (end, task) = once_mounted(grow, true);
            let ran = s.run(&setup(s, &[]));
            let again = s.run(&["setup", "--resume"]);
            end.store(true, Ordering::Relaxed);
            task.join().unwrap();
            for ran in [ran, again] {
                ended(&ran, 1, &["debug.log changed while it was copied", "is untouched", "fuser -v"]);
            }
            assert!(rest(s) == before);
            if resume {
                resumed(s, &s.tree());
            } else {
                rolled_back(s, &s.tree(), &fstab);
            }
            s.reset();
        }
    });
}

/// Runs it on a machine whose disk fails under one file.
fn failing(path: &str, calls: &str, args: &[&str]) -> Ran {
    let inject = format!("inject={calls}:error=EIO");
    let output = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "-P", path, "-e", &inject, "--", env!("CARGO_BIN_EXE_raidguard")])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::new(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn the_way_back_stops_as_well() {
    isolated("trouble::the_way_back_stops_as_well", |s| {
        for direction in ["--resume", "--rollback"] {
            assert_eq!(s.run(&setup(s, &[])).code, 0);
            let (before, fstab) = (s.tree(), fs::read("/etc/fstab").unwrap());
            let bad = "/srv/lightning/lightning/bitcoin/hsm_secret";
            let ran = failing(bad, "pread64", &["release", "--yes"]);
            ended(
                &ran,
                1,
                &["reading", "hsm_secret", "Input/output error", "/srv/lightning/lightning is untouched"],
            );
            assert!(Path::new(NODE).is_symlink() && s.tree() == before);
            let on = s.run(&["release", direction]);
            assert_eq!(on.code, 0, "{}", on.stderr);
            assert_eq!(Path::new(NODE).is_symlink(), direction == "--rollback");
            assert_eq!(fs::read("/etc/fstab").unwrap() == fstab, direction == "--rollback");
            assert!(s.tree() == before);
            if direction == "--rollback" {
                s.check_is_ok();
            }
            s.reset();
        }
    });
}

#[test]
fn a_file_cannot_be_read() {
    isolated("trouble::a_file_cannot_be_read", |s| {
        let bad = in_node("bitcoin/hsm_secret");
        for (calls, words) in [("pread64", ["reading", "hsm_secret"]), ("openat", ["opening", "hsm_secret"])]
        {
            let run = || failing(&bad, calls, &setup(s, &[]));
            both_ways(s, &[words[0], words[1], "Input/output error", "dmesg"], &|| (), &run, &|| ());
        }
    });
}

#[test]
fn a_corrupt_database_does_not_pass() {
    isolated("trouble::a_corrupt_database_does_not_pass", |s| {
        let sound = fs::read(DATABASE).unwrap();
        let damage = || {
            let mut bytes = fs::read(DATABASE).unwrap();
            for at in 3..20 {
                bytes[at * 4096..at * 4096 + 64].fill(0xa5);
            }
            fs::write(DATABASE, bytes).unwrap();
        };
        let repair = || fs::write(DATABASE, &sound).unwrap();
        let words = ["lightningd.sqlite3 does not pass", "the original has the same fault"];
        both_ways(s, &words, &damage, &|| s.run(&setup(s, &[])), &repair);
        // What hinders the check is not held against the database.
        let hindered = || failing("/srv/lightning/.raidguard-scratch", "mkdir", &setup(s, &[]));
        let words_hindered = ["lightningd.sqlite3 could not be checked", "Input/output error", "has room"];
        both_ways(s, &words_hindered, &|| (), &hindered, &|| ());
        let empty = || fs::write(DATABASE, "").unwrap();
        both_ways(s, &words[..1], &empty, &|| s.run(&setup(s, &[])), &repair);
    });
}
