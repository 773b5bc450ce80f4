//! Every kind of overlay on a machine made of files: what fails is undone whole, and what is killed the next run clears.

use std::{fs, os::unix::fs::FileExt as _, path::PathBuf};

use super::{
    machine::{Fault, Machine, SIZE},
    *,
};
use crate::exec::Cmd;

mod joined;
mod pools;
mod strays;

const KINDS: [(Choice, Kind); 3] =
    [(Choice::Dm, Kind::Dm), (Choice::Fuse, Kind::Fuse), (Choice::Image, Kind::Image)];

fn survivors() -> Vec<PathBuf> {
    vec!["/dev/sdb".into(), "/dev/sdc".into()]
}

fn request(choice: Choice, survivors: &[PathBuf]) -> Request<'_> {
    Request { choice, survivors, scratch: Path::new(SCRATCH), limit: None, used: None }
}

fn open_one(machine: &Machine, choice: Choice) -> Result<Overlay, OverlayError> {
    let survivors = [PathBuf::from("/dev/sdb")];
    machine.say_of_snapshots("0 163840 snapshot 16/163840 0\n");
    open(&machine.host(), &request(choice, &survivors), &mut |_| Flow::Continue)
}

fn with_machine(test: impl Fn(&Machine, Choice, Kind)) {
    for (choice, kind) in KINDS {
        let dir = tempfile::tempdir().unwrap();
        test(&Machine::new(dir.path()), choice, kind);
    }
}

#[test]
fn it_opens_and_closes_and_nothing_is_left() {
    with_machine(|machine, choice, kind| {
        let before = machine.picture();
        let overlay = open_one(machine, choice).unwrap();
        assert_eq!((overlay.kind(), overlay.devices().len()), (kind, 1));
        assert_eq!(fs::read_to_string(machine.path("sys/class/block/sdb/ro")).unwrap(), "1\n");
        assert_eq!(overlay.state().unwrap().broken, None);
        let proof = overlay.close(&|| {}).unwrap();
        assert!(proof.holds(), "{proof:?}");
        assert_eq!(proof.survivors[0].before.stretches.len(), 2);
        assert_eq!(machine.picture(), before);
    });
}

#[test]
fn the_commands_of_each_kind() {
    with_machine(|machine, choice, _| {
        let mut overlay = open_one(machine, choice).unwrap();
        overlay.settle().unwrap();
        let id = overlay.keeper.as_ref().unwrap().id.clone();
        drop(overlay);
        insta::assert_snapshot!(format!("{choice:?}"), machine.calls().join("\n").replace(&id, "ID"));
    });
}

#[test]
fn what_nothing_was_written_above_is_read_with_nothing_between() {
    let settled = |write: &dyn Fn(&Machine, &str)| {
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine::new(dir.path());
        let before = machine.picture();
        let mut overlay = open_one(&machine, Choice::Fuse).unwrap();
        let first = block::kname_of(&overlay.devices()[0]);
        write(&machine, &first);
        overlay.settle().unwrap();
        let kname = block::kname_of(&overlay.devices()[0]);
        assert_eq!(fs::read_to_string(machine.path(&format!("sys/class/block/{kname}/ro"))).unwrap(), "1\n");
        let file = machine.path(&format!("sys/class/block/{kname}/loop/backing_file"));
        let over = fs::read_to_string(file).unwrap();
        assert_eq!(overlay.state().unwrap().broken, None);
        let proof = overlay.close(&|| {}).unwrap();
        assert!(proof.holds(), "{proof:?}");
        (kname == first, over, machine.picture() == before)
    };
    assert_eq!(settled(&|_, _| {}), (false, "/dev/sdb\n".to_owned(), true));
    let one_write = " 116 0 5360 69 57 1204 9976 177 0 152 311 1 0 2097152 0 14 64\n";
    for stat in [one_write, "nothing that counts\n"] {
        let (same, over, undone) = settled(&|machine, kname| machine.set_stat(kname, stat));
        assert!(same && over.ends_with("/0\n") && undone, "{over}");
    }
    // What cannot be had is done without.
    for fault in [Fault::Before, Fault::After] {
        let (same, over, undone) = settled(&|machine, _| machine.fail(0, fault));
        assert!(same && over.ends_with("/0\n") && undone, "{over}");
    }
    // Another loop device over it is somebody else's.
    let (same, _, undone) = settled(&|machine, _| {
        let cmd = Cmd::change("losetup").args(["--find", "--show"]).arg("/dev/sdb");
        machine.host().runner().run(&cmd).unwrap();
    });
    assert!(same && !undone, "it stays");
}

