use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc, thread};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::{
    exec::ScriptedRunner,
    health::{judge, samples},
    model::Seen,
    notify::server::{Deaf, Mood, Received, Server, nobody},
};

/// Enough on a busy machine.
const PATIENT: Limits =
    Limits { program: Duration::from_secs(20), http: Duration::from_secs(20), all: Duration::from_secs(60) };
/// For a server that does not answer.
const QUICK: Limits = Limits { http: Duration::from_secs(1), ..PATIENT };

/// Far longer than anybody waits.
const LONG: Duration = Duration::from_secs(60);

/// A machine at a time; everything else of it stays in the folder.
fn host(root: &Path, now: Timestamp) -> Host {
    Host::captured(root, Arc::new(ScriptedRunner::new().without("sendmail")), now)
}

fn secrets(root: &Path, text: &str) {
    let file = root.join(&SECRETS_PATH[1..]);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A look at a mirror with this many faults.
fn look(faults: usize) -> Judged {
    let (mirror, mut observed, record) = samples::healthy();
    if faults > 0 {
        observed.storage.get_mut().unwrap().members[0].missing = true;
    }
    if faults > 1 {
        observed.node.get_mut().unwrap().networks[0].secret = None;
    }
    let record = Seen::Read(record);
    let verdict = judge(&mirror, &observed, &record, samples::now());
    assert_eq!(verdict.level == Severity::Ok, faults == 0);
    Judged { at: samples::now(), mirror, observed, record, verdict }
}

/// One check at this time.
fn check(root: &Path, now: Timestamp, missing: usize) -> Vec<String> {
    check_within(PATIENT, root, now, missing)
}

fn check_within(limits: Limits, root: &Path, now: Timestamp, missing: usize) -> Vec<String> {
    let host = host(root, now);
    tell_by(&host, &Channels::of(&host, None), Some(24), &[look(missing)], limits)
}

fn later(minutes: i64) -> Timestamp {
    samples::now() + SignedDuration::from_mins(minutes)
}

fn kinds(received: &[Received]) -> Vec<String> {
    let kind = |r: &Received| {
        let body: serde_json::Value = serde_json::from_str(&r.body).unwrap();
        format!("{} {}", body["kind"].as_str().unwrap(), body["verdict"].as_str().unwrap())
    };
    received.iter().map(kind).collect()
}

#[test]
fn a_fault_is_told_once_reminded_of_daily_and_cleared_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Mood::Answer(200));
    secrets(dir.path(), &format!("webhook = \"{}\"\n", server.url("/")));
    for (hour, missing) in (0..60).map(|hour| (hour, 1)).chain([(60, 0), (61, 0)]) {
        assert_eq!(check(dir.path(), later(60 * hour), missing), [] as [String; 0]);
    }
    assert_eq!(
        kinds(&server.received()),
        ["change critical", "reminder critical", "reminder critical", "cleared ok"]
    );
}

#[test]
fn what_could_not_be_delivered_waits_and_arrives_in_order_once() {
    let dir = tempfile::tempdir().unwrap();
    let address = nobody();
    secrets(dir.path(), &format!("webhook = \"http://{address}/\"\n"));
    check(dir.path(), later(0), 1);
    check(dir.path(), later(15), 2);
    let failing = State::open(&host(dir.path(), later(15))).unwrap().channel_failures().unwrap();
    assert_eq!((failing.len(), failing[0].waiting, failing[0].since), (1, 2, later(0)));
    let server = Server::start_at(address, Mood::Answer(503));
    check(dir.path(), later(30), 2);
    server.set(Mood::Slow(LONG));
    check_within(QUICK, dir.path(), later(60), 2);
    let seen = server.received().len();
    assert_eq!(seen, 2, "the oldest was tried twice, and nothing overtook it");
    check(dir.path(), later(61), 2);
    assert_eq!(server.received().len(), seen, "not tried at every turn");
    server.set(Mood::Answer(200));
    check(dir.path(), later(180), 0);
    let received = server.received();
    assert_eq!(kinds(&received[seen..]), ["change critical", "change critical", "cleared ok"]);
    assert_eq!(
        received[0].headers["idempotency-key"], received[seen].headers["idempotency-key"],
        "whoever took it unheard knows it again"
    );
    check(dir.path(), later(1000), 0);
    assert_eq!(server.received().len(), seen + 3);
    assert_eq!(State::open(&host(dir.path(), later(0))).unwrap().channel_failures().unwrap(), []);
}

#[test]
fn many_checks_at_once_tell_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Mood::Slow(Duration::from_millis(50)));
    secrets(dir.path(), &format!("webhook = \"{}\"\n", server.url("/")));
    drop(State::open(&host(dir.path(), later(0))).unwrap());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| check(dir.path(), later(0), 1));
        }
    });
    assert_eq!(kinds(&server.received()), ["change critical"]);
}

#[test]
fn a_disk_that_takes_no_writes_keeps_no_news_back() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Mood::Answer(200));
    secrets(dir.path(), &format!("webhook = \"{}\"\n", server.url("/")));
    // The place of the record is taken.
    fs::create_dir_all(dir.path().join("var/lib")).unwrap();
    fs::write(dir.path().join("var/lib/raidguard"), "").unwrap();
    for minute in [0, 15, 30] {
        assert_ne!(check(dir.path(), later(minute), 1), [] as [String; 0]);
    }
    assert_eq!(kinds(&server.received()), ["change critical"], "each quarter of an hour would be noise");
    check(dir.path(), later(45), 0);
    assert_eq!(kinds(&server.received()), ["change critical", "cleared ok"]);
}

