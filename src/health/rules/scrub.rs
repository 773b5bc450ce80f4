//! When everything was last read, and what that found.

use jiff::{SignedDuration, Timestamp};

use crate::{
    health::case::{Case, name_of},
    model::{
        BackendKind, Observed, Record, Severity, Source, ago,
        observed::ScrubRecord,
        zfs::{ZfsScan, ZfsScanKind, ZfsScanState},
    },
};

/// How long a mirror without a schedule may go unscrubbed.
const WITHOUT_SCHEDULE: SignedDuration = SignedDuration::from_hours(31 * 24);
/// How late a scrub may be: it may be long, and wait for a balance.
const GRACE: SignedDuration = SignedDuration::from_hours(24);

pub(in crate::health) fn judge(case: &mut Case<'_>) {
    if case.declared.backend == BackendKind::Zfs {
        return of_pool(case);
    }
    let Some(seen) = case.observed.scrub.get() else { return };
    if let Some(record) = seen {
        result(case, record);
    }
    age(case, last_scrub(case.observed, case.record), Vec::new());
}

/// When the last whole scrub ended: by the backend's own record, where it keeps one, or by raidguard's.
pub fn last_scrub(observed: &Observed, record: &Record) -> Option<Timestamp> {
    let seen = observed.scrub.get().and_then(Option::as_ref);
    let whole = seen.filter(|r| r.finished && !r.cancelled).and_then(|r| r.ended);
    whole.max(record.jobs.get("scrub").and_then(|run| run.good))
}

/// Of a pool raidguard's own record counts: what ZFS knows of a scrub a resilver takes the place of, and one that could not read a member
/// is told as any other.
fn of_pool(case: &mut Case<'_>) {
    let scan = case.state().and_then(|state| state.zfs.as_ref()?.scan.clone());
    let scan = scan.filter(|scan| scan.kind != ZfsScanKind::Resilver);
    if let Some(scan) = &scan {
        result_of_pool(case, scan);
    }
    let ended = scan.filter(|s| s.state == ZfsScanState::Finished && s.kind == ZfsScanKind::Scrub);
    let ended = ended.and_then(|scan| scan.ended);
    let told = ended.map(|at| format!("ZFS knows of one that ended {at:.0}, and not of which members"));
    age(case, last_scrub(case.observed, case.record), told.into_iter().collect());
}

fn result_of_pool(case: &mut Case<'_>, scan: &ZfsScan) {
    let name = &case.declared.name;
    let began = scan.started.map(|at| format!("it began {at:.0}"));
    let far = scan.progress().map(|far| format!("it has done {far}"));
    let evidence: Vec<String> = began.into_iter().chain(far).collect();
    let what = if scan.kind == ZfsScanKind::ErrorScrub { "damaged files" } else { "the last scrub" };
    let (code, severity, says) = match scan.state {
        ZfsScanState::Running if scan.kind == ZfsScanKind::ErrorScrub => {
            ("SCR-RUNNING", Severity::Ok, format!("damaged files of mirror {name} are looked at again"))
        }
        ZfsScanState::Running => ("SCR-RUNNING", Severity::Ok, format!("mirror {name} is being scrubbed")),
        ZfsScanState::Paused => {
            ("SCR-ABORTED", Severity::Warning, format!("{what} of mirror {name} is paused"))
        }
        ZfsScanState::Canceled => {
            ("SCR-ABORTED", Severity::Warning, format!("{what} of mirror {name} was cancelled"))
        }
        ZfsScanState::Finished => {
            if scan.repaired.0 == 0 || case.record.acknowledged_scrub == scan.known_by() {
                return;
            }
            let says = format!("the last scrub of mirror {name} mended {}", scan.repaired);
            ("SCR-CORRECTED", Severity::Warning, says)
        }
    };
    case.add(code, severity, "", says, evidence);
    case.read_from(Source::Storage);
}

