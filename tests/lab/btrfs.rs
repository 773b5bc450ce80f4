//! What loop devices cannot show of btrfs: systemd, udev, SCSI and USB disks that go, boots without them, power cuts under the writer.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{disks::Bus, guest::parsed, machine::Machine};

const SIZE: u64 = 2 << 30;
const NODE: &str = "/home/bitcoin/.lightning";

/// The codes of the faults that a check finds, its exit code before them. A busy machine may keep it from reading everything in time.
fn faults(m: &mut Machine) -> (i64, BTreeSet<String>) {
    let mut tries = 0..10;
    loop {
        let ran = m.raidguard(&["check", "--format", "json"]);
        let printed = parsed(&ran.stdout);
        let findings =
            printed["mirrors"].as_array().unwrap().iter().flat_map(|m| m["findings"].as_array().unwrap());
        let faults: Vec<_> = findings.filter(|f| f["severity"] != "ok").collect();
        for fault in &faults {
            println!("note: {} {}", fault["code"], fault["evidence"]);
        }
        let is_late = |f: &&Value| {
            let evidence = f["evidence"].to_string();
            f["code"] == "OBS-FAILED"
                && ["no answer within", "took longer"].iter().any(|w| evidence.contains(w))
        };
        let late = faults.iter().any(is_late);
        if !late || tries.next().is_none() {
            let codes = faults.iter().map(|f| f["code"].as_str().unwrap().to_owned());
            return (ran.code, codes.collect());
        }
    }
}

#[track_caller]
fn finds(m: &mut Machine, code: i64, codes: &[&str]) {
    let expected = (code, codes.iter().map(ToString::to_string).collect());
    let found = faults(m);
    assert!(found == expected, "{found:?}, expected {expected:?}\n{}", m.raidguard(&["check"]).stdout);
}

/// A node at work on a mirror of one SCSI and one USB disk, managed by systemd.
fn mirrored(name: &str) -> Machine {
    let mut m = Machine::fresh(name);
    m.new_disk("one", Bus::Scsi, SIZE);
    m.new_disk("two", Bus::Usb, SIZE);
    m.ok(&format!(
        "install -d -m 0700 -o bitcoin -g bitcoin {NODE} && systemctl enable --now lightningd.service"
    ));
    m.commits_past(0);
    let (one, two) = (m.device("one"), m.device("two"));
    let setup = ["setup", "--hdd", &one, "--usb", &two, "--lightning-dir", NODE, "--user", "bitcoin"];
    let done = m.raidguard(&[&setup[..], &["--scheduler", "systemd", "--yes"]].concat());
    assert_eq!(done.code, 0, "{}{}", done.stdout, done.stderr);
    m
}

/// The node runs, on the mirror, and goes on.
#[track_caller]
fn is_at_work(m: &mut Machine) {
    assert_eq!(m.ok("systemctl is-active lightningd.service").trim(), "active");
    let target = m.ok(&format!("readlink {NODE}"));
    assert!(target.starts_with("/srv/lightning/"), "{target}");
    let kind = m.ok(&format!("findmnt --noheadings --output FSTYPE --target {NODE}/"));
    assert_eq!(kind.trim(), "btrfs");
    m.commits_past(m.committed());
}

/// Boots with a member missing: the machine comes up, the node does not start, and the check is critical.
fn boots_without(m: &mut Machine, missing: &str) {
    m.set_attached(missing, false);
    let state = m.boot();
    assert!(["running", "degraded"].contains(&state.as_str()), "{state}");
    m.settle();
    assert_ne!(m.sh("systemctl is-active lightningd.service").code, 0, "the node runs");
    let (code, found) = faults(m);
    assert_eq!(code, 2, "{found:?}");
    assert!(found.contains("MNT-ABSENT"), "{found:?}");
}

