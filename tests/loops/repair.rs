//! `repair` on real mirrors: a member comes back, the level is restored, rot is mended or named, and halves that parted are never merged.

use std::{fs, os::unix::fs::FileExt as _, path::Path};

use crate::{
    check::{faults, places, set_up},
    replace::{alone, filled, is_whole, lose, pull, sync},
    sandbox::{Ran, Sandbox, isolated},
};

const NODE: &str = "/home/bitcoin/.lightning";
const MIRROR: &str = "/srv/lightning";

#[track_caller]
fn repaired(s: &Sandbox, code: i32, words: &[&str]) -> Ran {
    let ran = s.run(&["repair", "--yes"]);
    assert_eq!(ran.code, code, "{}{}", ran.stdout, ran.stderr);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(words.iter().all(|w| said.contains(w)), "{words:?} in {said}");
    ran
}

/// The counters that the absence has left are acknowledged, as the operator does; then everything is as it should be.
#[track_caller]
fn is_mended(s: &Sandbox) {
    s.run(&["check", "--acknowledge"]);
    is_whole(s, "raid1");
    repaired(s, 0, &["nothing to do"]);
}

/// What udev is told of each of these before the kernel gets it.
#[track_caller]
fn stand_apart(s: &Sandbox, devices: &[&str], apart: bool) {
    for device in devices {
        let told = s.run(&["apart", device]);
        let expected = (0, if apart { "apart\n" } else { "" });
        assert_eq!((told.code, told.stdout.as_str()), expected, "{device}: {}", told.stderr);
    }
}

/// The second member's image as it is now.
fn kept(s: &Sandbox) -> std::path::PathBuf {
    let kept = s.scratch().join("kept");
    s.tool("cp", &["--sparse=always", s.image().to_str().unwrap(), kept.to_str().unwrap()]);
    kept
}

/// The second member is away while the first is written to.
fn away(s: &Sandbox, name: &str, size: usize) {
    let two = s.two().to_owned();
    lose(s, &two);
    s.tool("mount", &["-o", "degraded", s.one(), MIRROR]);
    // More than one commit.
    (0..3).for_each(|i| filled(&format!("{name} {i}"), size / 3));
    s.tool("umount", &[MIRROR]);
    s.tool("losetup", &[s.two(), s.image().to_str().unwrap()]);
}

#[test]
fn a_member_that_was_away_is_brought_up_to_date() {
    isolated("repair::a_member_that_was_away_is_brought_up_to_date", |s| {
        set_up(s);
        repaired(s, 0, &["nothing to do"]);
        let none = s.run(&["repair", "--json", "--yes"]);
        let printed: serde_json::Value = serde_json::from_str(&none.stdout).unwrap();
        assert!(
            printed["repair"]["whole"] == true && printed["repair"]["found"].as_array().unwrap().is_empty()
        );

        // Nothing is mounted, and one half is old.
        away(s, "written while it was away", 300 << 20);
        stand_apart(s, &[s.one(), s.two()], false);
        let devices = s.devices();
        let dry = s.run(&["repair", "--dry-run"]);
        assert!(dry.code == 0 && dry.stdout.contains("convert=raid1,soft"), "{}{}", dry.stdout, dry.stderr);
        assert_eq!(s.run(&["repair"]).code, 3, "nobody said yes");
        assert!(s.devices() == devices, "something was written");
        repaired(s, 0, &["not mounted", "holds older data", "redundancy is whole"]);
        is_mended(s);
        let tree = s.tree();

        // Somebody has mounted both: what was written meanwhile exists once.
        away(s, "and again", 400 << 20);
        s.tool("btrfs", &["device", "scan", s.one(), s.two()]);
        s.tool("mount", &[MIRROR]);
        stand_apart(s, &[s.one(), s.two()], false);
        let (_, codes) = faults(s, &[]);
        assert!(codes.contains("MIR-PROFILE"), "{codes:?}");
        repaired(s, 0, &["is stored as single", "redundancy is whole"]);
        is_mended(s);
        let newer = s.tree();
        assert!(tree.iter().all(|(path, facts)| path == Path::new("") || newer.get(path) == Some(facts)));
        alone(s, &[s.two()], &[s.one()], &newer);
    });
}

#[test]
fn a_member_that_dropped_off_the_running_mirror_is_taken_in_again() {
    isolated("repair::a_member_that_dropped_off_the_running_mirror_is_taken_in_again", |s| {
        set_up(s);
        let kept = kept(s);
        pull(s);
        filled("written to one half", 3 << 20);
        let gone = s.run(&["repair", "--yes"]);
        assert_eq!(gone.code, 3, "{}", gone.stderr);
        assert!(
            gone.stderr.contains("is missing") && gone.stderr.contains("raidguard replace"),
            "{}",
            gone.stderr
        );
        let tree = s.tree();
        // It comes back under another name, as a stick does.
        let back = s.attach_again(&kept);
        stand_apart(s, &[s.one(), back.name()], false);
        repaired(s, 0, &["is back at", "unmount", "redundancy is whole"]);
        is_mended(s);
        assert_eq!(s.tree(), tree);
        alone(s, &[back.name()], &[s.one()], &tree);
    });
}

