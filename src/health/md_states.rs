//! A healthy array of md with one thing, or a few, that are not as they should be.

use super::{
    samples::{array, hours_ago},
    states::{Change, State, runs_for},
};
use crate::model::{
    BackendKind, Bytes, Filesystem, FilesystemKind, Seen,
    md::{MdProgress, MdState},
    mirror::MirrorState,
    record::Mismatches,
};

const FILESYSTEM: &str = "1f624a50-0f62-4fea-8ae9-91647e74e09e";

/// Makes the healthy mirror one of md.
fn as_array(state: &mut State) {
    state.0.backend = BackendKind::Mdadm;
    state.0.filesystem = Some(Filesystem { kind: FilesystemKind::Xfs, uuid: FILESYSTEM.into() });
    if let Some(schedule) = &mut state.0.schedule {
        schedule.balance = None;
    }
    if let Some(line) = state.1.mount.get_mut().and_then(|m| m.lines.first_mut()) {
        line.source = format!("UUID={FILESYSTEM}");
    }
    let storage = storage(state);
    storage.profiles.clear();
    storage.md = Some(array());
}

fn storage(state: &mut State) -> &mut MirrorState {
    state.1.storage.get_mut().unwrap()
}

fn md(state: &mut State) -> &mut MdState {
    as_array(state);
    storage(state).md.as_mut().unwrap()
}

fn works(state: &mut State, action: &str) {
    let progress = MdProgress { done: Bytes::gib(1), total: Bytes::gib(32), speed: Some(Bytes::mib(50)) };
    let md = md(state);
    (md.action, md.progress) = (Some(action.into()), Some(progress));
}

/// So many sectors differed at the last scrub.
fn found(state: &mut State, sectors: u64) {
    if storage(state).md.is_none() {
        as_array(state);
    }
    state.2.mismatches = Some(Mismatches { sectors, at: hours_ago(35) });
}

/// Gives it a third member.
fn three(state: &mut State) {
    as_array(state);
    let (mut declared, mut third) = (state.0.member[1].clone(), storage(state).members[1].clone());
    (declared.id, declared.uuid) = ("3".into(), "third".into());
    (third.devid, third.uuid) = (3, Some("third".into()));
    state.0.member.push(declared);
    storage(state).members.push(third);
    storage(state).md.as_mut().unwrap().raid_disks = 3;
}

pub(super) fn md_states() -> Vec<(&'static str, Change)> {
    vec![
        ("healthy", as_array),
        ("a resync", |state| works(state, "resync")),
        ("a resync that waits", |state| md(state).action = Some("resync".into())),
        ("a check", |state| works(state, "check")),
        ("a check that runs for more than a day", |state| {
            works(state, "check");
            state.1.scrub = Seen::Read(None);
            runs_for(&mut state.2, 36);
        }),
        ("a check of somebody else's", |state| {
            works(state, "check");
            state.1.scrub = Seen::Read(None);
            runs_for(&mut state.2, 36);
            state.2.jobs.get_mut("scrub").unwrap().ended = Some(hours_ago(35));
        }),
        ("a scrub that died", |state| {
            as_array(state);
            state.1.scrub = Seen::Read(None);
            runs_for(&mut state.2, 36);
        }),
        ("a reshape", |state| works(state, "reshape")),
        ("a member missing", |state| {
            md(state).degraded = Some(1);
            let member = &mut storage(state).members[1];
            (member.missing, member.missing_because) = (true, Some("the array runs without it".into()));
        }),
        ("a member that is filled", |state| {
            works(state, "recover");
            storage(state).members[1].replace_target = true;
        }),
        ("one of three missing", |state| {
            three(state);
            storage(state).members[2].missing = true;
        }),
        ("inactive", |state| {
            md(state).state = "inactive".into();
            storage(state).mounted = false;
        }),
        ("not assembled", |state| {
            as_array(state);
            (storage(state).mounted, storage(state).md) = (false, None);
        }),
        ("not written to yet", |state| md(state).state = "read-auto".into()),
        ("no bitmap", |state| md(state).policy = Some("resync".into())),
        ("another level", |state| md(state).level = "raid0".into()),
        ("sectors that a member lacks", |state| {
            as_array(state);
            storage(state).members[1].bad_sectors = 16;
        }),
        ("sectors that one of three lacks", |state| {
            three(state);
            storage(state).members[1].bad_sectors = 16;
        }),
        ("a few sectors differ", |state| md(state).mismatches = Some(120)),
        ("many sectors differ", |state| md(state).mismatches = Some(128)),
        ("as many as were acknowledged", |state| {
            md(state).mismatches = Some(4096);
            state.2.acknowledged_mismatches = Some(4096);
        }),
        ("more than were acknowledged", |state| {
            md(state).mismatches = Some(4224);
            state.2.acknowledged_mismatches = Some(4096);
        }),
        ("a boot since many were found to differ", |state| found(state, 4096)),
        ("a scrub since many were found to differ", |state| {
            works(state, "check");
            found(state, 4096);
        }),
        ("a boot since as many as were acknowledged", |state| {
            found(state, 4096);
            state.2.acknowledged_mismatches = Some(4096);
        }),
        ("more than were found before", |state| {
            found(state, 4096);
            storage(state).md.as_mut().unwrap().mismatches = Some(8192);
        }),
        ("halves that parted", |state| {
            as_array(state);
            let claims = state.1.claims.get_mut().unwrap();
            let (one, two) = (claims[0].uuid.clone(), claims[1].uuid.clone());
            (claims[0].without, claims[1].without) = (vec![two], vec![one]);
        }),
        ("a half that was away", |state| {
            as_array(state);
            let claims = state.1.claims.get_mut().unwrap();
            claims[0].without = vec![claims[1].uuid.clone()];
        }),
        ("an old member that another took the place of", |state| {
            as_array(state);
            let mut old = state.1.claims.get().unwrap()[1].clone();
            (old.path, old.uuid) = ("/dev/sdz".into(), "old".into());
            state.1.claims.get_mut().unwrap().push(old);
        }),
    ]
}
