use super::*;
use crate::{
    config::Mirror,
    health::samples::healthy,
    model::{
        Bytes,
        mirror::{ChunkKind, ErrorCounts, ProbeFailure, ProfileUse},
    },
};

type Change = fn(&mut Mirror, &mut MirrorState);

fn profile(kind: ChunkKind, name: &str, used: u64) -> ProfileUse {
    ProfileUse { kind, profile: name.into(), total: Bytes::mib(32), used: Bytes(used) }
}

#[test]
#[allow(clippy::too_many_lines, reason = "one table")]
fn every_fault_has_its_code_and_weight() {
    let cases: &[(&str, Change, &[&str], Level)] = &[
        ("healthy", |_, _| {}, &[], Level::Ok),
        ("not mounted", |_, s| s.mounted = false, &["MNT-ABSENT"], Level::Critical),
        (
            "another filesystem there",
            |_, s| (s.mounted, s.instead) = (false, Some("ext4 from /dev/sda1".into())),
            &["MNT-OTHER"],
            Level::Critical,
        ),
        (
            "no device at all",
            |_, s| {
                (s.mounted, s.members, s.profiles) = (false, Vec::new(), Vec::new());
            },
            &["MNT-ABSENT", "MIR-ABSENT"],
            Level::Critical,
        ),
        ("a member missing", |_, s| s.members[1].missing = true, &["MIR-MISSING"], Level::Critical),
        ("a member removed", |_, s| drop(s.members.pop()), &["MIR-MISSING"], Level::Critical),
        (
            "a member missing, its UUID unreadable",
            |_, s| (s.members[1].missing, s.members[1].uuid) = (true, None),
            &["MIR-MISSING"],
            Level::Critical,
        ),
        (
            "one of three copies missing",
            |d, s| {
                d.level = crate::model::Level::Raid1c3;
                s.profiles.iter_mut().for_each(|p| p.profile = "raid1c3".into());
                s.members[1].missing = true;
            },
            &["MIR-MISSING"],
            Level::Warning,
        ),
        ("another member", |_, s| s.members[1].devid = 3, &["MIR-MISSING", "MIR-FOREIGN"], Level::Critical),
        (
            "another UUID",
            |_, s| s.members[1].uuid = Some("x".into()),
            &["MIR-MISSING", "MIR-FOREIGN"],
            Level::Critical,
        ),
        ("one member more", |d, _| drop(d.member.pop()), &["MIR-FOREIGN"], Level::Warning),
        ("a clone", |_, s| s.members.push(s.members[1].clone()), &["MIR-FOREIGN"], Level::Critical),
        (
            "data on one member",
            |_, s| s.profiles.push(profile(ChunkKind::Data, "single", 1)),
            &["MIR-PROFILE"],
            Level::Critical,
        ),
        (
            "metadata twice on one member",
            |_, s| s.profiles.push(profile(ChunkKind::Metadata, "dup", 1)),
            &["MIR-PROFILE"],
            Level::Critical,
        ),
        (
            "an empty single chunk",
            |_, s| s.profiles.push(profile(ChunkKind::System, "single", 0)),
            &["MIR-PROFILE"],
            Level::Warning,
        ),
        (
            "a profile nobody knows",
            |_, s| s.profiles.push(profile(ChunkKind::Data, "raid7", 1)),
            &["MIR-PROFILE"],
            Level::Critical,
        ),
        (
            "fewer copies than declared",
            |d, _| d.level = crate::model::Level::Raid1c3,
            &["MIR-PROFILE"],
            Level::Warning,
        ),
        ("no chunks", |_, s| s.profiles.clear(), &["OBS-FAILED"], Level::Unknown),
        (
            "errors",
            |_, s| s.members[0].errors = Some(ErrorCounts { write: 1, ..ErrorCounts::default() }),
            &["MIR-ERRORS"],
            Level::Warning,
        ),
        ("counters unread", |_, s| s.members[0].errors = None, &["OBS-FAILED"], Level::Unknown),
        (
            "forced read-only",
            |_, s| (s.read_only, s.forced_read_only) = (true, true),
            &["MIR-READONLY"],
            Level::Critical,
        ),
        (
            "one member read-only",
            |_, s| s.members[0].writeable = Some(false),
            &["MIR-READONLY"],
            Level::Critical,
        ),
        ("an old member", |_, s| s.members[1].generation = Some(36), &["MIR-STALE"], Level::Critical),
        ("a commit on its way", |_, s| s.members[1].generation = Some(37), &[], Level::Ok),
        ("degraded", |_, s| s.degraded_option = true, &["MIR-DEGRADED-OPTION"], Level::Critical),
        (
            "replace",
            |_, s| s.exclusive_operation = Some("device replace".into()),
            &["MIR-REPLACING"],
            Level::Warning,
        ),
        ("balance", |_, s| s.exclusive_operation = Some("balance".into()), &[], Level::Ok),
        ("another filesystem looked at", |_, s| s.uuid = "x".into(), &["OBS-FAILED"], Level::Unknown),
        (
            "a member missing, a device unread",
            |_, s| (s.members[1].missing, s.unread) = (true, vec!["/dev/sdd: I/O error".into()]),
            &["MIR-MISSING", "OBS-FAILED"],
            Level::Critical,
        ),
    ];
    for (name, change, codes, level) in cases {
        let (mut declared, mut observed) = healthy();
        change(&mut declared, observed.state.as_mut().unwrap());
        let verdict = judge(&declared, &observed);
        let found: Vec<_> = verdict.findings.iter().map(|f| f.code.as_str()).collect();
        assert_eq!((&*found, verdict.level), (*codes, *level), "{name}: {verdict:#?}");
        for finding in &verdict.findings {
            assert!(findings::find(&finding.code).is_some(), "{name}");
            assert!(!finding.remedy.contains("MOUNTPOINT") && !finding.remedy.contains("NAME"), "{name}");
        }
    }
}

#[test]
fn what_was_not_read_is_never_ok() {
    let (declared, mut observed) = healthy();
    observed.failures.push(ProbeFailure { probe: "the mirror".into(), error: "denied".into() });
    assert_eq!(judge(&declared, &observed).level, Level::Unknown);
    observed.state = None;
    assert_eq!(judge(&declared, &observed).level, Level::Unknown);
    observed.failures.clear();
    assert_eq!(judge(&declared, &observed).level, Level::Unknown);
}

#[test]
fn critical_outweighs_unknown_outweighs_warning() {
    assert!(
        Level::Critical > Level::Unknown && Level::Unknown > Level::Warning && Level::Warning > Level::Ok
    );
    assert_eq!(
        [Level::Ok, Level::Warning, Level::Critical, Level::Unknown].map(Level::exit_code),
        [0, 1, 2, 3]
    );
}

#[test]
fn what_was_seen_survives_json() {
    let (_, observed) = healthy();
    let text = serde_json::to_string(&observed).unwrap();
    assert_eq!(serde_json::from_str::<Observation>(&text).unwrap(), observed);
}

#[test]
fn a_remedy_names_this_mirror_whatever_it_is_called() {
    let (mut declared, _) = healthy();
    (declared.name, declared.mountpoint) = ("LEVEL".into(), "/srv/NAME".into());
    let remedy = finding(&declared, "MIR-PROFILE", Level::Warning, String::new()).remedy;
    assert!(remedy.ends_with("-dconvert=raid1,soft -mconvert=raid1,soft /srv/NAME`."), "{remedy}");
}
