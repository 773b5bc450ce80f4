use std::fmt::Write as _;

use super::*;
use crate::{
    health::{
        findings,
        md_states::md_states,
        samples::{healthy, hours_ago, now},
        states::{Change, State, changed, mirror_states, node_states, states, upkeep_states},
        zfs_states::zfs_states,
    },
    model::observed::SmartFacts,
};

fn verdict((declared, observed, record): &State) -> Verdict {
    judge(declared, observed, &Seen::Read(record.clone()), now())
}

/// A state's verdict in a few lines.
fn told(states: &[(&'static str, Change)]) -> String {
    let mut out = String::new();
    for (name, change) in states {
        tell(&mut out, name, &verdict(&changed(*change)));
    }
    out
}

fn tell(out: &mut String, name: &str, verdict: &Verdict) {
    let may_fail = verdict.may_fail.map_or("?".to_owned(), |n| n.to_string());
    let _ = writeln!(out, "{name}: {} (may fail: {may_fail})", verdict.level);
    for f in &verdict.findings {
        let about = if f.about.is_empty() { String::new() } else { format!(" [{}]", f.about) };
        let _ = writeln!(out, "  {} {}{about}: {}", f.severity, f.code, f.says);
        for evidence in &f.evidence {
            let _ = writeln!(out, "      {evidence}");
        }
    }
}

#[test]
fn states_of_the_mirror() {
    insta::assert_snapshot!(told(&mirror_states()));
}

#[test]
fn states_of_an_array() {
    insta::assert_snapshot!(told(&md_states()));
}

#[test]
fn states_of_a_pool() {
    insta::assert_snapshot!(told(&zfs_states()));
}

#[test]
fn states_of_the_upkeep() {
    insta::assert_snapshot!(told(&upkeep_states()));
}

#[test]
fn states_of_the_node() {
    insta::assert_snapshot!(told(&node_states()));
}

#[test]
fn every_finding_is_raised_by_a_state_and_none_by_a_healthy_mirror() {
    let all = states();
    assert!(all.len() >= 100, "{}", all.len());
    assert_eq!(verdict(&healthy()).findings, []);
    let raised: std::collections::BTreeSet<String> =
        all.iter().flat_map(|(_, change)| verdict(&changed(*change)).findings).map(|f| f.code).collect();
    for entry in findings::codes() {
        assert!(raised.contains(entry.code), "no state raises {}", entry.code);
    }
    for code in raised {
        assert!(findings::find(&code).is_some(), "{code} is not explained");
    }
}

#[test]
fn a_remedy_has_no_word_left_to_fill_in_that_is_known() {
    for (name, change) in states() {
        for finding in verdict(&changed(change)).findings {
            for word in [
                "MOUNTPOINT",
                "NAME",
                "LEVEL",
                "FSUUID",
                "DATA",
                "DIRECTORY",
                "PARENT",
                "SECRET",
                "JOB",
                "DISK",
                "ORIGINAL",
            ] {
                let left = finding
                    .remedy
                    .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
                    .any(|w| w == word);
                assert!(!left, "{name}: {}: {}", finding.code, finding.remedy);
            }
        }
    }
}

type Source = (&'static str, fn(&mut Observed));

const SOURCES: &[Source] = &[
    ("storage", |o| o.storage = Seen::Failed("gone".into())),
    ("claims", |o| o.claims = Seen::Failed("gone".into())),
    ("mount", |o| o.mount = Seen::Failed("gone".into())),
    ("scrub", |o| o.scrub = Seen::Failed("gone".into())),
    ("disks", |o| o.disks = Seen::Failed("gone".into())),
    ("smart", |o| o.smart.push(SmartFacts { disk: "sdb".into(), smart: Seen::Failed("gone".into()) })),
    ("one disk's health", |o| o.smart[0].smart = Seen::Failed("gone".into())),
    ("node", |o| o.node = Seen::Failed("gone".into())),
    ("processes", |o| o.processes = Seen::Failed("gone".into())),
    ("jobs", |o| o.jobs = Seen::Failed("gone".into())),
    ("databases", |o| o.databases = Seen::Failed("gone".into())),
    ("channels", |o| o.channels = Seen::Failed("gone".into())),
];

#[test]
fn a_source_that_fails_never_improves_the_verdict() {
    for (name, change) in states() {
        let (declared, observed, record) = changed(change);
        let before = judge(&declared, &observed, &Seen::Read(record.clone()), now());
        // What the last check knew.
        let known = Record { open: before.findings.clone(), ..record.clone() };
        for (source, remove) in SOURCES {
            let mut less = observed.clone();
            remove(&mut less);
            let after = judge(&declared, &less, &Seen::Read(known.clone()), now());
            assert!(
                after.level >= before.level.max(Severity::Unknown),
                "{name}, without {source}: {after:#?}"
            );
            // Also where nothing was known before: it is never ok, and never only a warning.
            let fresh = judge(&declared, &less, &Seen::Read(record.clone()), now());
            assert!(fresh.level >= Severity::Unknown, "{name}, without {source}: {fresh:#?}");
        }
        let after = judge(&declared, &observed, &Seen::Failed("gone".into()), now());
        assert!(after.level >= Severity::Unknown, "{name}, without the record: {after:#?}");
    }
}

#[test]
fn what_stands_keeps_its_time_and_what_goes_is_gone() {
    let (declared, mut observed, mut record) = healthy();
    observed.storage.get_mut().unwrap().members[1].missing = true;
    let first = judge(&declared, &observed, &Seen::Read(record.clone()), hours_ago(5));
    record.open = first.findings;
    let later = judge(&declared, &observed, &Seen::Read(record.clone()), now());
    assert_eq!(later.findings[0].since, Some(hours_ago(5)));
    let (_, mended, _) = healthy();
    assert_eq!(judge(&declared, &mended, &Seen::Read(record), now()).level, Severity::Ok);
}

#[test]
fn what_was_seen_survives_json() {
    for (name, change) in states() {
        let (declared, observed, record) = changed(change);
        let text = serde_json::to_string(&(&observed, &record)).unwrap();
        let (again, remembered): (Observed, Record) = serde_json::from_str(&text).unwrap();
        assert_eq!((&again, &remembered), (&observed, &record), "{name}");
        assert_eq!(verdict(&(declared.clone(), again, remembered)), verdict(&(declared, observed, record)));
    }
}

#[test]
fn a_remedy_names_this_mirror_whatever_it_is_called() {
    let mut state = changed(|state| state.1.storage.get_mut().unwrap().profiles[0].profile = "single".into());
    (state.0.name, state.0.mountpoint) = ("LEVEL".into(), "/srv/NAME of it".into());
    let seen = state.1.storage.get_mut().unwrap();
    (seen.mountpoint, seen.read_only) = (Some(state.0.mountpoint.clone()), true);
    let found = verdict(&state).findings;
    let remedy = |code: &str| found.iter().find(|f| f.code == code).unwrap().remedy.clone();
    assert!(remedy("MIR-PROFILE").ends_with("`raidguard repair LEVEL`, which stores it as raid1 again."));
    let mounts = "`umount '/srv/NAME of it'`, `mount '/srv/NAME of it'`, `raidguard scrub LEVEL`.";
    assert!(remedy("MIR-READONLY").ends_with(mounts), "{}", remedy("MIR-READONLY"));
}

/// What `check --dump-observed` wrote of a real mirror, with the faults that it found (tests/recorded/).
#[derive(serde::Deserialize)]
struct Recorded {
    now: Timestamp,
    mirrors: Vec<Dumped>,
    faults: Vec<(String, Severity, String)>,
}

#[derive(serde::Deserialize)]
struct Dumped {
    declared: Mirror,
    observed: Observed,
    record: Seen<Record>,
}

#[test]
fn what_real_mirrors_showed_is_judged_as_it_was() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/observed/recorded");
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 25, "{}", files.len());
    let mut out = String::new();
    for file in files {
        let name = file.file_stem().unwrap().to_string_lossy();
        let recorded: Recorded = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let mut found = Vec::new();
        for one in recorded.mirrors {
            let verdict = judge(&one.declared, &one.observed, &one.record, recorded.now);
            tell(&mut out, &name, &verdict);
            found.extend(verdict.faults().map(|f| (f.code.clone(), f.severity, f.about.clone())));
        }
        assert_eq!(found, recorded.faults, "{name}");
    }
    insta::assert_snapshot!(out);
}

/// Numbers that are none a machine should give, and words that stand for nothing.
const ODD: &[&str] = &[
    "0",
    "1",
    "-1",
    "18446744073709551615",
    "9223372036854775807",
    "1.5e300",
    "null",
    "true",
    "\"\"",
    "\"x\\ny\"",
    "[]",
    "{}",
    "\"9999-12-31T00:00:00Z\"",
    "\"-009999-01-01T00:00:00Z\"",
    "\"raid1\"",
    "\"raid10\"",
    "\"missing\"",
    "\"skipped\"",
    "{\"failed\":\"gone\"}",
];

fn leaves(value: &mut serde_json::Value) -> usize {
    match value {
        serde_json::Value::Array(all) => all.iter_mut().map(leaves).sum::<usize>() + 1,
        serde_json::Value::Object(all) => all.values_mut().map(leaves).sum::<usize>() + 1,
        _ => 1,
    }
}

/// Puts `odd` in the place of the n-th value.
fn replace(value: &mut serde_json::Value, at: &mut usize, odd: &serde_json::Value) {
    if *at == 0 {
        *value = odd.clone();
    }
    *at = at.wrapping_sub(1);
    match value {
        serde_json::Value::Array(all) => all.iter_mut().for_each(|one| replace(one, at, odd)),
        serde_json::Value::Object(all) => all.values_mut().for_each(|one| replace(one, at, odd)),
        _ => {}
    }
}

/// A state's three parts as one value.
fn value_of((declared, observed, record): &State) -> serde_json::Value {
    serde_json::to_value((declared, observed, record)).unwrap()
}

proptest::proptest! {
    /// Whatever a machine shows, it is judged and told: never a panic, and never ok beside a fault or a source that failed.
    #[test]
    fn fuzz_judged(
        state in proptest::sample::select(states()),
        changes in proptest::collection::vec((proptest::prelude::any::<proptest::sample::Index>(), 0..ODD.len()), 0..4),
    ) {
        let mut value = value_of(&changed(state.1));
        for (place, odd) in changes {
            let mut at = place.index(leaves(&mut value));
            replace(&mut value, &mut at, &serde_json::from_str(ODD[odd]).unwrap());
        }
        let Ok(state): Result<State, _> = serde_json::from_value(value) else { return Ok(()) };
        // A declaration with such a name is not read.
        if crate::config::check_name(&state.0.name).is_err() {
            return Ok(());
        }
        let found = verdict(&state);
        let worst = found.findings.iter().map(|f| f.severity).max().unwrap_or(Severity::Ok);
        proptest::prop_assert_eq!(found.level, worst);
        proptest::prop_assert!(state.1.failures().is_empty() || found.level > Severity::Ok);
        let (declared, observed, record) = &state;
        let checked = [crate::ui::check::Checked { declared, observed, record: Some(record), verdict: &found }];
        crate::ui::check::human(&checked);
        serde_json::to_string(&crate::ui::check::json(&checked)).unwrap();
        let line = crate::ui::nagios::nagios(&checked);
        proptest::prop_assert!(line.trim_end().lines().count() == 1, "{}", line);
        crate::ui::prometheus::prometheus(&checked, now());
    }
}
