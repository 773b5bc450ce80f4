//! The parsers against what util-linux 2.38 and 2.41 printed.

use std::path::PathBuf;

use super::{
    content::{Blkid, parse_blkid, parse_wipefs},
    lsblk::COLUMNS,
    uses::lay_loops,
    *,
};

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
            assert!(probed.signature.is_some_and(|s| s.kind == kind), "{version} {case}");
        }
        assert!(parse_wipefs(&fixture(&format!("wipefs/{version}/empty.json"))).unwrap().is_empty());
        let nothing = parse_blkid(&fixture(&format!("blkid/{version}/empty.txt")));
        assert_eq!(nothing, Blkid { signature: None, untyped: false, partuuid: None });
        let partition = parse_blkid(&fixture(&format!("blkid/{version}/gpt-partition-empty.txt")));
        assert!(partition.signature.is_none() && !partition.untyped, "an empty partition is empty");
        assert_eq!(partition.partuuid.map(|uuid| uuid.len()), Some(36));
        // blkid 2.41 says nothing at all here; wipefs shows both.
        assert!(parse_wipefs(&fixture(&format!("wipefs/{version}/ambivalent.json"))).unwrap().len() > 1);
    }
    assert!(parse_wipefs("garbage").is_err());
    assert!(parse_blkid("DEVNAME=/dev/sda\nSOMETHING=new\n").untyped);
}

#[test]
fn lsblk_is_asked_for_a_tree_and_partitions_are_known_by_their_disk() {
    // Without NAME among the columns lsblk prints a flat list, and a mounted partition would not speak for its disk.
    assert!(COLUMNS.split(',').any(|column| column == "NAME"));
    let inventory = parse_lsblk(&fixture("lsblk/synthetic-nvme-with-partitions.json")).unwrap();
    let part = inventory.devices.iter().find(|d| d.kind == "part").unwrap();
    let disk = inventory.disks_of(part)[0];
    assert!(disk.kname != part.kname && disk.serial.is_some());
    assert_eq!((&part.serial, &part.model), (&disk.serial, &disk.model));
}

#[test]
fn a_loop_device_lies_on_the_device_that_it_shows_and_never_in_a_circle() {
    let row =
        |kname: &str| format!(r#"{{"kname":"{kname}","maj:min":"8:1","type":"loop","size":1,"ro":false}}"#);
    let rows = ["sdb", "loop0", "loop1"].map(row).join(",");
    let mut inventory = parse_lsblk(&format!(r#"{{"blockdevices":[{rows}]}}"#)).unwrap();
    let backings =
        [("loop0", "/dev/sdb"), ("loop1", "/dev/loop0"), ("loop0", "/dev/loop1"), ("loop2", "/img")];
    lay_loops(&mut inventory, &backings.map(|(kname, path)| (kname.to_owned(), path.into())));
    let parents: Vec<_> = inventory.devices.iter().map(|d| d.parents.concat()).collect();
    assert_eq!(parents, ["", "sdb", "loop0"]);
}
