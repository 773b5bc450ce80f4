use super::*;
use crate::{
    exec::ScriptedRunner,
    model::finding::{Finding, Severity, Source, Verdict},
    model::mirror::ErrorCounts,
};
use std::{collections::BTreeMap, fs, sync::Arc};

fn host(dir: &tempfile::TempDir) -> Host {
    Host::captured(dir.path(), Arc::new(ScriptedRunner::new()), Timestamp::UNIX_EPOCH)
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn finding(code: &str) -> Finding {
    Finding {
        code: code.into(),
        severity: Severity::Critical,
        about: "1".into(),
        says: "says".into(),
        evidence: vec!["seen".into()],
        remedy: "mend".into(),
        source: Source::Storage,
        since: Some(at(5)),
    }
}

#[test]
fn what_is_kept_is_read_again_by_another_process_and_closed_to_others() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(&dir);
    assert!(State::open_existing(&host).unwrap().is_none());
    let state = State::open(&host).unwrap();
    assert_eq!(state.record("lightning").unwrap(), Record::default());
    let counters = BTreeMap::from([("uuid".to_owned(), ErrorCounts { read: 3, ..ErrorCounts::default() })]);
    state.durably(|| state.put("lightning", "acknowledged", &counters)).unwrap();
    state.job_began("lightning", "scrub", at(10)).unwrap();
    state.job_ended("lightning", "scrub", (at(10), at(20)), None).unwrap();
    state.job_began("lightning", "scrub", at(30)).unwrap();
    state.job_ended("lightning", "scrub", (at(30), at(40)), Some("why".into())).unwrap();
    let verdict = Verdict::of(vec![finding("MIR-MISSING")], Some(0));
    state.keep_verdict("lightning", &Record::default(), &verdict, at(50)).unwrap();
    state.keep_databases("lightning", at(60), &[]).unwrap();
    drop(state);
    let path = host.path(PATH);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let record = State::open_existing(&host).unwrap().unwrap().record("lightning").unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(record.acknowledged, counters);
    let run = JobRun { started: at(30), ended: Some(at(40)), failed: Some("why".into()), good: Some(at(20)) };
    assert_eq!(record.jobs["scrub"], run);
    assert_eq!((record.first_seen, record.verdict), (Some(at(50)), Some((Severity::Critical, at(50)))));
    assert_eq!((record.open, record.databases), (verdict.findings, Some((at(60), Vec::new()))));
    assert_eq!(State::open(&host).unwrap().record("other").unwrap(), Record::default());
}

#[test]
fn history_has_a_line_for_each_change_and_none_for_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(&host(&dir)).unwrap();
    let bad = Verdict::of(vec![finding("MIR-MISSING")], None);
    let worse = Verdict::of(vec![finding("MIR-MISSING"), finding("MNT-ABSENT")], None);
    let good = Verdict::of(Vec::new(), Some(1));
    for (second, verdict) in [(1, &good), (2, &good), (3, &bad), (4, &bad), (5, &worse), (6, &good)] {
        let before = state.record("m").unwrap();
        state.keep_verdict("m", &before, verdict, at(second)).unwrap();
    }
    let history = state.history("m", 10).unwrap();
    let times: Vec<_> = history.iter().map(|c| c.at.as_second()).collect();
    assert_eq!(times, [6, 5, 3, 1]);
    assert_eq!(history[1].faults.len(), 2);
    assert_eq!(state.record("m").unwrap().verdict, Some((Severity::Ok, at(6))));
    for second in 0..3000 {
        let verdict = if second % 2 == 0 { &bad } else { &good };
        state.keep_verdict("m", &state.record("m").unwrap(), verdict, at(second)).unwrap();
    }
    assert_eq!(state.history("m", 5000).unwrap().len(), 1000);
}

#[test]
fn the_ledger_never_falls() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(&host(&dir)).unwrap();
    let entry = |version, second| LedgerEntry { node_id: None, data_version: version, at: at(second) };
    for (version, second) in [(5, 1), (7, 2), (6, 3)] {
        state.raise_ledger("m", "bitcoin", &entry(version, second)).unwrap();
    }
    for (key, version) in [("a", 1), ("b", 2)] {
        let entry = LedgerEntry { node_id: Some(key.into()), ..entry(version, 1) };
        state.raise_ledger("m", "testnet", &entry).unwrap();
    }
    assert_eq!(state.record("m").unwrap().ledger["testnet"].data_version, 1, "another node's");
    assert_eq!(state.record("m").unwrap().ledger["bitcoin"], entry(7, 2));
}

#[test]
fn garbage_and_what_a_newer_one_wrote_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(&dir);
    let state = State::open(&host).unwrap();
    state.put("m", "verdict", &"no verdict").unwrap();
    assert!(matches!(state.record("m"), Err(StateError::Value { .. })));
    state.db.pragma_update(None, "user_version", 99).unwrap();
    drop(state);
    assert!(matches!(State::open(&host), Err(StateError::Newer(99))));
    for ending in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(host.path(format!("{PATH}{ending}")));
    }
    fs::write(host.path(PATH), vec![0x5a; 9000]).unwrap();
    assert!(matches!(State::open(&host), Err(StateError::Sqlite(_))));
}

