use super::*;

fn make(path: &Path, rows: i64) {
    let db = Connection::open(path).unwrap();
    db.execute_batch("CREATE TABLE vars(name TEXT, intval INTEGER, blobval BLOB); CREATE TABLE version(version INTEGER); CREATE TABLE p(x BLOB);").unwrap();
    db.execute("INSERT INTO vars VALUES('data_version', ?, NULL)", [rows]).unwrap();
    db.execute("INSERT INTO vars VALUES('node_id', NULL, x'02ff')", []).unwrap();
    db.execute("INSERT INTO version VALUES(270)", []).unwrap();
    for _ in 0..rows {
        db.execute("INSERT INTO p VALUES(randomblob(900))", []).unwrap();
    }
}

#[test]
fn a_sound_one_tells_its_versions_and_stays_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lightningd.sqlite3");
    make(&path, 42);
    let before = fs::read(&path).unwrap();
    let facts = check_on_scratch(&path, &dir.path().join("scratch")).unwrap();
    assert_eq!((facts.data_version, facts.schema_version), (Some(42), Some(270)));
    assert_eq!(facts.node_id.as_deref(), Some("02ff"));
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_write_ahead_log_is_taken_along() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lightningd.sqlite3");
    make(&path, 1);
    let live = Connection::open(&path).unwrap();
    live.execute_batch("PRAGMA journal_mode=WAL; UPDATE vars SET intval = 7;").unwrap();
    let facts = check_on_scratch(&path, &dir.path().join("scratch")).unwrap();
    assert_eq!(facts.data_version, Some(7));
    let sizes = ["lightningd.sqlite3", "lightningd.sqlite3-wal"].map(|n| fs::metadata(dir.path().join(n)));
    assert_eq!(scratch_size(&path), sizes.into_iter().map(|m| m.unwrap().len()).sum::<u64>());
}

#[test]
fn without_a_journal_it_is_checked_where_it_lies_and_nothing_is_left_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["lightningd.sqlite3", "odd %?#name"] {
        let path = dir.path().join(name);
        make(&path, 42);
        Connection::open(&path).unwrap().execute_batch("PRAGMA journal_mode=WAL").unwrap();
        let before = fs::read(&path).unwrap();
        assert_eq!(has_journal(&path), None);
        assert_eq!(judge_in_place(&path, |_| {}).unwrap().data_version, Some(42));
        assert_eq!(fs::read(&path).unwrap(), before);
        fs::remove_file(&path).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

#[test]
fn how_new_one_is_costs_a_copy_only_where_a_journal_is_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lightningd.sqlite3");
    make(&path, 41);
    // No directory can be made there.
    let nowhere = path.join("scratch");
    assert_eq!(version_of_unused(&path, &nowhere).unwrap().data_version, Some(41));
    let live = Connection::open(&path).unwrap();
    live.execute_batch("PRAGMA journal_mode=WAL; UPDATE vars SET intval = 42 WHERE name = 'data_version'")
        .unwrap();
    assert!(!version_of_unused(&path, &nowhere).unwrap_err().is_fault());
    let scratch = dir.path().join("scratch");
    assert_eq!(version_of_unused(&path, &scratch).unwrap().data_version, Some(42));
    assert!(!scratch.exists());
    let empty = dir.path().join("empty");
    fs::write(&empty, "").unwrap();
    assert!(matches!(version_of_unused(&empty, &nowhere), Err(DatabaseError::Empty)));
}

#[test]
fn a_journal_that_came_back_takes_a_commit_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lightningd.sqlite3");
    make(&path, 41);
    let db = Connection::open(&path).unwrap();
    // The journal as it is right before the commit removes it.
    db.execute_batch("PRAGMA journal_mode=PERSIST; BEGIN IMMEDIATE; UPDATE vars SET intval = 42 WHERE name = 'data_version';")
        .unwrap();
    db.cache_flush().unwrap();
    let journal = fs::read(dir.path().join("lightningd.sqlite3-journal")).unwrap();
    db.execute_batch("COMMIT").unwrap();
    drop(db);
    fs::write(dir.path().join("lightningd.sqlite3-journal"), &journal).unwrap();
    assert_eq!(has_journal(&path), Some(Journal::Rollback));
    let scratch = dir.path().join("scratch");
    let with = judge_on_scratch(&path, &scratch, false, |_| {}).unwrap().data_version;
    let without = judge_on_scratch(&path, &scratch, true, |_| {}).unwrap().data_version;
    assert_eq!((with, without), (Some(41), Some(42)));
    assert_eq!(
        fs::read(dir.path().join("lightningd.sqlite3-journal")).unwrap(),
        journal,
        "it lies as it was"
    );
}

#[test]
fn one_of_another_make_is_sound_and_tells_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lightningd.sqlite3");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE vars(name TEXT)").unwrap();
    assert_eq!(judge(&path, |_| {}).unwrap(), DatabaseVersion::default());
}

#[test]
fn a_reference_to_nothing_does_not_pass() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lightningd.sqlite3");
    make(&path, 1);
    let db = Connection::open(&path).unwrap();
    db.execute_batch(
        "CREATE TABLE parent(id INTEGER PRIMARY KEY); CREATE TABLE child(of INTEGER REFERENCES parent(id));
         PRAGMA foreign_keys = OFF; INSERT INTO child VALUES(7);",
    )
    .unwrap();
    drop(db);
    let error = judge(&path, |_| {}).unwrap_err();
    assert!(error.is_fault() && error.to_string().contains("child"), "{error}");
}

#[test]
fn damage_garbage_and_nothing_do_not_pass() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lightningd.sqlite3");
    let check = || check_on_scratch(&path, &dir.path().join("scratch"));
    make(&path, 300);
    let mut bytes = fs::read(&path).unwrap();
    for at in 3..20 {
        bytes[at * 4096..at * 4096 + 64].fill(0xa5);
    }
    fs::write(&path, &bytes).unwrap();
    assert!(check().unwrap_err().is_fault());
    fs::write(&path, "garbage, and enough of it to be no empty file").unwrap();
    assert!(matches!(check(), Err(e @ DatabaseError::Sqlite(_)) if e.is_fault()));
    fs::write(&path, "").unwrap();
    assert!(matches!(check(), Err(DatabaseError::Empty)));
    fs::remove_file(&path).unwrap();
    let absent = check().unwrap_err();
    assert!(matches!(absent, DatabaseError::Scratch(_)) && !absent.is_fault());
}
