//! Ring 2: the program on a real btrfs over loop devices, as root, in a private mount namespace with its own /etc, /var, /home, /srv
//! and /run. Each test runs in a process of its own, so that its mounts end with it, also when it is killed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::pedantic,
    reason = "a test may fail loudly"
)]
#![allow(clippy::disallowed_methods, reason = "tests start processes themselves")]

mod check;
mod craft;
mod damage;
mod drill;
mod garbage;
mod halves;
mod hangs;
mod hostile;
mod interrupted;
mod kills;
mod live;
mod node;
mod options;
mod overlay;
mod partitions;
mod powercut;
mod preconditions;
#[path = "../standin/built.rs"]
mod programs;
mod raid10;
mod recorded;
#[path = "../recorded/mod.rs"]
mod recordings;
mod recover;
mod refusals;
mod repair;
mod replace;
mod sandbox;
mod saved;
mod start;
mod stopped;
mod store;
mod superblock;
mod terminal;
mod trouble;
mod writer;

use std::os::unix::fs::MetadataExt as _;

use sandbox::{Sandbox, isolated};

const SETUP: [&str; 6] =
    ["--lightning-dir", "/home/bitcoin/.lightning", "--no-node", "--scheduler", "cron", "--yes"];

fn setup<'a>(s: &'a Sandbox, more: &[&'a str]) -> Vec<&'a str> {
    [&["setup", "--hdd", s.one(), "--usb", s.two()], &SETUP[..], more].concat()
}

/// Name, content, mode and owner: a file that is written anew has another time.
fn contents(
    tree: std::collections::BTreeMap<std::path::PathBuf, String>,
) -> Vec<(std::path::PathBuf, String)> {
    let without_time = |facts: String| facts.split(' ').take(3).collect::<Vec<_>>().join(" ");
    tree.into_iter().map(|(path, facts)| (path, without_time(facts))).collect()
}

/// How much `findmnt --verify` has against fstab. It says so in its last line, with exit code 1 for errors.
fn fstab_complaints() -> (u32, u32) {
    let out = std::process::Command::new("findmnt")
        .args(["--verify", "--tab-file", "/etc/fstab"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    let last = text.lines().last().unwrap_or_default();
    let before = |word: &str| {
        let words: Vec<_> = last.split([' ', ',']).filter(|w| !w.is_empty()).collect();
        let at = words.iter().position(|w| w.starts_with(word));
        at.and_then(|at| words[..at].iter().rev().find_map(|w| w.parse().ok())).unwrap_or(0)
    };
    (before("parse"), before("error"))
}

#[test]
fn a_node_moves_onto_a_mirror_and_back() {
    isolated("a_node_moves_onto_a_mirror_and_back", |s| {
        let (before, etc, var) = (s.tree(), s.tree_of("/etc"), s.tree_of("/var"));
        let complaints = fstab_complaints();
        let done = s.run(&setup(s, &[]));
        assert_eq!(done.code, 0, "{}", done.stderr);
        assert!(fstab_complaints() <= complaints, "findmnt --verify finds more than before");
        let blocks = std::fs::metadata("/home/bitcoin/.lightning/bitcoin/mostly holes").unwrap().blocks();
        assert!(blocks < 256, "{blocks}: the holes stay holes");
        assert_eq!(s.tree(), before);
        let target = std::fs::read_link("/home/bitcoin/.lightning").unwrap();
        assert!(target.starts_with("/srv/lightning/"), "{}", target.display());
        let usage = s.tool("btrfs", &["filesystem", "df", "/srv/lightning"]);
        for line in usage.lines().filter(|l| !l.starts_with("GlobalReserve")) {
            assert!(line.contains(", RAID1:"), "{line}");
        }
        let fstab = String::from_utf8_lossy(&std::fs::read("/etc/fstab").unwrap()).into_owned();
        assert!(fstab.contains("UUID=") && fstab.contains("autodefrag"), "{fstab}");
        s.check_is_ok();
        assert_eq!(s.run(&["status"]).code, 0);
        assert_eq!(s.run(&["scrub"]).code, 0);
        assert_eq!(s.run(&["balance"]).code, 0);
        let again = s.run(&setup(s, &[]));
        assert_eq!(again.code, 3, "{}", again.stderr);
        std::fs::write("/home/bitcoin/.lightning/new", "written on the mirror").unwrap();
        let newest = s.tree();
        let back = s.run(&["release", "--yes"]);
        assert_eq!(back.code, 0, "{}", back.stderr);
        assert!(!std::path::Path::new("/home/bitcoin/.lightning").is_symlink());
        assert_eq!(s.tree(), newest);
        assert!(!std::path::Path::new("/etc/raidguard").exists());
        assert!(!std::path::Path::new("/etc/cron.d/raidguard").exists());
        assert!(!std::path::Path::new("/srv/lightning").exists());
        let backup = |path: &std::path::Path| path.to_string_lossy().starts_with("fstab.");
        let etc_now: std::collections::BTreeMap<_, _> =
            s.tree_of("/etc").into_iter().filter(|(path, _)| !backup(path)).collect();
        assert_eq!(contents(etc_now), contents(etc), "/etc is as before but for backups");
        // btrfs's own record of the scrub above is not of setup's making.
        let journals =
            |path: &std::path::Path| path.starts_with("lib/raidguard") || path.starts_with("lib/btrfs");
        let var_now: std::collections::BTreeMap<_, _> =
            s.tree_of("/var").into_iter().filter(|(path, _)| !journals(path)).collect();
        assert_eq!(contents(var_now), contents(var), "/var is as before but for the journals");
    });
}

/// The commands of a plan.
fn listed(dry: &sandbox::Ran) -> Vec<String> {
    assert_eq!(dry.code, 0, "{}", dry.stderr);
    dry.stdout.lines().filter_map(|l| l.trim_start().strip_prefix("$ ")).map(sandbox::plain).collect()
}

/// The commands that a run logged.
fn logged(real: &sandbox::Ran) -> Vec<String> {
    real.stderr.lines().filter_map(|l| l.split_once("run: ")).map(|(_, c)| sandbox::plain(c)).collect()
}

#[test]
fn a_dry_run_changes_nothing_and_lists_what_the_real_run_does() {
    isolated("a_dry_run_changes_nothing_and_lists_what_the_real_run_does", |s| {
        let before = (s.tree(), s.tree_of("/etc"), s.tree_of("/var"), s.devices());
        let dry = s.run(&setup(s, &["--dry-run"]));
        assert!(
            (s.tree(), s.tree_of("/etc"), s.tree_of("/var"), s.devices()) == before,
            "something was changed"
        );
        let planned = listed(&dry);
        let real = s.run(&[&["-v"], &setup(s, &[])[..]].concat());
        assert_eq!(real.code, 0, "{}", real.stderr);
        assert!(planned.len() > 10, "{planned:?}");
        assert_eq!(logged(&real), planned);
        let before = (s.tree(), s.tree_of("/etc"), s.tree_of("/var"), s.devices());
        let planned = listed(&s.run(&["release", "--dry-run"]));
        assert!(
            (s.tree(), s.tree_of("/etc"), s.tree_of("/var"), s.devices()) == before,
            "something was changed"
        );
        let real = s.run(&["-v", "release", "--yes"]);
        assert_eq!(real.code, 0, "{}", real.stderr);
        assert!(planned.len() > 8, "{planned:?}");
        assert_eq!(logged(&real), planned);
    });
}
