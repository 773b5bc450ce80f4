//! A pool of ZFS comes back at a boot by units of systemd, where other mirrors have a line of fstab; and after it has stopped, when it is
//! told to.

use std::io;

use serde::{Deserialize, Serialize};

use super::{fail, run, storage::backend_failed};
use crate::{
    backend::{self, MirrorSpec},
    exec::Cmd,
    host::{
        Host, files,
        zfs::boot::{LINKS, not_enabled, wanted},
    },
    plan::{Context, Outcome, Probe, Step, StepError},
};

/// Has systemd import the pool and mount it at every boot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootPool {
    /// The units that no boot starts yet: distributions enable them, people may have disabled them.
    pub enable: Vec<String>,
}

impl BootPool {
    /// As this machine needs it.
    ///
    /// # Errors
    /// What a boot starts could not be read.
    pub fn of(host: &Host) -> io::Result<Self> {
        Ok(Self { enable: not_enabled(host)? })
    }

    fn systemctl(&self, verb: &str) -> Option<Cmd> {
        (!self.enable.is_empty()).then(|| Cmd::change("systemctl").arg(verb).args(&self.enable))
    }

    fn sync(host: &Host) -> Result<(), StepError> {
        // systemd has made or removed the links, and left to the kernel when that reaches the disk.
        for dir in wanted(host).map_err(fail("reading", LINKS))? {
            files::sync_dir(&dir).map_err(fail("syncing", &dir))?;
        }
        Ok(())
    }
}

impl Step for BootPool {
    fn says(&self) -> String {
        "have every boot import the pool and mount it".to_owned()
    }

    fn commands(&self) -> Vec<String> {
        self.systemctl("enable").iter().map(Cmd::line).collect()
    }

    fn unsays(&self) -> String {
        "disable the units that were enabled for the pool".to_owned()
    }

    fn undo_commands(&self) -> Vec<String> {
        self.systemctl("disable").iter().map(Cmd::line).collect()
    }

    fn probe(&self, host: &Host) -> Result<Probe, StepError> {
        let open = not_enabled(host).map_err(fail("reading", LINKS))?;
        Ok(if open.is_empty() { Probe::Done } else { Probe::Pending })
    }

    fn probe_undone(&self, host: &Host) -> Result<Probe, StepError> {
        let open = not_enabled(host).map_err(fail("reading", LINKS))?;
        let undone = self.enable.iter().all(|unit| open.contains(unit));
        Ok(if undone { Probe::Done } else { Probe::Pending })
    }

    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError> {
        // Of what is disabled since the plan was made too.
        let now = Self::of(cx.host).map_err(fail("reading", LINKS))?;
        if let Some(cmd) = now.systemctl("enable") {
            run(cx.host, &cmd)?;
            Self::sync(cx.host)?;
        }
        Ok(Outcome::default())
    }

    fn undo(&self, cx: &mut Context<'_>) -> Result<(), StepError> {
        if let Some(cmd) = self.systemctl("disable") {
            run(cx.host, &cmd)?;
            Self::sync(cx.host)?;
        }
        Ok(())
    }
}

/// Has a pool go on that stopped when too few of its members answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WakePool {
    /// The mirror.
    pub spec: MirrorSpec,
}

impl Step for WakePool {
    fn says(&self) -> String {
        format!("have the mirror `{}` go on, which has stopped", self.spec.name)
    }

    fn commands(&self) -> Vec<String> {
        backend::of(self.spec.backend).waking(&self.spec).iter().map(Cmd::line).collect()
    }

    fn probe(&self, host: &Host) -> Result<Probe, StepError> {
        let state = backend::of(self.spec.backend).observe(host, &self.spec.uuid, &self.spec.mountpoint);
        let pool = state.map_err(backend_failed)?.zfs;
        Ok(if pool.is_some_and(|pool| pool.is_suspended()) { Probe::Pending } else { Probe::Done })
    }

    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError> {
        cx.watch.waiting("waiting for the pool to go on");
        backend::of(self.spec.backend)
            .wake(cx.host, &self.spec)
            .map(|()| Outcome::default())
            .map_err(|e| StepError::failed("the pool does not go on; nothing that was written is lost", e))
    }

    fn undo(&self, _: &mut Context<'_>) -> Result<(), StepError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, sync::Arc};

    use super::*;
    use crate::{
        exec::{Reply, ScriptedRunner},
        health::samples,
        host::zfs::boot::UNITS,
    };

    #[test]
    fn units_that_a_boot_starts_already_are_left_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let links = dir.path().join("etc/systemd/system/zfs.target.wants");
        fs::create_dir_all(&links).unwrap();
        fs::write(dir.path().join("etc/systemd/system/zfs.target"), "").unwrap();
        let runner = Arc::new(ScriptedRunner::new().on("systemctl", Reply::ok("")));
        let host = Host::captured(dir.path(), runner, samples::now());
        symlink("/usr/lib/systemd/system/zfs-mount.service", links.join("zfs-mount.service")).unwrap();
        let step = BootPool::of(&host).unwrap();
        assert_eq!(
            step.commands(),
            ["systemctl enable zfs-import-cache.service zfs-import.target zfs.target"]
        );
        assert_eq!(step.probe(&host).unwrap(), Probe::Pending);
        assert_eq!(step.probe_undone(&host).unwrap(), Probe::Done);
        for unit in UNITS.into_iter().filter(|unit| *unit != "zfs-mount.service") {
            symlink(format!("/usr/lib/systemd/system/{unit}"), links.join(unit)).unwrap();
        }
        assert_eq!(step.probe(&host).unwrap(), Probe::Done);
        assert_eq!(step.probe_undone(&host).unwrap(), Probe::Pending);
        assert_eq!(BootPool::of(&host).unwrap().commands(), Vec::<String>::new());
    }
}
