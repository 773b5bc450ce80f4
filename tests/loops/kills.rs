//! Killed at any instant: the same state is then resumed, and rolled back, and nothing is lost.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    sandbox::{Sandbox, isolated, note},
    saved::Saved,
    setup,
};

const NODE: &str = "/home/bitcoin/.lightning";
/// Each record of the journal and each file made durable; each change of a name; each end of a program that was run.
const CHANGES: [&str; 3] =
    ["fsync,fdatasync", "rename,renameat,renameat2,symlink,symlinkat,unlink,unlinkat,mkdir,rmdir", "wait4"];

/// What may be mounted, and where.
fn mounts(s: &Sandbox) -> BTreeSet<String> {
    let places = s.mounts().lines().map(|l| l.split(' ').nth(4).unwrap().to_owned()).collect::<Vec<_>>();
    places.iter().map(|p| format!("{p} x{}", places.iter().filter(|q| *q == p).count())).collect()
}

/// The machine before a verb, as both ways on must find it again.
struct Before {
    tree: std::collections::BTreeMap<std::path::PathBuf, String>,
    fstab: Vec<u8>,
    mounts: BTreeSet<String>,
    moved: bool,
}

impl Before {
    fn of(s: &Sandbox) -> Self {
        Self {
            tree: s.tree(),
            fstab: fs::read("/etc/fstab").unwrap(),
            mounts: mounts(s),
            moved: Path::new(NODE).is_symlink(),
        }
    }

    /// Carries the killed verb on in one direction and looks at what is there.
    fn carry_on(&self, s: &Sandbox, verb: &str, direction: &str, again: &[&str], at: &str) {
        let mut second = s.run(&[verb, direction]);
        // Killed before anything was recorded: nothing to take up, and nothing was changed.
        let nothing = second.code == 3 && second.stderr.contains(&format!("there is no {verb}"));
        let complete = second.code == 3 && second.stderr.contains("all its steps are done");
        if nothing && direction == "--resume" {
            second = s.run(again);
        }
        let at = format!("{at}, then {direction}");
        let untouched = direction == "--rollback" && (nothing || complete);
        assert!(second.code == 0 || untouched, "{at}: {}", second.stderr);
        assert_eq!(s.tree(), self.tree, "{at}");
        s.tool("findmnt", &["--fstab", "--raw"]);
        let moved = Path::new(NODE).is_symlink();
        let forward = direction == "--resume" || complete;
        assert_eq!(moved, self.moved != forward, "{at}");
        assert_eq!(Path::new("/etc/raidguard/raidguard.toml").exists(), moved, "{at}");
        assert_eq!(Path::new("/etc/cron.d/raidguard").exists(), moved, "{at}");
        if moved {
            s.check_is_ok();
        }
        let mirror: BTreeSet<_> = ["/srv/lightning x1".to_owned()].into();
        if !forward {
            assert_eq!(fs::read("/etc/fstab").unwrap(), self.fstab, "{at}");
            assert_eq!(mounts(s), self.mounts, "{at}: a stray mount");
        } else if moved {
            assert_eq!(mounts(s), &self.mounts | &mirror, "{at}: a stray mount");
        } else {
            assert_eq!(mounts(s), &self.mounts - &mirror, "{at}: a stray mount");
            assert!(!Path::new("/srv/lightning").exists(), "{at}");
            let beside: Vec<_> =
                fs::read_dir("/home/bitcoin").unwrap().map(|e| e.unwrap().file_name()).collect();
            let ours = |n: &std::ffi::OsString| n.to_string_lossy().contains(".raidguard");
            assert!(!beside.iter().any(ours), "{at}: {beside:?}");
        }
    }

    /// Both ways from the state as it is now.
    fn both_ways(&self, s: &Sandbox, verb: &str, again: &[&str], at: &str) {
        let killed = Saved::of(s);
        self.carry_on(s, verb, "--resume", again, at);
        killed.restore(s);
        self.carry_on(s, verb, "--rollback", again, at);
    }
}

