//! Disks that go while the kernel reads or fills them.

use std::{thread, time::Duration};

use crate::{
    backend::Backend,
    disks::Bus,
    machine::Machine,
    steps::{MOUNT, after_a_cut_alone_has_all, does, ends, finds, is_at_work, is_critical, mirrored},
};

/// How much there is to read, beside what the node has.
const MUCH: u64 = 64 << 20;

/// The kernel's work on each member is slow enough to be met, until it is fast again. `btrfs` sets the limit anew when it begins.
fn slow(m: &mut Machine) {
    m.ok(&format!("head -c {MUCH} /dev/urandom >{MOUNT}/much; sync -f {MOUNT}; rm -f /run/fast"));
    m.begin(&[
        "/bin/bash",
        "-c",
        &format!("until [ -e /run/fast ]; do {}; sleep 0.02; done", limit(4 << 20)),
    ]);
}

fn fast(m: &mut Machine) {
    m.ok(&format!("touch /run/fast; sleep 0.1; {}", limit(0)));
}

/// Sets how much of each member the kernel reads in a second.
fn limit(bytes: u64) -> String {
    format!("for limit in /sys/fs/btrfs/*/devinfo/*/scrub_speed_max; do echo {bytes} >$limit; done")
}

/// Waits until so many bytes were read from a disk, or written to it, since this was first asked.
fn moves(m: &mut Machine, disk: &str, kind: &str) {
    let device = m.device(disk);
    let field = if kind == "reads" { "$3" } else { "$7" };
    let sectors = format!("awk '{{print {field}}}' /sys/block/$(basename $(readlink -f {device}))/stat");
    let mut count = || m.ok(&sectors).trim().parse::<u64>().unwrap();
    let before = count();
    while count() < before + (4 << 20) / 512 {
        thread::sleep(Duration::from_millis(20));
    }
}

/// A member is pulled while a scrub reads it: the scrub does not call it good, the node goes on, check is critical. Back in another port it is made
/// a member again.
pub(crate) fn a_member_pulled_while_a_scrub_runs(b: &Backend) {
    let mut m = mirrored("a_member_pulled_while_a_scrub_runs", b);
    slow(&mut m);
    let scrub = m.begin(&["/usr/local/sbin/raidguard", "scrub"]);
    moves(&mut m, "two", "reads");
    m.pull("two");
    fast(&mut m);
    ends(&mut m, scrub, 1);
    is_at_work(&mut m, b);
    is_critical(&mut m, &[b.pulled]);
    m.move_to_another_port("two");
    m.attach("two");
    does(&mut m, &["repair", "--yes"]);
    does(&mut m, &["check", "--acknowledge"]);
    finds(&mut m, 0, &[]);
    is_at_work(&mut m, b);
    after_a_cut_alone_has_all(&mut m, b, "a_member_pulled_while_a_scrub_runs", Bus::Usb, "two");
}

/// The new device is pulled while it is filled: the old one is a member still, and the mirror is whole. Then the same again, and it is the
/// old one that is pulled: the rest comes from the other member, and afterwards the new device alone has it all.
pub(crate) fn a_device_pulled_while_it_takes_a_members_place(b: &Backend) {
    let mut m = mirrored("a_device_pulled_while_it_takes_a_members_place", b);
    slow(&mut m);
    let three = m.new_disk("three", Bus::Usb, b.size);
    let two = m.device("two");
    let asked = ["/usr/local/sbin/raidguard", "replace", "--old", &two, "--new", &three, "--online", "--yes"];
    let replace = m.begin(&asked);
    moves(&mut m, "three", "writes");
    m.pull("three");
    fast(&mut m);
    ends(&mut m, replace, 1);
    is_at_work(&mut m, b);
    // The kernel counts on the old one what failed on the new one.
    does(&mut m, &["repair", "--yes"]);
    does(&mut m, &["check", "--acknowledge"]);
    finds(&mut m, 0, &[]);

    m.move_to_another_port("three");
    m.attach("three");
    slow(&mut m);
    let replace = m.begin(&asked);
    moves(&mut m, "three", "writes");
    m.pull("two");
    fast(&mut m);
    ends(&mut m, replace, 0);
    is_at_work(&mut m, b);
    finds(&mut m, 0, &[]);
    after_a_cut_alone_has_all(&mut m, b, "a_device_pulled_while_it_takes", Bus::Usb, "three");
}
