mod members;
mod work;

use std::{fs, os::unix::fs::symlink, path::PathBuf, sync::Arc};

use super::{
    superblock::{
        Checksum,
        tests::{craft, sample},
    },
    *,
};
use crate::{
    backend::{BalanceEnd, ScrubEnd},
    exec::{Effect, Flow, Reply, ScriptedRunner},
    health,
    model::{
        Bytes,
        mirror::{ChunkKind, MemberState},
    },
};

const UUID: &str = "25e3e740-8cd1-4cc7-9b25-b175081f4acf";
const MNT: &str = "/mnt/rg";

fn fixture(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/btrfs").join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What a recorded command said on standard error.
fn said(path: &str) -> String {
    fixture(path).lines().filter_map(|l| l.strip_prefix("stderr: ")).collect::<Vec<_>>().join("\n")
}

/// A machine made of a recorded sysfs directory and of devices with crafted superblocks.
pub(crate) struct Machine {
    root: tempfile::TempDir,
}

impl Machine {
    pub(crate) fn bare() -> Self {
        let root = tempfile::tempdir().unwrap();
        for dir in ["proc/self", "sys/fs/btrfs/features", "sys/class/block", "dev"] {
            fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        let machine = Self { root };
        machine.write("proc/self/mountinfo", "63 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n");
        machine
    }

    fn recorded(case: &str) -> Self {
        let machine = Self::bare();
        let from = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/btrfs/sysfs").join(case);
        copy_tree(&from, &machine.root.path().join("sys/fs/btrfs").join(UUID));
        machine.mount("rw,relatime", "btrfs", "/dev/loop0", "rw,space_cache=v2");
        for devid in [1, 2] {
            machine.member(devid);
        }
        machine
    }

    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn mount(&self, options: &str, fstype: &str, source: &str, super_options: &str) {
        let line = format!(
            "63 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n73 63 0:40 / {MNT} {options} - {fstype} {source} {super_options}\n"
        );
        self.write("proc/self/mountinfo", line);
    }

    /// A member that is here.
    pub(crate) fn member(&self, devid: u64) {
        self.device(
            &format!("loop{}", devid - 1),
            &Superblock { devid, uuid: member_uuid(devid), ..sample() },
        );
    }

    fn device(&self, name: &str, sb: &Superblock) {
        self.write(&format!("dev/{name}"), [vec![0; 64 << 10], craft(sb)].concat());
        self.write(&format!("sys/class/block/{name}/size"), "1048576\n");
    }

    fn remove(&self, path: &str) {
        let path = self.root.path().join(path);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
    }

    pub(crate) fn host(&self) -> Host {
        self.host_with(Arc::new(ScriptedRunner::new()))
    }

    pub(crate) fn host_with(&self, runner: Arc<ScriptedRunner>) -> Host {
        Host::captured(self.root.path(), runner, jiff::Timestamp::UNIX_EPOCH)
    }

    fn observe(&self) -> MirrorState {
        Btrfs.observe(&self.host(), UUID, Path::new(MNT)).unwrap()
    }
}

fn member_uuid(devid: u64) -> String {
    format!("5515c27f-43dc-47b1-a1df-6c7b3533ca{devid:02}")
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &to.join(name));
        } else if let Some(link) = name.strip_suffix(".link") {
            symlink(fs::read_to_string(entry.path()).unwrap().trim(), to.join(link)).unwrap();
        } else {
            fs::copy(entry.path(), to.join(name)).unwrap();
        }
    }
}

fn at(seconds: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(seconds).unwrap()
}

#[test]
fn a_recorded_healthy_mirror() {
    let state = Machine::recorded("healthy").observe();
    assert!(state.mounted && !state.read_only && !state.degraded_option);
    assert_eq!(state.members.len(), 2);
    for (member, devid) in state.members.iter().zip([1, 2]) {
        assert_eq!((member.devid, member.missing), (devid, false));
        assert_eq!(member.uuid, Some(member_uuid(devid)));
        assert_eq!(member.path, Some(format!("/dev/loop{}", devid - 1).into()));
        assert_eq!((member.size, member.unallocated), (Some(Bytes(536_870_912)), Some(Bytes(407_699_456))));
        assert!(member.errors.unwrap().is_clean());
    }
    let profiles: Vec<_> = state.profiles.iter().map(|p| (p.kind, p.profile.as_str())).collect();
    assert_eq!(
        profiles,
        [(ChunkKind::Data, "raid1"), (ChunkKind::Metadata, "raid1"), (ChunkKind::System, "raid1")]
    );
    assert_eq!(state.exclusive_operation, None);
    let data = &state.profiles[0];
    assert_eq!(state.free, Some(Bytes(data.total.0 - data.used.0 + 407_699_456)));
}

