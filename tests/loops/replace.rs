//! `replace` on real mirrors. Each exchange ends in the same proof: the other old member is taken away too, and the new device alone
//! holds every file.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};

use crate::{
    check::{faults, finds, places, set_up},
    node::{Ended, ask, command, commits_past, committed, started},
    sandbox::{Ran, Sandbox, isolated, note, plain},
};

const NODE: &str = "/home/bitcoin/.lightning";
pub(crate) const MIRROR: &str = "/srv/lightning";
pub(crate) const GIB: u64 = 1 << 30;

pub(crate) type Tree = BTreeMap<PathBuf, String>;

pub(crate) fn replaced(s: &Sandbox, args: &[&str]) -> Ran {
    let ran = s.run(&[&["replace"], args, &["--yes"]].concat());
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    ran
}

#[track_caller]
pub(crate) fn refused(s: &Sandbox, args: &[&str], words: &[&str]) {
    let ran = s.run(&[&["replace"], args, &["--yes"]].concat());
    assert_eq!(ran.code, 3, "{args:?}: {}{}", ran.stdout, ran.stderr);
    assert!(words.iter().all(|w| ran.stderr.contains(w)), "{words:?} in {}", ran.stderr);
}

pub(crate) fn uuid(s: &Sandbox) -> String {
    let text = fs::read_to_string("/etc/raidguard/raidguard.toml").unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix("uuid = ")).unwrap().trim_matches('"').to_owned();
    assert!(s.mounts().lines().count() > 0);
    line
}

/// Everything is at the level, on members that are there, mounted as it should be, and check agrees.
#[track_caller]
pub(crate) fn is_whole(s: &Sandbox, level: &str) {
    let kinds = format!("/sys/fs/btrfs/{}/allocation", uuid(s));
    for kind in ["data", "metadata", "system"] {
        for entry in fs::read_dir(format!("{kinds}/{kind}")).unwrap().map(|e| e.unwrap().path()) {
            let name = entry.file_name().unwrap().to_str().unwrap().to_owned();
            let total = fs::read_to_string(entry.join("total_bytes")).unwrap_or_default();
            assert!(!entry.is_dir() || name == level || total.trim() == "0", "{kind} {name}: {total}");
        }
    }
    let mounts = s.mounts();
    let ours: Vec<_> = mounts.lines().filter(|l| l.contains(" - btrfs ")).collect();
    let private: Vec<_> = ours.iter().filter(|l| l.contains("/run/raidguard")).collect();
    assert!(private.is_empty(), "{private:?}");
    let here: Vec<_> = ours.iter().filter(|l| l.contains(&format!(" {MIRROR} "))).collect();
    assert!(here.len() == 1 && !here[0].contains("degraded"), "{here:?}");
    s.check_is_ok();
}

/// The other old members are taken away too: what is left alone holds every file.
#[track_caller]
pub(crate) fn alone(s: &Sandbox, left: &[&str], others: &[&str], tree: &Tree) {
    s.tool("umount", &[MIRROR]);
    others.iter().for_each(|other| drop(s.tool("losetup", &["--detach", other])));
    s.tool("btrfs", &["device", "scan", "--forget"]);
    let options = left.iter().fold("degraded".to_owned(), |all, d| format!("{all},device={d}"));
    s.tool("mount", &["-t", "btrfs", "-o", &options, left[0], MIRROR]);
    assert!(s.tree() == *tree, "a file is missing or another");
    s.tool("umount", &[MIRROR]);
}

/// A member goes while nothing is mounted.
pub(crate) fn lose(s: &Sandbox, device: &str) {
    s.tool("umount", &[MIRROR]);
    s.tool("losetup", &["--detach", device]);
    s.tool("btrfs", &["device", "scan", "--forget"]);
}

/// A member is pulled from the running mirror: its device has no size any more.
pub(crate) fn pull(s: &Sandbox) {
    fs::OpenOptions::new().write(true).open(s.image()).unwrap().set_len(0).unwrap();
    s.tool("losetup", &["--set-capacity", s.two()]);
}

pub(crate) fn filled(name: &str, size: usize) {
    fs::write(format!("{NODE}/{name}"), vec![7; size]).unwrap();
    sync();
}

pub(crate) fn sync() {
    let dir = fs::File::open(MIRROR).unwrap();
    nix::unistd::syncfs(dir).unwrap();
}

