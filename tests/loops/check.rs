//! `check` on real mirrors: each fault made, found under its code with its exit code and nothing beside it, and gone when it is gone.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{FileExt as _, PermissionsExt as _, symlink},
    path::Path,
    process::Command,
};

use serde_json::Value;

use crate::{
    recorded::Recording,
    sandbox::{Sandbox, isolated},
    setup,
};

const NODE: &str = "/home/bitcoin/.lightning";
const MIRROR: &str = "/srv/lightning";
const NET: &str = "/srv/lightning/lightning/bitcoin";

/// The codes of the faults that a check finds, its exit code before them.
pub(crate) fn faults(s: &Sandbox, args: &[&str]) -> (i32, BTreeSet<String>) {
    let recording = Recording::begin();
    let dumped = recording.as_ref().map(|r| ["--dump-observed", r.file()]);
    let args =
        [&["check", "--format", "json"][..], args, dumped.as_ref().map_or(&[][..], |d| &d[..])].concat();
    let ran = s.run(&args);
    let printed: Value =
        serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {}{}", ran.stdout, ran.stderr));
    let findings =
        printed["mirrors"].as_array().unwrap().iter().flat_map(|m| m["findings"].as_array().unwrap());
    // A machine may keep its own disks from root in a container; those are not the tests' matter.
    let denied = |f: &Value| {
        let evidence = f["evidence"].as_array().unwrap();
        f["code"] == "OBS-FAILED"
            && evidence.iter().all(|e| e.as_str().unwrap().ends_with("not permitted (os error 1)"))
    };
    let faults: Vec<&Value> = findings.filter(|f| f["severity"] != "ok" && !denied(f)).collect();
    // Each says what was seen and what to do.
    let complete =
        |f: &Value| !f["says"].as_str().unwrap().is_empty() && !f["remedy"].as_str().unwrap().is_empty();
    let codes = faults.iter().inspect(|f| assert!(complete(f), "{f}"));
    let codes = codes.map(|f| f["code"].as_str().unwrap().to_owned()).collect();
    if let Some(recording) = recording {
        recording.keep(&faults);
    }
    (ran.code, codes)
}

#[track_caller]
pub(crate) fn finds(s: &Sandbox, args: &[&str], code: i32, codes: &[&str]) {
    let expected = (code, codes.iter().map(ToString::to_string).collect());
    let found = faults(s, args);
    assert!(found == expected, "{found:?}, expected {expected:?}\n{}", s.run(&["check"]).stdout);
}

pub(crate) fn set_up(s: &Sandbox) {
    let done = s.run(&setup(s, &[]));
    assert_eq!(done.code, 0, "{}", done.stderr);
}

