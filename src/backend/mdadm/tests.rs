//! Arrays as a kernel showed them: recorded in the lab, each by `tests/lab/md-state.sh`.

use std::{fmt::Write as _, fs, os::unix::fs::FileExt as _, path::Path, sync::Arc};

use super::*;
use crate::{
    backend::{Exchange, rescue::Rescue as _},
    config::{Member, Mirror},
    exec::{Flow, Reply, ScriptedRunner},
    health::{judge, samples},
    model::{BackendKind, Bytes, FilesystemKind, Seen},
};

pub(crate) const UUID: &str = "3aaa0122-294f-5372-918d-05fe88b0b1b5";
pub(crate) const MNT: &str = "/srv/lightning";

/// A machine as it was recorded: files of sysfs, mounts, and the superblock of each disk.
pub(crate) struct Machine {
    dir: tempfile::TempDir,
}

impl Machine {
    pub(crate) fn recorded(text: &str) -> Self {
        let machine = Self { dir: tempfile::tempdir().unwrap() };
        machine.write("/proc/self/mountinfo", "");
        for line in text.lines() {
            let (path, rest) = line.split_once(' ').unwrap_or((line, ""));
            if path == "mountinfo" {
                machine.write("/proc/self/mountinfo", &format!("{rest}\n"));
            } else if path.starts_with("/dev/") {
                let at = machine.path(path);
                fs::create_dir_all(at.parent().unwrap()).unwrap();
                let file = fs::File::create(at).unwrap();
                file.set_len(2_252_800 * 512).unwrap();
                let bytes: Vec<u8> = (0..rest.len() / 2)
                    .map(|n| u8::from_str_radix(&rest[2 * n..2 * n + 2], 16).unwrap())
                    .collect();
                file.write_all_at(&bytes, 4096).unwrap();
            } else {
                machine.write(path, &format!("{rest}\n"));
            }
        }
        machine
    }

    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self, absolute: &str) -> PathBuf {
        self.dir.path().join(absolute.trim_start_matches('/'))
    }

    pub(crate) fn write(&self, absolute: &str, text: &str) {
        let path = self.path(absolute);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn remove(&self, absolute: &str) {
        let path = self.path(absolute);
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }

    fn host(&self) -> Host {
        Host::captured(self.dir.path(), Arc::new(ScriptedRunner::new()), samples::now())
    }

    fn observe(&self) -> MirrorState {
        Mdadm.observe(&self.host(), UUID, Path::new(MNT)).unwrap()
    }
}

macro_rules! recorded {
    ($name:literal) => {
        $crate::backend::mdadm::tests::Machine::recorded(include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/md/6.12/",
            $name,
            ".txt"
        )))
    };
}
pub(crate) use recorded;

/// The mirror of the recordings: its members are the disks `one` and `two`.
fn declared() -> Mirror {
    let (mut mirror, _, _) = samples::healthy();
    let member = |id: &str, uuid: &str| Member {
        id: id.into(),
        uuid: uuid.into(),
        model: Some("QEMU HARDDISK".into()),
        serial: None,
        size: Bytes(2_252_800 * 512),
    };
    let members = recorded!("healthy").observe().members;
    let uuid = |n: usize| members[n].uuid.clone().unwrap();
    mirror.backend = BackendKind::Mdadm;
    mirror.uuid = UUID.into();
    mirror.filesystem =
        Some(Filesystem { kind: FilesystemKind::Xfs, uuid: "1f624a50-0f62-4fea-8ae9-91647e74e09e".into() });
    mirror.member = vec![member("1", &uuid(0)), member("2", &uuid(1))];
    mirror
}

/// What a check says of a recorded machine, in a few lines; only what comes of the array.
fn told(machine: &Machine) -> String {
    let (_, mut observed, record) = samples::healthy();
    observed.storage = Seen::Read(machine.observe());
    let claims = Mdadm.claims(&machine.host()).unwrap().remove(UUID).unwrap_or_default();
    observed.claims = Seen::Read(claims);
    let verdict = judge(&declared(), &observed, &Seen::Read(record), samples::now());
    let mut out = String::new();
    let may_fail = verdict.may_fail.map_or("?".to_owned(), |n| n.to_string());
    let _ = writeln!(out, "{} (may fail: {may_fail})", verdict.level);
    for f in verdict.findings.iter().filter(|f| !f.code.starts_with("MNT-FSTAB")) {
        let _ = writeln!(out, "{} {}: {}", f.severity, f.code, f.says);
        for evidence in &f.evidence {
            let _ = writeln!(out, "    {evidence}");
        }
    }
    out
}

