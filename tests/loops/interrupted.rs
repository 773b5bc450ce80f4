//! `replace` that is killed, whose new device goes, whose power is cut: it ends whole when it is run again, or everything is as it was.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    check::{finds, set_up},
    kills::Random,
    replace::{GIB, MIRROR, alone, filled, is_whole, lose, pull, refused, replaced, uuid},
    sandbox::{OWN, Ran, Sandbox, isolated, note},
};

fn spawned(s: &Sandbox, args: &[&str]) -> Child {
    let mut cmd = Command::new(s.program());
    cmd.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    cmd.spawn().unwrap()
}

#[test]
fn killed_at_random_instants_and_run_again_it_ends_whole() {
    isolated("interrupted::killed_at_random_instants_and_run_again_it_ends_whole", |s| {
        nix::sys::prctl::set_child_subreaper(true).unwrap();
        let (mut random, seed) = Random::seeded();
        set_up(s);
        filled("some more", 48 << 20);
        let tree = s.tree();
        let third = s.disk("third", 2 * GIB);
        // The member that goes, the one that comes, the one that stays; after each exchange the first is free.
        let (mut old, mut new, mut stays) = (s.two(), third.name(), s.one());
        let images: BTreeMap<&str, PathBuf> = [s.one(), s.two()]
            .into_iter()
            .zip(s.images())
            .chain([(third.name(), s.scratch().join("third"))])
            .collect();
        let mut whole = Duration::from_secs(3);
        let (mut instants, mut went_on) = (0, 0);
        while instants < 30 {
            let gone = instants % 3 == 2;
            if gone {
                lose(s, old);
            }
            let id = if gone { "missing".to_owned() } else { old.to_owned() };
            let args = ["replace", "--old", &id, "--new", new, "--yes"];
            let ended_before = ended_exchanges();
            let began = Instant::now();
            let mut child = spawned(s, &args);
            let delay = Duration::from_micros(random.below(u64::try_from(whole.as_micros()).unwrap()));
            let at = format!("seed {seed}: {args:?} killed after {delay:?}");
            let ended = loop {
                if let Some(status) = child.try_wait().unwrap() {
                    assert!(status.success(), "{at}");
                    break true;
                }
                if began.elapsed() >= delay {
                    child.kill().unwrap();
                    break child.wait().unwrap().success();
                }
                thread::sleep(Duration::from_millis(1));
            };
            if ended {
                whole = began.elapsed();
            } else {
                instants += 1;
                // Half of the times what it had started is still at work.
                if random.below(2) == 0 {
                    s.reap();
                }
                let again = run_again(s, &args, ended_exchanges() > ended_before, &at);
                went_on += usize::from(again.stderr.contains("taking up"));
                s.reap();
            }
            is_whole(s, "raid1");
            assert!(s.tree() == tree, "{at}: a file is missing or another");
            if gone {
                s.tool("losetup", &[old, images[old].to_str().unwrap()]);
            }
            s.tool("wipefs", &["-qa", old]);
            s.tool("blkdiscard", &["-f", old]);
            (old, new, stays) = (stays, old, new);
        }
        alone(s, &[stays], &[old], &tree);
        note(format!(
            "replace was killed at {instants} random instants (RAIDGUARD_TEST_SEED={seed}) and run again: each ended whole, {went_on} of them by going on"
        ));
    });
}

/// How fast the kernel may copy.
fn slow(s: &Sandbox, limit: &str) {
    for id in ["1", "2"] {
        fs::write(format!("/sys/fs/btrfs/{}/devinfo/{id}/scrub_speed_max", uuid(s)), limit).unwrap();
    }
}

/// Of how many exchanges the journal says that all of it was done.
fn ended_exchanges() -> usize {
    let journals =
        fs::read_dir("/var/lib/raidguard/journal").into_iter().flatten().map(|e| e.unwrap().path());
    let exchanges = journals.filter(|p| p.to_str().unwrap().ends_with("-replace.jsonl"));
    exchanges.filter(|p| fs::read_to_string(p).unwrap().contains("\"record\":\"complete\"")).count()
}

/// The same command is run again. Where it had ended nothing is left to be done: the new device is a member already.
#[track_caller]
fn run_again(s: &Sandbox, args: &[&str], had_ended: bool, at: &str) -> Ran {
    let again = s.run(args);
    assert_eq!(again.code, if had_ended { 3 } else { 0 }, "{at}: {}", again.stderr);
    assert!(!had_ended || again.stderr.contains("of this very mirror"), "{at}: {}", again.stderr);
    again
}