#[test]
fn what_was_read_only_stays_so_and_several_survivors_keep_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::new(dir.path());
    let before = machine.picture();
    let survivors = survivors();
    let overlay = open(&machine.host(), &request(Choice::Fuse, &survivors), &mut |_| Flow::Continue).unwrap();
    let backing = |device: &Path| {
        let kname = device.file_name().unwrap().to_str().unwrap();
        fs::read_to_string(machine.path(&format!("sys/class/block/{kname}/loop/backing_file"))).unwrap()
    };
    let files: Vec<String> = overlay.devices().iter().map(|d| backing(d)).collect();
    assert!(files[0].ends_with("/0\n") && files[1].ends_with("/1\n"), "{files:?}");
    assert!(overlay.close(&|| {}).unwrap().holds());
    assert_eq!(machine.picture(), before);
}

#[test]
fn a_failure_at_any_call_leaves_nothing() {
    with_machine(|machine, choice, _| {
        for fault in [Fault::Before, Fault::After] {
            let before = machine.picture();
            for call in 0.. {
                machine.fail(call, fault);
                let opened = open_one(machine, choice);
                let struck = machine.is_struck();
                // A module that cannot be loaded may be built in.
                let modprobe = machine.calls().iter().rev().any(|c| c.starts_with("modprobe"));
                assert!(opened.is_err() || !struck || modprobe, "{choice:?} {call} {fault:?}");
                machine.mend();
                drop(opened);
                assert_eq!(machine.picture(), before, "{choice:?} {call} {fault:?}");
                if !struck {
                    assert!(call > 2);
                    break;
                }
            }
        }
    });
}

#[test]
fn what_a_kill_at_any_call_left_is_cleared() {
    with_machine(|machine, choice, _| {
        let before = machine.picture();
        for call in 0.. {
            machine.fail(call, Fault::Killed);
            let opened = open_one(machine, choice).map(|mut overlay| drop(overlay.settle()));
            let struck = machine.is_struck();
            drop(opened);
            machine.mend();
            clear_leftovers(&machine.host()).unwrap();
            assert_eq!(machine.picture(), before, "{choice:?} {call}");
            if !struck {
                break;
            }
        }
    });
}

#[test]
fn what_cannot_be_taken_down_stays_for_the_next_run() {
    with_machine(|machine, choice, _| {
        let before = machine.picture();
        for call in 0.. {
            let mut overlay = open_one(machine, choice).unwrap();
            machine.fail(call, Fault::Killed);
            let closed = overlay.settle().and_then(|()| overlay.close(&|| {}));
            let struck = machine.is_struck();
            machine.mend();
            assert_eq!(closed.is_err(), struck, "{choice:?} {call}");
            clear_leftovers(&machine.host()).unwrap();
            assert_eq!(machine.picture(), before, "{choice:?} {call}");
            if !struck {
                break;
            }
        }
    });
}

#[test]
fn what_somebody_takes_meanwhile_is_taken_down_when_it_is_let_go() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::new(dir.path());
    let before = machine.picture();
    let overlay = open_one(&machine, Choice::Dm).unwrap();
    let freed = std::cell::Cell::new(0);
    machine.fail(0, Fault::Before);
    assert!(overlay.close(&|| freed.set(freed.get() + 1)).unwrap().holds());
    assert!(machine.is_struck());
    assert_eq!((freed.get(), machine.picture()), (2, before));
}

#[test]
fn nothing_below_what_is_still_in_use_is_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::new(dir.path());
    let overlay = open_one(&machine, Choice::Fuse).unwrap();
    machine.keep_loops_busy();
    let error = overlay.close(&|| {}).unwrap_err();
    assert!(matches!(error, OverlayError::InUse { .. }), "{error}");
    assert!(machine.path("proc/4242").exists(), "a daemon below a mounted filesystem must live");
    assert_eq!(fs::read_to_string(machine.path("sys/class/block/sdb/ro")).unwrap(), "1\n");
    // Nor does a second rescue begin above what the first left.
    let second = open_one(&machine, Choice::Fuse).unwrap_err();
    assert!(matches!(second, OverlayError::Taken { .. }), "{second}");
    machine.mend();
    assert!(!clear_leftovers(&machine.host()).unwrap().is_empty());
}

#[test]
fn a_daemon_that_died_leaves_mounts_that_are_unmounted() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::new(dir.path());
    let before = machine.picture();
    let overlay = open_one(&machine, Choice::Fuse).unwrap();
    machine.end_daemon(false);
    assert_eq!(overlay.state().unwrap().broken, Some(Broken::Daemon));
    overlay.close(&|| {}).unwrap();
    assert_eq!(machine.picture(), before);
}

