//! What there is of arrays beside the raid1 of two with XFS that every other case has.

use crate::{
    backend::{Backend, MDADM},
    disks::Bus,
    steps::{
        MOUNT, NODE, adopts, after_a_cut_alone_has_all, does, elsewhere, finds, is_at_work,
        is_cared_for_and_left, is_critical, set_up, together_have, unmirrored,
    },
};

/// Two of three go, and the one that is left has every commit.
pub(crate) fn three_members_with_ext4_survive_two(_: &Backend) {
    let b = Backend { filesystem: "ext4", ..MDADM };
    let mut m = unmirrored("three_members_with_ext4_survive_two", &b);
    let three = m.new_disk("three", Bus::Scsi, b.size);
    set_up(&mut m, &b, &["--device", &three, "--filesystem", "ext4"]);
    m.pull("two");
    m.commits_past(m.committed() + 5);
    finds(&mut m, 1, &[b.pulled]);
    m.pull("one");
    m.commits_past(m.committed() + 5);
    is_critical(&mut m, &[b.pulled]);
    is_at_work(&mut m, &b);
    after_a_cut_alone_has_all(&mut m, &b, "three_members_with_ext4", Bus::Scsi, "three");
}

/// It goes on without one of four, and another disk takes its place. One of each pair has every commit, and one pair alone nothing.
pub(crate) fn a_raid10_of_four_is_made_whole_again(b: &Backend) {
    let mut m = unmirrored("a_raid10_of_four_is_made_whole_again", b);
    let more = ["three", "four"].map(|serial| m.new_disk(serial, Bus::Scsi, b.size));
    set_up(&mut m, b, &["--device", &more[0], "--device", &more[1], "--level", "raid10"]);
    m.pull("two");
    m.commits_past(m.committed() + 5);
    is_critical(&mut m, &[b.pulled]);
    let five = m.new_disk("five", Bus::Usb, b.size);
    does(&mut m, &["replace", "--new", &five, "--yes"]);
    is_at_work(&mut m, b);
    finds(&mut m, 0, &[]);
    m.pull("one");
    m.commits_past(m.committed() + 5);
    m.pull("three");
    m.commits_past(m.committed() + 5);
    is_at_work(&mut m, b);
    m.cut();
    let mut rescue = elsewhere("a_raid10_of_four");
    let of = |serial: &str| m.disk(serial).image.clone();
    let alone = rescue.add_disk("alone", Bus::Usb, &of("five"));
    let ran = rescue.raidguard(&["recover", "--degraded", "--from", &alone, "--to", "/root/half", "--yes"]);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(ran.code == 3 && said.contains("members 3 and 4, which hold the same"), "{}: {said}", ran.code);
    rescue.pull("alone");
    rescue.forget("alone");
    together_have(&mut rescue, b, &[(Bus::Usb, &of("five")), (Bus::Scsi, &of("four"))], m.committed());
}

/// An array that somebody made, with the node on it: taken into care as it is; then the node is taken off it, and it is left as it is.
pub(crate) fn an_array_made_by_hand_is_taken_into_care_and_left_again(b: &Backend) {
    let mut m = unmirrored("an_array_made_by_hand_is_taken_into_care_and_left_again", b);
    let (one, two) = (m.device("one"), m.device("two"));
    m.ok(&format!(
        "set -e
        systemctl stop lightningd.service
        mdadm --create /dev/md/store --run --level=1 --raid-devices=2 --metadata=1.2 --bitmap=internal {one} {two}
        mdadm --detail --brief /dev/md/store >>/etc/mdadm/mdadm.conf
        mkfs.xfs -q /dev/md/store
        mkdir {MOUNT}
        echo \"UUID=$(blkid -o value -s UUID /dev/md/store) {MOUNT} xfs defaults,nofail 0 0\" >>/etc/fstab
        systemctl daemon-reload
        mount {MOUNT}
        mv {NODE} {MOUNT}/lightning
        ln -s {MOUNT}/lightning {NODE}
        systemctl start lightningd.service"
    ));
    is_at_work(&mut m, b);
    (b.settle)(&mut m);
    let known = "cat /etc/mdadm/mdadm.conf; mdadm --detail /dev/md/store | grep -E 'UUID|Name|Raid'";
    let before = m.ok(known);
    adopts(&mut m);
    assert_eq!(m.ok(known), before);
    is_cared_for_and_left(&mut m, b, known, &before, "ls /etc/udev/rules.d | grep raidguard || true");
}
