//! Devices, filesystem, fstab, mount.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{fail, listed, run};
use crate::{
    backend::{self, BackendError, Made, MirrorSpec},
    exec::{Cmd, log_change},
    host::{Host, fstab, inventory, mountinfo, zfs},
    model::{Device, Identity, Inventory, inventory::Content, mirror::MirrorState},
    plan::{Context, Outcome, Probe, Step, StepError},
};

/// Erases old signatures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Erase {
    /// What is erased.
    pub devices: Vec<Identity>,
    /// The mirror that takes their place: what is found of it later is not erased.
    pub spec: MirrorSpec,
    /// The partitions that are made on them next: a device that has one of them was erased before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<String>,
    /// Those of them that have labels of ZFS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labelled: Vec<PathBuf>,
    /// The member's number that a device has by what an earlier exchange left of this very mirror on it: while that is found there, it was
    /// not erased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leftover: Option<u64>,
}

impl Erase {
    /// Erases these devices, each with what it holds.
    pub fn of<'c>(devices: impl IntoIterator<Item = (Identity, &'c Content)>, spec: MirrorSpec) -> Self {
        let mut step =
            Self { devices: Vec::new(), spec, before: Vec::new(), labelled: Vec::new(), leftover: None };
        for (device, content) in devices {
            if content.has_zfs() {
                step.labelled.push(device.path.clone());
            }
            step.devices.push(device);
        }
        step
    }

    fn is_left(&self, host: &Host) -> Result<bool, StepError> {
        let Some(number) = self.leftover else { return Ok(false) };
        let claims = backend::of(self.spec.backend).claims(host).map_err(backend_failed)?;
        Ok(claims.get(&self.spec.uuid).is_some_and(|claims| claims.iter().any(|c| c.devid == number)))
    }

    fn is_partitioned(&self, machine: &Inventory, disk: &Device) -> bool {
        let ours = |part: &Device| part.partuuid.as_ref().is_some_and(|uuid| self.before.contains(uuid));
        machine.devices.iter().any(|part| part.parents.contains(&disk.kname) && ours(part))
    }

    /// What is run, device by device. wipefs alone would leave of ZFS what other versions of it find.
    fn erasing(&self) -> impl Iterator<Item = Cmd> {
        self.devices.iter().flat_map(|device| {
            let labelled = self.labelled.contains(&device.path);
            let labels = labelled.then(|| zfs::clear_commands(&device.path, device.size.0));
            let wipe = Cmd::destroy("wipefs").arg("--all").arg(&device.path);
            labels.into_iter().flatten().chain([wipe])
        })
    }
}

/// Makes the mirror's filesystem.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MakeMirror {
    /// What is made.
    pub spec: MirrorSpec,
    /// Its members' identities.
    pub members: Vec<Identity>,
}

/// Adds the mirror's line to `/etc/fstab`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fstab {
    /// The line.
    pub entry: fstab::Entry,
    /// The comment above it.
    pub comment: String,
    /// systemd reads fstab only when told to.
    pub systemd: bool,
}

/// Mounts the mirror by its fstab line, or as its backend does, and looks at what was mounted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MountMirror {
    /// What must be mounted.
    pub spec: MirrorSpec,
}

/// Makes the directory for the node's files a filesystem tree of its own (a subvolume), so that it can be snapshotted alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Container {
    /// What it lies on.
    pub spec: MirrorSpec,
    /// Where.
    pub path: PathBuf,
}

pub(super) fn backend_failed(e: BackendError) -> StepError {
    StepError::failed("the mirror could not be looked at", e)
}

impl Step for Erase {
    fn says(&self) -> String {
        let paths: Vec<_> = self.devices.iter().map(|d| d.path.clone()).collect();
        format!("erase what is on {}", listed(&paths))
    }

    fn commands(&self) -> Vec<String> {
        self.erasing().map(|cmd| cmd.line()).collect()
    }

    fn probe(&self, host: &Host) -> Result<Probe, StepError> {
        let left = self.is_left(host)?;
        if !left {
            match backend::of(self.spec.backend).made(host, &self.spec).map_err(backend_failed)? {
                Made::Complete | Made::Partial(_) => return Ok(Probe::Done),
                Made::No => {}
            }
        }
        let machine =
            inventory::gather(host).map_err(|e| StepError::failed("the devices cannot be read", e))?;
        for device in &self.devices {
            let found = machine.by_path(&device.path);
            if found.is_some_and(|disk| self.is_partitioned(&machine, disk)) {
                continue;
            }
            match found.map(|d| &d.content) {
                Some(Content::Empty) if left => return Ok(Probe::Pending),
                Some(Content::Empty) => {}
                Some(Content::Known(_)) => return Ok(Probe::Pending),
                Some(Content::Unknown(why)) => {
                    return Ok(Probe::Blocked(format!(
                        "what is on {} cannot be told: {why}",
                        device.path.display()
                    )));
                }
                None => {
                    return Ok(Probe::Blocked(format!("{} is not there any more", device.path.display())));
                }
            }
        }
        Ok(Probe::Done)
    }

    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError> {
        for cmd in self.erasing() {
            run(cx.host, &cmd)?;
        }
        Ok(Outcome::default())
    }