fn mode(path: &str, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn fails(tool: &str, args: &[&str]) {
    assert!(!Command::new(tool).args(args).output().unwrap().status.success(), "{tool} {args:?}");
}

#[test]
fn what_is_wrong_around_the_mirror_is_said_and_nothing_beside_it() {
    isolated("check::what_is_wrong_around_the_mirror_is_said_and_nothing_beside_it", |s| {
        set_up(s);
        finds(s, &[], 0, &[]);
        let calm = s.run(&["check"]);
        assert!(calm.stdout.lines().count() <= 4, "{}", calm.stdout);

        mode(&format!("{NET}/hsm_secret"), 0o644);
        finds(s, &[], 1, &["NODE-SECRET-MODE"]);
        mode(&format!("{NET}/hsm_secret"), 0o400);
        mode("/srv/lightning/lightning", 0o755);
        finds(s, &[], 1, &["DIR-MODE"]);
        mode("/srv/lightning/lightning", 0o700);

        fs::remove_file("/etc/cron.d/raidguard").unwrap();
        finds(s, &[], 1, &["SCH-MISSING"]);
        assert_eq!(s.run(&["schedule", "install"]).code, 0);
        finds(s, &[], 0, &[]);

        let fstab = fs::read("/etc/fstab").unwrap();
        let text = String::from_utf8_lossy(&fstab).into_owned();
        for (change, exit, code) in [
            (text.replace("UUID=", "#UUID="), 1, "MNT-FSTAB"),
            (text.replace("autodefrag", "autodefrag,degraded"), 2, "MNT-FSTAB-DEGRADED"),
        ] {
            assert_ne!(change, text);
            fs::write("/etc/fstab", change).unwrap();
            finds(s, &[], exit, &[code]);
        }
        fs::write("/etc/fstab", &fstab).unwrap();
        finds(s, &[], 0, &[]);

        let target = fs::read_link(NODE).unwrap();
        fs::remove_file(NODE).unwrap();
        finds(s, &[], 2, &["DIR-LINK"]);
        fs::create_dir(NODE).unwrap();
        fs::write(format!("{NODE}/lightningd.sqlite3"), "").unwrap();
        finds(s, &[], 2, &["DIR-LINK"]);
        fs::remove_dir_all(NODE).unwrap();
        symlink("/nowhere", NODE).unwrap();
        finds(s, &[], 2, &["DIR-LINK"]);
        fs::remove_file(NODE).unwrap();
        symlink("../../srv/lightning/lightning", NODE).unwrap();
        finds(s, &[], 0, &[]);
        fs::remove_file(NODE).unwrap();
        symlink(&target, NODE).unwrap();

        s.tool("mount", &["-o", "remount,ro", MIRROR]);
        finds(s, &[], 2, &["MIR-READONLY"]);
        s.tool("mount", &["-o", "remount,rw", MIRROR]);
        finds(s, &[], 0, &[]);
    });
}

#[test]
fn what_is_wrong_with_the_mount_is_said() {
    isolated("check::what_is_wrong_with_the_mount_is_said", |s| {
        set_up(s);
        s.tool("umount", &[MIRROR]);
        finds(s, &[], 2, &["MNT-ABSENT"]);
        // The closed directory below keeps a node from writing there.
        assert!(fs::write(format!("{MIRROR}/file"), "x").is_err(), "it can be written below the mount");
        s.tool("mount", &["-t", "tmpfs", "tmpfs", MIRROR]);
        finds(s, &[], 2, &["MNT-OTHER"]);
        s.tool("umount", &[MIRROR]);
        s.tool("chattr", &["-i", MIRROR]);
        fs::write(format!("{MIRROR}/written below"), "x").unwrap();
        s.tool("mount", &["-a"]);
        finds(s, &[], 2, &["MNT-HIDDEN"]);
        s.tool("umount", &[MIRROR]);
        fs::remove_file(format!("{MIRROR}/written below")).unwrap();
        s.tool("mount", &["-a"]);
        finds(s, &[], 0, &[]);
    });
}

/// Where a member's image has these bytes, by now.
pub(crate) fn places(image: &Path, pattern: &[u8]) -> Vec<u64> {
    nix::unistd::sync();
    places_in(image, pattern)
}

/// Where an image has a block that begins with these bytes.
pub(crate) fn places_in(image: &Path, pattern: &[u8]) -> Vec<u64> {
    use nix::unistd::{Whence, lseek};
    let file = fs::File::open(image).unwrap();
    let seek = |to, whence| lseek(&file, to, whence).ok();
    let (mut found, mut end) = (Vec::new(), 0);
    while let Some(start) = seek(end, Whence::SeekData) {
        end = seek(start, Whence::SeekHole).unwrap();
        let mut data = vec![0; usize::try_from(end - start).unwrap()];
        file.read_exact_at(&mut data, start.unsigned_abs()).unwrap();
        let hits = data.chunks_exact(4096).enumerate().filter(|(_, chunk)| chunk.starts_with(pattern));
        found.extend(hits.map(|(i, _)| start.unsigned_abs() + 4096 * i as u64));
    }
    found
}

#[test]
fn rot_on_one_member_is_mended_counted_acknowledged_and_not_forgotten() {
    isolated("check::rot_on_one_member_is_mended_counted_acknowledged_and_not_forgotten", |s| {
        set_up(s);
        let pattern = [b'Z'; 4096];
        fs::write(format!("{MIRROR}/rotting"), pattern.repeat(64)).unwrap();
        nix::unistd::sync();
        let hit = places(s.image(), &pattern);
        assert_eq!(hit.len(), 64);
        hit.iter().for_each(|at| s.write(*at, &[1; 4096]));
        fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
        finds(s, &[], 0, &[]);
        let scrub = s.run(&["scrub"]);
        assert!(
            scrub.stdout.contains("good again") && scrub.code == 0,
            "{} {}{}",
            scrub.code,
            scrub.stdout,
            scrub.stderr
        );
        assert_eq!(places(s.image(), &pattern).len(), 64, "mended");
        finds(s, &[], 1, &["MIR-CORRUPTION", "SCR-CORRECTED"]);
        // What is known is known: the counter stays, and only growth is news.
        finds(s, &["--acknowledge"], 0, &[]);
        assert_eq!(s.run(&["scrub"]).code, 0);
        finds(s, &[], 0, &[]);
        let errors = s.tool("btrfs", &["device", "stats", MIRROR]);
        let kept = errors.lines().any(|l| l.contains("corruption_errs") && l.ends_with(" 64"));
        assert!(kept, "the kernel's own counters are left alone: {errors}");
        places(s.image(), &pattern).iter().take(3).for_each(|at| s.write(*at, &[1; 4096]));
        fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
        // btrfs tells one scrub from another by the second.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        assert_eq!(s.run(&["scrub"]).code, 0);
        finds(s, &[], 1, &["MIR-CORRUPTION", "SCR-CORRECTED"]);
        let shown = s.run(&["check"]).stdout;
        assert!(shown.contains("67"), "{shown}");
    });
}

#[test]
fn rot_on_both_members_cannot_be_mended_and_is_critical() {
    isolated("check::rot_on_both_members_cannot_be_mended_and_is_critical", |s| {
        set_up(s);
        let pattern = [b'Y'; 4096];
        fs::write(format!("{MIRROR}/rotting"), pattern.repeat(8)).unwrap();
        nix::unistd::sync();
        for (device, image) in [s.one(), s.two()].into_iter().zip(s.images()) {
            let hit = places(&image, &pattern);
            assert_eq!(hit.len(), 8);
            let device = fs::OpenOptions::new().write(true).open(device).unwrap();
            hit.iter().for_each(|at| device.write_all_at(&[2; 4096], *at).unwrap());
            device.sync_all().unwrap();
        }
        fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
        assert_eq!(s.run(&["scrub"]).code, 1);
        finds(s, &[], 2, &["MIR-CORRUPTION", "SCR-UNCORRECTABLE"]);
        finds(s, &["--acknowledge"], 2, &["SCR-UNCORRECTABLE"]);
    });
}

#[test]
fn a_lost_member_and_what_a_degraded_mount_leaves_behind() {
    isolated("check::a_lost_member_and_what_a_degraded_mount_leaves_behind", |s| {
        set_up(s);
        let image = s.image().to_owned();
        let away = || {
            s.tool("umount", &[MIRROR]);
            s.tool("losetup", &["--detach", s.two()]);
        };
        away();
        finds(s, &[], 2, &["MIR-MISSING", "MNT-ABSENT"]);
        fails("mount", &[MIRROR]);
        s.tool("mount", &["-o", "degraded", s.one(), MIRROR]);
        finds(s, &[], 2, &["MIR-MISSING", "MIR-DEGRADED-OPTION"]);
        // New chunks have one copy from now on.
        fs::write(format!("{MIRROR}/big"), vec![3; 300 << 20]).unwrap();
        nix::unistd::sync();
        let degraded = faults(s, &[]);
        assert_eq!(degraded.0, 2);
        assert!(degraded.1.contains("MIR-MISSING"), "{degraded:?}");
        s.tool("umount", &[MIRROR]);
        s.tool("losetup", &[s.two(), image.to_str().unwrap()]);
        s.tool("btrfs", &["device", "scan", s.two()]);
        s.tool("mount", &["-a"]);
        let (code, codes) = faults(s, &[]);
        assert_eq!(code, 2, "{codes:?}");
        assert!(codes.contains("MIR-PROFILE"), "{codes:?}");
        assert!(!codes.contains("MIR-MISSING"), "{codes:?}");
    });
}

#[test]
fn a_member_that_was_away_is_not_whole_until_a_scrub_has_been_through() {
    isolated("check::a_member_that_was_away_is_not_whole_until_a_scrub_has_been_through", |s| {
        set_up(s);
        for by_guard in [false, true] {
            s.tool("umount", &[MIRROR]);
            s.tool("losetup", &["--detach", s.two()]);
            s.tool("mount", &["-o", "degraded", s.one(), MIRROR]);
            if by_guard {
                assert_eq!(s.run(&["guard"]).code, 0);
            } else {
                finds(s, &["--notify"], 2, &["MIR-MISSING", "MIR-DEGRADED-OPTION"]);
            }
            // As much as a node writes in a moment: it needs no new chunk.
            (0..12).for_each(|i| fs::write(format!("{MIRROR}/small {i}"), vec![i; 64 << 10]).unwrap());
            nix::unistd::sync();
            s.tool("umount", &[MIRROR]);
            s.tool("losetup", &[s.two(), s.image().to_str().unwrap()]);
            s.tool("btrfs", &["device", "scan", s.two()]);
            s.tool("mount", &["-a"]);
            fs::write(format!("{MIRROR}/later"), "x").unwrap();
            nix::unistd::sync();
            // Whoever reads of it meanwhile may meet what is old, which is mended and counted.
            let met = ["MIR-CORRUPTION", "MIR-GENERATION"];
            let (code, mut codes) = faults(s, &["--notify"]);
            codes.retain(|code| !met.contains(&code.as_str()));
            assert_eq!((code, codes), (2, ["MIR-AWAY".to_owned()].into()));
            assert_eq!(s.run(&["scrub"]).code, 0);
            let codes = faults(s, &["--notify"]).1;
            assert!(!codes.contains("MIR-AWAY"), "{codes:?}");
            let lacked = |code: &String| code == "SCR-CORRECTED" || met.contains(&code.as_str());
            assert!(codes.iter().any(lacked), "it did lack something: {codes:?}");
            faults(s, &["--acknowledge"]);
        }
    });
}

#[test]
fn a_member_pulled_while_nobody_writes_is_seen_at_once() {
    isolated("check::a_member_pulled_while_nobody_writes_is_seen_at_once", |s| {
        set_up(s);
        // Not one write comes between.
        let frozen = crate::saved::Frozen::new();
        // As a reader without its card: the kernel still says that nothing is missing.
        let image = fs::OpenOptions::new().write(true).open(s.image()).unwrap();
        let size = image.metadata().unwrap().len();
        let kept = s.scratch().join("kept");
        s.tool("cp", &["--sparse=always", s.image().to_str().unwrap(), kept.to_str().unwrap()]);
        image.set_len(0).unwrap();
        s.tool("losetup", &["--set-capacity", s.two()]);
        let missing = s.tool("btrfs", &["filesystem", "show", MIRROR]);
        assert!(!missing.contains("missing"), "{missing}");
        // What the kernel itself still sends there (discards) is counted, and beside the point.
        let seen = || faults(s, &[]).1.into_iter().filter(|c| c != "MIR-WRITE-ERRORS").collect::<Vec<_>>();
        assert_eq!(seen(), ["MIR-PULLED"]);
        image.set_len(size).unwrap();
        s.tool("cp", &["--sparse=always", kept.to_str().unwrap(), s.image().to_str().unwrap()]);
        s.tool("losetup", &["--set-capacity", s.two()]);
        drop(frozen);
        assert_eq!(seen(), [] as [&str; 0]);
    });
}

#[test]
fn a_full_mirror_and_a_clone_of_a_member() {
    isolated("check::a_full_mirror_and_a_clone_of_a_member", |s| {
        set_up(s);
        nix::unistd::sync();
        let clone = {
            let copy = s.scratch().join("clone");
            s.tool("cp", &["--sparse=always", s.image().to_str().unwrap(), copy.to_str().unwrap()]);
            s.attach_again(&copy)
        };
        finds(s, &[], 2, &["MIR-CLONE"]);
        let shown = s.run(&["check"]).stdout;
        assert!(shown.contains(clone.name()), "{shown}");
        drop(clone);
        finds(s, &[], 0, &[]);

        let filler = fs::File::create(format!("{MIRROR}/filler")).unwrap();
        let (mut at, block) = (0, vec![5; 1 << 20]);
        while filler.write_all_at(&block, at).is_ok() {
            at += 1 << 20;
        }
        drop(filler);
        let _ = Command::new("sync").arg("-f").arg(MIRROR).status();
        let (code, codes) = faults(s, &[]);
        assert_eq!(code, 2, "{codes:?}");
        assert!(
            codes.contains("SPC-FREE")
                && codes.is_subset(&["SPC-FREE", "SPC-UNALLOCATED", "SPC-METADATA"].map(Into::into).into()),
            "{codes:?}"
        );
    });
}

#[test]
fn the_database_is_looked_at_on_a_snapshot_and_old_state_is_known() {
    isolated("check::the_database_is_looked_at_on_a_snapshot_and_old_state_is_known", |s| {
        set_up(s);
        let db = format!("{NET}/lightningd.sqlite3");
        let old = fs::read(&db).unwrap();
        let version = |n: u32| {
            let sql = format!("UPDATE vars SET intval = {n} WHERE name = 'data_version'");
            s.tool("sqlite3", &[&db, &sql]);
        };
        version(50);
        finds(s, &["--deep"], 0, &[]);
        assert!(!Path::new(MIRROR).join(".raidguard-deep").exists());
        let new = fs::read(&db).unwrap();

        fs::write(&db, &old).unwrap();
        finds(s, &["--deep"], 2, &["NODE-OLDER"]);
        finds(s, &[], 2, &["NODE-OLDER"]);
        fs::write(&db, &new).unwrap();
        finds(s, &["--deep"], 0, &[]);

        fs::write(&db, &new[..new.len() / 2]).unwrap();
        finds(s, &["--deep"], 2, &["NODE-DATABASE"]);
        fs::write(&db, "").unwrap();
        finds(s, &["--deep"], 2, &["NODE-DATABASE"]);
        fs::remove_file(&db).unwrap();
        finds(s, &["--deep"], 2, &["NODE-DATABASE-MISSING"]);
        fs::write(&db, &new).unwrap();

        s.tool("sqlite3", &[&db, "UPDATE vars SET blobval = x'03ff' WHERE name = 'node_id'"]);
        finds(s, &["--deep"], 2, &["NODE-IDENTITY"]);
        fs::write(&db, &new).unwrap();
        finds(s, &["--deep"], 0, &[]);
        // The ledger is outside the mirror.
        assert!(Path::new("/var/lib/raidguard/state.sqlite3").exists());
    });
}

#[test]
fn what_is_printed_is_written_where_it_was_asked_for_and_remembered() {
    isolated("check::what_is_printed_is_written_where_it_was_asked_for_and_remembered", |s| {
        set_up(s);
        fs::create_dir("/var/lib/node_exporter").unwrap();
        let file = "/var/lib/node_exporter/raidguard.prom";
        let ran = s.run(&["check", "--format", "prometheus", "--output", file]);
        assert!(ran.code == 0 && ran.stdout.is_empty(), "{}{}", ran.stdout, ran.stderr);
        assert!(fs::read_to_string(file).unwrap().contains("\nraidguard_"));
        assert_eq!(fs::read_dir("/var/lib/node_exporter").unwrap().count(), 1, "nothing beside it");
        assert_ne!(s.run(&["check", "--output", "/nowhere/at/all"]).code, 0);

        mode(&format!("{NET}/hsm_secret"), 0o644);
        let nagios = s.run(&["check", "--format", "nagios"]);
        assert!(nagios.code == 1 && nagios.stdout.starts_with("RAIDGUARD WARNING - "), "{}", nagios.stdout);
        let status = s.run(&["status"]);
        assert!(status.stdout.contains("NODE-SECRET-MODE"), "{}", status.stdout);
        let dump = s.run(&["check", "--dump-observed", "/var/lib/observed.json"]);
        assert_eq!(dump.code, 1);
        let dumped: Value =
            serde_json::from_str(&fs::read_to_string("/var/lib/observed.json").unwrap()).unwrap();
        assert_eq!(dumped["mirrors"][0]["verdict"]["findings"][0]["code"], "NODE-SECRET-MODE");
    });
}

/// Otherwise whoever looks now and then would never be told that nothing looks any more.
#[test]
fn a_check_by_hand_is_no_run_of_the_schedule() {
    isolated("check::a_check_by_hand_is_no_run_of_the_schedule", |s| {
        set_up(s);
        let last = || {
            let shown: Value = serde_json::from_str(&s.run(&["schedule", "show", "--json"]).stdout).unwrap();
            let jobs = shown["schedule"][0]["jobs"].as_array().unwrap().clone();
            jobs.into_iter().find(|job| job["job"] == "check").unwrap()["last"].clone()
        };
        assert_eq!(s.run(&["check"]).code, 0);
        assert!(last().is_null(), "{}", last());
        let log = || fs::read("/var/lib/raidguard/state.sqlite3-wal").unwrap();
        let before = log();
        assert_eq!(s.run(&["check"]).code, 0);
        assert!(log() == before, "nothing is new, and it was written");
        assert_eq!(s.run(&["check", "--notify"]).code, 0);
        assert!(last().is_string(), "{}", last());
    });
}

/// Whoever is to be told is told, and the next check knows that this one was made.
#[test]
fn a_file_that_cannot_be_written_keeps_a_check_from_nothing_else() {
    isolated("check::a_file_that_cannot_be_written_keeps_a_check_from_nothing_else", |s| {
        set_up(s);
        let last = || {
            let shown: Value = serde_json::from_str(&s.run(&["schedule", "show", "--json"]).stdout).unwrap();
            let jobs = shown["schedule"][0]["jobs"].as_array().unwrap().clone();
            jobs.into_iter().find(|job| job["job"] == "check").unwrap()["last"].clone()
        };
        let mut before = last();
        for option in ["--output", "--dump-observed"] {
            let ran = s.run(&["check", "--notify", option, "/nowhere/at/all"]);
            assert!(ran.code == 3 && ran.stderr.contains("/nowhere/at/all"), "{}: {}", ran.code, ran.stderr);
            assert!(last().is_string() && last() != before, "{option}: {}", last());
            before = last();
        }
    });
}
