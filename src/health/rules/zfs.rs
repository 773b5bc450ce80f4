//! What only a pool of ZFS has: whether it is imported and serves, how much of each vdev may still fail, what its tools would say only one
//! at a time. Every device is judged by itself: the pool's own word says ONLINE above one that has failed, and while another is filled.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    away::scrubbed_since,
    mirror::{grown_writes, plural},
};
use crate::{
    health::case::{Case, name_of, words_for},
    model::{
        BackendKind, Record, Severity, Source,
        mirror::{MemberState, MirrorState},
        record::FailedWrites,
        zfs::{ZfsClass, ZfsScan, ZfsScanKind, ZfsScanState, ZfsState, ZfsVdev},
    },
};

pub(super) fn judge(case: &mut Case<'_>, state: &MirrorState) {
    if case.declared.backend != BackendKind::Zfs {
        return;
    }
    let name = &case.declared.name;
    match &state.zfs {
        Some(pool) if pool.is_suspended() => {
            let says = format!("the pool of mirror {name} has stopped: whatever is written to it waits");
            let evidence = vec![
                format!("the kernel calls the pool {} SUSPENDED", pool.name),
                "nothing else was read of it: whoever asks it may wait for ever".to_owned(),
            ];
            case.add("MIR-SUSPENDED", Severity::Critical, "", says, evidence);
        }
        Some(pool) if !serves(pool) => {
            let says = format!("the pool of mirror {name} does not serve");
            let evidence = vec![format!("ZFS calls it {}", pool.state)];
            case.add("MIR-INACTIVE", Severity::Critical, "", says, evidence);
        }
        Some(pool) => imported(case, state, pool),
        // That no device of it is there is said already.
        None if state.members.is_empty() => {}
        None => {
            let says = format!("the pool of mirror {name} is not imported");
            let evidence = vec!["its members are there, and the kernel has no pool of them".to_owned()];
            case.add("MIR-INACTIVE", Severity::Critical, "", says, evidence);
        }
    }
}

fn serves(pool: &ZfsState) -> bool {
    matches!(pool.state.as_str(), "ONLINE" | "DEGRADED")
}

fn imported(case: &mut Case<'_>, state: &MirrorState, pool: &ZfsState) {
    level(case, pool);
    for vdev in pool.vdevs.iter().filter(|v| v.class.holds_data() && v.class != ZfsClass::Normal) {
        beside(case, vdev);
    }
    doubted(case, state, pool);
    damaged(case, pool);
    lost_writes(case, state);
    filling(case, state, pool);
    changing(case, pool);
    if pool.checkpoint {
        let says = format!("the pool of mirror {} has a checkpoint", case.declared.name);
        case.add("MIR-CHECKPOINT", Severity::Warning, "", says, Vec::new());
    }
}

/// How many more of a vdev's devices may fail than there are left of it, by those that are `whole`: less than nothing where it has lost
/// more than it survives. Nothing where it is not known how it keeps what it holds.
fn spare_of(vdev: &ZfsVdev, whole: &dyn Fn(&ZfsVdev) -> bool) -> Option<i64> {
    if vdev.children.is_empty() {
        return Some(if whole(vdev) { 0 } else { -1 });
    }
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let have = count(vdev.children.iter().filter(|child| is_whole(child, whole)).count());
    let all = count(vdev.children.len());
    Some(match vdev.level()? {
        "mirror" | "replacing" | "spare" => have - 1,
        "raidz1" => have - (all - 1),
        "raidz2" => have - (all - 2),
        "raidz3" => have - (all - 3),
        _ => return None,
    })
}

/// Within a vdev several devices stand for one where one takes the place of another.
fn is_whole(vdev: &ZfsVdev, whole: &dyn Fn(&ZfsVdev) -> bool) -> bool {
    match &vdev.children[..] {
        [] => whole(vdev),
        children => children.iter().any(|child| is_whole(child, whole)),
    }
}

fn serves_whole(leaf: &ZfsVdev) -> bool {
    leaf.serves() && !leaf.resilvering
}

/// How many more devices may fail, whichever they are, without loss of data; less than nothing where too many have. Nothing where that is
/// not known.
pub(in crate::health) fn left(state: &MirrorState, record: &Record) -> Option<i64> {
    let pool = state.zfs.as_ref().filter(|pool| serves(pool) && !pool.vdevs.is_empty())?;
    let member = |leaf: &ZfsVdev| state.members.iter().find(|m| leaf.guid == Some(m.devid));
    let whole = |leaf: &ZfsVdev| {
        serves_whole(leaf) && member(leaf).is_none_or(|m| m.is_whole() && !lacks_writes(m, record))
    };
    let vdevs = pool.vdevs.iter().filter(|vdev| vdev.class.holds_data());
    let least = vdevs.map(|vdev| spare_of(vdev, &whole)).collect::<Option<Vec<_>>>()?.into_iter().min()?;
    // Until something of it is filled nobody says which device is; it may be each but one.
    let untold = pool.is_filling() && !pool.leaves().iter().any(|leaf| leaf.resilvering);
    Some(if untold { least.min(0) } else { least })
}

