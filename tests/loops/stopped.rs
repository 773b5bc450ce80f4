//! A rescue that is stopped, killed, or loses its target on the way: the survivor is untouched, nothing is left, and nothing that is not
//! whole is presented.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    halves::{Traces, find, recover},
    kills::Random,
    recover::{Attached, TO, cut, finished, nothing_is_presented},
    sandbox::{Ran, Sandbox, isolated, note},
    store::Store,
    terminal::Terminal,
    trouble::ended,
    writer::DATABASE,
};

/// How much lies below a directory, in bytes.
fn size(dir: &Path) -> u64 {
    let mut sum = 0;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        sum += match entry.metadata() {
            Ok(meta) if meta.is_dir() => size(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        };
    }
    sum
}

/// Runs a rescue and does something to it or its target while the copy is on its way.
fn at_the_copy(s: &Sandbox, from: &Attached, to: &str, more: &[&str], act: impl FnOnce(Pid)) -> Ran {
    let child = Command::new(s.program())
        .args(["recover", "--degraded", "--all", "--yes", "--from", from.name(), "--to", to])
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(child.id().try_into().unwrap());
    let began = Instant::now();
    let at = size(Path::new(to)) + (2 << 20);
    while size(Path::new(to)) < at {
        assert!(began.elapsed() < Duration::from_secs(60), "the copy does not begin");
        thread::sleep(Duration::from_millis(1));
    }
    kill(pid, Signal::SIGSTOP).unwrap();
    act(pid);
    let _ = kill(pid, Signal::SIGCONT);
    finished(child)
}
#[test]
fn stopped_or_killed_in_the_middle() {
    isolated("stopped::stopped_or_killed_in_the_middle", |s| {
        let store = Store::new(s);
        let cut = cut(s, &store, "raid1", &["one", "two"]);
        let half = cut.attach(s, &store, 0);
        let traces = Traces::of(s);
        let clean = || {
            half.is_untouched(s);
            traces.are_all(s);
        };
        for overlay in ["fuse", "image"] {
            for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
                let ran =
                    at_the_copy(s, &half, TO, &["--overlay", overlay], |pid| kill(pid, signal).unwrap());
                ended(&ran, 1, &["stopped"]);
                clean();
                nothing_is_presented(Path::new(TO), &ran);
                let _ = fs::remove_dir_all(TO);
            }
            let ran =
                at_the_copy(s, &half, TO, &["--overlay", overlay], |pid| kill(pid, Signal::SIGKILL).unwrap());
            nothing_is_presented(Path::new(TO), &ran);
            let _ = fs::remove_dir_all(TO);
            // Nobody has cleared up yet; the next run does, and then its own work.
            let ran = recover(s, &[half.name()], TO, &["--all", "--overlay", overlay]);
            assert_eq!(ran.code, 0, "after a kill: {}{}", ran.stdout, ran.stderr);
            cut.is_whole(Path::new(TO));
            clean();
            fs::remove_dir_all(TO).unwrap();
        }
    });
}

#[test]
fn killed_at_random_instants() {
    isolated("stopped::killed_at_random_instants", |s| {
        let store = Store::new(s);
        let cut = cut(s, &store, "raid1", &["one", "two"]);
        let (mut random, seed) = Random::seeded();
        let half = cut.attach(s, &store, 1);
        let traces = Traces::of(s);
        let began = Instant::now();
        assert_eq!(recover(s, &[half.name()], TO, &["--all"]).code, 0);
        let whole = u64::try_from(began.elapsed().as_micros()).unwrap();
        fs::remove_dir_all(TO).unwrap();
        let mut killed = 0;
        for _ in 0..20 {
            let mut child = Command::new(s.program())
                .args(["recover", "--degraded", "--all", "--yes", "--from", half.name(), "--to", TO])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            thread::sleep(Duration::from_micros(random.below(whole)));
            child.kill().unwrap();
            let complete = child.wait().unwrap().success();
            killed += usize::from(!complete);
            // Whatever has its own name is the whole of it.
            for (name, bytes) in [("hsm_secret", vec![7; 32]), ("emergency.recover", vec![9; 300])] {
                find(Path::new(TO), name).iter().for_each(|path| assert!(fs::read(path).unwrap() == bytes));
            }
            if !find(Path::new(TO), "RECOVERY.md").is_empty() {
                cut.is_whole(Path::new(TO));
            }
            let _ = fs::remove_dir_all(TO);
            let ran = recover(s, &[half.name()], TO, &[]);
            assert_eq!(ran.code, 0, "seed {seed}: {}{}", ran.stdout, ran.stderr);
            cut.is_whole(Path::new(TO));
            half.is_untouched(s);
            traces.are_all(s);
            fs::remove_dir_all(TO).unwrap();
        }
        assert!(killed >= 10, "{killed}");
        note(format!(
            "recover was killed at {killed} random instants (RAIDGUARD_TEST_SEED={seed}): the next run cleared up and rescued"
        ));
    });
}

