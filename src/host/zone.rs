//! Local time: `/etc/localtime` (localtime(5)).

use std::{convert::Infallible, fs};

use super::Host;
use crate::model::Zone;

/// How local time goes on this machine. Where the file is missing or says nothing it is UTC, as it is for whoever runs the jobs.
pub fn read(host: &Host) -> Zone {
    const FILE: &str = "/etc/localtime";
    let read = || {
        let file = fs::read(host.path(FILE)).unwrap_or_default();
        Ok::<_, Infallible>(Zone::of_tzif(&file).unwrap_or_default())
    };
    host.once(FILE, read).map(|zone| Zone::clone(&zone)).unwrap_or_default()
}
