//! The rules, one function each.

use super::{Finding, Level, Verdict, findings};
use crate::config::{Member, Mirror};
use crate::model::mirror::{MemberState, MirrorState, Observation, ProfileUse};

/// Compares what should be with what was seen. Ok only if everything was read.
pub fn judge(declared: &Mirror, observed: &Observation) -> Verdict {
    let mut findings = Vec::new();
    for failure in &observed.failures {
        findings.push(Finding {
            evidence: vec![failure.error.clone()],
            ..finding(declared, "OBS-FAILED", Level::Unknown, format!("{} could not be read", failure.probe))
        });
    }
    match &observed.state {
        Some(state) => {
            place(declared, state, &mut findings);
            members(declared, state, &mut findings);
            profiles(declared, state, &mut findings);
            stale(declared, state, &mut findings);
            counters(declared, state, &mut findings);
            modes(declared, state, &mut findings);
        }
        None if observed.failures.is_empty() => {
            let says = format!("mirror {} was not looked at", declared.name);
            findings.push(finding(declared, "OBS-FAILED", Level::Unknown, says));
        }
        None => {}
    }
    Verdict::of(findings, observed.state.as_ref().and_then(may_fail))
}

/// From the chunks that hold something and the members that are gone: what the level says counts only where every chunk has it.
fn may_fail(state: &MirrorState) -> Option<u64> {
    let used = state.profiles.iter().filter(|p| p.used.0 > 0);
    let spare = used.map(|p| p.copies().map(|c| c.devices - 1)).collect::<Option<Vec<_>>>()?;
    let missing = state.members.iter().filter(|m| m.missing).count() as u64;
    let least = spare.into_iter().min().filter(|_| state.mounted)?;
    Some(least.saturating_sub(missing))
}

/// A finding with its remedy from the table, made concrete.
fn finding(declared: &Mirror, code: &'static str, severity: Level, says: String) -> Finding {
    let mut rest = findings::find(code).map_or("", |c| c.remedy);
    let mountpoint = declared.mountpoint.display().to_string();
    let words = [
        ("MOUNTPOINT", mountpoint.as_str()),
        ("LEVEL", declared.level.as_str()),
        ("NAME", declared.name.as_str()),
    ];
    // In one pass: a mount point may be called NAME.
    let mut remedy = String::new();
    while let Some((at, word, value)) =
        words.iter().filter_map(|(word, value)| Some((rest.find(word)?, word, value))).min()
    {
        let (before, after) = rest.split_at(at);
        remedy.push_str(before);
        remedy.push_str(value);
        rest = after.get(word.len()..).unwrap_or_default();
    }
    remedy.push_str(rest);
    Finding { code: code.to_owned(), severity, says, evidence: Vec::new(), remedy }
}

fn place(declared: &Mirror, state: &MirrorState, out: &mut Vec<Finding>) {
    let at = declared.mountpoint.display();
    if state.uuid != declared.uuid || state.mountpoint.as_ref().is_some_and(|m| *m != declared.mountpoint) {
        let says = format!("what was looked at is not mirror {}", declared.name);
        let evidence = vec![format!("looked at filesystem {}, declared is {}", state.uuid, declared.uuid)];
        out.push(Finding { evidence, ..finding(declared, "OBS-FAILED", Level::Unknown, says) });
    }
    if let Some(other) = &state.instead {
        let says = format!("{at} shows another filesystem than mirror {}", declared.name);
        let evidence = vec![format!("mounted there: {other}"), format!("declared: btrfs {}", declared.uuid)];
        out.push(Finding { evidence, ..finding(declared, "MNT-OTHER", Level::Critical, says) });
    } else if !state.mounted {
        let elsewhere = state.also_mounted.iter().map(|m| format!("it is mounted at {}", m.display()));
        let says = format!("mirror {} is not mounted at {at}", declared.name);
        out.push(Finding {
            evidence: elsewhere.collect(),
            ..finding(declared, "MNT-ABSENT", Level::Critical, says)
        });
    }
}

fn name_of(member: &MemberState) -> String {
    match &member.path {
        Some(path) => format!("member {} ({})", member.devid, path.display()),
        None => format!("member {}", member.devid),
    }
}

fn is_declared_as(member: &MemberState, declared: &Member) -> bool {
    let same_uuid = member.uuid.as_ref().is_none_or(|uuid| uuid.eq_ignore_ascii_case(&declared.uuid));
    member.devid.to_string() == declared.id && same_uuid
}

