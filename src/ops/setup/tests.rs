//! What is decided, from facts alone.

use super::*;
use crate::{
    config::Config,
    exec::{Reply, ScriptedRunner},
    health::samples::declared,
    host::{
        copy::Survey,
        partition::{Room, Slot},
        schedule::Rule,
    },
    model::{
        Bytes, Content, DevNo, Device, Inventory, NodeKind,
        inventory::{Signature, Use, sample},
        node::Holder,
    },
    node::{Layout, Running},
    plan::{
        Plan, Step as _,
        steps::{Action, Initramfs},
    },
};

fn device(kname: &str, minor: u32) -> Device {
    Device {
        size: Bytes::gib(64),
        rotational: Some(false),
        transport: Some("sata".into()),
        model: Some("Example Disk".into()),
        serial: Some(format!("E{minor}")),
        ..sample(kname, minor, &[])
    }
}

fn request() -> Request {
    Request {
        devices: vec!["/dev/sdb".into(), "/dev/sdc".into()],
        backend: BackendKind::Btrfs,
        filesystem: None,
        level: Level::Raid1,
        name: "lightning".into(),
        mountpoint: "/srv/lightning".into(),
        directory: "/home/bitcoin/.lightning".into(),
        user: None,
        node: NodeChoice::Detect,
        patience: 180,
        scheduler: SchedulerChoice::Auto,
        keep_original: true,
        size: None,
        wipe: false,
        allow_same_disk: false,
    }
}

fn facts() -> Facts {
    let disks = [device("sdb", 16), device("sdc", 32)];
    Facts {
        pool: None,
        now: jiff::Timestamp::UNIX_EPOCH,
        devices: disks.iter().map(|d| Ok(d.dev)).collect(),
        inventory: Inventory { devices: disks.to_vec() },
        unsupported: None,
        directory: "/home/bitcoin/.lightning".into(),
        layout: Layout {
            kind: NodeKind::CoreLightning,
            databases: vec!["bitcoin/lightningd.sqlite3".into()],
        },
        owner: (0o700, 1000, 1000),
        survey: Survey { bytes: 3 << 30, files: 7, directories: 2, skipped: Vec::new() },
        running: Running::default(),
        idle: None,
        mounts: Vec::new(),
        fstab_conflict: None,
        array: None,
        rule: None,
        initramfs: Some(Initramfs::UpdateInitramfs),
        filesystem: None,
        config: Config::default(),
        unfinished: Vec::new(),
        missing_dirs: vec!["/srv/lightning".into()],
        mountpoint_in_use: None,
        immutable: true,
        systemd: true,
        with: Ok(Some(Scheduler::Cron)),
        user: None,
        binary: "/usr/local/sbin/raidguard".into(),
        uuid: "25e3e740-8cd1-4cc7-9b25-b175081f4acf".into(),
        uuids: vec![
            "aaaaaaaa-0000-4000-8000-000000000001".into(),
            "aaaaaaaa-0000-4000-8000-000000000002".into(),
        ],
        rooms: Vec::new(),
    }
}

fn running(unit: Option<&str>) -> Running {
    let holder = Holder { pid: 42, name: "lightningd".into(), holds: "/home/bitcoin/.lightning".into() };
    Running { holders: vec![holder], unit: unit.map(str::to_owned), unknown: None }
}

/// Each step and its commands, a line each.
fn lines(plan: &Plan<Action>) -> String {
    let step = |s: &Action| {
        let commands: String = s.commands().iter().map(|c| format!("    $ {c}\n")).collect();
        format!("{}\n{commands}", s.says())
    };
    plan.steps.iter().map(step).collect()
}