/// Does it lack what failed to be written to it? ZFS tells the devices that were away from what they missed, but not those whose writes
/// failed once `zpool clear` or an import has set their counters back: it then says ONLINE and fills nothing (seen with 2.3.9).
fn lacks_writes(member: &MemberState, record: &Record) -> bool {
    grown_writes(member, record) > 0 || unsettled(member, record).is_some()
}

/// Failed writes that no scrub has mended since.
fn unsettled<'r>(member: &MemberState, record: &'r Record) -> Option<&'r FailedWrites> {
    let known = member.uuid.as_ref().and_then(|uuid| record.failed_writes.get(uuid))?;
    (!scrubbed_since(known.at, record)).then_some(known)
}

/// What is to be remembered of members that writes to have failed, after this look: what was known, and what the counters tell beyond it.
pub fn failed_writes(state: &MirrorState, record: &Record, now: Timestamp) -> BTreeMap<String, FailedWrites> {
    let mut known = record.failed_writes.clone();
    if state.zfs.as_ref().is_none_or(|pool| pool.vdevs.is_empty()) {
        return known;
    }
    known.retain(|uuid, _| state.members.iter().any(|m| m.uuid.as_ref() == Some(uuid)));
    for member in &state.members {
        let Some(uuid) = &member.uuid else { continue };
        let counted = grown_writes(member, record);
        let given_up = member.missing_because.as_ref().is_some_and(|why| why.contains("FAULTED"));
        let before = known.get(uuid).copied();
        let more = before.is_none_or(|b| counted > b.counted || given_up);
        if (counted > 0 || given_up) && more {
            let most = before.map_or(counted, |b| b.most.max(counted));
            known.insert(uuid.clone(), FailedWrites { counted, most, at: now });
        } else if let Some(before) = before {
            // Set back: what fails from now on is counted from there.
            known.insert(uuid.clone(), FailedWrites { counted, ..before });
        }
    }
    known.retain(|_, entry| entry.counted > 0 || !scrubbed_since(entry.at, record));
    known
}

/// Whether losing one more could lose data.
fn severity_of(left: Option<i64>) -> Severity {
    if left.is_some_and(|left| left > 0) { Severity::Warning } else { Severity::Critical }
}

fn level(case: &mut Case<'_>, pool: &ZfsState) {
    let (name, declared) = (&case.declared.name, case.declared.level);
    let Some(level) = &pool.level else {
        let says = format!("how redundant the pool of mirror {name} is could not be told");
        case.unread(Source::Storage, "level", says, Vec::new());
        return;
    };
    if level == declared.as_str() {
        return;
    }
    let tops = pool.vdevs.iter().filter(|vdev| vdev.class == ZfsClass::Normal);
    let least = tops.clone().map(|vdev| spare_of(vdev, &|_| true)).min().flatten();
    let show = |vdev: &ZfsVdev| {
        let count = vdev.leaves().len();
        format!("{}: {count} {}", vdev.name, plural(count as u64, "device"))
    };
    let evidence = tops.map(show).collect();
    let says = format!("the pool of mirror {name} is {level}, not {declared}");
    case.add("MIR-PROFILE", severity_of(least), "", says, evidence);
}

/// A vdev that holds what no other does, and is no member: the pool is lost with it, or what was written last.
fn beside(case: &mut Case<'_>, vdev: &ZfsVdev) {
    let least = i64::try_from(case.declared.survives()).unwrap_or(1);
    let left = spare_of(vdev, &serves_whole);
    if left.is_some_and(|left| left >= least) {
        return;
    }
    let (what, holds) = match vdev.class {
        ZfsClass::Log => ("log", "what was written last is"),
        ZfsClass::Special => ("special vdev", "metadata are"),
        _ => ("dedup vdev", "tables of what is stored once are"),
    };
    let name = &case.declared.name;
    let says = match left {
        Some(left) if left < 0 => format!("the {what} of mirror {name} has failed"),
        Some(0) => format!("{holds} on one device of the {what} of mirror {name} only"),
        Some(left) => format!("the {what} of mirror {name} survives {left}, the mirror {least}"),
        None => format!("how redundant the {what} of mirror {name} is could not be told"),
    };
    let show = |leaf: &&ZfsVdev| format!("{}: {}", place(leaf), leaf.state);
    let evidence = vdev.leaves().iter().map(show).collect();
    let words = [("VDEV", vdev.name.clone())];
    case.add_with("MIR-VDEV", severity_of(left), vdev.name.clone(), says, evidence, &words);
}

