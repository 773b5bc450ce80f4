mod judged;

use jiff::Timestamp;

use super::{
    bring::{ascend, no_node},
    decide::{Asked, Versions, newest_of, not_named, pick, stand},
    finish::base_of,
    halted::{interrupted, standing},
    ladder::{Halt, Reached},
    *,
};
use crate::{
    backend::rescue::{Freshness, History, Mended, Relation},
    model::{BackendKind, Bytes, Record, record::LedgerEntry},
    node::{self, Place},
    ui::{
        AgainstLedger, DatabaseReport, MirrorReport, NetworkReport, RecoveryReport, SecretReport, WayReport,
    },
};

pub(in crate::ops) fn survivor(path: &str, devid: u64, generation: u64) -> Survivor {
    Survivor {
        path: path.into(),
        devid,
        uuid: format!("member-{devid}"),
        size: Bytes::gib(30),
        generation,
        changed: None,
        faults: Vec::new(),
        lacks: None,
        opens: true,
        alone: true,
        history: History::default(),
        data: None,
        share: None,
    }
}

fn remains(uuid: &str, survivors: Vec<Survivor>) -> Remains {
    Remains {
        backend: BackendKind::Btrfs,
        uuid: uuid.into(),
        label: "lightning".into(),
        members: 2,
        mirrored: true,
        mounted: None,
        survivors,
        begun: Vec::new(),
    }
}

fn declared(uuid: &str) -> crate::config::Mirror {
    let (mut mirror, ..) = crate::health::samples::healthy();
    mirror.uuid = uuid.to_uppercase();
    mirror
}

fn from(paths: &[&str]) -> Asked {
    Asked { from: paths.iter().map(PathBuf::from).collect() }
}

/// What was picked, or every reason against it.
fn picked(
    asked: &Asked,
    found: &[Remains],
    declared: &[crate::config::Mirror],
) -> Result<Vec<String>, String> {
    match pick(asked, found, declared) {
        Ok(remains) => Ok(remains.survivors.iter().map(|s| s.path.display().to_string()).collect()),
        Err(blockers) => {
            Err(blockers.iter().map(|b| format!("{} [{}]", b.says, b.clears)).collect::<Vec<_>>().join("\n"))
        }
    }
}

#[test]
fn the_only_mirror_is_meant_and_several_are_listed() {
    let one = remains("a", vec![survivor("/dev/sdb", 1, 9), survivor("/dev/sdc", 2, 9)]);
    let other = remains("b", vec![survivor("/dev/sdd", 1, 9)]);
    let plain = Remains { mirrored: false, members: 1, ..remains("c", vec![survivor("/dev/sde", 1, 9)]) };
    let mounted = Remains { mounted: Some(vec!["/srv".into()]), ..other.clone() };
    let any = Asked::default();
    let both = ["/dev/sdb".to_owned(), "/dev/sdc".to_owned()];
    assert_eq!(picked(&any, &[one.clone(), plain.clone()], &[]).unwrap(), both);
    assert_eq!(picked(&any, &[one.clone(), mounted.clone()], &[]).unwrap(), both, "the one that nobody uses");
    let several = picked(&any, &[one.clone(), other.clone()], &[]).unwrap_err();
    assert!(
        several.contains("--from /dev/sdb --from /dev/sdc") && several.contains("--from /dev/sdd"),
        "{several}"
    );
    assert_eq!(picked(&any, &[one.clone(), other.clone()], &[declared("b")]).unwrap(), ["/dev/sdd"]);
    // No single filesystem is ever taken for a mirror; one that is named is.
    let none = picked(&any, std::slice::from_ref(&plain), &[]).unwrap_err();
    assert!(none.contains("no member of a mirror") && none.contains("--from /dev/sde"), "{none}");
    assert_eq!(picked(&from(&["/dev/sde"]), &[one.clone(), plain], &[]).unwrap(), ["/dev/sde"]);
    assert!(picked(&any, &[mounted], &[]).unwrap_err().contains("is mounted at /srv"));
    assert!(picked(&any, &[], &[]).unwrap_err().contains("raidguard devices"));
}

