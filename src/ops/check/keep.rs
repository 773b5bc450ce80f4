//! What a check remembers, and what it does after it has spoken.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Judged, Options};
use crate::{
    config::Notify,
    health,
    host::{
        Host,
        state::{State, StateError},
    },
    model::{
        Record, Seen,
        mirror::MirrorState,
        observed::{DatabaseState, Smart, causes},
        record::{FailedWrites, LedgerEntry, Mismatches},
    },
    ops::{Trouble, mirrors::Recorded, notify},
    ui::Console,
};

/// Under which name the record has the writes to members that failed.
const FAILED_WRITES: &str = "failed-writes";

/// Takes what is counted now as known, and judges again.
///
/// # Errors
/// The record cannot be written.
pub(super) fn acknowledge(host: &Host, judged: &mut [Judged]) -> Result<(), Trouble> {
    let failed = |e| Trouble::failed("nothing was acknowledged: raidguard's record cannot be written", e);
    let state = State::open(host).map_err(failed)?;
    for one in judged {
        one_known(&state, one).map_err(failed)?;
        one.record = Seen::of(state.record(&one.mirror.name));
        one.verdict = health::judge(&one.mirror, &one.observed, &one.record, host.now());
    }
    Ok(())
}

fn one_known(state: &State, one: &Judged) -> Result<(), StateError> {
    let name = &one.mirror.name;
    state.durably(|| {
        if let Some(storage) = one.observed.storage.get() {
            let counted = storage.members.iter().filter_map(|m| Some((m.uuid.clone()?, m.errors?)));
            state.put(name, "acknowledged", &counted.collect::<BTreeMap<_, _>>())?;
            let nothing: BTreeMap<String, FailedWrites> = BTreeMap::new();
            state.put(name, FAILED_WRITES, &nothing)?;
            let nobody: BTreeMap<String, Timestamp> = BTreeMap::new();
            state.keep_away(name, &nobody)?;
            let known = health::mismatches(storage, one.record.get().unwrap_or(&Record::default()), one.at);
            let counted = storage.md.as_ref().and_then(|md| md.mismatches);
            if let Some(differ) = known.map(|found| found.sectors).max(counted) {
                state.put(name, "acknowledged-mismatches", &differ)?;
            }
        }
        // A disk that sleeps keeps what was acknowledged of it.
        let mut bad: BTreeMap<String, u64> = state.get(name, "acknowledged-sectors")?.unwrap_or_default();
        let answers = &one.observed.smart;
        for answer in answers {
            if let Some(Smart::Health(found)) = answer.smart.get() {
                bad.remove(&answer.disk);
                bad.insert(health::kept_by(answers, &answer.disk).to_owned(), found.bad_sectors());
            }
        }
        state.put(name, "acknowledged-sectors", &bad)?;
        if let Some(scrub) = one.observed.scrub.get().and_then(Option::as_ref) {
            state.put(name, "acknowledged-scrub", &scrub.started)?;
        }
        let pool = one.observed.storage.get().and_then(|storage| storage.zfs.as_ref());
        if let Some(scan) = pool.and_then(|pool| pool.scan.as_ref()?.known_by()) {
            state.put(name, "acknowledged-scrub", &scan)?;
        }
        // The databases as they are now are the newest, whatever was there before: only after they were looked at.
        for (network, entry) in newest(one) {
            state.put(name, &format!("ledger/{network}"), &entry)?;
        }
        Ok(())
    })
}

/// How new the databases are that were just looked at and are sound.
fn newest(one: &Judged) -> Vec<(String, LedgerEntry)> {
    let found = one.observed.databases.get().into_iter().flatten();
    found
        .filter_map(|facts| match &facts.state {
            DatabaseState::Sound(version) => {
                let at = one.at;
                let entry =
                    LedgerEntry { node_id: version.node_id.clone(), data_version: version.data_version?, at };
                Some((facts.network.clone(), entry))
            }
            _ => None,
        })
        .collect()
}

