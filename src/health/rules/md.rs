//! What only an array of md has: whether it is started, the work that makes its members equal, how it is brought in step after a crash, and
//! where its members differ.

use jiff::Timestamp;

use crate::{
    health::case::Case,
    model::{BackendKind, Record, Severity, Source, md::MdState, mirror::MirrorState, record::Mismatches},
};

/// From so many sectors on that differ members are not copies of each other. Fewer come of writes that were under way: a page that is
/// changed while it is written reaches each member as it then was (md(4), SCRUBBING AND MISMATCHES).
const MISMATCHES: u64 = 128;

pub(super) fn judge(case: &mut Case<'_>, state: &MirrorState) {
    if case.declared.backend != BackendKind::Mdadm {
        return;
    }
    match &state.md {
        Some(md) if md.runs() => running(case, state, md),
        _ if state.members.is_empty() => {}
        found => {
            let says = format!("the array of mirror {} is not started", case.declared.name);
            let evidence = match found {
                Some(md) => vec![format!("{} is {}", md.device.display(), md.state)],
                None => vec!["its members are there, and the kernel has no array of them".to_owned()],
            };
            case.add("MIR-INACTIVE", Severity::Critical, "", says, evidence);
        }
    }
}

fn running(case: &mut Case<'_>, state: &MirrorState, md: &MdState) {
    let name = &case.declared.name;
    let at = vec![format!("{} is {}{}", md.device.display(), md.state, progress(state))];
    match md.action.as_deref() {
        Some("resync") => {
            let says = format!("the members of mirror {name} are being made equal");
            case.add("MIR-RESYNC", Severity::Warning, "", says, at);
        }
        Some("reshape") => {
            case.add("MIR-RESYNC", Severity::Warning, "", format!("mirror {name} is being reshaped"), at);
        }
        Some("check" | "repair") => {
            case.add("SCR-RUNNING", Severity::Ok, "", format!("mirror {name} is being scrubbed"), at);
            case.read_from(Source::Storage);
        }
        _ => {}
    }
    if md.state == "read-auto" {
        let says = format!("the array of mirror {name} waits for the first write");
        case.add("MIR-READ-AUTO", Severity::Ok, "", says, Vec::new());
    }
    if md.policy.as_deref() != Some("bitmap") {
        let says = format!("mirror {name} keeps no bitmap of what is being written");
        let policy = md.policy.as_deref().unwrap_or("unknown");
        case.add("MIR-NO-BITMAP", Severity::Warning, "", says, vec![format!("consistency policy: {policy}")]);
    }
    let known = case.record.acknowledged_mismatches.unwrap_or_default();
    let found = mismatches(state, case.record, case.now);
    if let Some(Mismatches { sectors, at }) = found.filter(|f| f.sectors >= MISMATCHES && f.sectors > known) {
        let says = format!("the members of mirror {name} differed in {sectors} sectors when last compared");
        let kept = (found == case.record.mismatches).then(|| format!("that was found {at:.0}"));
        let acknowledged = (known > 0).then(|| format!("{known} of them acknowledged"));
        let evidence = kept.into_iter().chain(acknowledged).collect();
        case.add("MIR-MISMATCH", Severity::Warning, "", says, evidence);
    }
}

/// Where the members of an array are known to differ: the kernel's count begins anew at each boot and with whatever compares a part of it,
/// so only a whole scrub takes back what was found before.
pub fn mismatches(state: &MirrorState, record: &Record, now: Timestamp) -> Option<Mismatches> {
    let known = record.mismatches;
    // While members are compared the count grows from nothing.
    let counted =
        state.md.as_ref().filter(|md| md.runs() && md.action.is_none()).and_then(|md| md.mismatches);
    let more = counted.filter(|sectors| *sectors > known.map_or(0, |known| known.sectors));
    more.map(|sectors| Mismatches { sectors, at: now }).or(known)
}

/// How far the work on the array is, to be put behind a word.
pub(super) fn progress(state: &MirrorState) -> String {
    let Some(md) = &state.md else { return String::new() };
    let Some(action) = &md.action else { return String::new() };
    match &md.progress {
        Some(p) => format!(": {action}, {} %, {} of {}", p.percent(), p.done, p.total),
        None => format!(": {action}, which waits for other work"),
    }
}
