//! Whether there is something to tell, after what was told last.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::model::{EventKind, Finding, Severity, Verdict, record::Told};

/// Decides whether the operator is to be told of a verdict, and why: that the faults, how grave they are, or what may still fail are others
/// than were told last, that they last for `remind_after` hours since, or that they are gone.
pub fn tell(
    told: Option<&Told>,
    verdict: &Verdict,
    now: Timestamp,
    remind_after: Option<u32>,
) -> Option<EventKind> {
    let faults: BTreeSet<_> = verdict.faults().map(name).collect();
    let told = told.filter(|told| !told.faults.is_empty());
    let Some(told) = told else { return (!faults.is_empty()).then_some(EventKind::Change) };
    if faults.is_empty() {
        return (verdict.level == Severity::Ok).then_some(EventKind::Cleared);
    }
    let differs = told.verdict != verdict.level || told.may_fail != verdict.may_fail;
    if differs || told.faults.iter().map(name).collect::<BTreeSet<_>>() != faults {
        return Some(EventKind::Change);
    }
    // A clock that was set back must not keep a reminder away.
    let since = now.duration_since(told.at).abs();
    let due = remind_after.is_some_and(|hours| since >= SignedDuration::from_hours(hours.into()));
    due.then_some(EventKind::Reminder)
}

fn name(fault: &Finding) -> (&str, &str, Severity) {
    (&fault.code, &fault.about, fault.severity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{health::samples, model::Source};

    fn fault(code: &str, about: &str, severity: Severity, evidence: &str) -> Finding {
        Finding {
            code: code.into(),
            severity,
            about: about.into(),
            says: String::new(),
            evidence: vec![evidence.into()],
            remedy: String::new(),
            source: Source::Storage,
            since: None,
        }
    }

    fn verdict(faults: &[(&str, &str, Severity)]) -> Verdict {
        let seen = samples::now().to_string();
        Verdict::of(faults.iter().map(|(code, about, s)| fault(code, about, *s, &seen)).collect(), None)
    }

    fn told(faults: &[(&str, &str, Severity)], hours_ago: i64) -> Told {
        let Verdict { level, mut findings, .. } = verdict(faults);
        for finding in &mut findings {
            finding.evidence = vec!["other evidence".into()];
        }
        let kind = if findings.is_empty() { EventKind::Cleared } else { EventKind::Change };
        Told { kind, verdict: level, may_fail: None, faults: findings, at: samples::hours_ago(hours_ago) }
    }

    #[test]
    fn each_case_of_what_was_told_and_what_is() {
        use EventKind::{Change, Cleared, Reminder};
        use Severity::{Critical, Ok, Unknown, Warning};
        type Faults<'a> = &'a [(&'a str, &'a str, Severity)];
        let (none, noted): (Faults<'_>, Faults<'_>) = (&[], &[("SCR-RUNNING", "", Ok)]);
        let missing: Faults<'_> = &[("MIR-MISSING", "2", Critical)];
        let other: Faults<'_> = &[("MIR-MISSING", "1", Critical)];
        let (old, worse): (Faults<'_>, Faults<'_>) =
            (&[("SCR-OLD", "", Warning)], &[("SCR-OLD", "", Critical)]);
        let two: Faults<'_> = &[("MIR-MISSING", "2", Critical), ("SCR-OLD", "", Warning)];
        let turned: Faults<'_> = &[("SCR-OLD", "", Critical), ("MIR-MISSING", "2", Warning)];
        let unread: Faults<'_> = &[("OBS-FAILED", "", Unknown)];
        let never = None;
        for (told, now, remind, expected) in [
            (never.clone(), none, Some(24), None),
            (never.clone(), noted, Some(24), None),
            (never.clone(), missing, Some(24), Some(Change)),
            (never, missing, None, Some(Change)),
            (Some(told(missing, 1)), missing, Some(24), None),
            (Some(told(missing, 23)), missing, Some(24), None),
            (Some(told(missing, 24)), missing, Some(24), Some(Reminder)),
            (Some(told(missing, 500)), missing, None, None),
            (Some(told(missing, 1)), missing, Some(1), Some(Reminder)),
            (Some(told(missing, -1)), missing, Some(24), None),
            (Some(told(missing, -25)), missing, Some(24), Some(Reminder)),
            (Some(told(missing, 1)), other, Some(24), Some(Change)),
            (Some(told(missing, 1)), two, Some(24), Some(Change)),
            (Some(told(two, 1)), turned, Some(24), Some(Change)),
            (Some(told(two, 1)), missing, Some(24), Some(Change)),
            (Some(told(old, 1)), worse, Some(24), Some(Change)),
            (Some(told(worse, 1)), old, Some(24), Some(Change)),
            (Some(told(missing, 1)), unread, Some(24), Some(Change)),
            (Some(told(missing, 1)), none, Some(24), Some(Cleared)),
            (Some(told(missing, 1)), noted, None, Some(Cleared)),
            (Some(told(none, 1)), none, Some(24), None),
            (Some(told(none, 500)), noted, Some(24), None),
            (Some(told(none, 1)), missing, Some(24), Some(Change)),
        ] {
            let given = super::tell(told.as_ref(), &verdict(now), samples::now(), remind);
            assert_eq!(given, expected, "{told:?} then {now:?}");
        }
        let fewer = Verdict { may_fail: Some(1), ..verdict(missing) };
        assert_eq!(super::tell(Some(&told(missing, 1)), &fewer, samples::now(), Some(24)), Some(Change));
        // Nobody makes such a verdict; were it made, it would be no reason to say that all is well.
        let odd = Verdict { level: Unknown, may_fail: None, findings: Vec::new() };
        assert_eq!(super::tell(Some(&told(missing, 1)), &odd, samples::now(), Some(24)), None);
    }
}
