//! A healthy mirror with one thing, or a few, that are not as they should be.

use super::samples::{database, healthy, hours_ago};
use crate::{
    config::Mirror,
    model::{
        Bytes, Observed, Record, Seen,
        mirror::{ChunkKind, ErrorCounts, ProfileUse},
        observed::{DatabaseState, FstabLine, Original, Owned, Smart, SmartHealth, Standing, StrayProcess},
        record::{ChannelFailure, Fault, JobRun, Override},
    },
};

pub(super) type State = (Mirror, Observed, Record);
pub(super) type Change = fn(&mut State);

fn profile(kind: ChunkKind, name: &str, used: u64) -> ProfileUse {
    ProfileUse { kind, profile: name.into(), total: Bytes::mib(32), used: Bytes(used) }
}

macro_rules! storage {
    ($s:ident, $change:expr) => {
        |state: &mut State| {
            let $s = state.1.storage.get_mut().unwrap();
            $change;
        }
    };
}

macro_rules! read {
    ($field:ident, $f:ident, $change:expr) => {
        |state: &mut State| {
            let $f = state.1.$field.get_mut().unwrap();
            $change;
        }
    };
}

fn smart(state: &mut State, disk: usize) -> &mut SmartHealth {
    match state.1.smart[disk].smart.get_mut() {
        Some(Smart::Health(health)) => health,
        other => panic!("{other:?}"),
    }
}

fn failed_run(why: &str) -> JobRun {
    JobRun { started: hours_ago(2), ended: Some(hours_ago(1)), failed: Some(why.into()), good: None }
}

fn run_at(hours: i64) -> JobRun {
    JobRun {
        started: hours_ago(hours),
        ended: Some(hours_ago(hours)),
        failed: None,
        good: Some(hours_ago(hours)),
    }
}

/// So many hours ago a scrub began, and one before it ended in time.
pub(super) fn runs_for(record: &mut Record, hours: i64) {
    let good = Some(hours_ago(hours + 24 * 7));
    let run = JobRun { started: hours_ago(hours), ended: None, failed: None, good };
    record.jobs.insert("scrub".into(), run);
}

fn unmended(scrub: &mut Option<crate::model::observed::ScrubRecord>, on: &[u64]) {
    let scrub = scrub.as_mut().unwrap();
    (scrub.uncorrectable, scrub.unmended_on) = (14, Some(on.to_vec()));
}

