//! Power cuts at random instants under a committing writer: each half alone gives back what was acknowledged, and stays as it was.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use blake3::Hash;
use serde_json::Value;

use crate::{
    halves::{Mirror, find, forget, recover},
    kills::Random,
    sandbox::{Ran, Sandbox, isolated, note},
    store::{Store, hash},
    writer::{Acknowledged, DATABASE, Mode, Writer, files_differ, version_of},
};

const CUTS: usize = 50;
const HALVES: [&str; 2] = ["one", "two"];

/// One half of the mirror at the instant of a cut, and what had been acknowledged just before.
struct Half {
    image: PathBuf,
    acknowledged: Acknowledged,
    /// What was acknowledged just after, and one more may have been on its way.
    after: Acknowledged,
}

impl Half {
    fn name(&self) -> std::path::Display<'_> {
        self.image.strip_prefix(self.image.parent().unwrap()).unwrap().display()
    }
}

/// Lets a writer work on a mirror and cuts it off again and again; it learns nothing of that.
fn cuts(s: &Sandbox, store: &Store, mode: Mode, random: &mut Random) -> Vec<Half> {
    let mirror = Mirror::new(s, store, "raid1", &HALVES);
    let writer = Writer::start(&mirror.node(), mode);
    let mut halves = Vec::new();
    for cut in 1..=CUTS {
        // The filesystem commits now and then; what was acknowledged since is in its log alone.
        if random.below(6) == 0 {
            mirror.commit();
        }
        thread::sleep(Duration::from_micros(random.below(400_000)));
        // Each half is alone later, so each may have an instant of its own.
        for (half, image) in HALVES.iter().zip(mirror.images()) {
            let acknowledged = writer.acknowledged();
            let image = store.clone_of(image, &format!("{}, cut {cut}, half {half}", mode.name()));
            halves.push(Half { image, acknowledged, after: writer.acknowledged() });
        }
    }
    writer.stop();
    halves
}

/// How a way of reading the halves does against what had been acknowledged.
#[derive(Default)]
struct Tally {
    /// By how many commits the older ones were older.
    older: Vec<u64>,
    unreadable: usize,
    changed: usize,
}

impl Tally {
    fn count(&mut self, half: &Half, found: &Result<u64, String>, changed: bool) {
        match found {
            Ok(version) if *version < half.acknowledged.version => {
                self.older.push(half.acknowledged.version - version);
            }
            Ok(_) => {}
            Err(_) => self.unreadable += 1,
        }
        self.changed += usize::from(changed);
    }

    fn says(mut self, way: &str, of: usize) -> String {
        self.older.sort_unstable();
        let by =
            self.older.get(self.older.len() / 2).map_or(String::new(), |m| format!(" (median: {m} commits)"));
        let (older, unreadable, changed) = (self.older.len(), self.unreadable, self.changed);
        format!(
            "{way}: older than acknowledged {older} of {of}{by}, no sound database {unreadable} of {of}, survivor changed {changed} of {of}"
        )
    }
}

/// What an operator would get who mounts a half with these options.
fn plain(s: &Sandbox, store: &Store, half: &Half, before: Hash, options: &str, tally: &mut Tally) {
    let clone = store.clone_of(&half.image, "plain.image");
    let device = s.attach_again(&clone);
    let mount = store.path("plain");
    fs::create_dir_all(&mount).unwrap();
    s.tool("mount", &["-t", "btrfs", "-o", options, device.name(), mount.to_str().unwrap()]);
    let found = version_of(&mount.join("lightning/bitcoin").join(DATABASE));
    s.tool("umount", &[mount.to_str().unwrap()]);
    forget();
    s.tool("blockdev", &["--flushbufs", device.name()]);
    tally.count(half, &found, hash(&clone) != before);
}

/// What a rescue brought out.
enum Rescue {
    /// The acknowledged state, or one commit more that was on its way.
    Newest,
    /// There is a rollback journal: of a commit that was on its way, or of an acknowledged one, come back with the cut. That is said, and
    /// both states are there.
    BothKept,
}

/// What a half gives back, and in how many ways it was not the whole of what was acknowledged.
fn rescue(s: &Sandbox, half: &Half, before: Hash, tally: &mut Tally) -> Result<Rescue, String> {
    let device = s.attach_again(&half.image);
    let to = Path::new("/srv/rescued");
    let ran = recover(s, &[device.name()], "/srv/rescued", &["--all", "--json"]);
    let changed = hash(&half.image) != before;
    let read_only = s.tool("blockdev", &["--getro", device.name()]);
    let judged = judge(half, &ran, to);
    tally.count(half, &judged.as_ref().map(|(version, _)| *version).map_err(Clone::clone), changed);
    let _ = fs::remove_dir_all(to);
    let said = || format!("{}: {}{}", half.name(), ran.stdout, ran.stderr);
    if changed || read_only.trim() != "0" {
        return Err(format!("the survivor was changed ({changed}), or is left read-only; {}", said()));
    }
    judged.map(|(_, rescue)| rescue).map_err(|e| format!("{e}; {}", said()))
}

