//! What a member of a btrfs lacks that was away while the mirror was written to. With the next commit that reaches both, nothing on the
//! devices tells any more: their superblocks are of one transaction, and the kernel has counted no write that failed to a device which it
//! does not have (`btrfs_log_dev_io_error` in fs/btrfs/bio.c). So it is remembered until a scrub has been through. An array fills a member
//! that comes back, and of a pool the record has what failed.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::mirror::{behind, grown_writes};
use crate::{
    config::Mirror,
    health::{
        case::{Case, name_of, words_for},
        judge::may_fail,
    },
    model::{
        BackendKind, Record, Severity,
        mirror::{MemberState, MirrorState},
    },
};

/// What is to be remembered of members that were away, by their number, after this look: when each was last seen so.
pub fn away(
    declared: &Mirror,
    state: &MirrorState,
    record: &Record,
    now: Timestamp,
) -> BTreeMap<String, Timestamp> {
    if declared.backend != BackendKind::Btrfs {
        return BTreeMap::new();
    }
    let mut known = record.away.clone();
    known.retain(|_, at| !scrubbed_since(*at, record));
    let written_to = state.mounted && !state.read_only;
    for member in state.members.iter().filter(|m| !m.replace_target) {
        // Of a device that was pulled while it served the kernel counts what fails.
        let without = member.missing && !member.pulled && written_to;
        if without || is_behind(member, state) {
            known.insert(member.devid.to_string(), now);
        }
    }
    known.retain(|id, _| declared.member.iter().any(|m| m.id == *id));
    known
}

fn is_behind(member: &MemberState, state: &MirrorState) -> bool {
    behind(state).any(|(other, ..)| other.devid == member.devid)
}

/// Has a scrub that read every member begun since, and ended?
pub(super) fn scrubbed_since(at: Timestamp, record: &Record) -> bool {
    let scrub = record.jobs.get("scrub");
    scrub.is_some_and(|run| run.started > at && run.good.is_some_and(|good| good >= run.started))
}

/// When it was last seen away, where no scrub has been through since.
pub(super) fn was_away(member: &MemberState, record: &Record) -> Option<Timestamp> {
    record.away.get(&member.devid.to_string()).copied().filter(|at| !scrubbed_since(*at, record))
}

pub(super) fn judge(case: &mut Case<'_>, state: &MirrorState) {
    let severity =
        if may_fail(state, case.record) == Some(0) { Severity::Critical } else { Severity::Warning };
    for member in state.members.iter().filter(|m| !m.missing && !m.replace_target) {
        // Where it still lags, or its counters grew, that says as much.
        if is_behind(member, state) || grown_writes(member, case.record) > 0 {
            continue;
        }
        let Some(at) = was_away(member, case.record) else { continue };
        let says = format!("{} may lack what was written while it was away", name_of(member));
        let evidence = vec![format!("last seen away {at:.0}, and no scrub has ended well since")];
        let about = format!("member {}", member.devid);
        case.add_with("MIR-AWAY", severity, about, says, evidence, &words_for(member));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        health::samples::{healthy, hours_ago},
        model::{Seen, record::JobRun},
    };

    fn looked(
        record: &mut Record,
        change: impl Fn(&mut MirrorState),
        hours: i64,
    ) -> Vec<(String, Timestamp)> {
        let (declared, mut observed, _) = healthy();
        let state = observed.storage.get_mut().unwrap();
        change(state);
        record.away = away(&declared, state, record, hours_ago(hours));
        record.away.clone().into_iter().collect()
    }

    #[test]
    fn one_that_was_away_while_the_mirror_was_written_to_is_remembered_until_a_scrub_has_ended_well() {
        let mut record = Record::default();
        let gone = |state: &mut MirrorState| state.members[1].missing = true;
        let both = |_: &mut MirrorState| {};
        let known = |hours| vec![("2".to_owned(), hours_ago(hours))];
        assert_eq!(looked(&mut record, both, 20), []);
        for (mounted, read_only) in [(false, false), (true, true)] {
            let idle = |s: &mut MirrorState| {
                (s.members[1].missing, s.mounted, s.read_only) = (true, mounted, read_only);
            };
            assert_eq!(looked(&mut record, idle, 19), [], "nothing is written");
        }
        let pulled = |s: &mut MirrorState| (s.members[1].missing, s.members[1].pulled) = (true, true);
        assert_eq!(looked(&mut record, pulled, 19), []);
        assert_eq!(looked(&mut record, gone, 18), known(18));
        assert_eq!(looked(&mut record, both, 17), known(18));
        let run = |began, good: Option<i64>| JobRun {
            started: hours_ago(began),
            ended: None,
            failed: None,
            good: good.map(hours_ago),
        };
        for (began, good) in [(18, Some(15)), (16, None), (16, Some(30))] {
            record.jobs.insert("scrub".into(), run(began, good));
            assert_eq!(looked(&mut record, both, 14), known(18), "{began} {good:?}");
            assert!(was_away(&healthy().1.storage.get_mut().unwrap().members[1], &record).is_some());
        }
        record.jobs.insert("scrub".into(), run(16, Some(15)));
        assert!(was_away(&healthy().1.storage.get_mut().unwrap().members[1], &record).is_none());
        assert_eq!(looked(&mut record, both, 14), []);
    }

    #[test]
    fn one_that_lags_is_remembered_whether_the_mirror_is_mounted_or_not() {
        for mounted in [true, false] {
            let mut record = Record::default();
            let lags = |state: &mut MirrorState| {
                let newest = state.newest().unwrap();
                (state.mounted, state.members[0].generation) = (mounted, Some(newest - 2));
            };
            assert_eq!(looked(&mut record, lags, 5), [("1".to_owned(), hours_ago(5))]);
            let almost = |state: &mut MirrorState| {
                state.members[0].generation = Some(state.newest().unwrap() - 1);
            };
            record.away.clear();
            assert_eq!(looked(&mut record, almost, 5), []);
        }
    }

    #[test]
    fn it_counts_as_one_that_is_gone() {
        let (declared, observed, mut record) = healthy();
        let judged = |record: &Record| {
            crate::health::judge(&declared, &observed, &Seen::Read(record.clone()), hours_ago(0))
        };
        assert_eq!(judged(&record).may_fail, Some(1));
        record.away.insert("2".into(), hours_ago(4));
        let verdict = judged(&record);
        assert_eq!((verdict.level, verdict.may_fail), (Severity::Critical, Some(0)));
        assert!(verdict.findings.iter().any(|f| f.code == "MIR-AWAY"), "{:?}", verdict.findings);
    }
}