fn members(declared: &Mirror, state: &MirrorState, out: &mut Vec<Finding>) {
    if state.members.is_empty() {
        let says = format!("no device of mirror {} is on this machine", declared.name);
        let evidence = declared.member.iter().map(|m| format!("declared: {m}")).collect();
        out.push(Finding { evidence, ..finding(declared, "MIR-ABSENT", Level::Critical, says) });
        unread(declared, state, out);
        return;
    }
    let mut missing = Vec::new();
    for wanted in &declared.member {
        let mut found = state.members.iter().filter(|m| is_declared_as(m, wanted));
        match found.next() {
            None if state.profiles.is_empty() => {
                missing.push(format!("{wanted}: no device answers as this member"));
            }
            None => missing.push(format!("{wanted} is not part of the filesystem")),
            Some(m) if m.missing => {
                let why = m.missing_because.as_deref().unwrap_or("no reason is known");
                missing.push(format!("{wanted}: {why}"));
            }
            Some(first) => {
                if let Some(clone) = found.next() {
                    let says = format!("two devices say that they are member {}", wanted.id);
                    let evidence = vec![name_of(first), name_of(clone)];
                    out.push(Finding { evidence, ..finding(declared, "MIR-FOREIGN", Level::Critical, says) });
                }
            }
        }
    }
    let strangers = state.members.iter().filter(|m| !m.replace_target);
    for member in strangers.filter(|m| !declared.member.iter().any(|d| is_declared_as(m, d))) {
        let says = format!("{} was not declared", name_of(member));
        let uuid = member.uuid.as_deref().unwrap_or("unknown");
        let evidence = vec![format!("its UUID is {uuid}")];
        out.push(Finding { evidence, ..finding(declared, "MIR-FOREIGN", Level::Warning, says) });
        if member.missing {
            missing.push(format!("{}, which was not declared, is gone too", name_of(member)));
        }
    }
    if !missing.is_empty() {
        let survives = declared.level.survives();
        let be = if missing.len() == 1 { "is" } else { "are" };
        let gone = format!("{} of {} members {be} missing", missing.len(), declared.member.len());
        let (severity, says) = match survives.checked_sub(missing.len()) {
            None => (Level::Critical, format!("{gone}, more than {} survives", declared.level)),
            Some(0) => (Level::Critical, format!("{gone}; no more may fail")),
            Some(left) => (Level::Warning, format!("{gone}; {left} more may fail")),
        };
        out.push(Finding { evidence: missing, ..finding(declared, "MIR-MISSING", severity, says) });
        unread(declared, state, out);
    }
}

/// Devices that could not be read matter where a member may be among them.
fn unread(declared: &Mirror, state: &MirrorState, out: &mut Vec<Finding>) {
    if !state.unread.is_empty() {
        let says = "devices could not be read, and a member may be among them".to_owned();
        let evidence = state.unread.clone();
        out.push(Finding { evidence, ..finding(declared, "OBS-FAILED", Level::Unknown, says) });
    }
}

fn profiles(declared: &Mirror, state: &MirrorState, out: &mut Vec<Finding>) {
    let chunks = state.profiles.iter().filter(|p| p.total.0 > 0);
    let drifted: Vec<_> = chunks.clone().filter(|p| p.profile != declared.level.as_str()).collect();
    if drifted.is_empty() {
        if state.mounted && chunks.count() == 0 {
            let says = format!("no chunk of mirror {} was seen", declared.name);
            out.push(finding(declared, "OBS-FAILED", Level::Unknown, says));
        }
        return;
    }
    let single = |p: &ProfileUse| p.copies().is_none_or(|c| c.devices < 2) && p.used.0 > 0;
    let at_risk = drifted.iter().any(|p| single(p));
    let says = if at_risk {
        format!("part of mirror {} exists on one member only", declared.name)
    } else {
        format!("part of mirror {} is not stored as {}", declared.name, declared.level)
    };
    let evidence = drifted
        .iter()
        .map(|p| format!("{} as {}: {} in use of {}", p.kind, p.profile, p.used, p.total))
        .collect();
    let severity = if at_risk { Level::Critical } else { Level::Warning };
    out.push(Finding { evidence, ..finding(declared, "MIR-PROFILE", severity, says) });
}

/// A member whose last commit is older than another's. One commit apart is no fault: it may be on its way, or was cut by a power failure.
fn stale(declared: &Mirror, state: &MirrorState, out: &mut Vec<Finding>) {
    let present = || state.members.iter().filter(|m| !m.missing).filter_map(|m| Some((m, m.generation?)));
    let Some(newest) = present().map(|(_, generation)| generation).max() else { return };
    for (member, generation) in present().filter(|(_, generation)| newest - generation > 1) {
        let says = format!("{} holds older data than another member", name_of(member));
        let evidence = vec![format!("its last commit is {generation}, the newest is {newest}")];
        out.push(Finding { evidence, ..finding(declared, "MIR-STALE", Level::Critical, says) });
    }
}

fn counters(declared: &Mirror, state: &MirrorState, out: &mut Vec<Finding>) {
    for member in &state.members {
        match member.errors {
            Some(errors) if !errors.is_clean() => {
                let says = format!("{} has counted errors", name_of(member));
                let counted = errors.named().into_iter().filter(|(_, n)| *n > 0);
                let evidence =
                    vec![counted.map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>().join(", ")];
                out.push(Finding { evidence, ..finding(declared, "MIR-ERRORS", Level::Warning, says) });
            }
            None if !state.profiles.is_empty() => {
                let says = format!("the error counters of {} could not be read", name_of(member));
                out.push(finding(declared, "OBS-FAILED", Level::Unknown, says));
            }
            _ => {}
        }
    }
}

fn modes(declared: &Mirror, state: &MirrorState, out: &mut Vec<Finding>) {
    let options = || vec![format!("mount options: {}", state.mount_options.join(","))];
    if state.read_only {
        let says = if state.forced_read_only {
            format!("the kernel has made mirror {} read-only", declared.name)
        } else {
            format!("mirror {} is mounted read-only", declared.name)
        };
        out.push(Finding { evidence: options(), ..finding(declared, "MIR-READONLY", Level::Critical, says) });
    } else if state.mounted {
        for member in state.members.iter().filter(|m| m.writeable == Some(false) && !m.missing) {
            let says = format!("{} cannot be written to", name_of(member));
            out.push(finding(declared, "MIR-READONLY", Level::Critical, says));
        }
    }
    if state.degraded_option {
        let says = format!("mirror {} is mounted with `degraded`", declared.name);
        out.push(Finding {
            evidence: options(),
            ..finding(declared, "MIR-DEGRADED-OPTION", Level::Critical, says)
        });
    }
    if let Some(work) = state.exclusive_operation.as_deref().filter(|w| w.starts_with("device ")) {
        let says = format!("{work} runs on mirror {}", declared.name);
        out.push(finding(declared, "MIR-REPLACING", Level::Warning, says));
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