#[test]
fn a_live_run_is_let_alone_and_its_survivor_is_taken() {
    with_machine(|machine, choice, _| {
        let overlay = open_one(machine, choice).unwrap();
        let during = machine.picture();
        assert!(clear_leftovers(&machine.host()).unwrap().is_empty());
        let second = open_one(machine, choice).unwrap_err();
        assert!(matches!(&second, OverlayError::Taken { pid, .. } if *pid == std::process::id()), "{second}");
        assert_eq!(machine.picture(), during);
        drop(overlay);
    });
}

#[test]
fn one_that_was_killed_is_waited_for_and_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::new(dir.path());
    let before = machine.picture();
    let mut killed = open_one(&machine, Choice::Fuse).unwrap();
    crate::host::dying::tests::dies(dir.path(), std::process::id());
    std::thread::scope(|scope| {
        let host = machine.host();
        let next = scope.spawn(move || clear_leftovers(&host));
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert!(!next.is_finished());
        // Its last thread goes, and with it the lock; what it made stays.
        drop(killed.keeper.take());
        killed.held = None;
        assert!(!next.join().unwrap().unwrap().is_empty());
    });
    fs::remove_dir_all(machine.path(&format!("proc/{}", std::process::id()))).unwrap();
    assert_eq!(machine.picture(), before);
}

#[test]
fn a_survivor_named_twice_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::new(dir.path());
    let before = machine.picture();
    let twice = ["/dev/sdb".into(), "/dev/sdb".into()];
    let error = open(&machine.host(), &request(Choice::Image, &twice), &mut |_| Flow::Continue).unwrap_err();
    assert!(error.to_string().contains("twice"), "{error}");
    assert_eq!(machine.picture(), before);
}

#[test]
fn whatever_makes_it_untrustworthy_is_seen_and_not_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::new(dir.path());
    let broken = |overlay: &Overlay| overlay.state().unwrap().broken;

    let overlay = open_one(&machine, Choice::Dm).unwrap();
    machine.say_of_snapshots("0 163840 snapshot Invalid\n");
    assert!(matches!(broken(&overlay), Some(Broken::Snapshot(_))));
    machine.say_of_snapshots("0 163840 snapshot 16/163840 0\n");
    assert!(matches!(broken(&overlay), Some(Broken::Snapshot(_))), "it stays so");
    drop(overlay);

    let overlay = open_one(&machine, Choice::Image).unwrap();
    machine.set_read_only("sdb", "0");
    assert_eq!(broken(&overlay), Some(Broken::Writable("/dev/sdb".into())));
    assert!(!overlay.close(&|| {}).unwrap().holds());

    let survivors = [PathBuf::from("/dev/sdb")];
    let limited = Request { limit: Some(100 << 20), ..request(Choice::Image, &survivors) };
    let overlay = open(&machine.host(), &limited, &mut |_| Flow::Continue).unwrap();
    assert_eq!(broken(&overlay), None);
    let store = fs::read_dir(machine.path("var/tmp")).unwrap().next().unwrap().unwrap().path().join("more");
    fs::write(&store, vec![1; 101 << 20]).unwrap();
    assert!(matches!(broken(&overlay), Some(Broken::Limit { .. })));
    fs::remove_file(store).unwrap();
    drop(overlay);

    let overlay = open_one(&machine, Choice::Image).unwrap();
    fs::remove_dir_all(machine.path("sys/class/block/sdb")).unwrap();
    assert_eq!(broken(&overlay), Some(Broken::Gone("/dev/sdb".into())));
    let proof = overlay.close(&|| {}).unwrap();
    assert!(!proof.holds(), "what is gone proves nothing");
}

#[test]
fn a_write_to_the_survivor_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::new(dir.path());
    machine.resize("sdb", 80 << 20);
    let overlay = open_one(&machine, Choice::Image).unwrap();
    assert_eq!(overlay.proof().survivors[0].before.stretches.len(), 3);
    machine.set_stat("sdb", " 116 0 5360 69 57 1204 9976 177 0 152 311 1 0 2097152 0 14 64\n");
    assert!(overlay.proof().survivors[0].to_string().contains("1 writes and 0 discards"));
    machine.set_stat("sdb", " 116 0 5360 69 56 1204 9968 177 0 152 311 1 0 2097152 0 14 64\n");
    let disk = fs::OpenOptions::new().write(true).open(machine.path("dev/sdb")).unwrap();
    disk.write_all_at(b"x", (64 << 20) + 100).unwrap();
    assert!(overlay.proof().survivors[0].to_string().contains("bytes from 67108864"));
}