fn judge(half: &Half, ran: &Ran, to: &Path) -> Result<(u64, Rescue), String> {
    let databases = find(to, DATABASE);
    let [database] = &databases[..] else { return Err(format!("exit code {}, {databases:?}", ran.code)) };
    let version = version_of(database)?;
    let wrong = files_differ(database.parent().unwrap(), &half.acknowledged);
    if !wrong.is_empty() {
        return Err(wrong.join(", "));
    }
    if version > half.after.version + 1 {
        return Err(format!("version {version} was never written"));
    }
    let asked = half.acknowledged.version;
    let said: Value = serde_json::from_str(&ran.stdout).map_err(|e| e.to_string())?;
    match ran.code {
        0 if version >= asked && said["freshness"] == "newest" => Ok((version, Rescue::Newest)),
        4 => kept_both(half, &said, to, database, version).map(|newest| (newest, Rescue::BothKept)),
        code => Err(format!("exit code {code}, version {version}, acknowledged was {asked}")),
    }
}

/// SQLite would roll back what a journal holds, and that may have been acknowledged: both versions are said, and both can be had. The one
/// that is the newest.
fn kept_both(half: &Half, said: &Value, to: &Path, database: &Path, rolled_back: u64) -> Result<u64, String> {
    let told = &said["networks"][0]["database"];
    let (Some(with), Some(without)) = (told["data_version"].as_u64(), told["without_journal"].as_u64())
    else {
        return Err(format!("{told} is said"));
    };
    let report = fs::read_to_string(to.join("RECOVERY.md")).map_err(|e| format!("RECOVERY.md: {e}"))?;
    if said["freshness"] != "unproven" || ![with, without].iter().all(|v| report.contains(&v.to_string())) {
        return Err(format!("{with} and {without} are not both told as unproven: {report}"));
    }
    if rolled_back != with || with + 1 < half.acknowledged.version {
        return Err(format!(
            "{with} is said, {rolled_back} is there, {} was acknowledged",
            half.acknowledged.version
        ));
    }
    if with >= half.acknowledged.version {
        return Ok(with);
    }
    let alone = tempfile::tempdir().unwrap();
    fs::copy(database, alone.path().join(DATABASE)).unwrap();
    let newer = version_of(&alone.path().join(DATABASE))?;
    if newer == without && newer >= half.acknowledged.version {
        Ok(newer)
    } else {
        Err(format!("{newer} without it"))
    }
}

/// Each half of each cut in one mode is rescued, and mounted as an operator might.
fn cut_and_rescue(s: &Sandbox, mode: Mode) {
    let store = Store::new(s);
    let (mut random, seed) = Random::seeded();
    let halves = cuts(s, &store, mode, &mut random);
    let [mut ours, mut old, mut replayed] = [(); 3].map(|()| Tally::default());
    let (mut newest, mut both, mut failed) = (0, 0, Vec::new());
    for half in &halves {
        let before = hash(&half.image);
        plain(s, &store, half, before, "ro,degraded,rescue=nologreplay", &mut old);
        plain(s, &store, half, before, "ro,degraded", &mut replayed);
        match rescue(s, half, before, &mut ours) {
            Ok(Rescue::Newest) => newest += 1,
            Ok(Rescue::BothKept) => both += 1,
            Err(e) => failed.push(e),
        }
    }
    let (all, mode) = (halves.len(), mode.name());
    note(format!(
        "{mode}, seed {seed}: {} of {all} rescues after a power cut gave back what was acknowledged: {newest} proven, {both} with a \
         rollback journal that may have come back, said, and both states kept",
        newest + both
    ));
    note(ours.says("recover", all));
    note(replayed.says("mount -o ro,degraded", all));
    note(old.says("mount -o ro,degraded,rescue=nologreplay", all));
    assert!(failed.is_empty(), "{} of {all} failed:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn what_was_acknowledged_with_a_rollback_journal() {
    isolated("powercut::what_was_acknowledged_with_a_rollback_journal", |s| {
        cut_and_rescue(s, Mode::Rollback)
    });
}

#[test]
fn what_was_acknowledged_with_a_write_ahead_log() {
    isolated("powercut::what_was_acknowledged_with_a_write_ahead_log", |s| cut_and_rescue(s, Mode::Ahead));
}
