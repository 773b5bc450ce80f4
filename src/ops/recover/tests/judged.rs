//! What came out, put into words: how new it is, what speaks against it, and what to do next.

use super::*;
use crate::ui::{FileReport, UnreadableReport};

fn report(database: DatabaseReport) -> RecoveryReport {
    RecoveryReport {
        at: Timestamp::UNIX_EPOCH,
        to: "/root/rescued".into(),
        mirror: MirrorReport {
            backend: BackendKind::Btrfs,
            uuid: "a".into(),
            label: "lightning".into(),
            name: None,
            members: 2,
        },
        survivors: vec![],
        overlay: "image copy".into(),
        way: WayReport { name: "degraded", says: "mounted", lacks: None },
        tried: vec![],
        freshness: Freshness::Newest,
        doubts: vec![],
        networks: vec![NetworkReport {
            directory: "lightning/bitcoin".into(),
            base: "lightning".into(),
            database: Some(database),
            secret: Some(SecretReport {
                kind: Some(node::secret::SecretKind::Plain),
                size: 32,
                mode: "0400".into(),
                fault: None,
            }),
            emergency_recover: true,
        }],
        files: vec![],
        unreadable: vec![],
        next: vec![],
    }
}

fn sound() -> DatabaseReport {
    DatabaseReport {
        fault: None,
        data_version: Some(42),
        schema_version: Some(270),
        node_id: Some("02ab".into()),
        without_journal: None,
        ledger: None,
        against_ledger: AgainstLedger::Unknown,
        superseded: false,
    }
}

fn concluded(database: DatabaseReport) -> RecoveryReport {
    let mut report = report(database);
    outcome::conclude(&mut report, Freshness::Newest, Vec::new());
    report
}

#[test]
fn whatever_speaks_against_it_keeps_the_node_from_being_started() {
    let good = concluded(sound());
    assert!(good.is_good() && good.next.iter().any(|step| step.contains("--lightning-dir=")), "{good:?}");
    let seen = ui::LedgerReport { data_version: 50, at: Timestamp::UNIX_EPOCH };
    for (database, freshness) in [
        (DatabaseReport { fault: Some("a page".into()), ..sound() }, Freshness::Unproven),
        (DatabaseReport { without_journal: Some(43), ..sound() }, Freshness::Unproven),
        (DatabaseReport { against_ledger: AgainstLedger::OtherNode, ..sound() }, Freshness::Unproven),
        (
            DatabaseReport { against_ledger: AgainstLedger::Older, ledger: Some(seen), ..sound() },
            Freshness::Old,
        ),
    ] {
        let report = concluded(database);
        assert_eq!(report.freshness, freshness);
        assert!(!report.is_good() && report.doubts.len() == 1, "{report:?}");
        assert!(
            report.next[0].contains("do NOT start a node")
                && !report.next.join(" ").contains("--lightning-dir="),
            "{report:?}"
        );
        assert!(report.page().unwrap().contains(&report.doubts[0]));
    }
    let with_journal = concluded(DatabaseReport { without_journal: Some(43), ..sound() });
    assert!(with_journal.doubts[0].contains("42") && with_journal.doubts[0].contains("43"));
    let mut holed = report(sound());
    let used = |path: &str, lacks: Option<&str>| SurvivorReport {
        device: path.into(),
        model: None,
        serial: None,
        size: Bytes::gib(30),
        devid: 1,
        generation: 33,
        changed: None,
        faults: Vec::new(),
        lacks: lacks.map(str::to_owned),
        share: 0,
        used: true,
        left_out: None,
        unchanged: Some(true),
        proof: None,
    };
    holed.survivors = vec![used("/dev/1", Some("it lacks sectors")), used("/dev/2", None)];
    outcome::conclude(&mut holed, Freshness::Newest, Vec::new());
    assert!(holed.is_good(), "the other one has it all");
    holed.survivors[1].used = false;
    outcome::conclude(&mut holed, Freshness::Newest, Vec::new());
    assert_eq!(
        (holed.freshness, &*holed.doubts),
        (Freshness::Unproven, &["/dev/1: it lacks sectors".to_owned()][..])
    );
    holed.survivors[1] = SurvivorReport { used: true, share: 1, ..used("/dev/2", None) };
    outcome::conclude(&mut holed, Freshness::Newest, Vec::new());
    assert!(!holed.is_good(), "the other one has it not");
    let mut lame = report(sound());
    lame.networks[0].secret = None;
    outcome::conclude(&mut lame, Freshness::Newest, Vec::new());
    assert!(!lame.is_good());
}