#[allow(clippy::too_many_lines, reason = "one table")]
pub(super) fn mirror_states() -> Vec<(&'static str, Change)> {
    vec![
        ("healthy", |_| {}),
        ("not mounted", storage!(s, s.mounted = false)),
        ("not mounted, and its halves parted", |state| {
            state.1.storage.get_mut().unwrap().mounted = false;
            let claims = state.1.claims.get_mut().unwrap();
            let (one, two) = (claims[0].uuid.clone(), claims[1].uuid.clone());
            (claims[0].without, claims[1].without) = (vec![two], vec![one]);
        }),
        (
            "another filesystem there",
            storage!(s, (s.mounted, s.instead) = (false, Some("ext4 from /dev/sda1".into()))),
        ),
        ("mounted elsewhere", storage!(s, (s.mounted, s.also_mounted) = (false, vec!["/mnt".into()]))),
        (
            "no device at all",
            storage!(s, {
                (s.mounted, s.members, s.profiles) = (false, Vec::new(), Vec::new());
            }),
        ),
        (
            "a member missing",
            storage!(
                s,
                (s.members[1].missing, s.members[1].missing_because) =
                    (true, Some("the kernel says so".into()))
            ),
        ),
        (
            "a member pulled, idle",
            storage!(s, {
                let m = &mut s.members[1];
                (m.missing, m.pulled, m.missing_because) =
                    (true, true, Some("its block device is gone".into()));
            }),
        ),
        ("a damaged superblock", storage!(s, s.members[1].damaged = Some("its checksum is wrong".into()))),
        ("a member removed", storage!(s, drop(s.members.pop()))),
        (
            "a member missing, its UUID unreadable",
            storage!(s, (s.members[1].missing, s.members[1].uuid) = (true, None)),
        ),
        ("one of three copies missing", |state| {
            state.0.level = crate::model::Level::Raid1c3;
            let s = state.1.storage.get_mut().unwrap();
            s.profiles.iter_mut().for_each(|p| p.profile = "raid1c3".into());
            s.members[1].missing = true;
        }),
        ("another member", storage!(s, s.members[1].devid = 3)),
        ("another UUID", storage!(s, s.members[1].uuid = Some("x".into()))),
        ("one member more", |state| drop(state.0.member.pop())),
        (
            "a clone attached",
            read!(claims, c, {
                let mut twin = c[1].clone();
                twin.path = "/dev/sdz".into();
                c.push(twin);
            }),
        ),
        (
            "a device that was being filled",
            read!(claims, c, {
                let mut begun = c[1].clone();
                (begun.devid, begun.path, begun.uuid) = (0, "/dev/sdz".into(), "begun".into());
                c.insert(0, begun);
            }),
        ),
        ("data on one member", storage!(s, s.profiles.push(profile(ChunkKind::Data, "single", 1)))),
        (
            "metadata twice on one member",
            storage!(s, s.profiles.push(profile(ChunkKind::Metadata, "dup", 1))),
        ),
        ("an empty single chunk", storage!(s, s.profiles.push(profile(ChunkKind::System, "single", 0)))),
        ("a profile nobody knows", storage!(s, s.profiles.push(profile(ChunkKind::Data, "raid7", 1)))),
        ("fewer copies than declared", |state| state.0.level = crate::model::Level::Raid1c3),
        ("no chunks", storage!(s, s.profiles.clear())),
        (
            "write errors",
            storage!(s, s.members[0].errors = Some(ErrorCounts { write: 1, ..ErrorCounts::default() })),
        ),
        (
            "every kind of error",
            storage!(s, {
                s.members[0].errors =
                    Some(ErrorCounts { write: 1, read: 2, flush: 3, corruption: 4, generation: 5 });
            }),
        ),
        ("errors that were acknowledged", |state| {
            let counted = ErrorCounts { corruption: 4, ..ErrorCounts::default() };
            let member = &mut state.1.storage.get_mut().unwrap().members[0];
            member.errors = Some(counted);
            state.2.acknowledged.insert(member.uuid.clone().unwrap(), counted);
        }),
        ("more errors than were acknowledged", |state| {
            let member = &mut state.1.storage.get_mut().unwrap().members[0];
            member.errors = Some(ErrorCounts { corruption: 9, ..ErrorCounts::default() });
            let known = ErrorCounts { corruption: 4, ..ErrorCounts::default() };
            state.2.acknowledged.insert(member.uuid.clone().unwrap(), known);
        }),
        ("counters that somebody reset", |state| {
            let member = &mut state.1.storage.get_mut().unwrap().members[0];
            member.errors = Some(ErrorCounts { corruption: 2, ..ErrorCounts::default() });
            let known = ErrorCounts { corruption: 4, ..ErrorCounts::default() };
            state.2.acknowledged.insert(member.uuid.clone().unwrap(), known);
        }),
        ("counters unread", storage!(s, s.members[0].errors = None)),
        ("forced read-only", storage!(s, (s.read_only, s.forced_read_only) = (true, true))),
        ("mounted read-only", storage!(s, s.read_only = true)),
        ("one member read-only", storage!(s, s.members[0].writeable = Some(false))),
        ("an old member", storage!(s, s.members[1].generation = Some(36))),
        ("a commit on its way", storage!(s, s.members[1].generation = Some(37))),
        ("degraded", storage!(s, s.degraded_option = true)),
        ("replace", storage!(s, s.exclusive_operation = Some("device replace".into()))),
        ("balance", storage!(s, s.exclusive_operation = Some("balance".into()))),
        ("another filesystem looked at", storage!(s, s.uuid = "x".into())),
        (
            "a member missing, a device unread",
            storage!(s, {
                (s.members[1].missing, s.unread) = (true, vec!["/dev/sdd: I/O error".into()]);
            }),
        ),
        ("both halves on one disk", read!(disks, d, d[1].disks = d[0].disks.clone())),
        ("both halves behind one bridge", read!(disks, d, d[0].usb = Some(("2-1".into(), 5000)))),
        (
            "both halves on one hub",
            read!(disks, d, {
                (d[0].usb, d[1].usb) = (Some(("2-1.1".into(), 5000)), Some(("2-1.2".into(), 5000)));
            }),
        ),
        ("a slow link", read!(disks, d, d[1].usb = Some(("1-1".into(), 480)))),
        ("nearly full", storage!(s, s.free = Some(Bytes::mib(20)))),
        (
            "full",
            storage!(s, {
                s.free = Some(Bytes(0));
                s.members.iter_mut().for_each(|m| m.unallocated = Some(Bytes::mib(1)));
            }),
        ),
        (
            "metadata full",
            storage!(s, {
                s.members.iter_mut().for_each(|m| m.unallocated = Some(Bytes::mib(1)));
                s.profiles[1].used = Bytes::mib(1000);
            }),
        ),
    ]
}

