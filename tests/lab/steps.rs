//! What cases are made of.

use std::{
    cell::Cell,
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Instant,
};

use serde_json::Value;

use crate::{
    backend::{Backend, EXTRA},
    disks::{Bus, hash},
    guest::{Ran, parsed},
    machine::Machine,
    ready,
};

pub(crate) const NODE: &str = "/home/bitcoin/.lightning";
pub(crate) const MOUNT: &str = "/srv/lightning";

/// The codes of the faults that a check finds, its exit code before them.
#[track_caller]
pub(crate) fn faults(m: &mut Machine) -> (i64, BTreeSet<String>) {
    let ran = m.raidguard(&["check", "--format", "json", "--dump-observed", "/run/observed.json"]);
    let printed = parsed(&ran.stdout);
    let findings =
        printed["mirrors"].as_array().unwrap().iter().flat_map(|m| m["findings"].as_array().unwrap());
    let faults: Vec<&Value> = findings.filter(|f| f["severity"] != "ok").collect();
    for fault in &faults {
        println!("note: {} {} {}", fault["code"], fault["says"], fault["evidence"]);
    }
    m.record(&faults);
    (ran.code, faults.iter().map(|f| f["code"].as_str().unwrap().to_owned()).collect())
}

/// What a check says of one fault.
#[track_caller]
fn evidence(m: &mut Machine, code: &str) -> String {
    let printed = parsed(&m.raidguard(&["check", "--format", "json"]).stdout);
    let mut findings =
        printed["mirrors"].as_array().unwrap().iter().flat_map(|m| m["findings"].as_array().unwrap());
    let found = findings.find(|f| f["code"] == code).unwrap_or_else(|| panic!("no {code}"));
    ["about", "says", "evidence"].map(|key| found[key].to_string()).join(" ")
}

/// What a check says of this fault names this disk, and not the other.
#[track_caller]
pub(crate) fn names(m: &mut Machine, code: &str, disk: &str, other: &str) {
    let said = evidence(m, code);
    let mut is_named = |serial: &str| {
        let device = m.device(serial);
        said.contains(m.ok(&format!("readlink -f {device}")).trim())
    };
    assert!(is_named(disk) && !is_named(other), "{said}");
}

/// A check ends with this code, and finds these faults and no other.
#[track_caller]
pub(crate) fn finds(m: &mut Machine, code: i64, codes: &[&str]) {
    let expected = (code, codes.iter().map(ToString::to_string).collect());
    let found = faults(m);
    assert!(found == expected, "{found:?}, expected {expected:?}\n{}", m.raidguard(&["check"]).stdout);
}

/// A check is critical, and these faults are among those that it finds.
#[track_caller]
pub(crate) fn is_critical(m: &mut Machine, codes: &[&str]) {
    let (code, found) = faults(m);
    assert!(code == 2 && codes.iter().all(|c| found.contains(*c)), "{code} {found:?}");
}

/// What `setup` is asked for.
pub(crate) fn setup_arguments(m: &Machine, b: &Backend) -> Vec<String> {
    let (one, two) = (m.device("one"), m.device("two"));
    let asked = ["setup", "--backend", b.name, "--hdd", &one, "--usb", &two, "--lightning-dir", NODE];
    let more = ["--user", "bitcoin", "--scheduler", "systemd", "--yes"];
    let mut words: Vec<_> = asked.iter().chain(&more).map(ToString::to_string).collect();
    if let Some(level) = b.level {
        words.extend(["--device", &m.device(EXTRA), "--level", level].map(str::to_owned));
    }
    words
}

/// Moves the node onto a mirror; what is asked for beyond the two disks.
#[track_caller]
pub(crate) fn set_up(m: &mut Machine, b: &Backend, more: &[&str]) {
    let mut asked = setup_arguments(m, b);
    asked.extend(more.iter().map(ToString::to_string));
    does(m, &asked.iter().map(String::as_str).collect::<Vec<_>>());
    is_at_work(m, b);
    (b.settle)(m);
    finds(m, 0, &[]);
    does(m, &["check", "--deep"]);
}

/// By what a machine with disks for a mirror must be made anew.
fn key(b: &Backend) -> String {
    format!("{}-{}", ready::programs_key(), b.size >> 20)
}

/// A node at work beside two empty disks, SCSI and USB.
pub(crate) fn unmirrored(name: &str, b: &Backend) -> Machine {
    let booted = Machine::booted_once();
    let kept = ready::kept(&booted, &format!("node-{}", b.title()), &key(b), |place| {
        let mut m = Machine::fresh("node");
        m.ok("modprobe md_mod");
        m.copies_at_once();
        m.new_disk("one", Bus::Scsi, b.size);
        m.new_disk("two", Bus::Usb, b.size);
        if b.level.is_some() {
            m.new_disk(EXTRA, Bus::Scsi, b.size);
        }
        starts_a_node(&mut m);
        m.keep(place);
    });
    Machine::resumed(name, &kept, &[])
}