#[test]
fn a_working_member_makes_place_for_a_larger_device() {
    isolated("replace::a_working_member_makes_place_for_a_larger_device", |s| {
        set_up(s);
        let (small, new) = (s.disk("small", GIB), s.disk("new", 3 * GIB));
        let devices = || s.devices();
        let before = devices();
        refused(s, &["--new", new.name()], &["no member is missing", "--old"]);
        refused(s, &["--old", "2", "--new", small.name()], &["(2147483648 bytes) are needed", small.name()]);
        refused(s, &["--old", "7", "--new", new.name()], &["`7` is no member"]);
        refused(s, &["--old", "2", "--new", s.one()], &["member 1 of this very mirror"]);
        refused(s, &["--old", "2", "--new", "/dev/null"], &["is not a block device"]);
        s.tool("mkfs.ext4", &["-q", new.name()]);
        refused(s, &["--old", "2", "--new", new.name()], &["is not empty: ext4", "--wipe"]);
        let place = s.scratch().join("place");
        fs::create_dir(&place).unwrap();
        s.tool("mount", &[new.name(), place.to_str().unwrap()]);
        refused(s, &["--old", "2", "--new", new.name(), "--wipe"], &["is mounted at"]);
        s.tool("umount", &[place.to_str().unwrap()]);
        s.tool("wipefs", &["-qa", new.name()]);
        s.tool("blkdiscard", &["-f", new.name()]);
        assert!(devices() == before, "a refusal wrote something");
        s.tool("mkfs.ext4", &["-q", new.name()]);

        let tree = s.tree();
        let args = ["replace", "--old", s.two(), "--new", new.name(), "--wipe"];
        let unsure = s.run(&args);
        assert_eq!(unsure.code, 3, "{}", unsure.stderr);
        assert!(unsure.stderr.contains("--yes") && unsure.stderr.contains("ext4"), "{}", unsure.stderr);
        let dry = s.run(&[&args[..], &["--dry-run"]].concat());
        assert_eq!(dry.code, 0, "{}", dry.stderr);
        let planned: Vec<_> =
            dry.stdout.lines().filter_map(|l| l.trim_start().strip_prefix("$ ")).map(plain).collect();
        let real = s.run(&[&["-v"], &args[..], &["--yes"]].concat());
        assert_eq!(real.code, 0, "{}", real.stderr);
        let logged: Vec<_> =
            real.stderr.lines().filter_map(|l| l.split_once("run: ")).map(|(_, c)| plain(c)).collect();
        // Nothing was at another level.
        let planned: Vec<_> = planned.into_iter().filter(|c| !c.contains("convert=")).collect();
        assert_eq!(logged, planned);
        is_whole(s, "raid1");
        let usage = s.tool("btrfs", &["filesystem", "show", "--raw", MIRROR]);
        assert!(usage.contains(&format!("devid    2 size {} ", 3 * GIB)), "it was grown: {usage}");
        let declared = fs::read_to_string("/etc/raidguard/raidguard.toml").unwrap();
        assert!(declared.contains(&format!("size = {}", 3 * GIB)), "{declared}");
        assert!(s.run(&["devices"]).stdout.contains(s.two()));
        assert_eq!(s.tree(), tree);
        alone(s, &[new.name()], &[s.one()], &tree);
    });
}

#[test]
fn a_member_is_gone_and_the_mirror_cannot_be_mounted_without_degraded() {
    isolated("replace::a_member_is_gone_and_the_mirror_cannot_be_mounted_without_degraded", |s| {
        set_up(s);
        let two = s.two().to_owned();
        lose(s, &two);
        // Somebody has written to the half that is left: what is new exists once.
        s.tool("mount", &["-o", "degraded", s.one(), MIRROR]);
        filled("written while degraded", 300 << 20);
        let tree = s.tree();
        s.tool("umount", &[MIRROR]);
        let new = s.disk("new", 2 * GIB);
        let ran = replaced(s, &["--new", new.name()]);
        assert!(ran.stderr.contains("where no node looks"), "{}", ran.stderr);
        is_whole(s, "raid1");
        assert_eq!(s.tree(), tree);
        alone(s, &[new.name()], &[s.one()], &tree);
    });
}

#[test]
fn a_member_is_gone_and_what_is_left_is_mounted() {
    isolated("replace::a_member_is_gone_and_what_is_left_is_mounted", |s| {
        set_up(s);
        let two = s.two().to_owned();
        lose(s, &two);
        s.tool("mount", &["-o", "degraded", s.one(), MIRROR]);
        filled("written while degraded", 1 << 20);
        let tree = s.tree();
        let new = s.disk("new", 2 * GIB);
        replaced(s, &["--old", "missing", "--new", new.name()]);
        is_whole(s, "raid1");
        alone(s, &[new.name()], &[s.one()], &tree);
    });
}

