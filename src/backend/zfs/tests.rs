//! Pools as a machine shows them: labels that OpenZFS wrote, sysfs, kstat, and what `zpool` answers.

mod exchange;
mod levels;
mod pool;

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path, sync::Arc};

use serde_json::{Value, json};

use super::{
    json,
    observe::{claims, observe, uuid_at},
    text,
};
use crate::{
    exec::{Effect, Reply, ScriptedRunner},
    host::{
        Host,
        zfs::{kstat, tests::write_recorded},
    },
    model::{
        Bytes,
        mirror::{ErrorCounts, MirrorState},
        zfs::{ZfsErrors, ZfsScanKind, ZfsScanState, ZfsState, ZfsVdev},
    },
};

const ONE: &str = include_str!("../../../tests/fixtures/zfs/label/mirror-one.txt");
const TWO: &str = include_str!("../../../tests/fixtures/zfs/label/mirror-two.txt");
/// The pool's number and those of its members, as their labels say.
const POOL: &str = "10972298985683485842";
const MEMBERS: [u64; 2] = [1_409_154_420_577_123_132, 12_822_710_133_198_817_520];
const MNT: &str = "/srv/lightning";
const STATUS: &str = "zpool status -j --json-int -- ztest";
const LIST: &str = "zpool list -Hpo name,guid,size,allocated,free,readonly,health -- ztest";

fn listed(guid: &str, read_only: &str) -> Reply {
    Reply::ok(format!("ztest\t{guid}\t117440512\t26845184\t90595328\t{read_only}\tONLINE\n"))
}

struct Machine {
    dir: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { dir: tempfile::tempdir().unwrap() };
        machine.write(
            "/proc/self/mountinfo",
            "50 1 0:44 / /srv/lightning rw,noatime shared:1 - zfs ztest rw,xattr,noacl\n",
        );
        machine.write("/proc/spl/kstat/zfs/ztest/state", "ONLINE\n");
        for (name, labels) in [("sdb", ONE), ("sdc", TWO)] {
            machine.write(&format!("/sys/class/block/{name}/size"), "262144\n");
            machine.write(&format!("/dev/{name}"), "");
            write_recorded(labels, &machine.path(&format!("/dev/{name}")));
        }
        machine
    }

    fn path(&self, absolute: &str) -> std::path::PathBuf {
        self.dir.path().join(absolute.trim_start_matches('/'))
    }

    fn write(&self, absolute: &str, text: &str) {
        let path = self.path(absolute);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn pull(&self, name: &str) {
        fs::remove_dir_all(self.path(&format!("/sys/class/block/{name}"))).unwrap();
        fs::remove_file(self.path(&format!("/dev/{name}"))).unwrap();
    }

    fn host(&self, runner: &Arc<ScriptedRunner>) -> Host {
        Host::captured(self.dir.path(), Arc::clone(runner) as _, crate::health::samples::now())
    }

    fn observe(&self, runner: ScriptedRunner) -> (MirrorState, Arc<ScriptedRunner>) {
        let runner = Arc::new(runner);
        (observe(&self.host(&runner), POOL, Path::new(MNT)).unwrap(), runner)
    }

    /// What is seen where `zpool status -j` answers this.
    fn with(&self, status: &Value) -> MirrorState {
        self.observe(runner(Reply::ok(status.to_string()))).0
    }
}

fn runner(status: Reply) -> ScriptedRunner {
    ScriptedRunner::new().on(STATUS, status).on(LIST, listed(POOL, "off"))
}

fn status(change: impl FnOnce(&mut Value)) -> Value {
    let vdev = |name: &str, kind: &str, guid: u64| json!({"name": name, "vdev_type": kind, "guid": guid, "state": "ONLINE", "read_errors": 0, "write_errors": 0, "checksum_errors": 0});
    let leaf = |name: &str, guid| {
        let mut leaf = vdev(name, "disk", guid);
        leaf["path"] = json!(format!("/dev/{name}"));
        leaf
    };
    let mut mirror = vdev("mirror-0", "mirror", 5_215_578_588_698_501_170);
    mirror["vdevs"] = json!({"sdb": leaf("sdb", MEMBERS[0]), "sdc": leaf("sdc", MEMBERS[1])});
    let mut root = vdev("ztest", "root", 1);
    root["vdevs"] = json!({"mirror-0": mirror});
    let mut pool = json!({
        "name": "ztest", "state": "ONLINE", "pool_guid": POOL.parse::<u64>().unwrap(), "vdevs": {"ztest": root}, "error_count": 0,
    });
    change(&mut pool);
    json!({"output_version": {"command": "zpool status", "vers_major": 0, "vers_minor": 1}, "pools": {"ztest": pool}})
}

