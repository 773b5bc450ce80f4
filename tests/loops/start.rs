//! What stands between a node and its start: `guard`; and `adopt`, which takes a mirror made elsewhere into care.

use std::{
    fs,
    io::Read as _,
    os::unix::fs::symlink,
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::{
    check::{faults, finds, set_up},
    sandbox::{Ran, Sandbox, isolated},
};

const NODE: &str = "/home/bitcoin/.lightning";
const MIRROR: &str = "/srv/lightning";
const NET: &str = "/srv/lightning/lightning/bitcoin";

#[track_caller]
fn stops(s: &Sandbox, codes: &[&str]) -> Ran {
    let ran = s.run(&["guard"]);
    assert_eq!(ran.code, 3, "{}{}", ran.stdout, ran.stderr);
    for code in codes {
        assert!(ran.stderr.contains(code), "no {code} in {}", ran.stderr);
    }
    assert!(ran.stderr.contains("--override"), "{}", ran.stderr);
    ran
}

#[track_caller]
fn passes(s: &Sandbox) {
    let ran = s.run(&["guard"]);
    assert!(ran.code == 0 && ran.stdout.is_empty() && ran.stderr.is_empty(), "{}{}", ran.stdout, ran.stderr);
    let left = fs::read_dir(MIRROR).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    assert!(!left.into_iter().any(|name| name.starts_with(".raidguard")), "the guard left something");
}

fn version(s: &Sandbox, number: u32) {
    let sql = format!("UPDATE vars SET intval = {number} WHERE name = 'data_version'");
    s.tool("sqlite3", &[&format!("{NET}/lightningd.sqlite3"), &sql]);
}

#[test]
fn the_guard_stops_what_would_cost_money_and_nothing_else() {
    isolated("start::the_guard_stops_what_would_cost_money_and_nothing_else", |s| {
        set_up(s);
        passes(s);
        let db = format!("{NET}/lightningd.sqlite3");
        let old = fs::read(&db).unwrap();
        version(s, 60);
        // The guard itself has seen it: older is older from now on.
        passes(s);
        let new = fs::read(&db).unwrap();
        for (bytes, code) in
            [(&old[..], "NODE-OLDER"), (&new[..new.len() / 2], "NODE-DATABASE"), (b"", "NODE-DATABASE")]
        {
            fs::write(&db, bytes).unwrap();
            stops(s, &[code]);
        }
        fs::remove_file(&db).unwrap();
        stops(s, &["NODE-DATABASE-MISSING"]);
        fs::write(&db, &new).unwrap();
        passes(s);
        s.tool("sqlite3", &[&db, "UPDATE vars SET blobval = x'03ff' WHERE name = 'node_id'"]);
        stops(s, &["NODE-IDENTITY"]);
        fs::write(&db, &new).unwrap();

        let secret = fs::read(format!("{NET}/hsm_secret")).unwrap();
        fs::remove_file(format!("{NET}/hsm_secret")).unwrap();
        stops(s, &["NODE-SECRET"]);
        fs::write(format!("{NET}/hsm_secret"), "").unwrap();
        stops(s, &["NODE-SECRET"]);
        fs::write(format!("{NET}/hsm_secret"), secret).unwrap();
        // Its mode is a fault, and no reason to be down.
        assert!(faults(s, &[]).1.contains("NODE-SECRET-MODE"));
        passes(s);

        let target = fs::read_link(NODE).unwrap();
        fs::remove_file(NODE).unwrap();
        stops(s, &["DIR-LINK"]);
        fs::create_dir(NODE).unwrap();
        stops(s, &["DIR-LINK"]);
        fs::remove_dir(NODE).unwrap();
        symlink(&target, NODE).unwrap();

        s.tool("umount", &[MIRROR]);
        stops(s, &["MNT-ABSENT"]);
        s.tool("losetup", &["--detach", s.two()]);
        s.tool("mount", &["-o", "degraded", s.one(), MIRROR]);
        passes(s);
        s.tool("mount", &["-o", "remount,ro", MIRROR]);
        stops(s, &["MIR-READONLY"]);
        s.tool("umount", &[MIRROR]);
        s.tool("losetup", &[s.two(), s.image().to_str().unwrap()]);
    });
}

#[test]
fn another_process_on_the_database_stops_a_start() {
    isolated("start::another_process_on_the_database_stops_a_start", |s| {
        set_up(s);
        let held = fs::File::open(format!("{NET}/lightningd.sqlite3")).unwrap();
        let said = stops(s, &["NODE-RUNNING"]);
        assert!(said.stderr.contains("loops"), "it is named: {}", said.stderr);
        drop(held);
        passes(s);
    });
}

/// A process that lives as long as this.
struct Lives(Child);

impl Drop for Lives {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process with mounts of its own that says so once it is where it wants to be.
fn apart(dir: &str, script: &str) -> Lives {
    let script = format!("{script}; echo there; exec sleep 1000");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).current_dir(dir).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut said = [0; 6];
    child.stdout.take().unwrap().read_exact(&mut said).unwrap();
    assert_eq!(&said, b"there\n");
    Lives(child)
}

#[test]
fn who_works_below_the_mount_is_seen_and_a_containers_own_paths_are_not() {
    isolated("start::who_works_below_the_mount_is_seen_and_a_containers_own_paths_are_not", |s| {
        set_up(s);
        let container =
            "mount -t tmpfs none /srv && mkdir -p /srv/lightning/lightning && cd /srv/lightning/lightning";
        let contained = apart("/", container);
        finds(s, &[], 0, &[]);
        passes(s);
        drop(contained);

        s.tool("umount", &[MIRROR]);
        // setup makes the directory immutable, against just this.
        s.tool("chattr", &["-i", MIRROR]);
        fs::create_dir_all(NET).unwrap();
        let held = fs::File::create(format!("{NET}/lightningd.sqlite3")).unwrap();
        // A unit in a sandbox sees what was mounted when it started.
        let sandboxed = apart(NET, "true");
        s.tool("mount", &[MIRROR]);
        let found = s.run(&["check"]);
        assert_eq!(found.code, 2, "{}", found.stdout);
        for stray in [std::process::id(), sandboxed.0.id()] {
            assert!(
                found.stdout.contains(&format!("(pid {stray}) works off the mirror")),
                "{}",
                found.stdout
            );
        }
        stops(s, &["NODE-STRAY"]);
        drop(held);
        assert!(faults(s, &[]).1.contains("NODE-STRAY"));
        drop(sandboxed);
        assert!(!faults(s, &[]).1.contains("NODE-STRAY"));
    });
}

#[test]
fn an_override_is_recorded_shown_and_ends_by_itself() {
    isolated("start::an_override_is_recorded_shown_and_ends_by_itself", |s| {
        set_up(s);
        let db = format!("{NET}/lightningd.sqlite3");
        let old = fs::read(&db).unwrap();
        version(s, 60);
        finds(s, &["--deep"], 0, &[]);
        fs::write(&db, &old).unwrap();
        stops(s, &["NODE-OLDER"]);
        assert_eq!(s.run(&["guard", "--override", " "]).code, 2, "a reason is needed");
        let allowed = s.run(&["guard", "--override", "restored on purpose"]);
        assert_eq!(allowed.code, 0, "{}", allowed.stderr);
        let started = s.run(&["guard"]);
        assert!(started.code == 0 && started.stderr.contains("restored on purpose"), "{}", started.stderr);
        assert!(s.run(&["status"]).stdout.contains("restored on purpose"), "{}", s.run(&["status"]).stdout);
        assert!(faults(s, &[]).1.contains("NODE-OVERRIDDEN"));
        // Only what was allowed is.
        fs::remove_file(format!("{NET}/hsm_secret")).unwrap();
        stops(s, &["NODE-SECRET"]);
        fs::write(format!("{NET}/hsm_secret"), [7; 32]).unwrap();
        assert_eq!(s.run(&["guard"]).code, 0);
        version(s, 61);
        passes(s);
        assert!(!s.run(&["status"]).stdout.contains("restored on purpose"));
        fs::write(&db, &old).unwrap();
        stops(s, &["NODE-OLDER"]);
    });
}

#[test]
fn the_guard_is_no_new_way_to_be_down() {
    isolated("start::the_guard_is_no_new_way_to_be_down", |s| {
        set_up(s);
        for garbage in [&b"garbage"[..], &[0; 5000], b""] {
            fs::write("/var/lib/raidguard/state.sqlite3", garbage).unwrap();
            let _ = fs::remove_file("/var/lib/raidguard/state.sqlite3-wal");
            let ran = s.run(&["guard"]);
            assert_eq!(ran.code, 0, "{}", ran.stderr);
        }
        s.tool("mount", &["-t", "tmpfs", "-o", "ro", "tmpfs", "/var/lib/raidguard"]);
        assert_eq!(s.run(&["guard"]).code, 0);
        s.tool("umount", &["/var/lib/raidguard"]);
        // What it does not know it does not let pass.
        let declared = fs::read("/etc/raidguard/raidguard.toml").unwrap();
        fs::write("/etc/raidguard/raidguard.toml", "garbage").unwrap();
        let ran = s.run(&["guard"]);
        assert!(ran.code == 3 && ran.stderr.contains("line 1"), "{}", ran.stderr);
        fs::write("/etc/raidguard/raidguard.toml", declared).unwrap();
        // An emptied record is said to be one for as long as it lies there.
        fs::remove_file("/var/lib/raidguard/state.sqlite3").unwrap();
        passes(s);
    });
}

/// A mirror made by hand, with a node on it.
fn by_hand(s: &Sandbox, profile: &str, place: &str) {
    s.tool("mkfs.btrfs", &["-q", "-f", "-m", profile, "-d", profile, s.one(), s.two()]);
    fs::create_dir_all(place).unwrap();
    s.tool("mount", &[s.one(), place]);
}

#[test]
fn a_mirror_made_by_hand_is_taken_into_care_as_it_is() {
    isolated("start::a_mirror_made_by_hand_is_taken_into_care_as_it_is", |s| {
        let refused = |args: &[&str], words: &str| {
            let ran = s.run(args);
            assert!(ran.code == 3 && ran.stderr.contains(words), "{args:?}: {}", ran.stderr);
            assert!(!Path::new("/etc/raidguard/raidguard.toml").exists());
        };
        fs::create_dir_all("/srv/raid").unwrap();
        refused(&["adopt", "/srv/raid", "--yes"], "no btrfs, array of md or pool of ZFS is mounted");
        by_hand(s, "single", "/srv/raid");
        refused(&["adopt", "/srv/raid", "--yes", "--scheduler", "cron"], "it is no mirror");
        s.reset_mounts();
        by_hand(s, "raid1", "/srv/raid");
        s.tool("cp", &["-a", NODE, "/srv/raid/node"]);
        refused(
            &["adopt", "/srv/raid", "--yes", "--scheduler", "cron", "--lightning-dir", NODE],
            "does not lead to",
        );
        fs::remove_dir_all(NODE).unwrap();
        symlink("/srv/raid/node", NODE).unwrap();
        let uuid = s.tool("findmnt", &["-no", "UUID", "/srv/raid"]);
        let line = format!("UUID={} /srv/raid btrfs defaults,nofail 0 0\n", uuid.trim());
        fs::write("/etc/fstab", line).unwrap();
        let before = (s.tree_of("/srv/raid"), s.tree_of("/etc"));
        let args =
            ["adopt", "/srv/raid/", "--name", "second", "--lightning-dir", NODE, "--scheduler", "cron"];
        let dry = s.run(&[&args[..], &["--dry-run"]].concat());
        assert!(
            dry.code == 0 && dry.stdout.contains("/etc/raidguard/raidguard.toml"),
            "{}{}",
            dry.stdout,
            dry.stderr
        );
        assert!(s.tree_of("/etc") == before.1, "a dry run changes nothing");
        let done = s.run(&[&args[..], &["--yes"]].concat());
        assert_eq!(done.code, 0, "{}", done.stderr);
        assert!(s.tree_of("/srv/raid") == before.0, "nothing on the mirror is changed");
        assert!(Path::new("/etc/cron.d/raidguard").exists());
        let (code, codes) = faults(s, &["--deep"]);
        assert!(
            code < 2 && codes.is_subset(&["SCR-NEVER".to_owned()].into()),
            "{codes:?} {}",
            s.run(&["check"]).stdout
        );
        let guard = s.run(&["guard"]);
        assert_eq!(guard.code, 0, "{}", guard.stderr);
        let again = s.run(&[&args[..], &["--yes"]].concat());
        assert!(again.code == 3 && again.stderr.contains("declared already"), "{}", again.stderr);
    });
}

#[test]
fn an_adoption_killed_anywhere_is_resumed_and_rolled_back() {
    isolated("start::an_adoption_killed_anywhere_is_resumed_and_rolled_back", |s| {
        by_hand(s, "raid1", "/srv/raid");
        let args = ["adopt", "/srv/raid", "--no-node", "--scheduler", "cron", "--yes"];
        let own = || -> Vec<bool> {
            ["/etc/raidguard/raidguard.toml", "/etc/cron.d/raidguard"].map(|f| Path::new(f).exists()).into()
        };
        let forget = || {
            for gone in ["/etc/raidguard", "/etc/cron.d/raidguard", "/var/lib/raidguard", "/run/raidguard"] {
                let _ = fs::remove_dir_all(gone);
                let _ = fs::remove_file(gone);
            }
        };
        let mut killed = 0;
        for number in 1.. {
            let mut there = false;
            for (way, expected) in [("--resume", true), ("--rollback", false)] {
                if !s.run_killed("fsync,rename,renameat,renameat2", number, &args) {
                    forget();
                    continue;
                }
                there = true;
                let ran = s.run(&["adopt", way]);
                // Killed before it began or after it ended: there is nothing to take up.
                let nothing = ran.code == 3 && ran.stderr.contains("nothing");
                assert!(ran.code == 0 || nothing, "{number} {way}: {}", ran.stderr);
                let own = own();
                if nothing {
                    assert!(own.iter().all(|x| *x == own[0]), "{number} {way}: {own:?}");
                } else {
                    assert!(own.iter().all(|x| *x == expected), "{number} {way}: {own:?}");
                }
                forget();
            }
            if !there {
                break;
            }
            killed = number;
        }
        assert!(killed > 8, "{killed}");
        crate::sandbox::note(format!(
            "adopt was killed at {killed} changes: each was resumed, and rolled back"
        ));
    });
}