/// Remembers what was seen, tells who is to be told, and runs what was missed. Failures are said, and change no verdict: they are
/// findings of the next check.
pub(super) fn keep(
    host: &Host,
    state: Recorded,
    judged: &[Judged],
    options: &Options,
    declared: Option<&Notify>,
    console: &mut Console,
) {
    // Somebody who only looks (another user, a rescue system) leaves no trace.
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let new: Vec<_> = judged.iter().filter(|one| options.notify || options.deep || !is_known(one)).collect();
    if !new.is_empty() {
        if let Err(e) = remember_all(host, state, &new, options) {
            console.warn(format_args!("what was seen could not be remembered: {}", causes(&e)));
        }
    }
    match judged {
        _ if !options.notify => {}
        [] => notify::tell_undeclared(host, declared, console),
        judged => notify::tell(host, declared, judged, console),
    }
}

/// Is all that a check by hand would remember of it remembered already?
fn is_known(one: &Judged) -> bool {
    let newest = one.observed.storage.get().and_then(MirrorState::newest);
    one.record.get().is_some_and(|record| {
        record.first_seen.is_some()
            && failed_writes(one, record).is_none()
            && away(one, record).is_none()
            && mismatches(one, record).is_none()
            && record.open == one.verdict.findings
            && record.verdict.is_some_and(|(level, _)| level == one.verdict.level)
            && record.generation >= newest
    })
}

/// What is to be remembered of writes that failed, where that is something else than before.
fn failed_writes(one: &Judged, record: &Record) -> Option<BTreeMap<String, FailedWrites>> {
    let state = one.observed.storage.get()?;
    let found = health::failed_writes(state, record, one.at);
    (found != record.failed_writes).then_some(found)
}

/// What is to be remembered of members that were away, where that is something else than before.
fn away(one: &Judged, record: &Record) -> Option<BTreeMap<String, Timestamp>> {
    let found = health::away(&one.mirror, one.observed.storage.get()?, record, one.at);
    (found != record.away).then_some(found)
}

/// Where members of an array differ, where that is more than is remembered.
fn mismatches(one: &Judged, record: &Record) -> Option<Mismatches> {
    let found = health::mismatches(one.observed.storage.get()?, record, one.at);
    found.filter(|_| found != record.mismatches)
}

/// In one change, so that the disk is not written to for each mirror.
fn remember_all(host: &Host, state: Recorded, new: &[&Judged], options: &Options) -> Result<(), StateError> {
    let state = match state {
        Ok(Some(state)) => state,
        Ok(None) | Err(_) => State::open(host)?,
    };
    let all = || new.iter().try_for_each(|one| remember(host, &state, one, options));
    // Only the databases' newest state must not be lost.
    if options.deep { state.durably(all) } else { state.together(all) }
}

