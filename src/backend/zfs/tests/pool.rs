//! A small pool that answers as `zpool` does: what the commands change is seen in what it says next, and on its devices.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{FileExt as _, symlink},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::{Value, json};

use crate::{
    exec::{Cmd, CmdError, Effect, Failure, Flow, Held, Output, Runner, Signal},
    health::samples,
    host::{
        Host,
        zfs::{Label, Labels, PoolState, Vdev, tests::write_label},
    },
};

pub(in crate::backend::zfs) const POOL: u64 = 77;
pub(in crate::backend::zfs) const OLD: [u64; 2] = [101, 102];
pub(in crate::backend::zfs) const MNT: &str = "/srv/lightning";
const SIZE: u64 = 128 << 20;

#[derive(Clone)]
pub(in crate::backend::zfs) struct Leaf {
    pub(in crate::backend::zfs) guid: u64,
    /// Its device: `sdb1`.
    pub(in crate::backend::zfs) name: String,
    pub(in crate::backend::zfs) state: &'static str,
}

/// What can be told to go otherwise.
#[derive(Default)]
pub(in crate::backend::zfs) struct Wishes {
    /// The call of this number fails, and does nothing.
    pub(in crate::backend::zfs) fail_at: Option<usize>,
    /// The resilver cannot read so many blocks.
    pub(in crate::backend::zfs) errors: u64,
    /// The resilver does not go beyond this, in hundredths of a percent.
    pub(in crate::backend::zfs) halt: Option<u64>,
    /// A member that is told to come back stays as it is.
    pub(in crate::backend::zfs) stays: bool,
}

pub(in crate::backend::zfs) struct Sim {
    /// Each member; two where one takes the other's place.
    pub(in crate::backend::zfs) members: Vec<Vec<Leaf>>,
    pub(in crate::backend::zfs) wishes: Wishes,
    /// How far a resilver is that runs, in hundredths of a percent.
    resilver: Option<u64>,
    ended: Option<u64>,
    txg: u64,
    next: u64,
    calls: Vec<(Effect, String)>,
}

/// The machine that it is on.
pub(in crate::backend::zfs) struct Pool {
    dir: tempfile::TempDir,
    sim: Mutex<Sim>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pool")
    }
}

impl Pool {
    /// A mirror of sdb1 and sdc1, imported and mounted; sdd1 is an empty partition.
    pub(in crate::backend::zfs) fn new() -> Arc<Self> {
        let leaf = |guid, name: &str| vec![Leaf { guid, name: name.into(), state: "ONLINE" }];
        let sim = Sim {
            members: vec![leaf(OLD[0], "sdb1"), leaf(OLD[1], "sdc1")],
            wishes: Wishes::default(),
            resilver: None,
            ended: None,
            txg: 10,
            next: 201,
            calls: Vec::new(),
        };
        let pool = Self { dir: tempfile::tempdir().unwrap(), sim: Mutex::new(sim) };
        pool.write("/proc/self/mountinfo", "50 1 0:44 / /srv/lightning rw shared:1 - zfs tank rw\n");
        pool.write("/proc/spl/kstat/zfs/tank/state", "ONLINE\n");
        for name in ["sdb1", "sdc1", "sdd1"] {
            pool.plug(name);
        }
        pool.describe(&mut pool.sim());
        Arc::new(pool)
    }

