//! Pools of ZFS as they were recorded in the lab (tests/fixtures/zfs/2.3.9), and changes to them.

use super::{
    samples::hours_ago,
    states::{Change, State, runs_for},
};
use crate::{
    backend::zfs::{as_mirror, json},
    config::ScheduleConfig,
    model::{
        BackendKind, Bytes, Level, Scheduler, Seen,
        mirror::MirrorState,
        observed::{Claim, FstabLine},
        record::{FailedWrites, JobRun},
        zfs::{ZfsClass, ZfsScan, ZfsScanKind, ZfsScanState, ZfsSpace, ZfsState, ZfsVdev},
    },
};

macro_rules! recorded {
    ($name:literal) => {
        |state: &mut State| {
            show(
                state,
                recorded(include_str!(concat!(
                    "../../tests/fixtures/zfs/2.3.9/",
                    $name,
                    "/status-tree.json"
                ))),
            )
        }
    };
}

/// What is shown of a recorded pool with a change.
macro_rules! pool {
    ($pool:ident, $change:expr) => {
        |state: &mut State| {
            let mut $pool = healthy();
            $change;
            show(state, $pool);
        }
    };
}

/// The pools of the recordings, and the members that each was made of.
const MADE: [(u64, [u64; 2]); 3] = [
    (13_028_496_158_777_197_878, [5_499_180_930_507_077_698, 9_984_918_434_315_401_551]),
    (16_817_315_279_131_749_613, [4_882_230_004_153_730_965, 13_573_643_496_760_796_423]),
    (5_081_380_823_483_552_791, [18_153_691_538_418_729_421, 15_907_726_011_745_772_565]),
];

fn recorded(text: &str) -> ZfsState {
    let mut pool = json::parse_status(text).unwrap().pop().unwrap();
    pool.space = Some(ZfsSpace { size: Bytes::gib(32), allocated: Bytes::gib(1), free: Bytes::gib(31) });
    pool
}

fn healthy() -> ZfsState {
    recorded(include_str!("../../tests/fixtures/zfs/2.3.9/healthy/status-tree.json"))
}

/// Makes the healthy mirror this pool.
fn show(state: &mut State, pool: ZfsState) {
    let members = MADE.iter().find(|(guid, _)| Some(*guid) == pool.guid).unwrap().1;
    (state.0.backend, state.0.level, state.0.uuid) =
        (BackendKind::Zfs, Level::Mirror, pool.guid.unwrap().to_string());
    state.0.schedule = Some(ScheduleConfig::standard(Scheduler::Cron, BackendKind::Zfs).unwrap());
    for (declared, guid) in state.0.member.iter_mut().zip(members) {
        (declared.id, declared.uuid) = (guid.to_string(), guid.to_string());
    }
    let seen = as_mirror(pool, &state.0.mountpoint);
    state.1.storage = Seen::Read(MirrorState { used: Bytes::mib(400), free: Some(Bytes::gib(30)), ..seen });
    let claim = |(guid, path): (u64, &str)| Claim {
        path: path.into(),
        devid: guid,
        uuid: guid.to_string(),
        generation: 452,
        filling: false,
        without: Vec::new(),
    };
    state.1.claims = Seen::Read(members.into_iter().zip(["/dev/sdb1", "/dev/sdc1"]).map(claim).collect());
    for (disk, guid) in state.1.disks.get_mut().unwrap().iter_mut().zip(members) {
        disk.devid = guid;
    }
    state.1.mount.get_mut().unwrap().lines.clear();
    state.1.scrub = Seen::Read(None);
    state.2.jobs.remove("balance");
}

/// A healthy pool of one vdev with so many devices, declared as that.
fn of(state: &mut State, level: Level, count: u64, change: impl FnOnce(&mut ZfsState)) {
    let mut pool = healthy();
    let vdev = &mut pool.vdevs[0];
    vdev.name = format!("{level}-0");
    let leaf = vdev.children[0].clone();
    let numbered = |n| ZfsVdev { name: format!("disk{n}"), guid: Some(n), path: None, ..leaf.clone() };
    vdev.children = (1..=count).map(numbered).collect();
    change(&mut pool);
    show(state, pool);
    state.0.level = level;
    let one = state.0.member[0].clone();
    let declared = |n: u64| {
        let mut member = one.clone();
        (member.id, member.uuid) = (n.to_string(), n.to_string());
        member
    };
    state.0.member = (1..=count).map(declared).collect();
}

