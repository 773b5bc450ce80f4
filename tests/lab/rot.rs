//! Disks that fail a little, or lie.

use std::{fs::File, os::unix::fs::FileExt as _, path::Path};

use crate::{
    backend::Backend,
    disks::{Bus, Fault},
    machine::Machine,
    steps::{MOUNT, after_a_cut_alone_has_all, does, faults, finds, is_at_work, mirrored, names},
};

const BLOCK: usize = 4096;
/// Fewer than md gives a member up for (20 read errors in an hour).
const BLOCKS: usize = 16;
/// Of a raidz1 more than a MiB on each disk, where parity and data change places: each member has data then.
const BLOCKS_OF_A_RAIDZ1: usize = 512;
const LINE: &str = "a line of a file that shall rot\n";

fn blocks(b: &Backend) -> usize {
    if b.level.is_some() { BLOCKS_OF_A_RAIDZ1 } else { BLOCKS }
}

/// A file whose blocks can be told on the disks.
fn mark(m: &mut Machine, b: &Backend) {
    (b.plain)(m);
    let line = LINE.trim();
    let size = BLOCK * blocks(b);
    m.ok(&format!(
        "runuser -u bitcoin -- bash -c \"yes '{line}' | head -c {size} >{MOUNT}/lightning/marked\"; {}",
        b.sync
    ));
}

/// It is read from the disks, and right.
#[track_caller]
fn is_right(m: &mut Machine, b: &Backend) {
    let lines = BLOCK * blocks(b) / LINE.len();
    let same = format!("echo 3 >/proc/sys/vm/drop_caches; sort {MOUNT}/lightning/marked | uniq -c");
    assert_eq!(m.ok(&same).trim(), format!("{lines} {}", LINE.trim()));
}

/// Where its blocks are on a disk, in bytes: all of them, or of a raidz1 those that are no other member's and not the parity.
fn places(b: &Backend, image: &Path) -> Vec<u64> {
    let block = LINE.repeat(BLOCK / LINE.len());
    let image = File::open(image).unwrap();
    let size = image.metadata().unwrap().len();
    let mut chunk = vec![0; BLOCK * 256];
    let mut found = Vec::new();
    for at in (0..size).step_by(chunk.len()) {
        image.read_exact_at(&mut chunk, at).unwrap();
        let hits = chunk.chunks(BLOCK).enumerate().filter(|(_, c)| *c == block.as_bytes());
        found.extend(hits.map(|(i, _)| at + (i * BLOCK) as u64));
    }
    assert!(found.len() == blocks(b) || (b.level.is_some() && !found.is_empty()), "{found:?}");
    found
}

/// What one member holds is changed behind everybody's back: the node gets what it wrote, the scrub mends it, check names the member.
pub(crate) fn silent_corruption_is_named_and_mended(b: &Backend) {
    let mut m = mirrored("silent_corruption_is_named_and_mended", b);
    mark(&mut m, b);
    let image = m.disk("two").image.clone();
    let disk = File::options().write(true).open(&image).unwrap();
    for at in places(b, &image) {
        disk.write_all_at(&[0x5a; BLOCK], at).unwrap();
    }
    is_right(&mut m, b);
    does(&mut m, &["scrub"]);
    is_right(&mut m, b);
    // Who read first has mended it: the node or the scrub.
    let (code, found) = faults(&mut m);
    assert!(code == 1 && found.contains("MIR-CORRUPTION"), "{code} {found:?}");
    names(&mut m, "MIR-CORRUPTION", "two", "one");
    // It is on the disk again.
    places(b, &image);
    does(&mut m, &["check", "--acknowledge"]);
    does(&mut m, &["scrub"]);
    finds(&mut m, 0, &[]);
    is_at_work(&mut m, b);
}

/// What one member of an array holds is changed behind everybody's back: that members differ is counted, and none is changed, because md
/// cannot know which of them is right.
pub(crate) fn silent_corruption_is_counted_and_nothing_is_guessed(b: &Backend) {
    let mut m = mirrored("silent_corruption_is_counted_and_nothing_is_guessed", b);
    mark(&mut m, b);
    let image = m.disk("two").image.clone();
    let (rotten, disk) = (places(b, &image), File::options().read(true).write(true).open(&image).unwrap());
    for at in &rotten {
        disk.write_all_at(&[0x5a; BLOCK], *at).unwrap();
    }
    let ran = m.raidguard(&["scrub"]);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(ran.code == 1 && said.contains("nothing tells which is right"), "{}: {said}", ran.code);
    finds(&mut m, 1, &["MIR-MISMATCH"]);
    let told = m.ok("raidguard explain MIR-MISMATCH");
    assert!(told.contains("nobody can tell from the array which of them is right"), "{told}");
    // Each member has what it had.
    places(b, &m.disk("one").image);
    let mut block = [0; BLOCK];
    for at in rotten {
        disk.read_exact_at(&mut block, at).unwrap();
        assert_eq!(block, [0x5a; BLOCK]);
    }
    // The operator knows: the member is exchanged for another disk, filled from the other one.
    let three = m.new_disk("three", Bus::Scsi, b.size);
    m.pull("two");
    does(&mut m, &["replace", "--old", "missing", "--new", &three, "--yes"]);
    is_right(&mut m, b);
    does(&mut m, &["scrub"]);
    finds(&mut m, 0, &[]);
    is_at_work(&mut m, b);
}

