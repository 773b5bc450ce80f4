//! Labels that OpenZFS has written: recorded as what is not zero of each label, by its place.

use std::{
    fs,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use super::*;

/// A device as it was recorded: `size BYTES`, then a line for each run of bytes, its place and the bytes.
pub(crate) fn write_recorded(text: &str, path: &Path) {
    let file = fs::File::create(path).unwrap();
    for line in text.lines() {
        let (at, rest) = line.split_once(' ').unwrap();
        if at == "size" {
            file.set_len(rest.parse().unwrap()).unwrap();
        } else {
            let byte = |n: usize| u8::from_str_radix(&rest[2 * n..2 * n + 2], 16).unwrap();
            let bytes: Vec<u8> = (0..rest.len() / 2).map(byte).collect();
            file.write_all_at(&bytes, at.parse().unwrap()).unwrap();
        }
    }
}

macro_rules! recorded {
    ($name:literal) => {
        include_str!(concat!("../../../tests/fixtures/zfs/label/", $name, ".txt"))
    };
}

/// Packs numbers and texts as a label has them.
mod packed {
    use super::{Vdev, pair};

    pub(super) fn list(pairs: &[Vec<u8>]) -> Vec<u8> {
        [&[0, 0, 0, 0, 0, 0, 0, 1], &pairs.concat()[..], &[0; 8]].concat()
    }

    pub(super) fn number(name: &str, value: u64) -> Vec<u8> {
        pair(name, 8, 1, &value.to_be_bytes())
    }

    pub(super) fn text(name: &str, value: &str) -> Vec<u8> {
        let mut bytes = u32::try_from(value.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend(value.bytes());
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        pair(name, 9, 1, &bytes)
    }

    pub(super) fn vdev(of: &Vdev) -> Vec<u8> {
        let mut pairs = vec![text("type", &of.kind), number("id", of.id), number("guid", of.guid)];
        pairs.extend(of.path.iter().map(|path| text("path", path)));
        let numbers = [
            ("ashift", of.ashift),
            ("asize", of.asize),
            ("metaslab_shift", of.metaslab_shift),
            ("nparity", of.parity),
        ];
        pairs.extend(numbers.into_iter().filter_map(|(name, value)| Some(number(name, value?))));
        if !of.children.is_empty() {
            let children: Vec<u8> = of.children.iter().flat_map(vdev).collect();
            pairs.push(pair("children", 20, u32::try_from(of.children.len()).unwrap(), &children));
        }
        list(&pairs)
    }
}

/// A device of this size with this description in each of its labels, as of a pool that is as described. It has no uberblocks.
pub(crate) fn write_label(path: &Path, size: u64, label: &Label) {
    let mut pairs = vec![
        packed::text("name", label.pool.as_deref().unwrap_or_default()),
        packed::number("state", 0),
        packed::number("txg", label.txg),
        packed::number("pool_guid", label.pool_guid.unwrap_or_default()),
        packed::number("top_guid", label.top_guid.unwrap_or_default()),
        packed::number("guid", label.guid),
        packed::number("vdev_children", label.tops.unwrap_or(1)),
    ];
    pairs.extend(label.comment.iter().map(|comment| packed::text("comment", comment)));
    pairs.extend(label.tree.iter().map(|tree| pair("vdev_tree", 19, 1, &packed::vdev(tree))));
    let mut area = [&[1, 1, 0, 0][..], &packed::list(&pairs)].concat();
    let start = usize::try_from(DESCRIPTION.1).unwrap() - SEAL.1;
    assert!(area.len() <= start);
    area.resize(start, 0);
    area.extend(SEAL.0.to_le_bytes());
    let file = fs::File::create(path).unwrap();
    file.set_len(size).unwrap();
    for at in places(size).into_iter().map(|at| at + DESCRIPTION.0) {
        let mut sum = digest::Context::new(&digest::SHA256);
        sum.update(&area);
        sum.update(&at.to_le_bytes());
        sum.update(&[0; 24]);
        let sum = sum.finish();
        let words =
            sum.as_ref().chunks(8).map(|word| u64::from_be_bytes(word.try_into().unwrap()).to_le_bytes());
        let sealed = [&area[..], &words.flatten().collect::<Vec<u8>>()].concat();
        file.write_all_at(&sealed, at).unwrap();
    }
}

#[test]
fn what_is_written_for_other_tests_is_what_is_read() {
    let label = Device::of(recorded!("mirror-one")).labels().newest().unwrap().clone();
    let device = Device::of("size 0");
    write_label(&device.path(), 128 << 20, &label);
    let labels = device.labels();
    assert_eq!(labels.faults(), [""; 0]);
    let found = labels.newest().unwrap();
    assert_eq!((found.guid, found.pool_guid, found.txg), (label.guid, label.pool_guid, label.txg));
    assert_eq!(found.tree, label.tree);
    let tree = found.tree.as_ref().unwrap();
    assert_eq!(tree.above(found.guid), Some(tree));
    assert_eq!(tree.above(tree.guid), None);
}

struct Device {
    dir: tempfile::TempDir,
}

impl Device {
    fn of(text: &str) -> Self {
        let device = Self { dir: tempfile::tempdir().unwrap() };
        write_recorded(text, &device.path());
        device
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("device")
    }

    fn labels(&self) -> Labels {
        Labels::read(&self.path()).unwrap()
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        let file = fs::OpenOptions::new().write(true).open(self.path()).unwrap();
        file.write_all_at(bytes, at).unwrap();
    }
}

#[test]
fn where_labels_stand() {
    assert_eq!(places(128 << 20), [0, 262_144, 133_693_440, 133_955_584]);
    assert_eq!(places((128 << 20) + 262_143), places(128 << 20));
    assert_eq!(places(1 << 20), [0, 262_144, 524_288, 786_432]);
    assert_eq!(places((1 << 20) - 1), [0_u64; 0]);
}

#[test]
fn a_member_of_a_mirror() {
    let device = Device::of(recorded!("mirror-one"));
    let labels = device.labels();
    assert_eq!(labels.faults(), [""; 0]);
    assert_eq!(labels.places.iter().map(|p| p.uberblocks.len()).collect::<Vec<_>>(), [32; 4]);
    // As zdb -lu says of the same device.
    let label = labels.newest().unwrap();
    assert_eq!((label.state, label.pool.as_deref(), label.txg), (PoolState::Active, Some("ztest"), 241));
    assert_eq!(label.pool_guid, Some(10_972_298_985_683_485_842));
    assert_eq!((label.guid, label.top_guid), (1_409_154_420_577_123_132, Some(5_215_578_588_698_501_170)));
    assert_eq!((label.tops, label.hostname.as_deref()), (Some(1), Some("vm")));
    assert_eq!(label.features, ["com.delphix:hole_birth", "com.delphix:embedded_data"]);
    let tree = label.tree.as_ref().unwrap();
    assert_eq!((tree.kind.as_str(), tree.ashift, tree.asize), ("mirror", Some(12), Some(129_499_136)));
    assert_eq!(
        tree.leaves().iter().map(|v| v.guid).collect::<Vec<_>>(),
        [label.guid, 12_822_710_133_198_817_520]
    );
    assert_eq!(tree.find(label.guid).unwrap().kind, "file");
    assert!(tree.find(1).is_none());
    let history = labels.history();
    assert_eq!(history.len(), 32, "the four rings tell the same");
    assert!(history.windows(2).all(|two| two[0].txg < two[1].txg));
    assert_eq!(labels.last(), history.last().copied());
    assert_eq!(Labels::of_member(&device.path()).unwrap().as_ref(), Some(&labels));
    assert_eq!((history[0].txg, history[31].txg, history[31].timestamp), (405, 452, 1_795_704_483));
}

#[test]
fn both_members_tell_of_one_history() {
    let (one, two) =
        (Device::of(recorded!("mirror-one")).labels(), Device::of(recorded!("mirror-two")).labels());
    assert_eq!(one.last(), two.last());
    assert_eq!(one.newest().unwrap().tree, two.newest().unwrap().tree);
    assert_ne!(one.newest().unwrap().guid, two.newest().unwrap().guid);
    assert_eq!(two.faults().len(), 3, "only its first label was recorded");
}

#[test]
fn other_devices_of_a_pool() {
    let raidz = Device::of(recorded!("raidz-one")).labels();
    let label = raidz.newest().unwrap();
    let tree = label.tree.as_ref().unwrap();
    assert_eq!(
        (tree.kind.as_str(), tree.parity, tree.ashift, label.tops),
        ("raidz", Some(1), Some(9), Some(2))
    );
    assert_eq!(raidz.places[0].uberblocks.len(), 123, "slots of 1 KiB, of which five were never written");
    for (text, state) in [(recorded!("spare"), PoolState::Spare), (recorded!("cache"), PoolState::Cache)] {
        let labels = Device::of(text).labels();
        let label = labels.newest().unwrap();
        assert_eq!((label.state, label.pool_guid, &label.tree, label.txg), (state, None, &None, 0));
        assert!(labels.hold_something());
    }
    let detached = Device::of(recorded!("detached")).labels();
    let label = detached.newest().unwrap();
    assert_eq!((label.pool.as_deref(), label.txg), (Some("ztest"), 0));
    assert!(detached.last().is_none_or(|last| last.txg == 0), "{:?}", detached.last());
}

#[test]
fn what_was_damaged_is_told_and_what_still_stands_is_used() {
    let device = Device::of(recorded!("mirror-one"));
    let end = places(128 << 20)[3];
    // A byte of the host's name, the whole of another, and the seal of a third.
    device.write((16 << 10) + 200, b"\xee");
    device.write(LABEL, &vec![0; 256 << 10]);
    device.write(end + (128 << 10) - 5, b"\xee");
    let labels = device.labels();
    assert_eq!(labels.faults().len(), 3, "{labels:?}");
    assert!(labels.places[3].holds_something() && !labels.places[1].holds_something());
    assert_eq!(labels.newest().unwrap().txg, 241);
    // An uberblock of which a bit is wrong does not count; the other rings have it still.
    let whole = labels.last().cloned();
    for at in [128 << 10, end + (128 << 10)] {
        device.write(at + 16, &[0xff; 8]);
    }
    let labels = device.labels();
    assert_eq!(labels.places[0].uberblocks.len(), 31);
    assert_eq!(labels.last().cloned(), whole);
}

#[test]
fn where_only_a_trace_is_left_there_is_one() {
    let device = Device::of(recorded!("mirror-one"));
    for at in places(128 << 20) {
        device.write(at + (16 << 10), &[0; 4]);
    }
    assert_eq!(Labels::of_member(&device.path()).unwrap(), None, "as newer versions of wipefs leave it");
    assert!(device.labels().hold_something() && device.labels().newest().is_none());
    for at in places(128 << 20) {
        device.write(at, &vec![0; 256 << 10]);
    }
    assert!(!device.labels().hold_something());
    let small = Device::of("size 1000");
    assert_eq!(small.labels(), Labels::default());
}

#[test]
fn labels_that_stand_elsewhere_are_not_this_devices() {
    // A disk that was given whole, and of which a partition begins later: what its front says is of another place.
    let device = Device::of(recorded!("mirror-one"));
    let mut bytes = fs::read(device.path()).unwrap();
    bytes.truncate(64 << 20);
    bytes.splice(0..0, vec![0; 256 << 10]);
    fs::write(device.path(), bytes).unwrap();
    let labels = device.labels();
    assert!(labels.newest().is_none() && labels.last().is_none(), "{:?}", labels.faults());
    assert!(labels.hold_something());
    // A partition that begins after a MiB and ends in the disk's last 256 KiB: its last two labels stand where the disk's would.
    let device = Device::of(recorded!("mirror-one"));
    let mut bytes = fs::read(device.path()).unwrap();
    bytes.splice(0..0, vec![0; 1 << 20]);
    bytes.extend(vec![0; 100 << 10]);
    fs::write(device.path(), &bytes).unwrap();
    let labels = device.labels();
    assert_eq!(labels.faults()[3], "the label at 135004160: its checksum is wrong");
    assert!(!labels.hold_something(), "they are the partition's");
    let size = (bytes.len() - (1 << 20)) as u64;
    let inner = Labels::within(&device.path(), 1 << 20, size).unwrap();
    assert!(inner.hold_something() && inner.faults().is_empty(), "{:?}", inner.faults());
}

#[test]
fn the_commands_that_clear_them_leave_what_lies_between() {
    let lines = |size| clear_commands(Path::new("/dev/sdx"), size).iter().map(Cmd::line).collect::<Vec<_>>();
    assert_eq!(
        lines((128 << 20) + 5000),
        [
            "blkdiscard --zeroout --offset 0 --length 524288 /dev/sdx",
            "blkdiscard --zeroout --offset 133693440 --length 524288 /dev/sdx"
        ]
    );
    assert_eq!(lines(1000), [""; 0]);
}

/// A list with the pairs that a label must have.
fn crafted(pairs: &[&[u8]]) -> Vec<u8> {
    let mut list = vec![1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    for pair in pairs {
        list.extend(*pair);
    }
    list.extend([0; 8]);
    list
}

fn pair(name: &str, kind: u32, count: u32, value: &[u8]) -> Vec<u8> {
    let mut rest = u32::try_from(name.len()).unwrap().to_be_bytes().to_vec();
    rest.extend(name.bytes());
    rest.resize(rest.len().next_multiple_of(4), 0);
    rest.extend(kind.to_be_bytes());
    rest.extend(count.to_be_bytes());
    rest.extend(value);
    let size = u32::try_from(rest.len() + 8).unwrap().to_be_bytes();
    [&size[..], &size, &rest].concat()
}

#[test]
fn lists_that_are_none_are_errors() {
    let guid = pair("guid", 8, 1, &7_u64.to_be_bytes());
    let unpack = |pairs: &[&[u8]]| nvlist::List::unpack(&crafted(pairs));
    assert_eq!(unpack(&[&guid]).unwrap().number("guid"), Ok(Some(7)));
    assert_eq!(unpack(&[&guid]).unwrap().number("other"), Ok(None));
    assert!(unpack(&[&guid]).unwrap().text("guid").is_err());
    assert!(unpack(&[&guid, &guid]).is_err(), "twice");
    let odd = pair("odd", 22, 1, &[0, 0, 0, 1]);
    assert_eq!(
        unpack(&[&odd, &guid]).unwrap().number("guid"),
        Ok(Some(7)),
        "what is not asked for is passed over"
    );
    assert!(unpack(&[&pair("x", 9, 1, &[0, 0, 0, 9, b'a'])]).is_err(), "cut short");
    assert!(unpack(&[&pair("x", 9, 1, &[0, 0, 0, 2, b'a', 0, 0, 0])]).is_err(), "a zero byte");
    assert!(unpack(&[&pair("x", 20, u32::MAX, &[])]).is_err(), "more lists than there can be");
    let mut endless = guid.clone();
    endless[..4].copy_from_slice(&4_u32.to_be_bytes());
    assert!(unpack(&[&endless]).is_err(), "a pair that does not hold itself");
    let mut nested = Vec::new();
    for _ in 0..20 {
        let list = [&[0, 0, 0, 0, 0, 0, 0, 1], &nested[..], &[0; 8]].concat();
        nested = pair("x", 19, 1, &list);
    }
    assert_eq!(unpack(&[&nested]), Err(Fault("its description is nested too deeply")));
    assert!(nvlist::List::unpack(&[0, 1, 0, 0]).is_err(), "as the machine has it");
}

crate::fuzz::fuzzed!(
    fuzz_zfs_label,
    bytes[include_bytes!("../../../tests/fixtures/zfs/label/mirror-one.bin")],
    |bytes| {
        if let Ok(list) = nvlist::List::unpack(bytes) {
            assert!(list.flags().len() <= bytes.len());
            let _ = (list.number("txg"), list.text("name"), list.lists("children"));
        }
        if let Ok(Some(_)) = Label::parse(bytes, 16 << 10) {
            assert!(is_sealed(bytes, 16 << 10));
        }
        let _ = uberblock::parse_ring(bytes, 128 << 10, None);
    }
);
