//! docs/json.md against what is printed, both ways.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    DeviceReport, DirectoryStatus, JobReport, Reason, StatusReport, check, devices,
    maintain::{self, ScheduleReport},
};
use crate::{
    backend::ScrubCounts,
    config::Mirror,
    health::{judge, samples},
    model::{
        Event, EventKind, Observed, Scheduler, Seen, Verdict,
        observed::{Original, Standing, StrayProcess},
        record::{Change, Fault},
        zfs::{ZfsSpace, ZfsState},
    },
    notify::Message,
};

const DOCS: &str = include_str!("../../docs/json.md");

/// The fields of one section, in the words of its table.
fn documented(section: &str) -> BTreeSet<String> {
    let rest =
        DOCS.split(&format!("\n## {section}\n")).nth(1).unwrap_or_else(|| panic!("no section {section}"));
    let table = rest.split("\n## ").next().unwrap();
    table
        .lines()
        .filter_map(|l| l.strip_prefix("| `")?.split_once('`'))
        .map(|(field, _)| field.to_owned())
        .collect()
}

/// The path of every field. `whole` are not looked into: they have a section of their own.
fn fields(value: &Value, at: &str, whole: &[&str], out: &mut BTreeSet<String>) {
    match value {
        _ if whole.contains(&at) => drop(out.insert(at.to_owned())),
        Value::Object(map) => {
            for (key, value) in map {
                let dot = if at.is_empty() { "" } else { "." };
                fields(value, &format!("{at}{dot}{key}"), whole, out);
            }
        }
        Value::Array(values) => {
            assert!(!values.is_empty(), "the sample of {at} shows nothing");
            for value in values {
                fields(value, &format!("{at}[]"), whole, out);
            }
        }
        _ => drop(out.insert(at.to_owned())),
    }
}