    fn undo(&self, _: &mut Context<'_>) -> Result<(), StepError> {
        // Said beforehand: what was erased with --wipe does not come back.
        Ok(())
    }

    fn erases(&self) -> &[Identity] {
        &self.devices
    }
}

impl Step for MakeMirror {
    fn says(&self) -> String {
        let (backend, level) = (self.spec.backend, self.spec.level);
        let on =
            self.spec.filesystem.as_ref().map_or_else(String::new, |f| format!(", and {} on it", f.kind));
        format!("make a {backend} mirror ({level}) of {}{on}", listed(&self.spec.devices))
    }

    fn commands(&self) -> Vec<String> {
        backend::of(self.spec.backend).create_commands(&self.spec).iter().map(Cmd::line).collect()
    }

    fn probe(&self, host: &Host) -> Result<Probe, StepError> {
        match backend::of(self.spec.backend).made(host, &self.spec).map_err(backend_failed)? {
            Made::Complete => Ok(Probe::Done),
            Made::No | Made::Partial(_) => Ok(Probe::Pending),
        }
    }

    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError> {
        let backend = backend::of(self.spec.backend);
        if let Made::Partial(_) = backend.made(cx.host, &self.spec).map_err(backend_failed)? {
            // The remains of an interrupted attempt of this very plan: they carry its UUID.
            for cmd in backend.unmake_commands(cx.host, &self.spec).map_err(backend_failed)? {
                run(cx.host, &cmd)?;
            }
        }
        for cmd in backend.create_commands(&self.spec) {
            run(cx.host, &cmd)?;
        }
        Ok(Outcome::note(format!("UUID {}", self.spec.uuid)))
    }

    fn undo(&self, cx: &mut Context<'_>) -> Result<(), StepError> {
        let backend = backend::of(self.spec.backend);
        if backend.made(cx.host, &self.spec).map_err(backend_failed)? != Made::No {
            for cmd in backend.unmake_commands(cx.host, &self.spec).map_err(backend_failed)? {
                run(cx.host, &cmd)?;
            }
        }
        Ok(())
    }

    fn erases(&self) -> &[Identity] {
        &self.members
    }
}

impl Fstab {
    fn reload(&self, host: &Host) -> Result<(), StepError> {
        if self.systemd {
            run(host, &Cmd::change("systemctl").arg("daemon-reload"))?;
        }
        Ok(())
    }
}

impl Step for Fstab {
    fn says(&self) -> String {
        format!("add the mirror to /etc/fstab, mounted at {}", self.entry.mountpoint.display())
    }

    fn commands(&self) -> Vec<String> {
        let mut lines = vec![format!("write /etc/fstab: {}", self.entry.line())];
        if self.systemd {
            lines.push(Cmd::change("systemctl").arg("daemon-reload").line());
        }
        lines
    }

    fn unsays(&self) -> String {
        "remove the mirror from /etc/fstab".to_owned()
    }

    fn undo_commands(&self) -> Vec<String> {
        let mut lines = vec!["write /etc/fstab".to_owned()];
        if self.systemd {
            lines.push(Cmd::change("systemctl").arg("daemon-reload").line());
        }
        lines
    }

    fn probe(&self, host: &Host) -> Result<Probe, StepError> {
        match fstab::has(host, &self.entry) {
            Ok(true) => Ok(Probe::Done),
            Ok(false) => Ok(Probe::Pending),
            Err(e) => Err(StepError::failed("/etc/fstab cannot be read", e)),
        }
    }

    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError> {
        if let Some(write) = self.commands().first() {
            log_change(write);
        }
        fstab::add(cx.host, &self.entry, &self.comment)
            .map_err(|e| StepError::failed("/etc/fstab could not be changed; it is as it was", e))?;
        self.reload(cx.host)?;
        Ok(Outcome::default())
    }

    fn undo(&self, cx: &mut Context<'_>) -> Result<(), StepError> {
        if let Some(write) = self.undo_commands().first() {
            log_change(write);
        }
        fstab::remove(cx.host, &self.entry, &self.comment)
            .map_err(|e| StepError::failed("/etc/fstab could not be put back", e))?;
        self.reload(cx.host)
    }
}

/// How many members there are, and at which level everything is.
pub(super) fn all_at(state: &MirrorState, level: impl fmt::Display) -> String {
    let members = state.members.iter().filter(|m| !m.missing).count();
    match (&state.md, &state.zfs) {
        (Some(md), _) => format!("{members} members of {}, {level}", md.device.display()),
        (None, Some(pool)) => format!("{members} members of the pool {}, {level}", pool.name),
        (None, None) => format!("{members} members, data, metadata and system all {level}"),
    }
}