#[test]
fn a_healthy_array() {
    let machine = recorded!("healthy");
    let state = machine.observe();
    assert!(state.mounted && !state.read_only && state.instead.is_none(), "{state:?}");
    let md = state.md.as_ref().unwrap();
    assert_eq!((md.device.to_str(), md.level.as_str(), md.raid_disks), (Some("/dev/md127"), "raid1", 2));
    assert_eq!((md.degraded, md.policy.as_deref(), md.mismatches), (Some(0), Some("bitmap"), Some(0)));
    let members: Vec<_> = state.members.iter().map(|m| (m.devid, m.path.clone().unwrap())).collect();
    assert_eq!(members, [(1, "/dev/sdb".into()), (2, "/dev/sdc".into())]);
    assert!(state.members.iter().all(|m| !m.missing && m.errors.is_some_and(|e| e.is_clean())));
    assert_eq!(Mdadm.uuid_at(&machine.host(), Path::new(MNT)).unwrap().as_deref(), Some(UUID));
    insta::assert_snapshot!(told(&machine));
}

#[test]
fn states_that_the_lab_has_shown() {
    let mut all = String::new();
    for (name, machine) in [
        ("a new array", recorded!("resync")),
        ("a check runs", recorded!("check")),
        ("a stick was pulled, and udev has taken it out", recorded!("pulled-idle")),
        ("it is back, and the array runs without it", recorded!("back-not-taken")),
        ("one was given up by the kernel", recorded!("faulty")),
        ("another disk takes its place", recorded!("rebuilding")),
        ("a third takes the place of one that serves", recorded!("replacing")),
    ] {
        let _ = writeln!(all, "{name}: {}", told(&machine));
    }
    insta::assert_snapshot!(all);
}

#[test]
fn states_made_of_them() {
    let md = "/sys/class/block/md127/md";
    let changed = |change: &dyn Fn(&Machine)| {
        let machine = recorded!("healthy");
        change(&machine);
        machine
    };
    let mut all = String::new();
    for (name, machine) in [
        ("pulled, and nobody has noticed", changed(&|m| m.remove("/sys/class/block/sdc"))),
        ("its superblock is gone", changed(&|m| m.write("/dev/sdc", &"\0".repeat(9000)))),
        ("no bitmap", changed(&|m| m.write(&format!("{md}/consistency_policy"), "resync\n"))),
        ("a few sectors differ", changed(&|m| m.write(&format!("{md}/mismatch_cnt"), "64\n"))),
        ("many sectors differ", changed(&|m| m.write(&format!("{md}/mismatch_cnt"), "2048\n"))),
        ("read errors", changed(&|m| m.write(&format!("{md}/dev-sdc/errors"), "3\n"))),
        ("read-only", changed(&|m| m.write(&format!("{md}/array_state"), "readonly\n"))),
        ("auto-read-only", changed(&|m| m.write(&format!("{md}/array_state"), "read-auto\n"))),
        ("inactive", changed(&|m| m.write(&format!("{md}/array_state"), "inactive\n"))),
        ("stopped", changed(&|m| m.remove("/sys/class/block/md127"))),
        (
            "nothing left",
            changed(&|m| {
                for name in ["md127", "sdb", "sdc"] {
                    m.remove(&format!("/sys/class/block/{name}"));
                }
            }),
        ),
    ] {
        let _ = writeln!(all, "{name}: {}", told(&machine));
    }
    insta::assert_snapshot!(all);
}

