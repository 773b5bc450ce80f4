use super::{
    past::Evidence,
    relate::{by_evidence, contradict},
    supers::tests::craft,
    *,
};
use crate::backend::rescue::Relation;

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
fn one_number_at_two_places_is_two_pasts() {
    let base = member(1, &craft(OFFSET, 38, PLACE, 7));
    for (generation, root, two) in [
        (38, PLACE, false),
        // The next transaction lies one block further, as the backups of both say.
        (39, PLACE + 16384, false),
        (38, PLACE + 16384, true),
        (39, PLACE + 32768, true),
        (60, PLACE, false),
    ] {
        let other = member(2, &craft(OFFSET, generation, root, 0));
        assert_eq!(contradict(&base, &other), two, "{generation} {root}");
    }
}

#[test]
fn what_the_blocks_tell_decides_and_nothing_else() {
    let at = |generation, log| member(1, &craft(OFFSET, generation, PLACE, log));
    let nothing = Evidence::default();
    let (told, two) = (Evidence { same: 2, ..nothing }, Evidence { same: 5, contrary: 1, bound: true });
    let bound = Evidence { bound: true, ..nothing };
    for (one, other, evidence, relation) in [
        (at(38, 7), at(38, 7), told, Relation::Same),
        (at(38, 7), at(38, 8), told, Relation::OtherLog),
        (at(38, 7), at(38, 0), told, Relation::OtherLog),
        (at(38, 7), at(41, 0), told, Relation::Behind(3)),
        (at(38, 7), at(38, 7), nothing, Relation::Unclear),
        (at(38, 7), at(39, 7), nothing, Relation::Unclear),
        (at(38, 7), at(38, 7), bound, Relation::Same),
        (at(38, 7), at(38, 8), bound, Relation::OtherLog),
        (at(38, 7), at(40, 7), bound, Relation::Behind(2)),
        (at(38, 7), at(38, 7), two, Relation::Diverged),
        (at(38, 7), at(99, 7), two, Relation::Diverged),
    ] {
        assert_eq!(by_evidence(&one, &other, evidence), relation);
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
            Btrfs.mount_commands(options, &[], &overlays, Path::new("/x")).iter().map(Cmd::line).collect();
        assert_eq!(lines.len(), 1);
        assert!(lines[0].contains("-o ro,") && lines[0].contains(",nosuid,nodev,noexec,"), "{lines:?}");
        assert!(lines[0].ends_with(",device=/dev/loop7,device=/dev/loop8 /dev/loop7 /x"), "{lines:?}");
    }
    // Nothing that may be old is newest, and what leaves out the log is only done when asked for.
    assert!(Btrfs.rungs().iter().all(|r| (r.freshness == Freshness::Newest) == r.lacks.is_none()));
    let leaves_out = |r: &&Rung| matches!(r.way, Way::Mount(options) if options.contains("nologreplay") || options.contains("all"));
    assert!(Btrfs.rungs().iter().filter(leaves_out).all(|r| r.when_allowed));
}

#[test]
fn a_mount_off_a_disk_that_reads_slowly_is_given_time() {
    let machine = tempfile::tempdir().unwrap();
    let runner = std::sync::Arc::new(crate::exec::ScriptedRunner::new());
    let host = Host::captured(machine.path(), runner, jiff::Timestamp::UNIX_EPOCH);
    let overlays = ["/dev/loop7".into()];
    let opening = crate::backend::rescue::Opening {
        options: "ro",
        survivors: &[],
        overlays: &overlays,
        place: Path::new("/x"),
        name: "",
        belongs: None,
        again: false,
    };
    let mut ran = Vec::new();
    let mut run = |cmd: &Cmd| {
        ran.push(format!("{cmd:?}"));
        Ok(crate::exec::Output { code: 0, stdout: Vec::new(), stderr: Vec::new() })
    };
    Btrfs.mount(&host, &opening, &mut run).unwrap();
    assert!(matches!(&ran[..], [one] if one.contains("timeout: Some(1800s)")), "{ran:?}");
}
