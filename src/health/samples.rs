//! A healthy mirror, for tests to change.

use jiff::Timestamp;

use crate::{
    config::{Member, Mirror, Node, ScheduleConfig},
    model::{
        BackendKind, Bytes, Level, NodeKind, Observed, Record, Scheduler, Seen,
        md::MdState,
        mirror::{ChunkKind, ErrorCounts, MemberState, MirrorState, ProfileUse},
        observed::{
            ChannelFacts, Claim, DatabaseFacts, DatabaseState, DatabaseVersion, DiskFacts, FstabLine,
            JobFacts, MountFacts, NetworkFacts, NodeFacts, Owned, ScrubRecord, Smart, SmartFacts,
            SmartHealth, Standing,
        },
        record::{JobRun, LedgerEntry},
    },
};

/// Monday, 23 November 2026, 12:00 UTC.
pub(crate) fn now() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

/// This many hours before now.
pub(crate) fn hours_ago(hours: i64) -> Timestamp {
    now() - jiff::SignedDuration::from_hours(hours)
}

fn uuid(n: u64) -> String {
    format!("5515c27f-43dc-47b1-a1df-6c7b3533ca{n:02}")
}

/// A raid1 of two with a node and a schedule.
pub(crate) fn declared() -> Mirror {
    Mirror {
        name: "lightning".into(),
        backend: BackendKind::Btrfs,
        level: Level::Raid1,
        uuid: "25e3e740-8cd1-4cc7-9b25-b175081f4acf".into(),
        mountpoint: "/srv/lightning".into(),
        filesystem: None,
        member: [1, 2]
            .map(|n| Member {
                id: n.to_string(),
                uuid: uuid(n),
                model: Some("Example Disk".into()),
                serial: Some(format!("E{n}")),
                size: Bytes::gib(32),
            })
            .to_vec(),
        node: Some(Node {
            kind: NodeKind::CoreLightning,
            directory: "/home/bitcoin/.lightning".into(),
            data: "/srv/lightning/lightning".into(),
            user: Some("bitcoin".into()),
            unit: Some("lightningd.service".into()),
            stop: None,
            start: None,
        }),
        schedule: Some(ScheduleConfig::standard(Scheduler::Cron, BackendKind::Btrfs).unwrap()),
    }
}

fn state(declared: &Mirror) -> MirrorState {
    let member = |n: u64| MemberState {
        devid: n,
        uuid: Some(uuid(n)),
        path: Some(format!("/dev/sd{}", if n == 1 { 'b' } else { 'c' }).into()),
        size: Some(Bytes::gib(32)),
        missing: false,
        pulled: false,
        missing_because: None,
        damaged: None,
        errors: Some(ErrorCounts::default()),
        unallocated: Some(Bytes::gib(30)),
        generation: Some(38),
        writeable: Some(true),
        replace_target: false,
        bad_sectors: 0,
    };
    let profile =
        |kind| ProfileUse { kind, profile: "raid1".into(), total: Bytes::gib(1), used: Bytes::mib(200) };
    MirrorState {
        uuid: declared.uuid.clone(),
        mountpoint: Some(declared.mountpoint.clone()),
        mounted: true,
        also_mounted: Vec::new(),
        instead: None,
        mount_options: vec!["rw".into(), "relatime".into()],
        read_only: false,
        forced_read_only: false,
        degraded_option: false,
        members: vec![member(1), member(2)],
        profiles: ChunkKind::ALL.map(profile).to_vec(),
        raw_size: Bytes::gib(64),
        used: Bytes::mib(400),
        free: Some(Bytes::gib(30)),
        exclusive_operation: None,
        unread: Vec::new(),
        md: None,
        zfs: None,
    }
}

/// A sound database of the sample's node.
pub(crate) fn database(data_version: i64) -> DatabaseFacts {
    let version = DatabaseVersion {
        data_version: Some(data_version),
        schema_version: Some(270),
        node_id: Some("02ab".into()),
    };
    DatabaseFacts { network: "bitcoin".into(), state: DatabaseState::Sound(version) }
}