#[test]
fn what_rotted_is_mended_and_what_cannot_be_is_named() {
    isolated("repair::what_rotted_is_mended_and_what_cannot_be_is_named", |s| {
        set_up(s);
        let pattern = [b'P'; 4096];
        let file = format!("{NODE}/rotting");
        fs::write(&file, pattern.repeat(8)).unwrap();
        sync();
        let rot = |device: &str, image: &Path| {
            let hit = places(image, &pattern);
            assert_eq!(hit.len(), 8);
            let device = fs::OpenOptions::new().write(true).open(device).unwrap();
            hit.iter().for_each(|at| device.write_all_at(&[2; 4096], *at).unwrap());
            device.sync_all().unwrap();
            fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
        };
        let images = s.images();
        rot(s.two(), &images[1]);
        assert_eq!(s.run(&["scrub"]).code, 0);
        repaired(s, 0, &["the last scrub mended 8 blocks", "redundancy is whole"]);
        is_mended(s);

        rot(s.one(), &images[0]);
        rot(s.two(), &images[1]);
        assert_eq!(s.run(&["scrub"]).code, 1);
        let ran = repaired(s, 1, &["could not mend", "damaged: /srv/lightning/lightning/rotting"]);
        assert_eq!(ran.stdout.matches("damaged:").count(), 1, "{}", ran.stdout);
        let named = s.run(&["repair", "--yes", "--json"]);
        let printed: serde_json::Value = serde_json::from_str(&named.stdout).unwrap();
        assert_eq!(printed["repair"]["damaged"][0]["path"], "/srv/lightning/lightning/rotting");
        fs::remove_file(&file).unwrap();
        sync();
        repaired(s, 0, &["redundancy is whole"]);
        is_mended(s);
    });
}

#[test]
fn two_halves_that_were_each_written_alone_are_never_merged() {
    isolated("repair::two_halves_that_were_each_written_alone_are_never_merged", |s| {
        set_up(s);
        let (one, two) = (s.one().to_owned(), s.two().to_owned());
        let images = s.images();
        lose(s, &two);
        s.tool("mount", &["-o", "degraded", &one, MIRROR]);
        for i in 0..12 {
            filled(&format!("one {i}"), 1 << 16);
        }
        let tree = s.tree();
        lose(s, &one);
        s.tool("losetup", &[&two, images[1].to_str().unwrap()]);
        s.tool("mount", &["-o", "degraded", &two, MIRROR]);
        for i in 0..3 {
            filled(&format!("two {i}"), 1 << 16);
        }
        let other = s.tree();
        s.tool("umount", &[MIRROR]);
        s.tool("btrfs", &["device", "scan", "--forget"]);
        s.tool("losetup", &[&one, images[0].to_str().unwrap()]);
        let third = s.disk("third", 2 << 30);
        let devices = s.devices();
        stand_apart(s, &[&one, &two], true);
        stand_apart(s, &[third.name()], false);
        let (code, codes) = faults(s, &[]);
        assert!(code == 2 && codes.contains("MIR-SPLIT"), "{code} {codes:?}");
        for args in [
            &["repair", "--yes"][..],
            &["replace", "--old", "2", "--new", third.name(), "--yes"],
            &["repair", "--discard", third.name(), "--yes"],
        ] {
            let refused = s.run(args);
            assert_eq!(refused.code, 3, "{args:?}: {}{}", refused.stdout, refused.stderr);
            assert!(!refused.stderr.contains("panicked"), "{}", refused.stderr);
        }
        let refused = s.run(&["repair", "--yes"]);
        let words = ["written to alone", &one, &two, "--discard", "raidguard recover"];
        assert!(words.iter().all(|w| refused.stderr.contains(w)), "{}", refused.stderr);
        assert!(s.devices() == devices, "a refusal wrote something");
        drop(third);

        // The one with fewer commits may be the one that counts: it is the operator who says.
        let ran = s.run(&["repair", "--discard", &one, "--yes"]);
        assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
        is_mended(s);
        assert!(s.tree() == other && other != tree);
        alone(s, &[&one], &[&two], &other);
    });
}

#[test]
fn killed_on_its_way_it_goes_on() {
    isolated("repair::killed_on_its_way_it_goes_on", |s| {
        set_up(s);
        let mut killed = 0;
        for number in [3, 4, 5, 6, 7] {
            away(s, &format!("written {number}"), 3 << 20);
            killed += u32::from(s.run_killed("fsync,fdatasync", number, &["repair", "--yes"]));
            // Where it had ended already, there is nothing to do.
            repaired(s, 0, &["repair of lightning"]);
            is_mended(s);
        }
        assert!(killed >= 3, "{killed}");
        let tree = s.tree();
        alone(s, &[s.two()], &[s.one()], &tree);
    });
}
