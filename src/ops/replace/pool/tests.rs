//! What is decided of a pool of ZFS, from facts alone.

use super::*;
use crate::{
    backend::Layout,
    model::{
        Bytes,
        inventory::Signature,
        mirror::MemberState,
        observed::Claim,
        zfs::{ZfsClass, ZfsState, ZfsVdev},
    },
    ops::replace::{
        decide,
        tests::{device, facts as of_btrfs, lines, request as plain, says},
    },
    plan::steps::Action,
};

const UUID: &str = "aaaaaaaa-0000-4000-8000-000000000001";

fn leaf(guid: u64, kname: &str) -> ZfsVdev {
    ZfsVdev {
        name: kname.into(),
        guid: Some(guid),
        class: ZfsClass::Normal,
        path: None,
        state: "ONLINE".into(),
        errors: None,
        why: None,
        resilvering: false,
        ashift: None,
        children: Vec::new(),
    }
}

/// How large the members' partitions are: as setup makes them on disks of 32 GiB.
fn like() -> Bytes {
    let slot = whole_disk::slot(Bytes::gib(32), 512, whole_disk::usable(Bytes::gib(32), 512));
    slot.unwrap().size()
}

/// A whole mirror of the partitions sdb1 and sdc1, and a new disk sdd of 32 GiB, with sectors of so many bytes.
pub(in crate::ops) fn facts_with(size: Bytes, sector: u64, ashift: u64) -> Facts {
    let mut facts = of_btrfs();
    facts.mirror.backend = BackendKind::Zfs;
    facts.mirror.level = crate::model::Level::Mirror;
    facts.mirror.uuid = "77".into();
    let members = [(101_u64, "sdb"), (102, "sdc")];
    for (member, (guid, _)) in facts.mirror.member.iter_mut().zip(members) {
        (member.id, member.uuid, member.size) = (guid.to_string(), guid.to_string(), like());
    }
    facts.declared = vec![facts.mirror.clone()];
    facts.state.uuid = "77".into();
    facts.state.profiles.clear();
    facts.state.members = members
        .map(|(guid, disk)| MemberState {
            uuid: Some(guid.to_string()),
            path: Some(format!("/dev/{disk}1").into()),
            size: Some(like()),
            ..MemberState::unseen(guid)
        })
        .to_vec();
    let mirror = ZfsVdev { children: vec![leaf(101, "sdb1"), leaf(102, "sdc1")], ..leaf(88, "mirror-0") };
    facts.state.zfs = Some(ZfsState {
        name: "lightning".into(),
        guid: Some(77),
        level: Some("mirror".into()),
        state: "ONLINE".into(),
        remark: None,
        vdevs: vec![mirror],
        scan: None,
        rebuilding: false,
        checkpoint: false,
        removing: false,
        damaged: None,
        space: None,
        read_only: false,
    });
    let claim = |guid: u64, path: &str| Claim {
        path: path.into(),
        devid: guid,
        uuid: guid.to_string(),
        generation: 38,
        filling: false,
        without: Vec::new(),
    };
    facts.claims = vec![claim(101, "/dev/sdb1"), claim(102, "/dev/sdc1")];
    facts.known = None;
    for (name, minor) in [("sdb", 17), ("sdc", 33)] {
        let part = Device {
            kind: "part".into(),
            size: like(),
            parents: vec![name.into()],
            partuuid: Some(format!("uuid-{name}1")),
            serial: Some(format!("S{}", minor - 1)),
            ..device(&format!("{name}1"), minor)
        };
        facts.inventory.devices.push(part);
    }
    facts.inventory.devices[2].size = size;
    facts.sector = Some(sector);
    let child = |guid| Vdev { kind: "disk".into(), guid, ..Vdev::default() };
    let top = Vdev {
        kind: "mirror".into(),
        guid: 88,
        ashift: Some(ashift),
        asize: Some(fit::usable(like()).0),
        metaslab_shift: Some(28),
        children: vec![child(101), child(102)],
        ..Vdev::default()
    };
    let needed = fit::smallest(&top).unwrap();
    facts.layout = Ok(Layout { members: vec![(101, needed), (102, needed)], pieces: Vec::new() });
    let slots = slots(&facts.mirror, &facts.inventory.devices[2], sector);
    let places = slots.into_iter().map(|slot| (slot, Content::Empty)).collect();
    facts.pool = Some(PoolFacts { top: Some(top), uuid: UUID.into(), places });
    facts
}