/// Newer kernels do not begin then: that is foretold, leaves everything as it is, and room helps.
#[test]
fn too_full_for_an_exchange_is_foretold_and_costs_nothing() {
    isolated("replace::too_full_for_an_exchange_is_foretold_and_costs_nothing", |s| {
        set_up(s);
        let big = format!("{MIRROR}/big");
        s.tool("fallocate", &["-l", "1300M", &big]);
        s.tool("btrfs", &["filesystem", "sync", MIRROR]);
        let tree = s.tree();
        let new = s.disk("new", 2 * GIB);
        let args = ["--old", "1", "--new", new.name()];
        let planned = s.run(&[&["replace"], &args[..], &["--dry-run"]].concat());
        let shown = format!("{}{}", planned.stdout, planned.stderr);
        assert!(planned.code == 0 && shown.contains("in no chunk"), "{shown}");
        let ran = s.run(&[&["replace"], &args[..], &["--yes"]].concat());
        note(format!("with a mirror that full, replace ended with {}", ran.code));
        if ran.code != 0 {
            assert!(ran.stderr.contains("it is a member still"), "{}", ran.stderr);
            assert!(ran.stderr.contains("raidguard balance"), "{}", ran.stderr);
            let (code, found) = faults(s, &[]);
            assert!(code == 1 && found == ["SPC-UNALLOCATED".to_owned()].into(), "{found:?}");
            assert_eq!(s.tree(), tree);
            fs::remove_file(&big).unwrap();
            s.tool("btrfs", &["balance", "start", "-dusage=5", MIRROR]);
            let ran = replaced(s, &args);
            assert!(!ran.stderr.contains("in no chunk"), "{}", ran.stderr);
        }
        is_whole(s, "raid1");
    });
}

#[test]
fn a_member_is_pulled_from_the_running_mirror() {
    isolated("replace::a_member_is_pulled_from_the_running_mirror", |s| {
        set_up(s);
        let kept = s.scratch().join("kept");
        s.tool("cp", &["--sparse=always", s.image().to_str().unwrap(), kept.to_str().unwrap()]);
        pull(s);
        filled("written to one half", 1 << 20);
        let tree = s.tree();
        let (_, codes) = faults(s, &[]);
        assert!(codes.contains("MIR-PULLED"), "{codes:?}");
        // The kernel would say that it has mended everything.
        let scrub = s.run(&["scrub"]);
        assert!(
            scrub.code == 1 && scrub.stdout.contains("ended before everything was read"),
            "{}",
            scrub.stdout
        );
        let new = s.disk("new", 2 * GIB);
        // While its old state is back under another name it is not exchanged: two would say that they are it.
        let back = s.attach_again(&kept);
        refused(s, &["--new", new.name()], &["its device is back", back.name(), "raidguard repair"]);
        drop(back);
        replaced(s, &["--new", new.name()]);
        is_whole(s, "raid1");
        alone(s, &[new.name()], &[s.one()], &tree);
    });
}

#[test]
fn a_member_that_cannot_be_read_is_exchanged() {
    isolated("replace::a_member_that_cannot_be_read_is_exchanged", |s| {
        set_up(s);
        let pattern = [b'Q'; 4096];
        fs::write(format!("{NODE}/rotten on one"), pattern.repeat(2048)).unwrap();
        sync();
        let tree = s.tree();
        let hit = places(s.image(), &pattern);
        assert_eq!(hit.len(), 2048);
        hit.iter().for_each(|at| s.write(*at, &[1; 4096]));
        // Some of it answers with wrong data, all behind that with an error.
        let cut = hit.iter().max().unwrap() - 4096;
        fs::OpenOptions::new().write(true).open(s.image()).unwrap().set_len(cut).unwrap();
        fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
        let new = s.disk("new", 2 * GIB);
        replaced(s, &["--old", s.two(), "--new", new.name()]);
        is_whole(s, "raid1");
        alone(s, &[new.name()], &[s.one()], &tree);
    });
}

