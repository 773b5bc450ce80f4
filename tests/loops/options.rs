//! What can be asked of a setup beside the usual, each once on real devices.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, symlink},
    path::Path,
};

use crate::{
    SETUP,
    sandbox::{Sandbox, isolated},
    setup,
};

const NODE: &str = "/home/bitcoin/.lightning";

/// Setup with these options, to a mirror that checks well, with every file as it was.
fn moved(s: &Sandbox, args: &[&str]) {
    let before = s.tree();
    let done = s.run(args);
    assert_eq!(done.code, 0, "{args:?}: {}", done.stderr);
    assert_eq!(s.tree(), before, "{args:?}");
    s.check_is_ok();
}

#[test]
fn every_level_is_made_of_as_many_devices_as_it_needs() {
    isolated("options::every_level_is_made_of_as_many_devices_as_it_needs", |s| {
        let (three, four) = (s.disk("three", 2100 << 20), s.disk("four", 2200 << 20));
        for (level, more) in [("raid1c3", 1), ("raid1c4", 2), ("raid10", 2)] {
            let more: Vec<&str> = [["--device", three.name()], ["--device", four.name()]][..more].concat();
            moved(s, &setup(s, &[&["--level", level], &more[..]].concat()));
            let usage = s.tool("btrfs", &["filesystem", "df", "/srv/lightning"]);
            for line in usage.lines().filter(|l| !l.starts_with("GlobalReserve")) {
                assert!(line.contains(&format!(", {}:", level.to_uppercase())), "{line}");
            }
            s.reset();
            for device in [three.name(), four.name()] {
                s.tool("wipefs", &["-qaf", device]);
            }
        }
        for (level, needs) in [("raid1c3", "needs 3 devices"), ("raid10", "needs 4 devices")] {
            let refused = s.run(&setup(s, &["--level", level]));
            assert!(refused.code == 2 && refused.stderr.contains(needs), "{}", refused.stderr);
        }
    });
}

#[test]
fn a_mount_point_with_blanks_and_a_name_of_its_own() {
    isolated("options::a_mount_point_with_blanks_and_a_name_of_its_own", |s| {
        let place = "/srv/my mirror\tof two";
        moved(s, &setup(s, &["--mountpoint", place, "--name", "second"]));
        let fstab = fs::read(Path::new("/etc/fstab")).unwrap();
        assert!(String::from_utf8_lossy(&fstab).contains("/srv/my\\040mirror\\011of\\040two btrfs "));
        s.tool("umount", &[place]);
        s.tool("mount", &["-a"]);
        s.check_is_ok();
        assert_eq!(s.run(&["release", "--yes"]).code, 0);
        assert!(!Path::new(place).exists());
    });
}

/// A journal is called by the second in which it was begun, and there is one of a verb in each.
fn next_second() {
    std::thread::sleep(std::time::Duration::from_secs(1));
}

#[test]
fn a_mount_point_behind_a_symlink_is_the_place_that_it_leads_to() {
    isolated("options::a_mount_point_behind_a_symlink_is_the_place_that_it_leads_to", |s| {
        fs::create_dir_all("/srv/disks/deep").unwrap();
        symlink("/srv/disks/deep", "/srv/link").unwrap();
        for (typed, place) in
            [("/srv/link/mirror", "/srv/disks/deep/mirror"), ("/srv/link/../two", "/srv/disks/two")]
        {
            next_second();
            moved(s, &setup(s, &["--mountpoint", typed, "--wipe"]));
            let fstab = fs::read(Path::new("/etc/fstab")).unwrap();
            assert!(String::from_utf8_lossy(&fstab).contains(&format!(" {place} btrfs ")), "{typed}");
            assert_eq!(fs::read_link(NODE).unwrap(), Path::new(place).join("lightning"));
            assert_eq!(s.run(&["release", "--yes"]).code, 0);
            assert!(!Path::new(place).exists(), "{typed}");
        }
    });
}

#[test]
fn a_mirror_that_takes_a_released_ones_name_is_judged_by_itself() {
    isolated("options::a_mirror_that_takes_a_released_ones_name_is_judged_by_itself", |s| {
        let new = s.disk("new", 2200 << 20);
        moved(s, &setup(s, &[]));
        for commit in 0..60 {
            fs::write("/srv/lightning/lightning/commit", commit.to_string()).unwrap();
            s.tool("btrfs", &["filesystem", "sync", "/srv/lightning"]);
        }
        assert_eq!(s.run(&["check", "--deep"]).code, 0);
        assert_eq!(s.run(&["release", "--yes"]).code, 0);
        next_second();
        moved(s, &setup(s, &["--wipe"]));
        let exchange = ["replace", "--old", "2", "--new", new.name(), "--online", "--dry-run"];
        let ran = s.run(&exchange);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
    });
}

