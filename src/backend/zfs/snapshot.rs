//! A snapshot's clone, which can be written to (zfs-snapshot(8), zfs-clone(8)): a dataset of its own for as long as it is looked at.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    backend::{BackendError, ParseError},
    exec::{Cmd, CmdError},
    host::{Host, files::Doing as _, mountinfo},
};

/// What a snapshot of raidguard's is called, and its clone.
const NAME: &str = "raidguard-deep";

/// The dataset that is mounted at the mirror's place, and its pool.
fn dataset_at(host: &Host, mountpoint: &Path) -> Result<(String, String), BackendError> {
    let mounts = mountinfo::read(host)?;
    let mount = mountinfo::topmost_at(&mounts, mountpoint).filter(|mount| mount.fstype == "zfs");
    let dataset = mount.and_then(|mount| mount.source.to_str()).ok_or_else(|| {
        BackendError::State(format!("no dataset of ZFS is mounted at {}", mountpoint.display()))
    })?;
    let pool = dataset.split('/').next().unwrap_or(dataset);
    Ok((dataset.to_owned(), pool.to_owned()))
}

fn snapshot_of(dataset: &str) -> String {
    format!("{dataset}@{NAME}")
}

fn taking(dataset: &str, pool: &str, to: &Path) -> [Cmd; 3] {
    let (snapshot, clone) = (snapshot_of(dataset), format!("{pool}/{NAME}"));
    let mut at = std::ffi::OsString::from("mountpoint=");
    at.push(to);
    [
        Cmd::change("zfs").args(["snapshot", &snapshot]),
        // Never mounted at a boot, should it be left.
        Cmd::change("zfs").args(["clone", "-o", "canmount=noauto", "-o"]).arg(at).args([&snapshot, &clone]),
        Cmd::change("zfs").args(["mount", &clone]),
    ]
}

/// With what hangs on it, which is the clone.
fn deleting(dataset: &str) -> Cmd {
    Cmd::destroy("zfs").args(["destroy", "-R", &snapshot_of(dataset)])
}

pub(super) fn take(host: &Host, mountpoint: &Path, data: &Path, to: &Path) -> Result<PathBuf, BackendError> {
    let (dataset, pool) = dataset_at(host, mountpoint)?;
    let mounts = mountinfo::read(host)?;
    let within = mountinfo::containing(&mounts, data).filter(|mount| mount.mountpoint == mountpoint);
    let below = data.strip_prefix(mountpoint).ok().filter(|_| within.is_some());
    let below =
        below.ok_or_else(|| BackendError::State(format!("{} is not on the mirror", data.display())))?;
    for cmd in taking(&dataset, &pool, to) {
        host.runner().run(&cmd)?;
    }
    Ok(to.join(below))
}

pub(super) fn delete(host: &Host, mountpoint: &Path, to: &Path) -> Result<(), BackendError> {
    let (dataset, _) = dataset_at(host, mountpoint)?;
    let ask = Cmd::probe("zfs").args(["list", "-Ho", "name", "-t", "snapshot", "--", &snapshot_of(&dataset)]);
    match host.runner().run(&ask) {
        Ok(output) if output.text().trim() == snapshot_of(&dataset) => {
            host.runner().run(&deleting(&dataset))?;
        }
        Ok(output) => return Err(ParseError::new("zfs list", output.text()).into()),
        Err(e) if is_absent(&e) => {}
        Err(e) => return Err(e.into()),
    }
    // ZFS makes the directory for the mount, and leaves it.
    match fs::remove_dir(host.path(to)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).doing("removing", to).map_err(Into::into),
        _ => Ok(()),
    }
}

fn is_absent(e: &CmdError) -> bool {
    e.code() == Some(1) && e.said.as_deref().is_some_and(|said| said.contains("does not exist"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_is_taken_and_goes_with_its_snapshot() {
        let lines = taking("lightning", "lightning", Path::new("/srv/lightning/.raidguard-deep"));
        let lines: Vec<_> = lines.iter().map(Cmd::line).chain([deleting("lightning").line()]).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        zfs snapshot lightning@raidguard-deep
        zfs clone -o canmount=noauto -o mountpoint=/srv/lightning/.raidguard-deep lightning@raidguard-deep lightning/raidguard-deep
        zfs mount lightning/raidguard-deep
        zfs destroy -R lightning@raidguard-deep
        ");
    }
}