#[test]
fn where_udev_runs_it_is_to_keep_halves_apart() {
    let mut facts = facts();
    let request = request();
    assert!(!lines(&decide(&request, &facts).unwrap().plan).contains("udev"));
    facts.rule =
        Rule::for_mirror(request.backend, &request.name, &facts.uuid, &request.mountpoint, &facts.binary);
    let plan = lines(&decide(&request, &facts).unwrap().plan);
    let steps: String =
        plan.split_inclusive('\n').skip_while(|line| !line.contains("udev")).take(3).collect();
    insta::assert_snapshot!(steps, @r#"
    have udev keep the mirror's halves apart, and make the initramfs anew
        $ write /etc/udev/rules.d/62-raidguard-lightning.rules
        $ update-initramfs -u
    "#);
}

#[test]
fn labels_of_zfs_are_cleared_whole() {
    let mut facts = facts();
    facts.inventory.devices[1].size = Bytes::gib(16);
    facts.inventory.devices[1].content =
        Content::Known(vec![Signature { kind: "zfs_member".into(), label: Some("tank".into()), uuid: None }]);
    let refused = decide(&request(), &facts).unwrap_err();
    assert!(refused.iter().any(|b| b.says.contains("zfs_member `tank`")), "{refused:?}");
    let decision = decide(&Request { wipe: true, ..request() }, &facts).unwrap();
    let erase = decision.plan.steps.iter().find(|s| matches!(s, Action::Erase(_))).unwrap();
    assert_eq!(
        erase.commands(),
        [
            "blkdiscard --zeroout --offset 0 --length 524288 /dev/sdc",
            "blkdiscard --zeroout --offset 17179344896 --length 524288 /dev/sdc",
            "wipefs --all /dev/sdc"
        ]
    );
}

#[test]
fn the_whole_plan_of_a_node_run_by_systemd() {
    let mut facts = facts();
    facts.running = running(Some("lightningd.service"));
    facts.inventory.devices[1].content =
        Content::Known(vec![Signature { kind: "ext4".into(), label: None, uuid: None }]);
    let request = Request { wipe: true, ..request() };
    let decision = decide(&request, &facts).unwrap();
    assert_eq!(decision.warnings, [""; 0]);
    assert_eq!(
        decision.erased.iter().map(|(_, holds)| holds.as_str()).collect::<Vec<_>>(),
        ["empty", "ext4"]
    );
    insta::assert_snapshot!(lines(&decision.plan), @r"
    stop the node (lightningd.service) and wait until nothing uses /home/bitcoin/.lightning
        $ write /run/systemd/system/lightningd.service.d/raidguard-hold.conf
        $ systemctl daemon-reload
        $ systemctl stop -- lightningd.service
    erase what is on /dev/sdc
        $ wipefs --all /dev/sdc
    make a btrfs mirror (raid1) of /dev/sdb, /dev/sdc
        $ mkfs.btrfs -q -d raid1 -m raid1 -L lightning -U 25e3e740-8cd1-4cc7-9b25-b175081f4acf /dev/sdb /dev/sdc
    make the mount point /srv/lightning, closed to writing while nothing is mounted
        $ mkdir -p -m 0755 /srv/lightning
        $ chattr +i -- /srv/lightning
    add the mirror to /etc/fstab, mounted at /srv/lightning
        $ write /etc/fstab: UUID=25e3e740-8cd1-4cc7-9b25-b175081f4acf /srv/lightning btrfs defaults,autodefrag,nofail,x-systemd.device-timeout=30s 0 0
        $ systemctl daemon-reload
    mount it at /srv/lightning and look at its members and profiles
        $ btrfs device scan /dev/sdb /dev/sdc
        $ mount /srv/lightning
    make the subvolume /srv/lightning/lightning
        $ btrfs subvolume create /srv/lightning/lightning
    copy /home/bitcoin/.lightning to /srv/lightning/lightning (3 GiB)
        $ cp -a /home/bitcoin/.lightning/. /srv/lightning/lightning
    read the copy back from the devices, compare it, and have SQLite check the database in it
    put a symlink to /srv/lightning/lightning in the place of /home/bitcoin/.lightning
        $ ln -s /srv/lightning/lightning /home/bitcoin/.lightning.before-raidguard-19700101-000000
        $ mv --exchange --no-copy /home/bitcoin/.lightning /home/bitcoin/.lightning.before-raidguard-19700101-000000
    tie lightningd.service to the mount
        $ write /etc/systemd/system/lightningd.service.d/raidguard.conf
        $ systemctl daemon-reload
    install the regular jobs (cron): check, balance, scrub
        $ write /etc/cron.d/raidguard
    declare the mirror `lightning` in /etc/raidguard/raidguard.toml
        $ write /etc/raidguard/raidguard.toml
    start the node (lightningd.service) and see it run with its files at /srv/lightning/lightning
        $ rm /run/systemd/system/lightningd.service.d/raidguard-hold.conf
        $ systemctl reset-failed -- lightningd.service
        $ systemctl daemon-reload
        $ systemctl start -- lightningd.service
    keep the original as /home/bitcoin/.lightning.before-raidguard-19700101-000000, for root only
        $ write /home/bitcoin/.lightning.before-raidguard-19700101-000000/NEVER-START-A-NODE-FROM-THIS-DIRECTORY.txt
        $ chown root:root /home/bitcoin/.lightning.before-raidguard-19700101-000000
        $ chmod 0700 /home/bitcoin/.lightning.before-raidguard-19700101-000000
    ");
}

/// What is asked for and found where a pool of ZFS is to be made of these disks, as they are.
fn pool(sectors: (u64, u64)) -> (Request, Facts) {
    let mut facts = facts();
    (facts.systemd, facts.with) = (false, Ok(None));
    facts.pool = Some(PoolFacts {
        sectors: vec![Some((512, 512)), Some(sectors)],
        whole: vec![Some(Bytes::gib(64)); 2],
        size: Bytes::gib(63),
        ..PoolFacts::default()
    });
    (Request { backend: BackendKind::Zfs, level: Level::Mirror, ..request() }, facts)
}

#[test]
fn a_pool_lies_on_partitions_of_one_size_by_names_that_stay() {
    let (request, mut facts) = pool((4096, 4096));
    facts.inventory.devices[1].content =
        Content::Known(vec![Signature { kind: "gpt".into(), label: None, uuid: None }]);
    let decision = decide(&Request { wipe: true, ..request }, &facts).unwrap();
    let said = |(device, holds): &(crate::model::Identity, String)| {
        (device.path.display().to_string(), holds.clone())
    };
    assert_eq!(
        decision.erased.iter().map(said).collect::<Vec<_>>(),
        [("/dev/sdb".into(), "empty".into()), ("/dev/sdc".into(), "gpt".into())]
    );
    let plan: String =
        lines(&decision.plan).split_inclusive('\n').take_while(|l| !l.starts_with("copy")).collect();
    insta::assert_snapshot!(plan, @r#"
    erase what is on /dev/sdc
        $ wipefs --all /dev/sdc
    make the partition /dev/sdb1 of 63 GiB in the free space of /dev/sdb, with a new GPT
        $ sfdisk --quiet --lock=yes --no-reread --no-tell-kernel --wipe never --wipe-partitions never /dev/sdb <<< $'label: gpt\nstart=2048, size=132120576, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, uuid=aaaaaaaa-0000-4000-8000-000000000001, name="lightning"\n'
        $ partx --update --nr 1 /dev/sdb
    make the partition /dev/sdc1 of 63 GiB in the free space of /dev/sdc, with a new GPT
        $ sfdisk --quiet --lock=yes --no-reread --no-tell-kernel --wipe never --wipe-partitions never /dev/sdc <<< $'label: gpt\nstart=256, size=16515072, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, uuid=aaaaaaaa-0000-4000-8000-000000000002, name="lightning"\n'
        $ partx --update --nr 1 /dev/sdc
    make a zfs mirror (mirror) of /dev/sdb1, /dev/sdc1
        $ zpool create -o ashift=12 -o autotrim=on -o cachefile=/etc/zfs/zpool.cache -o compatibility=openzfs-2.1-linux -o comment=25e3e7408cd14cc79b25b175081f4acf -O canmount=off -O recordsize=16K -O compression=lz4 -O atime=off -O xattr=sa -O acltype=posix -O org.debian:periodic-scrub=disable -m /srv/lightning lightning mirror /dev/disk/by-partuuid/aaaaaaaa-0000-4000-8000-000000000001 /dev/disk/by-partuuid/aaaaaaaa-0000-4000-8000-000000000002
    make the mount point /srv/lightning, closed to writing while nothing is mounted
        $ mkdir -p -m 0755 /srv/lightning
        $ chattr +i -- /srv/lightning
    mount it at /srv/lightning and look at its members and profiles
        $ zfs set canmount=on lightning
        $ zfs mount lightning
    make the directory /srv/lightning/lightning
        $ mkdir -- /srv/lightning/lightning
    "#);
    // One that was partitioned is not erased again.
    let Action::Erase(erase) = &decision.plan.steps[0] else { panic!("{plan}") };
    assert_eq!(erase.before, ["aaaaaaaa-0000-4000-8000-000000000002"]);
}

#[test]
fn what_is_left_where_a_pools_partition_will_be_is_erased_on_it() {
    let (request, mut facts) = pool((512, 512));
    let old = Content::Known(vec![Signature { kind: "ext4".into(), label: None, uuid: None }]);
    facts.pool.as_mut().unwrap().remains = vec![Content::Empty, old];
    let refused = decide(&request, &facts).unwrap_err();
    assert_eq!(refused[0].says, "on /dev/sdc is left of something older: ext4");
    let plan = lines(&decide(&Request { wipe: true, ..request }, &facts).unwrap().plan);
    let (parted, erased) =
        (plan.find("make the partition /dev/sdc1"), plan.find("$ wipefs --all /dev/sdc1\n"));
    assert!(parted.unwrap() < erased.unwrap() && erased < plan.find("zpool create"), "{plan}");
    assert!(!plan.contains("wipefs --all /dev/sdc\n"));
}

#[test]
fn what_a_pool_cannot_be_made_of() {
    let (request, mut facts) = pool((512, 0));
    let refused = |facts: &Facts| decide(&request, facts).unwrap_err()[0].says.clone();
    assert!(refused(&facts).contains("how large the sectors"), "{}", refused(&facts));
    let pool = facts.pool.as_mut().unwrap();
    pool.sectors[1] = Some((512, 8192));
    assert!(lines(&decide(&request, &facts).unwrap().plan).contains("-o ashift=13 "));
    facts.pool.as_mut().unwrap().conflict = Some("a pool `lightning` is imported already".into());
    assert_eq!(refused(&facts), "a pool `lightning` is imported already");
}

#[test]
fn partitions_of_different_sizes_are_taken_by_force() {
    let (request, mut facts) = pool((512, 512));
    facts.pool.as_mut().unwrap().whole = vec![None; 2];
    for (device, uuid) in facts.inventory.devices.iter_mut().zip(["one", "two"]) {
        (device.kind, device.partuuid) = ("part".into(), Some(uuid.into()));
    }
    let plan = |facts: &Facts| lines(&decide(&request, facts).unwrap().plan);
    assert!(plan(&facts).contains("mirror /dev/disk/by-partuuid/one /dev/disk/by-partuuid/two\n"));
    assert!(plan(&facts).contains("$ zpool create -o") && !plan(&facts).contains("sfdisk"));
    facts.inventory.devices[0].size = Bytes::gib(63);
    assert!(plan(&facts).contains("$ zpool create -f -o"));
}

#[test]
fn a_quiet_directory_on_new_partitions() {
    let mut facts = facts();
    facts.systemd = false;
    facts.with = Ok(None);
    let slot = Slot { number: 3, start: 2048, sectors: 20 << 21, sector: 512 };
    let room = |fresh| Room { slot: Some(slot), most: Bytes::gib(20), fresh, remains: Content::Empty };
    facts.rooms = vec![Ok(room(true)), Ok(room(false))];
    // Its other partitions may be in use.
    facts.inventory.devices[1].content =
        Content::Known(vec![Signature { kind: "gpt".into(), label: None, uuid: None }]);
    facts.inventory.devices[1].uses = vec![Use::Busy];
    let part = Device { parents: vec!["sdc".into()], kind: "part".into(), ..device("sdc1", 33) };
    facts.inventory.devices.push(part);
    let request = Request { size: Some(Bytes::gib(20)), ..request() };
    insta::assert_snapshot!(lines(&decide(&request, &facts).unwrap().plan), @r#"
    make the partition /dev/sdb3 of 20 GiB in the free space of /dev/sdb, with a new GPT
        $ sfdisk --quiet --lock=yes --no-reread --no-tell-kernel --wipe never --wipe-partitions never /dev/sdb <<< $'label: gpt\nstart=2048, size=41943040, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, uuid=aaaaaaaa-0000-4000-8000-000000000001, name="lightning"\n'
        $ partx --update --nr 3 /dev/sdb
    make the partition /dev/sdc3 of 20 GiB in the free space of /dev/sdc
        $ sfdisk --quiet --lock=yes --no-reread --no-tell-kernel --wipe never --wipe-partitions never --append /dev/sdc <<< $'start=2048, size=41943040, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, uuid=aaaaaaaa-0000-4000-8000-000000000002, name="lightning"\n'
        $ partx --update --nr 3 /dev/sdc
    make a btrfs mirror (raid1) of /dev/sdb3, /dev/sdc3
        $ mkfs.btrfs -q -d raid1 -m raid1 -L lightning -U 25e3e740-8cd1-4cc7-9b25-b175081f4acf /dev/sdb3 /dev/sdc3
    make the mount point /srv/lightning, closed to writing while nothing is mounted
        $ mkdir -p -m 0755 /srv/lightning
        $ chattr +i -- /srv/lightning
    add the mirror to /etc/fstab, mounted at /srv/lightning
        $ write /etc/fstab: UUID=25e3e740-8cd1-4cc7-9b25-b175081f4acf /srv/lightning btrfs defaults,autodefrag,nofail,x-systemd.device-timeout=30s 0 0
    mount it at /srv/lightning and look at its members and profiles
        $ btrfs device scan /dev/sdb3 /dev/sdc3
        $ mount /srv/lightning
    make the subvolume /srv/lightning/lightning
        $ btrfs subvolume create /srv/lightning/lightning
    copy /home/bitcoin/.lightning to /srv/lightning/lightning (3 GiB)
        $ cp -a /home/bitcoin/.lightning/. /srv/lightning/lightning
    read the copy back from the devices, compare it, and have SQLite check the database in it
    put a symlink to /srv/lightning/lightning in the place of /home/bitcoin/.lightning
        $ ln -s /srv/lightning/lightning /home/bitcoin/.lightning.before-raidguard-19700101-000000
        $ mv --exchange --no-copy /home/bitcoin/.lightning /home/bitcoin/.lightning.before-raidguard-19700101-000000
    declare the mirror `lightning` in /etc/raidguard/raidguard.toml
        $ write /etc/raidguard/raidguard.toml
    keep the original as /home/bitcoin/.lightning.before-raidguard-19700101-000000, for root only
        $ write /home/bitcoin/.lightning.before-raidguard-19700101-000000/NEVER-START-A-NODE-FROM-THIS-DIRECTORY.txt
        $ chown root:root /home/bitcoin/.lightning.before-raidguard-19700101-000000
        $ chmod 0700 /home/bitcoin/.lightning.before-raidguard-19700101-000000
    "#);
}

type Change = fn(&mut Request, &mut Facts);

#[test]
fn everything_that_stands_in_the_way_is_named_with_what_clears_it() {
    let cases: &[(&str, Change)] = &[
        ("is no name for a mirror", |r, _| r.name = "../x".into()),
        ("a mirror `lightning` is declared already", |_, f| f.config.mirror.push(declared())),
        ("`raidguard setup` of `old` was interrupted", |_, f| {
            f.unfinished.push(("setup".into(), "old".into()))
        }),
        ("the kernel has none", |_, f| f.unsupported = Some("the kernel has none".into())),
        ("fstab says otherwise", |_, f| f.fstab_conflict = Some("fstab says otherwise".into())),
        ("cannot be the mount point: it is full", |_, f| f.mountpoint_in_use = Some("it is full".into())),
        ("nothing runs jobs", |_, f| f.with = Err("nothing runs jobs".into())),
        ("there is no user `nobody`", |r, f| {
            r.user = Some("nobody".into());
            f.user = Some(None);
        }),
        ("is itself a mount point", |_, f| {
            let mut mounts =
                crate::host::mountinfo::parse(b"1 0 8:1 / /home/bitcoin/.lightning rw - ext4 /dev/sda rw");
            f.mounts = mounts.as_mut().map(std::mem::take).unwrap_or_default();
        }),
        ("lie within each other", |r, _| r.mountpoint = "/home/bitcoin/.lightning/mnt".into()),
        ("is on the declared mirror", |_, f| {
            f.directory = "/srv/lightning/lightning".into();
            f.config.mirror.push(crate::config::Mirror { name: "other".into(), ..declared() });
        }),
        ("the root directory cannot be moved", |_, f| f.directory = "/".into()),
        ("does not know how to start it again", |_, f| f.running = running(None)),
        ("--no-node was given, but the directory is in use", |r, f| {
            r.node = NodeChoice::None;
            f.running = running(Some("lightningd.service"));
        }),
        ("it cannot be told whether a node is running", |_, f| {
            f.running = Running { unknown: Some("/proc is closed".into()), ..Running::default() };
        }),
        ("no such device", |_, f| f.devices[0] = Err("no such device".into())),
        ("is not among the devices that lsblk shows", |_, f| f.devices[0] = Ok(DevNo { major: 9, minor: 9 })),
        ("is the same device as", |_, f| f.devices[1] = f.devices[0].clone()),
        ("is read-only", |_, f| f.inventory.devices[0].read_only = true),
        ("too little for the node's files", |_, f| f.survey.bytes = 64 << 30),
        ("the free space of /dev/sdb was not looked at", |r, _| r.size = Some(Bytes::gib(2))),
        ("the free space of /dev/sdb cannot be told: why", |r, f| {
            r.size = Some(Bytes::gib(2));
            f.rooms = vec![Err("why".into()), Err("why".into())];
        }),
    ];
    for (words, change) in cases {
        let (mut request, mut facts) = (request(), facts());
        change(&mut request, &mut facts);
        let blockers = decide(&request, &facts).map(|d| lines(&d.plan)).unwrap_err();
        let named = blockers.iter().find(|b| b.says.contains(words));
        assert!(named.is_some_and(|b| !b.clears.is_empty()), "{words}: {blockers:?}");
    }
    // All at once, not the first alone.
    let (mut request, mut facts) = (request(), facts());
    for (_, change) in &cases[3..7] {
        change(&mut request, &mut facts);
    }
    assert_eq!(decide(&request, &facts).map(|d| lines(&d.plan)).unwrap_err().len(), 4);
}

#[test]
fn a_plan_reads_back_from_its_journal_as_it_was() {
    let plan = decide(&request(), &facts()).unwrap().plan;
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan<Action>>(&text).unwrap(), plan);
}

#[test]
fn a_unit_that_is_not_running_is_not_left_unguarded_without_a_word() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("run/systemd/system")).unwrap();
    let runner = ScriptedRunner::new()
        .on("systemctl show --property=LoadState", Reply::ok("not-found\n"))
        .on("systemctl show --property=LoadState --value -- clightning", Reply::ok("loaded\n"));
    let host = Host::captured(dir.path(), std::sync::Arc::new(runner), jiff::Timestamp::UNIX_EPOCH);
    let found = |choice: &NodeChoice, running: &Running| idle(&host, choice, running);
    assert_eq!(found(&NodeChoice::Detect, &running(None)), None);
    assert_eq!(found(&NodeChoice::None, &Running::default()), None);
    let facts = Facts { idle: found(&NodeChoice::Detect, &Running::default()), ..facts() };
    let said = decide(&request(), &facts).unwrap().warnings;
    assert!(said.len() == 1 && said[0].contains("--node-unit clightning.service"), "{said:?}");
}
