//! Members that go and come: what the tools print, and what is asked of them.

use super::{
    super::{chunks, replace},
    *,
};
use crate::{
    backend::{Exchange, ExchangeEnd, Layout, LevelEnd, Members as _},
    exec::Failure,
};

fn exchange() -> Exchange {
    Exchange { uuid: UUID.into(), id: 2, new: "/dev/loop2".into(), avoid_old: false, partuuid: None }
}

#[test]
fn the_chunk_tree_says_what_lies_on_which_member() {
    let layout = chunks::parse(&fixture("6.2/healthy-dump-tree-chunk.txt")).unwrap();
    assert_eq!(layout.members, [(1, Bytes(536_870_912)), (2, Bytes(536_870_912))]);
    let kinds: Vec<_> = layout.pieces.iter().map(|p| (p.kind.as_str(), p.survives)).collect();
    assert_eq!(kinds, [("SYSTEM|RAID1", 1), ("METADATA|RAID1", 1), ("DATA|RAID1", 1)]);
    assert_eq!(layout.lost_without(&[2]).count(), 0);
    assert_eq!(layout.lost_without(&[1, 2]).count(), 3);
    assert_eq!(layout.stored_on(2), Bytes(129_171_456));
    assert_eq!(layout.stored_below(2, 9_437_184), Bytes(8_388_608));
    assert_eq!(
        layout.pieces[0].places_of(22_020_096 + 4096),
        [(1, 22_020_096 + 4096), (2, 1_048_576 + 4096)]
    );
    assert!(layout.pieces[0].places_of(30_408_704).is_empty(), "the next piece begins there");

    let layout = chunks::parse(&fixture("6.2/missing-single-dump-tree-chunk.txt")).unwrap();
    assert_eq!(layout.lost_without(&[2]).count(), 0);
    assert_eq!(layout.lost_without(&[1]).map(|p| p.kind.as_str()).collect::<Vec<_>>(), ["DATA|single"; 4]);
}

#[test]
fn a_striped_piece_has_each_address_at_its_copies() {
    let piece = crate::backend::Piece {
        start: 1 << 20,
        parts: 2,
        kind: "DATA|RAID10".into(),
        length: Bytes(1 << 20),
        places: vec![(1, 0), (2, 100), (3, 200), (4, 300)],
        survives: 1,
    };
    let stripe = 64 << 10;
    assert_eq!(piece.places_of(1 << 20), [(1, 0), (2, 100)]);
    assert_eq!(piece.places_of((1 << 20) + stripe + 5), [(3, 205), (4, 305)]);
    assert_eq!(piece.places_of((1 << 20) + 2 * stripe), [(1, stripe), (2, 100 + stripe)]);
    assert!(piece.places_of((3 << 20) + 1).is_empty());
}

#[test]
fn a_dump_that_is_not_understood_is_an_error() {
    let whole = fixture("6.2/healthy-dump-tree-chunk.txt");
    for (from, to) in [
        ("type DATA|RAID1", "type DATA|RAID9"),
        ("num_stripes 2", "num_stripes 3"),
        ("devid 1 total_bytes 536870912", "devid 1 total_bytes many"),
        ("CHUNK_ITEM 22020096", "CHUNK_ITEM x"),
    ] {
        let text = whole.replacen(from, to, 1);
        assert_ne!(text, whole, "{from}");
        assert!(chunks::parse(&text).is_err(), "{to}");
    }
    assert!(chunks::parse("").is_err());
    assert!(chunks::parse("\t\tstripe 0 devid 1 offset 3\n").is_err());
}

#[test]
fn the_status_of_an_exchange() {
    use replace::{State, parse_status};
    for version in ["6.2", "6.14"] {
        let read = |case: &str| parse_status(&fixture(&format!("{version}/{case}.txt"))).unwrap();
        assert_eq!(read("healthy-replace-status-never").state, State::Never);
        assert_eq!(read("replace-status-finished").state, State::Finished);
        assert_eq!(read("missing-replace-status").state, State::Finished);
    }
    let read = |text: &str| parse_status(text).unwrap();
    let running = read(&fixture("6.2/running-replace-status.txt"));
    assert_eq!((running.state, running.write_errors, running.unreadable), (State::Running(176), 0, 0));
    assert_eq!(read(&fixture("6.2/canceled-replace-status.txt")).state, State::Canceled);
    assert_eq!(
        read(
            "Started on 25.Nov 21:07:07, suspended on 25.Nov 21:07:09 at 3.2%, 1 write errs, 7 uncorr. read errs"
        ),
        replace::Status { state: State::Suspended, write_errors: 1, unreadable: 7 }
    );
    for bad in [
        "",
        "done",
        "17% done, 0 write errs, 0 uncorr. read errs",
        "101.0% done, 0 write errs, 0 uncorr. read errs",
        "17.6% done",
        "17.6% done, x write errs, 0 uncorr. read errs",
        "Started on now, paused on then, 0 write errs, 0 uncorr. read errs",
    ] {
        assert!(parse_status(bad).is_err(), "{bad}");
    }
}

