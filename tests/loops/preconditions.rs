//! What stands in the way before anything is changed: the machine is left byte for byte as it was.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    sandbox::{Ran, Sandbox, isolated},
    setup,
    trouble::ended,
};

/// Refused or failed before anything was changed: the devices, `/etc` and the node are as they were.
fn before_anything(s: &Sandbox, args: &[&str], code: i32, words: &[&str]) {
    let look = || (s.tree_of("/home"), s.tree_of("/etc"), s.devices(), s.mounts().lines().count());
    let before = look();
    let ran = s.run(args);
    ended(&ran, code, words);
    assert!(ran.stderr.contains("nothing was changed"), "{}", ran.stderr);
    assert!(look() == before, "something was changed: {}", ran.stderr);
    let journals = fs::read_dir("/var/lib/raidguard/journal").map_or(0, Iterator::count);
    let garbage = fs::exists("/var/lib/raidguard/journal/garbage.jsonl").unwrap();
    assert_eq!(journals, usize::from(garbage), "a journal was left: {}", ran.stderr);
}

#[test]
fn what_stands_in_the_way_before_anything_is_changed() {
    isolated("preconditions::what_stands_in_the_way_before_anything_is_changed", |s| {
        let args = setup(s, &[]);
        // No terminal and no --yes.
        let asked: Vec<_> = args.iter().copied().filter(|a| *a != "--yes").collect();
        before_anything(s, &asked, 3, &["no terminal", "--yes"]);

        // A directory that is closed to writing.
        for dir in ["/etc", "/home/bitcoin", "/srv"] {
            s.tool("mount", &["--bind", dir, dir]);
            s.tool("mount", &["-o", "remount,bind,ro", dir]);
            before_anything(s, &args, 3, &[&format!("{dir} cannot be written to"), "Read-only file system"]);
            s.tool("umount", &[dir]);
        }

        // No room for the record.
        fs::create_dir_all("/var/lib/raidguard").unwrap();
        s.tool("mount", &["-t", "tmpfs", "-o", "size=64k", "tmpfs", "/var/lib/raidguard"]);
        before_anything(s, &args, 1, &["no record can be kept", "No space left on device"]);
        fs::create_dir_all("/var/lib/raidguard/journal").unwrap();
        let mut full = fs::File::create("/var/lib/raidguard/full").unwrap();
        while full.write_all(&[1; 4096]).is_ok() {}
        before_anything(s, &args, 1, &["no record can be kept", "No space left on device"]);
        drop(full);
        s.tool("umount", &["/var/lib/raidguard"]);
        fs::remove_dir_all("/var/lib/raidguard").unwrap();

        // Each tool missing.
        fs::write("/run/nothing", "").unwrap();
        for tool in ["btrfs", "mkfs.btrfs", "lsblk", "blkid", "wipefs", "mount", "umount", "chattr", "lsattr"]
        {
            let places: Vec<_> =
                ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin"]
                    .iter()
                    .map(|dir| Path::new(dir).join(tool))
                    .filter_map(|p| p.is_file().then(|| fs::canonicalize(&p).unwrap()))
                    .collect();
            let mut hidden: Vec<&PathBuf> = Vec::new();
            for place in &places {
                if !hidden.contains(&place) {
                    hidden.push(place);
                    let none: Option<&str> = None;
                    let flags = nix::mount::MsFlags::MS_BIND;
                    nix::mount::mount(Some("/run/nothing"), place, none, flags, none).unwrap();
                }
            }
            assert!(!hidden.is_empty(), "{tool} is nowhere");
            before_anything(s, &args, 3, &["not installed", tool, "apt-get install"]);
            for place in hidden {
                nix::mount::umount(place).unwrap();
            }
        }

        // Anybody but root.
        fs::copy(env!("CARGO_BIN_EXE_raidguard"), "/run/raidguard-copy").unwrap();
        for verb in [
            &args[..],
            &["setup", "--resume"],
            &["setup", "--rollback"],
            &["release", "--yes"],
            &["scrub"],
            &["drill"],
        ] {
            let (home, devices) = (s.tree_of("/home"), s.devices());
            let user = ["--reuid", "65534", "--regid", "65534", "--clear-groups", "/run/raidguard-copy"];
            let output = Command::new("setpriv").args(user).args(verb).stdin(Stdio::null()).output().unwrap();
            let ran = Ran {
                code: output.status.code().unwrap(),
                stdout: String::new(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            };
            ended(&ran, 3, &["is not root", "sudo raidguard", "nothing was changed"]);
            assert!((s.tree_of("/home"), s.devices()) == (home, devices));
        }

        // What people or a crash left in the files that are read.
        fs::create_dir("/etc/raidguard").unwrap();
        for (text, words) in [
            ("[[mirror]\nname = ", ["raidguard.toml", "line 1"]),
            ("[[mirror]]\nnmae = \"lightning\"\n", ["raidguard.toml", "line 2"]),
            ("\u{0}\u{1}", ["raidguard.toml", "line 1"]),
        ] {
            fs::write("/etc/raidguard/raidguard.toml", text).unwrap();
            before_anything(s, &args, 1, &words);
        }
        fs::write("/etc/raidguard/raidguard.toml", b"\xff\xfe").unwrap();
        before_anything(s, &args, 1, &["raidguard.toml", "UTF-8"]);
        fs::remove_dir_all("/etc/raidguard").unwrap();
        fs::create_dir_all("/var/lib/raidguard/journal").unwrap();
        for garbage in [&b"no json\n"[..], b"\xff\xff\n", b"{\"schema\":1}\n", b"{}\n{}\n"] {
            fs::write("/var/lib/raidguard/journal/garbage.jsonl", garbage).unwrap();
            before_anything(s, &args, 1, &["a journal cannot be read", "garbage.jsonl"]);
            before_anything(s, &["setup", "--resume"], 1, &["a journal cannot be read", "garbage.jsonl"]);
        }
        fs::remove_dir_all("/var/lib/raidguard").unwrap();
        for nothing in ["--resume", "--rollback"] {
            before_anything(s, &["setup", nothing], 3, &["there is no setup"]);
        }
    });
}

#[test]
fn an_fstab_that_makes_no_sense_is_kept_byte_for_byte() {
    isolated("preconditions::an_fstab_that_makes_no_sense_is_kept_byte_for_byte", |s| {
        for garbage in
            [&b"\xff\xfe\x00garbage\n"[..], b"one-word", b"a b c d e f g h\n\n\n", b"", b"\r\n#\r\n"]
        {
            fs::write("/etc/fstab", garbage).unwrap();
            let before = s.tree();
            let done = s.run(&setup(s, &[]));
            assert_eq!(done.code, 0, "{}", done.stderr);
            assert!(fs::read("/etc/fstab").unwrap().starts_with(garbage));
            assert!(s.tree() == before);
            let back = s.run(&["release", "--yes"]);
            assert_eq!(back.code, 0, "{}", back.stderr);
            assert!(s.tree() == before);
            let left = fs::read("/etc/fstab").unwrap();
            // A last line without an end gets one.
            assert!(left == garbage || left == [garbage, b"\n"].concat(), "{}", left.escape_ascii());
            s.reset();
        }
        fs::remove_file("/etc/fstab").unwrap();
        let done = s.run(&setup(s, &[]));
        assert_eq!(done.code, 0, "without a file: {}", done.stderr);
        let back = s.run(&["release", "--yes"]);
        assert_eq!(back.code, 0, "{}", back.stderr);
        assert!(fs::read("/etc/fstab").unwrap_or_default().is_empty());
        s.reset();
        // A line that would be in the way is refused.
        fs::write("/etc/fstab", "/dev/sdz1 /srv/lightning ext4 defaults 0 2\n").unwrap();
        before_anything(s, &setup(s, &[]), 3, &["/etc/fstab", "/srv/lightning"]);
    });
}

#[test]
fn there_is_no_room_for_the_way_back() {
    isolated("preconditions::there_is_no_room_for_the_way_back", |s| {
        assert_eq!(s.run(&setup(s, &[])).code, 0);
        let before = (s.tree_of("/home"), s.tree(), s.tree_of("/etc"));
        let home = nix::sys::statvfs::statvfs("/home").unwrap();
        let used = (home.blocks() - home.blocks_free()) * home.fragment_size();
        // Enough for the files, and not for the copy of the database that SQLite checks.
        let database = fs::metadata("/home/bitcoin/.lightning/bitcoin/lightningd.sqlite3").unwrap().len();
        let limit = |size: u64| s.tool("mount", &["-o", &format!("remount,size={size}"), "/home"]);
        limit(used + database * 3 / 2);
        let ran = s.run(&["release", "--yes"]);
        ended(&ran, 3, &["are free beside /home/bitcoin/.lightning", "too little", "nothing was changed"]);
        assert!((s.tree_of("/home"), s.tree(), s.tree_of("/etc")) == before);
        limit(used + database * 3);
        let ran = s.run(&["release", "--yes"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert!(s.tree() == before.1);
    });
}

#[test]
fn nobody_reads_what_it_says() {
    isolated("preconditions::nobody_reads_what_it_says", |s| {
        let before = s.tree();
        let mut child = Command::new(s.program())
            .args(setup(s, &[]))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Both pipes are closed at once: a `| head` that has seen enough.
        drop((child.stdout.take(), child.stderr.take()));
        assert_eq!(child.wait().unwrap().code(), Some(0));
        assert!(Path::new("/home/bitcoin/.lightning").is_symlink());
        assert!(s.tree() == before);
        s.check_is_ok();
    });
}
