//! A mirror is mounted to be worked on, and brought back to its place: with a member missing only where nothing but raidguard sees it.

use std::{
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{fail, run, storage::backend_failed};
use crate::{
    backend::{self, MirrorSpec},
    config::Mirror,
    exec::{Cmd, log_change},
    host::{Host, declaration, files, lock::RUN_DIR, mountinfo},
    model::mirror::MirrorState,
    plan::{Context, Outcome, Probe, Step, StepError},
};

/// Where a mirror is mounted that may not be at its place yet: systemd could take it away there, and a node could start on it.
pub fn private_place(name: &str) -> PathBuf {
    Path::new(RUN_DIR).join("mirrors").join(name)
}

/// Mounts the mirror so that it can be worked on: at its place where it is whole, else degraded at a private one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MountForWork {
    /// The mirror, with the members that are there.
    pub spec: MirrorSpec,
    /// The numbers of all its members.
    pub members: Vec<u64>,
    /// Whether it was whole when the plan was made.
    pub whole: bool,
    /// Whether it was mounted then: nothing is to be done, unless the machine is started anew meanwhile.
    pub mounted: bool,
    /// Devices that must not be taken for members.
    pub without: Vec<PathBuf>,
}

/// Mounts the mirror at its place, whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MountInPlace {
    /// The mirror, with its members as they will be.
    pub spec: MirrorSpec,
    /// Unmount it first even where it is mounted as it should be: a running mirror does not take a member back.
    pub anew: bool,
    /// Where it is mounted until then, as the plan has it; nothing where it is mounted as it should be.
    pub from: Option<PathBuf>,
    /// Where the fact that it was unmounted for that is kept.
    pub record: PathBuf,
}

/// Unmounts the mirror from its private place, where it cannot be mounted at its own yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LeavePrivate {
    /// The mirror.
    pub spec: MirrorSpec,
}

/// Where the mirror is mounted now, and what it looks like.
pub(super) fn mounted_at(
    host: &Host,
    spec: &MirrorSpec,
) -> Result<(Option<PathBuf>, MirrorState), StepError> {
    let state =
        backend::of(spec.backend).observe(host, &spec.uuid, &spec.mountpoint).map_err(backend_failed)?;
    let private = private_place(&spec.name);
    let at = if state.mounted {
        Some(spec.mountpoint.clone())
    } else {
        state.also_mounted.iter().find(|at| **at == private).cloned()
    };
    Ok((at, state))
}

/// As [`mounted_at`], for a step that cannot go on without.
pub(super) fn must_be_mounted(host: &Host, spec: &MirrorSpec) -> Result<(PathBuf, MirrorState), StepError> {
    let (at, state) = mounted_at(host, spec)?;
    let at = at.ok_or_else(|| {
        StepError::refused(format!("the mirror `{}` is not mounted any more", spec.name))
            .hint("run the same command again: it mounts it")
    })?;
    Ok((at, state))
}

/// Why a mirror is mounted nowhere and cannot be mounted at its place: with a member missing it takes a mount of its own kind.
fn absent(host: &Host, mirror: &Mirror) -> Result<Option<String>, StepError> {
    let backend = backend::of(mirror.backend);
    if !backend.degrades_a_mount() {
        return Ok(None);
    }
    let state = backend.observe(host, &mirror.uuid, &mirror.mountpoint).map_err(backend_failed)?;
    let here = |id: &str| state.members.iter().any(|m| !m.missing && m.devid.to_string() == id);
    let Some(gone) = mirror.member.iter().find(|m| !here(&m.id)).filter(|_| !state.mounted) else {
        return Ok(None);
    };
    let (name, at, id) = (&mirror.name, mirror.mountpoint.display(), &gone.id);
    Ok(Some(format!(
        "the mirror is not mounted at {at}, since {gone} is missing. Plug it in again: raidguard repair {name}; if it is dead: raidguard \
         replace {name} --old {id} --new DEVICE; then start the node"
    )))
}

/// The same of the mirror that is declared to hold these files.
pub(super) fn absent_with(host: &Host, data: &Path) -> Result<Option<String>, StepError> {
    let config =
        declaration::load(host).map_err(|e| StepError::failed("the declaration cannot be read", e))?;
    let mirror = config.mirror.iter().find(|mirror| data.starts_with(&mirror.mountpoint));
    mirror.map_or(Ok(None), |mirror| absent(host, mirror))
}

/// How often, and how far apart, a mount or an unmount is tried. What has just ended may not have let go yet; and libblkid believes for
/// two seconds that a device holds what it held, though it is gone (`BLKID_PROBE_MIN`). Also where somebody asked to stop: what is put back
/// then needs it most.
const TRIES: u32 = 10;
const APART: Duration = Duration::from_millis(500);