impl MountMirror {
    fn mounted(&self, host: &Host) -> Result<Option<bool>, StepError> {
        let mounts = mountinfo::read(host).map_err(|e| StepError::failed("the mounts cannot be read", e))?;
        if mountinfo::topmost_at(&mounts, &self.spec.mountpoint).is_none() {
            return Ok(None);
        }
        let state = backend::of(self.spec.backend)
            .observe(host, &self.spec.uuid, &self.spec.mountpoint)
            .map_err(backend_failed)?;
        Ok(Some(state.mounted))
    }

    fn mountpoint(&self) -> &Path {
        &self.spec.mountpoint
    }
}

impl Step for MountMirror {
    fn says(&self) -> String {
        format!("mount it at {} and look at its members and profiles", self.mountpoint().display())
    }

    fn commands(&self) -> Vec<String> {
        let backend = backend::of(self.spec.backend);
        let assembling = backend.assembling(&self.spec, &self.spec.devices);
        let mut lines: Vec<String> =
            assembling.iter().filter(|_| !backend.is_assembled_when_made()).map(Cmd::line).collect();
        lines.extend(backend.mounting(&self.spec).iter().map(Cmd::line));
        lines
    }

    fn unsays(&self) -> String {
        format!("unmount {}", self.mountpoint().display())
    }

    fn undo_commands(&self) -> Vec<String> {
        vec![Cmd::change("umount").arg(self.mountpoint()).line()]
    }

    fn probe(&self, host: &Host) -> Result<Probe, StepError> {
        Ok(match self.mounted(host)? {
            Some(true) => Probe::Done,
            Some(false) => {
                Probe::Blocked(format!("another filesystem is mounted at {}", self.mountpoint().display()))
            }
            None => Probe::Pending,
        })
    }

    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError> {
        let backend = backend::of(self.spec.backend);
        let assemble = backend.assemble_commands(cx.host, &self.spec, &self.spec.devices);
        for cmd in assemble.map_err(backend_failed)? {
            run(cx.host, &cmd)?;
        }
        for cmd in backend.mount_in_place(cx.host, &self.spec).map_err(backend_failed)? {
            run(cx.host, &cmd)?;
        }
        let state = backend.observe(cx.host, &self.spec.uuid, self.mountpoint()).map_err(backend_failed)?;
        let present = state.members.iter().filter(|m| !m.missing).count();
        if present != self.spec.devices.len() || state.members.len() != present {
            return Err(StepError::wrong(format!(
                "{present} of {} members are there after mounting",
                self.spec.devices.len()
            )));
        }
        let level = self.spec.level.to_string();
        if let Some(other) = state.profiles.iter().find(|p| p.profile != level) {
            return Err(StepError::wrong(format!("{} is {}, not {level}", other.kind, other.profile)));
        }
        if let Some(other) = state.drifted(&level).first() {
            return Err(StepError::wrong(format!("what was mounted is no {level}: {other}")));
        }
        Ok(Outcome::note(all_at(&state, level)))
    }

    fn comes_by_boot(&self) -> bool {
        true
    }

    fn undo(&self, cx: &mut Context<'_>) -> Result<(), StepError> {
        match self.mounted(cx.host)? {
            Some(true) => run(cx.host, &Cmd::change("umount").arg(self.mountpoint())).map(drop),
            _ => Ok(()),
        }
    }
}

impl Step for Container {
    fn says(&self) -> String {
        format!("make the {} {}", backend::of(self.spec.backend).container_word(), self.path.display())
    }

    fn commands(&self) -> Vec<String> {
        backend::of(self.spec.backend).container_commands(&self.path).iter().map(Cmd::line).collect()
    }

    fn probe(&self, host: &Host) -> Result<Probe, StepError> {
        if !self.path.exists() {
            return Ok(Probe::Pending);
        }
        let made = backend::of(self.spec.backend).is_container(host, &self.path).map_err(backend_failed)?;
        Ok(if made {
            Probe::Done
        } else {
            let word = backend::of(self.spec.backend).container_word();
            Probe::Blocked(format!("{} exists and is no {word}", self.path.display()))
        })
    }

    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError> {
        for cmd in backend::of(self.spec.backend).container_commands(&self.path) {
            run(cx.host, &cmd)?;
        }
        Ok(Outcome::default())
    }

    fn undo(&self, cx: &mut Context<'_>) -> Result<(), StepError> {
        let backend = backend::of(self.spec.backend);
        if !self.path.exists() || !backend.is_container(cx.host, &self.path).map_err(backend_failed)? {
            return Ok(());
        }
        // The copy is taken out before; whatever else is in it is somebody's.
        let mut entries = std::fs::read_dir(&self.path).map_err(fail("reading", &self.path))?;
        if entries.next().is_some() {
            return Err(StepError::refused(format!("{} is not empty", self.path.display())));
        }
        for cmd in backend.container_delete_commands(&self.path) {
            run(cx.host, &cmd)?;
        }
        Ok(())
    }
}
