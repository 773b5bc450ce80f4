//! What is decided, from facts alone.

use super::*;
use crate::{
    model::{Bytes, mirror::ErrorCounts, node::Holder, observed::Claim},
    node::Running,
    ops::{
        Blocker,
        replace::{Parting, tests::facts as whole},
    },
};

fn facts() -> Facts {
    Facts { new: None, ..whole() }
}

fn more() -> More {
    More { scrub: None, known: std::collections::BTreeMap::new() }
}

fn used(mut facts: Facts) -> Facts {
    let holder = Holder { pid: 42, name: "lightningd".into(), holds: "/srv/lightning/lightning".into() };
    facts.running = Running { holders: vec![holder], unit: None, unknown: None };
    facts
}

fn claim(path: &str, devid: u64, generation: u64) -> Claim {
    Claim {
        path: path.into(),
        devid,
        uuid: devid.to_string(),
        generation,
        filling: false,
        without: Vec::new(),
    }
}

fn lines(plan: &Plan<Action>) -> String {
    let step = |s: &Action| {
        let commands: String = s.commands().iter().map(|c| format!("    $ {c}\n")).collect();
        format!("{}\n{commands}", s.says())
    };
    plan.steps.iter().map(step).collect()
}

fn says(facts: &Facts) -> String {
    let blockers = decide(facts, &more()).unwrap_err();
    blockers.iter().map(|Blocker { says, clears }| format!("{says} | {clears}\n")).collect()
}

#[test]
fn where_nothing_is_wrong_nothing_is_done() {
    let decision = decide(&facts(), &more()).unwrap();
    assert!(decision.found.is_empty() && decision.plan.is_none() && decision.discarded.is_none());
}