#[test]
fn an_image_has_the_bytes_that_matter() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::new(dir.path());
    let disk = fs::OpenOptions::new().write(true).open(machine.path("dev/sdb")).unwrap();
    for at in [0, 5 << 20, SIZE - 3] {
        disk.write_all_at(b"yes", at).unwrap();
    }
    let survivors = [PathBuf::from("/dev/sdb")];
    let used = [vec![0..4096, (5 << 20)..(5 << 20) + 1]];
    for (used, at_end) in [(None, *b"yes"), (Some(&used[..]), [0; 3])] {
        let mut told = Vec::new();
        let request = Request { used, ..request(Choice::Image, &survivors) };
        let mut watch = |work| {
            told.push(work);
            Flow::Continue
        };
        let overlay = open(&machine.host(), &request, &mut watch).unwrap();
        let dir = fs::read_dir(machine.path("var/tmp")).unwrap().next().unwrap().unwrap().path();
        let image = fs::File::open(dir.join("0.image")).unwrap();
        assert_eq!(image.metadata().unwrap().len(), SIZE);
        for (at, expected) in [(0, *b"yes"), (5 << 20, *b"yes"), (SIZE - 3, at_end)] {
            let mut found = [0; 3];
            image.read_exact_at(&mut found, at).unwrap();
            assert_eq!(found, expected, "{at}");
        }
        assert!(overlay.state().unwrap().used < 1 << 20, "zeros take no room");
        let total = used.map_or(SIZE, |_| 8192);
        assert_eq!(told.iter().rfind(|w| **w != Work::Making), Some(&Work::Copying { done: total, total }));
    }
}

#[test]
fn too_little_room_is_said_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::new(dir.path());
    machine.resize("sdb", 80 << 20);
    let before = machine.picture();
    let survivors = [PathBuf::from("/dev/sdb")];
    for limit in [1, (80 << 20) - 1] {
        let request = Request { limit: Some(limit), ..request(Choice::Image, &survivors) };
        let error = open(&machine.host(), &request, &mut |_| Flow::Continue).unwrap_err();
        assert!(matches!(error, OverlayError::NoRoom { .. }), "{error}");
        assert_eq!(machine.picture(), before);
    }
}

#[test]
fn it_can_be_stopped_everywhere() {
    with_machine(|machine, choice, _| {
        let before = machine.picture();
        machine.say_of_snapshots("0 163840 snapshot 16/163840 0\n");
        for moment in 0.. {
            let mut looks = 0;
            let mut watch = |_| {
                looks += 1;
                if looks > moment { Flow::Stop } else { Flow::Continue }
            };
            let survivors = [PathBuf::from("/dev/sdb")];
            let opened = open(&machine.host(), &request(choice, &survivors), &mut watch);
            let stopped = opened.as_ref().is_err_and(OverlayError::is_stopped);
            assert!(stopped || opened.is_ok());
            drop(opened);
            assert_eq!(machine.picture(), before);
            if !stopped {
                assert!(moment > 1);
                break;
            }
        }
    });
}

#[test]
fn the_best_that_there_is_is_taken_and_the_reason_said() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::new(dir.path());
    let chosen = || {
        let overlay = open_one(&machine, Choice::Auto);
        overlay.map(|o| (o.kind(), o.why().to_owned())).map_err(|e| e.to_string())
    };
    assert_eq!(chosen().unwrap().0, Kind::Dm);
    machine.without("dmsetup");
    let (kind, why) = chosen().unwrap();
    assert_eq!(kind, Kind::Fuse);
    assert!(why.contains("dmsetup is not installed"), "{why}");
    fs::remove_file(machine.path("dev/fuse")).unwrap();
    let (kind, why) = chosen().unwrap();
    assert_eq!(kind, Kind::Image);
    assert!(why.contains("no FUSE"), "{why}");
    let error = open_one(&machine, Choice::Dm).unwrap_err().to_string();
    assert!(error.contains("no device-mapper snapshot to be had here: dmsetup"), "{error}");
    machine.without("losetup");
    assert!(chosen().unwrap_err().contains("losetup is not installed"));
}

#[test]
fn an_unknown_record_is_said_and_the_others_are_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::new(dir.path());
    fs::create_dir(machine.path("run/raidguard/rescue/000000")).unwrap();
    fs::write(machine.path("run/raidguard/rescue/000000/record.json"), "{\"schema\":2}").unwrap();
    let before = machine.picture();
    let error = clear_leftovers(&machine.host()).unwrap_err();
    assert!(matches!(error, OverlayError::Record { .. }), "{error}");
    assert!(open_one(&machine, Choice::Image).is_err(), "it may have the survivor");
    assert_eq!(machine.picture(), before);
}
