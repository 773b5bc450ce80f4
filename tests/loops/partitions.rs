//! `--size`: new partitions in what is free, and nothing else on the disks changed.

use crate::{
    SETUP,
    sandbox::{Sandbox, isolated, note},
};

fn sized<'a>(s: &'a Sandbox, size: &'a str) -> Vec<&'a str> {
    [&["setup", "--hdd", s.one(), "--usb", s.two(), "--size", size], &SETUP[..]].concat()
}

fn setup<'a>(s: &'a Sandbox, more: &[&'a str]) -> Vec<&'a str> {
    [&sized(s, "1200M")[..], more].concat()
}

/// A disk as people have them: a GPT with a filesystem in use, and room behind it.
fn with_a_partition_in_use(s: &Sandbox) -> String {
    s.tool_with("sfdisk", &["-q", s.two()], "label: gpt\nsize=300M, name=mine\n");
    s.tool("partx", &["--update", s.two()]);
    let part = format!("{}p1", s.two());
    s.tool("mkfs.ext4", &["-q", &part]);
    std::fs::create_dir_all("/home/mnt").unwrap();
    s.tool("mount", &[&part, "/home/mnt"]);
    std::fs::write("/home/mnt/file", "somebody's").unwrap();
    part
}

fn forget(s: &Sandbox) {
    let _ = nix::mount::umount2("/home/mnt", nix::mount::MntFlags::MNT_DETACH);
    for disk in [s.one(), s.two()] {
        let _ = std::process::Command::new("partx").args(["--delete", disk]).output();
    }
}

fn mine(s: &Sandbox) -> String {
    let table = s.tool("sfdisk", &["--dump", s.two()]);
    table.lines().find(|l| l.contains("name=\"mine\"")).unwrap().to_owned()
}

#[test]
fn partitions_are_made_in_free_space_and_nothing_else_is_touched() {
    isolated("partitions::partitions_are_made_in_free_space_and_nothing_else_is_touched", |s| {
        let part = with_a_partition_in_use(s);
        let (before, line) = (s.tree(), mine(s));
        let done = s.run(&setup(s, &[]));
        assert_eq!(done.code, 0, "{}", done.stderr);
        assert_eq!(s.tree(), before);
        assert_eq!(mine(s), line);
        assert_eq!(std::fs::read_to_string("/home/mnt/file").unwrap(), "somebody's");
        let shown = s.tool("btrfs", &["filesystem", "show", "--raw", "/srv/lightning"]);
        for member in [format!("{}p1", s.one()), format!("{}p2", s.two())] {
            assert!(shown.contains(&format!("size {} ", 1200 << 20)) && shown.contains(&member), "{shown}");
        }
        s.check_is_ok();
        let again = s.run(&setup(s, &["--name", "other", "--mountpoint", "/srv/other"]));
        assert_eq!(again.code, 3, "{}", again.stderr);
        assert_eq!(s.run(&["release", "--yes"]).code, 0);
        s.tool("umount", &["/home/mnt"]);
        s.tool("fsck.ext4", &["-fn", &part]);
        forget(s);
    });
}

#[test]
fn a_kill_while_partitions_are_made_is_resumed_and_rolled_back() {
    isolated("partitions::a_kill_while_partitions_are_made_is_resumed_and_rolled_back", |s| {
        let mut instants = 0;
        // Around the starts and ends of sfdisk, partx and mkfs, and the records between them.
        for (calls, first) in [("clone,fork,vfork", 10), ("waitid,wait4", 10), ("fsync,fdatasync", 1)] {
            'kind: for number in (first..).step_by(3).take(12) {
                for direction in ["--resume", "--rollback"] {
                    with_a_partition_in_use(s);
                    let (before, line) = (s.tree(), mine(s));
                    if !s.run_killed(calls, number, &setup(s, &[])) {
                        s.reset_mounts();
                        forget(s);
                        s.reset();
                        break 'kind;
                    }
                    instants += 1;
                    let at = format!("killed at call {number} of {calls}, then {direction}");
                    let second = s.run(&["setup", direction]);
                    let nothing = second.code == 3 && second.stderr.contains("there is no setup");
                    let complete =
                        direction == "--rollback" && second.stderr.contains("all its steps are done");
                    assert!(second.code == 0 || nothing || complete, "{at}: {}", second.stderr);
                    assert_eq!(s.tree(), before, "{at}");
                    assert_eq!(mine(s), line, "{at}");
                    if direction == "--rollback" && !nothing && !complete {
                        let one = s.tool("wipefs", &["--no-act", "--noheadings", s.one()]);
                        assert_eq!(one, "", "{at}: the table that was made is gone");
                        let two = s.tool("sfdisk", &["--dump", s.two()]);
                        assert!(!two.contains("lightning"), "{at}: {two}");
                    } else if !nothing {
                        s.check_is_ok();
                    }
                    s.reset_mounts();
                    forget(s);
                    s.reset();
                }
            }
        }
        note(format!(
            "killed at {instants} instants while partitions were made: every one was resumed or rolled back"
        ));
        assert!(instants >= 40, "{instants}");
    });
}

