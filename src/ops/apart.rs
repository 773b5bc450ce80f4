//! `apart`: what a rule of udev asks before the kernel is given a member ([`crate::host::schedule::Rule`]).

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Exit, Trouble, mirrors, trouble::need_root};
use crate::{
    backend::{self, BackendError},
    host::{Host, files, patience::Askers, schedule},
    model::{BackendKind, observed::causes},
    ui::Console,
};

/// Those whose members udev hands to the kernel one by one.
const BY_UDEV: [BackendKind; 2] = [BackendKind::Btrfs, BackendKind::Mdadm];

/// systemd waits for a member no longer than fstab says, which is 30 s. (udev kills what it waits for after three minutes.)
const LIMIT: Duration = Duration::from_secs(10);

/// Says `apart` where another half of the mirror is there, and each was written to without the other; nothing else.
///
/// # Errors
/// It cannot be told in time: the kernel then gets the member as if nobody had asked.
pub fn apart(host: &Host, device: &Path, console: &Console) -> Result<Exit, Trouble> {
    let device = device.to_owned();
    let found = in_time(host, move |host| Ok(other_half(host, &device)?.map(|other| (device, other))))?;
    tell(found.as_ref(), console);
    Ok(Exit::Done)
}

/// The same of any two devices of a declared mirror's pool, before it is imported: as long as it is so, a file says it, too.
///
/// # Errors
/// It cannot be told in time, or not be written: the pool is then imported as if nobody had asked.
pub fn pool_apart(host: &Host, name: &str, console: &Console) -> Result<Exit, Trouble> {
    need_root("apart")?;
    let flag = host.path(schedule::apart_flag(name));
    let written = "whether halves of a pool parted could not be written down";
    // What it said before may not be so any more.
    files::remove(&flag).map_err(|e| Trouble::failed(written, e))?;
    let mirror = mirrors::named(host, Some(name))?;
    let found = in_time(host, move |host| {
        let claims = backend::of(mirror.backend).claims(host)?.remove(&mirror.uuid).unwrap_or_default();
        for claim in claims {
            if let Some(other) = backend::of(mirror.backend).other_half(host, &claim.path)? {
                return Ok(Some((claim.path, other)));
            }
        }
        Ok(None)
    })?;
    if found.is_some() {
        files::create_dirs(files::parent(&flag), 0o700)
            .and_then(|_| files::replace(&flag, b"apart\n", 0o600))
            .map_err(|e| Trouble::failed(written, e))?;
    }
    tell(found.as_ref(), console);
    Ok(Exit::Done)
}

type Halves = (PathBuf, PathBuf);

fn in_time(
    host: &Host,
    look: impl FnOnce(&Host) -> Result<Option<Halves>, BackendError> + Send + 'static,
) -> Result<Option<Halves>, Trouble> {
    let asked = {
        let host = host.clone();
        Askers::default().ask(move || look(&host).map_err(|e| causes(&e)))
    };
    let unknown =
        |why| Trouble::failed("whether halves of a mirror parted cannot be told", std::io::Error::other(why));
    asked.wait(LIMIT, host.interrupt()).map_err(|e| unknown(e.to_string()))?.map_err(unknown)
}

fn tell(found: Option<&Halves>, console: &Console) {
    if let Some((device, other)) = found {
        tracing::warn!(
            "{} is kept back from the kernel: it and {} are halves of a mirror that were each written to alone; see `raidguard repair`",
            device.display(),
            other.display()
        );
        console.data("apart\n");
    }
}

fn other_half(host: &Host, device: &Path) -> Result<Option<PathBuf>, BackendError> {
    for kind in BY_UDEV {
        if let Some(half) = backend::of(kind).other_half(host, device)? {
            return Ok(Some(half));
        }
    }
    Ok(None)
}