#[test]
fn what_is_named_must_be_of_one_mirror_and_no_clone() {
    let one = remains(
        "a",
        vec![survivor("/dev/sdb", 1, 9), survivor("/dev/sdc", 2, 9), survivor("/dev/sdf", 2, 9)],
    );
    let other = remains("b", vec![survivor("/dev/sdd", 1, 9)]);
    let all = [one, other];
    assert_eq!(picked(&from(&["/dev/sdc"]), &all, &[]).unwrap(), ["/dev/sdc"]);
    assert_eq!(picked(&from(&["/dev/sdb", "/dev/sdb"]), &all, &[]).unwrap(), ["/dev/sdb"]);
    for (asked, says) in [
        (vec!["/dev/sdb", "/dev/sdd"], "belongs to"),
        (vec!["/dev/sdb", "/dev/sdz"], "/dev/sdz holds no member"),
        (vec!["/dev/sdc", "/dev/sdf"], "one is a copy of the other"),
    ] {
        let why = picked(&from(&asked), &all, &[]).unwrap_err();
        assert!(why.contains(says), "{asked:?}: {why}");
    }
}

#[test]
fn of_an_array_only_members_with_data_are_read() {
    let md = |survivors: Vec<Survivor>| Remains { backend: BackendKind::Mdadm, ..remains("a", survivors) };
    let whole = |path, n| Survivor { data: Some(1 << 20..1 << 30), ..survivor(path, n, 9) };
    let filling = || Survivor { faults: vec!["it was being filled".into()], ..survivor("/dev/sdc", 2, 9) };
    let any = Asked::default();
    let both = md(vec![whole("/dev/sdb", 1), filling()]);
    assert_eq!(picked(&any, std::slice::from_ref(&both), &[]).unwrap(), ["/dev/sdb"]);
    let none = picked(&from(&["/dev/sdc"]), &[both], &[]).unwrap_err();
    assert!(none.contains("/dev/sdc: it was being filled") && none.contains("connect another"), "{none}");
    let strange = picked(&any, &[md(vec![survivor("/dev/sdb", 1, 9), filling()])], &[]).unwrap_err();
    assert!(strange.contains("neither a raid1 nor a raid10 of pairs"), "{strange}");
}

#[test]
fn a_pool_that_the_kernel_has_is_not_imported_again() {
    let pool = |places: &[&str]| Remains {
        backend: BackendKind::Zfs,
        mounted: Some(places.iter().map(PathBuf::from).collect()),
        ..remains("4711", vec![survivor("/dev/sdb", 1, 9)])
    };
    let any = Asked::default();
    let mounted = picked(&any, &[pool(&["/srv/lightning"])], &[]).unwrap_err();
    assert!(
        mounted.contains("imported and mounted at /srv/lightning") && mounted.contains("cp -a"),
        "{mounted}"
    );
    let nowhere = picked(&any, &[pool(&[])], &[]).unwrap_err();
    assert!(nowhere.contains("mounted nowhere") && nowhere.contains("zpool export lightning"), "{nowhere}");
}

#[test]
fn a_half_whose_pair_is_gone_is_refused_with_what_is_missing_and_why_another_is_not_read() {
    let picked = Remains { members: 4, ..remains("a", vec![survivor("/dev/sdb", 1, 9)]) };
    let left = [(survivor("/dev/sdc", 3, 5), "it dropped off 4 transactions earlier".to_owned())];
    let Trouble::Refused(blockers) = too_few(&picked, &left, "of the members 3 and 4 neither is there")
    else {
        panic!("it is refused")
    };
    assert!(blockers[0].says.contains("`lightning` (a) cannot be put together: of the members 3 and 4"));
    assert!(blockers[1].says.contains("/dev/sdc (member 3) is not read: it dropped off"), "{blockers:?}");
}

