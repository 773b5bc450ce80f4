//! `recover` beside the power cuts: where it may write, which halves it takes, what it refuses, and that it leaves nothing behind.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use crate::{
    halves::{Mirror, Traces, find, forget, recover},
    sandbox::{Loop, Ran, Sandbox, isolated},
    store::{Store, hash},
    trouble::ended,
    writer::{Acknowledged, DATABASE, Mode, Writer, files_differ, version_of},
};

pub(crate) const TO: &str = "/srv/rescued";
/// So many bytes that a copy can be met on its way.
const BIG: usize = 80 << 20;

/// The members of a mirror that was cut off, some of it in the log alone; nothing of it is attached.
pub(crate) struct Cut {
    images: Vec<PathBuf>,
    acknowledged: Acknowledged,
}

/// A member of it that is attached again.
pub(crate) struct Attached {
    device: Loop,
    image: PathBuf,
    before: blake3::Hash,
}

pub(crate) fn cut(s: &Sandbox, store: &Store, level: &str, members: &[&str]) -> Cut {
    let mirror = Mirror::new(s, store, level, members);
    let mut big = fs::File::create(mirror.node().join("big")).unwrap();
    let block: Vec<u8> = (0..1 << 20).map(|i| (i % 251 + 1) as u8).collect();
    (0..BIG >> 20).for_each(|_| big.write_all(&block).unwrap());
    let writer = Writer::start(&mirror.node(), Mode::Rollback);
    let wait = |version| {
        while writer.acknowledged().version < version {
            thread::sleep(Duration::from_millis(2));
        }
    };
    wait(20);
    mirror.commit();
    wait(35);
    let acknowledged = writer.stop();
    // The last journal's end is on the disk too: there is one newest state.
    fs::File::open(mirror.node()).unwrap().sync_all().unwrap();
    let images =
        members.iter().zip(mirror.images()).map(|(n, image)| store.clone_of(image, &format!("{n} cut")));
    Cut { images: images.collect(), acknowledged }
}

impl Cut {
    pub(crate) fn attach(&self, s: &Sandbox, store: &Store, member: usize) -> Attached {
        attach(s, store, &self.images[member])
    }

    /// The same, with other bytes at a place.
    pub(crate) fn attach_with(
        &self,
        s: &Sandbox,
        store: &Store,
        member: usize,
        at: u64,
        bytes: &[u8],
    ) -> Attached {
        let image = store.clone_of(&self.images[member], "damaged");
        fs::OpenOptions::new().write(true).open(&image).unwrap().write_all_at(bytes, at).unwrap();
        attach(s, store, &image)
    }

    /// The same, with a block of `big` that cannot be read.
    pub(crate) fn attach_damaged(&self, s: &Sandbox, store: &Store, member: usize) -> Attached {
        let block: Vec<u8> = (0..4096).map(|i| (i % 251 + 1) as u8).collect();
        let at = crate::check::places_in(&self.images[member], &block)[0];
        self.attach_with(s, store, member, at, &[0x5a; 4096])
    }

    /// Everything that was committed is there, and what to do next.
    #[track_caller]
    pub(crate) fn is_whole(&self, to: &Path) {
        let databases = find(to, DATABASE);
        assert_eq!(databases.len(), 1, "{databases:?}");
        assert_eq!(version_of(&databases[0]), Ok(self.acknowledged.version));
        let dir = databases[0].parent().unwrap();
        assert_eq!(fs::read(dir.join("hsm_secret")).unwrap(), [7; 32]);
        assert_eq!(fs::read(dir.join("emergency.recover")).unwrap(), [9; 300]);
        assert!(to.join("RECOVERY.md").exists());
        if dir.join("big").exists() {
            assert_eq!(files_differ(dir, &self.acknowledged), [] as [String; 0]);
            assert_eq!(fs::metadata(dir.join("big")).unwrap().len(), BIG as u64);
        }
    }
}

/// A clone of it: a detached one is gone.
pub(crate) fn attach(s: &Sandbox, store: &Store, image: &Path) -> Attached {
    let image = store.clone_of(image, &format!("{} attached", image.file_name().unwrap().to_string_lossy()));
    Attached { device: s.attach_again(&image), before: hash(&image), image }
}

impl Attached {
    pub(crate) fn name(&self) -> &str {
        self.device.name()
    }

    #[track_caller]
    pub(crate) fn is_untouched(&self, s: &Sandbox) {
        assert!(hash(&self.image) == self.before, "the survivor was changed");
        assert_eq!(s.tool("blockdev", &["--getro", self.name()]).trim(), "0", "it is left read-only");
    }
}