fn call(pool: &mut ZfsState, devices: &[usize], word: &str) {
    pool.state = "DEGRADED".into();
    pool.vdevs[0].state = "DEGRADED".into();
    for device in devices {
        pool.vdevs[0].children[*device].state = word.into();
    }
}

/// A vdev of these devices beside the first.
fn beside(pool: &mut ZfsState, class: ZfsClass, name: &str, devices: u64) {
    let leaf = |n| {
        let (name, path) = (format!("nvme{n}"), Some(format!("/dev/nvme{n}").into()));
        ZfsVdev { name, path, guid: Some(n), class, ..pool.vdevs[0].children[0].clone() }
    };
    let mut leaves: Vec<_> = (70..70 + devices).map(leaf).collect();
    let vdev = if devices == 1 {
        leaves.remove(0)
    } else {
        ZfsVdev { name: name.into(), guid: Some(69), class, children: leaves, ..pool.vdevs[0].clone() }
    };
    pool.vdevs.push(vdev);
}

fn full(pool: &mut ZfsState, percent: u64) {
    let size = Bytes(Bytes::gib(1).0 * 100);
    let allocated = Bytes(size.0 / 100 * percent);
    pool.space = Some(ZfsSpace { size, allocated, free: Bytes(size.0 - allocated.0) });
}

fn not_imported(state: &mut State, generations: [u64; 2]) {
    show(state, healthy());
    let storage = state.1.storage.get_mut().unwrap();
    (storage.mounted, storage.zfs, storage.free) = (false, None, None);
    for (member, generation) in storage.members.iter_mut().zip(generations) {
        (member.errors, member.generation) = (None, Some(generation));
    }
}

/// Writes to the second member failed some hours ago, and the counters were set back.
fn cleared(state: &mut State) {
    recorded!("write-errors-cleared")(state);
    let failed = FailedWrites { counted: 0, most: 159, at: hours_ago(4) };
    state.2.failed_writes.insert(state.0.member[1].uuid.clone(), failed);
}

fn scrubbed(state: &mut State, began: i64, good: i64) {
    let good = Some(hours_ago(good));
    let run = JobRun { started: hours_ago(began), ended: good, failed: None, good };
    state.2.jobs.insert("scrub".into(), run);
}