#[test]
fn a_member_that_is_back_is_taken_in_by_mounting_anew() {
    let mut facts = used(facts());
    facts.state.members[1].missing = true;
    facts.state.members[1].pulled = true;
    facts.claims = vec![claim("/dev/sdb", 1, 38), claim("/dev/sdz", 2, 30)];
    let decision = decide(&facts, &more()).unwrap();
    insta::assert_snapshot!(decision.found.join("\n"), @r#"member 2 is back at /dev/sdz, and the running mirror does without it"#);
    insta::assert_snapshot!(lines(&decision.plan.unwrap()), @r#"
        stop the node (lightningd.service) and wait until nothing uses /home/bitcoin/.lightning
            $ write /run/systemd/system/lightningd.service.d/raidguard-hold.conf
            $ systemctl daemon-reload
            $ systemctl stop -- lightningd.service
        unmount /srv/lightning and mount it again with every member
            $ umount /srv/lightning
            $ btrfs device scan /dev/sdb /dev/sdz
            $ mount /srv/lightning
        store as raid1 again what is not
            $ btrfs balance start -f -dconvert=raid1,soft -mconvert=raid1,soft -sconvert=raid1,soft /srv/lightning
        prove it: read every copy of everything, and see that all of it is raid1
            $ btrfs scrub start -B -c 2 -n 4 /srv/lightning
        start the node (lightningd.service) and see it run with its files at /srv/lightning/lightning
            $ rm /run/systemd/system/lightningd.service.d/raidguard-hold.conf
            $ systemctl reset-failed -- lightningd.service
            $ systemctl daemon-reload
            $ systemctl start -- lightningd.service
        "#);
    facts.mirror.node.as_mut().unwrap().unit = None;
    assert!(says(&facts).contains("must be unmounted for it"));
}

#[test]
fn each_fault_is_found() {
    type Change = fn(&mut Facts, &mut More);
    let scrub = |finished, corrected, uncorrectable| {
        Some(crate::model::observed::ScrubRecord {
            started: crate::health::samples::now(),
            ended: Some(crate::health::samples::now()),
            finished,
            cancelled: !finished,
            scrubbed: Bytes::gib(1),
            corrected,
            uncorrectable,
            unmended_on: None,
        })
    };
    let cases: &[(Change, &str)] = &[
        (|f, _| f.state.profiles[0].profile = "single".into(), "data is stored as single"),
        (|f, _| f.state.members[1].generation = Some(30), "member 2 holds older data: commit 30 of 38"),
        (|f, _| f.state.degraded_option = true, "mounted with `degraded`"),
        (|f, _| f.state.mounted = false, "not mounted at /srv/lightning"),
        (
            |f, _| f.state.members[0].errors.as_mut().unwrap().corruption = 3,
            "member 1 has counted errors: 3 corruption",
        ),
    ];
    for (change, expected) in cases {
        let (mut facts, mut more) = (facts(), more());
        change(&mut facts, &mut more);
        let decision = decide(&facts, &more).unwrap();
        assert_eq!(decision.found.len(), 1, "{:?}", decision.found);
        assert!(decision.found[0].contains(expected), "{:?}", decision.found);
        assert!(lines(&decision.plan.unwrap()).contains("btrfs scrub start"), "{expected}");
    }
    for (scrub, expected) in [
        (scrub(false, 0, 0), Some("did not read everything")),
        (scrub(true, 4, 0), Some("mended 4 blocks")),
        (scrub(true, 0, 2), Some("could not mend 2 blocks")),
        (scrub(true, 0, 0), None),
    ] {
        let found = decide(&facts(), &More { scrub, ..more() }).unwrap().found;
        assert_eq!(found.len(), usize::from(expected.is_some()), "{found:?}");
        assert!(expected.is_none_or(|e| found[0].contains(e)), "{found:?}");
    }
}

#[test]
fn known_errors_are_no_news() {
    let mut facts = facts();
    let errors = ErrorCounts { write: 7, ..ErrorCounts::default() };
    facts.state.members[1].errors = Some(errors);
    let uuid = facts.state.members[1].uuid.clone().unwrap();
    let more = |known| More { known: [(uuid.clone(), known)].into(), ..more() };
    assert!(decide(&facts, &more(errors)).unwrap().plan.is_none());
    let less = ErrorCounts { write: 5, ..ErrorCounts::default() };
    assert_eq!(decide(&facts, &more(less)).unwrap().found, ["member 2 has counted errors: 2 write"]);
}

#[test]
fn a_member_that_is_gone_is_replaces_matter() {
    let mut facts = facts();
    facts.state.members[1].missing = true;
    facts.claims = vec![claim("/dev/sdb", 1, 38)];
    let said = says(&facts);
    assert!(
        said.contains("is missing") && said.contains("raidguard replace lightning --old 2 --new"),
        "{said}"
    );
}

/// Two halves, each written to alone.
fn apart() -> Facts {
    let mut facts = facts();
    facts.state.mounted = false;
    facts.state.profiles.clear();
    facts.state.members[0].generation = Some(60);
    facts.claims = vec![claim("/dev/sdb", 1, 60), claim("/dev/sdc", 2, 38)];
    facts.parting = Parting::Apart("because".into());
    facts
}

#[test]
fn halves_that_parted_are_shown_and_nothing_is_chosen() {
    let said = says(&apart());
    for word in [
        "/dev/sdb (member 1, last commit 60, serial S16)",
        "/dev/sdc (member 2, last commit 38, serial S32)",
        "--discard",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let mut unclear = apart();
    unclear.parting = Parting::Unclear("EIO".into());
    assert!(says(&unclear).contains("cannot be told"));
}

#[test]
fn the_half_that_is_given_up_is_erased_and_filled_from_the_other() {
    let mut facts = apart();
    facts.new = Some(Ok(facts.inventory.devices[1].dev));
    let decision = decide(&facts, &more()).unwrap();
    assert_eq!(decision.discarded.unwrap().0.path, std::path::Path::new("/dev/sdc"));
    insta::assert_snapshot!(lines(&decision.plan.unwrap()), @r#"
        give up the state on /dev/sdc: erase it
            $ btrfs device scan --forget /dev/sdc
            $ wipefs --all --types btrfs /dev/sdc
        mount the mirror degraded, at /run/raidguard/mirrors/lightning, where no node looks
            $ mkdir -p /run/raidguard/mirrors/lightning
            $ btrfs device scan /dev/sdb
            $ mount -t btrfs -o degraded,device=/dev/sdb /dev/sdb /run/raidguard/mirrors/lightning
        exchange member 2 (/dev/sdc, Example Disk, serial E2) for /dev/sdc
            $ btrfs replace start -B 2 /dev/sdc /run/raidguard/mirrors/lightning
        begin the count of its errors anew
        store as raid1 again what is not
            $ btrfs balance start -f -dconvert=raid1,soft -mconvert=raid1,soft -sconvert=raid1,soft /run/raidguard/mirrors/lightning
        mount the mirror at /srv/lightning without `degraded`
            $ umount /run/raidguard/mirrors/lightning
            $ btrfs device scan /dev/sdb /dev/sdc
            $ mount /srv/lightning
        prove it: read every copy of everything, and see that all of it is raid1
            $ btrfs scrub start -B -c 2 -n 4 /srv/lightning
        "#);
    // Only where it must be.
    facts.parting = Parting::Behind;
    assert!(says(&facts).contains("leave --discard out"));
    let mut stranger = apart();
    stranger.new = Some(Ok(stranger.inventory.devices[2].dev));
    assert!(says(&stranger).contains("no half of this mirror"));
    let mut mounted = apart();
    mounted.state.mounted = true;
    mounted.new = Some(Ok(mounted.inventory.devices[1].dev));
    assert!(says(&mounted).contains("unmount it first"));
}

#[test]
fn sectors_that_a_member_lacks_are_not_mended_in_place() {
    let mut facts = facts();
    facts.state.members[1].bad_sectors = 16;
    let said = says(&facts);
    assert!(
        said.contains("lacks 16 sectors") && said.contains("raidguard replace lightning --old 2 --new"),
        "{said}"
    );
    // Another fault is mended all the same.
    facts.state.mounted = false;
    assert!(decide(&facts, &more()).unwrap().plan.is_some());
}

fn of_zfs() -> Facts {
    Facts { new: None, ..crate::ops::replace::pool::tests::facts() }
}

#[test]
fn a_member_of_a_pool_comes_back_while_it_runs() {
    let mut facts = used(of_zfs());
    facts.state.members[1].missing = true;
    let decision = decide(&facts, &more()).unwrap();
    insta::assert_snapshot!(decision.found.join("\n"), @r#"member 102 is back at /dev/sdc1, and the running mirror does without it"#);
    insta::assert_snapshot!(lines(&decision.plan.unwrap()), @r#"
    take member 102 (/dev/sdc1) in again
        $ zpool online -- lightning 102
        $ zpool clear -- lightning 102
    prove it: read every copy of everything, and see that all of it is mirror
        $ zpool scrub -- lightning
    "#);
    // One that serves, and that ZFS does not trust.
    let mut doubted = of_zfs();
    doubted.state.zfs.as_mut().unwrap().vdevs[0].children[1].state = "DEGRADED".into();
    let decision = decide(&doubted, &more()).unwrap();
    assert_eq!(decision.found, ["ZFS calls member 102 (/dev/sdc1) DEGRADED"]);
    assert!(lines(&decision.plan.unwrap()).contains("zpool clear -- lightning 102"));
    // A pool that was adopted keeps its name.
    doubted.state.zfs.as_mut().unwrap().name = "tank".into();
    let plan = lines(&decide(&doubted, &more()).unwrap().plan.unwrap());
    assert!(plan.contains("zpool clear -- tank 102") && plan.contains("zpool scrub -- tank"), "{plan}");
    // One that is gone is not here to come back.
    facts.claims.pop();
    assert!(says(&facts).contains("raidguard replace lightning --old 102 --new DEVICE"));
}

#[test]
fn a_pool_that_is_not_imported_is() {
    let mut facts = of_zfs();
    (facts.state.mounted, facts.state.zfs) = (false, None);
    let decision = decide(&facts, &more()).unwrap();
    insta::assert_snapshot!(lines(&decision.plan.unwrap()), @r#"
    mount the mirror at /srv/lightning
        $ zpool import -N -o cachefile=/etc/zfs/zpool.cache -d /dev/disk/by-partuuid -d /dev/disk/by-id -- 77
        $ zfs set canmount=on lightning
        $ zfs mount lightning
    prove it: read every copy of everything, and see that all of it is mirror
        $ zpool scrub -- lightning
    "#);
}

#[test]
fn a_pool_that_has_stopped_goes_on_with_those_that_are_here() {
    let mut facts = used(of_zfs());
    facts.state.zfs.as_mut().unwrap().state = "SUSPENDED".into();
    facts.state.zfs.as_mut().unwrap().vdevs.clear();
    let decision = decide(&facts, &more()).unwrap();
    insta::assert_snapshot!(decision.found.join("\n"), @r#"the mirror has stopped, since too few of its members answered"#);
    insta::assert_snapshot!(lines(&decision.plan.unwrap()), @r#"
    have the mirror `lightning` go on, which has stopped
        $ zpool clear -- lightning
    take member 101 (/dev/sdb1) in again
        $ zpool online -- lightning 101
        $ zpool clear -- lightning 101
    take member 102 (/dev/sdc1) in again
        $ zpool online -- lightning 102
        $ zpool clear -- lightning 102
    prove it: read every copy of everything, and see that all of it is mirror
        $ zpool scrub -- lightning
    "#);
    // Nothing is asked of such a pool, so that nothing is known of its members but what their devices say.
    facts.state.members.clear();
    // What is gone for good is exchanged when it goes on.
    facts.claims.pop();
    let plan = lines(&decide(&facts, &more()).unwrap().plan.unwrap());
    assert!(plan.contains("zpool clear -- lightning\n") && !plan.contains("prove it"), "{plan}");
    facts.claims.pop();
    assert!(says(&facts).contains("no member of `lightning` is there"));
}

#[test]
fn of_two_halves_of_a_pool_one_is_given_up() {
    let mut facts = of_zfs();
    (facts.state.mounted, facts.state.zfs) = (false, None);
    facts.parting = Parting::Apart("because".into());
    let part = facts.inventory.devices.iter().find(|d| d.kname == "sdc1").unwrap().dev;
    facts.new = Some(Ok(part));
    let decision = decide(&facts, &more()).unwrap();
    let plan = decision.plan.unwrap();
    insta::assert_snapshot!(lines(&plan), @r#"
    give up the state on /dev/sdc1: erase it
        $ blkdiscard --zeroout --offset 0 --length 524288 /dev/sdc1
        $ blkdiscard --zeroout --offset 34013184000 --length 524288 /dev/sdc1
    mount the mirror at /srv/lightning
        $ zpool import -N -o cachefile=/etc/zfs/zpool.cache -d /dev/disk/by-partuuid -d /dev/disk/by-id -- 77
        $ zfs set canmount=on lightning
        $ zfs mount lightning
    exchange member 102 (/dev/sdc1, Example Disk, serial E2) for /dev/sdc1
        $ zpool replace -- lightning 102 /dev/disk/by-partuuid/uuid-sdc1
    declare the new member (Example Disk, serial E2, 31.6 GiB) in /etc/raidguard/raidguard.toml
        $ write /etc/raidguard/raidguard.toml
    begin the count of its errors anew
    prove it: read every copy of everything, and see that all of it is mirror
        $ zpool scrub -- lightning
    "#);
    let renumbered = plan.steps.iter().find_map(|step| match step {
        Action::Redeclare(step) => Some((step.after.id.clone(), step.device.clone())),
        _ => None,
    });
    assert_eq!(renumbered, Some((String::new(), Some("/dev/sdc1".into()))));
}

/// It was filled from its beginning, and what had declared it so was put back.
#[test]
fn a_member_of_an_array_that_serves_under_another_uuid_is_declared_by_it() {
    let mut facts = facts();
    facts.mirror.backend = crate::model::BackendKind::Mdadm;
    facts.state.members[1].uuid = Some("another".into());
    let decision = decide(&facts, &more()).unwrap();
    assert_eq!(decision.found, ["member 2 (/dev/sdc) serves, and is declared under another UUID"]);
    let steps = decision.plan.unwrap().steps;
    let Action::Redeclare(step) = &steps[0] else { panic!("{steps:?}") };
    assert_eq!((step.before.id.as_str(), step.after.id.as_str()), ("2", "2"));
    assert_eq!((step.after.uuid.as_str(), step.after.serial.as_deref()), ("another", Some("S32")));
    assert!(matches!(steps[1..], [Action::Prove(_)]), "{steps:?}");
    // One that is still filled may be given up yet.
    facts.state.members[1].replace_target = true;
    assert!(decide(&facts, &more()).unwrap().plan.is_none());
}
