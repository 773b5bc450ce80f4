//! From what was declared, seen and remembered to a verdict.

use jiff::Timestamp;

use super::{case::Case, rules};
use crate::{
    config::Mirror,
    model::{Finding, Observed, Record, Seen, Severity, Source, Verdict, mirror::MirrorState},
};

/// Compares what should be with what was seen. Ok only if everything was read; what was wrong when its source could last be read still
/// counts while that source fails.
pub fn judge(declared: &Mirror, observed: &Observed, record: &Seen<Record>, now: Timestamp) -> Verdict {
    let nothing = Record::default();
    let known = record.get().unwrap_or(&nothing);
    let mut case = Case { declared, observed, record: known, now, findings: Vec::new() };
    let mut failed: Vec<Source> = Vec::new();
    let mut failures = observed.failures();
    failures.extend(record.failure().map(|why| (Source::Record, why)));
    for (source, why) in failures {
        case.unread(source, "", format!("{} could not be read", source.as_str()), vec![why.to_owned()]);
        failed.push(source);
    }
    rules::mirror::judge(&mut case);
    rules::scrub::judge(&mut case);
    rules::space::judge(&mut case);
    rules::mount::judge(&mut case);
    rules::node::judge(&mut case);
    rules::jobs::judge(&mut case);
    rules::disks::judge(&mut case);
    rules::channels::judge(&mut case);
    let mut findings = case.findings;
    carry_over(known, &failed, &mut findings);
    for finding in &mut findings {
        let before = known.open.iter().find(|f| f.is_same(finding)).and_then(|f| f.since);
        finding.since = before.or(Some(now));
    }
    Verdict::of(findings, observed.storage.get().and_then(|state| may_fail(state, known)))
}

/// A fault does not go away because nobody can look.
fn carry_over(record: &Record, failed: &[Source], findings: &mut Vec<Finding>) {
    const NOTE: &str = "this was seen when it could last be read";
    let stands =
        |f: &&Finding| f.severity > Severity::Ok && f.code != "OBS-FAILED" && failed.contains(&f.source);
    for known in record.open.iter().filter(stands) {
        if !findings.iter().any(|f| f.is_same(known)) {
            let mut finding = known.clone();
            if finding.evidence.last().is_none_or(|last| last != NOTE) {
                finding.evidence.push(NOTE.to_owned());
            }
            findings.push(finding);
        }
    }
}

/// From the chunks that hold something and the members that are gone, or lack something: what the level says counts only where every
/// chunk has it.
pub(super) fn may_fail(state: &MirrorState, record: &Record) -> Option<u64> {
    if let Some(md) = &state.md {
        let whole = state.members.iter().filter(|m| m.is_whole()).count() as u64;
        let short = md.raid_disks.saturating_sub(whole);
        return match md.level.as_str() {
            "raid1" if state.mounted => Some(whole.saturating_sub(1)),
            "raid10" if state.mounted => Some(u64::from(short == 0)),
            _ => None,
        };
    }
    if state.zfs.is_some() {
        let left = rules::zfs::left(state, record).filter(|_| state.mounted)?;
        return Some(u64::try_from(left).unwrap_or_default());
    }
    let used = state.profiles.iter().filter(|p| p.used.0 > 0);
    let spare = used.map(|p| p.copies().map(|c| c.devices - 1)).collect::<Option<Vec<_>>>()?;
    let missing = state.members.iter().filter(|m| m.missing).count() as u64;
    let least = spare.into_iter().min().filter(|_| state.mounted)?;
    Some(least.saturating_sub(missing + rules::mirror::lacking(state, record)))
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
