//! Members that go and come, on a pool that answers as ZFS does.

use std::path::Path;

use super::pool::{MNT, OLD, POOL, Pool, node};
use crate::{
    backend::{Backend as _, BackendError, Exchange, ExchangeEnd, Members as _, MirrorSpec, zfs::Zfs},
    config::Member,
    exec::{Cmd, Flow},
    health::samples,
    host::{Host, declaration},
    model::{BackendKind, Bytes, Identity, Level},
    plan::{
        Context, Probe, Step as _,
        steps::{Redeclare, WakePool},
    },
};

/// The second member for sdd1.
fn asked() -> Exchange {
    Exchange {
        uuid: POOL.to_string(),
        id: OLD[1],
        new: node("sdd1"),
        partuuid: Some("uuid-sdd1".into()),
        avoid_old: false,
    }
}

fn spec() -> MirrorSpec {
    MirrorSpec {
        backend: BackendKind::Zfs,
        name: "tank".into(),
        pool_name: None,
        level: Level::Mirror,
        uuid: POOL.to_string(),
        filesystem: None,
        pool: None,
        devices: vec![node("sdb1"), node("sdc1")],
        mountpoint: MNT.into(),
    }
}

fn exchange(host: &Host) -> Result<ExchangeEnd, BackendError> {
    Zfs.exchange(host, &asked(), Path::new(MNT), &mut |_| Flow::Continue)
}

fn is_exchanged(host: &Host) -> bool {
    Zfs.is_exchanged(host, &asked()).unwrap()
}

