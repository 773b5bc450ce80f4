//! Each rule alone, and devices together.

use super::*;
use crate::model::inventory::{Signature, sample};

fn device(kname: &str, minor: u32) -> Device {
    Device {
        size: Bytes::gib(32),
        rotational: Some(false),
        model: Some("Example".to_owned()),
        serial: Some(format!("S{minor}")),
        ..sample(kname, minor, &[])
    }
}

/// A declared mirror with one member, whose serial is that of nobody here.
fn declared() -> Mirror {
    let mut mirror = crate::health::samples::declared();
    let disk = device("sdz", 99);
    mirror.member = vec![Member {
        id: "1".into(),
        uuid: "aa".into(),
        model: disk.model,
        serial: disk.serial,
        size: disk.size,
    }];
    mirror
}

fn whys(change: impl Fn(&mut Device), wipe: bool) -> Vec<Why> {
    let mut one = device("sdb", 16);
    change(&mut one);
    let inventory = Inventory { devices: vec![one.clone()] };
    judge_device(&inventory, &one, &[declared()], wipe).into_iter().map(|r| r.why).collect()
}

#[test]
fn each_rule_refuses_and_an_empty_disk_passes() {
    assert!(whys(|_| {}, false).is_empty());
    let gpt = || Content::Known(vec![Signature { kind: "gpt".into(), label: None, uuid: None }]);
    assert!(matches!(&whys(|d| d.uses = vec![Use::Mounted("/".into())], true)[..], [Why::System(_)]));
    assert!(matches!(
        &whys(|d| d.uses = vec![Use::Mounted("/mnt".into())], true)[..],
        [Why::InUse { part: None, .. }]
    ));
    assert!(matches!(&whys(|d| d.uses = vec![Use::Swap], true)[..], [Why::InUse { .. }]));
    assert!(matches!(&whys(|d| d.uses = vec![Use::Held("dm-0".into())], true)[..], [Why::InUse { .. }]));
    assert!(matches!(&whys(|d| d.uses = vec![Use::Busy], true)[..], [Why::InUse { .. }]));
    assert_eq!(whys(|d| d.read_only = true, true), [Why::ReadOnly]);
    assert!(matches!(&whys(|d| d.size = Bytes::mib(1023), true)[..], [Why::TooSmall(_)]));
    assert!(matches!(&whys(|d| d.kind = "crypt".into(), true)[..], [Why::Kind(_)]));
    assert!(matches!(&whys(|d| d.serial = Some("S99".into()), true)[..], [Why::Declared]));
    let ours = || {
        let uuid = Some(declared().uuid);
        Content::Known(vec![Signature { kind: "btrfs".into(), label: None, uuid }])
    };
    assert_eq!(whys(|d| d.content = ours(), true), [Why::Declared], "also where the disk shows no serial");
    assert!(matches!(&whys(|d| d.content = gpt(), false)[..], [Why::Content(_)]));
    assert!(whys(|d| d.content = gpt(), true).is_empty());
    assert!(matches!(
        &whys(|d| d.content = Content::Unknown("?".into()), true)[..],
        [Why::UnknownContent(_)]
    ));
}

#[test]
fn a_disk_is_refused_for_its_partitions_and_a_pair_for_being_one() {
    let (disk, mut part, mut twin) = (device("sdb", 16), device("sdb1", 17), device("sdb2", 18));
    part.parents = vec!["sdb".into()];
    part.uses = vec![Use::Mounted("/mnt".into())];
    twin.parents = vec!["sdb".into()];
    let inventory = Inventory { devices: vec![disk.clone(), part.clone(), twin.clone()] };
    let refused = judge_device(&inventory, &disk, &[], true);
    assert!(
        matches!(&refused[..], [r] if matches!(&r.why, Why::InUse { part: Some(p), .. } if p.ends_with("sdb1")))
    );
    assert!(judge_device(&inventory, &twin, &[], true).is_empty());
    let set = |pair: &[&Device], allow| {
        judge_set(&inventory, pair, allow).0.into_iter().map(|r| r.why).collect::<Vec<_>>()
    };
    assert!(matches!(&set(&[&part, &twin], false)[..], [Why::SameDisk(_)]));
    assert!(set(&[&part, &twin], true).is_empty());
    assert!(matches!(&set(&[&part, &part], true)[..], [Why::Same(_)]));
    let (mut one, mut two) = (device("sdc", 32), device("sdd", 48));
    one.usb = Some(("2-1".into(), 480));
    two.usb = Some(("2-1".into(), 480));
    assert!(matches!(&set(&[&one, &two], false)[..], [Why::SameBridge(_)]));
    two.usb = None;
    two.size = Bytes::gib(64);
    two.serial = None;
    two.rotational = Some(true);
    let (refusals, warnings) = judge_set(&inventory, &[&one, &two], false);
    assert!(refusals.is_empty());
    for word in ["no serial number", "slow USB", "sizes differ", "turns"] {
        assert!(warnings.iter().any(|w| w.contains(word)), "{word}: {warnings:?}");
    }
}

#[test]
fn what_a_device_lies_on_counts_too() {
    let (mut disk, mut part) = (device("sdb", 16), device("sdb1", 17));
    part.parents = vec!["sdb".into()];
    let mut above = device("loop0", 0);
    above.parents = vec!["sdb".into()];
    let judged = |disk: &Device, device: &Device| -> Vec<Why> {
        let inventory = Inventory { devices: vec![disk.clone(), part.clone(), above.clone()] };
        judge_device(&inventory, device, &[], true).into_iter().map(|r| r.why).collect()
    };
    assert!(judged(&disk, &part).is_empty());
    // Another partition's use makes the whole disk busy.
    disk.uses = vec![Use::Busy];
    assert!(judged(&disk, &part).is_empty());
    disk.uses = vec![Use::Held("loop0".into())];
    assert!(matches!(&judged(&disk, &part)[..], [Why::BaseInUse { by: Use::Held(_), .. }]));
    assert!(judged(&disk, &above).is_empty());
    disk.uses.push(Use::Mounted("/mnt".into()));
    assert!(matches!(&judged(&disk, &above)[..], [Why::BaseInUse { by: Use::Mounted(_), .. }]));
    let inventory = Inventory { devices: vec![disk.clone(), part.clone(), above.clone()] };
    for pair in [[&disk, &part], [&part, &disk]] {
        let (refusals, _) = judge_set(&inventory, &pair, true);
        assert!(
            matches!(&refusals[..], [r] if r.device == part.path && r.why == Why::Within(disk.path.clone()))
        );
    }
}