fn patiently(host: &Host, cmd: &Cmd) -> Result<(), StepError> {
    let mut tries = 1;
    loop {
        match run(host, cmd) {
            Ok(_) => return Ok(()),
            Err(_) if tries < TRIES => {
                tries += 1;
                thread::sleep(APART);
            }
            Err(e) => return Err(e),
        }
    }
}

fn unmount(host: &Host, at: &Path) -> Result<(), StepError> {
    patiently(host, &Cmd::change("umount").arg(at)).map_err(|e| {
        e.hint(format!(
            "see with `fuser -vm {}` what uses it, and stop that; then run the same command again",
            at.display()
        ))
    })
}

/// Runs the commands of a mount; the last one is the mount itself.
fn mount(host: &Host, mut cmds: Vec<Cmd>) -> Result<(), StepError> {
    let last = cmds.pop();
    for cmd in cmds {
        run(host, &cmd)?;
    }
    last.map_or(Ok(()), |cmd| patiently(host, &cmd))
}

/// Unmounts the private place, if it is mounted, and removes it.
fn leave_private(host: &Host, spec: &MirrorSpec) -> Result<(), StepError> {
    let place = private_place(&spec.name);
    let mounts = mountinfo::read(host).map_err(|e| StepError::failed("the mounts cannot be read", e))?;
    if mountinfo::topmost_at(&mounts, &place).is_some() {
        unmount(host, &place)?;
    }
    let real = host.path(&place);
    if real.is_dir() {
        std::fs::remove_dir(&real).map_err(fail("removing", &place))?;
    }
    Ok(())
}

fn there(state: &MirrorState) -> Vec<PathBuf> {
    state.members.iter().filter(|m| !m.missing).filter_map(|m| m.path.clone()).collect()
}

impl MountForWork {
    /// Has the kernel know the members, and no other device as one.
    fn preparing(&self, assemble: Vec<Cmd>) -> Vec<Cmd> {
        let mut cmds = backend::of(self.spec.backend).rescue().forget_commands(&self.without);
        cmds.extend(assemble);
        cmds
    }

    /// Mounts it degraded where nobody looks.
    fn degraded(&self, devices: &[PathBuf]) -> Vec<Cmd> {
        let place = private_place(&self.spec.name);
        backend::of(self.spec.backend).rescue().mount_commands("degraded", &[], devices, &place)
    }

    fn in_place(&self) -> bool {
        self.whole || !backend::of(self.spec.backend).degrades_a_mount()
    }

    fn place(&self) -> PathBuf {
        if self.in_place() { self.spec.mountpoint.clone() } else { private_place(&self.spec.name) }
    }
}

impl Step for MountForWork {
    fn says(&self) -> String {
        let at = self.place();
        if self.mounted {
            format!("see that the mirror is mounted at {}", self.spec.mountpoint.display())
        } else if self.in_place() {
            format!("mount the mirror at {}", at.display())
        } else {
            format!("mount the mirror degraded, at {}, where no node looks", at.display())
        }
    }

    fn commands(&self) -> Vec<String> {
        if self.mounted {
            return Vec::new();
        }
        let devices = &self.spec.devices;
        let backend = backend::of(self.spec.backend);
        let mut cmds = self.preparing(backend.assembling(&self.spec, devices));
        cmds.extend(if self.in_place() { backend.mounting(&self.spec) } else { self.degraded(devices) });
        let mut lines: Vec<String> = cmds.iter().map(Cmd::line).collect();
        if !self.in_place() {
            lines.insert(0, Cmd::change("mkdir").arg("-p").arg(self.place()).line());
        }
        lines
    }

    fn probe(&self, host: &Host) -> Result<Probe, StepError> {
        let (at, state) = mounted_at(host, &self.spec)?;
        Ok(match at {
            _ if state.instead.is_some() => {
                Probe::Blocked(format!("another filesystem is mounted at {}", self.spec.mountpoint.display()))
            }
            Some(at) if state.read_only => {
                Probe::Blocked(format!("the mirror is read-only at {}", at.display()))
            }
            Some(_) => Probe::Done,
            None => Probe::Pending,
        })
    }

    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError> {
        let (_, state) = mounted_at(cx.host, &self.spec)?;
        let mut devices = there(&state);
        devices.retain(|d| !self.without.contains(d));
        if devices.is_empty() {
            return Err(StepError::refused("no member of the mirror is on this machine"));
        }
        // What is there now decides: a member may have gone since, or the exchange may have been done.
        let whole = self.members.iter().all(|id| state.members.iter().any(|m| m.devid == *id && !m.missing))
            && self.without.is_empty();
        let backend = backend::of(self.spec.backend);
        let whole = whole || !backend.degrades_a_mount();
        if !whole {
            let place = private_place(&self.spec.name);
            log_change(&Cmd::change("mkdir").arg("-p").arg(&place).line());
            files::create_dirs(&cx.host.path(&place), 0o700).map_err(fail("making", &place))?;
        }
        let assemble = backend.assemble_commands(cx.host, &self.spec, &devices).map_err(backend_failed)?;
        for cmd in self.preparing(assemble) {
            run(cx.host, &cmd)?;
        }
        let mounting = if whole {
            backend.mount_in_place(cx.host, &self.spec).map_err(backend_failed)?
        } else {
            self.degraded(&devices)
        };
        mount(cx.host, mounting)?;
        Ok(if whole || !(self.whole || self.mounted) {
            Outcome::default()
        } else {
            Outcome::note("a member was gone, so it was mounted degraded at a private place")
        })
    }