#[test]
fn a_directory_that_is_a_symlink_already_is_moved_where_it_leads() {
    isolated("options::a_directory_that_is_a_symlink_already_is_moved_where_it_leads", |s| {
        fs::create_dir("/home/data").unwrap();
        fs::rename(NODE, "/home/data/.lightning").unwrap();
        symlink("/home/data/.lightning", NODE).unwrap();
        moved(s, &setup(s, &[]));
        assert_eq!(
            fs::read_link(NODE).unwrap(),
            Path::new("/home/data/.lightning"),
            "the node's own link stays"
        );
        assert!(fs::read_link("/home/data/.lightning").unwrap().starts_with("/srv/lightning"));
        assert_eq!(s.run(&["release", "--yes"]).code, 0);
        assert!(!Path::new("/home/data/.lightning").is_symlink());
    });
}

#[test]
fn a_user_is_given_the_copy_and_the_original_can_go() {
    isolated("options::a_user_is_given_the_copy_and_the_original_can_go", |s| {
        let contents = |s: &Sandbox| -> Vec<_> {
            s.tree()
                .into_iter()
                .map(|(path, facts)| (path, facts.split(' ').next().unwrap().to_owned()))
                .collect()
        };
        let before = contents(s);
        let done = s.run(&setup(s, &["--user", "nobody", "--original", "remove"]));
        assert_eq!(done.code, 0, "{}", done.stderr);
        assert_eq!(contents(s), before);
        let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
        for path in s.tree().keys() {
            let meta = fs::symlink_metadata(Path::new(NODE).join(path)).unwrap();
            assert_eq!(
                (meta.uid(), meta.gid()),
                (nobody.uid.as_raw(), nobody.gid.as_raw()),
                "{}",
                path.display()
            );
        }
        let beside: Vec<_> = fs::read_dir("/home/bitcoin").unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(beside, [".lightning"], "the original is gone");
        let refused =
            s.run(&setup(s, &["--user", "nobody-of-that-name", "--name", "x", "--mountpoint", "/srv/x"]));
        assert!(refused.stderr.contains("there is no user"), "{}", refused.stderr);
    });
}

#[test]
fn a_directory_that_is_no_node_is_moved_without_the_database_steps() {
    isolated("options::a_directory_that_is_no_node_is_moved_without_the_database_steps", |s| {
        fs::remove_file(Path::new(NODE).join("bitcoin/lightningd.sqlite3")).unwrap();
        let before = s.tree();
        let done = s.run(&setup(s, &[]));
        assert_eq!(done.code, 0, "{}", done.stderr);
        assert!(done.stderr.contains("no lightningd.sqlite3 in it: no database to check"), "{}", done.stderr);
        assert_eq!(s.tree(), before);
        let declared = fs::read_to_string("/etc/raidguard/raidguard.toml").unwrap();
        assert!(declared.contains("kind = \"generic\""), "{declared}");
    });
}

#[test]
fn what_is_found_is_erased_only_with_wipe() {
    isolated("options::what_is_found_is_erased_only_with_wipe", |s| {
        s.tool("mkfs.ext4", &["-q", "-F", "-L", "old", s.two()]);
        let refused = s.run(&setup(s, &[]));
        assert!(refused.code == 3 && refused.stderr.contains("ext4 `old`"), "{}", refused.stderr);
        let shown = s.run(&setup(s, &["--wipe", "--dry-run"]));
        assert!(shown.stdout.contains("now: ext4 `old`"), "{}", shown.stdout);
        moved(s, &setup(s, &["--wipe"]));
    });
}

#[test]
fn a_place_that_cannot_be_moved_is_refused_with_its_reason() {
    isolated("options::a_place_that_cannot_be_moved_is_refused_with_its_reason", |s| {
        let refused = |dir: &str, mountpoint: &str, word: &str| {
            let devices = ["setup", "--hdd", s.one(), "--usb", s.two(), "--mountpoint", mountpoint];
            let done = s.run(&[&devices[..], &["--lightning-dir", dir], &SETUP[2..]].concat());
            assert!(done.code == 3 && done.stderr.contains(word), "no `{word}` in {}", done.stderr);
        };
        refused("/home/nowhere", "/srv/x", "cannot be read");
        refused("/etc/fstab", "/srv/x", "is not a directory");
        refused(NODE, "/home/bitcoin/.lightning/mnt", "lie within each other");
        refused("/home", "/srv/x", "is itself a mount point");
        fs::create_dir_all("/srv/full/of").unwrap();
        refused(NODE, "/srv/full", "it is not empty");
        refused(NODE, "/etc", "is mounted there");
        refused(NODE, "/srv/none/../x", "/srv/none/.. leads up from what is not there");
        moved(s, &setup(s, &[]));
        refused("/srv/lightning/lightning", "/srv/x", "is on the declared mirror `lightning` already");
    });
}
