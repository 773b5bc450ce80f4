//! One line for Nagios and its kin, with performance data (Nagios plugin development guidelines, 2.6).

use std::fmt::Write as _;

use super::{
    check::{Checked, worst},
    printable,
};
use crate::model::{Severity, mirror::MirrorState};

/// The line, with its newline. The bar that parts text and performance data stands nowhere else in it.
pub fn nagios(checked: &[Checked<'_>]) -> String {
    let word = match worst(checked) {
        Severity::Ok => "OK",
        Severity::Warning => "WARNING",
        Severity::Critical => "CRITICAL",
        Severity::Unknown => "UNKNOWN",
    };
    let mut text = format!("RAIDGUARD {word} - ");
    if checked.is_empty() {
        text.push_str("no mirror is declared");
    }
    let parts = checked.iter().map(|c| {
        let mut faults = c.verdict.faults();
        match faults.next() {
            None => format!(
                "{}: every member present, {} {}",
                c.declared.name,
                c.declared.backend.whole_word(),
                c.declared.level
            ),
            Some(first) => {
                let more = match faults.count() {
                    0 => String::new(),
                    more => format!(" (and {more} more)"),
                };
                format!("{}: {} {}{more}", c.declared.name, first.code, first.says)
            }
        }
    });
    text.push_str(&printable(&parts.collect::<Vec<_>>().join("; ")).replace('|', "/"));
    let mut data = String::new();
    for c in checked {
        performance(&mut data, &c.declared.name, c.observed.storage.get(), c.verdict.may_fail);
    }
    if data.is_empty() { format!("{text}\n") } else { format!("{text} |{data}\n") }
}

/// The line where no verdict could be reached.
pub fn unknown(why: &str) -> String {
    format!("RAIDGUARD UNKNOWN - {}\n", printable(why).replace('|', "/"))
}

fn performance(out: &mut String, name: &str, state: Option<&MirrorState>, may_fail: Option<u64>) {
    if let Some(may_fail) = may_fail {
        let _ = write!(out, " {name}_may_fail={may_fail};1:;1:;0");
    }
    let Some(state) = state.filter(|state| !state.has_stopped()) else { return };
    let missing = state.members.iter().filter(|m| m.missing).count();
    let errors: u64 = state
        .members
        .iter()
        .filter_map(|m| m.errors)
        .flat_map(|e| e.named())
        .fold(0, |sum, (_, n)| sum.saturating_add(n));
    let _ = write!(
        out,
        " {name}_missing={missing};0;0;0 {name}_errors={errors}c;;;0 {name}_used={}B;;;0",
        state.used.0
    );
    if let Some(free) = state.free {
        let _ = write!(out, " {name}_free={}B;;;0", free.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        health::{judge, samples},
        model::Seen,
    };

    #[test]
    fn one_line_whatever_is_wrong() {
        let (declared, mut observed, record) = samples::healthy();
        let line = |observed: &crate::model::Observed| {
            let verdict = judge(&declared, observed, &Seen::Read(record.clone()), samples::now());
            nagios(&[Checked { declared: &declared, observed, record: None, verdict: &verdict }])
        };
        insta::assert_snapshot!(line(&observed), @r"RAIDGUARD OK - lightning: every member present, every chunk raid1 | lightning_may_fail=1;1:;1:;0 lightning_missing=0;0;0;0 lightning_errors=0c;;;0 lightning_used=419430400B;;;0 lightning_free=32212254720B;;;0");
        let state = observed.storage.get_mut().unwrap();
        (state.mounted, state.instead) = (false, Some("a|b\nc".into()));
        state.members[0].missing = true;
        let text = line(&observed);
        assert_eq!((text.matches('|').count(), text.matches('\n').count()), (1, 1), "{text}");
        assert!(text.starts_with("RAIDGUARD CRITICAL - lightning: "), "{text}");
        assert_eq!(nagios(&[]), "RAIDGUARD UNKNOWN - no mirror is declared\n");
    }
}