fn agree(section: &str, printed: &Value, whole: &[&str]) {
    let mut found = BTreeSet::new();
    fields(printed, "", whole, &mut found);
    assert_eq!(found, documented(section), "{section}");
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn job() -> JobReport {
    JobReport {
        job: "check",
        when: "0 0 * * 0".into(),
        next: vec!["soon".into()],
        last: Some(samples::now()),
        failed: None,
    }
}

/// A pool with something to show in every field.
fn pool() -> ZfsState {
    let text = include_str!("../../tests/fixtures/zfs/2.3.9/scrub-running/status-tree.json");
    let mut pool = crate::backend::zfs::json::parse_status(text).unwrap().remove(0);
    let bytes = crate::model::Bytes(1);
    pool.space = Some(ZfsSpace { size: bytes, allocated: bytes, free: bytes });
    pool.vdevs[0].ashift = Some((9, 12));
    pool
}

/// A mirror with a finding, and with something to show in every field.
fn seen() -> (Mirror, Observed, Verdict) {
    let (declared, mut observed, record) = samples::healthy();
    let state = observed.storage.get_mut().unwrap();
    state.also_mounted = vec!["/mnt".into()];
    state.unread = vec!["/dev/sdz".into()];
    state.members[1].missing = true;
    state.md = Some(crate::model::md::MdState {
        device: "/dev/md127".into(),
        metadata: "1.2".into(),
        state: "clean".into(),
        level: "raid1".into(),
        raid_disks: 2,
        degraded: Some(1),
        action: Some("recover".into()),
        progress: Some(crate::model::md::MdProgress {
            done: crate::model::Bytes(1),
            total: crate::model::Bytes(2),
            speed: Some(crate::model::Bytes(1)),
        }),
        mismatches: Some(0),
        policy: Some("bitmap".into()),
    });
    state.zfs = Some(pool());
    observed.mount.get_mut().unwrap().boot = vec!["why".into()];
    observed.claims.get_mut().unwrap()[0].without = vec!["x".into()];
    observed.mount.get_mut().unwrap().hidden = vec!["file".into()];
    let node = observed.node.get_mut().unwrap();
    node.nocow = vec!["file".into()];
    node.originals = vec![Original { path: "/home/o".into(), since: None }];
    let stray = StrayProcess { pid: 1, name: "x".into(), holds: "/x".into() };
    observed.processes.get_mut().unwrap().push(stray);
    observed.users = Seen::Read(vec!["x".into()]);
    let jobs = observed.jobs.get_mut().unwrap();
    for list in [&mut jobs.missing, &mut jobs.altered, &mut jobs.surplus, &mut jobs.idle, &mut jobs.doubled] {
        list.push("file".into());
    }
    // The first USB place is null otherwise.
    observed.disks.get_mut().unwrap()[0].usb = Some(("1-1".into(), 5000));
    let verdict = judge(&declared, &observed, &Seen::Read(record), samples::now());
    (declared, observed, verdict)
}

#[test]
fn a_path_that_is_not_utf_8_is_printed_all_the_same() {
    use std::os::unix::ffi::OsStringExt as _;
    let odd = || std::path::PathBuf::from(std::ffi::OsString::from_vec(b"/mnt/\xff".to_vec()));
    let (_, mut observed, _) = samples::healthy();
    let state = observed.storage.get_mut().unwrap();
    state.also_mounted = vec![odd()];
    state.mountpoint = Some(odd());
    state.members[0].path = Some(odd());
    observed.node.get_mut().unwrap().directory = Standing::Symlink(odd());
    let directory = DirectoryStatus { directory: odd(), points_to: Some(odd()), on_the_mirror: false };
    for printed in [super::json("a", &observed), super::json("a", &directory)] {
        assert!(printed.unwrap().contains("/mnt/\u{fffd}"));
    }
}

#[test]
fn devices_as_documented() {
    let reasons = vec![Reason { why: "is small".into(), clears_with: "a larger one".into() }];
    let mut report = DeviceReport::new(&devices::tests::sample(), 0, reasons);
    report.content.why = Some("because".into());
    agree("devices", &parsed(&super::json("devices", &[report]).unwrap()), &[]);
}

#[test]
fn status_and_what_it_is_made_of_as_documented() {
    let (declared, observed, verdict) = seen();
    agree("a finding", &serde_json::to_value(&verdict.findings[0]).unwrap(), &[]);
    let state = observed.storage.get().cloned();
    agree("an observed mirror", &serde_json::to_value(&state).unwrap(), &["zfs.vdevs[]"]);
    agree("a vdev", &serde_json::to_value(&pool().vdevs[0]).unwrap(), &["children[]"]);
    let directory =
        DirectoryStatus { directory: "/d".into(), points_to: Some("/s".into()), on_the_mirror: true };
    let change = Change {
        at: samples::now(),
        verdict: verdict.level,
        faults: vec![Fault { code: "MIR-MISSING".into(), about: String::new() }],
    };
    let report = StatusReport {
        declared,
        observed: state,
        verdict,
        since: Some(samples::now()),
        history: vec![change],
        directory: Some(directory),
        jobs: vec![job()],
    };
    let whole = ["mirrors[].declared", "mirrors[].observed", "mirrors[].verdict.findings[]"];
    agree("status", &parsed(&super::json("mirrors", &[report]).unwrap()), &whole);
}

#[test]
fn check_as_documented() {
    let (declared, observed, verdict) = seen();
    let checked =
        [check::Checked { declared: &declared, observed: &observed, record: None, verdict: &verdict }];
    let printed = serde_json::to_value(check::json(&checked)).unwrap();
    agree("check", &printed, &["mirrors[].findings[]", "mirrors[].observed"]);
    agree("what was seen", &serde_json::to_value(&observed).unwrap(), &["storage.read"]);
}

#[test]
fn recover_as_documented() {
    let report = parsed(&super::recover::tests::sample().json().unwrap());
    agree("recover", &report, &[]);
}

#[test]
fn drill_as_documented() {
    agree("drill", &parsed(&super::json("drill", &super::drill::tests::drilled(false)).unwrap()), &[]);
}

#[test]
fn maintenance_as_documented() {
    let mut scrub = maintain::tests::scrubbed(ScrubCounts { mismatched: 1, ..ScrubCounts::default() });
    scrub.compared = true;
    agree("scrub", &parsed(&super::json("scrub", &scrub).unwrap()), &[]);
    agree("balance", &parsed(&super::json("balance", &maintain::tests::balanced()).unwrap()), &[]);
    let jobs = ScheduleReport {
        mirror: "lightning".into(),
        with: Some(Scheduler::Cron),
        installed: true,
        jobs: vec![job()],
    };
    agree("schedule show", &parsed(&super::json("schedule", &[jobs]).unwrap()), &[]);
}

#[test]
fn what_channels_are_told_as_documented() {
    let (_, _, verdict) = seen();
    let event = Event {
        id: "1".into(),
        kind: EventKind::Change,
        host: "node1".into(),
        mirror: "lightning".into(),
        at: samples::now(),
        verdict: verdict.level,
        before: verdict.level,
        findings: verdict.findings.clone(),
        cleared: verdict.findings,
    };
    let message = serde_json::to_value(Message { schema: 1, event: &event }).unwrap();
    agree("a message", &message, &["findings[]", "cleared[]"]);
    let tried = super::Tried { channel: "mail", ok: false, error: Some("why".into()) };
    agree("notify", &parsed(&super::json("channels", &[tried]).unwrap()), &[]);
}

#[test]
fn a_repair_as_documented() {
    let mut report = super::repair::tests::sample();
    report.scrubs.truncate(1);
    report.lacks = vec!["member 1: it is missing".into()];
    agree("repair", &parsed(&super::json("repair", &report).unwrap()), &["repair.scrubs[]"]);
}
