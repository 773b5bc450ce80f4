//! What makes the mirror lasting: the node unit's drop-in, the schedule, the declaration.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::run;
use crate::{
    backend::{self, MirrorSpec},
    config::{self, Mirror},
    exec::{Cmd, log_change},
    host::{
        Host, declaration, files,
        schedule::{self, DropInOf, Rendered},
    },
    model::{BackendKind, Scheduler, mirror::MemberState},
    plan::{Context, Outcome, Probe, Step, StepError},
};

/// Ties the node's unit to the mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropIn {
    /// The node's unit.
    pub unit: String,
    /// Where the mirror is mounted.
    pub mountpoint: PathBuf,
    /// The mirror's name.
    pub mirror: String,
    /// What holds it. Plans of before there was ZFS do not say.
    #[serde(default)]
    pub backend: BackendKind,
    /// The raidguard that guards the start.
    pub binary: PathBuf,
}

/// Installs the regular jobs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstallSchedule {
    /// What runs them.
    pub with: Scheduler,
    /// The mirrors they are for, the new one included.
    pub mirrors: Vec<Mirror>,
    /// Those that were there before.
    pub before: Vec<Mirror>,
    /// The raidguard that they run.
    pub binary: PathBuf,
}

/// Writes the mirror into `/etc/raidguard/raidguard.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Declare {
    /// What was made.
    pub spec: MirrorSpec,
    /// The mirror as far as it was known beforehand: its members' own UUIDs are read when it is written.
    pub mirror: Mirror,
}

