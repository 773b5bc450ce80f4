//! Pools of which devices are left, by labels that OpenZFS wrote.

use std::{fs, path::Path, sync::Arc};

use super::{
    remains::{enough, remains},
    *,
};
use crate::{
    exec::{Reply, ScriptedRunner},
    host::zfs::{Vdev, tests::write_recorded},
};

#[test]
fn how_a_pool_is_imported() {
    let devices = ["/dev/mapper/raidguard-1-0", "/dev/loop3"].map(PathBuf::from);
    let line = |options, destroyed| {
        import(options, "4711", destroyed, "raidguard-1", &devices, Path::new("/run/x")).line()
    };
    assert_eq!(
        line(" ", false),
        "zpool import -f -N -o cachefile=none -R /run/x -d /dev/mapper/raidguard-1-0 -d /dev/loop3 -t 4711 raidguard-1"
    );
    assert_eq!(
        line("-m -F -o readonly=on", true),
        "zpool import -f -N -o cachefile=none -R /run/x -m -F -o readonly=on -D -d /dev/mapper/raidguard-1-0 -d /dev/loop3 -t 4711 raidguard-1"
    );
    assert!(RUNGS.iter().all(|rung| rung.when_allowed == (rung.freshness != Freshness::Newest)));
}

#[test]
fn an_intent_log_that_was_not_replayed() {
    let said = |dataset: &str| {
        let message =
            format!("WARNING: ZFS replay transaction error 5, dataset {dataset}, seq 0x1f, txtype 9 ");
        not_replayed(&["ZFS: Loaded module v2.3.9".to_owned(), message], "raidguard-1")
    };
    assert!(said("raidguard-1").unwrap().ends_with("dataset raidguard-1, seq 0x1f, txtype 9 "));
    assert!(said("raidguard-1/node").is_some());
    assert!(said("raidguard-10").is_none() && said("tank").is_none());
    assert!(not_replayed(&[], "raidguard-1").is_none());
}

#[test]
fn which_devices_serve() {
    let text = include_str!("../../../../tests/fixtures/zfs/2.3.9/imported-half/list.txt");
    assert_eq!(serving(text), [PathBuf::from("/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_one-part1")]);
    let gone = text.replace("15907726011745772565", "/dev/sdx");
    assert_eq!(serving(&gone).len(), 1, "{gone}");
    assert_eq!(serving(include_str!("../../../../tests/fixtures/zfs/2.3.9/healthy/list.txt")).len(), 2);
}

const POOL: &str = "10972298985683485842";
const MEMBERS: [u64; 2] = [1_409_154_420_577_123_132, 12_822_710_133_198_817_520];

struct Machine {
    dir: tempfile::TempDir,
}

impl Machine {
    /// Disks with what was recorded of these.
    fn of(disks: &[(&str, &str)]) -> Self {
        let machine = Self { dir: tempfile::tempdir().unwrap() };
        machine.write("/proc/self/mountinfo", "50 1 0:44 / /srv rw - zfs ztest/node rw\n");
        for (name, labels) in disks {
            machine.write(&format!("/sys/class/block/{name}/size"), "262144\n");
            machine.write(&format!("/dev/{name}"), "");
            write_recorded(labels, &machine.dir.path().join(format!("dev/{name}")));
        }
        machine
    }

