//! Jobs that were missed because the machine was off. systemd runs those by itself; for cron, its check does.

use jiff::{SignedDuration, Timestamp};

use super::{Judged, Options, check};
use crate::{
    config::ScheduleConfig,
    host::{Host, lock, zone},
    model::{Record, Scheduler, Zone, observed::causes},
    ops::{balance, scrub},
    ui::Console,
};

/// How late a run must be to count as missed: cron itself may still be at it.
const LATE: SignedDuration = SignedDuration::from_mins(30);
/// How long a job that failed is left alone.
const AGAIN: SignedDuration = SignedDuration::from_hours(6);

/// Which jobs missed their last run.
fn missed(
    schedule: &ScheduleConfig,
    record: &Record,
    now: Timestamp,
    zone: &Zone,
    node: bool,
) -> Vec<&'static str> {
    let balance = schedule.balance.as_ref().map(|when| ("balance", when));
    let jobs = [("deep", &schedule.deep)].into_iter().chain(balance).chain([("scrub", &schedule.scrub)]);
    let is_missed = |(job, when): &(&'static str, &crate::model::Schedule)| {
        let run = record.jobs.get(*job);
        let Some(since) = run.and_then(|r| r.good).or(record.first_seen) else { return false };
        let due = when.next(since, 1, zone).pop().is_some_and(|due| due.timestamp() + LATE < now);
        let tried = run.is_some_and(|r| r.started + AGAIN > now);
        due && !tried && (node || *job != "deep")
    };
    jobs.filter(is_missed).map(|(job, _)| job).collect()
}

/// Runs them, one after the other. What fails is remembered by the job itself, and is a finding of the next check.
pub(super) fn catch_up(host: &Host, judged: &[Judged], options: &Options, console: &mut Console) {
    for one in judged {
        let (name, record) = (&one.mirror.name, one.record.get());
        let schedule = one.mirror.schedule.as_ref().filter(|s| s.with == Scheduler::Cron);
        let (Some(schedule), Some(record)) = (schedule, record) else { continue };
        // Somebody is at work: the next check looks again.
        if lock::take(host, name, "check --catch-up").is_err() {
            continue;
        }
        for job in missed(schedule, record, host.now(), &zone::read(host), one.mirror.node.is_some()) {
            tracing::info!("the job {job} of {name} was missed, and is run now");
            let ended = match job {
                "scrub" => scrub(host, Some(name), false, console).map(drop),
                "balance" => balance(host, Some(name), false, console).map(drop),
                _ => {
                    let options = Options { deep: true, notify: options.notify, ..Options::default() };
                    check(host, &options, console).map(drop)
                }
            };
            if let Err(e) = ended {
                console.warn(format_args!("the job {job} of {name}: {}", causes(&e)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{health::samples, model::record::JobRun};

    #[test]
    fn what_ran_in_time_is_not_missed_and_what_just_failed_is_left_alone() {
        let schedule = ScheduleConfig::standard(Scheduler::Cron, crate::model::BackendKind::Btrfs).unwrap();
        let (_, _, record) = samples::healthy();
        let missed = |change: &dyn Fn(&mut Record)| {
            let mut record = record.clone();
            change(&mut record);
            super::missed(&schedule, &record, samples::now(), &Zone::default(), true)
        };
        let run = |hours: i64, good: Option<i64>| JobRun {
            started: samples::hours_ago(hours),
            ended: None,
            failed: None,
            good: good.map(samples::hours_ago),
        };
        assert!(missed(&|_| {}).is_empty());
        assert_eq!(missed(&|r| drop(r.jobs.insert("balance".into(), run(36, Some(36))))), ["balance"]);
        assert_eq!(missed(&|r| drop(r.jobs.insert("scrub".into(), run(24 * 9, Some(24 * 9))))), ["scrub"]);
        assert!(
            missed(&|r| drop(r.jobs.insert("balance".into(), run(1, Some(36))))).is_empty(),
            "tried an hour ago"
        );
        assert!(missed(&|r| r.jobs.clear()).len() == 3, "never ran, and known for long");
        assert!(missed(&|r| (r.jobs.clear(), r.first_seen = Some(samples::now())).0).is_empty(), "new");
    }
}