    fn undo(&self, cx: &mut Context<'_>) -> Result<(), StepError> {
        leave_private(cx.host, &self.spec)
    }
}

impl MountInPlace {
    fn mount(&self, host: &Host, state: &MirrorState) -> Result<(), StepError> {
        let backend = backend::of(self.spec.backend);
        for cmd in backend.assemble_commands(host, &self.spec, &there(state)).map_err(backend_failed)? {
            run(host, &cmd)?;
        }
        mount(host, backend.mount_in_place(host, &self.spec).map_err(backend_failed)?)
    }

    fn was_unmounted(&self, host: &Host) -> bool {
        host.path(&self.record).exists()
    }
}

impl Step for MountInPlace {
    fn says(&self) -> String {
        let at = self.spec.mountpoint.display();
        if self.from.is_none() {
            format!("see that the mirror is mounted at {at}, whole")
        } else if self.anew {
            format!("unmount {at} and mount it again with every member")
        } else {
            format!("mount the mirror at {at} without `degraded`")
        }
    }

    fn commands(&self) -> Vec<String> {
        let Some(from) = &self.from else { return Vec::new() };
        let unmount = Cmd::change("umount").arg(from).line();
        let backend = backend::of(self.spec.backend);
        let assemble = backend.assembling(&self.spec, &self.spec.devices);
        let mount = backend.mounting(&self.spec);
        std::iter::once(unmount).chain(assemble.iter().chain(&mount).map(Cmd::line)).collect()
    }

    fn probe(&self, host: &Host) -> Result<Probe, StepError> {
        let (_, state) = mounted_at(host, &self.spec)?;
        let private = host.path(private_place(&self.spec.name)).exists();
        let anew = self.anew && !self.was_unmounted(host);
        Ok(if let Some(other) = &state.instead {
            Probe::Blocked(format!("{} shows {other}", self.spec.mountpoint.display()))
        } else if state.mounted && !state.degraded_option && !private && !anew {
            Probe::Done
        } else {
            Probe::Pending
        })
    }

    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError> {
        leave_private(cx.host, &self.spec)?;
        let (at, state) = mounted_at(cx.host, &self.spec)?;
        if at.is_some() && (state.degraded_option || (self.anew && !self.was_unmounted(cx.host))) {
            unmount(cx.host, &self.spec.mountpoint)?;
        }
        if self.anew {
            files::replace(&cx.host.path(&self.record), b"unmounted\n", 0o600)
                .map_err(fail("recording that it was unmounted in", &self.record))?;
        }
        let (at, state) = mounted_at(cx.host, &self.spec)?;
        if at.is_none() {
            self.mount(cx.host, &state)?;
        }
        Ok(Outcome::default())
    }

    fn undo(&self, cx: &mut Context<'_>) -> Result<(), StepError> {
        let (at, state) = mounted_at(cx.host, &self.spec)?;
        if at.is_some() {
            return Ok(());
        }
        match absent_with(cx.host, &self.spec.mountpoint)? {
            Some(why) => tracing::warn!("it stays as it is: {why}"),
            None => self.mount(cx.host, &state)?,
        }
        Ok(())
    }
}

impl Step for LeavePrivate {
    fn says(&self) -> String {
        format!("unmount {}", private_place(&self.spec.name).display())
    }

    fn commands(&self) -> Vec<String> {
        vec![Cmd::change("umount").arg(private_place(&self.spec.name)).line()]
    }

    fn probe(&self, host: &Host) -> Result<Probe, StepError> {
        let left = !host.path(private_place(&self.spec.name)).exists();
        Ok(if left { Probe::Done } else { Probe::Pending })
    }

    fn apply(&self, cx: &mut Context<'_>) -> Result<Outcome, StepError> {
        leave_private(cx.host, &self.spec)?;
        Ok(Outcome::default())
    }

    fn undo(&self, _: &mut Context<'_>) -> Result<(), StepError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