fn retire(host: &Host, old: &str) -> String {
    let cmds = Zfs.retire_commands(host, &asked(), &node(old));
    cmds.iter().map(Cmd::line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_member_that_serves_is_exchanged() {
    let pool = Pool::new();
    let host = pool.host();
    assert!(!is_exchanged(&host));
    assert_eq!(retire(&host, "sdc1"), "", "it is a member");
    let mut seen = Vec::new();
    let end = Zfs.exchange(&host, &asked(), Path::new(MNT), &mut |progress| {
        seen.push((progress.copied, progress.total));
        Flow::Continue
    });
    assert_eq!(end.unwrap(), ExchangeEnd::Done { unreadable: 0 });
    assert_eq!(seen[0], (Some(Bytes(4_000)), Bytes(10_000)));
    assert_eq!(pool.changes(), "zpool replace -- tank 102 /dev/disk/by-partuuid/uuid-sdd1");
    assert_eq!(
        Zfs.exchange_command(&spec(), &asked(), Path::new(MNT)).line(),
        "zpool replace -- tank 102 /dev/disk/by-partuuid/uuid-sdd1",
        "as the plan has shown it"
    );
    assert_eq!(pool.numbers(), [vec![101], vec![201]]);
    assert!(is_exchanged(&host));
    // What ZFS leaves on the old one says still that it is the member.
    assert_eq!(pool.label("sdc1"), Some((102, 0)));
    insta::assert_snapshot!(retire(&host, "sdc1"), @r#"
    blkdiscard --zeroout --offset 0 --length 524288 /dev/sdc1
    blkdiscard --zeroout --offset 133693440 --length 524288 /dev/sdc1
    "#);
    assert_eq!(retire(&host, "sdd1"), "", "the new one");
    assert_eq!(retire(&host, "sdb1"), "", "another member");
    // A pool that is not imported tells it too.
    pool.export();
    assert!(is_exchanged(&host));
}

#[test]
fn what_is_done_already_is_not_done_twice() {
    let pool = Pool::new();
    let host = pool.host();
    // The process that began it was killed.
    let killed = Zfs.exchange(&host, &asked(), Path::new(MNT), &mut |_| {
        pool.sim().wishes.fail_at = Some(pool.calls() + 100);
        Flow::Continue
    });
    killed.unwrap();
    let before = pool.changes();
    assert_eq!(exchange(&host).unwrap(), ExchangeEnd::Done { unreadable: 0 });
    assert_eq!(pool.changes(), before);
}

#[test]
fn one_that_another_run_began_is_waited_for() {
    let pool = Pool::new();
    let host = pool.host();
    host.runner().run(&Cmd::change("zpool").args(["replace", "--", "tank", "102", "/dev/sdd1"])).unwrap();
    assert!(!is_exchanged(&host));
    assert_eq!(exchange(&host).unwrap(), ExchangeEnd::Done { unreadable: 0 });
    assert_eq!(pool.changes(), "zpool replace -- tank 102 /dev/sdd1");
    // Of another device it is not ours.
    let pool = Pool::new();
    let host = pool.host();
    pool.plug("sde1");
    host.runner().run(&Cmd::change("zpool").args(["replace", "--", "tank", "102", "/dev/sde1"])).unwrap();
    let why = exchange(&host).unwrap_err().to_string();
    assert!(why.contains("another device is taking its place: /dev/disk/by-partuuid/uuid-sde1"), "{why}");
    Zfs.give_up_exchange(&host, &asked(), None).unwrap();
    assert_eq!(pool.numbers(), [vec![101], vec![102, 201]], "it is left alone");
}

#[test]
fn the_place_of_one_that_is_gone_is_filled() {
    let pool = Pool::new();
    let host = pool.host();
    pool.pull("sdc1");
    assert_eq!(exchange(&host).unwrap(), ExchangeEnd::Done { unreadable: 0 });
    assert_eq!(pool.numbers(), [vec![101], vec![201]]);
    assert_eq!(retire(&host, "sdc1"), "");
    // It comes back: it is no member any more, whatever it says.
    pool.plug("sdc1");
    crate::host::zfs::tests::write_label(
        &pool.path("/dev/sdc1"),
        128 << 20,
        &Pool::described(&Pool::new().sim(), 102, 11),
    );
    assert!(is_exchanged(&host));
    assert_ne!(retire(&host, "sdc1"), "");
}

#[test]
fn stopped_in_the_middle_it_is_taken_back() {
    let pool = Pool::new();
    let host = pool.host();
    let stop = || Zfs.exchange(&host, &asked(), Path::new(MNT), &mut |_| Flow::Stop).unwrap();
    assert_eq!(stop(), ExchangeEnd::Stopped);
    insta::assert_snapshot!(pool.changes(), @r#"
    zpool replace -- tank 102 /dev/disk/by-partuuid/uuid-sdd1
    zpool detach -- tank 201
    blkdiscard --zeroout --offset 0 --length 524288 /dev/sdd1
    blkdiscard --zeroout --offset 133693440 --length 524288 /dev/sdd1
    "#);
    assert_eq!((pool.numbers(), pool.label("sdd1")), (vec![vec![101], vec![102]], None));
    Zfs.give_up_exchange(&host, &asked(), None).unwrap();
    // The old one is gone meanwhile: nothing but what it was is given up.
    pool.pull("sdc1");
    assert_eq!(stop(), ExchangeEnd::Stopped);
    assert_eq!((pool.numbers(), pool.label("sdd1")), (vec![vec![101], vec![102]], None));
    // At its end it is waited for: the new one must not be taken out when the old one is.
    pool.sim().wishes.halt = Some(9_950);
    let mut looks = 0;
    let end = Zfs.exchange(&host, &asked(), Path::new(MNT), &mut |progress| {
        looks += 1;
        if progress.copied == Some(Bytes(9_950)) {
            pool.sim().wishes.halt = None;
            return Flow::Stop;
        }
        Flow::Continue
    });
    assert_eq!((end.unwrap(), is_exchanged(&host)), (ExchangeEnd::Done { unreadable: 0 }, true));
    assert!(looks > 1);
}

#[test]
fn a_pool_that_is_not_imported_is_imported_to_take_it_back() {
    let pool = Pool::new();
    let host = pool.host();
    host.runner().run(&Cmd::change("zpool").args(["replace", "--", "tank", "102", "/dev/sdd1"])).unwrap();
    pool.export();
    assert!(!is_exchanged(&host));
    Zfs.give_up_exchange(&host, &asked(), None).unwrap();
    insta::assert_snapshot!(pool.changes(), @r#"
    zpool replace -- tank 102 /dev/sdd1
    zpool import -N -o cachefile=/etc/zfs/zpool.cache -d /dev/disk/by-partuuid -- 77
    zpool detach -- tank 201
    blkdiscard --zeroout --offset 0 --length 524288 /dev/sdd1
    blkdiscard --zeroout --offset 133693440 --length 524288 /dev/sdd1
    "#);
    assert_eq!((pool.numbers(), pool.label("sdd1")), (vec![vec![101], vec![102]], None));
}

#[test]
fn whatever_fails_it_can_be_put_back_and_done_again() {
    let whole = Pool::new();
    exchange(&whole.host()).unwrap();
    for call in 0..whole.calls() {
        let pool = Pool::new();
        let host = pool.host();
        pool.sim().wishes.fail_at = Some(call);
        let end = exchange(&host);
        if end.is_err() && !is_exchanged(&host) {
            Zfs.give_up_exchange(&host, &asked(), None).unwrap();
            assert_eq!(pool.numbers(), [vec![101], vec![102]], "call {call}");
            assert_eq!(pool.label("sdd1"), None, "call {call}");
            assert_eq!(pool.label("sdc1").map(|(guid, _)| guid), Some(102));
        }
        assert_eq!(exchange(&host).unwrap(), ExchangeEnd::Done { unreadable: 0 }, "call {call}");
        assert!(is_exchanged(&host));
    }
    // And what fails while it is put back is put back by the next try.
    let pool = Pool::new();
    let host = pool.host();
    Zfs.exchange(&host, &asked(), Path::new(MNT), &mut |_| Flow::Stop).unwrap();
    for call in 0..pool.calls() {
        let pool = Pool::new();
        let host = pool.host();
        pool.sim().wishes.fail_at = Some(call);
        if Zfs.exchange(&host, &asked(), Path::new(MNT), &mut |_| Flow::Stop).is_err() {
            Zfs.give_up_exchange(&host, &asked(), None).unwrap();
        }
        // It may have been done before it could be stopped.
        if is_exchanged(&host) {
            assert_eq!(pool.numbers(), [vec![101], vec![201]], "call {call}");
            continue;
        }
        assert_eq!((pool.numbers(), pool.label("sdd1")), (vec![vec![101], vec![102]], None), "call {call}");
    }
}

#[test]
fn a_device_that_was_of_this_pool_once_is_cleared_first() {
    let pool = Pool::new();
    let host = pool.host();
    let stale = Pool::described(&pool.sim(), 55, 3);
    crate::host::zfs::tests::write_label(&pool.path("/dev/sdd1"), 128 << 20, &stale);
    assert!(!is_exchanged(&host), "it says that it is of the pool, and the pool does not");
    exchange(&host).unwrap();
    insta::assert_snapshot!(pool.changes(), @r#"
    blkdiscard --zeroout --offset 0 --length 524288 /dev/sdd1
    blkdiscard --zeroout --offset 133693440 --length 524288 /dev/sdd1
    zpool replace -- tank 102 /dev/disk/by-partuuid/uuid-sdd1
    "#);
}

#[test]
fn a_new_device_that_fails_is_no_member() {
    let pool = Pool::new();
    let host = pool.host();
    let end = Zfs.exchange(&host, &asked(), Path::new(MNT), &mut |_| {
        pool.sim().members[1][1].state = "FAULTED";
        Flow::Continue
    });
    let why = end.unwrap_err();
    assert!(matches!(&why, BackendError::NewDevice { device, .. } if *device == node("sdd1")), "{why}");
    assert_eq!(why.to_string(), "the new device /dev/sdd1 fails: ZFS calls it FAULTED");
    // It is gone altogether: nothing on it can be cleared.
    pool.pull("sdd1");
    Zfs.give_up_exchange(&host, &asked(), None).unwrap();
    assert_eq!(pool.numbers(), [vec![101], vec![102]]);
}

#[test]
fn what_could_not_be_read_is_told() {
    // The old one may have it still: it stays.
    let pool = Pool::new();
    let host = pool.host();
    pool.sim().wishes.errors = 3;
    let why = exchange(&host).unwrap_err().to_string();
    assert!(why.starts_with("3 blocks could not be read from any member, so ZFS keeps the old one"), "{why}");
    Zfs.give_up_exchange(&host, &asked(), None).unwrap();
    assert_eq!(pool.numbers(), [vec![101], vec![102]]);
    // It is gone: nobody has it, and the new one has all the rest.
    pool.pull("sdc1");
    assert_eq!(exchange(&host).unwrap(), ExchangeEnd::Done { unreadable: 3 });
    assert_eq!(pool.numbers(), [vec![101], vec![202]]);
}

#[test]
fn a_pool_that_has_stopped_is_told_to_go_on() {
    let pool = Pool::new();
    let host = pool.host();
    pool.write("/proc/spl/kstat/zfs/tank/state", "SUSPENDED\n");
    let before = pool.calls();
    assert!(exchange(&host).unwrap_err().to_string().contains("zpool clear tank"));
    assert!(Zfs.give_up_exchange(&host, &asked(), None).is_ok(), "nothing was begun");
    assert_eq!(pool.calls(), before, "nothing is asked of it that would wait");
    Zfs.wake(&host, &spec()).unwrap();
    assert_eq!(pool.changes(), "zpool clear -- tank");
    assert_eq!(Zfs.waking(&spec()).unwrap().line(), "zpool clear -- tank");
    Zfs.wake(&host, &spec()).unwrap();
    assert_eq!(pool.changes(), "zpool clear -- tank", "one that goes on is left alone");
    pool.write("/proc/spl/kstat/zfs/tank/state", "SUSPENDED\n");
    pool.sim().wishes.stays = true;
    assert!(Zfs.wake(&host, &spec()).unwrap_err().to_string().contains("has stopped"));
}

/// The second member, on its own device.
fn away() -> Exchange {
    Exchange { new: node("sdc1"), partuuid: None, ..asked() }
}

fn back(host: &Host) -> Result<ExchangeEnd, BackendError> {
    Zfs.take_back(host, &away(), &mut |_| Flow::Continue)
}

#[test]
fn a_member_that_was_away_comes_back() {
    for state in ["REMOVED", "OFFLINE", "UNAVAIL", "FAULTED"] {
        let pool = Pool::new();
        let host = pool.host();
        assert!(Zfs.is_returned(&host, &away()).unwrap());
        pool.sim().members[1][0].state = state;
        assert!(!Zfs.is_returned(&host, &away()).unwrap());
        assert_eq!(back(&host).unwrap(), ExchangeEnd::Done { unreadable: 0 }, "{state}");
        assert_eq!(pool.changes(), "zpool online -- tank 102\nzpool clear -- tank 102");
        assert!(Zfs.is_returned(&host, &away()).unwrap());
        assert_eq!((pool.numbers(), pool.label("sdc1").unwrap().0), (vec![vec![101], vec![102]], 102));
    }
    let lines = Zfs.return_commands(&spec(), &away());
    assert_eq!(
        lines.iter().map(Cmd::line).collect::<Vec<_>>(),
        ["zpool online -- tank 102", "zpool clear -- tank 102"]
    );
}

#[test]
fn what_does_not_come_back_is_told() {
    let pool = Pool::new();
    let host = pool.host();
    (pool.sim().members[1][0].state, pool.sim().wishes.stays) = ("FAULTED", true);
    let why = back(&host).unwrap_err().to_string();
    assert_eq!(why, "/dev/sdc1 does not serve: ZFS calls it FAULTED");
    // Another device than the member is not taken for it, and nothing is forgotten.
    let before = pool.changes();
    let other = Exchange { new: node("sdd1"), ..away() };
    let why = Zfs.take_back(&host, &other, &mut |_| Flow::Continue).unwrap_err().to_string();
    assert_eq!(why, "/dev/sdd1 does not say that it is member 102");
    assert_eq!(pool.changes(), before);
    // Stopped, the kernel goes on.
    pool.sim().wishes.stays = false;
    assert_eq!(Zfs.take_back(&host, &away(), &mut |_| Flow::Stop).unwrap(), ExchangeEnd::Stopped);
    assert_eq!(back(&host).unwrap(), ExchangeEnd::Done { unreadable: 0 });
}

#[test]
fn what_lies_on_which_member_and_how_much_room_it_takes() {
    let pool = Pool::new();
    let host = pool.host();
    let layout = Zfs.layout(&host, &node("sdb1")).unwrap();
    assert_eq!(layout.size_of(102), layout.size_of(101));
    assert_eq!(
        layout.size_of(102),
        Some(Bytes(Bytes::mib(112).0 + (9 << 19))),
        "seven metaslabs and what ZFS keeps"
    );
    assert_eq!(layout.lost_without(&[101]).count(), 0);
    assert_eq!(layout.lost_without(&[101, 102]).count(), 1);
    // One that is being filled does not hold everything.
    host.runner().run(&Cmd::change("zpool").args(["replace", "--", "tank", "102", "/dev/sdd1"])).unwrap();
    let layout = Zfs.layout(&host, &node("sdb1")).unwrap();
    assert_eq!(layout.lost_without(&[101, 102]).count(), 1);
    assert!(Zfs.layout(&host, &node("sde1")).is_err());
}

#[test]
fn of_a_half_that_is_given_up_only_its_labels_are_cleared() {
    let half = Identity {
        path: node("sdc1"),
        dev: None,
        size: Bytes::mib(128),
        model: None,
        serial: None,
        wwn: None,
        partuuid: None,
    };
    let lines = |cmds: Vec<Cmd>| cmds.iter().map(Cmd::line).collect::<Vec<_>>().join("\n");
    let shown = lines(Zfs.discarding(&spec(), &half));
    insta::assert_snapshot!(shown, @r#"
    blkdiscard --zeroout --offset 0 --length 524288 /dev/sdc1
    blkdiscard --zeroout --offset 133693440 --length 524288 /dev/sdc1
    "#);
    let pool = Pool::new();
    assert_eq!(
        lines(Zfs.discard_commands(&pool.host(), &spec(), &half).unwrap()),
        shown,
        "the pool is not destroyed"
    );
}

#[test]
fn a_new_member_is_declared_by_the_number_that_it_got() {
    let pool = Pool::new();
    let host = pool.host();
    let member = |guid: u64| Member {
        id: guid.to_string(),
        uuid: guid.to_string(),
        model: None,
        serial: None,
        size: Bytes::mib(128),
    };
    let mut mirror = samples::declared();
    (mirror.backend, mirror.level, mirror.uuid) = (BackendKind::Zfs, Level::Mirror, POOL.to_string());
    mirror.schedule = None;
    mirror.member = OLD.map(member).to_vec();
    std::fs::create_dir_all(pool.path("/etc")).unwrap();
    declaration::add(&host, &mirror).unwrap();
    let declared = || -> Vec<String> {
        declaration::load(&host).unwrap().mirror[0].member.iter().map(|m| m.id.clone()).collect()
    };
    let step = Redeclare {
        mirror: mirror.name.clone(),
        before: member(102),
        after: Member { id: String::new(), uuid: String::new(), ..member(0) },
        spec: Some(spec()),
        device: Some(node("sdd1")),
    };
    assert_eq!(step.says(), "declare the new member (128 MiB) in /etc/raidguard/raidguard.toml");
    assert!(step.probe(&host).is_err(), "it is no member yet");
    exchange(&host).unwrap();
    assert_eq!(step.probe(&host).unwrap(), Probe::Pending);
    step.apply(&mut Context { host: &host, watch: &mut () }).unwrap();
    assert_eq!((step.probe(&host).unwrap(), declared()), (Probe::Done, vec!["101".into(), "201".into()]));
    step.undo(&mut Context { host: &host, watch: &mut () }).unwrap();
    assert_eq!(declared(), ["101", "102"]);
    step.undo(&mut Context { host: &host, watch: &mut () }).unwrap();
    assert_eq!(declared(), ["101", "102"]);
}

#[test]
fn the_step_that_has_it_go_on_looks_whether_it_has_stopped() {
    let pool = Pool::new();
    let host = pool.host();
    let step = WakePool { spec: spec() };
    assert_eq!(step.probe(&host).unwrap(), Probe::Done);
    pool.write("/proc/spl/kstat/zfs/tank/state", "SUSPENDED\n");
    assert_eq!(step.probe(&host).unwrap(), Probe::Pending);
    step.apply(&mut Context { host: &host, watch: &mut () }).unwrap();
    assert_eq!(step.probe(&host).unwrap(), Probe::Done);
    assert_eq!(step.commands(), [pool.changes()]);
}
