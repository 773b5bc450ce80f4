//! fstab, and what lies below the mount point.

use crate::{
    health::case::Case,
    model::{BackendKind, Severity, observed::FstabLine},
};

pub(in crate::health) fn judge(case: &mut Case<'_>) {
    let Some(facts) = case.observed.mount.get() else { return };
    let declared = case.declared;
    let (name, at) = (&declared.name, declared.mountpoint.display());
    let by_uuid = |line: &FstabLine| is_uuid(&line.source, declared.filesystem_uuid());
    let here = |line: &&FstabLine| line.mountpoint == declared.mountpoint;
    let show =
        |line: &FstabLine| format!("line {}: {} at {}", line.line, line.source, line.mountpoint.display());
    let device = |line: &FstabLine| line.source.starts_with("/dev/") && !by_uuid(line);
    if declared.backend == BackendKind::Zfs {
        let lines: Vec<_> = facts.lines.iter().filter(here).map(show).collect();
        if !lines.is_empty() {
            let says =
                format!("/etc/fstab mounts something at {at} too, where ZFS mounts the pool by itself");
            case.add("MNT-FSTAB-OTHER", Severity::Warning, "", says, lines);
        }
        if !facts.boot.is_empty() {
            let says = format!("mirror {name} would not be there after the next start of the machine");
            case.add("MNT-BOOT", Severity::Warning, "", says, facts.boot.clone());
        }
        return hidden(case);
    }
    let ours: Vec<_> = facts.lines.iter().filter(here).filter(|l| by_uuid(l) || device(l)).collect();
    if ours.is_empty() {
        let says = format!("/etc/fstab has no line that mounts mirror {name} at {at}");
        case.add("MNT-FSTAB", Severity::Warning, "", says, Vec::new());
    }
    for line in &ours {
        if device(line) {
            let says = format!("/etc/fstab names mirror {name} by a device");
            case.add("MNT-FSTAB-DEVICE", Severity::Warning, "", says, vec![show(line)]);
        }
        if line.options.iter().any(|o| o == "degraded") {
            let says = format!("/etc/fstab mounts mirror {name} with `degraded`");
            case.add("MNT-FSTAB-DEGRADED", Severity::Critical, "", says, vec![show(line)]);
        }
    }
    let first = ours.first().map(|l| l.line);
    // A line of a subvolume elsewhere is somebody's own affair.
    let against = |l: &&FstabLine| Some(l.line) != first && here(l);
    let others: Vec<_> = facts.lines.iter().filter(against).map(show).collect();
    if !others.is_empty() {
        let says = format!("/etc/fstab mounts something else at {at} too");
        case.add("MNT-FSTAB-OTHER", Severity::Warning, "", says, others);
    }
    hidden(case);
}

fn hidden(case: &mut Case<'_>) {
    let Some(facts) = case.observed.mount.get() else { return };
    let at = case.declared.mountpoint.display();
    if facts.hidden_count > 0 {
        let mut evidence = facts.hidden.clone();
        let more = facts.hidden_count.saturating_sub(evidence.len() as u64);
        if more > 0 {
            evidence.push(format!("and {more} more"));
        }
        let says = match facts.hidden_count {
            1 => format!("a file lies hidden below {at}"),
            many => format!("{many} files lie hidden below {at}"),
        };
        case.add("MNT-HIDDEN", Severity::Critical, "", says, evidence);
    }
}

/// The forms of fstab(5) that name a filesystem by its UUID.
fn is_uuid(source: &str, uuid: &str) -> bool {
    let given = source
        .strip_prefix("UUID=")
        .map(|value| value.trim_matches('"'))
        .or_else(|| source.strip_prefix("/dev/disk/by-uuid/"));
    given.is_some_and(|given| given.eq_ignore_ascii_case(uuid))
}
