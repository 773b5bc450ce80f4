//! Whether udev should keep halves of a mirror apart on this machine, and by which rule.

use std::path::Path;

use crate::{
    backend::{self, BackendError},
    config::Mirror,
    host::{
        Host,
        schedule::{EARLY, Rule, has_udev, is_systemd},
    },
    model::BackendKind,
};

/// Should udev, or of ZFS the unit that imports pools, keep the halves of the mirror with this UUID apart? Where none runs it cannot; and
/// what the machine itself is started from, as another subvolume of the same btrfs may be, must not wait.
pub(super) fn is_wanted(host: &Host, kind: BackendKind, uuid: &str) -> Result<bool, BackendError> {
    let runs = if kind == BackendKind::Zfs { is_systemd(host) } else { has_udev(host) };
    if !runs {
        return Ok(false);
    }
    for place in EARLY {
        if backend::of(kind).uuid_at(host, Path::new(place))?.is_some_and(|there| there == uuid) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The rule that keeps the halves of a declared mirror apart, where udev should.
pub(super) fn of(host: &Host, mirror: &Mirror, binary: &Path) -> Result<Option<Rule>, BackendError> {
    let wanted = is_wanted(host, mirror.backend, &mirror.uuid)?;
    Ok(Rule::of(mirror, binary).filter(|_| wanted))
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use super::*;
    use crate::{exec::ScriptedRunner, health::samples};

    #[test]
    fn a_mirror_has_a_rule_where_udev_runs_and_the_machine_is_not_started_from_it() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let host = || Host::captured(dir.path(), Arc::new(ScriptedRunner::new()), samples::now());
        let mirror = samples::healthy().0;
        let has = || of(&host(), &mirror, Path::new("/usr/local/sbin/raidguard")).unwrap().is_some();
        let root = |device: &str| {
            let line = format!("30 1 0:25 /@ / rw,relatime - btrfs {device} rw,subvol=/@\n");
            put("proc/self/mountinfo", &line);
        };
        root("/dev/sdz");
        let own = format!("sys/fs/btrfs/{}", mirror.uuid);
        put(&format!("{own}/devices/sdb"), "");
        assert!(!has(), "no udev runs");
        put("run/udev/control", "");
        assert!(has());
        root("/dev/sdb");
        assert!(!has(), "/ is another subvolume of it");
    }
}