    pub(in crate::backend::zfs) fn sim(&self) -> MutexGuard<'_, Sim> {
        self.sim.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::backend::zfs) fn path(&self, absolute: &str) -> PathBuf {
        self.dir.path().join(absolute.trim_start_matches('/'))
    }

    pub(in crate::backend::zfs) fn write(&self, absolute: &str, text: &str) {
        let path = self.path(absolute);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// An empty device.
    pub(in crate::backend::zfs) fn plug(&self, name: &str) {
        self.write(&format!("/sys/class/block/{name}/size"), &format!("{}\n", SIZE / 512));
        self.write(&format!("/dev/{name}"), "");
        fs::File::options()
            .write(true)
            .open(self.path(&format!("/dev/{name}")))
            .unwrap()
            .set_len(SIZE)
            .unwrap();
        let link = self.path(&format!("/dev/disk/by-partuuid/uuid-{name}"));
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&link);
        symlink(format!("../../{name}"), link).unwrap();
    }

    pub(in crate::backend::zfs) fn pull(&self, name: &str) {
        fs::remove_dir_all(self.path(&format!("/sys/class/block/{name}"))).unwrap();
        fs::remove_file(self.path(&format!("/dev/{name}"))).unwrap();
        fs::remove_file(self.path(&format!("/dev/disk/by-partuuid/uuid-{name}"))).unwrap();
        for leaf in self.sim().members.iter_mut().flatten().filter(|leaf| leaf.name == name) {
            leaf.state = "REMOVED";
        }
    }

    pub(in crate::backend::zfs) fn export(&self) {
        self.write("/proc/self/mountinfo", "");
        fs::remove_dir_all(self.path("/proc/spl")).unwrap();
    }

    pub(in crate::backend::zfs) fn host(self: &Arc<Self>) -> Host {
        Host::captured(self.dir.path(), Arc::clone(self) as _, samples::now())
    }

    /// What was changed, a line a command.
    pub(in crate::backend::zfs) fn changes(&self) -> String {
        let sim = self.sim();
        let changes = sim.calls.iter().filter(|(effect, _)| *effect != Effect::Probe);
        changes.map(|(_, line)| line.as_str()).collect::<Vec<_>>().join("\n")
    }

    pub(in crate::backend::zfs) fn calls(&self) -> usize {
        self.sim().calls.len()
    }

    /// The members' numbers.
    pub(in crate::backend::zfs) fn numbers(&self) -> Vec<Vec<u64>> {
        self.sim().members.iter().map(|member| member.iter().map(|leaf| leaf.guid).collect()).collect()
    }

    /// What a device says that it is: its number, and the transaction group.
    pub(in crate::backend::zfs) fn label(&self, name: &str) -> Option<(u64, u64)> {
        let labels = Labels::of_member(&self.path(&format!("/dev/{name}"))).unwrap()?;
        labels.newest().map(|label| (label.guid, label.txg))
    }

    pub(in crate::backend::zfs) fn described(sim: &Sim, guid: u64, txg: u64) -> Label {
        let leaf = |id: usize, leaf: &Leaf| Vdev {
            kind: "disk".into(),
            id: id as u64,
            guid: leaf.guid,
            path: Some(format!("/dev/disk/by-partuuid/uuid-{}", leaf.name)),
            ..Vdev::default()
        };
        let child = |(id, member): (usize, &Vec<Leaf>)| match &member[..] {
            [one] => leaf(id, one),
            both => Vdev {
                kind: "replacing".into(),
                id: id as u64,
                guid: 900 + id as u64,
                children: both.iter().enumerate().map(|(n, one)| leaf(n, one)).collect(),
                ..Vdev::default()
            },
        };
        let tree = Vdev {
            kind: "mirror".into(),
            guid: 88,
            ashift: Some(12),
            asize: Some(SIZE - (9 << 19)),
            metaslab_shift: Some(24),
            children: sim.members.iter().enumerate().map(child).collect(),
            ..Vdev::default()
        };
        Label {
            guid,
            state: PoolState::Active,
            pool: Some("tank".into()),
            pool_guid: Some(POOL),
            txg,
            top_guid: Some(88),
            tops: Some(1),
            hostid: None,
            hostname: None,
            comment: None,
            tree: Some(tree),
            features: Vec::new(),
        }
    }

    /// Writes what the pool is now onto its devices.
    pub(in crate::backend::zfs) fn describe(&self, sim: &mut Sim) {
        sim.txg += 1;
        for leaf in sim.members.iter().flatten() {
            let path = self.path(&format!("/dev/{}", leaf.name));
            if path.exists() && leaf.state == "ONLINE" {
                write_label(&path, SIZE, &Self::described(sim, leaf.guid, sim.txg));
            }
        }
    }

    /// Takes a device out: its label is then of transaction group 0.
    fn detach(&self, sim: &mut Sim, guid: u64) -> bool {
        let Some(member) = sim.members.iter_mut().find(|m| m.len() > 1 && m.iter().any(|l| l.guid == guid))
        else {
            return false;
        };
        let at = member.iter().position(|leaf| leaf.guid == guid).unwrap();
        let gone = member.remove(at);
        let path = self.path(&format!("/dev/{}", gone.name));
        if path.exists() {
            write_label(&path, SIZE, &Self::described(sim, guid, 0));
        }
        sim.resilver = None;
        self.describe(sim);
        true
    }

    fn status(sim: &Sim) -> Value {
        let vdev = |name: &str, kind: &str, guid: u64, state: &str| {
            json!({"name": name, "vdev_type": kind, "guid": guid, "state": state,
                "read_errors": 0, "write_errors": 0, "checksum_errors": 0})
        };
        let leaf = |leaf: &Leaf| {
            let mut found = vdev(&leaf.name, "disk", leaf.guid, leaf.state);
            found["path"] = json!(format!("/dev/disk/by-partuuid/uuid-{}", leaf.name));
            found
        };
        let mut children = BTreeMap::new();
        for (n, member) in sim.members.iter().enumerate() {
            match &member[..] {
                [one] => children.insert(one.name.clone(), leaf(one)),
                both => {
                    let name = format!("replacing-{n}");
                    let mut found = vdev(&name, "replacing", 900 + n as u64, "ONLINE");
                    found["vdevs"] = both
                        .iter()
                        .map(|one| (one.name.clone(), leaf(one)))
                        .collect::<serde_json::Map<_, _>>()
                        .into();
                    children.insert(name, found)
                }
            };
        }
        let mut mirror = vdev("mirror-0", "mirror", 88, "ONLINE");
        mirror["vdevs"] = json!(children);
        let mut root = vdev("tank", "root", 1, "ONLINE");
        root["vdevs"] = json!({"mirror-0": mirror});
        let mut pool = json!({"name": "tank", "state": "ONLINE", "pool_guid": POOL, "vdevs": {"tank": root}, "error_count": 0});
        let scan = |state: &str, done: u64, errors: u64| {
            json!({"function": "RESILVER", "state": state, "start_time": 1_795_704_482, "end_time": 0,
                "to_examine": 10_000, "examined": done, "issued": done, "processed": 0, "errors": errors,
                "skipped": 0, "scrub_pause": 0})
        };
        match (sim.resilver, sim.ended) {
            (Some(done), _) => pool["scan_stats"] = scan("SCANNING", done, 0),
            (None, Some(errors)) => pool["scan_stats"] = scan("FINISHED", 10_000, errors),
            (None, None) => {}
        }
        json!({"output_version": {"command": "zpool status", "vers_major": 0, "vers_minor": 1}, "pools": {"tank": pool}})
    }

    /// The kernel goes on.
    fn work(&self, sim: &mut Sim) {
        let Some(done) = sim.resilver else { return };
        let done = (done + 4_000).min(sim.wishes.halt.unwrap_or(10_000));
        sim.resilver = Some(done);
        if done < 10_000 {
            return;
        }
        (sim.resilver, sim.ended) = (None, Some(sim.wishes.errors));
        let full = |m: &&Vec<Leaf>| m.len() > 1 && m.last().is_some_and(|new| new.state == "ONLINE");
        if sim.wishes.errors > 0 {
            return;
        }
        let olds: Vec<u64> = sim.members.iter().filter(full).map(|member| member[0].guid).collect();
        for old in olds {
            self.detach(sim, old);
        }
    }

    fn answer(&self, sim: &mut Sim, line: &str) -> Result<String, String> {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["zpool", "status", "-j", ..] => {
                self.work(sim);
                Ok(Self::status(sim).to_string())
            }
            ["zpool", "list", ..] => {
                Ok(format!("tank\t{POOL}\t117440512\t26845184\t90595328\toff\tONLINE\n"))
            }
            ["zpool", "get", ..] => Ok(format!("{POOL}\n")),
            ["zpool", "import", ..] => {
                self.write("/proc/spl/kstat/zfs/tank/state", "ONLINE\n");
                Ok(String::new())
            }
            ["zpool", "replace", "--", "tank", old, path] => {
                let name = fs::canonicalize(self.path(path)).map_err(|e| e.to_string())?;
                let name = name.file_name().unwrap().to_string_lossy().into_owned();
                let guid = sim.next;
                let old = sim.members.iter_mut().find(|m| m.len() == 1 && m[0].guid.to_string() == old);
                old.ok_or("no such device in pool")?.push(Leaf { guid, name, state: "ONLINE" });
                (sim.next, sim.resilver, sim.ended) = (guid + 1, Some(0), None);
                self.describe(sim);
                Ok(String::new())
            }
            ["zpool", "detach", "--", "tank", guid] => {
                let done = self.detach(sim, guid.parse().unwrap());
                done.then(String::new).ok_or("only applicable to mirror and replacing vdevs".into())
            }
            ["zpool", verb @ ("online" | "clear"), "--", "tank", guid] => {
                let stays = sim.wishes.stays;
                let leaf =
                    sim.members.iter_mut().flatten().find(|leaf| leaf.guid.to_string() == guid).unwrap();
                // As ZFS does: one that failed is not used before that is forgotten.
                if !stays && (verb == "clear" || leaf.state != "FAULTED") && leaf.state != "ONLINE" {
                    (leaf.state, sim.resilver) = ("ONLINE", Some(0));
                    self.describe(sim);
                }
                Ok(String::new())
            }
            ["zpool", "clear", "--", "tank"] => {
                if !sim.wishes.stays {
                    self.write("/proc/spl/kstat/zfs/tank/state", "ONLINE\n");
                }
                Ok(String::new())
            }
            ["blkdiscard", "--zeroout", "--offset", at, "--length", length, path] => {
                let file =
                    fs::File::options().write(true).open(self.path(path)).map_err(|e| e.to_string())?;
                file.write_all_at(&vec![0; length.parse().unwrap()], at.parse().unwrap()).unwrap();
                Ok(String::new())
            }
            _ => Err(format!("the pool does not know: {line}")),
        }
    }
}

impl Runner for Pool {
    fn hold(&self, _: &Cmd) -> Result<Held, CmdError> {
        Ok(Held::default())
    }

    fn run_watched(&self, cmd: &Cmd, _: &mut dyn FnMut() -> Flow) -> Result<Output, CmdError> {
        let (mut sim, line) = (self.sim(), cmd.line());
        let number = sim.calls.len();
        sim.calls.push((cmd.effect(), line.clone()));
        let fail = |said: &str| CmdError::new(cmd, Failure::Code(1), said.as_bytes());
        if sim.wishes.fail_at == Some(number) {
            return Err(fail("injected failure"));
        }
        let said = self.answer(&mut sim, &line).map_err(|why| fail(&why))?;
        Ok(Output { code: 0, stdout: said.into_bytes(), stderr: Vec::new() })
    }

    fn signal(&self, _: i32, _: Signal) -> std::io::Result<()> {
        Ok(())
    }

    fn has(&self, _: &str) -> bool {
        true
    }
}

/// Below the machine's root.
pub(in crate::backend::zfs) fn node(name: &str) -> PathBuf {
    Path::new("/dev").join(name)
}