/// As udev has it for a moment, right after what was on it is gone.
#[test]
fn a_partition_that_somebody_looks_at_is_waited_for_when_it_is_put_back() {
    isolated("partitions::a_partition_that_somebody_looks_at_is_waited_for_when_it_is_put_back", |s| {
        let made = format!("{}p1", s.one());
        let args = setup(s, &[]);
        forget(s);
        let mut calls = (20..).step_by(5);
        while !std::path::Path::new(&made).exists() {
            s.reset();
            assert!(s.run_killed("fsync,fdatasync", calls.next().unwrap(), &args), "it came to its end");
        }
        let held = std::fs::File::open(&made).unwrap();
        let looks = std::thread::spawn(|| {
            std::thread::sleep(std::time::Duration::from_secs(2));
            drop(held);
        });
        let back = s.run(&["setup", "--rollback"]);
        assert_eq!(back.code, 0, "{}", back.stderr);
        assert!(looks.is_finished(), "it did not wait");
        looks.join().unwrap();
        assert!(!std::path::Path::new(&made).exists());
        assert_eq!(s.tool("wipefs", &["--no-act", "--noheadings", s.one()]), "");
    });
}

#[test]
fn a_disk_without_room_or_with_another_table_is_refused() {
    isolated("partitions::a_disk_without_room_or_with_another_table_is_refused", |s| {
        let refused = |args: &[&str], word: &str| {
            let before = s.devices();
            let done = s.run(args);
            assert_eq!(done.code, 3, "{word}: {}", done.stderr);
            assert!(done.stderr.contains(word), "no `{word}` in {}", done.stderr);
            assert!(s.devices() == before, "{word}: something was written");
        };
        refused(&sized(s, "3G")[..], "has no free space of 3 GiB");
        refused(&sized(s, "100M")[..], "too small");
        s.tool_with("sfdisk", &["-q", s.two()], "label: dos\nsize=300M\n");
        refused(&setup(s, &[])[..], "an empty disk or a GPT only");
        s.wipe();
        s.tool("mkfs.ext4", &["-q", s.two()]);
        refused(&setup(s, &["--wipe"])[..], "an empty disk or a GPT only");
        s.wipe();
        s.tool_with("sfdisk", &["-q", s.two()], "label: gpt\nsize=300M\nsize=1400M\n");
        refused(&setup(s, &[])[..], "has no free space of 1.1 GiB: 346 MiB is the most");
        // What was deleted from the table only is still there.
        s.tool("partx", &["--update", s.two()]);
        s.tool("mkfs.ext4", &["-q", &format!("{}p2", s.two())]);
        s.tool("partx", &["--delete", s.two()]);
        s.tool("sfdisk", &["-q", "--no-reread", "--no-tell-kernel", "--delete", s.two(), "2"]);
        refused(&setup(s, &[])[..], "something older: ext4");
        let done = s.run(&setup(s, &["--wipe"]));
        assert_eq!(done.code, 0, "{}", done.stderr);
        s.reset_mounts();
        forget(s);
    });
}