pub(crate) fn finished(child: Child) -> Ran {
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// It ended without a rescue, and nothing looks like one: no report, and no file under its own name that is not the whole of it.
#[track_caller]
pub(crate) fn nothing_is_presented(to: &Path, ran: &Ran) {
    assert_eq!(find(to, "RECOVERY.md"), [] as [PathBuf; 0], "{}", ran.stderr);
    for name in [DATABASE, "hsm_secret", "big"] {
        assert_eq!(find(to, name), [] as [PathBuf; 0], "{}", ran.stderr);
    }
}

#[test]
fn a_survivor_is_found_or_named_and_read_by_every_kind_of_overlay() {
    isolated("recover::a_survivor_is_found_or_named_and_read_by_every_kind_of_overlay", |s| {
        let store = Store::new(s);
        let cut = cut(s, &store, "raid1", &["one", "two"]);
        for (member, overlay, named) in
            [(0, "auto", true), (1, "auto", false), (0, "fuse", false), (1, "image", true)]
        {
            let half = cut.attach(s, &store, member);
            let traces = Traces::of(s);
            let from = if named { vec![half.name()] } else { vec![] };
            let ran = recover(s, &from, TO, &["--all", "--overlay", overlay]);
            assert_eq!(ran.code, 0, "{overlay}: {}{}", ran.stdout, ran.stderr);
            cut.is_whole(Path::new(TO));
            half.is_untouched(s);
            traces.are_all(s);
            // Nothing is ever written over.
            let again = recover(s, &[half.name()], TO, &[]);
            ended(&again, 3, &[TO, "empty"]);
            cut.is_whole(Path::new(TO));
            fs::remove_dir_all(TO).unwrap();
        }
        // What makes the node, and no more.
        let half = cut.attach(s, &store, 0);
        let ran = recover(s, &[half.name()], TO, &["--json"]);
        assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
        let said: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(
            (&said["freshness"], &said["networks"][0]["secret"]["kind"]),
            (&"newest".into(), &"plain".into())
        );
        let read = |survivor: &&serde_json::Value| survivor["used"] == true && survivor["unchanged"] == true;
        assert_eq!(said["survivors"].as_array().unwrap().iter().filter(read).count(), 1, "{said}");
        let mut sums = Command::new("sha256sum");
        sums.args(["--check", "--quiet", "--strict", "SHA256SUMS"]).current_dir(TO);
        assert!(sums.status().unwrap().success());
        cut.is_whole(Path::new(TO));
        assert_eq!(find(Path::new(TO), "big"), [] as [PathBuf; 0]);
        assert_eq!(find(Path::new(TO), "config").len(), 1);
        let dm = recover(s, &[half.name()], "/srv/other", &["--overlay", "dm"]);
        if !Path::new("/sys/class/misc/device-mapper").exists() {
            ended(&dm, 3, &["device-mapper"]);
            half.is_untouched(s);
        }
    });
}

#[test]
fn where_it_cannot_be_written_to() {
    isolated("recover::where_it_cannot_be_written_to", |s| {
        let store = Store::new(s);
        let cut = cut(s, &store, "raid1", &["one", "two"]);
        let half = cut.attach(s, &store, 0);
        let traces = Traces::of(s);
        let refused = |to: &str, more: &[&str], words: &[&str]| {
            let ran = recover(s, &[half.name()], to, &[&["--all"], more].concat());
            ended(&ran, 3, words);
            nothing_is_presented(Path::new(to), &ran);
            half.is_untouched(s);
            forget();
        };
        let target = "/srv/target";
        fs::create_dir(target).unwrap();
        // A disk that is full, and one that is closed.
        s.tool("mount", &["-t", "tmpfs", "-o", "size=20m", "tmpfs", target]);
        refused("/srv/target/rescued", &[], &["too little room", "are needed", "--to"]);
        s.tool("mount", &["-o", "remount,ro", target]);
        refused("/srv/target/rescued", &[], &["Read-only file system"]);
        s.tool("umount", &[target]);
        // Too little room for what the layer above the survivor takes.
        s.tool("mount", &["-t", "tmpfs", "-o", "size=10m", "tmpfs", target]);
        for overlay in ["fuse", "image"] {
            refused(TO, &["--overlay", overlay, "--scratch", target], &["scratch"]);
        }
        s.tool("umount", &[target]);
        // On the survivor itself, which somebody has mounted.
        let clone = cut.attach(s, &store, 1);
        s.tool("mount", &["-t", "btrfs", "-o", "degraded", clone.name(), target]);
        let to = "/srv/target/lightning/rescued";
        let ran = recover(s, &[clone.name()], to, &[]);
        ended(&ran, 3, &[target]);
        nothing_is_presented(Path::new(to), &ran);
        s.tool("umount", &[target]);
        forget();
        assert_eq!(fs::read_dir(target).unwrap().count(), 0);
        drop(clone);
        traces.are_all(s);
        // And with another place all is well.
        assert_eq!(recover(s, &[half.name()], TO, &["--all"]).code, 0);
        cut.is_whole(Path::new(TO));
    });
}

#[test]
fn which_halves_are_taken_and_which_are_refused() {
    isolated("recover::which_halves_are_taken_and_which_are_refused", |s| {
        let store = Store::new(s);
        let traces = Traces::of(s);
        // None at all.
        let ran = recover(s, &[], TO, &[]);
        ended(&ran, 3, &["no member of a mirror"]);
        nothing_is_presented(Path::new(TO), &ran);
        let nothing = s.disk("nothing", 256 << 20);
        let ran = recover(s, &[nothing.name()], TO, &[]);
        ended(&ran, 3, &[nothing.name()]);
        drop(nothing);
        let ran = recover(s, &["/dev/nowhere"], TO, &[]);
        ended(&ran, 3, &["/dev/nowhere"]);

        // Both, each as it was left.
        let cut = cut(s, &store, "raid1", &["one", "two"]);
        let (one, two) = (cut.attach(s, &store, 0), cut.attach(s, &store, 1));
        for from in [vec![], vec![one.name(), two.name()], vec![two.name()]] {
            let ran = recover(s, &from, TO, &["--all"]);
            assert_eq!(ran.code, 0, "{from:?}: {}{}", ran.stdout, ran.stderr);
            cut.is_whole(Path::new(TO));
            one.is_untouched(s);
            two.is_untouched(s);
            fs::remove_dir_all(TO).unwrap();
        }
        drop((one, two));
        traces.are_all(s);

        // One went on alone; the other is older.
        let newer = gone_on(s, &store, &cut, 0, 3);
        let (one, two) = (newer.attach(s, &store), cut.attach(s, &store, 1));
        let ran = recover(s, &[], TO, &[]);
        assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
        assert_eq!(version_of(&find(Path::new(TO), DATABASE)[0]), Ok(cut.acknowledged.version + 3));
        fs::remove_dir_all(TO).unwrap();
        // Named alone it is read, and called old.
        let ran = recover(s, &[two.name()], TO, &[]);
        assert_eq!(ran.code, 4, "{}{}", ran.stdout, ran.stderr);
        let named = format!("{} (member 1", one.name());
        assert!(
            [&named, "was not named, and is newer", "an OLD state"]
                .iter()
                .all(|says| ran.stdout.contains(*says)),
            "{}",
            ran.stdout
        );
        fs::remove_dir_all(TO).unwrap();
        two.is_untouched(s);
        drop((one, two));

        // Each went on alone: neither is the newest.
        let other = gone_on(s, &store, &cut, 1, 8);
        let (one, two) = (newer.attach(s, &store), other.attach(s, &store));
        for from in [vec![], vec![one.name(), two.name()]] {
            let ran = recover(s, &from, TO, &[]);
            let versions = [3, 8].map(|more| (cut.acknowledged.version + more).to_string());
            ended(&ran, 3, &[one.name(), two.name(), &versions[0], &versions[1], "--from"]);
            nothing_is_presented(Path::new(TO), &ran);
        }
        for (half, more) in [(&one, 3), (&two, 8)] {
            let ran = recover(s, &[half.name()], TO, &[]);
            assert_eq!(ran.code, 4, "{}{}", ran.stdout, ran.stderr);
            let says = ["NOT PROVEN", "was not named"].map(|says| ran.stdout.contains(says));
            assert_eq!(says, [true; 2], "{}", ran.stdout);
            assert_eq!(version_of(&find(Path::new(TO), DATABASE)[0]), Ok(cut.acknowledged.version + more));
            fs::remove_dir_all(TO).unwrap();
        }
        one.is_untouched(s);
        two.is_untouched(s);
    });
}

/// A member that was mounted alone, and on which the node committed so many times more.
struct GoneOn {
    image: PathBuf,
}

fn gone_on(s: &Sandbox, store: &Store, cut: &Cut, member: usize, more: u64) -> GoneOn {
    let image = store.clone_of(&cut.images[member], &format!("member {member} alone"));
    let device = s.tool("losetup", &["--find", "--show", image.to_str().unwrap()]);
    let mount = store.path("mirror");
    s.tool("mount", &["-t", "btrfs", "-o", "degraded", device.trim(), mount.to_str().unwrap()]);
    let path = mount.join("lightning/bitcoin").join(DATABASE);
    let db = rusqlite::Connection::open(path).unwrap();
    let version = cut.acknowledged.version;
    (version + 1..=version + more).for_each(|version| crate::writer::commit(&db, version));
    drop(db);
    s.tool("umount", &[mount.to_str().unwrap()]);
    s.tool("losetup", &["--detach", device.trim()]);
    forget();
    GoneOn { image }
}

impl GoneOn {
    pub(crate) fn attach(&self, s: &Sandbox, store: &Store) -> Attached {
        attach(s, store, &self.image)
    }
}

#[test]
fn one_of_three_is_enough() {
    isolated("recover::one_of_three_is_enough", |s| {
        let store = Store::new(s);
        let cut = cut(s, &store, "raid1c3", &["one", "two", "three"]);
        for member in 0..3 {
            let one = cut.attach(s, &store, member);
            let ran = recover(s, &[], TO, &["--all"]);
            assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
            cut.is_whole(Path::new(TO));
            one.is_untouched(s);
            fs::remove_dir_all(TO).unwrap();
        }
    });
}

/// The mirror of `setup`, with the ledger of its checks; its second member is gone.
#[test]
fn a_declared_mirror_is_measured_by_the_ledger() {
    isolated("recover::a_declared_mirror_is_measured_by_the_ledger", |s| {
        let before = s.tree();
        crate::check::set_up(s);
        fs::create_dir_all("/var/tmp").unwrap();
        let net = "/srv/lightning/lightning/bitcoin";
        let version = |number: u32| {
            let sql = format!("UPDATE vars SET intval = {number} WHERE name = 'data_version'");
            s.tool("sqlite3", &[&format!("{net}/{DATABASE}"), &sql]);
        };
        // A mirror that is whole and mounted needs no rescue, and is read by nobody else.
        let ran = recover(s, &[], "/home/rescued", &[]);
        ended(&ran, 3, &["/srv/lightning", "mounted"]);
        nothing_is_presented(Path::new("/home/rescued"), &ran);
        s.check_is_ok();

        let deep = s.run(&["check", "--deep"]);
        assert_eq!(deep.code, 0, "{}", deep.stdout);
        let away = || {
            s.tool("umount", &["/srv/lightning"]);
            s.tool("losetup", &["--detach", s.two()]);
            forget();
        };
        let image = s.image().to_owned();
        let back = || {
            s.tool("losetup", &[s.two(), image.to_str().unwrap()]);
            s.tool("btrfs", &["device", "scan", s.one(), s.two()]);
            s.tool("mount", &["/srv/lightning"]);
        };
        away();
        // Off a terminal nothing is asked, and nothing is done.
        let asked = s.run(&["recover", "--degraded", "--to", "/home/rescued"]);
        ended(&asked, 3, &["no terminal", "--yes"]);
        assert!(!Path::new("/home/rescued").exists());
        // Anybody but root.
        fs::copy(s.program(), "/run/raidguard-copy").unwrap();
        let args = ["--reuid", "65534", "--regid", "65534", "--clear-groups", "/run/raidguard-copy"];
        let verb = ["recover", "--degraded", "--to", "/home/rescued", "--yes"];
        let mut nobody = Command::new("setpriv");
        nobody.args(args).args(verb).stdin(Stdio::null()).stderr(Stdio::piped());
        ended(&finished(nobody.spawn().unwrap()), 3, &["is not root", "sudo raidguard"]);

        let ran = recover(s, &[], "/home/rescued", &["--all"]);
        assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
        let database = &find(Path::new("/home/rescued"), DATABASE)[0];
        let node = database.ancestors().nth(2).unwrap().to_str().unwrap();
        assert_eq!(crate::contents(s.tree_of(node)), crate::contents(before));
        let report = fs::read_to_string("/home/rescued/RECOVERY.md").unwrap();
        assert!(report.contains("42"), "{report}");
        fs::remove_dir_all("/home/rescued").unwrap();

        // The ledger knows of a newer state than the one that is found.
        back();
        version(50);
        assert_eq!(s.run(&["check", "--deep"]).code, 0);
        version(42);
        away();
        let ran = recover(s, &[], "/home/rescued", &[]);
        assert_eq!(ran.code, 4, "{}{}", ran.stdout, ran.stderr);
        let report = fs::read_to_string("/home/rescued/RECOVERY.md").unwrap();
        for text in [&report, &(ran.stdout + &ran.stderr)] {
            assert!(text.contains("42") && text.contains("50"), "{text}");
        }
        back();
    });
}