#[test]
fn two_at_once_do_not_undo_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(&dir);
    let (one, two) = (State::open(&host).unwrap(), State::open(&host).unwrap());
    let threads = [("scrub", one), ("balance", two)].map(|(job, state)| {
        std::thread::spawn(move || {
            for second in 0..100 {
                state.job_began("m", job, at(second)).unwrap();
                state.job_ended("m", job, (at(second), at(second)), None).unwrap();
            }
        })
    });
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(State::open(&host).unwrap().record("m").unwrap().jobs.len(), 2);
}

#[test]
fn a_record_that_was_emptied_is_not_a_new_one_and_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(&dir);
    let state = State::open(&host).unwrap();
    state.durably(|| state.put("lightning", "ledger/bitcoin", &1)).unwrap();
    drop(state);
    let path = host.path(PATH);
    let names = || fs::read_dir(path.parent().unwrap()).unwrap().count();
    let before = names();
    fs::write(&path, "").unwrap();
    for opened in [State::open(&host).map(Some), State::open_existing(&host)] {
        assert!(matches!(opened, Err(StateError::Empty)), "{opened:?}");
    }
    assert_eq!((fs::metadata(&path).unwrap().len(), names()), (0, before));
    // Another's database is not taken over.
    fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE other(x)").unwrap();
    let other = fs::read(&path).unwrap();
    assert!(matches!(State::open(&host), Err(StateError::Foreign)));
    assert_eq!(fs::read(&path).unwrap(), other);
    // Gone is gone: that is how a new one begins.
    for name in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{name}", path.display()));
    }
    assert_eq!(State::open(&host).unwrap().record("lightning").unwrap(), Record::default());
}

#[test]
fn a_record_is_made_once_by_many_and_nothing_is_left_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(&dir);
    std::thread::scope(|scope| {
        for n in 0..8 {
            let host = &host;
            scope.spawn(move || State::open(host).unwrap().put("m", &n.to_string(), &n).unwrap());
        }
    });
    let state = State::open(&host).unwrap();
    for n in 0..8 {
        assert_eq!(state.get::<u8>("m", &n.to_string()).unwrap(), Some(n));
    }
    let path = host.path(PATH);
    let names = fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name());
    let names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    assert!(names.iter().all(|name| name.starts_with("state.sqlite3")), "{names:?}");
}

#[test]
fn what_stands_in_the_records_place_is_named_and_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(&dir);
    let path = host.path(PATH);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let error = State::open_existing(&host).unwrap_err();
    let said = crate::model::observed::causes(&error);
    assert!(said.contains("a FIFO"), "{said}");
}

/// A name and its value on each line, as they lie in the table.
const RECORD: &[u8] = br#"first-seen "2026-11-23T12:00:00Z"
acknowledged {"5515c27f-43dc-47b1-a1df-6c7b3533cac5":{"write":1,"read":2,"flush":3,"corruption":4,"generation":5}}
acknowledged-sectors {"sda":7}
acknowledged-scrub "2026-11-23T11:00:00Z"
failed-writes {"13573643496760796423":{"counted":0,"most":159,"at":"2026-11-23T11:00:00Z"}}
away {"2":"2026-11-23T11:00:00Z"}
open [{"code":"MIR-MISSING","severity":"critical","about":"1","says":"x","evidence":["y"],"remedy":"z","source":"storage","since":"2026-11-23T12:00:00Z"}]
verdict ["critical","2026-11-23T12:00:00Z"]
databases ["2026-11-23T12:00:00Z",[{"network":"bitcoin","state":{"sound":{"data_version":42,"schema_version":270,"node_id":"02ff"}}},{"network":"","state":{"faulty":"x"}},{"network":"t","state":"missing"}]]
told {"kind":"change","verdict":"critical","may_fail":1,"faults":[],"at":"2026-11-23T12:00:00Z"}
overridden {"at":"2026-11-23T12:00:00Z","reason":"why","faults":[{"code":"NODE-OLDER","about":""}]}
mismatches {"sectors":4096,"at":"2026-11-23T12:00:00Z"}
job/scrub {"started":"2026-11-23T12:00:00Z","ended":null,"failed":null,"good":"2026-11-23T12:00:00Z"}
ledger/bitcoin {"node_id":"02ff","data_version":42,"at":"2026-11-23T12:00:00Z"}
"#;

fn all_of(text: &str) -> Result<Record, StateError> {
    let mut record = Record::default();
    for (name, value) in text.lines().filter_map(|line| line.split_once(' ')) {
        take(&mut record, name, value)?;
    }
    Ok(record)
}

#[test]
fn the_sample_is_of_the_form_that_is_kept() {
    let record = all_of(std::str::from_utf8(RECORD).unwrap()).unwrap();
    assert!(record.jobs.len() == 1 && record.ledger["bitcoin"].data_version == 42 && record.told.is_some());
    assert_eq!(record.mismatches.map(|m| m.sectors), Some(4096));
    assert_eq!(record.failed_writes["13573643496760796423"].most, 159);
    assert_eq!(record.away.len(), 1);
}

crate::fuzz::fuzzed!(fuzz_record, text[RECORD], |text| {
    if let Ok(record) = all_of(text) {
        // What was understood is kept in the same words.
        let again: Record = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
        assert_eq!(again, record);
    }
});