#[test]
fn a_recorded_missing_member_and_what_was_written_meanwhile() {
    let machine = Machine::recorded("missing");
    machine.remove("dev/loop1");
    let state = machine.observe();
    assert_eq!(state.members.iter().map(|m| m.missing).collect::<Vec<_>>(), [false, true]);
    assert_eq!(state.members[1].missing_because.as_deref(), Some("the kernel says so"));

    let state = Machine::recorded("missing-single-chunks").observe();
    let single: Vec<_> = state.profiles.iter().filter(|p| p.profile == "single").collect();
    assert_eq!(single.len(), 2);
    assert_eq!((single[0].kind, single[0].total), (ChunkKind::Data, Bytes(201_326_592)));
}

#[test]
fn a_pulled_member_is_missing_though_the_kernel_counts_it() {
    type Pull = fn(&Machine);
    let cases: [(&str, Pull); 5] = [
        ("gone", |m| m.remove("sys/class/block/loop1")),
        ("size 0", |m| m.write("sys/class/block/loop1/size", "0\n")),
        ("No such file", |m| m.remove("dev/loop1")),
        ("superblock is gone", |m| m.write("dev/loop1", vec![0; 80 << 10])),
        ("another filesystem", |m| {
            m.device("loop1", &Superblock { fsid: member_uuid(9), ..sample() });
        }),
    ];
    for (reason, pull) in cases {
        let machine = Machine::recorded("healthy");
        pull(&machine);
        let state = machine.observe();
        assert!(!state.members[0].missing, "{reason}");
        let member = &state.members[1];
        assert!(member.missing, "{reason}");
        assert!(member.missing_because.as_ref().unwrap().contains(reason), "{member:?}");
        assert_eq!(member.path, Some("/dev/loop1".into()));
    }
}

#[test]
fn a_member_with_a_damaged_superblock_is_there_and_damaged() {
    let broken = Superblock { checksum: Checksum::Wrong, devid: 2, uuid: member_uuid(2), ..sample() };
    let machine = Machine::recorded("healthy");
    machine.device("loop1", &broken);
    let state = machine.observe();
    let seen = |m: &MemberState| (m.missing, m.damaged.clone());
    let wrong = Some("its checksum is wrong".to_owned());
    assert_eq!(state.members.iter().map(seen).collect::<Vec<_>>(), [(false, None), (false, wrong.clone())]);
    // Nothing is mounted: the same.
    let machine = Machine::bare();
    machine.device("loop0", &Superblock { devid: 1, uuid: member_uuid(1), ..sample() });
    machine.device("loop1", &broken);
    let state = machine.observe();
    assert_eq!(state.members.iter().map(seen).collect::<Vec<_>>(), [(false, None), (false, wrong)]);
}

#[test]
fn mount_options_are_seen() {
    let machine = Machine::recorded("healthy");
    machine.mount("rw,relatime", "btrfs", "/dev/loop1", "ro,degraded");
    let state = machine.observe();
    assert!(state.mounted && state.read_only && state.forced_read_only && state.degraded_option);
    machine.mount("ro", "btrfs", "/dev/loop1", "ro");
    let state = machine.observe();
    assert!(state.read_only && !state.forced_read_only && !state.degraded_option);
}

#[test]
fn another_filesystem_at_the_mount_point() {
    let machine = Machine::recorded("healthy");
    machine.mount("rw", "ext4", "/dev/sda1", "rw");
    let state = machine.observe();
    assert!(!state.mounted);
    assert_eq!(state.instead.as_deref(), Some("ext4 from /dev/sda1"));

    machine.mount("rw", "btrfs", "/dev/loop7", "rw");
    let error = Btrfs.observe(&machine.host(), UUID, Path::new(MNT)).unwrap_err();
    assert!(matches!(error, BackendError::UnclearMount { .. }), "{error}");
    machine.write("sys/fs/btrfs/0f000000-0000-0000-0000-000000000000/devices/loop7", "");
    let state = machine.observe();
    assert_eq!(state.instead.as_deref(), Some("btrfs from /dev/loop7"));
}