/// Whether it is too long ago that everything was read, and to its end.
fn age(case: &mut Case<'_>, last: Option<Timestamp>, known: Vec<String>) {
    if is_under_way(case) {
        return;
    }
    match last {
        Some(last) if overdue(case, last) => {
            let says = format!("mirror {} was last scrubbed {}", case.declared.name, ago(case.now, last));
            case.add(
                "SCR-OVERDUE",
                Severity::Warning,
                "",
                says,
                vec![format!("the last whole scrub ended {last:.0}")],
            );
        }
        None if case.record.first_seen.is_some_and(|first| overdue(case, first)) => {
            let says = format!("mirror {} was never scrubbed to its end", case.declared.name);
            case.add("SCR-NEVER", Severity::Warning, "", says, known);
        }
        _ => {}
    }
}

/// Does a scrub run that will count? On large disks it takes days. Of md and ZFS only raidguard's own counts, and the record alone does not
/// tell one that runs from one that died.
fn is_under_way(case: &Case<'_>) -> bool {
    let own = || case.record.jobs.get("scrub").filter(|run| run.ended.is_none()).map(|run| run.started);
    let scan = || case.state()?.zfs.as_ref()?.scan.as_ref();
    let action = || case.state()?.md.as_ref()?.action.as_deref();
    let began = match case.declared.backend {
        BackendKind::Btrfs => {
            let seen = case.observed.scrub.get().and_then(Option::as_ref);
            seen.filter(|scrub| scrub.ended.is_none()).map(|scrub| scrub.started)
        }
        BackendKind::Mdadm => own().filter(|_| action() == Some("check")),
        BackendKind::Zfs => own().filter(|_| {
            scan().is_some_and(|s| s.kind == ZfsScanKind::Scrub && s.state == ZfsScanState::Running)
        }),
    };
    began.is_some_and(|began| case.now.duration_since(began) < WITHOUT_SCHEDULE)
}

fn overdue(case: &Case<'_>, since: Timestamp) -> bool {
    let due = case.declared.schedule.as_ref().and_then(|s| s.scrub.next(since, 1, &case.zone()).pop());
    let due = due.map_or(since + WITHOUT_SCHEDULE, |run| run.timestamp());
    due + GRACE < case.now
}

/// The one member that a scrub could not mend. Each member is read by itself, and then its blocks' other copies: what is lost is counted on
/// every member that should have had it.
fn unmended(case: &Case<'_>, record: &ScrubRecord) -> Option<(String, u64)> {
    let state = case.observed.storage.get()?;
    let [devid] = record.unmended_on.as_deref()? else { return None };
    let whole = record.finished
        && !record.cancelled
        && record.ended.is_some()
        && state.mounted
        && state.members.iter().all(|m| !m.replace_target && (!m.missing || m.devid == *devid))
        && state.drifted(case.declared.level.as_str()).is_empty();
    let member = state.members.iter().find(|m| m.devid == *devid).filter(|_| whole)?;
    Some((name_of(member), *devid))
}

fn result(case: &mut Case<'_>, record: &ScrubRecord) {
    let name = &case.declared.name;
    let began = format!("it began {:.0} and read {}", record.started, record.scrubbed);
    if record.ended.is_none() {
        case.add(
            "SCR-RUNNING",
            Severity::Ok,
            "",
            format!("mirror {name} is being scrubbed"),
            vec![began.clone()],
        );
    } else if record.cancelled || !record.finished {
        let says = if record.cancelled { "was cancelled" } else { "was interrupted" };
        let says = format!("the last scrub of mirror {name} {says}");
        case.add("SCR-ABORTED", Severity::Warning, "", says, vec![began.clone()]);
    }
    if let Some((member, devid)) = unmended(case, record) {
        let says = format!("the last scrub could not mend {} blocks of {member}", record.uncorrectable);
        let evidence = vec![began, "every other copy was read too, and is good".to_owned()];
        case.add_with(
            "SCR-UNMENDED",
            Severity::Warning,
            format!("member {devid}"),
            says,
            evidence,
            &[("DEVID", devid.to_string())],
        );
    } else if record.uncorrectable > 0 {
        let says =
            format!("{} blocks of mirror {name} are lost: every copy of them is wrong", record.uncorrectable);
        case.add("SCR-UNCORRECTABLE", Severity::Critical, "", says, vec![began]);
    } else if record.corrected > 0 && case.record.acknowledged_scrub != Some(record.started) {
        let says = format!("the last scrub of mirror {name} mended {} blocks", record.corrected);
        case.add("SCR-CORRECTED", Severity::Warning, "", says, vec![began]);
    }
}