/// What ext4 shows after its journal was given up (Linux 6.15) and after a shutdown: the mount stays writeable.
#[test]
fn a_filesystem_that_the_kernel_has_stopped_writing_to_is_read_only() {
    for (option, stopped) in [("", false), (",emergency_ro", true), (",shutdown", true)] {
        let machine = recorded!("healthy");
        let mounts = fs::read_to_string(machine.path("/proc/self/mountinfo")).unwrap();
        let mounts = format!("{}{option}\n", mounts.trim_end());
        machine.write("/proc/self/mountinfo", &mounts);
        let state = machine.observe();
        assert!(state.mounted, "{mounts}");
        assert_eq!((state.read_only, state.forced_read_only), (stopped, stopped), "{mounts}");
    }
}

/// A member was given up, and the kernel has yet to find that no other is there to be filled.
#[test]
fn a_recovery_of_nobody_is_no_work() {
    let work = |machine: Machine, says: &str| {
        machine.write("/sys/class/block/md127/md/sync_action", &format!("{says}\n"));
        machine.write("/sys/class/block/md127/md/sync_completed", "0 / 2093056\n");
        machine.observe().exclusive_operation
    };
    for gone in ["faulty", "pulled-idle"] {
        let machine =
            || Machine::recorded(&fs::read_to_string(format!("tests/fixtures/md/6.12/{gone}.txt")).unwrap());
        assert_eq!(work(machine(), "idle"), None);
        assert_eq!(work(machine(), "recover"), None, "{gone}");
        assert_eq!(work(machine(), "resync").as_deref(), Some("resync"));
    }
    // A member that is filled, or will be.
    assert_eq!(work(recorded!("rebuilding"), "recover").as_deref(), Some("recover"));
    assert_eq!(work(recorded!("replacing"), "recover").as_deref(), Some("recover"));
}

#[test]
fn what_cannot_be_read_is_an_error_and_never_a_healthy_array() {
    let md = "/sys/class/block/md127/md";
    for (file, text) in [
        ("degraded", "x"),
        ("raid_disks", "two"),
        ("mismatch_cnt", ""),
        ("sync_completed", "soon"),
        ("dev-sdb/slot", "first"),
        ("dev-sdb/errors", "-1"),
    ] {
        let machine = recorded!("healthy");
        machine.write(&format!("{md}/{file}"), text);
        assert!(Mdadm.observe(&machine.host(), UUID, Path::new(MNT)).is_err(), "{file}");
    }
    // Without the kernel's word its members say which array it is; without both nobody does.
    let machine = recorded!("healthy");
    machine.remove(&format!("{md}/uuid"));
    assert!(machine.observe().mounted);
    for disk in ["sdb", "sdc"] {
        machine.write(&format!("/dev/{disk}"), "");
    }
    assert!(Mdadm.observe(&machine.host(), UUID, Path::new(MNT)).is_err());
}

fn spec() -> MirrorSpec {
    MirrorSpec {
        name: "lightning".into(),
        ..MirrorSpec::of(
            &declared(),
            samples::healthy().1.storage.get().unwrap(),
            vec!["/dev/sdb".into(), "/dev/sdc".into()],
        )
    }
}