/// Has a node be at work, on the machine's own disk.
pub(crate) fn starts_a_node(m: &mut Machine) {
    m.ok(&format!(
        "install -d -m 0700 -o bitcoin -g bitcoin {NODE} && systemctl enable --now lightningd.service"
    ));
    m.commits_past(0);
    // The stand-in does not see to it that its secret is on the disk, as lightningd does before it goes on.
    m.ok("sync -f /home");
}

/// A machine that has nothing to do with a mirror, as a rescue system has not.
pub(crate) fn elsewhere(name: &str) -> Machine {
    Machine::fresh(&format!("{name}-elsewhere"))
}

/// In a machine that has nothing to do with it, one member alone has `last`, the last commit that the node told of, or a newer one, and is
/// not changed by a rescue.
#[track_caller]
pub(crate) fn alone_has(rescue: &mut Machine, b: &Backend, bus: Bus, image: &Path, last: i64) {
    together_have(rescue, b, &[(bus, image)], last);
}

/// The same of several members that have everything together.
#[track_caller]
pub(crate) fn together_have(rescue: &mut Machine, b: &Backend, survivors: &[(Bus, &Path)], last: i64) {
    let before: Vec<_> = survivors.iter().map(|(_, image)| hash(image)).collect();
    let names: Vec<_> = (1..=survivors.len()).map(|n| format!("alone{n}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    for (name, (bus, image)) in names.iter().zip(survivors) {
        rescue.add_disk(name, *bus, image);
    }
    is_rescued(rescue, b, &names, last);
    for name in names {
        rescue.pull(name);
        rescue.forget(name);
    }
    let after: Vec<_> = survivors.iter().map(|(_, image)| hash(image)).collect();
    assert_eq!(after, before, "a survivor is not as it was");
}

/// What was begun ends with this exit code.
#[track_caller]
pub(crate) fn ends(m: &mut Machine, begun: i64, expected: i64) {
    let Ran { code, stdout, stderr } = m.finish(begun);
    println!("note: it ends with {code}: {stdout}{stderr}");
    assert_eq!(code, expected, "{stdout}{stderr}");
}

/// The power fails; then one disk alone, or what is enough with it, has the last commit that the node told of, in a machine of this name.
#[track_caller]
pub(crate) fn after_a_cut_alone_has_all(m: &mut Machine, b: &Backend, name: &str, bus: Bus, disk: &str) {
    m.cut();
    let image = |serial| m.disk(serial).image.as_path();
    let survivors = b.enough((bus, image(disk)), || (Bus::Scsi, image(EXTRA)));
    together_have(&mut elsewhere(name), b, &survivors, m.committed());
}

/// Where a machine is kept whose node is at work on a mirror of one SCSI and one USB disk, under systemd.
fn mirrored_once(b: &Backend) -> PathBuf {
    let booted = Machine::booted_once();
    ready::kept(&booted, &format!("mirrored-{}", b.title()), &key(b), |place| {
        let mut m = unmirrored(&format!("mirrored-{}", b.title()), b);
        let asked = setup_arguments(&m, b);
        let done = m.raidguard(&asked.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(done.code, 0, "{}{}", done.stdout, done.stderr);
        is_at_work(&mut m, b);
        (b.settle)(&mut m);
        m.keep(place);
    })
}

/// A machine whose node is at work on a mirror.
pub(crate) fn mirrored(name: &str, b: &Backend) -> Machine {
    Machine::resumed(&format!("{name}-{}", b.title()), &mirrored_once(b), &[])
}

/// The same; what is written to both disks is kept in its order. Also where it was resumed from.
pub(crate) fn mirrored_and_logged(name: &str, b: &Backend) -> (Machine, PathBuf) {
    let kept = mirrored_once(b);
    let logged = [&["one"][..], &b.enough("two", || EXTRA)].concat();
    (Machine::resumed(&format!("{name}-{}", b.title()), &kept, &logged), kept)
}

/// The node runs, on the mirror, and goes on.
#[track_caller]
pub(crate) fn is_at_work(m: &mut Machine, b: &Backend) {
    let said = m.ok(&format!(
        "systemctl is-active lightningd.service; readlink {NODE}; findmnt --noheadings --output FSTYPE --target {NODE}/"
    ));
    let lines: Vec<_> = said.lines().map(str::trim).collect();
    assert!(lines[0] == "active" && lines[1].starts_with(MOUNT) && lines[2] == b.filesystem, "{said}");
    m.commits_past(m.committed());
}

/// Boots with a member missing: the machine comes up, and the check is critical. Where the backend does not mount what lacks a member, the
/// node does not start either.
#[track_caller]
pub(crate) fn boots_without(m: &mut Machine, b: &Backend, missing: &str) {
    m.set_attached(missing, false);
    let state = m.boot();
    assert!(["running", "degraded"].contains(&state.as_str()), "{state}");
    m.settle();
    if b.boots_degraded {
        is_at_work(m, b);
        is_critical(m, &[]);
    } else {
        assert_ne!(m.sh("systemctl is-active lightningd.service").code, 0, "the node runs");
        is_critical(m, &["MNT-ABSENT"]);
    }
}

/// Brings the node's files off these members that are attached, by device-mapper. They have `last`, the last commit that the node told of,
/// or a newer one. What it made in the machine is gone again.
#[track_caller]
pub(crate) fn is_rescued(m: &mut Machine, b: &Backend, survivors: &[&str], last: i64) {
    let from: Vec<_> = survivors.iter().map(|survivor| m.device(survivor)).collect();
    m.ok("rm -rf /root/rescued");
    let named = from.iter().flat_map(|device| ["--from", device]);
    let asked = ["recover", "--degraded"].into_iter().chain(named);
    let asked = asked.chain(["--to", "/root/rescued", "--overlay", "dm", "--yes"]);
    let ran = m.raidguard(&asked.collect::<Vec<_>>());
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(said.contains("through a device-mapper snapshot"), "{said}");
    let left = m.ok(&format!(
        "dmsetup ls; losetup --list --noheadings; findmnt --noheadings --list --types {} | grep -v '^/ ' || true",
        b.filesystem
    ));
    assert_eq!(left.trim(), "No devices found", "what it made is gone: {said}");
    let (with, without) = (newness(m, true), newness(m, false));
    println!(
        "note: {survivors:?}: recover ends with {}; {with} of {last} committed, {without} without journal",
        ran.code
    );
    match ran.code {
        0 => assert!(with >= last, "{said}"),
        // SQLite does not wait until the unlinking of a journal is on disk: the last commit's journal may be there again, and undo it.
        // That is said, and which of the two is the newer.
        4 => assert!(said.contains("rollback journal") && without >= last, "{said}"),
        code => panic!("{code}: {said}"),
    }
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

/// Takes into care what somebody made and mounted, with the node on it.
#[track_caller]
pub(crate) fn adopts(m: &mut Machine) {
    let asked = ["adopt", MOUNT, "--name", "lightning", "--lightning-dir", NODE, "--scheduler", "systemd"];
    does(m, &[&asked[..], &["--node-unit", "lightningd.service", "--yes"]].concat());
}

/// What was taken into care is cared for, and left again as it was: `known` says what it said `before`, `rests` nothing, and the node goes
/// on in a directory of its own.
#[track_caller]
pub(crate) fn is_cared_for_and_left(m: &mut Machine, b: &Backend, known: &str, before: &str, rests: &str) {
    does(m, &["scrub"]);
    finds(m, 0, &[]);
    does(m, &["check", "--deep"]);
    // The guard lets it start, and has then seen a newer database than the last deep check.
    m.ok("systemctl restart lightningd.service");
    is_at_work(m, b);
    finds(m, 0, &[]);
    does(m, &["release", "--yes"]);
    assert_eq!(m.ok(rests), "", "something of it is left");
    let at = m.ok(&format!("stat --format=%F {NODE}; systemctl is-active lightningd.service; {known}"));
    assert_eq!(at, format!("directory\nactive\n{before}"));
    let last = m.committed();
    m.commits_past(last);
    assert!(m.database_version() > last);
}

/// A verb that must succeed, and what it said.
#[track_caller]
pub(crate) fn does(m: &mut Machine, args: &[&str]) -> String {
    let began = Instant::now();
    let Ran { code, stdout, stderr } = m.raidguard(args);
    println!("note: {} took {} s", args[0], began.elapsed().as_secs());
    assert_eq!(code, 0, "{args:?}: {stdout}{stderr}");
    stdout + &stderr
}

/// Numbers by xorshift, which `RAIDGUARD_TEST_SEED` repeats.
pub(crate) struct Random(Cell<u64>);

impl Random {
    pub(crate) fn new() -> Self {
        let seed = std::env::var("RAIDGUARD_TEST_SEED").map_or_else(
            |_| {
                u64::from(std::process::id()) << 20
                    | u64::from(std::time::UNIX_EPOCH.elapsed().unwrap().subsec_micros())
            },
            |seed| seed.parse().unwrap(),
        );
        println!("note: RAIDGUARD_TEST_SEED={seed}");
        Self(Cell::new(seed | 1))
    }

    pub(crate) fn below(&self, limit: u64) -> u64 {
        let mut x = self.0.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0.set(x);
        x % limit
    }
}
