use std::{fs, path::Path};

use super::*;
use crate::{
    exec::ScriptedRunner,
    health::{guard, judge, samples},
    model::Severity,
};

/// A machine on which the mirror's pool is mounted and has stopped, with the node's files where they are.
fn stopped(dir: &Path) -> (Host, Arc<ScriptedRunner>, Mirror) {
    let put = |path: &str, text: &str| {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put("proc/self/mountinfo", "50 1 0:44 / /srv/lightning rw,noatime - zfs tank rw,xattr,noacl\n");
    put("proc/spl/kstat/zfs/tank/state", "SUSPENDED\n");
    put("srv/lightning/lightning/bitcoin/lightningd.sqlite3", "no database");
    // A device whose labels could be read, and are not.
    put("sys/class/block/sdb/size", "262144\n");
    put("dev/sdb", "");
    put("etc/cron.d/zfsutils-linux", "");
    put("usr/lib/zfs-linux/scrub", "");
    let mut mirror = samples::healthy().0;
    (mirror.backend, mirror.level) = (BackendKind::Zfs, crate::model::Level::Mirror);
    let runner = Arc::new(ScriptedRunner::new());
    (Host::captured(dir, Arc::clone(&runner) as _, samples::now()), runner, mirror)
}

#[test]
fn of_a_pool_that_has_stopped_only_the_kernels_word_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (host, runner, mirror) = stopped(dir.path());
    let record = Seen::Read(samples::healthy().2);
    let mirrors: Arc<[Mirror]> = [mirror.clone()].into();
    let observed = Asking::begin(&host, &mirrors).answers().remove(0);
    assert_eq!(observed.node.failure(), Some(STOPPED));
    assert_eq!(observed.processes.failure(), Some(STOPPED));
    let state = observed.storage.get().unwrap();
    assert!(state.mounted && state.zfs.as_ref().unwrap().is_suspended(), "{state:?}");
    assert!(state.members.is_empty() && state.free.is_none() && observed.smart.is_empty(), "{state:?}");
    let verdict = judge(&mirror, &observed, &record, samples::now());
    assert_eq!((verdict.level, verdict.findings[0].code.as_str()), (Severity::Critical, "MIR-SUSPENDED"));
    assert!(verdict.findings[0].remedy.contains("`zpool clear tank`"), "{}", verdict.findings[0].remedy);
    assert_eq!(runner.calls(), [], "nothing is asked of it");
}

#[test]
fn the_guard_keeps_a_node_from_a_pool_that_has_stopped_and_waits_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (host, runner, mirror) = stopped(dir.path());
    let record = samples::healthy().2;
    let against = |host: &Host| {
        let observed = observe_for_start(host, &mirror, &record);
        let verdict = judge(&mirror, &observed, &Seen::Read(record.clone()), samples::now());
        guard::against(&verdict).iter().map(|f| f.code.clone()).collect::<Vec<_>>()
    };
    assert_eq!(against(&host), ["MIR-SUSPENDED"]);
    assert_eq!(runner.calls(), []);
    // Without the word it is looked at as any other.
    fs::write(dir.path().join("proc/spl/kstat/zfs/tank/state"), "ONLINE\n").unwrap();
    assert!(!against(&host).contains(&"MIR-SUSPENDED".to_owned()));
}

#[test]
fn a_reader_of_the_log_keeps_no_node_down_and_another_node_does() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let (host, _, mut mirror) = stopped(dir.path());
    fs::write(dir.path().join("proc/spl/kstat/zfs/tank/state"), "ONLINE\n").unwrap();
    let data = fs::canonicalize(dir.path()).unwrap().join("srv/lightning/lightning");
    mirror.node.as_mut().unwrap().data.clone_from(&data);
    let proc = dir.path().join("proc/42");
    fs::create_dir_all(proc.join("fd")).unwrap();
    let record = samples::healthy().2;
    let found = |name: &str, cwd: &Path, open: &str| {
        fs::write(proc.join("comm"), format!("{name}\n")).unwrap();
        for (link, to) in [("root", Path::new("/")), ("cwd", cwd), ("fd/3", &data.join(open))] {
            let _ = fs::remove_file(proc.join(link));
            symlink(to, proc.join(link)).unwrap();
        }
        let observed = observe_for_start(&host, &mirror, &record);
        assert_eq!(observed.users.failure(), None);
        let verdict = judge(&mirror, &observed, &Seen::Read(record.clone()), samples::now());
        guard::against(&verdict).iter().any(|f| f.code == "NODE-RUNNING")
    };
    let elsewhere = Path::new("/");
    assert!(!found("tail", elsewhere, "log"));
    assert!(!found("bash", &data, "bitcoin/config"));
    for held in ["lightningd.sqlite3", "lightningd.sqlite3-journal", "backup.sqlite3-wal", "hsm_secret"] {
        assert!(found("node", elsewhere, &format!("bitcoin/{held}")), "{held}");
    }
    assert!(found("lightningd", &data, "bitcoin/wallet.db"));
}
