//! Taking down what a rescue made, last first: of this run, and of one that was killed. Each object is looked for, so that what was
//! never made, or is gone already, is no error.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::{
    OverlayError, block, dm, fuse, pool,
    record::{Keeper, Object},
};
use crate::{
    exec::{Cmd, Signal},
    host::{
        Host,
        files::{self, Doing as _},
        mountinfo,
    },
};

/// How long something that is still in use is waited for. The kernel unmounts what a namespace held after its last thread has gone.
pub(super) const PATIENCE: Duration =
    if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(20) };
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Takes down everything in the record. Stops at what cannot be undone: what is below it must stay, and so does the record, for the
/// next run.
pub(super) fn take_down(host: &Host, keeper: &mut Keeper) -> Result<Vec<String>, OverlayError> {
    let mut said = Vec::new();
    while let Some(object) = keeper.record.objects.last().cloned() {
        said.extend(undo(host, &object)?);
        keeper.strike(host)?;
    }
    keeper.forget(host)?;
    Ok(said)
}

/// Takes down what is above the survivors, down to their read-only flags.
pub(super) fn take_down_above(host: &Host, keeper: &mut Keeper) -> Result<(), OverlayError> {
    while keeper.record.objects.last().is_some_and(|object| !matches!(object, Object::Frozen { .. })) {
        take_down_last(host, keeper)?;
    }
    Ok(())
}

/// Takes down what was made last.
pub(super) fn take_down_last(host: &Host, keeper: &mut Keeper) -> Result<(), OverlayError> {
    let Some(object) = keeper.record.objects.last().cloned() else { return Ok(()) };
    undo(host, &object)?;
    keeper.strike(host)
}

/// Undoes one object. Says what there was to undo.
fn undo(host: &Host, object: &Object) -> Result<Option<String>, OverlayError> {
    match object {
        Object::Frozen { device, kname, sequence, was_read_only } => {
            thaw(host, device, kname, *sequence, *was_read_only)
        }
        Object::Directory { path } => match fs::remove_dir(host.path(path)) {
            Ok(()) => {
                files::sync_dir(files::parent(&host.path(path)))?;
                Ok(Some(format!("removed {}", path.display())))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).doing("removing", path).map_err(Into::into),
        },
        Object::File { path } => {
            Ok(files::remove(&host.path(path))?.then(|| format!("removed {}", path.display())))
        }
        Object::Daemon { pidfile, exports } => end(host, pidfile, exports),
        Object::Loop { backing } => detach(host, backing),
        Object::Snapshot { name } | Object::Joined { name } => remove(host, name),
        Object::Pool { name } => pool::export(host, name),
    }
}

fn thaw(
    host: &Host,
    device: &Path,
    kname: &str,
    sequence: Option<u64>,
    was_read_only: bool,
) -> Result<Option<String>, OverlayError> {
    let gone = block::attribute(host, kname, "ro")?.is_none();
    // Another disk that took its name has never been touched.
    if gone
        || was_read_only
        || block::sequence(host, kname)? != sequence
        || !block::is_read_only(host, kname)?
    {
        return Ok(None);
    }
    host.runner().run(&Cmd::change("blockdev").arg("--setrw").arg(device))?;
    Ok(Some(format!("{} takes writes again", device.display())))
}

fn detach(host: &Host, backing: &Path) -> Result<Option<String>, OverlayError> {
    let mut told = None;
    for kname in block::loops_over(host, backing)? {
        let device = Path::new("/dev").join(&kname);
        // The flag would stay for whoever gets the loop device next.
        if block::is_read_only(host, &kname)? {
            host.runner().run(&Cmd::change("blockdev").arg("--setrw").arg(&device))?;
        }
        host.runner().run(&Cmd::change("losetup").arg("--detach").arg(&device))?;
        // One in use is detached when its last user has gone (losetup(8)).
        wait_until(&device, || Ok(!block::loops_over(host, backing)?.contains(&kname)))?;
        told = Some(format!("detached {} from {}", device.display(), backing.display()));
    }
    Ok(told)
}

fn remove(host: &Host, name: &str) -> Result<Option<String>, OverlayError> {
    if !dm::exists(host, name)? {
        return Ok(None);
    }
    host.runner().run(&Cmd::change("dmsetup").args(["remove", "--retry", name]))?;
    Ok(Some(format!("removed the device-mapper device {name}")))
}

/// Ends the daemon that was started with this pid file, and unmounts its exports where it did not.
fn end(host: &Host, pidfile: &Path, exports: &[PathBuf]) -> Result<Option<String>, OverlayError> {
    let mut told = None;
    for (signal, patience) in [(Signal::SIGTERM, PATIENCE), (Signal::SIGKILL, PATIENCE)] {
        for pid in fuse::daemons(host, pidfile)? {
            host.runner().signal(pid, signal).doing("ending", format!("process {pid}"))?;
            told = Some(format!("ended the qemu-storage-daemon with the pid {pid}"));
        }
        let ended = wait(patience, || Ok(fuse::daemons(host, pidfile)?.is_empty()))?;
        if ended {
            break;
        }
    }
    if let Some(pid) = fuse::daemons(host, pidfile)?.first() {
        return Err(OverlayError::InUse { what: format!("the qemu-storage-daemon with the pid {pid}") });
    }
    for export in exports {
        while mounted(host, export)? {
            host.runner().run(&Cmd::change("umount").arg("--lazy").arg(export))?;
            told.get_or_insert_with(|| format!("unmounted {}", export.display()));
        }
    }
    Ok(told)
}

fn mounted(host: &Host, export: &Path) -> Result<bool, OverlayError> {
    Ok(mountinfo::topmost_at(&fuse::mounts(host)?, export).is_some())
}

fn wait_until(device: &Path, ready: impl FnMut() -> Result<bool, OverlayError>) -> Result<(), OverlayError> {
    if wait(PATIENCE, ready)? {
        return Ok(());
    }
    Err(OverlayError::InUse { what: device.display().to_string() })
}

pub(super) fn wait(
    patience: Duration,
    mut ready: impl FnMut() -> Result<bool, OverlayError>,
) -> Result<bool, OverlayError> {
    let began = Instant::now();
    loop {
        if ready()? {
            return Ok(true);
        }
        if began.elapsed() > patience {
            return Ok(false);
        }
        thread::sleep(LOOK_AGAIN);
    }
}