/// Brings the node's files off the one member that is attached, by device-mapper. They have the last commit that the node told of.
/// Not a byte of the member is changed, by the boots and checks before neither: `before` is its hash from before them.
fn is_rescued(m: &mut Machine, survivor: &str, before: &str) {
    m.ok("rm -rf /root/rescued");
    let args = ["recover", "--degraded", "--to", "/root/rescued", "--overlay", "dm", "--yes"];
    let ran = m.raidguard(&args);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(said.contains("through a device-mapper snapshot"), "{said}");
    let left = m.ok("dmsetup ls; losetup --list --noheadings; findmnt --noheadings --types btrfs || true");
    assert_eq!(left.trim(), "No devices found", "what it made is gone");
    let (with, without) = (newness(m, true), newness(m, false));
    println!(
        "note: {survivor}: recover ends with {}; {with} of {} committed, {without} without journal",
        ran.code,
        m.committed()
    );
    match ran.code {
        0 => assert!(with >= m.committed(), "{said}"),
        // SQLite does not wait until the unlinking of a journal is on disk: the last commit's journal may be there again, and undo it.
        // That is said, and which of the two is the newer.
        4 => assert!(said.contains("rollback journal") && without >= m.committed(), "{said}"),
        code => panic!("{code}: {said}"),
    }
    m.ok("sync -f /root");
    m.cut();
    assert_eq!(m.hash(survivor), before, "the survivor is not as it was");
}

/// How new a sound database among the rescued files is, as SQLite opens a copy of it with its journal, or without one.
#[track_caller]
fn newness(m: &mut Machine, journal: bool) -> i64 {
    let files = if journal { "lightningd.sqlite3*" } else { "lightningd.sqlite3" };
    let asked = "PRAGMA integrity_check; SELECT intval FROM vars WHERE name = 'data_version'";
    let script = format!(
        "set -e; at=$(mktemp -d); find /root/rescued -name '{files}' -exec cp {{}} $at \\;
        sqlite3 $at/lightningd.sqlite3 \"{asked}\"; rm -r $at"
    );
    let said = m.ok(&script);
    let version = said.strip_prefix("ok\n").map(|version| version.trim().parse());
    version.unwrap_or_else(|| panic!("{said}")).unwrap()
}

#[test]
fn a_mirror_is_there_again_after_a_boot() {
    let mut m = mirrored("a_mirror_is_there_again_after_a_boot");
    is_at_work(&mut m);
    finds(&mut m, 0, &[]);
    let before = m.committed();
    assert_eq!(m.reboot(), "running");
    assert!(m.database_version() >= before);
    is_at_work(&mut m);
    let timers = m.ok("systemctl list-timers --all --no-legend 'raidguard-*'");
    assert_eq!(timers.lines().count(), 4, "{timers}");
    finds(&mut m, 0, &[]);
}

#[test]
fn a_member_pulled_while_idle_is_critical() {
    let mut m = mirrored("a_member_pulled_while_idle_is_critical");
    m.ok("systemctl stop lightningd.service && sync -f /srv/lightning");
    m.pull("two");
    finds(&mut m, 2, &["MIR-PULLED"]);
}

#[test]
fn a_member_pulled_under_load_loses_no_commit() {
    let mut m = mirrored("a_member_pulled_under_load_loses_no_commit");
    is_at_work(&mut m);
    m.pull("two");
    m.commits_past(m.committed() + 50);
    is_at_work(&mut m);
    let (code, found) = faults(&mut m);
    assert!(code == 2 && found.contains("MIR-PULLED"), "{code} {found:?}");
    m.cut();
    let survivor = m.hash("one");
    boots_without(&mut m, "two");
    is_rescued(&mut m, "one", &survivor);
}

#[test]
fn each_half_has_the_last_commit_after_a_power_cut() {
    let mut m = mirrored("each_half_has_the_last_commit_after_a_power_cut");
    is_at_work(&mut m);
    m.cut();
    for (survivor, lost) in [("one", "two"), ("two", "one")] {
        m.set_attached(survivor, true);
        let before = m.hash(survivor);
        boots_without(&mut m, lost);
        is_rescued(&mut m, survivor, &before);
    }
}

#[test]
fn a_new_disk_alone_has_every_commit_after_a_replace() {
    let mut m = mirrored("a_new_disk_alone_has_every_commit_after_a_replace");
    is_at_work(&mut m);
    m.cut();
    boots_without(&mut m, "two");
    m.new_disk("three", Bus::Scsi, SIZE);
    let new = m.device("three");
    let done = m.raidguard(&["replace", "--new", &new, "--yes"]);
    assert_eq!(done.code, 0, "{}{}", done.stdout, done.stderr);
    // It did not run before, so `replace` has not started it.
    m.ok("systemctl start lightningd.service");
    is_at_work(&mut m);
    finds(&mut m, 0, &[]);
    m.cut();
    let survivor = m.hash("three");
    boots_without(&mut m, "one");
    is_rescued(&mut m, "three", &survivor);
}