fn stands(survivors: &[Survivor], relation: Relation) -> Standing {
    stand(survivors, &mut |one: &Survivor, other: &Survivor| {
        assert!(one.generation <= other.generation);
        Ok::<_, ()>(relation)
    })
    .unwrap()
}

#[test]
fn a_half_that_lags_is_left_out_and_two_states_are_never_merged() {
    let (old, new) = (survivor("/dev/sdb", 1, 30), survivor("/dev/sdc", 2, 33));
    let both = [old.clone(), new.clone()];
    let Standing::Agreed { used, left } = stands(&both, Relation::Behind(3)) else { panic!("it is told") };
    assert_eq!((&used[..], &left[0].0), (&both[1..], &old));
    assert!(left[0].1.contains("3 transactions"));
    assert!(matches!(stands(&both, Relation::Diverged), Standing::Split { proven: true, .. }));
    assert!(matches!(stands(&both, Relation::Unclear), Standing::Split { proven: false, .. }));
    let even = [survivor("/dev/sdb", 1, 33), new.clone()];
    assert!(matches!(stands(&even, Relation::Same), Standing::Agreed { used, .. } if used.len() == 2));
    assert!(matches!(stands(&even, Relation::OtherLog), Standing::Logs { one } if one.len() == 2));
    // What cannot be opened as it lies is not needed beside one that can.
    let lame = [Survivor { opens: false, ..survivor("/dev/sdb", 1, 33) }, new.clone()];
    for relation in [Relation::Same, Relation::OtherLog] {
        let Standing::Agreed { used, left } = stands(&lame, relation) else { panic!("it is told") };
        assert_eq!((&used[..], left.len()), (&both[1..], 1));
    }
    // Unless the other has not everything.
    let part = |path, opens| Survivor { opens, alone: false, ..survivor(path, 1, 33) };
    let pair = [part("/dev/sdb", false), part("/dev/sdc", true)];
    let Standing::Agreed { used, left } = stands(&pair, Relation::OtherLog) else { panic!("it is told") };
    assert_eq!(
        (used[0].path.to_str(), used.len(), left.len()),
        (Some("/dev/sdc"), 2, 0),
        "the first one leads"
    );
    assert!(matches!(stands(&[new], Relation::Diverged), Standing::Agreed { used, .. } if used.len() == 1));
}

#[test]
fn one_that_was_not_named_may_tell_that_what_is_read_is_not_the_newest() {
    let (old, new) = (survivor("/dev/sdb", 1, 30), survivor("/dev/sdc", 2, 33));
    let told = |used: &Survivor, other: &Survivor, relation: Result<Relation, &'static str>| {
        let mut related = |one: &Survivor, newer: &Survivor| {
            assert!(one.generation <= newer.generation);
            relation
        };
        let others = std::slice::from_ref(other);
        not_named(std::slice::from_ref(used), others, &mut related, |why| (*why).to_owned())
    };
    let [(Freshness::Old, says)] = &told(&old, &new, Ok(Relation::Behind(3)))[..] else {
        panic!("it is older")
    };
    assert!(
        says.contains("/dev/sdc") && says.contains("generation 33") && says.contains("3 transactions"),
        "{says}"
    );
    assert_eq!(told(&new, &old, Ok(Relation::Behind(3))), [], "the one that is read went on");
    assert_eq!(told(&new, &survivor("/dev/sdb", 1, 33), Ok(Relation::Same)), []);
    for (used, other) in [(&old, &new), (&new, &old)] {
        for relation in [Ok(Relation::Diverged), Ok(Relation::Unclear), Ok(Relation::OtherLog), Err("EIO")] {
            let told = told(used, other, relation);
            assert!(
                matches!(&told[..], [(Freshness::Unproven, says)]
                if says.contains(other.path.to_str().unwrap()) && says.contains("generation 3")),
                "{told:?}"
            );
        }
    }
    // Its copy of the superblock does not know what was fsynced; the one that is read does.
    let lame = Survivor { opens: false, ..survivor("/dev/sdb", 1, 33) };
    assert_eq!(told(&new, &lame, Ok(Relation::OtherLog)), []);
    assert_eq!(told(&lame, &new, Ok(Relation::OtherLog)).len(), 1);
}

