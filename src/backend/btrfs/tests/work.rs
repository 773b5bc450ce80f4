//! Scrub and balance: what they are told, and what they say.

use super::{super::*, *};

fn big() -> MirrorState {
    health::samples::healthy().1.storage.get().unwrap().clone()
}

#[test]
fn metadata_is_balanced_only_where_there_is_room() {
    let line = |state: &MirrorState| {
        let (cmd, note) = balance::command(state, Path::new(MNT));
        (cmd.line(), note)
    };
    let whole = "btrfs balance start -dusage=50 -dlimit=2 -musage=50 -mlimit=4 /mnt/rg";
    let data = "btrfs balance start -dusage=50 -dlimit=2 /mnt/rg";
    assert_eq!(line(&big()), (whole.to_owned(), None));
    for (room, expected) in
        [(Some(Bytes::gib(4)), whole), (Some(Bytes::gib(3)), data), (Some(Bytes(0)), data), (None, data)]
    {
        let mut state = big();
        state.members[1].unallocated = room;
        let (line, note) = line(&state);
        assert_eq!(line, expected, "{room:?}");
        assert_eq!(note.is_some(), expected == data);
    }
    let mut small = big();
    for member in &mut small.members {
        (member.size, member.unallocated) = (Some(Bytes::gib(2)), Some(Bytes::mib(1000)));
    }
    assert_eq!(line(&small).0, data);
    let mut missing = big();
    missing.members[0].missing = true;
    assert_eq!(line(&missing).0, data);
}

#[test]
fn balance_results_of_both_versions() {
    for version in ["6.2", "6.14"] {
        for (case, expected) in [("start", None), ("start-nothing", Some(0)), ("start-data-only", None)] {
            let text = fixture(&format!("{version}/healthy-balance-{case}.txt"));
            let (relocated, considered) = balance::parse_done(&text).unwrap();
            assert!(relocated <= considered && considered > 0 && expected.is_none_or(|e| e == relocated));
        }
        let running = Reply::fail(1, said(&format!("{version}/running-balance-start-again.meta")));
        let full = Reply::fail(1, said(&format!("{version}/full-balance-start.meta")));
        let done = Reply::ok(fixture(&format!("{version}/healthy-balance-start.txt")));
        for (reply, end) in
            [(running, BalanceEnd::AlreadyRunning), (full, BalanceEnd::NoSpace), (done, BalanceEnd::Done)]
        {
            let runner = Arc::new(ScriptedRunner::new().on("btrfs balance start", reply));
            let host = Machine::bare().host_with(runner);
            let report = Btrfs.balance(&host, Path::new(MNT), &big(), &mut |()| Flow::Continue).unwrap();
            assert_eq!(report.end, end);
            assert_eq!(report.relocated.is_some(), end == BalanceEnd::Done);
        }
    }
    assert!(balance::parse_done("").is_err());
    let runner = Arc::new(ScriptedRunner::new().on("btrfs balance start", Reply::fail(1, "ERROR: other")));
    let host = Machine::bare().host_with(runner);
    assert!(Btrfs.balance(&host, Path::new(MNT), &big(), &mut |()| Flow::Continue).is_err());
}

