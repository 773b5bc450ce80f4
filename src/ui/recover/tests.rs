use super::*;

/// A rescue with something to show in every field.
pub(in crate::ui) fn sample() -> RecoveryReport {
    let at: Timestamp = "2026-11-25T21:00:00Z".parse().unwrap();
    let survivor = SurvivorReport {
        device: "/dev/sdb".into(),
        model: Some("Example Disk".into()),
        serial: Some("E1234".into()),
        size: Bytes::gib(30),
        devid: 1,
        generation: 1234,
        changed: Some(at),
        faults: vec!["the second superblock is gone".into()],
        lacks: None,
        share: 0,
        used: true,
        left_out: None,
        unchanged: Some(true),
        proof: Some("/dev/sdb is unchanged".into()),
    };
    let lagging = SurvivorReport {
        device: "/dev/sdc".into(),
        used: false,
        left_out: Some("it dropped off 3 transactions earlier, and the others went on".into()),
        unchanged: None,
        proof: None,
        ..survivor.clone()
    };
    let database = DatabaseReport {
        fault: None,
        data_version: Some(42),
        schema_version: Some(270),
        node_id: Some("02ab".into()),
        without_journal: Some(43),
        ledger: Some(LedgerReport { data_version: 43, at }),
        against_ledger: AgainstLedger::Older,
        superseded: false,
    };
    let secret = SecretReport { kind: Some(SecretKind::Plain), size: 32, mode: "0400".into(), fault: None };
    RecoveryReport {
        at,
        to: "/root/rescued".into(),
        mirror: MirrorReport {
            backend: BackendKind::Btrfs,
            uuid: "1f624a50-0f62-4fea-8ae9-91647e74e09e".into(),
            label: "lightning".into(),
            name: None,
            members: 2,
        },
        survivors: vec![survivor, lagging],
        overlay: "QEMU overlay through FUSE".into(),
        way: WayReport { name: "no-log", says: "mounted without the log", lacks: Some("30 seconds") },
        tried: vec![TriedReport { way: "degraded", why: "mount failed\nbadly".into() }],
        freshness: Freshness::Old,
        doubts: vec!["it may lack 30 seconds".into()],
        networks: vec![NetworkReport {
            directory: "lightning/bitcoin".into(),
            base: "lightning".into(),
            database: Some(database),
            secret: Some(secret),
            emergency_recover: true,
        }],
        files: vec![
            FileReport { path: "lightning/bitcoin/hsm_secret".into(), size: 32, sha256: Some("ba78".into()) },
            FileReport { path: "odd | name\n".into(), size: 0, sha256: None },
        ],
        unreadable: vec![UnreadableReport {
            path: "lightning/bitcoin/log".into(),
            why: "Input/output error (os error 5)".into(),
            salvaged: Some("damaged/1-log".into()),
            lost: Some(4096),
        }],
        next: vec!["do NOT start a node from these files".into()],
    }
}

#[test]
fn the_page_says_all_of_it() {
    insta::assert_snapshot!(sample().page().unwrap());
}

#[test]
fn on_a_terminal_the_next_step_comes_last() {
    insta::assert_snapshot!(anstream::adapter::strip_str(&sample().text()).to_string());
}

#[test]
fn what_is_read_and_what_is_not_is_shown_before() {
    let report = sample();
    let text = survivors(&report.mirror, &report.survivors);
    insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string());
}

#[test]
fn a_good_one_has_no_word_of_doubt() {
    let mut report = sample();
    report.networks.iter_mut().filter_map(|n| n.database.as_mut()).for_each(|d| {
        (d.without_journal, d.against_ledger) = (None, AgainstLedger::NotOlder);
    });
    (report.freshness, report.doubts, report.unreadable) = (Freshness::Newest, vec![], vec![]);
    report.way.lacks = None;
    let page = report.page().unwrap();
    assert!(page.contains("**This is the newest state"), "{page}");
    assert!(
        !page.contains("speaks against") && !page.contains("could not be read") && !page.contains("lack"),
        "{page}"
    );
}