/// The second member in what `zpool status` says.
fn second(pool: &mut Value) -> &mut Value {
    &mut pool["vdevs"]["ztest"]["vdevs"]["mirror-0"]["vdevs"]["sdc"]
}

#[test]
fn a_healthy_pool() {
    let machine = Machine::new();
    let (state, runner) = machine.observe(runner(Reply::ok(status(|_| {}).to_string())));
    assert!(state.mounted && !state.read_only && state.instead.is_none(), "{state:?}");
    let members: Vec<_> =
        state.members.iter().map(|m| (m.devid, m.path.clone().unwrap(), m.is_whole())).collect();
    assert_eq!(members, [(MEMBERS[0], "/dev/sdb".into(), true), (MEMBERS[1], "/dev/sdc".into(), true)]);
    assert!(state.members.iter().all(|m| m.errors == Some(ErrorCounts::default())));
    assert_eq!((state.raw_size, state.exclusive_operation.as_deref()), (Bytes::mib(256), None));
    assert!(runner.calls().iter().all(|(effect, _)| *effect == Effect::Probe), "nothing is changed");
    let host = machine.host(&runner);
    assert_eq!(uuid_at(&host, Path::new(MNT)).unwrap().as_deref(), Some(POOL));
    let claims = claims(&host).unwrap().remove(POOL).unwrap();
    assert_eq!(
        claims.iter().map(|c| (c.devid, c.generation)).collect::<Vec<_>>(),
        [(MEMBERS[0], 452), (MEMBERS[1], 452)]
    );
}

#[test]
fn the_same_by_the_text_of_older_tools() {
    let old = "  pool: ztest\n state: ONLINE\n  scan: none requested\nconfig:\n\n\tNAME  STATE     READ WRITE CKSUM\n\tztest  ONLINE       0     0     0\n\
               \t  5215578588698501170  ONLINE       0     0     0\n\t    1409154420577123132  ONLINE       0     0     0\n\
               \t    12822710133198817520  ONLINE       0     0     7\n\nerrors: No known data errors\n";
    let runner = || {
        ScriptedRunner::new()
            .on(STATUS, Reply::fail(2, "invalid option 'j'\n"))
            .on("zpool status -gp -- ztest", Reply::ok(old))
    };
    let machine = Machine::new();
    let (state, _) = machine.observe(runner().on(LIST, listed(POOL, "on")));
    let seen: Vec<_> =
        state.members.iter().map(|m| (m.path.clone().unwrap(), m.errors.unwrap().corruption)).collect();
    assert_eq!(seen, [("/dev/sdb".into(), 0), ("/dev/sdc".into(), 7)]);
    let pool = state.zfs.unwrap();
    assert!(state.read_only && pool.space.is_some());
    // How redundant it is the labels tell.
    assert_eq!((pool.level.as_deref(), pool.vdevs[0].name.as_str()), (Some("mirror"), "mirror-0"));
    // Another pool of the same name is not this one: what is seen of it comes from the labels.
    let (other, _) = machine.observe(runner().on(LIST, listed("1", "off")));
    assert!(!other.mounted && other.zfs.is_none() && other.instead.is_some());
    assert_eq!(other.members.iter().map(|m| m.generation).collect::<Vec<_>>(), [Some(452); 2]);
}

#[test]
fn members_that_are_gone_fail_or_are_being_filled() {
    let machine = Machine::new();
    let removed = machine.with(&status(|pool| {
        second(pool)["state"] = json!("REMOVED");
        second(pool)["checksum_errors"] = json!(3);
    }));
    let gone = &removed.members[1];
    assert!(gone.missing && !gone.pulled, "{gone:?}");
    assert_eq!(gone.missing_because.as_deref(), Some("ZFS calls it REMOVED"));
    assert_eq!(gone.errors.unwrap().corruption, 3);
    let filled = machine.with(&status(|pool| {
        second(pool)["scan_processed"] = json!(5);
        pool["scan_stats"] = json!({
            "function": "RESILVER", "state": "SCANNING", "start_time": 1_795_704_482, "to_examine": 10, "issued": 5, "processed": 5, "errors": 0
        });
    }));
    assert!(filled.members[1].replace_target && filled.members[0].is_whole());
    assert_eq!(filled.exclusive_operation.as_deref(), Some("resilver"));
    // Pulled, and ZFS has not noticed, as long as nothing was written.
    machine.pull("sdc");
    let pulled = machine.with(&status(|_| {}));
    assert!(pulled.members[1].missing && pulled.members[1].pulled);
    assert_eq!(pulled.members[1].missing_because.as_deref(), Some("its block device is gone"));
    // Its place has another disk.
    machine.write("/sys/class/block/sdc/size", "262144\n");
    machine.write("/dev/sdc", "");
    write_recorded("size 134217728", &machine.path("/dev/sdc"));
    assert_eq!(
        machine.with(&status(|_| {})).members[1].missing_because.as_deref(),
        Some("its labels are gone")
    );
}

