//! Two halves that were each written alone.

use crate::{
    backend::Backend,
    guest::Ran,
    machine::Machine,
    steps::{MOUNT, does, finds, is_at_work, is_critical, mirrored},
};

/// Writes to one half, which is alone.
fn write_alone(m: &mut Machine, b: &Backend, half: &str) {
    let device = m.device(half);
    (b.mount_alone)(m, &device);
    m.ok(&format!(
        "head -c 200000 /dev/urandom >{MOUNT}/lightning/{half}; chown bitcoin: {MOUNT}/lightning/{half}"
    ));
    m.ok(&format!("umount {MOUNT}"));
    (b.let_go)(m);
}

/// Has each half be written to alone; then both are there.
fn parted(name: &str, b: &Backend) -> Machine {
    let mut m = mirrored(name, b);
    m.ok(&format!("systemctl stop lightningd.service; umount {MOUNT}"));
    (b.let_go)(&mut m);
    m.pull("two");
    write_alone(&mut m, b, "one");
    m.pull("one");
    m.attach("two");
    write_alone(&mut m, b, "two");
    m.attach("one");
    (b.halt)(&mut m);
    m
}

/// Where both are there at a boot no node starts on either, and each stays what it was: once one is taken into the other's array, it does
/// not say any more that it was alone.
pub(crate) fn halves_that_parted_start_no_node_at_a_boot(b: &Backend) {
    let mut m = parted("halves_that_parted_start_no_node_at_a_boot", b);
    let last = m.committed();
    m.cut();
    let before = ["one", "two"].map(|half| m.hash(half));
    m.boot();
    m.settle();
    is_critical(&mut m, &["MIR-SPLIT"]);
    let guard = m.raidguard(&["guard"]);
    println!("note: guard: {}", guard.stderr.trim());
    assert!(guard.code == 3 && guard.stderr.contains("MIR-SPLIT"), "{}", guard.code);
    assert_ne!(m.sh("systemctl is-active lightningd.service").code, 0, "the node runs");
    assert_eq!(m.committed(), last);
    let Ran { code, stdout, stderr } = m.raidguard(&["repair", "--yes"]);
    assert!(code == 3 && stderr.contains("alone"), "{code}: {stdout}{stderr}");
    if !b.boots_degraded {
        // Debian's initramfs tells the kernel of both before the machine's own udev runs.
        m.ok("btrfs device scan; udevadm trigger --settle --subsystem-match=block");
        let mounted = m.sh(&format!("mount {MOUNT}"));
        assert_ne!(mounted.code, 0, "the kernel knows both");
        m.ok("sync");
        assert_eq!(["one", "two"].map(|half| m.hash(half)), before, "something was written");
    }
}

/// A member that only lags, because the mirror went on without it, is no half that was written alone: the machine starts the node.
pub(crate) fn a_member_that_lags_keeps_no_node_down_at_a_boot(b: &Backend) {
    let mut m = mirrored("a_member_that_lags_keeps_no_node_down_at_a_boot", b);
    m.pull("two");
    m.commits_past(m.committed() + 20);
    let last = m.committed();
    m.ok(&format!("sync -f {MOUNT}"));
    m.cut();
    m.set_attached("two", true);
    m.boot();
    m.settle();
    assert!(m.database_version() >= last, "a commit is lost");
    is_at_work(&mut m, b);
    is_critical(&mut m, &["MIR-WRITE-ERRORS"]);
    does(&mut m, &["repair", "--yes"]);
    does(&mut m, &["check", "--acknowledge"]);
    finds(&mut m, 0, &[]);
}

/// Detected, refused by every verb that would have to guess, explained; mended when the operator has chosen.
pub(crate) fn halves_that_parted_are_never_merged(b: &Backend) {
    let mut m = parted("halves_that_parted_are_never_merged", b);
    let hashes = |m: &Machine| [m.hash("one"), m.hash("two")];
    let before = hashes(&m);
    is_critical(&mut m, &[]);
    assert_eq!(m.raidguard(&["guard"]).code, 3);
    let one = m.device("one");
    for args in [&["repair", "--yes"][..], &["recover", "--degraded", "--to", "/root/rescued", "--yes"]] {
        let Ran { code, stdout, stderr } = m.raidguard(args);
        assert_eq!(code, 3, "{args:?}: {stdout}{stderr}");
        assert!(stderr.contains("alone"), "{args:?}: {stderr}");
    }
    m.ok("sync");
    assert!(hashes(&m) == before, "a refusal wrote something");
    does(&mut m, &["repair", "--discard", &one, "--yes"]);
    m.ok("systemctl start lightningd.service");
    is_at_work(&mut m, b);
    m.ok(&format!("test -e {MOUNT}/lightning/two && ! test -e {MOUNT}/lightning/one"));
    finds(&mut m, 0, &[]);
}
