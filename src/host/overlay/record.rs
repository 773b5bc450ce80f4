//! The durable record of a rescue: every object is written down before it is made, so that a later run can take down what a killed one
//! left. The record's directory is locked for as long as its run lives; the kernel releases the lock with the process, however that ends.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Instant,
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use serde::{Deserialize, Serialize};

use super::{Kind, OverlayError};
use crate::host::{
    Host, dying,
    files::{self, Doing as _},
    proc_stat, random_uuid,
};

/// Where the records lie, one directory a rescue.
pub const RESCUE_DIR: &str = "/run/raidguard/rescue";
/// A record's name in its directory.
const RECORD: &str = "record.json";
const SCHEMA: u32 = 1;

/// Something that a rescue made or changed, with what it takes to put it back. They are undone last first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "object", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Object {
    /// A survivor that is read-only meanwhile.
    Frozen {
        device: PathBuf,
        /// The kernel's name, as in `/sys/class/block`.
        kname: String,
        /// The kernel's running number of the disk (5.15 on): another disk may have taken the name.
        sequence: Option<u64>,
        was_read_only: bool,
    },
    /// The private directory for scratch files.
    Directory { path: PathBuf },
    /// A scratch file.
    File { path: PathBuf },
    /// A `qemu-storage-daemon`, known by the pid file in its arguments, and the files on which its exports are mounted.
    Daemon { pidfile: PathBuf, exports: Vec<PathBuf> },
    /// The loop device whose backing file this is.
    Loop { backing: PathBuf },
    /// A snapshot of device-mapper.
    Snapshot { name: String },
    /// A device of device-mapper that puts shares together.
    Joined { name: String },
    /// A pool of ZFS that is imported from the devices under this name.
    Pool { name: String },
}

/// What is on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    schema: u32,
    pub(super) pid: u32,
    /// When that process began, in clock ticks since boot (proc_pid_stat(5), field 22): for people, the lock decides.
    pub(super) started: Option<u64>,
    pub(super) kind: Kind,
    pub(super) objects: Vec<Object>,
}

/// A record that this process holds the lock of.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) id: String,
    pub(super) record: Record,
    _lock: Flock<File>,
}

/// Held by whoever makes records or clears them.
#[derive(Debug)]
pub(super) struct Alone(#[allow(dead_code, reason = "released with the value")] Flock<File>);

/// Waits until nobody else makes or clears records.
pub(super) fn alone(host: &Host) -> Result<Alone, OverlayError> {
    let all = host.path(RESCUE_DIR);
    files::create_dirs(&all, 0o700)?;
    lock(&all, FlockArg::LockExclusive).map(Alone)
}

impl Keeper {
    /// A new record, of survivors that are about to be made read-only.
    ///
    /// # Errors
    /// Another record has one of them.
    pub(super) fn new(
        host: &Host,
        _alone: &Alone,
        kind: Kind,
        survivors: Vec<Object>,
    ) -> Result<Self, OverlayError> {
        refuse_taken(host, &survivors)?;
        let uuid = random_uuid().doing("reading", "/proc/sys/kernel/random/uuid")?;
        let id = uuid.split('-').next().unwrap_or(&uuid).to_owned();
        let dir = host.path(RESCUE_DIR).join(&id);
        files::create_dirs(&dir, 0o700)?;
        let pid = std::process::id();
        let record = Record { schema: SCHEMA, pid, started: started(host, pid), kind, objects: survivors };
        let keeper = Self { id, record, _lock: lock(&dir, FlockArg::LockExclusiveNonblock)? };
        if let Err(e) = keeper.save(host) {
            let _ = remove(&dir);
            return Err(e);
        }
        Ok(keeper)
    }

    /// The record's directory, as the machine knows it.
    pub(super) fn dir(&self) -> PathBuf {
        Path::new(RESCUE_DIR).join(&self.id)
    }

    /// Writes down what is made next.
    pub(super) fn note(&mut self, host: &Host, object: Object) -> Result<(), OverlayError> {
        self.record.objects.push(object);
        self.save(host)
    }

    fn save(&self, host: &Host) -> Result<(), OverlayError> {
        save(host, &self.dir(), &self.record)
    }

    /// Strikes what was undone: the last one.
    pub(super) fn strike(&mut self, host: &Host) -> Result<(), OverlayError> {
        self.record.objects.pop();
        self.save(host)
    }

    /// Removes the record of a rescue of which nothing is left.
    pub(super) fn forget(&self, host: &Host) -> Result<(), OverlayError> {
        remove(&host.path(self.dir()))
    }
}

/// The records whose runs are dead; one that was killed, and is not gone yet, is waited for. Those of live runs are left out.
pub(super) fn dead(host: &Host, _alone: &Alone) -> Result<Vec<Result<Keeper, OverlayError>>, OverlayError> {
    let began = Instant::now();
    let mut found = Vec::new();
    for id in ids(host)? {
        let dir = host.path(RESCUE_DIR).join(&id);
        let Some(held) = held(host, &id, &dir, began)? else { continue };
        match load(host, &id) {
            Ok(Some(record)) => found.push(Ok(Keeper { id, record, _lock: held })),
            // Killed before the first word was written: nothing was made.
            Ok(None) => remove(&dir)?,
            Err(e) => found.push(Err(e)),
        }
    }
    Ok(found)
}

/// The lock of a record whose run is dead; nothing where it lives.
fn held(host: &Host, id: &str, dir: &Path, began: Instant) -> Result<Option<Flock<File>>, OverlayError> {
    let mut file = match File::open(dir) {
        // It has ended in order meanwhile.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.doing("opening", dir)?,
    };
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => return Ok(Some(held)),
            Err((again, Errno::EWOULDBLOCK)) => file = again,
            Err((_, e)) => return Err(io::Error::from(e)).doing("locking", dir).map_err(Into::into),
        }
        let pid = load(host, id).ok().flatten().map(|record| record.pid);
        if !pid.is_some_and(|pid| dying::wait_for(host, pid, began)) {
            return Ok(None);
        }
    }
}