/// A whole mirror, and a new device that is a member already, as after the kernel's last commit.
fn exchanged(devid: u64) -> Machine {
    let machine = Machine::recorded("healthy");
    machine.device("loop2", &Superblock { devid, uuid: member_uuid(2), ..sample() });
    machine
}

fn script() -> ScriptedRunner {
    ScriptedRunner::new()
        .on("btrfs inspect-internal dump-tree", Reply::ok(fixture("6.2/healthy-dump-tree-chunk.txt")))
        .on("btrfs replace status", Reply::ok(fixture("6.2/replace-status-finished.txt")))
        .on("btrfs replace start", Reply::ok(""))
        .on("btrfs replace cancel", Reply::ok(""))
        .on("btrfs filesystem sync", Reply::ok(""))
        .on("wipefs", Reply::ok(""))
}

fn carry_out(
    machine: &Machine,
    runner: &Arc<ScriptedRunner>,
    flow: Flow,
) -> Result<ExchangeEnd, BackendError> {
    let host = machine.host_with(Arc::clone(runner));
    Btrfs.exchange(&host, &exchange(), Path::new(MNT), &mut |_| flow)
}

fn ran(runner: &ScriptedRunner) -> Vec<String> {
    runner.calls().into_iter().filter(|(effect, _)| *effect != Effect::Probe).map(|(_, line)| line).collect()
}

#[test]
fn an_exchange_is_begun_once_and_a_failure_at_any_call_is_told() {
    let machine = Machine::recorded("healthy");
    machine.write("dev/loop2", vec![0; 80 << 10]);
    machine.write("sys/class/block/loop2/size", "1048576\n");
    let runner = Arc::new(script());
    let end = carry_out(&machine, &runner, Flow::Continue).unwrap();
    assert_eq!(end, ExchangeEnd::Done { unreadable: 0 });
    assert_eq!(ran(&runner), ["btrfs replace start -B 2 /dev/loop2 /mnt/rg"]);
    let calls = runner.calls().len();
    for failing in 0..calls {
        let runner = Arc::new(script().fail_at(failing));
        let end = carry_out(&machine, &runner, Flow::Continue);
        let line = &runner.calls()[failing].1;
        // How far it is may stay unknown; nothing else may.
        let courtesy = line.contains("dump-tree");
        assert_eq!(end.is_ok(), courtesy, "{line}: {end:?}");
        if line.contains("replace start") {
            let told = end.unwrap_err();
            assert!(matches!(&told, BackendError::Command(e) if e.failure == Failure::Code(1)), "{told}");
        }
    }
}

#[test]
fn what_is_exchanged_already_is_not_exchanged_again() {
    let runner = Arc::new(script());
    let end = carry_out(&exchanged(2), &runner, Flow::Continue).unwrap();
    assert_eq!(end, ExchangeEnd::Done { unreadable: 0 });
    assert_eq!(ran(&runner), [""; 0]);
}

#[test]
fn what_an_earlier_attempt_left_is_wiped_first() {
    let runner = Arc::new(script());
    carry_out(&exchanged(0), &runner, Flow::Continue).unwrap();
    assert_eq!(
        ran(&runner),
        ["wipefs --all --types btrfs /dev/loop2", "btrfs replace start -B 2 /dev/loop2 /mnt/rg"]
    );
}

#[test]
fn a_stop_takes_it_back_and_has_that_written() {
    let runner = Arc::new(script());
    let end = carry_out(&exchanged(0), &runner, Flow::Stop).unwrap();
    assert_eq!(end, ExchangeEnd::Stopped);
    let lines = ran(&runner);
    let after: Vec<_> = lines.iter().skip_while(|l| !l.contains("replace start")).skip(1).collect();
    assert_eq!(
        after,
        [
            "btrfs replace cancel /mnt/rg",
            "btrfs filesystem sync /mnt/rg",
            "wipefs --all --types btrfs /dev/loop2"
        ]
    );
}

