//! The copy against trees with everything that a node's directory may hold. Run as root they cover owners too.

use std::{
    fs,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use proptest::prelude::*;

use super::*;
use crate::exec::Interrupt;

struct Trees {
    _dir: tempfile::TempDir,
    source: PathBuf,
    target: PathBuf,
}

fn trees() -> Trees {
    // Beside this program: on a real disk, where /tmp may be none.
    let built = std::env::current_exe().unwrap();
    let dir = tempfile::tempdir_in(built.parent().unwrap()).unwrap();
    let (source, target) = (dir.path().join("source"), dir.path().join("target"));
    fs::create_dir(&source).unwrap();
    fs::create_dir(&target).unwrap();
    Trees { _dir: dir, source, target }
}

fn full() -> Trees {
    let t = trees();
    let at = |name: &str| t.source.join(name);
    fs::write(at("lightningd.sqlite3"), vec![7; 3 * 1024 * 1024 + 5]).unwrap();
    fs::hard_link(at("lightningd.sqlite3"), at("same")).unwrap();
    fs::write(at("hsm_secret"), [1; 32]).unwrap();
    fs::set_permissions(at("hsm_secret"), fs::Permissions::from_mode(0o400)).unwrap();
    fs::create_dir_all(at("a/b c/d\ne")).unwrap();
    fs::write(at("a/b c/d\ne").join(std::ffi::OsStr::from_bytes(b"\xff%41 x")), "odd").unwrap();
    fs::write(at("a/empty"), "").unwrap();
    symlink("../nowhere", at("a/dangling")).unwrap();
    xattr::set(at("a"), "user.note", b"kept").unwrap();
    let sparse = fs::File::create(at("sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    sparse.write_all_at(b"end", (1 << 40) - 3).unwrap();
    UnixListener::bind(at("lightning-rpc")).unwrap();
    let old = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
    let times = fs::FileTimes::new().set_modified(old).set_accessed(old);
    fs::File::open(at("a/b c")).unwrap().set_times(times).unwrap();
    t
}

fn copy(t: &Trees) -> Manifest {
    copy_tree(&t.source, &t.target, &mut |_| {}, &Interrupt::default()).unwrap()
}

fn verify(t: &Trees, manifest: &Manifest) -> Result<(), CopyError> {
    settle(&t.target, manifest, &Proven::default())?;
    verify_tree(&t.target, manifest, &Proven::default(), None, &mut |_| {}, &Interrupt::default())
}

#[test]
fn everything_comes_along_and_is_proven() {
    let t = full();
    let survey = survey(&t.source).unwrap();
    assert_eq!(
        survey.skipped.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["lightning-rpc (a socket)"]
    );
    assert!(survey.bytes < 8 << 20, "holes are not counted: {}", survey.bytes);
    let manifest = copy(&t);
    verify(&t, &manifest).unwrap();
    assert_eq!(manifest.skipped(), survey.skipped);
    assert_eq!(manifest.files(), survey.files);
    let meta = |name: &str| fs::symlink_metadata(t.target.join(name)).unwrap();
    assert_eq!(meta("same").ino(), meta("lightningd.sqlite3").ino());
    assert_eq!(meta("hsm_secret").mode() & 0o7777, 0o400);
    assert_eq!((meta("a/b c").mtime(), meta("a/b c").mtime_nsec()), (1_000_000_000, 123_456_789));
    assert_eq!(xattr::get(t.target.join("a"), "user.note").unwrap().unwrap(), b"kept");
    assert!(meta("sparse").blocks() * 512 < 1 << 20, "still sparse");
    assert_eq!(meta("sparse").len(), 1 << 40);
    assert!(!t.target.join("lightning-rpc").exists());
    assert_eq!(first_difference(&t.source, &manifest).unwrap(), None);
}

#[test]
fn a_record_survives_its_file() {
    let t = full();
    let manifest = copy(&t);
    let path = t.target.with_file_name("record");
    manifest.save(&path).unwrap();
    let loaded = Manifest::load(&path).unwrap();
    assert_eq!((&loaded.entries, loaded.digest()), (&manifest.entries, manifest.digest()));
    fs::write(&path, "{}\n").unwrap();
    assert!(matches!(Manifest::load(&path), Err(CopyError::Manifest { line: 1, .. })));
}

#[test]
fn the_remains_of_an_interrupted_copy_do_no_harm() {
    let t = full();
    let manifest = copy(&t);
    fs::write(t.target.join("left"), "over").unwrap();
    fs::remove_file(t.target.join("same")).unwrap();
    assert_eq!(copy(&t), manifest);
    verify(&t, &manifest).unwrap();
}

type Harm = fn(&Path);

#[test]
fn each_kind_of_harm_to_the_copy_is_found() {
    let harms: [(&str, Harm); 9] = [
        ("content", |d| {
            let file = fs::OpenOptions::new().write(true).open(d.join("lightningd.sqlite3")).unwrap();
            let before = file.metadata().unwrap().modified().unwrap();
            file.write_all_at(b"x", 2_000_000).unwrap();
            file.set_times(fs::FileTimes::new().set_modified(before)).unwrap();
        }),
        ("is new", |d| fs::write(d.join("extra"), "").unwrap()),
        ("is gone", |d| fs::remove_file(d.join("a/empty")).unwrap()),
        ("bytes, not", |d| {
            fs::OpenOptions::new().append(true).open(d.join("sparse")).unwrap().set_len(9).unwrap()
        }),
        ("mode is", |d| {
            fs::set_permissions(d.join("hsm_secret"), fs::Permissions::from_mode(0o440)).unwrap()
        }),
        ("attributes", |d| xattr::set(d.join("a"), "user.note", b"other").unwrap()),
        ("modified", |d| {
            let now = std::time::UNIX_EPOCH + std::time::Duration::from_secs(5);
            fs::File::open(d.join("a")).unwrap().set_times(fs::FileTimes::new().set_modified(now)).unwrap();
        }),
        ("something else", |d| {
            let path = d.join("a/dangling");
            let parent = fs::metadata(d.join("a")).unwrap().modified().unwrap();
            fs::remove_file(&path).unwrap();
            symlink("elsewhere", &path).unwrap();
            fs::File::open(d.join("a"))
                .unwrap()
                .set_times(fs::FileTimes::new().set_modified(parent))
                .unwrap();
        }),
        ("hard links", |d| {
            let (one, two) = (d.join("lightningd.sqlite3"), d.join("same"));
            let root = fs::metadata(d).unwrap().modified().unwrap();
            let time = fs::metadata(&one).unwrap().modified().unwrap();
            fs::remove_file(&two).unwrap();
            fs::copy(&one, &two).unwrap();
            for (path, time) in [(two.as_path(), time), (d, root)] {
                fs::File::open(path).unwrap().set_times(fs::FileTimes::new().set_modified(time)).unwrap();
            }
        }),
    ];
    for (expected, harm) in harms {
        let t = full();
        let manifest = copy(&t);
        harm(&t.target);
        let error = verify(&t, &manifest).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn the_comparison_reads_past_the_page_cache() {
    let t = trees();
    fs::write(t.source.join("big"), vec![3; 32 << 20]).unwrap();
    let manifest = copy(&t);
    let read = || -> u64 {
        let io = fs::read_to_string("/proc/thread-self/io").unwrap();
        io.lines().find_map(|l| l.strip_prefix("read_bytes: ")).unwrap().parse().unwrap()
    };
    fs::read(t.target.join("big")).unwrap();
    let before = read();
    verify(&t, &manifest).unwrap();
    assert!(read() - before >= 32 << 20, "{} bytes came from the device", read() - before);
}

#[test]
fn a_difference_ends_the_comparison_whatever_follows() {
    let t = trees();
    fs::write(t.source.join("a"), "one").unwrap();
    fs::write(t.source.join("b"), vec![3; 40 << 20]).unwrap();
    let manifest = copy(&t);
    let path = t.target.join("a");
    let before = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "two").unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_times(fs::FileTimes::new().set_modified(before)).unwrap();
    let error = verify(&t, &manifest).unwrap_err();
    assert!(matches!(&error, CopyError::Differs { path: p, .. } if *p == path), "{error}");
}

#[test]
fn an_owner_can_be_given_and_is_compared() {
    if !nix::unistd::geteuid().is_root() {
        let t = full();
        assert!(
            is_owned_by(&t.source, nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()).unwrap()
        );
        return;
    }
    let t = full();
    fs::set_permissions(t.source.join("a/empty"), fs::Permissions::from_mode(0o4755)).unwrap();
    let manifest = copy(&t);
    own_tree(&t.target, 1234, 5678).unwrap();
    assert!(is_owned_by(&t.target, 1234, 5678).unwrap());
    verify_tree(
        &t.target,
        &manifest,
        &Proven::default(),
        Some((1234, 5678)),
        &mut |_| {},
        &Interrupt::default(),
    )
    .unwrap();
    assert!(verify(&t, &manifest).unwrap_err().to_string().contains("belongs to 1234:5678"));
}

#[test]
fn ctrl_c_stops_both() {
    let t = full();
    let manifest = copy(&t);
    let interrupt = Interrupt::default();
    interrupt.raise();
    assert!(copy_tree(&t.source, &t.target, &mut |_| {}, &interrupt).unwrap_err().is_interrupted());
    let _ = copy(&t);
    assert!(
        verify_tree(&t.target, &manifest, &Proven::default(), None, &mut |_| {}, &interrupt)
            .unwrap_err()
            .is_interrupted()
    );
}

#[test]
fn a_file_that_grows_meanwhile_is_named() {
    let t = trees();
    let path = t.source.join("log");
    fs::write(&path, vec![1; 8 << 20]).unwrap();
    // The writer works from within the progress call, so that the change surely falls into the copy.
    let file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    let mut buffer = content::Buffer::new();
    let before = fs::metadata(&path).unwrap();
    let read = content::windows(&fs::File::open(&path).unwrap(), 0..before.len(), &mut buffer, |_, _| {
        use std::io::Write as _;
        (&file).write_all(b"more")
    });
    assert!(read.is_ok() && fs::metadata(&path).unwrap().len() > before.len());
    let writer = std::thread::spawn(move || {
        use std::io::Write as _;
        for _ in 0..2000 {
            (&file).write_all(&[2; 512]).unwrap();
            std::thread::sleep(std::time::Duration::from_micros(100));
        }
    });
    let mut changed = false;
    while !writer.is_finished() && !changed {
        changed = matches!(
            copy_tree(&t.source, &t.target, &mut |_| {}, &Interrupt::default()),
            Err(CopyError::Changed(p)) if p == path
        );
    }
    writer.join().unwrap();
    assert!(changed);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_tree_comes_back(
        files in prop::collection::btree_map("[a-z \u{e9}\n%]{1,12}", (prop::collection::vec(any::<u8>(), 0..9000), 0..3u64), 0..8)
    ) {
        let t = trees();
        for (name, (bytes, holes)) in &files {
            let file = fs::File::create(t.source.join(name)).unwrap();
            file.write_all_at(bytes, holes * 700_000).unwrap();
        }
        let manifest = copy(&t);
        verify(&t, &manifest).unwrap();
        for (name, (bytes, holes)) in &files {
            let whole = fs::read(t.target.join(name)).unwrap();
            prop_assert_eq!(&whole, &fs::read(t.source.join(name)).unwrap());
            prop_assert!(whole.ends_with(bytes) || *holes > 0);
        }
    }
}
