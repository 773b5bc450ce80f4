//! Whether a boot brings a pool back: it has no line in fstab, so units of systemd import what zpool.cache names, and mount it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::cache;
use crate::host::{Host, schedule::is_systemd};

/// Where the units find which pools to import (zpoolprops(7), `cachefile`).
pub const CACHE: &str = "/etc/zfs/zpool.cache";
/// What imports the pools that are named there, and what mounts them (zfs-import-cache.service, zfs-mount.service: OpenZFS,
/// `etc/systemd/system`), with the targets by which a boot starts both.
pub const UNITS: [&str; 4] =
    ["zfs-import-cache.service", "zfs-import.target", "zfs-mount.service", "zfs.target"];
/// Where systemd keeps what is enabled.
pub const LINKS: &str = "/etc/systemd/system";
/// What imports every pool that is there, where zpool.cache is empty or missing; distributions leave it disabled.
const SCAN: &str = "zfs-import-scan.service";

/// The directories with links to what a boot starts (systemctl(1), enable).
///
/// # Errors
/// They could not be listed.
pub fn wanted(host: &Host) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(host.path(LINKS)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut dirs = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|ext| ext == "wants") && path.is_dir() {
            dirs.push(path);
        }
    }
    Ok(dirs)
}

/// Those of the units that no boot starts.
///
/// # Errors
/// What a boot starts could not be read.
pub fn not_enabled(host: &Host) -> io::Result<Vec<String>> {
    let dirs = wanted(host)?;
    Ok(UNITS.into_iter().filter(|unit| !has(&dirs, unit)).map(str::to_owned).collect())
}

fn has(dirs: &[PathBuf], unit: &str) -> bool {
    dirs.iter().any(|dir| dir.join(unit).symlink_metadata().is_ok())
}

/// Is the unit kept from being started by anybody (systemctl(1), mask)?
fn is_masked(host: &Host, unit: &str) -> bool {
    let link = fs::read_link(host.path(Path::new(LINKS).join(unit)));
    link.is_ok_and(|to| to == Path::new("/dev/null"))
}

/// What keeps a boot from importing the pool of this number, in decimal, and mounting it, in words. Where another than systemd starts the
/// machine that is not known, and nothing is said of its units.
///
/// # Errors
/// What a boot starts, or which pools it imports, could not be read.
pub fn faults(host: &Host, guid: &str) -> io::Result<Vec<String>> {
    let dirs = wanted(host)?;
    let bytes = match fs::read(host.path(CACHE)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        bytes => bytes?,
    };
    // The one unit is for where there is such a file, the other for where there is none.
    if bytes.is_empty() && has(&dirs, SCAN) && !is_masked(host, SCAN) {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    let unread = |fault| io::Error::new(io::ErrorKind::InvalidData, format!("{CACHE}: {fault}"));
    if bytes.is_empty() {
        found.push(format!("{CACHE} names no pool"));
    } else if !cache::pools(&bytes).map_err(unread)?.iter().any(|(_, own)| own.to_string() == guid) {
        found.push(format!("{CACHE} does not name it"));
    }
    if is_systemd(host) {
        for unit in UNITS {
            if is_masked(host, unit) {
                found.push(format!("{unit} is masked"));
            } else if !has(&dirs, unit) {
                found.push(format!("{unit} is not enabled"));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, sync::Arc};

    use super::*;
    use crate::{exec::ScriptedRunner, health::samples};

    #[test]
    fn a_pool_comes_back_where_it_is_named_and_the_units_are_enabled() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path.trim_start_matches('/'));
        let host = Host::captured(dir.path(), Arc::new(ScriptedRunner::new()), samples::now());
        let faults = |guid: &str| super::faults(&host, guid).unwrap();
        assert_eq!(faults("10972298985683485842"), ["/etc/zfs/zpool.cache names no pool"]);
        let links = at(LINKS).join("zfs.target.wants");
        for dir in [&links, &at("/etc/zfs"), &at("/run/systemd/system")] {
            fs::create_dir_all(dir).unwrap();
        }
        for unit in UNITS {
            symlink("/usr/lib/systemd/system/x", links.join(unit)).unwrap();
        }
        fs::write(at(CACHE), include_bytes!("../../../tests/fixtures/zfs/cache/ztest.cache")).unwrap();
        assert_eq!(faults("10972298985683485842"), [] as [&str; 0]);
        assert_eq!(faults("1"), ["/etc/zfs/zpool.cache does not name it"]);
        fs::remove_file(links.join("zfs-mount.service")).unwrap();
        symlink("/dev/null", at(LINKS).join("zfs.target")).unwrap();
        let missing = ["zfs-mount.service is not enabled", "zfs.target is masked"];
        assert_eq!(faults("10972298985683485842"), missing);
        fs::write(at(CACHE), "garbage").unwrap();
        assert!(super::faults(&host, "1").is_err(), "what is not understood is not taken for one without it");
        // Every pool that is there is imported.
        fs::remove_file(at(CACHE)).unwrap();
        symlink("/usr/lib/systemd/system/x", links.join(SCAN)).unwrap();
        assert_eq!(faults("1"), [] as [&str; 0]);
    }
}