fn remember(host: &Host, state: &State, one: &Judged, options: &Options) -> Result<(), StateError> {
    let (name, now) = (&one.mirror.name, host.now());
    let nothing = Record::default();
    state.keep_verdict(name, one.record.get().unwrap_or(&nothing), &one.verdict, now)?;
    let record = one.record.get().unwrap_or(&nothing);
    if let Some(failed) = failed_writes(one, record) {
        state.put(name, FAILED_WRITES, &failed)?;
    }
    if let Some(away) = away(one, record) {
        state.keep_away(name, &away)?;
    }
    if let Some(found) = mismatches(one, record) {
        state.keep_mismatches(name, found)?;
    }
    if let Some(seen) = one.observed.storage.get().and_then(MirrorState::newest) {
        state.raise_generation(name, seen)?;
    }
    let run = (one.at, now);
    // What is by hand is no run of the job: whoever looks now and then would never be told that nothing else looks any more.
    if options.notify {
        state.job_ended(name, "check", run, None)?;
    }
    if options.deep {
        match &one.observed.databases {
            Seen::Read(found) => {
                state.keep_databases(name, now, found)?;
                for (network, entry) in newest(one) {
                    state.raise_ledger(name, &network, &entry)?;
                }
                state.job_ended(name, "deep", run, None)?;
            }
            Seen::Failed(why) => state.job_ended(name, "deep", run, Some(why.clone()))?,
            Seen::Skipped => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        exec::ScriptedRunner,
        health::samples,
        model::{BackendKind, Observed, Severity, md::MdState},
    };

    fn host(dir: &tempfile::TempDir) -> Host {
        Host::captured(dir.path(), Arc::new(ScriptedRunner::new()), samples::now())
    }

    /// A mirror that was looked at, by what is remembered.
    fn looked_at(state: &State, change: impl FnOnce(&mut Observed)) -> Judged {
        let (mut mirror, mut observed, _) = samples::healthy();
        mirror.backend = BackendKind::Mdadm;
        change(&mut observed);
        let record = Seen::Read(state.record(&mirror.name).unwrap());
        let verdict = health::judge(&mirror, &observed, &record, samples::now());
        Judged { at: samples::now(), mirror, observed, record, verdict }
    }

    #[test]
    fn bad_sectors_are_acknowledged_for_a_disk_and_not_for_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&host(&dir)).unwrap();
        let mirror = "lightning";
        let acknowledge = |disks: [(&str, Option<u64>); 2]| {
            let one = looked_at(&state, |observed| {
                for (facts, (serial, bad)) in observed.smart.iter_mut().zip(disks) {
                    match (facts.smart.get_mut().unwrap(), bad) {
                        (Smart::Health(found), Some(bad)) => {
                            (found.serial, found.reallocated) = (Some(serial.to_owned()), Some(bad));
                        }
                        (smart, _) => *smart = Smart::Asleep,
                    }
                }
            });
            one_known(&state, &one).unwrap();
            let known = state.record(mirror).unwrap().acknowledged_sectors;
            known.into_iter().map(|(disk, bad)| format!("{disk} {bad}")).collect::<Vec<_>>()
        };
        // As an older raidguard kept it.
        state.put(mirror, "acknowledged-sectors", &BTreeMap::from([("sdb", 3), ("sdd", 5)])).unwrap();
        assert_eq!(acknowledge([("E1", Some(8)), ("E2", None)]), ["E1 8", "sdd 5"]);
        assert_eq!(acknowledge([("E2", Some(2)), ("E1", None)]), ["E1 8", "E2 2", "sdd 5"]);
        assert_eq!(acknowledge([("E2", Some(2)), ("E1", Some(7))]), ["E1 7", "E2 2", "sdd 5"]);
    }

    fn array(mismatches: u64) -> MdState {
        MdState { mismatches: Some(mismatches), ..samples::array() }
    }

    #[test]
    fn where_members_differ_outlasts_a_boot_until_all_is_compared_again_or_acknowledged() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(&dir);
        let state = State::open(&host).unwrap();
        let counts =
            |sectors: u64| looked_at(&state, |o| o.storage.get_mut().unwrap().md = Some(array(sectors)));
        let differs = |one: &Judged| one.verdict.findings.iter().any(|f| f.code == "MIR-MISMATCH");
        let check = |sectors: u64| {
            let one = counts(sectors);
            remember(&host, &state, &one, &Options::default()).unwrap();
            assert!(mismatches(&one, &state.record("lightning").unwrap()).is_none());
            differs(&one)
        };
        assert!(!check(0) && check(4096));
        assert!(check(0), "a boot");
        assert!(check(8) && state.record("lightning").unwrap().mismatches.unwrap().sectors == 4096, "a part");
        one_known(&state, &counts(0)).unwrap();
        assert_eq!(state.record("lightning").unwrap().acknowledged_mismatches, Some(4096));
        assert!(!check(0) && check(8192) && check(0));
        let found = Mismatches { sectors: 16, at: samples::now() };
        state.keep_mismatches("lightning", found).unwrap();
        assert!(!check(16) && !check(0), "a whole scrub found less");
        assert_eq!(counts(0).verdict.level, Severity::Ok);
    }
}
