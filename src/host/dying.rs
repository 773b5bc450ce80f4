//! A process that was killed takes its time to die: until its last thread has let go of what it held, it looks alive.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{Host, proc_stat};

/// How long a dying process is waited for. The kernel unmounts what its namespaces held before it lets go of its locks.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// kernel: `PF_EXITING` in include/linux/sched.h.
const EXITING: u64 = 1 << 2;
/// SIGKILL in a mask of signals.
const KILL: u64 = 1 << 8;

/// Waits a moment if the process with this number was killed and is not gone yet, up to some seconds after `began`. Whether it is worth
/// while to look again.
pub(super) fn wait_for(host: &Host, pid: u32, began: Instant) -> bool {
    let waits = began.elapsed() < PATIENCE && is_dying(host, pid);
    if waits {
        thread::sleep(LOOK_AGAIN);
    }
    waits
}

fn is_dying(host: &Host, pid: u32) -> bool {
    let text = |name: &str| host.read(format!("/proc/{pid}/{name}")).unwrap_or_default();
    ends(&text("stat")) || is_killed(&text("status"))
}

/// A zombie, whose other threads may still be at work, or one that is on its way out. What is not of that form is not known to die.
fn ends(stat: &str) -> bool {
    let exits = || proc_stat::flags(stat).is_some_and(|flags| flags & EXITING != 0);
    matches!(proc_stat::field(stat, 3), Some("Z" | "X")) || exits()
}

/// By proc_pid_status(5): SIGKILL is on its way to it.
fn is_killed(status: &str) -> bool {
    let pending = status.lines().filter_map(|line| {
        let (name, mask) = line.split_once(':')?;
        (name == "SigPnd" || name == "ShdPnd").then(|| u64::from_str_radix(mask.trim(), 16).ok())?
    });
    pending.fold(0, |all, mask| all | mask) & KILL != 0
}

#[cfg(test)]
pub(super) mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// Has a captured machine say that this process is on its way out.
    pub(in super::super) fn dies(root: &Path, pid: u32) {
        let dir = root.join(format!("proc/{pid}"));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("stat"), format!("{pid} (raidguard) D 1 7 7 0 -1 4194564 0 0 0\n")).unwrap();
    }

    #[test]
    fn who_dies_is_told_from_who_lives() {
        for (stat, dies) in [
            ("7 (raidguard) S 1 7 7 0 -1 4194560 0 0 0", false),
            ("7 (raidguard) D 1 7 7 0 -1 4194560 0 0 0", false),
            ("7 (raidguard) D 1 7 7 0 -1 4194564 0 0 0", true),
            ("7 (raidguard) Z 1 7 7 0 -1 4194560 0 0 0", true),
            ("7 (a) Z 1) S 1 7 7 0 -1 4194560 0 0 0", false),
            ("7 (raidguard) S 1", false),
            ("", false),
        ] {
            assert_eq!(ends(stat), dies, "{stat}");
        }
        let status =
            |own: &str, shared: &str| format!("Name:\tx\nSigPnd:\t{own}\nShdPnd:\t{shared}\nSigBlk:\t0100\n");
        for (own, shared, killed) in
            [("0000", "0000", false), ("0100", "0000", true), ("0000", "0100", true), ("4000", "x", false)]
        {
            assert_eq!(is_killed(&status(own, shared)), killed, "{own} {shared}");
        }
    }

    crate::fuzz::fuzzed!(fuzz_dying, text [
        b"7 (raidguard) D 1 7 7 0 -1 4194564 0 0 0",
        b"Name:\tx\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n",
    ], |text| {
        let _ = (ends(text), is_killed(text));
    });
}
