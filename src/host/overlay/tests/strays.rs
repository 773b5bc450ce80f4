//! Scratch directories that no record knows.

use super::*;

#[test]
fn scratch_files_that_a_reboot_left_are_removed_and_nothing_else() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::new(dir.path());
    let make = |name: &str, mode: u32| {
        let dir = machine.path("var/tmp").join(name);
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).unwrap();
        fs::write(dir.join("0.qcow2"), "x").unwrap();
        dir
    };
    let (stray, open_to_all) =
        (make("raidguard-rescue-0badcafe", 0o700), make("raidguard-rescue-1badcafe", 0o755));
    let (others, held) = (make("other", 0o700), make("raidguard-rescue-2badcafe", 0o700));
    let lock = stray::hold(&held).unwrap();
    let overlay = open_one(&machine, Choice::Image).unwrap();
    assert!(!stray.exists(), "whoever opens an overlay clears the place");
    fs::create_dir(&stray).unwrap();
    fs::set_permissions(&stray, fs::Permissions::from_mode(0o700)).unwrap();
    let said = clear_leftovers(&machine.host()).unwrap();
    assert_eq!(said, ["removed /var/tmp/raidguard-rescue-0badcafe"]);
    assert!(open_to_all.exists() && others.exists() && held.exists());
    assert_eq!(overlay.state().unwrap().broken, None, "a live one is let alone");
    drop(lock);
    clear_leftovers(&machine.host()).unwrap();
    assert!(!held.exists());
}

#[test]
fn a_directory_for_passing_copies_is_held_and_goes_with_its_copies_when_nobody_does() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::new(dir.path());
    let passing = Passing::make(&machine.host(), Path::new("/var/tmp")).unwrap();
    let path = passing.path().to_owned();
    fs::create_dir(path.join("copy")).unwrap();
    fs::write(path.join("copy/lightningd.sqlite3"), "x").unwrap();
    assert!(path.starts_with(machine.path("var/tmp")));
    clear_leftovers(&machine.host()).unwrap();
    assert!(path.join("copy/lightningd.sqlite3").exists(), "it is in use");
    // As after a SIGKILL.
    let kept = machine.path("var/tmp/kept");
    fs::rename(&path, &kept).unwrap();
    drop(passing);
    fs::rename(&kept, &path).unwrap();
    assert_eq!(clear_leftovers(&machine.host()).unwrap().len(), 1);
    assert!(!path.exists());
    let path = Passing::make(&machine.host(), Path::new("/var/tmp")).unwrap().path().to_owned();
    assert!(!path.exists(), "else it goes by itself");
}
