//! `apart`: what a rule of udev asks before the kernel is given a member ([`crate::host::schedule::Rule`]).

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Exit, Trouble};
use crate::{
    backend::{self, BackendError},
    host::{Host, patience::Askers},
    model::observed::causes,
    ui::Console,
};

/// systemd waits for a member no longer than fstab says, which is 30 s. (udev kills what it waits for after three minutes.)
const LIMIT: Duration = Duration::from_secs(10);

/// Says `apart` where another half of the mirror is there, and each was written to without the other; nothing else.
///
/// # Errors
/// It cannot be told in time: the kernel then gets the member as if nobody had asked.
pub fn apart(host: &Host, device: &Path, console: &Console) -> Result<Exit, Trouble> {
    let asked = {
        let (host, device) = (host.clone(), device.to_owned());
        Askers::default().ask(move || other_half(&host, &device).map_err(|e| causes(&e)))
    };
    let unknown =
        |why| Trouble::failed("whether halves of a mirror parted cannot be told", std::io::Error::other(why));
    let found = asked.wait(LIMIT, host.interrupt()).map_err(|e| unknown(e.to_string()))?.map_err(unknown)?;
    if let Some(other) = found {
        tracing::warn!(
            "{} is kept back from the kernel: it and {} are halves of a mirror that were each written to alone; see `raidguard repair`",
            device.display(),
            other.display()
        );
        console.data("apart\n");
    }
    Ok(Exit::Done)
}

fn other_half(host: &Host, device: &Path) -> Result<Option<PathBuf>, BackendError> {
    for kind in backend::ALL {
        if let Some(half) = backend::of(kind).other_half(host, device)? {
            return Ok(Some(half));
        }
    }
    Ok(None)
}
