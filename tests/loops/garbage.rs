//! Garbage in every file that a check reads: a finding that names it or an error that does, never a panic, never "ok".

use std::{
    fs,
    os::unix::fs::{FileExt as _, PermissionsExt as _},
};

use serde_json::Value;

use crate::{
    check::{finds, set_up},
    sandbox::{Ran, Sandbox, isolated},
};

const MIRROR: &str = "/srv/lightning";
const DATABASE: &str = "/srv/lightning/lightning/bitcoin/lightningd.sqlite3";
const SCRUB: &str = "/var/lib/btrfs/scrub.status.";

/// What may stand in a file that nobody meant.
fn garbage(good: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut flipped = good.to_vec();
    flipped.iter_mut().step_by(7).for_each(|b| *b ^= 0x55);
    let noise = (0..good.len().max(64)).map(|n| (n * n * 31 + n * 7) as u8).collect();
    vec![
        ("noise", noise),
        ("zeros", vec![0; good.len().max(1)]),
        ("every seventh byte another", flipped),
        ("no text", b"\xff\xfe\x00garbage\n".to_vec()),
        ("a long line", vec![b'x'; 1 << 20]),
        ("brackets", b"[[[[[[[[[[{{{{{{{{{{".to_vec()),
    ]
}

/// Whatever it says, it says it in an orderly way.
#[track_caller]
fn orderly(ran: &Ran, what: &str) {
    assert!((0..=3).contains(&ran.code), "{what}: {} {}", ran.code, ran.stderr);
    assert!(!ran.stderr.contains("panicked"), "{what}: {}", ran.stderr);
}

#[track_caller]
fn codes(ran: &Ran, what: &str) -> Vec<String> {
    let printed: Value = serde_json::from_str(&ran.stdout)
        .unwrap_or_else(|e| panic!("{what}: {e}: {}{}", ran.stdout, ran.stderr));
    let findings =
        printed["mirrors"][0]["findings"].as_array().unwrap_or_else(|| panic!("{what}: {printed}")).clone();
    let faults = findings.iter().filter(|f| f["severity"] != "ok");
    faults.map(|f| f["code"].as_str().unwrap().to_owned()).collect()
}