fn place(leaf: &ZfsVdev) -> String {
    leaf.path.as_ref().map_or_else(|| leaf.name.clone(), |path| path.display().to_string())
}

/// What serves, and ZFS calls it worse than ONLINE all the same.
fn doubted(case: &mut Case<'_>, state: &MirrorState, pool: &ZfsState) {
    let mut explained = false;
    for leaf in pool.leaves().into_iter().filter(|leaf| leaf.class.holds_data() && leaf.state != "ONLINE") {
        explained = true;
        let member = state.members.iter().find(|m| leaf.guid == Some(m.devid));
        let Some(member) = member.filter(|_| leaf.serves()) else { continue };
        let says = format!("ZFS calls {} {}", name_of(member), leaf.state);
        let evidence = leaf.why.iter().cloned().collect();
        let about = format!("member {}", member.devid);
        case.add_with("MIR-DOUBTED", Severity::Warning, about, says, evidence, &words_for(member));
    }
    if pool.state != "ONLINE" && !explained {
        let says = format!("ZFS calls the pool of mirror {} {}", case.declared.name, pool.state);
        let evidence = pool.remark.iter().cloned().collect();
        case.add("MIR-DOUBTED", Severity::Warning, "", says, evidence);
    }
}

fn damaged(case: &mut Case<'_>, pool: &ZfsState) {
    let name = &case.declared.name;
    let scan = pool.scan.as_ref();
    let unmended = scan.and_then(|scan| scan.errors).unwrap_or_default();
    if pool.damaged.is_none() {
        let says = format!("whether files of mirror {name} are damaged could not be read");
        case.unread(Source::Storage, "damaged files", says, Vec::new());
    }
    let known = pool.damaged.unwrap_or_default();
    if known.max(unmended) == 0 {
        return;
    }
    let says = format!("data of mirror {name} are damaged: every copy of them is wrong");
    let mut evidence = Vec::new();
    if known > 0 {
        evidence.push(format!("the pool knows of {known} damaged {}", plural(known, "place")));
    }
    if let Some(scan) = scan.filter(|_| unmended > 0) {
        let work = if scan.kind == ZfsScanKind::Resilver { "resilver" } else { "scrub" };
        evidence.push(format!("the last {work} could not mend {unmended}"));
    }
    case.add("MIR-DAMAGED", Severity::Critical, "", says, evidence);
}

/// Members whose counters say nothing any more of writes that have failed.
fn lost_writes(case: &mut Case<'_>, state: &MirrorState) {
    let record = case.record;
    let severity = severity_of(left(state, record));
    for member in state.members.iter().filter(|m| !m.missing && grown_writes(m, record) == 0) {
        let Some(known) = unsettled(member, record) else { continue };
        let says = format!("{} lacks what could not be written to it", name_of(member));
        let counted = if known.most > 0 {
            format!("{} failed {}, seen {:.0}", known.most, plural(known.most, "write"), known.at)
        } else {
            format!("ZFS had given it up, seen {:.0}", known.at)
        };
        let evidence =
            vec![counted, "its counters were set back since, and no scrub has ended well".to_owned()];
        let about = format!("member {}", member.devid);
        case.add_with("MIR-WRITE-ERRORS", severity, about, says, evidence, &words_for(member));
    }
}

/// A resilver of which nothing tells yet what it fills: those that are known are said with the members.
fn filling(case: &mut Case<'_>, state: &MirrorState, pool: &ZfsState) {
    if !pool.is_filling() || pool.leaves().iter().any(|leaf| leaf.resilvering) {
        return;
    }
    let says = format!("a member of mirror {} is not whole yet", case.declared.name);
    let evidence = vec![format!("ZFS does not say which{}", progress(state))];
    case.add("MIR-REBUILDING", Severity::Critical, "", says, evidence);
}

fn changing(case: &mut Case<'_>, pool: &ZfsState) {
    fn places<'v>(vdev: &'v ZfsVdev, out: &mut Vec<&'v ZfsVdev>) {
        if matches!(vdev.level(), Some("replacing" | "spare")) {
            out.push(vdev);
        }
        vdev.children.iter().for_each(|child| places(child, out));
    }
    let mut found = Vec::new();
    pool.vdevs.iter().for_each(|vdev| places(vdev, &mut found));
    let mut evidence: Vec<String> = Vec::new();
    for vdev in found {
        if let [old @ .., new] = &vdev.leaves()[..] {
            let old = old.iter().map(|leaf| place(leaf)).collect::<Vec<_>>().join(", ");
            let verb = if vdev.level() == Some("spare") { "stands in for" } else { "takes the place of" };
            evidence.push(format!("{} {verb} {old}", place(new)));
        }
    }
    if pool.removing {
        evidence.push("a vdev is being taken out, or a raidz made wider".to_owned());
    }
    if evidence.is_empty() {
        return;
    }
    let says = format!("the devices of mirror {} are being changed", case.declared.name);
    case.add("MIR-REPLACING", Severity::Warning, "", says, evidence);
}

