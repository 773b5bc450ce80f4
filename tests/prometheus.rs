//! The metrics and the alerts on them, judged by Prometheus' own promtool (scripts/test brings it).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may fail loudly"
)]

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use jiff::Timestamp;
use raidguard::{
    config::Mirror,
    health,
    model::{Observed, Record, Seen, Severity, Verdict},
    ui::{check::Checked, prometheus::prometheus},
};
use serde::Deserialize;

/// What `check --dump-observed` writes, without the verdict.
#[derive(Deserialize)]
struct Dump {
    now: Timestamp,
    mirrors: Vec<Dumped>,
}

#[derive(Deserialize)]
struct Dumped {
    declared: Mirror,
    observed: Observed,
    record: Seen<Record>,
}

fn path(below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(below)
}

fn dump(name: &str) -> Dump {
    let text = fs::read_to_string(path("tests/fixtures/observed").join(name)).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// What the program says of these machines, and how bad that is.
fn metrics(names: &[&str]) -> (String, Vec<Severity>) {
    let dumps: Vec<Dump> = names.iter().map(|name| dump(name)).collect();
    let mirrors: Vec<&Dumped> = dumps.iter().flat_map(|d| &d.mirrors).collect();
    let now = dumps.first().map_or(Timestamp::UNIX_EPOCH, |d| d.now);
    let verdicts: Vec<Verdict> =
        mirrors.iter().map(|m| health::judge(&m.declared, &m.observed, &m.record, now)).collect();
    let checked: Vec<Checked<'_>> = mirrors
        .iter()
        .zip(&verdicts)
        .map(|(m, verdict)| Checked {
            declared: &m.declared,
            observed: &m.observed,
            record: m.record.get(),
            verdict,
        })
        .collect();
    (prometheus(&checked, now), verdicts.iter().map(|v| v.level).collect())
}

/// What promtool finds wrong.
fn faults(arguments: &[&str], input: &str) -> Option<String> {
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("promtool cannot be run ({e}): scripts/test brings it"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (!output.status.success()).then(|| String::from_utf8_lossy(&said).into_owned())
}

fn promtool(arguments: &[&str], input: &str) {
    if let Some(said) = faults(arguments, input) {
        panic!("promtool {arguments:?}: {said}\n{input}");
    }
}

#[test]
fn promtool_finds_no_fault_with_the_metrics() {
    for (names, levels) in [
        (&["healthy.json"][..], &[Severity::Ok][..]),
        (&["array.json"], &[Severity::Ok]),
        (&["pool.json"], &[Severity::Ok]),
        (&["broken.json"], &[Severity::Critical]),
        (&["unread.json"], &[Severity::Unknown]),
        (
            &["healthy.json", "broken.json", "unread.json"],
            &[Severity::Ok, Severity::Critical, Severity::Unknown],
        ),
        (&[], &[]),
    ] {
        let (text, found) = metrics(names);
        assert_eq!(found, levels, "{names:?}");
        promtool(&["check", "metrics"], &text);
    }
    let unended = "raidguard_verdict{mirror=\"a\n";
    assert!(faults(&["check", "metrics"], unended).is_some(), "promtool finds no fault with anything");
}

fn rules() -> String {
    fs::read_to_string(path("templates/prometheus/raidguard.rules.yml")).unwrap()
}

/// The names of all alerts.
fn alerts(rules: &str) -> Vec<&str> {
    rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect()
}

/// Every name of a metric of ours in a text.
fn names(text: &str) -> BTreeSet<&str> {
    let word = |c: char| c.is_ascii_lowercase() || c == '_';
    text.split(|c| !word(c)).filter(|w| w.starts_with("raidguard_")).collect()
}

#[test]
fn the_rules_are_sound_and_speak_of_metrics_that_there_are() {
    let rules = rules();
    promtool(&["check", "rules", path("templates/prometheus/raidguard.rules.yml").to_str().unwrap()], "");
    let (text, _) = metrics(&["healthy.json", "broken.json"]);
    let there = names(&text);
    for name in names(&rules) {
        assert!(there.contains(name), "the rules speak of {name}, which the program does not write");
    }
}

#[test]
fn every_alert_is_tested_raised_and_not_raised() {
    let tests = fs::read_to_string(path("templates/prometheus/raidguard.test.yml")).unwrap();
    for alert in alerts(&rules()) {
        let of_it = || {
            tests
                .split("- eval_time:")
                .filter(|t| t.lines().nth(1).is_some_and(|l| l.trim() == format!("alertname: {alert}")))
        };
        assert!(of_it().any(|t| t.contains("exp_labels:")), "{alert} is never raised in raidguard.test.yml");
        assert!(
            of_it().any(|t| t.contains("exp_alerts: []")),
            "{alert} is always raised in raidguard.test.yml"
        );
    }
    promtool(&["test", "rules", path("templates/prometheus/raidguard.test.yml").to_str().unwrap()], "");
}

/// A rule test whose series are these metrics as a collector would label them, for an hour from when they were made. Prometheus' clock
/// begins at 0 there, so times are told from the moment of the check. Of each alert is said whether it is in this state then.
fn rule_test(text: &str, state: &str, alerts: &[(&str, bool)]) -> String {
    let rules = path("templates/prometheus/raidguard.rules.yml");
    let mut out = format!("rule_files: ['{}']\nevaluation_interval: 5m\ntests:\n", rules.display());
    out.push_str("  - interval: 5m\n    input_series:\n");
    let now = dump("healthy.json").now.as_second();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let series = match series.split_once('{') {
            Some((name, labels)) => format!("{name}{{instance=\"a\",job=\"node\",{labels}"),
            None => format!("{series}{{instance=\"a\",job=\"node\"}}"),
        };
        let value: i128 = value.parse().unwrap();
        let value = if series.contains("_timestamp_seconds") { value - i128::from(now) } else { value };
        let series = series.replace('\'', "''");
        let _ = write!(out, "      - series: '{series}'\n        values: '{value}x12'\n");
    }
    out.push_str("    promql_expr_test:\n");
    for (alert, raised) in alerts {
        let expr = format!("count(ALERTS{{alertname=\"{alert}\",alertstate=\"{state}\"}}) > bool 0");
        let samples = if *raised { "[{labels: '{}', value: 1}]" } else { "[]" };
        let _ =
            write!(out, "      - expr: '{expr}'\n        eval_time: 1h\n        exp_samples: {samples}\n");
    }
    out
}

#[test]
fn what_the_program_writes_raises_the_alerts_that_it_should() {
    let rules = rules();
    let judged = |names: &[&str], raised: &[&str]| {
        let alerts: Vec<_> = alerts(&rules).into_iter().map(|a| (a, raised.contains(&a))).collect();
        assert_eq!(alerts.iter().filter(|(_, raised)| *raised).count(), raised.len());
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("test.yml");
        fs::write(&file, rule_test(&metrics(names).0, "firing", &alerts)).unwrap();
        promtool(&["test", "rules", file.to_str().unwrap()], "");
    };
    judged(&["healthy.json"], &[]);
    judged(&["unread.json"], &["RaidguardUnknown"]);
    judged(
        &["healthy.json", "broken.json"],
        &[
            "RaidguardCritical",
            "RaidguardFreeLast",
            "RaidguardFreeLow",
            "RaidguardMemberMissing",
            "RaidguardNoRedundancy",
            "RaidguardScrubUncorrectable",
        ],
    );
    judged(&[], &["RaidguardAbsent"]);
}

/// Where one waits for days, it is raised at last.
#[test]
fn of_a_healthy_mirror_of_each_kind_no_alert_is_even_waited_for() {
    let rules = rules();
    let alerts: Vec<_> = alerts(&rules).into_iter().map(|alert| (alert, false)).collect();
    for name in ["healthy.json", "array.json", "pool.json"] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("test.yml");
        for state in ["pending", "firing"] {
            fs::write(&file, rule_test(&metrics(&[name]).0, state, &alerts)).unwrap();
            promtool(&["test", "rules", file.to_str().unwrap()], "");
        }
    }
}