/// All that lies in a long stretch of a member is something else: the node gets what it wrote, the scrub mends it, and another member can
/// go.
pub(crate) fn a_stretch_of_a_member_rots(b: &Backend) {
    let mut m = mirrored("a_stretch_of_a_member_rots", b);
    let marked = format!("{MOUNT}/lightning/marked");
    m.ok(&format!("head -c {} /dev/urandom >{marked}; chown bitcoin: {marked}; {}", 32 << 20, b.sync));
    let sum = format!("echo 3 >/proc/sys/vm/drop_caches; sha256sum {marked}");
    let before = m.ok(&sum);
    // Far from its labels.
    let disk = File::options().read(true).write(true).open(&m.disk("two").image).unwrap();
    let (from, to) = (b.size / 256, b.size / 2);
    let mut rotten = 0;
    let mut chunk = vec![0; 1 << 20];
    for at in (from..to).step_by(chunk.len()) {
        disk.read_exact_at(&mut chunk, at).unwrap();
        if chunk.iter().any(|byte| *byte != 0) {
            disk.write_all_at(&vec![0x5a; chunk.len()], at).unwrap();
            rotten += 1;
        }
    }
    assert!(rotten > 8, "only {rotten} MiB of it were used");
    assert_eq!(m.ok(&sum), before);
    does(&mut m, &["scrub"]);
    let (code, found) = faults(&mut m);
    assert!(code > 0 && found.contains("MIR-CORRUPTION"), "{code} {found:?}");
    names(&mut m, "MIR-CORRUPTION", "two", "one");
    does(&mut m, &["check", "--acknowledge"]);
    does(&mut m, &["scrub"]);
    finds(&mut m, 0, &[]);
    m.pull("one");
    assert_eq!(m.ok(&sum), before);
    is_at_work(&mut m, b);
}

/// Sectors of one member cannot be read.
pub(crate) fn read_errors_are_named_and_cost_nothing(b: &Backend) {
    let mut m = mirrored("read_errors_are_named_and_cost_nothing", b);
    mark(&mut m, b);
    let bad = places(b, &m.disk("two").image);
    m.set_fault("two", Some(Fault::Reads(bad)));
    let two = m.device("two");
    (b.read_from)(&mut m, Some(&two));
    is_right(&mut m, b);
    (b.read_from)(&mut m, None);
    m.raidguard(&["scrub"]);
    is_right(&mut m, b);
    let (code, found) = faults(&mut m);
    assert!(code == b.unreadable_is && found.contains(b.unreadable), "{code} {found:?}");
    names(&mut m, b.unreadable, "two", "one");
    if b.scrub_mends {
        m.set_fault("two", None);
        does(&mut m, &["scrub"]);
    } else {
        let three = m.new_disk("three", Bus::Scsi, b.size);
        does(&mut m, &["replace", "--old", &two, "--new", &three, "--yes"]);
        is_right(&mut m, b);
    }
    does(&mut m, &["check", "--acknowledge"]);
    finds(&mut m, 0, &[]);
    is_at_work(&mut m, b);
}

/// One member takes no more writes: the node goes on, check names the member, and when it takes them again `repair` brings it up to date.
pub(crate) fn write_errors_are_named_and_repaired(b: &Backend) {
    let mut m = mirrored("write_errors_are_named_and_repaired", b);
    m.set_fault("two", Some(Fault::Writes));
    m.commits_past(m.committed() + 10);
    let (code, found) = faults(&mut m);
    assert!(code > 0 && found.contains(b.takes_no_writes), "{code} {found:?}");
    names(&mut m, b.takes_no_writes, "two", "one");
    m.set_fault("two", None);
    does(&mut m, &["repair", "--yes"]);
    m.raidguard(&["check", "--acknowledge"]);
    finds(&mut m, 0, &[]);
    is_at_work(&mut m, b);
    after_a_cut_alone_has_all(&mut m, b, "write_errors", Bus::Usb, "two");
}