#[test]
fn a_declaration_that_cannot_be_read_is_told_by_what_is_left_and_its_mending_too() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Mood::Answer(200));
    secrets(
        dir.path(),
        &format!("webhook = \"{}\"\nheartbeat = \"{}\"\n", server.url("/"), server.url("/beat")),
    );
    let file = dir.path().join("etc/raidguard/raidguard.toml");
    fs::write(&file, "[notify]\nremind_hours = 1\n\n[[mirror]]\nnaem = \"lightning\"\n").unwrap();
    for minute in [0, 15, 30, 61] {
        tell_unreadable(&host(dir.path(), later(minute)), "line 5: unknown field", &Console::default());
    }
    let told = server.received();
    assert_eq!(kinds(&told), ["change unknown", "reminder unknown"], "and no sign of life");
    assert!(told[0].body.contains("line 5"), "{}", told[0].body);
    check(dir.path(), later(75), 0);
    let told = server.received().split_off(2);
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(kinds(&told[..1]), ["cleared ok"]);
    check(dir.path(), later(90), 0);
    assert_eq!(server.received().len(), 5, "only the sign of life");
}

#[test]
fn a_declaration_that_is_gone_is_told_and_there_is_no_sign_of_life() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Mood::Answer(200));
    secrets(
        dir.path(),
        &format!("webhook = \"{}\"\nheartbeat = \"{}\"\n", server.url("/"), server.url("/beat")),
    );
    for minute in [0, 15] {
        tell_undeclared(&host(dir.path(), later(minute)), None, &Console::default());
    }
    assert_eq!(kinds(&server.received()), ["change unknown"]);
    assert!(server.received()[0].body.contains("declares no mirror"), "{:?}", server.received());
    check(dir.path(), later(30), 0);
    assert_eq!(kinds(&server.received()[1..2]), ["cleared ok"]);
}

#[test]
fn a_test_tries_each_channel_and_none_is_said_to_work_that_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Mood::Answer(200));
    let try_out = || {
        let host = host(dir.path(), later(0));
        try_each(&host, &Channels::of(&host, None), "lightning".into(), PATIENT)
    };
    assert!(matches!(try_out(), Err(Trouble::Refused(_))), "no channel at all");
    let deaf = Deaf::new();
    let text = format!("webhook = \"{}\"\nheartbeat = \"http://{}/secret\"\n", server.url("/"), deaf.address);
    secrets(dir.path(), &text);
    let tried = try_out().unwrap();
    assert_eq!(kinds(&server.received()), ["test ok"]);
    insta::assert_snapshot!(anstream::adapter::strip_str(&ui::notify(&tried)).to_string(), @r"
    webhook: ok
    heartbeat: failed: no answer from 127.0.0.1: Connection refused (os error 111)
    ");
    fs::set_permissions(dir.path().join(&SECRETS_PATH[1..]), fs::Permissions::from_mode(0o644)).unwrap();
    let tried = try_out().unwrap();
    assert!(tried.iter().any(|one| one.channel == "secrets" && !one.ok));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever the server does meanwhile: when it is well again, every message has arrived, each once for whoever knows its id, in
    /// order, and none was sent again after it was acknowledged.
    #[test]
    fn nothing_is_lost_and_nothing_is_told_twice(
        turns in proptest::collection::vec((0_usize..3, 0_u8..12, 1_i64..500), 1..14),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let address = nobody();
        secrets(dir.path(), &format!("webhook = \"http://{address}/\"\n"));
        let (mut minute, mut received, mut told) = (0, Vec::new(), Vec::new());
            let turns = turns.into_iter().chain([(0, 0, 1000), (0, 0, 1000)]);
        for (missing, mood, minutes) in turns {
            minute += minutes;
            let mood = match mood {
                0..=3 => Some(Mood::Answer(200)),
                4 | 5 => Some(Mood::Answer(500)),
                6 | 7 => Some(Mood::HangUp),
                8 => Some(Mood::Slow(LONG)),
                9 => Some(Mood::Garbage),
                _ => None,
            };
            let server = mood.map(|mood| Server::start_at(address, mood));
            let before: Option<Told> = State::open(&host(dir.path(), later(minute))).unwrap().get("lightning", "told").unwrap();
            if let Some(kind) = health::tell(before.as_ref(), &look(missing).verdict, later(minute), Some(24)) {
                told.push(kind.as_str());
            }
            let limits = if mood == Some(Mood::Slow(LONG)) { QUICK } else { PATIENT };
            check_within(limits, dir.path(), later(minute), missing);
            received.extend(server.iter().flat_map(Server::received).map(|r| (mood, r)));
        }
        let mut seen: Vec<String> = Vec::new();
        let mut acknowledged: Vec<String> = Vec::new();
        let mut kinds_seen = Vec::new();
        for (mood, request) in &received {
            let id = &request.headers["idempotency-key"];
            prop_assert!(!acknowledged.contains(id), "sent again");
            if *mood == Some(Mood::Answer(200)) {
                acknowledged.push(id.clone());
            }
            if !seen.contains(id) {
                seen.push(id.clone());
                kinds_seen.extend(kinds(std::slice::from_ref(request)));
            }
        }
        let kinds_seen: Vec<_> = kinds_seen.iter().map(|k| k.split(' ').next().unwrap()).collect();
        prop_assert_eq!(kinds_seen, told);
        prop_assert_eq!(acknowledged, seen);
    }
}