/// The device that comes goes again: its device has no size any more. The kernel would go on, and call the mirror whole without it.
#[test]
fn the_new_device_is_pulled_while_it_is_filled() {
    isolated("interrupted::the_new_device_is_pulled_while_it_is_filled", |s| {
        set_up(s);
        filled("some more", 60 << 20);
        let tree = s.tree();
        let (image, new) = (s.scratch().join("new"), s.disk("new", 2 * GIB));
        slow(s, "15M");
        let args = ["replace", "--old", s.two(), "--new", new.name(), "--yes"];
        let mut cmd = Command::new(s.program());
        let replace = cmd.args(args).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let is_filled = || {
            Path::new(&format!("/sys/fs/btrfs/{}/devinfo/0", uuid(s))).exists()
                && fs::metadata(&image).unwrap().blocks() > (8 << 20) / 512
        };
        while !is_filled() {
            thread::sleep(Duration::from_millis(10));
        }
        let kept = s.scratch().join("kept");
        s.tool("cp", &["--sparse=always", image.to_str().unwrap(), kept.to_str().unwrap()]);
        fs::OpenOptions::new().write(true).open(&image).unwrap().set_len(0).unwrap();
        s.tool("losetup", &["--set-capacity", new.name()]);
        let ended = replace.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{said}");
        for words in ["it is gone", "is a member still", "before the next boot"] {
            assert!(said.contains(words), "{words}: {said}");
        }
        // The kernel counts on the old one what failed on the new one.
        let repaired = s.run(&["repair", "--yes"]);
        assert_eq!(repaired.code, 0, "{}{}", repaired.stdout, repaired.stderr);
        assert_eq!(s.run(&["check", "--acknowledge"]).code, 0);
        is_whole(s, "raid1");
        assert!(s.tree() == tree, "a file is missing or another");
        drop(new);

        // Back as it was, it keeps the mirror from being mounted.
        let twin = s.scratch().join("twin");
        s.tool("cp", &["--sparse=always", kept.to_str().unwrap(), twin.to_str().unwrap()]);
        let back = s.attach_again(&twin);
        finds(s, &[], 1, &["MIR-LEFTOVER"]);
        s.tool("umount", &[MIRROR]);
        s.tool("btrfs", &["device", "scan", back.name()]);
        let mount = Command::new("mount").arg(MIRROR).output().unwrap();
        assert!(!mount.status.success(), "it is mounted beside it");
        finds(s, &[], 2, &["MIR-LEFTOVER", "MNT-ABSENT"]);
        refused(s, &["--old", "2", "--new", back.name()], &["cannot be mounted", "--forget"]);
        fs::create_dir_all("/var/tmp").unwrap();
        let found = s.run(&["recover", "--degraded", "--to", "/var/rescued", "--yes"]);
        assert_eq!(found.code, 0, "{}{}", found.stdout, found.stderr);
        s.tool("wipefs", &["--all", "--types", "btrfs", back.name()]);
        s.tool("btrfs", &["device", "scan", "--forget", back.name()]);
        s.tool("btrfs", &["device", "scan", s.one(), s.two()]);
        s.tool("mount", &[MIRROR]);
        drop(back);
        // While it is mounted, it can be filled again.
        let back = s.attach_again(&kept);
        replaced(s, &["--old", s.two(), "--new", back.name()]);
        is_whole(s, "raid1");
        alone(s, &[back.name()], &[s.one()], &tree);
    });
}

/// The exchange is made, and while all is read the other member goes: that one is the next exchange's matter, and this one ends.
#[test]
fn another_member_is_pulled_while_the_mirror_is_proven() {
    isolated("interrupted::another_member_is_pulled_while_the_mirror_is_proven", |s| {
        set_up(s);
        filled("some more", 60 << 20);
        let tree = s.tree();
        let (new, newer) = (s.disk("new", 2 * GIB), s.disk("newer", 2 * GIB));
        slow(s, "15M");
        let args = ["replace", "--old", s.one(), "--new", new.name(), "--yes"];
        let mut cmd = Command::new(s.program());
        let mut replace = cmd.args(args).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let is_read = || {
            let pids = fs::read_dir("/proc").unwrap().map(|e| e.unwrap().path().join("cmdline"));
            pids.filter_map(|p| fs::read_to_string(p).ok())
                .any(|line| line.contains("btrfs\0scrub\0start") && line.contains(MIRROR))
        };
        while !is_read() {
            assert!(replace.try_wait().unwrap().is_none(), "it has ended before");
            thread::sleep(Duration::from_millis(10));
        }
        pull(s);
        let ended = replace.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(4), "{said}");
        for words in ["has taken the place", "redundancy is not full", "raidguard replace lightning --old 2"]
        {
            assert!(said.contains(words), "{words}: {said}");
        }
        assert!(s.tree() == tree, "a file is missing or another");
        replaced(s, &["--old", "2", "--new", newer.name()]);
        is_whole(s, "raid1");
        alone(s, &[newer.name()], &[new.name()], &tree);
    });
}