#[allow(clippy::too_many_lines, reason = "one table")]
pub(super) fn zfs_states() -> Vec<(&'static str, Change)> {
    vec![
        ("pool: healthy", recorded!("healthy")),
        ("pool: suspended", |state| {
            recorded!("suspended")(state);
            let storage = state.1.storage.get_mut().unwrap();
            (storage.members, storage.free) = (Vec::new(), None);
            let pool = storage.zfs.as_mut().unwrap();
            (pool.vdevs, pool.space, pool.damaged, pool.level) = (Vec::new(), None, None, None);
        }),
        ("pool: suspended while it was asked", recorded!("suspended")),
        ("pool: it does not serve", pool!(p, p.state = "UNAVAIL".into())),
        ("pool: not imported", |state| not_imported(state, [452, 452])),
        ("pool: not imported, one device is there", |state| {
            not_imported(state, [452, 452]);
            drop(state.1.storage.get_mut().unwrap().members.pop());
        }),
        ("pool: not imported, one lags", |state| not_imported(state, [452, 440])),
        ("pool: not imported, its halves parted", |state| {
            not_imported(state, [452, 460]);
            let claims = state.1.claims.get_mut().unwrap();
            let (one, two) = (claims[0].uuid.clone(), claims[1].uuid.clone());
            (claims[0].without, claims[1].without) = (vec![two], vec![one]);
        }),
        ("pool: a copy of a member", |state| {
            show(state, healthy());
            let copy = Claim { path: "/dev/sdz1".into(), ..state.1.claims.get().unwrap()[1].clone() };
            state.1.claims.get_mut().unwrap().push(copy);
        }),
        ("pool: no device", |state| {
            not_imported(state, [1, 1]);
            state.1.storage.get_mut().unwrap().members.clear();
        }),
        ("pool: not mounted", |state| {
            show(state, healthy());
            state.1.storage.get_mut().unwrap().mounted = false;
        }),
        ("pool: imported half", recorded!("imported-half")),
        ("pool: imported after it parted", recorded!("parted-imported")),
        ("pool: one failed, and the pool says ONLINE", recorded!("write-errors")),
        ("pool: its counters were set back", recorded!("write-errors-cleared")),
        ("pool: its counters were set back, and it is remembered", cleared),
        ("pool: its counters were set back before a scrub", |state| {
            cleared(state);
            scrubbed(state, 3, 1);
        }),
        ("pool: a scrub had begun before writes failed", |state| {
            cleared(state);
            scrubbed(state, 5, 1);
        }),
        ("pool: its counters were set back, the scrub failed", |state| {
            cleared(state);
            scrubbed(state, 3, 100);
        }),
        ("pool: what a scrub found after writes had failed", recorded!("scrub-after-write-errors")),
        ("pool: reads fail", recorded!("read-errors")),
        ("pool: pulled", recorded!("pulled-idle")),
        ("pool: pulled, and not noticed", |state| {
            show(state, healthy());
            let member = &mut state.1.storage.get_mut().unwrap().members[1];
            (member.missing, member.pulled) = (true, true);
            member.missing_because = Some("its block device is gone".into());
        }),
        ("pool: offline", recorded!("offline")),
        ("pool: resilvering", recorded!("resilvering")),
        ("pool: resilvering one that is told", |state| {
            let text = include_str!("../../tests/fixtures/zfs/2.3.9/resilvering/status-tree.json");
            let mut pool = recorded(text);
            pool.vdevs[0].children[1].resilvering = true;
            pool.scan.as_mut().unwrap().done = Some(2505);
            show(state, pool);
        }),
        ("pool: a scrub runs for more than a day", |state| {
            let mut pool = healthy();
            pool.scan = Some(ZfsScan {
                kind: ZfsScanKind::Scrub,
                state: ZfsScanState::Running,
                started: Some(hours_ago(36)),
                ended: None,
                done: Some(2505),
                total: Some(Bytes::gib(1)),
                repaired: Bytes(0),
                errors: None,
            });
            show(state, pool);
            runs_for(&mut state.2, 36);
        }),
        ("pool: resilvered", recorded!("resilvered")),
        ("pool: rebuilding in the order of its blocks", pool!(p, p.rebuilding = true)),
        ("pool: replacing", recorded!("replacing")),
        ("pool: replaced", recorded!("replaced")),
        (
            "pool: a spare stands in",
            pool!(p, {
                beside(&mut p, ZfsClass::Normal, "spare-1", 2);
                let mut spare = p.vdevs.pop().unwrap();
                spare.children[0] = p.vdevs[0].children[1].clone();
                spare.children[0].state = "FAULTED".into();
                p.vdevs[0].children[1] = spare;
                p.state = "DEGRADED".into();
            }),
        ),
        ("pool: a device is doubted", pool!(p, call(&mut p, &[1], "DEGRADED"))),
        ("pool: worse than all of it", pool!(p, p.state = "DEGRADED".into())),
        ("pool: a damaged label", |state| {
            show(state, healthy());
            let member = &mut state.1.storage.get_mut().unwrap().members[1];
            member.damaged = Some("the label at 0: its checksum is wrong".into());
        }),
        ("pool: damaged files", pool!(p, p.damaged = Some(3))),
        ("pool: a resilver could not mend all", |state| {
            let text = include_str!("../../tests/fixtures/zfs/2.3.9/resilvered/status-tree.json");
            let mut pool = recorded(text);
            pool.scan.as_mut().unwrap().errors = Some(2);
            show(state, pool);
        }),
        ("pool: what is damaged is not told", pool!(p, p.damaged = None)),
        ("pool: its level is not told", |state| {
            show(state, healthy());
            state.1.storage.get_mut().unwrap().zfs.as_mut().unwrap().level = None;
        }),
        ("pool: its space is not told", pool!(p, p.space = None)),
        ("pool: 79 % full", pool!(p, full(&mut p, 79))),
        ("pool: 81 % full", pool!(p, full(&mut p, 81))),
        ("pool: 91 % full, and little is free", |state| {
            let mut pool = healthy();
            full(&mut pool, 91);
            show(state, pool);
            state.1.storage.get_mut().unwrap().free = Some(Bytes::mib(35));
        }),
        ("pool: 96 % full, and nothing is free", |state| {
            let mut pool = healthy();
            full(&mut pool, 96);
            show(state, pool);
            state.1.storage.get_mut().unwrap().free = Some(Bytes(0));
        }),
        ("pool: a quota is used up", |state| {
            show(state, healthy());
            state.1.storage.get_mut().unwrap().free = Some(Bytes::mib(20));
        }),
        ("pool: read-only", pool!(p, p.read_only = true)),
        ("pool: a checkpoint", pool!(p, p.checkpoint = true)),
        ("pool: a vdev is removed", pool!(p, p.removing = true)),
        ("pool: a device was added", pool!(p, beside(&mut p, ZfsClass::Normal, "", 1))),
        ("pool: a mirror was added", pool!(p, beside(&mut p, ZfsClass::Normal, "mirror-1", 2))),
        ("pool: another level", |state| {
            show(state, healthy());
            state.0.level = Level::Raidz1;
        }),
        ("pool: a log of one", pool!(p, beside(&mut p, ZfsClass::Log, "", 1))),
        ("pool: a log of two", pool!(p, beside(&mut p, ZfsClass::Log, "mirror-1", 2))),
        (
            "pool: a log of two, one failed",
            pool!(p, {
                beside(&mut p, ZfsClass::Log, "mirror-1", 2);
                p.vdevs[1].children[0].state = "REMOVED".into();
                p.state = "DEGRADED".into();
            }),
        ),
        ("pool: a special of one", pool!(p, beside(&mut p, ZfsClass::Special, "", 1))),
        (
            "pool: spare and cache",
            pool!(p, {
                beside(&mut p, ZfsClass::Spare, "", 1);
                p.vdevs[1].state = "AVAIL".into();
                beside(&mut p, ZfsClass::Cache, "", 1);
                p.vdevs[2].state = "FAULTED".into();
            }),
        ),
        ("mirror of three: whole", |state| of(state, Level::Mirror, 3, |_| {})),
        ("mirror of three: one gone", |state| of(state, Level::Mirror, 3, |p| call(p, &[1], "REMOVED"))),
        ("mirror of three: two gone", |state| of(state, Level::Mirror, 3, |p| call(p, &[0, 1], "UNAVAIL"))),
        ("mirror of three: one lacks writes", |state| {
            of(state, Level::Mirror, 3, |_| {});
            let failed = FailedWrites { counted: 0, most: 0, at: hours_ago(4) };
            state.2.failed_writes.insert("2".into(), failed);
        }),
        ("raidz1 of three: one gone", |state| of(state, Level::Raidz1, 3, |p| call(p, &[2], "UNAVAIL"))),
        ("raidz2 of four: whole", |state| of(state, Level::Raidz2, 4, |_| {})),
        ("raidz2 of four: one gone", |state| of(state, Level::Raidz2, 4, |p| call(p, &[0], "OFFLINE"))),
        ("raidz2 of four: two gone", |state| of(state, Level::Raidz2, 4, |p| call(p, &[0, 3], "REMOVED"))),
        ("raidz2 of four: one gone, one filled", |state| {
            of(state, Level::Raidz2, 4, |p| {
                call(p, &[0], "REMOVED");
                p.vdevs[0].children[1].resilvering = true;
            });
        }),
        ("pool: a scrub", recorded!("scrub-running")),
        ("pool: a scrub that waits", recorded!("scrub-paused")),
        ("pool: a scrub given up", recorded!("scrub-cancelled")),
        ("pool: a scrub that mended", recorded!("scrub-repaired")),
        ("pool: a scrub that mended, acknowledged", |state| {
            recorded!("scrub-repaired")(state);
            let storage = state.1.storage.get().unwrap();
            state.2.acknowledged_scrub = storage.zfs.as_ref().unwrap().scan.as_ref().unwrap().known_by();
            let counted = storage.members.iter().map(|m| (m.uuid.clone().unwrap(), m.errors.unwrap()));
            state.2.acknowledged = counted.collect();
        }),
        ("pool: scrubbed by somebody else only", |state| {
            recorded!("scrub-finished")(state);
            state.2.jobs.remove("scrub");
        }),
        ("pool: no boot brings it back", |state| {
            show(state, healthy());
            let boot = "/etc/zfs/zpool.cache does not name the pool lightning";
            state.1.mount.get_mut().unwrap().boot.push(boot.into());
        }),
        ("pool: a line in fstab", |state| {
            show(state, healthy());
            let line = FstabLine {
                line: 9,
                source: "lightning".into(),
                mountpoint: state.0.mountpoint.clone(),
                options: vec!["defaults".into()],
            };
            state.1.mount.get_mut().unwrap().lines.push(line);
        }),
        ("pool: the distribution scrubs it too", |state| {
            show(state, healthy());
            state.1.jobs.get_mut().unwrap().doubled.push("/etc/cron.d/zfsutils-linux".into());
        }),
    ]
}