pub(in crate::ops) fn facts() -> Facts {
    facts_with(Bytes::gib(32), 512, 12)
}

fn request() -> Request {
    Request { old: Some("102".into()), ..plain() }
}

fn known(kind: &str) -> Content {
    Content::Known(vec![Signature { kind: kind.into(), label: None, uuid: None }])
}

#[test]
fn the_whole_plan_with_a_whole_disk() {
    let mut facts = facts();
    facts.inventory.devices[2].content = known("gpt");
    let decision = decide(&Request { wipe: true, ..request() }, &facts).unwrap();
    assert_eq!(decision.erased[0].0.path.to_str(), Some("/dev/sdd"), "what is erased is the disk");
    insta::assert_snapshot!(lines(&decision.plan), @r#"
    erase what is on /dev/sdd
        $ wipefs --all /dev/sdd
    make the partition /dev/sdd1 of 31.6 GiB in the free space of /dev/sdd, with a new GPT
        $ sfdisk --quiet --lock=yes --no-reread --no-tell-kernel --wipe never --wipe-partitions never /dev/sdd <<< $'label: gpt\nstart=2048, size=66433024, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, uuid=aaaaaaaa-0000-4000-8000-000000000001, name="lightning"\n'
        $ partx --update --nr 1 /dev/sdd
    see that the mirror is mounted at /srv/lightning
    exchange member 102 (/dev/sdc1, Example Disk, serial E2) for /dev/sdd1
        $ zpool replace -- lightning 102 /dev/disk/by-partuuid/aaaaaaaa-0000-4000-8000-000000000001
    see that the mirror is mounted at /srv/lightning, whole
    prove it: read every copy of everything, and see that all of it is mirror
        $ zpool scrub -- lightning
    declare the new member (Example Disk, serial S48, 31.6 GiB) in /etc/raidguard/raidguard.toml
        $ write /etc/raidguard/raidguard.toml
    begin the count of its errors anew
    "#);
    let step = |wanted: fn(&Action) -> bool| decision.plan.steps.iter().find(|step| wanted(step)).unwrap();
    let Action::ReplaceMember(replace) = step(|s| matches!(s, Action::ReplaceMember(_))) else { panic!() };
    assert_eq!(replace.exchange.partuuid.as_deref(), Some(UUID));
    assert_eq!(replace.old_device.as_ref().unwrap().path.to_str(), Some("/dev/sdc1"));
    let Action::Redeclare(declare) = step(|s| matches!(s, Action::Redeclare(_))) else { panic!() };
    assert_eq!(
        (declare.before.id.as_str(), declare.after.id.as_str()),
        ("102", ""),
        "it gets another number"
    );
    assert_eq!(declare.device.as_deref(), Some(std::path::Path::new("/dev/sdd1")));
}

/// The partition that would be made.
fn slot(facts: &Facts) -> Slot {
    let decision = decide(&request(), facts).unwrap();
    let slot = decision.plan.steps.iter().find_map(|step| match step {
        Action::MakePartition(step) => Some(step.slot),
        _ => None,
    });
    slot.unwrap()
}

#[test]
fn large_sectors_are_foretold() {
    // ZFS cannot write less than a sector, and what it writes was settled when the pool was made.
    let refused = says(&request(), &facts_with(Bytes::gib(32), 4096, 9));
    insta::assert_snapshot!(refused, @r#"/dev/sdd is written in pieces of 4096 bytes, and the pool in pieces of 512: ZFS does not take it, and what a pool is written in cannot be changed | name a device with sectors of at most 512 bytes"#);
    // An equally large one, where the pool writes enough: ZFS itself would have kept a reserve of so many sectors.
    let facts = facts_with(Bytes::gib(32), 4096, 12);
    let top = facts.pool.as_ref().unwrap().top.clone().unwrap();
    let equal = slot(&facts);
    assert_eq!((equal.size(), equal.sector), (like(), 4096));
    let tight = Vdev {
        asize: Some(fit::usable(whole_disk::most(Bytes::gib(32), 512)).0),
        metaslab_shift: Some(24),
        ..top
    };
    let whole = fit::on_whole_disk(Bytes::gib(32), 4096);
    assert!(matches!(fit::judge(&tight, whole, 4096), Some(Err(Unfit::Small { .. }))));
    assert_eq!(slot(&facts_with(Bytes::gib(32), 512, 9)).size(), like());
}

#[test]
fn a_smaller_disk_fits_as_far_as_zfs_takes_it() {
    // What was left free when the pool was made, and then what fills no metaslab.
    assert_eq!(slot(&facts_with(Bytes(like().0 + Bytes::mib(2).0), 512, 12)).size(), like());
    let less = slot(&facts_with(Bytes(like().0 - Bytes::mib(100).0), 512, 12)).size();
    assert_eq!(less, Bytes(like().0 - Bytes::mib(102).0));
    insta::assert_snapshot!(says(&request(), &facts_with(Bytes(like().0 - Bytes::mib(700).0), 512, 12)), @r#"/dev/sdd has room for 30.9 GiB of data (33272889344 bytes), and 31.5 GiB (33822867456 bytes) are needed: as much as the others hold | name a larger device"#);
    assert_eq!(slot(&facts_with(Bytes::gib(64), 512, 12)).size(), like(), "a larger one is not used up");
}

#[test]
fn a_partition_is_taken_as_it_is() {
    let mut facts = facts();
    let part = Device {
        kind: "part".into(),
        size: like(),
        parents: vec!["sdd".into()],
        partuuid: Some("its-own".into()),
        ..device("sdd1", 49)
    };
    (facts.new, facts.pool.as_mut().unwrap().places) = (Some(Ok(part.dev)), Vec::new());
    facts.inventory.devices.push(part);
    let plan = lines(&decide(&request(), &facts).unwrap().plan);
    assert!(plan.contains("$ zpool replace -- lightning 102 /dev/disk/by-partuuid/its-own\n"), "{plan}");
    assert!(!plan.contains("sfdisk"), "{plan}");
}

#[test]
fn what_stands_in_the_way_of_a_pool() {
    type Change = fn(&mut Request, &mut Facts);
    let cases: &[(Change, &str)] = &[
        (|_, f| f.sector = None, "the kernel does not say how large"),
        (|_, f| f.pool.as_mut().unwrap().top = None, "none of its members describes it"),
        (|_, f| f.pool.as_mut().unwrap().top.as_mut().unwrap().asize = None, "do not say what is needed"),
        (|_, f| f.pool.as_mut().unwrap().places.clear(), "has no room for a partition"),
        (|_, f| f.pool.as_mut().unwrap().places[0].1 = known("ext4"), "is left of something older: ext4"),
        (|_, f| f.pool.as_mut().unwrap().places[0].1 = Content::Unknown("EIO".into()), "cannot be told: EIO"),
        (|_, f| f.state.zfs.as_mut().unwrap().state = "SUSPENDED".into(), "raidguard repair lightning"),
        (|_, f| f.state.zfs.as_mut().unwrap().checkpoint = true, "zpool checkpoint -d lightning"),
        (|_, f| f.state.zfs.as_mut().unwrap().removing = true, "is being taken out"),
        (
            |_, f| {
                f.state.exclusive_operation = Some("resilver".into());
                f.state.zfs.as_mut().unwrap().rebuilding = true;
            },
            "at work on the mirror: resilver",
        ),
        (
            |r, f| (r.old, f.old) = (Some("/dev/sdd".into()), Some(Ok(f.inventory.devices[2].dev))),
            "is no member",
        ),
        (
            |_, f| {
                let claim = Claim { path: "/dev/sdd".into(), devid: 55, ..f.claims[0].clone() };
                f.claims.push(claim);
            },
            "/dev/sdd was a member of this mirror once (55), which has gone on without it | if nothing on it is needed: --wipe",
        ),
    ];
    for (change, expected) in cases {
        let (mut request, mut facts) = (request(), facts());
        change(&mut request, &mut facts);
        let said = says(&request, &facts);
        assert!(said.contains(expected), "{expected}: {said}");
        assert_eq!(said.lines().count(), 1, "nothing beside it: {said}");
    }
}

/// The new disk was pulled while it was filled, and that exchange was put back: its partition is on it, with a number that no member has.
#[test]
fn what_an_exchange_that_was_given_up_has_left_is_wiped_where_that_is_asked_for() {
    let mut facts = facts();
    let disk = facts.inventory.devices[2].clone();
    let part = crate::model::Device {
        path: "/dev/sdd1".into(),
        kname: "sdd1".into(),
        parents: vec![disk.kname.clone()],
        content: known("zfs_member"),
        ..disk
    };
    facts.inventory.devices[2].content = known("gpt");
    facts.pool.as_mut().unwrap().places[0].1 = known("zfs_member");
    facts.inventory.devices.push(part);
    facts.claims.push(Claim { path: "/dev/sdd1".into(), devid: 55, ..facts.claims[0].clone() });
    assert!(says(&request(), &facts).contains("/dev/sdd1 was a member of this mirror once (55)"));
    let plan = decide(&Request { wipe: true, ..request() }, &facts).unwrap().plan;
    assert!(lines(&plan).contains("zpool replace"));
    // What is found of the pool on it is not taken for the work of this very exchange.
    let erased = plan.steps.iter().filter_map(|step| match step {
        Action::Erase(erase) => Some(erase.leftover),
        _ => None,
    });
    assert_eq!(erased.collect::<Vec<_>>(), [Some(55), Some(55)]);
}

#[test]
fn an_exchange_begins_beside_a_resilver() {
    let mut facts = facts();
    facts.state.exclusive_operation = Some("resilver".into());
    decide(&request(), &facts).unwrap();
}

#[test]
fn what_is_left_in_the_partitions_place_is_erased_after_it_is_made() {
    let mut facts = facts();
    facts.pool.as_mut().unwrap().places[0].1 = known("zfs_member");
    let plan = lines(&decide(&Request { wipe: true, ..request() }, &facts).unwrap().plan);
    let (made, erased) = (plan.find("sfdisk").unwrap(), plan.find("wipefs --all /dev/sdd1").unwrap());
    assert!(
        made < erased && plan.contains("blkdiscard --zeroout --offset 0 --length 524288 /dev/sdd1"),
        "{plan}"
    );
}

#[test]
fn one_that_zfs_has_given_up_is_exchanged_while_it_is_there() {
    let mut facts = facts();
    facts.state.members[1].missing = true;
    let missing = says(&Request { old: None, ..request() }, &facts);
    assert!(
        missing.contains("`raidguard repair` takes it in again; to exchange it all the same: --old 102"),
        "{missing}"
    );
    let decision = decide(&request(), &facts).unwrap();
    let old = decision.plan.steps.iter().find_map(|step| match step {
        Action::ReplaceMember(step) => step.old_device.clone(),
        _ => None,
    });
    assert_eq!(old.unwrap().path.to_str(), Some("/dev/sdc1"), "it must not be taken for a member afterwards");
}