#[test]
fn databases_on_a_copy_are_measured_by_the_ledger_and_by_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut places = Vec::new();
    for (base, version) in [("new", 42), ("old", 40)] {
        let net = dir.path().join(base).join("bitcoin");
        std::fs::create_dir_all(&net).unwrap();
        let db = rusqlite::Connection::open(net.join("lightningd.sqlite3")).unwrap();
        db.execute_batch(&format!(
            "CREATE TABLE vars(name TEXT, intval INTEGER, blobval BLOB); CREATE TABLE version(version INTEGER);
             INSERT INTO vars VALUES('data_version', {version}, NULL), ('node_id', NULL, x'02ab'); INSERT INTO version VALUES(270);"
        ))
        .unwrap();
        places.push(Place { directory: format!("{base}/bitcoin").into(), base: base.into() });
    }
    let mut record = Record::default();
    let entry = |version, id: &str| LedgerEntry {
        node_id: Some(id.into()),
        data_version: version,
        at: Timestamp::UNIX_EPOCH,
    };
    let scratch = dir.path().join("scratch");
    for (known, stands) in [
        (None, AgainstLedger::Unknown),
        (Some(entry(42, "02ab")), AgainstLedger::NotOlder),
        (Some(entry(43, "02ab")), AgainstLedger::Older),
        (Some(entry(1, "03ff")), AgainstLedger::OtherNode),
    ] {
        record.ledger = known.map(|known| ("bitcoin".to_owned(), known)).into_iter().collect();
        let networks = outcome::networks(dir.path(), &places, Some(&record), &scratch, &|_| {}, &|| true);
        let databases: Vec<_> = networks.iter().filter_map(|n| n.database.clone()).collect();
        assert_eq!((databases[0].against_ledger, databases[0].data_version), (stands, Some(42)));
        assert_eq!((databases[0].superseded, databases[1].superseded), (false, true));
    }
    assert!(!scratch.exists());
}

fn unread(path: &str) -> UnreadableReport {
    UnreadableReport { path: path.into(), why: "Input/output error".into(), salvaged: None, lost: None }
}

fn starts(report: &RecoveryReport) -> bool {
    report.next.join(" ").contains("--lightning-dir=")
}

#[test]
fn what_could_not_be_read_of_a_database_is_a_doubt_about_it() {
    let file = |path: &str| FileReport { path: path.into(), size: 4096, sha256: None };
    for (path, freshness) in [
        ("lightning/bitcoin/lightningd.sqlite3-wal", Freshness::Old),
        ("lightning/bitcoin", Freshness::Old),
        ("", Freshness::Old),
        ("lightning/bitcoin/lightningd.sqlite3-journal", Freshness::Unproven),
        ("lightning/bitcoin/lightningd.sqlite3", Freshness::Unproven),
        ("lightning/bitcoin/lightningd.sqlite3-wally", Freshness::Newest),
        ("lightning/regtest", Freshness::Newest),
    ] {
        let mut report = report(sound());
        report.unreadable = vec![unread(path)];
        if path.ends_with("sqlite3") {
            report.networks[0].database = None;
        } else {
            report.files = vec![file("lightning/bitcoin/lightningd.sqlite3")];
        }
        outcome::conclude(&mut report, Freshness::Newest, Vec::new());
        let newest = freshness == Freshness::Newest;
        assert_eq!((report.freshness, report.doubts.len()), (freshness, usize::from(!newest)), "{path}");
        assert_eq!(starts(&report), newest, "{path}: {:?}", report.next);
        assert!(newest || report.doubts[0].contains(path), "{path}: {:?}", report.doubts);
    }
    // A directory that was not read to its end, and what matters of it came out all the same.
    let mut report = report(sound());
    report.unreadable = vec![unread("lightning")];
    report.files = ["", "-wal", "-journal"]
        .map(|end| file(&format!("lightning/bitcoin/lightningd.sqlite3{end}")))
        .to_vec();
    outcome::conclude(&mut report, Freshness::Newest, Vec::new());
    assert_eq!((report.freshness, report.doubts.len()), (Freshness::Newest, 0), "{report:?}");
}

