use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    http::Roots,
    server::{Deaf, Mood, Server},
    *,
};
use crate::{
    exec::{Reply, ScriptedRunner},
    health::samples::now,
    model::{EventKind, Finding, Severity, Source},
};

const SECRET: &str = "s3cret";
/// For what never answers.
const QUICK: Duration = Duration::from_secs(1);
/// For what does, on a busy machine too.
const PATIENT: Duration = Duration::from_secs(20);
/// Far longer than any of it takes.
const LONG: Duration = Duration::from_secs(60);

pub(super) fn event(kind: EventKind) -> Event {
    let finding = |code: &str, severity, says: &str, evidence: &[&str]| Finding {
        code: code.into(),
        severity,
        about: String::new(),
        says: says.into(),
        evidence: evidence.iter().map(ToString::to_string).collect(),
        remedy: format!("raidguard explain {code}"),
        source: Source::Storage,
        since: Some(now()),
    };
    Event {
        id: "6d6f2b8e-0000-4000-8000-000000000001".into(),
        kind,
        host: "node1".into(),
        mirror: "lightning".into(),
        at: now(),
        verdict: Severity::Critical,
        before: Severity::Ok,
        findings: vec![
            finding("MIR-MISSING", Severity::Critical, "member 2 is missing", &["sysfs says missing=1"]),
            finding("SCR-OLD", Severity::Warning, "the last scrub was 40 days ago", &[]),
        ],
        cleared: vec![finding("SPC-METADATA", Severity::Warning, "metadata is nearly full", &[])],
    }
}

fn nothing() -> Host {
    Host::captured("/nowhere", Arc::new(ScriptedRunner::new()), now())
}

fn post(url: &str, roots: Roots) -> Result<(), HttpError> {
    post_within(PATIENT, url, roots)
}

fn post_within(limit: Duration, url: &str, roots: Roots) -> Result<(), HttpError> {
    let request = http::Request { url, token: Some(SECRET), message: Some(("id-1", "{}")) };
    let names = ScriptedRunner::new()
        .on("getent -- ahosts localhost", Reply::ok("127.0.0.1       STREAM localhost\n"))
        .on("getent -- ahosts raidguard.invalid", Reply::fail(2, ""));
    let host = Host::captured("/nowhere", Arc::new(names), now());
    http::ask(&host, &request, roots, limit)
}

#[test]
fn a_webhook_is_given_the_event_its_id_and_the_token() {
    let server = Server::start(Mood::Answer(204));
    let channel = Channel::Webhook(Webhook { url: server.url("/hook/abc"), token: Some(SECRET.into()) });
    let event = event(EventKind::Change);
    channel.send(&nothing(), &event, Limits::default()).unwrap();
    let received = server.received().pop().unwrap();
    assert_eq!(received.line, "POST /hook/abc");
    assert_eq!(received.headers["idempotency-key"], event.id);
    assert_eq!(received.headers["authorization"], format!("Bearer {SECRET}"));
    assert_eq!(received.headers["content-type"], "application/json");
    let mut body: serde_json::Value = serde_json::from_str(&received.body).unwrap();
    assert_eq!(body.as_object_mut().unwrap().remove("schema"), Some(1.into()));
    assert_eq!(body, serde_json::to_value(&event).unwrap());
    assert!(!format!("{channel:?}").contains("abc"), "an address is a secret");
}

