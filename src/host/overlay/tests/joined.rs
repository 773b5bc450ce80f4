//! What survivors hold by turns, above any kind of overlay.

use super::*;

/// Both disks, the second before the first, as what they hold by turns; how often those that took a device were asked to let go.
fn open_joined(machine: &Machine, choice: Choice) -> (Result<Overlay, OverlayError>, usize) {
    machine.say_of_snapshots("0 163840 snapshot 16/163840 0\n");
    let freed = std::cell::Cell::new(0);
    let striped = Striped { chunk: 512 << 10, length: 12 << 20, parts: vec![(1, 1 << 20), (0, 2 << 20)] };
    let survivors = survivors();
    let opened = open(&machine.host(), &request(choice, &survivors), &mut |_| Flow::Continue);
    let joined = opened.and_then(|mut overlay| {
        overlay.join(&striped, &|| freed.set(freed.get() + 1))?;
        Ok(overlay)
    });
    (joined, freed.get())
}

#[test]
fn what_survivors_hold_by_turns_is_laid_above_them_and_goes_first() {
    with_machine(|machine, choice, _| {
        let before = machine.picture();
        let (overlay, freed) = open_joined(machine, choice);
        let mut overlay = overlay.unwrap();
        let id = overlay.keeper.as_ref().unwrap().id.clone();
        let name = format!("/dev/mapper/raidguard-{id}-joined");
        assert_eq!(
            (overlay.mountable(), overlay.devices().len(), freed),
            (&[PathBuf::from(&name)][..], 2, 1)
        );
        let calls = machine.calls().len();
        overlay.settle().unwrap();
        assert_eq!(machine.calls().len(), calls, "what lies above has them open for writing");
        assert_eq!(overlay.state().unwrap().broken, None);
        let table = machine.calls().into_iter().find(|c| c.contains("striped")).unwrap();
        let device = |n: usize| overlay.devices()[n].display().to_string();
        let parts = format!("2 1024 {} 2048 {} 4096", device(1), device(0));
        assert_eq!(table, format!("dmsetup create raidguard-{id}-joined --table '0 24576 striped {parts}'"));
        let dm = |n: usize| machine.path(&format!("sys/class/block/dm-{n}/dm/name"));
        let at =
            (0..9).find(|n| fs::read_to_string(dm(*n)).is_ok_and(|name| name.contains("joined"))).unwrap();
        let away = machine.path("away");
        fs::rename(dm(at), &away).unwrap();
        assert_eq!(overlay.state().unwrap().broken, Some(Broken::Gone(name.into())));
        fs::rename(&away, dm(at)).unwrap();
        assert!(overlay.close(&|| {}).unwrap().holds());
        let taken: Vec<_> =
            machine.calls().into_iter().skip(calls).filter(|c| !c.contains("status")).collect();
        assert!(taken[0].ends_with("-joined"), "{taken:?}");
        assert_eq!(machine.picture(), before);
    });
}

#[test]
fn what_cannot_be_joined_leaves_nothing_and_what_is_taken_is_freed_and_tried_again() {
    with_machine(|machine, choice, _| {
        let before = machine.picture();
        let mut again = 0;
        for call in 0.. {
            machine.fail(call, Fault::Before);
            let (opened, freed) = open_joined(machine, choice);
            let struck = machine.is_struck();
            again += usize::from(opened.is_ok() && freed == 2);
            machine.mend();
            drop(opened);
            assert_eq!(machine.picture(), before, "{choice:?} {call}");
            machine.fail(call, Fault::Killed);
            drop(open_joined(machine, choice));
            machine.mend();
            clear_leftovers(&machine.host()).unwrap();
            assert_eq!(machine.picture(), before, "{choice:?} {call}");
            if !struck {
                break;
            }
        }
        assert_eq!(again, 1, "the failed attempt");
        machine.without("dmsetup");
        if choice != Choice::Dm {
            let (refused, _) = open_joined(machine, choice);
            let why = refused.unwrap_err().to_string();
            assert!(why.contains("dmsetup is not installed"), "{why}");
            assert_eq!(machine.picture(), before);
        }
    });
}
