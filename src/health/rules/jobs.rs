//! The regular jobs: installed, run by something, and run in time.

use jiff::{SignedDuration, Timestamp};

use crate::{
    health::case::Case,
    model::{Schedule, Severity, ago},
};

/// How late a job may be: a spread start, a machine that was asleep, a scrub that is waited for.
const GRACE: SignedDuration = SignedDuration::from_mins(60);

pub(in crate::health) fn judge(case: &mut Case<'_>) {
    if let Some(facts) = case.observed.jobs.get() {
        let lists: [(&'static str, Severity, &str, &Vec<String>); 5] = [
            ("SCH-MISSING", Severity::Warning, "the regular jobs are not installed", &facts.missing),
            ("SCH-ALTERED", Severity::Warning, "the regular jobs are not as declared", &facts.altered),
            ("SCH-DOUBLE", Severity::Warning, "jobs are installed that should not be", &facts.surplus),
            ("SCH-IDLE", Severity::Warning, "nothing runs the regular jobs", &facts.idle),
            ("SCH-DISTRIBUTION", Severity::Ok, "the distribution has a job for the same", &facts.doubled),
        ];
        for (code, severity, says, evidence) in lists {
            if !evidence.is_empty() {
                case.add(code, severity, "", says, evidence.clone());
            }
        }
        if let Some(why) = &facts.dropin {
            case.add(
                "SCH-DROPIN",
                Severity::Warning,
                "",
                "the node's unit is not tied to the mirror",
                vec![why.clone()],
            );
        }
        if let Some(why) = &facts.rule {
            let says = format!("nothing keeps halves of mirror {} apart at a boot", case.declared.name);
            case.add("SCH-UDEV", Severity::Warning, "", says, vec![why.clone()]);
        }
    }
    if let Some(schedule) = case.declared.schedule.clone() {
        let deep = case.declared.node.is_some();
        let jobs = [
            ("check", Some(&schedule.check)),
            ("deep", Some(&schedule.deep).filter(|_| deep)),
            ("balance", schedule.balance.as_ref()),
        ];
        for (job, when) in jobs.into_iter().filter_map(|(job, when)| Some((job, when?))) {
            late(case, job, when);
        }
    }
    failed(case);
}

/// What one types to run a job by hand.
fn by_hand(job: &str, mirror: &str) -> String {
    match job {
        "check" => "check --notify".to_owned(),
        "deep" => "check --deep".to_owned(),
        other => format!("{other} {mirror}"),
    }
}

/// A job may miss the run after its last one by the grace, never the one after that.
fn late(case: &mut Case<'_>, job: &str, when: &Schedule) {
    let run = case.record.jobs.get(job);
    let Some(since) = run.map(|r| r.started).or(case.record.first_seen) else { return };
    let Some(second) = when.next(since, 2, &case.zone()).pop().map(|run| run.timestamp()) else { return };
    // What was due while the machine was off is made up for after its start.
    let booted = case.observed.jobs.get().and_then(|jobs| jobs.booted);
    if booted.map_or(second, |booted| second.max(booted)) + GRACE >= case.now {
        return;
    }
    let evidence = vec![match run {
        Some(run) => format!("it last began {}", ago(case.now, run.started)),
        None => "it never ran".to_owned(),
    }];
    let words = [("JOB", by_hand(job, &case.declared.name))];
    let says = format!("the job {job} did not run when it should have");
    case.add_with("SCH-OVERDUE", Severity::Warning, job, says, evidence, &words);
}

fn failed(case: &mut Case<'_>) {
    let mut found: Vec<(String, String, Timestamp)> = Vec::new();
    for (job, run) in &case.record.jobs {
        if let Some(why) = &run.failed {
            found.push((job.clone(), why.clone(), run.ended.unwrap_or(run.started)));
        }
    }
    for (job, why, at) in found {
        let words = [("JOB", by_hand(&job, &case.declared.name))];
        let says = format!("the last run of the job {job} failed");
        case.add_with(
            "SCH-FAILED",
            Severity::Warning,
            job,
            says,
            vec![why, format!("it ended {at:.0}")],
            &words,
        );
    }
}
