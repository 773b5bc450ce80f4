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
        state::State,
    },
    model::{BackendKind, Scheduler, mirror::MemberState, observed::causes},
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
    /// Before the declaration: whoever looks at the mirror by it must not find what was known of an earlier one of its name.
    fn begin_record(&self, host: &Host, mirror: &Mirror) -> Result<(), StepError> {
        let begun = State::open_existing(host).and_then(|state| match state {
            Some(state) => state.begin(&self.spec.name, &mirror.uuid),
            None => Ok(()),
        });
        begun.map_err(|e| StepError::failed("raidguard's record of the mirror could not be begun anew", e))
    }

    /// The record of a mirror that is no longer declared stays, and says whose it is: it may be declared again.
    fn leave_record(&self, host: &Host) -> Result<(), StepError> {
        let config =
            declaration::load(host).map_err(|e| StepError::failed("the declaration cannot be read", e))?;
        let Some(mirror) = config.mirror.iter().find(|m| m.name == self.spec.name) else { return Ok(()) };
        let left = State::open_existing(host).and_then(|state| match state {
            Some(state) => state.keep_whose(&mirror.name, &mirror.uuid),
            None => Ok(()),
        });
        // A record that cannot be read is worth nothing to whoever declares the mirror again.
        if let Err(e) = left {
            tracing::warn!(
                "the record of `{}` does not say which mirror it is about: {}",
                mirror.name,
                causes(&e)
            );
        }
        Ok(())
    }

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
        self.begin_record(cx.host, &mirror)?;
        self.commands().iter().for_each(|c| log_change(c));
        declaration::add(cx.host, &mirror)
            .map_err(|e| StepError::failed("the declaration could not be written", e))?;
        Ok(Outcome::default())
    }
    fn undo(&self, cx: &mut Context<'_>) -> Result<(), StepError> {
        self.leave_record(cx.host)?;
        self.undo_commands().iter().for_each(|c| log_change(c));
        declaration::remove(cx.host, &self.spec.name)
            .map_err(|e| StepError::failed("the declaration could not be removed", e))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;
    use crate::{
        exec::ScriptedRunner,
        health::samples,
        host::state::{PATH, StateError},
        model::{Record, record::LedgerEntry},
    };

    fn declare(uuid: &str) -> Declare {
        let (mut mirror, observed, _) = samples::healthy();
        uuid.clone_into(&mut mirror.uuid);
        let spec = MirrorSpec::of(&mirror, observed.storage.get().unwrap(), Vec::new());
        Declare { spec, mirror }
    }

    fn machine(dir: &tempfile::TempDir) -> Host {
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        Host::captured(dir.path(), Arc::new(ScriptedRunner::new()), Timestamp::UNIX_EPOCH)
    }

    fn record(host: &Host, name: &str) -> Record {
        State::open(host).unwrap().record(name).unwrap()
    }

    /// What checks of a mirror leave.
    fn look(host: &Host, name: &str, commit: u64) -> Record {
        let state = State::open(host).unwrap();
        let seen = LedgerEntry { node_id: Some("02ab".into()), data_version: 7, at: Timestamp::UNIX_EPOCH };
        state.raise_generation(name, commit).unwrap();
        state.raise_ledger(name, "bitcoin", &seen).unwrap();
        let (_, _, before) = samples::healthy();
        let verdict = crate::model::finding::Verdict::of(Vec::new(), Some(1));
        state.keep_verdict(name, &before, &verdict, Timestamp::UNIX_EPOCH).unwrap();
        record(host, name)
    }

    #[test]
    fn a_new_mirror_of_an_old_name_begins_with_a_new_record() {
        let dir = tempfile::tempdir().unwrap();
        let host = machine(&dir);
        let (old, new) = (declare("one"), declare("two"));
        let name = old.spec.name.clone();
        let mut watch = ();
        let mut cx = Context { host: &host, watch: &mut watch };
        old.apply(&mut cx).unwrap();
        assert!(!host.path(PATH).exists(), "nothing is known yet, so nothing is to be forgotten");
        let known = look(&host, &name, 5000);
        look(&host, "other", 5000);
        old.undo(&mut cx).unwrap();
        old.undo(&mut cx).unwrap();
        assert_eq!(record(&host, &name), known, "what is known of it is still true");

        // The same one, as when a release is put back.
        old.apply(&mut cx).unwrap();
        assert_eq!(record(&host, &name), known);
        old.undo(&mut cx).unwrap();

        new.apply(&mut cx).unwrap();
        assert_eq!(record(&host, &name), Record::default());
        assert_eq!(State::open(&host).unwrap().history(&name, 10).unwrap(), []);
        assert_eq!(State::open(&host).unwrap().generation("other").unwrap(), Some(5000));

        // Cut off between the record and the declaration, and taken up again.
        let known = look(&host, &name, 12);
        declaration::remove(&host, &name).unwrap();
        new.apply(&mut cx).unwrap();
        assert_eq!((record(&host, &name), known.generation), (known, Some(12)));
    }

    #[test]
    fn a_record_that_does_not_say_whose_it_is_is_not_the_new_mirrors() {
        let dir = tempfile::tempdir().unwrap();
        let host = machine(&dir);
        let new = declare("two");
        look(&host, &new.spec.name, 5000);
        let mut watch = ();
        new.apply(&mut Context { host: &host, watch: &mut watch }).unwrap();
        assert_eq!(record(&host, &new.spec.name), Record::default());
    }

    #[test]
    fn with_a_record_that_cannot_be_read_nothing_is_declared_and_what_is_can_be_taken_out() {
        let dir = tempfile::tempdir().unwrap();
        let host = machine(&dir);
        let (old, new) = (declare("one"), declare("two"));
        let mut watch = ();
        let mut cx = Context { host: &host, watch: &mut watch };
        old.apply(&mut cx).unwrap();
        look(&host, &old.spec.name, 5000);
        for ending in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(host.path(format!("{PATH}{ending}")));
        }
        std::fs::write(host.path(PATH), "").unwrap();
        old.undo(&mut cx).unwrap();
        assert_eq!(declaration::load(&host).unwrap().mirror, []);
        let refused = new.apply(&mut cx).unwrap_err();
        let why = refused.source.as_ref().and_then(|e| e.downcast_ref::<StateError>());
        assert!(matches!(why, Some(StateError::Empty)), "{refused:?}");
        assert_eq!(new.probe(&host).unwrap(), Probe::Pending);
    }
}