/// How far what fills members is, to be put behind a word.
pub(super) fn progress(state: &MirrorState) -> String {
    let Some(pool) = state.zfs.as_ref().filter(|pool| pool.is_filling()) else { return String::new() };
    let scan = pool.scan.as_ref().filter(|scan| scan.kind == ZfsScanKind::Resilver);
    let far = scan.filter(|scan| scan.state == ZfsScanState::Running).and_then(ZfsScan::progress);
    format!(": resilver{}", far.map_or_else(String::new, |far| format!(", {far}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        health::samples::{healthy, hours_ago},
        model::{mirror::ErrorCounts, record::JobRun},
    };

    /// A pool of the sample's members, of which to the second so many writes have failed.
    fn state(writes: u64) -> MirrorState {
        let text = include_str!("../../../tests/fixtures/zfs/2.3.9/healthy/status-tree.json");
        let pool = crate::backend::zfs::json::parse_status(text).unwrap().remove(0);
        let mut state = healthy().1.storage.get().unwrap().clone();
        state.zfs = Some(pool);
        state.members[1].errors = Some(ErrorCounts { write: writes, ..ErrorCounts::default() });
        state
    }

    fn looked(record: &mut Record, state: &MirrorState, hours: i64) -> Vec<(u64, u64, Timestamp)> {
        record.failed_writes = failed_writes(state, record, hours_ago(hours));
        record.failed_writes.values().map(|f| (f.counted, f.most, f.at)).collect()
    }

    #[test]
    fn writes_that_failed_are_remembered_until_a_scrub_has_ended_well() {
        let mut record = Record::default();
        assert_eq!(looked(&mut record, &state(0), 20), []);
        assert_eq!(looked(&mut record, &state(159), 19), [(159, 159, hours_ago(19))]);
        assert_eq!(looked(&mut record, &state(159), 18), [(159, 159, hours_ago(19))], "nothing new");
        assert_eq!(looked(&mut record, &state(0), 17), [(0, 159, hours_ago(19))], "zpool clear");
        let lacks = |record: &Record, state: &MirrorState| lacks_writes(&state.members[1], record);
        assert!(lacks(&record, &state(0)));
        assert_eq!(looked(&mut record, &state(2), 16), [(2, 159, hours_ago(16))], "more, after that");
        assert_eq!(looked(&mut record, &state(0), 15), [(0, 159, hours_ago(16))]);
        let scrub = |began, good: Option<i64>| JobRun {
            started: hours_ago(began),
            ended: None,
            failed: None,
            good: good.map(hours_ago),
        };
        for (began, good) in [(17, Some(14)), (14, None), (14, Some(30))] {
            record.jobs.insert("scrub".into(), scrub(began, good));
            assert!(lacks(&record, &state(0)), "{began} {good:?}");
            assert_eq!(looked(&mut record, &state(0), 13).len(), 1);
        }
        record.jobs.insert("scrub".into(), scrub(14, Some(13)));
        assert!(!lacks(&record, &state(0)));
        assert_eq!(looked(&mut record, &state(0), 12), []);
    }

    #[test]
    fn what_zfs_gave_up_is_remembered_and_what_is_not_seen_is_kept() {
        let mut record = Record::default();
        let mut failed = state(0);
        let member = &mut failed.members[1];
        (member.missing, member.missing_because) =
            (true, Some("ZFS calls it FAULTED: too many errors".into()));
        assert_eq!(looked(&mut record, &failed, 9), [(0, 0, hours_ago(9))]);
        assert_eq!(looked(&mut record, &state(0), 8), [(0, 0, hours_ago(9))]);
        // Nothing is seen of one that has stopped, or is not imported.
        let mut unseen = state(0);
        unseen.zfs = None;
        assert_eq!(looked(&mut record, &unseen, 7).len(), 1);
        // Another has taken its place.
        let mut replaced = state(0);
        replaced.members[1].uuid = Some("another".into());
        assert_eq!(looked(&mut record, &replaced, 6), []);
        // What was acknowledged is none.
        let (uuid, errors) = (state(0).members[1].uuid.clone().unwrap(), state(7).members[1].errors.unwrap());
        record.acknowledged.insert(uuid, errors);
        assert_eq!(looked(&mut record, &state(7), 5), []);
    }
}