#[test]
fn each_failure_of_a_server_is_named_and_no_secret_is_in_it() {
    let deaf = Deaf::new();
    let refused = format!("http://{}/{SECRET}", deaf.address);
    let server = Server::start(Mood::Answer(200));
    let url = server.url(&format!("/{SECRET}?token={SECRET}"));
    let mut said = BTreeMap::new();
    for (name, mood) in [
        ("refuses", Mood::Answer(503)),
        ("unknown token", Mood::Answer(401)),
        ("moved", Mood::Answer(307)),
        ("slow", Mood::Slow(LONG)),
        ("hangs up", Mood::HangUp),
        ("garbage", Mood::Garbage),
        ("headers without end", Mood::Endless),
    ] {
        server.set(mood);
        let began = Instant::now();
        let limit = if mood == Mood::Slow(LONG) { QUICK } else { PATIENT };
        let error = post_within(limit, &url, Roots::OfTheMachine).unwrap_err();
        assert!(began.elapsed() < LONG / 2, "{name}: {:?}", began.elapsed());
        said.insert(name, causes(&error));
    }
    for (name, url) in [
        ("down", refused.as_str()),
        ("no such host", &format!("http://raidguard.invalid/{SECRET}")),
        ("no address", &format!("http:///{SECRET}")),
        ("odd address", &format!("http://ho st/{SECRET}")),
    ] {
        said.insert(name, causes(&post(url, Roots::OfTheMachine).unwrap_err()));
    }
    for (name, text) in &said {
        assert!(!text.contains(SECRET), "{name}: {text}");
    }
    let port = server.url("").rsplit(':').next().unwrap().to_owned();
    assert!(!said.values().any(|text| text.contains(&port)), "{said:?}");
    insta::assert_debug_snapshot!(said, @r#"
    {
        "down": "no answer from 127.0.0.1: Connection refused (os error 111)",
        "garbage": "the answer of 127.0.0.1 is no HTTP",
        "hangs up": "no answer from 127.0.0.1: Peer disconnected",
        "headers without end": "the answer of 127.0.0.1 is no HTTP",
        "moved": "127.0.0.1 answered 307, that the address is another now: write that one into the file of secrets",
        "no address": "the address in the file of secrets is not a valid one",
        "no such host": "the host raidguard.invalid is not found",
        "odd address": "the address in the file of secrets is not a valid one",
        "refuses": "127.0.0.1 answered 503",
        "slow": "no answer from 127.0.0.1 within 1 s",
        "unknown token": "127.0.0.1 answered 401",
    }
    "#);
}

#[test]
fn a_server_with_tls_is_talked_to_when_its_certificate_can_be_trusted() {
    let server = Server::start_tls(Mood::Answer(200));
    let ours = || {
        let pem = include_bytes!("../../tests/fixtures/tls/ca.pem");
        Roots::These(vec![ureq::tls::Certificate::from_pem(pem).unwrap()])
    };
    post(&server.url("/a"), ours()).unwrap();
    assert_eq!(server.received().len(), 1);
    let untrusted = post(&server.url("/a"), Roots::OfTheMachine).unwrap_err();
    let other_name = server.url("/a").replace("localhost", "127.0.0.1");
    let other_name = post(&other_name, ours()).unwrap_err();
    let none = post(&server.url("/a"), Roots::These(Vec::new())).unwrap_err();
    assert_eq!(server.received().len(), 1, "nothing was sent to whom nobody knows");
    assert!(matches!(untrusted, HttpError::Unreachable { .. } | HttpError::NoRoots(_)), "{untrusted:?}");
    assert!(
        matches!(&other_name, HttpError::Unreachable { why, .. } if why.contains("certificate")),
        "{other_name}"
    );
    assert!(matches!(none, HttpError::NoRoots(_)), "{none}");
}

#[test]
fn a_command_has_the_facts_in_its_environment_and_on_its_standard_input() {
    let dir = tempfile::tempdir().unwrap();
    let (program, out) = (dir.path().join("tell me"), dir.path().join("out"));
    fs::write(&program, "#!/bin/sh\nenv | grep RAIDGUARD_ | sort > \"$1\"\ncat >> \"$1\"\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let host = Host::real(crate::exec::Interrupt::default());
    let argv = [program.display().to_string(), out.display().to_string()].to_vec();
    let mut event = event(EventKind::Change);
    event.mirror = "$(reboot) `x`".into();
    Channel::Command(argv).send(&host, &event, Limits::default()).unwrap();
    let (environment, json) = {
        let text = fs::read_to_string(&out).unwrap();
        let at = text.find('{').unwrap();
        (text[..at].to_owned(), text[at..].to_owned())
    };
    insta::assert_snapshot!(environment, @r"
    RAIDGUARD_BEFORE=ok
    RAIDGUARD_CODES=MIR-MISSING SCR-OLD
    RAIDGUARD_EVENT=change
    RAIDGUARD_EVENT_ID=6d6f2b8e-0000-4000-8000-000000000001
    RAIDGUARD_HOST=node1
    RAIDGUARD_MIRROR=$(reboot) `x`
    RAIDGUARD_VERDICT=critical
    ");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["mirror"], event.mirror);
}

#[test]
fn a_program_that_fails_or_hangs_did_not_take_the_message() {
    let host = Host::real(crate::exec::Interrupt::default());
    let send = |argv: &[&str]| {
        let program = if argv[0] == "/bin/sleep" { QUICK } else { PATIENT };
        let limits = Limits { program, ..Limits::default() };
        let argv = argv.iter().map(ToString::to_string).collect();
        causes(&Channel::Command(argv).send(&host, &event(EventKind::Change), limits).unwrap_err())
    };
    insta::assert_snapshot!(
        [&["/bin/false"][..], &["/nowhere/tell"], &["/bin/sleep", "60"], &["/bin/ls", "/nowhere"]].map(send).join("\n"),
        @r"
    `/bin/false` failed: it ended with exit code 1
    `/nowhere/tell` failed: it ended with exit code 127; it said: /usr/bin/env: ‘/nowhere/tell’: No such file or directory
    `/bin/sleep` failed: it took longer than 1 s and was ended
    `/bin/ls` failed: it ended with exit code 2; it said: /bin/ls: cannot access '/nowhere': No such file or directory
    "
    );
}

#[test]
fn a_letter_is_handed_to_sendmail_on_its_standard_input() {
    let runner = Arc::new(ScriptedRunner::new());
    let host = Host::captured("/nowhere", runner.clone(), now());
    // Nothing is scripted: it fails, and what was asked for is known.
    let failed = Channel::Mail("root".into()).send(&host, &event(EventKind::Test), Limits::default());
    assert!(failed.is_err());
    assert_eq!(runner.calls()[0].1, "sendmail -i -t", "the letter is in no log");
    assert!(String::from_utf8_lossy(&runner.inputs()[0]).starts_with("From: raidguard <root>\nTo: root\n"));
}

#[test]
fn a_heartbeat_asks_and_writes_and_one_does_not_hinder_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::captured(dir.path(), Arc::new(ScriptedRunner::new()), now());
    let server = Server::start(Mood::Answer(200));
    let file = Path::new("/beat");
    let written = || fs::read_to_string(dir.path().join("beat")).ok();
    let beat = |url: String, file: &Path| {
        let beat = Heartbeat::of(Some(url), Some(file.into())).unwrap();
        beat.beat(&host, now(), Severity::Warning, Limits::default())
    };
    beat(server.url("/ping"), file).unwrap();
    assert_eq!(server.received()[0].line, "GET /ping");
    assert_eq!(written(), Some(format!("{:.0} warning\n", now())));
    fs::remove_file(dir.path().join("beat")).unwrap();
    let deaf = Deaf::new();
    beat(format!("http://{}/", deaf.address), file).unwrap_err();
    assert!(written().is_some(), "written, though nobody answered");
    beat(server.url("/ping"), Path::new("/none/beat")).unwrap_err();
    assert_eq!(server.received().len(), 2, "asked, though the file could not be written");
    let tried =
        |file: &Path| Heartbeat::of(None, Some(file.into())).unwrap().try_out(&host, Limits::default());
    let before = written();
    tried(file).unwrap();
    assert_eq!(written(), before, "a test is no sign of life");
    tried(Path::new("/none/beat")).unwrap_err();
    tried(Path::new("/")).unwrap_err();
}

#[test]
fn root_gets_a_letter_where_nothing_is_declared_and_a_locked_secret_hides_no_message() {
    let dir = tempfile::tempdir().unwrap();
    let host =
        |absent: &str| Host::captured(dir.path(), Arc::new(ScriptedRunner::new().without(absent)), now());
    let names = |host: &Host, notify: Option<&Notify>| Channels::of(host, notify).takers().join(" ");
    assert_eq!(names(&host("x"), None), "mail");
    assert_eq!(names(&host("sendmail"), None), "");
    assert_eq!(names(&host("x"), Some(&Notify::default())), "", "declared that nobody is told");
    let secrets = dir.path().join(&crate::config::SECRETS_PATH[1..]);
    fs::create_dir_all(secrets.parent().unwrap()).unwrap();
    fs::write(&secrets, "webhook = \"http://127.0.0.1:1/x\"\nheartbeat = \"http://127.0.0.1:1/y\"\n")
        .unwrap();
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o644)).unwrap();
    let open = Channels::of(&host("x"), None);
    assert!(open.locked.is_some() && open.heartbeat.is_none());
    assert_eq!(open.known().join(" "), "mail webhook heartbeat");
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o600)).unwrap();
    let closed = Channels::of(&host("x"), None);
    assert!(closed.locked.is_none() && closed.heartbeat.is_some());
    assert_eq!(closed.takers().join(" "), "mail webhook");
}
