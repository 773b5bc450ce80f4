//! Halves that went on without each other.

use crate::{
    health::case::{Case, age_word},
    model::{BackendKind, Severity, observed::Claim},
};

/// Halves of which each was written to without the other.
pub(super) fn judge(case: &mut Case<'_>) {
    let Some(claims) = case.observed.claims.get() else { return };
    let apart =
        |one: &&Claim, other: &&Claim| one.without.contains(&other.uuid) && other.without.contains(&one.uuid);
    let state = |number| match case.declared.backend {
        BackendKind::Mdadm => format!("{number} events"),
        kind => format!("{} {number}", age_word(kind)),
    };
    let mut evidence = Vec::new();
    for (index, one) in claims.iter().enumerate() {
        for other in claims.iter().skip(index + 1).filter(|other| apart(&one, other)) {
            let show =
                |c: &Claim| format!("{} (member {}, {})", c.path.display(), c.devid, state(c.generation));
            evidence.push(format!("{} and {}", show(one), show(other)));
        }
    }
    if !evidence.is_empty() {
        let says = format!("halves of mirror {} were each written to alone", case.declared.name);
        case.add("MIR-SPLIT", Severity::Critical, "", says, evidence);
    }
}