#[test]
fn a_pool_that_is_suspended_is_not_asked() {
    let machine = Machine::new();
    machine.write("/proc/spl/kstat/zfs/ztest/state", "SUSPENDED\n");
    let (state, runner) = machine.observe(ScriptedRunner::new());
    assert!(state.zfs.as_ref().unwrap().is_suspended() && state.mounted);
    assert_eq!(runner.calls(), []);
    // Also where no device is left that could tell whose it is.
    for name in ["sdb", "sdc"] {
        machine.pull(name);
    }
    let (state, runner) = machine.observe(ScriptedRunner::new());
    assert!(state.zfs.unwrap().is_suspended() && state.members.is_empty());
    assert_eq!(runner.calls(), []);
}

#[test]
fn a_job_of_the_distribution_that_passes_the_pool_over_is_not_named() {
    const GET: &str = "zfs get -H -o value org.debian:periodic-scrub -- ztest";
    let machine = Machine::new();
    let doubled = |runner: ScriptedRunner| {
        let runner = Arc::new(runner);
        let found = super::jobs::doubled(&machine.host(&runner), POOL, "lightning");
        (found, runner.calls().len())
    };
    let answers = |value: &str| ScriptedRunner::new().on(GET, Reply::ok(format!("{value}\n")));
    let (found, asked) = doubled(ScriptedRunner::new());
    assert_eq!((found.unwrap(), asked), (Vec::new(), 0), "there is no such job");
    machine.write("/etc/cron.d/zfsutils-linux", "");
    machine.write("/usr/lib/zfs-linux/scrub", "");
    for (value, named) in
        [("disable", false), ("-", true), ("auto", true), ("enable", true), ("nonsense", false)]
    {
        let (found, _) = doubled(answers(value));
        let job = ["/etc/cron.d/zfsutils-linux"];
        assert_eq!(found.unwrap(), if named { &job[..] } else { &[] }, "{value}");
    }
    assert!(doubled(ScriptedRunner::new().on(GET, Reply::fail(1, "internal error\n"))).0.is_err());
    let timer = "/etc/systemd/system/timers.target.wants/zfs-scrub-monthly@ztest.timer";
    machine.write(timer, "");
    machine.write("/etc/systemd/system/timers.target.wants/zfs-scrub-weekly@other.timer", "");
    assert_eq!(doubled(answers("disable")).0.unwrap(), [timer]);
    // One that has stopped, or is not imported, is not asked.
    machine.write("/proc/spl/kstat/zfs/ztest/state", "SUSPENDED\n");
    let (found, asked) = doubled(ScriptedRunner::new());
    assert_eq!((found.unwrap().len(), asked), (1, 0));
}

#[test]
fn a_pool_that_is_not_imported_is_seen_by_its_labels() {
    let machine = Machine::new();
    machine.write("/proc/self/mountinfo", "");
    fs::remove_dir_all(machine.path("/proc/spl")).unwrap();
    let (state, runner) = machine.observe(ScriptedRunner::new());
    assert!(!state.mounted && state.zfs.is_none());
    assert_eq!(runner.calls(), [], "it is there without the tools, too");
    let members: Vec<_> =
        state.members.iter().map(|m| (m.devid, m.generation, m.damaged.is_some())).collect();
    assert_eq!(
        members,
        [(MEMBERS[0], Some(452), false), (MEMBERS[1], Some(452), true)],
        "of the second one label was recorded"
    );
}

#[test]
fn what_zpool_cannot_say_is_an_error_and_never_a_healthy_pool() {
    let machine = Machine::new();
    let seen = |reply| {
        let runner = Arc::new(runner(reply));
        observe(&machine.host(&runner), POOL, Path::new(MNT))
    };
    assert!(seen(Reply::fail(1, "internal error\n")).is_err());
    assert!(seen(Reply::ok("")).is_err());
    assert!(seen(Reply::ok(status(|pool| pool["vdevs"] = json!({})).to_string())).is_err());
    // It was exported meanwhile.
    let exported = seen(Reply::fail(1, "cannot open 'ztest': no such pool\n")).unwrap();
    assert!(exported.zfs.is_none() && exported.members.len() == 2);
    machine.write("/proc/spl/kstat/zfs/ztest/state", "\n");
    assert!(seen(Reply::ok(status(|_| {}).to_string())).is_err());
}