#[allow(clippy::too_many_lines, reason = "one table")]
pub(super) fn upkeep_states() -> Vec<(&'static str, Change)> {
    vec![
        ("never scrubbed", |state| {
            state.1.scrub = Seen::Read(None);
            state.2.jobs.remove("scrub");
        }),
        ("never scrubbed, but new", |state| {
            state.1.scrub = Seen::Read(None);
            state.2.jobs.remove("scrub");
            state.2.first_seen = Some(hours_ago(1));
        }),
        ("a member was away", |state| {
            state.2.away.insert("2".into(), hours_ago(4));
        }),
        ("a member was away, and was scrubbed since", |state| {
            state.2.away.insert("2".into(), hours_ago(4));
            state.2.jobs.insert("scrub".into(), run_at(3));
        }),
        ("scrubbed long ago", |state| {
            let s = state.1.scrub.get_mut().unwrap().as_mut().unwrap();
            (s.started, s.ended) = (hours_ago(24 * 20), Some(hours_ago(24 * 20)));
            state.2.jobs.remove("scrub");
        }),
        (
            "a scrub runs",
            read!(scrub, s, {
                let s = s.as_mut().unwrap();
                (s.ended, s.finished) = (None, false);
            }),
        ),
        ("a scrub runs for more than a day", |state| {
            runs_for(&mut state.2, 36);
            let s = state.1.scrub.get_mut().unwrap().as_mut().unwrap();
            (s.started, s.ended, s.finished) = (hours_ago(36), None, false);
        }),
        ("a scrub runs for more than a month", |state| {
            runs_for(&mut state.2, 24 * 32);
            let s = state.1.scrub.get_mut().unwrap().as_mut().unwrap();
            (s.started, s.ended, s.finished) = (hours_ago(24 * 32), None, false);
        }),
        (
            "a scrub was cancelled",
            read!(scrub, s, {
                let s = s.as_mut().unwrap();
                (s.cancelled, s.finished) = (true, false);
            }),
        ),
        ("a scrub was interrupted", read!(scrub, s, s.as_mut().unwrap().finished = false)),
        ("a scrub mended errors", read!(scrub, s, s.as_mut().unwrap().corrected = 12)),
        ("mended errors were acknowledged", |state| {
            let s = state.1.scrub.get_mut().unwrap().as_mut().unwrap();
            s.corrected = 12;
            state.2.acknowledged_scrub = Some(s.started);
        }),
        ("a scrub could not mend", read!(scrub, s, s.as_mut().unwrap().uncorrectable = 2)),
        ("a scrub could not mend both members", read!(scrub, s, unmended(s, &[1, 2]))),
        ("a scrub could not mend one member", read!(scrub, s, unmended(s, &[2]))),
        ("a scrub could not mend one member, the other is gone", |state| {
            unmended(state.1.scrub.get_mut().unwrap(), &[2]);
            state.1.storage.get_mut().unwrap().members[0].missing = true;
        }),
        ("a scrub could not mend one member, which is gone", |state| {
            unmended(state.1.scrub.get_mut().unwrap(), &[2]);
            state.1.storage.get_mut().unwrap().members[1].missing = true;
        }),
        (
            "a scrub could not mend one member, and was cancelled",
            read!(scrub, s, {
                unmended(s, &[2]);
                s.as_mut().unwrap().cancelled = true;
            }),
        ),
        ("no line in fstab", read!(mount, m, m.lines.clear())),
        ("fstab by device", read!(mount, m, m.lines[0].source = "/dev/sdb".into())),
        (
            "fstab by a link of the UUID",
            read!(mount, m, {
                m.lines[0].source = m.lines[0]
                    .source
                    .replace("UUID=", "/dev/disk/by-uuid/")
                    .to_uppercase()
                    .replace("/DEV/DISK/BY-UUID/", "/dev/disk/by-uuid/");
            }),
        ),
        ("fstab with degraded", read!(mount, m, m.lines[0].options.push("degraded".into()))),
        (
            "fstab says something else",
            read!(mount, m, {
                let other = FstabLine { line: 9, source: "LABEL=other".into(), ..m.lines[0].clone() };
                m.lines.push(other);
            }),
        ),
        ("hidden files", read!(mount, m, (m.hidden, m.hidden_count) = (vec!["lightning".into()], 3))),
        ("jobs missing", read!(jobs, j, j.missing.push("/etc/cron.d/raidguard".into()))),
        ("jobs altered", read!(jobs, j, j.altered.push("/etc/cron.d/raidguard".into()))),
        ("jobs of both", read!(jobs, j, j.surplus.push("/etc/systemd/system/raidguard-check.timer".into()))),
        ("no cron", read!(jobs, j, j.idle.push("no process is called cron or crond".into()))),
        (
            "the distribution scrubs too",
            read!(jobs, j, j.doubled.push("/etc/cron.monthly/btrfs-scrub".into())),
        ),
        ("no drop-in", read!(jobs, j, j.dropin = Some("it is missing".into()))),
        ("no rule of udev", read!(jobs, j, j.rule = Some("it is missing".into()))),
        ("the check did not run", |state| drop(state.2.jobs.insert("check".into(), run_at(5)))),
        ("the check did not run, and the machine was off", |state| {
            state.2.jobs.insert("check".into(), run_at(5));
            state.1.jobs.get_mut().unwrap().booted = Some(hours_ago(1));
        }),
        ("the check has not run since the start", |state| {
            state.2.jobs.insert("check".into(), run_at(5));
            state.1.jobs.get_mut().unwrap().booted = Some(hours_ago(2));
        }),
        ("the databases were not looked at", |state| drop(state.2.jobs.insert("deep".into(), run_at(80)))),
        ("a balance never ran", |state| drop(state.2.jobs.remove("balance"))),
        ("a balance failed", |state| drop(state.2.jobs.insert("balance".into(), failed_run("no space")))),
        ("a disk fails", |state| smart(state, 0).passed = Some(false)),
        ("both disks fail", |state| {
            smart(state, 0).passed = Some(false);
            smart(state, 1).critical_warning = Some(4);
        }),
        ("bad sectors", |state| smart(state, 0).pending = Some(8)),
        ("bad sectors that were acknowledged", |state| {
            smart(state, 0).reallocated = Some(8);
            state.2.acknowledged_sectors.insert("sdb".into(), 8);
        }),
        ("a boot since then has given the disks each other's names", |state| {
            smart(state, 1).reallocated = Some(8);
            (smart(state, 0).serial, smart(state, 1).serial) = (Some("E2".into()), Some("E1".into()));
            state.2.acknowledged_sectors.insert("E1".into(), 8);
        }),
        ("acknowledged by a name that is another disk's now", |state| {
            smart(state, 0).reallocated = Some(8);
            smart(state, 0).serial = Some("E2".into());
            state.2.acknowledged_sectors.insert("sdb".into(), 8);
        }),
        ("two disks that tell one serial number", |state| {
            smart(state, 0).reallocated = Some(8);
            smart(state, 1).reallocated = Some(2);
            (smart(state, 0).serial, smart(state, 1).serial) = (Some("0".into()), Some("0".into()));
            state.2.acknowledged_sectors = [("0".into(), 8), ("sdb".into(), 8)].into();
        }),
        ("a hot disk", |state| smart(state, 1).temperature = Some(63)),
        ("a worn disk", |state| smart(state, 1).wear = Some(97)),
        ("a disk asleep", |state| state.1.smart[0].smart = Seen::Read(Smart::Asleep)),
        ("a disk that says nothing", |state| {
            state.1.smart[1].smart = Seen::Read(Smart::Unsupported("Unknown USB bridge".into()))
        }),
        ("no smartctl", |state| state.1.smart[1].smart = Seen::Read(Smart::NoTool)),
        ("a turning disk without a limit", |state| {
            state.1.disks.get_mut().unwrap()[0].rotational = Some(true)
        }),
        ("a turning disk that is no ATA disk", |state| {
            state.1.disks.get_mut().unwrap()[0].rotational = Some(true);
            smart(state, 0).ata = Some(false);
        }),
        ("a turning disk with a limit", |state| {
            state.1.disks.get_mut().unwrap()[0].rotational = Some(true);
            smart(state, 0).erc_read = Some(70);
        }),
        ("a channel fails", |state| {
            state.2.channels.push(ChannelFailure {
                channel: "webhook".into(),
                error: "connection refused".into(),
                since: hours_ago(3),
                waiting: 2,
            });
        }),
        ("secrets open to all", read!(channels, c, c.secrets = Some("the mode is 0644".into()))),
    ]
}