#[test]
fn the_newest_log_is_that_with_every_newest_database() {
    let state = |versions: &[i64]| -> Versions {
        versions
            .iter()
            .enumerate()
            .map(|(n, v)| (format!("net{n}").into(), Some("02ab".into()), Some(*v)))
            .collect()
    };
    assert_eq!(newest_of(&[state(&[7]), state(&[9])]), Some(1));
    assert_eq!(newest_of(&[state(&[9]), state(&[9])]), Some(0));
    assert_eq!(newest_of(&[state(&[7, 3]), state(&[9, 2])]), None, "each is newer in something");
    assert_eq!(newest_of(&[state(&[7, 3]), state(&[9])]), None);
    assert_eq!(newest_of(&[state(&[]), state(&[])]), None, "nothing tells");
    let mut stranger = state(&[9]);
    stranger[0].1 = Some("03ff".into());
    assert_eq!(newest_of(&[state(&[7]), stranger]), None);
}

/// Which ways were gone, and what came of it, where only `opens` opens.
fn climbed(allow_old: bool, opens: &str) -> (Vec<&'static str>, Result<&'static str, Trouble>) {
    let mut gone = Vec::new();
    let rungs = backend::of(BackendKind::Btrfs).rescue().rungs();
    let ended = ascend(rungs, allow_old, &mut |rung| {
        gone.push(rung.name);
        if rung.name == opens { Ok(()) } else { Err(Halt::Closed("EIO".into())) }
    });
    let ended = ended.map(|((), rung, tried)| {
        assert_eq!(tried.len() + 1, gone.len());
        rung.name
    });
    (gone, ended)
}

#[test]
fn what_loses_least_is_tried_first_and_what_may_be_old_only_when_allowed() {
    assert!(matches!(climbed(false, "degraded"), (gone, Ok("degraded")) if gone == ["degraded"]));
    assert!(matches!(climbed(true, "degraded"), (gone, Ok("degraded")) if gone == ["degraded"]));
    assert!(matches!(climbed(false, "backup-root"), (gone, Ok(_)) if gone == ["degraded", "backup-root"]));
    let (gone, refused) = climbed(false, "no-log");
    let Err(Trouble::Refused(blockers)) = refused else { panic!("it was opened without being asked") };
    assert_eq!(gone, ["degraded", "backup-root"]);
    assert!(blockers[0].clears.contains("--allow-old") && blockers[0].says.contains("EIO"));
    assert!(matches!(climbed(true, "no-log"), (gone, Ok("no-log")) if gone.len() == 3));
    assert!(matches!(climbed(true, "restore"), (gone, Ok("restore")) if gone.len() == 6));
    assert!(matches!(climbed(true, "nothing"), (gone, Err(Trouble::Failed { .. })) if gone.len() == 6));
}

#[test]
fn what_stops_one_way_for_good_stops_all() {
    let rungs = backend::of(BackendKind::Btrfs).rescue().rungs();
    let mut gone = 0;
    let ended = ascend::<()>(rungs, true, &mut |_| {
        gone += 1;
        Err(Halt::Stop(Trouble::refused("the target is full", "make room")))
    });
    assert!(ended.is_err());
    assert_eq!(gone, 1);
    // A node may be in what could not be mounted or read: another way may bring it.
    let mut found = node::Found::default();
    assert!(matches!(no_node(&found, None), Halt::Stop(Trouble::Refused(_))));
    assert!(matches!(no_node(&found, Some("r/a")), Halt::Closed(why) if why.contains("r/a")));
    found.unread.push(("lost".into(), "EIO".into()));
    assert!(matches!(no_node(&found, None), Halt::Closed(why) if why.contains("lost")));
}