fn ids(host: &Host) -> Result<Vec<String>, OverlayError> {
    let all = host.path(RESCUE_DIR);
    let entries = fs::read_dir(&all).doing("reading", &all)?;
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    Ok(entries.map(name).collect::<io::Result<_>>().doing("reading", &all)?)
}

fn load(host: &Host, id: &str) -> Result<Option<Record>, OverlayError> {
    let path = Path::new(RESCUE_DIR).join(id).join(RECORD);
    let Some(text) = host.read_optional(&path).doing("reading", &path)? else { return Ok(None) };
    parse(&text).map(Some).ok_or(OverlayError::Record { path })
}

fn parse(text: &str) -> Option<Record> {
    serde_json::from_str(text).ok().filter(|r: &Record| r.schema == SCHEMA)
}

fn refuse_taken(host: &Host, survivors: &[Object]) -> Result<(), OverlayError> {
    let names = |objects: &[Object]| -> Vec<(String, PathBuf)> {
        let named = objects.iter().filter_map(|object| match object {
            Object::Frozen { kname, device, .. } => Some((kname.clone(), device.clone())),
            _ => None,
        });
        named.collect()
    };
    let mut seen = names(survivors);
    for id in ids(host)? {
        // One that ends meanwhile takes its record along.
        let Some(record) = load(host, &id)? else { continue };
        let theirs = names(&record.objects);
        if let Some((_, device)) = seen.iter().find(|(kname, _)| theirs.iter().any(|(k, _)| k == kname)) {
            return Err(OverlayError::Taken { device: device.clone(), pid: record.pid });
        }
    }
    while let Some((kname, device)) = seen.pop() {
        if seen.iter().any(|(other, _)| *other == kname) {
            return Err(OverlayError::Device { device, why: "it is named twice".to_owned() });
        }
    }
    Ok(())
}

/// Removes a record's directory: only files and empty directories, nothing below them, because a filesystem may be mounted there. The
/// record goes last.
fn remove(dir: &Path) -> Result<(), OverlayError> {
    for entry in fs::read_dir(dir).doing("reading", dir)? {
        let entry = entry.doing("reading", dir)?;
        let (path, kind) = (entry.path(), entry.file_type().doing("reading", dir)?);
        if kind.is_dir() {
            fs::remove_dir(&path).doing("removing", &path)?;
        } else if entry.file_name() != RECORD {
            fs::remove_file(&path).doing("removing", &path)?;
        }
    }
    files::remove(&dir.join(RECORD))?;
    fs::remove_dir(dir).doing("removing", dir)?;
    Ok(files::sync_dir(files::parent(dir))?)
}

fn lock(dir: &Path, how: FlockArg) -> Result<Flock<File>, OverlayError> {
    let file = File::open(dir).doing("opening", dir)?;
    Ok(Flock::lock(file, how).map_err(|(_, e)| io::Error::from(e)).doing("locking", dir)?)
}

fn save(host: &Host, dir: &Path, record: &Record) -> Result<(), OverlayError> {
    let path = host.path(dir).join(RECORD);
    let text = serde_json::to_vec_pretty(record).map_err(io::Error::other).doing("writing", &path)?;
    Ok(files::replace(&path, &text, 0o600)?)
}

fn started(host: &Host, pid: u32) -> Option<u64> {
    start_of(&host.read(format!("/proc/{pid}/stat")).ok()?)
}

fn start_of(stat: &str) -> Option<u64> {
    proc_stat::field(stat, 22)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_be_called_anything() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(start_of(&format!("7 (sh) {rest}")), Some(4711));
        assert_eq!(start_of(&format!("7 (a) b 1) {rest}")), Some(4711));
        assert_eq!(start_of("7 (sh) S 1"), None);
    }

    crate::fuzz::fuzzed!(fuzz_rescue_record, text [
        br#"{"schema":1,"pid":4711,"started":815,"kind":"fuse","objects":[
            {"object":"frozen","device":"/dev/sdb","kname":"sdb","sequence":7,"was_read_only":false},
            {"object":"directory","path":"/run/raidguard/rescue/1"},{"object":"file","path":"/run/raidguard/rescue/1/a.qcow2"},
            {"object":"daemon","pidfile":"/run/raidguard/rescue/1/pid","exports":["/run/raidguard/rescue/1/a"]},
            {"object":"loop","backing":"/run/raidguard/rescue/1/a"},{"object":"snapshot","name":"raidguard-1-0"},
            {"object":"joined","name":"raidguard-1-joined"},{"object":"pool","name":"raidguard-1"}]}"#,
    ], |text| {
        if let Some(record) = parse(text) {
            let again = serde_json::to_string(&record).unwrap();
            assert_eq!(parse(&again).unwrap().objects, record.objects);
        }
    });

    crate::fuzz::fuzzed!(
        fuzz_process_stat,
        text[b"7 (a) b 1) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20"],
        |text| {
            start_of(text);
        }
    );
}
