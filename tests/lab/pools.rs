//! What there is of pools beside the mirror of two that every other case has.

use std::time::{Duration, Instant};

use crate::{
    backend::Backend,
    disks::Bus,
    guest::Ran,
    machine::Machine,
    steps::{
        MOUNT, NODE, adopts, does, elsewhere, finds, is_at_work, is_cared_for_and_left, is_critical,
        mirrored, set_up, together_have, unmirrored,
    },
};

/// It goes on without one of three, another disk takes its place, and any two have every commit.
pub(crate) fn a_raidz1_of_three_is_made_whole_again(b: &Backend) {
    let mut m = unmirrored("a_raidz1_of_three_is_made_whole_again", b);
    let three = m.new_disk("three", Bus::Scsi, b.size);
    set_up(&mut m, b, &["--device", &three, "--level", "raidz1"]);
    m.pull("two");
    m.commits_past(m.committed() + 5);
    is_critical(&mut m, &[b.pulled]);
    let four = m.new_disk("four", Bus::Usb, b.size);
    does(&mut m, &["replace", "--new", &four, "--yes"]);
    is_at_work(&mut m, b);
    finds(&mut m, 0, &[]);
    m.pull("one");
    m.commits_past(m.committed() + 5);
    is_at_work(&mut m, b);
    m.cut();
    let mut rescue = elsewhere("a_raidz1_of_three");
    let of = |serial: &str| m.disk(serial).image.clone();
    together_have(&mut rescue, b, &[(Bus::Usb, &of("four")), (Bus::Scsi, &of("three"))], m.committed());
    let alone = rescue.add_disk("alone", Bus::Usb, &of("four"));
    let ran = rescue.raidguard(&["recover", "--degraded", "--from", &alone, "--to", "/root/one", "--yes"]);
    assert_eq!(ran.code, 3, "{}{}", ran.stdout, ran.stderr);
}

/// Every member is pulled while the node writes. What asks then has its answer, in time; back again, the pool goes on, and nothing
/// acknowledged is lost.
pub(crate) fn a_pool_that_has_stopped_is_told_in_time(b: &Backend) {
    let mut m = mirrored("a_pool_that_has_stopped_is_told_in_time", b);
    m.commits_past(m.committed());
    m.pull("two");
    m.pull("one");
    let last = m.committed();
    m.ok("until grep -q SUSPENDED /proc/spl/kstat/zfs/lightning/state; do sleep 0.2; done");
    for (args, expected) in [(&["check"][..], 2), (&["status"], 0), (&["guard"], 3)] {
        // Time in the guest, of which ten seconds are what an answer is waited for.
        let began = Instant::now();
        let quoted = args.join(" ");
        let Ran { code, stdout, stderr } = m.sh(&format!(
            "before=$(cut -d. -f1 /proc/uptime); raidguard {quoted}; code=$?
            after=$(cut -d. -f1 /proc/uptime); [ $((after - before)) -le 25 ] || exit 99; exit $code"
        ));
        println!("note: {quoted} took {:?}", began.elapsed().max(Duration::from_secs(1)));
        assert_eq!(code, expected, "{quoted}: {stdout}{stderr}");
        assert!(format!("{stdout}{stderr}").contains("MIR-SUSPENDED"), "{quoted}: {stdout}{stderr}");
    }
    m.attach("one");
    m.attach("two");
    does(&mut m, &["repair", "--yes"]);
    m.ok("systemctl restart lightningd.service");
    is_at_work(&mut m, b);
    assert!(m.database_version() >= last, "a commit is lost");
    does(&mut m, &["check", "--acknowledge"]);
    finds(&mut m, 0, &[]);
}

/// What somebody makes with `zpool create`, with the node on it.
fn by_hand(m: &mut Machine, pool: &str, ashift: u32) {
    let (one, two) = (m.device("one"), m.device("two"));
    m.ok(&format!(
        "set -e
        systemctl stop lightningd.service
        modprobe zfs
        zpool create -o ashift={ashift} -O mountpoint={MOUNT} {pool} mirror {one} {two}
        mv {NODE} {MOUNT}/lightning
        ln -s {MOUNT}/lightning {NODE}
        systemctl start lightningd.service"
    ));
}

/// A pool that somebody made for sectors of 512 bytes is taken into care. A disk of 4096 is refused as a member of it before anything is
/// written.
pub(crate) fn a_disk_of_larger_sectors_is_judged_before_it_is_written_to(b: &Backend) {
    let mut m = unmirrored("a_disk_of_larger_sectors_is_judged_before_it_is_written_to", b);
    by_hand(&mut m, "lightning", 9);
    adopts(&mut m);
    does(&mut m, &["scrub"]);
    finds(&mut m, 0, &[]);
    let large = m.new_disk("large", Bus::Scsi4Kn, 2 * b.size);
    let before = m.hash("large");
    m.pull("two");
    let Ran { code, stdout, stderr } = m.raidguard(&["replace", "--new", &large, "--yes"]);
    assert!(code == 3 && stderr.contains("512") && stderr.contains("4096"), "{code}: {stdout}{stderr}");
    m.ok("sync");
    assert_eq!(m.hash("large"), before, "it was written to");
    let three = m.new_disk("three", Bus::Scsi, b.size);
    does(&mut m, &["replace", "--new", &three, "--yes"]);
    is_at_work(&mut m, b);
    finds(&mut m, 0, &[]);
}

/// A pool that somebody made, with the node on it: taken into care as it is; then the node is taken off it, and it is left as it is.
pub(crate) fn a_pool_made_by_hand_is_taken_into_care_and_left_again(b: &Backend) {
    let mut m = unmirrored("a_pool_made_by_hand_is_taken_into_care_and_left_again", b);
    by_hand(&mut m, "tank", 12);
    is_at_work(&mut m, b);
    // Its name and what it has is its own.
    let known = "zpool list -H -o name,guid,health,comment; zfs get -H -o property,value,source all tank | grep local";
    let before = m.ok(known);
    adopts(&mut m);
    let rests = "find /etc/systemd /etc/cron.d /etc/udev -name '*raidguard*'";
    is_cared_for_and_left(&mut m, b, known, &before, rests);
}

/// A disk of the same size and of larger sectors takes the place of a member.
pub(crate) fn an_equal_disk_of_larger_sectors_takes_a_members_place(b: &Backend) {
    let mut m = mirrored("an_equal_disk_of_larger_sectors_takes_a_members_place", b);
    let large = m.new_disk("large", Bus::Scsi4Kn, b.size);
    m.pull("two");
    does(&mut m, &["replace", "--new", &large, "--yes"]);
    is_at_work(&mut m, b);
    finds(&mut m, 0, &[]);
}
