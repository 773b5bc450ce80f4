//! A pool of ZFS that was imported from any kind of overlay.

use super::*;

/// An overlay that a pool was imported from, and its name.
fn open_imported(machine: &Machine, choice: Choice) -> (Overlay, String) {
    let mut overlay = open_one(machine, choice).unwrap();
    let name = overlay.pool().unwrap();
    machine.import(&name, "ONLINE");
    (overlay, name)
}

#[test]
fn it_goes_before_what_it_lies_on() {
    with_machine(|machine, choice, _| {
        let before = machine.picture();
        let (mut overlay, name) = open_imported(machine, choice);
        assert_eq!(overlay.pool().unwrap(), name, "written down once");
        assert_eq!(overlay.state().unwrap().broken, None);
        let calls = machine.calls().len();
        assert!(overlay.close(&|| {}).unwrap().holds());
        assert_eq!(machine.calls().into_iter().filter(|c| c.contains("zpool")).count(), 1);
        let first = machine.calls().into_iter().skip(calls).find(|c| !c.contains("status"));
        assert_eq!(first, Some(format!("zpool export -f -- {name}")));
        assert_eq!(machine.picture(), before);
        // One that was never imported, or is exported already, is none to be taken away.
        let mut overlay = open_one(machine, choice).unwrap();
        overlay.pool().unwrap();
        drop(overlay);
        assert_eq!(machine.picture(), before);
    });
}

#[test]
fn it_goes_before_what_was_laid_between_since() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::new(dir.path());
    let before = machine.picture();
    let (mut overlay, name) = open_imported(&machine, Choice::Fuse);
    fs::remove_dir_all(machine.path("proc/spl/kstat/zfs").join(&name)).unwrap();
    // Nothing was written, so the survivor is read through another device from now on.
    overlay.settle().unwrap();
    assert_eq!(overlay.pool().unwrap(), name);
    machine.import(&name, "ONLINE");
    let calls = machine.calls().len();
    overlay.close(&|| {}).unwrap();
    assert_eq!(machine.calls()[calls], format!("zpool export -f -- {name}"));
    assert_eq!(machine.picture(), before);
}

#[test]
fn one_that_a_killed_run_left_is_taken_away_by_the_next() {
    with_machine(|machine, choice, _| {
        let before = machine.picture();
        for call in 0.. {
            let (overlay, _) = open_imported(machine, choice);
            machine.fail(call, Fault::Killed);
            let closed = overlay.close(&|| {});
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
fn the_next_run_says_that_it_took_it_away() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::new(dir.path());
    let (overlay, name) = open_imported(&machine, Choice::Dm);
    machine.fail(0, Fault::Killed);
    let _ = overlay.state();
    assert!(overlay.close(&|| {}).is_err() && machine.path("proc/spl/kstat/zfs").join(&name).exists());
    machine.mend();
    assert_eq!(clear_leftovers(&machine.host()).unwrap()[0], format!("exported the pool {name}"));
}

#[test]
fn what_is_mounted_of_it_may_take_a_moment_to_go() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::new(dir.path());
    let before = machine.picture();
    let (overlay, _) = open_imported(&machine, Choice::Image);
    machine.fail(0, Fault::Before);
    assert!(overlay.close(&|| {}).unwrap().holds());
    assert_eq!(machine.calls().into_iter().filter(|c| c.contains("zpool")).count(), 2);
    assert_eq!(machine.picture(), before);
}

#[test]
fn one_that_has_stopped_is_no_good_and_is_not_waited_for() {
    with_machine(|machine, choice, _| {
        let (overlay, name) = open_imported(machine, choice);
        machine.import(&name, "SUSPENDED");
        assert_eq!(overlay.state().unwrap().broken, Some(Broken::Pool(name.clone())));
        let error = overlay.close(&|| {}).unwrap_err();
        assert!(matches!(&error, OverlayError::PoolStopped { name: stopped } if *stopped == name), "{error}");
        assert!(machine.calls().iter().all(|call| !call.starts_with("zpool")), "whoever asks waits for it");
        assert_eq!(fs::read_to_string(machine.path("sys/class/block/sdb/ro")).unwrap(), "1\n");
        assert!(clear_leftovers(&machine.host()).is_err(), "what it lies on stays");
    });
}