fn node() -> NodeFacts {
    let owned = |mode, size| Owned { uid: 1000, mode, size };
    NodeFacts {
        directory: Standing::Symlink("/srv/lightning/lightning".into()),
        leads_there: true,
        on_mirror: true,
        data: Some(owned(0o700, 0)),
        user: Some(1000),
        nocow: Vec::new(),
        networks: vec![NetworkFacts {
            name: "bitcoin".into(),
            database: Some(owned(0o644, 8 << 20)),
            fault: None,
            secret: Some(owned(0o400, 32)),
        }],
        originals: Vec::new(),
    }
}

/// A healthy mirror: what should be, what is, and what was.
pub(crate) fn healthy() -> (Mirror, Observed, Record) {
    let declared = declared();
    let disk = |n: u64, name: &str| DiskFacts {
        devid: n,
        disks: vec![name.into()],
        usb: (n == 2).then(|| ("2-1".into(), 5000)),
        rotational: Some(false),
        timeout: Some(30),
    };
    let smart = |name: &str| SmartFacts {
        disk: name.into(),
        smart: Seen::Read(Smart::Health(SmartHealth {
            passed: Some(true),
            reallocated: Some(0),
            pending: Some(0),
            uncorrectable: Some(0),
            temperature: Some(35),
            wear: Some(3),
            critical_warning: None,
            erc_read: None,
            ata: None,
            serial: None,
        })),
    };
    let claim = |n: u64, path: &str| Claim {
        path: path.into(),
        devid: n,
        uuid: uuid(n),
        generation: 38,
        filling: false,
        without: Vec::new(),
    };
    let scrub = ScrubRecord {
        started: hours_ago(36),
        ended: Some(hours_ago(35)),
        finished: true,
        cancelled: false,
        scrubbed: Bytes::gib(1),
        corrected: 0,
        uncorrectable: 0,
        unmended_on: None,
    };
    let observed = Observed {
        storage: Seen::Read(state(&declared)),
        claims: Seen::Read(vec![claim(1, "/dev/sdb"), claim(2, "/dev/sdc")]),
        mount: Seen::Read(MountFacts {
            lines: vec![FstabLine {
                line: 4,
                source: format!("UUID={}", declared.uuid),
                mountpoint: declared.mountpoint.clone(),
                options: vec!["defaults".into(), "autodefrag".into(), "nofail".into()],
            }],
            hidden: Vec::new(),
            hidden_count: 0,
            boot: Vec::new(),
        }),
        scrub: Seen::Read(Some(scrub)),
        disks: Seen::Read(vec![disk(1, "sdb"), disk(2, "sdc")]),
        smart: vec![smart("sdb"), smart("sdc")],
        node: Seen::Read(node()),
        processes: Seen::Read(Vec::new()),
        users: Seen::Skipped,
        jobs: Seen::Read(JobFacts { with: Some(Scheduler::Cron), ..JobFacts::default() }),
        databases: Seen::Read(vec![database(120)]),
        channels: Seen::Read(ChannelFacts::default()),
    };
    (declared, observed, record())
}

fn record() -> Record {
    let run = |hours| JobRun {
        started: hours_ago(hours),
        ended: Some(hours_ago(hours)),
        failed: None,
        good: Some(hours_ago(hours)),
    };
    let jobs = [("check", 0), ("deep", 8), ("balance", 12), ("scrub", 35)];
    let entry = LedgerEntry { node_id: Some("02ab".into()), data_version: 118, at: hours_ago(8) };
    Record {
        first_seen: Some(hours_ago(24 * 40)),
        jobs: jobs.into_iter().map(|(job, hours)| (job.to_owned(), run(hours))).collect(),
        ledger: [("bitcoin".to_owned(), entry)].into(),
        databases: Some((hours_ago(8), vec![database(118)])),
        ..Record::default()
    }
}

/// What the kernel tells of a healthy array.
pub(crate) fn array() -> MdState {
    MdState {
        device: "/dev/md127".into(),
        metadata: "1.2".into(),
        state: "clean".into(),
        level: "raid1".into(),
        raid_disks: 2,
        degraded: Some(0),
        action: None,
        progress: None,
        mismatches: Some(0),
        policy: Some("bitmap".into()),
    }
}
