//! What `check` says: a few calm lines when all is well, else each fault with its evidence and what mends it.

use std::fmt::Write as _;

use serde::Serialize;

use super::printable;
use crate::{
    config::Mirror,
    model::{Finding, Observed, Record, Severity, Verdict, observed::DatabaseState},
};

/// One mirror's part of the answer.
#[derive(Debug, Clone, Copy)]
pub struct Checked<'a> {
    /// What should be.
    pub declared: &'a Mirror,
    /// What was seen.
    pub observed: &'a Observed,
    /// What was known before, where that could be read.
    pub record: Option<&'a Record>,
    /// What is to be said of it.
    pub verdict: &'a Verdict,
}

/// `check --format json`.
#[derive(Debug, Clone, Serialize)]
pub struct CheckJson<'a> {
    /// The version of this form.
    pub schema: u32,
    /// The worst verdict.
    pub verdict: Severity,
    /// Each mirror, in the declared order.
    pub mirrors: Vec<MirrorJson<'a>>,
}

/// One mirror in [`CheckJson`].
#[derive(Debug, Clone, Serialize)]
pub struct MirrorJson<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its verdict.
    pub verdict: Severity,
    /// How many more members may fail without loss.
    pub may_fail: Option<u64>,
    /// Its faults, the worst first, and notes.
    pub findings: &'a [Finding],
    /// What was seen.
    pub observed: &'a Observed,
}

/// The worst of several verdicts; unknown where there is none, because nothing was looked at.
pub fn worst(checked: &[Checked<'_>]) -> Severity {
    checked.iter().map(|c| c.verdict.level).max().unwrap_or(Severity::Unknown)
}

/// The answer for programs.
pub fn json<'a>(checked: &[Checked<'a>]) -> CheckJson<'a> {
    let mirrors = checked.iter().map(|c| MirrorJson {
        name: &c.declared.name,
        verdict: c.verdict.level,
        may_fail: c.verdict.may_fail,
        findings: &c.verdict.findings,
        observed: c.observed,
    });
    CheckJson { schema: 1, verdict: worst(checked), mirrors: mirrors.collect() }
}

/// The answer for people.
pub fn human(checked: &[Checked<'_>]) -> String {
    if checked.is_empty() {
        return "unknown: no mirror is declared, so nothing was checked\n  raidguard setup makes one, raidguard adopt takes one into \
                care\n"
            .to_owned();
    }
    checked.iter().map(one).collect::<Vec<_>>().join("\n")
}

fn one(checked: &Checked<'_>) -> String {
    let Checked { declared, verdict, .. } = checked;
    let mut out = String::new();
    let style = super::style_of(verdict.level);
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "{}: {style}{}{style:#}, {} {} of {} at {}",
        declared.name,
        verdict.level.as_str(),
        declared.backend,
        declared.level,
        declared.member.len(),
        printable(&declared.mountpoint.to_string_lossy())
    );
    if verdict.faults().next().is_none() {
        well(&mut out, checked);
    }
    for finding in &verdict.findings {
        if finding.severity == Severity::Ok {
            let _ = writeln!(out, "  note {}: {}", finding.code, printable(&finding.says));
            continue;
        }
        let style = super::style_of(finding.severity);
        let _ = writeln!(
            out,
            "\n  {style}{}{style:#} {}: {}",
            finding.severity,
            finding.code,
            printable(&finding.says)
        );
        for evidence in &finding.evidence {
            let _ = writeln!(out, "    seen: {}", printable(evidence));
        }
        let _ = writeln!(out, "    to do: {}", printable(&finding.remedy));
    }
    out
}

/// What is said when all is well.
fn well(out: &mut String, Checked { declared, observed, record, .. }: &Checked<'_>) {
    let _ = writeln!(
        out,
        "  every member is present, {} is {}, no new errors are counted",
        declared.backend.whole_word(),
        declared.level
    );
    if let Some(state) = observed.storage.get() {
        let free = state.free.map_or_else(|| "unknown".to_owned(), |free| free.to_string());
        let _ = writeln!(out, "  {} used, {free} free", state.used);
    }
    let looked = match observed.databases.get() {
        Some(found) => Some(("now".to_owned(), found)),
        None => record.and_then(|r| r.databases.as_ref()).map(|(at, found)| (format!("{at:.0}"), found)),
    };
    for (when, facts) in looked.iter().flat_map(|(when, found)| found.iter().map(move |f| (when, f))) {
        if let DatabaseState::Sound(version) = &facts.state {
            let name = if facts.network.is_empty() { "the database" } else { &facts.network };
            let _ =
                writeln!(out, "  {name}: {version} ({})", if when == "now" { "just checked" } else { when });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        health::{judge, samples},
        model::Seen,
    };

    fn render(declared: &Mirror, observed: &Observed, record: &Record) -> String {
        let verdict = judge(declared, observed, &Seen::Read(record.clone()), samples::now());
        let text = human(&[Checked { declared, observed, record: Some(record), verdict: &verdict }]);
        anstream::adapter::strip_str(&text).to_string()
    }

    #[test]
    fn calm_when_all_is_well() {
        let (declared, observed, record) = samples::healthy();
        insta::assert_snapshot!(render(&declared, &observed, &record), @r"
        lightning: ok, btrfs raid1 of 2 at /srv/lightning
          every member is present, every chunk is raid1, no new errors are counted
          400 MiB used, 30 GiB free
          bitcoin: sound, data_version 120 (just checked)
        ");
    }

    #[test]
    fn a_missing_member_with_evidence_and_remedy() {
        let (declared, mut observed, record) = samples::healthy();
        let member = &mut observed.storage.get_mut().unwrap().members[1];
        member.missing = true;
        member.missing_because = Some("its block device\x1b[2J is gone".to_owned());
        insta::assert_snapshot!(render(&declared, &observed, &record), @r"
        lightning: critical, btrfs raid1 of 2 at /srv/lightning

          critical MIR-MISSING: 1 of 2 members is missing; no more may fail
            seen: member 2 (Example Disk, serial E2, 32 GiB): its block device\u{1b}[2J is gone
            to do: Plug the member in again, then `raidguard repair lightning`. If it is dead, give its place to another disk: `raidguard replace lightning --new NEW-DEVICE`.
        ");
    }

    #[test]
    fn programs_get_a_versioned_form() {
        let (declared, observed, record) = samples::healthy();
        let verdict = judge(&declared, &observed, &Seen::Read(record), samples::now());
        let checked = [Checked { declared: &declared, observed: &observed, record: None, verdict: &verdict }];
        let value = serde_json::to_value(json(&checked)).unwrap();
        assert_eq!(value["schema"], 1);
        assert_eq!(value["verdict"], "ok");
        assert_eq!(value["mirrors"][0]["observed"]["storage"]["read"]["members"][0]["devid"], 1);
        assert_eq!(worst(&[]), Severity::Unknown);
        assert!(human(&[]).starts_with("unknown"));
    }
}
