//! What `check` says: a few calm lines when all is well, else each fault with its evidence and what mends it.

use std::fmt::Write as _;

use serde::Serialize;

use super::printable;
use crate::{
    config::Mirror,
    health::{Finding, Level, Verdict},
    model::mirror::{MirrorState, Observation},
};

/// One mirror's part of the answer.
#[derive(Debug, Clone, Copy)]
pub struct Checked<'a> {
    /// What should be.
    pub declared: &'a Mirror,
    /// What was seen.
    pub observed: &'a Observation,
    /// What is to be said of it.
    pub verdict: &'a Verdict,
}

/// `check --format json`.
#[derive(Debug, Clone, Serialize)]
pub struct CheckJson<'a> {
    /// The version of this form.
    pub schema: u32,
    /// The worst verdict.
    pub verdict: Level,
    /// Each mirror, in the declared order.
    pub mirrors: Vec<MirrorJson<'a>>,
}

/// One mirror in [`CheckJson`].
#[derive(Debug, Clone, Serialize)]
pub struct MirrorJson<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its verdict.
    pub verdict: Level,
    /// Its faults, the worst first.
    pub findings: &'a [Finding],
    /// What was seen; null where that failed.
    pub observed: Option<&'a MirrorState>,
}

/// The worst of several verdicts; unknown where there is none, because nothing was looked at.
pub fn worst(checked: &[Checked<'_>]) -> Level {
    checked.iter().map(|c| c.verdict.level).max().unwrap_or(Level::Unknown)
}

/// The answer for programs.
pub fn json<'a>(checked: &[Checked<'a>]) -> CheckJson<'a> {
    let mirrors = checked.iter().map(|c| MirrorJson {
        name: &c.declared.name,
        verdict: c.verdict.level,
        findings: &c.verdict.findings,
        observed: c.observed.state.as_ref(),
    });
    CheckJson { schema: 1, verdict: worst(checked), mirrors: mirrors.collect() }
}

/// The answer for people.
pub fn human(checked: &[Checked<'_>]) -> String {
    if checked.is_empty() {
        return "unknown: no mirror is declared, so nothing was checked\n".to_owned();
    }
    checked.iter().map(one).collect::<Vec<_>>().join("\n")
}

fn one(checked: &Checked<'_>) -> String {
    let Checked { declared, observed, verdict } = checked;
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "{}: {}, btrfs {} of {} at {}",
        declared.name,
        verdict.level.as_str(),
        declared.level,
        declared.member.len(),
        printable(&declared.mountpoint.to_string_lossy())
    );
    if verdict.findings.is_empty() {
        let _ = writeln!(
            out,
            "  every member is present, every chunk is {}, no errors are counted",
            declared.level
        );
        if let Some(state) = &observed.state {
            let free = state.free.map_or_else(|| "unknown".to_owned(), |free| free.to_string());
            let _ = writeln!(out, "  {} used, {free} free", state.used);
        }
    }
    for finding in &verdict.findings {
        let _ =
            writeln!(out, "\n  {} {}: {}", finding.severity.as_str(), finding.code, printable(&finding.says));
        for evidence in &finding.evidence {
            let _ = writeln!(out, "    seen: {}", printable(evidence));
        }
        let _ = writeln!(out, "    to do: {}", printable(&finding.remedy));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{self, judge};

    fn render(declared: &Mirror, observed: &Observation) -> String {
        let verdict = judge(declared, observed);
        human(&[Checked { declared, observed, verdict: &verdict }])
    }

    #[test]
    fn calm_when_all_is_well() {
        let (declared, observed) = health::samples::healthy();
        insta::assert_snapshot!(render(&declared, &observed), @r"
        lightning: ok, btrfs raid1 of 2 at /srv/lightning
          every member is present, every chunk is raid1, no errors are counted
          400 MiB used, 30 GiB free
        ");
    }

    #[test]
    fn a_missing_member_with_evidence_and_remedy() {
        let (declared, mut observed) = health::samples::healthy();
        let member = &mut observed.state.as_mut().unwrap().members[1];
        member.missing = true;
        member.missing_because = Some("its block device\x1b[2J is gone".to_owned());
        insta::assert_snapshot!(render(&declared, &observed), @r"
        lightning: critical, btrfs raid1 of 2 at /srv/lightning

          critical MIR-MISSING: 1 of 2 members is missing; no more may fail
            seen: member 2 (Example Disk, serial E2, 32 GiB): its block device\u{1b}[2J is gone
            to do: Plug the member in again. If it is dead, give its place to another disk: `btrfs replace start DEVID NEW-DEVICE /srv/lightning`, then scrub and check.
        ");
    }

    #[test]
    fn programs_get_a_versioned_form() {
        let (declared, observed) = health::samples::healthy();
        let verdict = judge(&declared, &observed);
        let value = serde_json::to_value(json(&[Checked {
            declared: &declared,
            observed: &observed,
            verdict: &verdict,
        }]));
        let value = value.unwrap();
        assert_eq!(value["schema"], 1);
        assert_eq!(value["verdict"], "ok");
        assert_eq!(value["mirrors"][0]["observed"]["members"][0]["devid"], 1);
        assert_eq!(worst(&[]), Level::Unknown);
        assert!(human(&[]).starts_with("unknown"));
    }
}