#[test]
fn one_that_is_suspended_is_begun_anew() {
    let suspended =
        "Started on 1.Jan 00:00:00, suspended on 1.Jan 00:00:01 at 3.2%, 0 write errs, 0 uncorr. read errs";
    let runner = Arc::new(script().on("btrfs replace status", Reply::ok(suspended)));
    // The script's status never changes, so its end is not what it must be.
    assert!(carry_out(&exchanged(0), &runner, Flow::Continue).is_err());
    let lines = ran(&runner);
    assert_eq!(lines.first().map(String::as_str), Some("btrfs replace cancel /mnt/rg"));
    assert!(lines.iter().any(|l| l.starts_with("btrfs replace start")), "{lines:?}");
}

#[test]
fn a_member_is_grown_when_its_superblock_says_so() {
    let machine = Machine::recorded("healthy");
    let host = machine.host();
    machine.device("loop2", &Superblock { devid: 2, total: 536_870_912, ..sample() });
    assert!(Btrfs.is_grown(&host, &exchange()).unwrap());
    machine.write("sys/class/block/loop2/size", "1048577\n");
    assert!(Btrfs.is_grown(&host, &exchange()).unwrap(), "less than a sector more");
    machine.write("sys/class/block/loop2/size", "2097152\n");
    assert!(!Btrfs.is_grown(&host, &exchange()).unwrap());
    let lines: Vec<_> = Btrfs.grow_commands(&exchange(), Path::new(MNT)).iter().map(Cmd::line).collect();
    assert_eq!(lines, ["btrfs filesystem resize 2:max /mnt/rg", "btrfs filesystem sync /mnt/rg"]);
}

#[test]
fn a_level_is_restored_or_there_is_no_room() {
    let state = Machine::recorded("healthy").observe();
    let command =
        "btrfs balance start -f -dconvert=raid1,soft -mconvert=raid1,soft -sconvert=raid1,soft /mnt/rg";
    for (reply, expected) in [
        (Reply::ok("Done, had to relocate 3 out of 5 chunks\n"), Some(LevelEnd::Done)),
        (
            Reply::fail(1, "ERROR: error during balancing '/mnt/rg': No space left on device"),
            Some(LevelEnd::NoSpace),
        ),
        (Reply::fail(1, "ERROR: error during balancing '/mnt/rg': Input/output error"), None),
    ] {
        let machine = Machine::recorded("healthy");
        let runner = Arc::new(ScriptedRunner::new().on(command, reply));
        let host = machine.host_with(Arc::clone(&runner));
        let end = Btrfs.restore_level(&host, &state, Level::Raid1, Path::new(MNT), &mut |()| Flow::Continue);
        assert_eq!(end.ok(), expected);
        assert_eq!(ran(&runner), [command]);
    }
    let runner = Arc::new(
        ScriptedRunner::new()
            .on(command, Reply::fail(1, "canceled"))
            .on("btrfs balance cancel", Reply::ok("")),
    );
    let host = Machine::recorded("healthy");
    let host = host.host_with(Arc::clone(&runner));
    let end = Btrfs.restore_level(&host, &state, Level::Raid1, Path::new(MNT), &mut |()| Flow::Stop).unwrap();
    assert_eq!(end, LevelEnd::Stopped);
}

#[test]
fn nothing_is_said_of_what_is_not_known() {
    assert_eq!(Btrfs.assembling(&super::spec(), &[]).len(), 0);
    let layout = Layout::default();
    assert_eq!((layout.size_of(1), layout.stored_on(1)), (None, Bytes(0)));
}

crate::fuzz::fuzzed!(fuzz_replace_status, text [
    include_bytes!("../../../../tests/fixtures/btrfs/6.2/running-replace-status.txt"),
    include_bytes!("../../../../tests/fixtures/btrfs/6.14/missing-replace-status.txt"),
    include_bytes!("../../../../tests/fixtures/btrfs/6.14/healthy-replace-status-never.txt"),
], |text| {
    if let Ok(replace::Status { state: replace::State::Running(permille), .. }) = replace::parse_status(text) {
        assert!(permille <= 1000, "{permille}");
    }
});