#[test]
fn the_commands_are_these() {
    let lines = |cmds: Vec<Cmd>| cmds.iter().map(Cmd::line).collect::<Vec<_>>().join("\n");
    insta::assert_snapshot!(lines(Mdadm.create_commands(&spec())), @r"
    mdadm --create /dev/md/lightning --run --level=1 --raid-devices=2 --metadata=1.2 --bitmap=internal --name=lightning --uuid=3aaa0122:294f5372:918d05fe:88b0b1b5 /dev/sdb /dev/sdc
    mkfs.xfs -q -f -m uuid=1f624a50-0f62-4fea-8ae9-91647e74e09e -L lightning /dev/md/lightning
    ");
    let mut other = spec();
    other.level = Level::Raid10;
    other.name = "a-name-that-is-too-long-for-a-label".into();
    other.filesystem.as_mut().unwrap().kind = FilesystemKind::Ext4;
    insta::assert_snapshot!(lines(Mdadm.create_commands(&other)), @r"
    mdadm --create /dev/md/a-name-that-is-too-long-for-a-label --run --level=10 --raid-devices=2 --metadata=1.2 --bitmap=internal --name=a-name-that-is-too-long-for-a-label --uuid=3aaa0122:294f5372:918d05fe:88b0b1b5 /dev/sdb /dev/sdc
    mkfs.ext4 -q -F -U 1f624a50-0f62-4fea-8ae9-91647e74e09e /dev/md/a-name-that-is-too-long-for-a-label
    ");
    assert_eq!(
        Mdadm.fstab_entry(&spec()).unwrap().line(),
        "UUID=1f624a50-0f62-4fea-8ae9-91647e74e09e /srv/lightning xfs defaults,nofail,x-systemd.device-timeout=90s 0 0"
    );
    assert_eq!(Mdadm.fstab_entry(&other).unwrap().passno, 2);
    assert_eq!(
        conf_line("lightning", UUID),
        "ARRAY /dev/md/lightning metadata=1.2 UUID=3aaa0122:294f5372:918d05fe:88b0b1b5"
    );
    // What runs needs not be assembled; what only waits for its members is stopped first.
    let host = recorded!("healthy");
    let of = |m: &Machine| lines(Mdadm.assemble_commands(&m.host(), &spec(), &spec().devices).unwrap());
    assert_eq!(of(&host), "");
    assert_eq!(
        lines(Mdadm.unmake_commands(&host.host(), &spec()).unwrap()),
        "mdadm --stop /dev/md127\nwipefs --all --types linux_raid_member /dev/sdb\nwipefs --all --types linux_raid_member /dev/sdc"
    );
    host.write("/sys/class/block/md127/md/array_state", "inactive\n");
    assert_eq!(
        of(&host),
        "mdadm --stop /dev/md127\nmdadm --assemble --run --uuid=3aaa0122:294f5372:918d05fe:88b0b1b5 /dev/md/lightning /dev/sdb /dev/sdc"
    );
}

#[test]
fn how_far_the_making_came() {
    let machine = recorded!("healthy");
    let made = |m: &Machine| Mdadm.made(&m.host(), &spec()).unwrap();
    assert_eq!(made(&machine), Made::Partial("there is no filesystem on it".into()));
    let put = |disk: &str, kind: &[u8]| {
        let file = fs::OpenOptions::new().write(true).open(machine.path(disk)).unwrap();
        file.write_all_at(kind, 4096 * 512).unwrap();
        file.write_all_at(&0x1f62_4a50_0f62_4fea_8ae9_9164_7e74_e09e_u128.to_be_bytes(), 4096 * 512 + 32)
            .unwrap();
    };
    put("/dev/sdb", b"XFSB");
    assert_eq!(made(&machine), Made::Complete);
    // A member that was lost since is no reason to make it anew.
    machine.write("/dev/sdc", "");
    assert_eq!(made(&machine), Made::Complete);
    put("/dev/sdb", b"none");
    assert_eq!(made(&machine), Made::Partial("/dev/sdc does not belong to it".into()));
    machine.write("/dev/sdb", "");
    assert_eq!(made(&machine), Made::No);
}

#[test]
fn an_exchange_is_done_when_the_new_device_serves_in_the_place() {
    let of =
        |id, new: &str| Exchange { uuid: UUID.into(), id, new: new.into(), avoid_old: false, partuuid: None };
    let done = |m: &Machine, id, new: &str| Mdadm.is_exchanged(&m.host(), &of(id, new)).unwrap();
    assert!(!done(&recorded!("rebuilding"), 2, "/dev/sda"));
    assert!(!done(&recorded!("replacing"), 1, "/dev/sdd"));
    assert!(done(&recorded!("replacing"), 2, "/dev/sda"));
    assert!(!done(&recorded!("healthy"), 1, "/dev/sdc"), "another place");
    assert!(!done(&recorded!("healthy"), 1, "/dev/sdd"), "an empty disk");
    // It was pulled while it was filled, whether or not the kernel has noticed: the exchange was not made, and is put back.
    let pulled = recorded!("rebuilding");
    pulled.remove("/dev/sda");
    assert!(!done(&pulled, 2, "/dev/sda"));
    pulled.write("/sys/class/block/md127/md/dev-sda/state", "faulty\n");
    assert!(!done(&pulled, 2, "/dev/sda"));
    pulled.remove("/sys/class/block/md127/md/dev-sda");
    assert!(!done(&pulled, 2, "/dev/sda"));
    // Without the array nobody knows.
    pulled.remove("/sys/class/block/md127");
    assert!(Mdadm.is_exchanged(&pulled.host(), &of(2, "/dev/sda")).is_err());
    // What was a member is erased only when it is out of the array.
    let retire =
        |m: &Machine, old: &str| Mdadm.retire_commands(&m.host(), &of(2, "/dev/sda"), Path::new(old)).len();
    assert_eq!(retire(&recorded!("healthy"), "/dev/sdc"), 0);
    assert_eq!(retire(&recorded!("rebuilding"), "/dev/sdc"), 1);
    assert_eq!(retire(&recorded!("rebuilding"), "/dev/sdd"), 0, "an empty disk");
}

type Work = fn(&Host, &Exchange) -> Result<ExchangeEnd, BackendError>;

#[test]
fn a_device_that_the_kernel_gave_up_is_taken_out_before_it_is_taken_in() {
    let exchange =
        Exchange { uuid: UUID.into(), id: 2, new: "/dev/sdc".into(), avoid_old: false, partuuid: None };
    let back: Work = |host, exchange| Mdadm.take_back(host, exchange, &mut |_| Flow::Stop);
    let anew: Work = |host, exchange| Mdadm.exchange(host, exchange, Path::new(MNT), &mut |_| Flow::Stop);
    for (work, how) in [(back, "--re-add"), (anew, "--add")] {
        let machine = recorded!("faulty");
        let runner = Arc::new(ScriptedRunner::new().on("mdadm", Reply::ok("")).on("wipefs", Reply::ok("")));
        let host = Host::captured(machine.dir.path(), Arc::clone(&runner) as _, samples::now());
        // Nothing changes in what was recorded, so it does not end well.
        assert!(work(&host, &exchange).is_err());
        let lines: Vec<_> = runner.calls().into_iter().map(|(_, line)| line).collect();
        assert_eq!(lines[0], "mdadm --manage /dev/md127 --remove /dev/sdc");
        assert_eq!(lines.last().unwrap(), &format!("mdadm --manage /dev/md127 {how} /dev/sdc"));
    }
}

/// The device that was being filled is gone: what is left of it in the array is named as the kernel names what has no device.
#[test]
fn a_new_device_that_was_pulled_is_taken_out_without_its_node() {
    let exchange =
        Exchange { uuid: UUID.into(), id: 2, new: "/dev/sda".into(), avoid_old: false, partuuid: None };
    for (state, calls) in
        [("spare\n", &["--fail detached", "--remove detached"][..]), ("faulty\n", &["--remove detached"])]
    {
        let machine = recorded!("rebuilding");
        machine.write("/sys/class/block/md127/md/dev-sda/state", state);
        machine.remove("/dev/sda");
        machine.remove("/sys/class/block/sda");
        let runner = Arc::new(ScriptedRunner::new().on("mdadm", Reply::ok("")));
        let host = Host::captured(machine.dir.path(), Arc::clone(&runner) as _, samples::now());
        Mdadm.give_up_exchange(&host, &exchange, None).unwrap();
        let lines: Vec<_> = runner.calls().into_iter().map(|(_, line)| line).collect();
        let expected: Vec<_> = calls.iter().map(|call| format!("mdadm --manage /dev/md127 {call}")).collect();
        assert_eq!(lines, expected);
    }
}

/// Both places of the array are empty, or the first is: the kernel gives a new device the first.
#[test]
fn a_device_comes_to_the_first_empty_place_and_to_no_other() {
    let exchange =
        |id, new: &str| Exchange { uuid: UUID.into(), id, new: new.into(), avoid_old: false, partuuid: None };
    let machine = recorded!("pulled-idle");
    let runner = Arc::new(ScriptedRunner::new().on("mdadm", Reply::ok("")).on("wipefs", Reply::ok("")));
    let host = Host::captured(machine.dir.path(), Arc::clone(&runner) as _, samples::now());
    let ran = Mdadm.exchange(&host, &exchange(1, "/dev/sdd"), Path::new(MNT), &mut |_| Flow::Stop);
    assert!(ran.unwrap_err().to_string().contains("member 2 is missing too"));
    assert!(!runner.calls().iter().any(|(_, line)| line.contains("--add")), "{:?}", runner.calls());
    // It has come to another place all the same: then not everything is as it was.
    let machine = recorded!("healthy");
    let told =
        Mdadm.give_up_exchange(&machine.host(), &exchange(1, "/dev/sdc"), None).unwrap_err().to_string();
    assert!(
        told.contains("serves as member 2, and not as member 1") && told.contains("--fail /dev/sdc"),
        "{told}"
    );
    Mdadm.give_up_exchange(&machine.host(), &exchange(2, "/dev/sdc"), None).unwrap();
}

#[test]
fn halves_that_were_each_written_to_alone_are_known_though_they_count_alike() {
    let machine = recorded!("parted");
    let uuid = "0dd55666-375a-4d01-a327-f1e2fd63e3c8";
    let claims = Mdadm.claims(&machine.host()).unwrap().remove(uuid).unwrap();
    let [one, two] = &claims[..] else { panic!("{claims:?}") };
    assert_eq!((one.generation, two.generation), (105, 105));
    assert_eq!((&one.without[..], &two.without[..]), (&[two.uuid.clone()][..], &[one.uuid.clone()][..]));
    let found = Mdadm.remains(&machine.host()).unwrap();
    let left = &found.iter().find(|r| r.uuid == uuid).unwrap().survivors;
    let relation = Mdadm.relate(&machine.host(), &left[0], &left[1], left).unwrap();
    assert_eq!(relation, crate::backend::rescue::Relation::Diverged);
}

#[test]
fn what_is_left_is_known_by_its_superblocks() {
    let machine = recorded!("back-not-taken");
    let found = Mdadm.remains(&machine.host()).unwrap();
    let [one] = &found[..] else { panic!("{found:?}") };
    assert_eq!((one.label.as_str(), one.members, one.mirrored), ("lightning", 2, true));
    assert_eq!(one.mounted.as_deref(), Some(&[PathBuf::from(MNT)][..]));
    let [newer, older] = &one.survivors[..] else { panic!("{one:?}") };
    assert!(newer.generation > older.generation, "{one:?}");
    let relation = Mdadm.relate(&machine.host(), older, newer, &one.survivors).unwrap();
    assert_eq!(relation, crate::backend::rescue::Relation::Behind(newer.generation - older.generation));
    let start = 4096 * 512;
    assert_eq!(newer.data, Some(start..start + 1_124_352 * 1024));
    let mount = Mdadm.mount_commands("rw", &one.survivors[..1], &["/dev/dm-0".into()], Path::new("/x"));
    assert_eq!(mount[0].line(), "mount -o rw,loop,offset=2097152,sizelimit=1151336448 /dev/dm-0 /x");
    // One that is being filled holds a part only.
    let filling = Mdadm.remains(&recorded!("rebuilding").host()).unwrap();
    let part = filling[0].survivors.iter().find(|s| s.path == Path::new("/dev/sda")).unwrap();
    assert!(part.data.is_none() && !part.faults.is_empty(), "{part:?}");
}

/// What mkfs.xfs makes on sectors of 512 bytes, the kernel mounts on no larger ones.
#[test]
fn the_sectors_of_a_new_device_are_held_against_those_of_the_filesystem() {
    let xfs = |sector: u16| {
        let mut xfs = vec![0; 4096];
        xfs[..4].copy_from_slice(b"XFSB");
        xfs[102..104].copy_from_slice(&sector.to_be_bytes());
        xfs
    };
    let largest = |machine: &Machine| {
        let members = ["/dev/sdd".into(), "/dev/sdb".into(), "/dev/sdc".into()];
        Mdadm.largest_sector(&machine.host(), UUID, &members).unwrap()
    };
    let machine = recorded!("healthy");
    assert_eq!(largest(&machine), None, "nothing is recorded of it");
    fs::write(machine.path("/dev/md127"), xfs(512)).unwrap();
    assert_eq!(largest(&machine), Some(512));
    machine.remove("/dev/md127");
    let member = fs::OpenOptions::new().write(true).open(machine.path("/dev/sdc")).unwrap();
    let sb = superblock::Superblock::read(&machine.path("/dev/sdc")).unwrap().unwrap();
    member.write_all_at(&xfs(4096), sb.data_offset).unwrap();
    assert_eq!(largest(&machine), Some(4096));
}