fn scheduling(e: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StepError {
    StepError::failed("the schedule could not be changed", e)
}

fn looking(e: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StepError {
    StepError::failed("the mirror could not be looked at", e)
}

impl DropIn {
    fn rendered(&self) -> Result<Rendered, StepError> {
        let Self { unit, mountpoint, mirror, backend, binary } = self;
        schedule::dropin(DropInOf { unit, mountpoint, mirror, backend: *backend, binary }).map_err(scheduling)
    }

    fn path(&self) -> PathBuf {
        self.rendered().map(|r| r.path).unwrap_or_default()
    }
}

impl Declare {
    /// Members are known by the UUIDs that the filesystem gave them.
    fn name_members(&self, host: &Host, mirror: &mut Mirror) -> Result<(), StepError> {
        let state = backend::of(self.spec.backend)
            .observe(host, &self.spec.uuid, &self.spec.mountpoint)
            .map_err(looking)?;
        mirror.uuid.clone_from(&state.uuid);
        if state.members.len() != mirror.member.len() {
            return Err(StepError::wrong(format!(
                "{} members are seen, {} were made",
                state.members.len(),
                mirror.member.len()
            )));
        }
        for (index, (declared, device)) in mirror.member.iter_mut().zip(&self.spec.devices).enumerate() {
            // A name of device-mapper's leads to the node that the kernel names.
            let node = host.resolve(device).unwrap_or_else(|_| device.clone());
            let same =
                |found: &&MemberState| found.path.as_ref().is_some_and(|at| *at == *device || *at == node);
            // ZFS numbers its devices by chance, the others in the order in which they were named.
            let ordered = || state.members.get(index).filter(|_| self.spec.backend != BackendKind::Zfs);
            let found = state.members.iter().find(same).or_else(ordered);
            let found = found.ok_or_else(|| {
                StepError::wrong(format!("{} is not seen among the members", device.display()))
            })?;
            declared.id = found.devid.to_string();
            declared.uuid =
                found.uuid.clone().ok_or_else(|| StepError::wrong("a member's UUID cannot be read"))?;
        }
        Ok(())
    }
}

impl Step for DropIn {
    fn says(&self) -> String {
        format!("tie {} to the mount", self.unit)
    }
    fn commands(&self) -> Vec<String> {
        let path = self.path();
        vec![format!("write {}", path.display()), Cmd::change("systemctl").arg("daemon-reload").line()]
    }
    fn unsays(&self) -> String {
        format!("untie {} from the mount", self.unit)
    }
    fn undo_commands(&self) -> Vec<String> {
        let path = self.path();
        vec![Cmd::change("rm").arg(path).line(), Cmd::change("systemctl").arg("daemon-reload").line()]
    }
    fn probe(&self, host: &Host) -> Result<Probe, StepError> {
        let Rendered { path, text } = self.rendered()?;
        let there =
            host.read_optional(&path).map_err(|e| StepError::failed("the drop-in cannot be read", e))?;
        Ok(if there.as_deref() == Some(&text) { Probe::Done } else { Probe::Pending })
    }
    fn probe_undone(&self, host: &Host) -> Result<Probe, StepError> {
        Ok(if host.path(self.path()).exists() { Probe::Pending } else { Probe::Done })
    }
    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError> {
        let Rendered { path, text } = self.rendered()?;
        log_change(&format!("write {}", path.display()));
        let path = cx.host.path(path);
        let written = files::create_dirs(files::parent(&path), 0o755)
            .and_then(|_| files::replace(&path, text.as_bytes(), 0o644));
        written.map_err(|e| StepError::failed("the drop-in could not be written", e))?;
        run(cx.host, &Cmd::change("systemctl").arg("daemon-reload"))?;
        Ok(Outcome::default())
    }
    fn undo(&self, cx: &mut Context<'_>) -> Result<(), StepError> {
        let path = self.path();
        log_change(&Cmd::change("rm").arg(&path).line());
        let path = cx.host.path(path);
        if files::remove(&path).map_err(|e| StepError::failed("the drop-in could not be removed", e))? {
            // The directory may hold other people's drop-ins.
            let _ = std::fs::remove_dir(files::parent(&path));
            run(cx.host, &Cmd::change("systemctl").arg("daemon-reload"))?;
        }
        Ok(())
    }
}

impl Step for InstallSchedule {
    fn says(&self) -> String {
        let balance = self.mirrors.iter().any(|m| m.schedule.as_ref().is_some_and(|s| s.balance.is_some()));
        let balance = if balance { "balance, " } else { "" };
        format!("install the regular jobs ({}): check, {balance}scrub", self.with)
    }
    fn commands(&self) -> Vec<String> {
        schedule::commands(self.with, &self.mirrors, &self.binary).unwrap_or_default()
    }
    fn unsays(&self) -> String {
        "remove the regular jobs".to_owned()
    }
    fn undo_commands(&self) -> Vec<String> {
        schedule::undo_commands(self.with, &self.mirrors, &self.before, &self.binary).unwrap_or_default()
    }
    fn probe(&self, host: &Host) -> Result<Probe, StepError> {
        let there =
            schedule::is_installed(host, self.with, &self.mirrors, &self.binary).map_err(scheduling)?;
        Ok(if there { Probe::Done } else { Probe::Pending })
    }
    fn probe_undone(&self, host: &Host) -> Result<Probe, StepError> {
        let back = schedule::is_installed(host, self.with, &self.before, &self.binary).map_err(scheduling)?;
        Ok(if back { Probe::Done } else { Probe::Pending })
    }
    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError> {
        schedule::install(cx.host, self.with, &self.mirrors, &self.binary).map_err(scheduling)?;
        Ok(Outcome::default())
    }
    fn undo(&self, cx: &mut Context<'_>) -> Result<(), StepError> {
        schedule::install(cx.host, self.with, &self.before, &self.binary).map_err(scheduling)
    }
}

impl Step for Declare {
    fn says(&self) -> String {
        format!("declare the mirror `{}` in {}", self.spec.name, config::PATH)
    }
    fn commands(&self) -> Vec<String> {
        vec![format!("write {}", config::PATH)]
    }
    fn unsays(&self) -> String {
        format!("remove the declaration of `{}`", self.spec.name)
    }
    fn undo_commands(&self) -> Vec<String> {
        vec![format!("write {}", config::PATH)]
    }
    fn probe(&self, host: &Host) -> Result<Probe, StepError> {
        let config =
            declaration::load(host).map_err(|e| StepError::failed("the declaration cannot be read", e))?;
        let backend = backend::of(self.spec.backend);
        let mut declared = false;
        for mirror in config.mirror.iter().filter(|m| m.name == self.spec.name) {
            let made = backend.made_as(host, &mirror.uuid).map_err(looking)?;
            declared |= mirror.uuid == self.spec.uuid || made == self.spec.uuid;
        }
        Ok(if declared { Probe::Done } else { Probe::Pending })
    }
    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError> {
        let mut mirror = self.mirror.clone();
        if mirror.member.iter().any(|m| m.uuid.is_empty()) {
            self.name_members(cx.host, &mut mirror)?;
        }
        self.commands().iter().for_each(|c| log_change(c));
        declaration::add(cx.host, &mirror)
            .map_err(|e| StepError::failed("the declaration could not be written", e))?;
        Ok(Outcome::default())
    }
    fn undo(&self, cx: &mut Context<'_>) -> Result<(), StepError> {
        self.undo_commands().iter().for_each(|c| log_change(c));
        declaration::remove(cx.host, &self.spec.name)
            .map_err(|e| StepError::failed("the declaration could not be removed", e))?;
        Ok(())
    }
}