#[test]
fn one_of_three_copies_is_exchanged() {
    isolated("replace::one_of_three_copies_is_exchanged", |s| {
        let third = s.disk("third", 2 * GIB);
        let args = crate::setup(s, &["--device", third.name(), "--level", "raid1c3"]);
        let done = s.run(&args);
        assert_eq!(done.code, 0, "{}", done.stderr);
        let tree = s.tree();
        let two = s.two().to_owned();
        lose(s, &two);
        s.tool("losetup", &["--detach", third.name()]);
        let new = s.disk("new", 2 * GIB);
        // Two are gone, and this is one of them: done, but not whole.
        refused(s, &["--new", new.name()], &["2 members are missing", "--old"]);
        let ran = s.run(&["replace", "--old", "2", "--new", new.name(), "--yes"]);
        assert_eq!(ran.code, 4, "{}", ran.stderr);
        assert!(ran.stderr.contains("not full"), "{}", ran.stderr);
        let newer = s.disk("newer", 2 * GIB);
        replaced(s, &["--new", newer.name()]);
        is_whole(s, "raid1c3");
        alone(s, &[newer.name()], &[s.one(), new.name()], &tree);
    });
}

#[test]
fn what_lies_on_the_missing_member_alone_is_not_written_off() {
    isolated("replace::what_lies_on_the_missing_member_alone_is_not_written_off", |s| {
        set_up(s);
        let new = s.disk("new", 2 * GIB);
        let one = s.one().to_owned();
        lose(s, &one);
        s.tool("mount", &["-o", "degraded", s.two(), MIRROR]);
        filled("on one member only", 300 << 20);
        finds(s, &[], 2, &["MIR-MISSING", "MIR-DEGRADED-OPTION", "MIR-PROFILE"]);
        let two = s.two().to_owned();
        lose(s, &two);
        s.tool("losetup", &[&one, s.images()[0].to_str().unwrap()]);
        // Member 1 knows nothing of it: it is old state, and raidguard has seen newer.
        refused(s, &["--new", new.name()], &["what is here is old", "on a member that is not here"]);
        s.tool("losetup", &[&two, s.image().to_str().unwrap()]);
        s.tool("btrfs", &["device", "scan", &one, &two]);
        s.tool("mount", &[MIRROR]);
        filled("written to both", 1 << 20);
        lose(s, &two);
        refused(s, &["--new", new.name()], &["that are gone", "plug the missing member in again"]);
        assert_eq!(Command::new("mount").arg(MIRROR).output().unwrap().status.code(), Some(32));
    });
}

/// What the database says of itself once nobody uses it.
fn data_version() -> i64 {
    let db = rusqlite::Connection::open(format!("{NODE}/bitcoin/lightningd.sqlite3")).unwrap();
    db.query_row("SELECT intval FROM vars WHERE name = 'data_version'", [], |row| row.get(0)).unwrap()
}

#[test]
fn a_node_is_stopped_for_it_or_left_running_and_no_commit_is_lost() {
    isolated("replace::a_node_is_stopped_for_it_or_left_running_and_no_commit_is_lost", |s| {
        let _ended: Ended = started(s, &[]);
        let (stop, start) = (command(s, " --stop"), command(s, " --daemon"));
        let mut args = crate::setup(s, &[]);
        args.retain(|a| *a != "--no-node");
        args.extend(["--node-stop", &stop, "--node-start", &start]);
        let done = s.run(&args);
        assert_eq!(done.code, 0, "{}", done.stderr);
        commits_past(committed());

        let new = s.disk("new", 2 * GIB);
        let before = committed();
        let ran = replaced(s, &["--old", "2", "--new", new.name()]);
        assert!(
            ran.stderr.contains("stop the node") && ran.stderr.contains("start the node"),
            "{}",
            ran.stderr
        );
        let stopped = committed();
        assert!(stopped >= before, "{stopped} after {before}");
        commits_past(stopped);

        let newer = s.disk("newer", 2 * GIB);
        let before = committed();
        let ran = replaced(s, &["--old", "1", "--new", newer.name(), "--online"]);
        assert!(!ran.stderr.contains("stop the node"), "{}", ran.stderr);
        let online = committed();
        assert!(online > before, "the node went on meanwhile: {online} after {before}");
        is_whole(s, "raid1");
        assert!(ask(s, NODE, &["--stop"]));
        let last = committed();
        assert!(data_version() >= last, "{} of {last}", data_version());
        let tree = s.tree();
        alone(s, &[newer.name()], &[new.name()], &tree);
        note(format!(
            "data_version {before} before and {last} after exchanges of both members: none was lost"
        ));
    });
}
