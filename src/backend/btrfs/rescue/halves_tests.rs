//! Two crafted members of a raid1, as udev finds them.

use std::{fs, os::unix::fs::FileExt as _, sync::Arc};

use super::{
    halves::{other_half, tell_apart},
    map::tests::item as chunk,
    past_tests::{META, NODE, ON_MEMBER, SYSTEM, leaf, root_item},
    supers::{seal, tests::craft},
    *,
};
use crate::{exec::ScriptedRunner, model::observed::Claim};

/// A transaction: its number, and when its files were changed.
type Commit = (u64, u32);

struct Machine {
    dir: tempfile::TempDir,
    host: Host,
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for place in ["dev", "proc/self", "sys/fs/btrfs", "sys/class/block"] {
            fs::create_dir_all(dir.path().join(place)).unwrap();
        }
        let host = Host::captured(dir.path(), Arc::new(ScriptedRunner::new()), jiff::Timestamp::UNIX_EPOCH);
        Self { dir, host }
    }

    /// A device that says that it is member `devid`, and what is left on it of the transactions that it went through, the last at the end.
    /// Each puts its roots and its files behind those of the one before.
    fn device(&self, name: &str, devid: u64, commits: &[Commit]) -> PathBuf {
        let block = self.dir.path().join("sys/class/block").join(name);
        fs::create_dir_all(block.join("holders")).unwrap();
        fs::write(block.join("size"), "81920\n").unwrap();
        let file = fs::File::create(self.dir.path().join("dev").join(name)).unwrap();
        file.set_len(40 << 20).unwrap();
        let root_of = |generation: u64| META + (generation - 30) * NODE;
        let chunks = [((256, 228, META), chunk(8 << 20, 1 << 2 | 1 << 4, &[(1, ON_MEMBER), (2, ON_MEMBER)]))];
        file.write_all_at(&leaf(SYSTEM, 3, 1, &chunks), devid << 20).unwrap();
        for &(generation, nanoseconds) in commits {
            let (root, files, changed) = (root_of(generation), root_of(generation + 30), (1000, nanoseconds));
            let item = [((5, 132, 0), root_item(files, generation, changed))];
            let inode = ((257, 1, 0), [&1000_u64.to_le_bytes()[..], &nanoseconds.to_le_bytes()].concat());
            for (at, block) in
                [(root, leaf(root, 1, generation, &item)), (files, leaf(files, 5, generation, &[inode]))]
            {
                file.write_all_at(&block, ON_MEMBER + at - META).unwrap();
            }
        }
        let last = commits.last().unwrap().0;
        let mut sb = craft(OFFSET, last, root_of(last), 0);
        let mut put = |at: usize, bytes: &[u8]| sb[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x58, &SYSTEM.to_le_bytes());
        put(0xa4, &1_u64.to_le_bytes());
        put(0x94, &u32::try_from(NODE).unwrap().to_le_bytes());
        put(0xc9, &devid.to_le_bytes());
        put(0x10b, &[u8::try_from(devid).unwrap(); 16]);
        seal(&mut sb);
        file.write_all_at(&sb, OFFSET).unwrap();
        Path::new("/dev").join(name)
    }

    fn other(&self, device: &str) -> Option<PathBuf> {
        other_half(&self.host, Path::new(device)).unwrap()
    }

    /// The kernel has these mounted.
    fn mount(&self, devices: &[&str]) {
        let uuid = super::super::superblock::tests::sample().fsid;
        let dir = self.dir.path().join(format!("sys/fs/btrfs/{uuid}/devices"));
        fs::create_dir_all(&dir).unwrap();
        for device in devices {
            fs::write(dir.join(device), "").unwrap();
        }
    }

    /// What the devices say, in their order.
    fn told(&self, devices: &[PathBuf]) -> Vec<Claim> {
        let uuid = super::super::superblock::tests::sample().fsid;
        let claim = |path: &PathBuf| {
            let (best, ..) = best_of(supers::read(&self.host.path(path)).unwrap()).unwrap();
            Claim {
                path: path.clone(),
                devid: best.own.devid,
                uuid: best.own.uuid,
                generation: best.own.generation,
                filling: false,
                without: Vec::new(),
            }
        };
        let mut claims: Vec<_> = devices.iter().map(claim).collect();
        tell_apart(&self.host, &uuid, &mut claims);
        claims
    }
}

#[test]
fn only_halves_that_were_each_written_to_alone_stand_apart() {
    let base = (38, 1);
    for (says, one, other, expected) in [
        ("in step", &[base][..], &[base][..], false),
        ("a power cut between two superblocks", &[base, (39, 2)], &[base], false),
        ("one was away", &[base, (39, 2), (40, 3), (41, 4)], &[base], false),
        ("each alone, as often", &[base, (39, 2)], &[base, (39, 3)], true),
        ("each alone, one more often", &[base, (39, 2), (40, 4)], &[base, (39, 3)], true),
    ] {
        let machine = Machine::new();
        let devices = [machine.device("sdb", 1, one), machine.device("sdc", 2, other)];
        assert_eq!(machine.other("/dev/sdb"), expected.then(|| devices[1].clone()), "{says}");
        assert_eq!(machine.other("/dev/sdc"), expected.then(|| devices[0].clone()), "{says}");
        let told = machine.told(&devices);
        let without = |index: usize, of: usize| told[index].without.contains(&told[of].uuid);
        assert_eq!((without(0, 1), without(1, 0)), (expected, expected), "{says}");
        assert!(!without(0, 0) && !without(1, 1), "{says}");
    }
}

#[test]
fn a_write_that_did_not_reach_one_of_them_parts_nobody() {
    let machine = Machine::new();
    machine.device("sdb", 1, &[(38, 1)]);
    machine.device("sdc", 2, &[(38, 1)]);
    let files = META + (38 - 30 + 30) * NODE;
    let older = leaf(files, 5, 37, &[((257, 1, 0), vec![0; 12])]);
    let device = fs::OpenOptions::new().write(true).open(machine.dir.path().join("dev/sdc")).unwrap();
    device.write_all_at(&older, ON_MEMBER + files - META).unwrap();
    assert_eq!((machine.other("/dev/sdb"), machine.other("/dev/sdc")), (None, None));
}

#[test]
fn what_is_alone_or_a_copy_or_none_of_it_stands_not_apart() {
    let machine = Machine::new();
    machine.device("sdb", 1, &[(38, 1), (39, 2)]);
    assert_eq!(machine.other("/dev/sdb"), None, "alone");
    machine.device("sdd", 1, &[(38, 1), (39, 3)]);
    assert_eq!(machine.other("/dev/sdb"), None, "a copy, which went on");
    let none = machine.dir.path().join("dev/sdz");
    fs::write(none, vec![0; 1 << 20]).unwrap();
    assert_eq!(machine.other("/dev/sdz"), None, "no btrfs");
    assert!(other_half(&machine.host, Path::new("/dev/gone")).is_err());
}

#[test]
fn what_is_mounted_is_never_taken_from_the_kernel() {
    let machine = Machine::new();
    machine.device("sdb", 1, &[(38, 1), (39, 2)]);
    machine.device("sdc", 2, &[(38, 1), (39, 3)]);
    machine.mount(&["sdb"]);
    assert_eq!(machine.other("/dev/sdb"), None);
    assert_eq!(machine.other("/dev/sdc"), Some("/dev/sdb".into()), "it comes while the other one is in use");
    machine.mount(&["sdc"]);
    assert_eq!(machine.other("/dev/sdc"), None);
}