/// With each kind of garbage in `path`, a check finds one of these, and nothing is well.
#[track_caller]
fn found(s: &Sandbox, path: &str, mode: u32, args: &[&str], expected: &[&str]) {
    let good = fs::read(path).unwrap_or_default();
    for (kind, bytes) in garbage(&good) {
        let what = format!("{path}: {kind}");
        fs::write(path, bytes).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let ran = s.run(&[&["check", "--format", "json"], args].concat());
        orderly(&ran, &what);
        assert_ne!(ran.code, 0, "{what} is ok: {}", ran.stdout);
        let found = codes(&ran, &what);
        assert!(found.iter().any(|c| expected.contains(&c.as_str())), "{what}: {found:?}");
        orderly(&s.run(&["status"]), &what);
    }
    fs::write(path, good).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn garbage_in_a_file_is_found_and_named() {
    isolated("garbage::garbage_in_a_file_is_found_and_named", |s| {
        set_up(s);
        assert_eq!(s.run(&["scrub"]).code, 0);
        finds(s, &["--deep"], 0, &[]);

        // Without a declaration there is no verdict: that is 3, whatever the form.
        let declared = "/etc/raidguard/raidguard.toml";
        let good = fs::read(declared).unwrap();
        for (kind, bytes) in garbage(&good) {
            fs::write(declared, bytes).unwrap();
            for form in ["human", "json", "prometheus", "nagios"] {
                let ran = s.run(&["check", "--format", form, "--notify"]);
                orderly(&ran, kind);
                assert!(
                    ran.code == 3 && ran.stderr.contains("raidguard.toml"),
                    "{kind}: {} {}",
                    ran.code,
                    ran.stderr
                );
                assert_eq!(
                    form == "nagios",
                    ran.stdout.starts_with("RAIDGUARD UNKNOWN - "),
                    "{}",
                    ran.stdout
                );
            }
            for verb in ["status", "guard", "scrub"] {
                let ran = s.run(&[verb]);
                orderly(&ran, kind);
                assert_ne!(ran.code, 0, "{verb}: {kind}");
            }
        }
        fs::write(declared, good).unwrap();
        finds(s, &[], 0, &[]);

        let uuid = s.tool("findmnt", &["-no", "UUID", MIRROR]).trim().to_owned();
        found(s, &format!("{SCRUB}{uuid}"), 0o600, &[], &["OBS-FAILED"]);
        found(s, "/etc/fstab", 0o644, &[], &["MNT-FSTAB", "MNT-FSTAB-OTHER"]);
        found(s, "/etc/cron.d/raidguard", 0o644, &[], &["SCH-ALTERED"]);
        found(s, DATABASE, 0o644, &["--deep"], &["NODE-DATABASE", "NODE-IDENTITY", "NODE-OLDER"]);
        finds(s, &["--deep"], 0, &[]);
        fs::write("/etc/raidguard/secrets.toml", "heartbeat = \"http://127.0.0.1:9/ping\"\n").unwrap();
        found(s, "/etc/raidguard/secrets.toml", 0o600, &[], &["NTF-SECRETS", "OBS-FAILED"]);
        fs::remove_file("/etc/raidguard/secrets.toml").unwrap();
        finds(s, &["--deep"], 0, &[]);
    });
}

#[test]
fn garbage_in_the_record_is_unknown_and_is_not_written_over() {
    isolated("garbage::garbage_in_the_record_is_unknown_and_is_not_written_over", |s| {
        set_up(s);
        finds(s, &["--deep"], 0, &[]);
        let path = "/var/lib/raidguard/state.sqlite3";
        let beside = |end: &str| format!("{path}{end}");
        s.tool("sqlite3", &[path, "PRAGMA wal_checkpoint(TRUNCATE)"]);
        let good = fs::read(path).unwrap();
        let mut kinds = garbage(&good);
        kinds.push(("cut short", good[..good.len() / 2].to_vec()));
        kinds.push(("emptied", Vec::new()));
        for (kind, bytes) in kinds {
            for end in ["-wal", "-shm"] {
                let _ = fs::remove_file(beside(end));
            }
            fs::write(path, &bytes).unwrap();
            let ran = s.run(&["check", "--format", "json", "--notify"]);
            orderly(&ran, kind);
            assert_ne!(ran.code, 0, "{kind}: {}", ran.stdout);
            assert!(codes(&ran, kind).contains(&"OBS-FAILED".to_owned()), "{kind}: {}", ran.stdout);
            assert!(fs::read(path).unwrap() == bytes, "{kind}: evidence was written over");
            orderly(&s.run(&["status"]), kind);
        }
        for end in ["-wal", "-shm"] {
            let _ = fs::remove_file(beside(end));
        }
        fs::write(path, &good).unwrap();
        finds(s, &[], 0, &[]);
        // A value of another form.
        s.tool("sqlite3", &[path, "UPDATE record SET value = '{\"x\":1}' WHERE name = 'open'"]);
        finds(s, &[], 3, &["OBS-FAILED"]);
    });
}

#[test]
fn what_is_no_file_is_named_and_not_waited_for() {
    isolated("garbage::what_is_no_file_is_named_and_not_waited_for", |s| {
        set_up(s);
        finds(s, &[], 0, &[]);
        for path in ["/etc/raidguard/raidguard.toml", "/var/lib/raidguard/state.sqlite3", "/etc/fstab"] {
            let kept = format!("{path}.kept");
            fs::rename(path, &kept).unwrap();
            nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
            let ran = s.run(&["check"]);
            orderly(&ran, path);
            let said = format!("{}{}", ran.stdout, ran.stderr);
            assert!(ran.code == 3 && said.contains("it is a FIFO"), "{path}: {} {said}", ran.code);
            // A source's own limit is ten seconds: nothing had to be cut off.
            assert!(!said.contains("no answer within"), "{said}");
            orderly(&s.run(&["status"]), path);
            fs::remove_file(path).unwrap();
            fs::rename(&kept, path).unwrap();
        }
        finds(s, &[], 0, &[]);
    });
}

#[test]
fn garbage_from_the_kernel_and_on_the_devices_is_found() {
    isolated("garbage::garbage_from_the_kernel_and_on_the_devices_is_found", |s| {
        set_up(s);
        let uuid = s.tool("findmnt", &["-no", "UUID", MIRROR]).trim().to_owned();
        let sys = format!("/sys/fs/btrfs/{uuid}");
        let fake = s.scratch().join("fake");
        for file in [
            "devinfo/1/missing",
            "devinfo/1/writeable",
            "devinfo/1/replace_target",
            "devinfo/2/error_stats",
            "allocation/data/raid1/total_bytes",
            "allocation/metadata/raid1/used_bytes",
        ] {
            let path = format!("{sys}/{file}");
            for text in ["", "garbage\n", "-1\n", "18446744073709551616\n", "write_errs x\n", "2\n0\n"] {
                fs::write(&fake, text).unwrap();
                s.tool("mount", &["--bind", fake.to_str().unwrap(), &path]);
                let ran = s.run(&["check", "--format", "json"]);
                orderly(&ran, file);
                assert!(ran.code >= 2, "{file} {text:?}: {}", ran.stdout);
                assert!(
                    codes(&ran, file).contains(&"OBS-FAILED".to_owned()),
                    "{file} {text:?}: {}",
                    ran.stdout
                );
                s.tool("umount", &[&path]);
            }
        }
        finds(s, &[], 0, &[]);
        // The first superblock of a member: the kernel does not look at it while it is mounted.
        let frozen = crate::saved::Frozen::new();
        let device = fs::OpenOptions::new().read(true).write(true).open(s.two()).unwrap();
        let mut good = vec![0; 4096];
        device.read_exact_at(&mut good, 64 << 10).unwrap();
        for (kind, bytes) in garbage(&good) {
            // Its first bytes are the checksum, which the kernel looks at when it mounts.
            let Some(block) = bytes.get(..4096) else { continue };
            device.write_all_at(block, 64 << 10).unwrap();
            device.sync_all().unwrap();
            let ran = s.run(&["check", "--format", "json"]);
            orderly(&ran, kind);
            assert_eq!(ran.code, 2, "{kind}: {}", ran.stdout);
            assert!(codes(&ran, kind).contains(&"MIR-PULLED".to_owned()), "{kind}: {}", ran.stdout);
            device.write_all_at(&good, 64 << 10).unwrap();
            device.sync_all().unwrap();
        }
        drop(frozen);
        finds(s, &[], 0, &[]);
    });
}