pub(super) fn node_states() -> Vec<(&'static str, Change)> {
    vec![
        ("the symlink is gone", read!(node, n, (n.directory, n.leads_there) = (Standing::Nothing, false))),
        (
            "the symlink was replaced",
            read!(node, n, (n.directory, n.leads_there) = (Standing::Directory, false)),
        ),
        (
            "the symlink leads elsewhere",
            read!(node, n, (n.directory, n.leads_there) = (Standing::Symlink("/mnt".into()), false)),
        ),
        (
            "a symlink by another way",
            read!(node, n, n.directory = Standing::Symlink("../srv/lightning/lightning".into())),
        ),
        ("a file in its place", read!(node, n, (n.directory, n.leads_there) = (Standing::Other, false))),
        ("data off the mirror", read!(node, n, n.on_mirror = false)),
        ("another owner", read!(node, n, n.data.as_mut().unwrap().uid = 0)),
        ("open to everybody", read!(node, n, n.data.as_mut().unwrap().mode = 0o755)),
        ("files without checksums", read!(node, n, n.nocow.push("/srv/lightning/lightning/bitcoin".into()))),
        (
            "an old original",
            read!(
                node,
                n,
                n.originals.push(Original { path: "/home/o".into(), since: Some(hours_ago(24 * 40)) })
            ),
        ),
        (
            "a fresh original",
            read!(node, n, n.originals.push(Original { path: "/home/o".into(), since: Some(hours_ago(24)) })),
        ),
        ("no database", read!(node, n, n.networks.clear())),
        (
            "an empty database",
            read!(node, n, n.networks[0].database = Some(Owned { uid: 1000, mode: 0o644, size: 0 })),
        ),
        (
            "a database cut short",
            read!(node, n, n.networks[0].fault = Some("it has 8192 bytes and says that it has 12288".into())),
        ),
        ("no secret", read!(node, n, n.networks[0].secret = None)),
        (
            "a secret cut short",
            read!(node, n, n.networks[0].secret = Some(Owned { uid: 1000, mode: 0o400, size: 7 })),
        ),
        (
            "a secret for all",
            read!(node, n, n.networks[0].secret = Some(Owned { uid: 1000, mode: 0o644, size: 32 })),
        ),
        (
            "a stray process",
            read!(
                processes,
                p,
                p.push(StrayProcess { pid: 42, name: "lightningd".into(), holds: "/home/o".into() })
            ),
        ),
        ("another node runs", |state| {
            state.1.users = Seen::Read(vec!["lightningd (pid 7, its lock)".into()]);
        }),
        (
            "a damaged database",
            read!(databases, d, d[0].state = DatabaseState::Faulty("row 7 missing from index x".into())),
        ),
        ("an older database", read!(databases, d, d[0] = database(100))),
        ("another node's database", |state| {
            state.2.ledger.get_mut("bitcoin").unwrap().node_id = Some("03cd".into());
        }),
        ("an older database, seen at the last look", |state| {
            state.1.databases = Seen::Skipped;
            state.2.databases = Some((hours_ago(8), vec![database(7)]));
        }),
        ("a newer database, seen by a start since the last look", |state| {
            state.1.databases = Seen::Skipped;
            state.2.databases = Some((hours_ago(8), vec![database(7)]));
            state.2.ledger.get_mut("bitcoin").unwrap().at = hours_ago(1);
        }),
        ("started against the guard", |state| {
            state.2.overridden = Some(Override {
                at: hours_ago(1),
                reason: "I know better".into(),
                faults: vec![Fault { code: "NODE-OLDER".into(), about: "bitcoin".into() }],
            });
        }),
        ("no node", |state| {
            state.0.node = None;
            (state.1.node, state.1.processes, state.1.databases) =
                (Seen::Skipped, Seen::Skipped, Seen::Skipped);
        }),
    ]
}

pub(super) fn states() -> Vec<(&'static str, Change)> {
    [
        mirror_states(),
        super::md_states::md_states(),
        super::zfs_states::zfs_states(),
        upkeep_states(),
        node_states(),
    ]
    .concat()
}

pub(super) fn changed(change: Change) -> State {
    let mut state = healthy();
    change(&mut state);
    state
}