    fn write(&self, absolute: &str, text: &str) {
        let path = self.dir.path().join(absolute.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn host(&self, runner: ScriptedRunner) -> Host {
        Host::captured(self.dir.path(), Arc::new(runner), crate::health::samples::now())
    }
}

macro_rules! recorded {
    ($name:literal) => {
        include_str!(concat!("../../../../tests/fixtures/zfs/label/", $name, ".txt"))
    };
}

fn mirror() -> Machine {
    Machine::of(&[
        ("sdb", recorded!("mirror-one")),
        ("sdc", recorded!("mirror-two")),
        ("sdd", recorded!("spare")),
        ("sde", recorded!("cache")),
    ])
}

#[test]
fn devices_of_a_pool_are_what_is_left_of_it_and_spares_and_caches_are_not() {
    let machine = mirror();
    let host = machine.host(ScriptedRunner::new());
    let [pool] = &remains(&host).unwrap()[..] else { panic!("one pool") };
    assert_eq!((pool.uuid.as_str(), pool.label.as_str(), pool.members), (POOL, "ztest", 2));
    assert!(pool.mirrored && pool.mounted.is_none() && pool.begun.is_empty(), "{pool:?}");
    let seen: Vec<_> = pool.survivors.iter().map(|s| (s.devid, s.generation, s.alone, s.opens)).collect();
    assert_eq!(seen, [(MEMBERS[0], 452, true, true), (MEMBERS[1], 452, true, true)]);
    let [one, two] = &pool.survivors[..] else { panic!("two") };
    assert_eq!(one.changed.map(jiff::Timestamp::as_second), Some(1_795_704_483));
    assert_eq!((one.faults.len(), two.faults.len()), (0, 3), "of the second only a label was recorded");
    assert_eq!(Zfs.relate(&host, two, one, &pool.survivors).unwrap(), Relation::Same);
    assert_eq!(Zfs.enough(&host, &pool.survivors[..1]).unwrap(), Ok(()));
    assert_eq!(other_half(&host, Path::new("/dev/sdb")).unwrap(), None);
    assert_eq!(other_half(&host, Path::new("/dev/sdd")).unwrap(), None, "a spare");
    assert!(other_half(&host, Path::new("/dev/gone")).is_err());
}

#[test]
fn a_pool_that_the_kernel_has_is_known_by_its_number_under_any_name() {
    let machine = mirror();
    machine.write("/proc/spl/kstat/zfs/other/state", "ONLINE\n");
    machine.write("/proc/spl/kstat/zfs/fm", "");
    let guid = |name: &str, guid: &str| {
        ScriptedRunner::new()
            .on(&format!("zpool get -Hpo value guid -- {name}"), Reply::ok(format!("{guid}\n")))
    };
    let mounted = |runner| remains(&machine.host(runner)).map(|all| all[0].mounted.clone());
    assert_eq!(mounted(guid("other", "5")).unwrap(), None);
    assert_eq!(mounted(guid("other", POOL)).unwrap(), Some(Vec::new()), "mounted nowhere");
    assert!(mounted(ScriptedRunner::new().on("zpool", Reply::fail(1, "no"))).is_err(), "it is not known");
    fs::rename(
        machine.dir.path().join("proc/spl/kstat/zfs/other"),
        machine.dir.path().join("proc/spl/kstat/zfs/ztest"),
    )
    .unwrap();
    assert_eq!(mounted(guid("ztest", POOL)).unwrap(), Some(vec!["/srv".into()]));
    // One that has stopped is not asked: whoever asks may wait for ever.
    machine.write("/proc/spl/kstat/zfs/ztest/state", "SUSPENDED\n");
    assert_eq!(
        mounted(ScriptedRunner::new().on("zpool", Reply::fail(1, "no"))).unwrap(),
        Some(vec!["/srv".into()])
    );
}

#[test]
fn what_has_left_the_pool_is_no_survivor() {
    let machine = Machine::of(&[("sdb", recorded!("detached"))]);
    assert_eq!(remains(&machine.host(ScriptedRunner::new())).unwrap(), []);
}

#[test]
fn of_a_raidz_all_but_its_parity_are_needed() {
    let machine = Machine::of(&[("sdb", recorded!("raidz-one"))]);
    let host = machine.host(ScriptedRunner::new());
    let [pool] = &remains(&host).unwrap()[..] else { panic!("one pool") };
    assert!(!pool.survivors[0].alone && pool.mirrored);
    let why = Zfs.enough(&host, &pool.survivors).unwrap().unwrap_err();
    assert!(why.contains("of the 3 devices of a raidz1 it takes 2, and 1 can be read"), "{why}");
    let label = Labels::read(&host.path("/dev/sdb")).unwrap().newest().cloned().unwrap();
    let other =
        label.tree.as_ref().unwrap().leaves().into_iter().find(|leaf| leaf.guid != label.guid).unwrap().guid;
    assert_eq!(enough(&[label.clone(), Label { guid: other, ..label }]), Ok(()));
    assert_eq!(enough(&[]), Ok(()));
}

#[test]
fn what_a_member_says_that_it_lacks() {
    let machine = mirror();
    let labels = Labels::read(&machine.dir.path().join("dev/sdb")).unwrap();
    let own = labels.newest().unwrap().tree.as_ref().unwrap().find(MEMBERS[0]).unwrap().clone();
    assert_eq!(super::remains::lacks(&own), None);
    for (vdev, says) in [
        (Vdev { filling: Some(7), ..own.clone() }, "being filled"),
        (Vdev { faulted: true, ..own.clone() }, "given it up"),
        (Vdev { degraded: true, ..own }, "too much on it"),
    ] {
        assert!(super::remains::lacks(&vdev).unwrap().contains(says));
    }
}

#[test]
fn whatever_the_kernel_could_take_beside_the_overlays_is_held() {
    let machine = mirror();
    machine.write("/sys/class/block/sdf/size", "262144\n");
    machine.write("/dev/sdf", &"x".repeat(2 << 20));
    let host = machine.host(ScriptedRunner::new());
    let held = |overlays: &[&str]| {
        keep_away(&host, &overlays.iter().map(PathBuf::from).collect::<Vec<_>>()).unwrap().len()
    };
    assert_eq!(held(&[]), 4, "members, a spare and a cache; nothing else");
    assert_eq!(held(&["/dev/sdb"]), 3);
}

/// What came of mounting a pool of these filesystems, of which some cannot be mounted, and what was run.
fn opened(listed: &str, faulty: &[&str], stopped: bool) -> (Result<Opened, BackendError>, Vec<String>) {
    const MOUNT: &str = "mount -t zfs -o ro,zfsutil,nosuid,nodev,noexec";
    let runner = ScriptedRunner::new()
        .on("zpool import", Reply::ok(""))
        .on("zfs list", Reply::ok(listed))
        .on("mount -t tmpfs", Reply::ok(""))
        .on(MOUNT, Reply::ok(""));
    let fail = || Reply::fail(32, "Input/output error");
    let runner = faulty.iter().fold(runner, |runner, name| runner.on(&format!("{MOUNT} {name} "), fail()));
    let runner = Arc::new(runner);
    let machine = mirror();
    let host = Host::captured(
        machine.dir.path(),
        Arc::<ScriptedRunner>::clone(&runner),
        crate::health::samples::now(),
    );
    let overlays = ["/dev/sdb".into()];
    let opening = Opening {
        options: "",
        survivors: &[],
        overlays: &overlays,
        place: Path::new("/run/x"),
        name: "r",
        belongs: None,
        again: true,
    };
    let mut run = |cmd: &Cmd| {
        let ran = host.runner().run(cmd);
        if stopped && ran.is_err() {
            host.interrupt().raise();
        }
        ran
    };
    let opened = open(&host, &opening, &mut run);
    let mounts = runner.calls().into_iter().map(|(_, line)| line).filter(|line| line.starts_with("mount "));
    let last = |line: String| line.rsplit(' ').next().unwrap_or_default().to_owned();
    (opened, mounts.map(last).collect())
}

#[test]
fn a_filesystem_that_cannot_be_mounted_is_left_with_what_lies_below_it() {
    let listed = "/run/x/a\tr/a\n/run/x/a/b\tr/a/b\n/run/x/c\tr/c\n";
    let (done, tried) = opened(listed, &["r/a"], false);
    let left = done.unwrap().left;
    assert_eq!(tried, ["/run/x", "/run/x/a", "/run/x/c"]);
    assert!(left[0].contains("r/a cannot be mounted") && left[0].contains("Input/output error"), "{left:?}");
    assert!(left[1].starts_with("r/a/b ") && left.len() == 2, "{left:?}");
    assert!(opened(listed, &["r/a", "r/c"], false).0.is_err(), "nothing is mounted");
    let (stopped, tried) = opened(listed, &["r/a"], true);
    assert!(stopped.is_err() && tried.len() == 2, "the operator has it stopped: {tried:?}");
    // In place of the one that all the others lie in they have an empty one.
    let nested = "/run/x/tank\tr\n/run/x/tank/a\tr/a\n";
    let (done, tried) = opened(nested, &["r"], false);
    assert_eq!(
        (done.unwrap().left.len(), &tried[..]),
        (1, &["/run/x", "/run/x", "/run/x/a"].map(str::to_owned)[..])
    );
    assert!(opened(nested, &[], false).0.unwrap().left.is_empty());
}
