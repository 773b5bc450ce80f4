//! Members of an array, or of a pool, that go while the kernel works on it.

use crate::{
    backend::Backend,
    disks::Bus,
    machine::Machine,
    steps::{
        after_a_cut_alone_has_all, alone_has, does, elsewhere, ends, finds, is_at_work, is_critical, mirrored,
    },
};

/// Has the kernel take its time for what it copies or compares.
pub(crate) fn slowly(m: &mut Machine, slowly: bool) {
    let (least, most) = if slowly { ("system", "20000") } else { ("500000", "system") };
    m.ok(&format!("cd /sys/block/md*/md; echo {least} >sync_speed_min; echo {most} >sync_speed_max"));
}

fn until_it(m: &mut Machine, does: &str) {
    m.ok(&format!("until grep -q {does} /sys/block/md*/md/sync_action; do sleep 0.1; done; sleep 1"));
}

/// The scrub says that it did not end well, the node goes on, and it is mended as at any other time.
pub(crate) fn a_member_goes_while_members_are_compared(b: &Backend) {
    let mut m = mirrored("a_member_goes_while_members_are_compared", b);
    slowly(&mut m, true);
    let scrub = m.begin(&["/usr/local/sbin/raidguard", "scrub"]);
    until_it(&mut m, "check");
    m.pull("two");
    ends(&mut m, scrub, 1);
    m.commits_past(m.committed() + 5);
    is_critical(&mut m, &[b.pulled, "SCH-FAILED"]);
    m.attach("two");
    slowly(&mut m, false);
    does(&mut m, &["repair", "--yes"]);
    does(&mut m, &["scrub"]);
    finds(&mut m, 0, &[]);
    is_at_work(&mut m, b);
    after_a_cut_alone_has_all(&mut m, b, "a_member_goes_while_members_are_compared", Bus::Usb, "two");
}

/// The disk that is being filled goes: that is said, the node goes on, and the same command fills it when it is back.
pub(crate) fn the_new_disk_goes_while_it_is_filled(b: &Backend) {
    let mut m = mirrored("the_new_disk_goes_while_it_is_filled", b);
    m.pull("two");
    let three = m.new_disk("three", Bus::Usb, b.size);
    (b.fills_slowly)(&mut m, true);
    let asked = ["/usr/local/sbin/raidguard", "replace", "--new", &three, "--yes"];
    let replace = m.begin(&asked);
    m.ok(&format!("until {}; do sleep 0.1; done; sleep 1", b.is_filling));
    m.pull("three");
    ends(&mut m, replace, 1);
    m.commits_past(m.committed() + 5);
    is_at_work(&mut m, b);
    is_critical(&mut m, &[b.noticed]);
    m.attach("three");
    (b.fills_slowly)(&mut m, false);
    // raidguard has made a partition on it.
    let wipe = if b.name == "zfs" { &["--wipe"][..] } else { &[] };
    does(&mut m, &[&asked[1..], wipe].concat());
    is_at_work(&mut m, b);
    finds(&mut m, 0, &[]);
    after_a_cut_alone_has_all(&mut m, b, "the_new_disk_goes_while_it_is_filled", Bus::Usb, "three");
}

/// The member that the new disk is filled from goes, the last that holds everything: it alone has the last commit, and the other one is not
/// taken for a member.
pub(crate) fn the_last_whole_member_goes_while_another_is_filled(b: &Backend) {
    let mut m = mirrored("the_last_whole_member_goes_while_another_is_filled", b);
    m.pull("two");
    let three = m.new_disk("three", Bus::Usb, b.size);
    slowly(&mut m, true);
    let replace = m.begin(&["/usr/local/sbin/raidguard", "replace", "--new", &three, "--yes"]);
    until_it(&mut m, "recover");
    let last = m.committed();
    m.pull("one");
    ends(&mut m, replace, 1);
    is_critical(&mut m, &[]);
    m.cut();
    let mut rescue = elsewhere("the_last_whole_member_goes");
    alone_has(&mut rescue, b, Bus::Scsi, &m.disk("one").image, last);
    let three = rescue.add_disk("filled", Bus::Usb, &m.disk("three").image);
    let ran = rescue.raidguard(&["recover", "--degraded", "--from", &three, "--to", "/root/other", "--yes"]);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    // Whether its superblock was taken from it again, as far as that went, is a matter of moments.
    let is_none = ["being filled", "holds no member"].iter().any(|word| said.contains(word));
    assert!(ran.code == 3 && is_none, "{}: {said}", ran.code);
}