#[test]
fn a_layer_that_cannot_be_taken_down_is_said_beside_what_failed() {
    let in_use = || overlay::OverlayError::InUse { what: "/dev/loop7".into() };
    let stopped = || overlay::OverlayError::PoolStopped { name: "raidguard-1".into() };
    let failed =
        || Halt::Stop(Trouble::failed("the target is full", std::io::Error::other("ENOSPC")).hint("--to"));
    for (halt, e, asked, says, until) in [
        (Halt::Closed("EIO".into()), in_use(), false, &["EIO", "/dev/loop7"][..], "until recover runs again"),
        (
            failed(),
            in_use(),
            false,
            &["the target is full", "ENOSPC", "--to", "/dev/loop7"],
            "until recover runs again",
        ),
        (
            Halt::Stop(Trouble::refused("no room", "make some")),
            in_use(),
            false,
            &["no room", "make some"],
            "until recover",
        ),
        (
            failed(),
            stopped(),
            false,
            &["the target is full", "raidguard-1"],
            "until the machine is started anew",
        ),
        (
            Halt::Stop(interrupted()),
            in_use(),
            true,
            &["stopped, as asked", "/dev/loop7"],
            "until recover runs again",
        ),
    ] {
        let trouble = standing(halt, e, asked);
        let problem = trouble.problem();
        let cause = problem.cause.map(ToString::to_string).unwrap_or_default();
        let all = [problem.headline, cause, problem.next.join(" ")].join(" ");
        assert!(says.iter().all(|says| all.contains(says)), "{all}");
        assert!(all.contains(&format!("the survivors stay read-only {until}")), "{all}");
        assert!(all.contains("could not be taken down") && !all.contains("nothing is left of it"), "{all}");
        assert_eq!(trouble.exit(), Exit::Failed);
    }
    // Nor is it forgotten when the operator stops what comes after.
    let proof = |unchanged, says: &str| vec![("/dev/sdb".into(), unchanged, says.to_owned())];
    let said = |proof| Reached { proof, ..reached() }.interrupted().problem().next.join(" ");
    assert!(said(proof(true, "unchanged")).contains("nothing is left of it"));
    let left = said(proof(false, "/dev/sdb stays read-only"));
    assert_eq!(left, "/dev/sdb stays read-only");
}

fn reached() -> Reached {
    Reached {
        generation: Some(33),
        mended: Vec::new(),
        overlay: "QEMU overlay through FUSE".into(),
        proof: Vec::new(),
        complaints: None,
        doubt: None,
    }
}

#[test]
fn a_way_that_leaves_something_out_is_never_the_newest() {
    let rungs = backend::of(BackendKind::Btrfs).rescue().rungs();
    let used = [survivor("/dev/sdb", 1, 33)];
    for rung in rungs {
        let (freshness, doubts) = base_of(&reached(), rung, &used);
        assert_eq!(
            (freshness == Freshness::Newest, doubts.is_empty()),
            (rung.name == "degraded", rung.name == "degraded")
        );
    }
    let [plain, ..] = rungs else { panic!("no rung") };
    // The replay of the log is a transaction of its own.
    assert_eq!(base_of(&Reached { generation: Some(34), ..reached() }, plain, &used).0, Freshness::Newest);
    assert_eq!(base_of(&Reached { generation: Some(32), ..reached() }, plain, &used).0, Freshness::Old);
    for (complete, freshness) in [(true, Freshness::Newest), (false, Freshness::Unproven)] {
        let mended = vec![("/dev/sdb".into(), Mended { says: "written anew".into(), complete })];
        assert_eq!(base_of(&Reached { mended, ..reached() }, plain, &used).0, freshness);
    }
    // What could not be mounted may hold what is newer.
    let complaints = Some("r/a cannot be mounted".to_owned());
    let (freshness, doubts) = base_of(&Reached { complaints, ..reached() }, plain, &used);
    assert!(freshness == Freshness::Unproven && doubts[0].contains("r/a"), "{doubts:?}");
    let doubt = Some((Freshness::Old, "the log was not replayed".to_owned()));
    let doubted = base_of(&Reached { doubt, ..reached() }, plain, &used);
    assert_eq!(doubted, (Freshness::Old, vec!["the log was not replayed".to_owned()]));
}
