//! What a distribution has that scrubs pools regularly: Debian's job for all of them (zfsutils-linux, `debian/tree/zfsutils-linux`), and
//! OpenZFS's timers for one (zpool-scrub(8), PERIODIC SCRUB).

use std::{path::PathBuf, time::Duration};

use super::observe::named;
use crate::{
    backend::BackendError,
    exec::Cmd,
    host::{
        Host,
        zfs::kstat::{self, SUSPENDED},
    },
};

const CRON: &str = "/etc/cron.d/zfsutils-linux";
/// What the job runs, where it is there: it scrubs each pool that is ONLINE, unless the root dataset has the property.
const SCRIPT: &str = "/usr/lib/zfs-linux/scrub";
const PROPERTY: &str = "org.debian:periodic-scrub";
const TIMERS: &str = "/etc/systemd/system/timers.target.wants";
/// How long `zfs get` may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Those of them that scrub the pool of this number, or of this name where none of its devices is there. Starts a process only where
/// Debian's job is there and the pool is imported and has not stopped.
pub(super) fn doubled(host: &Host, uuid: &str, name: &str) -> Result<Vec<String>, BackendError> {
    let pool = named(host, uuid)?.map_or_else(|| name.to_owned(), |(pool, _)| pool);
    let there = |path: &PathBuf| host.path(path).symlink_metadata().is_ok();
    let timer = |often| PathBuf::from(format!("{TIMERS}/zfs-scrub-{often}@{pool}.timer"));
    let timers = ["weekly", "monthly"].map(timer).into_iter().filter(there);
    let mut found: Vec<String> = timers.map(|path| path.display().to_string()).collect();
    if there(&CRON.into()) && there(&SCRIPT.into()) && takes(host, &pool)? {
        found.push(CRON.to_owned());
    }
    Ok(found)
}

/// Does the script scrub the pool?
fn takes(host: &Host, pool: &str) -> Result<bool, BackendError> {
    match kstat::state(host, pool)?.as_deref() {
        None | Some(SUSPENDED) => return Ok(false),
        Some(_) => {}
    }
    let asked = Cmd::probe("zfs").args(["get", "-H", "-o", "value", PROPERTY, "--", pool]).timeout(LIMIT);
    let said = host.runner().run(&asked)?;
    // It warns of any other value, and leaves the pool alone.
    Ok(matches!(said.text().trim(), "-" | "auto" | "enable"))
}
