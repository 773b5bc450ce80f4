use super::{supers::tests::craft, *};

fn member(devid: u64, block: &[u8]) -> Survivor {
    let sb = Super::parse(block, OFFSET).unwrap().unwrap();
    let path = format!("/dev/{devid}").into();
    let mut survivor =
        survivor(Member { path, size: Bytes::gib(1), best: sb, faults: Vec::new(), opens: true });
    survivor.devid = devid;
    survivor
}

const PLACE: u64 = 5 << 20;

#[test]
fn a_common_past_is_told_from_two_pasts() {
    let base = member(1, &craft(OFFSET, 38, PLACE, 7));
    for (generation, root, log, relation) in [
        (38, PLACE, 7, Relation::Same),
        (38, PLACE, 8, Relation::OtherLog),
        (38, PLACE, 0, Relation::OtherLog),
        // The next transaction lies one block further, as the backups of both say.
        (39, PLACE + 16384, 0, Relation::Behind(1)),
        (41, PLACE + 3 * 16384, 0, Relation::Unclear),
        (38, PLACE + 16384, 0, Relation::Diverged),
        (39, PLACE + 32768, 0, Relation::Diverged),
        (60, PLACE + 22 * 16384, 0, Relation::Unclear),
    ] {
        let other = member(2, &craft(OFFSET, generation, root, log));
        assert_eq!(by_numbers(&base, &other), relation, "{generation} {root} {log}");
    }
}

#[test]
fn the_newest_good_copy_counts_and_of_equal_ones_the_first() {
    let good = |place, generation, log| {
        let found = Super::parse(&craft(place, generation, PLACE, log), place).unwrap().unwrap();
        (place, Copy::Good(Box::new(found)))
    };
    let second = supers::SECOND;
    let best = |copies| {
        best_of(copies).map(|(sb, faults, opens)| (sb.own.generation, sb.log_root, faults.len(), opens))
    };
    assert_eq!(best(vec![good(OFFSET, 38, 7), good(second, 38, 0)]), Some((38, 7, 0, true)));
    assert_eq!(best(vec![(OFFSET, Copy::None), good(second, 38, 0)]), Some((38, 0, 1, false)));
    assert_eq!(best(vec![good(OFFSET, 37, 7), good(second, 38, 0)]), Some((38, 0, 0, false)));
    assert_eq!(best(vec![(OFFSET, Copy::Bad("x".into())), (second, Copy::None)]), None);
}

#[test]
fn every_overlay_is_named_and_a_rescue_never_writes() {
    let overlays = ["/dev/loop7".into(), "/dev/loop8".into()];
    for rung in Btrfs.rungs() {
        let Way::Mount(options) = rung.way else { continue };
        let lines: Vec<_> =
            Btrfs.mount_commands(options, &overlays, Path::new("/x")).iter().map(Cmd::line).collect();
        assert_eq!(lines.len(), 1);
        assert!(lines[0].contains("-o ro,") && lines[0].contains(",nosuid,nodev,noexec,"), "{lines:?}");
        assert!(lines[0].ends_with(",device=/dev/loop7,device=/dev/loop8 /dev/loop7 /x"), "{lines:?}");
    }
    // Nothing that may be old is newest, and what leaves out the log is only done when asked for.
    assert!(Btrfs.rungs().iter().all(|r| (r.freshness == Freshness::Newest) == r.lacks.is_none()));
    let leaves_out = |r: &&Rung| matches!(r.way, Way::Mount(options) if options.contains("nologreplay") || options.contains("all"));
    assert!(Btrfs.rungs().iter().filter(leaves_out).all(|r| r.when_allowed));
}
