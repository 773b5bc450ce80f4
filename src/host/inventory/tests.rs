//! The parsers against what util-linux 2.38 and 2.41 printed, and the rules against it.

use std::path::PathBuf;

use super::*;
use crate::model::refusal::{Claimed, Why, judge_device, judge_set};

const VERSIONS: [&str; 2] = ["2.38.1", "2.41.5"];

fn fixture(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path);
    String::from_utf8_lossy(&fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
        .into_owned()
}

#[test]
fn every_recorded_list_of_both_versions_is_read() {
    let mut read = 0;
    for version in VERSIONS {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/lsblk").join(version);
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            // A failed lsblk printed nothing; sizes without --bytes are no numbers, and raidguard always asks for bytes.
            let skipped = text.trim().is_empty() || path.file_name().unwrap() == "no-bytes.json";
            if path.extension().is_some_and(|e| e == "json") && !skipped {
                parse_lsblk(&text).unwrap_or_else(|e| {
                    panic!("{}: {e} {:?}", path.display(), std::error::Error::source(&e))
                });
                read += 1;
            }
        }
    }
    assert!(read > 60, "{read}");
}

#[test]
fn old_and_odd_forms_are_read_too() {
    for name in [
        "all-strings",
        "luks-child",
        "lvm-child",
        "mountpoint-singular",
        "mountpoints-null",
        "nvme-with-partitions",
        "usb-with-udev",
    ] {
        let inventory = parse_lsblk(&fixture(&format!("lsblk/synthetic-{name}.json"))).unwrap();
        assert!(!inventory.devices.is_empty(), "{name}");
    }
    let md = parse_lsblk(&fixture("lsblk/synthetic-md-raid1-under-two-disks.json")).unwrap();
    let array = md.devices.iter().find(|d| d.kind == "raid1").unwrap();
    assert_eq!(array.parents.len(), 2);
    assert_eq!(md.disks_of(array).len(), 2);
    for text in [
        "",
        "{}",
        r#"{"blockdevices":[{"kname":"sda"}]}"#,
        r#"{"blockdevices":[{"kname":"a","path":"/dev/a","maj:min":"8","type":"disk","size":1,"ro":0}]}"#,
    ] {
        assert!(parse_lsblk(text).is_err(), "{text}");
    }
}

#[test]
fn contents_are_named_as_both_versions_record_them() {
    for version in VERSIONS {
        for (case, kind) in [
            ("ext4", "ext4"),
            ("xfs", "xfs"),
            ("vfat", "vfat"),
            ("swap", "swap"),
            ("gpt", "gpt"),
            ("dos", "dos"),
            ("iso9660", "iso9660"),
            ("luks2", "crypto_LUKS"),
            ("md-1.2", "linux_raid_member"),
            ("zfs", "zfs_member"),
            ("btrfs-raid1-member2", "btrfs"),
            ("lvm", "LVM2_member"),
        ] {
            let found = parse_wipefs(&fixture(&format!("wipefs/{version}/{case}.json"))).unwrap();
            assert!(found.iter().any(|s| s.kind == kind), "{version} {case}: {found:?}");
            let probed = parse_blkid(&fixture(&format!("blkid/{version}/{case}.txt")));
            assert!(probed.is_some_and(|s| s.kind == kind), "{version} {case}");
        }
        assert!(parse_wipefs(&fixture(&format!("wipefs/{version}/empty.json"))).unwrap().is_empty());
        assert_eq!(parse_blkid(&fixture(&format!("blkid/{version}/empty.txt"))), None);
        let entry = fixture(&format!("blkid/{version}/gpt-partition-empty.txt"));
        assert!(entry.contains("PART_ENTRY_UUID=") && says_nothing(&entry) && parse_blkid(&entry).is_none());
        assert!(says_nothing("") && !says_nothing("DEVNAME=/dev/sdb1\nLABEL=kept\n"));
        // blkid 2.41 says nothing at all here; wipefs shows both.
        assert!(parse_wipefs(&fixture(&format!("wipefs/{version}/ambivalent.json"))).unwrap().len() > 1);
    }
    assert!(parse_wipefs("garbage").is_err());
}

#[test]
fn lsblk_is_asked_for_the_tree_and_a_flat_list_is_understood_too() {
    assert!(COLUMNS.split(',').any(|c| c == "NAME"));
    let row = |kname: &str, parent: &str| {
        format!(
            r#"{{"kname":"{kname}","pkname":{parent},"maj:min":"8:1","type":"part","size":1,"ro":false}}"#
        )
    };
    let rows =
        [row("sdb", "null"), row("sdb1", r#""sdb""#), row("md0", r#""sdb1""#), row("md0", r#""sdc1""#)];
    let flat = parse_lsblk(&format!(r#"{{"blockdevices":[{}]}}"#, rows.join(","))).unwrap();
    let parents: Vec<_> = flat.devices.iter().map(|d| d.parents.join(" ")).collect();
    assert_eq!(parents, ["", "sdb", "sdb1 sdc1"]);
}

fn device(kname: &str, minor: u32) -> Device {
    Device {
        path: format!("/dev/{kname}").into(),
        kname: kname.to_owned(),
        kind: "disk".to_owned(),
        dev: DevNo { major: 8, minor },
        size: Bytes::gib(32),
        read_only: false,
        rotational: Some(false),
        transport: None,
        model: Some("Example".to_owned()),
        serial: Some(format!("S{minor}")),
        wwn: None,
        partuuid: None,
        parents: Vec::new(),
        uses: Vec::new(),
        content: Content::Empty,
        usb: None,
    }
}

fn whys(change: impl Fn(&mut Device), wipe: bool) -> Vec<Why> {
    let mut one = device("sdb", 16);
    change(&mut one);
    let inventory = Inventory { devices: vec![one.clone()] };
    let claimed = Claimed { identity: device("sdz", 99).identity(), mirror: "c0ffee00-uuid".into() };
    judge_device(&inventory, &one, &[claimed], wipe).into_iter().map(|r| r.why).collect()
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
    assert!(matches!(&whys(|d| d.content = gpt(), false)[..], [Why::Content(_)]));
    assert!(whys(|d| d.content = gpt(), true).is_empty());
    let member = || Signature { kind: "btrfs".into(), label: None, uuid: Some("C0FFEE00-uuid".into()) };
    assert_eq!(whys(|d| d.content = Content::Known(vec![member()]), true), [Why::Declared]);
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

#[test]
fn a_loop_device_lies_on_the_device_that_it_shows_and_never_in_a_circle() {
    let mut inventory =
        Inventory { devices: vec![device("sdb", 16), device("loop0", 0), device("loop1", 1)] };
    let backings =
        [("loop0", "/dev/sdb"), ("loop1", "/dev/loop0"), ("loop0", "/dev/loop1"), ("loop2", "/img")];
    lay_loops(&mut inventory, &backings.map(|(kname, path)| (kname.to_owned(), path.into())));
    let parents: Vec<_> = inventory.devices.iter().map(|d| d.parents.concat()).collect();
    assert_eq!(parents, ["", "sdb", "loop0"]);
}
