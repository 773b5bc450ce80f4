//! The block by which a member is known, with one wrong bit: seen by the next check though the kernel goes on with what it has in memory.

use std::{
    fs,
    os::unix::fs::FileExt as _,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use crate::{
    check::{finds, set_up},
    sandbox::{Sandbox, isolated, note},
};

const MIRROR: &str = "/srv/lightning";
/// Where the first copy lies.
const FIRST: u64 = 64 << 10;

/// Turns one bit of a member's checksum on the medium, past every cache of the device. What its readers left there stays.
fn flip(s: &Sandbox, member: usize) {
    let (device, image) = ([s.one(), s.two()][member], &s.images()[member]);
    let mut block = [0; 4096];
    fs::File::open(device).unwrap().read_exact_at(&mut block, FIRST).unwrap();
    let image = fs::OpenOptions::new().read(true).write(true).open(image).unwrap();
    let mut byte = [0];
    image.read_exact_at(&mut byte, FIRST).unwrap();
    image.write_all_at(&[byte[0] ^ 4], FIRST).unwrap();
    image.sync_all().unwrap();
}

/// Has the kernel commit, and write every superblock anew.
fn commit(s: &Sandbox) {
    s.tool("touch", &[MIRROR]);
    s.tool("btrfs", &["filesystem", "sync", MIRROR]);
}

#[test]
fn one_wrong_bit_of_a_checksum_is_found_and_a_commit_mends_it() {
    isolated("superblock::one_wrong_bit_of_a_checksum_is_found_and_a_commit_mends_it", |s| {
        set_up(s);
        // No commit comes between; a freeze would not do, because a thaw looks at the superblocks too.
        s.tool("mount", &["-o", "remount,noatime,commit=300", MIRROR]);
        commit(s);
        flip(s, 1);
        finds(s, &[], 2, &["MIR-SUPERBLOCK"]);
        let shown = s.run(&["check"]).stdout;
        assert!(shown.contains(s.two()) && shown.contains("checksum is wrong"), "{shown}");
        // The guard does not keep the node down for it.
        assert_eq!(s.run(&["guard"]).code, 0);
        commit(s);
        finds(s, &[], 0, &[]);
        // `repair` has it written anew by itself.
        flip(s, 1);
        let repaired = s.run(&["repair", "--yes"]);
        let said = format!("{}{}", repaired.stdout, repaired.stderr);
        assert!(repaired.code == 0 && said.contains("the superblock of member 2 is damaged"), "{said}");
        finds(s, &[], 0, &[]);
    });
}

#[test]
fn a_mirror_that_is_refused_for_one_wrong_bit_is_brought_up_by_the_other_member() {
    isolated(
        "superblock::a_mirror_that_is_refused_for_one_wrong_bit_is_brought_up_by_the_other_member",
        |s| {
            set_up(s);
            s.tool("umount", &[MIRROR]);
            flip(s, 0);
            finds(s, &[], 2, &["MIR-SUPERBLOCK", "MNT-ABSENT"]);
            // The kernel begins with the first member; which one that is is its own matter.
            let refused = !Command::new("mount").arg(MIRROR).output().unwrap().status.success();
            note(format_args!("the mount is {}", if refused { "refused" } else { "taken" }));
            if refused {
                s.tool("btrfs", &["device", "scan", "--forget", s.one()]);
                s.tool("mount", &["-o", "degraded", s.two(), MIRROR]);
                s.tool("touch", &[MIRROR]);
                s.tool("umount", &[MIRROR]);
                s.tool("btrfs", &["device", "scan", s.one()]);
                s.tool("mount", &[MIRROR]);
            }
            commit(s);
            let repaired = s.run(&["repair", "--yes"]);
            assert_eq!(repaired.code, 0, "{}{}", repaired.stdout, repaired.stderr);
            finds(s, &["--acknowledge"], 0, &[]);
        },
    );
}

#[test]
fn commits_that_are_under_way_are_no_fault() {
    isolated("superblock::commits_that_are_under_way_are_no_fault", |s| {
        set_up(s);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    commit(s);
                }
            });
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                (0..100).for_each(|_| finds(s, &[], 0, &[]));
            }));
            stop.store(true, Ordering::Relaxed);
            if let Err(e) = ended {
                std::panic::resume_unwind(e);
            }
        });
    });
}
