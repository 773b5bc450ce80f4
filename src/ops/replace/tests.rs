//! What is decided, from facts alone.

use super::*;
use crate::{
    backend::{Layout, Piece},
    health::samples,
    model::{
        BackendKind, Bytes, Content, Device, Inventory,
        inventory::{Signature, Use, sample},
        node::Holder,
        observed::Claim,
    },
    node::Running,
    ops::Blocker,
    plan::{Step as _, steps::Action},
};

pub(super) fn device(kname: &str, minor: u32) -> Device {
    Device {
        size: Bytes::gib(32),
        rotational: Some(false),
        transport: Some("sata".into()),
        model: Some("Example Disk".into()),
        serial: Some(format!("S{minor}")),
        ..sample(kname, minor, &[])
    }
}

fn piece(kind: &str, ids: &[u64], survives: usize) -> Piece {
    Piece {
        start: 0,
        parts: 1,
        kind: kind.into(),
        length: Bytes::gib(1),
        places: ids.iter().map(|id| (*id, 1 << 20)).collect(),
        survives,
    }
}

pub(super) fn request() -> Request {
    Request {
        name: None,
        old: Some("2".into()),
        new: "/dev/sdd".into(),
        online: false,
        wipe: false,
        allow_same_disk: false,
    }
}

/// A whole mirror of sdb and sdc, and a new disk sdd.
pub(in crate::ops) fn facts() -> Facts {
    let (mirror, observed, _) = samples::healthy();
    let disks = [device("sdb", 16), device("sdc", 32), device("sdd", 48)];
    Facts {
        now: samples::now(),
        declared: vec![mirror.clone()],
        state: observed.storage.get().unwrap().clone(),
        claims: observed.claims.get().unwrap().clone(),
        layout: Ok(Layout {
            members: vec![(1, Bytes::gib(32)), (2, Bytes::gib(32))],
            pieces: vec![piece("DATA|RAID1", &[1, 2], 1), piece("METADATA|RAID1", &[1, 2], 1)],
        }),
        parting: Parting::Behind,
        new: Some(Ok(disks[2].dev)),
        old: None,
        inventory: Inventory { devices: disks.to_vec() },
        sector: Some(512),
        largest: Some(4096),
        pool: None,
        scrubbing: false,
        running: Running::default(),
        known: Some(38),
        unfinished: Vec::new(),
        mirror,
    }
}

/// Member 2 is gone; nothing is mounted.
fn unmounted(mut facts: Facts) -> Facts {
    facts.state.mounted = false;
    facts.state.profiles.clear();
    facts.state.members.pop();
    facts.claims.retain(|c| c.devid == 1);
    facts.inventory.devices.remove(1);
    facts
}

fn used(mut facts: Facts) -> Facts {
    let holder = Holder { pid: 42, name: "lightningd".into(), holds: "/srv/lightning/lightning".into() };
    facts.running = Running { holders: vec![holder], unit: None, unknown: None };
    facts
}

/// Each step and its commands, a line each.
pub(in crate::ops) fn lines(plan: &Plan<Action>) -> String {
    let step = |s: &Action| {
        let commands: String = s.commands().iter().map(|c| format!("    $ {c}\n")).collect();
        format!("{}\n{commands}", s.says())
    };
    plan.steps.iter().map(step).collect()
}