#[test]
fn killed_at_every_change_of_a_name() {
    isolated("stopped::killed_at_every_change_of_a_name", |s| {
        let store = Store::new(s);
        let cut = cut(s, &store, "raid1", &["one", "two"]);
        let half = cut.attach(s, &store, 0);
        let traces = Traces::of(s);
        let calls = "rename,renameat,renameat2";
        let args = ["recover", "--degraded", "--yes", "--from", half.name(), "--to", TO];
        let mut instants = 0;
        while s.run_killed(calls, instants + 1, &args) {
            instants += 1;
            let to = Path::new(TO);
            let at = format!("killed at call {instants} of {calls}");
            if to.join("files").exists() {
                cut.is_whole(to);
                fs::remove_dir_all(to).unwrap();
            } else {
                assert_eq!(find(to, DATABASE), [] as [PathBuf; 0], "{at}");
            }
            // Into the same directory: what a killed one left there is not in the way.
            let ran = recover(s, &[half.name()], TO, &[]);
            assert_eq!(ran.code, 0, "{at}: {}{}", ran.stdout, ran.stderr);
            cut.is_whole(to);
            half.is_untouched(s);
            traces.are_all(s);
            fs::remove_dir_all(to).unwrap();
        }
        note(format!(
            "recover was killed at {instants} changes of a name: no files without what is said of them, and the next run rescued"
        ));
        assert!(instants >= 8, "{instants}");
    });
}

/// A file of it cannot be read, so that something is shown beside the files.
#[test]
fn killed_between_all_that_is_shown() {
    isolated("stopped::killed_between_all_that_is_shown", |s| {
        let store = Store::new(s);
        let cut = cut(s, &store, "raid1", &["one", "two"]);
        let half = cut.attach_damaged(s, &store, 0);
        let traces = Traces::of(s);
        let to = Path::new(TO);
        let args = ["recover", "--degraded", "--all", "--yes", "--from", half.name(), "--to", TO];
        let shown = ["RECOVERY.md", "SHA256SUMS", "damaged", "files"];
        for (number, name) in shown.into_iter().enumerate() {
            assert!(
                s.run_killed_at_name(&format!("{TO}/.raidguard-incomplete/{name}"), &args),
                "{name} is never shown"
            );
            let there = || shown.iter().filter(|name| to.join(name).exists()).count();
            assert_eq!(there(), number, "{name}: in their order");
            assert_eq!(find(to, DATABASE), [] as [PathBuf; 0], "{name}");
            let ran = recover(s, &[half.name()], TO, &["--all"]);
            assert_eq!(ran.code, 4, "{name}: {}{}", ran.stdout, ran.stderr);
            assert!(there() == shown.len() && !to.join(".raidguard-incomplete").exists());
            let parts: Vec<_> = fs::read_dir(to.join("damaged")).unwrap().collect();
            assert_eq!(parts.len(), 1, "{parts:?}");
            cut.is_whole(to);
            half.is_untouched(s);
            traces.are_all(s);
            fs::remove_dir_all(to).unwrap();
        }
    });
}

#[test]
fn ctrl_c_at_the_question() {
    isolated("stopped::ctrl_c_at_the_question", |s| {
        let store = Store::new(s);
        let cut = cut(s, &store, "raid1", &["one", "two"]);
        let half = cut.attach(s, &store, 0);
        let traces = Traces::of(s);
        for (typed, says) in
            [("\x03", "stopped at the question, as asked"), ("no\n", "the answer was not `yes`")]
        {
            let mut terminal =
                Terminal::run(s, &format!("recover --degraded --from {} --to {TO}", half.name()));
            terminal.until("Type yes to go on: ");
            terminal.types(typed);
            terminal.until(says);
            terminal.ends_with(3);
            assert!(!Path::new(TO).exists());
            half.is_untouched(s);
            traces.are_all(s);
        }
    });
}

#[test]
fn what_happens_to_the_target_in_the_middle() {
    isolated("stopped::what_happens_to_the_target_in_the_middle", |s| {
        let store = Store::new(s);
        let cut = cut(s, &store, "raid1", &["one", "two"]);
        let half = cut.attach(s, &store, 0);
        let target = "/srv/target";
        fs::create_dir(target).unwrap();
        let to = "/srv/target/rescued";
        let traces = Traces::of(s);

        // Somebody else takes the room.
        s.tool("mount", &["-t", "tmpfs", "-o", "size=300m", "tmpfs", target]);
        let filler = || {
            let mut full = fs::File::create("/srv/target/full").unwrap();
            while full.write_all(&[1; 4096]).is_ok() {}
        };
        let ran = at_the_copy(s, &half, to, &[], |_| filler());
        ended(&ran, 1, &["No space left on device"]);
        nothing_is_presented(Path::new(to), &ran);
        half.is_untouched(s);
        s.tool("umount", &[target]);
        traces.are_all(s);

        // Unplugged: from one instant to the next every access fails.
        let disk = s.disk("target.image", 400 << 20);
        s.tool("mkfs.xfs", &["-q", disk.name()]);
        s.tool("mount", &[disk.name(), target]);
        let ran = at_the_copy(s, &half, to, &[], |_| {
            s.tool("xfs_io", &["-x", "-c", "shutdown", target]);
        });
        ended(&ran, 1, &["Input/output error", to]);
        half.is_untouched(s);
        s.tool("umount", &[target]);
        // As it is when the disk is plugged in again.
        s.tool("mount", &[disk.name(), target]);
        nothing_is_presented(Path::new(to), &ran);
        s.tool("umount", &[target]);
        drop(disk);
        traces.are_all(s);
    });
}