#[test]
fn a_setup_killed_at_every_change_is_resumed_and_rolled_back() {
    isolated("kills::a_setup_killed_at_every_change_is_resumed_and_rolled_back", |s| {
        let mut instants = 0;
        for calls in CHANGES {
            for number in 1.. {
                let before = Before::of(s);
                if !s.run_killed(calls, number, &setup(s, &[])) {
                    s.reset();
                    break;
                }
                instants += 1;
                let at = format!("killed at call {number} of {calls}");
                before.both_ways(s, "setup", &setup(s, &[]), &at);
                s.reset();
            }
        }
        note(format!(
            "setup was killed at {instants} changes: each was resumed, and rolled back, every hash unchanged"
        ));
        assert!(instants >= 45, "{instants}");
    });
}

#[test]
fn a_release_killed_at_every_change_is_resumed_and_rolled_back() {
    isolated("kills::a_release_killed_at_every_change_is_resumed_and_rolled_back", |s| {
        assert_eq!(s.run(&setup(s, &[])).code, 0);
        fs::write(Path::new(NODE).join("new"), "written on the mirror").unwrap();
        let moved = Saved::of(s);
        let mut instants = 0;
        for calls in CHANGES {
            for number in 1.. {
                let before = Before::of(s);
                let killed = s.run_killed(calls, number, &["release", "--yes"]);
                if killed {
                    instants += 1;
                    let at = format!("killed at call {number} of {calls}");
                    before.both_ways(s, "release", &["release", "--yes"], &at);
                }
                moved.restore(s);
                if !killed {
                    break;
                }
            }
        }
        note(format!(
            "release was killed at {instants} changes: each was resumed, and rolled back, every hash unchanged"
        ));
        assert!(instants >= 24, "{instants}");
    });
}

/// A small generator (xorshift64*), so that a run can be repeated from its seed.
pub(crate) struct Random(u64);

impl Random {
    /// From `RAIDGUARD_TEST_SEED`, else from the clock; with the seed, for whoever wants the run again.
    pub(crate) fn seeded() -> (Self, u64) {
        let seed = std::env::var("RAIDGUARD_TEST_SEED").ok().and_then(|t| t.parse().ok());
        let clock = || u64::try_from(jiff::Timestamp::now().as_nanosecond() & 0xffff_ffff).unwrap() | 1;
        let seed = seed.unwrap_or_else(clock);
        (Self(seed), seed)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % limit
    }
}

/// Runs setup and kills it, and waits for whatever it had started. False: it ended before.
fn kill_after(s: &Sandbox, delay: Duration) -> bool {
    let mut child = Command::new(s.program())
        .args(setup(s, &[]))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    thread::sleep(delay);
    child.kill().unwrap();
    let killed = !child.wait().unwrap().success();
    s.reap();
    killed
}

#[test]
fn a_setup_killed_at_random_instants_is_resumed_and_rolled_back() {
    isolated("kills::a_setup_killed_at_random_instants_is_resumed_and_rolled_back", |s| {
        nix::sys::prctl::set_child_subreaper(true).unwrap();
        let (mut random, seed) = Random::seeded();
        let began = Instant::now();
        assert_eq!(s.run(&setup(s, &[])).code, 0);
        let whole = u64::try_from(began.elapsed().as_micros()).unwrap();
        s.reset();
        let mut instants = 0;
        while instants < 50 {
            let delay = Duration::from_micros(random.below(whole));
            let before = Before::of(s);
            if kill_after(s, delay) {
                instants += 1;
                before.both_ways(s, "setup", &setup(s, &[]), &format!("seed {seed}: killed after {delay:?}"));
            }
            s.reset();
        }
        note(format!(
            "setup was killed at {instants} random instants (RAIDGUARD_TEST_SEED={seed}): each was resumed, and rolled back"
        ));
    });
}