#[test]
fn without_its_secret_no_node_is_to_be_started() {
    let zeroed = SecretReport {
        kind: None,
        size: 32,
        mode: "0400".into(),
        fault: Some("its 32 bytes are all zero".into()),
    };
    for secret in [None, Some(zeroed)] {
        let mut report = report(sound());
        report.networks[0].secret = secret.clone();
        report.unreadable = vec![unread("lightning/bitcoin/hsm_secret")];
        outcome::conclude(&mut report, Freshness::Newest, Vec::new());
        let next = report.next.join(" ");
        assert!(!starts(&report) && report.next[0].contains("do NOT start a node"), "{next}");
        assert!(next.contains("lightning/bitcoin") && next.contains("it would make a new one"), "{next}");
        assert!(!next.contains("with this hsm_secret") && !next.contains("newer state"), "{next}");
        // Nor one beside it, in the same directory.
        let mut whole = self::report(sound()).networks.remove(0);
        whole.directory = "lightning/regtest".into();
        if let Some(database) = &mut whole.database {
            database.node_id = Some("03ff".into());
        }
        report.networks.push(whole.clone());
        outcome::conclude(&mut report, Freshness::Newest, Vec::new());
        assert!(!starts(&report), "{:?}", report.next);
        // Another node may be, and it is still said what the first one lacks.
        report.networks[1].base = "other".into();
        outcome::conclude(&mut report, Freshness::Newest, Vec::new());
        let next = report.next.join(" ");
        assert!(
            next.contains("/files/other to a healthy disk") && next.contains("it would make a new one"),
            "{next}"
        );
    }
    // Where not even a database came out, there is nothing to ask the peers with.
    let mut nothing = report(sound());
    (nothing.networks[0].database, nothing.networks[0].secret) = (None, None);
    outcome::conclude(&mut nothing, Freshness::Newest, Vec::new());
    let next = nothing.next.join(" ");
    assert!(next.contains("emergencyrecover") && !next.contains("with this hsm_secret"), "{next}");
    nothing.networks[0].secret = report(sound()).networks.remove(0).secret;
    outcome::conclude(&mut nothing, Freshness::Newest, Vec::new());
    assert!(nothing.next.join(" ").contains("with this hsm_secret"), "{:?}", nothing.next);
}

#[test]
fn what_a_symlink_leads_to_on_this_machine_is_not_what_came_out() {
    use std::{fs, os::unix::fs::symlink};
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path().join("here");
    fs::create_dir(&here).unwrap();
    fs::write(here.join("hsm_secret"), [7; 32]).unwrap();
    fs::write(here.join("emergency.recover"), [9; 300]).unwrap();
    let table = "CREATE TABLE vars(name TEXT, intval INTEGER, blobval BLOB)";
    rusqlite::Connection::open(here.join("lightningd.sqlite3")).unwrap().execute_batch(table).unwrap();
    let files = dir.path().join("files");
    let place = |name: &str| {
        fs::create_dir_all(files.join(name)).unwrap();
        Place { directory: name.into(), base: name.into() }
    };
    let places = [place("linked"), place("journal")];
    for name in ["lightningd.sqlite3", "hsm_secret", "emergency.recover"] {
        symlink(here.join(name), files.join("linked").join(name)).unwrap();
    }
    // Of one that is a file, what SQLite would take back is not looked for on this machine either.
    fs::copy(here.join("lightningd.sqlite3"), files.join("journal/lightningd.sqlite3")).unwrap();
    symlink(here.join("hsm_secret"), files.join("journal/lightningd.sqlite3-journal")).unwrap();
    let opened = |_: &rusqlite::Connection| panic!("it is opened");
    let networks = outcome::networks(&files, &places, None, &dir.path().join("scratch"), &opened, &|| true);
    let fault = |network: &NetworkReport| network.database.clone().and_then(|d| d.fault).unwrap_or_default();
    let leads = |name: &str| format!("{name} is a symlink to {}", here.join(name).display());
    assert!(fault(&networks[0]).contains(&leads("lightningd.sqlite3")), "{networks:?}");
    assert!(fault(&networks[1]).contains("lightningd.sqlite3-journal is a symlink to"), "{networks:?}");
    let secret = networks[0].secret.clone().unwrap();
    assert!(secret.kind.is_none() && secret.fault.unwrap().contains("it is a symlink to"), "{networks:?}");
    assert!(!networks[0].emergency_recover);
}