#[test]
fn scrub_status_of_both_versions() {
    for version in ["6.2", "6.14"] {
        for (case, status, counts) in [
            ("healthy", "finished", (0, 0, 0)),
            ("running", "running", (0, 0, 0)),
            ("cancelled", "aborted", (0, 0, 0)),
            ("missing", "aborted", (0, 0, 0)),
            ("corrected", "finished", (3, 3, 0)),
            ("uncorrectable", "finished", (4, 0, 4)),
        ] {
            let text = fixture(&format!("{version}/{case}-scrub-status-raw.txt"));
            let read = scrub::parse_status(&text).unwrap().unwrap();
            let seen = (read.counts.checksum, read.counts.corrected, read.counts.uncorrectable);
            assert_eq!((read.status.as_str(), seen), (status, counts), "{version} {case}");
            assert!(read.bytes_scrubbed.0 > 0 && !read.uuid.is_empty());
            for (index, _) in text.match_indices('\n').filter(|(i, _)| i + 1 < text.len()) {
                assert!(
                    scrub::parse_status(&text[..=index]).is_err()
                        || text[index..].trim_start().starts_with("last")
                );
            }
        }
        let never = fixture(&format!("{version}/healthy-scrub-status-never.txt"));
        assert_eq!(scrub::parse_status(&never).unwrap(), None);
        let file = |case: &str| fixture(&format!("{version}/{case}-scrub-status-file.txt"));
        let read = |text: &str| scrub::parse_record(text, at(1_795_434_300), at(1_795_434_310));
        let running = read(&file("running")).unwrap().unwrap();
        assert!(running.scrubbed.0 >= 2 * (6_291_456 + 212_992), "{running:?}");
        assert_eq!((running.ended, running.finished), (None, false));
        let silent =
            scrub::parse_record(&file("running"), at(1_795_434_300), at(1_795_434_400)).unwrap().unwrap();
        assert_eq!(
            (silent.ended, silent.finished),
            (Some(at(1_795_434_300)), false),
            "nobody writes to it any more"
        );
        let whole = read(&file("healthy")).unwrap().unwrap();
        assert!(whole.finished && !whole.cancelled && whole.ended.is_some() && whole.corrected == 0);
        for stopped in ["cancelled", "missing"] {
            let record = read(&file(stopped)).unwrap().unwrap();
            assert!(record.cancelled && !record.finished, "{stopped}");
        }
        assert!(read(&file("returned")).unwrap().unwrap().corrected > 0);
        let lost = file("uncorrectable");
        let record = read(&lost).unwrap().unwrap();
        assert_eq!((record.uncorrectable, record.unmended_on), (4, Some(vec![1, 2])));
        let on_one = lost.replacen("uncorrectable_errors:2", "uncorrectable_errors:0", 1);
        assert_eq!(read(&on_one).unwrap().unwrap().unmended_on, Some(vec![2]));
        assert_eq!(whole.unmended_on, None);
        assert!(read(&lost.replacen(":1|", "|", 1)).is_err(), "whose line is it?");
        assert!(read(file("running").trim_start_matches("scrub")).is_err());
    }
}

fn run_scrub(start: Reply, status: &str, stop: bool) -> (Result<ScrubReport, BackendError>, Vec<String>) {
    let runner = Arc::new(
        ScriptedRunner::new()
            .on("btrfs scrub start", start)
            .on("btrfs scrub status -R", Reply::ok(fixture(status)))
            .on("btrfs scrub cancel", Reply::ok("scrub cancelled\n")),
    );
    let machine = Machine::bare();
    let host = machine.host_with(Arc::clone(&runner));
    let flow = if stop { Flow::Stop } else { Flow::Continue };
    let report = Btrfs.scrub(&host, Path::new(MNT), &big(), &mut |p| {
        assert!(p.bytes_total.is_some());
        flow
    });
    (report, runner.calls().into_iter().map(|(_, line)| line).collect())
}

#[test]
fn a_scrub_is_judged_by_its_status_not_by_its_exit_code() {
    for version in ["6.2", "6.14"] {
        let status = |case: &str| format!("{version}/{case}-scrub-status-raw.txt");
        let end = |start: Reply, case: &str| {
            let report = run_scrub(start, &status(case), false).0.unwrap();
            (report.end, report.is_good())
        };
        assert_eq!(end(Reply::ok(""), "healthy"), (ScrubEnd::Finished, true));
        assert_eq!(end(Reply::ok(""), "corrected"), (ScrubEnd::Finished, true));
        assert_eq!(end(Reply::ok(""), "missing"), (ScrubEnd::Aborted, false));
        assert_eq!(end(Reply::fail(3, ""), "uncorrectable"), (ScrubEnd::Finished, false));
        let again = Reply::fail(1, said(&format!("{version}/running-scrub-start-again.meta")));
        assert_eq!(end(again, "running"), (ScrubEnd::AlreadyRunning, false));
        assert!(run_scrub(Reply::fail(1, "ERROR: other"), &status("healthy"), false).0.is_err());

        let (report, calls) = run_scrub(Reply::ok(""), &status("cancelled"), true);
        assert_eq!(report.unwrap().end, ScrubEnd::Stopped);
        assert_eq!(calls[1], "btrfs scrub cancel /mnt/rg");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_a_parser_panic(text in "(UUID|Status|Duration|[a-z_:| 0-9]{0,9}|\\PC|\n){0,20}") {
        let _ = scrub::parse_status(&text);
        let _ = scrub::parse_record(&format!("scrub status:1\n{text}"), at(1), at(2));
        let _ = balance::parse_done(&text);
    }
}