#[test]
fn an_unmounted_mirror_is_found_by_its_superblocks() {
    let machine = Machine::recorded("healthy");
    machine.remove(&format!("sys/fs/btrfs/{UUID}"));
    machine.write("proc/self/mountinfo", "63 1 254:0 / / rw - ext4 /dev/vda rw\n");
    machine.write("sys/class/block/sr0/size", "1048576\n");
    machine.write("sys/class/block/loop9/size", "0\n");
    machine.write("sys/class/block/sda/size", "1048576\n");
    let state = machine.observe();
    assert!(!state.mounted && state.profiles.is_empty());
    assert_eq!(state.members.iter().map(|m| m.devid).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(state.unread.len(), 1, "{:?}", state.unread);
    assert!(state.unread[0].starts_with("/dev/sda: "));
    machine.write("sys/class/block/loop1/holders/dm-0", "");
    assert_eq!(machine.observe().members.len(), 1);
}

#[test]
fn what_cannot_be_understood_is_an_error() {
    let dir = format!("sys/fs/btrfs/{UUID}");
    for (path, text) in [
        ("devinfo/1/missing", ""),
        ("devinfo/1/error_stats", "write_errs many\n"),
        ("devinfo/x/missing", "0\n"),
        ("allocation/data/raid1/used_bytes", "much\n"),
    ] {
        let machine = Machine::recorded("healthy");
        machine.write(&format!("{dir}/{path}"), text);
        assert!(Btrfs.observe(&machine.host(), UUID, Path::new(MNT)).is_err(), "{path}");
    }
    let machine = Machine::recorded("healthy");
    machine.remove(&format!("{dir}/allocation/system"));
    assert!(Btrfs.observe(&machine.host(), UUID, Path::new(MNT)).is_err());
}

fn spec() -> MirrorSpec {
    MirrorSpec {
        backend: crate::model::BackendKind::Btrfs,
        name: "my mirror".into(),
        pool_name: None,
        level: Level::Raid1,
        filesystem: None,
        pool: None,
        uuid: UUID.into(),
        devices: vec!["/dev/loop0".into(), "/dev/loop1".into()],
        mountpoint: MNT.into(),
    }
}

#[test]
fn the_commands_are_these() {
    let lines = |cmds: Vec<Cmd>| cmds.iter().map(|c| (c.effect(), c.line())).collect::<Vec<_>>();
    assert_eq!(
        lines(Btrfs.create_commands(&spec())),
        [(
            Effect::Destroy,
            format!("mkfs.btrfs -q -d raid1 -m raid1 -L 'my mirror' -U {UUID} /dev/loop0 /dev/loop1")
        )]
    );
    assert_eq!(
        lines(Btrfs.unmaking(&spec())),
        ["0", "1"].map(|n| (Effect::Destroy, format!("wipefs --all --types btrfs /dev/loop{n}")))
    );
    let path = Path::new("/mnt/rg/lightning");
    assert_eq!(
        lines(Btrfs.container_commands(path)),
        [(Effect::Change, "btrfs subvolume create /mnt/rg/lightning".to_owned())]
    );
    assert_eq!(
        lines(Btrfs.container_delete_commands(path)),
        [(Effect::Destroy, "btrfs subvolume delete --commit-after /mnt/rg/lightning".to_owned())]
    );
    assert_eq!(scrub::command(Path::new(MNT)).line(), "btrfs scrub start -B -c 2 -n 4 /mnt/rg");
}

#[test]
fn an_interrupted_mkfs_is_recognised() {
    let whole = |devid| Superblock { devid, ..sample() };
    let other = || Superblock { fsid: member_uuid(9), ..sample() };
    let cases = [
        ("whole", whole(1), whole(2), "Complete"),
        ("none", other(), other(), "No"),
        ("one only", whole(1), other(), "/dev/loop1 does not belong"),
        (
            "unfinished",
            Superblock { finished: false, ..whole(1) },
            whole(2),
            "mkfs did not finish on /dev/loop0",
        ),
        (
            "never finished",
            Superblock { finished: false, ..whole(1) },
            Superblock { finished: false, ..whole(2) },
            "No",
        ),
        ("more members", Superblock { num_devices: 3, ..whole(1) }, whole(2), "has 3 members"),
        ("clone", whole(1), whole(1), "the same member"),
    ];
    for (name, first, second, expected) in cases {
        let machine = Machine::bare();
        machine.device("loop0", &first);
        machine.device("loop1", &second);
        let made = Btrfs.made(&machine.host(), &spec()).unwrap();
        assert!(format!("{made:?}").contains(expected), "{name}: {made:?}");
    }
    assert!(Btrfs.made(&Machine::bare().host(), &spec()).is_err());
}

#[test]
fn support_is_asked_of_the_kernel() {
    let machine = Machine::bare();
    machine.write("proc/filesystems", "nodev\tproc\n\text4\n");
    let runner = Arc::new(ScriptedRunner::new().on("modprobe btrfs", Reply::fail(1, "no such module")));
    let error = Btrfs.supported(&machine.host_with(Arc::clone(&runner)), Level::Raid1).unwrap_err();
    assert!(error.to_string().contains("no such module"), "{error}");
    machine.write("proc/filesystems", "nodev\tproc\n\tbtrfs\n");
    assert!(Btrfs.supported(&machine.host(), Level::Raid10).is_ok());
    assert!(Btrfs.supported(&machine.host(), Level::Raid1c3).is_err());
    machine.write("sys/fs/btrfs/features/raid1c34", "0\n");
    assert!(Btrfs.supported(&machine.host(), Level::Raid1c4).is_ok());
}

#[test]
fn an_ordinary_directory_is_no_container() {
    let machine = Machine::bare();
    assert!(!Btrfs.is_container(&machine.host(), Path::new("/dev")).unwrap());
    assert!(!Btrfs.is_container(&machine.host(), Path::new("/nowhere/x")).unwrap());
}
