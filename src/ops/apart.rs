//! `apart`: what a rule of udev asks before md is given a member ([`crate::host::schedule::Rule`]).

use std::{path::Path, time::Duration};

use super::{Exit, Trouble};
use crate::{
    backend::mdadm,
    host::{Host, patience::Askers},
    model::observed::causes,
    ui::Console,
};

/// udev kills what it waits for after three minutes, and md would not get the member then.
const LIMIT: Duration = Duration::from_secs(30);

/// Says `apart` where another half of the array is there, and each was written to without the other; nothing else.
///
/// # Errors
/// It cannot be told in time: md then gets the member as if nobody had asked.
pub fn apart(host: &Host, device: &Path, console: &Console) -> Result<Exit, Trouble> {
    let asked = {
        let (host, device) = (host.clone(), device.to_owned());
        Askers::default().ask(move || mdadm::other_half(&host, &device).map_err(|e| causes(&e)))
    };
    let unknown =
        |why| Trouble::failed("whether halves of an array parted cannot be told", std::io::Error::other(why));
    let found = asked.wait(LIMIT, host.interrupt()).map_err(|e| unknown(e.to_string()))?.map_err(unknown)?;
    if let Some(other) = found {
        tracing::warn!(
            "{} is kept back from md: it and {} are halves of an array that were each written to alone; see `raidguard repair`",
            device.display(),
            other.display()
        );
        console.data("apart\n");
    }
    Ok(Exit::Done)
}