#[test]
fn a_power_cut_in_the_middle_loses_nothing() {
    isolated("interrupted::a_power_cut_in_the_middle_loses_nothing", |s| {
        let (mut random, seed) = Random::seeded();
        // A clone of an image is one instant of the disk.
        let store = s.disk("store", 6 * GIB);
        let dir = s.scratch().join("images");
        fs::create_dir(&dir).unwrap();
        s.tool("mkfs.xfs", &["-q", store.name()]);
        s.tool("mount", &[store.name(), dir.to_str().unwrap()]);
        let image = |n: &str| dir.join(n).to_str().unwrap().to_owned();
        let loops: Vec<_> = ["a", "b", "c"]
            .iter()
            .map(|n| {
                fs::File::create(image(n)).unwrap().set_len(GIB).unwrap();
                s.attach_again(Path::new(&image(n)))
            })
            .collect();
        let names: Vec<_> = loops.iter().map(|l| l.name().to_owned()).collect();
        let mut args = vec!["setup", "--hdd", &names[0], "--usb", &names[1]];
        args.extend(crate::SETUP);
        let done = s.run(&args);
        assert_eq!(done.code, 0, "{}", done.stderr);
        filled("some more", 60 << 20);
        let tree = s.tree();
        slow(s, "15M");

        let args = ["replace", "--old", names[1].as_str(), "--new", names[2].as_str(), "--yes"];
        let mut child = spawned(s, &args);
        let cuts = 6;
        for cut in 0..cuts {
            thread::sleep(Duration::from_millis(300 + random.below(700)));
            let own = dir.join(format!("own{cut}"));
            fs::create_dir(&own).unwrap();
            for name in OWN {
                s.tool("cp", &["-a", "--one-file-system", &format!("/{name}"), own.to_str().unwrap()]);
            }
            for n in ["a", "b", "c"] {
                s.tool("cp", &["--reflink=always", &image(n), &image(&format!("{n}{cut}"))]);
            }
        }
        assert!(child.wait().unwrap().success());
        assert!(s.tree() == tree);
        is_whole(s, "raid1");

        let mut middle = 0;
        for cut in 0..cuts {
            s.reset_mounts();
            s.tool("btrfs", &["device", "scan", "--forget"]);
            for name in OWN {
                for entry in fs::read_dir(format!("/{name}")).unwrap().map(|e| e.unwrap().path()) {
                    if entry == Path::new(MIRROR) {
                        // The place stays, closed as it is.
                    } else if entry.is_dir() && !entry.is_symlink() {
                        fs::remove_dir_all(&entry).unwrap();
                    } else {
                        fs::remove_file(&entry).unwrap();
                    }
                }
                if name != "srv" && name != "run" {
                    s.tool(
                        "cp",
                        &["-a", &format!("{}/own{cut}/{name}/.", dir.display()), &format!("/{name}")],
                    );
                }
            }
            for (name, n) in names.iter().zip(["a", "b", "c"]) {
                s.tool("losetup", &["--detach", name]);
                s.tool("losetup", &[name, &image(&format!("{n}{cut}"))]);
            }
            // The kernel takes a copy up again by itself, where it is told of the new device.
            let new =
                Command::new("btrfs").args(["inspect-internal", "dump-super", &names[2]]).output().unwrap();
            let new = String::from_utf8_lossy(&new.stdout).into_owned();
            middle += usize::from(new.lines().any(|l| l.split_whitespace().eq(["dev_item.devid", "0"])));
            let at = format!("seed {seed}, cut {cut}");
            let again = run_again(s, &args, ended_exchanges() == 1, &at);
            assert!(
                again.code == 0 || again.stderr.contains("is member 2 of this very mirror"),
                "{at}: {}",
                again.stderr
            );
            is_whole(s, "raid1");
            assert!(s.tree() == tree, "{at}: a file is missing or another");
        }
        alone(s, &[&names[2]], &[&names[0]], &tree);
        note(format!(
            "power was cut at {cuts} instants (RAIDGUARD_TEST_SEED={seed}), {middle} of them while the kernel copied: each ended whole"
        ));
        drop(loops);
        s.tool("umount", &[dir.to_str().unwrap()]);
    });
}