#[test]
fn the_whole_plan_of_a_running_node() {
    let mut facts = used(facts());
    facts.inventory.devices[2].size = Bytes::gib(64);
    facts.inventory.devices[2].content =
        Content::Known(vec![Signature { kind: "ext4".into(), label: None, uuid: None }]);
    let decision = decide(&Request { wipe: true, ..request() }, &facts).unwrap();
    assert_eq!(decision.erased[0].1, "ext4");
    let proves = |s: &Action| matches!(s, Action::Prove(prove) if prove.settled);
    assert!(decision.plan.steps.iter().any(proves), "the old member is gone by then");
    insta::assert_snapshot!(lines(&decision.plan), @r#"
        stop the node (lightningd.service) and wait until nothing uses /home/bitcoin/.lightning
            $ write /run/systemd/system/lightningd.service.d/raidguard-hold.conf
            $ systemctl daemon-reload
            $ systemctl stop -- lightningd.service
        erase what is on /dev/sdd
            $ wipefs --all /dev/sdd
        see that the mirror is mounted at /srv/lightning
        exchange member 2 (/dev/sdc, Example Disk, serial E2) for /dev/sdd
            $ btrfs replace start -B 2 /dev/sdd /srv/lightning
        let the filesystem use all of /dev/sdd
            $ btrfs filesystem resize 2:max /srv/lightning
            $ btrfs filesystem sync /srv/lightning
        store as raid1 again what is not
            $ btrfs balance start -f -dconvert=raid1,soft -mconvert=raid1,soft -sconvert=raid1,soft /srv/lightning
        see that the mirror is mounted at /srv/lightning, whole
        prove it: read every copy of everything, and see that all of it is raid1
            $ btrfs scrub start -B -c 2 -n 4 /srv/lightning
        declare member 2 (Example Disk, serial S48, 64 GiB) in /etc/raidguard/raidguard.toml
            $ write /etc/raidguard/raidguard.toml
        begin the count of its errors anew
        start the node (lightningd.service) and see it run with its files at /srv/lightning/lightning
            $ rm /run/systemd/system/lightningd.service.d/raidguard-hold.conf
            $ systemctl reset-failed -- lightningd.service
            $ systemctl daemon-reload
            $ systemctl start -- lightningd.service
        "#);
}

#[test]
fn the_whole_plan_where_a_member_is_gone() {
    let decision = decide(&Request { old: None, ..request() }, &unmounted(facts())).unwrap();
    insta::assert_snapshot!(lines(&decision.plan), @r#"
        mount the mirror degraded, at /run/raidguard/mirrors/lightning, where no node looks
            $ mkdir -p /run/raidguard/mirrors/lightning
            $ btrfs device scan /dev/sdb
            $ mount -t btrfs -o degraded,device=/dev/sdb /dev/sdb /run/raidguard/mirrors/lightning
        exchange member 2 (Example Disk, serial E2) for /dev/sdd
            $ btrfs replace start -B 2 /dev/sdd /run/raidguard/mirrors/lightning
        store as raid1 again what is not
            $ btrfs balance start -f -dconvert=raid1,soft -mconvert=raid1,soft -sconvert=raid1,soft /run/raidguard/mirrors/lightning
        mount the mirror at /srv/lightning without `degraded`
            $ umount /run/raidguard/mirrors/lightning
            $ btrfs device scan /dev/sdb /dev/sdd
            $ mount /srv/lightning
        prove it: read every copy of everything, and see that all of it is raid1
            $ btrfs scrub start -B -c 2 -n 4 /srv/lightning
        declare member 2 (Example Disk, serial S48, 32 GiB) in /etc/raidguard/raidguard.toml
            $ write /etc/raidguard/raidguard.toml
        begin the count of its errors anew
        "#);
}

#[test]
fn who_is_doubtful_is_read_from_as_little_as_can_be() {
    let avoids = |facts: &Facts| {
        let decision = decide(&request(), facts).unwrap();
        lines(&decision.plan).contains("replace start -B -r 2 ")
    };
    assert!(!avoids(&facts()));
    let mut errors = facts();
    errors.state.members[1].errors.as_mut().unwrap().read = 1;
    assert!(avoids(&errors));
    let mut behind = facts();
    behind.state.members[1].generation = Some(30);
    assert!(avoids(&behind));
    let mut pulled = facts();
    (pulled.state.members[1].missing, pulled.state.members[1].pulled) = (true, true);
    pulled.claims.retain(|c| c.devid == 1);
    assert!(avoids(&pulled));
}

#[test]
fn the_node_is_stopped_unless_told_otherwise() {
    let steps = |request: &Request, facts: &Facts| {
        let decision = decide(request, facts).unwrap();
        let stops = decision.plan.steps.iter().any(|s| matches!(s, Action::StopNode(_)));
        assert_eq!(stops, decision.plan.steps.iter().any(|s| matches!(s, Action::StartNode(_))));
        stops
    };
    assert!(steps(&request(), &used(facts())));
    assert!(!steps(&Request { online: true, ..request() }, &used(facts())));
    assert!(!steps(&request(), &facts()), "it does not run");
    let mut unmanaged = used(facts());
    unmanaged.mirror.node.as_mut().unwrap().unit = None;
    assert!(says(&request(), &unmanaged).contains("no way to stop the node is declared"));
    assert!(!steps(&Request { online: true, ..request() }, &unmanaged));
}

/// Somebody has made something else of the disk of the member that is gone, or has cleared it.
#[test]
fn the_disk_of_a_member_that_is_gone_may_come_again_empty() {
    let mut facts = unmounted(facts());
    let back = Device { size: Bytes::gib(32), ..device("sdc", 32) };
    let gone = facts.mirror.member.iter_mut().find(|m| m.id == "2").unwrap();
    (gone.model, gone.serial, gone.size) = (back.model.clone(), back.serial.clone(), back.size);
    facts.declared = vec![facts.mirror.clone()];
    facts.new = Some(Ok(back.dev));
    facts.inventory.devices.push(back);
    let asked = Request { new: "/dev/sdc".into(), ..request() };
    for old in ["missing", "2"] {
        decide(&Request { old: Some(old.into()), ..asked.clone() }, &facts).unwrap();
    }
    let last = facts.inventory.devices.last_mut().unwrap();
    last.content = Content::Known(vec![Signature { kind: "ext4".into(), label: None, uuid: None }]);
    assert!(says(&asked, &facts).contains("is not empty: ext4"));
    // Of another mirror it would be its member still.
    let mut other = facts.mirror.clone();
    other.name = "other".into();
    facts.declared.push(other);
    assert!(says(&Request { wipe: true, ..asked }, &facts).contains("is a member of a declared mirror"));
}

#[test]
fn a_degraded_mount_under_a_running_node_stays_and_is_said() {
    let mut facts = used(facts());
    facts.state.degraded_option = true;
    let online = decide(&Request { online: true, ..request() }, &facts).unwrap();
    assert!(online.warnings.iter().any(|w| w.contains("degraded")), "{:?}", online.warnings);
    assert!(!lines(&online.plan).contains("without `degraded`"));
    assert!(lines(&decide(&request(), &facts).unwrap().plan).contains("without `degraded`"));
}

pub(super) fn says(request: &Request, facts: &Facts) -> String {
    let blockers = decide(request, facts).unwrap_err();
    blockers.iter().map(|Blocker { says, clears }| format!("{says} | {clears}\n")).collect()
}

#[test]
fn what_stands_in_the_way() {
    type Change = fn(&mut Request, &mut Facts);
    let cases: &[(Change, &str)] = &[
        (|r, _| r.old = None, "no member is missing"),
        (|r, _| r.old = Some("missing".into()), "no member is missing"),
        (|r, _| r.old = Some("3".into()), "`3` is no member"),
        (
            |r, f| (r.old, f.old) = (Some("/dev/sdx".into()), Some(Err("/dev/sdx cannot be read".into()))),
            "is no member",
        ),
        (|_, f| f.inventory.devices[2].size = Bytes(Bytes::gib(32).0 - 1), "(34359738368 bytes) are needed"),
        (|_, f| f.sector = Some(8192), "pieces of 8192 bytes"),
        (
            |_, f| (f.sector, f.largest) = (Some(4096), Some(512)),
            "in pieces of 512: with it, it could not be mounted again | name a device with sectors of at most 512",
        ),
        (|_, f| (f.sector, f.largest) = (Some(4096), None), "as far as can be told, in pieces of 512"),
        (|_, f| f.inventory.devices[2].uses = vec![Use::Mounted("/mnt".into())], "mounted at /mnt"),
        (|_, f| f.new = Some(Ok(f.inventory.devices[1].dev)), "member 2 of this very mirror"),
        (|_, f| f.new = Some(Err("/dev/sdd cannot be read".into())), "cannot be read"),
        (|_, f| f.inventory.devices[2].parents = vec!["sdb".into()], "lies on"),
        (|_, f| f.state.read_only = true, "read-only"),
        (|_, f| f.state.exclusive_operation = Some("balance".into()), "at work on the mirror: balance"),
        (|_, f| f.scrubbing = true, "a scrub is running"),
        (|_, f| f.state.instead = Some("ext4 from /dev/sdz".into()), "ext4 from /dev/sdz"),
        (|_, f| f.unfinished = vec![("release".into(), "lightning".into())], "`raidguard release`"),
        (|_, f| f.parting = Parting::Apart("because".into()), "written to alone: because"),
        (|_, f| f.parting = Parting::Unclear("EIO".into()), "cannot be told whether"),
        (|_, f| f.layout = Err("EIO".into()), "what lies on which member"),
        (|_, f| f.known = Some(39), "what is here is old"),
        (
            |_, f| {
                f.state.mounted = false;
                f.state.also_mounted = vec!["/mnt".into()];
            },
            "mounted at /mnt, and not at its place",
        ),
    ];
    for (change, expected) in cases {
        let (mut request, mut facts) = (request(), facts());
        change(&mut request, &mut facts);
        let said = says(&request, &facts);
        assert!(said.contains(expected), "{expected}: {said}");
        assert_eq!(said.lines().count(), 1, "nothing beside it: {said}");
    }
    // Another mirror's operation is not ours.
    let mut other = facts();
    other.unfinished = vec![("release".into(), "second".into())];
    decide(&request(), &other).unwrap();
}

#[test]
fn what_only_the_missing_member_has_is_not_given_up() {
    let mut facts = unmounted(facts());
    facts.layout.as_mut().unwrap().pieces.push(piece("DATA|single", &[2], 0));
    let said = says(&request(), &facts);
    assert!(said.contains("1 GiB of the mirror lie only on members that are gone (DATA|single)"), "{said}");
    assert!(said.contains("raidguard recover"), "{said}");
    // What the survivor alone has is no obstacle.
    facts.layout.as_mut().unwrap().pieces.pop();
    facts.layout.as_mut().unwrap().pieces.push(piece("DATA|single", &[1], 0));
    decide(&request(), &facts).unwrap();
}

#[test]
fn a_member_that_is_back_is_repairs_matter() {
    let mut facts = facts();
    facts.state.members[1].missing = true;
    facts.claims = vec![
        Claim {
            path: "/dev/sdb".into(),
            devid: 1,
            uuid: "a".into(),
            generation: 38,
            filling: false,
            without: Vec::new(),
        },
        Claim {
            path: "/dev/sdc".into(),
            devid: 2,
            uuid: "b".into(),
            generation: 30,
            filling: false,
            without: Vec::new(),
        },
    ];
    for old in [None, Some("missing".to_owned()), Some("2".to_owned())] {
        assert!(says(&Request { old, ..request() }, &facts).contains("raidguard repair"));
    }
}

/// The new device was pulled while it was filled, and that exchange was put back: it says that it is the member whose place it took.
#[test]
fn what_an_exchange_that_was_given_up_has_left_is_taken_again() {
    let mut facts = facts();
    facts.state.members[1].missing = true;
    facts.state.members[1].path = None;
    let left = |uuid: &str, filling: bool| {
        let uuid = uuid.to_owned();
        Claim { path: "/dev/sdd".into(), devid: 2, uuid, generation: 30, filling, without: Vec::new() }
    };
    facts.claims = vec![facts.claims[0].clone(), left("of no member", true)];
    for old in [None, Some("missing".to_owned()), Some("2".to_owned())] {
        decide(&Request { old, ..request() }, &facts).unwrap();
    }
    // One that holds all that it ever held, or the member itself, is another matter.
    for claim in [left("of no member", false), left(&facts.mirror.member[1].uuid, true)] {
        facts.claims[1] = claim;
        assert!(says(&request(), &facts).contains("raidguard repair"));
    }
}

#[test]
fn of_several_that_are_missing_one_is_named_and_the_rest_is_said() {
    let mut facts = unmounted(facts());
    let third = crate::config::Member { id: "3".into(), uuid: "c".into(), ..facts.mirror.member[1].clone() };
    facts.mirror.member.push(third);
    facts.layout = Ok(Layout {
        members: vec![(1, Bytes::gib(32)), (2, Bytes::gib(32)), (3, Bytes::gib(32))],
        pieces: vec![piece("DATA|RAID1C3", &[1, 2, 3], 2)],
    });
    assert!(says(&Request { old: None, ..request() }, &facts).contains("2 members are missing"));
    let decision = decide(&request(), &facts).unwrap();
    assert!(decision.warnings.iter().any(|w| w.contains("member 3") && w.contains("not whole")));
    let plan = lines(&decision.plan);
    assert!(
        !plan.contains("prove it") && plan.contains("unmount /run/raidguard/mirrors/lightning"),
        "{plan}"
    );
}

#[test]
fn of_an_array_the_first_empty_place_is_filled_first() {
    let mut facts = facts();
    facts.mirror.backend = BackendKind::Mdadm;
    let third = crate::config::Member { id: "3".into(), uuid: "c".into(), ..facts.mirror.member[1].clone() };
    facts.mirror.member.push(third);
    facts.layout = Ok(Layout {
        members: vec![(1, Bytes::gib(32)), (2, Bytes::gib(32)), (3, Bytes::gib(32))],
        pieces: vec![piece("raid1", &[1, 2, 3], 2)],
    });
    facts.state.members[1].missing = true;
    facts.claims.retain(|c| c.devid == 1);
    for old in ["1", "3"] {
        let said = says(&Request { old: Some(old.into()), ..request() }, &facts);
        assert!(
            said.contains("the kernel fills member 2 first | exchange that one first: --old 2"),
            "{said}"
        );
        assert_eq!(said.lines().count(), 1, "nothing beside it: {said}");
    }
    decide(&request(), &facts).unwrap();
    // A btrfs is told which member goes.
    facts.mirror.backend = BackendKind::Btrfs;
    decide(&Request { old: Some("3".into()), ..request() }, &facts).unwrap();
}