/// What one form of `zpool status` says, in a few lines.
fn told(pools: &[ZfsState]) -> String {
    let mut out = String::new();
    for pool in pools {
        let _ = writeln!(out, "{} {}, damaged {:?}", pool.name, pool.state, pool.damaged);
        if let Some(remark) = &pool.remark {
            let _ = writeln!(out, "    {remark}");
        }
        if let Some(scan) = &pool.scan {
            let _ = writeln!(
                out,
                "    {:?} {:?}, done {:?}, errors {:?}",
                scan.kind, scan.state, scan.done, scan.errors
            );
        }
        let work =
            [(pool.rebuilding, "rebuilding"), (pool.checkpoint, "checkpoint"), (pool.removing, "removing")];
        for (_, word) in work.iter().filter(|(runs, _)| *runs) {
            let _ = writeln!(out, "    {word}");
        }
        for vdev in &pool.vdevs {
            tell(&mut out, vdev, 1);
        }
    }
    out
}

fn tell(out: &mut String, vdev: &ZfsVdev, depth: usize) {
    let errors = vdev.errors.map(|e| format!("{} {} {}", e.read, e.write, e.checksum));
    let blank = "    ".repeat(depth);
    let why = vdev.why.as_ref().map_or_else(String::new, |why| format!(", {why}"));
    let _ = writeln!(
        out,
        "{blank}{:?} {} {} {}{why}",
        vdev.class,
        vdev.name,
        vdev.state,
        errors.unwrap_or_default()
    );
    for child in &vdev.children {
        tell(out, child, depth + 1);
    }
}

#[test]
fn every_recorded_state_is_read_alike_from_both_forms() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/zfs/2.3.9");
    let mut states: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    states.sort();
    let mut all = BTreeMap::new();
    for state in states {
        let name = state.file_name().unwrap().to_string_lossy().into_owned();
        let read = |file: &str| fs::read_to_string(state.join(file)).ok().filter(|text| !text.is_empty());
        let Some(tree) = read("status-tree.json") else { continue };
        let by_json = json::parse_status(&tree).unwrap_or_else(|e| panic!("{name}: {e}"));
        let by_text = text::parse_status(&read("status.txt").unwrap_or_default());
        let by_text = by_text.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(told(&by_json), told(&by_text), "{name}");
        if let (Some(word), [pool]) = (read("kstat.txt"), &by_json[..]) {
            assert_eq!(kstat::parse_state(&word).unwrap(), pool.state, "{name}");
        }
        all.insert(name, by_json);
    }
    assert_eq!(all["no-pools"], []);
    let pool = |name: &str| all[name][0].clone();
    let scan = |name: &str| pool(name).scan.map(|scan| (scan.kind, scan.state));
    assert_eq!((pool("healthy").state.as_str(), scan("healthy")), ("ONLINE", None));
    assert_eq!(scan("scrub-running"), Some((ZfsScanKind::Scrub, ZfsScanState::Running)));
    assert_eq!(scan("scrub-paused"), Some((ZfsScanKind::Scrub, ZfsScanState::Paused)));
    assert_eq!(scan("scrub-cancelled"), Some((ZfsScanKind::Scrub, ZfsScanState::Canceled)));
    let mended = pool("scrub-repaired");
    assert_eq!(mended.leaves()[1].errors, Some(ZfsErrors { checksum: 6, ..ZfsErrors::default() }));
    assert_eq!(mended.scan.as_ref().unwrap().repaired, Bytes(28 << 10));
    let pulled = pool("pulled-idle");
    assert_eq!((pulled.state.as_str(), pulled.leaves()[1].state.as_str()), ("DEGRADED", "REMOVED"));
    // Every word of it says ONLINE, and one of two is not whole.
    assert_eq!(scan("resilvering"), Some((ZfsScanKind::Resilver, ZfsScanState::Running)));
    let replacing = pool("replacing");
    let filled: Vec<_> = replacing.leaves().into_iter().filter(|leaf| leaf.resilvering).collect();
    assert_eq!(
        filled.iter().map(|leaf| leaf.name.as_str()).collect::<Vec<_>>(),
        ["scsi-0QEMU_QEMU_HARDDISK_three"]
    );
    // As long as the old one is there the new one is not whole, whatever runs.
    let mut waiting = replacing;
    waiting.scan = None;
    waiting.vdevs[0].children[1].children[1].resilvering = false;
    let seen = super::as_mirror(waiting, Path::new(MNT));
    assert_eq!(seen.members.iter().filter(|m| m.replace_target).count(), 1);
}
